"""Who may come in."""

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection
from pop3proxy.config import ConnectionLimits
from pop3proxy.config import Listener as Options
from pop3proxy.proxy.arrival import Arrival
from pop3proxy.proxy.listeners import Admission, Listener
from pop3proxy.proxy.session import Session

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

    def now(self) -> float:
        return self.around.now()

    def session(
        self, host: str, port: int, listener: Listener, orig_unknown: bool = False
    ) -> Session:
        connection = Connection("Cuid", host, port, "198.51.100.1", 110, listener.name)
        self.made.append(Session(connection, Analyzer(connection), self.around))
        return self.made[-1]

    def count(self, what: str) -> int:
        return self.around.count(what)


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


def test_clients_of_a_unix_socket_are_not_counted_by_its_path() -> None:
    door = admission(per_address=1)
    assert [door.enter("/run/client"), door.enter("/run/client"), door.enter(HERE)] == ["", "", ""]
    assert door.enter(HERE) == "connections_per_address"
    for host in ("/run/client", "", HERE):
        door.leave(host)
    assert door.enter(HERE) == ""
