"""The events that the analyzer raises and the values that they carry; no parsing and no decisions.

The seven events of Zeek's POP3 analyzer keep their names and parameters. A proxy can say more than a
passive monitor, so there are three more: ``pop3_connect``, ``pop3_login_attempt`` and ``pop3_session``;
and one that no analyzer raises but the policy for failed logins, ``pop3_policy``.

Text in events is ``str``: the bytes decoded as UTF-8, and what is not UTF-8 kept by ``surrogateescape``,
so ``event.user.encode("utf-8", "surrogateescape")`` is exactly what the peer sent.
"""

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import ClassVar, Final

from .remembered import NOTHING_REMEMBERED, Remembered

Exchanged = tuple[tuple[bytes, bytes], ...]
"""The challenges of a login, each with the client's response, decoded: passwords can be tried on them."""

NOTHING_EXCHANGED: Final[Exchanged] = ()


class Side(Enum):
    """Which of the two peers bytes come from."""

    CLIENT = "client"
    SERVER = "server"

    # Members are singletons, so identity is a sound hash, and a fast one: sides are looked up per chunk.
    __hash__ = object.__hash__


class State(Enum):
    """The states of RFC 1939 section 3 in which a client can send commands."""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"

    # Members are singletons, so identity is a sound hash, and a fast one: states are looked up per reply.
    __hash__ = object.__hash__


# On Python 3.11 looking a member up in its class costs as much as two comparisons, and these are looked up
# many times a line.
CLIENT: Final = Side.CLIENT
SERVER: Final = Side.SERVER
AUTHORIZATION: Final = State.AUTHORIZATION
TRANSACTION: Final = State.TRANSACTION


@dataclass(frozen=True, slots=True)
class Tls:
    """What is known of a client's TLS, whose keys the proxy holds.

    ``version`` is like ``TLSv1.3``; ``server_name`` is what the client called the server (SNI, RFC 6066
    section 3) and ``next_protocol`` the protocol agreed on (ALPN, RFC 7301), both empty if there is none;
    ``client`` is the subject of the client's certificate (RFC 4514), empty without one; ``ja4`` names the
    client's program by its ClientHello, empty where the proxy has not seen that.
    """

    version: str
    cipher: str
    server_name: str = ""
    next_protocol: str = ""
    client: str = ""
    ja4: str = ""


@dataclass(slots=True, eq=False)
class Connection:
    """Who talks to whom: the ``c`` of every event.

    ``listener`` is the endpoint string of the listener that the client came to, ``listener_h`` and
    ``listener_p`` the address that it is bound to (a UNIX socket's path and port 0); empty in a capture.
    ``state`` is the session's as far as the server has answered; ``tls`` is set while the client
    talks TLS to the proxy, which holds the keys, or to a load balancer whose word on it counts.
    ``orig_unknown``: the client's address is not known. ``orig_h`` is a proxy before this one that named no
    client (PROXY UNKNOWN or LOCAL), or the client came to a UNIX socket; it must not be counted or banned as
    an address.
    ``secrets`` remembers what the client of this session used to prove itself, within bounds, so that
    whoever writes events down can mask a reply that repeats it.
    """

    uid: str
    orig_h: str
    orig_p: int
    resp_h: str
    resp_p: int
    listener: str = ""
    listener_h: str = ""
    listener_p: int = 0
    tls: Tls | None = None
    state: State = State.AUTHORIZATION
    secrets: Remembered = NOTHING_REMEMBERED
    orig_unknown: bool = False


class Secret(Enum):
    """Which part of a client line proves who the client is, and must not be written down."""

    NOTHING = "nothing"
    ARGUMENT = "the whole argument"
    AFTER_FIRST_WORD = "what follows the argument's first word"
    AFTER_NAME = "what follows the argument's first word; that too if nothing follows it"
    AFTER_PASS = "what follows the word PASS in the argument"
    ODD_ARGUMENT = "the whole argument, which its command does not have"
    LINE = "the whole line"


