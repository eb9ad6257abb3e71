"""What holds for every session, whatever the peers send: made-up sessions try to refute it.

Each property is also shown to notice three planted faults, so that it is known to look.
"""

import os
import random
import re
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeGuard

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import (
    ALL,
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Side,
    StartTLS,
    Unexpected,
)
from pop3proxy.analyzer.grammar import Command
from pop3proxy.analyzer.guard import DEFAULT_OPTIONS, GuardOptions, Strictness
from pop3proxy.analyzer.limits import Limits
from pop3proxy.analyzer.steps import Kinds, Step

from .faults import CUTTING, FORESEEING, JUDGING, KEEPING, RAISING, TILING, Plant
from .player import Decide, GatedPlayer, Player, Verdict, new_connection, passing
from .sessions import Run, floods, sessions

EXAMPLES = 1000 if os.environ.get("CI") else 200

NOTHING: frozenset[type[Event]] = frozenset()
LOGINS: frozenset[type[Event]] = frozenset({LoginAttempt})
STLS: frozenset[type[Event]] = frozenset({StartTLS})

SMALL = Limits(
    pending=6,
    command_line=32,
    sasl_line=64,
    status_line=40,
    data_line=40,
    undecided=100,
    credentials=60,
    doubtful=3,
    secrets=4,
    secret_bytes=64,
)

Property = Callable[[list[Run], random.Random], None]


def hunt(
    rule: Property,
    made_up: st.SearchStrategy[list[Run]],
    examples: int,
    phases: tuple[Phase, ...] = tuple(Phase),
) -> None:
    """Try a property on so many examples, always the same ones."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(made_up, st.integers(0, 1 << 32))
    def on(runs: list[Run], seed: int) -> None:
        rule(runs, random.Random(seed))

    on()


GUARD = GuardOptions(
    words={b"XYZZY": "line", b"LANG": "body"}, unknown_mechanisms=True, mailbox_before_login=True
)


def players(
    source: random.Random, wants: Kinds = ALL, decide: Decide = passing
) -> Callable[[], GatedPlayer]:
    """Make sessions of one kind, as chance will have it."""
    limits = source.choice([Limits(), SMALL])
    wants = source.choice([wants, wants - {Data}])
    gated = source.choice([NOTHING, NOTHING, LOGINS, STLS, ALL])
    guard = source.choice([DEFAULT_OPTIONS, GUARD])
    return lambda: GatedPlayer(
        Analyzer(new_connection(), limits, wants, gated, guard=guard), decide if gated else passing
    )


def pieces(data: bytes, source: random.Random) -> list[bytes]:
    size = source.choice([1, 2, 5, 30])
    return [data[at : at + size] for at in range(0, len(data), size)]


def shown(event: Event) -> tuple[Any, ...]:
    """Give what of an event must not depend on the cutting: all but its time."""
    parameters = (getattr(event, name) for name in event.parameters)
    return (event.name, *parameters, getattr(event, "secret", None))


def turns(player: Player, side: Side, data: bytes) -> list[bytes]:
    """Give what a side says at once.

    In lock step, and behind a line that the guard has answered, the client's next line goes to a server
    that has said nothing more. So each line of the server is a turn of its own: together they would not be
    answers to what had not yet been passed.
    """
    guard = player.analyzer._guard
    waits = guard.strictness is not Strictness.NONE and player.held_up
    if side is Side.SERVER and (guard.lock_step or waits):
        return re.findall(rb"[^\n]*\n|[^\n]+", data)
    return [data]


def played(player: Player, runs: list[Run], source: random.Random | None) -> list[Any]:
    events: list[Event] = []
    for side, data in runs:
        for turn in turns(player, side, data):
            for piece in [turn] if source is None else pieces(turn, source):
                events += player.say(side, piece)
    events += player.end(Side.CLIENT)
    events += player.end(Side.SERVER)
    return [shown(event) for event in events]


def any_cutting_gives_the_same_events(runs: list[Run], source: random.Random) -> None:
    make = players(source)
    assert played(make(), runs, source) == played(make(), runs, None)


def steps_tile_the_input(runs: list[Run], source: random.Random) -> None:
    """What no step covers still waits in the analyzer, and comes as soon as it may go."""
    player = players(source)()
    for side, data in runs:
        for piece in pieces(data, source):
            player.say(side, piece)
    assert player.waiting == player.analyzer._client.waiting
    if not player.over:
        player.analyzer.give_up("the test's end")
        player.say(Side.CLIENT, b"")
        assert player.waiting == 0 or player.over


def no_input_raises(runs: list[Run], source: random.Random) -> None:
    played(players(source)(), runs, source)


def each_attempt_has_one_outcome(runs: list[Run], source: random.Random) -> None:
    """Play with verdicts at random on the client's lines, and end a session on either side first."""
    verdicts = source.choice([[Verdict.PASS], list(Verdict)])
    player = players(source, decide=lambda step: source.choice(verdicts))()
    events: list[Event] = []
    for side, data in runs:
        for piece in [data] if source.random() < 0.5 else pieces(data, source):
            events += player.say(side, piece)
            if source.random() < 0.3:
                events += player.settle()
    for side in source.sample(list(Side), 2):
        events += player.end(side)
    attempts = [event.attempt for event in events if isinstance(event, LoginAttempt)]
    outcomes = [event.attempt for event in events if is_outcome(event)]
    judged = [event.attempt for event in events if isinstance(event, LoginSuccess | LoginFailure)]
    assert attempts == sorted(set(attempts))
    assert [number for number in sorted(outcomes) if number in attempts] == attempts, events
    assert len(set(outcomes)) == len(outcomes)
    assert 0 not in judged


