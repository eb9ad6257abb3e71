"""What else is counted, over a store that answers later, as a shared one does: nothing is decided before."""

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from pop3proxy.analyzer.events import (
    Connect,
    Connection,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
)
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.hooks.api import PASS, Deny
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import Settled, Settlement

from .test_occurrences import HOST, PASSWORDS, TODAY, rule


class LateStore(MemoryStore):
    """Decides in the order of what it is asked, as memory does, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(1000, 100, 1e6)
        self.due: deque[Callable[[], None]] = deque()

    def settle(self, settlement: Settlement, now: float) -> Any:
        found = super().settle(settlement, now)
        answer: Deferred[Settled] = Deferred()
        self.due.append(lambda: answer.callback(found))
        return answer

    def answer_all(self) -> None:
        while self.due:
            self.due.popleft()()


class World:
    """A policy over such a store."""

    def __init__(self, *rules: dict[str, Any], **more: Any) -> None:
        self.store = LateStore()
        self.policy = FailedLogins(
            Policy.model_validate({"rules": rules, **more}), self.store, live=False
        )
        self.said: list[PolicyEvent] = []
        self.policy.emit = self.said.append  # type: ignore[assignment]

    def got(self, found: Any) -> Any:
        """Return a verdict that comes when the store answers, and not before."""
        if not isinstance(found, Deferred):
            return found
        verdicts: list[Any] = []
        found.addCallback(verdicts.append)
        assert verdicts == []
        self.store.answer_all()
        (verdict,) = verdicts
        return verdict

    def attempt(self, user: str = "bob", host: str = HOST) -> Any:
        c = Connection("Cx", host, 1, "198.51.100.4", 110)
        event = LoginAttempt(c, TODAY, user, next(PASSWORDS), "PLAIN")
        return self.policy.pop3_login_attempt(event)

    def fail(self, host: str) -> None:
        c = Connection("Cx", host, 1, "198.51.100.4", 110)
        failure = LoginFailure(c, TODAY, "bob", next(PASSWORDS), "PLAIN", Reason.CREDENTIALS)
        self.got(self.policy.pop3_login_failure(failure))
        self.store.answer_all()

    def succeed(self, host: str) -> Any:
        c = Connection("Cx", host, 1, "198.51.100.4", 110)
        return self.policy.pop3_login_success(
            LoginSuccess(c, TODAY, "bob", next(PASSWORDS), "PLAIN")
        )


def test_a_connection_waits_for_the_answer() -> None:
    world = World(rule("connections", "deny", 1))
    for expected in (PASS, Deny(world.policy.policy.banned_reply)):
        c = Connection("Cx", HOST, 1, "198.51.100.4", 110)
        found = world.policy.pop3_connect(Connect(c, TODAY))
        assert isinstance(found, Deferred)
        assert world.got(found) == expected


def test_connections_that_come_before_the_first_is_answered_are_counted_too() -> None:
    world = World(rule("connections", "deny", 2))
    verdicts: list[Any] = []
    for _ in range(4):
        found: Any = world.policy.pop3_connect(
            Connect(Connection("Cx", HOST, 1, "198.51.100.4", 110), TODAY)
        )
        found.addCallback(verdicts.append)
    world.store.answer_all()
    assert [verdict is PASS for verdict in verdicts] == [True, True, False, False]


def test_a_login_at_a_trap_waits_for_the_answer_and_is_denied() -> None:
    world = World(rule("failures", "log"), trap_users=["admin"])
    found = world.attempt("admin")
    assert isinstance(found, Deferred)
    assert world.got(found) == Deny()
    assert [ban.key for ban in world.store.bans(TODAY)] == [f"address:{HOST}"]
    assert world.got(world.attempt(host="203.0.113.9")) is PASS


@pytest.mark.parametrize(("action", "verdict"), [("log", PASS), ("deny", Deny())])
def test_a_success_that_is_likely_guessed_is_told_in_time(action: str, verdict: Any) -> None:
    world = World(rule("likely_guessed", action, 2, by="user"))
    for host in ("203.0.113.1", "203.0.113.2"):
        world.fail(host)
    found = world.succeed("203.0.113.3")
    assert isinstance(found, Deferred)
    assert world.got(found) == verdict
    assert [(event.key, event.counted) for event in world.said] == [("user:bob", "guesses")]
    # It is asked before the client becomes welcome by it, and not of one that is.
    again = world.got(world.succeed("203.0.113.3"))
    assert (again, len(world.said)) == ((PASS, 1) if action == "log" else (Deny(), 2))
