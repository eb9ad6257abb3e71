"""The engine counts one mistake once, by whatever mechanisms a client makes it."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from pop3proxy.analyzer.events import Connection, LoginAttempt, LoginFailure, Reason
from pop3proxy.hooks.api import PASS, Delay, Verdict
from pop3proxy.hooks.policy.engine import Engine
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.tries import AT_ONCE

from .mechanisms import MAILKIT, PROVING, ROUNDS, SHOWN, exchanged
from .test_engine import Held, World, rule

HIDDEN = ("NTLM", *PROVING)


class Mechanisms(World):
    """Clients that try mechanisms; ``judged`` is how many attempts have reached the server."""

    judged = 0

    def by(
        self,
        c: Connection,
        mechanism: str,
        password: str,
        reason: Reason = Reason.CREDENTIALS,
        rounds: int = ROUNDS,
    ) -> Verdict:
        """Try once; return the verdict on the attempt, or else on its failure."""
        shown = password if mechanism in SHOWN else ""
        found = exchanged(mechanism, password, rounds)
        tried = LoginAttempt(c, self.now, "bob", shown, mechanism, 0, found)
        verdict = self._verdict(self.engine.attempt(tried))
        if verdict is not PASS:
            return verdict
        self.judged += 1
        failed = LoginFailure(c, self.now, "bob", shown, mechanism, reason, "", 0, found)
        return self._verdict(self.engine.failure(failed))

    def mistake(self, password: str, *mechanisms: str) -> list[Verdict]:
        """Try one password by some mechanisms in one session."""
        return self.session([(mechanism, password) for mechanism in mechanisms])

    def session(self, guesses: list[tuple[str, str]]) -> list[Verdict]:
        """Try a password by each mechanism."""
        c = self.client()
        verdicts = [self.by(c, *guess) for guess in guesses]
        self.end(c)
        return verdicts

    def left(self) -> int:
        """Return how many different guesses pass, one by one, until one is refused."""
        for number in range(100):
            self.now += 1
            if self.guess("bob", f"guess{number}") is not PASS:
                return number
        raise AssertionError("nothing is refused")


@pytest.mark.parametrize("by", ["pair", "address", "network", "user"])
@pytest.mark.parametrize(
    "order",
    [MAILKIT, MAILKIT[::-1], (*SHOWN, "CRAM-MD5", "NTLM"), ("CRAM-MD5", "PLAIN")],
    ids=["strongest first", "weakest first", "shown first", "two"],
)
def test_one_mistake_is_one_failure_by_whatever_is_counted(order: tuple[str, ...], by: str) -> None:
    world = Mechanisms([rule("failures", by, 5, "deny")])
    world.mistake("wrong", *order)
    assert world.left() == 4


def test_one_mistake_in_several_sessions_is_one_failure() -> None:
    world = Mechanisms([rule("failures", "pair", 5, "deny")])
    for mechanism in MAILKIT:
        world.mistake("wrong", mechanism)
        world.now += 2
    assert world.left() == 4


def test_without_a_time_each_mechanism_counts() -> None:
    world = Mechanisms([rule("failures", "pair", 9, "deny")], same_try=0.0)
    world.mistake("wrong", *PROVING, "PLAIN")
    assert world.left() == 4


def test_two_mistakes_are_two_failures() -> None:
    world = Mechanisms([rule("failures", "pair", 5, "deny")])
    world.mistake("wrong", *MAILKIT)
    world.now += 60
    world.mistake("wrong, too", *MAILKIT)
    assert world.left() == 3


@pytest.mark.parametrize(
    ("order", "parts"), [(MAILKIT, 6), (MAILKIT[::-1], 7)], ids=["strongest", "weakest"]
)
def test_behind_a_mistake_the_right_password_gets_in_at_once_by_the_default_rules(
    order: tuple[str, ...], parts: int
) -> None:
    """Until the password is seen, the strongest mechanisms are two failures."""
    world = Mechanisms(misconfigured_delay=2.0)
    assert world.mistake("wrong", *order) == [PASS] * len(order)
    assert world.log_in("bob", "right") is PASS
    assert world.events == []
    assert world.engine.counts["same_try"] == parts


def test_a_different_password_is_counted_though_the_failure_is_not() -> None:
    """A rule on passwords sees it, which the hidden mechanisms have not shown."""
    world = Mechanisms([rule("passwords", "address", 2, "deny")])
    world.mistake("wrong", "CRAM-MD5", "PLAIN", "LOGIN")
    assert world.left() == 1


def test_a_count_by_password_is_of_its_own() -> None:
    world = Mechanisms([rule("failures", "password", 1, "deny")])
    assert world.mistake("wrong", "CRAM-MD5", "PLAIN") == [PASS, PASS]
    assert world.guess("eve", "wrong") is not PASS


def test_different_users_are_counted_as_before() -> None:
    world = Mechanisms([rule("users", "address", 2, "deny")])
    world.mistake("wrong", *MAILKIT)
    assert world.guess("eve", "wrong") is PASS
    assert world.guess("ann", "wrong") is not PASS


def test_a_reason_that_does_not_count_is_no_part_of_a_try() -> None:
    world = Mechanisms([rule("failures", "pair", 5, "deny")])
    c = world.client()
    for mechanism in PROVING:
        world.by(c, mechanism, "wrong", Reason.TEMPORARY)
    assert len(world.engine.tries) == 0
    assert world.left() == 5


def test_the_next_mechanism_does_not_wait_as_a_repeated_password_does() -> None:
    world = Mechanisms(misconfigured_delay=2.0)
    assert world.mistake("wrong", *SHOWN) == [PASS] * 3
    world.now += 2
    assert world.mistake("wrong", "PLAIN") == [Delay(2.0)]
    world.now += 2
    assert world.mistake("wrong", *SHOWN) == [Delay(4.0), Delay(6.0), Delay(8.0)]


@pytest.mark.parametrize("mechanism", SHOWN)
def test_each_mechanism_of_a_mistake_has_the_rate_of_repeated_passwords(mechanism: str) -> None:
    world = Mechanisms(misconfigured_delay=2.0)
    world.mistake("wrong", *SHOWN)
    assert isinstance(world.attempt(world.client(), "bob", "wrong", mechanism), Held)


def test_a_delay_does_not_end_the_try() -> None:
    world = Mechanisms([rule("failures", "pair", 1, "delay", delay=20.0), DENY])
    c = world.client()
    assert world.by(c, "CRAM-MD5", "wrong") == Delay(20.0)
    world.now += 25
    assert world.by(c, "PLAIN", "wrong") is PASS
    world.now += 60
    assert world.left() == 0


DENY = {**rule("failures", "pair", 2, "deny"), "name": "denies"}


@pytest.mark.parametrize(("same_try", "refused"), [(10.0, 0), (0.0, 57)])
def test_a_stale_phone_with_two_mechanisms_costs_nothing(same_try: float, refused: int) -> None:
    """Each 10 minutes for 16 hours; alone its hidden mechanism would fill the day's 40."""
    world = Mechanisms(same_try=same_try, misconfigured_delay=2.0)
    verdicts = []
    for _ in range(96):
        verdicts += world.mistake("the password before", "CRAM-MD5", "PLAIN")[:1]
        world.now += 600
    assert sum(not isinstance(each, Delay) and each is not PASS for each in verdicts) == refused


