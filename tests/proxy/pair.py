"""A session between two in-memory transports, with a clock that is turned by hand."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection, Event, SessionEnd, Side, Tls
from pop3proxy.analyzer.limits import Limits
from pop3proxy.config import Timeouts
from pop3proxy.hooks.api import EndSession, Hook
from pop3proxy.hooks.asking import Question
from pop3proxy.hooks.dispatcher import Dispatcher
from pop3proxy.proxy.session import Session
from pop3proxy.proxy.terms import Terms
from pop3proxy.proxy.tls import ClientTls, ServerTls
from pop3proxy.proxy.wire import Wire

TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mail.example.org")


class Around:
    """The surroundings of one session: a clock turned by hand, and everything that was told or counted."""

    def __init__(
        self, hooks: Sequence[Hook] = (), on_blind: Literal["drop", "pass"] = "drop"
    ) -> None:
        self.time = Clock()
        self.dispatcher = Dispatcher(hooks)
        self.dispatcher.start(self.time)
        self.blocking = self.dispatcher.blocking
        self.on_blind: Literal["", "drop", "pass"] = (
            on_blind if self.dispatcher.has_blocking else ""
        )
        self.delayed = 0
        self.delays = 10
        self.timeouts = Timeouts()
        self.clock = 1000.0
        self.stepped = 0.0  # that the system's clock was set on by
        self.told: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.gave_up = False
        self.left: list[Session] = []
        self.refuses: type[Event] | None = None

    def now(self) -> float:
        return self.clock + self.stepped

    def elapsed(self) -> float:
        return self.clock

    def dispatch(self, events: Sequence[Event]) -> None:
        self.told += events
        self.dispatcher.dispatch(events)
        if any(type(event) is self.refuses for event in events):
            raise EndSession

    def ask(self, events: Sequence[Event]) -> Question | None:
        return self.dispatcher.ask(events)

    def inform(self, events: Sequence[Event]) -> None:
        self.dispatcher.inform(events)

    def delay(self, seconds: float, then: Callable[[], None]) -> Callable[[], None] | None:
        if self.delayed >= self.delays:
            return None
        self.delayed += 1

        def over() -> None:
            self.delayed -= 1
            then()

        call = self.time.callLater(seconds, over)

        def give_up() -> None:
            self.delayed -= 1
            call.cancel()

        return give_up

    def dial(self, session: Session) -> Callable[[], None]:
        def give_up() -> None:
            self.gave_up = True

        return give_up

    def count(self, what: str) -> int:
        self.counts[what] += 1
        return self.counts[what]

    def over(self, session: Session) -> None:
        self.left.append(session)


class Transport(StringTransport):
    """An in-memory transport that remembers a reset."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def unregisterProducer(self) -> None:
        """Like the real transports, take no offence if there is none."""
        self.producer = None


class TurningWire(Wire):
    """A client's wire that turns TLS on when it is told to."""

    turning = False

    def start_tls(self, tls: ServerTls | ClientTls) -> None:
        self.turning = True

    def succeed(self, tls: Tls = TLS) -> None:
        assert self.turning
        self.tls = tls
        assert self._user is not None
        self._user.secured(Side.CLIENT)

    def fail(self, why: str) -> None:
        assert self.turning
        user, self._user = self._user, None
        assert user is not None
        user.insecure(Side.CLIENT, why)


class Pair:
    """A session whose client is there, and whose server comes when it is told to."""

    def __init__(
        self,
        limits: Limits | None = None,
        refuses: type[Event] | None = None,
        hooks: Sequence[Hook] = (),
        on_blind: Literal["drop", "pass"] = "drop",
        terms: Terms | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.around = Around(hooks, on_blind)
        self.around.refuses = refuses
        connection = Connection("Cuid", "192.0.2.1", 4000, "198.51.100.1", 110)
        self.analyzer = Analyzer(connection, limits or Limits(), gated=self.around.blocking)
        # What it is made of matters to the wire alone, and this one's TLS is the test's.
        server_tls: Any = object()
        self.session = Session(connection, self.analyzer, self.around, terms, server_tls)
        self.turning = TurningWire(self.session, Side.CLIENT)
        self.session.client = self.turning
        self.turning.tls = tls
        self.client = Transport()
        self.server = Transport()
        self.session.client.makeConnection(self.client)

    def connect(self) -> "Pair":
        self.session.server = Wire(self.session, Side.SERVER)
        self.session.server.makeConnection(self.server)
        return self

    @property
    def server_wire(self) -> Wire:
        assert self.session.server is not None
        return self.session.server

    @property
    def client_got(self) -> bytes:
        """All that was sent to the client."""
        got: bytes = self.client.value()
        return got

    @property
    def server_got(self) -> bytes:
        """All that was sent to the server."""
        got: bytes = self.server.value()
        return got

    def client_says(self, data: bytes) -> None:
        self.session.client.dataReceived(data)

    def server_says(self, data: bytes) -> None:
        self.server_wire.dataReceived(data)

    def both_gone(self) -> SessionEnd:
        """Let both transports say that they are closed, and return the summary."""
        for wire in (self.session.client, self.session.server):
            if wire is not None:
                wire.connectionLost(Failure(ConnectionDone()))
        return self.summary()

    def summary(self) -> SessionEnd:
        """Return the summary of a session that is over."""
        (summary,) = [event for event in self.around.told if isinstance(event, SessionEnd)]
        assert self.around.left == [self.session]
        return summary

    def wait(self, seconds: float) -> str:
        """Turn the clock, and end the session if a limit has run out; return the limit."""
        self.around.clock += seconds
        limit = self.session.overdue(self.around.clock)
        if limit:
            self.session.expired(limit)
        return limit
