"""A login that succeeds where strangers have failed, or from where others were refused, is said."""

from typing import Any

import pytest
from pydantic import ValidationError

from pop3proxy.analyzer.events import Connection, LoginAttempt, LoginFailure, LoginSuccess, Reason
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop
from pop3proxy.hooks.policy.config import Policy, PolicyRule
from pop3proxy.hooks.policy.failedlogins import FailedLogins

from .test_occurrences import NOW, rule

OWNER, STRANGER, OTHER = "192.0.2.1", "203.0.113.9", "198.51.100.77"


class World:
    """A policy with a rule about guessed logins, and clients that try to log in."""

    def __init__(self, action: str = "log", *rules: dict[str, Any], **more: Any) -> None:
        own = {**rule("likely_guessed", action, 3, by="user"), **more}
        self.policy = FailedLogins(
            Policy.model_validate(
                {"rules": [own, *rules], "misconfigured_delay": 0.0, "ban_jitter": 0.0}
            ),
            live=False,
        )
        self.said: list[PolicyEvent] = []
        self.policy.emit = self.said.append  # type: ignore[assignment]
        self.now = NOW
        self._number = 0

    def _client(self, host: str) -> Connection:
        self._number += 1
        return Connection(
            f"C{self._number}", host, 1, "198.51.100.4", 110, orig_unknown=host.startswith("/")
        )

    def fail(self, host: str, password: str, user: str = "bob") -> Any:
        c = self._client(host)
        verdict: Any = self.policy.pop3_login_attempt(
            LoginAttempt(c, self.now, user, password, "PLAIN")
        )
        if verdict is not PASS:
            return verdict
        return self.policy.pop3_login_failure(
            LoginFailure(c, self.now, user, password, "PLAIN", Reason.CREDENTIALS)
        )

    def succeed(self, host: str, user: str = "bob", password: str = "right") -> Any:
        c = self._client(host)
        verdict: Any = self.policy.pop3_login_attempt(
            LoginAttempt(c, self.now, user, password, "PLAIN")
        )
        if verdict is not PASS:
            return verdict
        return self.policy.pop3_login_success(LoginSuccess(c, self.now, user, password, "PLAIN"))

    def guesses(self) -> list[tuple[str, str, int]]:
        return [(e.key, e.counted, e.count) for e in self.said if e.rule == "r"]


def attacked(world: World, count: int = 3, host: str = STRANGER) -> World:
    for number in range(count):
        world.fail(host, f"guess{number}")
    return world


def test_a_success_behind_strangers_guesses_is_said() -> None:
    world = attacked(World())
    assert world.succeed(OTHER) is PASS
    assert world.guesses() == [("user:bob", "guesses", 3)]
    assert world.policy.counts["likely_guessed"] == 1


def test_the_guesser_itself_is_a_stranger() -> None:
    world = attacked(World())
    world.succeed(STRANGER)
    assert world.guesses() == [("user:bob", "guesses", 3)]


def test_guesses_below_the_limit_are_mistakes() -> None:
    world = attacked(World(), 2)
    world.succeed(OTHER)
    assert world.guesses() == []


def test_the_same_wrong_password_of_one_client_is_one_guess() -> None:
    world = World()
    for _ in range(10):
        world.fail(STRANGER, "stale")
    world.succeed(STRANGER)
    assert world.guesses() == []


def test_mechanisms_that_show_no_password_count_by_address() -> None:
    world = World()
    for number in range(10):
        world.fail(f"203.0.113.{number // 5}", "")
    world.succeed(OTHER)
    assert world.guesses() == []
    world.fail("203.0.113.7", "")
    world.succeed(STRANGER)
    assert world.guesses() == [("user:bob", "guesses", 3)]


def test_a_place_that_the_owner_logged_in_from_is_no_stranger_s() -> None:
    world = World()
    world.succeed(OWNER)
    attacked(world)
    world.succeed(OWNER)
    assert world.guesses() == []


def test_an_owner_s_own_mistakes_at_a_known_place_are_no_guesses() -> None:
    world = World()
    world.succeed(OWNER)
    attacked(world, host=OWNER)
    world.succeed(OTHER)
    assert world.guesses() == []


def test_guesses_at_one_account_say_nothing_of_another() -> None:
    world = attacked(World())
    world.succeed(OTHER, "alice")
    assert world.guesses() == []


def test_old_guesses_are_forgotten() -> None:
    world = attacked(World())
    world.now += 2 * 3600
    world.succeed(OTHER)
    assert world.guesses() == []


