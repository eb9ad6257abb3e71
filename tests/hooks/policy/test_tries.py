"""One mistake is one failure, by whatever mechanisms; a guesser gains a factor of three at the most."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from pop3proxy.hooks.policy import tries as room
from pop3proxy.hooks.policy.tries import (
    AT_ONCE,
    LONGEST,
    MOST_ASIDE,
    MOST_FAILURES,
    Failed,
    Outcome,
    Tries,
)

from .mechanisms import MAILKIT, PROVING, ROUNDS, SHOWN, exchanged

BOB = "192.0.2.1|bob"
SAME_TRY = 10.0


class World:
    """Tries, what threads have to do, and how many failures are charged now."""

    def __init__(self, same_try: float = SAME_TRY) -> None:
        self.now = 1000.0
        self.tries: Tries[str] = Tries(same_try, self._aside)
        self.jobs: list[Callable[[], None]] = []
        self.charged: list[str] = []
        self.again: list[bool] = []
        self._known: set[tuple[str, str]] = set()

    def _aside(self, work: Any, *arguments: Any) -> Any:
        answered: Deferred[Any] = Deferred()
        self.jobs.append(lambda: answered.callback(work(*arguments)))
        return answered

    def _charge(self, outcome: Outcome[str], name: str) -> None:
        self.again.append(outcome.again)
        for undone in outcome.undone:
            self.charged.remove(undone)
        if outcome.more:
            self.charged.append(name)

    def fail(
        self, mechanism: str, password: str, key: str = BOB, rounds: int = ROUNDS, **more: Any
    ) -> None:
        """Fail by a mechanism that shows a password or not, as the engine would tell it."""
        seen = password if mechanism in SHOWN else ""
        counts = (key, seen) not in self._known
        if seen:
            self._known.add((key, seen))
        failed = Failed(
            *(mechanism, seen and f"#{seen}", seen, exchanged(mechanism, password, rounds)),
            *(counts, more.get("since", self.now)),
        )
        name = f"{mechanism} {password} {len(self.again)}"
        outcome = self.tries.failed(key, failed, name, self.now)
        if isinstance(outcome, Deferred):
            outcome.addCallback(self._charge, name)
        else:
            self._charge(outcome, name)

    def mistake(self, password: str, *mechanisms: str) -> None:
        for mechanism in mechanisms:
            self.fail(mechanism, password)


# --- one mistake ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("hidden", PROVING)
def test_what_proved_the_password_that_comes_later_is_one_failure(hidden: str, shown: str) -> None:
    world = World()
    world.mistake("wrong", hidden, shown)
    assert len(world.charged) == 1


@pytest.mark.parametrize("hidden", PROVING)
def test_what_proves_a_password_that_came_before_is_no_further_failure(hidden: str) -> None:
    world = World()
    world.mistake("wrong", "PLAIN", hidden)
    assert len(world.charged) == 1


@pytest.mark.parametrize("order", [MAILKIT, MAILKIT[::-1]], ids=["strongest first", "last"])
def test_one_password_by_all_mechanisms_is_one_failure(order: tuple[str, ...]) -> None:
    world = World()
    world.mistake("wrong", *order)
    assert len(world.charged) == 1


def test_a_second_mistake_right_behind_the_first_is_a_second_failure() -> None:
    world = World()
    world.mistake("wrong", *MAILKIT)
    world.mistake("other", *MAILKIT)
    assert len(world.charged) == 2


def test_two_sessions_at_once_make_the_same_mistake_once() -> None:
    """Only NTLM stays unknown, and is there twice: one goes with the password, and one is a guess more."""
    world = World()
    world.mistake("wrong", *[each for each in MAILKIT[1:] for _ in range(2)])
    assert len(world.charged) == 1
    world.mistake("wrong", "NTLM", "NTLM")
    assert len(world.charged) == 2


def test_a_password_in_another_script_is_known_again() -> None:
    world = World()
    world.mistake("Paßwort", *MAILKIT)
    assert len(world.charged) == 1


@pytest.mark.parametrize("hidden", PROVING)
def test_another_password_is_another_failure(hidden: str) -> None:
    world = World()
    world.fail(hidden, "one")
    world.fail("PLAIN", "two")
    world.fail("LOGIN", "three")
    assert len(world.charged) == 3


def test_the_failure_that_was_none_is_undone() -> None:
    world = World()
    world.mistake("wrong", "NTLM", *PROVING)
    assert world.charged == ["NTLM wrong 0", "DIGEST-MD5 wrong 3"]
    world.fail("PLAIN", "wrong")
    assert world.charged == ["NTLM wrong 0"]


# --- what stays unknown -----------------------------------------------------------------------------------


def test_three_mechanisms_are_one_failure_and_the_fourth_is_another() -> None:
    world = World()
    counts = []
    for mechanism in ("NTLM", "X-1", "X-2", "X-3", "X-4", "X-5", "X-6"):
        world.fail(mechanism, "unknown")
        counts.append(len(world.charged))
    assert counts == [1, 1, 1, 2, 2, 2, 3]


def test_the_same_mechanism_again_is_another_guess() -> None:
    world = World()
    for number in range(1, 6):
        world.fail("CRAM-MD5", f"guess{number}")
        assert len(world.charged) == number


def test_what_is_shown_to_be_another_password_goes_with_none() -> None:
    world = World()
    world.mistake("guess", "NTLM", "CRAM-MD5")
    world.fail("PLAIN", "known")
    assert len(world.charged) == 2


def test_a_known_wrong_password_takes_nothing_along() -> None:
    """It counts for nothing, so that a guesser could send it with each guess."""
    world = World()
    world.fail("PLAIN", "old")
    assert len(world.charged) == 1
    for _ in range(3):
        world.now += 60
        world.fail("NTLM", "guess")
        world.fail("PLAIN", "old")
    assert len(world.charged) == 4


def test_what_proves_a_known_wrong_password_counts_for_nothing() -> None:
    world = World()
    world.fail("PLAIN", "old")
    world.now += 600
    world.mistake("old", *PROVING)
    assert len(world.charged) == 3
    world.mistake("old", *SHOWN)
    assert len(world.charged) == 1


guesses = st.tuples(
    st.sampled_from([*MAILKIT, "X-1"]), st.sampled_from(["one", "two", "three", "four"])
)


@given(st.lists(guesses, max_size=2 * MOST_FAILURES))
def test_a_guesser_gains_a_factor_of_three_at_the_most(tried: list[tuple[str, str]]) -> None:
    world = World()
    judged = set()
    for number, (mechanism, password) in enumerate(tried):
        # What nobody can know is another guess each time.
        known = mechanism in SHOWN or mechanism in PROVING
        judged.add(password if known else f"{password} {number}")
        world.fail(mechanism, password)
    assert len(judged) <= 3 * len(world.charged)


# --- again ------------------------------------------------------------------------------------------------


def test_the_same_password_is_told_by_each_mechanism_but_the_first() -> None:
    world = World()
    world.mistake("wrong", *MAILKIT)
    assert world.again == [False] * 6 + [True, True]


def test_the_same_password_by_the_same_mechanism_is_no_further_step() -> None:
    world = World()
    world.mistake("wrong", "PLAIN", "PLAIN", "LOGIN", "LOGIN")
    assert world.again == [False, False, True, False]


# --- time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "count"), [(SAME_TRY, 1), (SAME_TRY + 1, 2)])
def test_a_try_ends_when_nothing_comes_in_time(seconds: float, count: int) -> None:
    world = World()
    world.fail("CRAM-MD5", "wrong")
    world.now += seconds
    world.fail("PLAIN", "wrong")
    assert len(world.charged) == count


def test_what_was_tried_in_time_belongs_to_the_try_however_late_its_answer() -> None:
    world = World()
    world.fail("CRAM-MD5", "wrong")
    since = world.now + SAME_TRY
    world.now += 3 * SAME_TRY
    world.fail("PLAIN", "wrong", since=since)
    assert len(world.charged) == 1


@pytest.mark.parametrize(("seconds", "count"), [(20, 1), (20.1, 2)])
def test_a_login_under_way_keeps_the_try(seconds: float, count: int) -> None:
    world = World()
    world.fail("CRAM-MD5", "wrong")
    world.now += 9
    since = world.now
    world.tries.goes_on(BOB, since, 20.0)
    world.now += seconds
    world.tries.expire(world.now)
    world.fail("PLAIN", "wrong", since=since)
    assert len(world.charged) == count


def test_a_login_that_comes_too_late_does_not_keep_the_try() -> None:
    world = World()
    world.fail("CRAM-MD5", "wrong")
    world.tries.goes_on(BOB, world.now + SAME_TRY + 1, 20.0)
    assert len(world.tries) == 0


def test_a_try_waits_as_long_as_the_answer_is_held() -> None:
    world = World()
    world.fail("CRAM-MD5", "wrong")
    world.tries.held(BOB, world.now + 20.0)
    world.now += 29
    world.fail("PLAIN", "wrong")
    assert len(world.charged) == 1


def test_a_try_does_not_go_on_for_ever() -> None:
    world = World()
    end = world.now + LONGEST * SAME_TRY
    while world.now <= end:
        world.fail("NTLM", "wrong")
        world.now += 9
    assert len(world.tries) == 1
    world.tries.expire(end + 0.1)
    assert len(world.tries) == 0


def test_nothing_is_kept_beyond_its_time() -> None:
    world = World()
    world.fail("PLAIN", "wrong")
    world.tries.expire(world.now + SAME_TRY)
    assert (len(world.tries), world.tries.size > 0) == (1, True)
    world.tries.expire(world.now + SAME_TRY + 0.1)
    assert (len(world.tries), world.tries.size) == (0, 0)


def test_a_clock_that_is_set_back_ends_the_try() -> None:
    world = World()
    world.fail("PLAIN", "wrong")
    world.tries.expire(world.now - 1)
    assert len(world.tries) == 0


def test_a_good_login_ends_the_try() -> None:
    world = World()
    world.fail("CRAM-MD5", "wrong")
    world.tries.forget(BOB)
    assert (len(world.tries), world.tries.size) == (0, 0)


def test_clients_and_accounts_are_apart() -> None:
    world = World()
    for key in (BOB, "192.0.2.2|bob", "192.0.2.1|eve"):
        world.fail("CRAM-MD5", "wrong", key)
    assert len(world.charged) == 3


@pytest.mark.parametrize(("same_try", "key"), [(0.0, BOB), (SAME_TRY, "")])
def test_without_a_time_or_a_name_each_failure_counts(same_try: float, key: str) -> None:
    world = World(same_try)
    for mechanism in MAILKIT:
        world.fail(mechanism, "wrong", key)
    assert len(world.charged) == len(MAILKIT)
    assert len(world.tries) == 0


# --- threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rounds", "jobs"), [(AT_ONCE, 0), (AT_ONCE + 1, 1)])
def test_many_rounds_are_left_to_a_thread(rounds: int, jobs: int) -> None:
    world = World()
    world.fail("SCRAM-SHA-1", "wrong", rounds=rounds)
    world.fail("PLAIN", "wrong")
    assert len(world.jobs) == jobs
    for job in world.jobs:
        job()
    assert len(world.charged) == 1


def test_beyond_the_most_rounds_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes least is tried; of the other nothing becomes known, and it goes with the password."""
    monkeypatch.setattr(room, "MOST_ROUNDS", 3 * ROUNDS)
    world = World()
    world.fail("SCRAM-SHA-256", "guess", rounds=2 * ROUNDS)
    world.fail("SCRAM-SHA-1", "wrong", rounds=2 * ROUNDS - 1)
    world.fail("PLAIN", "wrong")
    assert len(world.charged) == 1


