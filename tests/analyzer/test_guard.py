"""The guard's whitelist as a table: which lines pass before a login, in which order, and which do not."""

import base64
import random
from collections.abc import Callable

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import (
    AUTHORIZATION,
    TRANSACTION,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Reason,
    Request,
    Side,
    StartTLS,
    Unexpected,
)
from pop3proxy.analyzer.grammar import COMMANDS
from pop3proxy.analyzer.guard import (
    MAX_NOT_PASSED,
    Guard,
    GuardOptions,
    Strictness,
    _is_safe_when_long,
)
from pop3proxy.analyzer.saslforms import sasl_form
from pop3proxy.analyzer.steps import Step

from .player import new_connection

C, S = Side.CLIENT, Side.SERVER
LOGINS: frozenset[type[Event]] = frozenset({LoginAttempt})
DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"


def b64(message: bytes) -> bytes:
    return base64.b64encode(message)


PLAIN = b64(b"\0bob\0secret")


class Guarded:
    """A session behind its greeting, about whose logins somebody decides."""

    def __init__(self, options: GuardOptions | None = None) -> None:
        self.analyzer = Analyzer(
            new_connection(), gated=LOGINS, guard=options if options is not None else GuardOptions()
        )
        self.hears(b"+OK ready")

    def hears(self, *lines: bytes) -> list[Event]:
        """Have the server say lines."""
        self.analyzer.feed(S, b"".join(line + b"\r\n" for line in lines), 0.0)
        return [event for step in self._pull(S) for event in step.events]

    def _pull(self, side: Side) -> list[Step]:
        steps = []
        while (step := self.analyzer.next(side)) is not None:
            steps.append(step)
        return steps

    def says(self, line: bytes, end: bytes = b"\r\n") -> Step:
        """Have the client say a line; one that does not pass is answered."""
        self.analyzer.feed(C, line + end, 0.0)
        (step,) = self._pull(C)
        if step.refusal is not None:
            if self.analyzer.refused(step):
                self.hears(b"-ERR cancelled")
            self.analyzer.answered(step.refusal.reply, 0.0)
        return step

    def passes(self, line: bytes, *answer: bytes) -> bool:
        """Return whether a line passes; if so, the server answers."""
        passed = self.says(line).refusal is None
        if passed and answer:
            self.hears(*answer)
        return passed

    def denies(self, line: bytes) -> None:
        """Have a hook deny a line that passes the guard."""
        step = self.says(line)
        assert step.refusal is None
        self.analyzer.refused(step)
        self.analyzer.answered(b"-ERR no\r\n", 0.0)

    def named(self) -> "Guarded":
        assert self.passes(b"USER bob", b"+OK")
        return self


def passes(line: bytes, options: GuardOptions | None = None, end: bytes = b"\r\n") -> bool:
    """Return whether a line passes at the beginning of a session; PASS has its USER."""
    session = Guarded(options)
    if line[:4].upper() == b"PASS":
        session.named()
    return session.says(line, end).refusal is None


# --- words and forms ------------------------------------------------------------------------------------

BEFORE_LOGIN = {
    b"USER",
    b"PASS",
    b"APOP",
    b"QUIT",
    b"NOOP",
    b"CAPA",
    b"STLS",
    b"AUTH",
    b"UTF8",
    b"LANG",
}

PASSING = [
    *(
        b"USER bob",
        b"user bob",
        b"uSeR bob",
        b"USER b\xf6b",
        b"USER bob@example.org",
        b"USER First Last",
    ),
    *(b"USER bob ", b"USER PASS"),
    *(
        b"PASS secret",
        b"pass secret",
        b"PASS",
        b"PASS ",
        b"PASS  x ",
        b"PASS a b",
        b"PASS \t\x01\xff\x7f",
    ),
    *(b"APOP bob " + DIGEST, b"apop bob " + DIGEST.upper(), b"APOP First Last " + DIGEST),
    *(
        b"QUIT",
        b"quit",
        b"QUIT ",
        b"NOOP",
        b"NOOP  ",
        b"CAPA",
        b"CAPA ",
        b"STLS",
        b"STLS ",
        b"UTF8",
        b"UTF8 ",
    ),
    *(b"LANG", b"LANG ", b"LANG en", b"LANG i-default", b"LANG *"),
    *(b"AUTH", b"AUTH ", b"AUTH   ", b"AUTH PLAIN", b"auth plain", b"AUTH PLAIN " + PLAIN),
]

