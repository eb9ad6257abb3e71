"""The engine over a store in memory, with a time that is turned by hand."""

from collections.abc import Iterator
from itertools import count, cycle, pairwise, repeat
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from pop3proxy.analyzer.events import (
    Connect,
    Connection,
    LoginAnnounced,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    SessionEnd,
    Tls,
)
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop, Verdict
from pop3proxy.hooks.policy.attempts import ANSWER_TIME
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.engine import Engine
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.penalties import Decision
from pop3proxy.hooks.policy.rightpasswords import MOST, REMEMBERED, RightPasswords
from pop3proxy.hooks.policy.store import Answer, Attempt
from pop3proxy.hooks.policy.waiting import HELD_AT_ONE, HELD_IN_ALL

NOW = 1_764_000_000.0
HOST = "192.0.2.1"


class Held:
    """No verdict yet; ``later`` is what it comes to, as far as it has."""

    def __init__(self) -> None:
        self.later: Verdict | None = None
        self.comes = False
        self.deferred: Deferred[Any] | None = None


class World:
    """A policy, and clients that try to log in."""

    def __init__(self, rules: list[dict[str, Any]] | None = None, **more: Any) -> None:
        values = more if rules is None else {"rules": rules, **more}
        policy = Policy.model_validate({"misconfigured_delay": 0.0, "ban_jitter": 0.0, **values})
        self.engine = Engine(policy, MemoryStore(1000, 100, 1e6), b"key", lambda: 1.0)
        self.now = NOW
        self.events: list[PolicyEvent] = []
        self.ending: set[str] = set()
        self._uids = 0

    def client(self, host: str = HOST, listener: str = "tcp:110") -> Connection:
        self._uids += 1
        return Connection(f"C{self._uids}", host, 1, "198.51.100.4", 110, listener)

    def _verdict(self, decision: Any) -> Verdict:
        assert isinstance(decision, Decision)
        self.events += decision.events
        self.ending |= decision.ending
        return decision.verdict

    def connect(self, c: Connection) -> Verdict:
        return self._verdict(self.engine.connect(Connect(c, self.now)))

    def attempt(self, c: Connection, user: str, password: str, mech: str = "PLAIN") -> Any:
        found = self.engine.attempt(LoginAttempt(c, self.now, user, password, mech))
        if not isinstance(found, Deferred):
            return self._verdict(found)
        held = Held()

        def comes(decision: Any) -> None:
            held.later, held.comes = self._verdict(decision), True

        held.deferred = found.addCallback(comes)
        return held

    def turn(self, seconds: float) -> None:
        """Let time pass, as the hook does."""
        self.now += seconds
        while self.engine.waiting.due <= self.now:
            self.engine.tick(self.engine.waiting.due)

    def fail(
        self,
        c: Connection,
        user: str,
        password: str,
        mech: str = "PLAIN",
        reason: Reason = Reason.CREDENTIALS,
    ) -> Verdict:
        event = LoginFailure(c, self.now, user, password, mech, reason)
        return self._verdict(self.engine.failure(event))

    def succeed(self, c: Connection, user: str, password: str) -> Verdict:
        event = LoginSuccess(c, self.now, user, password, "PLAIN")
        return self._verdict(self.engine.success(event))

    def end(self, c: Connection, reason: str = "server_closed", closing: float = 0.0) -> None:
        none = (0, 0, 0, 0, 0, 0)
        end = SessionEnd(c, self.now, "", "none", *none, 0.0, reason, 0, "whole", closing=closing)
        self._verdict(self.engine.ended(end))

    def guess(self, user: str, password: str, host: str = HOST, **more: Any) -> Any:
        """Try a wrong login in a session of its own; return the verdict that it met."""
        c = self.client(host)
        verdict = self.connect(c)
        if verdict is PASS:
            verdict = self.attempt(c, user, password, more.get("mech", "PLAIN"))
            if verdict is PASS:
                verdict = self.fail(c, user, password, **more)
        self.end(c)
        return verdict

    def log_in(self, user: str, password: str, host: str = HOST) -> Verdict:
        c = self.client(host)
        verdict = self.connect(c)
        if verdict is PASS:
            verdict = self.attempt(c, user, password)
            if verdict is PASS:
                verdict = self.succeed(c, user, password)
        self.end(c)
        return verdict

    def actions(self) -> list[str]:
        return [event.action for event in self.events]


def rule(counts: str, by: str, count: int, action: str, **more: Any) -> dict[str, Any]:
    limits = [{"count": count, "seconds": 3600.0}]
    return {"name": "r", "counts": counts, "by": by, "limits": limits, "action": action, **more}


# --- in flight --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [False, True], ids=["pipelined", "parallel"])
def test_of_many_guesses_at_once_the_server_sees_as_many_as_the_limit(parallel: bool) -> None:
    world = World([rule("failures", "address", 5, "deny")])
    one = world.client()
    tried = [(world.client() if parallel else one, f"guess{n}") for n in range(200)]
    met = [world.attempt(c, "bob", password) for c, password in tried]
    assert met[:5] == [PASS] * 5
    held = [verdict for verdict in met[5:] if isinstance(verdict, Held)]
    assert len(held) == HELD_AT_ONE
    assert met[5 + HELD_AT_ONE :] == [Deny(world.engine.policy.busy_reply)] * 95
    assert set(world.actions()) == {"busy"}
    for c, password in tried[:5]:
        world.fail(c, "bob", password)
    assert {verdict.later for verdict in held} == {Deny()}
    assert world.actions()[95:] == ["deny"] * HELD_AT_ONE
    assert not len(world.engine.waiting)


def test_what_waits_is_held_and_what_failed_is_refused_as_the_server_would() -> None:
    world = World([rule("failures", "address", 2, "deny", reply="-ERR no")])
    c = world.client()
    world.attempt(c, "bob", "1")
    world.attempt(c, "bob", "2")
    held = world.attempt(c, "bob", "3")
    assert isinstance(held, Held)
    world.fail(c, "bob", "1")
    assert not held.comes
    world.fail(c, "bob", "2")
    assert held.later == Deny("-ERR no")
    assert world.attempt(c, "bob", "3") == Deny("-ERR no")


