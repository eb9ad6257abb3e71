"""Replays captures that were damaged at random, and sessions that were: nothing may crash, hang or grow.

From the top of the checkout::

    python -m tests.replay.fuzz --captures 20000 --sessions 20000

``--seed`` gives other ones. What fails is kept as a file, whose name is printed. Exit status 0 or 1.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pop3proxy.replay.captures import CaptureError

from . import making
from .making import LINKS, Ends, Said, Segment, frames, ipv4, ipv6, packed, pcap, pcapng, segments
from .replaying import SCRIPTS, Replayed, runs_of

SLOW = 10.0
"""Seconds of CPU that none of these small captures may take."""

MAX_GROWTH = 64 * 1024 * 1024
"""Octets that the process may grow by, however many are replayed."""

WARM = 200
"""Captures after which growth counts: what Python keeps for reuse is there by then."""

LARGEST = 20_000
"""Octets of the largest transcripts that are taken: time is better spent on more of them."""

_RUNS = [
    runs for runs in map(runs_of, SCRIPTS) if sum(len(run.data or b"") for run in runs) < LARGEST
]


class Failed(Exception):
    """A capture that was not replayed as it should be; the text says how."""


def damaged(data: bytes, source: random.Random) -> bytes:
    """Change some octets, or lose, double or insert some."""
    out = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 5, 20))):
        if not out:
            break
        at = source.randrange(len(out))
        size = source.choice((1, 1, 2, 4, 30))
        kind = source.randrange(5)
        if kind == 0:
            out[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        elif kind == 1:
            out[at] ^= 1 << source.randrange(8)
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = out[at : at + size]
        else:
            out[at:at] = source.randbytes(size)
    return bytes(out[: source.randrange(len(out) + 1)] if source.random() < 0.1 else out)


def a_capture(source: random.Random) -> bytes:
    """Write a session in some format and over some link, and damage the file."""
    what = segments(source.choice(_RUNS), making.cut_by(source))[:60]
    number, wrap = source.choice(list(LINKS.values()))
    packet = source.choice((ipv4, ipv6))
    packets = [packet(each) for each in what]
    if source.random() < 0.2:
        cut = making.ipv4_fragments if packet is ipv4 else making.ipv6_fragments
        packets = [piece for n, each in enumerate(what) for piece in cut(each, n)]
    make = source.choice((pcap, pcapng))
    order = source.choice("<>")
    content = make([wrap(each) for each in packets], number, order)
    content = damaged(content, source)
    return damaged(packed(content), source) if source.random() < 0.1 else content


def a_session(source: random.Random) -> bytes:
    """Damage what two sides say, and what becomes of their packets."""
    runs = [
        run
        if run.data is None or source.random() < 0.7
        else Said(run.side, damaged(run.data, source))
        for run in source.choice(_RUNS)
    ]
    if source.random() < 0.3:
        at = source.randrange(len(runs))
        runs.insert(source.randrange(len(runs)), runs[at])
    isn = (source.randrange(2**32), source.randrange(2**32))
    what = [
        _damaged(each, source) if source.random() < 0.03 else each
        for each in segments(runs, making.cut_by(source), isn)
        if source.random() < 0.95
    ]
    for _ in range(source.choice((0, 0, 2, 10))):
        if what:
            what.insert(source.randrange(len(what)), what.pop(source.randrange(len(what))))
            what.insert(source.randrange(len(what)), source.choice(what))
    port = source.choice((110, 110, 1110))
    return pcap(frames(what, Ends(server_port=port)))


def _damaged(segment: Segment, source: random.Random) -> Segment:
    near = source.choice((1, 100, 1 << 20, 1 << 31))
    return Segment(
        segment.side,
        (segment.seq + source.randrange(-near, near)) % 2**32,
        (segment.ack + source.randrange(-near, near)) % 2**32,
        source.randrange(256),
        segment.data,
    )


def check(path: Path) -> None:
    """Replay one capture. Raises Failed."""
    began = time.process_time()
    try:
        done = Replayed(path)
    except CaptureError:
        # Said in one line; what came before it cannot be looked at from here.
        return
    took = time.process_time() - began
    if took > SLOW:
        raise Failed(f"took {took:.1f} s")
    flows, sessions = done.replay.flows, done.replay.sessions
    if sessions.counts["inspection_failed"]:
        raise Failed("an error in the analyzer")
    if flows.open or flows.held:
        raise Failed(f"{flows.open} connections and {flows.held} octets are left")
    begun = [event.c.uid for event in done.events if event.name == "pop3_connect"]
    if sorted(begun) != sorted(end.c.uid for end in done.ends) or len(set(begun)) != len(begun):
        raise Failed("sessions do not begin and end once")


def hunt(make: Callable[[random.Random], bytes], count: int, seed: int, path: Path) -> None:
    """Replay so many captures. Raises what the first that fails does; it is left at ``path``."""
    before = 0
    for number in range(count):
        path.write_bytes(make(random.Random(f"{seed} {number}")))
        check(path)
        if number == WARM:
            before = resident()
    growth = resident() - before
    if before and growth > MAX_GROWTH:
        raise Failed(f"grew by {growth} octets")


def resident() -> int:
    """Return the octets of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Hunt, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.replay.fuzz", description=__doc__)
    parser.add_argument("--captures", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for make, count in ((a_capture, options.captures), (a_session, options.sessions)):
        with tempfile.NamedTemporaryFile(suffix=".pcap", delete=False) as file:
            path = Path(file.name)
        try:
            hunt(make, count, options.seed, path)
        except Exception as problem:
            print(f"{path}: {type(problem).__name__}: {problem}", file=sys.stderr)
            if not isinstance(problem, Failed):
                raise
            return 1
        path.unlink()
        print(f"{count} of {make.__name__.removeprefix('a_')}s: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