NOT_PASSING = [
    # A blank, or what some servers take for one, before the word, behind it, or twice.
    *(
        b" USER bob",
        b"\tUSER bob",
        b"\0USER bob",
        b"USER  bob",
        b"USER\tbob",
        b"USER\0bob",
        b"USER\x0bbob",
    ),
    *(
        b" NOOP",
        b"NOOP\t",
        b" CAPA",
        b"AUTH  PLAIN",
        b"AUTH\tPLAIN",
        b" AUTH",
        b"AUTH PLAIN  " + PLAIN,
    ),
    *(b" PASS secret", b"PASS\tsecret", b" STLS", b"STLS\t", b"APOP  bob " + DIGEST, b"APOP bob  "),
    # NUL, a bare CR and control bytes.
    *(b"USER bob\0", b"USER bo\0b", b"USER bob\r", b"USER bo\rb", b"USER bo\x01b", b"USER bo\tb"),
    *(
        b"USER bo\x7fb",
        b"PASS x\0",
        b"PASS x\ry",
        b"PASS x\r",
        b"CAPA\r",
        b"CAPA\0",
        b"NOOP\rUSER bob",
    ),
    *(b"AUTH PLAIN\r", b"AUTH PLAIN\0", b"LANG e\0n", b"QUIT\r", b"STLS\0"),
    # Arguments that are not of their form.
    *(b"USER", b"USER ", b"NOOP x", b"CAPA x", b"STLS now", b"QUIT now", b"UTF8 x", b"LANG en fr"),
    *(
        b"LANG " + b"x" * 41,
        b"APOP bob",
        b"APOP bob zz",
        b"APOP " + DIGEST,
        b"APOP bob " + DIGEST + b" ",
    ),
    *(b"APOP bob " + DIGEST + b"0", b"APOP bob " + DIGEST[1:], b"APOP bob\t" + DIGEST),
    *(
        b"APOP bob " + DIGEST + b" more",
        b"AUTH PLA.IN",
        b"AUTH " + b"X" * 21,
        b"AUTH PLAIN " + PLAIN + b" x",
    ),
    *(
        b"AUTH PLAIN " + PLAIN + b" ",
        b"AUTH PLAIN ",
        b"AUTH PLAIN *",
        b"AUTH PLAIN ==",
        b"AUTH PLAIN !",
    ),
    # Words that are no commands, and what is not known to be a command before the login.
    *(
        b"",
        b" ",
        b"EHLO me",
        b"GET / HTTP/1.0",
        b"USERS bob",
        b"USE",
        b"USER:bob",
        b"PASS:x",
        b"PASSx",
    ),
    *(b"XYZZY", b"\x16\x03\x01", b"bob", b"*", b".", b"=", PLAIN, b"\xef\xbb\xbfUSER bob"),
    *(
        b"RPOP bob",
        b"XCLIENT ADDR=192.0.2.7",
        b"XOIP 192.0.2.7",
        b"LAST",
        b"XTND XMIT",
        b"XTND BBOARDS",
    ),
    *(
        b"STAT",
        b"LIST",
        b"LIST 1",
        b"RETR 1",
        b"DELE 1",
        b"RSET",
        b"TOP 1 0",
        b"UIDL",
        b"XSENDER 1",
    ),
]


@pytest.mark.parametrize("line", PASSING)
def test_a_strict_line_passes(line: bytes) -> None:
    assert passes(line)


@pytest.mark.parametrize("line", NOT_PASSING)
def test_any_other_line_does_not(line: bytes) -> None:
    assert not passes(line)


@pytest.mark.parametrize("line", PASSING)
def test_an_end_of_lf_alone_passes(line: bytes) -> None:
    assert passes(line, end=b"\n")


def test_the_table_says_which_words_pass_before_the_login() -> None:
    assert {word for word, row in COMMANDS.items() if row.before_login} == BEFORE_LOGIN


@pytest.mark.parametrize("word", sorted(COMMANDS))
def test_every_word_of_the_table_has_lines_that_pass_or_not(word: bytes) -> None:
    lines = PASSING if word in BEFORE_LOGIN else NOT_PASSING
    assert [line for line in lines if line.split(b" ")[0].upper() == word]


@pytest.mark.parametrize("word", sorted(set(COMMANDS) - BEFORE_LOGIN))
def test_no_other_word_passes_alone(word: bytes) -> None:
    assert not passes(word)
    assert not passes(word + b" 1")


# --- lengths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("length", [252, 253])
@pytest.mark.parametrize("head", [b"USER ", b"NOOP", b"PASS a b ", b"AUTH XOAUTH2 "])
def test_a_line_of_255_bytes_with_its_end_passes(head: bytes, length: int, end: bytes) -> None:
    fill = {b"NOOP": b" ", b"PASS a b ": b"x"}.get(head, b"x")
    line = head.ljust(length, fill)
    if head == b"AUTH XOAUTH2 ":
        token = b"user=bob\x01auth=Bearer "
        size = (length - len(head)) // 4 * 3
        line = head + b64(token.ljust(size - 2, b"t") + b"\x01\x01")
    assert len(line) <= length
    assert passes(line, end=end)


@pytest.mark.parametrize("length", [254, 255, 256, 1000])
@pytest.mark.parametrize(
    "head", [b"USER ", b"NOOP ", b"CAPA ", b"USER bob ", b"AUTH ", b"AUTH PLAIN "]
)
def test_a_longer_line_does_not(head: bytes, length: int) -> None:
    fill = b" " if head.split() in ([b"NOOP"], [b"CAPA"], [b"AUTH"]) else b"x"
    assert not passes(head.ljust(length, fill))


def test_apop_of_255_bytes_passes_and_of_more_does_not() -> None:
    name = b"x" * (253 - len(b"APOP  ") - len(DIGEST))
    assert passes(b"APOP " + name + b" " + DIGEST)
    assert not passes(b"APOP x" + name + b" " + DIGEST)


@pytest.mark.parametrize("length", [254, 255, 300, 8000])
def test_a_long_password_passes_without_a_blank(length: int) -> None:
    assert passes(b"PASS ".ljust(length, b"x"))