def test_what_is_kept_is_in_no_count_mark_or_event() -> None:
    world = Mechanisms(misconfigured_delay=2.0)
    for _ in range(4):
        world.mistake("hunter2", *MAILKIT)
        world.now += 60
    store = world.engine.store
    assert isinstance(store, MemoryStore)
    assert world.events
    kept = f"{store.counters!r} {store.marks!r} {world.events!r} {world.engine.tries!r}"
    assert "hunter2" not in kept
    assert exchanged("CRAM-MD5", "hunter2")[0][1].decode() not in kept


def test_a_mistake_takes_one_of_the_tries_of_a_welcome_client() -> None:
    """The hidden mechanism of each mistake takes none of its own."""
    world = Mechanisms()
    world.log_in("bob", "right")
    for number in range(5):
        assert world.mistake(f"wrong{number}", "PLAIN", "CRAM-MD5") == [PASS, PASS]
        world.now += 15
    passed = 0
    while world.mistake(f"guess{passed}", "CRAM-MD5") == [PASS]:
        passed += 1
        world.now += 1
    assert passed == 10


def test_a_good_login_forgets_the_try() -> None:
    world = Mechanisms()
    world.mistake("wrong", *MAILKIT)
    assert len(world.engine.tries) == 1
    world.log_in("bob", "right")
    assert len(world.engine.tries) == 0


