"""Takes what connections said through the analyzer to the hooks, as the live proxy does; holds nothing back.

Blocking hooks are asked. What they would have said is logged and counted, since the bytes have long gone
where they went; so the events behind a denial are still those of what happened.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final

from twisted.internet.task import Clock
from twisted.logger import Logger

from ..analyzer.dialogue import Analyzer
from ..analyzer.events import Connect, Connection, Data, DataRun, Event, SessionEnd, Side
from ..analyzer.refusals import Refusals
from ..hooks.api import Deny, EndSession, Pass, Verdict
from ..hooks.dispatcher import Dispatcher
from ..hooks.masking import shown
from ..proxy.uids import uid_of
from .writing import EventWriter

MAX_WAITING: Final = 256 * 1024
"""Octets of a client that may wait because too many replies are owed: live, it would not be read on."""

MAX_KEPT: Final = 256 * 1024 * 1024
"""Octets that all analyzers may keep of lines without an end, and of commands without a reply. Of those that
keep the most inspection is ended beyond it: together they could keep a hundred times as much."""

LOOK_EVERY: Final = 32 * 1024 * 1024
"""Octets that are fed to the analyzers between two looks at what they keep."""


class PacketClock(Clock):
    """The hooks' clock: shows the packets' time, and never goes back."""

    _log = Logger(namespace="pop3proxy.replay")

    def advance(self, amount: float) -> None:
        """Let so many seconds pass and make the calls that are due; as in a reactor, none hinders another."""
        self.rightNow += amount
        while True:
            try:
                super().advance(0)
                return
            except BaseException as problem:
                # Its text may hold what the hook was told.
                name = type(problem).__name__
                self._log.error("a delayed call of a hook failed: {problem}", problem=name)

    def move(self, ts: float) -> None:
        """Go on to ``ts``, in seconds since the epoch."""
        if ts <= self.rightNow:
            return
        if self.calls:
            self.advance(ts - self.rightNow)
        else:
            self.rightNow = float(ts)


class Sessions:
    """All sessions of a capture: makes them, and brings their events to the file and the hooks.

    ``counts`` has what is worth knowing of what went by.
    """

    _log = Logger(namespace="pop3proxy.replay")

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: PacketClock,
        file: EventWriter | None,
        auth_resp_code: bool,
        refusals: Refusals,
    ) -> None:
        """Prepare; ``file`` hears the events before the hooks, the last two are for the analyzers."""
        self.counts: Counter[str] = Counter()
        self._dispatcher = dispatcher
        self._clock = clock
        self._file = file
        self._hooks = bool(dispatcher.hooks)
        self._asks = bool(dispatcher.blocking)
        self._auth_resp_code = auth_resp_code
        self._refusals = refusals
        self._wants = dispatcher.wants | (file.wants if file is not None else frozenset())
        if Data in dispatcher.wants:
            # Hooks hear lines one by one.
            self._wants -= {DataRun}
        self._begun = 0
        self._open: set[Session] = set()
        self._unlooked = 0  # octets since the last look

    def begin(self, key: bytes, ts: float) -> "Session":
        """Make the session of a connection; ``key`` has the addresses and ports, the client's first."""
        self._begun += 1
        size = (len(key) - 4) // 2
        family = AF_INET if size == 4 else AF_INET6
        connection = Connection(
            _uid(key, ts, self._begun),
            inet_ntop(family, key[:size]),
            int.from_bytes(key[-4:-2], "big"),
            inet_ntop(family, key[size:-4]),
            int.from_bytes(key[-2:], "big"),
        )
        analyzer = Analyzer(
            connection,
            wants=self._wants,
            auth_resp_code=self._auth_resp_code,
            refusals=self._refusals,
        )
        self.counts["sessions"] += 1
        session = Session(connection, analyzer, self, ts)
        self._open.add(session)
        self.tell([Connect(connection, ts)])
        return session

    def over(self, session: "Session") -> None:
        """Forget a session that has ended."""
        self._open.discard(session)

    def fed(self, size: int) -> None:
        """Count what the analyzers were fed, and look now and then at what they keep of it."""
        self._unlooked += size
        if self._unlooked >= LOOK_EVERY:
            self._unlooked = 0
            self._bound()

    def _bound(self) -> None:
        """End inspection of the sessions that keep the most, until all keep half of what they may."""
        kept = {session: session.kept for session in self._open}
        total = sum(kept.values())
        if total <= MAX_KEPT:
            return
        for session in sorted(kept, key=kept.__getitem__, reverse=True):
            session.give_up("memory")
            total -= kept[session]
            if total <= MAX_KEPT // 2:
                break

    def tell(self, events: Sequence[Event]) -> None:
        """Bring events to the file and to the hooks, and ask those that may decide."""
        if self._file is not None:
            self._file.write(events)
        if self._hooks:
            self._clock.move(events[-1].ts)
            self._dispatch(events)
            if self._asks:
                self._ask(events)

    def tell_end(self, events: Sequence[Event]) -> None:
        """Bring events that nobody can decide about any more to all."""
        if self._file is not None:
            self._file.write(events)
        if self._hooks:
            self._clock.move(events[-1].ts)
            self._dispatch(events)
            self._dispatcher.inform(events)

    def _dispatch(self, events: Sequence[Event]) -> None:
        try:
            self._dispatcher.dispatch(events)
        except EndSession:
            self._record(events, "would have ended the session")

    def _ask(self, events: Sequence[Event]) -> None:
        question = self._dispatcher.ask(events)
        if question is None:
            return
        if question.verdict is None:
            question.settled = lambda verdict: self._judged(events, verdict)
        else:
            self._judged(events, question.verdict)

    def _judged(self, events: Sequence[Event], verdict: Verdict) -> None:
        if not isinstance(verdict, Pass):
            decided = [event for event in events if type(event) in self._dispatcher.blocking]
            self._record(
                decided, f"would have been answered with {_described(verdict, events[0].c)}"
            )

    def _record(self, events: Sequence[Event], what: str) -> None:
        """Write down what a hook would have done. Events may hold secrets, so only their names are said."""
        event = events[0]
        self.counts["verdicts"] += 1
        self._log.info(
            "{ts:.6f} {uid} {host}:{port}: {event} {what}",
            ts=event.ts,
            uid=event.c.uid,
            host=event.c.orig_h,
            port=event.c.orig_p,
            event=", ".join(each.name for each in events),
            what=what,
        )

    def inspection_failed(self, connection: Connection, problem: Exception) -> None:
        """Report an error in the analyzer."""
        self.counts["inspection_failed"] += 1
        self._log.error(
            "{uid}: inspection ended by an error of ours ({problem}); {count} such sessions by now",
            uid=connection.uid,
            problem=type(problem).__name__,
            count=self.counts["inspection_failed"],
        )