@pytest.mark.parametrize("byte", [b" ", b"\t", b"\x01", b"\x1f", b"\x7f"])
@pytest.mark.parametrize("at", [6, 150, 280])
def test_a_long_password_with_a_blank_does_not(byte: bytes, at: int) -> None:
    line = bytearray(b"PASS ".ljust(300, b"x"))
    line[at : at + 1] = byte
    assert not passes(bytes(line))


@pytest.mark.parametrize("word", sorted(COMMANDS))
@pytest.mark.parametrize("case", [bytes.upper, bytes.lower])
def test_a_long_password_does_not_pass_that_ends_in_a_command_word(word: bytes, case: type) -> None:
    assert not passes(b"PASS ".ljust(300, b"x") + case(word))
    assert passes(b"PASS ".ljust(300, b"x") + case(word) + b"y")


def test_a_short_password_may_end_in_a_command_word() -> None:
    assert passes(b"PASS quit")


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        (b"XOAUTH2", b"user=bob\x01auth=Bearer %s\x01\x01"),
        (b"OAUTHBEARER", b"n,a=bob,\x01auth=Bearer %s\x01\x01"),
        (b"GSSAPI", b"%s"),
        (b"PLAIN", b"\0bob\0%s"),
    ],
)
def test_a_long_initial_response_passes_of_a_mechanism_that_can_have_one(
    mechanism: bytes, message: bytes
) -> None:
    assert passes(b"AUTH " + mechanism + b" " + b64(message % (b"t" * 600)))


@pytest.mark.parametrize("mechanism", [b"LOGIN", b"EXTERNAL", b"NTLM"])
def test_a_long_initial_response_does_not_of_another(mechanism: bytes) -> None:
    message = {b"NTLM": b"NTLMSSP\0\x01\0\0\0"}.get(mechanism, b"")
    assert not passes(b"AUTH " + mechanism + b" " + b64(message + b"x" * 300))


@pytest.mark.parametrize("word", [b"STLS", b"AUTH", b"QUIT"])
def test_a_long_initial_response_does_not_pass_that_ends_in_a_command_word(word: bytes) -> None:
    text = b64(b"x" * 300) + word
    assert not passes(b"AUTH GSSAPI " + text)
    assert passes(b"AUTH GSSAPI " + text + b"XXXX")


TOKENS = random.Random("tokens")


@pytest.mark.parametrize("size", [200, 1_000, 4_000, 12_000])
@pytest.mark.parametrize("token", [TOKENS.randbytes, bytes])
def test_long_tokens_pass_whatever_their_bytes_are(
    token: Callable[[int], bytes], size: int
) -> None:
    text = b64(token(size))
    assert passes(b"AUTH GSSAPI " + text)
    session = Guarded()
    assert session.passes(b"AUTH GSSAPI", b"+ ")
    assert session.passes(text)


def test_a_long_response_of_ntlm_passes() -> None:
    session = Guarded()
    assert session.passes(b"AUTH NTLM", b"+ ")
    assert session.passes(b64(NTLM_1), b"+ ")
    assert session.passes(b64(NTLM_3 + "a long user name".encode("utf-16-le") * 20))


@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_no_login_hides_in_the_rest_of_a_long_token(mechanism: str, shift: int) -> None:
    form = sasl_form(mechanism)
    assert form is not None
    hidden = b64(b"user=eve\x01AUTH=Bearer t\x01\x01").rstrip(b"=")
    text = b"A" * (300 + shift) + hidden
    assert not _is_safe_when_long(text, form)
    assert _is_safe_when_long(text.replace(hidden, b"A" * len(hidden)), form)


@pytest.mark.parametrize(("length", "ends"), [(253, ""), (254, "long_login"), (300, "long_login")])
def test_behind_a_long_pass_that_is_refused_the_session_ends(length: int, ends: str) -> None:
    session = Guarded().named()
    assert session.passes(b"PASS ".ljust(length, b"x"))
    session.analyzer.feed(S, b"-ERR no\r\n", 0.0)
    step = session.analyzer.next(S)
    assert step is not None
    assert step.ends == ends


def test_behind_a_long_pass_that_is_accepted_it_goes_on() -> None:
    session = Guarded().named()
    assert session.passes(b"PASS ".ljust(300, b"x"))
    session.analyzer.feed(S, b"+OK\r\n", 0.0)
    step = session.analyzer.next(S)
    assert step is not None
    assert (step.ends, session.analyzer.state) == ("", TRANSACTION)


@pytest.mark.parametrize(
    ("length", "ends"), [(4000, ""), (4096, "long_login"), (9000, "long_login")]
)
def test_behind_a_long_response_that_is_refused_the_session_ends(length: int, ends: str) -> None:
    session = Guarded()
    assert session.passes(b"AUTH GSSAPI", b"+ ")
    assert session.passes(b"A" * length)
    session.analyzer.feed(S, b"-ERR no\r\n", 0.0)
    step = session.analyzer.next(S)
    assert step is not None
    assert step.ends == ends


# --- the order of USER and PASS -------------------------------------------------------------------------

KEEP = [
    (b"CAPA", [b"+OK", b"."]),
    (b"CAPA", [b"-ERR"]),
    (b"NOOP", [b"-ERR"]),
    (b"UTF8", [b"+OK"]),
    (b"LANG en", [b"+OK"]),
    (b"LANG", [b"+OK", b"."]),
]
FORGET = [
    (b"AUTH", [b"+OK", b"."]),
    (b"AUTH PLAIN", [b"-ERR"]),
    (b"AUTH PLAIN " + PLAIN, [b"-ERR no"]),
    (b"APOP eve " + DIGEST, [b"-ERR"]),
    (b"PASS wrong", [b"-ERR"]),
    (b"STLS", [b"-ERR"]),
    (b"USER zed", [b"-ERR"]),
    (b"QUIT", [b"-ERR"]),
]


