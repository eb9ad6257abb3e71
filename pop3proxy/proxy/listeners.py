"""Where clients come in: accepts them, within limits, and gives each a session."""

import contextlib
import socket
from collections import Counter
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from zope.interface import implementer

from ..analyzer.events import Side
from ..config import ConnectionLimits
from .accepting import Acceptor, can_take_over
from .addresses import host_and_port, host_and_port_of
from .engine import Engine
from .plainwire import PlainWire
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


_NO_ROOM = TRY_LATER % b"too many connections, please try again later"


class _Refusal(TwistedProtocol):
    """Tells a client that there is no room, and closes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(_NO_ROOM)
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
        session = self._session(*host_and_port(addr))
        return _Refusal() if session is None else session.client

    def take_over(self, port: IListeningPort, engine: Engine) -> Acceptor | None:
        """Have the engine accept in the port's stead, if it can."""
        if not can_take_over(port, self):
            return None

        def welcome(connection: socket.socket, address: Any) -> None:
            session = self._session(*host_and_port_of(address))
            if session is None:
                with connection, contextlib.suppress(OSError):
                    connection.send(_NO_ROOM)
                return
            session.client = wire = PlainWire(session, Side.CLIENT, engine, connection)
            wire.begin()

        return Acceptor(port, engine, welcome)

    def _session(self, host: str, port: int) -> Session | None:
        """Make a client's session, or say that there is no room for one."""
        limit = self._admission.enter(host)
        if not limit:
            try:
                return self._maker.session(host, port, self.name)
            except Exception:
                self._admission.leave(host)
                raise
        count = self._maker.count(f"refused_{limit}")
        self._log.info(
            "limit {limit} reached: refused {host}:{port}; {count} by now",
            limit=limit,
            host=host,
            port=port,
            count=count,
        )
        return None


def send_at_once(port: IListeningPort) -> None:
    """Switch Nagle's algorithm off for all that a TCP listener accepts: they inherit the option.

    A short reply must not wait for the acknowledgement of the one before it.
    """
    if getattr(port.getHost(), "type", "") != "TCP" or not hasattr(port, "fileno"):
        return
    descriptor: Any = port
    with socket.fromfd(descriptor.fileno(), socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
