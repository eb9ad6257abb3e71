"""Writes files of MaxMind's format (version 2.0), small ones: enough to be read by its library."""

import ipaddress
from typing import Any, Final

_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR: Final = b"\0" * 16


def mmdb(networks: dict[str, dict[str, Any]], ip_version: int = 6) -> bytes:
    """Return a file that says of each network what is given; networks must not lie in each other."""
    nodes: list[list[int | bytes | None]] = [[None, None]]
    for text, said in networks.items():
        _add(nodes, _bits(text)[96 * (ip_version == 4) :], _encoded(said))
    return _tree(nodes) + _MARKER + _metadata(len(nodes), ip_version)


def _bits(text: str) -> str:
    """Return the bits of a network in the tree, in which IPv4 lies below ::/96."""
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv4Network):
        return "0" * 96 + f"{int(network.network_address):032b}"[: network.prefixlen]
    return f"{int(network.network_address):0128b}"[: network.prefixlen]


def _add(nodes: list[list[int | bytes | None]], bits: str, data: bytes) -> None:
    at = 0
    for bit in map(int, bits[:-1]):
        below = nodes[at][bit]
        if not isinstance(below, int):
            nodes.append([None, None])
            below = nodes[at][bit] = len(nodes) - 1
        at = below
    nodes[at][int(bits[-1])] = data


def _tree(nodes: list[list[int | bytes | None]]) -> bytes:
    tree, section = b"", b""
    for node in nodes:
        for side in node:
            if side is None:
                number = len(nodes)
            elif isinstance(side, int):
                number = side
            else:
                number = len(nodes) + len(_SEPARATOR) + len(section)
                section += side
            tree += number.to_bytes(3, "big")
    return tree + _SEPARATOR + section


def _metadata(count: int, ip_version: int) -> bytes:
    """Return what the file says of itself; the library wants each number in its own size."""
    fields = {
        "binary_format_major_version": _number(5, 2),
        "binary_format_minor_version": _number(5, 0),
        "build_epoch": _number(9, 1773705600),
        "database_type": _text("Test"),
        "description": _map({"en": _text("made by a test")}),
        "ip_version": _number(5, ip_version),
        "languages": bytes([0, 4]),
        "node_count": _number(6, count),
        "record_size": _number(5, 24),
    }
    return _map(fields)


def _encoded(value: Any) -> bytes:
    if isinstance(value, dict):
        return _map({key: _encoded(each) for key, each in value.items()})
    return _text(value) if isinstance(value, str) else _number(6, int(value))


def _map(fields: dict[str, bytes]) -> bytes:
    pairs = b"".join(_text(key) + each for key, each in fields.items())
    return bytes([7 << 5 | len(fields)]) + pairs


def _text(text: str) -> bytes:
    octets = text.encode()
    size = [len(octets)] if len(octets) < 29 else [29, len(octets) - 29]
    return bytes([2 << 5 | size[0], *size[1:]]) + octets


def _number(kind: int, value: int) -> bytes:
    octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
    head = [kind << 5 | len(octets)] if kind < 8 else [len(octets), kind - 7]
    return bytes(head) + octets
