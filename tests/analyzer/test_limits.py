"""What the analyzer does at its limits: oddities, long lines, pending commands, bytes at barriers."""

from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Data, Event, Oddity, Reply, Request, Side, Unexpected
from pop3proxy.analyzer.limits import Limits

from .player import Player, new_connection

C, S = Side.CLIENT, Side.SERVER
Dialogue = list[tuple[Side, bytes]]

GREETED: Dialogue = [(S, b"+OK ready\r\n")]
LOGGED_IN: Dialogue = [
    *GREETED,
    (C, b"USER bob\r\nPASS secret\r\n"),
    (S, b"+OK\r\n+OK\r\n"),
]

# How each oddity that can come more than once is brought about, and nothing else.
REPEATABLE: Mapping[Oddity, tuple[Dialogue, Dialogue]] = {
    Oddity.UNKNOWN_COMMAND: (GREETED, [(C, b"FOO\r\n"), (S, b"-ERR\r\n")]),
    Oddity.BAD_ARGUMENTS: (GREETED, [(C, b"USER\r\n"), (S, b"-ERR\r\n")]),
    Oddity.WRONG_STATE: (GREETED, [(C, b"STAT\r\n"), (S, b"-ERR\r\n")]),
    Oddity.LINE_TOO_LONG: (GREETED, [(C, b"NOOP " + b"x" * 9000 + b"\r\n"), (S, b"+OK\r\n")]),
    Oddity.BAD_SASL_RESPONSE: (GREETED, [(C, b"AUTH PLAIN !\r\n"), (S, b"-ERR\r\n")]),
    Oddity.UNSOLICITED_REPLY: (GREETED, [(S, b"+OK\r\n")]),
    Oddity.BAD_STATUS: (GREETED, [(C, b"NOOP\r\n"), (S, b"+ERR\r\n")]),
    Oddity.STRAY_CHALLENGE: (GREETED, [(S, b"+ what\r\n")]),
    Oddity.UNKNOWN_BODY: (LOGGED_IN, [(C, b"XTND FOO\r\n"), (S, b"+OK\r\ntext\r\n.\r\n")]),
    Oddity.AMBIGUOUS_LINE: (GREETED, [(C, b"NOOP a\rb\r\n"), (S, b"+OK\r\n")]),
    Oddity.OUT_OF_STEP: (GREETED, [(S, b".\r\n")]),
    Oddity.MIXED_TERMINATOR: (GREETED, [(C, b"CAPA\r\n"), (S, b"+OK\r\n.\n")]),
    Oddity.EARLY_REPLY: (
        LOGGED_IN,
        [(C, b"XTND XMIT\r\n"), (S, b"+OK\r\n"), (C, b"x\r\n"), (S, b"-ERR\r\n"), (C, b".\r\n")],
    ),
}

# The outcomes of login attempts, of which each has one, are never only counted.
OUTCOMES: Mapping[Oddity, tuple[Dialogue, Dialogue]] = {
    Oddity.LOGIN_CANCELLED: (GREETED, [(C, b"PASS x\r\n"), (S, b"-ERR\r\n")]),
    Oddity.CUT_LOGIN: (GREETED, [(C, b"USER bob\r\nPASS x\r\n" * 25), (S, b"+OK\r\n")]),
}

# What changes the session's state or ends inspection or the session can't come twice.
ONCE = frozenset(
    {
        Oddity.NO_LOGIN_SEEN,
        Oddity.TLS_FROM_FIRST_BYTE,
        Oddity.NOT_POP3,
        Oddity.SECURITY_LAYER,
        Oddity.CLIENT_INJECTION,
        Oddity.SERVER_INJECTION,
        Oddity.CUT_GREETING,
        Oddity.CUT_REPLY,
        Oddity.CUT_LINE,
    }
)


@pytest.fixture
def player() -> Player:
    """Return a session, ungated, with the default limits."""
    return Player(Analyzer(new_connection()))


def _say(player: Player, dialogue: Dialogue) -> list[Event]:
    return [event for side, data in dialogue for event in player.say(side, data)]


def _oddities(events: Iterable[Event]) -> Counter[Oddity]:
    return Counter(event.msg for event in events if isinstance(event, Unexpected))


def _requests(events: Iterable[Event]) -> list[str]:
    return [event.command for event in events if isinstance(event, Request)]


def test_every_oddity_is_known_to_come_often_or_once() -> None:
    # A gap is nothing that a peer can say; test_gaps counts them. test_guard counts what is not passed.
    others = {Oddity.GAP, Oddity.NOT_PASSED}
    assert {*REPEATABLE, *OUTCOMES, *ONCE, *others} == set(Oddity)


@pytest.mark.parametrize("oddity", REPEATABLE)
def test_an_oddity_is_raised_twenty_times_and_counted_beyond(
    player: Player, oddity: Oddity
) -> None:
    opening, exchange = REPEATABLE[oddity]
    _say(player, opening)
    events = _say(player, exchange * 25)
    assert _oddities(events) == {oddity: 20}
    assert player.analyzer.unexpected == 25


def test_that_a_login_was_not_judged_is_raised_for_each_attempt(player: Player) -> None:
    opening, exchange = OUTCOMES[Oddity.LOGIN_CANCELLED]
    events = _say(player, [*opening, *exchange * 25])
    assert _oddities(events) == {Oddity.LOGIN_CANCELLED: 25}


def test_that_a_login_was_not_answered_is_raised_for_each_attempt(player: Player) -> None:
    opening, exchange = OUTCOMES[Oddity.CUT_LOGIN]
    _say(player, [*opening, *exchange])
    events = player.end(C) + player.end(S)
    assert _oddities(events) == {Oddity.CUT_LOGIN: 25}


