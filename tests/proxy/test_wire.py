"""One side of a session: written through to a plain socket, or carried by a transport of any other kind."""

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from pop3proxy.analyzer.events import Side
from pop3proxy.proxy.wire import LARGE_READ, SMALL_READ, Wire

from .loop import Heard
from .pair import Transport


class Kernel(socket.socket):
    """A socket that takes so many octets; None of them is a full buffer, an error number a dead peer."""

    def __init__(self) -> None:
        super().__init__()
        self.room: int | None = None
        self.error = 0
        self.sent = b""
        self.shut: list[int] = []

    def send(self, data: Any, flags: int = 0) -> int:
        if self.error:
            raise OSError(self.error, "dead")
        taken = bytes(data if self.room is None else data[: self.room])
        if not taken:
            raise BlockingIOError
        self.sent += taken
        return len(taken)

    def shutdown(self, how: int) -> None:
        if self.error:
            raise OSError(self.error, "dead")
        self.shut.append(how)


class PlainTransport(Transport):
    """A transport that lends its socket."""

    bufferSize = 0

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.told_lost: list[Failure] = []

    def getHandle(self) -> Kernel:
        return self.kernel

    def connectionLost(self, reason: Failure) -> None:
        self.told_lost.append(reason)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


@pytest.fixture
def plain(heard: Heard, kernel: Kernel) -> Wire:
    """A wire over a plain socket."""
    wire = Wire(heard, Side.SERVER)
    wire.makeConnection(PlainTransport(kernel))
    heard.all.clear()
    return wire


@pytest.fixture
def carried(heard: Heard) -> Wire:
    """A wire over a transport that lends no socket, as TLS does."""
    wire = Wire(heard, Side.CLIENT)
    wire.makeConnection(Transport())
    heard.all.clear()
    return wire