def test_a_held_attempt_flies_once_another_has_succeeded_and_counts_nowhere_before() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    first, second, third = world.client(), world.client(), world.client()
    assert world.attempt(first, "a", "right") is PASS
    held = world.attempt(second, "b", "right")
    last = world.attempt(third, "c", "right")
    assert isinstance(held, Held)
    assert isinstance(last, Held)
    world.succeed(first, "a", "right")
    # In order of arrival, and one place is free.
    assert (held.later, last.later) == (PASS, None)
    world.succeed(second, "b", "right")
    assert last.later is PASS
    assert world.engine.counts["held"] == 2
    assert not world.events


def test_one_that_waits_for_another_key_keeps_none_behind_it_waiting() -> None:
    address = rule("failures", "address", 2, "deny")
    world = World([address, {**rule("failures", "user", 1, "deny"), "name": "user"}])
    bob, more, carol, dave = (world.client() for _ in range(4))
    world.attempt(bob, "bob", "1")
    world.attempt(carol, "carol", "1")
    waits_for_bob = world.attempt(more, "bob", "2")
    waits_for_the_address = world.attempt(dave, "dave", "1")
    assert isinstance(waits_for_bob, Held)
    assert isinstance(waits_for_the_address, Held)
    world.succeed(carol, "carol", "1")
    assert waits_for_bob.later is None
    assert waits_for_the_address.later is PASS
    world.succeed(bob, "bob", "1")
    assert waits_for_bob.later is PASS


def test_forty_right_logins_at_once_from_one_address_all_get_in() -> None:
    world = World()
    clients = [world.client() for _ in range(40)]
    met = [world.attempt(c, f"user{n}", f"right{n}") for n, c in enumerate(clients)]
    for n, c in enumerate(clients):
        world.succeed(c, f"user{n}", f"right{n}")
    assert all(v is PASS or (isinstance(v, Held) and v.later is PASS) for v in met)
    assert world.engine.counts["held"] > 0
    assert world.engine.counts["busy"] == 0
    assert not world.engine.store.flights  # type: ignore[attr-defined]


def test_what_is_held_for_too_long_is_told_to_come_again() -> None:
    world = World([rule("failures", "address", 1, "deny")], wait=10.0)
    world.engine._server_answers(NOW)
    world.attempt(world.client(), "bob", "1")
    world.turn(3)
    held = world.attempt(world.client(), "carol", "1")
    world.engine._server_answers(NOW + 9)
    assert isinstance(held, Held)
    world.turn(6.9)
    assert held.later is None
    # The attempt before counts as failed for want of an answer.
    world.turn(0.2)
    assert held.later == Deny()


def test_an_attempt_without_an_answer_counts_as_failed_until_the_answer_comes() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    other = world.client("198.51.100.7")
    slow = world.client()
    world.attempt(slow, "bob", "right")
    world.now += 10
    world.attempt(other, "eve", "x")
    world.succeed(other, "eve", "x")
    assert world.attempt(world.client(), "carol", "y") == Deny()
    world.succeed(slow, "bob", "right")
    assert world.attempt(world.client(), "carol", "y") is PASS


def test_while_the_server_answers_no_login_nobody_is_refused_for_want_of_an_answer() -> None:
    world = World([rule("passwords", "address", 5, "ban")])
    clients = [world.client() for _ in range(30)]
    met = []
    for n, c in enumerate(clients):
        met.append(world.attempt(c, f"user{n}", f"right{n}"))
        world.turn(2.1)
    assert all(v is PASS or (isinstance(v, Held) and v.later is PASS) for v in met)
    # They give up after half a minute, which is no guess; the server answers again.
    world.now += 30
    for c in clients:
        world.end(c, "client_closed")
    assert world.log_in("new", "right") is PASS
    assert not world.events


def test_a_session_that_ends_while_its_attempt_is_held_leaves_nothing_behind() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    first, second, third = world.client(), world.client(), world.client()
    world.attempt(first, "a", "right")
    held, next_one = world.attempt(second, "b", "right"), world.attempt(third, "c", "right")
    assert isinstance(held, Held)
    assert isinstance(next_one, Held)
    assert held.deferred is not None
    held.deferred.addErrback(lambda _: None).cancel()
    world.end(second, "client_closed")
    world.succeed(first, "a", "right")
    assert (held.later, next_one.later) == (None, PASS)
    assert not len(world.engine.waiting)


def test_two_thousand_are_held_in_all() -> None:
    world = World([{**rule("failures", "pair", 1, "deny")}])
    hosts = [f"10.0.{host}.1" for host in range(21) for _ in range(HELD_AT_ONE + 1)]
    met = [world.attempt(world.client(host), "bob", "", "CRAM-MD5") for host in hosts]
    assert sum(isinstance(verdict, Held) for verdict in met) == HELD_IN_ALL
    assert world.engine.counts["busy"] == HELD_AT_ONE


# --- repeats ----------------------------------------------------------------------------------------------


def reach(world: World, times: int, password: str = "stale", mech: str = "PLAIN") -> list[float]:
    """Send one wrong password in sessions that do not wait; return when it reached the server."""
    met: list[tuple[Connection, Any]] = []
    reached: list[float] = []
    for _ in range(times):
        c = world.client()
        met.append((c, world.attempt(c, "bob", password, mech)))
    left = dict(met)
    while left:
        for c, verdict in list(left.items()):
            known = verdict.later if isinstance(verdict, Held) else verdict
            if known is PASS:
                reached.append(world.now)
                world.fail(c, "bob", password, mech)
            if known is not None:
                del left[c]
        world.turn(0.1)
    return reached


