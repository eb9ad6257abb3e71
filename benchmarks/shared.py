"""How long a login takes with [policy.redis] while Redis is well, frozen, killed, and back.

``python -m benchmarks.shared``, from the top of the checkout; needs redis-server.
"""

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

CLIENTS: Final = 16
PAUSE: Final = 0.02
"""Seconds that a client waits between two logins: the proxy is to be busy, not overrun."""

NO_POLICY: Final = ""
MEMORY: Final = "[policy]\n"
REDIS: Final = """[policy]
fingerprint_key = "the key of this measurement"
[policy.redis]
url = "unix://{socket}"
"""


class MailServer(asyncio.Protocol):
    """Accepts every login."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"+OK ready\r\n")

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"+OK\r\n" * data.count(b"\n"))
        if data.startswith(b"QUIT"):
            self._transport.close()


class Load:
    """Clients that log in, each as a user of its own, and note how long PASS took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.times: list[float] = []
        self.failed = 0

    async def _client(self, user: str) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await self._session(user, reader, writer)
            finally:
                writer.close()
            await asyncio.sleep(PAUSE)

    async def _session(
        self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        greeting = await reader.readline()
        writer.write(f"USER {user}\r\n".encode())
        await reader.readline()
        began = time.perf_counter()
        writer.write(b"PASS secret\r\n")
        answer = await reader.readline()
        self.note(time.perf_counter() - began)
        self.failed += not (greeting.startswith(b"+OK") and answer.startswith(b"+OK"))
        writer.write(b"QUIT\r\n")
        await reader.read()

    def note(self, took: float) -> None:
        """Note a login."""
        self.times.append(took)

    @contextmanager
    def running(self) -> Iterator[None]:
        tasks = [asyncio.ensure_future(self._client(f"user{n}")) for n in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def warm_up(self) -> None:
        """Leave out the first logins, when nobody is known yet."""
        await asyncio.sleep(2)
        self.times.clear()
        self.failed = 0

    def say(self, phase: str) -> None:
        """Print what was noted since the last time."""
        times, self.times = sorted(self.times), []
        failed, self.failed = self.failed, 0
        p50, p99 = (times[int(len(times) * part)] * 1000 for part in (0.5, 0.99))
        row = f"{len(times)} | {failed} | {p50:.2f} | {p99:.2f} | {times[-1] * 1000:.1f}"
        print(f"| {phase} | {row} |", flush=True)


def redis_server(path: Path) -> subprocess.Popen[bytes]:
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=path.parent)


@contextmanager
def proxy(mail_port: int, configuration: str, folder: Path) -> Iterator[int]:
    """Run a proxy, and yield its port."""
    path = folder / "proxy.toml"
    path.write_text(configuration)
    command = [sys.executable, "-m", "pop3proxy", "serve", "--config", str(path)]
    command += ["--listen", "tcp:0:interface=127.0.0.1", "--upstream", f"tcp:127.0.0.1:{mail_port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(rb"listening on 127\.0\.0\.1:(\d+)", line):
                    yield int(found[1])
                    return
            raise SystemExit("the proxy did not start")
        finally:
            process.terminate()
            print(process.stderr.read().decode(), file=sys.stderr, end="")


async def measure(seconds: float, folder: Path, stack: ExitStack) -> None:
    """Measure each phase."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(MailServer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    redis = redis_server(folder / "redis.sock")
    running = [redis]

    def end_redis() -> None:
        running[-1].kill()
        running[-1].wait()

    stack.callback(end_redis)

    async def phase(name: str) -> None:
        await asyncio.sleep(seconds)
        load.say(name)

    print("| phase | logins | failed | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|---|")
    for name, configuration in (("no policy", NO_POLICY), ("counts in memory", MEMORY)):
        with proxy(port, configuration, folder) as listening:
            load = Load(listening)
            with load.running():
                await load.warm_up()
                await phase(name)
    configuration = REDIS.format(socket=folder / "redis.sock")
    with proxy(port, configuration, folder) as listening:
        load = Load(listening)
        with load.running():
            await load.warm_up()
            await phase("Redis well")
            os.kill(redis.pid, signal.SIGSTOP)
            await phase("Redis frozen (SIGSTOP), from the first moment on")
            await phase("Redis still frozen")
            os.kill(redis.pid, signal.SIGCONT)
            await phase("Redis goes on")
            redis.kill()
            redis.wait()
            await phase("Redis killed")
            running.append(redis_server(folder / "redis.sock"))
            await phase("Redis started again")
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each phase")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        asyncio.run(measure(options.seconds, folder, stack))


if __name__ == "__main__":
    main()
