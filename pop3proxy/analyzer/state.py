"""What is known of a dialogue, and what both of its halves may do to it; reads no bytes.

Each side has a *mode* that says what its next line is. The client's: a command, a SASL response, a line of
a message (XTND XMIT), or not to be told before the server has answered (a *barrier*). The server's: a status
line, a line of a body, or doubtful.
"""

import re
from enum import Enum

from . import grammar
from .doubt import Doubt
from .events import (
    ALL,
    AUTHORIZATION,
    CLIENT,
    SERVER,
    Connection,
    Event,
    LoginAnnounced,
    LoginAttempt,
    LoginFailure,
    Oddity,
    Reason,
    Secret,
    Side,
    State,
    Unexpected,
)
from .grammar import Command, Role
from .guard import DEFAULT_OPTIONS, LINE, Guard, GuardOptions, LocalReply
from .limits import Limits
from .lines import Body, BodyEnd, LineCutter
from .owed import GREETING, Owed
from .refusals import DEFAULT_REFUSALS, Refusals
from .remembered import NOTHING_REMEMBERED, Remembered
from .secrets import (
    secret_of,
    secret_of_unknown,
    secrets_of,
    secrets_of_response,
    secrets_of_unknown,
)
from .status import Status, may_become_status
from .steps import (
    COMMAND_BEHIND_LOGIN_MAY,
    COMMAND_MAY,
    DATA_MAY,
    HOLDS_CLIENT,
    NO_KINDS,
    SASL_MAY,
    SPENT,
    STATUS_MAY,
    STATUS_OR_DATA_MAY,
    Kinds,
    Step,
)
from .summary import Summary
from .text import decode

DEFAULT_LIMITS = Limits()

NO_TALLY: dict[str, int] = {}
NOT_SECRET = Secret.NOTHING
MAYBE_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}\Z")


class Expect(Enum):
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


COMMAND, SASL, MESSAGE, ANSWER, STATUS, BODY, BODY_END, DOUBT = Expect


