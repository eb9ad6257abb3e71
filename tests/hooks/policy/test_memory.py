"""The store in memory: its bounds, and its snapshot."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from pop3proxy.hooks.policy import snapshot
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import (
    Answer,
    Attempt,
    Ban,
    Budget,
    Charge,
    Flight,
    Settlement,
    Window,
)

NOW = 1_764_000_000.0
WINDOWS = (Window(60.0, 3), Window(3600.0, 50))


def store() -> MemoryStore:
    return MemoryStore(100, 100, 1000.0)


def charge(key: str, member: str = "") -> Charge:
    return Charge(key, WINDOWS, member)


def failed(kept: MemoryStore, one: Charge, now: float = NOW) -> tuple[int, ...]:
    """Count a failure; return how the count stands."""
    return kept.settle(Settlement(charges=(one,)), now).tallies[0].counts


def test_a_flood_of_keys_drives_out_neither_bans_nor_what_counts_most() -> None:
    kept = store()
    kept.ban(Ban("address:192.0.2.1", "rule", NOW, NOW + 100), NOW)
    for _ in range(10):
        failed(kept, charge("busy"))
    for number in range(5000):
        failed(kept, charge(f"flood{number}"))
        kept.settle(Settlement(marks=((f"mark{number}", 10.0),)), NOW)
    assert len(kept.counters) == 100
    assert len(kept.marks) == 100
    assert kept.evicted == 4901
    assert "busy" in kept.counters
    assert kept.ban_of(("address:192.0.2.1",), NOW) is not None


def test_bans_are_bounded_and_those_that_are_over_go_first() -> None:
    kept = store()
    kept.ban(Ban("first", "rule", NOW, NOW + 1000), NOW)
    kept.ban(Ban("over", "rule", NOW - 10, NOW - 5), NOW)
    for number in range(99):
        kept.ban(Ban(str(number), "rule", NOW, NOW + 100), NOW)
    assert len(kept.all_bans) == 100
    assert kept.ban_of(("first",), NOW) is not None
    for number in range(1000):
        kept.unban("98", (), NOW, NOW)
        kept.ban(Ban("98", "rule", NOW, NOW + 100), NOW)
        kept.unban("98", (), NOW + number, NOW)
    assert len(kept.graces) <= 100


def test_what_succeeds_leaves_nothing_behind() -> None:
    kept = store()
    charges = tuple(
        one._replace(enforced=True, place="here") for one in (charge("plain"), charge("d", "m"))
    )
    flight = Flight("F1", NOW, ("m",), ("here", "there"))
    kept.attempt(Attempt(flight, charges), NOW)
    assert set(kept.flights) == {"here", "there"}
    kept.settle(Settlement(flight), NOW)
    assert not kept.counters
    assert not kept.flights


@pytest.mark.parametrize("member", ["", "m"], ids=["plain", "distinct"])
def test_a_clock_that_was_ahead_leaves_nothing_behind(member: str) -> None:
    kept, one = store(), charge("k", member)
    for ahead, left in ((1.0, True), (1e7, False)):
        failed(kept, one, NOW + ahead)
        kept.ban(Ban("user:x", "rule", NOW + ahead, NOW + ahead + 60, 1), NOW + ahead)
        other = charge("k", "other" if member else "")
        assert failed(kept, other) == ((2, 2) if left else (1, 1))
        assert (kept.ban_of(("user:x",), NOW) is not None) == left
        assert bool(kept.bans(NOW)) == left
        kept.counters.clear()


@pytest.mark.parametrize(("kind", "held"), [("plain", [[[5, 1]]] * 3), ("distinct", [["m", NOW]])])
def test_a_count_of_another_shape_than_its_rule_is_none(kind: str, held: list[Any]) -> None:
    kept = store()
    kept.load({"counters": [["k", kind, held]], "marks": [], "graces": [], "bans": []})
    assert failed(kept, charge("k")) == (1, 1)


def test_a_snapshot_holds_all_but_what_is_in_flight(tmp_path: Path) -> None:
    path, kept = str(tmp_path / "state"), store()
    failed(kept, charge("plain"))
    failed(kept, charge("distinct", "m\udcff"))
    kept.attempt(Attempt(Flight("F1", NOW, (), ("here",))), NOW)
    kept.settle(Settlement(marks=(("known", 10.0),)), NOW)
    kept.ban(Ban("user:bob\udcff", "rule", NOW, NOW + 100, 2, ("because",)), NOW)
    snapshot.write(kept, path, secrets=True)
    again = store()
    assert snapshot.read(again, path)
    for one in (charge("plain"), charge("distinct", "other")):
        assert failed(again, one) == (2, 2)
    assert not again.flights
    assert again.all_bans == kept.all_bans
    assert again.marks == kept.marks
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_snapshot_is_written_in_another_thread_while_counting_goes_on(tmp_path: Path) -> None:
    path, kept = str(tmp_path / "state"), store()
    for number in range(50):
        failed(kept, charge(f"plain{number}"))
        failed(kept, charge(f"distinct{number}", "m"))
    with ThreadPoolExecutor(1) as threads:
        for number in range(20):
            done = threads.submit(snapshot.writing(kept.dump(secrets=True), path, Lock()))
            turn = 0
            while not done.done():
                failed(kept, charge(f"plain{turn % 50}"))
                failed(kept, charge(f"distinct{turn % 60}", f"{number}.{turn}"))
                turn += 1
            done.result()
            assert snapshot.read(store(), path)


def test_a_kill_while_writing_leaves_the_old_snapshot_and_one_file_at_most(tmp_path: Path) -> None:
    path = tmp_path / "state"
    snapshot.write(store(), str(path), secrets=True)
    (tmp_path / ".state.new").write_text("half of a snaps")
    assert snapshot.read(store(), str(path))
    snapshot.write(store(), str(path), secrets=True)
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_what_comes_from_passwords_is_left_out_if_their_key_is_not_kept(tmp_path: Path) -> None:
    path, kept = tmp_path / "state", store()
    failed(kept, charge("~secret|address:192.0.2.1", "0123456789abcdef"))
    failed(kept, charge("users|address:192.0.2.1", "bob"))
    snapshot.write(kept, str(path), secrets=False)
    assert "0123456789abcdef" not in path.read_text()
    assert "bob" in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "1", '{"v":2}', '{"v":1}', "\xff", "[" * 100_000),
        '{"v":1,"counters":[["k","plain",[[["x",1]]]]],"marks":[],"graces":[],"bans":[]}',
        '{"v":1,"counters":[],"marks":[],"graces":[],"bans":[[1]]}',
        '{"v":1,"counters":5,"marks":[],"graces":[],"bans":[]}',
        '{"v":1,"counters":[["k","plain",[[[1e999,1]]]]],"marks":[],"graces":[],"bans":[]}',
        '{"v":1,"counters":[["k","plain",[]]],"marks":[],"graces":[],"bans":[]}',
        *(
            f'{{"v":1,"counters":[],"marks":[],"graces":[],"bans":[["{key}","r",1,2,1,[]]]}}'
            for key in (
                *("zzz", "user:", "network:0.0.0.0/0", "network:::/0", "address:1.2.3.4 }"),
                *("address:fe80::1%eth0", "address:5.6.7.9/30", r"user:\ud800x"),
            )
        ),
    ],
    ids=range(22),
)
def test_a_broken_snapshot_is_refused_and_changes_nothing(tmp_path: Path, text: str) -> None:
    path, kept = tmp_path / "state", store()
    path.write_text(text, encoding="latin-1")
    failed(kept, charge("plain"))
    with pytest.raises(snapshot.SnapshotError, match="move it away"):
        snapshot.read(kept, str(path))
    assert list(kept.counters) == ["plain"]


def test_without_a_snapshot_nothing_is_read(tmp_path: Path) -> None:
    assert not snapshot.read(store(), str(tmp_path / "none"))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(snapshot.SnapshotError, match="make its folder writable"):
        snapshot.write(store(), str(tmp_path / "none" / "state"), secrets=True)


def test_a_write_that_fails_leaves_the_old_snapshot_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    snapshot.write(store(), str(path), secrets=True)
    before = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(snapshot.SnapshotError, match="No space left"):
        snapshot.write(store(), str(path), secrets=True)
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
    assert json.loads(before)["v"] == 1


def test_an_attempt_flies_at_once_where_nothing_has_failed_and_there_is_room() -> None:
    kept = store()
    tries = Budget("known", "tries", 2, 10.0)

    def flies(name: str, places: tuple[str, ...], *rooms: tuple[str, int]) -> Answer | None:
        one = Attempt(Flight(name, NOW, (), places), budgets=(tries,))
        return kept.flies_at_once(one, ["k"], rooms, NOW)

    assert flies("F1", ("here", "there"), ("here", 1), ("there", 2))
    assert not flies("F2", ("here",), ("here", 1))
    assert flies("F3", ("there",), ("there", 2))
    kept.settle(Settlement(Flight("F1", NOW, (), ("here", "there"))), NOW)
    failed(kept, charge("k"))
    assert not flies("F1", ("here",), ("here", 1))
    assert set(kept.flights) == {"there"}
    kept.counters.clear()
    # Welcome clients fly so as long as no try of theirs is spent or in flight.
    kept.settle(Settlement(marks=(("known", 100.0),)), NOW)
    answer = flies("F4", ("here",), ("here", 1))
    assert answer is not None
    assert answer.budget == 0
    assert set(kept.flights) == {"there", "tries"}
    assert not flies("F5", ("here",), ("here", 1))
    kept.settle(Settlement(Flight("F4", NOW, (), ("tries",)), spent=tries), NOW)
    assert not flies("F6", ("here",), ("here", 1))
