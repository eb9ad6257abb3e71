"""Each switch of the made server does what it says, so that a property that turns it knows what it tries."""

from base64 import b64encode
from typing import Any

import pytest

from .dialogues import NTLM_NEGOTIATE, ntlm_authenticate
from .habits import (
    DEVIATIONS,
    SWITCHES,
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
from .madeserver import MadeServer
from .mechanisms import RIGHT_DIGEST, WRONG_DIGEST

BOB_RIGHT = b64encode(b"\0bob\0right")
BOB_WRONG = b64encode(b"\0bob\0wrong")


def served(data: bytes, **habits: Any) -> MadeServer:
    """Let a server with these habits read some bytes."""
    server = MadeServer(Habits(**habits))
    server.feed(data)
    return server


def judged(data: bytes, **habits: Any) -> list[tuple[bytes, bytes | None]]:
    """Return which names and passwords a server with these habits judges."""
    return [(login.name, login.password) for login in served(data, **habits).judged]


def replies(data: bytes, **habits: Any) -> bytes:
    return b"".join(MadeServer(Habits(**habits)).feed(data))


BOB_GUESSES = [(b"bob", b"guess")]


@pytest.mark.parametrize(
    ("data", "habits", "expected"),
    [
        # The line's end.
        (b"USER bob\nPASS guess\n", {}, BOB_GUESSES),
        (b"USER bob\rPASS guess\r", {}, []),
        (b"USER bob\rPASS guess\r", {"line_end": LineEnd.CR}, BOB_GUESSES),
        (b"USER bob\r\nPASS guess\r\n", {"line_end": LineEnd.CR}, BOB_GUESSES),
        (b"USER bob\nPASS guess\n", {"line_end": LineEnd.CR}, []),
        (b"USER bob\r\nPASS guess\r\n", {"line_end": LineEnd.CRLF}, BOB_GUESSES),
        (b"USER bob\nPASS guess\n", {"line_end": LineEnd.CRLF}, []),
        (b"USER bob\rPASS guess\n", {"line_end": LineEnd.EITHER}, BOB_GUESSES),
        # Blanks.
        (b"USER\tbob\nPASS\tguess\n", {"blank": Blank.TAB}, BOB_GUESSES),
        (b"USER\x0bbob\nPASS\x01guess\n", {"blank": Blank.TAB}, []),
        (b"USER\x0bbob\nPASS\x01guess\n", {"blank": Blank.CONTROL}, BOB_GUESSES),
        (b" USER bob\nPASS guess\n", {}, []),
        (b" USER bob\n PASS guess\n", {"skips_leading_blanks": True}, BOB_GUESSES),
        (b"USER bob\nPASS  guess\n", {}, [(b"bob", b" guess")]),
        (b"USER  bob\nPASS  guess\n", {"skips_blanks_behind_the_word": True}, BOB_GUESSES),
        (b"USER bob \nPASS guess \n", {}, [(b"bob ", b"guess ")]),
        (b"USER bob \nPASS guess \n", {"trims_the_end": True}, BOB_GUESSES),
        # Words.
        (b"user bob\npass guess\n", {}, BOB_GUESSES),
        (b"user bob\npass guess\n", {"any_case": False}, []),
        (b"USERbob\nPASSguess\n", {"four_letters": True}, BOB_GUESSES),
        # Buffers.
        (b"USER bob\nNOOP%sPASS guess\n" % (b"x" * 251), {"command_buffer": 255}, []),
        (
            b"USER bob\nNOOP%sPASS guess\n" % (b"x" * 251),
            {"command_buffer": 255, "rest": Rest.LINE},
            BOB_GUESSES,
        ),
        (
            b"USER bob\nPASS %s\n" % (b"x" * 300),
            {"command_buffer": 255},
            [(b"bob", b"x" * 250)],
        ),
        (b"USER bob\nPASS %s\n" % (b"x" * 300), {"command_buffer": 255, "rest": Rest.REFUSED}, []),
        (b"USER bob\nPASS %s\n" % (b"x" * 300), {"command_buffer": 255, "rest": Rest.CLOSED}, []),
        (
            b"AUTH LOGIN\n%s\n%s\n" % (b64encode(b"x" * 6000), b64encode(b"guess")),
            {"sasl_buffer": 4096, "rest": Rest.CUT},
            [(b"x" * 3072, b"guess")],
        ),
        (
            b"AUTH LOGIN %s\n%s\n" % (b64encode(b"x" * 300), b64encode(b"guess")),
            {"command_buffer": 255, "auth_has_the_sasl_buffer": False},
            [(b"x" * 183, b"guess")],
        ),
        # NUL.
        (b"USER bob\0x\nPASS guess\0x\n", {}, [(b"bob\0x", b"guess\0x")]),
        (b"USER bob\0x\nPASS guess\0x\n", {"nul": Nul.ENDS}, BOB_GUESSES),
        (b"US\0ER bob\nPASS guess\n", {"nul": Nul.SKIPPED}, BOB_GUESSES),
        # The name behind failures.
        (b"USER bob\nPASS a\nPASS guess\n", {}, [(b"bob", b"a")]),
        (
            b"USER bob\nPASS a\nPASS guess\n",
            {"after_pass": Named.KEPT},
            [(b"bob", b"a"), *BOB_GUESSES],
        ),
        (b"USER bob\nAUTH X A\nPASS guess\n", {}, []),
        (b"USER bob\nAUTH X A\nPASS guess\n", {"after_auth": Named.KEPT}, BOB_GUESSES),
        (
            b"USER zed\nAUTH PLAIN %s\nPASS guess\n" % BOB_WRONG,
            {"after_auth": Named.TAKEN},
            [(b"bob", b"wrong"), *BOB_GUESSES],
        ),
        (b"USER bob\nAPOP bob zz\nPASS guess\n", {}, []),
        (b"USER bob\nAPOP zed zz\nPASS guess\n", {"after_apop": Named.KEPT}, BOB_GUESSES),
        (
            b"APOP bob %s\nPASS guess\n" % WRONG_DIGEST,
            {"after_apop": Named.TAKEN},
            [(b"bob", None), *BOB_GUESSES],
        ),
        (b"USER bob\nSTLS\nPASS guess\n", {}, BOB_GUESSES),
        (b"USER bob\nSTLS\nPASS guess\n", {"after_other": Named.DROPPED}, []),
        (b"USER bob\nWHAT\nPASS guess\n", {"after_other": Named.DROPPED}, []),
        # Names.
        (b"USER zed\nUSER bob\nPASS guess\n", {}, BOB_GUESSES),
        (
            b"USER bob\nUSER zed\nPASS guess\n",
            {"second_user": SecondUser.REFUSED},
            BOB_GUESSES,
        ),
        (b"USER alice\nPASS guess\n", {}, [(b"alice", b"guess")]),
        (b"USER bob\nUSER x\nPASS guess\n", {"unknown_user": UnknownUser.REFUSED}, []),
        (
            b"USER bob\nUSER x\nPASS guess\n",
            {"unknown_user": UnknownUser.REFUSED_AND_KEPT},
            BOB_GUESSES,
        ),
        (b"USER bob smith\nPASS guess\n", {}, [(b"bob smith", b"guess")]),
        (b"USER bob smith\nPASS guess\n", {"names_stop_at_a_blank": True}, BOB_GUESSES),
        (
            b"AUTH LOGIN %s\n%s\n" % (b64encode(b"bob smith"), b64encode(b"guess")),
            {"names_stop_at_a_blank": True},
            BOB_GUESSES,
        ),
        # SASL.
        (b"AUTH PLAIN %s\n" % BOB_WRONG, {"initial": Initial.IGNORED}, []),
        (
            b"AUTH PLAIN %s\n%s\n" % (BOB_RIGHT, BOB_WRONG),
            {"initial": Initial.IGNORED},
            [(b"bob", b"wrong")],
        ),
        (b"AUTH PLAIN %s\n" % BOB_WRONG, {"initial": Initial.REFUSED}, []),
        (b"AUTH PLAIN AGJvYgBndWVzcw\n", {}, []),
        (b"AUTH PLAIN AGJv!YgBndWVzcw\n", {"base64": Base64.SKIPS}, BOB_GUESSES),
        (b"AUTH PLAIN AGJvYgBndWVzcw!AA\n", {"base64": Base64.STOPS}, BOB_GUESSES),
        (b"AUTH PLAIN %s\nAUTH PLAIN *\n" % BOB_WRONG, {}, [(b"bob", b"wrong")]),
        (
            b"AUTH LOGIN Ym9i\n%s\n%s\n" % (b64encode(b"a"), b64encode(b"guess")),
            {"asks_again": True},
            [(b"bob", b"a"), *BOB_GUESSES],
        ),
        (b"AUTH  PLAIN %s\n" % BOB_WRONG, {"skips_blanks_behind_the_word": True}, [(b"bob", b"wrong")]),
        (
            b"AUTH  PLAIN %s\n" % BOB_WRONG,
            {"two_blanks_are_a_bare_auth": True},
            [],
        ),
        (b"USER bob\nRPOP x\n", {}, []),
        (b"USER bob\nRPOP x\n", {"knows_rpop": True}, [(b"bob", None)]),
        # Twice the same field.
        (
            b"AUTH XOAUTH2 %s\n" % b64encode(b"user=bob\x01user=zed\x01auth=Bearer t\x01\x01"),
            {"which": Which.LAST},
            [(b"zed", b"t")],
        ),
        (
            b"AUTH XOAUTH2 %s\n" % b64encode(b"user=bob\x01user=zed\x01auth=Bearer t\x01\x01"),
            {},
            [(b"bob", b"t")],
        ),
        (
            b"AUTH DIGEST-MD5\n%s\n" % b64encode(b'username="bob",username="zed",response=1'),
            {"which": Which.LAST},
            [(b"zed", None)],
        ),
        (
            b"AUTH SCRAM-SHA-1 %s\n%s\n"
            % (b64encode(b"n,,n=bob,n=zed,r=1"), b64encode(b"c=biws,r=1,p=x")),
            {"which": Which.LAST},
            [(b"zed", None)],
        ),
    ],
)  # fmt: skip
def test_a_habit_decides_whom_the_server_judges(
    data: bytes, habits: dict[str, Any], expected: list[tuple[bytes, bytes | None]]
) -> None:
    assert judged(data, **habits) == expected


@pytest.mark.parametrize(
    ("data", "habits", "expected"),
    [
        (b"NOOP\r\n", {}, b"+OK #0\r\n"),
        (b"NOOP\r\n", {"knows_extensions": False}, b"-ERR unknown command #0\r\n"),
        (b"AUTH NTLM\r\n", {}, b"+ \r\n"),
        (b"AUTH NTLM\r\n", {"ok_continues": OkContinues.NTLM}, b"+OK #0\r\n"),
        (b"AUTH PLAIN\r\n", {"ok_continues": OkContinues.NTLM}, b"+ \r\n"),
        (b"AUTH PLAIN\r\n", {"ok_continues": OkContinues.ALWAYS}, b"+OK #0\r\n"),
        (b"AUTH PLAIN =\r\n", {}, b"-ERR #0\r\n"),
        (b"AUTH\r\n", {"bare_auth_lists": False}, b"-ERR #0\r\n"),
        (b"AUTH PLAIN\r\n*\r\n", {}, b"+ \r\n-ERR #1\r\n"),
        (b"AUTH PLAIN\r\n*\r\n", {"star": Star.ASKED_AGAIN}, b"+ \r\n+ \r\n"),
        (b"NOOP\r\n", {"extra": Extra.ERR, "extra_behind": b"NOOP"}, b"+OK #0\r\n-ERR as well\r\n"),
        (b"WHAT\r\nNOOP\r\n", {"swallows": Swallows.UNKNOWN}, b"+OK #1\r\n"),
        (b"\r\nNOOP\r\n", {"swallows": Swallows.EMPTY}, b"+OK #1\r\n"),
        (b"A\r\nNOOP\r\n", {"bad_commands": 1}, b"-ERR unknown command #0\r\n"),
        (b"STAT\r\n", {}, b"-ERR unknown command #0\r\n"),
        (b"USER bob\r\nPASS right\r\nSTAT\r\n", {}, b"+OK #0\r\n+OK #1\r\n+OK #2\r\n"),
        (b"QUIT\r\nNOOP\r\n", {}, b"+OK #0\r\n"),
    ],
)  # fmt: skip
def test_a_habit_decides_what_the_server_answers(
    data: bytes, habits: dict[str, Any], expected: bytes
) -> None:
    assert replies(data, **habits) == expected


@pytest.mark.parametrize(
    ("lines", "name", "password"),
    [
        ([b"USER bob", b"PASS right"], b"bob", b"right"),
        ([b"APOP bob " + RIGHT_DIGEST], b"bob", None),
        ([b"AUTH PLAIN", BOB_RIGHT], b"bob", b"right"),
        ([b"AUTH LOGIN", b64encode(b"bob"), b64encode(b"right")], b"bob", b"right"),
        ([b"AUTH CRAM-MD5", b64encode(b"bob " + RIGHT_DIGEST)], b"bob", None),
        (
            [b"AUTH DIGEST-MD5", b64encode(b'username="bob",response=' + RIGHT_DIGEST), b""],
            b"bob",
            None,
        ),
        (
            [b"AUTH SCRAM-SHA-1 " + b64encode(b"n,,n=bob,r=1"), b64encode(b"c=biws,r=1,p=right")],
            b"bob",
            None,
        ),
        ([b"AUTH XOAUTH2", b64encode(b"user=bob\x01auth=Bearer right\x01\x01")], b"bob", b"right"),
        (
            [b"AUTH OAUTHBEARER", b64encode(b"n,a=bob,\x01auth=Bearer right\x01\x01")],
            b"bob",
            b"right",
        ),
        ([b"AUTH EXTERNAL", b64encode(b"bob")], b"bob", None),
        ([b"AUTH ANONYMOUS", b64encode(b"me@here")], b"me@here", None),
        (
            [
                b"AUTH NTLM",
                b64encode(NTLM_NEGOTIATE),
                b64encode(ntlm_authenticate(b"bob", b"right")),
            ],
            b"bob",
            None,
        ),
        ([b"AUTH GSSAPI", b64encode(b"token"), b64encode(b"right")], b"", None),
    ],
)
def test_the_server_lets_each_mechanism_in(
    lines: list[bytes], name: bytes, password: bytes | None
) -> None:
    server = served(b"".join(line + b"\r\n" for line in lines))
    assert server.logged_in
    assert [(login.name, login.password) for login in server.judged] == [(name, password)]


def test_the_server_has_all_the_switches_that_it_must_have() -> None:
    assert len(SWITCHES) >= 14
    assert {deviation.name for deviation in DEVIATIONS} == set(SWITCHES)


def test_a_line_is_answered_under_its_number() -> None:
    server = served(b"NOOP\r\nCAPA\r\nWHAT\r\n")
    assert server.lines == [b"NOOP", b"CAPA", b"WHAT"]
    assert server.bodies == {1}
