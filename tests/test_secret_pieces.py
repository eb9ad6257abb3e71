"""No piece of a secret is in any record, in whichever way it is sent, repeated, and cut."""

import base64
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pop3proxy.analyzer import remembered, state
from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Data, Event, Oddity, Reason, Side
from pop3proxy.analyzer.remembered import LONG, LONG_PIECE, MAIL_PIECE, PIECE
from pop3proxy.analyzer.secrets import MECHANISMS, WORDS
from pop3proxy.hooks import masking
from pop3proxy.hooks.logging.records import line
from pop3proxy.hooks.masking import masked
from pop3proxy.hooks.ordinary import CODES, TEXTS

from .analyzer.player import Player, new_connection

C, S = Side.CLIENT, Side.SERVER
Way = Callable[[bytes], list[bytes]]


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


def digest(secret: bytes) -> bytes:
    return hashlib.md5(secret).hexdigest().encode()


def plain(secret: bytes) -> bytes:
    return b64(b"\0bob\0" + secret)


def xoauth2(secret: bytes) -> bytes:
    return b64(b"user=bob\1auth=Bearer " + secret + b"\1\1")


# What the client sends, a run at a time: the server answers between them.
WAYS: Mapping[str, Way] = {
    "PASS": lambda s: [b"USER bob\r\n", b"PASS " + s + b"\r\n"],
    "PASS, pipelined": lambda s: [b"USER bob\r\nPASS " + s + b"\r\nNOOP\r\n"],
    "small letters and blanks": lambda s: [b"pass   " + s + b"  \r\n"],
    "a line feed in it": lambda s: [b"PASS first\n" + s + b"\r\n"],
    "a bare CR in it": lambda s: [b"PASS first\r" + s + b"\r\n"],
    "a bare CR, and no line feed yet": lambda s: [b"PASS " + s + b"\r", b"\n"],
    "no blank": lambda s: [b"PASS" + s + b"\r\n"],
    "a colon": lambda s: [b"PASS:" + s + b"\r\n"],
    "a tab": lambda s: [b"pass\t" + s + b"\r\n"],
    "a NUL": lambda s: [b"PASS\0" + s + b"\0\r\n"],
    "a NUL before it": lambda s: [b"\0PASS " + s + b"\r\n"],
    "control bytes around it": lambda s: [b"PASS \1\2" + s + b"\x7f\3\r\n"],
    "a blank before it": lambda s: [b" PASS " + s + b"\r\n"],
    "mistyped": lambda s: [b"PASSS " + s + b"\r\n", b"PAS " + s + b"\r\n"],
    "alone": lambda s: [s + b"\r\n"],
    "alone, behind a word": lambda s: [b"my " + s + b"\r\n"],
    "behind a name": lambda s: [b"USER bob PASS " + s + b"\r\n", b"PASS x\r\n"],
    "behind a command without argument": lambda s: [b"STAT " + s + b"\r\n", b"NOOP " + s + b"\r\n"],
    "cut off": lambda s: [b"USER bob\r\n", b"PASS " + s],
    "cut off, alone": lambda s: [s],
    "cut off behind a barrier": lambda s: [b"AUTH PLAIN\r\nPASS " + s],
    "APOP": lambda s: [b"APOP bob " + digest(s) + b"\r\n"],
    "APOP, a word before it": lambda s: [b"APOP bob x " + digest(s) + b"\r\n"],
    "APOP, a word behind it": lambda s: [b"APOP bob " + digest(s) + b" x\r\n"],
    "APOP, a tab": lambda s: [b"APOP bob\t" + digest(s) + b"\r\n"],
    "APOP with the password": lambda s: [b"APOP bob " + s + b"\r\n"],
    "initial response": lambda s: [b"AUTH PLAIN " + plain(s) + b"\r\n"],
    "initial response, a tab": lambda s: [b"AUTH PLAIN\t" + plain(s) + b"\r\n"],
    "initial response, no blank": lambda s: [b"AUTHPLAIN " + plain(s) + b"\r\n"],
    "initial response, no mechanism": lambda s: [b"AUTH " + plain(s) + b"\r\n"],
    "in a mechanism's place": lambda s: [b"AUTH " + digest(s).upper()[:20] + b"\r\n"],
    "response to a challenge": lambda s: [b"AUTH PLAIN\r\n", plain(s) + b"\r\n"],
    "response, pipelined": lambda s: [b"AUTH PLAIN\r\n" + plain(s) + b"\r\nNOOP\r\n"],
    "response behind a refusal": lambda s: [b"AUTH FOO\r\n", plain(s) + b"\r\n"],
    "response cut off": lambda s: [b"AUTH PLAIN\r\n", plain(s)],
    "AUTH LOGIN": lambda s: [b"AUTH LOGIN\r\n", b64(b"bob") + b"\r\n", b64(s) + b"\r\n"],
    "AUTH LOGIN, in clear": lambda s: [b"AUTH LOGIN\r\n", b"bob\r\n", s + b"\r\n"],
    "token": lambda s: [b"AUTH XOAUTH2 " + xoauth2(s) + b"\r\n"],
    "token behind a refusal": lambda s: [b"AUTH FOO\r\n", xoauth2(s) + b"\r\n"],
    "CRAM-MD5": lambda s: [b"AUTH CRAM-MD5\r\n", b64(b"bob " + digest(s)) + b"\r\n"],
}

