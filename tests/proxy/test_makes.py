"""Whole sessions over every make of wire: the engine's, and those over the reactor's transports."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.logger import capturedLogs

from pop3proxy.analyzer.events import SessionEnd
from pop3proxy.config import Config, load
from pop3proxy.hooks.api import Hook
from pop3proxy.proxy.plainwire import PlainWire
from pop3proxy.proxy.service import ProxyService

from .live import GREETING, PATIENCE, receive_all, reset

TCP = "tcp:0:interface=127.0.0.1"


class Ends(Hook):
    """Notes how sessions end."""

    def __init__(self) -> None:
        self.all: list[SessionEnd] = []

    def pop3_session(self, event: SessionEnd) -> None:
        self.all.append(event)


class Stage:
    """A proxy in this process, between a listening socket and a client; the test turns its reactor."""

    def __init__(self, listen: str, upstream: str, family: int, address: Any) -> None:
        self.reactor: Any = EPollReactor()
        self.reactor.startRunning(installSignalHandlers=False)
        self.mail_server = socket.socket(family)
        self.mail_server.bind(address)
        self.mail_server.listen()
        self.mail_server.settimeout(0)
        found = self.mail_server.getsockname()
        port = found[1] if family == socket.AF_INET else found
        self.config: Config = load(
            None, {"listen": [listen], "upstream": upstream.format(port)}, self.reactor
        )
        self.ends = Ends()
        self.service = ProxyService(self.reactor, self.config, [self.ends])
        self.service.startService()
        self.until(lambda: self.service.started.called)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Turn the reactor until the condition holds, and return what it gave."""
        late: list[bool] = []
        call = self.reactor.callLater(PATIENCE, late.append, True)
        while not (found := condition()):
            assert not late, "in vain"
            self.reactor.iterate(0.01)
        if call.active():
            call.cancel()
        return found

    def client(self) -> socket.socket:
        where: Any = self.service.ports[0].getHost()
        name = getattr(where, "name", None)
        client = socket.socket(socket.AF_INET if name is None else socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect((where.host, where.port) if name is None else name)
        client.settimeout(0)
        return client

    def accept(self) -> socket.socket:
        def accepted() -> socket.socket | None:
            try:
                return self.mail_server.accept()[0]
            except BlockingIOError:
                return None

        server: socket.socket = self.until(accepted)
        server.settimeout(0)
        return server

    def receive(self, connection: socket.socket, size: int) -> bytes:
        """Read so many octets, or up to the end."""
        data = bytearray()

        def enough() -> bool:
            try:
                chunk = connection.recv(size - len(data))
            except BlockingIOError:
                return False
            data.extend(chunk)
            return len(data) == size or not chunk

        self.until(enough)
        return bytes(data)

    def close(self) -> None:
        if self.service.running:
            self.stopped = self.service.stopService()
        self.until(lambda: self.stopped.called)
        self.mail_server.close()
        self.reactor.fireSystemEvent("shutdown")


def ended(connection: socket.socket) -> bool:
    """Tell whether the peer has ended or reset, without a word."""
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


MAKES = {
    "engine": (TCP, "tcp:127.0.0.1:{}", socket.AF_INET),
    "name": (TCP, "tcp:localhost:{}", socket.AF_INET),
    "unix": ("unix:{folder}/proxy", "unix:{}", socket.AF_UNIX),
    "no epoll": (TCP, "tcp:127.0.0.1:{}", socket.AF_INET),
}


@pytest.fixture(params=MAKES)
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    listen, upstream, family = MAKES[request.param]
    address = ("127.0.0.1", 0) if family == socket.AF_INET else f"{tmp_path}/mail"
    with monkeypatch.context() as patch:
        if request.param == "no epoll":
            patch.setattr("pop3proxy.proxy.service.usable", lambda _: False)
        stage = Stage(listen.format(folder=tmp_path), upstream, family, address)
    with capturedLogs() as log:
        yield stage
        stage.close()
    assert [entry for entry in log if entry["log_level"].name in ("error", "critical")] == []


@pytest.fixture
def ends(stage: Stage) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a session whose greeting was sent and read."""
    with stage.client() as client, stage.accept() as server:
        server.sendall(GREETING)
        assert stage.receive(client, len(GREETING)) == GREETING
        yield client, server


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_plain_tcp_on_both_sides_is_the_engines(
    stage: Stage, ends: tuple[socket.socket, socket.socket]
) -> None:
    (session,) = stage.service.sessions
    assert type(session.client) is type(session.server) is PlainWire


@pytest.mark.parametrize("stage", ["unix", "no epoll"], indirect=True)
def test_anything_else_is_carried_by_a_transport(
    stage: Stage, ends: tuple[socket.socket, socket.socket]
) -> None:
    (session,) = stage.service.sessions
    assert not isinstance(session.client, PlainWire)
    assert not isinstance(session.server, PlainWire)


def test_a_session_is_relayed_to_its_end(
    stage: Stage, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, server = ends
    client.sendall(b"QUIT\r\n")
    assert stage.receive(server, 6) == b"QUIT\r\n"
    server.sendall(b"+OK bye\r\n")
    server.shutdown(socket.SHUT_WR)
    assert stage.receive(client, 100) == b"+OK bye\r\n"
    client.shutdown(socket.SHUT_WR)
    assert stage.receive(server, 1) == b""
    stage.until(lambda: stage.ends.all)
    (end,) = stage.ends.all
    assert (end.reason, end.orig_octets, end.resp_octets) == (
        "server_closed",
        6,
        len(GREETING) + 9,
    )


def test_much_passes_unchanged_however_slowly_it_is_read(
    stage: Stage, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, server = ends
    sent = b"+OK\r\n" + b"line of a message\r\n" * 500_000 + b".\r\n"
    client.sendall(b"RETR 1\r\n")
    assert stage.receive(server, 8) == b"RETR 1\r\n"
    left = memoryview(sent)
    got = bytearray()

    def passes() -> bool:
        nonlocal left
        with suppress(BlockingIOError):
            left = left[server.send(left) :]
        with suppress(BlockingIOError):
            got.extend(client.recv(100_000))
        return len(got) >= len(sent)

    stage.until(passes)
    assert got == sent


@pytest.mark.parametrize("stage", ["engine", "name", "no epoll"], indirect=True)
def test_a_client_that_resets_resets_the_server(
    stage: Stage, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, server = ends
    reset(client)
    stage.until(lambda: stage.ends.all)
    server.settimeout(PATIENCE)
    assert receive_all(server) == b""
    assert not stage.service.sessions


def test_who_waits_when_the_service_stops_is_not_let_in_and_the_others_may_finish(
    stage: Stage, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, server = ends
    with stage.client() as late:
        stage.stopped = stage.service.stopService()
        stage.until(lambda: ended(late))
    client.sendall(b"NOOP\r\n")
    assert stage.receive(server, 6) == b"NOOP\r\n"
    client.close()
    server.close()
    stage.until(lambda: stage.ends.all)
    assert stage.service.counts["sessions"] == 1
