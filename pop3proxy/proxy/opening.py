"""From a connection to a mail server to its greeting: PROXY header, TLS, STLS, XCLIENT; connects nothing.

What the server says on this way is read line by line, one line for each thing that was asked. Anything else
that it says is a reason to give up: whoever sits between could have put it there, and what is believed before
TLS would count inside it (RFC 2595 section 4).
"""

from collections.abc import Callable
from enum import Enum

from ..analyzer.events import SERVER, Side
from ..config import Upstream
from .proxyheader import Address, is_address, version_1, version_2
from .session import Session
from .tls import ClientTls
from .wire import Wire

LONGEST_LINE = 8192
"""Octets of a line of the server: RFC 2449 section 4 allows 512, and Exchange greets with some kilobytes."""

_SHOWN = 100
"""Characters of such a line that are shown in a log."""


_IGNORED = b"You are not from trusted IP"
"""Dovecot's +OK to an XCLIENT that comes from elsewhere than its login_trusted_networks has this in it."""


class Stage(Enum):
    """What is waited for."""

    CONNECTION = "before it was connected"
    TLS = "during the TLS handshake"
    GREETING = "before its greeting"
    STLS = "instead of answering STLS"
    STARTTLS = "during the TLS handshake behind STLS"
    XCLIENT = "instead of answering XCLIENT"
    OVER = ""