# How the server repeats a line, or a part of it.
ECHOES: Mapping[str, Callable[[bytes], bytes]] = {
    "whole": lambda text: b"-ERR what is " + text,
    "in capitals": lambda text: b"-ERR UNKNOWN COMMAND " + text.upper(),
    "its beginning": lambda text: b"-ERR unknown command " + text[:8],
    "its end": lambda text: b"-ERR unknown command " + text[-8:],
    "its middle": lambda text: b"-ERR unknown: " + text[len(text) // 4 :][: max(8, len(text) // 2)],
    "in quotes": lambda text: b'-ERR "' + text[:8].upper() + b'"?',
    "without the first word": lambda text: b"-ERR " + text.partition(b" ")[2],
    "as a code": lambda text: b"-ERR [" + text + b"] no",
    "accepted": lambda text: b"+OK hello " + text,
    "as a challenge": lambda text: b"+ " + text,
    "as no reply": lambda text: b"what is " + text,
    "as a body": lambda text: b"+OK\r\n" + text + b"\r\n.",
    "twice": lambda text: b"-ERR " + text + b"\r\n-ERR " + text,
}

_PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
SECRETS = st.tuples(
    st.text(_PRINTABLE, min_size=4, max_size=20),
    st.sampled_from(["", "", "", " "]),
    st.text(_PRINTABLE, min_size=4, max_size=20),
).map(lambda parts: "".join(parts).encode())

# What records say anyway: a secret that is made of it is no test.
_SAID_ANYWAY = " ".join(
    [
        *(*TEXTS, *CODES, *WORDS.values(), *MECHANISMS, *Oddity, *Reason, "USER/PASS"),
        *(masking.MASK, "(10 bytes)", "hello what is unknown command ready ERR"),
    ]
).casefold()
_VERBS = {word for words in WORDS.values() for word in words.split()}


def pieces(secret: bytes, size: int) -> set[str]:
    """Return what must not be shown: pieces of a secret, in small letters."""
    if len(secret) > LONG:
        size = LONG_PIECE
    text = secret.decode().casefold()
    return {text[at : at + size] for at in range(len(text) - size + 1)}


def hidden(secret: bytes) -> tuple[bytes, ...]:
    """Return all that a secret is sent as."""
    return secret, digest(secret), plain(secret), b64(secret), xoauth2(secret)


def is_a_test(secret: bytes) -> bool:
    return (
        # A line that is a command is one, even if it is the end of a password.
        secret.split()[0].upper().decode() not in _VERBS
        and not any(piece in _SAID_ANYWAY for piece in pieces(secret, PIECE))
    )


def cut(data: bytes, source: random.Random | None) -> Iterable[bytes]:
    if source is None or len(data) < 2:
        return [data]
    places = sorted(
        source.sample(range(1, len(data)), min(source.choice((1, 3, 9)), len(data) - 1))
    )
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def session(
    runs: list[bytes], echo: Callable[[bytes], bytes], source: random.Random | None
) -> Iterator[Event]:
    """Play a session to its end; the server answers each line as soon as it is complete for some server."""
    player = Player(Analyzer(new_connection()))
    yield from player.say(S, b"+OK ready\r\n")
    challenges = 0
    for run in runs:
        for piece in cut(run, source):
            yield from player.say(C, piece)
        *lines, _ = run.replace(b"\r", b"\n").split(b"\n")
        for text in filter(None, lines):
            if text in (b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH CRAM-MD5"):
                challenges = 2 if text == b"AUTH LOGIN" else 1
                reply = b"+ "
            elif challenges > 1:
                challenges -= 1
                reply = b"+ "
            else:
                challenges = 0
                reply = b"+OK" if text == b"USER bob" else echo(text)
            for piece in cut(reply + b"\r\n", source):
                yield from player.say(S, piece)
    yield from player.end(C)
    # It takes the end for that of a line.
    last = runs[-1].rpartition(b"\n")[2]
    yield from player.say(S, (echo(last) if last else b"-ERR") + b"\r\n")
    yield from player.end(S)


def shown(event: Event) -> str:
    """Return what a record says that depends on the peers."""
    record: dict[str, Any] = json.loads(line(masked(event)))
    return "\n".join(str(record[name]) for name in event.parameters).casefold()


def leaks(events: Iterable[Event], secret: bytes) -> list[str]:
    # Masked as they come, as a hook hears them.
    found = []
    for event in events:
        said = shown(event)
        size = MAIL_PIECE if isinstance(event, Data) else PIECE
        if any(piece in said for each in hidden(secret) for piece in pieces(each, size)):
            found.append(f"{event.name}: {said}")
    return found


SECRET = b"Zq7-kUmqUat_9x"


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("way", WAYS)
def test_no_piece_of_a_secret_is_recorded(way: str, echo: str) -> None:
    assert leaks(session(WAYS[way](SECRET), ECHOES[echo], None), SECRET) == []
    # Behind an attempt without it all is as before.
    runs = [b"USER bob\r\n", b"PASS x\r\n", *WAYS[way](SECRET)]
    assert leaks(session(runs, ECHOES[echo], random.Random(1)), SECRET) == []


@given(
    SECRETS.filter(is_a_test),
    st.sampled_from(sorted(WAYS)),
    st.sampled_from(sorted(WAYS)),
    st.sampled_from(sorted(ECHOES)),
    st.one_of(st.none(), st.randoms(use_true_random=False)),
)
@settings(max_examples=400, deadline=None)
@example(b"12345678", "alone", "cut off", "whole", None)
@example(b"aaaaaaaa", "no blank", "alone", "its end", None)
def test_no_piece_of_any_secret_is_recorded_in_any_cutting(
    secret: bytes, first: str, second: str, echo: str, source: random.Random | None
) -> None:
    runs = [run for run in WAYS[first](secret) if run.endswith(b"\n")] + WAYS[second](secret)
    assume(runs)
    assert leaks(session(runs, ECHOES[echo], source), secret) == []


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (remembered.Remembered, "repeated_in", lambda self, text: False),
        (remembered, "PIECE", 12),
        (masking, "_first_word", lambda event: event.detail.partition(" ")[0]),
        (masking, "_after_name", lambda arg: arg),
        (masking, "_after_first_word", lambda arg: arg),
        (state, "secrets_of", lambda secret, arg: ()),
        (state, "secrets_of_unknown", lambda line: ()),
        (state, "secrets_of_response", lambda line: ()),
        (masking, "shown_name", lambda name: name),
        (Analyzer, "_remember_unread", lambda self: None),
    ],
)
def test_a_planted_fault_is_noticed(
    owner: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, fault)
    assert any(
        leaks(session(WAYS[way](SECRET), echo, None), SECRET)
        for way in WAYS
        for echo in ECHOES.values()
    )
