"""Where clients come in: accepts them, within limits, and gives each a session."""

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Network, ip_address
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from zope.interface import implementer

from .. import config
from ..analyzer.events import CLIENT
from ..config import ConnectionLimits
from ..values import Network
from .accepting import Acceptor, can_take_over
from .addresses import has_option, host_and_port, host_and_port_of, kind_of
from .arrival import HEADER, NO_ROOM, SCREEN, TLS, Arrival, Guard, Hall, Stage
from .engine import Engine
from .plainwire import PlainWire
from .proxyheader import Address, is_address
from .session import Session
from .terms import Terms
from .tls import ServerTls
from .wire import Wire


class SessionMaker(Hall, Protocol):
    """Who makes sessions, and keeps what is between accept and session."""

    def session(
        self, host: str, port: int, listener: "Listener", orig_unknown: bool = False
    ) -> Session:
        """Make the session of a client that has connected.

        ``orig_unknown``: it is a proxy before this one that has named no client.
        """


CROWD: Final = 200
"""Connections of one address that are worth a warning where no limit is set. An office has fewer; what has as
many is a webmail, a carrier's NAT, or an attack."""

MOST_WARNED: Final = 32
"""Addresses that are warned of; with many more the log would be the attack's."""


class Admission:
    """Who may come in: so many clients in all, so many from one address."""

    _log = Logger(namespace="pop3proxy.listeners")

    def __init__(
        self, limits: ConnectionLimits, count: Callable[[str], int] = lambda what: 0
    ) -> None:
        """Begin with nobody inside. ``count`` counts something worth knowing."""
        self._limits = limits
        self._count = count
        self._inside = 0
        self._by_address: Counter[str] = Counter()
        self._warned: set[str] = set()

    def enter(self, host: str = "") -> str:
        """Let a client in and return ``""``, or name the limit that keeps it out.

        Without a host it is counted by its address only when it is claimed.
        """
        if self._inside >= self._limits.connections:
            return "connections"
        limit = self.claim(host)
        if not limit:
            self._inside += 1
        return limit

    def claim(self, host: str) -> str:
        """Count somebody inside by an address and return ``""``, or name the limit that forbids it."""
        if not is_address(host):
            # A UNIX socket's peer has none.
            return ""
        inside, allowed = self._by_address[host], self._limits.connections_per_address
        if allowed and inside >= allowed:
            return "connections_per_address"
        self._by_address[host] = inside + 1
        if inside + 1 == CROWD and not allowed:
            self._crowded(host)
        return ""

    def _crowded(self, host: str) -> None:
        """Count that an address has come to as many as a crowd, and warn of it once."""
        count = self._count("crowded_address")
        if host in self._warned or len(self._warned) >= MOST_WARNED:
            return
        self._warned.add(host)
        self._log.warn(
            "{host} has {crowd} connections at once, and no limit: if that is no webmail and no shared"
            " address, set limits.connections_per_address; {count} addresses had as many so far",
            host=host,
            crowd=CROWD,
            count=count,
        )

    def leave(self, host: str = "") -> None:
        """Let a client out that was let in; ``host`` if it is counted by that."""
        self._inside -= 1
        if host in self._by_address:
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]


class _Refusal(TwistedProtocol):
    """Tells a client that there is no room, and closes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(NO_ROOM)
        self.transport.loseConnection()


_MAPPED: Final = 96
"""Bits before an IPv4 address that is mapped into IPv6."""


class _Trust:
    """Which peers are proxies that must name their clients."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = tuple(map(_as_met, networks))

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, host: str) -> bool:
        """Say whether a peer is one. Over a UNIX socket all are: its file's mode says who may connect."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return True
        return any(address in network for network in self._networks)


def _as_met(network: Network) -> Network:
    """Write a network of mapped addresses as that of the IPv4 addresses as which its clients are known."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED))