def test_what_fails_while_a_thread_works_is_a_part_of_the_try() -> None:
    world = World()
    world.fail("SCRAM-SHA-1", "wrong", rounds=AT_ONCE + 1)
    world.fail("PLAIN", "wrong")
    world.fail("NTLM", "wrong")
    (job,) = world.jobs
    job()
    assert len(world.charged) == 1


def test_a_try_that_ends_while_a_thread_works_is_not_kept() -> None:
    world = World()
    world.fail("SCRAM-SHA-1", "wrong", rounds=AT_ONCE + 1)
    world.fail("PLAIN", "wrong")
    world.tries.forget(BOB)
    world.jobs.pop()()
    assert (len(world.tries), world.tries.size) == (0, 0)
    assert len(world.charged) == 1


def test_threads_work_for_so_many_at_a_time() -> None:
    world = World()
    for number in range(MOST_ASIDE + 1):
        key = f"192.0.2.1|user{number}"
        world.fail("SCRAM-SHA-1", f"guess{number}", key, AT_ONCE + 1)
        world.fail("PLAIN", f"wrong{number}", key)
    assert len(world.jobs) == MOST_ASIDE
    world.jobs.pop()()
    world.fail("LOGIN", "other", key, AT_ONCE + 1)
    assert len(world.jobs) == MOST_ASIDE