@pytest.mark.parametrize("mech", ["PLAIN", "USER/PASS"])
def test_one_wrong_password_reaches_the_server_once_in_its_delay_whoever_waits(mech: str) -> None:
    world = World(misconfigured_delay=2.0)
    reached = reach(world, 1000, mech=mech)
    assert len(reached) <= 6
    assert all(later - at > 1.999 for at, later in pairwise(reached))
    # None is refused as wrong without being asked: the rest is told to come again.
    assert {e.action for e in world.events} <= {"delay", "busy"}
    assert {e.rule for e in world.events} == {"misconfigured"}


def test_another_mechanism_of_the_same_try_does_not_wait() -> None:
    world = World(misconfigured_delay=2.0)
    c = world.client()
    for mech in ("PLAIN", "LOGIN", "USER/PASS"):
        assert world.attempt(c, "bob", "wrong", mech) is PASS
        world.fail(c, "bob", "wrong", mech)
    assert isinstance(world.attempt(c, "bob", "wrong", "LOGIN"), Held)


def test_the_right_password_sent_five_times_at_once_gets_in_five_times() -> None:
    world = World(misconfigured_delay=2.0)
    clients = [world.client() for _ in range(5)]
    met = [world.attempt(c, "bob", "right") for c in clients]
    for c in clients:
        world.succeed(c, "bob", "right")
    assert all(v is PASS or (isinstance(v, Held) and v.later is PASS) for v in met)


def test_on_trial_no_repeat_waits() -> None:
    world = World(misconfigured_delay=2.0, dry_run=True)
    assert [world.attempt(world.client(), "bob", "stale") for _ in range(20)] == [PASS] * 20


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.CREDENTIALS}))
def test_a_reason_that_does_not_count_is_taken_back(reason: Reason) -> None:
    world = World([rule("failures", "address", 1, "deny")])
    for _ in range(5):
        assert world.guess("bob", "right", reason=reason) is PASS


def test_the_end_of_the_session_takes_back_what_waits() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    for _ in range(5):
        c = world.client()
        assert world.attempt(c, "bob", "x") is PASS
        world.end(c)
    assert not len(world.engine.attempts)


@pytest.mark.parametrize("reason", ["client_closed", "client_lost", "timeout:login"])
@pytest.mark.parametrize("mech", ["PLAIN", "CRAM-MD5"])
def test_who_leaves_before_the_answer_has_guessed(reason: str, mech: str) -> None:
    world = World(
        [rule("failures", "address", 2, "ban"), rule("users", "address", 1, "log", name="l")]
    )
    for n in range(2):
        c = world.client()
        assert world.attempt(c, "bob", f"guess{n}" if mech == "PLAIN" else "", mech) is PASS
        world.now += 31  # timeouts.drain, and one more
        world.end(c, reason, 30.9)
    assert not len(world.engine.attempts)
    assert isinstance(world.attempt(world.client(), "bob", "guess2"), Deny)
    # Nobody is banned for what may not have failed.
    assert world.actions() == ["log", "deny"]


def test_who_leaves_while_the_store_is_asked_leaves_nothing_behind() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    asked: list[tuple[Deferred[Answer], Answer]] = []

    class Slow(MemoryStore):
        def flies_at_once(self, *_: Any) -> None:
            return None

        def attempt(self, attempt: Attempt, now: float) -> Any:
            waiting: Deferred[Answer] = Deferred()
            asked.append((waiting, super().attempt(attempt, now)))
            return waiting

    world.engine.store = store = Slow(100, 100, 1.0)
    c = world.client()
    world.engine.attempt(LoginAttempt(c, world.now, "bob", "x", "PLAIN"))
    world.end(c, "client_closed")
    ((waiting, answer),) = asked
    assert store.flights
    waiting.callback(answer)
    assert not len(world.engine.attempts)
    assert not store.counters
    assert not store.flights


def test_who_waited_for_an_answer_that_did_not_come_has_not_guessed() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    for _ in range(3):
        c = world.client()
        assert world.attempt(c, "bob", "x") is PASS
        world.now += ANSWER_TIME
        world.end(c, "client_closed")


def test_the_same_password_left_again_and_again_is_one() -> None:
    world = World([rule("failures", "address", 2, "deny")])
    for _ in range(5):
        c = world.client()
        assert world.attempt(c, "bob", "right") is PASS
        world.end(c, "client_lost")
    assert world.log_in("bob", "right") is PASS


def test_an_attempt_without_an_answer_is_taken_back_by_the_next_one_s() -> None:
    world = World([rule("failures", "address", 2, "deny")])
    c = world.client()
    world.attempt(c, "", "", "GSSAPI")
    world.attempt(c, "bob", "x")
    world.fail(c, "bob", "x")
    assert world.attempt(c, "bob", "y") is PASS


@pytest.mark.parametrize(
    "readings", [("First Last", "First"), ("bob ", "bob"), (" bob x", "bob x")]
)
def test_a_password_asked_about_under_several_names_is_one(readings: tuple[str, ...]) -> None:
    world = World([rule("failures", "address", 3, "deny")])
    verdicts = []
    for number in range(1, 5):
        c = world.client()
        asked = [
            LoginAttempt(c, world.now, name, f"guess {number}", "PLAIN", number)
            for name in readings
        ]
        met = [world._verdict(world.engine.attempt(event)) for event in asked]
        verdicts.append(all(verdict is PASS for verdict in met))
        for event in asked:
            raised = (event.user, event.password, event.mechanism, Reason.CREDENTIALS, "", number)
            world._verdict(world.engine.failure(LoginFailure(c, world.now, *raised)))
        world.end(c)
    assert verdicts == [True, True, True, False]


def test_a_failure_whose_attempt_was_not_seen_counts() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    world.fail(world.client(), "bob", "x")
    assert isinstance(world.guess("bob", "y"), Deny)


