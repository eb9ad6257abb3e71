"""Writes small MaxMind DB files (format 2.0), by its published specification."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

_STRING, _UINT16, _UINT32, _MAP, _UINT64, _ARRAY = 2, 5, 6, 7, 9, 11
_RECORD = 24  # bits


def _control(kind: int, size: int) -> bytes:
    extra = b""
    if size >= 29:
        size, extra = 29, bytes([size - 29])
    if kind > 7:
        return bytes([size, kind - 7]) + extra
    return bytes([kind << 5 | size]) + extra


def encoded(value: Any, kind: int = _UINT32) -> bytes:
    """Encode a value; a number as an unsigned one of 32 bits, or as ``kind`` has it."""
    if isinstance(value, str):
        octets = value.encode()
        return _control(_STRING, len(octets)) + octets
    if isinstance(value, int):
        octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return _control(kind, len(octets)) + octets
    if isinstance(value, list):
        return _control(_ARRAY, len(value)) + b"".join(map(encoded, value))
    assert isinstance(value, Mapping)
    pairs = (encoded(name) + encoded(held) for name, held in value.items())
    return _control(_MAP, len(value)) + b"".join(pairs)


def mmdb(records: Mapping[str, Any], kind: str = "Test") -> bytes:
    """Return a file that has these records, by network; those of IPv4 are below ::/96."""
    nodes: list[list[Any]] = [[None, None]]
    for text, record in records.items():
        network = ip_network(text)
        bits = network.prefixlen + (96 if network.version == 4 else 0)
        number, at = int(network.network_address), 0
        for depth in range(bits):
            bit = number >> 127 - depth & 1
            if depth == bits - 1:
                nodes[at][bit] = encoded(record)
                break
            if nodes[at][bit] is None:
                nodes.append([None, None])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
    data, tree = b"", b""
    for node in nodes:
        for found in node:
            points_to = len(nodes) if found is None else found
            if isinstance(found, bytes):
                points_to = len(nodes) + 16 + len(data)
                data += found
            tree += points_to.to_bytes(_RECORD // 8, "big")
    head = {
        "node_count": encoded(len(nodes)),
        "record_size": encoded(_RECORD, _UINT16),
        "ip_version": encoded(6, _UINT16),
        "database_type": encoded(kind),
        "languages": encoded([]),
        "binary_format_major_version": encoded(2, _UINT16),
        "binary_format_minor_version": encoded(0, _UINT16),
        "build_epoch": encoded(1_764_000_000, _UINT64),
        "description": encoded({}),
    }
    metadata = _control(_MAP, len(head)) + b"".join(encoded(k) + v for k, v in head.items())
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + metadata
