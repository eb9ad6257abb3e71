"""One session between two in-memory transports: its modes, its limits, and what an error of ours costs."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection, Event, LoginSuccess, SessionEnd, Side
from pop3proxy.analyzer.limits import Limits
from pop3proxy.config import Timeouts
from pop3proxy.hooks.api import EndSession
from pop3proxy.proxy.session import Mode, Session
from pop3proxy.proxy.wire import Wire


class Around:
    """The surroundings of one session: a clock turned by hand, and everything that was told or counted."""

    def __init__(self) -> None:
        self.timeouts = Timeouts()
        self.clock = 1000.0
        self.told: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.gave_up = False
        self.left: list[Session] = []
        self.refuses: type[Event] | None = None

    def now(self) -> float:
        return self.clock

    def dispatch(self, events: Sequence[Event]) -> None:
        self.told += events
        if any(type(event) is self.refuses for event in events):
            raise EndSession

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


class Pair:
    """A session whose client is there, and whose server comes when it is told to."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.around = Around()
        connection = Connection("Cuid", "192.0.2.1", 4000, "198.51.100.1", 110)
        self.analyzer = Analyzer(connection, limits or Limits())
        self.session = Session(connection, self.analyzer, self.around)
        self.client = Transport()
        self.server = Transport()
        self.session.client.makeConnection(self.client)

    def connect(self) -> "Pair":
        self.session.server = Wire(self.session, Side.SERVER)
        self.session.server.makeConnection(self.server)
        return self

    def client_says(self, data: bytes) -> None:
        self.session.client.dataReceived(data)

    def server_says(self, data: bytes) -> None:
        assert self.session.server is not None
        self.session.server.dataReceived(data)

    def both_gone(self) -> SessionEnd:
        """Let both transports say that they are closed, and return the summary."""
        for wire in (self.session.client, self.session.server):
            if wire is not None:
                wire.connectionLost(Failure(ConnectionDone()))
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


def test_bytes_of_a_client_that_speaks_first_wait_for_the_server() -> None:
    pair = Pair()
    pair.client_says(b"USER bob\r\n")
    assert pair.client.producerState == "paused"
    pair.connect()
    assert pair.server.value() == b"USER bob\r\n"
    assert pair.client.producerState == "producing"


def test_a_side_is_read_on_only_when_the_other_has_taken_what_was_read() -> None:
    pair = Pair().connect()
    assert pair.session.server is not None
    pair.session.server.pauseProducing()
    pair.client_says(b"NOOP\r\n")
    assert pair.client.producerState == "paused"
    pair.session.server.resumeProducing()
    assert pair.client.producerState == "producing"


def test_commands_beyond_the_limit_wait_and_lose_nothing() -> None:
    pair = Pair(Limits(pending=3)).connect()
    pair.server_says(b"+OK ready\r\n")
    commands = b"".join(b"DELE %d\r\n" % number for number in range(8))
    pair.client_says(commands)
    assert pair.client.producerState == "paused"
    assert pair.server.value().count(b"\n") == 3
    for _ in range(8):
        pair.server_says(b"+OK\r\n")
    assert pair.server.value() == commands
    assert pair.client.producerState == "producing"


def test_the_end_of_a_client_whose_bytes_wait_is_passed_on_behind_them() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(b"+OK ready\r\n")
    pair.client_says(b"NOOP\r\nQUIT\r\n")
    pair.session.client.readConnectionLost()
    assert not pair.server.disconnecting
    pair.server_says(b"+OK\r\n")
    assert pair.server.value() == b"NOOP\r\nQUIT\r\n"
    assert pair.server.disconnecting


@pytest.mark.parametrize(
    ("limit", "seconds", "said"),
    [("connect", 11, True), ("greeting", 31, True), ("login", 181, False)],
)
def test_a_limit_that_runs_out_is_answered_only_while_the_server_is_silent(
    limit: str, seconds: float, said: bool
) -> None:
    pair = Pair()
    if limit != "connect":
        pair.connect()
    if limit == "login":
        pair.server_says(b"+OK ready\r\n")
        pair.client.clear()
    assert pair.wait(seconds - 2) == ""
    assert pair.wait(2) == limit
    assert pair.client.value().startswith(b"-ERR [SYS/TEMP] ") is said
    assert pair.client.disconnecting
    assert pair.around.counts[f"timeout_{limit}"] == 1
    assert pair.around.gave_up is (limit == "connect")
    assert pair.both_gone().reason == f"timeout:{limit}"


def test_a_client_that_is_logged_in_may_be_idle_for_ten_minutes() -> None:
    pair = Pair().connect()
    pair.server_says(b"+OK ready\r\n")
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    pair.server_says(b"+OK\r\n+OK\r\n")
    assert pair.wait(599) == ""
    pair.client_says(b"NOOP\r\n")
    assert pair.wait(599) == ""
    assert pair.wait(2) == "idle"
    summary = pair.both_gone()
    assert (summary.user, summary.outcome, summary.reason) == ("bob", "success", "timeout:idle")


def test_what_is_not_flushed_in_time_is_reset() -> None:
    pair = Pair().connect()
    pair.session.shut_down()
    assert pair.wait(29) == ""
    assert pair.wait(2) == "drain"
    assert pair.client.aborted
    assert pair.server.aborted


def test_a_limit_of_ours_is_no_login_that_the_server_aborted() -> None:
    pair = Pair().connect()
    pair.server_says(b"+OK ready\r\n")
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    assert pair.wait(601) == "login"
    assert "pop3_login_failure" not in {event.name for event in pair.around.told}
    assert pair.both_gone().outcome == "none"


def test_an_error_of_ours_ends_inspection_and_not_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair().connect()
    pair.server_says(b"+OK ready\r\n")

    def broken(side: Side) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Analyzer, "next", lambda self, side: broken(side))
    pair.client_says(b"USER bob\r\n")
    monkeypatch.undo()
    pair.server_says(b"+OK\r\n")
    assert pair.server.value() == b"USER bob\r\n"
    assert pair.client.value() == b"+OK ready\r\n+OK\r\n"
    assert pair.around.counts["inspection_failed"] == 1
    assert pair.both_gone().inspected == "lost:error"


def test_a_hook_that_ends_a_session_keeps_the_answer_from_the_client() -> None:
    pair = Pair().connect()
    pair.around.refuses = LoginSuccess
    pair.server_says(b"+OK ready\r\n")
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    pair.server_says(b"+OK\r\n")
    pair.server_says(b"+OK welcome\r\n")
    assert b"welcome" not in pair.client.value()
    assert pair.client.disconnecting
    assert pair.around.counts["ended_by_hook"] == 1
    assert pair.both_gone().reason == "hook"


@pytest.mark.parametrize(
    ("side", "clean", "reason"),
    [
        (Side.CLIENT, True, "client_closed"),
        (Side.CLIENT, False, "client_lost"),
        (Side.SERVER, True, "server_closed"),
        (Side.SERVER, False, "server_lost"),
    ],
)
def test_a_session_ends_once_with_the_reason_that_came_first(
    side: Side, clean: bool, reason: str
) -> None:
    pair = Pair().connect()
    pair.server_says(b"+OK ready\r\n")
    why = Failure(ConnectionDone() if clean else ConnectionLost())
    assert pair.session.server is not None
    wire = pair.session.client if side is Side.CLIENT else pair.session.server
    wire.connectionLost(why)
    summary = pair.both_gone()
    assert summary.reason == reason
    assert pair.session.mode is Mode.OVER