# --- who is who -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "options"),
    [
        ("bob", " bob ", {}),
        ("bob", "BOB", {}),
        ("bob", "bob@example.org", {"default_domain": "example.org"}),
        ("bob@example.org", "bob+x@example.org", {"plus_address": True}),
        ("bob", "bob\0\0x", {}),
        ("bob", "bob@", {}),
        ("bob@example.org", "BOB@example.org.", {}),
        ("bob", "bob@", {"default_domain": "example.org"}),
        ("j\u00f6rg", "jo\u0308rg", {}),
        ("j\u00f6rg", "JO\u0308RG\u200b", {}),
        ("j\u00f6rg", "jo\u0308rg", {"ignore_case": False}),
        ("bob", "\uff42ob\u3000", {}),
        ("bob@example.org", "bob@example.com", {"drop_domain": True}),
        ("bob@example.org", "bob%example.org", {"separators": "%"}),
        ("bob@example.org", "bob\\example.org", {"separators": "\\"}),
        ("bob@example", "EXAMPLE\\bob", {"domain_first": True}),
        ("EXAMPLE/bob/sales", "EXAMPLE/bob/support", {"domain_first": True}),
        ("bob@example.org/sales", "bob@example.org", {"domain_first": True}),
        ("bob", "recent:bob", {"strip_prefix": "recent:"}),
        ("bob", "bob*master", {"master_separator": "*"}),
    ],
)
def test_names_of_one_user_fall_together(one: str, other: str, options: dict[str, Any]) -> None:
    world = World([rule("failures", "user", 1, "deny")], users=options)
    world.guess(one, "x")
    assert isinstance(world.guess(other, "y"), Deny)


@pytest.mark.parametrize(
    ("options", "spelled"),
    [
        ({"drop_domain": True}, "bob@{}.example"),
        ({"separators": "%", "drop_domain": True}, "bob%{}"),
    ],
)
def test_sixty_spellings_of_one_account_are_guesses_at_one(
    options: dict[str, Any], spelled: str
) -> None:
    for settings, most in ((options, 5), ({}, 60)):
        world = World([rule("failures", "user", 5, "deny")], users=settings)
        verdicts = [
            world.guess(spelled.format(number), f"wrong{number}", f"192.0.2.{number}")
            for number in range(60)
        ]
        assert verdicts.count(PASS) == most


@pytest.mark.parametrize(
    ("one", "other", "options"),
    [
        ("bob", "BOB", {"ignore_case": False}),
        ("bob", "bob@example.org", {}),
        ("bob", "bob+x", {}),
        ("a" * 500, "a" * 499, {}),
        ("b\udcff", "b\udcfe", {}),
        ("bob@example.org", "bob@example.com", {}),
        ("bob@example.org", "bob%example.org", {}),
        ("bob", "recent:bob", {}),
        ("bob", "bob*master", {}),
        ("EXAMPLE/bob/sales", "EXAMPLE/alice/sales", {"domain_first": True}),
    ],
)
def test_other_names_do_not(one: str, other: str, options: dict[str, Any]) -> None:
    world = World([rule("failures", "user", 1, "deny")], users=options)
    world.guess(one, "x")
    assert world.guess(other, "y") is PASS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unknown", "unknown", True),
    ],
)
def test_addresses_of_one_client_fall_together(one: str, other: str, same: bool) -> None:
    world = World([rule("failures", "address", 1, "deny")])
    world.guess("bob", "x", one)
    assert isinstance(world.guess("bob", "y", other), Deny) is same


def test_who_is_allowed_is_never_counted() -> None:
    world = World([rule("failures", "user", 1, "ban")], allow=["192.0.2.0/24", "2001:db8::/32"])
    world.engine.ban(f"address:{HOST}", 100, "", NOW)
    for n in range(5):
        assert world.guess("bob", str(n)) is PASS
        assert world.guess("bob", str(n), "::ffff:192.0.2.9") is PASS
    assert world.guess("bob", "x", "198.51.100.1") is PASS


# --- what users of others ask for -------------------------------------------------------------------------


def test_the_same_wrong_password_again_is_slowed_and_bans_nobody() -> None:
    world = World(misconfigured_delay=2.0, misconfigured_delay_max=5.0)
    verdicts = []
    for _ in range(300):
        verdicts.append(world.guess("old-phone", "stale"))
        world.now += 5
    assert verdicts[:4] == [PASS, Delay(2.0), Delay(4.0), Delay(5.0)]
    assert set(verdicts[4:]) == {Delay(5.0)}
    assert world.log_in("colleague", "right") is PASS
    assert world.engine.counts["misconfigured"] == 299
    assert {event.rule for event in world.events} == {"misconfigured"}


def test_guessing_from_one_address_ends_in_a_ban_that_has_evidence() -> None:
    world = World()
    for n in range(20):
        assert world.guess(f"user{n % 5}", f"guess{n}") in (PASS, Delay(1), Delay(2))
    assert isinstance(world.guess("user1", "more"), Deny)
    (ban,) = world.engine.store.bans(NOW)
    assert (ban.key, ban.rule) == (f"address:{HOST}", "brute-force")
    assert "20 of 20" in ban.evidence[0]
    assert world.actions()[-2:] == ["ban", "banned"]


def test_spraying_from_one_address_ends_in_a_ban() -> None:
    world = World()
    for n in range(15):
        assert world.guess(f"user{n}", f"guess{n}") is PASS
    assert [ban.rule for ban in world.engine.store.bans(NOW)] == ["spraying"]


def test_one_password_from_many_addresses_is_named_by_a_number() -> None:
    world = World()
    verdicts = [world.guess(f"user{n}", "summer", f"10.{n}.0.1") for n in range(12)]
    assert verdicts == [PASS] * 10 + [Deny()] * 2
    event = world.events[0]
    assert (event.rule, event.key) == ("common-password", "password#1")
    assert "summer" not in str(world.events)


def test_one_guess_from_each_of_many_addresses_is_found_and_the_owner_stays_welcome() -> None:
    world = World()
    assert world.log_in("bob", "right", "203.0.113.7") is PASS
    verdicts = [world.guess("bob", f"guess{n}", f"10.{n}.0.1") for n in range(100)]
    # Ten, and the one that is let through in a quarter of an hour.
    assert verdicts == [PASS] * 11 + [Deny()] * 89
    assert world.log_in("bob", "right", "203.0.113.7") is PASS


