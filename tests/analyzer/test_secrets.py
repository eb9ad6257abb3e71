"""Which events carry a secret, and which part of them: what the masking of written events relies on."""

import base64
import re

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Event, Request, Secret, Side, Unexpected

from .player import Player, new_connection

C, S = Side.CLIENT, Side.SERVER
BLOB = base64.b64encode(b"\0bob\0hunter2")


@pytest.fixture
def player() -> Player:
    """Return a session behind its greeting."""
    player = Player(Analyzer(new_connection()))
    player.say(S, b"+OK ready\r\n")
    return player


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (b"USER bob", Secret.NOTHING),
        (b"RETR 1", Secret.NOTHING),
        (b"PASS hunter2", Secret.ARGUMENT),
        (b"pass hunter2", Secret.ARGUMENT),
        (b"APOP bob 0123456789abcdef", Secret.AFTER_NAME),
        (b"AUTH PLAIN " + BLOB, Secret.AFTER_FIRST_WORD),
        (b"AUTH FOO " + BLOB, Secret.AFTER_FIRST_WORD),
        (b"PASSS hunter2", Secret.ARGUMENT),
        (b"PASS:hunter2", Secret.ARGUMENT),
        (b" PASS hunter2", Secret.ARGUMENT),
    ],
)
def test_a_request_says_which_part_is_secret(player: Player, line: bytes, secret: Secret) -> None:
    request = player.say(C, line + b"\r\n")[0]
    assert isinstance(request, Request)
    assert request.secret is secret


def test_base64_behind_a_refused_auth_is_secret_as_a_whole(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n" + BLOB + b"\r\n")
    _, request, unexpected = player.say(S, b"-ERR no\r\n")
    assert isinstance(request, Request)
    assert isinstance(unexpected, Unexpected)
    assert (request.secret, unexpected.secret) == (Secret.LINE, Secret.LINE)


def _shown(event: Event) -> str:
    """Return what a hook that masks shows of a client line in a detail: its first word at the most."""
    assert isinstance(event, Unexpected)
    word = re.match("[A-Za-z]{0,16}", event.detail)
    return "" if event.secret is Secret.LINE or word is None else word[0]


def test_the_detail_of_a_malformed_response_is_secret(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n")
    player.say(S, b"+ \r\n")
    unexpected = player.say(C, b"hunter!\r\n")[0]
    assert _shown(unexpected) == ""


def test_the_detail_of_a_response_that_is_too_long_is_secret(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n")
    player.say(S, b"+ \r\n")
    unexpected = player.say(C, b"hunter" * 20000 + b"\r\n")[0]
    assert _shown(unexpected) == ""


def test_the_detail_of_a_response_that_was_cut_is_secret(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n")
    player.say(S, b"+ \r\n")
    player.say(C, b"hunter")
    (unexpected,) = player.end(C)
    assert _shown(unexpected) == ""


def test_the_detail_of_base64_cut_behind_a_refused_auth_is_secret(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n")
    player.say(S, b"-ERR no\r\n")
    player.say(C, BLOB)
    (unexpected,) = player.end(C)
    assert _shown(unexpected) == ""


def test_the_detail_of_a_login_that_was_cut_shows_its_command_only(player: Player) -> None:
    player.say(C, b"PASS hunter")
    (unexpected,) = player.end(C)
    assert _shown(unexpected) == "PASS"


def _knows(player: Player, secret: str) -> bool:
    return player.analyzer.connection.secrets.repeated_in(secret)


@pytest.mark.parametrize(
    ("lines", "secret"),
    [
        (b"USER bob\r\nPASS hunter2\r\n", "hunter2"),
        (b"APOP bob 0123456789abcdef\r\n", "0123456789abcdef"),
        (b"AUTH PLAIN " + BLOB + b"\r\n", BLOB.decode()),
        (b"AUTH PLAIN " + BLOB + b"\r\n", "hunter2"),
        (b"PASSS hunter2\r\n", "hunter2"),
    ],
)
def test_the_connection_remembers_secrets(player: Player, lines: bytes, secret: str) -> None:
    player.say(C, lines)
    assert _knows(player, secret)


def test_the_connection_remembers_sasl_responses(player: Player) -> None:
    player.say(C, b"AUTH LOGIN\r\n")
    player.say(S, b"+ \r\n")
    player.say(C, base64.b64encode(b"bob") + b"\r\n")
    player.say(S, b"+ \r\n")
    player.say(C, base64.b64encode(b"hunter2") + b"\r\n")
    assert _knows(player, "hunter2")
    assert _knows(player, base64.b64encode(b"hunter2").decode())
