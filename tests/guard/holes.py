"""Ways past a guard that servers have opened: habits, and what a client says to make use of them.

Each is the shortest dialogue that the property found, or would have to find, if the guard did not look there.
"""

from base64 import b64encode as _b64
from dataclasses import dataclass, field
from typing import Any

from .dialogues import NTLM_NEGOTIATE, Dialogue, ntlm_authenticate
from .habits import (
    Base64,
    Blank,
    Extra,
    Habits,
    Initial,
    LineEnd,
    Named,
    Nul,
    OkContinues,
    Rest,
    SecondUser,
    Star,
    Swallows,
    UnknownUser,
    Which,
)
from .mechanisms import WRONG_DIGEST


@dataclass(frozen=True)
class Hole:
    """What a server is like, and what a client says to it; ``said`` are groups of lines without their end."""

    name: str
    said: tuple[bytes, ...]
    habits: dict[str, Any] = field(default_factory=dict)
    refuses: frozenset[int] = frozenset()

    @property
    def server(self) -> Habits:
        return Habits(**self.habits)

    def dialogue(self, piece: int = 0, reply_piece: int = 0) -> Dialogue:
        """Return what the client says, in pieces of so many bytes."""
        groups = tuple((group + b"\r\n",) for group in self.said)
        return Dialogue(groups, piece, refuses=self.refuses, reply_piece=reply_piece)


_ZED = b"AUTH PLAIN " + _b64(b"\0zed\0wrong")
_LATER = (b"USER zed", b"PASS wrong")

