"""TLS straight on a socket: its handshake, and then reads and writes like a socket's; says nothing to a user.

OpenSSL reads from the socket and writes to it itself; there is no buffer of ours in between.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from OpenSSL import SSL

from .engine import READ, WRITE, Engine
from .ja4 import LONGEST
from .tls import HeardConnection

RECORD: Final = 16 * 1024
"""Octets of a TLS record at most (RFC 8446 section 5.1). OpenSSL reads and writes one a call."""

_HELLO: Final = LONGEST + 1024
"""Octets of a client's first bytes that are looked at before OpenSSL takes them."""

SHORT: Final = 2 * 1024
"""A record as short as this is a line of a dialogue: to look for another behind it would be in vain."""


class SecureStream:
    """An established TLS connection, with the ways of a socket that does not block.

    ``truncated``: the peer's bytes ended without its word, so somebody else may have ended them.
    """

    __slots__ = ("_again", "_connection", "_over", "_said_end", "truncated")

    def __init__(self, connection: SSL.Connection, again: Callable[[], None]) -> None:
        """``again`` is called when there is more to ``recv`` though the socket has nothing more to read."""
        self._connection = connection
        self._again = again
        self._over: SSL.Error | None = None  # why nothing more comes, when that is not said yet
        self._said_end = False
        self.truncated = False

    def recv(self, size: int) -> bytes:
        """Return some octets, at most so many; none at the end. ``size`` is a record's or more.

        Raises BlockingIOError if there are none yet, and OSError if the connection is broken.
        """
        if self._over is not None:
            return self._end(self._over)
        recv = self._connection.recv
        try:
            data = recv(RECORD)
        except SSL.Error as problem:
            return self._end(problem)
        left = size - len(data)
        if len(data) <= SHORT or left < RECORD:
            return data
        parts = [data]
        try:
            # With less room than for a whole record, some of it would stay inside, where nobody sees it.
            while left >= RECORD:
                data = recv(RECORD)
                parts.append(data)
                left -= len(data)
        except SSL.WantReadError:
            pass
        except SSL.Error as problem:
            self._over = problem
            self._again()
        return b"".join(parts)

    def _end(self, problem: SSL.Error) -> bytes:
        if isinstance(problem, SSL.WantReadError):
            raise BlockingIOError
        self._over = problem
        if isinstance(problem, SSL.ZeroReturnError):
            return b""
        if _is_end_of_socket(problem):
            self.truncated = True
            return b""
        # Among them WantWriteError: the peer asks for new keys, and reads nothing of what we answer.
        raise OSError("TLS is broken") from None

    @property
    def has_more(self) -> bool:
        """Whether there is more to ``recv`` though the socket may have nothing more to read."""
        return self._over is not None or self._connection.pending() > 0

    def send(self, data: bytes | memoryview) -> int:
        """Send octets, and return how many the kernel took, or OpenSSL, which had to take a record whole.

        What was not taken must be sent next, the same octets and at least as many. Raises BlockingIOError if
        none were taken, and OSError if the connection is broken.
        """
        if not data:
            return 0
        send = self._connection.send
        sent, size = 0, len(data)
        try:
            if size <= RECORD:
                return send(data)
            view = memoryview(data)
            while sent < size:
                sent += send(view[sent : sent + RECORD])
        except SSL.WantWriteError:
            if not sent:
                raise BlockingIOError from None
        except SSL.Error:
            # Among them WantReadError: the peer has sent half a message about keys, and perhaps no more.
            raise OSError("TLS is broken") from None
        return sent

    def shut_down(self) -> None:
        """Say that we send no more (close_notify); a second call does nothing.

        Raises BlockingIOError if the kernel has no room for it yet, OSError if the connection is broken.
        """
        if self._said_end:
            return
        try:
            self._connection.shutdown()
        except SSL.WantWriteError:
            raise BlockingIOError from None
        except SSL.Error:
            raise OSError("TLS is broken") from None
        self._said_end = True


def _is_end_of_socket(problem: SSL.Error) -> bool:
    if isinstance(problem, SSL.SysCallError):
        return bool(problem.args[0] <= 0)
    # OpenSSL 4 has no reason to give.
    return type(problem) is SSL.Error and not (problem.args and problem.args[0])


class Shaken(Protocol):
    """Who waits for a handshake."""

    def shaken(self, connection: SSL.Connection) -> None:
        """It is done."""

    def not_shaken(self, connection: SSL.Connection, problem: Exception) -> None:
        """It has failed."""

    def abort(self) -> None:
        """Give up because of an error of ours."""


class Handshake:
    """Watches a socket from ``start_tls`` until TLS is established, or not.

    Each of its steps begins when the socket is ready, so nobody hears of it within ``begin``.
    """

    __slots__ = (
        "_connection",
        "_descriptor",
        "_due",
        "_engine",
        "_events",
        "_hello",
        "_over",
        "_socket",
        "_wire",
    )

    def __init__(
        self,
        wire: Shaken,
        engine: Engine,
        plain: socket.socket,
        connection: SSL.Connection,
        due: memoryview | None,
        speaks_first: bool,
    ) -> None:
        """``due`` is what must be sent in clear before. ``speaks_first``: we, as TLS clients do."""
        self._wire = wire
        self._engine = engine
        self._socket = plain
        self._descriptor = plain.fileno()
        self._connection = connection
        self._hello = connection.hello if isinstance(connection, HeardConnection) else None
        self._due = due
        self._events = WRITE if speaks_first or due is not None else READ
        self._over = False

    def begin(self, watched: bool) -> None:
        """Watch the socket. ``watched``: by somebody else until now."""
        if watched:
            self._engine.change(self._descriptor, self, self._events)
        else:
            self._engine.add(self._descriptor, self, self._events)

    def ready(self, events: int) -> None:
        """Go on as far as the socket allows (Watcher)."""
        if self._over:
            return
        try:
            if self._due is not None and not self._sent():
                return
            self._listen_in()
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._watch(READ)
        except SSL.WantWriteError:
            self._watch(WRITE)
        except (SSL.Error, OSError) as problem:
            self._over = True
            self._wire.not_shaken(self._connection, problem)
        else:
            self._over = True
            self._wire.shaken(self._connection)

    def _listen_in(self) -> None:
        """Read the ClientHello along: OpenSSL, which reads from the socket itself, does not show it.

        As long as OpenSSL wants more of it, it has taken all that was there, so nothing is seen twice.
        """
        if self._hello is None:
            return
        with suppress(BlockingIOError):
            self._hello.feed(self._socket.recv(_HELLO, socket.MSG_PEEK))
        if not self._hello.wanted:
            self._hello = None

    def _sent(self) -> bool:
        assert self._due is not None
        try:
            self._due = self._due[self._socket.send(self._due) :]
        except BlockingIOError:
            return False
        if self._due:
            return False
        self._due = None
        return True

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._engine.change(self._descriptor, self, events)

    def failed(self) -> None:
        """Give up because of an error of ours (Watcher)."""
        self._wire.abort()

    def give_up(self) -> None:
        """Let the socket alone, which may be closed."""
        self._over = True