def test_a_rule_s_ban_of_a_user_leaves_in_who_is_welcome() -> None:
    world = World([rule("addresses", "user", 2, "ban", ban="user")])
    world.log_in("bob", "right", "203.0.113.7")
    world.guess("bob", "1", "10.0.0.1")
    world.guess("bob", "2", "10.0.0.2")
    assert [ban.key for ban in world.engine.store.bans(NOW)] == ["user:bob"]
    assert isinstance(world.guess("bob", "3", "10.0.0.3"), Deny)
    assert world.log_in("bob", "right", "203.0.113.7") is PASS
    world.engine.ban("user:bob", 100, "by hand", NOW)
    assert isinstance(world.log_in("bob", "right", "203.0.113.7"), Deny)


def test_who_is_welcome_may_not_guess_without_end() -> None:
    world = World()
    world.log_in("bob", "right")
    verdicts = [world.guess("bob", f"guess{n}") for n in range(15)]
    assert verdicts == [PASS] * 10 + [Deny()] * 5
    assert {(event.rule, event.action, event.key) for event in world.events} == {
        ("welcome", "deny", f"pair:{HOST}|bob")
    }
    assert (world.events[0].count, world.events[0].limit) == (11, 10)
    # One more each 288 seconds.
    world.now += 288
    assert world.guess("bob", "guess") is PASS
    assert world.guess("bob", "another") == Deny()


def test_the_owner_gets_in_beside_a_stale_phone_that_shows_no_password() -> None:
    world = World()
    world.log_in("bob", "right")
    seen = 0
    for turn in range(3600):
        world.now += 9.5
        seen += world.guess("bob", "", mech="CRAM-MD5") is PASS
        if turn % 36 == 35:
            world.now += 0.5
            assert world.log_in("bob", "right") is PASS
    hours = (world.now - NOW) / 3600
    assert 9 < hours < 10
    assert seen <= 10 + hours * 3600 / 288 + 1
    # Nobody is banned, and no other account or address is hurt.
    assert not world.engine.store.bans(world.now)
    assert world.log_in("carol", "right") is PASS
    assert world.log_in("bob", "right", "203.0.113.9") is PASS


def test_a_stranger_at_the_owner_s_address_has_three_hundred_guesses_a_day() -> None:
    world = World()
    world.log_in("bob", "right")
    seen = 0
    for n in range(24 * 60):
        seen += world.guess("bob", f"guess{n}") is PASS
        world.now += 60
    assert 300 <= seen <= 310


def test_failures_of_a_welcome_client_count_for_nobody_else() -> None:
    user = {**rule("failures", "user", 3, "deny"), "name": "u"}
    address = {**rule("failures", "address", 3, "ban"), "name": "a"}
    world = World([rule("failures", "pair", 2, "deny"), user, address])
    world.log_in("bob", "right")
    verdicts = [world.guess("bob", f"old{n}") for n in range(9)]
    assert verdicts == [PASS] * 9
    assert world.guess("carol", "x") is PASS
    assert world.guess("bob", "x", "203.0.113.9") is PASS
    assert not world.engine.store.bans(NOW)


def test_a_password_that_is_known_to_be_wrong_takes_no_try() -> None:
    world = World()
    world.log_in("bob", "right")
    for _ in range(50):
        assert world.guess("bob", "stale") is PASS
        world.now += 2
    verdicts = [world.guess("bob", f"guess{n}") for n in range(10)]
    assert verdicts == [PASS] * 9 + [Deny()]


def test_tries_are_spent_also_by_who_does_not_wait_and_held_in_flight() -> None:
    world = World()
    world.log_in("bob", "right")
    tried = [(world.client(), f"guess{n}") for n in range(15)]
    met = [world.attempt(c, "bob", password) for c, password in tried]
    assert [verdict is PASS for verdict in met] == [True] * 10 + [False] * 5
    assert all(isinstance(verdict, Held) for verdict in met[10:])
    for c, _ in tried[:10]:
        world.end(c, "client_closed")
    assert [verdict.later for verdict in met[10:] if isinstance(verdict, Held)] == [Deny()] * 5


@pytest.mark.parametrize(("known_by", "tries"), [("address", 5), ("network", 3)])
def test_clients_of_a_known_network_have_three_tries(known_by: str, tries: int) -> None:
    world = World(known_by=known_by)
    world.log_in("bob", "right", "192.0.2.7")
    verdicts = [world.guess("bob", f"guess{n}", "192.0.2.8") for n in range(8)]
    assert [v != Deny() for v in verdicts] == [True] * tries + [False] * (8 - tries)
    # Where the account itself is known there are ten.
    assert [world.guess("bob", f"more{n}", "192.0.2.7") for n in range(10)] == [PASS] * 10


def test_an_address_that_people_log_in_from_is_not_banned_but_strangers_are_denied() -> None:
    world = World([rule("passwords", "address", 3, "ban")])
    world.log_in("honest", "right")
    for n in range(10):
        world.guess("victim", f"guess{n}")
    assert world.engine.store.bans(NOW) == []
    assert isinstance(world.guess("victim", "more"), Deny)
    assert world.log_in("honest", "right") is PASS


def test_many_places_of_one_account_are_logged_once() -> None:
    world = World()
    for n in range(15):
        assert world.log_in("bob", "right", f"10.{n}.0.1") is PASS
    (event,) = world.events
    assert (event.rule, event.action, event.count) == ("many-places", "log", 10)
    world.now += 86401
    for n in range(15):
        world.log_in("bob", "right", f"10.{n}.0.1")
    assert len(world.events) == 2


def test_successes_beyond_the_limit_are_denied() -> None:
    world = World([rule("successes", "user", 2, "deny")])
    verdicts = [world.log_in("bob", "right") for _ in range(3)]
    assert verdicts == [PASS, PASS, Deny()]


