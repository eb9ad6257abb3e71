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
from ..config import ConfigError
from ..config import Upstream as Options
from .addresses import destination, host_and_port, kind_of, target
from .dialling import Dialler
from .engine import Engine
from .opening import Opening, Plan
from .session import Session
from .tls import ClientTls
from .wire import Wire


@implementer(IProtocolFactory)
class _WireFactory:
    """Makes the one wire of one session."""

    __slots__ = ("_opening", "_session")

    def __init__(self, session: Session, opening: Opening | None) -> None:
        self._session = session
        self._opening = opening

    def doStart(self) -> None:
        """Begin nothing: the factory lives as long as one attempt to connect (IProtocolFactory)."""

    def doStop(self) -> None:
        """End nothing (IProtocolFactory)."""

    def buildProtocol(self, addr: IAddress | None) -> Wire:
        """Make the wire to the server, the session's own or for now its opening's (IProtocolFactory)."""
        user = self._session if self._opening is None else self._opening
        user.server = wire = _ServerWire(user, self._session)
        return wire


class _ServerWire(Wire):
    """Notes whom it reached before the session begins."""

    __slots__ = ("_session",)

    def __init__(self, user: Session | Opening, session: Session) -> None:
        super().__init__(user, Side.SERVER)
        self._session = session

    def connectionMade(self) -> None:
        """Name the server as it was found: the endpoint may have named it by a host name."""
        transport = self.transport
        connection = self._session.connection
        connection.resp_h, connection.resp_p = host_and_port(transport.getPeer())
        if ITCPTransport.providedBy(transport):
            # A short reply must not wait for the acknowledgement of the one before it.
            transport.setTcpNoDelay(True)
        super().connectionMade()


class Upstream:
    """The mail server, as a Twisted client endpoint string names it, and how it is spoken to."""

    _log = Logger(namespace="pop3proxy.upstream")

    def __init__(self, reactor: Any, options: Options, engine: Engine | None = None) -> None:
        """Remember where to connect; nothing is connected yet. ``engine`` may do so where it can.

        Raises ConfigError and TlsError.
        """
        self.name = endpoint = options.endpoint
        self.host, self.port = destination(endpoint)
        self.options = options
        self.tls: ClientTls | None = None
        if kind_of(endpoint) in ("tls", "ssl"):
            _refuse_tls_of_its_own(options)
        if options.tls != "plain":
            self.tls = ClientTls(options)
        self._plan = Plan.of(options, self.tls)
        self._endpoint = clientFromString(reactor, endpoint)
        numeric = target(endpoint)
        self._dialler = Dialler(engine, numeric) if engine and numeric else None

    def open(self, session: Session) -> Callable[[], None]:
        """Connect; the session hears ``begun`` or ``unreachable``. Return what gives up the attempt."""
        if self._plan is None:
            return self._connect(session, None)
        opening = Opening(session, self._plan)
        opening.connecting(self._connect(session, opening))
        return opening.give_up

    def _connect(self, session: Session, opening: Opening | None) -> Callable[[], None]:
        if self._dialler is not None:
            return self._dialler.open(session, opening)
        attempt: Deferred[Any] = self._endpoint.connect(_WireFactory(session, opening))
        attempt.addErrback(self._failed, session)
        return attempt.cancel

    def _failed(self, failure: Failure, session: Session) -> None:
        if failure.check(CancelledError) is None:
            session.unreachable(failure.getErrorMessage() or type(failure.value).__name__)


def _refuse_tls_of_its_own(options: Options) -> None:
    """Refuse an endpoint that begins TLS by itself, where something else must come first.

    Raises ConfigError.
    """
    if options.tls != "plain":
        raise ConfigError(
            [
                f'upstream: {options.endpoint} with tls = "{options.tls}" would be TLS inside TLS;'
                " write the endpoint with tcp: instead"
            ]
        )
    if options.proxy_protocol != "off":
        raise ConfigError(
            [
                f"upstream: {options.endpoint} would send the PROXY header inside TLS;"
                ' write the endpoint with tcp: and set tls = "tls"'
            ]
        )
