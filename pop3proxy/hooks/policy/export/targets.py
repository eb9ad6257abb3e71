"""Reads which networks a firewall is to ban, from keys of bans; `policy.allow` is left out of them."""

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
        self._allow = tuple(allow)
        self.networks = lru_cache(MAX_REMEMBERED)(self._networks)

    def _networks(self, key: str) -> tuple[Network, ...]:
        """Return what to ban for a key; nothing for an address that is none of IP."""
        try:
            banned = ip_network(key.partition(":")[2], strict=False)
        except ValueError:
            return ()
        left: tuple[Network, ...] = (banned,)
        for allowed in self._allow:
            left = tuple(piece for each in left for piece in _without(each, allowed))
        return left


def _without(banned: Network, allowed: Network) -> Iterator[Network]:
    """Yield what is left of a network when another is taken out of it."""
    if banned.version != allowed.version or not banned.overlaps(allowed):
        yield banned
    elif banned.prefixlen < allowed.prefixlen:
        # Both are of one version, which the types do not say.
        inner: Any = allowed
        yield from banned.address_exclude(inner)
