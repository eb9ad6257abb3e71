"""The replies that a server owes: what of a command is remembered until it is answered."""

from . import grammar
from .events import LoginAttempt
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

    @property
    def login(self) -> int:
        """The number of the login attempt that it answers, or 0."""
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

    ``attempt`` has what it tries, with the number 0 if the client was logged in already. ``named`` is the
    user that the line itself names, None for PASS. ``complete`` is False for an APOP without a digest,
    ``malformed`` is True for one whose digest is none.
    """

    __slots__ = ("attempt", "complete", "malformed", "named")

    def __init__(
        self,
        command: Command,
        attempt: LoginAttempt,
        named: str | None,
        complete: bool = True,
        malformed: bool = False,
    ) -> None:
        super().__init__(command)
        self.attempt = attempt
        self.named = named
        self.complete = complete
        self.malformed = malformed

    @property
    def octets(self) -> int:
        """What it keeps of the client's line."""
        attempt = self.attempt
        digest = sum(len(response) for _, response in attempt.exchanged)
        return len(attempt.user) + len(attempt.password) + digest

    @property
    def login(self) -> int:
        """The number of the login attempt that it answers, or 0."""
        return self.attempt.attempt


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

    @property
    def login(self) -> int:
        """The number of the login attempt that it answers, or 0."""
        return self.exchange.attempt


GREETING = Owed(grammar.GREETING)

AFTER_XMIT = Owed(grammar.AFTER_XMIT)
"""The reply to the message that XTND XMIT sent."""

CANCELLED = Owed(grammar.CANCELLED)
"""The answer to a ``*`` that the client has not sent."""
