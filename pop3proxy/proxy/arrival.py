"""A client between accept and session: its PROXY header, and TLS from the first byte; inspects nothing.

Where neither is asked for, a client's session begins at once and nothing here is involved. An ``Arrival``
goes through its stages in the listener's order, and the session is made behind the last of them, with the
address of the client that the header names. A client that may not send a header is not waited for, as the
mail server speaks first: its session begins, and a ``Guard`` looks at its first bytes.
"""

import contextlib
import socket
from enum import Enum
from typing import Any, Final, Protocol

from twisted.logger import Logger

from ..analyzer.events import CLIENT, Side
from ..config import Timeouts
from .addresses import host_and_port, host_and_port_of
from .engine import READ, Engine
from .plainwire import PlainWire
from .proxyfields import NO_FIELDS
from .proxyheader import LONGEST_V2, Address, HeaderError, Reader, begins
from .session import TRY_LATER, Session
from .tls import NOT_BEGUN, ServerTls
from .wire import Wire

_LOOKED_AT: Final = LONGEST_V2 + 16
"""Octets that are looked at before they are taken: the longest header."""

_HANDSHAKE: Final = b"\x16"
"""How all that a TLS client says first begins (RFC 8446 section 5.1)."""

_LEFT_UNREAD: Final = 64 * 1024
"""Octets that are read before a close, as unread ones would make of it a reset that overtakes our line."""


NO_ROOM: Final = TRY_LATER % b"too many connections, please try again later"


class Stage(Enum):
    """What an arrival is waiting for."""

    HEADER = "a PROXY header"
    SCREEN = "the first bytes of a client that may send no header, and must begin with TLS"
    TLS = "a handshake"

    __hash__ = object.__hash__


HEADER, SCREEN, TLS = Stage

_LIMITS: Final = {HEADER: "proxy_header", SCREEN: "handshake", TLS: "handshake"}


class Hall(Protocol):
    """Who keeps arrivals, and their time."""

    timeouts: Timeouts
    arrivals: "set[Arrival]"

    def elapsed(self) -> float:
        """Return the seconds since some moment, of a clock that never steps."""

    def count(self, what: str) -> int:
        """Count something worth knowing; return the count."""

    def handshake_failed(self, entry: "Entry", arrival: "Arrival") -> None:
        """Tell of a client that has no TLS and so gets no session."""


class Entry(Protocol):
    """The listener that a client came to."""

    name: str
    address: tuple[str, int]
    server_tls: ServerTls | None
    trusts_tls: bool
    """Whether what a PROXY header says of the client's TLS counts."""

    def claim(self, host: str, port: int) -> bool:
        """Count a client by its address; False, and logged, if there is no room for it."""

    def leave(self, host: str) -> None:
        """Let a client out; ``host`` is what it is counted by, or empty."""

    def session(self, host: str, port: int, orig_unknown: bool) -> Session:
        """Make the session of a client that is counted. If that raises, the client has left."""


class Guard:
    """Stands between a client's wire and its session until it is clear that no PROXY header comes.

    What may still be a part of a header's signature is held: 11 octets at most.
    """

    __slots__ = ("_hall", "_held", "_session")

    _log = Logger(namespace="pop3proxy.arrival")

    def __init__(self, session: Session, hall: Hall) -> None:
        """Stand before a session; the wire reports to us."""
        self._session = session
        self._hall = hall
        self._held = b""

    def data(self, side: Side, data: bytes) -> None:
        """Look at the first bytes (WireUser)."""
        if self._session.over:
            return
        self._held += data
        found = begins(self._held)
        if found is None:
            return
        if found:
            self._held = b""
            connection = self._session.connection
            _refuse_header(self._hall, self._log, connection.orig_h, connection.orig_p)
            self._session.end("proxy_header")
            return
        self._let_through()

    def _let_through(self) -> None:
        """Step aside: the session hears from the wire itself from now on."""
        held, self._held = self._held, b""
        self._session.client.hand_over(self._session)
        if held:
            self._session.data(CLIENT, held)

    def begun(self, side: Side) -> None:
        """Pass it on (WireUser)."""
        self._session.begun(side)

    def drained(self, side: Side) -> None:
        """Pass it on (WireUser)."""
        self._session.drained(side)

    def ended(self, side: Side) -> None:
        """Pass it on, behind what is held (WireUser)."""
        self._let_through()
        self._session.ended(side)

    def lost(self, side: Side, clean: bool) -> None:
        """Pass it on (WireUser)."""
        self._session.lost(side, clean)

    def secured(self, side: Side) -> None:
        """Pass it on (WireUser)."""
        self._session.secured(side)

    def insecure(self, side: Side, why: str) -> None:
        """Pass it on (WireUser)."""
        self._session.insecure(side, why)


def _refuse_header(hall: Hall, log: Logger, host: str, port: int) -> None:
    log.info(
        "refused {host}:{port}: it sent a PROXY header, but is none of the listener's proxies;"
        " {count} by now",
        host=host,
        port=port,
        count=hall.count("proxy_header_refused"),
    )


