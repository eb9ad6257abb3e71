"""Pairs requests with replies, follows the session's state and raises the events; decides nothing.

What is particular to a command stands in ``grammar``, to a SASL mechanism in ``sasl``, to the text of a
refusal in ``verdict``. Here is what holds for all of them: the order of replies, what may be read when, and
what is certain.

Each side has a *mode* that says what its next line is. The client's: a command, a SASL response, a line of
a message (XTND XMIT), or not to be told before the server has answered (a *barrier*). The server's: a status
line, a line of a body, or doubtful.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from . import grammar, verdict
from .doubt import Doubt
from .events import (
    ALL,
    AUTHORIZATION,
    CLIENT,
    SERVER,
    TRANSACTION,
    Connection,
    Data,
    DataRun,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Reason,
    Reply,
    Request,
    Secret,
    Side,
    StartTLS,
    State,
    Unexpected,
)
from .grammar import Command, Role
from .limits import Limits
from .lines import Body, BodyEnd, LineCutter
from .owed import Owed, OwedToExchange, OwedToLogin, OwedToUser
from .protocols import foreign_client, foreign_server, is_tls
from .sasl import LAYERED, Exchange, is_mechanism, readable
from .status import Kind, Status, may_become_status, parse_status
from .text import decode

Events = Sequence[Event]
Kinds = frozenset[type[Event]]

DEFAULT_LIMITS = Limits()

_NONE: Events = ()
_SPENT: list[Event] = []  # stands where events were handed out; nothing is ever put into it
_NO_KINDS: Kinds = frozenset()

_COMMAND_MAY: Kinds = frozenset({Request, Unexpected})
_LOGIN_MAY: Kinds = frozenset({Request, Unexpected, LoginAttempt})
_SASL_MAY: Kinds = frozenset({LoginAttempt, Unexpected})
_STATUS_MAY: Kinds = frozenset({Reply, LoginSuccess, LoginFailure, StartTLS, Unexpected})
_STATUS_OR_DATA_MAY: Kinds = _STATUS_MAY | {Data}
_DATA_MAY: Kinds = frozenset({Data, Unexpected})
_OF_LOGIN: Kinds = frozenset({Request, LoginAttempt, LoginSuccess, LoginFailure})
_HOLDS_CLIENT: Kinds = _OF_LOGIN | {Data, Unexpected}


class Step:
    """A run of the bytes that were fed, with the events that it completes.

    ``size`` is in octets. ``open`` says that the run is the beginning of a line that has not ended;
    ``too_long`` that its line is over the limit of its kind, so that nobody can hold it whole. In both cases
    ``may`` has the event types that the line may give rise to. ``in_exchange``: it is a response of a SASL
    exchange that the server has begun. ``withheld``: it belongs to the server's answer to what ``refused``
    sent, of which the client knows nothing.
    """

    __slots__ = ("events", "in_exchange", "may", "open", "size", "too_long", "withheld")

    def __init__(self, size: int, events: Events = _NONE) -> None:
        self.size = size
        self.events = events
        self.may = _NO_KINDS
        self.open = self.too_long = self.in_exchange = self.withheld = False


# Most commands leave nothing to remember, so one value serves all sessions.
_SINGLE = {row: Owed(row) for row in grammar.ROWS}
_MULTI = {row: Owed(row, True) for row in grammar.ROWS}
_NO_TALLY: dict[str, int] = {}
_COUNTED = frozenset({"RETR", "TOP", "DELE"})
_GREETING = Owed(grammar.GREETING)
_AFTER_XMIT = Owed(grammar.AFTER_XMIT)
_CANCELLED = Owed(grammar.CANCELLED)


class _Expect(Enum):
    """What the next line of a side is."""

    COMMAND = "a command"
    SASL = "a SASL response"
    MESSAGE = "a line of the message that XTND XMIT sends"
    ANSWER = "not to be told before the server has answered: a barrier"
    STATUS = "a status line"
    BODY = "a line of a body"
    BODY_END = "a line of a body of which only the end matters"
    DOUBT = "doubtful"

    __hash__ = object.__hash__


_COMMAND, _SASL, _MESSAGE, _ANSWER, _STATUS, _BODY, _BODY_END, _DOUBT = _Expect
_PLUS_ERR = Kind.PLUS_ERR
_CHALLENGE = Kind.CHALLENGE
_NOT_SECRET = Secret.NOTHING
_AUTH = Role.AUTH
_STLS = Role.STLS


class Analyzer:
    """One POP3 session: bytes of both sides in, events out (RFC 1939 and its extensions).

    ``wants`` are the event types that anyone listens to: the others are not built; with ``DataRun`` besides
    ``Data``, most lines of bodies come in runs. ``gated`` are those of them for which the caller holds bytes
    back: it settles each step before it pulls the next. If there is one that the client's bytes can give rise
    to, or the outcome of a login, what lies behind a barrier stays unpulled until the server has answered. So
    does a login behind a login that is not answered, if commands or logins are gated, and every command
    behind it, if commands or successes are. Otherwise it passes at once in steps without events, a bounded
    copy is kept, and its events come with the answer that decides what it is.
    ``auth_resp_code``: this server marks wrong credentials with [AUTH] even if its CAPA was not seen.

    No input raises an exception, and no decision depends on time or on how the bytes were cut.
    """

    __slots__ = (
        "_after_unknown",
        "_alone",
        "_attempted",
        "_auth_refused",
        "_before",
        "_body",
        "_body_end",
        "_cancelling",
        "_client",
        "_client_expects",
        "_client_fresh",
        "_client_torn",
        "_commands_wait",
        "_credentials",
        "_doubt",
        "_ended",
        "_gated",
        "_handshake_due",
        "_in_capa",
        "_in_flight",
        "_injected",
        "_layer_due",
        "_limits",
        "_line_by_line",
        "_logins_wait",
        "_message",
        "_named",
        "_named_last",
        "_oddities",
        "_out",
        "_owed",
        "_server",
        "_server_expects",
        "_server_fresh",
        "_too_long",
        "_undecided",
        "_unsent",
        "_user",
        "_user_last",
        "_wants",
        "auth_resp_code",
        "commands",
        "connection",
        "failures",
        "inspected",
        "tally",
        "ts",
        "user",
    )

    def __init__(
        self,
        connection: Connection,
        limits: Limits = DEFAULT_LIMITS,
        wants: Kinds = ALL,
        gated: Kinds = _NO_KINDS,
        auth_resp_code: bool = False,
    ) -> None:
        """Begin before the greeting, which is the first reply that the server owes."""
        self.connection = connection
        self.user: str | None = None  # who is logged in
        self.failures = 0  # logins that failed
        self.commands = 0
        self.tally: dict[str, int] = _NO_TALLY  # how often each of RETR, TOP and DELE was sent
        self.inspected = "whole"
        self.auth_resp_code = auth_resp_code
        self.ts = 0.0
        self._limits = limits
        self._wants = wants
        self._gated = not gated.isdisjoint(_HOLDS_CLIENT)
        # What waits for the answer to a login: the next login, or all commands. Whoever decides about the
        # answer decides in vain if the server has got by then what was pipelined behind the login.
        self._logins_wait = not gated.isdisjoint(_OF_LOGIN)
        self._commands_wait = not gated.isdisjoint({Request, LoginSuccess})
        # So that no line of a body passes, or waits, with another.
        self._line_by_line = not gated.isdisjoint(_DATA_MAY)
        self._ended: tuple[Side, ...] = ()
        self._too_long = (
            _NO_KINDS  # what the line just read may give rise to, if it is over its limit
        )
        self._out: list[Event] = []
        self._oddities: dict[Oddity, int] | None = None

        self._client = LineCutter()
        self._client_expects = _COMMAND
        self._client_fresh = True
        self._client_torn = False  # bytes before the next are missing
        self._undecided: bytearray | None = None  # what passed behind a barrier
        self._message: Body | None = None  # the message of XTND XMIT
        self._auth_refused = False
        self._layer_due = False
        # If gated: logins whose answer is owed; what the client's last command can be taken back to.
        self._in_flight = 0
        self._alone = False  # the client's last line is none, or several, to some servers
        self._before: tuple[str | None, str] = (None, "")
        self._attempted: tuple[str, str, str] | None = None
        self._cancelling = False  # an exchange whose cancellation was not the client's
        self._unsent: Step | None = None  # the client's last step, while the server has not got it

        self._server = LineCutter()
        self._server_expects = _STATUS
        self._server_fresh = True
        self._owed: list[Owed] = [_GREETING]
        self._credentials = 0  # octets of what the client said in commands whose reply is owed
        self._body: Body | None = None
        self._body_end: BodyEnd | None = None
        self._in_capa = False
        self._after_unknown = False
        self._handshake_due = False
        self._injected = 0  # octets that waited behind STLS when it was accepted
        self._doubt: Doubt | None = None

        # Who USER named: as the client sends, for attempts; and as the server accepts, for its verdicts.
        # Each since the last login command, and at all.
        self._user: str | None = None
        self._user_last = ""
        self._named: str | None = None
        self._named_last = ""

    # --- what the caller sees -------------------------------------------------------------------------

    @property
    def owed(self) -> int:
        """The number of replies that the client still expects, one whose body is under way among them."""
        body = self._server_expects in (_BODY, _BODY_END)
        return len(self._owed) + body

    @property
    def state(self) -> State:
        """The session's state, as far as the server has answered."""
        return self.connection.state

    @property
    def blind(self) -> bool:
        """Whether inspection has ended."""
        return self.inspected != "whole"

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
        return lines + undecided + answers + 4 * self._credentials + 128 * len(self._owed)

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
        if side is SERVER:
            withheld = self._cancelling and self._answers_cancellation
            in_exchange = False
            size = self._server_step()
        else:
            withheld = False
            in_exchange = self._client_expects is _SASL
            size = self._client_step()
        events, self._out = self._out, _SPENT
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
            step.may, self._too_long = self._too_long, _NO_KINDS
        step.in_exchange, step.withheld = in_exchange, withheld
        return step

    def gap(self, side: Side, ts: float) -> Events:
        """Take it that bytes of a side are missing here; return the events. All that was fed is pulled.

        A capture may have lost packets, or begin in the middle (then both sides have a gap before their first
        byte). What follows is in doubt, until one command and its one reply stand alone.
        """
        self.ts = ts
        if self.inspected != "whole":
            return _NONE
        self._out = []
        self._odd(Oddity.GAP, side is CLIENT, b"")
        was_counted = self._doubt is None or self._doubt.counted
        if any(owed.command.role is _STLS for owed in self._owed):
            # The +OK may be what is missing, and TLS what comes next.
            self._client_fresh = self._server_fresh = True
        if side is CLIENT or self._client_expects in (_ANSWER, _SASL):
            self._client_expects = _COMMAND
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
        self._doubt = Doubt(was_counted and side is SERVER)
        self._server_expects = _DOUBT
        events, self._out = self._out, _SPENT
        return events

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
            self._owed[-1] = _CANCELLED
            self._cancelling = True
            return b"*\r\n"
        self._owed.pop()
        self._credentials -= owed.octets
        self._in_flight -= self._logins_wait and isinstance(owed, OwedToLogin)
        if owed.command.name in _COUNTED:
            self.tally[owed.command.name] -= 1
        self._client_expects = _COMMAND
        self._message = None
        return b""

    def answered(self, reply: bytes, ts: float) -> Events:
        """Take the line that the client gets for the step that was refused, and return its events.

        The login that the step would have completed has failed; else a line of ours raises nothing.
        """
        self.ts = ts
        self._out = []
        attempted, self._attempted = self._attempted, None
        if attempted is not None:
            status = parse_status(reply)
            code = verdict.response_code(status.text) if status is not None else ""
            self._failed(*attempted, Reason.DENIED, code)
        events, self._out = self._out, _SPENT
        return events

    @property
    def quiet(self) -> bool:
        """Whether the server owes nothing and has said nothing by halves: the client can be answered."""
        server = self._server
        return (
            not self._owed
            and self._server_expects is _STATUS
            and not server.unfinished
            and not server.waiting
        )

    @property
    def quitting(self) -> bool:
        """Whether the client's last command is QUIT, and its answer is owed."""
        return bool(self._owed) and self._owed[-1].command.name == "QUIT"

    @property
    def in_doubt(self) -> bool:
        """Whether the server's lines are out of step with the commands."""
        return self._doubt is not None

    def ended(self, side: Side, ts: float) -> Events:
        """Take the end of one side's bytes and return the events that it completes.

        A caller that ends the session by a limit of its own ends the client's side first: a login is
        ``aborted`` only where the server went first. A side that ended already says nothing more.
        """
        self.ts = ts
        if self.inspected != "whole" or side in self._ended:
            return _NONE
        self._ended = (*self._ended, side)
        self._out = []
        if side is SERVER:
            self._server_ended()
        elif self._client.unfinished:
            self._client_cut(self._client.head(self._limits.detail))
        return self._out

    def _may_become(self, side: Side, head: bytes) -> Kinds:
        """Return the event types that a side's next line may give rise to; ``head`` are its first octets.

        The first line of a side may show that the session is no POP3, unless it begins like a line of POP3
        or is too long for another's; then anything is possible.
        """
        if self._server_fresh if side is SERVER else self._client_fresh:
            cutter = self._server if side is SERVER else self._client
            if not (cutter.truncated or _PLAUSIBLE[side](head)):
                return ALL
        if side is SERVER:
            if self._server_expects is _BODY:
                return _DATA_MAY
            return _STATUS_OR_DATA_MAY if self._after_unknown else _STATUS_MAY
        if self._client_expects is _SASL:
            return _SASL_MAY
        if self._client_expects is _MESSAGE:
            return _DATA_MAY
        if grammar.may_become_login(head) or self._may_hide_a_login:
            return _LOGIN_MAY
        return _COMMAND_MAY

    @property
    def _guards_login(self) -> bool:
        """Whether somebody decides about logins, and the client can still log in."""
        return self._logins_wait and self.connection.state is AUTHORIZATION

    @property
    def _may_hide_a_login(self) -> bool:
        """Whether to some servers a login may begin inside the client's line: see ``login_to_some``."""
        client = self._client
        return self._guards_login and (
            client.truncated or client.length > grammar.LONG - 2 or client.holds(b"\r")
        )

    def give_up(self, why: str) -> None:
        """End inspection, because the caller cannot go on with it."""
        self._lose(why)

    # --- the client's side ------------------------------------------------------------------------------

    def _client_step(self) -> int:
        """Take the next run of the client's bytes; return its size, or -1 if it has to wait."""
        client = self._client
        if self._doubt is not None:
            self._client_speaks_in_doubt(self._doubt)
        if self._client_expects is _ANSWER:
            return self._keep_undecided()
        waits = (self._in_flight or self._alone) and self._must_wait()
        if waits or self._undecided or self._too_much_owed():
            if self._doubt is None:
                return -1
            # Nothing pairs replies while in doubt, so waiting for them could last for ever.
            self._lose("out_of_step")
        if self.blind:
            # These are the bytes that settled the doubt, and the client's first after STLS if it was that.
            self._handshake_due = False
            return len(client.take(client.waiting))
        self._client_line()
        return client.taken

    def _too_much_owed(self) -> bool:
        if self._client_expects is _MESSAGE:
            return False
        limits = self._limits
        return len(self._owed) >= limits.pending or self._credentials >= limits.credentials

    def _must_wait(self) -> bool:
        """Say whether the next line cannot be judged before what is ahead of it is answered."""
        if self._alone:
            self._alone = bool(self._owed)
            if self._alone:
                return True
        if not self._in_flight:
            return False
        if self._commands_wait or self._doubt is not None:
            return True
        # Of a line that is passed piece by piece the beginning is gone, and decides all the same.
        line = (self._client.head(5) + self._client.peek(5)).partition(b"\n")[0]
        return grammar.may_become_login(line)

    def _keep_undecided(self) -> int:
        """Let bytes behind a barrier pass, and keep a copy until the server has answered."""
        client = self._client
        if self._gated:
            if self._doubt is None:
                return -1
            # Nothing tells in doubt which answer is the barrier's, so waiting for it could last for ever.
            self._lose("out_of_step")
            return len(client.take(client.waiting))
        if self._undecided is None:
            self._undecided = bytearray()
        room = self._limits.undecided - len(self._undecided)
        if room <= 0:
            if self._doubt is None:
                return -1
            self._lose("out_of_step")
            return len(client.take(client.waiting))
        piece = client.take(room)
        self._undecided += piece
        return len(piece)

    def _read_undecided(self) -> None:
        """Read what passed behind a barrier, now that the server has said what it is."""
        kept, self._undecided = self._undecided, None
        if not kept:
            return
        client = self._client
        later = client.take(client.waiting)
        client.feed(bytes(kept))
        while client.waiting and not (
            self._client_expects is _ANSWER or self._too_much_owed() or self.blind
        ):
            self._client_line()
        if client.waiting and not self.blind:
            self._undecided = bytearray(client.take(client.waiting))
        client.feed(later)

    def _client_line(self) -> None:
        """Cut and read one line, or the beginning of one."""
        client = self._client
        if self._layer_due:
            self._layer_due = False
            # A security layer's buffers begin with their length in four octets (RFC 4422 section 3.7).
            if client.peek(1) == b"\0":
                self._odd(Oddity.SECURITY_LAYER, True, b"")
                self._lose("security_layer")
                client.take(client.waiting)
                return
        text = client.cut(self._client_limit())
        if text is not None and client.truncated:
            self._too_long = self._may_become(CLIENT, text[:5])
        if (self._client_fresh or self._client_torn) and self._is_no_line(text):
            return
        if text is not None:
            _READ_CLIENT[self._client_expects](self, text)

    def _is_no_line(self, text: bytes | None) -> bool:
        """Look whether the first line, or the first behind a gap, is one of POP3; stop if it is not."""
        if self._client_fresh:
            if is_tls(self._client.head(3) if text is None else text):
                self._foreign(Oddity.TLS_FROM_FIRST_BYTE, True, b"", "tls")
                return True
            if text is not None:
                self._client_fresh = False
                if not self._client.truncated and (protocol := foreign_client(text)):
                    self._foreign(Oddity.NOT_POP3, True, text, protocol)
                    return True
        if self._client_torn and text is not None:
            self._client_torn = False
            # The end of a line may be the end of a password; a known command is most likely a whole line.
            return grammar.command(*_split(text)) is grammar.UNKNOWN
        return False

    def _client_limit(self) -> int:
        limits = self._limits
        if self._client_expects is _MESSAGE:
            return limits.data_line
        head = self._client.head(5) + self._client.peek(5)
        if self._client_expects is _SASL or grammar.may_carry_sasl(head):
            return limits.sasl_line
        return limits.command_line

    def _command(self, text: bytes) -> None:
        """Read a command line (RFC 1939 section 3; RFC 2449 section 4)."""
        word, arg = _split(text)
        row = grammar.command(word, arg)
        self.commands += 1
        if self._gated:
            self._before = self._user, self._user_last
            self._attempted = None
        if self._doubt is not None:
            self._doubt.commands += 1
        if row is grammar.UNKNOWN:
            self._unknown(text)
        else:
            if row.name in _COUNTED:
                self._count(row.name)
            if Request in self._wants:
                secret = row.secret
                if row.role is _AUTH and not is_mechanism(arg.split()[0]):
                    secret = Secret.ARGUMENT
                self._out.append(Request(self.connection, self.ts, row.name, decode(arg), secret))
            if row.needs_argument and not arg.strip():
                self._odd(Oddity.BAD_ARGUMENTS, True, text)
        if self._client.truncated:
            self._odd(Oddity.LINE_TOO_LONG, True, text, row.secret)
        self._owe(row, arg)
        if self._guards_login:
            self._look_for_a_login(row, text)

    def _owe(self, row: Command, arg: bytes) -> None:
        """Remember what the server owes for a command, and do what is particular to it."""
        request = _ON_REQUEST.get(row.role)
        if request is not None:
            owed = request(self, row, arg)
            self._credentials += owed.octets
            self._in_flight += self._logins_wait and isinstance(owed, OwedToLogin)
        else:
            owed = (_MULTI if row.multiline(arg) else _SINGLE)[row]
        self._owed.append(owed)

    def _look_for_a_login(self, row: Command, text: bytes) -> None:
        """Look whether a command line can be others to some servers."""
        # They may not answer it at all: the next command's reply would be paired with it.
        self._alone = not self._client.crlf or not text.strip()
        if grammar.login_to_some(text, row):
            # Nobody can be asked about what is a login to one server and nonsense to another.
            self._lose("out_of_step")

    def _count(self, name: str) -> None:
        if self.tally is _NO_TALLY:
            self.tally = {}
        self.tally[name] = self.tally.get(name, 0) + 1

    def _unknown(self, text: bytes) -> None:
        """Raise the events of a line that is no command: its first letters are shown, and no more.

        What a client sends for a refused AUTH becomes a command at the server, so a line that may be base64
        is a secret as a whole then.
        """
        letters = _LETTERS.match(text)[0]  # type: ignore[index]  # it matches every line
        arg = text[len(letters) :]
        secret = Secret.ARGUMENT
        if self._auth_refused and _MAYBE_BASE64.match(text):
            secret = Secret.LINE
            self._remember(text)
        self._remember(arg.strip())
        if Request in self._wants:
            shown = decode(arg[1:] if arg[:1] == b" " else arg)
            self._out.append(
                Request(self.connection, self.ts, decode(letters.upper()), shown, secret)
            )
        self._odd(Oddity.UNKNOWN_COMMAND, True, text, secret)

    def _request_user(self, row: Command, arg: bytes) -> Owed:
        self._user = self._user_last = decode(arg)
        return OwedToUser(row, self._user)

    def _request_pass(self, row: Command, arg: bytes) -> Owed:
        """RFC 1939 section 7: the password is the rest of the line, blanks included."""
        password = decode(arg)
        self._remember(arg)
        self._attempt(
            self._user if self._user is not None else self._user_last, password, USER_PASS
        )
        return OwedToLogin(row, USER_PASS, None, password)

    def _request_apop(self, row: Command, arg: bytes) -> Owed:
        """RFC 1939 section 7: a name, a blank and the digest; the name may hold blanks.

        There are servers that take a tab for a blank, and such as look no further than the first digest.
        """
        parts = _NAME_AND_DIGEST.match(arg.rstrip())
        if parts is None:
            return OwedToLogin(row, "APOP", decode(arg), complete=False)
        user, digest = parts.groups()
        if self._guards_login and _DIGEST.search(user):
            self._lose("out_of_step")
        self._remember(digest)
        self._attempt(decode(user), "", "APOP")
        return OwedToLogin(row, "APOP", decode(user))

    def _request_rpop(self, row: Command, arg: bytes) -> Owed:
        """RFC 1081: the server trusts the client's address; USER, or else the argument, names the user."""
        user = decode(arg)
        self._attempt(self._user if self._user is not None else user, "", "RPOP")
        return OwedToLogin(row, "RPOP", user)

    def _request_auth(self, row: Command, arg: bytes) -> Owed:
        """RFC 5034 section 4: a mechanism and perhaps an initial response; then the server's turn.

        Whatever blank sets them apart: there are servers that take a tab for one.
        """
        mechanism, *initials = arg.split(None, 1)
        exchange = Exchange(mechanism)
        self._client_expects = _ANSWER
        initial = initials[0].strip() if initials else b""
        if initial:
            self._remember(initial)
            if self._guards_login and not readable(initial):
                self._lose("out_of_step")
            exchange.initial(initial)
            self._responded(exchange, None)
        return OwedToExchange(row, exchange)

    def _request_barrier(self, row: Command, arg: bytes) -> Owed:
        """STLS and XTND XMIT: what the client sends next depends on the answer."""
        self._client_expects = _ANSWER
        if row.role is Role.XMIT:
            self._message = Body(self._client.crlf)
        return _SINGLE[row]

    def _sasl_response(self, text: bytes) -> None:
        """Read a line of a SASL exchange; an empty one is a response too."""
        owed = self._owed[-1]
        assert isinstance(owed, OwedToExchange)
        if self._client.truncated:
            self._odd(Oddity.LINE_TOO_LONG, True, text, Secret.LINE)
        self._remember(text)
        if self._guards_login and (b"\r" in text or not readable(text)):
            # It is several lines to some servers, or carries a login to those that decode it somehow.
            self._lose("out_of_step")
            return
        exchange = owed.exchange
        before = (exchange.user, exchange.password) if exchange.complete else None
        exchange.respond(text)
        self._responded(exchange, before)
        self._client_expects = _ANSWER

    def _responded(self, exchange: Exchange, before: tuple[str, str] | None) -> None:
        """Raise what a response gave rise to.

        ``before`` are the credentials if they seemed complete: the server may ask for others, as after an
        empty initial response to AUTH PLAIN.
        """
        if exchange.malformed:
            self._odd(Oddity.BAD_SASL_RESPONSE, True, b"", Secret.LINE)
        if exchange.complete and before != (exchange.user, exchange.password):
            self._remember(exchange.password.encode("utf-8", "surrogateescape"))
            self._attempt(exchange.user, exchange.password, exchange.mechanism)

    def _attempt(self, user: str, password: str, mechanism: str) -> None:
        """Raise the attempt, unless the client is logged in already: then the server does not judge it."""
        self._user = None
        if self.connection.state is not AUTHORIZATION:
            return
        if self._gated:
            self._attempted = user, password, mechanism
        if LoginAttempt in self._wants:
            self._out.append(LoginAttempt(self.connection, self.ts, user, password, mechanism))

    def _message_line(self, text: bytes) -> None:
        """Read a line of the message that the client sends after XTND XMIT (RFC 1081 and 1082)."""
        assert self._message is not None
        if self._logins_wait and text != b"." and _ENDS_FOR_SOME.search(text):
            # What follows is a command to those, and mail to others.
            self._lose("out_of_step")
            return
        line = self._message.line(text, self._client.crlf)
        if line is None:
            if self._message.mixed:
                self._odd(Oddity.MIXED_TERMINATOR, True, text)
            self._message = None
            self._client_expects = _COMMAND
            return
        if Data in self._wants:
            self._out.append(Data(self.connection, self.ts, decode(line), True))
            if self._client.truncated:
                self._odd(Oddity.LINE_TOO_LONG, True, b"")

    def _remember(self, secret: bytes) -> None:
        """Keep a secret's beginning, so that a reply that repeats it can be masked."""
        text = decode(secret[: self._limits.secret])
        known = self.connection.secrets
        if text and text not in known:
            self.connection.secrets = (*known, text)[-self._limits.secrets :]

    # --- the server's side ------------------------------------------------------------------------------

    def _server_step(self) -> int:
        """Take the next run of the server's bytes and return its size."""
        if self._server_expects is _BODY_END:
            return self._skip_body()
        # A reply ends its step even if a body follows: client bytes that waited for it come first then.
        in_body = self._server_expects is _BODY
        if self._line_by_line:
            return self._server_line()
        size = (in_body and self._server_run()) or self._server_line()
        while in_body and self._server_expects is _BODY and self._server.waiting:
            size += self._server_run() or self._server_line()
        return size

    def _server_run(self) -> int:
        """Take plain lines of a body all in one, if that is asked for; return the octets taken."""
        server = self._server
        if DataRun not in self._wants or self._in_capa:
            return 0
        again = server.rejoin() if server.unfinished else 0
        if server.unfinished:
            return 0
        assert self._body is not None
        chunk, start = server.chunk()
        run = self._body.run(chunk, start, self._limits.data_line)
        if run is None:
            return self._server_line() - again if again else 0
        data, lines = run
        server.skip(len(data))
        self._out.append(DataRun(self.connection, self.ts, data, lines))
        return len(data) - again

    def _server_line(self) -> int:
        """Cut and read one line, or the beginning of one; return the octets taken."""
        server, limits = self._server, self._limits
        in_body = self._server_expects is _BODY
        text = server.cut(limits.data_line if in_body else limits.status_line)
        if text is not None and server.truncated:
            self._too_long = self._may_become(SERVER, text[:5])
        if self._server_fresh:
            if is_tls(server.head(3) if text is None else text):
                self._foreign(Oddity.TLS_FROM_FIRST_BYTE, False, b"", "tls")
                return server.taken
            if text is not None:
                self._server_fresh = False
                if not server.truncated and (protocol := foreign_server(text)):
                    self._foreign(Oddity.NOT_POP3, False, text, protocol)
                    return server.taken
        size = server.taken
        if text is not None:
            _READ_SERVER[self._server_expects](self, text)
        return size

    def _status_line(self, text: bytes) -> None:
        status = parse_status(text)
        if status is None:
            self._no_status_line(text)
            return
        self._after_unknown = False
        if self._server.truncated:
            self._odd(Oddity.LINE_TOO_LONG, False, text)
        if status.kind is _CHALLENGE:
            self._challenge(status.text)
        else:
            self._reply(status, True)

    def _challenge(self, text: bytes) -> None:
        """Take ``+ ``: the client's next line is a SASL response (RFC 5034 section 4)."""
        owed = self._owed[0] if self._owed else None
        waits = self._client_expects is _ANSWER and self._unsent is None
        if not isinstance(owed, OwedToExchange) or not waits:
            self._odd(Oddity.STRAY_CHALLENGE, False, b"+ " + text)
            if self._guards_login and self._unsent is None and not self._cancelling:
                # The client's next line may be a response to it, and no command.
                self._lose("out_of_step")
            return
        owed.exchange.challenge(text)
        self._client_expects = _SASL
        self._read_undecided()

    def _reply(self, status: Status, certain: bool) -> None:
        """Pair a status line with the oldest command that waits for one."""
        text = status.text
        if self._cancelling and self._answers_cancellation:
            self._exchange_cancelled(status)
            return
        if not self._owed or self._answers_unsent or self._is_farewell(status):
            self._odd(Oddity.UNSOLICITED_REPLY, False, text)
            self._raise_reply(status)
            return
        owed = self._owed.pop(0)
        self._credentials -= owed.octets
        row = owed.command
        misplaced = self.connection.state not in row.states
        answer = _ON_REPLY.get(row.role)
        if answer is not None:
            answer(self, owed, status, certain)
        if misplaced:
            self._misplaced(row, status.ok)
        if status.kind is _PLUS_ERR:
            self._odd(Oddity.BAD_STATUS, False, text)
        if self.blind:
            return
        self._raise_reply(status)
        if status.ok and owed.multiline:
            self._open_body()
        if self._undecided is not None and self._client_expects is not _ANSWER:
            self._read_undecided()

    @property
    def _answers_unsent(self) -> bool:
        """Whether all that the server could answer is a command that it has not got."""
        return self._unsent is not None and len(self._owed) == 1 and not self._unsent.in_exchange

    @property
    def _answers_cancellation(self) -> bool:
        """Whether the server's next status line answers a ``*`` that the client has not sent."""
        return bool(self._owed) and self._owed[0] is _CANCELLED

    def _exchange_cancelled(self, status: Status) -> None:
        """Take the answer to a cancellation that the client knows nothing of."""
        self._cancelling = False
        self._owed.pop(0)
        self._client_expects = _COMMAND
        if status.ok:
            # It may have logged somebody in, and nobody can tell whom.
            self._lose("out_of_step")

    def _raise_reply(self, status: Status) -> None:
        if Reply in self._wants:
            cmd = "OK" if status.ok else "ERR"
            self._out.append(Reply(self.connection, self.ts, cmd, decode(status.text)))

    def _is_farewell(self, status: Status) -> bool:
        """Say whether an -ERR is nobody's reply, although one is owed."""
        return not status.ok and self._owed[0] is not _GREETING and verdict.is_farewell(status.text)

    def _misplaced(self, row: Command, ok: bool) -> None:
        """Report a command that the state does not allow, now that the state is certain."""
        if ok and row.role is Role.MAILBOX:
            self.connection.state = TRANSACTION
            self._odd(Oddity.NO_LOGIN_SEEN, True, row.name.encode("ascii"))
            if self._logins_wait:
                # Somebody should have been asked, or replies are paired with the wrong commands.
                self._lose("out_of_step")
        else:
            self._odd(Oddity.WRONG_STATE, True, row.name.encode("ascii"))

    def _answer_user(self, owed: Owed, status: Status, certain: bool) -> None:
        assert isinstance(owed, OwedToUser)
        self._named_last = owed.user
        if status.ok:
            self._named = owed.user
        elif self._user == owed.user:
            self._user = self._named

    def _answer_login(self, owed: Owed, status: Status, certain: bool) -> None:
        assert isinstance(owed, OwedToLogin)
        if self._in_flight:
            self._in_flight -= 1
        if self.connection.state is TRANSACTION:
            return
        user = self._named if owed.user is None or owed.command.role is Role.RPOP else owed.user
        if user is None:
            # PASS without USER: the server decides whose it is, or that it is nobody's.
            user = (owed.user or self._named_last) if status.ok or owed.user else None
        if user is None or not (owed.complete or status.ok):
            return
        self._judge(user, owed.password, owed.mechanism, status, True, certain)

    def _answer_auth(self, owed: Owed, status: Status, certain: bool) -> None:
        assert isinstance(owed, OwedToExchange)
        exchange = owed.exchange
        self._client_expects = _COMMAND
        if not status.ok:
            self._auth_refused = True
        if self._unsent is not None and not status.ok:
            # It has given up an exchange whose last response is held, and has judged nothing.
            return
        if self.connection.state is AUTHORIZATION and (status.ok or exchange.judged):
            self._judge(
                exchange.user,
                exchange.password,
                exchange.mechanism,
                status,
                exchange.complete,
                certain,
            )

    def _judge(
        self,
        user: str,
        password: str,
        mechanism: str,
        status: Status,
        complete: bool,
        certain: bool,
    ) -> None:
        """Raise the login event of an attempt that the server has judged.

        In doubt it is not said, and not believed: a wrong failure bans an honest user, and a login that was
        accepted shows by the first mailbox command.
        """
        self._named = None
        if not certain:
            return
        if status.ok:
            self.connection.state = TRANSACTION
            self.user = user
            self._layer_due = mechanism in LAYERED
            if LoginSuccess in self._wants:
                self._out.append(LoginSuccess(self.connection, self.ts, user, password, mechanism))
        else:
            reason, code = verdict.reason(status.text, complete, self.auth_resp_code)
            self._failed(user, password, mechanism, reason, code)

    def _failed(self, user: str, password: str, mechanism: str, reason: Reason, code: str) -> None:
        self.failures += 1
        if LoginFailure in self._wants:
            self._out.append(
                LoginFailure(self.connection, self.ts, user, password, mechanism, reason, code)
            )

    def _answer_stls(self, owed: Owed, status: Status, certain: bool) -> None:
        """RFC 2595 section 4: the handshake follows the +OK at once, and nothing may come before it."""
        self._client_expects = _COMMAND
        if not status.ok:
            return
        if StartTLS in self._wants:
            self._out.append(StartTLS(self.connection, self.ts))
        detail = self._limits.detail
        early = bytes(self._undecided[:detail]) if self._undecided else b""
        if certain and self._gated:
            self._injected = self._client.waiting
            early = early or self._client.peek(detail)
        if early:
            line = early.partition(b"\n")[0].rstrip(b"\r")
            self._odd(Oddity.CLIENT_INJECTION, True, line)
        self._stop("until_tls")
        self._handshake_due = True

    def _answer_xmit(self, owed: Owed, status: Status, certain: bool) -> None:
        if status.ok and self._logins_wait and self.connection.state is AUTHORIZATION:
            # No server takes mail from who is not logged in: what comes now may be commands to it.
            self._lose("out_of_step")
        elif status.ok:
            self._client_expects = _MESSAGE
            self._owed.append(_AFTER_XMIT)
        else:
            self._client_expects = _COMMAND
            self._message = None

    def _answer_message(self, owed: Owed, status: Status, certain: bool) -> None:
        if self._client_expects is _MESSAGE:
            self._odd(Oddity.EARLY_REPLY, False, status.text)

    def _answer_capa(self, owed: Owed, status: Status, certain: bool) -> None:
        self._in_capa = status.ok

    def _answer_unknown(self, owed: Owed, status: Status, certain: bool) -> None:
        """A body may follow: kept ready as it would have to be read."""
        self._after_unknown = status.ok
        self._body = Body(self._server.crlf)

    # --- multi-line bodies ------------------------------------------------------------------------------

    def _open_body(self) -> None:
        """Read the body line by line only if someone wants its lines."""
        crlf = self._server.crlf
        if Data in self._wants or self._in_capa or self._line_by_line:
            self._server_expects = _BODY
            self._body = Body(crlf)
        else:
            self._server_expects = _BODY_END
            self._body_end = BodyEnd(crlf)

    def _body_line(self, text: bytes) -> None:
        assert self._body is not None
        line = self._body.line(text, self._server.crlf)
        if line is None:
            self._body_closed(self._body.mixed)
            return
        if self._in_capa and line.strip().upper() == b"AUTH-RESP-CODE":
            self.auth_resp_code = True
        if Data in self._wants:
            self._out.append(Data(self.connection, self.ts, decode(line)))
            if self._server.truncated:
                self._odd(Oddity.LINE_TOO_LONG, False, b"")

    def _skip_body(self) -> int:
        """Pass a body of which nobody wants the lines: one search for its end a chunk."""
        assert self._body_end is not None
        server = self._server
        chunk, position = server.chunk()
        end = self._body_end.find(chunk, position)
        if end < 0:
            return len(server.take(server.waiting))
        size = len(server.take(end - position))
        self._body_closed(self._body_end.mixed)
        return size

    def _body_closed(self, mixed: bool) -> None:
        if mixed:
            self._odd(Oddity.MIXED_TERMINATOR, False, b".")
        self._server_expects = _STATUS
        self._body = self._body_end = None
        self._in_capa = False

    # --- doubt ------------------------------------------------------------------------------------------

    def _no_status_line(self, text: bytes) -> None:
        """A line that is no status line: the body of an unknown command, or the end of certainty."""
        if self._after_unknown:
            self._after_unknown = False
            self._odd(Oddity.UNKNOWN_BODY, False, text)
            self._server_expects = _BODY
            self._body_line(text)
            return
        self._odd(Oddity.OUT_OF_STEP, False, text)
        self._server_expects = _DOUBT
        self._doubt = Doubt()
        self._doubtful_line(text)

    def _doubtful_line(self, text: bytes) -> None:
        """Look for the first way out of doubt: a line of one dot, then status lines for all that is owed."""
        doubt = self._doubt
        assert doubt is not None
        status = parse_status(text)
        doubt.client_spoke = False
        doubt.lines += 1
        doubt.answer = status if doubt.lines == 1 else None
        if text == b".":
            doubt.after_dot = []
        elif status is None or status.kind is _CHALLENGE:
            doubt.after_dot = None
        elif doubt.after_dot is not None:
            doubt.after_dot.append(status)
            if len(doubt.after_dot) > self._limits.doubtful:
                doubt.after_dot = None
        if doubt.after_dot is not None and self._answers_all(doubt.after_dot):
            self._end_doubt()
            for answer in doubt.after_dot:
                self._reply(answer, False)

    def _answers_all(self, answers: list[Status]) -> bool:
        """Say whether these can be the replies to all that is owed: a body follows none but the last."""
        counted = self._doubt is not None and self._doubt.counted
        return (
            counted
            and len(answers) == len(self._owed)
            and not any(
                answer.ok and owed.multiline
                for answer, owed in zip(answers[:-1], self._owed, strict=False)
            )
        )

    def _client_speaks_in_doubt(self, doubt: Doubt) -> None:
        """Look for the second way out of doubt: one status line for the one command of the last run."""
        if not doubt.client_spoke:
            return
        doubt.client_spoke = False
        if doubt.answered:
            self._settle_doubt(doubt)
        elif doubt.lines:
            if self._client_expects is _ANSWER:
                # Several lines came for an AUTH or STLS: what the client sends now can't be told.
                self._lose("out_of_step")
            doubt.commands = doubt.lines = 0
            doubt.answer = None

    def _settle_doubt(self, doubt: Doubt) -> None:
        """Take the one status line that came as the reply to the one command that was sent."""
        self._end_doubt()
        del self._owed[:-1]
        self._credentials = self._owed[0].octets if self._owed else 0
        self._in_flight = min(self._in_flight, len(self._owed))
        assert doubt.answer is not None
        if doubt.answer.kind is _CHALLENGE:
            self._challenge(doubt.answer.text)
        else:
            self._reply(doubt.answer, False)

    def _end_doubt(self) -> None:
        self._doubt = None
        self._server_expects = _STATUS

    # --- ends -------------------------------------------------------------------------------------------

    def _client_cut(self, head: bytes) -> None:
        """Report a client line that has no end; what would be secret of it as a whole is so of a part."""
        blob = self._auth_refused and _MAYBE_BASE64.match(head) is not None
        secret = self._client_expects is _SASL or blob
        self._odd(Oddity.CUT_LINE, True, head, Secret.LINE if secret else _NOT_SECRET)

    def _server_ended(self) -> None:
        """Report what the end of the server's bytes cuts off."""
        if self._doubt is not None and self._doubt.answered:
            self._settle_doubt(self._doubt)
        if self._body_end is not None and self._body_end.unfinished:
            self._odd(Oddity.CUT_LINE, False, b"")
        elif self._server.unfinished:
            in_body = self._server_expects is _BODY
            head = b"" if in_body else self._server.head(self._limits.detail)
            self._odd(Oddity.CUT_LINE, False, head)
        if self._owed and self._owed[0] is _GREETING:
            self._odd(Oddity.CUT_GREETING, False, b"")
        elif self._server_expects in (_BODY, _BODY_END):
            self._odd(Oddity.CUT_REPLY, False, b"")
        if self._doubt is None and self.connection.state is AUTHORIZATION:
            self._cut_login()

    def _cut_login(self) -> None:
        """Report the first login that waits: the server judged it by closing, if it closed first."""
        greeted = not self._owed or self._owed[0] is not _GREETING
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

    def _foreign(self, oddity: Oddity, is_orig: bool, line: bytes, protocol: str) -> None:
        """Stop: the session was never POP3."""
        self._odd(oddity, is_orig, line)
        self._lose(protocol)

    def _lose(self, why: str) -> None:
        self._stop(f"lost:{why}")

    def _stop(self, inspected: str) -> None:
        """End inspection for good and let go of all that was kept for it."""
        self.inspected = inspected
        self._client.drop()
        self._server.drop()
        self._owed.clear()
        self._cancelling = False
        self._undecided = None
        self._body = self._body_end = self._message = self._doubt = None
        self._client_expects = _COMMAND
        self._server_expects = _STATUS

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

    def _odd(
        self, oddity: Oddity, is_orig: bool, detail: bytes, secret: Secret = _NOT_SECRET
    ) -> None:
        """Count an oddity, and raise it unless there were too many of its kind."""
        if self._oddities is None:
            self._oddities = {}
        count = self._oddities.get(oddity, 0) + 1
        self._oddities[oddity] = count
        if count <= self._limits.unexpected and Unexpected in self._wants:
            shown = decode(detail[: self._limits.detail])
            self._out.append(Unexpected(self.connection, self.ts, is_orig, oddity, shown, secret))


