"""Where clients come in: accepts them, within limits, and gives each a session."""

import socket
from collections import Counter
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from zope.interface import implementer

from ..config import ConnectionLimits
from .addresses import host_and_port
from .session import TRY_LATER, Session


class SessionMaker(Protocol):
    """Who makes sessions."""

    def session(self, host: str, port: int, listener: str) -> Session:
        """Make the session of a client that has connected."""

    def count(self, what: str) -> int:
        """Count something worth knowing; return the count."""


class Admission:
    """Who may come in: so many sessions in all, so many from one address."""

    def __init__(self, limits: ConnectionLimits) -> None:
        """Begin with nobody inside."""
        self._limits = limits
        self._inside = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, host: str) -> str:
        """Let a client in and return ``""``, or name the limit that keeps it out."""
        limits = self._limits
        if self._inside >= limits.connections:
            return "connections"
        if limits.connections_per_address:
            if self._by_address[host] >= limits.connections_per_address:
                return "connections_per_address"
            self._by_address[host] += 1
        self._inside += 1
        return ""

    def leave(self, host: str) -> None:
        """Let a client out that was let in."""
        self._inside -= 1
        if self._limits.connections_per_address:
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]


class _Refusal(TwistedProtocol):
    """Tells a client that there is no room, and closes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(TRY_LATER % b"too many connections, please try again later")
        self.transport.loseConnection()


@implementer(IProtocolFactory)
class Listener:
    """Accepts the clients of one endpoint."""

    _log = Logger(namespace="pop3proxy.listeners")

    def __init__(self, name: str, admission: Admission, maker: SessionMaker) -> None:
        """Take the endpoint string as the listener's name."""
        self.name = name
        self._admission = admission
        self._maker = maker

    def doStart(self) -> None:
        """Begin nothing: the service says that it listens (IProtocolFactory)."""

    def doStop(self) -> None:
        """End nothing: sessions outlive their listener (IProtocolFactory)."""

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """Make a client's wire, or a refusal (IProtocolFactory)."""
        host, port = host_and_port(addr)
        limit = self._admission.enter(host)
        if not limit:
            return self._maker.session(host, port, self.name).client
        count = self._maker.count(f"refused_{limit}")
        self._log.info(
            "limit {limit} reached: refused {host}:{port}; {count} by now",
            limit=limit,
            host=host,
            port=port,
            count=count,
        )
        return _Refusal()


def send_at_once(port: IListeningPort) -> None:
    """Switch Nagle's algorithm off for all that a TCP listener accepts: they inherit the option.

    A short reply must not wait for the acknowledgement of the one before it.
    """
    if getattr(port.getHost(), "type", "") != "TCP" or not hasattr(port, "fileno"):
        return
    descriptor: Any = port
    with socket.fromfd(descriptor.fileno(), socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
