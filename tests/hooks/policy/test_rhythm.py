"""What counts as regular, and when a rule says so."""

import random
from collections.abc import Callable, Iterator

import pytest

from pop3proxy.hooks.api import PASS
from pop3proxy.hooks.policy.rhythm import Rhythm, minute_of, rhythm_of
from pop3proxy.inwords import why_in_words

from .test_engine import HOST, NOW, World, rule
from .test_explanations import Desk

DAYS = [{"count": 20, "seconds": 7 * 86400.0}]


def test_the_rhythm_is_the_median_interval_and_how_far_half_of_them_are_from_it() -> None:
    assert rhythm_of([0, 10, 20, 30]) == Rhythm(10, 0)
    assert rhythm_of([30, 0, 20, 10]) == Rhythm(10, 0)
    # One long pause, as of a night, changes neither.
    assert rhythm_of([0, 10, 20, 30, 40, 500]) == Rhythm(10, 0)
    # Intervals of 5, 10 and 15.
    assert rhythm_of([0, 5, 15, 30]) == Rhythm(10, 0.5)


@pytest.mark.parametrize("ages", [[], [1], [1, 2], [3, 3, 3, 3]])
def test_of_too_few_there_is_none(ages: list[float]) -> None:
    assert rhythm_of(ages) is None


def test_what_happens_in_one_minute_is_one() -> None:
    assert minute_of(120.0) == minute_of(179.9) != minute_of(180.0)


def regular(world: World) -> list[tuple[str, str, float]]:
    """Return what is said of regular failures: the rule, of whom, and the interval."""
    return [(e.rule, e.key, e.seconds) for e in world.events if e.rule.startswith("slow-a")]


def played(intervals: Iterator[float], times: int, mech: str = "PLAIN") -> World:
    world = World()
    for number in range(times):
        password = "" if mech == "CRAM-MD5" else f"guess{number}"
        assert world.guess("bob", password, mech=mech) is PASS
        world.turn(next(intervals))
    return world


def always(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


@pytest.mark.parametrize("mech", ["PLAIN", "CRAM-MD5"])
def test_one_guess_each_forty_minutes_is_said_once_of_address_and_account(mech: str) -> None:
    said = [
        ("slow-address", f"address:{HOST}", 2400.0),
        ("slow-account", "user:bob", 2400.0),
    ]
    # It takes 20, which is 13 hours.
    assert regular(played(always(2400.0), 19, mech)) == []
    world = played(always(2400.0), 72, mech)
    assert regular(world) == said
    assert {event.action for event in world.events} == {"log"}


def test_guesses_from_ever_other_addresses_are_said_of_the_account() -> None:
    world = World()
    for number in range(30):
        world.guess("bob", f"guess{number}", f"10.{number}.0.1")
        world.turn(4000.0)
    assert regular(world) == [("slow-account", "user:bob", 4000.0)]


def draws(draw: Callable[[random.Random], float], seed: int) -> Iterator[float]:
    chance = random.Random(seed)
    while True:
        yield draw(chance)


@pytest.mark.parametrize("seed", range(5))
def test_a_guesser_that_wavers_a_little_is_still_regular(seed: int) -> None:
    intervals = draws(lambda chance: chance.uniform(2100, 3300), seed)
    assert len(regular(played(intervals, 72))) == 2


@pytest.mark.parametrize("seed", range(20))
def test_failures_at_any_time_are_not_regular(seed: int) -> None:
    world = World()
    intervals = draws(lambda chance: chance.expovariate(1 / 7200), seed)
    for number in range(60):
        world.guess("bob", f"typo{number}")
        world.turn(next(intervals))
    assert regular(world) == []


def test_what_is_fast_is_left_to_the_other_rules() -> None:
    limits = {"limits": DAYS, "regular": {"interval": 600.0}}
    for each, said in ((590.0, []), (600.0, ["log"])):
        world = World([{**rule("failures", "address", 1, "log"), **limits}])
        for number in range(20):
            world.guess("bob", f"guess{number}")
            world.turn(each)
        assert world.actions() == said


def test_bursts_at_regular_times_are_regular() -> None:
    limits = {"limits": DAYS, "regular": {}}
    world = World([{**rule("failures", "address", 1, "log"), **limits}])
    world.now = NOW - NOW % 60
    for number in range(60):
        world.guess("bob", f"guess{number}")
        world.turn(10.0 if number % 3 < 2 else 3580.0)
    assert [event.seconds for event in world.events] == [3600.0]


def test_a_client_that_is_welcome_is_never_called_a_guesser() -> None:
    world = World()
    world.log_in("bob", "right")
    for _ in range(100):
        world.guess("bob", "", mech="CRAM-MD5")
        world.turn(900.0)
    assert regular(world) == []


def test_the_same_password_again_is_not_counted() -> None:
    world = World()
    for _ in range(100):
        world.guess("bob", "the one before")
        world.turn(900.0)
    assert regular(world) == []


def test_it_is_said_to_an_operator_with_the_interval() -> None:
    world = played(always(2400.0), 20)
    desk = Desk(world)
    for event in world.events:
        desk.decisions.remember((), event)
    assert "log each 2400 s by slow-account: user:bob 20 of 20 failures in 604800 s" in "\n".join(
        why_in_words(desk.why("bob"))
    )


def test_a_rule_on_trial_says_it_as_such() -> None:
    limits = {"limits": DAYS, "regular": {}, "dry_run": True}
    world = World([{**rule("failures", "address", 1, "log"), **limits}])
    for number in range(20):
        world.guess("bob", f"guess{number}")
        world.turn(2400.0)
    assert [event.dry_run for event in world.events] == [True]