def _split(text: bytes) -> tuple[bytes, bytes]:
    """Split a command line into its word and its argument (RFC 1939 section 3)."""
    word, _, arg = text.partition(b" ")
    return word, arg


USER_PASS = "USER/PASS"
"""The mechanism of a login by USER and PASS (RFC 1939 section 7)."""

_LETTERS = re.compile(rb"[A-Za-z]{0,16}")
_NAME_AND_DIGEST = re.compile(rb"(.*)[\t-\r ](.*)\Z", re.S)
_DIGEST = re.compile(rb"[\t-\r ][0-9a-f]{32}(?:[\t-\r ]|\Z)", re.I)
_ENDS_FOR_SOME = re.compile(rb"(?:\A|\r)[ \t]*\.[ \t]*(?:\r|\Z)")
_MAYBE_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}\Z")

# Whether what begins so can be the first line of a POP3 client, or of a POP3 server.
_PLAUSIBLE: Mapping[Side, Callable[[bytes], bool]] = {
    CLIENT: grammar.may_become_command,
    SERVER: may_become_status,
}

_READ_CLIENT: Mapping[_Expect, Callable[[Analyzer, bytes], None]] = {
    _COMMAND: Analyzer._command,
    _SASL: Analyzer._sasl_response,
    _MESSAGE: Analyzer._message_line,
}

