"""What a login event has of an exchange that proves a password without showing it."""

from base64 import b64encode

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Exchanged, LoginAttempt, LoginFailure, Side
from pop3proxy.analyzer.sasl import MOST_EXCHANGED

from .player import Player, new_connection

C, S = Side.CLIENT, Side.SERVER
STAMP = b"<1896.697170952@dbc.mtview.ca.us>"
DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"
Line = tuple[Side, bytes]


def failed(*lines: Line, greeting: bytes = b"+OK ready " + STAMP) -> Exchanged:
    """Play lines up to a refusal; return what was exchanged, as the attempt and the failure have it."""
    player = Player(Analyzer(new_connection()))
    player.say(S, greeting + b"\r\n")
    events = [event for side, line in lines for event in player.say(side, line + b"\r\n")]
    events += player.say(S, b"-ERR [AUTH] no\r\n")
    (attempt,) = [event for event in events if isinstance(event, LoginAttempt)]
    (failure,) = [event for event in events if isinstance(event, LoginFailure)]
    assert attempt.exchanged == failure.exchanged
    return failure.exchanged


def auth(mechanism: bytes, *exchanged: tuple[bytes, bytes]) -> list[Line]:
    lines: list[Line] = [(C, b"AUTH " + mechanism)]
    for challenge, response in exchanged:
        lines += [(S, b"+ " + b64encode(challenge)), (C, b64encode(response))]
    return lines


def test_a_challenge_and_its_response_are_one_pair() -> None:
    pair = (b"<1896.697170952@postoffice.reston.mci.net>", b"tim " + DIGEST)
    assert failed(*auth(b"CRAM-MD5", pair)) == (pair,)


@pytest.mark.parametrize("mechanism", [b"SCRAM-SHA-1", b"scram-sha-256", b"SCRAM-SHA-512-PLUS"])
def test_pairs_are_in_the_order_of_the_exchange(mechanism: bytes) -> None:
    pairs = (b"", b"n,,n=user,r=abc"), (b"r=abcdef,s=QSXCR+Q6,i=4096", b"c=biws,r=abcdef,p=AAAA")
    assert failed(*auth(mechanism, *pairs)) == pairs


def test_an_initial_response_answers_no_challenge() -> None:
    first = b"n,,n=user,r=abc"
    pair = (b"r=abcdef,s=QSXCR+Q6,i=4096", b"c=biws,r=abcdef,p=AAAA")
    begun = (C, b"AUTH SCRAM-SHA-1 " + b64encode(first))
    assert failed(begun, *auth(b"", pair)[1:]) == ((b"", first), pair)


def test_apop_has_the_time_stamp_of_the_greeting() -> None:
    assert failed((C, b"APOP mrose " + DIGEST)) == ((STAMP, DIGEST),)


@pytest.mark.parametrize("greeting", [b"+OK ready", b"+OK <ready", b"+OK <" + b"x" * 255 + b">"])
def test_without_a_time_stamp_apop_proves_nothing(greeting: bytes) -> None:
    assert failed((C, b"APOP mrose " + DIGEST), greeting=greeting) == ()


def test_apop_with_more_than_a_digest_is_not_kept() -> None:
    assert failed((C, b"APOP mrose 0" + DIGEST)) == ()


@pytest.mark.parametrize(
    "lines",
    [
        auth(b"PLAIN", (b"", b"\0bob\0secret")),
        auth(b"LOGIN", (b"User Name", b"bob"), (b"Password", b"secret")),
        auth(b"NTLM", (b"", b"NTLMSSP\0\1\0\0\0"), (b"", b"NTLMSSP\0\3\0\0\0" + bytes(60))),
        auth(b"XOAUTH2", (b"", b"user=bob\1auth=Bearer token\1\1")),
        auth(b"GSSAPI", (b"", b"token")),
    ],
    ids=lambda lines: lines[0][1].decode(),
)
def test_a_mechanism_that_shows_the_password_or_proves_none_keeps_nothing(
    lines: list[Line],
) -> None:
    assert failed(*lines) == ()


@pytest.mark.parametrize(("more", "kept"), [(0, 1), (1, 0)])
def test_an_exchange_beyond_the_bound_is_not_kept(more: int, kept: int) -> None:
    response = b"bob " + DIGEST
    challenge = b"x" * (MOST_EXCHANGED - len(response) + more)
    assert len(failed(*auth(b"CRAM-MD5", (challenge, response)))) == kept


def test_what_is_exchanged_is_not_in_the_text_of_an_event() -> None:
    exchanged = ((b"challenge", b"response"),)
    attempt = LoginAttempt(new_connection(), 0.0, "bob", "", "CRAM-MD5", 1, exchanged)
    assert "challenge" not in repr(attempt)
