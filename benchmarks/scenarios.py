"""What is measured: one scenario for each kind of load, and the rows that are made of it."""

import contextlib
import dataclasses
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes

LIMIT_S = 90.0
"""No single load may take longer."""


class LoadError(Exception):
    """A load that was not carried whole and unchanged; the text says what went wrong."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load did, and what it cost the proxy."""

    units: int
    octets: int
    p50_ns: int
    """Median time of a unit."""
    direct_p50_ns: int
    """The same without a proxy, where it was asked for."""
    cpu_ns: int
    private_kb: int
    """Growth from before the load to its end, with the connections still open."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, in ``unit``, shown with so many decimals."""

    title: str
    unit: str
    decimals: int
    value: Callable[[Sample], float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One mode of the loader with its numbers, and the rows to be made of a sample."""

    name: str
    mode: str
    warm: int
    count: int
    quick: int
    """What ``count`` is in a quick run."""
    rows: tuple[Row, ...]
    sessions: int = 1
    """How many are open at a time; where they idle, all are."""
    opaque: bool = False
    beside_direct: bool = False
    """Whether the same is also done without a proxy, just before."""
    tls: str = ""
    """The client's handshake, `full` or `resumed`; without one it speaks in clear."""
    one_core: bool = False
    """Whether the proxy shares the core of what loads it: no wake-up crosses cores then."""


def _cpu_us_per_unit(sample: Sample) -> float:
    return sample.cpu_ns / 1e3 / sample.units


def _cpu_s_per_gb(sample: Sample) -> float:
    return sample.cpu_ns / sample.octets


def _added_us(sample: Sample) -> float:
    return (sample.p50_ns - sample.direct_p50_ns) / 1e3


def _kb_per_unit(sample: Sample) -> float:
    return sample.private_kb / sample.units


SCENARIOS = (
    Scenario(
        "sessions",
        mode="sessions",
        sessions=32,
        warm=500,
        count=4000,
        quick=1500,
        rows=(Row("Session, CPU", "µs", 0, _cpu_us_per_unit),),
    ),
    Scenario(
        "base64",
        mode="base64",
        sessions=4,
        warm=8,
        count=100,
        quick=30,
        rows=(Row("RETR 10 MB base64, CPU", "s/GB", 2, _cpu_s_per_gb),),
    ),
    Scenario(
        "prose",
        mode="prose",
        sessions=4,
        warm=8,
        count=100,
        quick=30,
        rows=(Row("RETR 10 MB prose, CPU", "s/GB", 2, _cpu_s_per_gb),),
    ),
    Scenario(
        "opaque",
        mode="opaque",
        sessions=4,
        warm=8,
        count=100,
        quick=30,
        opaque=True,
        rows=(Row("After STLS, CPU", "s/GB", 2, _cpu_s_per_gb),),
    ),
    Scenario(
        "noop",
        mode="noop",
        warm=500,
        count=20000,
        quick=5000,
        beside_direct=True,
        one_core=True,
        rows=(
            Row("NOOP on one core, added latency p50", "µs", 1, _added_us),
            Row("NOOP on one core, CPU", "µs", 1, _cpu_us_per_unit),
        ),
    ),
    Scenario(
        "noop-apart",
        mode="noop",
        warm=500,
        count=5000,
        quick=2000,
        beside_direct=True,
        rows=(
            Row("NOOP, proxy on its own core, added latency p50", "µs", 0, _added_us),
            Row("NOOP, proxy on its own core, CPU", "µs", 1, _cpu_us_per_unit),
        ),
    ),
    Scenario(
        "idle",
        mode="idle",
        warm=500,
        # Python asks the system for 1 MiB at a time: fewer sessions would measure that.
        count=3000,
        quick=1000,
        rows=(Row("Idle session, private memory", "kB", 2, _kb_per_unit),),
    ),
    Scenario(
        "tls-full",
        mode="sessions",
        tls="full",
        sessions=32,
        warm=200,
        count=1500,
        quick=500,
        rows=(Row("TLS, session with full handshake, CPU", "µs", 0, _cpu_us_per_unit),),
    ),
    Scenario(
        "tls-resumed",
        mode="sessions",
        tls="resumed",
        sessions=32,
        warm=200,
        count=2500,
        quick=1000,
        rows=(Row("TLS, session resumed, CPU", "µs", 0, _cpu_us_per_unit),),
    ),
    Scenario(
        "tls-base64",
        mode="base64",
        tls="full",
        sessions=4,
        warm=8,
        count=60,
        quick=20,
        rows=(Row("TLS, RETR 10 MB base64, CPU", "s/GB", 2, _cpu_s_per_gb),),
    ),
    Scenario(
        "tls-idle",
        mode="idle",
        tls="full",
        warm=500,
        count=3000,
        quick=1000,
        rows=(Row("TLS, idle session, private memory", "kB", 2, _kb_per_unit),),
    ),
)


def quickened(scenario: Scenario) -> Scenario:
    """Return the scenario with the numbers of a quick run."""
    return dataclasses.replace(scenario, count=scenario.quick)


@dataclass(frozen=True, slots=True)
class Loader:
    """The compiled loader, the core it runs on, where its errors go, and what proxies show in TLS."""

    program: Path
    program_tls: Path
    core: int
    log: Path
    certificate: Path

    def through(self, scenario: Scenario, port: int, pid: int, direct_port: int) -> Sample:
        """Load the proxy ``pid`` at ``port``; raise `LoadError` if it did not carry it."""
        direct_p50_ns = self._direct_p50_ns(scenario, direct_port) if scenario.beside_direct else 0
        try:
            with self._warmed(scenario, port) as loading:
                kb, cpu_ns = processes.private_kb(pid), processes.settled_cpu_ns(pid)
                units, octets, p50_ns = loading.work()
                cpu_ns = processes.settled_cpu_ns(pid) - cpu_ns
                kb = processes.private_kb(pid) - kb
                loading.end()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise LoadError("the proxy's process ended") from error
        return Sample(units, octets, p50_ns, direct_p50_ns, cpu_ns, kb)

    def _direct_p50_ns(self, scenario: Scenario, port: int) -> int:
        with self._warmed(scenario, port) as loading:
            _, _, p50_ns = loading.work()
            loading.end()
        return p50_ns

    @contextlib.contextmanager
    def _warmed(self, scenario: Scenario, port: int) -> Iterator["_Loading"]:
        numbers = (port, scenario.sessions, scenario.warm, scenario.count)
        command = [str(self.program), scenario.mode, *map(str, numbers)]
        if scenario.tls:
            command[0] = str(self.program_tls)
            command += [scenario.tls, str(self.certificate)]
        with processes.started(command, self.core, self.log, piped=True) as process:
            watchdog = threading.Timer(LIMIT_S, process.kill)
            watchdog.start()
            try:
                loading = _Loading(process, self.log, scenario.count)
                loading.expect_ready()
                yield loading
            finally:
                watchdog.cancel()


class _Loading:
    """The talk with one loader, whose rules stand at the top of load.c."""

    def __init__(self, process: subprocess.Popen[str], log: Path, count: int) -> None:
        self._process = process
        self._log = log
        self._count = count

    def expect_ready(self) -> None:
        if self._heard() != "ready\n":
            raise self._error("the warm-up failed")

    def work(self) -> tuple[int, int, int]:
        """Return units, octets and the median time of a unit in ns."""
        self._say()
        numbers = [int(word) for word in self._heard().split()]
        if len(numbers) != 4:
            raise self._error("the loader gave up")
        units, failed, octets, p50_ns = numbers
        if failed or units != self._count:
            raise self._error(f"{failed} sessions failed, {units} of {self._count} units done")
        return units, octets, p50_ns

    def end(self) -> None:
        self._say()
        if self._process.wait(LIMIT_S) != 0:
            raise self._error("sessions failed at their end")

    def _say(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("on\n")
            self._process.stdin.flush()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _error(self, what: str) -> LoadError:
        told = self._log.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
        return LoadError(f"{what}: {told}" if told else what)
