"""When bans are exported, and what: one export at a time, on a clock that the test turns."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent

from pop3proxy.hooks.policy.export import exporter as exporter_module
from pop3proxy.hooks.policy.export import outlet as outlet_module
from pop3proxy.hooks.policy.export.exporter import LOOK, RETRY, Exporter
from pop3proxy.hooks.policy.export.nftset import Network
from pop3proxy.hooks.policy.export.options import PolicyExport
from pop3proxy.hooks.policy.export.outlet import Export, Outlet
from pop3proxy.hooks.policy.export.targets import Targets
from pop3proxy.hooks.policy.export.trouble import ExportTrouble
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import Ban
from tests.integration.processes import program

NOW = 1_764_000_000.0


class Firewall(Outlet):
    """Notes what is handed out, and takes as long as the test wants."""

    def __init__(self) -> None:
        self.checked = 0
        self.trouble: ExportTrouble | None = None
        self.ended = False

    def check(self, export: Export) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.checked += 1

    def end(self) -> None:
        self.ended = True


class Exporting:
    """An exporter, its store, and the exports that have begun and not ended."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.step = 0.0
        self.store = MemoryStore(1000, 1000, 1000.0)
        self.firewall = Firewall()
        self.counts: Counter[str] = Counter()
        self.exports: list[Export] = []
        self.open: list[Deferred[None]] = []
        self.allowed: tuple[Network, ...] = ()
        self.exporter = Exporter(
            *(self.firewall, 1.0, self.store, self.counts, lambda: self.now, self._in_thread),
            lambda: self.allowed,
        )

    @property
    def now(self) -> float:
        return NOW + self.clock.seconds() + self.step

    def _in_thread(self, act: Callable[[Export], None], export: Export) -> "Deferred[None]":
        assert act == self.firewall.hand_out
        self.exports.append(export)
        self.open.append(Deferred())
        assert len(self.open) == 1, "one export at a time"
        return self.open[0]

    def done(self, trouble: Exception | None = None) -> None:
        """End the export that goes on."""
        ended = self.open.pop()
        if trouble is None:
            ended.callback(None)
        else:
            ended.errback(trouble)

    def ban(self, key: str, seconds: float = 600) -> None:
        now = self.now
        self.store.ban(Ban(key, "rule", now, now + seconds), now)

    def unban(self, key: str) -> None:
        self.store.unban(key, [], self.now, self.now)

    def started(self) -> "Exporting":
        self.exporter.start(self.clock)
        self.done()
        self.exports.clear()
        return self

    def changes(self) -> list[dict[str, float]]:
        return [
            {key: until and until - NOW for key, until in each.changes.items()}
            for each in self.exports
        ]


@pytest.fixture
def made() -> Iterator[Exporting]:
    made = Exporting()
    yield made
    made.exporter.stop()
    assert made.clock.getDelayedCalls() == []
    assert made.firewall.ended


@pytest.fixture
def exporting(made: Exporting) -> Exporting:
    """One that has exported what was there at the start: nothing."""
    return made.started()


def test_at_the_start_all_bans_that_a_firewall_can_know_are_exported(made: Exporting) -> None:
    for key in ("address:192.0.2.1", "user:bob", "network:198.51.100.0/24", "pair:192.0.2.1|bob"):
        made.ban(key)
    made.exporter.start(made.clock)
    assert made.firewall.checked == 1
    (export,) = made.exports
    assert export.whole
    assert list(export.held) == ["address:192.0.2.1", "network:198.51.100.0/24"]
    assert export.changes == export.held


def test_a_file_that_cannot_be_written_stops_the_start(made: Exporting) -> None:
    made.firewall.trouble = ExportTrouble("no room")
    with pytest.raises(ExportTrouble, match="no room"):
        made.exporter.start(made.clock)
    assert made.exports == []


