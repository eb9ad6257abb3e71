"""The analyzer: what its caller gives and gets, step by step; the reading is in ``requests`` and ``replies``.

It follows the session's state and raises the events; it decides nothing. What holds for all commands and
mechanisms is here and in those two: the order of replies, what may be read when, and what is certain.
"""

from . import verdict
from .doubt import Doubt
from .events import (
    AUTHORIZATION,
    CLIENT,
    SERVER,
    Oddity,
    Reason,
    Reply,
    Side,
    StartTLS,
    Tls,
)
from .grammar import Role
from .lines import LineCutter
from .owed import CANCELLED, GREETING, OwedToExchange, OwedToLogin, OwedToUser
from .replies import Replies
from .requests import COUNTED
from .state import ANSWER, BODY, BODY_END, COMMAND, DOUBT, SASL, STATUS
from .status import Status, parse_status
from .steps import NO_KINDS, NONE, SPENT, Events, Kinds, Step
from .text import decode

_CAPA = Role.CAPA
_STLS = Role.STLS
_NEEDS_USER = (Role.PASS, Role.RPOP)


class Analyzer(Replies):
    """One POP3 session: bytes of both sides in, events out (RFC 1939 and its extensions).

    ``wants`` are the event types that anyone listens to: the others are not built; with ``DataRun`` besides
    ``Data``, most lines of bodies come in runs. ``gated`` are those of them for which the caller holds bytes
    back: it settles each step before it pulls the next. If there is one that the client's bytes can give rise
    to, or the outcome of a login, what lies behind a barrier stays unpulled until the server has answered. So
    does a login behind a login that is not answered, if commands or logins are gated, and every command
    behind it, if commands or successes are. ``StartTLS`` is for who answers STLS in the server's place:
    what may become STLS says so, and barriers hold. Otherwise it passes at once in steps without events, a
    bounded copy is kept, and its events come with the answer that decides what it is.
    ``auth_resp_code``: this server marks wrong credentials with [AUTH] even if its CAPA was not seen.

    No input raises an exception, and no decision depends on time or on how the bytes were cut.
    """

    __slots__ = ()

    @property
    def owed(self) -> int:
        """The number of replies that the client still expects, one whose body is under way among them."""
        body = self._server_expects in (BODY, BODY_END)
        return len(self._owed) + body

    @property
    def done(self) -> bool:
        """Whether nothing that is fed from now on can raise an event."""
        return self.inspected != "whole" and not self._handshake_due

    @property
    def outcome(self) -> str:
        """``success``, ``failure`` (logins failed and none succeeded) or ``none``."""
        if self.user is not None:
            return "success"
        return "failure" if self.failures else "none"

    @property
    def unexpected(self) -> int:
        """The number of oddities so far, those beyond the limit of their kind too."""
        return sum(self._oddities.values()) if self._oddities else 0

    @property
    def kept(self) -> int:
        """About how many octets are kept of what the peers said, for who has many sessions to bound."""
        lines = sum(cutter.kept + cutter.waiting for cutter in (self._client, self._server))
        undecided = len(self._undecided) if self._undecided else 0
        doubtful = self._doubt.after_dot if self._doubt is not None else None
        answers = sum(len(status.text) for status in doubtful) if doubtful else 0
        pending = 4 * self._credentials + 128 * len(self._owed)
        return lines + undecided + answers + pending + self.summary.kept

    def feed(self, side: Side, data: bytes, ts: float) -> None:
        """Take bytes of one side, read at ``ts`` (seconds). Nothing is parsed before ``next`` asks."""
        self.ts = ts
        if side is SERVER:
            self._server.feed(data)
        else:
            self._client.feed(data)
            if self._doubt is not None:
                self._doubt.client_spoke = True

    def next(self, side: Side) -> Step | None:
        """Return the next run of the bytes given for ``side``, or None.

        None with client bytes left means that they have to wait for the server: at a barrier, or because too
        many replies are owed. The caller holds them back, stops reading the client, and asks again after
        each step of the server.
        """
        cutter = self._server if side is SERVER else self._client
        if not cutter.waiting:
            return None
        if self.inspected != "whole":
            return self._opaque(side, cutter)
        self._out = []
        in_capa = self._in_capa
        if side is SERVER:
            in_capa = in_capa or (self._gated and self._capa_due)
            withheld = self._cancelling and self._answers_cancellation
            in_exchange = False
            size = self._server_step()
        else:
            withheld = False
            if self._doubt is not None:
                self._client_speaks_in_doubt(self._doubt)
            in_exchange = self._client_expects is SASL
            size = self._client_step()
        events, self._out = self._out, SPENT
        if size < 0:
            # Bytes that arrived may have said something even though they have to wait.
            return Step(0, events) if events else None
        step = Step(size, events)
        if cutter.unfinished:
            step.open = True
            step.may = self._may_become(side, cutter.head(5))
            step.too_long = cutter.truncated
        elif self._too_long:
            step.too_long = True
            step.may, self._too_long = self._too_long, NO_KINDS
        step.in_exchange, step.withheld = in_exchange, withheld
        if self._gated or in_capa or self._in_capa:
            self._name(side, step, in_capa)
        return step

    @property
    def _capa_due(self) -> bool:
        """Whether the server's next line, or the rest of it, should answer CAPA."""
        owed = self._owed
        return bool(owed) and owed[0].command.role is _CAPA and self._server_expects is STATUS

    def _name(self, side: Side, step: Step, in_capa: bool) -> None:
        """Say which command a step completes, or that it belongs to the reply to CAPA."""
        if side is CLIENT:
            step.command, self._row = self._row, None
            step.hides_stls, self._hides_stls = self._hides_stls, False
            if self._forgotten and step.command is not None and self._before == (None, ""):
                step.unnamed = step.command.role in _NEEDS_USER
        elif in_capa or self._in_capa:
            step.capa, step.capa_ends = True, not (step.open or self._in_capa)
            step.capa_refused, self._capa_refused = self._capa_refused, False

    def gap(self, side: Side, ts: float) -> Events:
        """Take it that bytes of a side are missing here; return the events. All that was fed is pulled.

        A capture may have lost packets, or begin in the middle (then both sides have a gap before their first
        byte). What follows is in doubt, until one command and its one reply stand alone.
        """
        self.ts = ts
        if self.inspected != "whole":
            return NONE
        self._out = []
        self._odd(Oddity.GAP, side is CLIENT, b"")
        was_counted = self._doubt is None or self._doubt.counted
        if any(owed.command.role is _STLS for owed in self._owed):
            # The +OK may be what is missing, and TLS what comes next.
            self._client_fresh = self._server_fresh = True
        if side is CLIENT or self._client_expects in (ANSWER, SASL):
            self._client_expects = COMMAND
            self._message = self._undecided = None
            # A line of a SASL exchange whose AUTH or challenge is missing looks like an unknown command.
            self._auth_refused = True
        if side is CLIENT:
            self._client.drop()
            self._client_torn = True
            self._user, self._user_last = None, ""
        else:
            self._server.drop()
            self._body = self._body_end = None
        # Another USER, or the answer to the one that was seen, may be what is missing.
        self._named, self._named_last = None, ""
        self._in_capa = self._after_unknown = False
        self._may_be_in = True
        self._doubt = Doubt(was_counted and side is SERVER)
        self._server_expects = DOUBT
        events, self._out = self._out, SPENT
        return events

    def ended(self, side: Side, ts: float) -> Events:
        """Take the end of one side's bytes and return the events that it completes.

        A caller that ends the session by a limit of its own ends the client's side first: a login is
        ``aborted`` only where the server went first. A side that ended already says nothing more.
        """
        self.ts = ts
        if self.inspected != "whole" or side in self._ended:
            return NONE
        self._ended = (*self._ended, side)
        self._out = []
        if side is SERVER:
            self._server_ended()
        elif self._client.unfinished:
            self._client_cut(self._client.head(self._limits.detail))
        return self._out

    def give_up(self, why: str) -> None:
        """End inspection, because the caller cannot go on with it."""
        self._lose(why)

    # --- what the server does not get -----------------------------------------------------------------

    def held(self, step: Step) -> None:
        """Know that the client's last step has not gone to the server, which can't have answered it."""
        self._unsent = step

    def sent(self) -> None:
        """Know that the client's last step goes to the server."""
        self._unsent = None

    def refused(self, step: Step) -> bytes:
        """Take back the client's last step, a whole line: the server will not get it.

        Return what it must get instead: the ``*`` that ends a SASL exchange under way (RFC 5034 section 4),
        whose answer will be withheld, or nothing. ``answered`` is due once ``quiet`` says so.
        """
        self._unsent = None
        self._user, self._user_last = self._before
        if not self._owed:
            # The server has ended the exchange meanwhile, so there is nothing to cancel.
            return b""
        owed = self._owed[-1]
        if isinstance(owed, OwedToExchange):
            self._auth_refused = True
        if step.in_exchange:
            self._owed[-1] = CANCELLED
            self._cancelling = True
            return b"*\r\n"
        self._owed.pop()
        self._credentials -= owed.octets
        self._in_flight -= self._logins_wait and isinstance(owed, OwedToLogin)
        if owed.command.name in COUNTED:
            self.tally[owed.command.name] -= 1
        self._client_expects = COMMAND
        self._message = None
        return b""

    @property
    def quiet(self) -> bool:
        """Whether the server owes nothing and has said nothing by halves: the client can be answered."""
        server = self._server
        return (
            not self._owed
            and self._server_expects is STATUS
            and not server.unfinished
            and not server.waiting
        )

    @property
    def in_doubt(self) -> bool:
        """Whether the server's lines are out of step with the commands."""
        return self._doubt is not None

    def answered(self, reply: bytes, ts: float) -> Events:
        """Take the line that the client gets for the step that was refused, and return its events.

        The login that the step would have completed has failed; then comes the reply itself.
        """
        self.ts = ts
        self._out = []
        status = parse_status(reply.rstrip(b"\r\n"))
        attempted, self._attempted = self._attempted, None
        if attempted is not None:
            code = verdict.response_code(status.text) if status is not None else ""
            self._failed(*attempted, Reason.DENIED, code)
        # A +OK answers an STLS, which is no denial.
        if status is not None and not status.ok:
            self._denied(status)
        events, self._out = self._out, SPENT
        return events

    def overruled(self, reply: bytes, ts: float) -> Events:
        """Take the -ERR that the client gets instead of what the server has said, and return its event."""
        self.ts = ts
        self._out = []
        status = parse_status(reply.rstrip(b"\r\n"))
        if status is not None:
            self._denied(status)
        events, self._out = self._out, SPENT
        return events

    def _denied(self, status: Status) -> None:
        self.summary.denied += 1
        if Reply in self._wants:
            self._out.append(Reply(self.connection, self.ts, "ERR", decode(status.text), True))

    # --- TLS whose keys are ours ------------------------------------------------------------------------

    def turned(self, ts: float) -> Events:
        """Take it that the client's STLS, which was taken back (``refused``), is answered with a +OK of ours.

        Return the event of that; or, if the client has said something behind its STLS, only that it has:
        then there must be no TLS, since nobody can tell who said it (RFC 2595 section 4, CVE-2011-0411).
        """
        self.ts = ts
        self._out = []
        early = self._client.peek(self._limits.detail)
        if early:
            line = early.partition(b"\n")[0].rstrip(b"\r")
            self._odd(Oddity.CLIENT_INJECTION, True, line)
        elif StartTLS in self._wants:
            self._out.append(StartTLS(self.connection, ts))
        events, self._out = self._out, SPENT
        return events

    def secured(self, tls: Tls, gated: Kinds | None = None) -> None:
        """Go on inside TLS: what the client said before may have been anybody's (RFC 2595 section 4).

        ``gated`` are the event types for which bytes are held back from now on; None changes nothing.
        """
        self.connection.tls = tls
        self._client.drop()
        self._client.take(self._client.waiting)
        self._client_expects = COMMAND
        self._undecided = self._message = self._attempted = self._unsent = None
        self._auth_refused = self._alone = self._layer_due = False
        self._forgotten = self._forgotten or self._user is not None or bool(self._user_last)
        self._user = self._named = None
        self._user_last = self._named_last = ""
        self._before = (None, "")
        self.auth_resp_code = self._announced
        if gated is not None:
            self.gate(gated)

    @property
    def quitting(self) -> bool:
        """Whether the client's last command is QUIT, and its answer is owed."""
        return bool(self._owed) and self._owed[-1].command.name == "QUIT"

    # --- ends -----------------------------------------------------------------------------------------

    def _server_ended(self) -> None:
        """Report what the end of the server's bytes cuts off."""
        if self._doubt is not None and self._doubt.answered:
            self._settle_doubt(self._doubt)
        if self._body_end is not None and self._body_end.unfinished:
            self._odd(Oddity.CUT_LINE, False, b"")
        elif self._server.unfinished:
            in_body = self._server_expects is BODY
            head = b"" if in_body else self._server.head(self._limits.detail)
            self._odd(Oddity.CUT_LINE, False, head)
        if self._owed and self._owed[0] is GREETING:
            self._odd(Oddity.CUT_GREETING, False, b"")
        elif self._server_expects in (BODY, BODY_END):
            self._odd(Oddity.CUT_REPLY, False, b"")
        if self._doubt is None and self.connection.state is AUTHORIZATION:
            self._cut_login()

    def _cut_login(self) -> None:
        """Report the first login that waits: the server judged it by closing, if it closed first."""
        greeted = not self._owed or self._owed[0] is not GREETING
        user = self._named
        for owed in self._owed:
            if isinstance(owed, OwedToUser):
                user = owed.user
            elif isinstance(owed, OwedToExchange):
                exchange = owed.exchange
                if exchange.announced and CLIENT in self._ended:
                    # The server has said no, and the client did not wait for its -ERR.
                    why, code = verdict.reason(b"", True, self.auth_resp_code)
                    self._failed(exchange.user, exchange.password, exchange.mechanism, why, code)
                elif not exchange.cancelled:
                    complete = exchange.complete and greeted
                    self._aborted(exchange.user, exchange.password, exchange.mechanism, complete)
                return
            elif isinstance(owed, OwedToLogin):
                if owed.command.role is Role.APOP or user is None:
                    user = owed.user
                complete = owed.complete and user is not None and greeted
                self._aborted(user or "", owed.password, owed.mechanism, complete)
                return

    def _aborted(self, user: str, password: str, mechanism: str, complete: bool) -> None:
        if complete and CLIENT not in self._ended:
            self._failed(user, password, mechanism, Reason.ABORTED, "")
        else:
            self._odd(Oddity.CUT_LOGIN, False, b"")

    def _opaque(self, side: Side, cutter: LineCutter) -> Step:
        """Pass bytes that are not looked at; only who begins after STLS is noticed (RFC 2595 section 4)."""
        self._out = []
        if side is CLIENT and self._injected:
            injected, self._injected = self._injected, 0
            return Step(len(cutter.take(injected)))
        size = len(cutter.take(cutter.waiting))
        if self._handshake_due:
            self._handshake_due = False
            if side is SERVER:
                self._odd(Oddity.SERVER_INJECTION, False, b"")
        return Step(size, self._out)