@pytest.mark.parametrize(("line", "answer"), KEEP)
def test_between_user_and_pass_may_come_what_changes_nothing(
    line: bytes, answer: list[bytes]
) -> None:
    session = Guarded().named()
    assert session.passes(line, *answer)
    assert session.passes(b"PASS x")


@pytest.mark.parametrize(("line", "answer"), FORGET)
def test_behind_anything_else_the_name_is_gone(line: bytes, answer: list[bytes]) -> None:
    session = Guarded().named()
    assert session.passes(line, *answer)
    assert session.says(b"PASS x").refusal is not None
    assert session.named().passes(b"PASS x")


@pytest.mark.parametrize(
    "line",
    [b"AUTH X AAAA", b"AUTH  PLAIN", b"AUTH CRAM-MD5 AAAA", b"APOP eve zz", b"STLS now"],
)
def test_the_name_is_gone_also_behind_a_login_that_is_not_passed(line: bytes) -> None:
    session = Guarded().named()
    assert not session.passes(line)
    assert not session.passes(b"PASS x")


@pytest.mark.parametrize(
    "line", [b"AUTH PLAIN", b"APOP eve " + DIGEST, b"STLS", b"PASS wrong", b"USER zed"]
)
def test_the_name_is_gone_also_behind_a_login_that_is_denied(line: bytes) -> None:
    session = Guarded().named()
    session.denies(line)
    assert not session.passes(b"PASS x")


@pytest.mark.parametrize(
    "line", [b"EHLO me", b"", b" USER eve", b"USER", b"STAT", b"NOOP x", b"XCLIENT A=1"]
)
def test_other_lines_that_were_answered_here_do_not_count(line: bytes) -> None:
    session = Guarded().named()
    assert not session.passes(line)
    assert session.passes(b"PASS x")


def test_a_user_that_the_server_refused_is_no_name() -> None:
    session = Guarded()
    assert session.passes(b"USER bob", b"-ERR")
    assert not session.passes(b"PASS x")


def test_the_last_user_that_was_accepted_is_the_name() -> None:
    session = Guarded().named()
    assert session.passes(b"USER zed", b"+OK")
    (_, attempt) = session.says(b"PASS x").events
    assert isinstance(attempt, LoginAttempt)
    assert attempt.user == "zed"


def test_a_pass_without_a_name_is_answered_and_is_no_attempt() -> None:
    session = Guarded()
    step = session.says(b"PASS secret")
    assert step.refusal is not None
    assert (step.refusal.reply, step.refusal.reason) == (b"-ERR Send USER first.\r\n", None)
    assert [type(event) for event in step.events] == [Request, Unexpected]
    assert session.analyzer.attempts == 0


# --- exchanges ------------------------------------------------------------------------------------------

CLIENT_FIRST = b"n,,n=bob,r=abc"
CLIENT_FINAL = b"c=biws,r=abcdef,p=dHM9"
DIGEST_MD5 = (
    b'username="bob",realm="r",nonce="n",cnonce="c",nc=00000001,qop=auth,digest-uri="pop/x"'
)
DIGEST_MD5 += b",response=" + DIGEST
NTLM_1 = b"NTLMSSP\0\x01\0\0\0" + bytes(20)
NTLM_3 = b"NTLMSSP\0\x03\0\0\0" + bytes(60)

FITTING: list[tuple[bytes, list[bytes]]] = [
    (b"PLAIN", [b"\0bob\0secret"]),
    (b"PLAIN", [b"bob\0bob\0secret"]),
    (b"PLAIN", [b"\0b\xf6b\0"]),
    (b"PLAIN", [b"\0First Last\0a b\tc"]),
    (b"LOGIN", [b"bob", b"secret"]),
    (b"LOGIN", [b"First Last", b" "]),
    (b"LOGIN", [b"bob", b""]),
    (b"CRAM-MD5", [b"bob " + DIGEST]),
    (b"CRAM-MD5", [b"First Last " + DIGEST]),
    (b"DIGEST-MD5", [DIGEST_MD5]),
    (b"DIGEST-MD5", [DIGEST_MD5.replace(b",", b", "), b""]),
    (b"SCRAM-SHA-1", [CLIENT_FIRST, CLIENT_FINAL, b""]),
    (b"SCRAM-SHA-256", [b"y,a=eve,n=b=2Cob,r=abc,x=1", CLIENT_FINAL]),
    (b"SCRAM-SHA-256-PLUS", [b"p=tls-unique,,n=bob,r=abc", CLIENT_FINAL]),
    (b"XOAUTH2", [b"user=bob\x01auth=Bearer tok.en\x01\x01"]),
    (b"XOAUTH2", [b"user=bob\x01auth=Bearer tok.en\x01\x01", b""]),
    (b"OAUTHBEARER", [b"n,a=bob,\x01host=h\x01port=110\x01auth=Bearer t\x01\x01", b"\x01"]),
    (b"EXTERNAL", [b""]),
    (b"EXTERNAL", [b"bob"]),
    (b"ANONYMOUS", [b"sirhc"]),
    (b"ANONYMOUS", [b""]),
    (b"NTLM", [NTLM_1, NTLM_3]),
    (b"GSSAPI", [b"token"] * 12),
]