def test_one_oddity_does_not_use_up_the_limit_of_another(player: Player) -> None:
    _say(player, [*GREETED, *REPEATABLE[Oddity.UNKNOWN_COMMAND][1] * 25])
    assert _oddities(_say(player, [(C, b"NOOP\r\n"), (S, b"+ERR\r\n")])) == {Oddity.BAD_STATUS: 1}


def test_beyond_the_limit_of_an_oddity_all_other_events_go_on(player: Player) -> None:
    events = _say(player, [*GREETED, *REPEATABLE[Oddity.UNKNOWN_COMMAND][1] * 25])
    assert _requests(events) == ["FOO"] * 25
    assert sum(isinstance(event, Reply) for event in events) == 26


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_a_line_of_exactly_the_limit_is_not_too_long(player: Player, ending: bytes) -> None:
    line = b"NOOP ".ljust(Limits().command_line, b"x")
    events = _say(player, [*GREETED, (C, line + ending)])
    assert not _oddities(events)


def test_a_line_of_one_more_than_the_limit_is_too_long(player: Player) -> None:
    line = b"NOOP ".ljust(Limits().command_line + 1, b"x")
    events = _say(player, [*GREETED, (C, line + b"\n")])
    assert _oddities(events) == {Oddity.LINE_TOO_LONG: 1}


def test_a_long_status_line_is_shown_by_its_beginning(player: Player) -> None:
    events = _say(player, [*GREETED, (C, b"NOOP\r\n"), (S, b"+OK " + b"x" * 100_000 + b"\r\n")])
    (reply,) = [event for event in events[1:] if isinstance(event, Reply)]
    assert reply.msg == "x" * len(reply.msg)
    assert 512 < len(reply.msg) < 100_000
    assert _oddities(events) == {Oddity.LINE_TOO_LONG: 1}


@pytest.mark.parametrize("piece", [1_000, 1_500_000])
def test_a_long_line_of_a_body_is_shown_by_its_beginning(player: Player, piece: int) -> None:
    body = b"+OK\r\nfirst\r\n" + b"x" * 1_200_000 + b"\r\nlast\r\n.\r\n"
    said = [(S, body[at : at + piece]) for at in range(0, len(body), piece)]
    events = _say(player, [*LOGGED_IN, (C, b"RETR 1\r\n"), *said])
    first, long, last = [event.data for event in events if isinstance(event, Data)]
    assert (first, last) == ("first", "last")
    assert long == "x" * len(long)
    assert 998 < len(long) < 1_200_000
    assert _oddities(events) == {Oddity.LINE_TOO_LONG: 1}
    assert player.analyzer.owed == 0


def test_a_long_line_that_ends_in_a_dot_ends_no_body(player: Player) -> None:
    body = b"+OK\r\n" + b"x" * 200_000 + b".\r\n"
    _say(player, [*LOGGED_IN, (C, b"RETR 1\r\n"), (S, body)])
    assert player.analyzer.owed == 1


def test_at_the_limit_of_pending_commands_the_client_waits(player: Player) -> None:
    _say(player, GREETED)
    events = player.say(C, b"NOOP\r\n" * 5000)
    assert len(_requests(events)) == player.analyzer.owed == Limits().pending
    assert player.waiting == (5000 - Limits().pending) * len(b"NOOP\r\n")


def test_waiting_commands_go_on_as_replies_come(player: Player) -> None:
    _say(player, GREETED)
    events = player.say(C, b"NOOP\r\n" * 5000)
    events += player.say(S, b"+OK\r\n" * 5000)
    assert _requests(events) == ["NOOP"] * 5000
    assert sum(isinstance(event, Reply) for event in events) == 5000
    assert not _oddities(events)
    assert (player.waiting, player.analyzer.owed) == (0, 0)


def test_a_login_behind_thousands_of_commands_is_judged(player: Player) -> None:
    _say(player, GREETED)
    player.say(C, b"NOOP\r\n" * 5000 + b"USER bob\r\nPASS wrong\r\n")
    events = player.say(S, b"+OK\r\n" * 5001 + b"-ERR no\r\n")
    names = [event.name for event in events[-3:]]
    assert names == ["pop3_reply", "pop3_login_failure", "pop3_reply"]


def test_commands_kept_at_a_barrier_do_not_exceed_the_limit_of_pending_ones(player: Player) -> None:
    _say(player, GREETED)
    player.say(C, b"AUTH FOO\r\n" + b"NOOP\r\n" * 6000)
    events = player.say(S, b"-ERR\r\n")
    assert player.analyzer.owed <= Limits().pending
    events += player.say(S, b"+OK\r\n" * 6000)
    assert _requests(events) == ["NOOP"] * 6000
    assert player.waiting == 0


def test_at_the_limit_of_undecided_bytes_the_client_waits(player: Player) -> None:
    _say(player, GREETED)
    player.say(C, b"AUTH FOO\r\n" + b"NOOP " + b"x" * 1000 + b"\r\n")
    player.say(C, (b"NOOP " + b"x" * 1000 + b"\r\n") * 500)
    assert player.waiting > 0
    events = player.say(S, b"-ERR\r\n")
    assert _requests(events) == ["NOOP"] * 501
    assert player.waiting == 0


def test_a_login_behind_a_refused_auth_and_many_bytes_is_judged(player: Player) -> None:
    _say(player, GREETED)
    player.say(C, b"AUTH FOO\r\n" + (b"NOOP " + b"x" * 1000 + b"\r\n") * 200)
    player.say(C, b"USER bob\r\nPASS wrong\r\n")
    events = player.say(S, b"-ERR\r\n" + b"+OK\r\n" * 201 + b"-ERR no\r\n")
    names = [event.name for event in events[-3:]]
    assert names == ["pop3_reply", "pop3_login_failure", "pop3_reply"]
