"""What is said of an address, a user or a pair: what is counted, refused until when, and what lets it in."""

import json
from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from pop3proxy.analyzer.events import LoginAttempt
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.hooks.api import PASS, Deny
from pop3proxy.hooks.policy import explanations
from pop3proxy.hooks.policy.banrecords import time_of
from pop3proxy.hooks.policy.byhand import ByHand
from pop3proxy.hooks.policy.control import Control
from pop3proxy.hooks.policy.decisions import MAX_EACH, MAX_KEYS, Decisions
from pop3proxy.hooks.policy.explanations import BANS_READ, PORTION, Explanations
from pop3proxy.hooks.policy.memory import DistinctCount, PlainCount
from pop3proxy.hooks.policy.standings import reading
from pop3proxy.hooks.policy.store import Ban, Window
from pop3proxy.hooks.policy.subjects import subject_of
from pop3proxy.inwords import denied_in_words, why_in_words

from .test_engine import HOST, NOW, World, rule

Result = dict[str, Any]


def now(asked: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine comes to, which has to be at once."""
    found: list[Any] = []
    Deferred.fromCoroutine(asked).addCallback(found.append)
    return found[0]


class Desk:
    """An operator's desk at a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decisions = Decisions()
        self.told: list[PolicyEvent] = []
        self.ended: list[set[str]] = []
        self.pauses = 0
        self.explanations = Explanations(world.engine, self.decisions, self._pause)
        self.by_hand = ByHand(
            world.engine, self.explanations, self._tell, self.ended.append, lambda: world.now
        )
        self.control = Control(world.engine, self.explanations, self.by_hand)

    def _pause(self) -> "Deferred[None]":
        self.pauses += 1
        return succeed(None)

    def _tell(self, event: PolicyEvent) -> None:
        self.decisions.remember((), event)
        self.told.append(event)

    def ask(self, **request: Any) -> Result:
        found: list[str] = []
        line = json.dumps(request).encode()
        self.control.answer(line, "uid:7").addCallback(found.append)
        answer: Result = json.loads(found[0])
        return answer

    def why(self, what: str) -> Result:
        why: Result = self.ask(do="why", what=what)["why"]
        return why

    def denied(self) -> list[tuple[str, str]]:
        return [(each["key"], each["rule"]) for each in self.ask(do="denied")["denied"]]


def guessed(world: World, times: int, user: str = "bob", host: str = HOST) -> None:
    for number in range(times):
        assert world.guess(user, f"guess{number}", host) is PASS


# --- until when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [60.0, 3600.0])
@pytest.mark.parametrize("counts", ["failures", "users", "passwords"])
def test_who_is_refused_is_let_in_when_it_was_said(counts: str, seconds: float) -> None:
    limits = [{"count": 3, "seconds": seconds}, {"count": 5, "seconds": 7 * seconds}]
    world = World([{**rule(counts, "address", 3, "deny"), "limits": limits}])
    desk = Desk(world)
    for number in range(3):
        world.now += 7
        assert world.guess(f"user{number}", f"guess{number}") is PASS
    (count,) = desk.why(HOST)["counts"]
    assert count["refuses"]
    world.now = count["until"] - 0.5
    assert isinstance(world.guess("another", "guess"), Deny)
    world.now = count["until"]
    assert world.guess("another", "guess") is PASS


def test_the_longest_of_several_windows_says_until_when() -> None:
    plain = PlainCount([{100: 3}, {10: 2, 11: 1}])
    windows = (Window(12.0, 3), Window(120.0, 3))
    assert reading(plain, windows, 100.5) == ((3, 3), 230.0)
    distinct = DistinctCount()
    distinct.members = {"a": 10.0, "b": 20.0, "c": 30.0}
    assert reading(distinct, (Window(100.0, 2), Window(50.0, 5)), 40.0) == ((3, 3), 120.0)
    assert reading(None, windows, 1.0) == ((0, 0), 0.0)


# --- why --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [HOST, "Bob", "user:bob", f"{HOST}|bob", f"pair:{HOST}|BOB"])
def test_a_denied_pair_is_found_by_its_address_its_user_and_itself(asked: str) -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    guessed(world, 2)
    why = Desk(world).why(asked)
    (count,) = why["counts"]
    assert (count["key"], count["refuses"]) == (f"pair:{HOST}|bob", "every login")
    assert count["windows"] == [{"count": 2, "limit": 2, "seconds": 3600.0}]
    assert f"at once: pop3proxy bans remove 'pair:{HOST}|bob'" in why["lets_in"]
    assert f"pair:{HOST}|bob  r refuses every login until 20" in "\n".join(why_in_words(why))


@pytest.mark.parametrize("asked", ["192.0.2.2", "alice", f"{HOST}|alice", "ob", "192.0.2.0/24"])
def test_nothing_is_said_of_others(asked: str) -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    guessed(world, 2)
    why = Desk(world).why(asked)
    assert (why["counts"], why["lets_in"]) == ([], [])
    assert list(why_in_words(why))[-1] == "  nothing is refused now"


def test_all_that_counts_at_an_address_is_listed_with_its_limits() -> None:
    world = World()
    guessed(world, 2)
    world.guess("bob", "guess0")
    counts = {(each["rule"], each["key"]) for each in Desk(world).why(HOST)["counts"]}
    assert counts == {
        *((name, f"address:{HOST}") for name in ("brute-force", "hidden-password", "spraying")),
        ("slow-address", f"address:{HOST}"),
        *((name, "network:192.0.2.0/24") for name in ("neighbours", "hidden-neighbours")),
        *((name, f"pair:{HOST}|bob") for name in ("slow-down", "guessing", "misconfigured")),
    }


def test_a_rule_on_trial_or_that_only_slows_down_refuses_nothing() -> None:
    for more in ({"action": "deny", "dry_run": True}, {"action": "delay"}, {"action": "log"}):
        world = World([{**rule("failures", "address", 1, "deny"), **more}])
        world.guess("bob", "x")
        (count,) = Desk(world).why(HOST)["counts"]
        assert (count["refuses"], count["until"] > world.now) == ("", True)


def test_of_a_rule_that_lets_one_through_it_is_said_when_the_next_is() -> None:
    world = World([rule("failures", "user", 2, "deny", trickle=900.0)])
    guessed(world, 2)
    desk = Desk(world)

    def next_try() -> float:
        (count,) = desk.why("bob")["counts"]
        assert count["trickle"] == 900.0
        return float(count["next_try"])

    assert next_try() == world.now
    assert world.guess("bob", "a", "192.0.2.9") is PASS
    taken = world.now
    assert next_try() == taken + 900.0
    world.turn(899.0)
    assert next_try() == taken + 900.0
    assert isinstance(world.guess("bob", "b", "192.0.2.9"), Deny)
    world.turn(1.0)
    why = desk.why("bob")
    at = time_of(world.now)
    assert f"{at}: r lets one login of user:bob through" in why["lets_in"]
    assert "r refuses every login but one each 900 s until 20" in "\n".join(why_in_words(why))
    assert world.guess("bob", "b", "192.0.2.9") is PASS


def test_a_rule_that_refuses_nothing_lets_nothing_through() -> None:
    world = World([rule("failures", "user", 2, "deny", trickle=900.0)])
    guessed(world, 1)
    (count,) = Desk(world).why("bob")["counts"]
    assert (count["refuses"], count["trickle"], count["next_try"]) == ("", 0.0, 0.0)


def test_what_is_welcome_is_named_and_that_it_is_not_refused() -> None:
    world = World([rule("addresses", "user", 1, "deny")])
    assert world.log_in("bob", "right", "203.0.113.7") is PASS
    guessed(world, 1)
    why = Desk(world).why("bob")
    assert why["welcome"] == ["203.0.113.7|bob"]
    assert why["counts"][0]["refuses"] == "logins from addresses that are not among them"
    assert any("does not refuse an address where it has logged in" in s for s in why["lets_in"])
    assert Desk(world).why("203.0.113.7|bob")["welcome"] == ["203.0.113.7|bob"]


def test_a_ban_is_explained_while_it_holds_when_it_is_over_and_when_it_was_removed() -> None:
    world = World([rule("failures", "address", 2, "ban")])
    desk = Desk(world)
    guessed(world, 2)
    why = desk.why(HOST)
    (ban,) = why["bans"]
    assert ban["in_force"]
    assert f"at once: pop3proxy bans remove 'address:{HOST}'" in why["lets_in"]
    world.now += 10_000
    (over,) = desk.why(HOST)["bans"]
    assert (over["in_force"], over["evidence"]) == (False, ban["evidence"])
    world.engine.ban(f"address:{HOST}", 100, "again", world.now)
    desk.ask(do="remove", what=HOST, reason="a mistake")
    why = desk.why(HOST)
    (removed,) = why["bans"]
    assert (removed["in_force"], removed["until"], removed["times"]) == (False, world.now, 0)
    assert removed["evidence"][-1] == "removed by uid:7: a mistake"
    text = "\n".join(why_in_words(why))
    assert "was until" in text
    assert "  removed\n" in text
    assert f"address:{HOST} until" in text
    # It makes the next one no longer.
    assert desk.ask(do="add", what=HOST, seconds=60)["bans"][0]["times"] == 1


def test_a_password_is_named_by_its_number() -> None:
    world = World([rule("users", "password", 2, "deny")])
    for number in range(2):
        world.guess(f"user{number}", "summer")
    found = Desk(world).ask(do="denied")
    assert [each["key"] for each in found["denied"]] == ["password#1"]
    assert world.engine.passwords.fingerprint("summer") not in json.dumps(found)


def test_a_client_without_an_address_is_explained_by_its_pair() -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    for number in range(2):
        c = world.client()
        c.orig_unknown = True
        assert world.attempt(c, "bob", f"{number}") is PASS
        world.fail(c, "bob", f"{number}")
    why = Desk(world).why("pair:unknown@tcp:110|bob")
    assert why["about"] == ["pair:unknown@tcp:110|bob", "user:bob"]
    assert why["counts"][0]["refuses"]


def test_what_is_in_flight_and_held_is_said() -> None:
    world = World([rule("failures", "address", 2, "deny")])
    desk = Desk(world)
    c = world.client()
    for number in range(5):
        world.engine.attempt(LoginAttempt(c, world.now, "bob", f"{number}", "PLAIN", number + 1))
    why = desk.why(HOST)
    assert why["in_flight"][0] == {"key": f"address:{HOST}", "flying": 2, "held": 3}
    assert f"    address:{HOST}: 2 wait for the mail server's answer, 3 are held" in list(
        why_in_words(why)
    )
    world.end(c)
    assert desk.why(HOST)["in_flight"] == []


# --- decisions --------------------------------------------------------------------------------------------


def decision(world: World, key: str, number: int = 0) -> PolicyEvent:
    found = (key, "failures", number, 2, 60.0, 0.0, False)
    return PolicyEvent(world.client(), NOW + number, "r", "deny", *found)


def test_the_last_decisions_come_with_their_evidence_the_latest_first() -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    desk = Desk(world)
    for number in range(MAX_EACH + 5):
        desk.decisions.remember(
            (f"address:{HOST}", "user:bob", ""), decision(world, f"pair:{HOST}|bob", number)
        )
    desk.decisions.remember((f"address:{HOST}",), decision(world, f"pair:{HOST}|carl", 99))
    assert [each["count"] for each in desk.why("bob")["decisions"]] == list(range(14, 4, -1))
    assert desk.why(HOST)["decisions"][0]["count"] == 99
    assert desk.why(f"{HOST}|bob")["decisions"][0]["count"] == 14
    text = "\n".join(why_in_words(desk.why(f"{HOST}|bob")))
    assert f"deny by r: pair:{HOST}|bob 14 of 2 failures in 60 s; session C" in text


def test_the_decisions_that_are_remembered_are_bounded() -> None:
    world, decisions = World(), Decisions()
    for number in range(MAX_KEYS + 10):
        decisions.remember((), decision(world, f"user:{number}"))
    kept = [number for number in range(MAX_KEYS + 10) if decisions.about([f"user:{number}"])]
    assert kept == list(range(10, MAX_KEYS + 10))


# --- list -------------------------------------------------------------------------------------------------


def test_all_that_is_refused_is_listed_not_only_what_is_banned() -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    desk = Desk(world)
    guessed(world, 2)
    guessed(world, 1, user="carl")
    desk.ask(do="add", what="203.0.113.7", seconds=60)
    desk.ask(do="allow", what="198.51.100.0/24", seconds=60, reason="an office")
    assert desk.denied() == [(f"pair:{HOST}|bob", "r")]
    lines = list(denied_in_words(desk.ask(do="denied")))
    assert [line.partition("  ")[0] for line in lines] == [
        *("address:203.0.113.7", f"pair:{HOST}|bob", "network:198.51.100.0/24")
    ]
    world.now += 10_000
    assert desk.denied() == []


def test_what_is_allowed_is_not_said_to_be_refused() -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    desk = Desk(world)
    guessed(world, 2)
    desk.ask(do="add", what=HOST, seconds=60)
    assert desk.denied() == [(f"pair:{HOST}|bob", "r")]
    desk.ask(do="allow", what=HOST, seconds=60)
    assert desk.denied() == []
    lines = list(denied_in_words(desk.ask(do="denied")))
    assert lines[0] == f"address:{HOST}  banned by manual  until 2025-11-24T16:01:00Z, but allowed"
    for asked in (HOST, "bob", f"{HOST}|bob"):
        assert [each["refuses"] for each in desk.why(asked)["counts"]] == [""]


def test_a_long_list_is_bounded_and_says_how_many_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explanations, "MAX_SHOWN", 5)
    world = World([rule("failures", "address", 1, "deny")])
    for number in range(9):
        guessed(world, 1, host=f"10.0.{number}.1")
    found = Desk(world).ask(do="denied")
    assert (len(found["denied"]), found["left_out"]) == (5, 4)
    assert list(denied_in_words(found))[-1] == "and 4 more"


