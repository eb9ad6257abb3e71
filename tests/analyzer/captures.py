"""Reads what TCP connections of a small, clean capture said; no gap, fragment or reordering is mended."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pop3proxy.analyzer.events import Side

# Link types: BSD loopback and Ethernet; the size of the header before the IP packet.
_LINK_HEADERS = {0: 4, 1: 14}
_IPV4, _TCP = 4, 6
_FIN, _SYN, _RST = 0x01, 0x02, 0x04


class _Packet(NamedTuple):
    ts: float
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    flags: int
    payload: bytes


class Piece(NamedTuple):
    """Bytes that one side sent at ``ts``; none for the end of its stream."""

    ts: float
    side: Side
    data: bytes


@dataclass(slots=True)
class Flow:
    """One TCP connection; the client is who sent the first SYN."""

    client: tuple[str, int]
    server: tuple[str, int]
    pieces: list[Piece] = field(default_factory=list)


def _packets(path: Path) -> Iterator[_Packet]:
    content = path.read_bytes()
    magic, link_type = struct.unpack_from("<I16xI", content)
    assert magic == 0xA1B2C3D4, "a little-endian pcap of microseconds"
    position = 24
    while position < len(content):
        seconds, microseconds, size = struct.unpack_from("<III", content, position)
        position += 16
        frame = content[position : position + size]
        position += size
        packet = _tcp(seconds + microseconds / 1e6, frame[_LINK_HEADERS[link_type] :])
        if packet is not None:
            yield packet


def _tcp(ts: float, packet: bytes) -> _Packet | None:
    if packet[0] >> 4 != _IPV4 or packet[9] != _TCP:
        return None
    total = int.from_bytes(packet[2:4], "big")
    source, target = (".".join(map(str, packet[at : at + 4])) for at in (12, 16))
    segment = packet[(packet[0] & 15) * 4 : total]
    source_port, target_port, sequence = struct.unpack_from("!HHI", segment)
    payload = segment[(segment[12] >> 4) * 4 :]
    return _Packet(ts, (source, source_port), (target, target_port), sequence, segment[13], payload)


def read_flows(path: Path) -> list[Flow]:
    """Return the connections in which anything was said, in the order of their beginnings."""
    flows: list[Flow] = []
    open_flows: dict[frozenset[tuple[str, int]], Flow] = {}
    due: dict[tuple[frozenset[tuple[str, int]], Side], int] = {}
    for packet in _packets(path):
        key = frozenset({packet.source, packet.target})
        if packet.flags & _SYN:
            if key not in open_flows or packet.source == open_flows[key].client:
                open_flows[key] = Flow(packet.source, packet.target)
                flows.append(open_flows[key])
            side = _side(open_flows[key], packet)
            due[key, side] = packet.sequence + 1
            continue
        flow = open_flows[key]
        side = _side(flow, packet)
        if packet.payload and packet.sequence == due[key, side]:
            due[key, side] = (packet.sequence + len(packet.payload)) % 2**32
            flow.pieces.append(Piece(packet.ts, side, packet.payload))
        if packet.flags & _FIN and not packet.flags & _RST:
            flow.pieces.append(Piece(packet.ts, side, b""))
    return [flow for flow in flows if any(piece.data for piece in flow.pieces)]


def _side(flow: Flow, packet: _Packet) -> Side:
    return Side.CLIENT if packet.source == flow.client else Side.SERVER
