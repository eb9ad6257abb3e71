"""What the analyzer hands out for bytes: steps, with their events and what may come; reads nothing."""

from collections.abc import Sequence

from .events import (
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reply,
    Request,
    StartTLS,
    Unexpected,
)
from .grammar import Command, Role

Events = Sequence[Event]
Kinds = frozenset[type[Event]]

NONE: Events = ()
SPENT: list[Event] = []  # stands where events were handed out; nothing is ever put into it
NO_KINDS: Kinds = frozenset()

COMMAND_MAY: Kinds = frozenset({Request, Unexpected})
LOGIN_MAY: Kinds = frozenset({Request, Unexpected, LoginAttempt})
SASL_MAY: Kinds = frozenset({LoginAttempt, Unexpected})
STATUS_MAY: Kinds = frozenset({Reply, LoginSuccess, LoginFailure, StartTLS, Unexpected})
STATUS_OR_DATA_MAY: Kinds = STATUS_MAY | {Data}
DATA_MAY: Kinds = frozenset({Data, Unexpected})
OF_LOGIN: Kinds = frozenset({Request, LoginAttempt, LoginSuccess, LoginFailure})
HOLDS_CLIENT: Kinds = OF_LOGIN | {Data, Unexpected, StartTLS}
STLS_MAY: Kinds = frozenset({StartTLS})


class Step:
    """A run of the bytes that were fed, with the events that it completes.

    ``size`` is in octets. ``open`` says that the run is the beginning of a line that has not ended;
    ``too_long`` that its line is over the limit of its kind, so that nobody can hold it whole. In both cases
    ``may`` has the event types that the line may give rise to. ``in_exchange``: it is a response of a SASL
    exchange that the server has begun. ``withheld``: it belongs to the server's answer to what ``refused``
    sent, of which the client knows nothing.

    ``command`` is the row of the command that the run completes, if gated. ``hides_stls``: it is another
    command, or none, and STLS to some servers. ``unnamed``: it is a PASS without USER since TLS is on, for
    which the server would take the USER from before. ``capa``: it belongs to the server's reply to CAPA, or
    to a line in its place, of which ``capa_ends`` is the end; ``capa_refused``: that reply is a -ERR.
    """

    __slots__ = (
        "capa",
        "capa_ends",
        "capa_refused",
        "command",
        "events",
        "hides_stls",
        "in_exchange",
        "may",
        "open",
        "size",
        "too_long",
        "unnamed",
        "withheld",
    )

    def __init__(self, size: int, events: Events = NONE) -> None:
        self.size = size
        self.events = events
        self.may = NO_KINDS
        self.open = self.too_long = self.in_exchange = self.withheld = False
        self.capa = self.capa_ends = self.capa_refused = self.hides_stls = self.unnamed = False
        self.command: Command | None = None

    @property
    def stls(self) -> bool:
        """Whether it completes an STLS command (RFC 2595 section 4)."""
        return self.command is not None and self.command.role is Role.STLS
