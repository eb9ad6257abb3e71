"""A wire that is a plain socket, watched by the engine; no transport, no TLS, no connecting.

For a session it is a ``Wire`` like any other. The wire and what the engine watches are one object, and
its socket is used directly: that halves what a session costs beside Twisted's transports.
"""

import contextlib
import socket
import struct
from typing import Final

from ..analyzer.events import Side
from .engine import BROKEN, READ, WRITE, Engine
from .wire import LARGE_READ, SMALL_READ, Wire, WireUser

_RESET: Final = struct.pack("ii", 1, 0)
"""The SO_LINGER with which a close is a reset."""

# A broken connection shows in the attempt to do what we are watched for.
_READABLE: Final = READ | BROKEN
_WRITABLE: Final = WRITE | BROKEN


class PlainWire(Wire):
    """A byte stream to one peer over a socket of our own."""

    __slots__ = ("_closing", "_descriptor", "_engine", "_events", "_heard_all", "_pending", "_size")

    def __init__(
        self, user: WireUser, side: Side, engine: Engine, connection: socket.socket
    ) -> None:
        """Take a connected socket that does not block."""
        super().__init__(user, side)
        self._socket = connection
        self._send = connection.send
        self._descriptor = connection.fileno()
        self._engine = engine
        self._events = 0  # that we are watched for
        self._size = SMALL_READ
        self._pending: memoryview | None = None  # what is unsent
        self._closing = False  # once that is gone
        self._heard_all = False

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
        except Exception:
            self.abort()
            raise

    # --- what a session does with it --------------------------------------------------------------------

    def _queue(self, data: bytes) -> None:
        """Send behind what is unsent; a wire that is gone sends nothing."""
        if self._pending is not None:
            self._pending = memoryview(b"".join((self._pending, data)))

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

    def close(self) -> None:
        """Send what is unsent, then close."""
        if self._socket is None:
            return
        if self.unsent:
            self._closing = True
            self._watch(WRITE)
        else:
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
            data = self._socket.recv(self._size)  # type: ignore[union-attr]
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
            self._watch(self._events & ~READ)
            self._user.ended(self._side)  # type: ignore[union-attr]

    def _flush(self) -> None:
        assert self._pending is not None
        try:
            count = self._send(self._pending)
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
            self._lose(True)
            return
        self._watch(self._events & ~WRITE)
        self._drained()

    def _watch(self, events: int) -> None:
        before = self._events
        if events == before:
            return
        self._events = events
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
        if self._events:
            self._events = 0
            self._engine.remove(self._descriptor)
        self._socket.close()
        self._socket = self._send = self._pending = None
        self.unsent = False
