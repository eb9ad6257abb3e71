"""Makes captures: what two sides say becomes TCP segments, IP packets, frames and files; mends nothing."""

import gzip
import random
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pop3proxy.analyzer.events import Side

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
START = 1_700_000_000
STEP = 1e-3

C, S = Side.CLIENT, Side.SERVER


class Said(NamedTuple):
    """What one side says in a run; None for the end of its bytes."""

    side: Side
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Ends:
    """Addresses and ports of a connection."""

    client: str = "192.0.2.1"
    client_port: int = 40000
    server: str = "198.51.100.1"
    server_port: int = 110


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment, before it has addresses."""

    side: Side
    seq: int
    ack: int
    flags: int
    data: bytes = b""


Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def in_pieces_of(size: int) -> Cut:
    return lambda data: (data[at : at + size] for at in range(0, len(data), size))


def cut_by(source: random.Random) -> Cut:
    """Cut a run at as many places as chance will have it, most often at few."""

    def cut(data: bytes) -> Iterable[bytes]:
        most = min(source.choice((1, 3, 10)), len(data) - 1)
        cuts = sorted(source.sample(range(1, len(data)), most)) if most > 0 else []
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    return cut


# What fits into an IP packet.
_SENT = in_pieces_of(60_000)


def segments(
    runs: Sequence[Said], cut: Cut = whole, isn: tuple[int, int] = (1000, 5000)
) -> list[Segment]:
    """Say runs over TCP: a handshake, then each piece acknowledging all that was said before."""
    due = {C: isn[0], S: isn[1]}
    out = [Segment(C, due[C], 0, SYN), Segment(S, due[S], due[C] + 1, SYN | ACK)]
    due[C] += 1
    due[S] += 1
    out.append(Segment(C, due[C], due[S], ACK))
    for side, data in runs:
        other = S if side is C else C
        pieces = [b""] if data is None else (small for piece in cut(data) for small in _SENT(piece))
        for piece in pieces:
            flags = ACK | (FIN if data is None else PSH)
            out.append(Segment(side, due[side], due[other], flags, piece))
            due[side] += len(piece) + (data is None)
    return [replace(each, seq=each.seq % 2**32, ack=each.ack % 2**32) for each in out]


def acknowledged(what: Iterable[Segment]) -> list[Segment]:
    """Add the empty segment by which the other side acknowledges each."""
    out: list[Segment] = []
    for each in what:
        out.append(each)
        if each.data:
            other = S if each.side is C else C
            out.append(Segment(other, each.ack, (each.seq + len(each.data)) % 2**32, ACK))
    return out


# --- packets --------------------------------------------------------------------------------------------


def tcp(segment: Segment, ends: Ends = Ends()) -> bytes:
    ports = (ends.client_port, ends.server_port)
    if segment.side is S:
        ports = ports[::-1]
    checksum = 0xBAD
    return (
        struct.pack(
            "!HHIIBBHHH", *ports, segment.seq, segment.ack, 0x80, segment.flags, 65535, checksum, 0
        )
        + b"\x01\x01\x08\x0a"
        + bytes(8)
        + segment.data
    )


def _addresses(segment: Segment, ends: Ends, family: int) -> bytes:
    pair = [socket.inet_pton(family, host) for host in (ends.client, ends.server)]
    return b"".join(pair if segment.side is C else pair[::-1])


def ipv4(
    segment: Segment, ends: Ends = Ends(), options: bytes = b"", size: int | None = None
) -> bytes:
    payload = tcp(segment, ends)
    return (
        _ipv4_header(segment, ends, len(payload) if size is None else size, 0, 0, options) + payload
    )


def _ipv4_header(
    segment: Segment, ends: Ends, size: int, number: int, fragment: int, options: bytes = b""
) -> bytes:
    length = 20 + len(options)
    total = length + size if size >= 0 else 0
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, total, number, fragment, 64, 6, 0xBAD)
    return head + _addresses(segment, ends, socket.AF_INET) + options


def ipv4_fragments(
    segment: Segment, number: int, size: int = 16, ends: Ends = Ends()
) -> list[bytes]:
    """Cut a packet into fragments of ``size`` octets, a multiple of eight."""
    payload = tcp(segment, ends)
    out = []
    for at in range(0, len(payload), size):
        piece = payload[at : at + size]
        more = 0x2000 if at + size < len(payload) else 0
        head = _ipv4_header(segment, ends, len(piece), number, at // 8 | more)
        out.append(head + piece)
    return out


ENDS6 = Ends("2001:db8::1", 40000, "2001:db8::2", 110)


def ipv6(segment: Segment, ends: Ends = ENDS6, extended: bool = False) -> bytes:
    payload = tcp(segment, ends)
    protocol = 6
    if extended:
        # Hop-by-hop options, destination options of 16 octets, authentication of 24.
        payload = bytes([6, 4]) + bytes(22) + payload
        payload = bytes([51, 1]) + bytes(14) + payload
        payload = bytes([60, 0]) + bytes(6) + payload
        protocol = 0
    return _ipv6_header(segment, ends, len(payload), protocol) + payload


def _ipv6_header(segment: Segment, ends: Ends, size: int, protocol: int) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, size, protocol, 64)
    return head + _addresses(segment, ends, socket.AF_INET6)


def ipv6_fragments(
    segment: Segment, number: int, size: int = 16, ends: Ends = ENDS6
) -> list[bytes]:
    payload = tcp(segment, ends)
    out = []
    for at in range(0, len(payload), size):
        piece = payload[at : at + size]
        more = int(at + size < len(payload))
        piece = struct.pack("!BBHI", 6, 0, at | more, number) + piece
        out.append(_ipv6_header(segment, ends, len(piece), 44) + piece)
    return out


# --- frames ---------------------------------------------------------------------------------------------


def _ethertype(packet: bytes) -> bytes:
    return b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"


def ethernet(packet: bytes) -> bytes:
    # Short frames are padded; the padding is no data.
    return (bytes(12) + _ethertype(packet) + packet).ljust(60, b"\xee")


def vlan(packet: bytes) -> bytes:
    return bytes(12) + b"\x81\x00\x00\x07" + _ethertype(packet) + packet


def stacked_vlans(packet: bytes) -> bytes:
    return bytes(12) + b"\x88\xa8\x00\x07\x81\x00\x00\x08" + _ethertype(packet) + packet


def null(packet: bytes) -> bytes:
    return (2).to_bytes(4, "little") + packet


def null_of_the_other_order(packet: bytes) -> bytes:
    return (30).to_bytes(4, "big") + packet


def raw(packet: bytes) -> bytes:
    return packet


def sll(packet: bytes) -> bytes:
    return bytes(14) + _ethertype(packet) + packet


def sll_vlan(packet: bytes) -> bytes:
    return bytes(14) + b"\x81\x00\x00\x07" + _ethertype(packet) + packet


def sll2(packet: bytes) -> bytes:
    return _ethertype(packet) + bytes(18) + packet


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "ethernet": (1, ethernet),
    "vlan": (1, vlan),
    "stacked vlans": (1, stacked_vlans),
    "null": (0, null),
    "null of the other order": (0, null_of_the_other_order),
    "loop": (108, null_of_the_other_order),
    "raw": (101, raw),
    "raw of BSD": (12, raw),
    "ipv4 or ipv6": (228, raw),
    "sll": (113, sll),
    "sll with a vlan": (113, sll_vlan),
    "sll2": (276, sll2),
}


def frames(what: Iterable[Segment], ends: Ends = Ends()) -> list[bytes]:
    """Give the Ethernet frames of segments."""
    packet = ipv6 if ":" in ends.client else ipv4
    return [ethernet(packet(each, ends)) for each in what]


# --- files ----------------------------------------------------------------------------------------------

Times = Callable[[int], int]
"""From a frame's number to its time, in nanoseconds."""