@implementer(IProtocolFactory)
class Listener:
    """Accepts the clients of one endpoint."""

    _log = Logger(namespace="pop3proxy.listeners")

    def __init__(
        self,
        options: config.Listener,
        admission: Admission,
        maker: SessionMaker,
        terms: Terms | None = None,
        server_tls: ServerTls | None = None,
    ) -> None:
        """Take the endpoint string as the listener's name; ``server_tls`` is there if it is needed.

        ``address`` is set once it listens: where its port is bound, or the path of its UNIX socket.
        """
        self.name = options.endpoint
        self.address: Address = ("", 0)
        self.terms = terms
        self.server_tls = server_tls
        self.trusts_tls = options.trust_tls
        self._admission = admission
        self._maker = maker
        self._trust = _Trust(options.proxies)
        self._implicit = options.tls == "implicit"
        self._inside_tls = options.proxy_header == "inside_tls"
        self._at_once = not self._implicit and not self._trust

    def doStart(self) -> None:
        """Begin nothing: the service says that it listens (IProtocolFactory)."""

    def doStop(self) -> None:
        """End nothing: sessions outlive their listener (IProtocolFactory)."""

    def _stages(self, host: str) -> tuple[tuple[Stage, ...], bool]:
        """Return what a peer goes through before its session, and whether a header may still come then."""
        if not self._trust:
            return (TLS,), False
        if host not in self._trust:
            if not self._implicit:
                return (), True
            return ((TLS,), True) if self._inside_tls else ((SCREEN, TLS), False)
        if not self._implicit:
            return (HEADER,), False
        return ((TLS, HEADER) if self._inside_tls else (HEADER, TLS)), False

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """Make a client's wire, or a refusal (IProtocolFactory)."""
        host, port = host_and_port(addr)
        stages, guarded = ((), False) if self._at_once else self._stages(host)
        if not stages:
            session = self._admit(host, port)
            if session is None:
                return _Refusal()
            if guarded:
                session.client.hand_over(Guard(session, self._maker))
            return session.client
        arrival = self._arrival((host, port), stages, guarded)
        if arrival is None:
            # Who awaits TLS would not understand a refusal in clear.
            return None if TLS in stages else _Refusal()
        wire = Wire(arrival, CLIENT)
        arrival.take(wire)
        return wire

    def take_over(self, port: IListeningPort, engine: Engine) -> Acceptor | None:
        """Have the engine accept in the port's stead, if it can."""
        if not can_take_over(port, self):
            return None

        def welcome(connection: socket.socket, address: Any) -> None:
            peer = host_and_port_of(address)
            stages, guarded = ((), False) if self._at_once else self._stages(peer[0])
            if stages:
                self._receive(connection, engine, peer, stages, guarded)
                return
            session = self._admit(*peer)
            if session is None:
                _turn_away(connection)
                return
            user: Any = Guard(session, self._maker) if guarded else session
            session.client = wire = PlainWire(user, CLIENT, engine, connection)
            wire.begin()

        return Acceptor(port, engine, welcome)

    def _receive(
        self,
        connection: socket.socket,
        engine: Engine,
        peer: Address,
        stages: tuple[Stage, ...],
        guarded: bool,
    ) -> None:
        arrival = self._arrival(peer, stages, guarded)
        if arrival is not None:
            arrival.begin(engine, connection)
        elif TLS in stages:
            connection.close()
        else:
            _turn_away(connection)

    def _arrival(self, peer: Address, stages: tuple[Stage, ...], guarded: bool) -> Arrival | None:
        """Let a client in that is to have a session later, or say that there is no room for it."""
        limit = self._admission.enter("" if HEADER in stages else peer[0])
        if limit:
            self._refused(limit, *peer)
            return None
        return Arrival(self, self._maker, peer, stages, guarded)

    def _admit(self, host: str, port: int) -> Session | None:
        """Make a client's session, or say that there is no room for one."""
        limit = self._admission.enter(host)
        if not limit:
            return self.session(host, port, False)
        self._refused(limit, host, port)
        return None

    def _refused(self, limit: str, host: str, port: int) -> None:
        count = self._maker.count(f"refused_{limit}")
        self._log.info(
            "limit {limit} reached: refused {host}:{port}; {count} by now",
            limit=limit,
            host=host,
            port=port,
            count=count,
        )

    # --- for arrivals -----------------------------------------------------------------------------------

    def claim(self, host: str, port: int) -> bool:
        """Count a client by its address; False, and logged, if there is no room for it (Entry)."""
        limit = self._admission.claim(host)
        if limit:
            self._refused(limit, host, port)
        return not limit

    def leave(self, host: str) -> None:
        """Let a client out; ``host`` is what it is counted by, or empty (Entry)."""
        self._admission.leave(host)

    def session(self, host: str, port: int, orig_unknown: bool) -> Session:
        """Make the session of a client that is counted. If that raises, the client has left (Entry)."""
        try:
            return self._maker.session(host, port, self, orig_unknown)
        except BaseException:
            self._admission.leave("" if orig_unknown else host)
            raise


def _turn_away(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.send(NO_ROOM)


_KERNELS_MAXIMUM: Final = 2**31 - 1
"""A queue that no kernel allows: it takes its own maximum instead (Linux: net.core.somaxconn)."""


def queue_all_it_can(port: IListeningPort, endpoint: str) -> None:
    """Make a listener's queue of clients that wait to be accepted as long as the kernel allows.

    Twisted asks for 50, and a client beyond that waits a second or more for its next attempt. An endpoint
    string with a ``backlog`` of its own keeps it, and so does a socket that systemd has opened.
    """
    if has_option(endpoint, "backlog") or kind_of(endpoint) == "systemd":
        return
    if hasattr(port, "fileno"):
        descriptor: Any = port
        # What a socket is does not matter here; a second listen only sets the length of its queue.
        with socket.fromfd(descriptor.fileno(), socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.listen(_KERNELS_MAXIMUM)


def send_at_once(port: IListeningPort) -> None:
    """Switch Nagle's algorithm off for all that a TCP listener accepts: they inherit the option.

    A short reply must not wait for the acknowledgement of the one before it.
    """
    if getattr(port.getHost(), "type", "") != "TCP" or not hasattr(port, "fileno"):
        return
    descriptor: Any = port
    with socket.fromfd(descriptor.fileno(), socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
