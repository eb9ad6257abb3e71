"""Connects to a mail server at an IP address over TCP; what an endpoint alone can do is not done here."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from ..analyzer.events import Side
from .addresses import Target, host_and_port_of
from .engine import BROKEN, WRITE, Engine
from .opening import Opening
from .plainwire import PlainWire
from .session import Session

_UNDER_WAY = (errno.EINPROGRESS, errno.EINTR)


class Dialler:
    """Connects sessions to one address."""

    def __init__(self, engine: Engine, target: Target) -> None:
        """Remember where to connect; nothing is connected yet."""
        self.engine = engine
        self.target = target
        self.resp_h, self.resp_p = host_and_port_of(target.address)

    def open(self, session: Session, opening: Opening | None = None) -> Callable[[], None]:
        """Connect; the session hears ``begun`` or ``unreachable``. Return what gives up the attempt.

        The wire is the opening's, if there is one, and the session's only when that hands it over.
        """
        attempt = _Attempt(self, session, opening)
        try:
            attempt.begin()
        except OSError as problem:
            attempt.fail(os.strerror(problem.errno or 0))
        return attempt.give_up


class _Attempt:
    """One connection that is being made."""

    __slots__ = ("_dialler", "_limit", "_opening", "_session", "_socket")

    def __init__(self, dialler: Dialler, session: Session, opening: Opening | None) -> None:
        self._dialler = dialler
        self._opening = opening
        self._session: Session | None = session
        self._socket: socket.socket | None = None
        self._limit: Any = None

    def begin(self) -> None:
        """Begin to connect. Raises OSError."""
        target = self._dialler.target
        engine = self._dialler.engine
        self._socket = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if target.bind is not None:
            self._socket.bind(target.bind)
        # A short command must not wait for the acknowledgement of the one before it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = self._socket.connect_ex(target.address)
        if number and number not in _UNDER_WAY:
            raise OSError(number, os.strerror(number))
        engine.add(self._socket.fileno(), self, WRITE)
        self._limit = engine.reactor.callLater(target.timeout, self._too_late)

    def ready(self, events: int) -> None:
        """Hand the session its wire, or tell it why there is none (Watcher)."""
        connection, session = self._socket, self._session
        if connection is None or session is None:
            return
        if events & BROKEN:
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.fail(os.strerror(number))
                return
        self._limit.cancel()
        self._session = self._socket = self._limit = None
        dialler = self._dialler
        session.connection.resp_h, session.connection.resp_p = dialler.resp_h, dialler.resp_p
        user = session if self._opening is None else self._opening
        user.server = wire = PlainWire(user, Side.SERVER, dialler.engine, connection)
        wire.begin(watched=True)

    def _too_late(self) -> None:
        self.fail(f"no answer within {self._dialler.target.timeout} seconds")

    def fail(self, why: str) -> None:
        """Tell the session why it gets no wire."""
        session = self._session
        self.give_up()
        if session is not None:
            session.unreachable(why)

    def failed(self) -> None:
        """Give up because of an error of ours (Watcher)."""
        self.fail("an error of the proxy")

    def give_up(self) -> None:
        """Connect no longer, and say nothing; too late, it does nothing."""
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if self._socket is not None:
            self._dialler.engine.remove(self._socket.fileno())
            self._socket.close()
        self._session = self._socket = self._limit = None