def test_a_client_without_an_address_is_a_stranger_each_time() -> None:
    world = attacked(World())
    for _ in range(2):
        world.succeed("/run/socket")
    assert world.guesses() == [("user:bob", "guesses", 3)] * 2


def refused_nearby(action: str = "log") -> World:
    """Somebody was refused at alice's account four times, from the network of 203.0.113.0."""
    world = World(action, {**rule("failures", "deny", 1, by="pair"), "name": "deny"})
    for number in range(5):
        world.fail(STRANGER, f"guess{number}", "alice")
    world.said.clear()
    return world


def test_a_success_from_a_network_that_is_refused_elsewhere_is_said() -> None:
    world = refused_nearby()
    world.succeed("203.0.113.200")
    assert world.guesses() == [("network:203.0.113.0/24", "refusals", 4)]


def test_what_was_refused_at_the_very_account_is_not_elsewhere() -> None:
    world = refused_nearby()
    world.succeed("203.0.113.200", "alice")
    assert world.guesses() == []


def test_what_was_refused_in_another_network_does_not_matter() -> None:
    world = refused_nearby()
    world.succeed(OTHER)
    assert world.guesses() == []


def test_a_ban_counts_as_a_refusal() -> None:
    world = World("log", {**rule("failures", "ban", 1), "name": "ban"})
    for number in range(4):
        world.fail(STRANGER, f"guess{number}", "alice")
    world.succeed("203.0.113.200")
    (guess,) = world.guesses()
    assert guess[:2] == ("network:203.0.113.0/24", "refusals")


@pytest.mark.parametrize(
    ("action", "verdict"),
    [
        ("log", PASS),
        ("delay", Delay(1.0)),
        ("deny", Deny("-ERR no")),
        ("drop", Drop()),
        ("ban", Deny("-ERR no")),
    ],
)
def test_each_action(action: str, verdict: Any) -> None:
    more = {"ban": "user"} if action == "ban" else {}
    world = attacked(World(action, reply="-ERR no", **more))
    assert world.succeed(OTHER) == verdict
    assert [ban.key for ban in world.policy.store.bans(NOW)] == (
        ["user:bob"] if action == "ban" else []
    )


@pytest.mark.parametrize("action", ["delay", "deny", "drop", "ban"])
def test_a_dry_run_only_says_it(action: str) -> None:
    world = attacked(World(action, dry_run=True))
    assert world.succeed(OTHER) is PASS
    assert world.guesses()[0] == ("user:bob", "guesses", 3)
    assert world.policy.store.bans(NOW) == []


def test_who_is_denied_is_not_welcome_the_next_time_and_has_failed() -> None:
    world = attacked(World("deny", {**rule("failures", "log", 1), "name": "f"}))
    world.said.clear()
    for _ in range(3):
        assert isinstance(world.succeed(OTHER), Deny)
    assert len(world.guesses()) == 3
    assert [event.key for event in world.said if event.rule == "f"] == [f"address:{OTHER}"]


def test_a_ban_of_the_address_spares_one_from_which_somebody_logged_in() -> None:
    world = World("ban", reply="-ERR no")
    world.succeed(OTHER, "alice")
    attacked(world)
    assert world.succeed(OTHER) == Deny("-ERR no")
    assert world.policy.store.bans(NOW) == []
    assert world.succeed("192.0.2.99") == Deny("-ERR no")
    assert [ban.key for ban in world.policy.store.bans(NOW)] == ["address:192.0.2.99"]


def test_it_is_counted_by_user() -> None:
    with pytest.raises(ValidationError, match='is counted by user; write by = "user"'):
        PolicyRule.model_validate(rule("likely_guessed", "log"))


def test_guesses_that_are_kept_are_bounded() -> None:
    world = World()
    for number in range(500):
        world.fail(f"198.18.{number // 250}.{number % 250}", f"guess{number}")
    counters: Any = getattr(world.policy.store, "counters")  # noqa: B009
    assert [
        len(counter.members) for counter in counters.values() if hasattr(counter, "members")
    ] == [4]


@pytest.mark.parametrize("action", ["deny", "drop", "ban"])
def test_guesses_that_are_counted_refuse_no_attempt(action: str) -> None:
    world = attacked(World(action), 10)
    assert not world.policy.engine.rules.all[0].enforced
    assert world.fail(OTHER, "another") is PASS
