"""Which commands the command rules deny, with what reply; each line is read by the analyzer first."""

from dataclasses import replace

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection, Request, SessionEnd, Side, State, Tls
from pop3proxy.analyzer.grammar import COMMANDS
from pop3proxy.hooks.api import Deny
from pop3proxy.hooks.policy.commands import (
    CLAIMED_ADDRESSES,
    DENIED,
    PLAINTEXT_LOGINS,
    TLS_REQUIRED,
    CommandRules,
    Rule,
    command_name,
)

from .examples import TS, connection, every_event

PLAIN = "AGJvYgBodW50ZXIy"


def request(line: bytes, c: Connection | None = None) -> Request:
    """Read a client's first line with the analyzer, then have it sent on the connection ``c``."""
    c = connection() if c is None else c
    analyzer = Analyzer(connection(), wants=frozenset({Request}))
    analyzer.feed(Side.SERVER, b"+OK ready\r\n", TS)
    while analyzer.next(Side.SERVER):
        pass
    analyzer.feed(Side.CLIENT, line + b"\r\n", TS)
    step = analyzer.next(Side.CLIENT)
    assert step is not None
    (event,) = step.events
    assert isinstance(event, Request)
    return replace(event, c=c)


def logged_in() -> Connection:
    return replace(connection(), state=State.TRANSACTION)


def over_tls() -> Connection:
    return replace(connection(), tls=Tls("TLSv1.3", ""))


def rules_for(*names: str, state: State | None = None, tls: bool | None = None) -> CommandRules:
    return CommandRules([Rule(frozenset(map(command_name, names)), state, tls)])


def denied(rules: CommandRules, line: bytes, c: Connection | None = None) -> bool:
    return rules.pop3_request(request(line, c)) is not None


def session_end(c: Connection) -> SessionEnd:
    (event,) = [event for event in every_event(c) if isinstance(event, SessionEnd)]
    return event


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"DELE 1", b"dele 1", b"DeLe 1", b"DELE"])
def test_a_command_is_denied_in_any_case_of_letters(line: bytes) -> None:
    assert denied(rules_for("DELE"), line)


def test_a_command_that_no_rule_names_passes() -> None:
    rules = rules_for("DELE")
    assert [
        line for line in (b"RETR 1", b"DELETE 1", b"XDELE 1", b"", b"QUIT") if denied(rules, line)
    ] == []


@pytest.mark.parametrize("line", [b"UTF8", b"utf8"])
def test_a_command_with_a_digit_in_its_name_is_denied_as_others_are(line: bytes) -> None:
    assert denied(rules_for("UTF8"), line)


def test_an_argument_that_is_called_like_a_command_is_no_command() -> None:
    rules = rules_for("DELE", "unknown")
    assert [
        line for line in (b"USER DELE", b"PASS DELE 1", b"LANG dele") if denied(rules, line)
    ] == []


@pytest.mark.parametrize("line", [b"XPUSH", b"xyz 1", b"", b" ", b"1234", b"\xff\xfe"])
def test_what_is_no_command_is_unknown(line: bytes) -> None:
    assert denied(rules_for("unknown"), line)


@pytest.mark.parametrize("name", sorted(name.decode() for name in COMMANDS))
def test_a_command_of_the_table_is_not_unknown(name: str) -> None:
    rules = rules_for("unknown")
    assert not denied(rules, name.encode())
    assert not denied(rules, name.encode() + b" 1")


def test_a_password_is_never_taken_for_an_unknown_command() -> None:
    assert not denied(rules_for("unknown"), b"PASS -word \t x")


def test_one_unknown_command_can_be_denied_by_its_name() -> None:
    rules = rules_for("unknown XPUSH")
    assert [
        line for line in (b"XPUSH 1", b"xpush\t1", b"XPULL", b"STAT") if denied(rules, line)
    ] == [
        b"XPUSH 1",
        b"xpush\t1",
    ]


@pytest.mark.parametrize(
    "line", [b"XTND XMIT", b"xtnd xmit", b"XTND  XMIT", b"XTND\tXMIT", b" XTND \t xmit a"]
)
def test_sending_mail_can_be_denied_in_any_spelling(line: bytes) -> None:
    assert denied(rules_for("XTND XMIT"), line)


def test_where_sending_mail_is_denied_other_extensions_pass() -> None:
    rules = rules_for("XTND XMIT")
    assert [
        line for line in (b"XTND BBOARDS", b"XTND", b"XTND XMITTER") if denied(rules, line)
    ] == []


def test_a_rule_for_xtnd_is_for_all_extensions() -> None:
    assert denied(rules_for("XTND"), b"XTND XMIT")


