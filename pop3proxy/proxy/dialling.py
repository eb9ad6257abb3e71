"""Connects to a mail server at an IP address over TCP; what an endpoint alone can do is not done here."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from ..analyzer.events import SERVER
from .addresses import Target, host_and_port_of
from .engine import BROKEN, WRITE, Engine
from .plainwire import PlainWire
from .wire import Wire, WireUser

_UNDER_WAY = (errno.EINPROGRESS, errno.EINTR)


class Caller(WireUser, Protocol):
    """Who wants to be connected."""

    def reached(self, wire: Wire, host: str, port: int) -> None:
        """This is the wire, and this is whom it has reached; ``begun`` comes next."""

    def unreachable(self, why: str) -> None:
        """There will be no wire. ``why`` is one line."""


class Dialler:
    """Connects to one address."""

    def __init__(self, engine: Engine, target: Target) -> None:
        """Remember where to connect; nothing is connected yet."""
        self.engine = engine
        self.target = target
        self.resp_h, self.resp_p = host_and_port_of(target.address)

    def open(self, caller: Caller) -> Callable[[], None]:
        """Connect; the caller hears ``reached`` or ``unreachable``. Return what gives up the attempt."""
        attempt = _Attempt(self, caller)
        try:
            attempt.begin()
        except OSError as problem:
            attempt.fail(os.strerror(problem.errno or 0))
        return attempt.give_up


class _Attempt:
    """One connection that is being made."""

    __slots__ = ("_caller", "_dialler", "_limit", "_socket")

    def __init__(self, dialler: Dialler, caller: Caller) -> None:
        self._dialler = dialler
        self._caller: Caller | None = caller
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
        """Hand the caller its wire, or tell it why there is none (Watcher)."""
        connection, caller = self._socket, self._caller
        if connection is None or caller is None:
            return
        if events & BROKEN:
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.fail(os.strerror(number))
                return
        self._limit.cancel()
        self._caller = self._socket = self._limit = None
        dialler = self._dialler
        wire = PlainWire(caller, SERVER, dialler.engine, connection)
        caller.reached(wire, dialler.resp_h, dialler.resp_p)
        wire.begin(watched=True)

    def _too_late(self) -> None:
        self.fail(f"no answer within {self._dialler.target.timeout} seconds")

    def fail(self, why: str) -> None:
        """Tell the caller why it gets no wire."""
        caller = self._caller
        self.give_up()
        if caller is not None:
            caller.unreachable(why)

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
        self._caller = self._socket = self._limit = None
