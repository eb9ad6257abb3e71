"""What waits and what flies, held against a plain model: no order of events gets more guesses through."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from pop3proxy.analyzer.events import (
    Connection,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    SessionEnd,
)
from pop3proxy.hooks.api import PASS, Deny, Verdict
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.engine import Engine
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import Answer, Attempt, Fate, Flight
from pop3proxy.hooks.policy.waiting import HELD_AT_ONE, HELD_IN_ALL, Waiter, WaitingRoom

NOW = 1_764_000_000.0
WAIT = 10.0

WAITS = True

RULES = [
    ("failures", "pair", 2),
    ("passwords", "address", 3),
    ("failures", "address", 5),
    ("users", "address", 3),
    ("addresses", "user", 3),
    ("users", "password", 3),
]


@dataclass
class Login:
    """One login: who, and what became of it."""

    c: Connection
    user: str
    password: str
    at: float
    verdict: Verdict | None = None
    decided_at: float = 0.0
    deferred: "Deferred[Any] | None" = None
    over: bool = False

    @property
    def right(self) -> bool:
        return self.password == f"right {self.user}"


@dataclass
class Street:
    """An engine, the server behind it, and everything that happens, in one time."""

    delay: float = 0.0
    now: float = NOW
    logins: list[Login] = field(default_factory=list)
    judged: list[Login] = field(default_factory=list)

    def __post_init__(self) -> None:
        rules = [
            {
                "name": f"{counts}-{by}",
                "counts": counts,
                "by": by,
                "limits": [{"count": count, "seconds": 86400.0}],
                "action": "deny",
            }
            for counts, by, count in RULES
        ]
        values = {"rules": rules, "wait": WAIT, "misconfigured_delay": self.delay}
        self.store = MemoryStore(1000, 100, 1e6)
        self.engine = Engine(Policy.model_validate(values), self.store, b"key")

    def tries(self, host: int, user: str, password: str) -> None:
        number = len(self.logins)
        c = Connection(f"C{number}", f"192.0.{host}.1", 1, "198.51.100.4", 110)
        login = Login(c, user, password, self.now)
        self.logins.append(login)
        found = self.engine.attempt(LoginAttempt(c, self.now, user, password, "PLAIN", 1))

        def decided(decision: Any) -> None:
            login.verdict, login.decided_at = decision.verdict, self.now

        if isinstance(found, Deferred):
            login.deferred = found.addCallback(decided)
        else:
            decided(found)

    @property
    def flying(self) -> list[Login]:
        """Those that the server has got and has not answered."""
        return [each for each in self.logins if each.verdict is PASS and not each.over]

    @property
    def waiting(self) -> list[Login]:
        return [each for each in self.logins if each.verdict is None and not each.over]

    def answers(self, login: Login) -> None:
        """The server judges a login."""
        login.over = True
        self.judged.append(login)
        said = (login.c, self.now, login.user, login.password, "PLAIN")
        if login.right:
            self.engine.success(LoginSuccess(*said, 1))
        else:
            self.engine.failure(LoginFailure(*said, Reason.CREDENTIALS, "", 1))
        self.ends(login, "server_closed")

    def ends(self, login: Login, reason: str = "client_closed") -> None:
        login.over = True
        if login.deferred is not None and login.verdict is None:
            login.deferred.addErrback(lambda _: None).cancel()
        none = (0, 0, 0, 0, 0, 0)
        end = SessionEnd(login.c, self.now, "", "none", *none, 0.0, reason, 0, "whole")
        self.engine.ended(end)

    def elsewhere(self) -> None:
        """Somebody else logs in: the server answers."""
        c = Connection("Celse", "203.0.113.1", 1, "198.51.100.4", 110)
        self.engine.success(LoginSuccess(c, self.now, "else", "right else", "PLAIN", 1))

    def turn(self, seconds: float) -> None:
        self.elsewhere()
        until = self.now + seconds
        while self.engine.waiting.due <= until:
            self.now = max(self.now, self.engine.waiting.due)
            self.engine.tick(self.engine.waiting.due)
        self.now = until

    def wrong(self, **of: str) -> list[Login]:
        """Wrong logins that the server has judged, of one value each."""
        found = [each for each in self.judged if not each.right]
        for name, value in of.items():
            found = [each for each in found if self._value(each, name) == value]
        return found

    @staticmethod
    def _value(login: Login, name: str) -> str:
        return {"address": login.c.orig_h, "user": login.user, "password": login.password}[name]

    def check(self) -> None:
        """No more wrong logins are judged than each rule has room for."""
        for host in {each.c.orig_h for each in self.judged}:
            wrong = self.wrong(address=host)
            assert len({each.password for each in wrong}) <= 3
            assert len({(each.user, each.password) for each in wrong}) <= 5
            assert len({each.user for each in wrong}) <= 3
            for user in {each.user for each in wrong}:
                assert len({each.password for each in wrong if each.user == user}) <= 2
        for user in {each.user for each in self.judged}:
            assert len({each.c.orig_h for each in self.wrong(user=user)}) <= 3
        for password in {each.password for each in self.judged}:
            assert len({each.user for each in self.wrong(password=password)}) <= 3
        for login in self.waiting:
            assert self.now - login.at < WAIT
        for login in self.logins:
            assert login.verdict is None or login.decided_at - login.at <= WAIT


GUESSES = st.tuples(
    st.integers(0, 3), st.sampled_from(["ann", "bob", "cy", "dan"]), st.integers(0, 4)
)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("try"), st.lists(GUESSES, min_size=1, max_size=12)),
        st.tuples(st.sampled_from(["answer", "leave"]), st.lists(st.integers(0, 20), min_size=1)),
        st.tuples(st.just("turn"), st.floats(0.01, 4)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("delay", [0.0, 2.0], ids=["without a pace", "with one"])
@settings(deadline=None)
@given(moves=MOVES)
def test_never_are_more_wrong_passwords_judged_than_the_limits(
    delay: float, moves: list[tuple[Any, ...]]
) -> None:
    street = Street(delay)
    for move, *what in moves:
        if move == "turn":
            street.turn(what[0])
        elif move == "try":
            # No account is logged in to, which would make an address welcome and forget its failures.
            for host, user, number in what[0]:
                street.tries(host, user, f"wrong {number}")
        else:
            for which in what[0]:
                some = street.flying if move == "answer" else street.flying + street.waiting
                if some:
                    one = some[which % len(some)]
                    (street.answers if move == "answer" else street.ends)(one)
        street.check()
    for login in street.logins:
        if not login.over:
            street.ends(login)
    assert not len(street.engine.waiting)
    assert not len(street.engine.attempts)
    assert not street.store.flights
    assert street.engine.waiting.due == math.inf


@settings(deadline=None)
@given(
    logins=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=90),
    pause=st.sampled_from([0.0, 0.01, 0.1]),
    takes=st.floats(0.01, 0.1),
)
def test_while_only_right_passwords_are_in_flight_nobody_is_refused(
    logins: list[tuple[int, int]], pause: float, takes: float
) -> None:
    """A server that answers in a tenth of a second lets 90 logins in before the first has waited too long."""
    street = Street(2.0)

    def step() -> None:
        due = [each for each in street.flying if street.now - each.decided_at >= takes - 1e-6]
        for login in due:
            street.answers(login)

    for host, user in logins:
        street.tries(host, f"user{user}", f"right user{user}")
        street.turn(pause)
        step()
    while street.flying or street.waiting:
        street.turn(takes)
        step()
        street.check()
    assert all(login.verdict is PASS for login in street.logins)
    assert len(street.judged) == len(logins)


@given(wrong=st.integers(1, 30), gap=st.floats(0, 1), takes=st.floats(0, 3))
@settings(deadline=None)
def test_one_wrong_password_reaches_the_server_once_in_its_delay(
    wrong: int, gap: float, takes: float
) -> None:
    street = Street(2.0)

    def some_time(seconds: float) -> None:
        until = street.now + seconds
        while street.now < until:
            for login in street.flying:
                if street.now - login.decided_at >= takes:
                    street.answers(login)
            street.turn(0.05)

    for _ in range(wrong):
        street.tries(0, "bob", "stale")
        some_time(gap)
    while street.flying or street.waiting:
        some_time(1)
    reached = sorted(login.decided_at for login in street.judged)
    assert all(later - at >= 1.999 for at, later in pairwise(reached))
    # None is refused as wrong without being asked.
    busy = Deny(street.engine.policy.busy_reply)
    assert all(login.verdict in (PASS, busy) for login in street.logins)


# --- the room by itself -----------------------------------------------------------------------------------


class Desk:
    """A store whose answers a test gives when it likes."""

    def __init__(self) -> None:
        self.asked: list[tuple[Attempt, Deferred[Answer]]] = []
        self.unwanted: list[Attempt] = []
        self.room = WaitingRoom(self.ask, self.unwanted.append, WAIT)

    def ask(self, attempt: Attempt, now: float) -> "Deferred[Answer]":
        answer: Deferred[Answer] = Deferred()
        self.asked.append((attempt, answer))
        return answer

    def answer(self, fate: Fate, place: str = "here") -> Attempt:
        """Answer what was asked first; return it."""
        attempt, answer = self.asked.pop(0)
        answer.callback(Answer(fate, place=place))
        return attempt

    def hold(self, name: str, place: str = "here", home: str = "") -> Any:
        attempt = Attempt(Flight(name, NOW))
        return self.room.hold(attempt, Waiter(home, name), Answer(Fate.HELD, place=place), NOW)


def test_a_slow_store_is_asked_about_one_after_the_other_in_order() -> None:
    desk = Desk()
    for name in "abc":
        desk.hold(name)
    desk.room.settled(["here"], NOW + 1)
    assert [attempt.flight.id for attempt, _ in desk.asked] == ["a"]
    desk.answer(Fate.FLIES)
    assert [attempt.flight.id for attempt, _ in desk.asked] == ["b"]
    # There is no room for b, and so for none behind it.
    desk.answer(Fate.HELD)
    assert not desk.asked
    assert len(desk.room) == 2


def test_one_that_now_waits_elsewhere_keeps_none_behind_it_from_being_asked() -> None:
    desk = Desk()
    desk.hold("a")
    second = desk.hold("b")
    desk.room.settled(["here"], NOW + 1)
    desk.answer(Fate.HELD, "there")
    desk.answer(Fate.FLIES)
    assert second.result.fate is Fate.FLIES
    desk.room.settled(["here"], NOW + 1)
    assert not desk.asked
    desk.room.settled(["there"], NOW + 1)
    assert desk.answer(Fate.FLIES).flight.id == "a"


def test_what_settles_while_the_store_is_asked_is_not_missed() -> None:
    desk = Desk()
    desk.hold("a")
    desk.room.settled(["here"], NOW + 1)
    desk.room.settled(["here"], NOW + 1)
    assert len(desk.asked) == 1
    desk.answer(Fate.HELD)
    assert desk.answer(Fate.FLIES).flight.id == "a"
    assert not desk.asked


def test_an_attempt_that_flies_though_its_client_has_left_is_taken_back() -> None:
    desk = Desk()
    held = desk.hold("a")
    desk.room.settled(["here"], NOW + 1)
    held.addErrback(lambda _: None).cancel()
    gone = desk.answer(Fate.FLIES)
    assert desk.unwanted == [gone]
    assert not len(desk.room)


def test_at_its_end_one_is_asked_about_a_last_time() -> None:
    desk = Desk()
    held = desk.hold("a")
    assert desk.room.due == NOW + WAIT
    desk.room.tick(NOW + WAIT)
    desk.answer(Fate.HELD)
    assert held.result.fate is Fate.HELD
    assert desk.room.due == math.inf


def test_a_place_holds_a_hundred_also_of_those_that_come_from_elsewhere() -> None:
    desk = Desk()
    for number in range(HELD_AT_ONE):
        assert isinstance(desk.hold(f"there {number}", "there"), Deferred)
    assert desk.hold("one more", "there").fate is Fate.HELD
    held = desk.hold("here")
    desk.room.settled(["here"], NOW + 1)
    desk.answer(Fate.HELD, "there")
    assert held.result.fate is Fate.HELD
    assert len(desk.room) == HELD_AT_ONE


def test_an_address_holds_a_hundred_wherever_they_wait() -> None:
    desk = Desk()
    for number in range(HELD_AT_ONE):
        assert isinstance(desk.hold(f"{number}", f"pair {number}", "home"), Deferred)
    assert desk.hold("more", "another pair", "home").fate is Fate.HELD
    assert isinstance(desk.hold("other", "another pair", "other home"), Deferred)


def test_alarms_of_those_who_have_left_are_dropped() -> None:
    desk = Desk()
    stays = desk.hold("stays", "there")
    for number in range(5 * HELD_IN_ALL):
        desk.hold(f"{number}").addErrback(lambda _: None).cancel()
        assert len(desk.room._alarms) <= 4 * HELD_IN_ALL + 1
    assert len(desk.room) == 1
    stays.addErrback(lambda _: None).cancel()
