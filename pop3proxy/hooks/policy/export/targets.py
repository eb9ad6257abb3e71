"""Reads which networks a firewall is to ban, from keys of bans; what is allowed is left out of them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, Final

from .nftset import Network

MAX_REMEMBERED: Final = 100_000
"""Keys whose networks are remembered: each export needs those of all bans, and to read one takes 10 µs."""


class Targets:
    """Turns keys of bans into networks."""

    def __init__(self, allow: Iterable[Network]) -> None:
        """Take the networks that are never banned."""
        self._always = tuple(allow)
        self._for_now: tuple[Network, ...] = ()
        self._allowed = _Allowed(self._always)
        self.networks = lru_cache(MAX_REMEMBERED)(self._networks)

    def allow_for_now(self, networks: tuple[Network, ...]) -> None:
        """Take the networks that are not banned now, in place of those before."""
        if networks != self._for_now:
            self._for_now = networks
            self._allowed = _Allowed((*self._always, *networks))
            self.networks.cache_clear()

    def _networks(self, key: str) -> tuple[Network, ...]:
        """Return what to ban for a key; nothing for an address that is none of IP."""
        try:
            banned = ip_network(key.partition(":")[2], strict=False)
        except ValueError:
            return ()
        if self._allowed.around(banned):
            return ()
        left: tuple[Network, ...] = (banned,)
        for allowed in self._allowed.within(banned):
            left = tuple(piece for each in left for piece in _without(each, allowed))
        return left


class _Allowed:
    """Networks, found quickly: there may be a thousand, and a hundred thousand bans to compare with."""

    def __init__(self, networks: Iterable[Network]) -> None:
        ordered = sorted(networks, key=_place)
        self._networks = ordered
        self._places = [_place(network) for network in ordered]
        self._lengths = {(network.version, network.prefixlen) for network in ordered}
        self._there = {(*_place(network), network.prefixlen) for network in ordered}

    def around(self, banned: Network) -> bool:
        """Return whether a network lies in one of these, or is one."""
        version, begin = _place(banned)
        for other, length in self._lengths:
            if other == version and length <= banned.prefixlen:
                rest = banned.max_prefixlen - length
                if (version, begin >> rest << rest, length) in self._there:
                    return True
        return False

    def within(self, banned: Network) -> list[Network]:
        """Return those that lie in a network."""
        first = bisect_left(self._places, _place(banned))
        last = bisect_right(self._places, (banned.version, int(banned.broadcast_address)))
        return self._networks[first:last]


def _place(network: Network) -> tuple[int, int]:
    return network.version, int(network.network_address)


def _without(banned: Network, allowed: Network) -> Iterator[Network]:
    """Yield what is left of a network when another is taken out of it."""
    if not banned.overlaps(allowed):
        yield banned
    elif banned.prefixlen < allowed.prefixlen:
        # Both are of one version, which the types do not say.
        inner: Any = allowed
        yield from banned.address_exclude(inner)