Job = tuple[Deferred[Any], Any, Any]


def tried_in_a_thread(password: str) -> tuple[Mechanisms, Deferred[Any], Job]:
    """Have SCRAM fail, and then a password; return what comes of that, and what a thread has to do first."""
    world = Mechanisms([rule("failures", "pair", 5, "deny")])
    jobs: list[Job] = []

    def aside(work: Any, trials: Any) -> Any:
        jobs.append((Deferred(), work, trials))
        return jobs[-1][0]

    policy = world.engine.policy
    world.engine = Engine(policy, world.engine.store, b"key", lambda: 1.0, aside)
    c = world.client()
    world.by(c, "SCRAM-SHA-1", "wrong", rounds=AT_ONCE + 1)
    assert world.attempt(c, "bob", password) is PASS
    found = world.engine.failure(
        LoginFailure(c, world.now, "bob", password, "PLAIN", Reason.CREDENTIALS)
    )
    assert isinstance(found, Deferred)
    assert not found.called
    (job,) = jobs
    return world, found, job


@pytest.mark.parametrize(("password", "left"), [("wrong", 4), ("another", 3)])
def test_many_rounds_are_computed_aside_and_the_answer_waits(password: str, left: int) -> None:
    world, found, (answered, work, trials) = tried_in_a_thread(password)
    answered.callback(work(trials))
    decisions: list[Any] = []
    found.addCallback(decisions.append)
    assert [each.verdict for each in decisions] == [PASS]
    world.now += 60
    assert world.left() == left


def test_a_client_that_leaves_while_a_thread_works_has_failed_all_the_same() -> None:
    """Of what is not tried nothing becomes known, and it goes with the password."""
    world, found, (answered, work, trials) = tried_in_a_thread("another")
    found.cancel()
    assert isinstance(world.engine.store, MemoryStore)
    assert world.engine.store.flights == {}
    answered.callback(work(trials))
    world.now += 60
    assert world.left() == 4


# --- what a guesser gains ---------------------------------------------------------------------------------

STRATEGIES = {
    "one that is shown": ("PLAIN",),
    "one that is hidden": ("CRAM-MD5",),
    "three that are hidden": ("NTLM", "SCRAM-SHA-256", "CRAM-MD5"),
    "five that are hidden": HIDDEN,
    "hidden ones, then shown ones": MAILKIT,
    "shown ones, then hidden ones": MAILKIT[::-1],
    "two that stay unknown, and a shown one": ("NTLM", "X-1", "PLAIN"),
}


def guesses_in_a_day(mechanisms: tuple[str, ...], same_try: float) -> int:
    """Return how many guesses at one account the server judges, another password by each mechanism."""
    world = Mechanisms(same_try=same_try)
    for turn in range(24 * 30):
        world.session([(each, f"guess {turn} {number}") for number, each in enumerate(mechanisms)])
        world.now += 120
    return world.judged


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_guesser_gains_at_most_a_factor_of_three_in_a_day(strategy: str) -> None:
    mechanisms = STRATEGIES[strategy]
    alone = guesses_in_a_day(mechanisms, 0.0)
    judged = guesses_in_a_day(mechanisms, 10.0)
    assert alone == 40
    assert alone <= judged <= 3 * alone