def is_outcome(event: Event) -> TypeGuard[LoginSuccess | LoginFailure | Unexpected]:
    return isinstance(event, LoginSuccess | LoginFailure | Unexpected) and event.attempt > 0


def what_is_kept_is_bounded(runs: list[Run], source: random.Random) -> None:
    """Play as a session does: client bytes that have to wait stop the client."""
    analyzer = Analyzer(new_connection(), SMALL)
    player = Player(analyzer)
    for side, data in runs:
        for at in range(0, len(data), 4096):
            if side is Side.SERVER or not player.waiting:
                player.say(side, data[at : at + 4096])
            assert kept(analyzer) < SMALL.retained + 4096


def an_open_line_says_what_it_may_become(runs: list[Run], source: random.Random) -> None:
    """Whoever holds a line for an event must know from its beginning, and not after it has passed."""
    analyzer = Analyzer(new_connection(), source.choice([Limits(), SMALL]), gated=ALL)
    begun: dict[Side, list[Step]] = {side: [] for side in Side}

    def pull(side: Side) -> None:
        while (step := analyzer.next(side)) is not None:
            kinds = {type(event) for event in step.events}
            assert all(kinds <= earlier.may for earlier in begun[side])
            if step.too_long and not step.open:
                # That a login may hide in a line shows by its length, when some of it has passed.
                assert all(step.may - LOGINS <= earlier.may for earlier in begun[side])
            begun[side] = [*begun[side], step] if step.open else []
            if side is Side.SERVER:
                pull(Side.CLIENT)

    for side, data in runs:
        for piece in pieces(data, source):
            analyzer.feed(side, piece, 0.0)
            pull(side)


_SHARED = (type, Enum, Command, Limits, frozenset)


def kept(value: Any) -> int:
    """Give the octets of a value and of all that it holds, but for what all sessions share."""
    if isinstance(value, _SHARED) or callable(value):
        return 0
    size = sys.getsizeof(value)
    if isinstance(value, list | tuple | set):
        return size + sum(map(kept, value))
    if isinstance(value, dict):
        return size + sum(kept(key) + kept(item) for key, item in value.items())
    for owner in type(value).__mro__:
        for name in getattr(owner, "__slots__", ()):
            size += kept(getattr(value, name, None))
    return size


