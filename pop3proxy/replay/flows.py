"""Finds the connections that speak POP3 among all segments, and keeps a bounded table of them.

A connection is of interest if one of its ports is known to be POP3's, or if its responder speaks first and
greets as a POP3 server does (RFC 1939 section 4). The others cost a look each packet, and no memory.

What is kept, in the order of the cost: of a connection that has not said anything the numbers of its SYNs
(``Opening``), of one that speaks a ``Flow``, of one that is over where its bytes ended, so that what is sent
again does not begin a new one.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol, cast

from ..analyzer.events import Side
from .packets import ACK, FIN, RST, SYN, Segment
from .streams import Budget, Half, Receiver, Stream

MAX_OPENING: Final = 65_536
"""Connections of which only the SYN was seen, and as many of which the answer to it was seen too."""

MAX_FLOWS: Final = 16_384
"""Connections that go on at a time; beyond it the one that has been silent for longest is ended."""

MAX_HELD_IN_ALL: Final = 64 * 1024 * 1024
"""Octets of all connections that wait for others; beyond it the one with the most gets no more time."""

MAX_CLOSING: Final = 256
"""Connections that both sides have ended and that still wait for packets: what comes late comes soon."""

MAX_OVER: Final = 16_384
"""Connections that are remembered after their end."""

_MASK: Final = 0xFFFFFFFF
_NEAR: Final = 1 << 24
"""Octets behind the end of a connection, and before it, that are taken for its own, sent again or late."""

_GREETING: Final = re.compile(rb"(?:\+OK|-ERR)[ \r\n]")
_GREETING_SIZE: Final = 5

Numbers = tuple[float, int, int | None]
"""Of a connection that opens: its first packet's time, and the numbers of both sides' first bytes."""


class Session(Receiver, Protocol):
    """Who hears a connection that speaks POP3."""

    def finish(self, reason: str) -> None:
        """End: nothing more will be heard. Does nothing the second time."""


class Sessions(Protocol):
    """Who makes sessions."""

    def begin(self, key: bytes, ts: float) -> Session:
        """Make the session of a connection; ``key`` has the client's address and port first."""


class Flow(Stream):
    """A connection in the table. ``key`` is the client's, ``ts`` the time of its first packet."""

    __slots__ = ("key", "mark", "ts")

    receiver: "Session | _Candidate"

    def __init__(
        self, receiver: "Session | _Candidate", budget: Budget, key: bytes, numbers: Numbers
    ) -> None:
        super().__init__(receiver, budget, numbers[1] if numbers[1] >= 0 else None, numbers[2])
        self.key = key
        self.ts = numbers[0]
        self.mark = 0

    def progress(self) -> int:
        """Give a number that grows with every byte."""
        return (self.client.next or 0) + (self.server.next or 0) + len(self.client.held)


