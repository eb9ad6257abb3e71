"""The mail server's wire from connect to session: PROXY header, TLS, STLS, XCLIENT; connects to nothing.

An ``Opening`` is the wire's user until all that was asked for has succeeded. Then the session gets the wire,
and hears the greeting as the server's first bytes, unchanged. Whatever fails ends the attempt: nothing is
left out, and nothing goes on in clear that was to be secret.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Self

from ..analyzer.events import SERVER, Side
from ..config import Upstream
from .addresses import host_and_port
from .proxyheader import Address, is_address, version_1, version_2
from .session import Session
from .tls import ClientTls
from .wire import Wire

LONGEST_LINE: Final = 1024
"""Octets of a line of the server at most, its end among them. RFC 2449 section 4 allows 512."""

_SHOWN: Final = 100
"""Characters of a refusal that are written down."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done before a session begins, in this order."""

    proxy_protocol: Literal["off", "v1", "v2"]
    tls: ClientTls | None
    starttls: bool
    xclient: bool

    @classmethod
    def of(cls, options: Upstream, tls: ClientTls | None) -> Self | None:
        """Return the plan of a configuration; None if there is nothing to be done."""
        plan = cls(options.proxy_protocol, tls, options.tls == "starttls", options.xclient)
        return plan if tls or options.xclient or options.proxy_protocol != "off" else None


class _Line(Enum):
    """Which line of the server is awaited."""

    NONE = "its own words"
    GREETING = "its greeting"
    STLS = "its answer to STLS"
    XCLIENT = "its answer to XCLIENT"

    __hash__ = object.__hash__


