"""Puts one TCP connection's segments in order: two byte streams, and what is missing of them; reads no POP3.

The rules of this file:

- Bytes are handed on as soon as they are next in their stream, in the order of the packets.
- A segment that acknowledges bytes of the peer which were not seen yet waits for them: its sender had them
  in hand. So packets that a capture has in the wrong order come out in the right one, of both directions.
- Of bytes that come twice the first copy counts.
- What never comes is a gap. Bytes that the peer acknowledged will not be sent again, so only packets in the
  wrong order are waited for (``REORDERED``); others may be (``MAX_HELD``, ``MAX_HELD_OCTETS``).
- No decision depends on the time stamps: clocks jump.

Sequence numbers (RFC 9293 section 3.4) are kept unwrapped, as numbers that only grow.
"""

from bisect import bisect_right
from typing import Final, Protocol

from ..analyzer.events import Side
from .packets import ACK, FIN, RST, SYN

REORDERED: Final = 64
"""Packets of a connection that are waited for bytes which the peer has acknowledged."""

MAX_HELD: Final = 1024
"""Segments of a connection that are kept behind a hole that the sender may still fill."""

MAX_HELD_OCTETS: Final = 4 * 1024 * 1024
"""Octets of a connection that are kept so."""

FAR: Final = 1 << 24
"""Octets between what is expected and what comes, beyond which it may be of another connection."""

_FEW: Final = MAX_HELD_OCTETS >> 16
"""Segments that cannot be too many octets together, since each fits into a packet."""

_WRAP: Final = 1 << 32
_HALF: Final = 1 << 31
_MASK: Final = _WRAP - 1
_CONTROL: Final = FIN | SYN | RST


class Receiver(Protocol):
    """Who hears what a connection said; ``ts`` is the time of the packet that said it, in seconds."""

    def data(self, side: Side, data: bytes, ts: float) -> None:
        """Take the next bytes of a side."""

    def gap(self, side: Side, ts: float) -> None:
        """Take it that bytes of a side are missing here."""

    def ended(self, side: Side, ts: float) -> None:
        """Take the end of a side's bytes (FIN)."""

    def lost(self, side: Side, ts: float) -> None:
        """Take it that a side has reset the connection (RST)."""