class Opening:
    """Speaks to a mail server in a session's stead, until the greeting can be relayed.

    It is the user of the server's wire meanwhile. The session hears ``begun`` and the greeting, as if it had
    come right then, or ``unreachable``.
    """

    __slots__ = (
        "_cancel",
        "_data",
        "_greeting",
        "_options",
        "_session",
        "_stage",
        "_tls",
        "_wire",
    )

    def __init__(self, session: Session, options: Upstream, tls: ClientTls | None) -> None:
        """Wait for the connection. ``tls`` is there if ``options`` ask for TLS."""
        self._session = session
        self._options = options
        self._tls = tls
        self._stage = Stage.CONNECTION
        self._wire: Wire | None = None
        self._cancel: Callable[[], None] | None = None  # gives up the attempt to connect
        self._data = b""
        self._greeting = b""

    def under_way(self, cancel: Callable[[], None]) -> Callable[[], None]:
        """Note what gives up the attempt to connect; return what gives up all of it."""
        self._cancel = cancel
        return self.give_up

    def give_up(self) -> None:
        """Open no longer, and say nothing; too late, it does nothing."""
        if self._stage is Stage.OVER:
            return
        self._stage = Stage.OVER
        if self._wire is not None:
            self._wire.abort()
        elif self._cancel is not None:
            self._cancel()

    # --- from the attempt to connect --------------------------------------------------------------------

    def reached(self, wire: Wire, host: str, port: int) -> None:
        """Know whom the wire has reached."""
        self._wire = wire
        connection = self._session.connection
        connection.resp_h, connection.resp_p = host, port

    def unreachable(self, why: str) -> None:
        """Tell the session that there is no connection."""
        self._fail(why)

    # --- from the wire (WireUser) -----------------------------------------------------------------------

    def begun(self, side: Side) -> None:
        """Say first who the client is, and go on as the configuration has it."""
        assert self._wire is not None
        if self._stage is Stage.OVER:
            self._wire.abort()
            return
        header = self._header()
        if header:
            self._wire.write(header)
        if self._options.tls == "tls":
            self._start_tls(Stage.TLS)
        else:
            self._before_greeting()

    def secured(self, side: Side) -> None:
        """Go on inside TLS."""
        if self._stage is Stage.TLS:
            self._before_greeting()
        elif self._stage is Stage.STARTTLS:
            self._behind_greeting()

    def insecure(self, side: Side, why: str) -> None:
        """Give up: nothing is said to the server in clear that was to be said inside TLS."""
        self._wire = None
        self._fail(f"no TLS with it: {why}")

    def data(self, side: Side, data: bytes) -> None:
        """Take the line that is waited for."""
        if self._stage is Stage.OVER:
            return
        self._data += data
        line, end, rest = self._data.partition(b"\n")
        if len(line) >= LONGEST_LINE:
            self._fail(f"it sent a line of more than {LONGEST_LINE} octets")
        elif end:
            self._data = b""
            self._line(line + end, rest)

    def drained(self, side: Side) -> None:
        """Ignore that the server has taken what was written: we wait for its answer anyway."""

    def ended(self, side: Side) -> None:
        """Give up."""
        self._fail(f"it closed the connection {self._stage.value}")

    def lost(self, side: Side, clean: bool) -> None:
        """Give up."""
        self._wire = None
        if self._stage is not Stage.OVER:
            self._fail(f"the connection was lost {self._stage.value}")

    # --- the way ----------------------------------------------------------------------------------------

    def _header(self) -> bytes:
        session, version = self._session, self._options.proxy_protocol
        if version == "off":
            return b""
        c = session.connection
        client, entrance = (c.orig_h, c.orig_p), self._entrance
        if version == "v1":
            return version_1(client, entrance)
        return version_2(client, entrance, c.uid, c.tls)

    @property
    def _entrance(self) -> Address:
        """Where the client came in."""
        return self._session.entrance or self._session.client.here

    def _start_tls(self, stage: Stage) -> None:
        assert self._wire is not None
        assert self._tls is not None
        self._stage = stage
        self._session.opening_limit = "handshake"
        self._wire.start_tls(self._tls)

    def _before_greeting(self) -> None:
        """Wait for the greeting, if something is to be said behind it; else the session does."""
        if self._options.tls == "starttls" or self._xclient():
            self._stage = Stage.GREETING
            self._session.opening_limit = "greeting"
        else:
            self._done()

    def _behind_greeting(self) -> None:
        command = self._xclient()
        if command:
            self._ask(Stage.XCLIENT, command)
        else:
            self._done()

    def _ask(self, stage: Stage, command: bytes) -> None:
        assert self._wire is not None
        self._stage = stage
        self._session.opening_limit = "greeting"
        self._wire.write(command)

    def _line(self, line: bytes, rest: bytes) -> None:
        """Take a line of the server; nothing may be behind it."""
        stage = self._stage
        accepted = line[:3].upper() == b"+OK"
        shown = _shown(line)
        if rest or stage not in (Stage.GREETING, Stage.STLS, Stage.XCLIENT):
            self._fail(f"it said more than was asked: behind {shown}")
        elif stage is Stage.GREETING:
            if not accepted:
                self._fail(f"it greets with {shown}")
                return
            self._greeting = line
            if self._options.tls == "starttls":
                self._ask(Stage.STLS, b"STLS\r\n")
            else:
                self._behind_greeting()
        elif stage is Stage.STLS:
            if accepted:
                self._start_tls(Stage.STARTTLS)
            else:
                self._fail(f"it refuses STLS, so there is no TLS: {shown}")
        elif accepted and _IGNORED not in line:
            self._done()
        else:
            self._fail(
                f"it refuses XCLIENT: {shown}; have it trust this proxy's address"
                " (Dovecot: login_trusted_networks), or set upstream.xclient = false"
            )

    def _xclient(self) -> bytes:
        """Build Dovecot's XCLIENT; empty if it is not wanted, or there is no address to tell."""
        session = self._session
        c = session.connection
        if not self._options.xclient or not is_address(_without_zone(c.orig_h)):
            return b""
        fields = [f"ADDR={_without_zone(c.orig_h)}", f"PORT={c.orig_p}", f"SESSION={c.uid}"]
        host, port = self._entrance
        if is_address(_without_zone(host)):
            fields += [f"DESTADDR={_without_zone(host)}", f"DESTPORT={port}"]
        return f"XCLIENT {' '.join(fields)}\r\n".encode("ascii")

    def _done(self) -> None:
        """Hand the wire to the session, and the greeting."""
        wire, session = self._wire, self._session
        assert wire is not None
        self._stage = Stage.OVER
        session.server = wire
        wire.hand_over(session)
        session.begun(SERVER)
        if self._greeting and not session.over:
            session.data(SERVER, self._greeting)

    def _fail(self, why: str) -> None:
        if self._stage is Stage.OVER:
            return
        wire, self._wire = self._wire, None
        self._stage = Stage.OVER
        if wire is not None:
            wire.abort()
        self._session.unreachable(why)


def _shown(line: bytes) -> str:
    """Write a server's line down for a log."""
    text = line.decode("utf-8", "backslashreplace").strip()[:_SHOWN]
    return '"' + "".join(c if c.isprintable() else "?" for c in text) + '"'


def _without_zone(host: str) -> str:
    """Leave out on which link an address is: that means nothing to another host."""
    return host.partition("%")[0]
