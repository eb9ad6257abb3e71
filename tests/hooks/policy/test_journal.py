"""The journal, and snapshots with it: what is acknowledged is there behind a kill at any write."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.hooks.policy import journal, snapshot
from pop3proxy.hooks.policy.allowances import Allowances
from pop3proxy.hooks.policy.banrecords import LATEST
from pop3proxy.hooks.policy.journal import Journal, JournalFile
from pop3proxy.hooks.policy.keeping import Keeper
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.snapshot import SnapshotError
from pop3proxy.hooks.policy.store import Ban

from .disk import Disk, Killed

NOW = 1_764_000_000.0
MONTH = 30 * 86400.0


def at_once(work: Callable[[], None]) -> "Deferred[None]":
    """Do what another thread would."""
    try:
        work()
        return succeed(None)
    except SnapshotError:
        return fail()
    except Killed:
        # Not to be swallowed by Twisted: what is dead answers nothing more.
        return Deferred()


class Later:
    """Keeps what another thread would do until it is told to."""

    def __init__(self) -> None:
        self.works: list[tuple[Callable[[], None], Deferred[None]]] = []

    def __call__(self, work: Callable[[], None]) -> "Deferred[None]":
        done: Deferred[None] = Deferred()
        self.works.append((work, done))
        return done

    def work(self) -> None:
        work, done = self.works.pop(0)
        at_once(work).chainDeferred(done)


def store() -> MemoryStore:
    return MemoryStore(1000, 1000, MONTH)


def ban(number: int, seconds: float = 1000.0, key: str = "") -> Ban:
    return Ban(key or f"address:192.0.2.{number}", "r", NOW, NOW + seconds, 1, (f"{number}",))


def kept_by(folder: Path, aside: Any = at_once, **more: Any) -> tuple[Keeper, MemoryStore, Clock]:
    """Start as a proxy does."""
    held, clock = store(), Clock()
    allowances = more.get("allowances", Allowances())
    keeper = Keeper(held, allowances, str(folder / "state"), 300.0, False, Counter(), aside)
    keeper.start(clock, NOW)
    return keeper, held, clock


def records(folder: Path) -> list[Any]:
    return [record for _, record in JournalFile(str(folder / "state.journal")).read()]


def put(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(journal, "os", disk)
    return disk


# --- what is on disk when ---------------------------------------------------------------------------------


def test_what_a_command_waits_for_is_on_disk_when_it_is_told(tmp_path: Path) -> None:
    later = Later()
    keeper, held, _ = kept_by(tmp_path, later)
    told: list[object] = []
    held.ban(ban(1), NOW)
    keeper.kept().addCallback(told.append)
    assert (told, records(tmp_path)) == ([], [])
    later.work()
    assert told == [None]
    assert [record[1] for record in records(tmp_path)] == ["address:192.0.2.1"]
    assert (tmp_path / "state.journal").stat().st_mode & 0o777 == 0o600


def test_what_a_rule_bans_is_on_disk_within_a_second(tmp_path: Path) -> None:
    _, held, clock = kept_by(tmp_path)
    held.ban(ban(1), NOW)
    assert held.ban_of(("address:192.0.2.1",), NOW)
    assert records(tmp_path) == []
    clock.advance(0.9)
    assert [record[1] for record in records(tmp_path)] == ["address:192.0.2.1"]


def test_what_comes_while_the_disk_is_busy_is_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, disk = Later(), put(tmp_path, monkeypatch)
    keeper, held, _ = kept_by(tmp_path, later)
    told: list[object] = []
    before = disk.syncs
    for number in range(100):
        held.ban(ban(number), NOW)
        keeper.kept().addCallback(told.append)
    later.work()
    assert len(told) == 1
    later.work()
    assert (len(told), disk.syncs - before, later.works) == (100, 2, [])


def test_nothing_is_waited_for_where_nothing_is_to_be_written(tmp_path: Path) -> None:
    keeper, _, _ = kept_by(tmp_path)
    assert keeper.kept().called


# --- the file ---------------------------------------------------------------------------------------------


def file_with(folder: Path, *batches: list[tuple[int, bytes]]) -> Path:
    path = folder / "state.journal"
    file = JournalFile(str(path))
    for batch in batches:
        file.append(batch)
    file.close()
    return path


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = file_with(tmp_path, [(1, b'"one"'), (2, b'"two"')], [(3, b'"three"')])
    whole = path.read_bytes()
    behind = whole.rindex(b"\n", 0, -1) + 1
    for end in range(behind, len(whole)):
        path.write_bytes(whole[:end])
        assert list(JournalFile(str(path)).read()) == [(1, "one"), (2, "two")]
    path.write_bytes(whole[:behind] + bytes(len(whole) - behind - 1) + b"\n")
    assert list(JournalFile(str(path)).read()) == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("number", range(3))
def test_a_damaged_line_before_the_last_is_refused_with_its_number(
    tmp_path: Path, number: int
) -> None:
    path = file_with(tmp_path, [(1, b'"one"')], [(2, b'"two"')], [(3, b'"three"')])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = lines[number].replace(b"o", b"0")
    path.write_bytes(b"".join(lines))
    with pytest.raises(SnapshotError, match=f"line {number + 1}; move it away"):
        list(JournalFile(str(path)).read())


@pytest.mark.parametrize(
    "record",
    [
        *(b"1", b"[]", b'["x"]', b'["ban"]', b'["unban","k"]', b'["unban","k",[],NaN]'),
        *(b'["unban",1,[],1]', b'["ban","k","r",0,1e300,1,[]]', b'["ban","k","r",-1,1,1,[]]'),
        *(b'["ban","k","r",0,1,1,""]', b'["ban",1,"r",0,1,1,[]]'),
    ],
)
def test_a_record_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, record: bytes) -> None:
    file_with(tmp_path, [(1, record)])
    with pytest.raises(SnapshotError, match="move it away") as told:
        kept_by(tmp_path)
    assert "\n" not in str(told.value)


def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.journal").mkdir()
    with pytest.raises(SnapshotError, match=r"cannot read .*state\.journal: Is a directory"):
        kept_by(tmp_path)


def test_what_is_written_behind_a_write_that_failed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, file = put(tmp_path, monkeypatch), JournalFile(str(tmp_path / "state.journal"))
    file.append([(1, b'"one"')])
    disk.full = True
    with pytest.raises(SnapshotError, match="No space left on device; make room for it"):
        file.append([(2, b'"two"')])
    disk.full = False
    file.append([(2, b'"two again"')])
    assert [record for _, record in file.read()] == ["one", "two again"]


def test_a_snapshot_empties_the_journal_of_what_it_has(tmp_path: Path) -> None:
    later = Later()
    _, held, clock = kept_by(tmp_path, later)
    held.ban(ban(1), NOW)
    clock.advance(1)
    later.work()
    clock.advance(300)
    held.ban(ban(2), NOW)
    clock.advance(1)
    snapshot_of_one, append_of_two = later.works
    later.works = [append_of_two, snapshot_of_one]
    later.work()
    later.work()
    assert [record[1] for record in records(tmp_path)] == ["address:192.0.2.2"]
    saved = json.loads((tmp_path / "state").read_text())
    assert ([row[0] for row in saved["bans"]], saved["journal"]) == (["address:192.0.2.1"], [1])
    assert [each.key for each in kept_by(tmp_path)[1].bans(NOW)] == [ban(1).key, ban(2).key]


# --- bounds -----------------------------------------------------------------------------------------------


def test_a_full_journal_asks_for_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FULL", 2000)
    _, held, clock = kept_by(tmp_path)
    sizes = []
    for number in range(300):
        held.ban(ban(number % 256), NOW)
        clock.advance(1)
        sizes.append((tmp_path / "state.journal").stat().st_size)
    assert 1800 < max(sizes) < 4000
    assert len(held.bans(NOW)) == 256


def test_a_journal_that_no_snapshot_empties_takes_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FULL", 500)
    file = JournalFile(str(tmp_path / "state.journal"))
    record = b'"%b"' % (b"x" * 100)
    for number in range(8):
        file.append([(number, record)])
    with pytest.raises(SnapshotError, match="it is full"):
        file.append([(8, record)])
    assert 900 < (tmp_path / "state.journal").stat().st_size <= 1000


def test_records_that_cannot_be_written_are_bounded_said_once_a_minute_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_QUEUED", 10)
    disk, counts, clock = put(tmp_path, monkeypatch), Counter[str](), Clock()
    taken = Journal(JournalFile(str(tmp_path / "state.journal")), at_once, counts)
    taken.start(clock, 0)
    disk.full = True
    failures: list[str] = []
    with capturedLogs() as said:
        for number in range(25):
            taken.record([number])
        taken.kept().addErrback(lambda failure: failures.append(failure.getErrorMessage()))
        clock.pump([1.0] * 30)
    assert "No space left on device" in failures[0]
    assert [formatEvent(event) for event in said] == failures
    assert (counts["journal_dropped"], counts["journal_failed"]) == (15, 31)
    disk.full = False
    clock.advance(1)
    assert records(tmp_path) == [[number] for number in range(15, 25)]
    assert not clock.getDelayedCalls()


def test_a_command_whose_record_finds_no_room_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_QUEUED", 10)
    later = Later()
    keeper, held, _ = kept_by(tmp_path, later)
    told: list[object] = []
    held.ban(ban(0), NOW)
    keeper.kept().addCallback(told.append)
    held.ban(ban(1), NOW)
    failed: list[Any] = []
    keeper.kept().addErrback(failed.append)
    for number in range(2, 12):
        assert not failed
        held.ban(ban(number), NOW)
    assert "the next snapshot has it" in failed[0].getErrorMessage()
    later.work()
    assert told == [None]
    keeper.kept()
    later.work()
    assert [record[1] for record in records(tmp_path)] == [
        each.key for each in (ban(0), *map(ban, range(2, 12)))
    ]
    keeper.stop()
    assert len(kept_by(tmp_path)[1].bans(NOW)) == 12


def test_a_write_that_ends_behind_the_stop_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, later = put(tmp_path, monkeypatch), Later()
    keeper, held, clock = kept_by(tmp_path, later)
    held.ban(ban(1), NOW)
    keeper.kept().addErrback(lambda _: None)
    keeper.stop()
    disk.full = True
    later.work()
    assert not clock.getDelayedCalls()
    disk.full = False
    assert kept_by(tmp_path)[1].bans(NOW) == [ban(1)]


def test_a_command_is_told_that_it_is_not_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = put(tmp_path, monkeypatch)
    keeper, held, _ = kept_by(tmp_path)
    disk.full = True
    held.ban(ban(1), NOW)
    failed: list[Any] = []
    keeper.kept().addErrback(failed.append)
    assert failed[0].check(SnapshotError)
    disk.full = False
    keeper.kept().addErrback(failed.append)
    assert (len(failed), [record[1] for record in records(tmp_path)]) == (1, [ban(1).key])


def test_a_snapshot_has_what_the_journal_could_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = put(tmp_path, monkeypatch)
    keeper, held, _ = kept_by(tmp_path)
    disk.full = True
    held.ban(ban(1), NOW)
    keeper.kept().addErrback(lambda _: None)
    disk.full = False
    keeper.stop()
    assert [each.key for each in kept_by(tmp_path)[1].bans(NOW)] == [ban(1).key]


# --- snapshots with impossible values ---------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "v": 1,
    "counters": [["k", "plain", [[[5, 1]]]], ["d", "distinct", [["m", 1.0]]]],
    "marks": [["known|x", 1.0]],
    "graces": [["address:192.0.2.1", 1]],
    "bans": [["address:192.0.2.1", "r", 0.0, 1e10, 1, ["because"]]],
}


def test_a_snapshot_of_before_there_was_a_journal_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(json.dumps(WHOLE))
    _, held, _ = kept_by(tmp_path)
    assert [each.key for each in held.bans(NOW)] == ["address:192.0.2.1"]
    assert (set(held.counters), set(held.marks), set(held.graces)) == (
        {"k", "d"},
        {"known|x"},
        {"address:192.0.2.1"},
    )


IMPOSSIBLE: tuple[Any, ...] = (
    1e300,
    LATEST + 1,
    -1.0,
    float("nan"),
    float("inf"),
    "5",
    True,
    None,
    [],
    10**400,
)


@pytest.mark.parametrize("value", IMPOSSIBLE)
@pytest.mark.parametrize(
    "where",
    [("bans", 0, 3), ("bans", 0, 2), ("marks", 0, 1), ("graces", 0, 1), ("counters", 1, 2, 0, 1)],
    ids=str,
)
def test_a_time_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, where: tuple[Any, ...], value: Any
) -> None:
    refused(tmp_path, where, value)


@pytest.mark.parametrize(
    ("where", "values"),
    [
        (("bans", 0, 0), (1, None, ["k"])),
        (("bans", 0, 1), (1, None)),
        (("bans", 0, 4), (-1, 1.5, "1", True, 10**30)),
        (("bans", 0, 5), ("because", [1], {"a": 1}, None)),
        (("bans", 0), ([], ["k"], "abcdef", None, 5)),
        (("marks", 0, 0), (1, None)),
        (("counters", 0, 0), (1, None)),
        (("counters", 0, 1), ("x", None, 1)),
        (("counters", 0, 2, 0, 0, 0), (1.5, "1", -1, True)),
        (("counters", 0, 2, 0, 0, 1), (0, -5, 1.5, "1", 10**30)),
        (("counters", 1, 2, 0, 0), (1, None)),
        (("journal",), ([], [-1], ["x"], 1, None, {})),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_in_one_line(
    tmp_path: Path, where: tuple[Any, ...], values: tuple[Any, ...]
) -> None:
    for value in values:
        refused(tmp_path, where, value)


def refused(folder: Path, where: tuple[Any, ...], value: Any) -> None:
    damaged = json.loads(json.dumps(WHOLE))
    target = damaged
    for step in where[:-1]:
        target = target[step]
    target[where[-1]] = value
    (folder / "state").write_text(json.dumps(damaged))
    with pytest.raises(SnapshotError, match=r"is damaged, or .*; move it away") as told:
        kept_by(folder)
    assert "\n" not in str(told.value)
    assert json.loads((folder / "state").read_text()).keys() == damaged.keys()


def test_what_a_configuration_makes_longer_than_dates_are_is_loaded_again(tmp_path: Path) -> None:
    keeper, held, _ = kept_by(tmp_path)
    held.ban(ban(1, seconds=1e300), NOW)
    held.marks["known|x"] = 1e300
    held.unban("address:192.0.2.9", [], 1e300, NOW)
    keeper.stop()
    _, again, _ = kept_by(tmp_path)
    assert [each.until for each in again.all_bans.values()] == [LATEST]
    assert again.marks == {"known|x": LATEST}


# --- a kill at any write ----------------------------------------------------------------------------------

KEYS = [f"address:192.0.2.{number}" for number in range(3)]
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("ban"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("unban"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("pass"), st.sampled_from([1.0, 301.0]), st.just(False)),
    ),
    max_size=8,
)

Held = tuple[dict[str, Ban], dict[str, float]]


def state(held: MemoryStore) -> Held:
    return dict(held.all_bans), dict(held.graces)


def play(
    acts: list[Any], folder: Path, disk: Disk, states: list[Held], acknowledged: list[int]
) -> None:
    """Act as a proxy that may be killed: note each state, and the last that was acknowledged."""
    keeper, held, clock = kept_by(folder)
    expected = store()
    for turn, (what, key, waits) in enumerate(acts, 1):
        if what == "pass":
            clock.advance(key)
        else:
            for each in (expected, held):
                if what == "ban":
                    each.ban(ban(turn, key=key), NOW)
                else:
                    each.unban(key, ["c"], NOW + turn, NOW)
                # Before the write: it may be that this gets to the disk and is not acknowledged.
                if each is expected:
                    states.append(state(expected))
            if waits:
                keeper.kept().addCallback(lambda _: acknowledged.append(len(states)))
        if disk.dead:
            raise Killed
    keeper.stop()
    acknowledged.append(len(states))


def outlived(acts: list[Any], disk: Disk) -> None:
    """Play until the kill, start again, and hold what is there against what was acknowledged."""
    states: list[Held] = []
    acknowledged = [0]
    with pytest.MonkeyPatch.context() as patched, TemporaryDirectory() as name:
        patched.setattr(journal, "os", disk)
        patched.setattr(snapshot, "os", disk)
        with suppress(Killed):
            play(acts, Path(name), disk, states, acknowledged)
        patched.undo()
        _, held, _ = kept_by(Path(name))
        # What was decided behind the last acknowledgement may be there, in its order, too.
        assert state(held) in [({}, {}), *states][acknowledged[-1] :]


@settings(max_examples=12, deadline=None)
@given(acts=ACTS, part=st.sampled_from([0.0, 0.3, 0.9, 1.0]), power=st.booleans())
def test_a_kill_at_each_write_leaves_exactly_what_was_acknowledged(
    acts: list[Any], part: float, power: bool
) -> None:
    whole = Disk()
    outlived(acts, whole)
    assert whole.steps >= 8, "a start and a stop alone are as many writes"
    for step in range(1, whole.steps + 1):
        outlived(acts, Disk(step, part, power))