class Flows:
    """The table of connections.

    ``forgotten`` counts sessions that were ended for want of room, ``unopened`` connections that had said
    nothing when they were forgotten for the same reason.
    """

    def __init__(self, sessions: Sessions, ports: Iterable[int]) -> None:
        """Look for POP3 on these ports of servers, and for its greeting on any other."""
        self.forgotten = 0
        self.unopened = 0
        self._sessions = sessions
        self._ports = frozenset(port.to_bytes(2, "big") for port in ports)
        self._budget = Budget()
        self._halves: dict[bytes, Half] = {}
        # Ordered ones, because to find the oldest of an ordinary one takes the longer the more were deleted.
        self._flows: OrderedDict[bytes, Flow] = OrderedDict()
        self._closing: OrderedDict[bytes, Flow] = OrderedDict()
        self._asked: OrderedDict[bytes, Numbers] = OrderedDict()  # a SYN was seen
        self._answered: OrderedDict[bytes, Numbers] = OrderedDict()  # and the SYN that answers it
        self._over: OrderedDict[bytes, int] = (
            OrderedDict()
        )  # a direction, and where its bytes ended

    def take(self, segments: Iterable[Segment]) -> None:
        """Take segments, in their order."""
        find = self._halves.get
        for ts, key, seq, ack, flags, data in segments:
            half = find(key)
            if half is not None:
                if flags & SYN:
                    if self._opens(half, seq, ack, flags, data, ts):
                        continue
                else:
                    stream = half.stream
                    stream.take(half, seq, ack, flags, data, ts)
                    if not stream.over:
                        if stream.waits:
                            self._waits(stream, flags)
                        continue
                    self._end(stream, "port_reused")
                    if not stream.replaced:
                        continue
            if data or flags & (SYN | FIN | RST):
                self._stranger(ts, key, seq, ack, flags, data)
            elif key in self._asked:
                self._acknowledged(key, seq, ack)

    def finish(self) -> None:
        """End all connections with the capture."""
        for flow in list(self._flows.values()):
            self._end(flow, "capture_end")

    @property
    def open(self) -> int:
        """The number of connections in the table that speak."""
        return len(self._flows)

    @property
    def held(self) -> int:
        """The octets that wait for others that come before them."""
        return self._budget.held

    # --- beginnings -------------------------------------------------------------------------------------

    def _opens(self, half: Half, seq: int, ack: int, flags: int, data: bytes, ts: float) -> bool:
        """Take a SYN of a connection that speaks, as one that comes late or a second time.

        Return False, and end the connection, if it is of another one with these addresses and ports.
        """
        first = (seq + 1) & _MASK
        if (flags & ACK and half.side is Side.CLIENT) or not half.is_begun_by(first):
            self._end(half.stream, "port_reused")
            return False
        half.stream.begin(half, first)
        self._feed(half, first, ack, flags & ~SYN, data, ts)
        return True

    def _stranger(self, ts: float, key: bytes, seq: int, ack: int, flags: int, data: bytes) -> None:
        """Take a segment of a connection that has said nothing so far."""
        if flags & SYN:
            self._open(ts, key, seq, ack, flags)
            if not data:
                return
            seq = (seq + 1) & _MASK
        numbers, client = self._opened(key)
        if flags & RST:
            self._forget_opening(client)
        elif numbers is None:
            if data:
                self._begin_in_the_middle(ts, key, seq, ack, flags, data)
        elif data or (numbers[2] is not None and client[-2:] in self._ports):
            # Who connects to a mail server and leaves without a word is a session, too.
            self._forget_opening(client)
            self._begin(client, numbers)
            self._feed(self._halves[key], seq, ack, flags, data, ts)

    def _open(self, ts: float, key: bytes, seq: int, ack: int, flags: int) -> None:
        first = (seq + 1) & _MASK
        if not flags & ACK:
            if self._asked.get(key, _NO_NUMBERS)[1] != first and (
                self._answered.get(key, _NO_NUMBERS)[1] != first
            ):
                self._answered.pop(key, None)
                _add(self, self._asked, key, (ts, first, None))
            return
        client = _reverse(key)
        asked = self._asked.pop(client, None)
        if asked is None or asked[1] != ack:
            known = self._answered.get(client)
            if known is not None and known[1] == ack:
                return
            asked = (ts, ack, None)
        _add(self, self._answered, client, (asked[0], ack, first))

    def _acknowledged(self, client: bytes, seq: int, ack: int) -> None:
        """Take a client's answer to a SYN that was not seen: it says which number comes next."""
        ts, first, _ = self._asked[client]
        if first == seq:
            del self._asked[client]
            _add(self, self._answered, client, (ts, first, ack))

    def _opened(self, key: bytes) -> tuple[Numbers | None, bytes]:
        """Return what is known of the connection that a direction belongs to, and its client's key."""
        reverse = _reverse(key)
        for client in (key, reverse):
            numbers = self._answered.get(client) or self._asked.get(client)
            if numbers is not None:
                return numbers, client
        return None, key

    def _forget_opening(self, client: bytes) -> None:
        self._asked.pop(client, None)
        self._answered.pop(client, None)

    def _begin_in_the_middle(
        self, ts: float, key: bytes, seq: int, ack: int, flags: int, data: bytes
    ) -> None:
        """Begin a connection whose SYNs were not seen, if its port says that it is POP3."""
        if key[-2:] in self._ports:
            client = key
        elif key[-4:-2] in self._ports:
            client = _reverse(key)
        else:
            return
        end = self._over.get(key)
        if end is not None and (seq - end + _NEAR) & _MASK < 2 * _NEAR:
            return
        self._begin(client, (ts, -1, None))
        self._feed(self._halves[key], seq, ack, flags, data, ts)

    def _begin(self, client: bytes, numbers: Numbers) -> None:
        while len(self._flows) >= MAX_FLOWS:
            self._make_room()
        known = client[-2:] in self._ports
        receiver: Session | _Candidate = (
            self._sessions.begin(client, numbers[0])
            if known
            else _Candidate(self._sessions, client, numbers[0])
        )
        flow = Flow(receiver, self._budget, client, numbers)
        if isinstance(receiver, _Candidate):
            receiver.flow = flow
        self._flows[client] = flow
        self._halves[client] = flow.client
        self._halves[_reverse(client)] = flow.server

    def _feed(self, half: Half, seq: int, ack: int, flags: int, data: bytes, ts: float) -> None:
        half.stream.take(half, seq, ack, flags, data, ts)
        if half.stream.over:
            self._end(half.stream, "capture_end")

    # --- ends -------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """End the connection that has been silent for longest, nearly: each gets a second chance."""
        while True:
            key, flow = next(iter(self._flows.items()))
            progress = flow.progress()
            if flow.mark == progress:
                self.forgotten += 1
                self._end(flow, "forgotten")
                return
            flow.mark = progress
            self._flows.move_to_end(key)

    def _waits(self, stream: Stream, flags: int) -> None:
        """Bound what all connections hold, and the time that one which has ended gets for what it lacks."""
        if self._budget.held > MAX_HELD_IN_ALL:
            most = max(self._flows.values(), key=lambda flow: flow.held)
            most.flush()
        if not (flags & FIN and stream.closing):
            return
        flow = cast(Flow, stream)
        self._closing[flow.key] = flow
        if len(self._closing) > MAX_CLOSING:
            self._end(next(iter(self._closing.values())), "forgotten")

    def _end(self, stream: Stream, reason: str) -> None:
        """Take a connection out of the table; ``reason`` says why, if it did not end itself."""
        flow = cast(Flow, stream)
        if self._flows.pop(flow.key, None) is None:
            return
        self._closing.pop(flow.key, None)
        flow.flush()
        flow.receiver.finish(reason)
        reverse = _reverse(flow.key)
        for direction in (flow.key, reverse):
            self._halves.pop(direction, None)
        if flow.key[-2:] in self._ports:
            for key, half in ((flow.key, flow.client), (reverse, flow.server)):
                self._over.pop(key, None)
                if half.next is not None:
                    self._over[key] = half.next & _MASK
            while len(self._over) > 2 * MAX_OVER:
                self._over.popitem(last=False)


