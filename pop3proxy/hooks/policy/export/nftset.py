"""Writes banned networks as nftables sets, and replaces the file that holds them."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from heapq import merge
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Final

from .trouble import ExportTrouble

Network = IPv4Network | IPv6Network

_PORTION: Final = 100
"""Elements of a line; between two lines other threads get their turn."""

MAX_TIMEOUT: Final = 365 * 86400
"""Seconds of the longest timeout that is written: nft 1.0.6 refuses ten years as "value too large"."""

_SORTED: Final = 1000
"""Networks that are sorted at a time, which takes about a millisecond."""

_SETS: Final = {4: "banned4", 6: "banned6"}
_TYPES: Final = {4: "ipv4_addr", 6: "ipv6_addr"}


def replace_file(path: str, table: str, banned: Iterable[tuple[Network, float]]) -> None:
    """Replace a set file; a kill at any moment leaves the old one or the new one.

    ``banned`` are networks, and for how many seconds each is banned. May be called in any thread, but not in
    two at a time. Raises ExportTrouble.
    """
    target = Path(path)
    # One name, so that kills do not leave a file each. In the same folder, so that it can be renamed.
    temporary = target.with_name(f".{target.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            for line in rendered(table, banned):
                file.write(line)
                time.sleep(0)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as problem:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ExportTrouble(
            f"policy.export.nft_file: cannot write {path}: {problem.strerror};"
            " make its folder writable, with room for it"
        ) from None


def rendered(table: str, banned: Iterable[tuple[Network, float]]) -> Iterator[str]:
    """Yield the lines of a file that makes the sets if they are not there, and replaces what is in them.

    ``nft -f`` does all of it or nothing.
    """
    by_version: dict[int, list[tuple[Network, float]]] = {4: [], 6: []}
    for each in banned:
        by_version[each[0].version].append(each)
    yield "# Bans of pop3proxy, written again at each change; load it with nft -f.\n"
    yield f"table inet {table} {{\n"
    for version, name in _SETS.items():
        yield f"\tset {name} {{ type {_TYPES[version]}; flags interval, timeout; }}\n"
    yield "}\n"
    for version, name in _SETS.items():
        yield f"flush set inet {table} {name}\n"
        elements = apart(by_version[version])
        while portion := list(islice(elements, _PORTION)):
            yield f"add element inet {table} {name} {{ {', '.join(map(_element, portion))} }}\n"


def apart(banned: Iterable[tuple[Network, float]]) -> Iterator[tuple[Network, float]]:
    """Yield the networks that lie in no wider one: elements of an nftables set must not overlap.

    What lies in a wider network and is banned for longer comes into the file when the wider ban has ended.
    """
    last = -1
    for begin, _, seconds, network in merge(*_sorted_portions(banned)):
        if begin > last:
            yield network, -seconds
            last = int(network.broadcast_address)


_Row = tuple[int, int, float, Network]


def _sorted_portions(banned: Iterable[tuple[Network, float]]) -> Iterator[list[_Row]]:
    """Sort a few at a time: other threads do not get their turn while a list is sorted.

    The wider of two networks that begin alike comes first, and of two equal ones that banned for longer.
    """
    rows = iter(banned)
    while portion := list(islice(rows, _SORTED)):
        yield sorted(
            (int(network.network_address), network.prefixlen, -seconds, network)
            for network, seconds in portion
        )
        time.sleep(0)


def shown_network(network: Network) -> str:
    """Write a network, and one that is a single address as that address."""
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return str(network)


def _element(each: tuple[Network, float]) -> str:
    network, seconds = each
    return f"{shown_network(network)} timeout {min(max(1, ceil(seconds)), MAX_TIMEOUT)}s"
