"""Redis and Valkey servers that tests start, freeze and kill, and the stores that ask them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor as running
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from pop3proxy.hooks.policy.config import Policy, PolicyRedis
from pop3proxy.hooks.policy.redis.store import RedisStore
from tests.integration.processes import eventually, program

T = TypeVar("T")

reactor: Any = running

SERVERS = ("redis-server", "valkey-server")
"""Programs that are servers; whatever asks one is tested with each that is installed."""

KEY = "the fingerprint key of the tests"
PATIENCE = 30.0


def server_program(name: str) -> str:
    """The path of a server; Debian 12 has no Valkey, so that a test without one is skipped anywhere."""
    if name == "valkey-server" and shutil.which(name) is None:
        pytest.skip("valkey-server is not installed")
    return program(name)


class RedisServer:
    """A server of its own, without a file of data, on a Unix socket or as its options say."""

    def __init__(self, folder: Path, *options: str, program: str) -> None:
        self.folder = folder
        self.program = program
        self.path = folder / "redis.sock"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [server_program(self.program), "--port", "0", "--unixsocket", str(self.path)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.folder), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self._answers, "redis-server answers")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.settimeout(PATIENCE)
            probe.connect(str(self.path))
            probe.sendall(b"PING\r\n")
            return probe.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def ask(self, *words: str) -> bytes:
        """Send one command besides the stores', and return the beginning of its answer."""
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(PATIENCE)
            one.connect(str(self.path))
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            one.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return one.recv(1 << 20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextmanager
def running_redis(
    *options: str, started: bool = True, program: str = SERVERS[0]
) -> Iterator[RedisServer]:
    """Lend a server; the folder is short, as a Unix socket's path must be."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RedisServer(folder, *options, program=program)
    try:
        if started:
            server.start()
        yield server
    finally:
        server.end()
        shutil.rmtree(folder)


def wait(answer: "Deferred[T]", seconds: float = PATIENCE) -> T:
    """Let the reactor run until an answer is there."""
    result: T = pytest_twisted.blockon(answer.addTimeout(seconds, reactor))
    return result


def at_once_or_later(answer: Any) -> Any:
    """Return an answer that is there at once, or comes."""
    return wait(answer) if isinstance(answer, Deferred) else answer


def passes(condition: Callable[[], bool]) -> None:
    """Let the reactor run until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        wait(deferLater(reactor, 0.001))


def store_at(url: str, policy: dict[str, Any] | None = None, **redis: Any) -> RedisStore:
    """Start a store; a busy machine is no reason for it to decide alone unless the test says so."""
    config = PolicyRedis.model_validate(
        {"url": url, "time_limit": 10, "probe_interval": 0.05} | redis
    )
    policy = {"fingerprint_key": KEY, "redis": config} | (policy or {})
    store = RedisStore(Policy.model_validate(policy), config)
    store.start(reactor)
    return store


class Stores:
    """New stores on one server, one after the other, each with nothing in it."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._made = 0
        self._last: RedisStore | None = None
        self._server: RedisServer | None = None
        self._lent = ExitStack()

    def __call__(self) -> RedisStore:
        """Make one; that before it must have asked Redis for everything."""
        self.end_last()
        if self._server is None:
            self._server = self._lent.enter_context(running_redis(program=self._program))
        self._made += 1
        policy = {"max_keys": 1000, "max_bans": 100, "ban_memory": 1000.0}
        store = store_at(self._server.url, policy, prefix=f"test{self._made}:")
        wait(store.state(True))
        self._last = store
        return store

    def end_last(self) -> None:
        store, self._last = self._last, None
        if store is not None:
            counts = store.counts
            store.stop()
            alone = ("redis_alone", "redis_slow", "redis_failed", "redis_full", "redis_malformed")
            assert not any(counts[what] for what in alone), counts

    def end(self) -> None:
        try:
            self.end_last()
        finally:
            self._server = None
            self._lent.close()


STORES = {program.removesuffix("-server"): Stores(program) for program in SERVERS}
"""Those of a test run, by the kind of server."""
