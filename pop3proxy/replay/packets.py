"""Decodes frames into TCP segments: link layers, IPv4 and IPv6, fragments; what a segment means is not asked.

Checksums are not looked at: network cards compute them after the packets were captured (offload). Lengths
are those of the IP header, so that padding and checksums behind it are no data; where that length is 0 the
frame's counts (segmentation offload).
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from .captures import Frame

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

Segment = tuple[float, bytes, int, int, int, bytes]
"""Time, key, sequence number, acknowledged number, flags, payload.

The key is the two addresses and the two ports as they stand in the packet, the sender's first.
"""

MAX_DATAGRAMS: Final = 1024
"""Fragmented datagrams that are put together at a time; each has 64 KiB at the most."""

MAX_PIECES: Final = 256
"""Pieces of one datagram that are kept apart; the smallest that a link may cut are some 120."""

_TCP: Final = 6
_FRAGMENT: Final = 44
# Hop-by-hop options, routing, destination options, mobility, HIP, Shim6: their length is in units of eight
# octets less the first (RFC 8200 section 4.2).
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140})
_AUTHENTICATION: Final = 51
_MOST_HEADERS: Final = 16

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLANS: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200, 0x9300})
_MOST_VLANS: Final = 8

_ETHERNET: Final = 1
_RAW: Final = frozenset({12, 14, 101, 228, 229})
_NULL: Final = 0
_LOOP: Final = 108
_SLL: Final = 113
_SLL2: Final = 276

# IPv4 without options in Ethernet: the IP length, the fragment field, the protocol, both addresses and
# ports in one, the numbers, the data offset, the flags.
_PLAIN: Final = struct.Struct("!16xH2xHxB2x12sIIBB").unpack_from
_TCP_HEADER: Final = struct.Struct("!IIBB").unpack_from


class Decoder:
    """Yields the TCP segments of frames.

    ``frames`` and ``segments`` count; ``unknown_links`` counts the frames of link types that are not known,
    ``lost_fragments`` the datagrams of which a fragment never came.
    """

    def __init__(self) -> None:
        """Begin with no fragment in hand."""
        self.frames = 0
        self.segments = 0
        self.unknown_links: Counter[int] = Counter()
        self._fragments = _Fragments()

    @property
    def lost_fragments(self) -> int:
        """Datagrams that were never complete."""
        return self._fragments.lost + len(self._fragments.waiting)

    def decode(self, frames: Iterable[Frame]) -> Iterator[Segment]:
        """Yield the segments of frames, in their order."""
        plain = _PLAIN
        for ts, link, frame in frames:
            self.frames += 1
            if link == _ETHERNET and frame[12:15] == b"\x08\x00\x45" and len(frame) >= 54:
                total, fragment, protocol, key, seq, ack, offset, flags = plain(frame)
                if protocol != _TCP:
                    continue
                if not fragment & 0x3FFF and total and offset >= 0x50:
                    start = 34 + (offset >> 4) * 4
                    yield ts, key, seq, ack, flags, frame[start : 14 + total]
                    self.segments += 1
                    continue
            segment = self._decode(ts, link, frame)
            if segment is not None:
                self.segments += 1
                yield segment

    def _decode(self, ts: float, link: int, frame: bytes) -> Segment | None:
        at, protocol = self._network(link, frame)
        if protocol == _IPV4:
            return self._ipv4(ts, frame, at)
        if protocol == _IPV6:
            return self._ipv6(ts, frame, at)
        return None

    # --- links ------------------------------------------------------------------------------------------

    def _network(self, link: int, frame: bytes) -> tuple[int, int]:
        """Return where the network layer begins and which it is (an Ethertype)."""
        if link == _ETHERNET:
            return _vlans(frame, 12)
        if link in _RAW:
            return 0, _version(frame, 0)
        if link in (_NULL, _LOOP):
            # The number of the address family depends on the system, and the packet says itself what it is.
            return 4, _version(frame, 4)
        if link == _SLL:
            return _vlans(frame, 14)
        if link == _SLL2:
            return _vlans(frame, 0, 20)
        self.unknown_links[link] += 1
        return 0, 0

    # --- IP ---------------------------------------------------------------------------------------------

    def _ipv4(self, ts: float, frame: bytes, at: int) -> Segment | None:
        """Read an IPv4 header (RFC 791)."""
        if len(frame) < at + 20 or frame[at] >> 4 != 4 or frame[at + 9] != _TCP:
            return None
        header = (frame[at] & 15) * 4
        total, number, fragment = struct.unpack_from("!HHH", frame, at + 2)
        end = min(at + total, len(frame)) if total else len(frame)
        addresses = frame[at + 12 : at + 20]
        if header < 20:
            return None
        payload = frame[at + header : end]
        if not fragment & 0x3FFF:
            return _tcp(ts, addresses, payload)
        if total and at + total > len(frame):
            # Of a fragment that was not captured whole the datagram cannot be put together.
            return None
        whole = self._fragments.add(
            addresses + number.to_bytes(4, "big"),
            (fragment & 0x1FFF) * 8,
            payload,
            bool(fragment & 0x2000),
        )
        return None if whole is None else _tcp(ts, addresses, whole)

    def _ipv6(self, ts: float, frame: bytes, at: int) -> Segment | None:
        """Read an IPv6 header and those that extend it (RFC 8200 section 4)."""
        if len(frame) < at + 40 or frame[at] >> 4 != 6:
            return None
        length, protocol = struct.unpack_from("!HB", frame, at + 4)
        addresses = frame[at + 8 : at + 40]
        whole = not length or at + 40 + length <= len(frame)
        end = at + 40 + length if length and whole else len(frame)
        data, at = frame[:end], at + 40
        for _ in range(_MOST_HEADERS):
            if protocol == _TCP:
                return _tcp(ts, addresses, data[at:])
            if len(data) < at + 8:
                return None
            if protocol == _FRAGMENT:
                protocol, offset, number = struct.unpack_from("!BxH4s", data, at)
                at += 8
                if offset & 0xFFF9:
                    piece = data[at:]
                    joined = whole and self._fragments.add(
                        addresses + number, offset & 0xFFF8, piece, bool(offset & 1)
                    )
                    if not joined:
                        return None
                    data, at = joined, 0
            elif protocol in _EXTENSIONS:
                protocol, size = data[at], data[at + 1]
                at += 8 + size * 8
            elif protocol == _AUTHENTICATION:
                # Its length is in units of four octets less two (RFC 4302 section 2.2).
                protocol, size = data[at], data[at + 1]
                at += 8 + size * 4
            else:
                return None
        return None


def _vlans(frame: bytes, at: int, start: int = 0) -> tuple[int, int]:
    """Read a protocol number and step over VLAN tags (IEEE 802.1Q, stacked by 802.1ad).

    ``at`` is where the number stands, ``start`` where what it names begins, if not right behind it.
    """
    start = start or at + 2
    protocol = int.from_bytes(frame[at : at + 2], "big")
    for _ in range(_MOST_VLANS):
        if protocol not in _VLANS:
            break
        protocol = int.from_bytes(frame[start + 2 : start + 4], "big")
        start += 4
    return start, protocol


def _version(frame: bytes, at: int) -> int:
    version = frame[at] >> 4 if len(frame) > at else 0
    return {4: _IPV4, 6: _IPV6}.get(version, 0)


def _tcp(ts: float, addresses: bytes, data: bytes) -> Segment | None:
    """Read a TCP header (RFC 9293 section 3.1)."""
    if len(data) < 20:
        return None
    seq, ack, offset, flags = _TCP_HEADER(data, 4)
    if offset < 0x50:
        return None
    return ts, addresses + data[:4], seq, ack, flags, data[(offset >> 4) * 4 :]


class _Datagram:
    """The fragments of one datagram that have come, by their offsets, none over another."""

    __slots__ = ("end", "pieces")

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.end = -1  # where the last one ends


class _Fragments:
    """Puts IP datagrams together (RFC 791, RFC 8200 section 4.5); of what overlaps the first counts."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[bytes, _Datagram] = OrderedDict()
        self.lost = 0

    def add(self, key: bytes, offset: int, piece: bytes, more: bool) -> bytes | None:
        """Take a fragment; return the datagram that it completes."""
        datagram = self.waiting.get(key)
        if datagram is None:
            if len(self.waiting) >= MAX_DATAGRAMS:
                self.waiting.popitem(last=False)
                self.lost += 1
            datagram = self.waiting[key] = _Datagram()
        if not more and datagram.end < 0:
            datagram.end = offset + len(piece)
        if offset + len(piece) > 65_535 or len(datagram.pieces) >= MAX_PIECES:
            return None
        _lay(datagram.pieces, offset, piece)
        whole = _joined(datagram)
        if whole is not None:
            del self.waiting[key]
        return whole


def _lay(pieces: dict[int, bytes], offset: int, piece: bytes) -> None:
    """Lay a fragment where nothing lies yet."""
    end = offset + len(piece)
    at = offset
    for begin in sorted(pieces):
        stop = begin + len(pieces[begin])
        if stop <= at:
            continue
        if begin >= end:
            break
        if begin > at:
            pieces[at] = piece[at - offset : begin - offset]
        at = stop
    if at < end:
        pieces[at] = piece[at - offset :]


def _joined(datagram: _Datagram) -> bytes | None:
    """Return the whole datagram, if there is no hole in it."""
    if datagram.end < 0 or sum(map(len, datagram.pieces.values())) < datagram.end:
        return None
    whole = b"".join(datagram.pieces[begin] for begin in sorted(datagram.pieces))
    return whole[: datagram.end]