HOLES = (
    Hole(
        "two blanks behind AUTH are a bare AUTH",
        (b"AUTH  PLAIN", *_LATER),
        {"two_blanks_are_a_bare_auth": True},
    ),
    Hole(
        "two blanks behind AUTH are a bare AUTH, whatever follows",
        (b"AUTH  PLAIN " + _b64(b"\0bob\0wrong"), *_LATER),
        {"two_blanks_are_a_bare_auth": True},
    ),
    Hole(
        "two blanks behind AUTH are one",
        (b"AUTH  PLAIN", _b64(b"\0zed\0wrong")),
        {"skips_blanks_behind_the_word": True},
    ),
    Hole(
        "a second USER is refused",
        (b"USER bob\r\nUSER zed\r\nPASS wrong",),
        {"second_user": SecondUser.REFUSED},
    ),
    Hole(
        "a USER that is refused leaves the name before it",
        (b"USER bob", b"USER alice", b"PASS wrong"),
        {"unknown_user": UnknownUser.REFUSED_AND_KEPT},
    ),
    Hole(
        "the name stays behind a refused AUTH",
        (b"USER bob", b"AUTH FOO AAAA", b"PASS wrong"),
        {"after_auth": Named.KEPT},
    ),
    Hole(
        "the name of a failed AUTH stays",
        (b"USER bob", _ZED, b"PASS wrong"),
        {"after_auth": Named.TAKEN},
    ),
    Hole(
        "the name stays behind a failed APOP",
        (b"USER bob", b"APOP zed " + WRONG_DIGEST, b"PASS wrong"),
        {"after_apop": Named.KEPT},
    ),
    Hole(
        "the name of a failed APOP stays",
        (b"USER bob", b"APOP zed " + WRONG_DIGEST, b"PASS wrong"),
        {"after_apop": Named.TAKEN},
    ),
    Hole(
        "the name stays behind a failed PASS",
        (b"USER bob", b"PASS wrong", b"USER zed", b"PASS wrong"),
        {"after_pass": Named.KEPT, "second_user": SecondUser.REFUSED},
    ),
    Hole(
        "the name stays behind a denied PASS",
        (b"USER bob", b"PASS wrong", b"USER zed", b"PASS wrong"),
        {"second_user": SecondUser.REFUSED},
        frozenset({0}),
    ),
    Hole(
        "the name stays behind a denied AUTH",
        (b"USER bob", _ZED, b"PASS wrong"),
        {"after_auth": Named.TAKEN},
        frozenset({0}),
    ),
    Hole(
        "a +OK asks for the first response",
        (b"AUTH LOGIN", _b64(b"zed"), _b64(b"wrong")),
        {"ok_continues": OkContinues.ALWAYS},
    ),
    Hole(
        "a +OK asks for the first response to NTLM",
        (b"AUTH NTLM", _b64(NTLM_NEGOTIATE), _b64(ntlm_authenticate(b"zed", b"wrong"))),
        {"ok_continues": OkContinues.NTLM},
    ),
    Hole(
        "a line ends at CR",
        (b"USER bob", b"NOOP\rUSER zed", b"PASS wrong"),
        {"line_end": LineEnd.EITHER},
    ),
    Hole(
        "a line ends at CR LF only",
        (b"USER bob\nUSER zed", b"PASS wrong"),
        {"line_end": LineEnd.CRLF},
    ),
    Hole("a TAB is a blank", (b"USER bob", b"USER\tzed", b"PASS wrong"), {"blank": Blank.TAB}),
    Hole(
        "a control byte is a blank",
        (b"USER bob", b"USER\x0bzed", b"PASS wrong"),
        {"blank": Blank.CONTROL},
    ),
    Hole(
        "blanks before the word are skipped",
        (b"USER bob", b" USER zed", b"PASS wrong"),
        {"skips_leading_blanks": True},
    ),
    Hole(
        "a word has four letters",
        (b"USER bob", b"PASSwrong"),
        {"four_letters": True},
    ),
    Hole(
        "a NUL ends the string",
        (b"USER bob\0by", b"PASS wrong"),
        {"nul": Nul.ENDS},
    ),
    Hole(
        "a NUL is skipped",
        (b"USER bob", b"PA\0SS wrong"),
        {"nul": Nul.SKIPPED},
    ),
    Hole(
        "a NUL ends a name in base64",
        (b"AUTH LOGIN", _b64(b"zed\0by"), _b64(b"wrong")),
        {"nul": Nul.ENDS},
    ),
    Hole(
        "the rest of a long line is a line",
        (b"USER bob", b"NOOP ".ljust(255, b"x") + b"USER zed", b"PASS wrong"),
        {"command_buffer": 255, "rest": Rest.LINE},
    ),
    Hole(
        "the rest of a long password is a line",
        (b"USER bob\r\n" + b"PASS ".ljust(512, b"x") + _ZED,),
        {"command_buffer": 512, "rest": Rest.LINE},
    ),
    Hole(
        "the rest of a long response is a line",
        (b"AUTH PLAIN", _b64(b"\0bob\0" + b"x" * 3067) + b"AUTH PLAIN", _b64(b"\0zed\0wrong")),
        {"sasl_buffer": 4096, "rest": Rest.LINE},
    ),
    Hole(
        "the rest of a long initial response is a response",
        (b"AUTH LOGIN " + _b64(b"x" * 300), _b64(b"wrong")),
        {"command_buffer": 255, "auth_has_the_sasl_buffer": False, "rest": Rest.LINE},
    ),
    Hole(
        "the end of a long name is cut off",
        (b"AUTH LOGIN " + _b64(b"x" * 300), _b64(b"wrong")),
        {"command_buffer": 255, "auth_has_the_sasl_buffer": False},
    ),
    Hole(
        "the replies to a long line come one by one",
        (
            b"USER bob\r\n"
            + b"PASS ".ljust(600, b"x")
            + b"\r\nUSER zed\r\nNOOP\r\nUSER bob\r\nPASS wrong",
        ),
        {
            "command_buffer": 255,
            "rest": Rest.LINE,
            "writes_apart": True,
            "second_user": SecondUser.REFUSED,
        },
    ),
    Hole(
        "what is no base64 is skipped",
        (b"AUTH LOGIN", b"em!Vk", _b64(b"wrong")),
        {"base64": Base64.SKIPS},
    ),
    Hole(
        "what is no base64 ends it",
        (b"AUTH LOGIN", b"emVk!Ym9i", _b64(b"wrong")),
        {"base64": Base64.STOPS},
    ),
    Hole(
        "a blank in base64 ends it",
        (b"AUTH LOGIN", b"emVk Ym9i", _b64(b"wrong")),
        {"base64": Base64.STOPS},
    ),
    Hole(
        "padding may be missing",
        (b"AUTH PLAIN", _b64(b"\0zed\0wrong").rstrip(b"=")),
        {"base64": Base64.SKIPS},
    ),
    Hole(
        "the last of two names counts, in DIGEST-MD5",
        (
            b"AUTH DIGEST-MD5",
            _b64(b'username="bob",username="zed",response=' + WRONG_DIGEST),
        ),
        {"which": Which.LAST},
    ),
    Hole(
        "the last of two names counts, in XOAUTH2",
        (b"AUTH XOAUTH2", _b64(b"user=bob\x01user=zed\x01auth=Bearer t\x01\x01")),
        {"which": Which.LAST},
    ),
    Hole(
        "the last of two names counts, in OAUTHBEARER",
        (b"AUTH OAUTHBEARER", _b64(b"n,a=bob,a=zed,\x01auth=Bearer t\x01\x01")),
        {"which": Which.LAST},
    ),
    Hole(
        "the last of two names counts, in SCRAM",
        (b"AUTH SCRAM-SHA-1", _b64(b"n,,n=bob,n=zed,r=1"), _b64(b"c=biws,r=1,p=x")),
        {"which": Which.LAST},
    ),
    Hole(
        "blanks before a name are skipped",
        (b"AUTH CRAM-MD5", _b64(b" zed " + WRONG_DIGEST)),
        {"skips_blanks_before_names": True},
    ),
    Hole(
        "the account is in the realm",
        (b"AUTH DIGEST-MD5", _b64(b'username="zed",realm="made",response=' + WRONG_DIGEST), b""),
        {"joins_the_realm": True},
    ),
    Hole(
        "NTLM names are in the encoding that the server has chosen",
        (b"AUTH NTLM", _b64(NTLM_NEGOTIATE), _b64(ntlm_authenticate(b"zed", b"wrong"))),
        {"ntlm_is_oem": True},
    ),
    Hole(
        "a NUL ends a name, in NTLM",
        (b"AUTH NTLM", _b64(NTLM_NEGOTIATE), _b64(ntlm_authenticate(b"zed\0bob", b"wrong"))),
        {"nul": Nul.ENDS},
    ),
    Hole(
        "an initial response is ignored",
        (_ZED, _b64(b"\0bob\0wrong")),
        {"initial": Initial.IGNORED},
    ),
    Hole(
        "an initial response of CRAM-MD5 is read",
        (b"AUTH CRAM-MD5 " + _b64(b"zed " + WRONG_DIGEST), *_LATER),
    ),
    Hole(
        "a wrong password is asked for again",
        (b"AUTH LOGIN", _b64(b"zed"), _b64(b"wrong"), _b64(b"other")),
        {"asks_again": True},
    ),
    Hole(
        "a status line more comes with a reply",
        (b"USER bob", b"USER zed", b"NOOP", b"PASS wrong"),
        {"extra": Extra.OK, "second_user": SecondUser.REFUSED},
    ),
    Hole(
        "a farewell is none",
        (b"USER bob", b"USER zed", b"PASS wrong"),
        {"extra": Extra.FAREWELL, "extra_behind": b"USER"},
    ),
    Hole(
        "an empty line is not answered",
        (b"\r\nUSER bob\r\nUSER zed\r\nPASS wrong",),
        {"swallows": Swallows.EMPTY, "second_user": SecondUser.REFUSED},
    ),
    Hole(
        "an unknown command is not answered",
        (b"WHAT\r\nUSER bob\r\nUSER zed\r\nPASS wrong",),
        {"swallows": Swallows.UNKNOWN, "second_user": SecondUser.REFUSED},
    ),
    Hole(
        "a name in USER ends at its blank",
        (b"USER zed smith", b"PASS wrong"),
        {"names_stop_at_a_blank": True},
    ),
    Hole(
        "a name in AUTH ends at its blank",
        (b"AUTH PLAIN " + _b64(b"\0zed smith\0wrong"),),
        {"names_stop_at_a_blank": True},
    ),
    Hole(
        "a status line more comes with a challenge",
        (b"AUTH ANONYMOUS", b"USER bob"),
        {"extra": Extra.ERR, "extra_behind": b"AUTH", "base64": Base64.SKIPS},
    ),
    Hole(
        "a cancelled exchange goes on",
        (b"AUTH LOGIN", b"no base64", b"NOOP"),
        {"star": Star.ASKED_AGAIN},
    ),
    Hole(
        "a cancelled exchange is asked again",
        (b"AUTH LOGIN", b"", _b64(b"right")),
        {"star": Star.ASKED_AGAIN},
    ),
    Hole("RPOP is a login", (b"USER bob", b"RPOP zed"), {"knows_rpop": True}),
)