UNFITTING: list[tuple[bytes, list[bytes]]] = [
    # No field twice, or none.
    (b"PLAIN", [b""]),
    (b"PLAIN", [b"bob"]),
    (b"PLAIN", [b"\0bob"]),
    (b"PLAIN", [b"\0\0secret"]),
    (b"PLAIN", [b"\0bob\0secret\0"]),
    (b"PLAIN", [b"\0bob\0eve\0secret"]),
    (b"PLAIN", [b"\0b\rob\0secret"]),
    (b"LOGIN", [b""]),
    (b"LOGIN", [b"b\0ob"]),
    (b"LOGIN", [b"b\tob"]),
    (b"LOGIN", [b"bob", b"x\0y"]),
    (b"CRAM-MD5", [b""]),
    (b"CRAM-MD5", [b"bob"]),
    (b"CRAM-MD5", [b"bob " + DIGEST[1:]]),
    (b"CRAM-MD5", [b" " + DIGEST]),
    (b"CRAM-MD5", [b"bob\t" + DIGEST]),
    (b"CRAM-MD5", [b"bob " + DIGEST + b" "]),
    (b"DIGEST-MD5", [b""]),
    (b"DIGEST-MD5", [DIGEST_MD5 + b',username="eve"']),
    (b"DIGEST-MD5", [b'username="eve",' + DIGEST_MD5]),
    (b"DIGEST-MD5", [DIGEST_MD5.replace(b'username="bob",', b"")]),
    (b"DIGEST-MD5", [DIGEST_MD5 + b",user=eve"]),
    (b"DIGEST-MD5", [DIGEST_MD5 + b","]),
    (b"DIGEST-MD5", [DIGEST_MD5.replace(b"=", b" =", 1)]),
    (b"SCRAM-SHA-1", [b"n,,n=bob"]),
    (b"SCRAM-SHA-1", [b"n,,n=bob,n=eve,r=abc"]),
    (b"SCRAM-SHA-1", [b"n,,r=abc,n=bob"]),
    (b"SCRAM-SHA-1", [b"n,,n=bob,r=abc,n=eve"]),
    (b"SCRAM-SHA-1", [b"n,,m=x,n=bob,r=abc"]),
    (b"SCRAM-SHA-1", [b"n,,n=b=3Eob,r=abc"]),
    (b"SCRAM-SHA-1", [CLIENT_FINAL]),
    (b"SCRAM-SHA-1", [CLIENT_FIRST, CLIENT_FIRST]),
    (b"XOAUTH2", [b"user=bob\x01user=eve\x01auth=Bearer t\x01\x01"]),
    (b"XOAUTH2", [b"user=bob\x01auth=Bearer t\x01"]),
    (b"XOAUTH2", [b"auth=Bearer t\x01user=bob\x01\x01"]),
    (b"XOAUTH2", [b"user=bob\x01auth=Bearer t u\x01\x01"]),
    (b"XOAUTH2", [b"user=bob\x01auth=Bearer t\x01auth=Bearer u\x01\x01"]),
    (b"OAUTHBEARER", [b"n,a=bob,a=eve,\x01auth=Bearer t\x01\x01"]),
    (b"OAUTHBEARER", [b"n,,\x01auth=Bearer t\x01\x01"]),
    (b"OAUTHBEARER", [b"n,a=bob,\x01auth=Bearer t\x01auth=Bearer u\x01\x01"]),
    (b"OAUTHBEARER", [b"n,a=bob,\x01auth=Bearer t\x01\x01", b"more"]),
    (b"EXTERNAL", [b"b\0ob"]),
    (b"ANONYMOUS", [b"x\ty"]),
    (b"ANONYMOUS", [b"x" * 256]),
    (b"NTLM", [NTLM_3]),
    (b"NTLM", [b"NTLMSSP\0"]),
    (b"NTLM", [NTLM_1, NTLM_1]),
    (b"NTLM", [NTLM_1, NTLM_3[:40]]),
]
INITIAL = {
    b"PLAIN",
    b"LOGIN",
    b"XOAUTH2",
    b"OAUTHBEARER",
    b"EXTERNAL",
    b"ANONYMOUS",
    b"NTLM",
    b"GSSAPI",
}


@pytest.mark.parametrize(("mechanism", "messages"), FITTING)
def test_responses_of_their_mechanism_s_form_pass(mechanism: bytes, messages: list[bytes]) -> None:
    session = Guarded()
    assert session.passes(b"AUTH " + mechanism)
    for message in messages:
        session.hears(b"+ ")
        assert session.passes(b64(message))
    session.hears(b"+OK")
    assert session.analyzer.state is TRANSACTION


@pytest.mark.parametrize(("mechanism", "messages"), UNFITTING)
def test_of_another_form_the_exchange_is_cancelled_and_the_login_denied(
    mechanism: bytes, messages: list[bytes]
) -> None:
    session = Guarded()
    assert session.passes(b"AUTH " + mechanism)
    *fitting, last = messages
    for message in fitting:
        session.hears(b"+ ")
        assert session.passes(b64(message))
    session.hears(b"+ ")
    failure = _failure_of(session, b64(last))
    assert failure.reason in (Reason.MALFORMED, Reason.CREDENTIALS)
    assert session.analyzer.inspected == "whole"