# --- bounds -----------------------------------------------------------------------------------------------


def test_behind_the_most_failures_another_try_begins() -> None:
    world = World()
    for number in range(MOST_FAILURES):
        world.fail("PLAIN", f"guess{number}")
    full = world.tries.size
    world.fail("PLAIN", "one more")
    assert len(world.charged) == MOST_FAILURES + 1
    assert world.tries.size < full / 10


def test_of_too_many_tries_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_TRIES", 10)
    world = World()
    for number in range(20):
        world.fail("CRAM-MD5", "wrong", f"192.0.2.{number}|bob")
    assert len(world.tries) == 10
    world.fail("PLAIN", "wrong", "192.0.2.0|bob")
    world.fail("PLAIN", "wrong", "192.0.2.19|bob")
    assert len(world.charged) == 21


def test_of_too_many_bytes_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", 40_000)
    world = World()
    for number in range(20):
        world.fail("PLAIN", f"{number}".rjust(1000), f"192.0.2.{number}|bob")
        assert world.tries.size <= 40_000
    assert 5 < len(world.tries) < 10


def test_what_a_thread_works_for_is_within_the_bounds() -> None:
    world = World()
    for number in range(5):
        world.fail("SCRAM-SHA-1", "guess", f"192.0.2.{number}|bob", AT_ONCE + 1)
    size = world.tries.size
    for number in range(5):
        world.fail("PLAIN", "wrong", f"192.0.2.{number}|bob")
    assert world.tries.size == size
    for job in world.jobs:
        job()
    assert world.tries.size > size
    world.tries.expire(world.now + SAME_TRY + 1)
    assert world.tries.size == 0
