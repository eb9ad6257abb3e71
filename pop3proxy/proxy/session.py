"""One client and one server: relays, inspects, and ends; no socket and no reactor.

A chunk goes through the analyzer, its events to the hooks, and then, unchanged and in one write, to the
other side. The session is in one mode at a time; what each input does in each mode:

=============  ===================  ==================  ====================  =============
input          CONNECTING           RELAY               TUNNEL                ENDING
=============  ===================  ==================  ====================  =============
data           kept, client paused  inspected, written  written               dropped
drained        --                   source is read on   source is read on     --
ended          passed on later      passed on           passed on             --
lost           session ends         session ends        session ends          closes
=============  ===================  ==================  ====================  =============
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from twisted.logger import Logger

from ..analyzer.dialogue import Analyzer
from ..analyzer.events import Connect, Connection, Event, SessionEnd, Side, State
from ..config import Timeouts
from ..hooks.api import EndSession
from .tunnel import Tunnel
from .wire import Wire

TRY_LATER = b"-ERR [SYS/TEMP] %s\r\n"
"""How the proxy speaks for itself: RFC 3206 section 3 tells clients to try again later."""

_SERVER_GONE = b"the mail server closed the connection, please try again later"


class Mode(Enum):
    """What a session does with its input."""

    CONNECTING = "connecting"
    RELAY = "relay"
    TUNNEL = "tunnel"
    ENDING = "ending"
    OVER = "over"

    __hash__ = object.__hash__


class Surroundings(Protocol):
    """What all sessions of a proxy share."""

    timeouts: Timeouts

    def now(self) -> float:
        """Return seconds since the epoch."""

    def dispatch(self, events: Sequence[Event]) -> None:
        """Bring events to the hooks. Raises EndSession."""

    def dial(self, session: "Session") -> Callable[[], None]:
        """Begin to connect to the server; return what gives it up."""

    def count(self, what: str) -> int:
        """Count something worth knowing; return the count."""

    def over(self, session: "Session") -> None:
        """Forget a session."""


class Session:
    """One client, one server, and what is known of their dialogue."""

    __slots__ = (
        "_active",
        "_client_closed",
        "_client_end_due",
        "_client_ended",
        "_give_up",
        "_held",
        "_mark",
        "_server_closed",
        "_server_ended",
        "_started",
        "_surroundings",
        "analyzer",
        "client",
        "connection",
        "mode",
        "reason",
        "server",
        "tunnel",
    )

    _log = Logger(namespace="pop3proxy.session")

    def __init__(
        self, connection: Connection, analyzer: Analyzer, surroundings: Surroundings
    ) -> None:
        """Wait for the client's wire to begin."""
        self.connection = connection
        self.analyzer = analyzer
        self.mode = Mode.CONNECTING
        self.reason = ""
        self.client = Wire(self, Side.CLIENT)
        self.server: Wire | None = None
        self.tunnel: Tunnel | None = None
        self._surroundings = surroundings
        self._give_up: Callable[[], None] | None = None
        # Of the client: before the server is there, or while the analyzer says wait.
        self._held = b""
        self._client_ended = self._server_ended = False  # no more bytes will come from there
        self._client_end_due = False  # the client has ended, behind bytes that are held
        self._client_closed = self._server_closed = False  # the wire is gone
        self._started = self._mark = self._active = surroundings.now()

    # --- from the wires ---------------------------------------------------------------------------------

    def begun(self, side: Side) -> None:
        """Dial when the client is there; relay when the server is."""
        if side is Side.CLIENT:
            self._client_begun()
        else:
            self._server_begun()

    def _client_begun(self) -> None:
        if self._tell([Connect(self.connection, self._started)]):
            give_up = self._surroundings.dial(self)
            if self.mode is Mode.CONNECTING:
                self._give_up = give_up

    def _server_begun(self) -> None:
        assert self.server is not None
        self._give_up = None
        if self.mode is not Mode.CONNECTING:
            self.server.abort()
            return
        self.mode = Mode.RELAY
        self._mark = self._active = self._surroundings.now()
        self.tunnel = Tunnel(self.client, self.server)
        early, self._held = self._held, b""
        if early:
            self.client.resume()
            self.data(Side.CLIENT, early)
        if self._client_end_due:
            self._released()

    def data(self, side: Side, data: bytes) -> None:
        """Take bytes of one side."""
        now = self._active = self._surroundings.now()
        if self.mode is Mode.RELAY:
            if self._inspect(side, data, now):
                self._pass_on(side, data)
        elif self.mode is Mode.TUNNEL:
            assert self.tunnel is not None
            self.tunnel.data(side, data)
        elif self.mode is Mode.CONNECTING:
            self._held += data
            self.client.pause()

    def drained(self, side: Side) -> None:
        """Read on what goes to ``side``, if more can come from there and nothing is held."""
        if self.mode is Mode.ENDING:
            return
        over = self._client_ended if side is Side.SERVER else self._server_ended
        if self.tunnel is not None and not over and not (side is Side.SERVER and self._held):
            self.tunnel.drained(side)

    def ended(self, side: Side) -> None:
        """Pass on that one side has no more to say; with both, the session is over."""
        if self.mode is Mode.ENDING:
            return
        if side is Side.SERVER:
            self._server_ended = True
        else:
            self._client_ended = True
            if self._held or self.mode is Mode.CONNECTING:
                self._client_end_due = True
                return
        self._side_ended(side)

    def _side_ended(self, side: Side) -> None:
        if not self.reason:
            self.reason = f"{side.value}_closed"
        self._tell_end(side)
        if self.mode is Mode.ENDING:
            return
        if side is Side.SERVER and self._silent:
            self._answer(_SERVER_GONE)
            self._end("server_closed")
        elif self._client_ended and self._server_ended:
            self._end(self.reason)
        else:
            assert self.tunnel is not None
            self.tunnel.ended(side)

    def lost(self, side: Side, clean: bool) -> None:
        """Close the other side: by a reset if the client reset, else after what is still on its way."""
        if side is Side.CLIENT:
            self._client_closed = self._client_ended = True
        else:
            self._server_closed = self._server_ended = True
        if self.mode is not Mode.ENDING:
            if side is Side.SERVER:
                self._answer(_SERVER_GONE)
            elif not clean and self.server is not None and not self._server_closed:
                self.server.abort()
            self._end(self.reason or f"{side.value}_{'closed' if clean else 'lost'}")
        self._finish()

    # --- inspection -------------------------------------------------------------------------------------

    def _inspect(self, side: Side, data: bytes, now: float) -> bool:
        """Raise the events of a chunk; return whether all of it may pass now.

        Nothing here may cost the session: an error in the analyzer only ends inspection.
        """
        analyzer = self.analyzer
        passed = 0
        try:
            analyzer.feed(side, data, now)
            if self._held and side is Side.CLIENT:
                self._held += data
                self._release()
                return False
            while passed < len(data) and (step := analyzer.next(side)) is not None:
                passed += step.size
                if step.events and not self._tell(step.events):
                    return False
                if self._held and side is Side.SERVER and not self._release():
                    return False
        except Exception as problem:
            self._inspection_failed(problem)
            return self._let_go(side)
        if analyzer.done:
            self.mode = Mode.TUNNEL
        if passed < len(data):
            self._hold(data, passed)
            return False
        return True

    def _hold(self, data: bytes, passed: int) -> None:
        """Keep back client bytes that the analyzer can't take before the server has answered."""
        self._held = data[passed:]
        if passed:
            self._pass_on(Side.CLIENT, data[:passed])
        self.client.pause()

    def _release(self) -> bool:
        """Pass on what was held and may go now, behind a step of the server."""
        passed = 0
        while self._held and (step := self.analyzer.next(Side.CLIENT)) is not None:
            passed += step.size
            if step.events and not self._tell(step.events):
                return False
            if passed >= len(self._held):
                break
        if passed:
            data, self._held = self._held[:passed], self._held[passed:]
            self._pass_on(Side.CLIENT, data)
            self._released()
        return self.mode is not Mode.ENDING

    def _released(self) -> None:
        """Read the client on, or pass on that it has ended, if nothing of it is held any more."""
        if self._held or self.mode is Mode.ENDING:
            return
        if self._client_end_due:
            self._client_end_due = False
            self._side_ended(Side.CLIENT)
        elif self.server is not None and not self.server.unsent and not self._client_ended:
            self.client.resume()

    def _let_go(self, side: Side) -> bool:
        """Pass on all that is held, since nobody will look at it; return whether the chunk may pass."""
        if not self._held:
            return True
        held, self._held = self._held, b""
        self._pass_on(Side.CLIENT, held)
        self._released()
        # Bytes of the client were put behind what is held already.
        return side is Side.SERVER

    def _inspection_failed(self, problem: Exception) -> None:
        count = self._surroundings.count("inspection_failed")
        self._log.error(
            "{uid}: inspection ended by an error of ours ({problem}), the session goes on;"
            " {count} such sessions by now",
            uid=self.connection.uid,
            problem=type(problem).__name__,
            count=count,
        )
        self.analyzer.give_up("error")
        if self.mode is Mode.RELAY:
            self.mode = Mode.TUNNEL

    def _pass_on(self, side: Side, data: bytes) -> None:
        assert self.tunnel is not None
        self.tunnel.data(side, data)

    def _tell(self, events: Sequence[Event]) -> bool:
        """Bring events to the hooks; return whether the session goes on."""
        try:
            self._surroundings.dispatch(events)
        except EndSession:
            self._surroundings.count("ended_by_hook")
            self._end("hook")
            return False
        return True

    def _tell_end(self, side: Side) -> None:
        """Report what the end of a side's bytes cuts off."""
        try:
            events = self.analyzer.ended(side, self._surroundings.now())
        except Exception as problem:
            self._inspection_failed(problem)
        else:
            if events:
                self._tell(events)

    # --- limits -----------------------------------------------------------------------------------------

    @property
    def _silent(self) -> bool:
        """Whether the server has said nothing yet, so that a line of ours tears none of its own apart.

        A client that does not speak POP3 would not understand the line.
        """
        return (self.tunnel is None or not self.tunnel.from_server) and not self.analyzer.blind

    def overdue(self, now: float) -> str:
        """Name the time limit that has run out, or return ``""``. ``now`` is in seconds."""
        timeouts = self._surroundings.timeouts
        if self.mode is Mode.ENDING:
            return "drain" if now - self._mark > timeouts.drain else ""
        if self.mode is Mode.CONNECTING:
            return "connect" if now - self._started > timeouts.connect else ""
        assert self.tunnel is not None
        if not self.tunnel.from_server and now - self._mark > timeouts.greeting:
            return "greeting"
        if (
            self.mode is Mode.RELAY
            and self.analyzer.state is State.AUTHORIZATION
            and now - self._mark > timeouts.login
            and not (self._client_ended or self._server_ended)
        ):
            return "login"
        return "idle" if now - self._active > timeouts.idle else ""

    def expired(self, limit: str) -> None:
        """End the session because a time limit has run out.

        Before the greeting the client gets a line that says so; later it is closed without a word, as
        RFC 1939 section 3 asks.
        """
        count = self._surroundings.count(f"timeout_{limit}")
        self._log.info(
            "{uid}: time limit {limit} ran out for {host}:{port}; {count} by now",
            uid=self.connection.uid,
            limit=limit,
            host=self.connection.orig_h,
            port=self.connection.orig_p,
            count=count,
        )
        if self.mode is Mode.ENDING:
            self._abort()
            return
        if limit in ("connect", "greeting"):
            self._answer(b"the mail server does not answer, please try again later")
        self._end(f"timeout:{limit}")

    def unreachable(self, why: str) -> None:
        """End the session because the server can't be reached."""
        self._give_up = None
        if self.mode is not Mode.CONNECTING:
            return
        count = self._surroundings.count("upstream_unreachable")
        self._log.warn(
            "{uid}: cannot reach the mail server: {why}; {count} sessions refused by now",
            uid=self.connection.uid,
            why=why,
            count=count,
        )
        self._answer(b"the mail server cannot be reached, please try again later")
        self._end("upstream_unreachable")

    def shut_down(self) -> None:
        """End the session because the proxy stops."""
        if self.mode is Mode.ENDING:
            self._abort()
        else:
            self._end("shutdown")

    def _answer(self, text: bytes) -> None:
        if self._silent and not self._client_closed:
            self.client.write(TRY_LATER % text)

    # --- the end ----------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        """Close both sides, each after what is still on its way to it."""
        if self.mode in (Mode.ENDING, Mode.OVER):
            return
        dialled = self.tunnel is not None
        self.mode = Mode.ENDING
        self.reason = reason
        self._mark = self._surroundings.now()
        if dialled:
            self._tell_ends()
        if self._give_up is not None:
            give_up, self._give_up = self._give_up, None
            give_up()
        if self.server is None:
            self._server_closed = True
        elif not self._server_closed:
            self.server.close()
        if not self._client_closed:
            self.client.close()

    def _tell_ends(self) -> None:
        """Let the analyzer report what is cut off, the side that went first first.

        If we end the session, the server is not to blame for the answers that it owes.
        """
        order = [Side.CLIENT, Side.SERVER]
        if self.reason.startswith("server_"):
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
        if self.mode is not Mode.ENDING or not (self._client_closed and self._server_closed):
            return
        self.mode = Mode.OVER
        self._held = b""
        analyzer, tunnel = self.analyzer, self.tunnel
        now = self._surroundings.now()
        summary = SessionEnd(
            c=self.connection,
            ts=now,
            user=analyzer.user or "",
            outcome=analyzer.outcome,
            commands=analyzer.commands,
            retr=analyzer.tally.get("RETR", 0),
            top=analyzer.tally.get("TOP", 0),
            dele=analyzer.tally.get("DELE", 0),
            orig_octets=tunnel.from_client if tunnel is not None else 0,
            resp_octets=tunnel.from_server if tunnel is not None else 0,
            duration=round(now - self._started, 6),
            reason=self.reason,
            unexpected=analyzer.unexpected,
            inspected=analyzer.inspected,
        )
        self._tell([summary])
        self._surroundings.over(self)