class Arrival:
    """One client that has no session yet: the user of its wire, and until there is one, a watcher."""

    __slots__ = (
        "_claimed",
        "_engine",
        "_entrance",
        "_entry",
        "_guarded",
        "_hall",
        "_mark",
        "_over",
        "_reader",
        "_seen",
        "_socket",
        "_stages",
        "_told",
        "_wire",
        "host",
        "orig_unknown",
        "port",
    )

    _log = Logger(namespace="pop3proxy.arrival")

    def __init__(
        self,
        entry: Entry,
        hall: Hall,
        peer: Address,
        stages: tuple[Stage, ...],
        guarded: bool = False,
    ) -> None:
        """Take in a client that is counted, by its address too if no header is to come.

        ``guarded``: behind the stages it may still send a header that it must not send.
        """
        self.host, self.port = peer
        self.orig_unknown = False  # whether that is a proxy that has named no client
        self._entry = entry
        self._hall = hall
        self._stages = list(stages)
        self._guarded = guarded
        self._claimed = "" if HEADER in stages else self.host
        self._entrance: Address | None = None
        self._told = NO_FIELDS
        self._reader = Reader()
        self._seen = b""
        self._engine: Engine | None = None
        self._socket: socket.socket | None = None  # as long as no wire has it
        self._wire: Wire | None = None
        self._over = False
        self._mark = hall.elapsed()
        hall.arrivals.add(self)

    # --- by a socket ------------------------------------------------------------------------------------

    def begin(self, engine: Engine, connection: socket.socket) -> None:
        """Begin on a socket that does not block."""
        self._engine = engine
        self._entrance = host_and_port_of(connection.getsockname())
        if self._stages[0] is TLS:
            self._make_wire(engine, connection, watched=False)
            return
        self._socket = connection
        engine.add(connection.fileno(), self, READ)

    def _make_wire(self, engine: Engine, connection: socket.socket, watched: bool) -> None:
        self._socket = None
        self._wire = wire = PlainWire(self, CLIENT, engine, connection)
        wire.begin(watched)

    def ready(self, events: int) -> None:
        """Look at what is there, and take of it what is a header's and no more (Watcher).

        What is behind it belongs to TLS, which reads from the socket itself.
        """
        connection = self._socket
        if connection is None:
            return
        try:
            data = connection.recv(_LOOKED_AT, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._left()
            return
        rest = self._judge(data)
        if self._over:
            return
        left = len(data) if rest is None else len(data) - len(rest)
        if left:
            connection.recv(left)
        if rest is None:
            return
        assert self._engine is not None
        self._make_wire(self._engine, connection, watched=True)

    def failed(self) -> None:
        """Give up because of an error of ours (Watcher)."""
        self._close()

    # --- by a wire --------------------------------------------------------------------------------------

    def take(self, wire: Wire) -> None:
        """Begin on a wire that will be up soon."""
        self._wire = wire

    def begun(self, side: Side) -> None:
        """Begin what is due (WireUser)."""
        assert self._wire is not None
        if self._over:
            self._wire.abort()
            return
        if self._entrance is None:
            self._entrance = host_and_port(self._wire.transport.getHost())
        self._proceed(b"")

    def _proceed(self, rest: bytes) -> None:
        """Begin the next stage with bytes that came behind the last one, or the session."""
        assert self._wire is not None
        self._mark = self._hall.elapsed()
        if not self._stages:
            self._enter(rest)
        elif self._stages[0] is TLS:
            assert self._entry.server_tls is not None
            self._wire.start_tls(self._entry.server_tls)
            if rest:
                # A transport has read on: what it has read is for the TLS that is on top of it now.
                self._wire.transport.protocol.dataReceived(rest)
        elif rest:
            self.data(CLIENT, rest)

    def data(self, side: Side, data: bytes) -> None:
        """Take bytes of a header, or what should not be one (WireUser)."""
        if self._over or not self._stages or self._stages[0] is TLS:
            return
        rest = self._judge(data)
        if rest is not None and not self._over:
            self._proceed(rest)

    def drained(self, side: Side) -> None:
        """Ignore it: nothing waits to be written (WireUser)."""

    def ended(self, side: Side) -> None:
        """Give up on a client that has nothing more to say (WireUser)."""
        self._left()

    def lost(self, side: Side, clean: bool) -> None:
        """Give up on a client that is gone (WireUser)."""
        self._wire = None
        self._left()
        self._forget()

    def secured(self, side: Side) -> None:
        """Go on inside TLS (WireUser)."""
        if not self._over:
            self._stages.pop(0)
            self._proceed(b"")

    def insecure(self, side: Side, why: str) -> None:
        """Give up on a client without TLS (WireUser)."""
        self._wire = None
        if why == NOT_BEGUN:
            self._left()
        elif not self._over:
            self._tls_failed(why)
        self._forget()

    # --- judging ----------------------------------------------------------------------------------------

    def _judge(self, data: bytes) -> bytes | None:
        """Take bytes of this stage; when it is over, return those that are not its own."""
        return self._read(data) if self._stages[0] is HEADER else self._screen(data)

    def _read(self, data: bytes) -> bytes | None:
        try:
            found = self._reader.feed(data)
        except HeaderError as problem:
            self._refuse("missing" if problem.missing else "invalid", str(problem))
            return None
        if found is None:
            return None
        header, rest = found
        if self._entry.trusts_tls:
            self._told = header.fields
        if header.source is None:
            self.orig_unknown = True
        else:
            self.host, self.port = header.source
            self._entrance = header.destination
            if not self._entry.claim(self.host, self.port):
                self._no_room()
                return None
            self._claimed = self.host
        self._stages.pop(0)
        return rest

    def _screen(self, data: bytes) -> bytes | None:
        self._seen += data
        found = begins(self._seen)
        if found is None:
            return None
        if found:
            _refuse_header(self._hall, self._log, self.host, self.port)
            self._close()
            return None
        if not self._seen.startswith(_HANDSHAKE):
            # It would be waited for what makes a whole record of this.
            self._tls_failed("it does not speak TLS")
            self._close()
            return None
        self._stages.pop(0)
        return data

    def _refuse(self, what: str, why: str) -> None:
        """Close, as the header that a proxy must send is not there, or is none."""
        self._log.info(
            "{listener}: refused {host}:{port}, which must send a PROXY header: {why}; {count} by now",
            listener=self._entry.name,
            host=self.host,
            port=self.port,
            why=why,
            count=self._hall.count(f"proxy_header_{what}"),
        )
        self._close()

    def _tls_failed(self, why: str) -> None:
        self._log.info(
            "{listener}: no TLS with {host}:{port}: {why}; {count} such handshakes by now",
            listener=self._entry.name,
            host=self.host,
            port=self.port,
            why=why,
            count=self._hall.count("tls_failed"),
        )
        self._hall.handshake_failed(self._entry, self)

    def _left(self) -> None:
        """Note that a client has gone of its own accord. Health checks do so all the time."""
        if not self._over:
            self._hall.count("left_early")
        self._close()

    # --- limits -----------------------------------------------------------------------------------------

    def overdue(self, now: float) -> str:
        """Name the time limit that has run out, or return ``""``. ``now`` is of ``elapsed``."""
        waited = now - self._mark
        if self._over:
            return "drain" if waited > self._hall.timeouts.drain else ""
        limit = _LIMITS[self._stages[0]] if self._stages else ""
        return limit if limit and waited > getattr(self._hall.timeouts, limit) else ""

    def expired(self, limit: str) -> None:
        """Give up because a time limit has run out."""
        if self._over:
            self.shut_down()
        elif limit == "proxy_header":
            seconds = f"{self._hall.timeouts.proxy_header:g}"
            self._refuse("missing", f"none is complete within {seconds} seconds")
        else:
            self._log.info(
                "{listener}: time limit {limit} ran out for {host}:{port}; {count} by now",
                listener=self._entry.name,
                limit=limit,
                host=self.host,
                port=self.port,
                count=self._hall.count(f"timeout_{limit}"),
            )
            self._close()

    def shut_down(self) -> None:
        """Give up at once, because the proxy stops or the client does not take what is left for it."""
        self._over = True
        if self._wire is not None:
            self._wire.abort()
        self._forget()

    # --- the end ----------------------------------------------------------------------------------------

    def _enter(self, rest: bytes) -> None:
        """Hand everything over to a session."""
        wire = self._wire
        assert wire is not None
        self._over = True
        self._wire = None
        self._hall.arrivals.discard(self)
        try:
            session = self._entry.session(self.host, self.port, self.orig_unknown)
        except BaseException:
            wire.abort()
            raise
        session.entrance = self._entrance
        if self._told.tells_tls:
            session.tls_told = True
            session.connection.tls = self._told.tls
        session.client = wire
        user: Any = Guard(session, self._hall) if self._guarded else session
        wire.hand_over(user)
        session.begun(CLIENT)
        if rest:
            user.data(CLIENT, rest)

    def _no_room(self) -> None:
        """Tell the client so, if it can understand that."""
        if TLS not in self._stages[1:]:
            if self._wire is not None:
                self._wire.write(NO_ROOM)
            elif self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.recv(_LEFT_UNREAD)
                    self._socket.send(NO_ROOM)
        self._close()

    def _close(self) -> None:
        """End without a word."""
        if self._over:
            return
        self._over = True
        self._mark = self._hall.elapsed()
        if self._wire is None:
            self._forget()
        elif self._stages and self._stages[0] is TLS:
            self._wire.abort()
            self._forget()
        else:
            # It says when it is gone.
            self._wire.close()

    def _forget(self) -> None:
        """Let go of everything."""
        self._over = True
        self._wire = None
        if self._socket is not None:
            assert self._engine is not None
            self._engine.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self in self._hall.arrivals:
            self._hall.arrivals.discard(self)
            self._entry.leave(self._claimed)
