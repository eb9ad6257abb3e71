"""One side of a session as a plain socket: everything here goes over real TCP connections."""

import errno
import socket
from collections.abc import Iterator

import pytest
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.analyzer.events import Side
from pop3proxy.proxy.plainwire import PlainWire
from pop3proxy.proxy.wire import LARGE_READ, SMALL_READ

from .live import receive, receive_all, reset
from .loop import Heard, Loop, tcp_pair

SIDE = Side.CLIENT
MUCH = bytes(range(256)) * 64 * 1024
"""More than the kernel takes for a peer that does not read."""


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: the wire's and the peer's."""
    ours, theirs = tcp_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def peer(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[1]


@pytest.fixture
def wire(loop: Loop, heard: Heard, ends: tuple[socket.socket, socket.socket]) -> PlainWire:
    """A wire that is up."""
    wire = PlainWire(heard, SIDE, loop.engine, ends[0])
    wire.begin()
    assert heard.all == [("begun", SIDE)]
    heard.all.clear()
    return wire


def write_until_full(wire: PlainWire) -> bytes:
    """Write until something is unsent; return all that was written."""
    written = b""
    while not wire.unsent:
        wire.write(MUCH)
        written += MUCH
    return written


def read_while_turning(loop: Loop, peer: socket.socket, size: int) -> bytes:
    """Read as the peer, letting the wire send what it kept."""
    data = bytearray()
    while len(data) < size:
        data += peer.recv(1 << 20)
        loop.turn()
    return bytes(data)


def read_to_the_end(peer: socket.socket) -> None:
    while peer.recv(1 << 20):
        pass


# --- reading ------------------------------------------------------------------------------------------


def test_bytes_are_reported(loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard) -> None:
    peer.sendall(b"USER bob\r\n")
    loop.until(lambda: heard.octets)
    assert heard.all == [("data", SIDE, b"USER bob\r\n")]


def test_reads_grow_once_one_was_full(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    peer.settimeout(0)
    size = 0
    while size < 2 * LARGE_READ:
        try:
            size += peer.send(MUCH)
        except BlockingIOError:
            break
    loop.until(lambda: len(heard.octets) >= size)
    sizes = [len(what[2]) for what in heard.all]
    assert sizes[0] == SMALL_READ
    assert SMALL_READ < max(sizes) <= LARGE_READ


def test_a_paused_wire_reads_nothing_until_it_is_resumed(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    wire.pause()
    peer.sendall(b"x")
    assert not loop.turn()
    wire.resume()
    loop.until(lambda: heard.octets == b"x")


def test_a_pause_holds_for_what_is_ready_in_the_same_batch(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    wire.pause()
    peer.sendall(b"x")
    wire.ready(1)
    assert heard.all == []


def test_a_peer_that_resets_a_paused_wire_does_not_wake_it(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    wire.pause()
    reset(peer)
    assert not loop.turn()
    wire.resume()
    loop.until(lambda: heard.all)
    assert heard.all == [("lost", SIDE, False)]


# --- writing ------------------------------------------------------------------------------------------


def test_bytes_are_sent_at_once(wire: PlainWire, peer: socket.socket) -> None:
    wire.write(b"+OK\r\n")
    assert receive(peer, 5) == b"+OK\r\n"
    assert not wire.unsent


def test_what_the_kernel_does_not_take_is_sent_when_the_peer_reads(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    written = write_until_full(wire)
    assert heard.all == []
    assert read_while_turning(loop, peer, len(written)) == written
    loop.until(lambda: heard.all)
    assert heard.all == [("drained", SIDE)]
    assert not wire.unsent


def test_nothing_overtakes_what_is_unsent(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    written = write_until_full(wire)
    wire.write(b"later")
    wire.write(b"and later")
    written += b"laterand later"
    assert read_while_turning(loop, peer, len(written)) == written
    loop.until(lambda: "drained" in heard.names)
    wire.write(b"last")
    assert receive(peer, 4) == b"last"


def test_a_wire_whose_peer_reads_nothing_does_not_wake(loop: Loop, wire: PlainWire) -> None:
    write_until_full(wire)
    while loop.turn():
        pass
    assert not loop.turn()


def test_a_wire_reads_while_it_has_something_unsent(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    write_until_full(wire)
    peer.sendall(b"x")
    loop.until(lambda: heard.octets == b"x")
    assert wire.unsent


def test_a_paused_wire_sends_what_is_unsent_and_stays_paused(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    written = write_until_full(wire)
    wire.pause()
    peer.sendall(b"x")
    assert read_while_turning(loop, peer, len(written)) == written
    loop.until(lambda: "drained" in heard.names)
    assert heard.octets == b""


def test_a_peer_that_resets_while_something_is_unsent_is_lost(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    write_until_full(wire)
    wire.pause()
    reset(peer)
    loop.until(lambda: heard.all)
    assert heard.all == [("lost", SIDE, False)]


def test_a_write_to_a_dead_peer_is_reported_later_and_once(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    wire.pause()
    reset(peer)
    for _ in range(3):
        wire.write(b"+OK\r\n")
    assert heard.all == []
    loop.turn()
    assert heard.all == [("lost", SIDE, False)]


# --- the ends -----------------------------------------------------------------------------------------


def test_the_peers_end_is_reported_once_and_we_can_still_write(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    peer.sendall(b"QUIT\r\n")
    peer.shutdown(socket.SHUT_WR)
    loop.until(lambda: "ended" in heard.names)
    assert heard.all == [("data", SIDE, b"QUIT\r\n"), ("ended", SIDE)]
    wire.write(b"+OK bye\r\n")
    assert receive(peer, 9) == b"+OK bye\r\n"
    wire.resume()
    assert not loop.turn()
    assert heard.names.count("ended") == 1


def test_after_our_end_we_still_read(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    wire.end()
    assert receive_all(peer) == b""
    peer.sendall(b"late")
    loop.until(lambda: heard.octets == b"late")


def test_our_end_waits_for_what_is_unsent(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    written = write_until_full(wire)
    wire.end()
    assert read_while_turning(loop, peer, len(written)) == written
    loop.until(lambda: "drained" in heard.names)
    assert receive_all(peer) == b""
    assert "lost" not in heard.names


def test_our_end_to_a_dead_peer_is_a_loss(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    wire.pause()
    reset(peer)
    wire.end()
    loop.turn()
    assert heard.all == [("lost", SIDE, False)]


def test_closing_is_reported_at_once(wire: PlainWire, peer: socket.socket, heard: Heard) -> None:
    wire.close()
    assert heard.all == [("lost", SIDE, True)]
    assert receive_all(peer) == b""


def test_closing_waits_for_what_is_unsent(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    written = write_until_full(wire)
    wire.close()
    assert read_while_turning(loop, peer, len(written)) == written
    loop.until(lambda: heard.all)
    assert heard.all == [("lost", SIDE, True)]
    assert receive_all(peer) == b""


def test_a_wire_that_closes_reads_no_more(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    write_until_full(wire)
    wire.close()
    wire.resume()
    peer.sendall(b"late")
    while loop.turn():
        pass
    assert heard.all == []
    wire.abort()


def test_a_reset_reaches_the_peer_at_once_and_the_user_later(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    write_until_full(wire)
    wire.abort()
    assert heard.all == []
    with pytest.raises(ConnectionResetError):
        read_to_the_end(peer)
    loop.turn()
    assert heard.all == [("lost", SIDE, False)]


def test_nothing_that_is_asked_of_a_wire_that_is_gone_has_an_effect(
    loop: Loop, wire: PlainWire, heard: Heard
) -> None:
    wire.close()
    heard.all.clear()
    wire.write(b"x")
    wire.pause()
    wire.resume()
    wire.end()
    wire.close()
    wire.abort()
    wire.ready(1 | 4 | 8 | 16)
    assert not loop.turn()
    assert heard.all == []
    assert not wire.unsent


# --- errors of ours -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["data", "ended"])
def test_an_error_of_the_user_resets_its_wire_and_no_other(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard, where: str
) -> None:
    other_heard = Heard()
    ours, theirs = tcp_pair()
    heard.raises.add(where)
    with theirs:
        other = PlainWire(other_heard, Side.SERVER, loop.engine, ours)
        other.begin()
        peer.sendall(b"x")
        theirs.sendall(b"y")
        peer.shutdown(socket.SHUT_WR)
        with capturedLogs() as log:
            loop.until(lambda: "lost" in heard.names and other_heard.octets)
        assert heard.all[-1] == ("lost", SIDE, False)
        assert other_heard.octets == b"y"
        other.write(b"z")
        assert receive(theirs, 1) == b"z"
        other.close()
    (entry,) = log
    assert "RuntimeError" in formatEvent(entry)
    assert "password" not in formatEvent(entry)


def test_an_error_of_the_user_about_the_loss_leaves_nothing_open(
    loop: Loop, wire: PlainWire, peer: socket.socket, heard: Heard
) -> None:
    heard.raises.add("lost")
    reset(peer)
    with capturedLogs() as log:
        loop.until(lambda: heard.all)
    assert len(log) == 1
    assert not loop.turn()


def test_an_error_of_the_user_about_the_beginning_resets(
    loop: Loop, heard: Heard, ends: tuple[socket.socket, socket.socket]
) -> None:
    heard.raises.add("begun")
    wire = PlainWire(heard, SIDE, loop.engine, ends[0])
    with pytest.raises(RuntimeError):
        wire.begin()
    with pytest.raises(ConnectionResetError):
        ends[1].recv(1)
    loop.turn()
    assert heard.all[-1] == ("lost", SIDE, False)


def test_a_wire_that_the_system_will_not_watch_is_reset_and_lost(
    loop: Loop,
    heard: Heard,
    ends: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "too many watches")

    wire = PlainWire(heard, SIDE, loop.engine, ends[0])
    with monkeypatch.context() as patch:
        patch.setattr(loop.engine, "add", full)
        with pytest.raises(OSError, match="too many watches"):
            wire.begin()
    loop.turn()
    assert heard.all == [("lost", SIDE, False)]
