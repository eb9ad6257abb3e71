"""Which events carry a secret, and which part of them: what the masking of written events relies on."""

import base64

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Event, Request, Secret, Side, Tls, Unexpected
from pop3proxy.analyzer.limits import Limits
from pop3proxy.analyzer.remembered import NOTHING_REMEMBERED
from pop3proxy.analyzer.state import DialogueState

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
        (b"AUTH PLAIN\t" + BLOB, Secret.AFTER_FIRST_WORD),
        (b"AUTH FOO " + BLOB, Secret.AFTER_FIRST_WORD),
        (b"AUTH " + BLOB, Secret.ARGUMENT),
        (b"AUTH", Secret.NOTHING),
        # A name, and a password typed behind it.
        (b"USER bob smith", Secret.NOTHING),
        (b"USER bob PASS", Secret.NOTHING),
        (b"USER bob.pass smith", Secret.NOTHING),
        (b"USER bob PASS hunter2", Secret.AFTER_PASS),
        (b"USER bob\rpass hunter2", Secret.AFTER_PASS),
        (b"USER bob;password: hunter2", Secret.AFTER_PASS),
        (b"RPOP bob PASS hunter2", Secret.AFTER_PASS),
        # Commands that have no such argument, which may be the rest of a password.
        (b"LIST 1 ", Secret.NOTHING),
        (b"TOP 1 20", Secret.NOTHING),
        (b"LIST of secrets", Secret.ODD_ARGUMENT),
        (b"RETR 12345678901", Secret.ODD_ARGUMENT),
        (b"STAT ", Secret.NOTHING),
        (b"STAT hunter2", Secret.ODD_ARGUMENT),
        (b"LANG de-CH", Secret.NOTHING),
        (b"LANG *", Secret.NOTHING),
        (b"LANG hunter2", Secret.ODD_ARGUMENT),
        # Lines that are no command: their first word is public if it is a whole verb.
        (b"HELP", Secret.ARGUMENT),
        (b"help me", Secret.ARGUMENT),
        (b"PASS\thunter2", Secret.ARGUMENT),
        (b"PASS\0hunter2", Secret.ARGUMENT),
        (b" PASS hunter2", Secret.ARGUMENT),
        (b"\0PASS hunter2", Secret.ARGUMENT),
        (b"123456", Secret.ARGUMENT),
        (b"PASSS hunter2", Secret.LINE),
        (b"PASS:hunter2", Secret.LINE),
        (b"PASShunter2", Secret.LINE),
        (b"AUTHPLAIN " + BLOB, Secret.LINE),
        (b"hunter2", Secret.LINE),
        (b"STAT1cSecret", Secret.LINE),
        (b"SecretTail", Secret.LINE),
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


def _mark(event: Event) -> Secret:
    assert isinstance(event, Unexpected)
    return event.secret


def test_a_verb_behind_a_refused_auth_is_secret_as_it_may_be_base64(player: Player) -> None:
    player.say(C, b"AUTH FOO\r\n")
    player.say(S, b"-ERR no\r\n")
    request = player.say(C, b"HELP\r\n")[0]
    assert isinstance(request, Request)
    assert request.secret is Secret.LINE


def test_the_detail_of_a_response_that_is_too_long_is_secret(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n")
    player.say(S, b"+ \r\n")
    assert _mark(player.say(C, b"hunter" * 20000 + b"\r\n")[0]) is Secret.LINE


def test_the_detail_of_a_response_that_was_cut_is_secret(player: Player) -> None:
    player.say(C, b"AUTH PLAIN\r\n")
    player.say(S, b"+ \r\n")
    player.say(C, b"hunter")
    (unexpected,) = player.end(C)
    assert _mark(unexpected) is Secret.LINE
    assert _knows(player, "hunter")


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (b"PASS secr", Secret.ARGUMENT),
        (b"pass\tsecr", Secret.ARGUMENT),
        (b"PA", Secret.LINE),
        (b"Secr", Secret.LINE),
        (b"USER bo", Secret.NOTHING),
    ],
)
def test_of_a_line_that_was_cut_the_same_is_secret(
    player: Player, line: bytes, secret: Secret
) -> None:
    player.say(C, line)
    (unexpected,) = player.end(C)
    assert _mark(unexpected) is secret


def test_what_was_cut_is_remembered(player: Player) -> None:
    """The server may take the end for the line's, and repeat it."""
    player.say(C, b"PASS " + b"x" * 300 + b"hunter2-at-the-end")
    player.end(C)
    assert _knows(player, "hunter2-at-the-end")


def _knows(player: Player, secret: str) -> bool:
    return player.analyzer.connection.secrets.repeated_in(secret)


