"""No secret gets through the mask, and nothing else is lost in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.analyzer.events import (
    ALL,
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Reason,
    Reply,
    Request,
    Secret,
    Unexpected,
)
from pop3proxy.hooks.masking import MASK, in_clear, masked

from .examples import TS, connection, every_event

PASSWORD = "hunter2"
BLOB = "AGJvYgBodW50ZXIy"
TOKEN = "dXNlcj1ib2JAZXhhbXBsZS5vcmcBYXV0aD1CZWFyZXIgeWEyOS5hQWFB"
DIGEST = "c4c9334bac560ecc979e58001b3e22fb"

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
        Request(KNOWN, TS, "APOP", f"bob {DIGEST}", Secret.AFTER_LAST_BLANK),
        DIGEST,
    ),
    "APOP digest before a blank": (
        Request(KNOWN, TS, "APOP", f"bob {DIGEST} ", Secret.AFTER_LAST_BLANK),
        DIGEST,
    ),
    "APOP digest without a name": (
        Request(KNOWN, TS, "APOP", DIGEST, Secret.AFTER_LAST_BLANK),
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
        Request(KNOWN, TS, "PASSS", PASSWORD, Secret.ARGUMENT),
        PASSWORD,
    ),
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
    return [getattr(event, name) for name in event.parameters]


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
        ("APOP", f"bob {DIGEST}", Secret.AFTER_LAST_BLANK, ("APOP", f"bob {MASK}")),
        ("APOP", f"bob smith {DIGEST}", Secret.AFTER_LAST_BLANK, ("APOP", f"bob smith {MASK}")),
        ("APOP", f"bob\t{DIGEST}", Secret.AFTER_LAST_BLANK, ("APOP", MASK)),
        ("APOP", "", Secret.AFTER_LAST_BLANK, ("APOP", "")),
        ("AGJVYG", "+x", Secret.LINE, (MASK, MASK)),
        ("AGJVYG", "", Secret.LINE, (MASK, "")),
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
        (f"PASSS {PASSWORD}", Secret.NOTHING, "PASSS"),
        (f"PASSS {PASSWORD}", Secret.ARGUMENT, "PASSS"),
        ("abcdefghijklmnopqrst", Secret.NOTHING, "abcdefghijklmnop"),
        ("+-USER bob", Secret.NOTHING, ""),
        ("P4SS x", Secret.NOTHING, "P"),
        ("übung", Secret.NOTHING, ""),
        ("", Secret.NOTHING, ""),
        (BLOB, Secret.LINE, MASK),
        ("", Secret.LINE, ""),
    ],
)
def test_the_detail_of_a_client_line_is_its_first_word(
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


def test_mail_is_not_masked() -> None:
    """It is written only if the operator asks for it, and whole."""
    assert masked(Data(KNOWN, TS, f"your password is {PASSWORD}")).data.endswith(PASSWORD)


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


@given(before=st.text(), secret=st.text(min_size=4), after=st.text())
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
    event = Request(KNOWN, TS, "APOP", f"{head} {DIGEST}{tail}", Secret.AFTER_LAST_BLANK)
    assert DIGEST not in masked(event).arg
