"""The way from a session to its mail server: connects, and hands the session its second wire."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from .. import config
from ..analyzer.events import SERVER
from .addresses import destination, host_and_port, kind_of, target
from .dialling import Caller, Dialler
from .engine import Engine
from .opening import Opening
from .session import Session
from .tls import ClientTls
from .wire import Wire


@implementer(IProtocolFactory)
class _WireFactory:
    """Makes the one wire of one caller."""

    __slots__ = ("_caller", "wire")

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.wire: _ServerWire | None = None

    def doStart(self) -> None:
        """Begin nothing: the factory lives as long as one attempt to connect (IProtocolFactory)."""

    def doStop(self) -> None:
        """End nothing (IProtocolFactory)."""

    def buildProtocol(self, addr: IAddress | None) -> Wire:
        """Make the wire to the server (IProtocolFactory)."""
        self.wire = _ServerWire(self._caller, SERVER)
        return self.wire


class _ServerWire(Wire):
    """Notes whom it reached before anything begins."""

    __slots__ = ()

    def connectionMade(self) -> None:
        """Name the server as it was found: the endpoint may have named it by a host name."""
        transport: Any = self.transport
        caller: Any = self._user
        if caller is not None:
            caller.reached(self, *host_and_port(transport.getPeer()))
        if ITCPTransport.providedBy(transport):
            # A short reply must not wait for the acknowledgement of the one before it.
            transport.setTcpNoDelay(True)
        between = getattr(transport, "protocol", None)
        if hasattr(between, "readConnectionLost"):
            # The endpoint's wrapper says of several interfaces that we have only the last; without this one
            # an end of the server's bytes would be the end of the connection.
            alsoProvides(between, IHalfCloseableProtocol)
        super().connectionMade()


class Upstream:
    """The mail server, as the configuration names it."""

    _log = Logger(namespace="pop3proxy.upstream")

    def __init__(
        self, reactor: Any, options: config.Upstream, engine: Engine | None = None
    ) -> None:
        """Remember where to connect; nothing is connected yet. ``engine`` may do so where it can.

        Raises ConfigError, and TlsError if the files that TLS needs cannot be used.
        """
        self.name = options.endpoint
        self.host, self.port = destination(self.name)
        self._options = options
        if kind_of(self.name) in ("tls", "ssl"):
            _refuse_tls_of_its_own(options)
        self.tls = None if options.tls == "plain" else ClientTls(options)
        self._says_something = (
            options.tls != "plain" or options.xclient or options.proxy_protocol != "off"
        )
        self._endpoint = clientFromString(reactor, self.name)
        numeric = target(self.name)
        self._dialler = Dialler(engine, numeric) if engine and numeric else None

    def open(self, session: Session) -> Callable[[], None]:
        """Connect; the session hears ``begun`` or ``unreachable``. Return what gives up the attempt."""
        if not self._says_something:
            return self._connect(session)
        opening = Opening(session, self._options, self.tls)
        return opening.under_way(self._connect(opening))

    def _connect(self, caller: Caller) -> Callable[[], None]:
        if self._dialler is not None:
            return self._dialler.open(caller)
        factory = _WireFactory(caller)
        attempt: Deferred[Any] = self._endpoint.connect(factory)
        attempt.addErrback(self._failed, caller)

        def give_up() -> None:
            attempt.cancel()
            if factory.wire is not None and factory.wire.transport is not None:
                # Connected, but for the TLS of the endpoint's own.
                factory.wire.abort()

        return give_up

    def _failed(self, failure: Failure, caller: Caller) -> None:
        if failure.check(CancelledError) is None:
            caller.unreachable(failure.getErrorMessage() or type(failure.value).__name__)


def _refuse_tls_of_its_own(options: config.Upstream) -> None:
    """Refuse an endpoint that begins TLS by itself, where something else must come first.

    Raises ConfigError.
    """
    if options.tls != "plain":
        raise config.ConfigError(
            [
                f'upstream: {options.endpoint} with tls = "{options.tls}" would be TLS inside TLS;'
                " write the endpoint with tcp: instead"
            ]
        )
    if options.proxy_protocol != "off":
        raise config.ConfigError(
            [
                f"upstream: {options.endpoint} would send the PROXY header inside TLS;"
                ' write the endpoint with tcp: and set tls = "tls"'
            ]
        )