_READ_SERVER: Mapping[_Expect, Callable[[Analyzer, bytes], None]] = {
    _STATUS: Analyzer._status_line,
    _BODY: Analyzer._body_line,
    _DOUBT: Analyzer._doubtful_line,
}

_ON_REQUEST: Mapping[Role, Callable[[Analyzer, Command, bytes], Owed]] = {
    Role.USER: Analyzer._request_user,
    Role.PASS: Analyzer._request_pass,
    Role.APOP: Analyzer._request_apop,
    Role.RPOP: Analyzer._request_rpop,
    _AUTH: Analyzer._request_auth,
    _STLS: Analyzer._request_barrier,
    Role.XMIT: Analyzer._request_barrier,
}

_ON_REPLY: Mapping[Role, Callable[[Analyzer, Owed, Status, bool], None]] = {
    Role.USER: Analyzer._answer_user,
    Role.PASS: Analyzer._answer_login,
    Role.APOP: Analyzer._answer_login,
    Role.RPOP: Analyzer._answer_login,
    _AUTH: Analyzer._answer_auth,
    _STLS: Analyzer._answer_stls,
    Role.CAPA: Analyzer._answer_capa,
    Role.XMIT: Analyzer._answer_xmit,
    Role.AFTER_XMIT: Analyzer._answer_message,
    Role.UNKNOWN: Analyzer._answer_unknown,
}