@pytest.fixture(params=["plain", "carried"])
def wire(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.getfixturevalue(request.param)
    return found


def test_a_wire_says_that_it_is_up(heard: Heard) -> None:
    Wire(heard, Side.CLIENT).makeConnection(Transport())
    assert heard.all == [("begun", Side.CLIENT)]


def test_what_arrives_is_reported_in_order(wire: Wire, heard: Heard) -> None:
    wire.dataReceived(b"a")
    wire.dataReceived(b"b")
    wire.readConnectionLost()
    assert [what[0] for what in heard.all] == ["data", "data", "ended"]
    assert [what[2] for what in heard.all[:2]] == [b"a", b"b"]


@pytest.mark.parametrize(("why", "clean"), [(ConnectionDone(), True), (ConnectionLost(), False)])
def test_the_loss_is_reported_once_and_says_whether_it_was_clean(
    wire: Wire, heard: Heard, why: Exception, clean: bool
) -> None:
    wire.connectionLost(Failure(why))
    wire.connectionLost(Failure(ConnectionDone()))
    assert [what[0::2] for what in heard.all] == [("lost", clean)]


def test_nothing_is_reported_after_the_loss(wire: Wire, heard: Heard) -> None:
    wire.connectionLost(Failure(ConnectionDone()))
    heard.all.clear()
    wire.dataReceived(b"late")
    wire.readConnectionLost()
    wire.resumeProducing()
    assert heard.all == []


def test_a_wire_that_is_paused_is_not_read(wire: Wire) -> None:
    wire.pause()
    assert wire.transport.producerState == "paused"
    wire.resume()
    assert wire.transport.producerState == "producing"


def test_a_reset_reaches_the_transport(wire: Wire) -> None:
    wire.abort()
    assert wire.transport.aborted


def test_nothing_is_closed_after_a_reset(wire: Wire) -> None:
    wire.abort()
    wire.close()
    assert not wire.transport.disconnecting


# --- a transport that lends no socket -------------------------------------------------------------------


def test_a_carried_wire_writes_to_its_transport(carried: Wire) -> None:
    carried.write(b"+OK\r\n")
    assert carried.transport.value() == b"+OK\r\n"
    assert not carried.unsent


def test_a_carried_wire_has_unsent_bytes_while_its_transport_says_so(
    carried: Wire, heard: Heard
) -> None:
    carried.pauseProducing()
    while_full = carried.unsent
    carried.resumeProducing()
    assert (while_full, carried.unsent) == (True, False)
    assert heard.all == [("drained", Side.CLIENT)]


def test_a_carried_wire_hears_every_time_that_its_transport_is_full(
    carried: Wire, heard: Heard
) -> None:
    for _ in range(2):
        carried.transport.producer.pauseProducing()
        carried.transport.producer.resumeProducing()
    assert heard.all == [("drained", Side.CLIENT)] * 2


@pytest.mark.parametrize("act", [Wire.end, Wire.close])
def test_a_carried_wire_ends_by_closing(carried: Wire, act: Any) -> None:
    act(carried)
    assert carried.transport.disconnecting
    assert not carried.transport.aborted


# --- a plain socket -------------------------------------------------------------------------------------


def test_bytes_go_to_the_kernel_at_once(plain: Wire, kernel: Kernel) -> None:
    plain.write(b"+OK\r\n")
    assert kernel.sent == b"+OK\r\n"
    assert plain.transport.value() == b""
    assert not plain.unsent


@pytest.mark.parametrize("room", [0, 1, 4])
def test_what_the_kernel_does_not_take_is_left_to_the_transport(
    plain: Wire, kernel: Kernel, heard: Heard, room: int
) -> None:
    kernel.room = room
    plain.write(b"+OK\r\n")
    assert kernel.sent + plain.transport.value() == b"+OK\r\n"
    assert kernel.sent == b"+OK\r\n"[:room]
    assert plain.unsent
    assert heard.all == []


def test_nothing_overtakes_what_is_unsent(plain: Wire, kernel: Kernel) -> None:
    kernel.room = 1
    plain.write(b"abc")
    kernel.room = None
    plain.write(b"def")
    assert kernel.sent + plain.transport.value() == b"abcdef"


def test_bytes_go_to_the_kernel_again_once_the_transport_has_sent_its_own(
    plain: Wire, kernel: Kernel, heard: Heard
) -> None:
    kernel.room = 1
    plain.write(b"abc")
    plain.transport.producer.resumeProducing()
    assert heard.all == [("drained", Side.SERVER)]
    assert plain.transport.producer is None
    kernel.room = None
    plain.write(b"def")
    assert kernel.sent == b"adef"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
def test_a_write_to_a_dead_peer_resets_and_does_not_raise(
    plain: Wire, kernel: Kernel, heard: Heard, number: int
) -> None:
    kernel.error = number
    plain.write(b"+OK\r\n")
    assert plain.transport.aborted
    assert heard.all == []


def test_the_end_goes_out_at_once_and_reading_goes_on(
    plain: Wire, kernel: Kernel, heard: Heard
) -> None:
    plain.end()
    assert kernel.shut == [socket.SHUT_WR]
    assert not plain.transport.disconnecting
    plain.dataReceived(b"late")
    assert heard.all == [("data", Side.SERVER, b"late")]


def test_the_end_waits_for_what_is_unsent(plain: Wire, kernel: Kernel) -> None:
    kernel.room = 1
    plain.write(b"abc")
    plain.end()
    assert kernel.shut == []
    plain.transport.producer.resumeProducing()
    assert kernel.shut == [socket.SHUT_WR]


def test_the_end_of_bytes_to_a_dead_peer_resets(plain: Wire, kernel: Kernel) -> None:
    kernel.error = errno.ENOTCONN
    plain.end()
    assert plain.transport.aborted


def test_closing_with_nothing_unsent_tells_the_transport_at_once(plain: Wire) -> None:
    plain.close()
    (reason,) = plain.transport.told_lost
    assert reason.check(ConnectionDone)


def test_closing_while_it_begins_leaves_the_end_to_the_transport(kernel: Kernel) -> None:
    """The reactor has an event for writing at hand then, too, which needs the socket."""

    class Closes(Heard):
        def begun(self, side: Side) -> None:
            beginning.close()

    beginning = Wire(Closes(), Side.SERVER)
    transport = PlainTransport(kernel)
    beginning.makeConnection(transport)
    assert transport.told_lost == []
    assert transport.disconnecting


def test_closing_waits_for_what_is_unsent(plain: Wire, kernel: Kernel) -> None:
    kernel.room = 1
    plain.write(b"abc")
    plain.close()
    assert plain.transport.disconnecting
    assert plain.transport.told_lost == []


def test_reads_grow_once_one_was_full(plain: Wire) -> None:
    plain.dataReceived(b"x" * (SMALL_READ - 1))
    assert plain.transport.bufferSize == SMALL_READ
    plain.dataReceived(b"x" * SMALL_READ)
    assert plain.transport.bufferSize == LARGE_READ
