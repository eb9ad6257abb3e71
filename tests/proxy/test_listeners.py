"""Who may come in."""

import signal
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection
from pop3proxy.config import ConnectionLimits
from pop3proxy.config import Listener as Options
from pop3proxy.proxy.arrival import Arrival, Entry
from pop3proxy.proxy.listeners import (
    CROWD,
    MOST_WARNED,
    Admission,
    Listener,
    queue_all_it_can,
)
from pop3proxy.proxy.session import Session

from .live import Proxy
from .pair import Around

HERE, THERE = "192.0.2.1", "192.0.2.2"


def admission(connections: int = 8000, per_address: int = 0) -> Admission:
    return Admission(ConnectionLimits(connections=connections, connections_per_address=per_address))


def test_all_may_come_in_up_to_the_limit() -> None:
    door = admission(connections=2)
    assert [door.enter(HERE), door.enter(THERE), door.enter(HERE)] == ["", "", "connections"]


def test_one_address_may_come_in_up_to_its_own_limit() -> None:
    door = admission(per_address=2)
    assert [door.enter(HERE) for _ in range(3)] == ["", "", "connections_per_address"]
    assert door.enter(THERE) == ""


def test_one_address_has_no_limit_by_default() -> None:
    door = admission()
    assert {door.enter(HERE) for _ in range(8000)} == {""}
    assert door.enter(HERE) == "connections"


def test_who_leaves_makes_room() -> None:
    door = admission(connections=1, per_address=1)
    for _ in range(3):
        assert door.enter(HERE) == ""
        assert door.enter(HERE) == "connections"
        door.leave(HERE)


@pytest.mark.parametrize("limits", [(1, 0), (1, 1), (2, 1)])
def test_who_was_refused_takes_no_room(limits: tuple[int, int]) -> None:
    door = admission(*limits)
    assert door.enter(HERE) == ""
    assert all(door.enter(HERE) for _ in range(3))
    door.leave(HERE)
    assert door.enter(HERE) == ""


class Maker:
    """Makes sessions, and counts."""

    wants_entrance = False

    def __init__(self) -> None:
        self.around = Around()
        self.timeouts = self.around.timeouts
        self.arrivals: set[Arrival] = set()
        self.made: list[Session] = []

    def elapsed(self) -> float:
        return self.around.elapsed()

    def session(
        self, host: str, port: int, listener: Listener, orig_unknown: bool = False
    ) -> Session:
        connection = Connection("Cuid", host, port, "198.51.100.1", 110, listener.name)
        self.made.append(Session(connection, Analyzer(connection), self.around))
        return self.made[-1]

    def count(self, what: str) -> int:
        return self.around.count(what)

    def handshake_failed(self, entry: Entry, arrival: Arrival) -> None:
        raise AssertionError("nobody begins TLS here")


def test_a_client_gets_the_wire_of_a_session_that_knows_where_it_came_in() -> None:
    maker = Maker()
    protocol: object = Listener(Options(endpoint="tcp:110"), admission(), maker).buildProtocol(
        IPv4Address("TCP", HERE, 4000)
    )
    (session,) = maker.made
    assert protocol is session.client
    connection = session.connection
    assert (connection.orig_h, connection.orig_p, connection.listener) == (HERE, 4000, "tcp:110")


def test_a_client_beyond_the_limit_is_told_to_try_later_and_counted() -> None:
    maker = Maker()
    listener = Listener(Options(endpoint="tcp:110"), admission(connections=1), maker)
    listener.buildProtocol(IPv4Address("TCP", HERE, 4000))
    refusal = listener.buildProtocol(IPv4Address("TCP", HERE, 4001))
    assert refusal is not None
    transport = StringTransport()
    refusal.makeConnection(transport)
    assert transport.value() == b"-ERR [SYS/TEMP] too many connections, please try again later\r\n"
    assert transport.disconnecting
    assert len(maker.made) == 1
    assert maker.around.counts == {"refused_connections": 1}


# --- a crowd at one address -----------------------------------------------------------------------------


def crowd(door: Admission, host: str, count: int = CROWD) -> list[str]:
    """Let so many in; return what is logged."""
    with capturedLogs() as log:
        assert {door.enter(host) for _ in range(count)} == {""}
    return [formatEvent(entry) for entry in log]