def _failure_of(session: Guarded, response: bytes) -> LoginFailure:
    """Say a response that must not pass, and return the failure that comes of it."""
    session.analyzer.feed(C, response + b"\r\n", 0.0)
    step = session.analyzer.next(C)
    assert step is not None
    assert step.refusal is not None
    assert session.analyzer.refused(step) == b"*\r\n"
    session.hears(b"-ERR cancelled")
    events = session.analyzer.answered(step.refusal.reply, 0.0).events
    (failure,) = (event for event in events if isinstance(event, LoginFailure))
    assert failure.attempt == 1
    return failure


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [(mechanism, messages[0]) for mechanism, messages in FITTING if mechanism in INITIAL],
)
def test_the_first_message_may_stand_on_the_auth_line(mechanism: bytes, message: bytes) -> None:
    assert passes(b"AUTH " + mechanism + b" " + (b64(message) or b"="))


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [(mechanism, messages[0]) for mechanism, messages in UNFITTING if len(messages) == 1],
)
def test_it_does_not_if_it_has_another_form(mechanism: bytes, message: bytes) -> None:
    assert not passes(b"AUTH " + mechanism + b" " + (b64(message) or b"="))


@pytest.mark.parametrize("mechanism", [b"CRAM-MD5", b"DIGEST-MD5"])
@pytest.mark.parametrize("initial", [b"=", b64(b"bob " + DIGEST), b64(DIGEST_MD5)])
def test_a_mechanism_whose_server_speaks_first_has_no_initial_response(
    mechanism: bytes, initial: bytes
) -> None:
    assert not passes(b"AUTH " + mechanism + b" " + initial)


STRICT_BASE64 = [b"", b"AAAA", b"QQ==", b"QUE=", b"a+/0"]
LENIENT_BASE64 = [
    b" ",
    b"AAA",
    b"QQ",
    b"QQ=",
    b"QQ===",
    b"Q=Q=",
    b"AA AA",
    b" AAAA",
    b"AAAA ",
    b"AAAA\t",
]
LENIENT_BASE64 += [b"AAAA\0", b"AA-_", b"=", b"====", b"AAAA\r", b"QQ==QQ==", b"AA.A", b"AAAA\x80"]


@pytest.mark.parametrize("text", STRICT_BASE64)
def test_a_response_is_base64(text: bytes) -> None:
    session = Guarded()
    assert session.passes(b"AUTH GSSAPI", b"+ ")
    assert session.passes(text)


@pytest.mark.parametrize("text", LENIENT_BASE64)
def test_a_response_is_strict_base64(text: bytes) -> None:
    session = Guarded()
    assert session.passes(b"AUTH GSSAPI", b"+ ")
    assert not session.passes(text)


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5", b"GSSAPI", b"SCRAM-SHA-1"])
def test_a_client_may_cancel(mechanism: bytes) -> None:
    session = Guarded()
    assert session.passes(b"AUTH " + mechanism, b"+ ")
    assert session.passes(b"*", b"-ERR")
    assert session.named().passes(b"PASS x")


REPORTED = [each for each in FITTING if len(each[1]) > 1 and each[1][-1] in (b"", b"\x01")]


@pytest.mark.parametrize(("mechanism", "messages"), [*REPORTED, FITTING[0], FITTING[4], FITTING[6]])
def test_one_prompt_more_than_the_mechanism_has_cancels_the_exchange(
    mechanism: bytes, messages: list[bytes]
) -> None:
    session = Guarded()
    assert session.passes(b"AUTH " + mechanism)
    for message in messages:
        session.hears(b"+ ")
        assert session.passes(b64(message))
    session.hears(b"+ ")
    _failure_of(session, b64(messages[-1]))


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"XOAUTH2"])
def test_an_initial_response_counts_as_one(mechanism: bytes) -> None:
    (messages,) = [each[1] for each in FITTING if each[0] == mechanism][:1]
    session = Guarded()
    assert session.passes(b"AUTH " + mechanism + b" " + b64(messages[0]))
    for message in messages[1:]:
        session.hears(b"+ ")
        assert session.passes(b64(message))
    session.hears(b"+ ")
    again = session.says(b64(messages[0]))
    assert again.refusal is not None


@pytest.mark.parametrize("mechanism", [b"XOAUTH2", b"OAUTHBEARER"])
@pytest.mark.parametrize("answer", [b"", b"AQ==", b"*"])
def test_an_error_report_may_be_answered(mechanism: bytes, answer: bytes) -> None:
    (messages,) = [each[1] for each in FITTING if each[0] == mechanism][:1]
    session = Guarded()
    assert session.passes(b"AUTH " + mechanism + b" " + b64(messages[0]))
    session.hears(b"+ " + b64(b'{"status":"401"}'))
    assert session.passes(answer)
    (failure, *_) = session.hears(b"-ERR no")
    assert isinstance(failure, LoginFailure)
    assert (failure.reason, failure.attempt) == (Reason.CREDENTIALS, 1)


# --- what an operator can widen -------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [b"FOO", b"KERBEROS_V4", b"X-OWN", b"SCRAM-MD4"])
def test_a_mechanism_that_cannot_be_read_is_denied(mechanism: bytes) -> None:
    assert not passes(b"AUTH " + mechanism)
    assert not passes(b"AUTH " + mechanism + b" AAAA")


