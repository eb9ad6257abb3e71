r"""Plays POP3 sessions to hooks, for those who write hooks; no sockets, no reactor, no test framework.

Everything between the two peers is what ``pop3proxy serve`` runs, on the same settings; only the connections
are in memory, and the clock is turned by hand. A hook that lets nobody in is tested so::

    from pop3proxy.hooks.api import Deny, Hook
    from pop3proxy.testing import Play

    class Closed(Hook):
        blocking = True

        def pop3_login_attempt(self, event):
            return Deny("-ERR [SYS/TEMP] closed")

    def test_nobody_gets_in():
        with Play(Closed()) as play:
            play.say('''
                S: +OK ready
                C: USER bob
                S: +OK
                C: PASS secret
            ''')
            assert play.to_server == b"USER bob\r\n"
            assert play.to_client == b"+OK ready\r\n+OK\r\n-ERR [SYS/TEMP] closed\r\n"
            assert play.verdicts == [("pop3_login_attempt", Deny("-ERR [SYS/TEMP] closed"))]
            assert play.raised("pop3_login_failure")[0].reason == "denied"

The lines of a transcript are::

    C: USER bob         the client sends this and CR LF
    S: +OK<lf>          the server sends this and LF
    S: +OK half a<open>     the server sends this and no line end
    S: <end>            the server ends its bytes; it can still be sent some
    T: 2.5              so many seconds pass
    # a remark

Blanks before a line count for nothing. In a line ``\xNN``, ``\0``, ``\t``, ``\r`` and ``\n`` are bytes, any
other character behind a backslash is itself, ``{b64 TEXT}`` is TEXT in base64 and ``{90*TEXT}`` is TEXT
ninety times; they may stand in each other. All else is UTF-8.
"""

import base64
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from .analyzer.events import ALL, Connection, Event, Side, Tls
from .config import Config, load
from .hooks.api import Hook, Verdict
from .hooks.asking import Asker
from .hooks.dispatcher import Dispatcher, HookNotStarted
from .hooks.faults import Faults, HookMethod
from .loading import load_hooks
from .problems import trace_of
from .proxy.service import ProxyService
from .proxy.session import Mode, Session
from .proxy.wire import Wire

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
"""When a play begins unless it is told otherwise: a Monday."""

CLIENT = "192.0.2.1"
"""The client's address unless a play is told otherwise (RFC 5737)."""

SERVER = "198.51.100.1"
"""The mail server's address."""

_KINDS = {kind.name: kind for kind in ALL}

# --- the notation ---------------------------------------------------------------------------------------


class TranscriptError(ValueError):
    """A transcript that does not follow the notation."""


_ENDINGS = {"<lf>": b"\n", "<open>": b""}
_ESCAPES = {"0": b"\0", "t": b"\t", "r": b"\r", "n": b"\n"}
_MADE = re.compile(r"b64 |(?P<times>\d+)\*")
_SECONDS = re.compile(r"\s*\d+(\.\d+)?\s*")
_HEX = re.compile(r"\\x([0-9A-Fa-f]{2})")


def said(line: str) -> bytes | None:
    """Return what the line of a transcript sends, ``C: USER bob`` say; None if it ends its side's bytes.

    Raises TranscriptError.
    """
    if line[2:] == " <end>":
        return None
    ending = next((tag for tag in _ENDINGS if line.endswith(tag)), "")
    text = line[2:].removesuffix(ending).removeprefix(" ")
    return unescape(text) + _ENDINGS.get(ending, b"\r\n")


def seconds(line: str) -> float:
    """Return how long the line of a transcript lasts, ``T: 2.5`` say. Raises TranscriptError."""
    if not _SECONDS.fullmatch(line, 2):
        raise TranscriptError(f"no number of seconds: {line}")
    return float(line[2:])


def unescape(text: str) -> bytes:
    """Return the bytes that a piece of a transcript stands for. Raises TranscriptError."""
    return _unescape(text, 0, "")[0]


