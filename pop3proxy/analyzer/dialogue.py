"""The analyzer: what its caller gives and gets, step by step; the reading is in ``requests`` and ``replies``.

It follows the session's state and raises the events; it decides nothing. What holds for all commands and
mechanisms is here and in those two: the order of replies, what may be read when, and what is certain.
"""

from . import refusals
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
from .owed import CANCELLED, GREETING, Owed, OwedToExchange, OwedToLogin, OwedToUser
from .protocols import TLS_HEAD, is_tls
from .replies import Replies
from .requests import COUNTED
from .state import ANSWER, BODY, BODY_END, COMMAND, DOUBT, SASL, STATUS
from .status import Status, parse_status
from .steps import NO_KINDS, NONE, SPENT, Events, Kinds, Step
from .text import decode

_CAPA = Role.CAPA
_STLS = Role.STLS


class Analyzer(Replies):
    """One POP3 session: bytes of both sides in, events out (RFC 1939 and its extensions).

    ``wants`` are the event types that anyone listens to: the others are not built; with ``DataRun`` besides
    ``Data``, most lines of bodies come in runs. ``gated`` are those of them for which the caller holds bytes
    back: it settles each step before it pulls the next. If logins or commands are among them, the guard, with
    its options ``guard``, decides which of the client's lines pass, and when; else what lies behind a barrier
    (AUTH, STLS, XTND XMIT) stays unpulled until the server has answered. With nothing gated it passes at once
    in steps without events, a bounded copy is kept, and its events come with the answer that decides what it
    is. ``auth_resp_code``: this server marks wrong credentials with [AUTH] even if its CAPA was not seen.
    ``refusals`` is the table by which refused logins are read.

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
        return self.inspected != "whole" and not (self._handshake_due or self._tls_head >= 0)

    @property
    def begins_with_tls(self) -> bool:
        """Whether the client has begun with TLS, and the server has not said yet what it speaks."""
        ungreeted = len(self._owed) == 1 and self._owed[0] is GREETING
        return ungreeted and self._client_expects is ANSWER

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
        listing = self._listing
        if side is SERVER:
            if self._gated and self._capa_due:
                listing = Role.CAPA
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
        if cutter.begun is not None:
            step.open = True
            step.may = self._may_become(side, cutter.head(5))
            step.too_long = cutter.truncated
        elif self._too_long:
            step.too_long = True
            step.may, self._too_long = self._too_long, NO_KINDS
        step.in_exchange, step.withheld = in_exchange, withheld
        if self._gated or listing or self._listing:
            self._name(side, step, listing)
        return step

    @property
    def _capa_due(self) -> bool:
        """Whether the server's next line, or the rest of it, should answer CAPA."""
        owed = self._owed
        return bool(owed) and owed[0].command.role is _CAPA and self._server_expects is STATUS

    def _name(self, side: Side, step: Step, listing: Role | None) -> None:
        """Note on a step what the caller decides by: its command, and what the guard says of it."""
        step.readings, self._readings = self._readings, SPENT
        step.ends, self._ends = self._ends, ""
        if side is CLIENT:
            step.command, self._row = self._row, None
            step.refusal, self._refusal = self._refusal, None
            return
        step.announced, self._announcement = self._announcement, None
        if listing or self._listing:
            step.listing = listing or self._listing
            step.listing_ends = not (step.open or self._listing)
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
            self._user = None
        else:
            self._server.drop()
            self._body = self._body_end = None
        # Another USER, or the answer to the one that was seen, may be what is missing.
        self._named = self._named_last = None
        self._listing, self._after_unknown = None, False
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
        else:
            if self._client.unfinished:
                self._client_cut(self._client.head(self._limits.detail))
            if SERVER in self._ended:
                self._cut_logins()
        return self._out

    def give_up(self, why: str) -> Events:
        """End inspection, because the caller cannot go on with it; return the events of that."""
        self._out = []
        self._lose(why)
        events, self._out = self._out, SPENT
        return events

    # --- what the server does not get -----------------------------------------------------------------

    def held(self, step: Step) -> None:
        """Know that the client's last step has not gone to the server, which can't have answered it."""
        self._unsent = step

    def sent(self) -> bool:
        """Know that the client's last step goes to the server; return whether it still may.

        It may not if it is the response of an exchange that the server has ended meanwhile, or if the server
        has said farewell.
        """
        stale, self._stale = self._stale, False
        if self._farewell is not None:
            return False
        self._unsent = None
        return not stale

    def refused(self, step: Step) -> bytes:
        """Take back the client's last step, a whole line: the server will not get it.

        Return what it must get instead: the ``*`` that ends a SASL exchange under way (RFC 5034 section 4),
        whose answer will be withheld, or nothing. ``answered`` is due once ``quiet`` says so.
        """
        self._unsent = None
        self._denied, self._attempted = self._attempted, None
        if step.in_exchange:
            if self._stale or not self._owed:
                # The server has ended the exchange meanwhile, so there is nothing to cancel.
                self._stale = False
                return b""
            self._auth_refused = True
            self._owed[-1] = CANCELLED
            self._cancelling = True
            return b"*\r\n"
        self._user = self._before
        if step.refusal is None:
            self._take_back(self._owed.pop())
        self._client_expects = COMMAND
        self._message = None
        return b""

    def _take_back(self, owed: Owed) -> None:
        self._credentials -= owed.octets
        self._auth_refused = self._auth_refused or isinstance(owed, OwedToExchange)
        if owed.command.name in COUNTED:
            self.tally[owed.command.name] -= 1

    @property
    def login_pending(self) -> bool:
        """Whether the server, and nobody else, is to answer a login."""
        return self._unsent is None and bool(self._owed) and self._owed[-1].login > 0

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

    def answered(self, reply: bytes, ts: float) -> Step:
        """Take the line that the client gets for the step that was refused, and return its events.

        The login that the step would have completed has failed; then comes the reply itself.
        """
        self.ts = ts
        self._out = []
        status = parse_status(reply.rstrip(b"\r\n"))
        denied, self._denied = self._denied, None
        if denied is not None:
            attempt, reason = denied
            code = refusals.response_code(status.text) if status is not None else ""
            self._failed(attempt, attempt.user, reason, code)
        # A +OK answers an STLS, which is no denial.
        if status is not None and not status.ok:
            self._raise_denial(status)
        step = Step(0, self._out)
        self._out = SPENT
        step.readings, self._readings = self._readings, SPENT
        return step

    def overruled(self, reply: bytes, ts: float) -> Events:
        """Take the -ERR that the client gets instead of what the server has said, and return its event."""
        self.ts = ts
        self._out = []
        status = parse_status(reply.rstrip(b"\r\n"))
        if status is not None:
            self._raise_denial(status)
        events, self._out = self._out, SPENT
        return events

    def _raise_denial(self, status: Status) -> None:
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
        self._auth_refused = self._layer_due = False
        self._guard.restarted()
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
        if self._farewell is not None:
            self._unsolicited(self._farewell)
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
        self._read_behind_stls()
        self._cut_logins()

    def _read_behind_stls(self) -> None:
        """Read what passed behind an STLS that has no answer: the server may have judged a login in it."""
        unanswered = bool(self._owed) and self._owed[-1].command.role is _STLS
        if unanswered and self._undecided and not is_tls(bytes(self._undecided[:3])):
            self._client_expects = COMMAND
            self._read_undecided()

    def _cut_logins(self) -> None:
        """Report the logins that wait: the server judged the first one by closing, if it closed first."""
        may_judge = self._doubt is None and self.connection.state is AUTHORIZATION
        for owed in self._owed:
            if isinstance(owed, OwedToUser):
                self._named = owed.user
            elif may_judge and isinstance(owed, OwedToLogin | OwedToExchange):
                may_judge = False
                self._cut_login(owed)
            else:
                self._came_to_nothing(Oddity.CUT_LOGIN, owed.login)
        self._leave_open()
        self._owed.clear()
        self._attempted = None
        if self._guard.lock_step and self._client_expects is ANSWER:
            # None will come.
            self._client_expects = COMMAND
            self._auth_refused = True

    def _cut_login(self, owed: OwedToLogin | OwedToExchange) -> None:
        greeted = self._owed[0] is not GREETING
        by_server = greeted and CLIENT not in self._ended and self._unsent is None
        if isinstance(owed, OwedToLogin):
            attempt, user = owed.attempt, owed.named
            if user is None:
                user = self._named if self._named is not None else attempt.user
            if owed.complete and by_server:
                self._failed(attempt, user, Reason.ABORTED, "")
            else:
                self._odd(Oddity.CUT_LOGIN, False, b"", attempt=attempt.attempt)
            return
        exchange = owed.exchange
        attempt = self._of(exchange)
        if exchange.announced and CLIENT in self._ended:
            # The server has said no, and the client did not wait for its -ERR.
            why, code = self._refusals.reason(b"", "", "", True, self.auth_resp_code)
            self._failed(attempt, attempt.user, why, code)
        elif exchange.cancelled:
            self._came_to_nothing(Oddity.LOGIN_CANCELLED, exchange.attempt)
        elif exchange.complete and by_server:
            self._failed(attempt, attempt.user, Reason.ABORTED, "")
        else:
            self._odd(Oddity.CUT_LOGIN, False, b"", attempt=exchange.attempt)

    def _opaque(self, side: Side, cutter: LineCutter) -> Step:
        """Pass bytes that are not looked at; only who begins after STLS is noticed (RFC 2595 section 4)."""
        self._out = []
        if side is CLIENT and self._injected:
            injected, self._injected = self._injected, 0
            step = Step(len(cutter.take(injected)))
            step.ends = "client_injection" if self._tls_head >= 0 else ""
            return step
        begins = cutter.take(cutter.waiting)
        step = Step(len(begins), self._out)
        if self._handshake_due:
            self._handshake_due = False
            if side is SERVER:
                self._odd(Oddity.SERVER_INJECTION, False, b"")
        if side is CLIENT and self._tls_head >= 0 and not self._is_tls_so_far(begins):
            step.ends = "no_tls"
        return step

    def _is_tls_so_far(self, data: bytes) -> bool:
        """Return whether a guarded client goes on with a TLS record behind STLS, as it must."""
        seen = self._tls_head
        allowed = TLS_HEAD[seen : seen + len(data)]
        self._tls_head = -1 if seen + len(data) >= len(TLS_HEAD) else seen + len(data)
        return all(byte in octets for byte, octets in zip(data, allowed, strict=False))
