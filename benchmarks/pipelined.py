"""What lock-step costs a client that sends USER and PASS in one write, by the distance of the mail server.

``python -m benchmarks.pipelined``, from the top of the checkout. The guard sends PASS when USER is answered,
so that such a login takes a round trip to the mail server more.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.processes import free_ports

ASKING: Final = Path(__file__).with_name("asking.toml")
DISTANCES_MS: Final = (0, 1, 10, 40)
"""Round-trip times to the mail server."""

LOGINS: Final = 60
"""Logins that are measured for each distance."""


class MailServer(asyncio.Protocol):
    """Accepts every login, and answers as if it were ``away`` seconds away."""

    away = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"+OK ready\r\n")

    def data_received(self, data: bytes) -> None:
        answers = b"+OK\r\n" * data.count(b"\n")
        asyncio.get_running_loop().call_later(self.away, self._transport.write, answers)


@asynccontextmanager
async def proxy(port: int, server: int, *options: str) -> AsyncIterator[None]:
    """Run the proxy on a port, until it answers and to the end."""
    command = [sys.executable, "-m", "pop3proxy", "serve", "--events", os.devnull]
    command += ["--listen", f"tcp:{port}:interface=127.0.0.1"]
    command += ["--upstream", f"tcp:127.0.0.1:{server}", *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                await login_ms(port)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("the proxy does not start") from None
                await asyncio.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


async def login_ms(port: int) -> float:
    """Log in with one write; return the milliseconds from that to the answer to PASS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.readuntil(b"\r\n")
        began = time.perf_counter()
        writer.write(b"USER bob\r\nPASS secret\r\n")
        await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n")
        return (time.perf_counter() - began) * 1e3
    finally:
        writer.close()


async def _measured() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(MailServer, "127.0.0.1", 0)
    straight = server.sockets[0].getsockname()[1]
    plain, asked = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / ASKING.name
        configuration.write_text(ASKING.read_text("utf-8"), "utf-8")
        (Path(folder) / "asking.py").write_text(
            ASKING.with_suffix(".py").read_text("utf-8"), "utf-8"
        )
        async with (
            proxy(plain, straight),
            proxy(asked, straight, "--config", str(configuration)),
        ):
            print("| round trip, ms | straight | unguarded | guarded |")
            print("| ---: | ---: | ---: | ---: |")
            for away in DISTANCES_MS:
                MailServer.away = away / 1e3
                times: dict[int, list[float]] = {straight: [], plain: [], asked: []}
                for _ in range(LOGINS):
                    for port, taken in times.items():
                        taken.append(await login_ms(port))
                row = " | ".join(f"{statistics.median(taken):.2f}" for taken in times.values())
                print(f"| {away} | {row} |", flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(_measured())