def _unescape(text: str, start: int, stop: str) -> tuple[bytes, int]:
    """Read ``text`` from ``start`` up to an unescaped ``stop``; return the bytes and where it stopped."""
    out = bytearray()
    at = start
    while at < len(text) and text[at] != stop:
        if number := _HEX.match(text, at):
            out.append(int(number[1], 16))
            at = number.end()
        elif text[at] == "\\":
            escaped = text[at + 1 : at + 2]
            out += _ESCAPES.get(escaped) or escaped.encode()
            at += 2
        elif text[at] == "{":
            made, at = _notation(text, at + 1)
            out += made
        else:
            out += text[at].encode()
            at += 1
    return bytes(out), at


def _notation(text: str, start: int) -> tuple[bytes, int]:
    """Read ``b64 TEXT}`` or ``N*TEXT}`` from ``start``."""
    head = _MADE.match(text, start)
    if head is None:
        raise TranscriptError(f"neither b64 nor a repetition; a brace itself is \\{{: {text}")
    inner, at = _unescape(text, head.end(), "}")
    times = head["times"]
    return (inner * int(times) if times else base64.b64encode(inner)), at + 1


# --- what is noted --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """A blocking hook was asked about an event.

    ``verdict`` is what it said, or stands for because it failed with ``problem``; it is None while the hook
    takes its time, and stays so if nobody waits for it any more. ``hook`` is the hook's label.
    """

    event: Event
    hook: str
    verdict: Verdict | None = None
    problem: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A method of a hook raised, took too long, or returned what can't be a verdict there."""

    event: Event
    hook: str
    problem: BaseException


class _WatchedFaults(Faults):
    """Notes what fails, besides."""

    def __init__(self, note: Callable[[Failed], None]) -> None:
        super().__init__()
        self._note = note

    def failed(self, method: HookMethod, event: Event, problem: Any) -> None:
        self._note(Failed(event, method.label, problem))
        trace = trace_of(problem)
        super().failed(method, event, problem)
        if trace is not None:
            # For the author of the hook, who may want to see it.
            problem.__traceback__ = trace


class _WatchedAsker(Asker):
    """Notes what a method of a blocking hook is asked, and what that comes to."""

    __slots__ = ("_note", "_waiting")

    def __init__(self, asker: Asker, note: Callable[[Asked], None]) -> None:
        super().__init__(asker.hook, asker.label, asker.call, asker.faults)
        self._note = note
        self._waiting: dict[int, Asked] = {}

    def ask(self, event: Event) -> Any:
        asked = self._waiting[id(event)] = Asked(event, self.label)
        self._note(asked)
        answer = super().ask(event)
        return self._answered(event, answer) if isinstance(answer, Verdict) else answer

    def answered(self, event: Event, answer: Any) -> Verdict:
        return self._answered(event, super().answered(event, answer))

    def failed(self, event: Event, problem: BaseException) -> Verdict:
        if id(event) in self._waiting:
            self._waiting[id(event)].problem = problem
        return self._answered(event, super().failed(event, problem))

    def _answered(self, event: Event, verdict: Verdict) -> Verdict:
        asked = self._waiting.pop(id(event), None)
        if asked is not None:
            asked.verdict = verdict
        return verdict


class _Notes:
    """What is noted of one session."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.asked: list[Asked] = []
        self.failed: list[Failed] = []


class _WatchedDispatcher(Dispatcher):
    """Notes by session which events there are, what hooks are asked, and what fails."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        super().__init__(hooks, faults=_WatchedFaults(self._note_failure))
        self.wants = ALL
        self.notes: dict[str, _Notes] = {}
        self._told = self._askers
        self._askers = {
            kind: [_WatchedAsker(asker, self._note) for asker in askers]
            for kind, askers in self._askers.items()
        }

    def notes_of(self, c: Connection) -> _Notes:
        return self.notes.setdefault(c.uid, _Notes())

    def dispatch(self, events: Iterable[Event]) -> None:
        events = list(events)
        for event in events:
            self.notes_of(event.c).events.append(event)
        super().dispatch(events)

    def inform(self, events: Iterable[Event]) -> None:
        # Nobody decides about these, so nobody is said to have been asked.
        watched, self._askers = self._askers, self._told
        super().inform(events)
        self._askers = watched

    def _note(self, asked: Asked) -> None:
        self.notes_of(asked.event.c).asked.append(asked)

    def _note_failure(self, failed: Failed) -> None:
        self.notes_of(failed.event.c).failed.append(failed)