def test_logins_get_their_turn_while_many_keys_are_looked_through() -> None:
    world = World([rule("failures", "address", 1, "deny")])
    (one,) = world.engine.rules.all
    for number in range(2 * PORTION + 1):
        counter = PlainCount([{0: 1}])
        world.engine.store.memory.counters[one.key(f"address:{number}")] = counter
        ban = Ban(f"address:10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "r", 0.0, 1e10)
        world.engine.store.memory.all_bans[ban.key] = ban
    allow = {"do": "allow", "what": "10.0.0.0/8", "seconds": 60}
    desk = Desk(world)
    assert len(desk.ask(do="list")["bans"]) == 2 * PORTION + 1
    assert desk.pauses == 2 * BANS_READ
    desk = Desk(world)
    assert f"and {2 * PORTION - 2} more" in desk.ask(**allow)["said"]
    assert desk.pauses == 2 * BANS_READ
    world.engine.store.memory.all_bans.clear()
    for request in ({"do": "denied"}, {"do": "why", "what": HOST}, {"do": "why", "what": "bob"}):
        desk = Desk(world)
        assert "error" not in desk.ask(**request)
        assert desk.pauses == 2


# --- remove -----------------------------------------------------------------------------------------------


def test_a_removal_says_what_it_cleared_and_that_grace_begins() -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    desk = Desk(world)
    guessed(world, 2)
    assert isinstance(world.guess("bob", "x"), Deny)
    answer = desk.ask(do="remove", what=f"{HOST}|bob", reason="called the helpdesk")
    assert answer["said"] == (
        f"cleared 2 failures of pair:{HOST}|bob (r),"
        f" no rule bans or refuses pair:{HOST}|bob until 2025-11-24T17:00:00Z"
    )
    (removed,) = answer["removed"]
    assert (removed["ban"], removed["grace"]) == (None, NOW + 3600)
    for number in range(9):
        assert world.guess("bob", f"more{number}") is PASS
    (event,) = desk.told
    assert (event.rule, event.action, event.key) == ("manual", "remove", f"pair:{HOST}|bob")
    assert (event.by, event.reason, event.seconds) == ("uid:7", "called the helpdesk", 3600)


def test_a_removal_names_what_is_refused_still() -> None:
    world = World([rule("failures", "pair", 2, "deny")])
    desk = Desk(world)
    guessed(world, 2)
    error = desk.ask(do="remove", what=HOST)["error"]
    assert error == (
        f"nothing is held against address:{HOST} itself;"
        f" still refused: pair:{HOST}|bob; see pop3proxy policy why"
    )
    desk.ask(do="add", what=HOST, seconds=60)
    assert f"still refused: pair:{HOST}|bob" in desk.ask(do="remove", what=HOST)["said"]
    assert not desk.told[-1].dry_run


def test_a_network_that_is_not_refused_keeps_what_was_counted_of_it() -> None:
    rules = [
        rule("failures", "address", 2, "deny"),
        rule("failures", "network", 3, "deny", name="n"),
    ]
    world = World(rules)
    desk = Desk(world)
    guessed(world, 2)
    assert [each["key"] for each in desk.ask(do="remove", what=HOST)["removed"]] == [
        f"address:{HOST}"
    ]
    assert [each["windows"][0]["count"] for each in desk.why(HOST)["counts"]] == [2]
    guessed(world, 1, host="192.0.2.9")
    removed = desk.ask(do="remove", what="192.0.2.9")["removed"]
    assert [each["key"] for each in removed] == ["address:192.0.2.9", "network:192.0.2.0/24"]


def test_without_grace_none_is_promised() -> None:
    world = World([rule("failures", "address", 2, "deny")], grace=0.0)
    desk = Desk(world)
    guessed(world, 2)
    said = desk.ask(do="remove", what=HOST)["said"]
    assert said == f"cleared 2 failures of address:{HOST} (r)"


# --- by hand ----------------------------------------------------------------------------------------------


def test_what_operators_do_is_told_with_who_did_it_and_why() -> None:
    world = World()
    desk = Desk(world)
    desk.ask(do="add", what=HOST, seconds=60, reason="scans")
    desk.ask(do="allow", what=HOST, seconds=600, reason="ours")
    desk.ask(do="disallow", what=HOST, reason="not ours")
    desk.ask(do="remove", what=HOST)
    assert [(each.action, each.seconds, each.reason) for each in desk.told] == [
        *(("ban", 60.0, "scans"), ("allow", 600.0, "ours")),
        *(("disallow", 0.0, "not ours"), ("remove", 3600.0, "")),
    ]
    assert {(each.by, each.key, each.rule) for each in desk.told} == {
        ("uid:7", f"address:{HOST}", "manual")
    }
    shown = [(each["action"], each["by"], each["reason"]) for each in desk.why(HOST)["decisions"]]
    assert ("disallow", "uid:7", "not ours") in shown
    assert len(shown) == 4


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("192.0.2.1", "address:192.0.2.1 network:192.0.2.0/24"),
        ("2001:db8::1", "address:2001:db8::/64 network:2001:db8::/48"),
        ("192.0.2.0/24", "network:192.0.2.0/24"),
        ("bob", "user:bob"),
        ("user:192.0.2.1", "user:192.0.2.1"),
        ("bob|x", "user:bob|x"),
        (
            "2001:db8::1|bob",
            "pair:2001:db8::/64|bob address:2001:db8::/64 network:2001:db8::/48 user:bob",
        ),
    ],
)
def test_a_name_is_about_what_it_looks_like(name: str, keys: str) -> None:
    assert " ".join(subject_of(World().engine, name).keys) == keys