def test_a_mechanism_can_be_denied_and_the_question_for_mechanisms_passes() -> None:
    rules = rules_for("AUTH NTLM")
    assert [line for line in (b"AUTH ntlm", b"AUTH", b"AUTH CRAM-MD5") if denied(rules, line)] == [
        b"AUTH ntlm"
    ]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("dele", "DELE"),
        ("  xtnd   xmit ", "XTND XMIT"),
        ("auth scram-sha-256-plus", "AUTH SCRAM-SHA-256-PLUS"),
        ("unknown", "UNKNOWN"),
        ("Unknown xpush", "UNKNOWN XPUSH"),
    ],
)
def test_a_name_is_written_in_any_case(written: str, name: str) -> None:
    assert command_name(written) == name


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("DEEL", 'did you mean "DELE"? A command of your server\'s own is "unknown DEEL"'),
        ("XPUSH", 'A command of your server\'s own is "unknown XPUSH"'),
        ("unknwon", 'did you mean "UNKNOWN"'),
        ("", 'write a name like "DELE"'),
        ("*", 'write a name like "DELE"'),
        ("DELE 1", 'write "DELE"'),
        ("unknown dele", "DELE is a known command"),
        ("unknown X-PUSH", "1 to 16 letters"),
        ("unknown ABCDEFGHIJKLMNOPQ", "1 to 16 letters"),
        ("XTND XMTI", "ARCHIVE, BBOARDS, XLST, XMIT"),
        ("AUTH PLAIN x", "no name of a SASL mechanism"),
        ("AUTH =", "no name of a SASL mechanism"),
    ],
)
def test_a_name_that_would_never_apply_is_a_mistake(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^\"") as caught:
        command_name(written)
    assert said in str(caught.value)


# --- TLS and states -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tls", "expected"), [(None, [True, True]), (True, [True, False]), (False, [False, True])]
)
def test_a_rule_is_for_tls_or_for_none_or_for_both(tls: bool | None, expected: list[bool]) -> None:
    rules = rules_for("DELE", tls=tls)
    assert [denied(rules, b"DELE 1", c) for c in (over_tls(), connection())] == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, [True, True]),
        (State.AUTHORIZATION, [True, False]),
        (State.TRANSACTION, [False, True]),
    ],
)
def test_a_rule_is_for_one_state_or_for_both(state: State | None, expected: list[bool]) -> None:
    rules = rules_for("CAPA", state=state)
    assert [denied(rules, b"CAPA", c) for c in (connection(), logged_in())] == expected


@pytest.mark.parametrize(
    "line", [b"XCLIENT ADDR=192.0.2.1", b"xoip 192.0.2.1", b" XCLIENT ADDR=1", b"XOIP\t1"]
)
def test_a_client_that_claims_an_address_is_told_that_there_is_no_such_command(line: bytes) -> None:
    assert CommandRules([CLAIMED_ADDRESSES]).pop3_request(request(line)) == Deny(
        "-ERR Unknown command."
    )


LOGINS = [
    b"USER bob",
    b"user bob",
    b"PASS hunter2",
    b"APOP bob c4c9334bac560ecc979e58001b3e22fb",
    b"AUTH PLAIN",
    b"auth plain",
    b"AUTH PLAIN " + PLAIN.encode(),
    b"AUTH LOGIN",
    b"AUTH XOAUTH2 abcd",
    b"AUTH OAUTHBEARER",
]


@pytest.mark.parametrize("line", LOGINS)
def test_a_plaintext_login_without_tls_is_told_to_use_it(line: bytes) -> None:
    answer = CommandRules([PLAINTEXT_LOGINS]).pop3_request(request(line))
    assert answer is TLS_REQUIRED
    assert answer.reply.startswith("-ERR [AUTH] ")
    assert "TLS" in answer.reply


@pytest.mark.parametrize("line", LOGINS)
def test_a_plaintext_login_over_tls_passes(line: bytes) -> None:
    assert not denied(CommandRules([PLAINTEXT_LOGINS]), line, over_tls())


@pytest.mark.parametrize(
    "line",
    [
        b"AUTH",
        b"AUTH ",
        b"AUTH  ",
        b"AUTH CRAM-MD5",
        b"AUTH SCRAM-SHA-256 biws",
        b"AUTH PLAIN-CLIENTTOKEN",
        b"AUTH CRAM-MD5 PLAIN",
        b"CAPA",
        b"STLS",
        b"QUIT",
        b"RETR 1",
    ],
)
def test_what_shows_no_secret_passes_without_tls(line: bytes) -> None:
    assert not denied(CommandRules([PLAINTEXT_LOGINS]), line)


# --- replies ------------------------------------------------------------------------------------------


def test_a_rule_without_a_reply_answers_as_of_an_unknown_command() -> None:
    assert rules_for("DELE").pop3_request(request(b"DELE 1")) is DENIED


def test_the_first_rule_that_applies_gives_the_reply() -> None:
    first, second = Deny("-ERR first"), Deny("-ERR second")
    rules = CommandRules(
        [
            Rule(frozenset({"DELE"}), State.TRANSACTION, denial=DENIED),
            Rule(frozenset({"DELE", "RETR"}), denial=first),
            Rule(frozenset({"RETR"}), denial=second),
        ]
    )
    assert [rules.pop3_request(request(line)) for line in (b"DELE 1", b"RETR 1")] == [first, first]


def test_without_rules_everything_passes() -> None:
    assert not denied(CommandRules([]), b"XCLIENT ADDR=192.0.2.1")