# --- the stage ------------------------------------------------------------------------------------------


class _Peer:
    """A client or a mail server, and the transport that leads to it: takes all it is sent, at once.

    ``got`` is what it was sent. What it says waits while the proxy does not read. ``follows``: it ends its
    bytes when it sees the end of the other's, as peers do when they are left.
    """

    def __init__(self, host: str, port: int) -> None:
        make = IPv6Address if ":" in host else IPv4Address
        self.address = make("TCP", host, port)
        self.got = bytearray()
        self.ended = False  # it was told that no more will come
        self.gone = False
        self.follows = False
        self.session: Session | None = None
        self.wire: Any = None
        self._paused = False
        self._due: deque[bytes | None] = deque()

    def join(self, wire: Any) -> None:
        """Be the transport of a wire."""
        self.wire = wire
        wire.makeConnection(self)

    def say(self, data: bytes | None) -> None:
        """Have bytes to send, or with None the end of them."""
        self._due.append(data)

    def follow(self) -> None:
        """Leave as soon as the other side has left."""
        self.follows = True
        if self.ended:
            self.say(None)

    def deliver(self) -> bool:
        """Hand the proxy the next that it will read; return whether there was anything."""
        if self.wire is None or self.gone or self._paused or not self._due:
            return False
        data = self._due.popleft()
        if data is None:
            self.wire.readConnectionLost()
        elif data:
            self.wire.dataReceived(data)
        return True

    def _lose(self, why: BaseException) -> None:
        if not self.gone:
            self.gone = self.ended = True
            self.wire.connectionLost(Failure(why))

    # What a transport is asked for.

    def write(self, data: bytes) -> None:
        if not self.ended:
            self.got += data

    def loseConnection(self) -> None:
        """Close at once if the session ends, as sockets do; else it is only the end of our bytes."""
        if self.session is None or self.session.over:
            self._lose(ConnectionDone())
        elif not self.ended:
            self.ended = True
            if self.follows:
                self.say(None)

    def abortConnection(self) -> None:
        self._lose(ConnectionAborted())

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Never ask a producer to wait."""

    def unregisterProducer(self) -> None:
        """Have none."""

    def getPeer(self) -> IPv4Address | IPv6Address:
        return self.address


class _Proxy(ProxyService):
    """The proxy, between peers in memory and with a clock that is turned by hand."""

    def __init__(self, config: Config, hooks: Sequence[Hook], start: float) -> None:
        self.clock = clock = MemoryReactorClock()
        super().__init__(clock, config, hooks, now=lambda: start + clock.seconds())
        self.watched = watched = _WatchedDispatcher(hooks)
        self._dispatcher = watched
        self.dispatch = watched.dispatch
        self.ask = watched.ask
        self.inform = watched.inform
        self.blocking = watched.blocking
        self.peers: list[_Peer] = []
        self._servers: dict[str, _Peer] = {}

    def open(self) -> None:
        """Start hooks, and listen. Raises what a hook raises."""
        problems: list[Failure] = []
        self.started.addErrback(problems.append)
        self.startService()
        for problem in problems:
            if isinstance(problem.value, HookNotStarted) and problem.value.__cause__ is not None:
                raise problem.value.__cause__
            problem.raiseException()

    def enter(self, client: _Peer, server: _Peer, tls: Tls | None) -> Session | None:
        """Let a client connect, as if over that TLS; return its session, if it is let in."""
        self.peers += client, server
        before = set(self.sessions)
        wire = self.clock.tcpServers[0][1].buildProtocol(client.address)
        session = next(iter(self.sessions - before), None)
        client.session = server.session = session
        if session is not None:
            self._servers[session.connection.uid] = server
            session.client.tls = tls
        client.join(wire)
        return session

    def dial(self, session: Session) -> Callable[[], None]:
        """Connect a session to its peer in memory."""
        call = self.clock.callLater(0, self._reach, session)
        return call.cancel

    def _reach(self, session: Session) -> None:
        session.server = Wire(session, Side.SERVER)
        self._servers[session.connection.uid].join(session.server)

    def settle(self) -> None:
        """Let everything happen that takes no time."""
        moved = True
        while moved:
            self.clock.advance(0)
            moved = any(peer.deliver() for peer in self.peers)

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever waits for a moment sees that moment."""
        clock = self.clock
        end = clock.seconds() + seconds
        self.settle()
        while (due := min(map(_time_of, clock.getDelayedCalls()), default=math.inf)) <= end:
            clock.rightNow = max(due, clock.seconds())
            self.settle()
        clock.rightNow = end
        self.settle()

    def shut(self) -> None:
        """End the sessions that still run, and stop the hooks."""
        if not self.running:
            return
        for _ in range(2):
            for session in list(self.sessions):
                session.shut_down()
        self.settle()
        stopped: Deferred[None] = self.stopService()
        problems: list[Failure] = []
        stopped.addErrback(problems.append)
        for problem in problems:
            problem.raiseException()


