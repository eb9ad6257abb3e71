"""The comparison itself: its command line, its rounds and its table."""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import certificate, peers, processes
from benchmarks.peers import Peer, PeerError
from benchmarks.scenarios import SCENARIOS, Loader, LoadError, Row, Sample, Scenario, quickened

SOURCES = Path(__file__).parent
BASE = "haproxy"
COMPARED = ("haproxy", "nginx", "portforward", "ours")
ROUNDS = 5
QUICK_ROUNDS = 2

FILES = 8192
"""Two for each idle session that a proxy holds, and some."""


@dataclass(slots=True)
class Results:
    """All samples, and what went wrong, by the scenario's name and the peer's."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements of a run share: the two cores' work but for the proxy."""

    loader: Loader
    proxy_core: int
    upstream: int
    auth: int
    certificate: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison, print its table, and return the exit status."""
    options = _parser().parse_args(arguments)
    # So that a terminated run also ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return _compare(options)
    except PeerError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 1


def _compare(options: argparse.Namespace) -> int:
    compared = _chosen_peers(options)
    scenarios = _chosen_scenarios(options)
    results = Results()
    if processes.allow_many_files() < FILES:
        raise PeerError(f"{FILES} open files are needed: ulimit -Hn {FILES}, as root")
    with _bench(any(scenario.tls for scenario in scenarios)) as bench:
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            _round(bench, scenarios, compared if number % 2 == 0 else compared[::-1], results)
    if options.samples:
        _write_samples(options.samples, results)
    print(_table(scenarios, compared, results))
    for (scenario, peer), failures in results.failures.items():
        print(f"benchmarks: bad: {peer}, {scenario}: {'; '.join(failures)}", file=sys.stderr)
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Compare what proxies cost, on this machine."
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=_count, metavar="N", help="how often all is measured")
    parser.add_argument(
        "--only",
        action="append",
        choices=[scenario.name for scenario in SCENARIOS],
        help="this scenario; may be given again",
    )
    parser.add_argument(
        "--peers",
        default=",".join(COMPARED),
        metavar="NAME,...",
        help=f"of {', '.join(peer.name for peer in peers.known(peers.OURS))}; haproxy always",
    )
    parser.add_argument(
        "--ours", default=peers.OURS, metavar="COMMAND", help="default: %(default)s"
    )
    parser.add_argument(
        "--ours-tls",
        default=peers.OURS_TLS,
        metavar="COMMAND",
        help="the same where it ends TLS; default: %(default)s",
    )
    parser.add_argument(
        "--also",
        nargs=2,
        action="append",
        default=[],
        metavar=("TITLE", "COMMAND"),
        help="one more column; may be given again",
    )
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="write every sample to FILE, as JSON Lines"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def _chosen_peers(options: argparse.Namespace) -> list[Peer]:
    known = {peer.name: peer for peer in peers.known(options.ours, options.ours_tls)}
    names = dict.fromkeys([BASE, *options.peers.split(",")])
    strangers = [name for name in names if name not in known]
    if strangers:
        raise PeerError(f"--peers: {strangers[0]!r} is none of {', '.join(known)}")
    chosen = [known[name] for name in names]
    chosen += [
        peers.from_template(f"also {title}", title, command) for title, command in options.also
    ]
    for peer in chosen:
        peers.check(peer)
    return chosen


def _chosen_scenarios(options: argparse.Namespace) -> list[Scenario]:
    chosen = [each for each in SCENARIOS if not options.only or each.name in options.only]
    return [quickened(each) for each in chosen] if options.quick else chosen


@contextlib.contextmanager
def _bench(tls: bool) -> Iterator[Bench]:
    """Compile the stub and the loader, and keep the stub running on the second core.

    ``tls``: the loader that speaks it, too.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise PeerError("two cores are needed: one for the proxy, one for what loads it")
    with tempfile.TemporaryDirectory(prefix="pop3proxy-benchmark-") as name:
        folder = Path(name)
        stub = [str(_compiled("stub", folder))]
        plain = _compiled("load", folder, "plain.c")
        secure = plain
        shown = folder / "certificate.pem"
        if tls:
            secure = _compiled("load", folder, "tls.c", "-lssl", "-lcrypto")
            certificate.make(shown)
        loader = Loader(plain, secure, cores[1], folder / "load.log", shown)
        with processes.started(stub, cores[1], folder / "stub.log", piped=True) as process:
            assert process.stdout is not None
            upstream, auth = map(int, process.stdout.readline().split())
            yield Bench(loader, cores[0], upstream, auth, shown)


