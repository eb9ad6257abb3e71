"""A wire that is a socket, watched by the engine, plain or with TLS on it; no transport, no connecting.

For a session it is a ``Wire`` like any other. The wire and what the engine watches are one object, and
its socket is used directly: that halves what a session costs beside Twisted's transports.
"""

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from ..analyzer.events import Side
from .addresses import host_and_port_of
from .engine import BROKEN, READ, WRITE, Engine
from .secure import Handshake, SecureStream
from .tls import ClientTls, ServerTls, explained, facts
from .wire import LARGE_READ, SMALL_READ, Wire, WireUser

_RESET: Final = struct.pack("ii", 1, 0)
"""The SO_LINGER with which a close is a reset."""

# A broken connection shows in the attempt to do what we are watched for.
_READABLE: Final = READ | BROKEN
_WRITABLE: Final = WRITE | BROKEN


_NOTHING: Final = memoryview(b"")
"""What is unsent when all that waits is the end of our bytes, which TLS says in a record of its own."""

_LEFT_UNREAD: Final = 64 * 1024


def _nothing_yet(size: int) -> bytes:
    """Stand in for ``recv`` while the socket is the handshake's."""
    raise BlockingIOError


class PlainWire(Wire):
    """A byte stream to one peer over a socket of our own.

    TLS changes what receives and sends, and nothing else: what it is not on pays nothing for it.
    """

    __slots__ = (
        "_closing",
        "_descriptor",
        "_engine",
        "_events",
        "_handshake",
        "_heard_all",
        "_pending",
        "_recv",
        "_size",
        "_stream",
    )

    def __init__(
        self, user: WireUser, side: Side, engine: Engine, connection: socket.socket
    ) -> None:
        """Take a connected socket that does not block."""
        super().__init__(user, side)
        self._socket = connection
        self._recv: Callable[[int], bytes] = connection.recv
        self._send = connection.send
        self._descriptor = connection.fileno()
        self._engine = engine
        self._events = 0  # that we are watched for
        self._size = SMALL_READ
        self._pending: memoryview | None = None  # what is unsent
        self._closing = False  # once that is gone
        self._heard_all = False
        self._handshake: Handshake | None = None  # as long as the socket is its
        self._stream: SecureStream | None = None  # TLS, once it is established

    def begin(self, watched: bool = False) -> None:
        """Say that the wire is up, and read. ``watched``: by somebody else until now.

        Whatever is raised on the way comes out again, after a reset.
        """
        self._events = READ
        try:
            if watched:
                self._engine.change(self._descriptor, self, READ)
            else:
                self._engine.add(self._descriptor, self, READ)
            self.connectionMade()
        except BaseException:
            self.abort()
            raise

    @property
    def here(self) -> tuple[str, int]:
        """Host and port of our end; none once the wire is gone."""
        return ("", 0) if self._socket is None else host_and_port_of(self._socket.getsockname())

    # --- what a session does with it --------------------------------------------------------------------

    def _queue(self, data: bytes) -> None:
        """Send behind what is unsent; a wire that is gone sends nothing."""
        if self._pending is not None:
            self._pending = memoryview(b"".join((self._pending, data)))
        elif self._handshake is not None and data:
            self._pending = memoryview(data)
            self.unsent = True

    def _leave(self, data: bytes, sent: int) -> None:
        """Keep what the kernel did not take until it takes more."""
        # A view: a copy of what may be nearly all of a large chunk would cost a tenth of its way.
        self._pending = memoryview(data)[sent:]
        self.unsent = True
        self._watch(self._events | WRITE)

    def pause(self) -> None:
        """Stop reading."""
        self._watch(self._events & ~READ)

    def resume(self) -> None:
        """Read on."""
        if self._socket is not None and not self._closing and not self._heard_all:
            self._watch(self._events | READ)
            if self._stream is not None and self._stream.has_more:
                self._read_again()

    def _read_again(self) -> None:
        """Read though the socket may have nothing more: TLS has."""
        self._engine.wake(self, READ)

    def end(self) -> None:
        """Send what is unsent and then the end of our bytes; go on reading."""
        if self._handshake is not None:
            self._end_due = True
        else:
            super().end()

    def _shut_down(self) -> None:
        if self._stream is None:
            super()._shut_down()
            return
        try:
            self._stream.shut_down()
        except BlockingIOError:
            self._end_due = True
            self._wait_to_say_end()
        except OSError:
            self.abort()

    def _wait_to_say_end(self) -> None:
        self._pending = _NOTHING
        self.unsent = True
        self._watch(self._events | WRITE)

    def close(self) -> None:
        """Send what is unsent, then close."""
        if self._socket is None:
            return
        if self._handshake is not None:
            self._lose(False)
        elif self.unsent:
            self._closing = True
            self._watch(WRITE)
        else:
            self._part()

    def _part(self) -> None:
        """Close, as all is sent; TLS says so first."""
        if self._stream is not None:
            try:
                self._stream.shut_down()
            except BlockingIOError:
                self._closing = True
                self._wait_to_say_end()
                self._watch(WRITE)
                return
            except OSError:
                self._lose(False)
                return
        self._lose(True)

    def abort(self) -> None:
        """Reset: drop what is unsent. The loss is reported later, as whoever writes may be half-way."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._let_go()
        self._engine.soon(self._gone, False)

    failed = abort

    def start_tls(self, tls: ServerTls | ClientTls) -> None:
        """Send what is unsent, then turn TLS on; the user hears ``secured`` or ``insecure``, and not yet."""
        plain = self._socket
        if plain is None or self._closing:
            return
        assert self._handshake is None
        assert self._stream is None
        self._tls = tls
        due, self._pending = self._pending, None
        self._recv, self._send = _nothing_yet, None
        first = isinstance(tls, ClientTls)
        self._handshake = Handshake(self, self._engine, plain, tls.connection(plain), due, first)
        self._handshake.begin(bool(self._events))
        self._events &= READ

    # --- what a handshake says --------------------------------------------------------------------------

    def shaken(self, connection: SSL.Connection) -> None:
        """Go on inside TLS (Shaken)."""
        assert self._tls is not None
        why = self._tls.problem(connection)
        if why:
            self._fail(why)
            return
        self._handshake = self._tls = None
        self.tls = facts(connection, self._side is Side.CLIENT)
        self._stream = stream = SecureStream(connection, self._read_again)
        self._recv, self._send = stream.recv, stream.send
        waited = self.unsent
        self.unsent = self._pending is not None
        if self.unsent:
            self._events |= WRITE
        if self._events:
            self._engine.change(self._descriptor, self, self._events)
        else:
            self._engine.remove(self._descriptor)
        if self._user is not None:
            self._user.secured(self._side)
        if self._socket is not None and not self.unsent and (waited or self._end_due):
            self._drained()

    def not_shaken(self, connection: SSL.Connection, problem: Exception) -> None:
        """Give up: there is no TLS, and nothing is said without (Shaken)."""
        self._fail(explained(problem, connection))

    def _fail(self, why: str) -> None:
        assert self._socket is not None
        # What is left unread would make the kernel reset the connection, and an alert get lost.
        with contextlib.suppress(OSError):
            self._socket.recv(_LEFT_UNREAD)
        self._let_go()
        self._insecure(why)

    # --- what the engine says ---------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Send what is unsent, read what has come (Watcher).

        While we wait for nothing, the engine does not know us: a reset would wake it again and again.
        """
        if self._pending is not None and events & _WRITABLE:
            self._flush()
        if not (self._events & READ and events & _READABLE):
            return
        # We are watched, so socket and user are there: no check for each chunk.
        try:
            data = self._recv(self._size)
        except BlockingIOError:
            return
        except OSError:
            self._lose(False)
            return
        if data:
            if len(data) == SMALL_READ:
                self._size = LARGE_READ
            self._user.data(self._side, data)  # type: ignore[union-attr]
        else:
            self._heard_all = True
            if self._stream is not None:
                self.truncated = self._stream.truncated
            self._watch(self._events & ~READ)
            self._user.ended(self._side)  # type: ignore[union-attr]

    def _flush(self) -> None:
        assert self._pending is not None
        try:
            count = self._send(self._pending) if self._pending else 0
        except BlockingIOError:
            return
        except OSError:
            self._lose(False)
            return
        if count < len(self._pending):
            self._pending = self._pending[count:]
            return
        self._pending = None
        self.unsent = False
        if self._closing:
            self._part()
            return
        self._watch(self._events & ~WRITE)
        self._drained()

    def _watch(self, events: int) -> None:
        before = self._events
        if events == before:
            return
        self._events = events
        if self._handshake is not None:
            return
        if not before:
            self._engine.add(self._descriptor, self, events)
        elif events:
            self._engine.change(self._descriptor, self, events)
        else:
            self._engine.remove(self._descriptor)

    def _lose(self, clean: bool) -> None:
        self._let_go()
        self._gone(clean)

    def _let_go(self) -> None:
        """Close the socket; nothing that is asked of us has an effect from now on."""
        assert self._socket is not None
        if self._events or self._handshake is not None:
            self._events = 0
            self._engine.remove(self._descriptor)
        if self._handshake is not None:
            self._handshake.give_up()
        self._socket.close()
        # OpenSSL knows the socket by its number, which may be another's from now on.
        self._recv = _nothing_yet
        self._socket = self._send = self._pending = self._handshake = self._stream = None
        self.unsent = False
