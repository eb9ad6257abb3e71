"""A TCP port whose clients the engine accepts."""

import errno
import gc
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.proxy.accepting import ACCEPT_AGAIN, AT_ONCE, Acceptor, can_take_over

from .live import PATIENCE, receive, receive_all
from .loop import Loop


class Door:
    """A listening port with an acceptor, and who came in."""

    def __init__(self, loop: Loop, host: str = "127.0.0.1") -> None:
        self.loop = loop
        self.inside: list[socket.socket] = []
        self.addresses: list[Any] = []
        self.raises = False
        self.reactor: Any = EPollReactor()
        self.port: Any = Port(0, Factory.forProtocol(Protocol), 200, host, self.reactor)
        self.port.startListening()
        self.acceptor = Acceptor(self.port, loop.engine, self.welcome)

    def welcome(self, client: socket.socket, address: Any) -> None:
        if self.raises:
            raise RuntimeError
        self.inside.append(client)
        self.addresses.append(address)

    def shut(self) -> None:
        """Close the port."""
        stop = self.port.stopListening()
        while stop is not None and not stop.called:
            self.reactor.iterate(0.1)

    def knock(self) -> socket.socket:
        where = self.port.getHost()
        return socket.create_connection((where.host, where.port), PATIENCE)


@pytest.fixture
def door(loop: Loop) -> Iterator[Door]:
    door = Door(loop)
    yield door
    door.acceptor.stop()
    for client in door.inside:
        client.close()
    door.shut()
    door.reactor.fireSystemEvent("shutdown")


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Let nothing more be opened during the block."""
    gc.collect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_comes_in_with_its_address_and_without_blocking(door: Door, loop: Loop) -> None:
    with door.knock() as client:
        loop.until(lambda: door.inside)
        assert door.addresses == [client.getsockname()]
        assert door.inside[0].gettimeout() == 0
        door.inside[0].send(b"+OK\r\n")
        assert receive(client, 5) == b"+OK\r\n"


def test_so_many_come_in_at_once_and_no_more(door: Door, loop: Loop) -> None:
    with ExitStack() as clients:
        for _ in range(AT_ONCE + 3):
            clients.enter_context(door.knock())
        loop.turn()
        assert len(door.inside) == AT_ONCE
        loop.turn()
        assert len(door.inside) == AT_ONCE + 3


def test_an_error_in_the_welcome_costs_that_client_only(door: Door, loop: Loop) -> None:
    door.raises = True
    with door.knock() as client:
        with capturedLogs() as log:
            loop.turn()
        assert receive_all(client) == b""
        assert len(log) == 1
    door.raises = False
    with door.knock():
        loop.until(lambda: door.inside)


def test_clients_wait_while_no_descriptor_is_free(door: Door, loop: Loop) -> None:
    with door.knock() as client:
        with capturedLogs() as log:
            with no_descriptor_free():
                loop.turn()
                assert not loop.turn()
                loop.reactor.advance(ACCEPT_AGAIN)
                loop.turn()
                assert not loop.turn()
            assert door.inside == []
            loop.reactor.advance(ACCEPT_AGAIN)
            loop.until(lambda: door.inside)
        door.inside[0].send(b"+OK\r\n")
        assert receive(client, 5) == b"+OK\r\n"
    said = [formatEvent(entry) for entry in log]
    assert said == [
        "cannot accept clients: Too many open files; they wait",
        "clients are accepted again",
    ]


def test_who_stops_while_no_descriptor_is_free_does_not_begin_again(door: Door, loop: Loop) -> None:
    with door.knock():
        with capturedLogs(), no_descriptor_free():
            loop.turn()
        door.acceptor.stop()
        loop.reactor.advance(ACCEPT_AGAIN)
        assert not loop.turn()
        assert door.inside == []


class Unlucky:
    """A listening socket of which the first client is gone before it is accepted."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real = real
        self._number = number

    def accept(self) -> Any:
        if self._number:
            number, self._number = self._number, 0
            raise OSError(number, os.strerror(number))
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO])
def test_a_client_that_is_gone_before_it_came_in_does_not_hold_up_the_next(
    door: Door, loop: Loop, number: int
) -> None:
    door.acceptor._socket = Unlucky(door.acceptor._socket, number)  # type: ignore[arg-type, assignment]
    with door.knock(), capturedLogs() as log:
        loop.turn()
    assert len(door.inside) == 1
    assert log == []


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
def test_what_will_not_be_better_at_once_is_not_tried_at_once(
    door: Door, loop: Loop, number: int
) -> None:
    door.acceptor._socket = Unlucky(door.acceptor._socket, number)  # type: ignore[arg-type, assignment]
    with door.knock(), capturedLogs():
        loop.turn()
        assert door.inside == []
        assert not loop.turn()
        loop.reactor.advance(ACCEPT_AGAIN)
        loop.turn()
    assert len(door.inside) == 1


def test_who_waits_when_we_stop_is_not_accepted_and_reset_with_the_port(
    door: Door, loop: Loop
) -> None:
    with door.knock() as waiting:
        door.acceptor.stop()
        door.acceptor.stop()
        assert not loop.turn()
        door.shut()
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)
    assert door.inside == []


def test_a_port_is_taken_over_if_its_clients_come_straight_to_us() -> None:
    reactor = EPollReactor()
    ours, wrapper = Factory(), Factory()
    ports: list[Any] = []
    for endpoint in ("tcp:0:interface=127.0.0.1", r"tcp6:0:interface=\:\:1"):
        serverFromString(reactor, endpoint).listen(ours).addCallback(ports.append)
    assert [can_take_over(port, ours) for port in ports] == [True, True]
    assert [can_take_over(port, wrapper) for port in ports] == [False, False]
    for port in ports:
        port.stopListening()
    reactor.iterate(0)
    reactor.fireSystemEvent("shutdown")


def test_a_port_of_another_kind_is_left_alone(tmp_path: Any) -> None:
    reactor = EPollReactor()
    ours = Factory()
    ports: list[Any] = []
    for endpoint in (f"unix:{tmp_path}/socket", "haproxy:tcp:0:interface=127.0.0.1"):
        serverFromString(reactor, endpoint).listen(ours).addCallback(ports.append)
    assert [can_take_over(port, ours) for port in ports] == [False, False]
    for port in ports:
        port.stopListening()
    reactor.iterate(0)
    reactor.fireSystemEvent("shutdown")