def test_a_good_login_clears_the_pair_and_not_the_address() -> None:
    pair, address = rule("failures", "pair", 3, "deny"), rule("failures", "address", 4, "deny")
    world = World([pair, {**address, "name": "a"}])
    for n in range(2):
        world.guess("bob", f"{n}")
    world.log_in("bob", "right")
    for n in range(3):
        assert world.guess("bob", f"again{n}") is PASS
    # What bob fails at now is taken from the tries there.
    world.guess("eve", "x")
    world.guess("eve", "y")
    assert isinstance(world.guess("eve", "z"), Deny)
    assert world.events[-1].rule == "a"


@pytest.mark.parametrize("mech", ["APOP", "CRAM-MD5", "GSSAPI"])
def test_without_a_password_each_failure_counts_and_none_is_a_repetition(mech: str) -> None:
    by_passwords = rule("passwords", "address", 1, "deny")
    world = World([by_passwords, {**rule("failures", "address", 5, "deny"), "name": "f"}])
    verdicts = [world.guess("bob", "", mech=mech) for _ in range(6)]
    assert verdicts == [PASS] * 5 + [Deny()]
    assert [event.rule for event in world.events] == ["f"]


def test_one_who_has_many_networks_of_ipv6_is_denied_even_if_no_password_is_seen() -> None:
    world = World()
    seen = [
        world.guess(f"user{n}", "", f"2001:db8:0:{n:x}::1", mech="CRAM-MD5") for n in range(210)
    ]
    assert [verdict is PASS for verdict in seen] == [True] * 200 + [False] * 10
    # An owner of long standing is not hurt.
    world = World()
    world.log_in("bob", "right", "2001:db8:0:1::1")
    for n in range(210):
        world.guess(f"user{n}", "", f"2001:db8:0:{n + 16:x}::1", mech="CRAM-MD5")
    assert world.log_in("bob", "right", "2001:db8:0:1::1") is PASS
    assert world.log_in("new", "right", "2001:db8:0:2::1") is not PASS


def test_a_slow_attack_runs_into_the_longer_window() -> None:
    limits = [{"count": 3, "seconds": 60.0}, {"count": 6, "seconds": 86400.0}]
    world = World([{**rule("failures", "address", 1, "deny"), "limits": limits}])
    passed = 0
    for n in range(20):
        world.now += 3600
        passed += world.guess("bob", f"guess{n}") is PASS
    assert passed == 6


# --- actions ----------------------------------------------------------------------------------------------


def test_a_delay_grows_with_the_count_up_to_its_most() -> None:
    world = World([rule("failures", "pair", 2, "delay", delay=1.0, delay_max=5.0)])
    verdicts = [world.guess("bob", f"guess{n}") for n in range(6)]
    assert verdicts == [PASS, Delay(1), Delay(2), Delay(4), Delay(5), Delay(5)]


def test_a_drop_ends_the_session() -> None:
    world = World([rule("failures", "address", 1, "drop")])
    world.guess("bob", "x")
    assert world.guess("bob", "y") == Drop()


@pytest.mark.parametrize("whole", [False, True])
def test_a_rule_on_trial_only_says_what_it_would_do(whole: bool) -> None:
    rules = [{**rule("failures", "address", 2, "ban"), "dry_run": not whole}]
    world = World(rules, dry_run=whole, misconfigured_delay=1.0)
    for n in range(4):
        assert world.guess("bob", f"guess{n}") is PASS
    assert world.engine.store.bans(NOW) == []
    assert {"ban", "deny"} == set(world.actions())
    assert all(event.dry_run for event in world.events)


def test_bans_grow_with_each_repeat_up_to_their_most_with_jitter() -> None:
    world = World(
        [rule("failures", "address", 1, "ban", ban_seconds=1000.0)], ban_max=3000.0, ban_jitter=0.5
    )
    lengths = []
    for n in range(4):
        world.guess("bob", f"guess{n}")
        (ban,) = world.engine.store.bans(world.now)
        lengths.append(ban.until - world.now)
        # Until it is over, and what was counted is forgotten.
        world.now = ban.until + 4000
    assert lengths == [1500.0, 3000.0, 4500.0, 4500.0]
    assert len(ban.evidence) == 4


@pytest.mark.parametrize("banned", ["deny", "drop"])
def test_a_banned_client_meets_the_ban_when_it_connects(banned: str) -> None:
    world = World([rule("failures", "address", 1, "ban", ban="network")], banned=banned)
    world.guess("bob", "x")
    expected = Deny(world.engine.policy.banned_reply) if banned == "deny" else Drop()
    assert world.connect(world.client("192.0.2.200")) == expected
    assert world.connect(world.client("192.0.3.1")) is PASS


def test_a_ban_ends_the_open_sessions_of_the_banned_but_not_the_one_that_is_told() -> None:
    world = World([rule("failures", "address", 1, "ban")])
    c, same, other = world.client(), world.client(), world.client("203.0.113.1")
    for each in (c, same, other):
        world.connect(each)
    gone = world.client()
    world.connect(gone)
    world.end(gone)
    world.attempt(c, "bob", "x")
    world.fail(c, "bob", "x")
    assert world.ending == {same.uid}
    assert isinstance(world.attempt(c, "bob", "right"), Deny)
    for each in (c, same, other):
        world.end(each)
    assert not len(world.engine.penalties.sessions)


def test_after_an_unban_there_is_grace() -> None:
    world = World([rule("failures", "address", 2, "ban")], grace=100.0)
    world.guess("bob", "1")
    world.guess("bob", "2")
    assert world.engine.unban(f"address:{HOST}", world.now)
    for n in range(10):
        assert world.guess("bob", f"again{n}") is PASS
    world.now += 101
    assert isinstance(world.guess("bob", "later"), Deny)


# --- conditions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"listener": "tcp:110"}, True),
        ({"listener": "tcp:995"}, False),
        ({"tls": False}, True),
        ({"tls": True}, False),
        ({"user": "b*"}, True),
        ({"user": "c*"}, False),
        ({"reasons": ["credentials", "account"]}, True),
        ({"reasons": ["account"]}, False),
    ],
)
def test_a_rule_applies_where_its_conditions_hold(condition: dict[str, Any], applies: bool) -> None:
    world = World([{**rule("failures", "address", 1, "deny"), **condition}])
    world.guess("Bob", "x")
    assert isinstance(world.guess("Bob", "y"), Deny) is applies


