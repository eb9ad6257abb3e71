"""What the analyzer hands out for bytes: steps, with their events and what may come; reads nothing."""

from collections.abc import Sequence

from .events import (
    Data,
    Event,
    LoginAnnounced,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reply,
    Request,
    StartTLS,
    Unexpected,
)
from .grammar import Command, Role
from .guard import LocalReply

Events = Sequence[Event]
Kinds = frozenset[type[Event]]

NONE: Events = ()
SPENT: list[Event] = []  # stands where events were handed out; nothing is ever put into it
NO_KINDS: Kinds = frozenset()

COMMAND_MAY: Kinds = frozenset({Request, Unexpected, LoginAttempt})
COMMAND_BEHIND_LOGIN_MAY: Kinds = COMMAND_MAY - {LoginAttempt}
SASL_MAY: Kinds = frozenset({LoginAttempt, Unexpected})
STATUS_MAY: Kinds = frozenset({Reply, LoginSuccess, LoginFailure, StartTLS, Unexpected})
STATUS_OR_DATA_MAY: Kinds = STATUS_MAY | {Data}
DATA_MAY: Kinds = frozenset({Data, Unexpected})

HOLDS_CLIENT: Kinds = frozenset(
    {Request, Data, Unexpected, StartTLS, LoginAttempt, LoginSuccess, LoginFailure}
)


class Step:
    """A run of the bytes that were fed, with the events that it completes.

    ``size`` is in octets. ``open`` says that the run is the beginning of a line that has not ended;
    ``too_long`` that its line is over the limit of its kind, so that nobody can hold it whole. In both cases
    ``may`` has the event types that the line may give rise to. ``in_exchange``: it is a response of a SASL
    exchange that the server has begun. ``withheld``: it belongs to the server's answer to what ``refused``
    sent, of which the client knows nothing.

    ``command`` is the row of the command that the run completes, if gated. ``refusal`` is how the proxy
    answers a client's line that does not pass the guard; ``ends`` the reason for which the session ends
    behind the run, or empty: a client's run does not pass then. ``readings`` are the login events again,
    under the other names that some servers read; only those who decide are asked about them. ``listing`` is
    the role of the command whose list the run belongs to, the status line included, and ``listing_ends`` its
    end; ``capa_refused``: the status line is a -ERR. ``announced`` says that a login under way has failed.
    """

    __slots__ = (
        "announced",
        "capa_refused",
        "command",
        "ends",
        "events",
        "in_exchange",
        "listing",
        "listing_ends",
        "may",
        "open",
        "readings",
        "refusal",
        "size",
        "too_long",
        "withheld",
    )

    def __init__(self, size: int, events: Events = NONE) -> None:
        self.size = size
        self.events = events
        self.may = NO_KINDS
        self.open = self.too_long = self.in_exchange = self.withheld = False
        self.command: Command | None = None
        self.refusal: LocalReply | None = None
        self.ends = ""
        self.readings: Events = NONE
        self.listing: Role | None = None
        self.listing_ends = self.capa_refused = False
        self.announced: LoginAnnounced | None = None

    @property
    def stls(self) -> bool:
        """Whether it completes an STLS command (RFC 2595 section 4)."""
        return self.command is not None and self.command.role is Role.STLS