class Budget:
    """What all connections together keep, in octets."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class _Held:
    """A segment that waits: where it begins and ends, what its sender had received, and when it came."""

    __slots__ = ("ack", "data", "end", "flags", "number", "start", "ts")

    def __init__(
        self, start: int, data: bytes, ack: int | None, flags: int, ts: float, number: int
    ) -> None:
        self.start = start
        self.data = data
        self.end = start + len(data)
        self.ack = ack
        self.flags = flags
        self.ts = ts
        self.number = number


class Half:
    """One direction of a connection.

    ``next`` is the number of the next byte, None as long as the beginning was not seen. ``peer`` is the other
    direction.
    """

    __slots__ = (
        "acked",
        "acked_at",
        "begun",
        "held",
        "next",
        "origin",
        "over",
        "peer",
        "side",
        "stream",
    )

    peer: "Half"

    def __init__(self, stream: "Stream", side: Side, origin: int | None) -> None:
        self.stream = stream
        self.side = side
        self.next = origin
        self.origin = origin  # the number of the first byte that is known of
        self.begun = origin is not None  # nothing of its beginning is missing
        self.held: list[_Held] = []  # by their beginnings; no byte is in two of them
        self.acked = -1  # what the peer has acknowledged beyond ``next``
        self.acked_at = 0  # the number of the packet that did so
        self.over = False  # its end was handed on

    def at(self, number: int) -> int:
        """Unwrap a number: the one of its possible values that is nearest to what is expected."""
        near = self.next if self.next is not None else self.origin
        if near is None:
            # Far from 0, so that what comes before it has numbers too.
            self.origin = near = number + _WRAP
        return near + ((number - near + _HALF) & _MASK) - _HALF

    def distance(self, number: int) -> int:
        """Tell how far a number is from what is expected, in octets; 0 if nothing is."""
        near = self.next if self.next is not None else self.origin
        return 0 if near is None else abs(self.at(number) - near)

    def is_begun_by(self, first: int) -> bool:
        """Whether the first byte may have this number, as a SYN says that comes late, or twice."""
        if self.origin is None:
            return True
        near = (first - self.origin + _HALF) & _MASK
        return near == _HALF if self.begun else _HALF - FAR < near <= _HALF


class Stream:
    """A connection: takes segments, tells the receiver.

    ``over`` when nothing more can come of it, ``replaced`` if that is because a segment was of another one,
    which has its addresses and ports.
    """

    __slots__ = ("_budget", "_count", "client", "over", "receiver", "replaced", "server", "waits")

    def __init__(
        self,
        receiver: Receiver,
        budget: Budget,
        client_next: int | None = None,
        server_next: int | None = None,
    ) -> None:
        """Begin with the numbers of the first bytes, as far as they are known from the SYNs."""
        self.receiver = receiver
        self.over = self.replaced = False
        self.waits = False  # something is held, or known to be missing
        self.client = Half(self, Side.CLIENT, client_next)
        self.server = Half(self, Side.SERVER, server_next)
        self.client.peer, self.server.peer = self.server, self.client
        self._budget = budget
        self._count = 0

    def take(self, half: Half, seq: int, ack: int, flags: int, data: bytes, ts: float) -> None:
        """Take a segment of one direction."""
        if not (self.waits or flags & _CONTROL):
            due, theirs = half.next, half.peer.next
            if (
                due is not None
                and theirs is not None
                and seq == due & _MASK
                and (theirs - ack) & _MASK < _HALF
            ):
                if data:
                    half.next = due + len(data)
                    self.receiver.data(half.side, data, ts)
                return
        if not self.over:
            self._take(half, seq, ack, flags, data, ts)

    def begin(self, half: Half, seq: int) -> None:
        """Take a SYN: the first byte of a direction has this number. It may come late."""
        if half.next is None:
            half.next = half.origin = half.at(seq)
            half.begun = True
            self._settle()

    def abandon(self) -> None:
        """Take nothing more, and tell nothing."""
        self.over = True
        self._clear()

    @property
    def held(self) -> int:
        """The octets that wait for others."""
        return sum(len(each.data) for half in (self.client, self.server) for each in half.held)

    @property
    def closing(self) -> bool:
        """Whether both sides have ended, and only what is missing keeps that from being told."""
        return all(
            half.over or (half.held and half.held[-1].flags & FIN)
            for half in (self.client, self.server)
        )

    def flush(self) -> None:
        """Hand on all that is held, with gaps for what is missing: nothing more will come."""
        while not self.over and (self.client.held or self.server.held):
            self._skip()
        self._clear()

    def _is_far(self, half: Half, seq: int, ack: int) -> bool:
        """Whether a segment fits so little to what is expected that it is of another connection."""
        return half.distance(seq) > FAR and half.peer.distance(ack) > FAR

    # --- segments that do not simply follow --------------------------------------------------------------

    def _take(self, half: Half, seq: int, ack: int, flags: int, data: bytes, ts: float) -> None:
        self._count += 1
        if data and self._is_far(half, seq, ack):
            self.flush()
            self.over = self.replaced = True
            return
        start = half.at(seq)
        acked = None
        if flags & ACK:
            acked = half.peer.at(ack)
            self._acknowledge(half.peer, acked)
        if flags & RST:
            # What a reset carries says why, to people.
            data = b""
            if not self._may_reset(half, start):
                flags &= ~RST
        if data or flags & (FIN | RST):
            self._hold(half, _Held(start, data, acked, flags, ts, self._count))
        self._settle()

    def _acknowledge(self, half: Half, acked: int) -> None:
        if acked > half.acked and (half.next is None or acked > half.next):
            if half.acked < 0 or (half.next is not None and half.acked <= half.next):
                half.acked_at = self._count
            half.acked = acked

    def _may_reset(self, half: Half, start: int) -> bool:
        """A reset counts at the place that its sender has reached (RFC 9293 section 3.10.7.4)."""
        return half.next is None or start >= half.next

    def _hold(self, half: Half, segment: _Held) -> None:
        """Keep what of a segment is not there yet, as pieces that fill the holes between those held."""
        held = half.held
        at, end = segment.start, segment.end
        if half.next is not None and at < half.next:
            at = half.next
        place = bisect_right(held, at, key=_start)
        if place and held[place - 1].end > at:
            at = held[place - 1].end
        while place < len(held) and at < end:
            other = held[place]
            if other.start >= end:
                break
            if other.start > at:
                self._insert(half, place, segment, at, other.start)
                place += 1
            at = max(at, other.end)
            place += 1
        if at < end:
            self._insert(half, place, segment, at, end)
        elif segment.flags & (FIN | RST) and (half.next is None or segment.end >= half.next):
            self._insert(half, bisect_right(held, segment.end, key=_start), segment, end, end)

    def _insert(self, half: Half, place: int, segment: _Held, start: int, end: int) -> None:
        data = segment.data
        if end - start < len(data):
            data = data[start - segment.start : end - segment.start]
        flags = segment.flags if end == segment.end else 0
        piece = _Held(start, data, segment.ack, flags, segment.ts, segment.number)
        half.held.insert(place, piece)
        self._budget.held += len(data)
        self.waits = True

    # --- handing on --------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Hand on what can be, and give up what has been waited for long enough."""
        while not self.over:
            self._hand_on()
            if not self._overdue():
                break
            self._skip()
        if not (self.client.held or self.server.held):
            self.waits = self._is_missing(self.client) or self._is_missing(self.server)

    def _is_missing(self, half: Half) -> bool:
        return half.next is not None and half.acked > half.next

    def _hand_on(self) -> None:
        """Hand on what is next, in the order of the packets as far as both directions allow it."""
        client, server = self.client, self.server
        while not self.over:
            ready = client if self._is_ready(client) else None
            if self._is_ready(server) and (
                ready is None or server.held[0].number < client.held[0].number
            ):
                ready = server
            if ready is None:
                return
            self._hand(ready, ready.held.pop(0))

    def _is_ready(self, half: Half) -> bool:
        if not half.held or half.next is None or half.held[0].start > half.next:
            return False
        return not self._is_ahead(half.held[0], half.peer)

    def _is_ahead(self, segment: _Held, peer: Half) -> bool:
        """Whether the sender of a segment had bytes of the peer in hand that were not handed on yet."""
        return segment.ack is not None and (peer.next is None or segment.ack > peer.next)

    def _hand(self, half: Half, segment: _Held) -> None:
        self._budget.held -= len(segment.data)
        assert half.next is not None
        data = segment.data
        if segment.start < half.next:
            data = data[half.next - segment.start :]
        if data:
            half.next += len(data)
            self.receiver.data(half.side, data, segment.ts)
        if segment.flags & RST:
            self.over = True
            self.receiver.lost(half.side, segment.ts)
        elif segment.flags & FIN and not half.over:
            half.over = True
            half.next += 1
            self.over = half.peer.over
            self.receiver.ended(half.side, segment.ts)
        if self.over:
            self._clear()

    # --- gaps --------------------------------------------------------------------------------------------

    def _overdue(self) -> bool:
        client, server = self.client, self.server
        count = len(client.held) + len(server.held)
        if not count:
            return False
        if count > MAX_HELD or (count > _FEW and self.held > MAX_HELD_OCTETS):
            return True
        oldest = self._count - REORDERED
        for half in (client, server):
            if half.held and half.next is None and half.held[0].number <= oldest:
                return True
            if self._is_missing(half) and half.acked_at <= oldest:
                return True
            if (
                half.held
                and self._is_ahead(half.held[0], half.peer)
                and half.held[0].number <= oldest
            ):
                return True
        return False

    def _skip(self) -> None:
        """Give up the bytes that keep the oldest of what is held from being handed on."""
        half = self._first()
        segment = half.held[0]
        if half.next is None:
            self._skip_to(half, segment.start, segment.ts)
        elif self._is_ahead(segment, half.peer) and not self._is_there(half.peer):
            assert segment.ack is not None
            self._skip_to(half.peer, segment.ack, segment.ts)
        elif segment.start > half.next:
            self._skip_to(half, segment.start, segment.ts)
        else:
            # Each direction waits for the other: what was sent again acknowledges more than it did at first.
            self._hand(half, half.held.pop(0))
        self._hand_on()

    def _is_there(self, half: Half) -> bool:
        """Whether the next bytes of a direction are held."""
        return bool(half.held) and half.next is not None and half.held[0].start <= half.next

    def _first(self) -> Half:
        """Return the direction whose first held segment is to be handed on first.

        One whose sender lacked nothing of the other direction comes before one that waits for it.
        """
        client, server = self.client, self.server
        if not (client.held and server.held):
            return client if client.held else server
        client_waits = self._is_ahead(client.held[0], server)
        if client_waits != self._is_ahead(server.held[0], client):
            return server if client_waits else client
        return client if client.held[0].number <= server.held[0].number else server

    def _skip_to(self, half: Half, number: int, ts: float) -> None:
        """Go on at a number, but not beyond what is held."""
        if half.held:
            number = min(number, half.held[0].start)
        if half.next is not None and number <= half.next:
            return
        half.next = number
        self.receiver.gap(half.side, ts)

    def _clear(self) -> None:
        """Let go of what is held."""
        for half in (self.client, self.server):
            self._budget.held -= sum(len(each.data) for each in half.held)
            half.held.clear()
        self.waits = False


def _start(segment: _Held) -> int:
    return segment.start