class Opening:
    """One wire on its way to one session."""

    __slots__ = ("_awaited", "_data", "_give_up", "_greeting", "_plan", "_session", "server")

    def __init__(self, session: Session, plan: Plan) -> None:
        """Wait for the wire, which is put into ``server``."""
        self._session: Session | None = session
        self._plan = plan
        self._awaited = _Line.NONE
        self._data = b""
        self._greeting = b""
        self._give_up: Callable[[], None] | None = None
        self.server: Wire | None = None

    def connecting(self, give_up: Callable[[], None]) -> None:
        """Note what gives up the attempt to connect."""
        self._give_up = give_up

    def give_up(self) -> None:
        """Connect no longer, and say nothing; too late, it does nothing."""
        if self._session is None:
            return
        self._session = None
        if self._give_up is not None:
            self._give_up()
        if self.server is not None:
            self.server.abort()

    # --- from the wire ----------------------------------------------------------------------------------

    def begun(self, side: Side) -> None:
        """Send the header, and begin what is due (WireUser)."""
        if self._session is None:
            self._wire.abort()
            return
        header = self._header(self._session)
        if header:
            self._wire.write(header)
        if self._plan.tls is not None and not self._plan.starttls:
            self._start_tls(self._plan.tls)
        elif self._plan.starttls or self._plan.xclient:
            self._await(_Line.GREETING)
        else:
            self._hand_over(b"")

    def secured(self, side: Side) -> None:
        """Go on inside TLS (WireUser)."""
        if self._session is None:
            return
        if self._plan.xclient:
            if self._greeting:
                self._say_xclient(self._session)
            else:
                self._await(_Line.GREETING)
        else:
            self._hand_over(self._greeting)

    def insecure(self, side: Side, why: str) -> None:
        """Give up: the server has no TLS that we accept (WireUser)."""
        self.server = None
        self._fail(why)

    def data(self, side: Side, data: bytes) -> None:
        """Read the line that is awaited (WireUser)."""
        if self._session is None:
            return
        self._data += data
        line, end, rest = self._data.partition(b"\n")
        if len(line) + len(end) > LONGEST_LINE:
            self._fail(f"{self._awaited.value} is longer than {LONGEST_LINE} octets")
        elif end:
            self._data = b""
            self._heard(self._session, line + end, rest)

    def drained(self, side: Side) -> None:
        """Ignore it: what we write is short (WireUser)."""

    def ended(self, side: Side) -> None:
        """Give up: the server says no more (WireUser)."""
        self._fail(f"it closed the connection before {self._awaited.value}")

    def lost(self, side: Side, clean: bool) -> None:
        """Give up: the server is gone (WireUser)."""
        self.server = None
        self._fail(f"the connection was lost before {self._awaited.value}")

    # --- what is said -----------------------------------------------------------------------------------

    @property
    def _wire(self) -> Wire:
        assert self.server is not None
        return self.server

    def _header(self, session: Session) -> bytes:
        if self._plan.proxy_protocol == "off":
            return b""
        connection = session.connection
        source = connection.orig_h, connection.orig_p
        if self._plan.proxy_protocol == "v1":
            return version_1(source, _entrance(session))
        return version_2(source, _entrance(session), connection.uid, connection.tls)

    def _await(self, line: _Line) -> None:
        assert self._session is not None
        self._awaited = line
        self._session.opening_limit = "greeting"

    def _start_tls(self, tls: ClientTls) -> None:
        assert self._session is not None
        self._awaited = _Line.NONE
        self._session.opening_limit = "handshake"
        self._wire.start_tls(tls)

    def _say_xclient(self, session: Session) -> None:
        """Name the client as Dovecot has it; what it does not know it ignores."""
        connection = session.connection
        words = [f"SESSION={connection.uid}"]
        host = connection.orig_h.partition("%")[0]
        if is_address(host):
            words = [f"ADDR={host}", f"PORT={connection.orig_p}", *words]
        self._await(_Line.XCLIENT)
        self._wire.write(f"XCLIENT {' '.join(words)}\r\n".encode("ascii"))

    def _heard(self, session: Session, line: bytes, rest: bytes) -> None:
        fine = line[:3].upper() == b"+OK"
        awaited = self._awaited
        if not fine:
            self._fail(_REFUSED[awaited].format(line=_shown(line)))
        elif awaited is _Line.XCLIENT:
            self._hand_over(self._greeting + rest)
        elif rest:
            # In clear, so anybody may have put it there: it would be taken for what TLS has said.
            self._fail(f"it sent bytes behind {awaited.value}, which may be somebody else's")
        elif awaited is _Line.STLS:
            assert self._plan.tls is not None
            self._start_tls(self._plan.tls)
        else:
            self._greeting = line
            if self._plan.starttls:
                self._await(_Line.STLS)
                self._wire.write(b"STLS\r\n")
            else:
                self._say_xclient(session)

    # --- the end ----------------------------------------------------------------------------------------

    def _hand_over(self, data: bytes) -> None:
        """Let the session begin, with the server's first bytes if they are here already."""
        session, self._session = self._session, None
        assert session is not None
        session.server = self._wire
        self._wire.hand_over(session)
        session.begun(SERVER)
        if data:
            session.data(SERVER, data)

    def _fail(self, why: str) -> None:
        session, self._session = self._session, None
        if self.server is not None:
            self.server.abort()
            self.server = None
        if session is not None:
            session.unreachable(why)


_REFUSED: Final = {
    _Line.GREETING: "it refuses us by its greeting: {line}",
    _Line.STLS: 'it refuses STLS: {line}; offer it there, or set upstream.tls to "tls" or "plain"',
    _Line.XCLIENT: (
        "the mail server does not trust this proxy: add its address to login_trusted_networks,"
        " or set upstream.xclient to false; it says: {line}"
    ),
}


def _shown(line: bytes) -> str:
    """Write a line of the server's down, as far as it is text."""
    text = line.rstrip(b"\r\n").decode("utf-8", "replace")[:_SHOWN]
    return "".join(char if char.isprintable() else "?" for char in text)


def _entrance(session: Session) -> Address:
    """Return the address that the client connected to."""
    if session.entrance is not None:
        return session.entrance
    return host_and_port(session.client.transport.getHost())