class DialogueState:
    """One session's dialogue as far as it is known; what it is made with, ``Analyzer`` explains."""

    __slots__ = (
        "_after_unknown",
        "_announced",
        "_announcement",
        "_attempted",
        "_auth_refused",
        "_before",
        "_body",
        "_body_closed_at",
        "_body_end",
        "_cancelling",
        "_capa_refused",
        "_client",
        "_client_expects",
        "_client_fresh",
        "_client_torn",
        "_credentials",
        "_denied",
        "_doubt",
        "_ended",
        "_ends",
        "_farewell",
        "_gated",
        "_guard",
        "_handshake_due",
        "_injected",
        "_layer_due",
        "_limits",
        "_line_by_line",
        "_listing",
        "_loose",
        "_may_be_in",
        "_message",
        "_name_refused",
        "_named",
        "_named_last",
        "_oddities",
        "_out",
        "_owed",
        "_perhaps_in",
        "_readings",
        "_refusal",
        "_refusals",
        "_row",
        "_server",
        "_server_expects",
        "_server_fresh",
        "_stale",
        "_tls_head",
        "_too_long",
        "_undecided",
        "_unread",
        "_unsent",
        "_user",
        "_wants",
        "attempts",
        "auth_resp_code",
        "commands",
        "connection",
        "failures",
        "inspected",
        "summary",
        "tally",
        "ts",
        "user",
    )

    def __init__(
        self,
        connection: Connection,
        limits: Limits = DEFAULT_LIMITS,
        wants: Kinds = ALL,
        gated: Kinds = NO_KINDS,
        auth_resp_code: bool = False,
        guard: GuardOptions = DEFAULT_OPTIONS,
        refusals: Refusals = DEFAULT_REFUSALS,
    ) -> None:
        """Begin before the greeting, which is the first reply that the server owes."""
        self.connection = connection
        self.user: str | None = None  # who is logged in
        self.attempts = 0  # logins that were tried: the number of the last
        self.failures = 0  # logins that failed
        self.commands = 0
        self.tally: dict[str, int] = NO_TALLY  # how often each of RETR, TOP and DELE was sent
        self.summary = Summary(limits.deletions)
        self.inspected = "whole"
        self.auth_resp_code = self._announced = auth_resp_code
        self.ts = 0.0
        self._limits = limits
        self._refusals = refusals
        self._wants = wants
        self._guard = Guard(guard)
        self._gated = self._line_by_line = False
        if gated:
            self.gate(gated)
        self._ended: tuple[Side, ...] = ()
        self._too_long = (
            NO_KINDS  # what the line just read may give rise to, if it is over its limit
        )
        self._out: list[Event] = []
        self._readings: list[Event] = SPENT  # the login events again, under other names
        self._oddities: dict[Oddity, int] | None = None

        self._client = LineCutter()
        self._client_expects = COMMAND
        self._client_fresh = True
        self._client_torn = False  # bytes before the next are missing
        self._undecided: bytearray | None = None  # what passed behind a barrier
        self._unread = 0  # of that, what was searched for secrets, in bytes
        self._message: Body | None = None  # the message of XTND XMIT
        self._auth_refused = False
        self._layer_due = False
        # If gated: how the client's last line is answered that does not pass, why the session ends with the
        # step just read, its command, and what it can be taken back to.
        self._refusal: LocalReply | None = None
        self._ends = ""
        self._row: Command | None = None
        self._loose = False  # the last line is a command to some servers only
        self._before: str | None = None
        self._attempted: tuple[LoginAttempt, Reason] | None = None  # how it fails if it is refused
        self._denied: tuple[LoginAttempt, Reason] | None = None  # the one that was refused
        self._cancelling = False  # an exchange whose cancellation was not the client's
        self._unsent: Step | None = None  # the client's last step, while the server has not got it
        self._stale = False  # the exchange of that step is over
        self._farewell: Status | None = None  # of the server, as long as it says nothing further
        self._tls_head = -1  # bytes still to be seen of the TLS record that must follow STLS

        self._server = LineCutter()
        self._server_expects = STATUS
        self._server_fresh = True
        self._owed: list[Owed] = [GREETING]
        self._credentials = 0  # octets of what the client said in commands whose reply is owed
        self._body: Body | None = None
        self._body_end: BodyEnd | None = None
        # Commands sent when the last body was closed: what follows may be more of it (RFC 1939 section 3).
        self._body_closed_at = -1
        self._listing: Role | None = None  # the command whose list is read
        self._capa_refused = False  # by the line just read, if gated
        self._announcement: LoginAnnounced | None = None  # of the line just read, if gated
        # A login may be what is missing in a gap; USER and AUTH are accepted only before one.
        self._may_be_in = False
        # By an AUTH that may have been another command, or a PASS whose name was refused.
        self._perhaps_in: LoginAttempt | None = None
        self._after_unknown = False
        self._handshake_due = False
        self._injected = 0  # octets that waited behind STLS when it was accepted
        self._doubt: Doubt | None = None

        # Who USER named: the last one sent, for attempts; the last that the server accepted since a PASS,
        # and the last that it answered, for its verdicts.
        self._user: str | None = None
        self._named: str | None = None
        self._named_last: str | None = None
        self._name_refused = False  # the last of them

    def gate(self, gated: Kinds) -> None:
        """Have the caller hold bytes back for these event types; no login may be waiting for its answer."""
        self._gated = not gated.isdisjoint(HOLDS_CLIENT)
        self._guard.watch(gated, self.connection.state)
        # So that no line of a body passes, or waits, with another.
        self._line_by_line = not gated.isdisjoint(DATA_MAY)

    @property
    def state(self) -> State:
        """The session's state, as far as the server has answered."""
        return self.connection.state

    @property
    def blind(self) -> bool:
        """Whether inspection has ended."""
        return self.inspected != "whole"

    @property
    def guarded(self) -> bool:
        """Whether the server gets one strict line at a time."""
        return self._guard.lock_step

    @property
    def hides_unreadable(self) -> bool:
        """Whether mechanisms that the guard refuses are to be taken out of the server's lists."""
        return self._guard.hides_unreadable

    def _may_become(self, side: Side, head: bytes) -> Kinds:
        """Return the event types that a side's next line may give rise to; ``head`` are its first octets.

        The first line of a server may show that the session is no POP3, unless it begins like a line of
        POP3 or is too long for another's; then anything is possible, as in a client's line that is guarded.
        """
        if side is SERVER:
            fresh = self._server_fresh and not self._server.truncated
            if fresh and not may_become_status(head):
                return ALL
            if self._server_expects is BODY:
                return DATA_MAY
            return STATUS_OR_DATA_MAY if self._after_unknown else STATUS_MAY
        if self._client_expects is MESSAGE:
            return DATA_MAY
        if self._client_fresh or self._guard.holds(head):
            return ALL
        if self._client_expects is SASL:
            return SASL_MAY
        if self.connection.state is AUTHORIZATION:
            return COMMAND_MAY
        return COMMAND_BEHIND_LOGIN_MAY

    def _too_much_owed(self) -> bool:
        if self._client_expects is MESSAGE:
            return False
        limits = self._limits
        return len(self._owed) >= limits.pending or self._credentials >= limits.credentials

    def _remember(self, secret: bytes) -> None:
        """Keep a secret, so that what repeats it can be masked."""
        self._known_secrets().add(secret)

    def _known_secrets(self) -> Remembered:
        if self.connection.secrets is NOTHING_REMEMBERED:
            limits = self._limits
            self.connection.secrets = Remembered(limits.secrets, limits.secret_bytes)
        return self.connection.secrets

    def _secrets_lost(self) -> None:
        """Note that of a line, which may be secret, only the beginning is known."""
        self._known_secrets().lose()

    def _secret_of(self, row: Command, arg: bytes) -> Secret:
        """Return which part of a known command's line is secret, and remember what that is."""
        secret = secret_of(row, arg)
        if secret is not NOT_SECRET:
            for part in secrets_of(secret, arg):
                self._remember(part)
        return secret

    def _secret_of_unknown(self, text: bytes) -> Secret:
        """Return which part of a line that is no known command is secret, and remember what that is.

        What a client sends for a refused AUTH becomes a command at the server, so a line that may be base64
        is a secret as a whole then.
        """
        for part in secrets_of_unknown(text):
            self._remember(part)
        if self._auth_refused and MAYBE_BASE64.match(text):
            return Secret.LINE
        return secret_of_unknown(text)

    def _secret_of_any(self, text: bytes) -> Secret:
        """Return which part of a command line, or of its beginning, is secret, and remember what that is."""
        word, _, arg = text.partition(b" ")
        row = grammar.command(word, arg)
        if row is grammar.UNKNOWN:
            return self._secret_of_unknown(text)
        return self._secret_of(row, arg)

    def _remember_unread(self) -> None:
        """Remember the secrets in what the server may have read, and the analyzer has not.

        That is what passed behind a barrier, and a line without an end: there are servers that end lines at
        a bare CR, or when their buffer is full (RFC 2449 section 4 allows 255), or when the client closes.
        """
        undecided = self._undecided
        if undecided is not None and len(undecided) != self._unread:
            begin = undecided.rfind(b"\n", 0, self._unread) + 1
            self._unread = len(undecided)
            for line in bytes(undecided[begin:]).split(b"\n"):
                self._remember_line(line)
        client = self._client
        if not client.unfinished or self.connection.secrets.lost:
            return
        if client.holds(b"\r") or client.length > LINE or CLIENT in self._ended:
            self._remember_line(client.head(self._limits.secret_bytes + 1))
            if client.truncated:
                self._secrets_lost()

    def _remember_line(self, line: bytes) -> None:
        """Remember the secrets in a line of which it is not known what it is."""
        line = line.rstrip(b"\r")
        if self._client_expects is SASL:
            for part in secrets_of_response(line):
                self._remember(part)
        elif line and self._client_expects is not MESSAGE:
            self._secret_of_any(line)

    def _failed(self, attempt: LoginAttempt, user: str, reason: Reason, code: str) -> None:
        self.failures += 1
        if LoginFailure in self._wants:
            number = attempt.attempt or self._number()
            raised = (attempt.password, attempt.mechanism, reason, code, number)
            self._out.append(LoginFailure(self.connection, self.ts, user, *raised))
            for name in self._guard.readings(user):
                self._read_too(LoginFailure(self.connection, self.ts, name, *raised))

    def _number(self) -> int:
        """Number an attempt."""
        self.attempts += 1
        return self.attempts

    def _read_too(self, event: Event) -> None:
        """Have those who decide asked about a login event under another name, too."""
        if self._readings is SPENT:
            self._readings = []
        self._readings.append(event)

    def _came_to_nothing(self, oddity: Oddity, attempt: int) -> None:
        """Raise the outcome of an attempt that the server has not judged, if it is one."""
        if attempt:
            self._odd(oddity, oddity is Oddity.LOGIN_CANCELLED, b"", attempt=attempt)

    def _leave_open(self) -> None:
        """Give up telling whether what seemed to be a login was one."""
        attempt, self._perhaps_in = self._perhaps_in, None
        if attempt is not None:
            self._came_to_nothing(Oddity.CUT_LOGIN, attempt.attempt)

    def _foreign(self, oddity: Oddity, is_orig: bool, line: bytes, protocol: str) -> None:
        """Stop: the session was never POP3."""
        self._odd(oddity, is_orig, line)
        self._lose(protocol)

    def _lose(self, why: str) -> None:
        self._stop(f"lost:{why}")

    def _stop(self, inspected: str) -> None:
        """End inspection for good and let go of all that was kept for it."""
        for owed in self._owed:
            self._came_to_nothing(Oddity.CUT_LOGIN, owed.login)
            if self._attempted is not None and self._attempted[0].attempt == owed.login:
                self._attempted = None
        self._leave_open()
        self.inspected = inspected
        self._client.drop()
        self._server.drop()
        self._owed.clear()
        self._cancelling = False
        self._undecided = None
        self._body = self._body_end = self._message = self._doubt = None
        self._client_expects = COMMAND
        self._server_expects = STATUS

    def _odd(
        self,
        oddity: Oddity,
        is_orig: bool,
        detail: bytes,
        secret: Secret = NOT_SECRET,
        attempt: int = 0,
    ) -> None:
        """Count an oddity, and raise it unless there were too many of its kind; an outcome always."""
        if self._oddities is None:
            self._oddities = {}
        count = self._oddities.get(oddity, 0) + 1
        self._oddities[oddity] = count
        if (count <= self._limits.unexpected or attempt) and Unexpected in self._wants:
            shown = decode(detail[: self._limits.detail])
            self._out.append(
                Unexpected(self.connection, self.ts, is_orig, oddity, shown, secret, attempt)
            )
