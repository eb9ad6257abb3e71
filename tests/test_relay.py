"""The relay on sockets: what arrives, what an end on one side does to the other, and what it costs."""

import os
import random
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .serving import PATIENCE, serving

Process = subprocess.Popen[str]

GROWTH = 16
"""MiB that one session may cost at the most, whatever its peers do; a chunk is 256 KiB."""


class Relay:
    """A proxy before a mail server that is the test's own."""

    def __init__(self, server: socket.socket, port: int, process: Process) -> None:
        self.server = server
        self.port = port
        self.process = process

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def accept(self) -> socket.socket:
        connection, _ = self.server.accept()
        connection.settimeout(PATIENCE)
        return connection

    @contextmanager
    def session(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A client and its server, the greeting said."""
        with self.dial() as client, self.accept() as server:
            server.sendall(b"+OK ready\r\n")
            assert exactly(client, 11) == b"+OK ready\r\n"
            yield client, server

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> str:
        """Stop it and return what it said on standard error."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return said


@contextmanager
def relaying(folder: Path, configuration: str = "") -> Iterator[Relay]:
    (folder / "pop3proxy.toml").write_text(configuration)
    with socket.create_server(("127.0.0.1", 0), backlog=2000) as server:
        server.settimeout(PATIENCE)
        upstream = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        arguments = ("--config", "pop3proxy.toml", "--upstream", upstream, "--events", "events")
        with serving(*arguments, cwd=folder) as (port, process):
            yield Relay(server, port, process)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with relaying(tmp_path) as relay:
        yield relay


def exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := connection.recv(min(size - len(data), 1 << 20))):
        data += piece
    return bytes(data)


def rest(connection: socket.socket) -> bytes:
    """All bytes up to the end, a reset counting as one."""
    data = bytearray()
    try:
        while piece := connection.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return bytes(data)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_arrive_unchanged_both_ways(relay: Relay, seed: int) -> None:
    noise = random.Random(seed).randbytes(300_000) + b"\n\r\n\0\n.\r\n.\n"
    with relay.session() as (client, server):
        sending = threading.Thread(target=client.sendall, args=(noise,))
        sending.start()
        server.sendall(noise[::-1])
        assert exactly(client, len(noise)) == noise[::-1]
        assert exactly(server, len(noise)) == noise
        sending.join(PATIENCE)