def test_it_passes_with_unknown_mechanisms_and_is_asked_about_without_a_name() -> None:
    session = Guarded(GuardOptions(unknown_mechanisms=True))
    assert session.passes(b"AUTH FOO", b"+ ")
    (attempt,) = session.says(b"AAAA").events
    assert isinstance(attempt, LoginAttempt)
    assert (attempt.user, attempt.mechanism, attempt.attempt) == ("", "FOO", 1)
    session.hears(b"+ ")
    assert not session.passes(b"AAA")


def test_gssapi_passes_and_is_asked_about_without_a_name() -> None:
    session = Guarded()
    step = session.says(b"AUTH GSSAPI YII=")
    assert step.refusal is None
    assert [event.user for event in step.events if isinstance(event, LoginAttempt)] == [""]


WORDS = GuardOptions(words={b"XFOO": "line", b"XBAR": "body"})


def test_an_added_word_passes() -> None:
    assert passes(b"XFOO", WORDS)
    assert passes(b"xfoo a b", WORDS)
    assert not passes(b"XFOO a\tb", WORDS)
    assert not passes(b" XFOO", WORDS)
    assert not passes(b"XFOOL", WORDS)
    assert not passes(b"XFOO ".ljust(254, b"x"), WORDS)


def test_an_added_word_with_a_line_has_no_body() -> None:
    session = Guarded(WORDS)
    assert session.passes(b"XFOO", b"+OK")
    assert session.passes(b"NOOP")


def test_an_added_word_with_a_body_is_waited_for() -> None:
    session = Guarded(WORDS)
    assert session.passes(b"XBAR", b"+OK", b"one", b"+OK")
    session.analyzer.feed(C, b"NOOP\r\n", 0.0)
    assert session.analyzer.next(C) is None
    session.hears(b".")
    assert session.analyzer.next(C) is not None


def test_an_added_word_takes_the_name_away() -> None:
    session = Guarded(WORDS).named()
    assert session.passes(b"XFOO", b"+OK")
    assert not session.passes(b"PASS x")


def test_mailbox_commands_pass_before_the_login_if_that_is_configured() -> None:
    session = Guarded(GuardOptions(mailbox_before_login=True))
    assert session.passes(b"STAT", b"-ERR")
    assert session.passes(b"STAT", b"+OK 0 0")
    assert session.analyzer.inspected == "lost:no_login_seen"


# --- names with blanks ----------------------------------------------------------------------------------

NAMED_WITH_BLANKS = [
    [b"USER First Last", b"PASS x"],
    [b"APOP First Last " + DIGEST],
    [b"AUTH CRAM-MD5", b64(b"First Last " + DIGEST)],
]


def _last_of(session: Guarded, lines: list[bytes]) -> Step:
    for line in lines[:-1]:
        assert session.passes(line, b"+ " if line.startswith(b"AUTH") else b"+OK")
    return session.says(lines[-1])


def _asked(step: Step) -> list[tuple[str, int]]:
    """Return the names that those who decide are asked about, each with its attempt."""
    asked = (event for event in (*step.events, *step.readings) if isinstance(event, LoginAttempt))
    return [(event.user, event.attempt) for event in asked]


@pytest.mark.parametrize("lines", NAMED_WITH_BLANKS)
def test_a_name_with_a_blank_is_asked_about_in_each_reading(lines: list[bytes]) -> None:
    session = Guarded()
    step = _last_of(session, lines)
    assert _asked(step) == [("First Last", 1), ("First", 1)]
    assert [event.user for event in step.events if isinstance(event, LoginAttempt)] == [
        "First Last"
    ]


@pytest.mark.parametrize("lines", NAMED_WITH_BLANKS)
def test_so_is_the_failure(lines: list[bytes]) -> None:
    session = Guarded()
    _last_of(session, lines)
    session.analyzer.feed(S, b"-ERR no\r\n", 0.0)
    step = session.analyzer.next(S)
    assert step is not None
    failures = [e for e in (*step.events, *step.readings) if isinstance(e, LoginFailure)]
    assert [(failure.user, failure.attempt) for failure in failures] == [
        ("First Last", 1),
        ("First", 1),
    ]
    assert sum(isinstance(event, LoginFailure) for event in step.events) == 1


@pytest.mark.parametrize("lines", NAMED_WITH_BLANKS)
def test_it_is_asked_about_as_a_whole_if_the_servers_read_it_whole(lines: list[bytes]) -> None:
    session = Guarded(GuardOptions(blanks_in_names="whole"))
    assert _asked(_last_of(session, lines)) == [("First Last", 1)]


@pytest.mark.parametrize("lines", NAMED_WITH_BLANKS[:2])
def test_it_is_not_passed_if_such_names_are_denied(lines: list[bytes]) -> None:
    session = Guarded(GuardOptions(blanks_in_names="deny"))
    step = session.says(lines[0])
    assert step.refusal is not None
    assert step.refusal.reply.startswith(b"-ERR [AUTH] ")
    assert session.named().passes(b"PASS a b")


def test_a_blank_at_the_end_of_a_name_is_read_with_and_without() -> None:
    session = Guarded()
    assert _asked(_last_of(session, [b"USER bob ", b"PASS x"])) == [("bob ", 1), ("bob", 1)]


