"""The proxy as a process of its own, with the test on both of its ends; what is said there is the tests'."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pop3proxy

CHECKOUT = Path(pop3proxy.__file__).parents[1]
PATIENCE = 10.0
"""Seconds that anything may take before the test fails; nothing here takes more than a few."""

FULL_AFTER = 0.3
"""Seconds in which nothing could be sent: then all buffers on the way are full."""

GREETING = b"+OK ready\r\n"
LISTENING = r"listening on 127\.0\.0\.1:(\d+)"
TROUBLE = re.compile(r"^\S+ (?:warn|error|critical) .*|^Traceback.*|.*Warning: .*", re.MULTILINE)


def until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again at something that tells nobody when it changes."""
    deadline = time.monotonic() + PATIENCE
    again = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        again.wait(0.01)


class Log:
    """What a process writes on standard error, read as it comes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._text = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._news:
                    self._text += line.decode()
                    self._news.notify_all()

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line."""
        with self._news:
            found = self._news.wait_for(lambda: re.search(pattern, self._text), PATIENCE)
            assert found, f"{pattern!r} is not in: {self._text}"
            return found

    def whole(self) -> str:
        """All of it, once the process has ended."""
        self._reader.join(PATIENCE)
        return self._text


class Proxy:
    """A running ``pop3proxy serve``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Log) -> None:
        self.process = process
        self.log = log
        self.port = int(self.log.expect(LISTENING)[1])

    def connect(self) -> socket.socket:
        """Become a client."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> str:
        """Have it end as an operator does; return all that it logged."""
        self.tell(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log.whole()
        return self.log.whole()

    def memory(self) -> int:
        """Octets that are resident now."""
        return self._status("VmRSS")

    def most_memory(self) -> int:
        """Octets that have been resident at the most."""
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def running(
    upstream_port: int | None,
    *options: str,
    listen: str | None = "tcp:0:interface=127.0.0.1",
    stdout: int = subprocess.DEVNULL,
    folder: Path = CHECKOUT,
    program: Sequence[str] = ("pop3proxy",),
) -> Iterator[Proxy]:
    """Run a proxy in a folder until the end of the block; ``program`` is its module, and what comes first.

    Where no ``listen``, or no port of a mail server, is given, its configuration has it.
    """
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", *program, "serve"]
    command += ["--listen", listen] if listen is not None else []
    if upstream_port is not None:
        command += ["--upstream", f"tcp:127.0.0.1:{upstream_port}"]
    command += options
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=stdout, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        log = Log(process.stderr)
        try:
            yield Proxy(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            # Its reader ends before its stream is closed.
            log.whole()


class MailServer:
    """A listening socket; the test says what its connections say."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.settimeout(PATIENCE)
        self.port: int = self._listening.getsockname()[1]

    def accept(self) -> socket.socket:
        """Take the proxy's next connection."""
        connection, _ = self._listening.accept()
        connection.settimeout(PATIENCE)
        return connection

    def close(self) -> None:
        self._listening.close()


@contextmanager
def session(proxy: Proxy, server: MailServer) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a new session, its greeting sent and read."""
    with proxy.connect() as client, server.accept() as upstream:
        upstream.sendall(GREETING)
        assert receive(client, len(GREETING)) == GREETING
        yield client, upstream


def receive(connection: socket.socket, size: int) -> bytes:
    """Read so many octets, or fewer if the peer ends before."""
    data = bytearray()
    while len(data) < size and (chunk := connection.recv(min(size - len(data), 1 << 16))):
        data += chunk
    return bytes(data)


def receive_all(connection: socket.socket) -> bytes:
    """Read until the peer ends or resets."""
    data = bytearray()
    try:
        while chunk := connection.recv(1 << 16):
            data += chunk
    except ConnectionResetError:
        pass
    return bytes(data)


def send_until_full(connection: socket.socket, data: bytes) -> int:
    """Send until nobody reads on; return how much was taken."""
    view = memoryview(data)
    sent = 0
    connection.settimeout(FULL_AFTER)
    try:
        while sent < len(view):
            sent += connection.send(view[sent : sent + (1 << 20)])
    except TimeoutError:
        pass
    finally:
        connection.settimeout(3 * PATIENCE)
    return sent


def reset(connection: socket.socket) -> None:
    """Close with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread during the block, and see that it ends."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(3 * PATIENCE)
    assert not thread.is_alive()
    assert not problems