def _time_of(call: Any) -> float:
    time: float = call.getTime()
    return time


class NotConnected(Exception):
    """The mail server was to say something, and the proxy has not dialled it (yet)."""


class Play:
    """One session of a client and a mail server, with hooks between them.

    The session begins at once: hooks are started, with the hand-turned clock for a reactor, the client is
    connected, and the server is dialled unless a hook is against it. The server has no words of its own: what
    both say is up to ``say``, or to ``client`` and ``server``. What is said to a connection that is closed is
    lost, as on a network.

    Hooks may return coroutines and Deferreds. Nothing waits for time to pass but ``advance``.

    ``at`` is when the play begins (default: ``NOON``), ``address`` the client's. With ``tls`` the client
    talks TLS to the proxy, of which that is known; what is said is what is inside it. ``config`` is what a
    configuration file would say beside ``listen`` and ``upstream``, such as ``{"verdicts": {"on_blind":
    "pass"}}``; hooks that it names come before those that are given. ``close``, or the end of a ``with``
    block, ends what still runs, and stops the hooks.

    Raises ConfigError for what a configuration can't say, UnusableHook for a hook that could not be loaded,
    and what a hook's ``start`` raises.
    """

    def __init__(
        self,
        *hooks: Hook,
        at: datetime = NOON,
        address: str = CLIENT,
        config: Mapping[str, Any] | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Start the hooks and connect the client."""
        values = {**(config or {}), "listen": ["tcp:110"], "upstream": f"tcp:{SERVER}:110"}
        checked = load(None, values, MemoryReactorClock())
        proxy = _Proxy(checked, [*load_hooks(checked), *hooks], at.timestamp())
        proxy.open()
        self._begin(proxy, address, tls)

    def another(self, address: str = CLIENT, tls: Tls | None = None) -> "Play":
        """Begin a further session, of another client, with the same hooks and the same clock.

        ``close`` of either ends both.
        """
        play: Play = object.__new__(Play)
        play._begin(self._proxy, address, tls)
        return play

    def _begin(self, proxy: _Proxy, address: str, tls: Tls | None) -> None:
        self._proxy = proxy
        self._client = _Peer(address, 40000 + len(proxy.peers))
        self._server = _Peer(SERVER, 110)
        self._session = proxy.enter(self._client, self._server, tls)
        proxy.settle()

    # --- what happens -----------------------------------------------------------------------------------

    def say(self, transcript: str) -> None:
        """Play the lines of a transcript, one after the other, each arriving by itself.

        The notation is described at the head of the module. Raises TranscriptError.
        """
        for number, line in enumerate(transcript.splitlines(), 1):
            try:
                self._play(line.lstrip())
            except TranscriptError as problem:
                raise TranscriptError(f"line {number}: {problem}") from None

    def _play(self, line: str) -> None:
        match line[:2]:
            case "C:":
                self._say(self._client, said(line))
            case "S:":
                self._say(self._server, said(line))
            case "T:":
                self.advance(seconds(line))
            case _:
                if line and not line.startswith("#"):
                    raise TranscriptError(f"begins with none of C:, S:, T: and #: {line}")

    def client(self, said: str | bytes) -> None:
        """Let the client send a line, or bytes as they are; a ``str`` gets its CR LF."""
        self._say(self._client, _sent(said))

    def server(self, said: str | bytes) -> None:
        """Let the server send a line, or bytes as they are; a ``str`` gets its CR LF."""
        self._say(self._server, _sent(said))

    def client_leaves(self) -> None:
        """Let the client close its connection; a server that hears of it closes its own."""
        self._server.follow()
        self._say(self._client, None)

    def server_leaves(self) -> None:
        """Let the server close its connection; a client that hears of it closes its own."""
        self._client.follow()
        self._say(self._server, None)

    def _say(self, peer: _Peer, data: bytes | None) -> None:
        if peer.wire is None and not self.over:
            raise NotConnected(
                "the proxy has not dialled the mail server; if that waits for a hook, let time pass first"
            )
        peer.say(data)
        self._proxy.settle()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; 0 lets happen what your own Deferreds have set free."""
        if not seconds >= 0:
            raise ValueError(f"time goes by from 0 seconds on, not {seconds}")
        self._proxy.advance(seconds)

    def close(self) -> None:
        """End the sessions that still run, with the reason ``shutdown``, and stop the hooks."""
        self._proxy.shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- what came of it --------------------------------------------------------------------------------

    @property
    def to_client(self) -> bytes:
        """All that the client was sent."""
        return bytes(self._client.got)

    @property
    def to_server(self) -> bytes:
        """All that the server was sent."""
        return bytes(self._server.got)

    @property
    def dialled(self) -> bool:
        """Whether the server was connected to."""
        return self._server.wire is not None

    @property
    def over(self) -> bool:
        """Whether the session is over: both connections are closed."""
        return self._client.gone if self._session is None else self._session.mode is Mode.OVER

    @property
    def reason(self) -> str:
        """What ended the session, as ``pop3_session`` has it; empty while it goes on."""
        return "" if self._session is None or not self.over else self._session.reason

    @property
    def connection(self) -> Connection:
        """The ``c`` of the session's events."""
        if self._session is None:
            raise NotConnected(
                "the client was not let in, because a limit of the configuration is reached"
            )
        return self._session.connection

    @property
    def events(self) -> list[Event]:
        """The session's events, in their order, whether any hook wants them or not."""
        return self._notes.events

    def raised(self, name: str) -> list[Any]:
        """Return the session's events of one name, ``pop3_login_failure`` say."""
        if name not in _KINDS:
            raise ValueError(f"{name} is no event; the events are {', '.join(sorted(_KINDS))}")
        return [event for event in self.events if event.name == name]

    @property
    def asked(self) -> list[Asked]:
        """What blocking hooks were asked in this session, in that order, and what they said."""
        return self._notes.asked

    @property
    def verdicts(self) -> list[tuple[str, Verdict | None]]:
        """The same in short: the event's name and the verdict, None for one that has not come."""
        return [(asked.event.name, asked.verdict) for asked in self.asked]

    @property
    def failed(self) -> list[Failed]:
        """What failed in hooks, of those that only listen too; in ``serve`` it is logged and counted."""
        return self._notes.failed

    @property
    def counts(self) -> Counter[str]:
        """What the proxy counted, in all its sessions; ``docs/operating.md`` explains each."""
        return self._proxy.counts

    @property
    def clock(self) -> MemoryReactorClock:
        """The clock, which is the reactor that hooks are started with."""
        return self._proxy.clock

    @property
    def _notes(self) -> _Notes:
        return self._proxy.watched.notes_of(self.connection)


def _sent(said: str | bytes) -> bytes:
    if isinstance(said, bytes):
        return said
    return said.encode("utf-8", "surrogateescape") + b"\r\n"