def test_an_address_with_many_connections_is_warned_of_once_and_counted_each_time() -> None:
    around = Around()
    door = Admission(ConnectionLimits(), around.count)
    assert crowd(door, HERE, CROWD - 1) == []
    (line,) = crowd(door, HERE, 2)
    assert line.startswith(f"{HERE} has 200 connections at once, and no limit: ")
    assert "set limits.connections_per_address; 1 addresses" in line
    for _ in range(2):
        door.leave(HERE)
    assert crowd(door, HERE, 2) == []
    assert around.counts == {"crowded_address": 2}
    assert len(crowd(door, THERE)) == 1


def test_clients_that_a_header_names_later_are_a_crowd_too() -> None:
    door = admission()
    with capturedLogs() as log:
        for _ in range(CROWD):
            assert door.enter() == ""
            assert door.claim(HERE) == ""
    (line,) = map(formatEvent, log)
    assert line.startswith(f"{HERE} has 200 connections")


def test_with_a_limit_it_is_the_limit_that_speaks() -> None:
    around = Around()
    door = Admission(ConnectionLimits(connections_per_address=CROWD + 1), around.count)
    assert crowd(door, HERE, CROWD + 1) == []
    assert door.enter(HERE) == "connections_per_address"
    assert around.counts == {}


def test_clients_of_no_known_address_are_no_crowd() -> None:
    door = admission()
    assert crowd(door, "", CROWD) == []


def test_so_many_addresses_are_warned_of_and_no_more() -> None:
    around = Around()
    door = Admission(ConnectionLimits(connections=CROWD * (MOST_WARNED + 2)), around.count)
    lines = [line for index in range(MOST_WARNED + 2) for line in crowd(door, f"192.0.2.{index}")]
    assert len(lines) == MOST_WARNED
    assert around.counts == {"crowded_address": MOST_WARNED + 2}


def test_nothing_is_kept_of_an_address_that_has_left() -> None:
    door = admission()
    for index in range(1000):
        host = f"192.0.2.{index}"
        door.enter(host)
        door.leave(host)
    assert not door._by_address


# --- the queue of those that wait to be accepted --------------------------------------------------------

LONGEST = int(Path("/proc/sys/net/core/somaxconn").read_text())


def queue_of(listening: socket.socket) -> int:
    """The length that the kernel has: of a listening socket tcpi_sacked says it."""
    found: int = struct.unpack_from(
        "I", listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28
    )[0]
    return found


class Port:
    """A listening socket, as a port of the reactor lends it."""

    def __init__(self, listening: socket.socket) -> None:
        self.fileno = listening.fileno


@pytest.mark.parametrize(
    ("endpoint", "length"),
    [
        ("tcp:110", LONGEST),
        ("tcp6:110", LONGEST),
        ("ssl:995:certKey=c", LONGEST),
        ("haproxy:tcp:110", LONGEST),
        ("tcp:110:backlog=7", 7),
        ("haproxy:tcp:110:backlog=7", 7),
        ("systemd:domain=INET:index=0", 7),
    ],
)
def test_the_queue_is_as_long_as_the_kernel_allows_unless_it_is_set(
    endpoint: str, length: int
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listening:
        port: Any = Port(listening)
        queue_all_it_can(port, endpoint)
        assert queue_of(listening) == length


def test_the_queue_of_a_unix_socket_too(tmp_path: Path) -> None:
    path, clients = str(tmp_path / "pop3"), 100
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as stack:
        listening.bind(path)
        listening.listen(7)
        port: Any = Port(listening)
        queue_all_it_can(port, f"unix:{path}")
        for _ in range(clients):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            # With no room it would raise BlockingIOError.
            client.connect(path)


def test_a_port_without_a_descriptor_is_left_alone() -> None:
    port: Any = object()
    queue_all_it_can(port, "tcp:110")


def test_clients_wait_in_the_queue_while_the_proxy_is_held_up(proxy: Proxy) -> None:
    with ExitStack() as stack:
        proxy.tell(signal.SIGSTOP)
        stack.callback(proxy.tell, signal.SIGCONT)
        for _ in range(100):
            # With no room it would take a second and more.
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 0.9))


def test_clients_of_a_unix_socket_are_not_counted_by_its_path() -> None:
    door = admission(per_address=1)
    assert [door.enter("/run/client"), door.enter("/run/client"), door.enter(HERE)] == ["", "", ""]
    assert door.enter(HERE) == "connections_per_address"
    for host in ("/run/client", "", HERE):
        door.leave(host)
    assert door.enter(HERE) == ""
