"""Addresses and networks that an operator allows for a time."""

import json
from pathlib import Path
from typing import Any

import pytest

from pop3proxy.hooks.api import PASS, Deny
from pop3proxy.hooks.policy.allowances import MAX_ALLOWANCES, Allowance, Allowances, AllowancesFull
from pop3proxy.hooks.policy.snapshot import SnapshotError

from .test_engine import HOST, NOW, World, rule
from .test_explanations import Desk
from .test_journal import kept_by


def allowance(key: str, seconds: float = 100.0) -> Allowance:
    return Allowance(key, NOW, NOW + seconds, "uid:0", "ours")


def test_what_is_allowed_is_neither_counted_nor_refused_nor_banned() -> None:
    world = World(
        [rule("failures", "user", 2, "deny"), rule("users", "address", 2, "ban", name="b")]
    )
    desk = Desk(world)
    desk.ask(do="add", what="192.0.2.0/24", seconds=1000)
    assert isinstance(world.guess("bob", "x"), Deny)
    answer = desk.ask(do="allow", what=HOST, seconds=60, reason="our webmail")
    assert answer["said"] == (
        f"address:{HOST} is allowed until 2025-11-24T16:01:00Z;"
        " meanwhile no ban holds there of network:192.0.2.0/24"
    )
    for number in range(9):
        assert world.guess("bob", f"{number}") is PASS
    assert isinstance(world.guess("bob", "x", "192.0.2.2"), Deny)
    assert not world.engine.store.memory.counters
    assert desk.why(HOST)["allowed"]["reason"] == "our webmail"
    assert desk.why(HOST)["lets_in"] == []
    world.now += 60
    assert isinstance(world.guess("bob", "x"), Deny)
    assert desk.why(HOST)["allowed"] is None
    assert "error" in desk.ask(do="disallow", what=HOST)


def test_a_proxy_that_names_no_client_is_not_allowed() -> None:
    world = World([rule("failures", "user", 1, "deny")])
    world.engine.allowances.allow(allowance(f"address:{HOST}"), NOW)
    for expected in (PASS, Deny()):
        c = world.client()
        c.orig_unknown = True
        verdict = world.attempt(c, "bob", f"{expected}")
        assert verdict == expected
        if verdict is PASS:
            world.fail(c, "bob", "x")


@pytest.mark.parametrize(
    ("key", "host", "covered"),
    [
        ("address:192.0.2.1", "192.0.2.1", True),
        ("address:192.0.2.1", "::ffff:192.0.2.1", True),
        ("address:192.0.2.1", "192.0.2.2", False),
        ("address:2001:db8::/64", "2001:db8::5", True),
        ("address:2001:db8::/64", "2001:db8:0:1::5", False),
        ("address:2001:db8::/64", "2001:db8::5%eth0", True),
        ("network:10.0.0.0/8", "10.9.8.7", True),
        ("network:10.0.0.0/8", "2001:db8::1", False),
        ("network:10.0.0.0/8", "unknown", False),
    ],
)
def test_an_allowance_covers_its_addresses(key: str, host: str, covered: bool) -> None:
    allowances = Allowances()
    allowances.allow(allowance(key), NOW)
    for now, expected in ((NOW, covered), (NOW + 99, covered), (NOW + 100, False)):
        assert bool(allowances.of(host, now)) is expected


def test_the_wider_of_two_lasts_when_the_other_is_over() -> None:
    allowances = Allowances()
    allowances.allow(allowance("address:192.0.2.1", 10), NOW)
    allowances.allow(allowance("network:192.0.0.0/16", 100), NOW)
    assert allowances.of("192.0.2.1", NOW + 50) == allowance("network:192.0.0.0/16", 100)
    assert [each.key for each in allowances.all(NOW + 50)] == ["network:192.0.0.0/16"]
    assert allowances.all(NOW + 100) == []


@pytest.mark.parametrize("name", ["0.0.0.0/0", "::/0", "10.0.0.0/7", "2001::/15"])
def test_what_is_too_wide_is_not_allowed(name: str) -> None:
    desk = Desk(World())
    assert "too wide" in desk.ask(do="allow", what=name, seconds=60)["error"]
    assert not desk.world.engine.allowances.all(NOW)


def test_of_kept_allowances_those_beyond_the_bound_are_left_out() -> None:
    allowances = Allowances()
    for number in range(MAX_ALLOWANCES + 1):
        allowances.apply(["allow", *allowance(f"address:10.1.{number // 256}.{number % 256}")], NOW)
    assert len(allowances.all(NOW)) == MAX_ALLOWANCES


def test_allowances_are_bounded() -> None:
    allowances = Allowances()
    for number in range(MAX_ALLOWANCES):
        allowances.allow(allowance(f"address:10.0.{number >> 8}.{number & 255}"), NOW)
    allowances.allow(allowance("address:10.0.0.1"), NOW)
    with pytest.raises(AllowancesFull, match="end some of them"):
        allowances.allow(allowance("address:192.0.2.1"), NOW)
    allowances.allow(allowance("address:192.0.2.1"), NOW + 100)
    assert len(allowances.all(NOW)) == 1


def test_that_there_is_no_room_is_said() -> None:
    world = World()
    for number in range(MAX_ALLOWANCES):
        world.engine.allowances.allow(allowance(f"address:10.0.{number >> 8}.{number & 255}"), NOW)
    assert "policy.allow" in Desk(world).ask(do="allow", what=HOST, seconds=60)["error"]


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "killed"])
def test_allowances_outlast_the_proxy(tmp_path: Path, stopped: bool) -> None:
    allowances = Allowances()
    keeper, _, clock = kept_by(tmp_path, allowances=allowances)
    allowances.allow(allowance("network:10.0.0.0/8"), NOW)
    allowances.allow(allowance("address:192.0.2.1"), NOW)
    allowances.end("address:192.0.2.1", NOW)
    clock.advance(1)
    if stopped:
        keeper.stop()
    again = Allowances()
    kept_by(tmp_path, allowances=again)
    assert again.all(NOW) == [allowance("network:10.0.0.0/8")]


@pytest.mark.parametrize(
    "row",
    [
        [],
        ["address:192.0.2.1", 0, 1, "uid:0"],
        ["address:bob", 0, 1, "uid:0", ""],
        ["address:192.0.2.1", 0, 1e300, "uid:0", ""],
        ["address:192.0.2.1", 0, 1, 5, ""],
        [5, 0, 1, "uid:0", ""],
    ],
    ids=range(6),
)
def test_an_allowance_that_cannot_be_is_refused(tmp_path: Path, row: list[Any]) -> None:
    keeper, _, _ = kept_by(tmp_path)
    keeper.stop()
    found = json.loads((tmp_path / "state").read_text())
    (tmp_path / "state").write_text(json.dumps({**found, "allowed": [row]}))
    with pytest.raises(SnapshotError, match="move it away"):
        kept_by(tmp_path)