def evenly(number: int) -> int:
    return START * 10**9 + number * 1_000_000


def pcap(
    what: Iterable[bytes],
    link: int = 1,
    order: str = "<",
    nano: bool = False,
    times: Times = evenly,
    snap: int = 262144,
) -> bytes:
    """Write a pcap file."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap, link)]
    for number, frame in enumerate(what):
        seconds, rest = divmod(times(number), 10**9)
        fraction = rest if nano else rest // 1000
        kept = frame[:snap]
        out.append(struct.pack(f"{order}IIII", seconds, fraction, len(kept), len(frame)) + kept)
    return b"".join(out)


def _block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def pcapng(
    what: Iterable[bytes],
    link: int = 1,
    order: str = "<",
    resolution: int | None = None,
    times: Times = evenly,
    kind: int = 6,
) -> bytes:
    """Write a pcapng file; ``resolution`` is that of the times, ``kind`` that of the packets' blocks."""
    section = struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)
    options = b"" if resolution is None else struct.pack(f"{order}HHBxxx", 9, 1, resolution)
    interface = struct.pack(f"{order}HHI", link, 0, 0) + options + bytes(4)
    power = 6 if resolution is None else resolution & 0x7F
    base = 2 if resolution is not None and resolution & 0x80 else 10
    out = [_block(order, 0x0A0D0D0A, section), _block(order, 1, interface)]
    # What is not known is passed over: here a custom block.
    out.append(_block(order, 0xBAD, b"\0\0\0\0custom"))
    for number, frame in enumerate(what):
        units = times(number) * base**power // 10**9
        head = struct.pack(f"{order}IIII", units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
        if kind == 6:
            body = struct.pack(f"{order}I", 0) + head
        elif kind == 2:
            body = struct.pack(f"{order}HH", 0, 0) + head
        else:
            body = struct.pack(f"{order}I", len(frame))
        out.append(_block(order, kind, body + frame))
    return b"".join(out)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, 1)
