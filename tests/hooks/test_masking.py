"""No secret gets through the mask, and nothing else is lost in it."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.analyzer.events import (
    ALL,
    Data,
    DataRun,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Policy,
    Reason,
    Reply,
    Request,
    Secret,
    SessionEnd,
    Unexpected,
)
from pop3proxy.hooks.masking import MASK, _copier, in_clear, masked, repeats_no_secret

from .examples import TS, connection, every_event

PASSWORD = "hunter2"
BLOB = "AGJvYgBodW50ZXIy"
TOKEN = "dXNlcj1ib2JAZXhhbXBsZS5vcmcBYXV0aD1CZWFyZXIgeWEyOS5hQWFB"
DIGEST = "c4c9334bac560ecc979e58001b3e22fb"
EXCHANGED = ((b"<1@example.org>", f"bob {DIGEST}".encode()),)

KNOWN = connection(PASSWORD, BLOB, TOKEN, DIGEST)

# Every form in which a secret comes to a hook: the event, and what of it must never be written.
FORMS: dict[str, tuple[Event, str]] = {
    "PASS": (Request(KNOWN, TS, "PASS", PASSWORD, Secret.ARGUMENT), PASSWORD),
    "PASS with blanks": (Request(KNOWN, TS, "PASS", f" a {PASSWORD} ", Secret.ARGUMENT), PASSWORD),
    "initial response": (
        Request(KNOWN, TS, "AUTH", f"PLAIN {BLOB}", Secret.AFTER_FIRST_WORD),
        BLOB,
    ),
    "initial response behind two blanks": (
        Request(KNOWN, TS, "AUTH", f" PLAIN  {BLOB} ", Secret.AFTER_FIRST_WORD),
        BLOB,
    ),
    "bearer token": (
        Request(KNOWN, TS, "AUTH", f"XOAUTH2 {TOKEN}", Secret.AFTER_FIRST_WORD),
        TOKEN,
    ),
    "APOP digest": (
        Request(KNOWN, TS, "APOP", f"bob {DIGEST}", Secret.AFTER_NAME),
        DIGEST,
    ),
    "APOP digest before a blank": (
        Request(KNOWN, TS, "APOP", f"bob {DIGEST} ", Secret.AFTER_NAME),
        DIGEST,
    ),
    "APOP digest without a name": (
        Request(KNOWN, TS, "APOP", DIGEST, Secret.AFTER_NAME),
        DIGEST,
    ),
    "base64 after a refused AUTH, the word": (
        Request(KNOWN, TS, BLOB.upper(), "", Secret.LINE),
        BLOB.upper(),
    ),
    "base64 after a refused AUTH, the rest": (
        Request(KNOWN, TS, "AGJVYGBODW", f"/{BLOB}", Secret.LINE),
        BLOB,
    ),
    "base64 after a refused AUTH, as detail": (
        Unexpected(KNOWN, TS, True, Oddity.UNKNOWN_COMMAND, BLOB, Secret.LINE),
        BLOB,
    ),
    "mistyped PASS": (
        Request(KNOWN, TS, "PASSS", PASSWORD, Secret.LINE),
        PASSWORD,
    ),
    "PASS without a blank": (Request(KNOWN, TS, "PASSHUNTER", "2", Secret.LINE), "HUNTER"),
    "PASS without a blank, as detail": (
        Unexpected(KNOWN, TS, True, Oddity.UNKNOWN_COMMAND, f"PASS{PASSWORD}", Secret.LINE),
        "hunter",
    ),
    "password alone, as detail without a mark": (
        Unexpected(KNOWN, TS, True, Oddity.CUT_LINE, "hunter"),
        "hunter",
    ),
    "PASS behind a name": (
        Request(KNOWN, TS, "USER", f"bob PASS {PASSWORD}", Secret.AFTER_PASS),
        PASSWORD,
    ),
    "PASS behind a name, in an attempt": (
        LoginAttempt(KNOWN, TS, f"bob PASS {PASSWORD}", "x", "USER/PASS"),
        PASSWORD,
    ),
    "PASS behind a name, in a success": (
        LoginSuccess(KNOWN, TS, f"bob\tpass\t{PASSWORD}", "x", "USER/PASS"),
        PASSWORD,
    ),
    "PASS behind a name, at the end": (
        SessionEnd(
            *(KNOWN, TS, f"bob PASS {PASSWORD}", "success", 4, 1, 0, 0, 60, 4000, 2.25, "quit", 1),
            "whole",
        ),
        PASSWORD,
    ),
    "PASS behind a name, in a key": (
        Policy(
            *(KNOWN, TS, "spraying", "ban", f"user:bob pass {PASSWORD}", "users"),
            *(15, 15, 3600.0, 600.5, False),
        ),
        PASSWORD,
    ),
    "APOP digest before an extra word": (
        Request(KNOWN, TS, "APOP", f"bob {DIGEST} x", Secret.AFTER_NAME),
        DIGEST,
    ),
    "APOP digest before an extra word, in the name": (
        LoginFailure(KNOWN, TS, f"bob {DIGEST}", "", "APOP", Reason.CREDENTIALS),
        DIGEST,
    ),
    "password before an extra word, in APOP's name": (
        LoginAttempt(KNOWN, TS, f"bob {PASSWORD}", "", "APOP"),
        PASSWORD,
    ),
    "password before an extra word, in APOP's name, at the end": (
        SessionEnd(
            *(KNOWN, TS, f"bob {PASSWORD}", "failure", 4, 1, 0, 0, 60, 4000, 2.25, "quit", 1),
            *("whole", "APOP"),
        ),
        PASSWORD,
    ),
    "APOP digest before an extra word, in a key": (
        Policy(
            *(KNOWN, TS, "spraying", "ban", f"user:bob {DIGEST}", "users"),
            *(15, 15, 3600.0, 600.5, False),
        ),
        DIGEST,
    ),
    "password in the place of a mechanism": (
        Request(KNOWN, TS, "AUTH", "HUNTER2", Secret.AFTER_FIRST_WORD),
        "HUNTER2",
    ),
    "password as mechanism": (
        LoginFailure(KNOWN, TS, "", "", "HUNTER2", Reason.UNKNOWN),
        "HUNTER2",
    ),
    "behind a command that has no argument": (
        Request(KNOWN, TS, "STAT", PASSWORD, Secret.ODD_ARGUMENT),
        PASSWORD,
    ),
    "echo from the middle": (
        Reply(KNOWN, TS, "ERR", f"Unknown command: {TOKEN[8:20]}"),
        TOKEN[8:20],
    ),
    "echo as mail": (Data(KNOWN, TS, f"what is {BLOB}?"), BLOB),
    "mistyped PASS, as detail": (
        Unexpected(KNOWN, TS, True, Oddity.UNKNOWN_COMMAND, f"PASSS {PASSWORD}"),
        PASSWORD,
    ),
    "SASL response that is none": (
        Unexpected(KNOWN, TS, True, Oddity.BAD_SASL_RESPONSE, f"={TOKEN}", Secret.LINE),
        TOKEN,
    ),
    "attempt": (LoginAttempt(KNOWN, TS, "bob", PASSWORD, "USER/PASS"), PASSWORD),
    "success": (LoginSuccess(KNOWN, TS, "bob", PASSWORD, "USER/PASS"), PASSWORD),
    "failure": (
        LoginFailure(KNOWN, TS, "bob", PASSWORD, "USER/PASS", Reason.CREDENTIALS),
        PASSWORD,
    ),
    "exchange, in an attempt": (
        LoginAttempt(KNOWN, TS, "bob", "", "CRAM-MD5", 1, EXCHANGED),
        DIGEST,
    ),
    "exchange, in a failure": (
        LoginFailure(KNOWN, TS, "bob", "", "APOP", Reason.CREDENTIALS, "", 1, EXCHANGED),
        DIGEST,
    ),
    "echo as response code": (
        LoginFailure(KNOWN, TS, "bob", "", "PLAIN", Reason.UNKNOWN, f"NO/{PASSWORD}"),
        PASSWORD,
    ),
    "echo": (Reply(KNOWN, TS, "ERR", f"Unknown command: PASSS {PASSWORD}"), PASSWORD),
    "echo in capitals": (Reply(KNOWN, TS, "ERR", f"BAD LINE {BLOB.upper()}"), BLOB.upper()),
    "echo cut off": (Reply(KNOWN, TS, "ERR", f"Unknown command: {TOKEN[:20]}"), TOKEN[:20]),
    "echo out of step": (
        Unexpected(KNOWN, TS, False, Oddity.OUT_OF_STEP, f"what is {PASSWORD}?"),
        PASSWORD,
    ),
}


def values(event: Event) -> list[Any]:
    """All that an event has, in records and beside them."""
    return [getattr(event, each.name) for each in fields(event) if each.name != "c"]


def shows(event: Event, secret: str) -> bool:
    return any(secret in str(value) for value in values(event))


@pytest.mark.parametrize(("event", "secret"), FORMS.values(), ids=FORMS)
def test_no_form_of_a_secret_gets_through(event: Event, secret: str) -> None:
    assert not shows(masked(event), secret)


@pytest.mark.parametrize(("event", "secret"), FORMS.values(), ids=FORMS)
def test_every_form_of_a_secret_is_seen_where_the_mask_is_off(event: Event, secret: str) -> None:
    """Without this the test above might look for what nobody would have written."""
    assert shows(in_clear(event), secret)


@pytest.mark.parametrize(
    ("command", "arg", "secret", "shown"),
    [
        ("USER", "bob", Secret.NOTHING, ("USER", "bob")),
        ("PASS", PASSWORD, Secret.ARGUMENT, ("PASS", MASK)),
        ("PASS", "", Secret.ARGUMENT, ("PASS", "")),
        ("AUTH", f"PLAIN {BLOB}", Secret.AFTER_FIRST_WORD, ("AUTH", f"PLAIN {MASK}")),
        ("AUTH", "PLAIN =", Secret.AFTER_FIRST_WORD, ("AUTH", f"PLAIN {MASK}")),
        ("AUTH", "PLAIN", Secret.AFTER_FIRST_WORD, ("AUTH", "PLAIN")),
        ("AUTH", "", Secret.AFTER_FIRST_WORD, ("AUTH", "")),
        ("APOP", f"bob {DIGEST}", Secret.AFTER_NAME, ("APOP", f"bob {MASK}")),
        ("APOP", f"bob smith {DIGEST}", Secret.AFTER_NAME, ("APOP", f"bob {MASK}")),
        ("APOP", f"bob\t{DIGEST}", Secret.AFTER_NAME, ("APOP", f"bob {MASK}")),
        ("APOP", "", Secret.AFTER_NAME, ("APOP", "")),
        ("AUTH", f"FOO {BLOB}", Secret.AFTER_FIRST_WORD, ("AUTH", f"(3 bytes) {MASK}")),
        ("AUTH", f"plain\t{BLOB}", Secret.AFTER_FIRST_WORD, ("AUTH", f"plain {MASK}")),
        ("AUTH", BLOB, Secret.ARGUMENT, ("AUTH", MASK)),
        ("USER", "bob PASS x", Secret.AFTER_PASS, ("USER", f"bob PASS {MASK}")),
        ("LIST", "of secrets", Secret.ODD_ARGUMENT, ("LIST", MASK)),
        ("EHLO", "me", Secret.ARGUMENT, ("EHLO", MASK)),
        ("XFOO", "x", Secret.ARGUMENT, ("(4 bytes)", MASK)),
        ("AGJVYG", "+x", Secret.LINE, ("(6 bytes)", MASK)),
        ("AGJVYG", "", Secret.LINE, ("(6 bytes)", "")),
        ("A", "", Secret.LINE, ("(1 byte)", "")),
        ("", "+x", Secret.LINE, ("", MASK)),
    ],
)
def test_a_request_keeps_what_is_not_secret(
    command: str, arg: str, secret: Secret, shown: tuple[str, str]
) -> None:
    event = masked(Request(KNOWN, TS, command, arg, secret))
    assert (event.command, event.arg) == shown


@pytest.mark.parametrize(
    ("detail", "secret", "shown"),
    [
        (f"PASSS {PASSWORD}", Secret.NOTHING, "(5 bytes)"),
        (f"PASSS {PASSWORD}", Secret.LINE, "(5 bytes)"),
        (f"PASS{PASSWORD}", Secret.NOTHING, "(10 bytes)"),
        (f"PASS {PASSWORD}", Secret.NOTHING, "PASS"),
        (f"pass\t{PASSWORD}", Secret.ARGUMENT, "pass"),
        (f"PASS\0{PASSWORD}", Secret.ARGUMENT, "PASS"),
        (f"PASS:{PASSWORD}", Secret.NOTHING, "(4 bytes)"),
        ("EHLO me", Secret.ARGUMENT, "EHLO"),
        ("GET / HTTP/1.0", Secret.NOTHING, "GET"),
        ("HELP", Secret.LINE, "(4 bytes)"),
        ("PA", Secret.NOTHING, "(2 bytes)"),
        ("a1 LOGIN bob x", Secret.NOTHING, "(1 byte)"),
        ("abcdefghijklmnopqrst", Secret.NOTHING, "(16 bytes)"),
        ("+-USER bob", Secret.NOTHING, ""),
        ("übung", Secret.NOTHING, ""),
        ("", Secret.NOTHING, ""),
        (f"={BLOB}", Secret.LINE, MASK),
        ("", Secret.LINE, ""),
    ],
)
def test_the_detail_of_a_client_line_is_a_verb_or_a_length(
    detail: str, secret: Secret, shown: str
) -> None:
    event = masked(Unexpected(KNOWN, TS, True, Oddity.UNKNOWN_COMMAND, detail, secret))
    assert event.detail == shown


def test_the_detail_of_a_server_line_is_shown() -> None:
    event = Unexpected(KNOWN, TS, False, Oddity.OUT_OF_STEP, "Received: from mx")
    assert masked(event).detail == "Received: from mx"


@pytest.mark.parametrize("kind", [LoginAttempt, LoginSuccess])
def test_an_empty_password_stays_empty(kind: type[LoginAttempt | LoginSuccess]) -> None:
    assert masked(kind(KNOWN, TS, "bob", "", "GSSAPI")).password == ""


def test_an_empty_password_of_a_failure_stays_empty() -> None:
    event = LoginFailure(KNOWN, TS, "bob", "", "GSSAPI", Reason.CREDENTIALS, "AUTH")
    assert masked(event) == event


@pytest.mark.parametrize(
    ("msg", "secret"),
    [
        ("no such command: HUNTER2", "hunter2"),
        ("xhunter2x", "hunter2"),
        ("no such command: STRASSE1", "straße1"),
        ("user bob is unknown", "bob"),
        ("user=bob", "bob"),
        ("'bob'?", "bob"),
        ("BOB", "bob"),
        ("1 message", "1"),
        ("what is !? ", "!?"),
        ("no such command: unter2", "hunter2"),
        ("no such command: hunter", "hunter2"),
        ("'hunt'", "hunter2"),
        ("unknown command: failed", "failed"),
        ("[AUTH] no password of failed", "failed"),
    ],
)
def test_a_reply_that_repeats_a_secret_is_masked(msg: str, secret: str) -> None:
    assert masked(Reply(connection(secret), TS, "ERR", msg)).msg == MASK


@pytest.mark.parametrize(
    ("msg", "secret"),
    [
        ("Logged in.", "hunter2"),
        ("bobby is unknown", "bob"),
        ("kabob", "bob"),
        ("bob_smith", "bob"),
        ("17 messages", "1"),
        ("Welcome!", "!"),
        ("Logged in.", ""),
        ("", "hunter2"),
        # Of what servers have built in nothing can be an echo.
        ("[AUTH] Authentication failed.", "failed"),
        ("Authentication failed", "authentication"),
        ("Logged in.", "in"),
        ("Logged in.", "logged1"),
        ("[auth] invalid login or password!", "password"),
        ("[SYS/PERM] permission denied", "denied"),
    ],
)
def test_a_reply_that_repeats_no_secret_is_shown(msg: str, secret: str) -> None:
    assert masked(Reply(connection(secret), TS, "OK", msg)).msg == msg


@pytest.mark.parametrize("msg", ["no", "you said hunter2"])
def test_a_denial_stays_one(msg: str) -> None:
    assert masked(Reply(connection("hunter2"), TS, "ERR", msg, denial=True)).denial


def test_each_of_the_secrets_is_looked_for() -> None:
    event = Reply(connection("first1", "second", "third3"), TS, "ERR", "you said third3")
    assert masked(event).msg == MASK


def test_a_code_that_is_registered_is_no_echo() -> None:
    c = connection("auth", "SYS/PERM1")
    for code in ("AUTH", "SYS/PERM"):
        event = LoginFailure(c, TS, "bob", "x", "PLAIN", Reason.CREDENTIALS, code)
        assert masked(event).code == code


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("your password is hunter2-in-clear", MASK),
        ("your password is 2-IN-CLEAR", MASK),
        ("the hunter", "the hunter"),
        ("Subject: hello", "Subject: hello"),
    ],
)
def test_mail_is_masked_line_by_line(line: str, shown: str) -> None:
    c = connection("hunter2-in-clear")
    assert masked(Data(c, TS, line)).data == shown
    run = DataRun(c, TS, line.encode() + b"\r\n", [line.encode()])
    assert repeats_no_secret(run) is (shown is not MASK)


def test_mail_of_a_session_without_secrets_is_shown() -> None:
    assert repeats_no_secret(DataRun(connection(), TS, b"hunter2\r\n", [b"hunter2"]))


@pytest.mark.parametrize(
    "name",
    [
        "bob",
        "bob@example.org",
        "First Last",
        "bob PASS",
        "joe.pass smith",
        "bob, the first",
        DIGEST,
    ],
)
def test_a_name_is_shown(name: str) -> None:
    """Even one that was a password before: a client must not be able to hide as whom it logs in."""
    event = LoginSuccess(connection(name), TS, name, "", "USER/PASS")
    assert masked(event) is event


@pytest.mark.parametrize("mechanism", ["", "APOP", "RPOP", "USER/PASS", "PLAIN", "SCRAM-SHA-256"])
def test_a_known_mechanism_is_shown(mechanism: str) -> None:
    event = LoginSuccess(KNOWN, TS, "bob", "", mechanism)
    assert masked(event) is event


def test_more_secrets_than_are_remembered_mask_all_but_what_servers_have_built_in() -> None:
    c = connection("hunter2")
    c.secrets.lose()
    assert masked(Reply(c, TS, "OK", "1234 octets")).msg == MASK
    assert masked(Reply(c, TS, "OK", "Logged in.")).msg == "Logged in."
    assert masked(Data(c, TS, "Subject: hello")).data == "Subject: hello"


def test_a_copy_keeps_fields_that_are_new() -> None:
    @dataclass(slots=True)
    class Later(LoginSuccess):
        attempt: int = 0

    copied = _copier(Later, "user", "password", "mechanism")
    copy = copied(Later(KNOWN, TS, "bob", PASSWORD, "PLAIN", 3), "bob", MASK, "PLAIN")
    assert copy == Later(KNOWN, TS, "bob", MASK, "PLAIN", 3)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_masked_event_differs_in_nothing_that_is_no_secret(kind: type[Event]) -> None:
    c = connection()
    (event,) = (event for event in every_event(c) if type(event) is kind)
    shown = masked(event)
    secret = {"password", "arg", "detail"}
    for field in fields(event):
        if field.name not in secret:
            assert getattr(shown, field.name) == getattr(event, field.name)


def test_what_holds_no_secret_is_not_copied() -> None:
    for event in (
        Request(KNOWN, TS, "STAT", ""),
        Reply(KNOWN, TS, "OK", "0 messages"),
        LoginSuccess(KNOWN, TS, "bob", "", "GSSAPI"),
    ):
        assert masked(event) is event


def test_the_event_itself_stays_in_clear() -> None:
    """Other hooks hear it too, and may need the password."""
    event = LoginSuccess(KNOWN, TS, "bob", PASSWORD, "USER/PASS")
    masked(event)
    assert event.password == PASSWORD


def test_with_the_mask_off_every_event_passes_as_it_is() -> None:
    for event in every_event(KNOWN):
        assert in_clear(event) is event


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_every_event_has_a_rule(kind: type[Event]) -> None:
    (event,) = (event for event in every_event(KNOWN) if type(event) is kind)
    assert type(masked(event)) is kind


def test_an_event_without_a_rule_is_refused() -> None:
    class Novelty(Event):
        pass

    with pytest.raises(KeyError):
        masked(Novelty(KNOWN, TS))


# Shorter ones, without the blanks around them, are looked for as words only.
_BLANKS = "".join(map(chr, range(0x21)))
_SECRETS = st.text(min_size=4).filter(lambda secret: len(secret.strip(_BLANKS)) >= 4)


@given(before=st.text(), secret=_SECRETS, after=st.text())
def test_no_surroundings_hide_an_echo(before: str, secret: str, after: str) -> None:
    event = Reply(connection(secret), TS, "ERR", before + secret + after)
    assert masked(event).msg == MASK


@given(
    command=st.text(),
    arg=st.text(alphabet="aB \t\xa0=", max_size=12),
    secret=st.sampled_from(Secret),
)
def test_masking_what_is_masked_changes_nothing(command: str, arg: str, secret: Secret) -> None:
    once = masked(Request(KNOWN, TS, command, arg, secret))
    assert masked(once) == once


@given(
    head=st.sampled_from(["bob", " bob", "bob smith", "bob ", ""]), tail=st.sampled_from(["", " "])
)
def test_a_digest_is_masked_wherever_blanks_are(head: str, tail: str) -> None:
    event = Request(KNOWN, TS, "APOP", f"{head} {DIGEST}{tail}", Secret.AFTER_NAME)
    assert DIGEST not in masked(event).arg
