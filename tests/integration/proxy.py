"""The proxy as an operator starts it, between two taps."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pop3proxy

from .guarded import Guard
from .processes import eventually, stopped_at_the_end
from .records import EventsFile, RecordedSession
from .servers import serving
from .tap import Conversation, Tap
from .transcript import Transcript, read

START_LIMIT = 60
"""Seconds in which a proxy listens, however busy the machine is."""

CHECKOUT = Path(pop3proxy.__file__).parents[1]
READY = re.compile(rb"listening on 127\.0\.0\.1:(\d+)\b.*\n")
LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
TROUBLE = re.compile(rb"^\S+ (error|critical) .*|^Traceback.*", re.MULTILINE)


class Proxy:
    """A running ``pop3proxy serve``, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self._expected: list[str] = []

    @property
    def port(self) -> int:
        """Where it listens, as soon as it does."""
        return self.ports(1)[0]

    def ports(self, count: int) -> list[int]:
        """Where its listeners listen, in the configuration's order, as soon as all do."""

        def announced() -> list[bytes]:
            return READY.findall(self._log.read_bytes())

        eventually(
            lambda: len(announced()) >= count or self.process.poll() is not None,
            "the proxy listens",
            START_LIMIT,
        )
        assert len(announced()) == count, self._log.read_text()
        return [int(port) for port in announced()]

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a line of its log."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self._log.read_text(), re.MULTILINE))
            return bool(found)

        eventually(look, f"{pattern!r} is in {self._log.name}")
        return found[0]

    def logged_error(self, pattern: str) -> None:
        """Wait for an error that is meant to be in its log."""
        self.logged(pattern)
        self._expected.append(pattern)

    def most_memory(self) -> int:
        """Octets that have been resident at the most."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def assert_untroubled(self) -> None:
        """Nothing in its log is an error but what is meant to be there."""
        lines = [found[0].decode() for found in TROUBLE.finditer(self._log.read_bytes())]
        trouble = [
            line for line in lines if not any(re.search(known, line) for known in self._expected)
        ]
        assert trouble == [], self._log.read_text()


def start_proxy(
    upstream_port: int,
    events: Path,
    log: Path,
    *options: str,
    program: Sequence[str] = ("pop3proxy",),
) -> Proxy:
    """Start a proxy and do not wait until it is ready."""
    command = [sys.executable, "-m", *program, "serve", "--listen", "tcp:0:interface=127.0.0.1"]
    command += ["--upstream", f"tcp:127.0.0.1:{upstream_port}", "--events", str(events), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=output)
    return Proxy(process, log)


@contextmanager
def configured_proxy(
    configuration: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Proxy]:
    """Run a proxy by a configuration of its own, in a folder, until the end of the block."""
    path, log = folder / "pop3proxy.toml", folder / "pop3proxy.log"
    path.write_text(configuration, encoding="utf-8")
    search = os.pathsep.join((str(CHECKOUT), os.environ.get("PYTHONPATH", "")))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pop3proxy", "serve", "--config", str(path)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search, **(environment or {})},
            stdout=output,
            stderr=output,
        )
    proxy = Proxy(process, log)
    with stopped_at_the_end(process):
        yield proxy
    proxy.assert_untroubled()


@dataclass(frozen=True, slots=True)
class Visit:
    """One session: what was said, what the proxy recorded of it, and what a blocking hook was asked.

    ``withheld``: lines that the proxy answered in the server's place.
    """

    said: Conversation
    recorded: RecordedSession
    upstream_port: int
    asked: Sequence[tuple[str, ...]] | None = None
    withheld: Sequence[bytes] = ()

    @property
    def transcript(self) -> Transcript:
        return read(bytes(self.said.client), bytes(self.said.server))


class Route:
    """The way from a client to a server: tap, proxy, tap."""

    def __init__(self, front: Tap, back: Tap, events: EventsFile, guard: Guard | None) -> None:
        self.port = front.port
        self.events = events
        self.guard = guard
        self._front = front
        self._back = back

    def watch(self) -> "Watch":
        return Watch(self._front, self._back, self.events, self.guard)


class Watch:
    """What happens on a route from now on."""

    def __init__(self, front: Tap, back: Tap, events: EventsFile, guard: Guard | None) -> None:
        self.guarded = guard is not None
        self._front, self._fronts = front, len(front.conversations)
        self._back, self._backs = back, len(back.conversations)
        self._events, self._start = events, events.size
        self._guard = guard

    def recorded(self, count: int = 1) -> list[RecordedSession]:
        """The sessions since, once so many are over, however much of them got through."""
        return self._events.sessions(self._start, count)

    def visit(self, *withheld: bytes) -> Visit:
        """The only session since, once it is over; it arrived as it was sent, both ways.

        But for the lines that were ``withheld`` from the server, in their order, each of which the client got
        a refusal for.
        """
        front = self._front.only_one_since(self._fronts)
        back = self._back.only_one_since(self._backs)
        (recorded,) = self.recorded()
        extra = _added(front.client, back.client)
        assert extra == list(withheld)
        refusals = _added(front.server, back.server)
        assert [refusal[:4] for refusal in refusals] == [b"-ERR"] * len(withheld)
        asked = self._guard.asked(recorded.end["uid"]) if self._guard else None
        return Visit(front, recorded, self._back.port, asked, withheld)


def _added(whole: bytes | bytearray, part: bytes | bytearray) -> list[bytes]:
    """Return the lines of ``whole`` that are not in ``part``; the others are the same, in the same order."""
    if whole == part:
        return []
    rest, added = LINE.findall(part)[::-1], []
    for line in LINE.findall(whole):
        if rest and line == rest[-1]:
            rest.pop()
        else:
            added.append(line)
    assert not rest, "the proxy has changed what was said"
    return added


@contextmanager
def running_route(
    server_port: int, events: EventsFile, *options: str, guard: Guard | None = None
) -> Iterator[Route]:
    """Lay a way to a server, with a proxy of its own, which a guard may stand before."""
    log = events.path.with_suffix(".log")
    with serving(Tap(server_port)) as back:
        guarding = guard.options if guard else ()
        proxy = start_proxy(back.port, events.path, log, *options, *guarding)
        with stopped_at_the_end(proxy.process), serving(Tap(proxy.port)) as front:
            yield Route(front, back, events, guard)
        proxy.assert_untroubled()