def test_the_end_of_the_client_is_passed_on_and_the_server_still_heard(relay: Relay) -> None:
    with relay.session() as (client, server):
        client.sendall(b"QUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        assert rest(server) == b"QUIT\r\n"
        server.sendall(b"+OK bye\r\n")
        server.close()
        assert rest(client) == b"+OK bye\r\n"


def test_the_end_of_the_server_is_passed_on_and_the_client_still_heard(relay: Relay) -> None:
    with relay.session() as (client, server):
        server.shutdown(socket.SHUT_WR)
        assert rest(client) == b""
        client.sendall(b"NOOP\r\n")
        client.close()
        assert rest(server) == b"NOOP\r\n"


def test_a_client_that_ends_at_once_is_still_greeted(relay: Relay) -> None:
    with relay.dial() as client:
        client.sendall(b"QUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        with relay.accept() as server:
            assert rest(server) == b"QUIT\r\n"
            server.sendall(b"+OK ready\r\n+OK bye\r\n")
        assert rest(client) == b"+OK ready\r\n+OK bye\r\n"


def test_a_reset_of_the_client_reaches_the_server(relay: Relay) -> None:
    with relay.session() as (client, server):
        reset(client)
        with pytest.raises(ConnectionResetError):
            server.recv(1)


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_server_that_dies_in_mid_message_leaves_no_final_dot(relay: Relay, end: object) -> None:
    with relay.session() as (client, server):
        client.sendall(b"RETR 1\r\n")
        assert exactly(server, 8) == b"RETR 1\r\n"
        server.sendall(b"+OK\r\nhalf a mess")
        assert exactly(client, 16) == b"+OK\r\nhalf a mess"
        assert callable(end)
        end(server)
        assert rest(client) == b""


def test_bytes_behind_stls_pass_and_are_not_looked_at(relay: Relay, tmp_path: Path) -> None:
    hello = b"\x16\x03\x01\x00\x05\x01" + bytes(range(256)) * 2000
    with relay.session() as (client, server):
        client.sendall(b"STLS\r\n")
        assert exactly(server, 6) == b"STLS\r\n"
        server.sendall(b"+OK\r\n")
        assert exactly(client, 5) == b"+OK\r\n"
        sending = threading.Thread(target=client.sendall, args=(hello,))
        sending.start()
        assert exactly(server, len(hello)) == hello
        sending.join(PATIENCE)
        server.sendall(hello)
        assert exactly(client, len(hello)) == hello
    relay.stop()
    written = (tmp_path / "events").read_text()
    assert '"event":"pop3_starttls"' in written
    assert '"inspected":"until_tls"' in written
    assert "pop3_unexpected" not in written


def test_a_server_that_is_down_is_told_at_once(relay: Relay) -> None:
    relay.server.close()
    with relay.dial() as client:
        assert rest(client).startswith(b"-ERR [SYS/TEMP] ")
    assert "upstream_unreachable 1" in relay.stop()


def test_a_server_that_closes_without_a_greeting_is_told(relay: Relay) -> None:
    with relay.dial() as client:
        relay.accept().close()
        assert rest(client).startswith(b"-ERR [SYS/TEMP] ")


def test_a_message_for_a_slow_reader_waits_at_the_server(relay: Relay) -> None:
    message = b"+OK\r\n" + (b"x" * 70 + b"\r\n") * 1_400_000 + b".\r\n"
    before = relay.memory()
    with relay.session() as (client, server):
        client.sendall(b"RETR 1\r\n")
        exactly(server, 8)
        # As much as the kernels and the proxy take while nobody reads.
        server.setblocking(False)
        sent = stuff(server, message)
        assert sent < len(message)
        assert relay.memory() - before < GROWTH
        server.settimeout(PATIENCE)
        sending = threading.Thread(target=server.sendall, args=(message[sent:],))
        sending.start()
        assert exactly(client, len(message)) == message
        sending.join(PATIENCE)
        assert relay.memory() - before < GROWTH


def stuff(connection: socket.socket, data: bytes) -> int:
    """Send until nothing is taken for a while; return how much was."""
    sent = 0
    while sent < len(data):
        try:
            sent += connection.send(data[sent : sent + (1 << 20)])
        except BlockingIOError:
            if not writable(connection):
                break
    return sent


def writable(connection: socket.socket) -> bool:
    return bool(select.select([], [connection], [], 0.5)[1])


def test_commands_for_a_server_that_never_reads_wait_at_the_client(relay: Relay) -> None:
    commands = b"NOOP\r\n" * 5_000_000
    before = relay.memory()
    with relay.session() as (client, _):
        client.setblocking(False)
        assert stuff(client, commands) < len(commands)
        assert relay.memory() - before < GROWTH


def test_10000_pipelined_commands_are_all_answered(relay: Relay) -> None:
    commands = b"NOOP\r\n" * 10_000
    before = relay.memory()
    with relay.session() as (client, server):
        sending = threading.Thread(target=client.sendall, args=(commands,))
        sending.start()
        received = 0
        while received < len(commands):
            data = server.recv(1 << 16)
            assert data
            received += len(data)
            server.sendall(b"+OK\r\n" * data.count(b"\n"))
        assert exactly(client, 50_000) == b"+OK\r\n" * 10_000
        sending.join(PATIENCE)
        assert relay.memory() - before < GROWTH


def test_1000_sessions_of_one_address_take_less_than_20_mb(relay: Relay) -> None:
    before = relay.memory()
    pairs = []
    for _ in range(1000):
        client = relay.dial()
        server = relay.accept()
        pairs.append((client, server))
        server.sendall(b"+OK ready\r\n")
        assert exactly(client, 11)
    assert relay.memory() - before < 20
    for pair in pairs:
        for connection in pair:
            connection.close()


def test_5000_sessions_one_after_the_other_leave_nothing_behind(
    relay: Relay, tmp_path: Path
) -> None:
    with relay.session():
        pass
    before = relay.memory(), relay.descriptors()
    for _ in range(5000):
        with relay.session():
            pass
    # The proxy hears of the last ends only after we have made them.
    with relay.session():
        assert relay.descriptors() <= before[1] + 4
    assert relay.memory() - before[0] < 4
    said = relay.stop()
    assert " warn " not in said
    assert " error " not in said
    written = (tmp_path / "events").read_text()
    assert written.count('"event":"pop3_session"') == 5002


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
def test_a_client_too_many_is_refused_and_counted(tmp_path: Path, limit: str) -> None:
    with relaying(tmp_path, f"[limits]\n{limit} = 1\n") as relay:
        with relay.session(), relay.dial() as another:
            assert rest(another).startswith(b"-ERR [SYS/TEMP] ")
        assert f"refused_{limit} 1" in relay.stop()


def test_a_session_that_runs_may_end_after_sigterm(relay: Relay) -> None:
    with relay.session() as (client, server):
        relay.process.terminate()
        client.sendall(b"QUIT\r\n")
        assert exactly(server, 6) == b"QUIT\r\n"
        server.sendall(b"+OK bye\r\n")
        server.close()
        assert rest(client) == b"+OK bye\r\n"
    relay.process.communicate(timeout=PATIENCE)
    assert relay.process.returncode == 0


@pytest.mark.parametrize("limit", ["greeting", "login", "drain"])
def test_a_wait_that_runs_out_is_answered_only_before_the_greeting(
    tmp_path: Path, limit: str
) -> None:
    with (
        relaying(tmp_path, f"[timeouts]\n{limit} = 0.1\n") as relay,
        relay.dial() as client,
        relay.accept() as server,
    ):
        if limit == "greeting":
            assert rest(client).startswith(b"-ERR [SYS/TEMP] ")
        else:
            server.sendall(b"+OK ready\r\n")
            assert exactly(client, 11)
            if limit == "drain":
                relay.process.terminate()
            assert rest(client) == b""
        assert rest(server) == b""
        counted = "drain_over 1" if limit == "drain" else f"timeout_{limit} 1"
        assert counted in relay.stop()