def test_the_rules_that_were_reported_are_kept_within_bounds() -> None:
    world = World([rule("failures", "address", 1, "log")])
    for n in range(11_000):
        world.guess("bob", "x", f"10.{n // 250}.{n % 250}.1")
    assert len(world.events) == 11_000
    assert len(world.engine.penalties._said) == 10_000


def test_tls_is_a_condition() -> None:
    world = World([rule("failures", "address", 1, "deny", tls=True)])
    c = world.client()
    c.tls = Tls("TLSv1.3", "TLS_AES_128_GCM_SHA256")
    world.attempt(c, "bob", "x")
    world.fail(c, "bob", "x")
    assert isinstance(world.attempt(c, "bob", "y"), Deny)


def test_a_load_balancer_that_names_no_client_is_never_banned() -> None:
    rules = [
        {
            "name": "by-address",
            "counts": "passwords",
            "by": "address",
            "limits": [{"count": 3, "seconds": 600}],
            "action": "ban",
        },
        {
            "name": "by-pair",
            "counts": "failures",
            "by": "pair",
            "limits": [{"count": 3, "seconds": 600}],
            "action": "deny",
        },
        {
            "name": "by-user",
            "counts": "failures",
            "by": "user",
            "limits": [{"count": 6, "seconds": 600}],
            "action": "deny",
        },
    ]
    world = World(rules)
    for number in range(8):
        c = world.client(listener=f"tcp:{number % 2}")
        c.orig_unknown = True
        assert world.connect(c) is PASS
        verdict = world.attempt(c, "bob", f"wrong{number}")
        # What says nothing of the client is not counted; what says something of the account is.
        assert (verdict is PASS) is (number < 6)
        if verdict is PASS:
            world.fail(c, "bob", f"wrong{number}")
        world.end(c)
    assert {event.rule for event in world.events} <= {"by-user", "by-pair"}


@pytest.mark.parametrize("allow", [[], [f"{HOST}/32"]], ids=["counted", "behind a proxy in allow"])
def test_clients_of_a_listener_without_an_address_are_one_place(allow: list[str]) -> None:
    rules = [
        rule("failures", "pair", 3, "ban", ban="pair"),
        {**rule("failures", "address", 1, "ban"), "name": "address"},
        {**rule("passwords", "network", 1, "ban"), "name": "network"},
        {**rule("addresses", "user", 1, "deny"), "name": "addresses"},
    ]
    world = World(rules, allow=allow)

    def guess(listener: str, number: int) -> bool:
        c = world.client(listener=listener)
        c.orig_unknown = True
        assert world.connect(c) is PASS
        verdict = world.attempt(c, "bob", f"wrong{number}")
        if verdict is PASS:
            world.fail(c, "bob", f"wrong{number}")
        world.end(c)
        return verdict is PASS

    seen = [guess(listener, n) for n in range(20) for listener in ("tcp:1110", "unix:/pop3")]
    assert (seen.count(True), set(seen[6:])) == (6, {False})
    keys = {"pair:unknown@tcp:1110|bob", "pair:unknown@unix:/pop3|bob"}
    assert {event.key for event in world.events if event.action == "deny"} == keys
    # Nobody is banned who may be one of many; an operator can clear what was counted.
    assert not list(world.engine.store.bans(world.now))
    key = world.engine.addresses.ban_key("pair:unknown@tcp:1110|bob")
    world.engine.unban(key, world.now)
    assert guess("tcp:1110", 20)
    assert not guess("unix:/pop3", 20)


def test_rules_by_user_hold_where_a_client_without_an_address_has_logged_in() -> None:
    world = World([rule("failures", "user", 3, "deny")])
    verdicts = []
    for number in range(5):
        c = world.client()
        c.orig_unknown = True
        if number == 0:
            world.attempt(c, "bob", "right")
            world.succeed(c, "bob", "right")
        verdicts.append(world.attempt(c, "bob", f"wrong{number}"))
        if verdicts[-1] is PASS:
            world.fail(c, "bob", f"wrong{number}")
    assert verdicts.count(PASS) == 3


def test_a_login_behind_a_load_balancer_makes_nobody_welcome_there() -> None:
    world = World()
    c = world.client()
    c.orig_unknown = True
    world.attempt(c, "bob", "right")
    world.succeed(c, "bob", "right")
    for number in range(40):
        world.guess(f"user{number}", f"wrong{number}")
    assert world.connect(world.client()) is not PASS


def test_an_announced_failure_holds_nobody_up_and_counts_once() -> None:
    world = World([rule("failures", "address", 2, "deny")])
    c, other = world.client(), world.client()
    attempt = LoginAttempt(c, NOW, "bob", "token", "XOAUTH2", 1)
    assert world._verdict(world.engine.attempt(attempt)) is PASS
    assert world.attempt(other, "carol", "1") is PASS
    held = world.attempt(world.client(), "dave", "1")
    assert isinstance(held, Held)
    world.engine.announced(LoginAnnounced(c, NOW + 1, 1))
    assert not held.comes
    world.succeed(other, "carol", "1")
    # One has failed, and one place is left.
    assert held.later is PASS
    failure = LoginFailure(c, NOW + 2, "bob", "token", "XOAUTH2", Reason.CREDENTIALS, "", 1)
    world._verdict(world.engine.failure(failure))
    assert isinstance(world.attempt(world.client(), "eve", "1"), Held)
    assert not world.events


# --- passwords that were right lately ---------------------------------------------------------------------


def test_one_right_password_in_many_sessions_at_once_waits_for_its_first_answer_only() -> None:
    world = World(misconfigured_delay=10.0)
    clients = [world.client() for _ in range(16)]
    verdicts = [world.attempt(c, "bob", "right") for c in clients]
    assert [verdict is PASS for verdict in verdicts] == [True] + [False] * 15
    assert world.succeed(clients[0], "bob", "right") is PASS
    assert all(held.later is PASS for held in verdicts[1:])
    for c in clients[1:]:
        world.succeed(c, "bob", "right")
    assert [world.attempt(world.client(), "bob", "right") for _ in range(16)] == [PASS] * 16