def _compiled(name: str, folder: Path, channel: str = "", *libraries: str) -> Path:
    compiler = peers.find("cc")
    if compiler is None:
        raise PeerError("there is no C compiler cc: apt install gcc libc6-dev")
    sources = [f"{name}.c", channel] if channel else [f"{name}.c"]
    program = folder / "-".join(sources)
    command = [compiler, "-O2", "-std=gnu11", "-o", str(program)]
    command += [*(str(SOURCES / source) for source in sources), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        remedy = "; apt install libssl-dev" if libraries else ""
        raise PeerError(
            f"{' '.join(sources)} does not compile{remedy}: {done.stderr.partition(chr(10))[0]}"
        )
    return program


def _round(
    bench: Bench, scenarios: Sequence[Scenario], order: Sequence[Peer], results: Results
) -> None:
    for scenario in scenarios:
        for peer in order:
            if not _takes_part(peer, scenario):
                continue
            key = scenario.name, peer.name
            try:
                sample = _measured(bench, scenario, peer)
            except LoadError as error:
                results.failures.setdefault(key, []).append(str(error))
                shown = f"bad: {error}"
            else:
                results.samples[key].append(sample)
                shown = "  ".join(_shown(row, row.value(sample)) for row in scenario.rows)
            print(f"{scenario.name:10}  {peer.title}: {shown}", file=sys.stderr)


def _takes_part(peer: Peer, scenario: Scenario) -> bool:
    return (peer.command_tls if scenario.tls else peer.command) is not None


def _measured(bench: Bench, scenario: Scenario, peer: Peer) -> Sample:
    core = bench.loader.core if scenario.one_core else bench.proxy_core
    shown = bench.certificate if scenario.tls else None
    with peers.running(peer, bench.upstream, bench.auth, core, shown) as proxy:
        port = proxy.opaque if scenario.opaque else proxy.listen
        return bench.loader.through(scenario, port, proxy.pid, bench.upstream)


def _write_samples(file: Path, results: Results) -> None:
    records = [
        {"scenario": scenario, "peer": peer, **asdict(sample)}
        for (scenario, peer), samples in results.samples.items()
        for sample in samples
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="ascii")


def _table(scenarios: Sequence[Scenario], compared: Sequence[Peer], results: Results) -> str:
    lines = [["", *(peer.title for peer in compared)], ["---", *("---:" for _ in compared)]]
    for scenario in scenarios:
        # One failure spoils all: what is left would be the peer's better half.
        taken = [
            None
            if not _takes_part(peer, scenario)
            else []
            if (scenario.name, peer.name) in results.failures
            else results.samples[scenario.name, peer.name]
            for peer in compared
        ]
        lines += [_cells(row, taken) for row in scenario.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row, taken: Sequence[Sequence[Sample] | None]) -> list[str]:
    """Return a line of the table: title, the base's value, the ratios of the others to it."""
    base, *others = [
        None if samples is None else [row.value(sample) for sample in samples] for samples in taken
    ]
    if not base:
        return [row.title, *("bad" for _ in taken)]
    absolute = f"{_shown(row, statistics.median(base))} [{min(base):.{row.decimals}f}]"
    return [row.title, absolute, *(_ratio(other, base) for other in others)]


def _ratio(values: Sequence[float] | None, base: Sequence[float]) -> str:
    """Return the ratio of the medians and, in brackets, that of the minima."""
    if values is None:
        return "-"
    if not values:
        return "bad"
    medians = statistics.median(values) / statistics.median(base)
    return f"{medians:.2f} [{min(values) / min(base):.2f}]"


def _shown(row: Row, value: float) -> str:
    return f"{value:.{row.decimals}f} {row.unit}"


if __name__ == "__main__":
    sys.exit(main())
