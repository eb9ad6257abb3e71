"""The way from a session to its mail server: connects, and hands the session its second wire."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IAddress, IProtocolFactory, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..analyzer.events import Side
from .addresses import destination, host_and_port, target
from .dialling import Dialler
from .engine import Engine
from .session import Session
from .wire import Wire


@implementer(IProtocolFactory)
class _WireFactory:
    """Makes the one wire of one session."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def doStart(self) -> None:
        """Begin nothing: the factory lives as long as one attempt to connect (IProtocolFactory)."""

    def doStop(self) -> None:
        """End nothing (IProtocolFactory)."""

    def buildProtocol(self, addr: IAddress | None) -> Wire:
        """Make the session's wire to the server (IProtocolFactory)."""
        wire = _ServerWire(self._session, Side.SERVER)
        self._session.server = wire
        return wire


class _ServerWire(Wire):
    """Notes whom it reached before the session begins."""

    __slots__ = ()

    def connectionMade(self) -> None:
        """Name the server as it was found: the endpoint may have named it by a host name."""
        transport = self.transport
        session = self._user
        assert isinstance(session, Session)
        connection = session.connection
        connection.resp_h, connection.resp_p = host_and_port(transport.getPeer())
        if ITCPTransport.providedBy(transport):
            # A short reply must not wait for the acknowledgement of the one before it.
            transport.setTcpNoDelay(True)
        super().connectionMade()


class Upstream:
    """The mail server, as a Twisted client endpoint string names it."""

    _log = Logger(namespace="pop3proxy.upstream")

    def __init__(self, reactor: Any, endpoint: str, engine: Engine | None = None) -> None:
        """Remember where to connect; nothing is connected yet. ``engine`` may do so where it can."""
        self.name = endpoint
        self.host, self.port = destination(endpoint)
        self._endpoint = clientFromString(reactor, endpoint)
        numeric = target(endpoint)
        self._dialler = Dialler(engine, numeric) if engine and numeric else None

    def open(self, session: Session) -> Callable[[], None]:
        """Connect; the session hears ``begun`` or ``unreachable``. Return what gives up the attempt."""
        if self._dialler is not None:
            return self._dialler.open(session)
        attempt: Deferred[Any] = self._endpoint.connect(_WireFactory(session))
        attempt.addErrback(self._failed, session)
        return attempt.cancel

    def _failed(self, failure: Failure, session: Session) -> None:
        if failure.check(CancelledError) is None:
            session.unreachable(failure.getErrorMessage() or type(failure.value).__name__)