def test_a_password_that_was_right_once_waits_again_when_it_has_failed() -> None:
    world = World(misconfigured_delay=10.0)
    world.log_in("bob", "old")
    assert world.guess("bob", "old") is PASS
    world.turn(10)
    assert world.attempt(world.client(), "bob", "old") is PASS
    assert isinstance(world.attempt(world.client(), "bob", "old"), Held)


def test_the_passwords_that_were_right_are_bounded_and_forgotten() -> None:
    right = RightPasswords()
    for number in range(MOST + 1):
        right.was_right(f"{number}", NOW)
    assert not right.has("0", NOW)
    assert right.has("1", NOW)
    assert not right.has("1", NOW + REMEMBERED)
    assert not right.has("1", NOW - 1)  # the clock was set back


def test_a_clock_that_is_set_back_leaves_a_welcome_client_a_try() -> None:
    world = World()
    world.log_in("bob", "right")
    assert world.guess("bob", "typo") is PASS
    world.turn(-3600)
    assert world.log_in("bob", "right") is PASS


# --- guesses at one account, from anywhere ---------------------------------------------------------------


def guesses_seen(world: World, each: float, hosts: Iterator[str], tries: int, mech: str) -> int:
    """Guess at bob from one address after another; return how many the server saw."""
    seen = 0
    for number in range(tries):
        password = "" if mech == "CRAM-MD5" else f"guess{number}"
        seen += not isinstance(world.guess("bob", password, next(hosts), mech=mech), Deny)
        world.turn(each)
    return seen


def changing(times: int) -> Iterator[str]:
    """Thirty addresses of networks of their own, each so many times in a row, again and again."""
    while True:
        for number in range(30):
            yield from [f"10.{number}.0.1"] * times


def ever_new() -> Iterator[str]:
    for number in count():
        yield f"10.{number // 250 % 250}.{number % 250}.{number // 62500}"


def test_thirty_changing_addresses_get_a_stated_number_of_guesses() -> None:
    world = World()
    # An hour's limit, and then one each fifteen minutes.
    assert guesses_seen(world, 60.0, changing(15), 600, "PLAIN") == 91
    assert {event.rule for event in world.events if event.action == "deny"} <= {
        *("guesses", "distributed"),
    }


@pytest.mark.parametrize("mech", ["PLAIN", "CRAM-MD5"])
@pytest.mark.parametrize("each", [30.0, 240.0, 900.0])
def test_no_number_of_addresses_gets_more_than_a_day_has_quarters_of_hours(
    mech: str, each: float
) -> None:
    world, hosts = World(), ever_new()
    day = int(86400 / each)
    first = guesses_seen(world, each, hosts, day, mech)
    assert first <= 30 + 97
    assert guesses_seen(world, each, hosts, day, mech) <= 97
    # What remains for a patient attacker.
    assert first >= 96 if each == 900.0 else first > 30


def test_a_guess_each_forty_minutes_passes_every_limit() -> None:
    world = World()
    assert guesses_seen(world, 2400.0, repeat(HOST), 72, "PLAIN") == 72


def test_what_shows_no_password_has_a_limit_from_few_addresses_too() -> None:
    world = World()
    # Eight addresses are not too many different ones, and each may fail forty times a day.
    hosts = cycle(f"10.{number}.0.1" for number in range(8))
    assert guesses_seen(world, 90.0, hosts, 960, "CRAM-MD5") == 276


def test_beyond_the_limit_the_next_stranger_is_let_through_and_then_none_for_a_time() -> None:
    world = World([rule("failures", "user", 2, "deny", trickle=900.0)])
    world.guess("bob", "1")
    world.guess("bob", "2", "192.0.2.2")
    assert world.guess("bob", "3", "192.0.2.3") is PASS
    assert world.engine.counts["trickled"] == 1
    assert world.log_in("bob", "right", "192.0.2.4") == Deny()
    world.turn(899.9)
    assert world.log_in("bob", "right", "192.0.2.4") == Deny()
    world.turn(0.1)
    assert world.log_in("bob", "right", "192.0.2.4") is PASS
    # The address is welcome now, and takes no try of strangers; and its success clears nothing for them.
    assert world.log_in("bob", "right", "192.0.2.4") is PASS
    assert world.guess("bob", "4", "192.0.2.5") == Deny()
    world.turn(900.0)
    assert world.guess("bob", "5", "192.0.2.5") is PASS
    assert world.engine.counts["trickled"] == 3


def test_of_many_at_once_beyond_the_limit_one_is_let_through() -> None:
    world = World([rule("failures", "user", 2, "deny", trickle=900.0)])
    clients = [world.client(f"192.0.2.{number}") for number in range(50)]
    met = [world.attempt(c, "bob", f"guess{number}") for number, c in enumerate(clients)]
    assert met[:2] == [PASS, PASS]
    for number in range(2):
        world.fail(clients[number], "bob", f"guess{number}")
    later = [verdict.later for verdict in met[2:]]
    assert (later[0], set(later[1:])) == (PASS, {Deny()})


def test_a_welcome_client_uses_up_nothing_of_strangers() -> None:
    world = World()
    world.log_in("bob", "right")
    for number in range(300):
        world.guess("bob", f"typo{number}")
        world.turn(300.0)
    counted = {key.partition(".")[0].lstrip("~") for key in world.engine.store.memory.counters}
    assert not counted & {"distributed", "guesses", "hidden-guesses"}
    assert world.guess("bob", "guess", "203.0.113.1") is PASS


def test_a_rule_on_trial_says_what_it_would_refuse_and_not_what_it_would_let_through() -> None:
    world = World([rule("failures", "user", 1, "deny", trickle=900.0, dry_run=True)])
    for number in range(4):
        assert world.guess("bob", f"guess{number}") is PASS
    assert world.actions() == ["deny", "deny"]
    assert world.engine.counts["trickled"] == 0
