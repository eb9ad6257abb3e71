"""Accepts the clients of a TCP port without the reactor's transports; does not decide who may come in."""

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from .engine import READ, Engine

AT_ONCE: Final = 64
"""Clients that are accepted before those already inside have their turn."""

ACCEPT_AGAIN: Final = 0.5
"""Seconds until the next attempt when the system has no room: descriptors are given back by sessions that
end, and clients wait in the kernel's queue meanwhile."""

# What is wrong with one client, or with the network between us: accept(2) says to try the next.
_THEIRS: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EPERM",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "ENETUNREACH",
    )
    if hasattr(errno, name)
)

Welcome = Callable[[socket.socket, Any], None]
"""Takes a client's socket, which does not block, and its address."""


def can_take_over(port: IListeningPort, factory: object) -> bool:
    """Tell whether a port's clients come in over plain TCP, and straight to ``factory``.

    An endpoint may put a protocol of its own between, as ``ssl:`` and ``haproxy:`` do; then the port has
    another factory, and only the port knows how to accept.
    """
    return (
        getattr(port, "factory", None) is factory
        and isinstance(port.getHost(), IPv4Address | IPv6Address)
        and hasattr(port, "stopReading")
        and hasattr(port, "fileno")
    )


class Acceptor:
    """Accepts in a port's stead. The port keeps its own descriptor of the socket, and closes it."""

    _log = Logger(namespace="pop3proxy.listeners")

    def __init__(self, port: Any, engine: Engine, welcome: Welcome) -> None:
        """Stop the port from accepting, and begin."""
        port.stopReading()
        family = socket.AF_INET6 if isinstance(port.getHost(), IPv6Address) else socket.AF_INET
        self._socket: socket.socket | None = socket.fromfd(
            port.fileno(), family, socket.SOCK_STREAM
        )
        self._socket.setblocking(False)
        self._engine = engine
        self._welcome = welcome
        self._rest: Any = None
        self._said = False
        engine.add(self._socket.fileno(), self, READ)

    def stop(self) -> None:
        """Accept nobody from now on. Who waits in the kernel's queue is reset when the port closes."""
        if self._socket is None:
            return
        if self._rest is None:
            self._engine.remove(self._socket.fileno())
        else:
            self._rest.cancel()
            self._rest = None
        self._socket.close()
        self._socket = None

    def ready(self, events: int) -> None:
        """Accept who waits (Watcher)."""
        for _ in range(AT_ONCE):
            if self._socket is None or self._rest is not None:
                return
            try:
                client, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno not in _THEIRS:
                    self._pause(problem.strerror or str(problem))
                continue
            if self._said:
                self._said = False
                self._log.info("clients are accepted again")
            try:
                client.setblocking(False)
                self._welcome(client, address)
            except BaseException as problem:
                client.close()
                self._engine.report(problem)

    def failed(self) -> None:
        """Try again later after an error of ours (Watcher)."""
        if self._socket is not None and self._rest is None:
            self._pause("an error of the proxy")

    def _pause(self, why: str) -> None:
        """Look away for a while: the queue stays ready, and trying would be all that is done."""
        assert self._socket is not None
        self._engine.remove(self._socket.fileno())
        self._rest = self._engine.reactor.callLater(ACCEPT_AGAIN, self._resume)
        if not self._said:
            self._said = True
            self._log.error("cannot accept clients: {why}; they wait", why=why)

    def _resume(self) -> None:
        assert self._socket is not None
        self._rest = None
        self._engine.add(self._socket.fileno(), self, READ)