def test_any_cutting_of_a_session_gives_the_same_events() -> None:
    hunt(any_cutting_gives_the_same_events, sessions(), EXAMPLES)


def test_a_command_that_waits_for_room_comes_before_the_body_for_any_cutting() -> None:
    runs = [
        (Side.SERVER, b"+OK\r\n"),
        (Side.CLIENT, b"LIST\r\n" + b"NOOP\r\n" * SMALL.pending),
        (Side.SERVER, b"+OK\r\n1 2\r\n.\r\n"),
    ]
    whole = played(Player(Analyzer(new_connection(), SMALL)), runs, None)
    assert played(Player(Analyzer(new_connection(), SMALL)), runs, random.Random(1)) == whole


def test_a_line_behind_one_that_the_guard_answers_is_answered_by_what_follows_it() -> None:
    runs = [
        (Side.SERVER, b"+OK ready\r\n"),
        (Side.CLIENT, b"USER bob\r\n\0\r\nRETR 1\r\n"),
        (Side.SERVER, b"+OK\r\n+OK\r\n\r\n.\r\n"),
    ]
    whole = played(GatedPlayer(Analyzer(new_connection(), gated=STLS)), runs, None)
    assert (
        played(GatedPlayer(Analyzer(new_connection(), gated=STLS)), runs, random.Random(1)) == whole
    )


def test_a_line_that_may_be_a_second_login_is_not_judged_by_its_first_letter() -> None:
    runs = [
        (Side.SERVER, b"+OK ready\r\n"),
        (Side.CLIENT, b"PASS\r\n"),
        (Side.SERVER, b"+OK\r\r\n"),
        (Side.CLIENT, b"RETR 1\r\n"),
        (Side.SERVER, b"+OK\r\n"),
    ]
    whole = played(GatedPlayer(Analyzer(new_connection(), gated=LOGINS)), runs, None)
    assert (
        played(GatedPlayer(Analyzer(new_connection(), gated=LOGINS)), runs, random.Random(0))
        == whole
    )


def test_the_steps_of_a_session_tile_its_bytes() -> None:
    hunt(steps_tile_the_input, sessions(), EXAMPLES)


def test_no_session_raises() -> None:
    hunt(no_input_raises, sessions(), EXAMPLES)


def test_an_open_line_says_what_it_may_become() -> None:
    hunt(an_open_line_says_what_it_may_become, sessions(), EXAMPLES)


def test_each_attempt_has_exactly_one_outcome() -> None:
    hunt(each_attempt_has_one_outcome, sessions(), EXAMPLES)


def test_what_is_kept_of_a_flood_is_bounded() -> None:
    hunt(what_is_kept_is_bounded, floods(), EXAMPLES)


@pytest.mark.parametrize(
    ("rule", "made_up", "plant", "noticed"),
    [
        *(
            (any_cutting_gives_the_same_events, sessions(), plant, AssertionError)
            for plant in CUTTING
        ),
        *((steps_tile_the_input, sessions(), plant, AssertionError) for plant in TILING),
        *((no_input_raises, sessions(), plant, Exception) for plant in RAISING),
        *(
            (an_open_line_says_what_it_may_become, sessions(), plant, AssertionError)
            for plant in FORESEEING
        ),
        *((each_attempt_has_one_outcome, sessions(), plant, AssertionError) for plant in JUDGING),
        *((what_is_kept_is_bounded, floods(), plant, AssertionError) for plant in KEEPING),
    ],
)
def test_a_planted_fault_is_noticed(
    rule: Property,
    made_up: st.SearchStrategy[list[Run]],
    plant: Plant,
    noticed: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(noticed, match=r"."):
        hunt(rule, made_up, 20_000, (Phase.generate,))