class Reason(StrEnum):
    """Why a login failed: from the response codes of RFC 2449, 3206 and 6856, or from the server's words.

    ``malformed`` and ``unsupported``: the server has judged no credentials.
    """

    CREDENTIALS = "credentials"
    IN_USE = "in_use"
    TEMPORARY = "temporary"
    LOGIN_DELAY = "login_delay"
    ACCOUNT = "account"
    TLS_REQUIRED = "tls_required"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    ABORTED = "aborted"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Oddity(StrEnum):
    """The closed list of ``msg`` in ``pop3_unexpected``; each member's text explains it."""

    text: str

    def __new__(cls, value: str, text: str) -> "Oddity":
        """Attach to the stable short name the sentence that the documentation prints."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member

    UNKNOWN_COMMAND = (
        "unknown_command",
        "A client line whose first word is no POP3 command; an empty line too.",
    )
    BAD_ARGUMENTS = "bad_arguments", "A known command without the argument that it requires."
    WRONG_STATE = (
        "wrong_state",
        "A command that its state does not allow (RFC 1939 section 4 and 5), a second login among them;"
        " said when the server answers it, since only then the state is certain.",
    )
    NO_LOGIN_SEEN = (
        "no_login_seen",
        "The server accepts a mailbox command although no login was seen: a pre-authenticated session,"
        " or the login was hidden from inspection.",
    )
    LINE_TOO_LONG = (
        "line_too_long",
        "A line over the limit of its kind; the events show its beginning, the peer gets all of it.",
    )
    BAD_SASL_RESPONSE = (
        "bad_sasl_response",
        "A SASL response that is not base64 or not of the mechanism's form; no user is read from it.",
    )
    TLS_FROM_FIRST_BYTE = (
        "tls_from_first_byte",
        "The session begins with a TLS record: implicit TLS on a clear listener, or the reverse;"
        " inspection stops.",
    )
    NOT_POP3 = (
        "not_pop3",
        "The first line is that of HTTP, SSH, IMAP or SMTP; inspection stops.",
    )
    SECURITY_LAYER = (
        "security_layer",
        "After a login that negotiated a SASL security layer (RFC 5034 section 4) the client's bytes are"
        " no POP3 any more; inspection stops.",
    )
    CLIENT_INJECTION = (
        "client_injection",
        "The client sent bytes behind STLS before the server answered it (RFC 2595 section 4;"
        " CVE-2011-0411).",
    )
    SERVER_INJECTION = (
        "server_injection",
        "The server sent bytes behind its +OK to STLS before the TLS handshake began.",
    )
    UNSOLICITED_REPLY = (
        "unsolicited_reply",
        "A status line that answers nothing that was asked, such as a notice of an idle time-out.",
    )
    BAD_STATUS = "bad_status", "A status line that begins with +ERR; taken as -ERR."
    STRAY_CHALLENGE = (
        "stray_challenge",
        "A SASL challenge ('+ ') while no AUTH waits for one.",
    )
    UNKNOWN_BODY = (
        "unknown_body",
        "A multi-line reply to a command of which that is not known; read to the next line of one dot.",
    )
    OUT_OF_STEP = (
        "out_of_step",
        "A server line that is no status line where one is due: the server does not byte-stuff (RFC 1939"
        " section 3), or is no POP3 server. Until replies are certain again no login event is raised.",
    )
    MIXED_TERMINATOR = (
        "mixed_terminator",
        "The closing line of one dot, or the line before it, ends otherwise than the status line did.",
    )
    EARLY_REPLY = (
        "early_reply",
        "The server answers XTND XMIT before the client has ended the message.",
    )
    GAP = (
        "gap",
        "Bytes of this side are missing, or the beginning of the session is: only in captures. Until replies"
        " are certain again no login event is raised.",
    )
    CUT_GREETING = "cut_greeting", "The connection ended before the greeting was complete."
    CUT_REPLY = "cut_reply", "The connection ended inside a multi-line reply."
    CUT_LOGIN = (
        "cut_login",
        "A login without an answer: the connection, or inspection, ended first, or the answer cannot be told"
        " from others.",
    )
    LOGIN_CANCELLED = (
        "login_cancelled",
        "A login that the server did not judge: the client cancelled the exchange or went on in it with other"
        " credentials, or was logged in already.",
    )
    NOT_PASSED = (
        "not_passed",
        "A client line that the guard does not pass, since servers may read it differently or it is out of"
        " order; the proxy answers it with -ERR.",
    )
    AMBIGUOUS_LINE = (
        "ambiguous_line",
        "A command line with a bare CR or a NUL in it: some servers read it as two lines or end it there.",
    )
    CUT_LINE = "cut_line", "The connection ended inside a line."


@dataclass(slots=True)
class Event:
    """What all events have: the connection, and the time of the bytes that completed the event.

    ``ts`` is in seconds since the epoch, as the caller of the analyzer stamped them. ``parameters`` are in
    every record of the event; ``flags`` are booleans that a record has only where they are true.
    """

    name: ClassVar[str] = ""
    parameters: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ()

    c: Connection
    ts: float


@dataclass(slots=True)
class Connect(Event):
    """A client was accepted; the mail server has not been dialled yet."""

    name: ClassVar[str] = "pop3_connect"


@dataclass(slots=True)
class Request(Event):
    """The client sent a command. ``command`` is in upper case, ``arg`` as sent."""

    name: ClassVar[str] = "pop3_request"
    parameters: ClassVar[tuple[str, ...]] = ("is_orig", "command", "arg")
    is_orig: ClassVar[bool] = True

    command: str
    arg: str
    secret: Secret = Secret.NOTHING


@dataclass(slots=True)
class Reply(Event):
    """The server sent a status line. ``cmd`` is ``OK`` or ``ERR``, ``msg`` the text behind it.

    ``denial``: the proxy denied a command, a login or the connection, and sends this in the server's place.
    """

    name: ClassVar[str] = "pop3_reply"
    parameters: ClassVar[tuple[str, ...]] = ("is_orig", "cmd", "msg")
    flags: ClassVar[tuple[str, ...]] = ("denial",)
    is_orig: ClassVar[bool] = False

    cmd: str
    msg: str
    denial: bool = False


@dataclass(slots=True)
class Data(Event):
    """One line of a multi-line body, its stuffed dot taken off; ``is_orig`` only for XTND XMIT."""

    name: ClassVar[str] = "pop3_data"
    parameters: ClassVar[tuple[str, ...]] = ("is_orig", "data")

    data: str
    is_orig: bool = False


@dataclass(slots=True)
class DataRun(Event):
    """Several ``pop3_data`` of the server in one, for who asks for it because there are very many.

    ``data`` is whole lines as they were sent, each with its end, all of the same; ``lines`` is each without.
    None is stuffed. No hook hears it: lines of which that does not hold are ``Data``, in between.
    """

    name: ClassVar[str] = "pop3_data"

    data: bytes
    lines: list[bytes]


@dataclass(slots=True)
class LoginAttempt(Event):
    """The client's credentials are complete; the server has not seen the bytes that complete them.

    ``mechanism`` is ``USER/PASS``, ``APOP``, ``RPOP`` or the SASL mechanism in upper case. ``attempt``
    numbers the attempts of a session from 1. Each has exactly one outcome, with the same number: a success,
    a failure, or a ``pop3_unexpected`` that says that it was not judged (``login_cancelled``) or not
    answered (``cut_login``). ``exchanged`` has, for a mechanism that proves a password without showing it,
    each challenge with its response, decoded; no record has it.
    """

    name: ClassVar[str] = "pop3_login_attempt"
    parameters: ClassVar[tuple[str, ...]] = ("is_orig", "user", "password", "mechanism", "attempt")
    is_orig: ClassVar[bool] = True

    user: str
    password: str
    mechanism: str
    attempt: int = 0
    exchanged: Exchanged = field(default=NOTHING_EXCHANGED, repr=False)


@dataclass(slots=True)
class LoginSuccess(Event):
    """The server accepted a login. ``user`` is empty where the mechanism shows none."""

    name: ClassVar[str] = "pop3_login_success"
    parameters: ClassVar[tuple[str, ...]] = ("is_orig", "user", "password", "mechanism", "attempt")
    is_orig: ClassVar[bool] = False

    user: str
    password: str
    mechanism: str
    attempt: int = 0


@dataclass(slots=True)
class LoginFailure(Event):
    """The server refused a login. ``code`` is its raw response code (RFC 2449 section 8), or empty.

    ``exchanged`` is as in the attempt.
    """

    name: ClassVar[str] = "pop3_login_failure"
    parameters: ClassVar[tuple[str, ...]] = (
        "is_orig",
        "user",
        "password",
        "mechanism",
        "reason",
        "code",
        "attempt",
    )
    is_orig: ClassVar[bool] = False

    user: str
    password: str
    mechanism: str
    reason: Reason
    code: str = ""
    attempt: int = 0
    exchanged: Exchanged = field(default=NOTHING_EXCHANGED, repr=False)


@dataclass(slots=True)
class LoginAnnounced(Event):
    """A SASL challenge says that an attempt has failed; its outcome follows when the client has answered.

    Only the policy hears it, where logins are decided about: else a client could keep its attempt open. No
    record has it.
    """

    name: ClassVar[str] = "pop3_login_announced"

    attempt: int


@dataclass(slots=True)
class StartTLS(Event):
    """STLS was accepted: what follows is encrypted, and inspected only if the proxy accepted it itself."""

    name: ClassVar[str] = "pop3_starttls"


@dataclass(slots=True)
class Unexpected(Event):
    """Something that the protocol does not provide for. ``detail`` is the input that caused it.

    ``attempt`` is the number of the login attempt whose outcome this is; 0 of any other.
    """

    name: ClassVar[str] = "pop3_unexpected"
    parameters: ClassVar[tuple[str, ...]] = ("is_orig", "msg", "detail")

    is_orig: bool
    msg: Oddity
    detail: str
    secret: Secret = Secret.NOTHING
    attempt: int = 0


@dataclass(slots=True)
class SessionEnd(Event):
    """The session is over: raised exactly once, whatever ended it.

    ``user`` and ``mechanism`` are those of the login that succeeded, else those of the last attempt;
    ``outcome`` is ``success``, ``failure`` (logins failed and none succeeded) or ``none``. ``retr``, ``top``
    and ``dele`` count commands; ``deleted`` counts messages: DELE was answered +OK, no RSET undid it, and
    QUIT was answered +OK; ``denied`` counts the replies with ``denial``. Octets are those relayed each way;
    ``duration`` is in seconds; ``unexpected`` counts all oddities, those beyond the limit of each kind too;
    ``inspected`` is ``whole``, ``until_tls`` or ``lost:`` and why.
    """

    name: ClassVar[str] = "pop3_session"
    parameters: ClassVar[tuple[str, ...]] = (
        "user",
        "mechanism",
        "outcome",
        "commands",
        "retr",
        "top",
        "dele",
        "deleted",
        "denied",
        "orig_octets",
        "resp_octets",
        "duration",
        "reason",
        "unexpected",
        "inspected",
    )

    user: str
    outcome: str
    commands: int
    retr: int
    top: int
    dele: int
    orig_octets: int
    resp_octets: int
    duration: float
    reason: str
    unexpected: int
    inspected: str
    mechanism: str = ""
    deleted: int = 0
    denied: int = 0
    closing: float = 0.0
    """Seconds before ``ts`` at which the session began to end; no record has it."""


@dataclass(slots=True)
class Policy(Event):
    """A rule for failed logins decided something, or would have (``dry_run``).

    ``action`` is ``log``, ``delay``, ``deny``, ``drop``, ``ban``, ``busy`` (held for too long, or
    refused because too many are held) or ``banned`` (a ban was in force). ``key`` is who it is about, such as
    ``address:192.0.2.1``; ``count`` of ``counted`` reached ``limit`` in ``window`` seconds. ``seconds`` is
    how long the delay or ban lasts, of regular failures that are logged their median interval, or 0.

    What an operator commanded has the rule ``manual``, no session (``uid`` is empty), and besides ``by``
    (such as ``uid:0``) and ``reason``. Its ``action`` is ``ban``, ``remove``, ``allow`` or ``disallow``, and
    ``seconds`` is how long the ban, the grace or the allowance lasts.
    """

    name: ClassVar[str] = "pop3_policy"
    parameters: ClassVar[tuple[str, ...]] = (
        "rule",
        "action",
        "key",
        "counted",
        "count",
        "limit",
        "window",
        "seconds",
        "dry_run",
    )

    rule: str
    action: str
    key: str
    counted: str
    count: int
    limit: int
    window: float
    seconds: float
    dry_run: bool
    by: str = ""
    reason: str = ""


ALL: frozenset[type[Event]] = frozenset(
    {
        Connect,
        Request,
        Reply,
        Data,
        LoginAttempt,
        LoginSuccess,
        LoginFailure,
        StartTLS,
        Unexpected,
        SessionEnd,
        Policy,
    }
)
