"""One client and one server: begins, keeps time limits, and ends; no socket and no reactor.

What becomes of the bytes in between is the relay's business as long as they are inspected, and the tunnel's
afterwards. The session is in one mode at a time; what each input does in each mode:

========  ===================  =========================  ===================  ==================  =======
input     CONNECTING           RELAY                      TURNING              TUNNEL              ENDING
========  ===================  =========================  ===================  ==================  =======
data      kept, client paused  to the relay               --, server paused    written             dropped
drained   --                   source is read on          --                   source is read on   --
ended     passed on later      passed on behind what is   passed on later      passed on           --
                               held; ends the session if
                               a verdict is waited for
secured   --                   --                         RELAY                --                  --
insecure  session ends         --                         session ends         --                  closes
lost      session ends         session ends               session ends         session ends        closes
========  ===================  =========================  ===================  ==================  =======

Before the server is dialled a hook may be asked whether it should be; that is CONNECTING, too. TURNING is
from our +OK to a client's STLS until its TLS is on.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from twisted.logger import Logger

from ..analyzer.dialogue import Analyzer
from ..analyzer.events import (
    AUTHORIZATION,
    CLIENT,
    SERVER,
    Connect,
    Connection,
    Event,
    SessionEnd,
    Side,
)
from ..config import Timeouts
from ..hooks.api import Delay, Deny, Drop, EndSession, Verdict
from .relay import HELD, Gating, Relay, ends_with_quit
from .terms import Terms
from .tls import ServerTls
from .tunnel import Tunnel
from .wire import Wire

TRY_LATER = b"-ERR [SYS/TEMP] %s\r\n"
"""How the proxy speaks for itself: RFC 3206 section 3 tells clients to try again later."""

_SERVER_GONE = b"the mail server closed the connection, please try again later"


class Mode(Enum):
    """What a session does with its input."""

    CONNECTING = "connecting"
    RELAY = "relay"
    TURNING = "turning"
    TUNNEL = "tunnel"
    ENDING = "ending"
    OVER = "over"

    __hash__ = object.__hash__


_CONNECTING, _RELAY, _TURNING, _TUNNEL, _ENDING, _OVER = Mode


class Surroundings(Gating, Protocol):
    """What all sessions of a proxy share."""

    timeouts: Timeouts

    def elapsed(self) -> float:
        """Return the seconds since some moment, for time limits: of a clock that never steps."""

    def dial(self, session: "Session") -> Callable[[], None]:
        """Begin to connect to the server; return what gives it up."""

    def over(self, session: "Session") -> None:
        """Forget a session."""


class Session:
    """One client, one server, and what is known of their dialogue.

    ``entrance`` is the address that the client connected to, as far as that is known. ``tls_told``: what
    the connection says of the client's TLS was told by a proxy before this one, where that TLS ends.
    """

    __slots__ = (
        "_active",
        "_client_closed",
        "_client_end_due",
        "_client_ended",
        "_dialled",
        "_early",
        "_give_up",
        "_mark",
        "_opening_limit",
        "_relay",
        "_room_used",
        "_server_closed",
        "_server_end_due",
        "_server_ended",
        "_server_tls",
        "_started",
        "_surroundings",
        "_turned",
        "analyzer",
        "client",
        "connection",
        "entrance",
        "mode",
        "reason",
        "server",
        "tls_told",
        "tunnel",
    )

    _log = Logger(namespace="pop3proxy.session")

    def __init__(
        self,
        connection: Connection,
        analyzer: Analyzer,
        surroundings: Surroundings,
        terms: Terms | None = None,
        server_tls: ServerTls | None = None,
    ) -> None:
        """Wait for the client's wire to begin. ``server_tls`` is there if the terms offer STLS."""
        assert terms is None or not terms.offers or server_tls is not None
        self.connection = connection
        self.analyzer = analyzer
        self.mode = _CONNECTING
        self.reason = ""
        self.client = Wire(self, CLIENT)
        self.server: Wire | None = None
        self.tunnel: Tunnel | None = None
        self._surroundings = surroundings
        self.entrance: tuple[str, int] | None = None
        self.tls_told = False
        self._relay = Relay(self, analyzer, surroundings, terms)
        self._server_tls = server_tls
        # What stops the way to the server: a question, a delay, an attempt to connect.
        self._give_up: Callable[[], None] | None = None
        self._dialled = False
        self._opening_limit = ""
        self._early = b""  # of the client, before the server is there
        self._client_ended = self._server_ended = False  # no more bytes will come from there
        # A side has ended, behind bytes that are held.
        self._client_end_due = self._server_end_due = False
        self._client_closed = self._server_closed = False  # the wire is gone
        self._room_used = False  # that a login's status line has though the client does not read
        self._started = self._mark = self._active = self._turned = surroundings.elapsed()

    # --- from the wires ---------------------------------------------------------------------------------

    def begun(self, side: Side) -> None:
        """Dial when the client is there; relay when the server is."""
        if side is CLIENT:
            self._client_begun()
        else:
            self._server_begun()

    def _client_begun(self) -> None:
        if not self.tls_told:
            self.connection.tls = self.client.tls
        self._relay.begin()
        events = [Connect(self.connection, self._surroundings.now())]
        if not self._tell(events):
            return
        question = self._surroundings.ask(events)
        if question is None:
            self._dial()
        elif question.verdict is not None:
            self._admit(question.verdict)
        else:
            self._give_up = question.cancel
            question.settled = self._admit

    def _admit(self, verdict: Verdict) -> None:
        """Dial, or not, as the verdict on the client's connection has it."""
        self._give_up = None
        if isinstance(verdict, Deny):
            self._surroundings.count("denied")
            if self._tell(self.analyzer.overruled(verdict.line, self._surroundings.now())):
                self.say(verdict.line)
                self.end("denied")
        elif isinstance(verdict, Delay):
            self._give_up = self._surroundings.delay(verdict.seconds, self._dial)
            if self._give_up is None:
                self._admit(Drop())
        elif isinstance(verdict, Drop):
            self._surroundings.count("dropped")
            self.end("dropped")
        else:
            self._dial()

    def _dial(self) -> None:
        self._give_up = None
        self._dialled = True
        self._mark = self._surroundings.elapsed()
        if self._early:
            self.client.pause()
        give_up = self._surroundings.dial(self)
        if self.mode is _CONNECTING:
            self._give_up = give_up

    def reached(self, wire: Wire, host: str, port: int) -> None:
        """Know the server's wire, and whom it has reached."""
        self.server = wire
        self.connection.resp_h, self.connection.resp_p = host, port

    def _server_begun(self) -> None:
        assert self.server is not None
        self._give_up = None
        if self.mode is not _CONNECTING:
            self.server.abort()
            return
        self.mode = _RELAY
        self._mark = self._active = self._surroundings.elapsed()
        self.tunnel = Tunnel(self.client, self.server)
        early, self._early = self._early, b""
        if early:
            self.client.resume()
            self.data(CLIENT, early)
        if self._client_end_due:
            self.moved(CLIENT)

    def data(self, side: Side, data: bytes) -> None:
        """Take bytes of one side."""
        now = self._surroundings.now()
        self._active = self._surroundings.elapsed()
        if self.mode is _RELAY or self.mode is _TURNING:
            if not self._relay.take(side, data, now):
                self._taken(side)
                return
            assert self.tunnel is not None
            self.tunnel.data(side, data)
            if self.analyzer.inspected != "whole" and self._relay.done and self.mode is _RELAY:
                self.mode = _TUNNEL
        elif self.mode is _TUNNEL:
            assert self.tunnel is not None
            self.tunnel.data(side, data)
        elif self.mode is _CONNECTING:
            self._early += data
            # While somebody is asked it is read on, to see it leave.
            if self._dialled or len(self._early) >= HELD:
                self.client.pause()

    def _taken(self, side: Side) -> None:
        """Stop reading a side of which too much is held, and read on the client, which may have waited."""
        if self.over:
            return
        if self._relay.done and self.mode is not _TURNING:
            self.mode = _TUNNEL
        elif not self._relay.may_read(side):
            (self.server if side is SERVER else self.client).pause()  # type: ignore[union-attr]
        self.moved(CLIENT)
        self._end_if_stuck()

    def drained(self, side: Side) -> None:
        """Read on what goes to ``side``, if more can come from there."""
        if side is CLIENT:
            self._room_used = False
        if self.mode is _RELAY and side is CLIENT:
            self._relay.go_on()
        self._read_on(CLIENT if side is SERVER else SERVER)

    def ended(self, side: Side) -> None:
        """Pass on that one side has no more to say, behind what is held of it; with both, all is over.

        A client that leaves while a verdict is waited for does not wait for the answers. One that has said
        QUIT has only ended its bytes.
        """
        if self.over:
            return
        relay = self._relay
        relay.cut(side)
        if side is SERVER:
            self._server_ended = True
            if relay.holds(SERVER) or self.mode is _TURNING:
                self._server_end_due = True
            elif relay.client_waits:
                self.end(self.reason or self._end_of(SERVER))
            else:
                self._side_ended(side)
            return
        self._client_ended = True
        if self._has_left():
            self.end(self._end_of(CLIENT))
        elif self.mode is _CONNECTING or (relay.holds(CLIENT) and not self._answered_all):
            self._client_end_due = True
        else:
            self._side_ended(side)

    @property
    def _answered_all(self) -> bool:
        """Whether nothing more comes of the server, so that what waits for its answers waits in vain."""
        return self._server_ended and not self._server_end_due

    def _has_left(self) -> bool:
        """Say whether the client, whose bytes have ended, does not wait for a verdict."""
        if self.mode is _CONNECTING:
            return not self._dialled and not ends_with_quit(self._early)
        return self._relay.waits and not self._relay.client_has_quit

    def _side_ended(self, side: Side) -> None:
        if not self.reason:
            self.reason = self._end_of(side)
        self._tell_end(side)
        if self.over:
            return
        if side is SERVER and self._silent:
            self._answer(_SERVER_GONE)
            self.end(self._end_of(SERVER))
        elif self._client_ended and self._server_ended:
            self.end(self.reason)
        else:
            assert self.tunnel is not None
            self.tunnel.ended(side)
            self._end_if_stuck()

    def _end_if_stuck(self) -> None:
        """End the session if bytes of the client wait for answers of a server that has no more to say.

        The client is not read then, so that nobody would see it leave.
        """
        if not self.over and self._answered_all and not self._relay.may_read(CLIENT):
            self.end(self.reason)

    def lost(self, side: Side, clean: bool) -> None:
        """Close the other side: by a reset if the client reset, else after what is still on its way."""
        reason = self.reason or self._end_of(side, clean)
        if side is CLIENT:
            self._client_closed = self._client_ended = True
        else:
            self._server_closed = self._server_ended = True
            if not self.over and self._relay.holds(SERVER):
                # What it said before it went waits for a verdict.
                self._relay.cut(SERVER)
                self._server_end_due = True
                self.reason = reason
                self.moved(SERVER)
                return
        if not self.over:
            if side is SERVER:
                self._answer(_SERVER_GONE)
            elif not clean and self.server is not None and not self._server_closed:
                self.server.abort()
            self.end(reason)
        self._finish()

    def _end_of(self, side: Side, clean: bool = True) -> str:
        """Name the end of one side's bytes as the reason of the session's."""
        wire = self.client if side is CLIENT else self.server
        if wire is not None and wire.truncated:
            return f"{side.value}_truncated"
        return f"{side.value}_{'closed' if clean else 'lost'}"

    def secured(self, side: Side) -> None:
        """Go on inside the client's TLS."""
        if side is SERVER or self.mode is not _TURNING:
            return
        self.mode = _RELAY
        self._active = self._surroundings.elapsed()
        tls = self.client.tls
        assert tls is not None
        self._relay.secured(tls)
        self._read_on(CLIENT)
        self.moved(SERVER)

    def insecure(self, side: Side, why: str) -> None:
        """End the session, as there is no TLS on one side, whose wire is gone."""
        if side is SERVER:
            self._server_closed = self._server_ended = True
            self.unreachable(why)
            self.end("server_lost")
        else:
            self._client_closed = self._client_ended = True
            if not self.over:
                self._tls_failed(why)
        self._finish()

    def _tls_failed(self, why: str) -> None:
        count = self._surroundings.count("tls_failed")
        self._log.info(
            "{uid}: no TLS with {host}:{port}: {why}; {count} such handshakes by now",
            uid=self.connection.uid,
            host=self.connection.orig_h,
            port=self.connection.orig_p,
            why=why,
            count=count,
        )
        self.end("tls_handshake")

    # --- for the relay ----------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the session is ending."""
        return self.mode is _ENDING or self.mode is _OVER

    @property
    def client_unsent(self) -> bool:
        """Whether the client has not taken what was written to it."""
        return self.client.unsent

    def pass_on(self, side: Side, data: bytes) -> None:
        """Write bytes of one side to the other, if that is still there."""
        if side is CLIENT and self._server_closed:
            return
        assert self.tunnel is not None
        self.tunnel.data(side, data)
        if side is CLIENT and self.client.unsent and self._relay.login_pending:
            self._read_login_answer()

    def _read_login_answer(self) -> None:
        """Read the server's answer to a login though the client does not read: it must not keep it open.

        There is room for one such line until the client has taken what was written before.
        """
        if not (self._room_used or self._server_ended or self.server is None):
            self._room_used = True
            self.server.resume()

    def say(self, line: bytes) -> None:
        """Write a line of our own to the client."""
        if not self._client_closed:
            self.client.write(line)

    def turn(self, line: bytes) -> None:
        """Write a line of our own to the client, and turn TLS on behind it; the server waits meanwhile."""
        if self._server_ended or self._client_ended:
            # That side's end may have waited behind what is settled now, and be no reason yet.
            self.end(self.reason or self._end_of(SERVER if self._server_ended else CLIENT))
            return
        assert self.server is not None
        assert self._server_tls is not None
        self.mode = _TURNING
        self._turned = self._surroundings.elapsed()
        self.server.pause()
        self.client.write(line)
        self.client.start_tls(self._server_tls)

    def moved(self, side: Side) -> None:
        """Read a side on, or pass on its end, now that less of it is held."""
        if self.over or self.mode is _TURNING:
            return
        if self._relay.done:
            self.mode = _TUNNEL
        if self._client_end_due if side is CLIENT else self._server_end_due:
            # A line that was behind what is settled now will never have an end.
            self._relay.cut(side)
        if self._relay.holds(side):
            self._read_on(side)
        elif side is CLIENT and self._client_end_due:
            self._client_end_due = False
            self._side_ended(side)
        elif side is SERVER and self._server_end_due:
            self._server_end_due = False
            if self._server_closed:
                self.end(self.reason)
            else:
                self._side_ended(side)
        else:
            self._read_on(side)

    def _read_on(self, side: Side) -> None:
        """Read a side, unless it has ended, or what came of it waits for the other side or a verdict."""
        if self.over or self.mode is _TURNING or self.tunnel is None or self.server is None:
            return
        if side is CLIENT:
            source, sink, ended = self.client, self.server, self._client_ended
        else:
            source, sink, ended = self.server, self.client, self._server_ended
        if not ended and not sink.unsent and self._relay.may_read(side):
            source.resume()

    # --- to the hooks -----------------------------------------------------------------------------------

    def _tell(self, events: Sequence[Event]) -> bool:
        """Bring events to the hooks that listen; return whether the session goes on."""
        try:
            self._surroundings.dispatch(events)
        except EndSession:
            self._surroundings.count("ended_by_hook")
            self.end("hook")
            return False
        return True

    def _tell_all(self, events: Sequence[Event]) -> None:
        """Bring events to all hooks when there is nothing left to decide."""
        if events:
            self._tell(events)
            self._surroundings.inform(events)

    def _tell_end(self, side: Side) -> None:
        """Report what the end of a side's bytes cuts off."""
        try:
            events = self.analyzer.ended(side, self._surroundings.now())
        except Exception as problem:
            self._relay.inspection_failed(problem)
        else:
            self._tell_all(events)

    # --- limits -----------------------------------------------------------------------------------------

    @property
    def _silent(self) -> bool:
        """Whether the server has said nothing yet, so that a line of ours tears none of its own apart.

        A client that does not speak POP3 would not understand the line.
        """
        speaks_pop3 = not (self.analyzer.blind or self.analyzer.begins_with_tls)
        return (self.tunnel is None or not self.tunnel.from_server) and speaks_pop3

    @property
    def opening_limit(self) -> str:
        """The time limit of what the way to the server has come to: ``connect``, ``handshake``, ``greeting``.

        To set it is to begin it. Empty is ``connect``.
        """
        return self._opening_limit

    @opening_limit.setter
    def opening_limit(self, limit: str) -> None:
        self._opening_limit = limit
        self._mark = self._surroundings.elapsed()

    def overdue(self, now: float) -> str:
        """Name the time limit that has run out, or return ``""``. ``now`` is of ``elapsed``."""
        timeouts = self._surroundings.timeouts
        if self.mode is _ENDING:
            return "drain" if now - self._mark > timeouts.drain else ""
        if self.mode is _CONNECTING:
            if not self._dialled:
                return "login" if now - self._started > timeouts.login else ""
            limit = self._opening_limit or "connect"
            return limit if now - self._mark > getattr(timeouts, limit) else ""
        if self.mode is _TURNING:
            return "handshake" if now - self._turned > timeouts.handshake else ""
        assert self.tunnel is not None
        if self._silent_for(now) > timeouts.greeting:
            return "greeting"
        if (
            self.mode is _RELAY
            and self.analyzer.state is AUTHORIZATION
            and now - self._mark > timeouts.login
            and not (self._client_ended or self._server_ended)
        ):
            return "login"
        return "idle" if now - self._active > timeouts.idle else ""

    def _silent_for(self, now: float) -> float:
        """Return the seconds for which the server has said nothing; 0 if it has, even if that is held."""
        spoke = (self.tunnel and self.tunnel.from_server) or self._relay.holds(SERVER)
        return 0.0 if spoke else now - self._mark

    def expired(self, limit: str) -> None:
        """End the session because a time limit has run out.

        Before the greeting the client gets a line that says so; later it is closed without a word, as
        RFC 1939 section 3 asks.
        """
        count = self._surroundings.count(f"timeout_{limit}")
        waits = limit == "greeting" or (self.mode is _CONNECTING and self._dialled)
        self._log.info(
            "{uid}: time limit {limit} ran out for {host}:{port}{whose}; {count} by now",
            uid=self.connection.uid,
            limit=limit,
            host=self.connection.orig_h,
            port=self.connection.orig_p,
            whose=", whose mail server does not answer" if waits else "",
            count=count,
        )
        if self.mode is _ENDING:
            self._abort()
            return
        if waits:
            self._answer(b"the mail server does not answer, please try again later")
        self.end(f"timeout:{limit}")

    def unreachable(self, why: str) -> None:
        """End the session because the server can't be reached."""
        self._give_up = None
        if self.mode is not _CONNECTING:
            return
        count = self._surroundings.count("upstream_unreachable")
        self._log.warn(
            "{uid}: cannot reach the mail server: {why}; {count} sessions refused by now",
            uid=self.connection.uid,
            why=why,
            count=count,
        )
        self._answer(b"the mail server cannot be reached, please try again later")
        self.end("upstream_unreachable")

    def shut_down(self) -> None:
        """End the session because the proxy stops."""
        if self.mode is _ENDING:
            self._abort()
        else:
            self.end("shutdown")

    def _answer(self, text: bytes) -> None:
        if self._silent and not self._client_closed:
            self.client.write(TRY_LATER % text)

    # --- the end ----------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Close both sides, each after what is still on its way to it."""
        if self.over:
            return
        unsent = self._relay.client_waits
        self.mode = _ENDING
        self.reason = reason
        self._mark = self._surroundings.elapsed()
        self._tell_all(self._relay.close())
        if self.tunnel is not None:
            self._tell_ends(unsent)
        if self._give_up is not None:
            give_up, self._give_up = self._give_up, None
            give_up()
        if self.server is None:
            self._server_closed = True
        elif not self._server_closed:
            self.server.close()
        if not self._client_closed:
            self.client.close()

    def _tell_ends(self, unsent: bool) -> None:
        """Let the analyzer report what is cut off, the side that went first first.

        The server is not to blame for answers that it owes if we end the session, or if it has not got
        the client's last line.
        """
        order = [CLIENT, SERVER]
        if self.reason.startswith("server_") and not unsent:
            order.reverse()
        for side in order:
            self._tell_end(side)

    def _abort(self) -> None:
        if not self._client_closed:
            self.client.abort()
        if self.server is not None and not self._server_closed:
            self.server.abort()

    def _finish(self) -> None:
        """Say that the session is over, once both wires are gone."""
        if self.mode is not _ENDING or not (self._client_closed and self._server_closed):
            return
        self.mode = _OVER
        analyzer, tunnel, elapsed = self.analyzer, self.tunnel, self._surroundings.elapsed()
        summary = SessionEnd(
            c=self.connection,
            ts=self._surroundings.now(),
            user=analyzer.summary.user,
            outcome=analyzer.outcome,
            commands=analyzer.commands,
            retr=analyzer.tally.get("RETR", 0),
            top=analyzer.tally.get("TOP", 0),
            dele=analyzer.tally.get("DELE", 0),
            orig_octets=tunnel.from_client if tunnel is not None else 0,
            resp_octets=tunnel.from_server if tunnel is not None else 0,
            duration=round(elapsed - self._started, 6),
            reason=self.reason,
            unexpected=analyzer.unexpected,
            inspected=analyzer.inspected,
            mechanism=analyzer.summary.mechanism,
            deleted=analyzer.summary.deleted,
            denied=analyzer.summary.denied,
            closing=elapsed - self._mark,
        )
        self._tell_all([summary])
        self._surroundings.over(self)