class _Candidate:
    """A connection to some port: it is POP3 if the responder speaks first and greets."""

    def __init__(self, sessions: Sessions, key: bytes, ts: float) -> None:
        self.flow: Flow | None = None
        self._sessions = sessions
        self._key = key
        self._ts = ts
        self._head = b""

    def data(self, side: Side, data: bytes, ts: float) -> None:
        assert self.flow is not None
        self._head += data
        if side is Side.SERVER and _GREETING.match(self._head):
            session = self._sessions.begin(self._key, self._ts)
            self.flow.receiver = session
            session.data(side, self._head, ts)
        elif side is Side.CLIENT or len(self._head) >= _GREETING_SIZE:
            self.flow.abandon()

    def gap(self, side: Side, ts: float) -> None:
        assert self.flow is not None
        self.flow.abandon()

    def ended(self, side: Side, ts: float) -> None:
        pass

    def lost(self, side: Side, ts: float) -> None:
        pass

    def finish(self, reason: str) -> None:
        pass


_NO_NUMBERS: Final[Numbers] = (0.0, -1, None)


def _add(flows: Flows, table: OrderedDict[bytes, Numbers], key: bytes, numbers: Numbers) -> None:
    """Add to a table of connections that open, and forget the oldest if it is full."""
    if len(table) >= MAX_OPENING:
        table.popitem(last=False)
        flows.unopened += 1
    table[key] = numbers


def _reverse(key: bytes) -> bytes:
    """Turn a direction's key into the other direction's."""
    size = (len(key) - 4) // 2
    return key[size:-4] + key[:size] + key[-2:] + key[-4:-2]