def test_three_readings_are_asked_about_at_the_most() -> None:
    session = Guarded()
    assert _asked(_last_of(session, [b"USER a b c ", b"PASS x"])) == [
        ("a b c ", 1),
        ("a b c", 1),
        ("a", 1),
    ]


def test_a_name_without_a_blank_has_one_reading() -> None:
    session = Guarded()
    assert _asked(_last_of(session, [b"USER bob", b"PASS x"])) == [("bob", 1)]


# --- what is said of lines that do not pass, and how many there may be ----------------------------------


@pytest.mark.parametrize("line", [line for line in NOT_PASSING if line[:4].upper() != b"PASS"])
def test_it_is_answered_with_err_and_raises_a_request_and_that_it_was_not_passed(
    line: bytes,
) -> None:
    session = Guarded()
    step = session.says(line)
    assert step.refusal is not None
    assert step.refusal.reply.startswith(b"-ERR ")
    assert step.refusal.reply.endswith(b"\r\n")
    assert [event for event in step.events if isinstance(event, Request)]
    oddities = [event.msg for event in step.events if isinstance(event, Unexpected)]
    assert oddities.count(Oddity.NOT_PASSED) == 1
    assert session.analyzer.inspected == "whole"
    assert session.passes(b"NOOP")


def test_after_twenty_of_them_the_session_ends() -> None:
    session = Guarded()
    assert MAX_NOT_PASSED == 20
    ends = [session.says(b"EHLO me").ends for _ in range(21)]
    assert ends == [""] * 20 + ["not_passed"]


def test_responses_that_do_not_pass_count_as_well() -> None:
    session = Guarded()
    ends = []
    for _ in range(21):
        assert session.passes(b"AUTH LOGIN", b"+ VXNlcm5hbWU6")
        ends.append(session.says(b"no base64").ends)
    assert ends == [""] * 20 + ["not_passed"]


def test_lines_that_pass_in_between_change_nothing_of_that() -> None:
    session = Guarded()
    for _ in range(20):
        assert session.says(b" NOOP").ends == ""
        assert session.passes(b"NOOP", b"+OK")
    assert session.says(b" NOOP").ends == "not_passed"


def test_that_a_line_was_not_passed_is_raised_twenty_times_and_counted_beyond() -> None:
    session = Guarded()
    events = [event for _ in range(25) for event in session.says(b"EHLO me").events]
    raised = [e for e in events if isinstance(e, Unexpected) and e.msg is Oddity.NOT_PASSED]
    assert (len(raised), session.analyzer.unexpected) == (20, 25)


# --- when it guards -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "before", "behind"),
    [
        ({LoginAttempt}, Strictness.LOCK_STEP, Strictness.NO_LOGIN),
        ({LoginSuccess}, Strictness.LOCK_STEP, Strictness.NO_LOGIN),
        ({LoginFailure}, Strictness.LOCK_STEP, Strictness.NO_LOGIN),
        ({Request}, Strictness.LOCK_STEP, Strictness.LINES),
        ({StartTLS}, Strictness.WHOLE, Strictness.NONE),
        ({StartTLS, Request}, Strictness.LOCK_STEP, Strictness.LINES),
        ({Unexpected}, Strictness.NONE, Strictness.NONE),
        (set(), Strictness.NONE, Strictness.NONE),
    ],
)
def test_what_is_decided_about_says_how_strict_the_guard_is(
    kinds: set[type[Event]], before: Strictness, behind: Strictness
) -> None:
    guard = Guard(GuardOptions())
    guard.watch(frozenset(kinds), AUTHORIZATION)
    assert guard.strictness is before
    guard.entered(TRANSACTION)
    assert guard.strictness is behind


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_long_plain_response_hides_no_other_in_its_rest(shift: int) -> None:
    form = sasl_form("PLAIN")
    assert form is not None
    hidden = b64(b"\0eve\0guess").rstrip(b"=")
    text = b"A" * (300 + shift) + hidden
    assert not _is_safe_when_long(text.replace(b"A" * 300, b"QUJD" * 75), form)
    assert _is_safe_when_long(b"QUJD" * 80, form)


def test_the_name_of_xoauth2_holds_no_second_one() -> None:
    form = sasl_form("XOAUTH2")
    assert form is not None
    assert form.fits(0, b"user=bob\x01auth=Bearer t\x01\x01")
    assert not form.fits(0, b"user=bobUser=eve\x01auth=Bearer t\x01\x01")


@pytest.mark.parametrize("line", [b"STLS", b"AUTH CRAM-MD5"])
def test_what_a_client_says_when_the_server_has_left_an_exchange_does_no_harm(line: bytes) -> None:
    guarded = Guarded()
    assert guarded.passes(line)
    guarded.analyzer.ended(S, 0.0)
    step = guarded.says(PLAIN)
    assert not any(isinstance(event, LoginAttempt) for event in step.events)


@pytest.mark.parametrize(
    "line", [b"STLS", b"stls ", b" STLS", b"AUTH PLAIN " + PLAIN, b"\tPASS guess"]
)
def test_what_belongs_before_the_login_does_not_pass_behind_it(line: bytes) -> None:
    guarded = Guarded()
    assert guarded.passes(b"USER bob", b"+OK")
    assert guarded.passes(b"PASS secret", b"+OK")
    assert not guarded.passes(line)
    assert not guarded.analyzer.blind
    assert guarded.passes(b"STAT", b"+OK 0 0")
