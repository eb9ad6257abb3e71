"""The proxy as an operator starts it, between two taps."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pop3proxy

from .processes import eventually, stopped_at_the_end
from .records import EventsFile, RecordedSession
from .servers import serving
from .tap import Conversation, Tap
from .transcript import Transcript, read

CHECKOUT = Path(pop3proxy.__file__).parents[1]
READY = re.compile(rb"listening on 127\.0\.0\.1:(\d+)\b.*\n")
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


def as_toml(value: object) -> str:
    """Write a value on one line of a configuration."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {as_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


@dataclass(frozen=True, slots=True)
class Visit:
    """One session: what was said, and what the proxy recorded of it."""

    said: Conversation
    recorded: RecordedSession
    upstream_port: int

    @property
    def transcript(self) -> Transcript:
        return read(bytes(self.said.client), bytes(self.said.server))


class Route:
    """The way from a client to a server: tap, proxy, tap."""

    def __init__(self, front: Tap, back: Tap, events: EventsFile) -> None:
        self.port = front.port
        self.events = events
        self._front = front
        self._back = back

    def watch(self) -> "Watch":
        return Watch(self._front, self._back, self.events)


class Watch:
    """What happens on a route from now on."""

    def __init__(self, front: Tap, back: Tap, events: EventsFile) -> None:
        self._front, self._fronts = front, len(front.conversations)
        self._back, self._backs = back, len(back.conversations)
        self._events, self._start = events, events.size

    def visit(self) -> Visit:
        """The only session since, once it is over; it arrived as it was sent, both ways."""
        front = self._front.only_one_since(self._fronts)
        back = self._back.only_one_since(self._backs)
        (recorded,) = self._events.sessions(self._start, 1)
        assert front.client == back.client
        assert front.server == back.server
        return Visit(front, recorded, self._back.port)


@contextmanager
def running_route(server_port: int, events: EventsFile, *options: str) -> Iterator[Route]:
    """Lay a way to a server, with a proxy of its own."""
    log = events.path.with_suffix(".log")
    with serving(Tap(server_port)) as back:
        proxy = start_proxy(back.port, events.path, log, *options)
        with stopped_at_the_end(proxy.process), serving(Tap(proxy.port)) as front:
            yield Route(front, back, events)
        proxy.assert_untroubled()