class Session:
    """One session: what its two sides said goes to the analyzer, and what comes of it is told."""

    __slots__ = (
        "_analyzer",
        "_blind",
        "_octets",
        "_reason",
        "_sessions",
        "_started",
        "_ts",
        "_waiting",
        "over",
    )

    def __init__(
        self, connection: Connection, analyzer: Analyzer, sessions: Sessions, ts: float
    ) -> None:
        """Begin; ``ts`` is the time of the first packet."""
        self.over = False
        self._analyzer = analyzer
        self._sessions = sessions
        self._started = self._ts = ts
        self._octets = [0, 0]  # of the client, of the server
        self._waiting = 0  # of the client's, in the analyzer
        self._reason = ""
        self._blind = False

    def data(self, side: Side, data: bytes, ts: float) -> None:
        """Take the next bytes of a side."""
        self._ts = ts
        self._octets[side is Side.SERVER] += len(data)
        if self._blind:
            return
        self._sessions.fed(len(data))
        try:
            self._analyzer.feed(side, data, ts)
            if side is Side.SERVER:
                self._pull_server(len(data))
            else:
                self._pull_client(len(data))
            if self._analyzer.done:
                self._blind = True
        except Exception as problem:
            self._failed(problem)

    def _pull_server(self, size: int) -> None:
        analyzer = self._analyzer
        while size > 0 and (step := analyzer.next(Side.SERVER)) is not None:
            size -= step.size
            if step.events:
                self._sessions.tell(step.events)
            if self._waiting:
                self._pull_client(0)

    def _pull_client(self, size: int) -> None:
        """Pull what can be; what cannot waits for the server, up to a limit."""
        analyzer = self._analyzer
        size += self._waiting
        while size > 0 and (step := analyzer.next(Side.CLIENT)) is not None:
            size -= step.size
            if step.events:
                self._sessions.tell(step.events)
        self._waiting = size
        if size > MAX_WAITING:
            self.give_up("pending")

    def gap(self, side: Side, ts: float) -> None:
        """Take it that bytes of a side are missing here."""
        self._ts = ts
        self._sessions.counts["gaps"] += 1
        if self._blind:
            return
        if self._waiting:
            # They come before the gap, and are not read before the server has answered what is in doubt now.
            self.give_up("pending")
        try:
            events = self._analyzer.gap(side, ts)
        except Exception as problem:
            self._failed(problem)
        else:
            self._tell_end(events)

    def ended(self, side: Side, ts: float) -> None:
        """Take the end of a side's bytes."""
        self._ts = ts
        first = not self._reason
        if first:
            self._reason = f"{side.value}_closed"
        self._end_side(side)
        if not first:
            self.finish("")

    def lost(self, side: Side, ts: float) -> None:
        """Take it that a side has reset the connection."""
        self._ts = ts
        self.finish(f"{side.value}_lost")

    def finish(self, reason: str) -> None:
        """End the session, for a reason that counts if nothing has ended it before.

        The side that went first is ended first, as live. Who only sees the end of the capture knows nothing
        of the server's, so the client's comes first then, and a login that waits is not taken for refused.
        """
        if self.over:
            return
        self.over = True
        self._reason = self._reason or reason
        order = [Side.CLIENT, Side.SERVER]
        if self._reason.startswith("server_"):
            order.reverse()
        for side in order:
            self._end_side(side)
        analyzer = self._analyzer
        summary = SessionEnd(
            c=analyzer.connection,
            ts=self._ts,
            user=analyzer.summary.user,
            outcome=analyzer.outcome,
            commands=analyzer.commands,
            retr=analyzer.tally.get("RETR", 0),
            top=analyzer.tally.get("TOP", 0),
            dele=analyzer.tally.get("DELE", 0),
            orig_octets=self._octets[False],
            resp_octets=self._octets[True],
            duration=max(0.0, round(self._ts - self._started, 6)),
            reason=self._reason,
            unexpected=analyzer.unexpected,
            inspected=analyzer.inspected,
            mechanism=analyzer.summary.mechanism,
            deleted=analyzer.summary.deleted,
            denied=analyzer.summary.denied,
        )
        self._sessions.over(self)
        self._sessions.counts[f"inspected_{analyzer.inspected.partition(':')[0]}"] += 1
        self._tell_end([summary])

    def _end_side(self, side: Side) -> None:
        try:
            events = self._analyzer.ended(side, self._ts)
        except Exception as problem:
            self._failed(problem)
        else:
            self._tell_end(events)

    def _tell_end(self, events: Sequence[Event]) -> None:
        if events:
            self._sessions.tell_end(events)

    @property
    def kept(self) -> int:
        """About how many octets are kept of what was said."""
        return self._analyzer.kept

    def give_up(self, why: str) -> None:
        """End inspection, because it would take too much."""
        self._sessions.counts[f"lost_{why}"] += 1
        self._analyzer.give_up(why)
        # What waited is let go of, too.
        self._analyzer.next(Side.CLIENT)
        self._waiting = 0
        self._blind = True

    def _failed(self, problem: Exception) -> None:
        """End inspection, because of an error in it."""
        self._sessions.inspection_failed(self._analyzer.connection, problem)
        self._analyzer.give_up("error")
        self._waiting = 0
        self._blind = True


def _described(verdict: Verdict, c: Connection) -> str:
    """Describe a verdict; a hook may have put into its reply what the client sent."""
    if isinstance(verdict, Deny):
        reply = verdict.reply.removeprefix("-ERR ")
        return f"Deny(reply='-ERR {shown(reply, c)}')"
    return str(verdict)


def _uid(key: bytes, ts: float, number: int) -> str:
    """Derive a session's id from what two replays of a capture have in common.

    ``number`` tells sessions apart that have addresses, ports and time in common.
    """
    text = f"{ts:.6f} {number}".encode("ascii")
    return uid_of(blake2b(key + text, digest_size=12).digest())