def test_changes_within_the_interval_are_exported_together(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(0.9)
    exporting.ban("address:192.0.2.2")
    exporting.ban("address:192.0.2.3")
    exporting.unban("address:192.0.2.3")
    assert exporting.exports == []
    exporting.clock.advance(0.1)
    assert exporting.changes() == [
        {"address:192.0.2.1": 600.0, "address:192.0.2.2": pytest.approx(600.9)}
    ]
    assert not exporting.exports[0].whole


def test_changes_during_an_export_wait_for_its_end_and_the_interval(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(1)
    exporting.ban("address:192.0.2.2")
    exporting.clock.advance(30)
    exporting.unban("address:192.0.2.1")
    assert len(exporting.exports) == 1
    exporting.done()
    exporting.clock.advance(1)
    assert exporting.changes()[1] == {"address:192.0.2.2": 601.0, "address:192.0.2.1": 0}
    assert list(exporting.exports[1].held) == ["address:192.0.2.2"]
    exporting.done()
    exporting.clock.advance(60)
    assert len(exporting.exports) == 2


def test_users_and_pairs_start_no_export(exporting: Exporting) -> None:
    exporting.ban("user:bob")
    exporting.ban("pair:192.0.2.1|bob")
    exporting.clock.advance(60)
    assert exporting.exports == []


def test_the_end_of_a_ban_is_exported(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1", 600)
    exporting.ban("address:192.0.2.2", 1000)
    exporting.clock.advance(1)
    exporting.done()
    exporting.clock.pump([1] * 598)
    assert len(exporting.exports) == 1
    exporting.clock.pump([1, 1, 1])
    assert exporting.changes()[1] == {"address:192.0.2.1": 0}
    assert list(exporting.exports[1].held) == ["address:192.0.2.2"]


def test_a_ban_that_is_made_longer_is_exported_and_ends_later(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1", 100)
    exporting.clock.advance(1)
    exporting.done()
    exporting.ban("address:192.0.2.1", 200)
    exporting.clock.advance(1)
    exporting.done()
    exporting.clock.pump([1] * 198)
    assert exporting.changes() == [{"address:192.0.2.1": 100}, {"address:192.0.2.1": 201}]
    exporting.clock.pump([1] * 3)
    assert exporting.changes()[2] == {"address:192.0.2.1": 0}


def test_a_ban_driven_out_of_the_store_is_exported_as_its_end(exporting: Exporting) -> None:
    exporting.store._max_bans = 2
    for number in range(3):
        exporting.ban(f"address:192.0.2.{number}")
        exporting.clock.advance(1)
        exporting.done()
    assert exporting.changes()[-1] == {"address:192.0.2.0": 0, "address:192.0.2.2": 602.0}


def test_a_clock_that_is_set_forward_is_noticed(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1", 600)
    exporting.clock.advance(1)
    exporting.done()
    exporting.step = 3600.0
    exporting.clock.pump([1] * int(LOOK + 1))
    assert exporting.changes()[1] == {"address:192.0.2.1": 0}


def test_beyond_so_many_changes_all_bans_are_exported(
    exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "MAX_CHANGED", 10)
    for number in range(12):
        exporting.ban(f"address:192.0.2.{number}")
    assert exporting.exporter._changed is None
    exporting.clock.advance(1)
    (export,) = exporting.exports
    assert export.whole
    assert len(export.changes) == 12


def test_ends_that_are_outdated_do_not_pile_up(
    exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "_SPARE", 10)
    for number in range(100):
        exporting.ban("address:192.0.2.1", 600 + number)
        exporting.clock.advance(1)
        exporting.done()
        assert len(exporting.exporter._ends) <= 12


def test_a_network_that_is_allowed_for_a_time_has_all_bans_exported(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(1)
    exporting.done()
    exporting.exporter.look_at_allowed()
    exporting.clock.advance(1)
    assert len(exporting.exports) == 1
    exporting.allowed = (ip_network("192.0.2.0/24"),)
    exporting.exporter.look_at_allowed()
    exporting.clock.advance(1)
    assert exporting.exports[1].whole
    assert exporting.exports[1].allowed == exporting.allowed
    exporting.done()
    # Its end is noticed, as nothing tells it.
    exporting.allowed = ()
    exporting.clock.pump([1] * int(LOOK + 2))
    assert exporting.exports[2].whole
    assert exporting.exports[2].allowed == ()


def test_what_is_allowed_during_an_export_is_exported_behind_it(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(1)
    exporting.allowed = (ip_network("192.0.2.0/24"),)
    exporting.exporter.look_at_allowed()
    exporting.done()
    exporting.clock.advance(1)
    assert exporting.exports[1].whole


# --- failures ---------------------------------------------------------------------------------------------


def lines(logged: Sequence[LogEvent]) -> list[str]:
    return [str(formatEvent(event)) for event in logged]


def test_a_failure_is_counted_and_all_bans_are_tried_again(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(1)
    with capturedLogs() as logged:
        exporting.done(ExportTrouble("it exited with status 1."))
        # A change does not have it tried sooner.
        exporting.ban("address:192.0.2.2")
        exporting.clock.advance(RETRY - 0.1)
        assert len(exporting.exports) == 1
        exporting.clock.advance(0.2)
        assert exporting.exports[1].whole
        assert len(exporting.exports[1].changes) == 2
        exporting.done()
    assert lines(logged) == [
        "bans are not exported: it exited with status 1; it is tried again each 10 s",
        "bans are exported again",
    ]
    assert exporting.counts == {"exported": 2, "export_failed": 1}


def test_failures_are_said_once_a_minute(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(1)
    with capturedLogs() as logged:
        for _ in range(13):
            exporting.done(ExportTrouble("no"))
            exporting.clock.advance(RETRY)
    assert len(lines(logged)) == 3
    assert exporting.counts["export_failed"] == 13


def test_an_error_of_the_proxy_is_said_and_tried_again(exporting: Exporting) -> None:
    exporting.ban("address:192.0.2.1")
    exporting.clock.advance(1)
    with capturedLogs() as logged:
        exporting.done(RuntimeError("a mistake"))
    assert any("report it" in line for line in lines(logged))
    exporting.clock.advance(RETRY)
    assert len(exporting.exports) == 2


def test_a_stop_during_an_export_says_nothing(made: Exporting) -> None:
    made.exporter.start(made.clock)
    made.exporter.stop()
    with capturedLogs() as logged:
        made.done(ExportTrouble("was ended by SIGTERM"))
    made.ban("address:192.0.2.1")
    made.clock.advance(100)
    assert logged == []
    assert len(made.exports) == 1


# --- what is handed out -----------------------------------------------------------------------------------


def outlet(*allow: Any, **config: Any) -> Outlet:
    return Outlet(PolicyExport.model_validate(config), Targets(allow))


@pytest.fixture
def noting(tmp_path: Path) -> tuple[tuple[str, ...], Callable[[], list[str]]]:
    """A command that notes each of its runs in a line, and what reads the lines."""
    notes = tmp_path / "notes"
    script = f'echo "$POP3PROXY_EXPORT $POP3PROXY_BANS $*" >>{notes}'
    return (program("sh"), "-c", script, "sh", "{changes}"), lambda: notes.read_text().splitlines()


Noting = tuple[tuple[str, ...], Callable[[], list[str]]]


def test_a_command_gets_the_changes_as_arguments(noting: Noting) -> None:
    command, notes = noting
    held = {"address:192.0.2.1": NOW + 599.5, "network:2001:db8::/48": NOW + 0.1}
    changes = {**held, "address:192.0.2.3": 0.0}
    outlet(command=command).hand_out(Export(changes, held, False, NOW))
    assert notes() == ["changes 2 ban=192.0.2.1,600 ban=2001:db8::/48,1 unban=192.0.2.3"]


def test_more_changes_than_fit_take_several_runs(
    noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet_module, "MAX_ARGUMENTS", 2)
    command, notes = noting
    held = {f"address:192.0.2.{number}": NOW + 9 for number in range(3)}
    outlet(command=command).hand_out(Export(held, held, True, NOW))
    assert notes() == ["all 3 ban=192.0.2.0,9 ban=192.0.2.1,9", "changes 3 ban=192.0.2.2,9"]


def test_as_many_changes_as_a_run_gets_are_taken_by_the_kernel(noting: Noting) -> None:
    command, notes = noting
    held = {
        f"network:2001:db8:1111:2222:3333:4444:{number:x}:0/112": NOW + 8e8
        for number in range(0x1000, 0x1000 + outlet_module.MAX_ARGUMENTS)
    }
    outlet(command=command).hand_out(Export(held, held, True, NOW))
    (line,) = notes()
    assert line.count("ban=") == outlet_module.MAX_ARGUMENTS


def test_a_command_that_wants_no_changes_runs_once_behind_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet_module, "MAX_ARGUMENTS", 2)
    path, copy = tmp_path / "bans.nft", tmp_path / "copy"
    command = (program("sh"), "-c", f'cat {path} >>{copy}; test "$#" = 0')
    held = {f"address:192.0.2.{number}": NOW + 9 for number in range(5)}
    outlet(nft_file=str(path), command=command).hand_out(Export(held, held, False, NOW))
    assert copy.read_text() == path.read_text()
    assert "192.0.2.4 timeout 9s" in copy.read_text()


def test_a_command_does_not_run_behind_a_file_that_cannot_be_written(
    tmp_path: Path, noting: Noting
) -> None:
    command, _ = noting
    broken = outlet(nft_file=str(tmp_path / "no" / "file"), command=command)
    with pytest.raises(ExportTrouble, match="nft_file"):
        broken.hand_out(Export({}, {}, True, NOW))
    assert not (tmp_path / "notes").exists()


def test_what_is_allowed_for_now_is_not_handed_out(noting: Noting) -> None:
    command, notes = noting
    held = {"address:192.0.2.1": NOW + 9, "network:198.51.100.0/30": NOW + 9}
    allowed = (ip_network("192.0.2.0/24"), ip_network("198.51.100.2/32"))
    out = outlet(command=command)
    out.hand_out(Export(held, held, True, NOW, allowed))
    out.hand_out(Export(held, held, True, NOW))
    assert notes() == [
        "all 2 ban=198.51.100.0/31,9 ban=198.51.100.3,9",
        "all 2 ban=192.0.2.1,9 ban=198.51.100.0/30,9",
    ]


def test_a_start_checks_the_command_and_writes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bans.nft"
    outlet(nft_file=str(path), command=(program("sh"),)).check(Export({}, {}, True, NOW))
    assert path.exists()
    with pytest.raises(ExportTrouble, match=r"policy\.export\.command: cannot run /no/program"):
        outlet(command=("/no/program",)).check(Export({}, {}, True, NOW))
