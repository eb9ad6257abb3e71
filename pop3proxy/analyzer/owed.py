"""The replies that a server owes: what of a command is remembered until it is answered."""

from . import grammar
from .grammar import Command
from .sasl import Exchange


class Owed:
    """A reply that the server owes: the command it answers, and whether its +OK opens a body."""

    __slots__ = ("command", "multiline")

    def __init__(self, command: Command, multiline: bool = False) -> None:
        self.command = command
        self.multiline = multiline

    @property
    def octets(self) -> int:
        """What it keeps of the client's line."""
        return 0


class OwedToUser(Owed):
    """The reply to a USER."""

    __slots__ = ("user",)

    def __init__(self, command: Command, user: str) -> None:
        super().__init__(command)
        self.user = user

    @property
    def octets(self) -> int:
        """What it keeps of the client's line."""
        return len(self.user)


class OwedToLogin(Owed):
    """The reply to a login in one line: PASS, APOP or RPOP.

    ``user`` is what the line itself names, None for PASS. ``complete`` is False for an APOP without a digest.
    """

    __slots__ = ("complete", "mechanism", "password", "user")

    def __init__(
        self,
        command: Command,
        mechanism: str,
        user: str | None,
        password: str = "",
        complete: bool = True,
    ) -> None:
        super().__init__(command)
        self.mechanism = mechanism
        self.user = user
        self.password = password
        self.complete = complete

    @property
    def octets(self) -> int:
        """What it keeps of the client's line."""
        return len(self.user or "") + len(self.password)


class OwedToDele(Owed):
    """The reply to a DELE; ``number`` is the message's (RFC 1939 section 5)."""

    __slots__ = ("number",)

    def __init__(self, command: Command, number: int) -> None:
        super().__init__(command)
        self.number = number


class OwedToExchange(Owed):
    """The reply that ends a SASL exchange."""

    __slots__ = ("exchange",)

    def __init__(self, command: Command, exchange: Exchange) -> None:
        super().__init__(command)
        self.exchange = exchange


GREETING = Owed(grammar.GREETING)

AFTER_XMIT = Owed(grammar.AFTER_XMIT)
"""The reply to the message that XTND XMIT sent."""

CANCELLED = Owed(grammar.CANCELLED)
"""The answer to a ``*`` that the client has not sent."""