@pytest.mark.parametrize(
    ("lines", "secret"),
    [
        (b"USER bob\r\nPASS hunter2\r\n", "hunter2"),
        (b"APOP bob 0123456789abcdef\r\n", "0123456789abcdef"),
        (b"AUTH PLAIN " + BLOB + b"\r\n", BLOB.decode()),
        (b"AUTH PLAIN " + BLOB + b"\r\n", "hunter2"),
        (b"AUTH " + BLOB + b"\r\n", BLOB.decode()),
        (b"AUTH HUNTER2\r\n", "hunter2"),
        (b"AUTHPLAIN " + BLOB + b"\r\n", BLOB.decode()),
        (b"AUTHPLAIN " + BLOB + b"\r\n", "hunter2"),
        (b"APOP bob x 0123456789abcdef\r\n", "0123456789abcdef"),
        (b"APOP bob 0123456789abcdef x\r\n", "0123456789abcdef"),
        (b"PASSS hunter2\r\n", "hunter2"),
        (b"PASS\tab\r\n", "ab"),
        (b"PASSab\r\n", "ab"),
        (b"PASS ab\rcd\r\n", "cd"),
        (b"USER bob PASS ab\r\n", "ab"),
        (b"PASS first\nSecretTail\r\n", "cretTail"),
        (b"my SecretTail\r\n", "y Secr"),
        (b"STAT hunter2\r\n", "hunter2"),
        # A server whose buffer is full, or for which the line ends at a bare CR, has read them.
        (b"PASS hunter2\r", "hunter2"),
        (b"PASS " + b"x" * 300 + b"hunter2-at-the-end", "hunter2-at-the-end"),
    ],
)
def test_the_connection_remembers_secrets(player: Player, lines: bytes, secret: str) -> None:
    player.say(C, lines)
    player.say(S, b"-ERR no\r\n")
    assert _knows(player, secret)
    assert not _knows(player, "an innocent text")


def test_no_line_in_the_making_is_remembered(player: Player) -> None:
    """It is when it is whole; until then no server repeats it."""
    player.say(C, b"NOOP\r\nRETR 1")
    player.say(S, b"+OK\r\n")
    assert player.analyzer.connection.secrets is NOTHING_REMEMBERED


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_what_passed_behind_a_barrier_is_remembered_before_it_is_read(
    player: Player, cut: int
) -> None:
    said = b"AUTH FOO\r\nSecretTail\r\nPASS hunter2\r\nPASS begun"
    for at in range(0, len(said), cut):
        player.say(C, said[at : at + cut])
        # It answers nothing, so what the client's lines are stays undecided.
        player.say(S, b"-ERR Disconnected for inactivity.\r\n")
    for secret in ("cretTail", "hunter2", "begun"):
        assert _knows(player, secret)


@pytest.mark.parametrize(
    "line",
    [
        b"PASS " + b"x" * 9000 + b"\r\n",
        b"SecretTail" * 900 + b"\r\n",
        b"SecretTail" * 900,
        b"AUTH PLAIN " + b"A" * 70000 + b"\r\n",
    ],
)
def test_of_a_line_over_its_limit_the_rest_may_be_repeated(player: Player, line: bytes) -> None:
    player.say(C, line)
    player.say(S, b"-ERR no\r\n")
    assert player.analyzer.connection.secrets.lost


@pytest.mark.parametrize(
    ("mechanism", "data", "secret"),
    [
        (b"XOAUTH2", b"user=bob\1auth=Bearer ya29.token\1\1", "ya29.token"),
        (b"OAUTHBEARER", b"n,a=bob,\1auth=Bearer ya29.token\1\1", "ya29.token"),
        (b"CRAM-MD5", b"bob c4c9334bac560ecc979e58001b3e22fb", "c4c9334bac560ecc979e58001b3e22fb"),
        (b"SCRAM-SHA-1", b"c=biws,r=1,p=v0X8v3Bz2T0CJGbJQyF0X", "v0X8v3Bz2T0CJGbJQyF0X"),
        (b"DIGEST-MD5", b'username="bob",response=0123456789abcdef', "0123456789abcdef"),
        (b"FOO", b"\0bob\0hunter2", "hunter2"),
    ],
)
def test_what_is_in_a_response_is_remembered_decoded(
    player: Player, mechanism: bytes, data: bytes, secret: str
) -> None:
    player.say(C, b"AUTH " + mechanism + b" " + base64.b64encode(data) + b"\r\n")
    assert _knows(player, secret)
    assert not _knows(player, "bob")


def test_the_connection_remembers_sasl_responses(player: Player) -> None:
    player.say(C, b"AUTH LOGIN\r\n")
    player.say(S, b"+ \r\n")
    player.say(C, base64.b64encode(b"bob") + b"\r\n")
    player.say(S, b"+ \r\n")
    player.say(C, base64.b64encode(b"hunter2") + b"\r\n")
    assert _knows(player, "hunter2")
    assert _knows(player, base64.b64encode(b"hunter2").decode())
    assert not _knows(player, "bob")


def test_a_password_in_base64_behind_a_refused_auth_is_remembered_decoded(player: Player) -> None:
    player.say(C, b"AUTH LOGIN\r\n")
    player.say(S, b"-ERR no\r\n")
    player.say(C, base64.b64encode(b"hunter2") + b"\r\n")
    assert _knows(player, "hunter2")


def test_secrets_are_remembered_behind_the_change_to_tls(player: Player) -> None:
    player.say(C, b"PASS hunter2\r\n")
    player.say(S, b"-ERR no\r\n")
    player.analyzer.secured(Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
    assert _knows(player, "hunter2")


def test_the_end_of_a_line_behind_a_gap_is_remembered(player: Player) -> None:
    player.analyzer.gap(C, 1.0)
    player.say(C, b"SecretTail\r\n")
    assert _knows(player, "cretTail")


def test_what_stays_undecided_is_searched_once(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reply makes room for one command more, and what is behind it is not searched again."""
    searched: list[bytes] = []
    search = DialogueState._remember_line

    def counted(self: DialogueState, line: bytes) -> None:
        searched.append(line)
        search(self, line)

    monkeypatch.setattr(DialogueState, "_remember_line", counted)
    lines = Limits().pending + 50
    player.say(C, b"AUTH FOO\r\n" + b"NOOP\r\n" * lines)
    player.say(S, b"-ERR no\r\n" + b"+OK\r\n" * lines)
    assert lines <= len(searched) <= lines + 2
