"""Addresses and networks that are allowed for a time, by command; what is allowed always is configured."""

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from .banrecords import instant, text
from .users import Addresses

MAX_ALLOWANCES: Final = 1000
"""Allowances at a time; who needs more names networks in the configuration."""


_WIDEST: Final = {4: 8, 6: 16}
"""The shortest prefix that can be allowed by command, by the version of IP."""


class Allowance(NamedTuple):
    """Clients that are not counted, delayed, denied or banned; ``key`` is like ``address:192.0.2.1``.

    Times are in seconds since the epoch; ``by`` is who allowed it, such as ``uid:0``.
    """

    key: str
    since: float
    until: float
    by: str
    reason: str


class AllowancesFull(ValueError):
    """There is no room for another allowance: one line that says what to change."""


class Allowances:
    """What is allowed, by its key; bounded."""

    def __init__(self) -> None:
        self._all: dict[str, Allowance] = {}
        self._networks: list[tuple[IPv4Network | IPv6Network, str]] = []
        self.on_change: Callable[[list[Any]], None] = lambda change: None
        """Called with each allowance and its end, as ``apply`` takes them, to have them kept."""
        # Each address of a session is asked for several times.
        self._key_of = lru_cache(maxsize=4096)(self._find)

    def allow(self, allowance: Allowance, now: float) -> None:
        """Begin an allowance, in place of another of the same key. Raises AllowancesFull."""
        self._drop_over(now)
        if allowance.key not in self._all and len(self._all) >= MAX_ALLOWANCES:
            raise AllowancesFull(
                f"{MAX_ALLOWANCES} addresses and networks are allowed already; end some of them,"
                " or name networks under policy.allow"
            )
        self._all[allowance.key] = allowance
        self._changed()
        self.on_change(["allow", *allowance])

    def end(self, key: str, now: float) -> Allowance | None:
        """End an allowance, and return it; None if there is none."""
        self._drop_over(now)
        ended = self._all.pop(key, None)
        if ended is not None:
            self._changed()
            self.on_change(["disallow", key])
        return ended

    def of(self, host: str, now: float) -> Allowance | None:
        """Find an allowance of a client's address; None if there is none."""
        if not self._all:
            return None
        key = self._key_of(host)
        found = self._all.get(key)
        if found is None or found.until > now:
            return found
        # A wider one may last longer.
        self._drop_over(now)
        return self._all.get(self._key_of(host))

    def all(self, now: float) -> list[Allowance]:
        """List what is allowed."""
        self._drop_over(now)
        return list(self._all.values())

    def networks(self, now: float) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return what is allowed as networks."""
        self._drop_over(now)
        return tuple([network for network, _ in self._networks])

    # --- over a restart ---------------------------------------------------------------------------------

    def rows(self) -> list[list[Any]]:
        """Return what ``load`` takes."""
        return [[*allowance] for allowance in self._all.values()]

    def load(self, rows: Any) -> None:
        """Take what ``rows`` returned. Raises TypeError or ValueError for anything else."""
        self._all = {found.key: found for found in map(_allowance, rows[:MAX_ALLOWANCES])}
        self._changed()

    def apply(self, change: list[Any], now: float) -> None:
        """Take what ``on_change`` was called with. Raises TypeError or ValueError for anything else."""
        if change[0] == "allow":
            # Where the clock was set back, some that were over are in force again.
            with suppress(AllowancesFull):
                self.allow(_allowance(change[1:]), now)
        else:
            _, key = change
            self.end(text(key), now)

    # --- the parts --------------------------------------------------------------------------------------

    def _drop_over(self, now: float) -> None:
        over = [key for key, allowance in self._all.items() if allowance.until <= now]
        for key in over:
            del self._all[key]
        if over:
            self._changed()

    def _changed(self) -> None:
        self._networks = [(_network(key), key) for key in self._all]
        self._key_of.cache_clear()

    def _find(self, host: str) -> str:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return ""
        address = getattr(address, "ipv4_mapped", None) or address
        for network, key in self._networks:
            if address in network:
                return key
        return ""


def allowance_key(addresses: Addresses, name: str) -> str:
    """Return the key of what an operator names: an address, which is a /64 of IPv6, or any network.

    Raises ValueError.
    """
    kind, _, value = name.partition(":")
    plain = value if kind in ("address", "network") else name
    try:
        network = ip_network(plain, strict=False)
    except ValueError:
        raise ValueError(
            f"{name} cannot be allowed; write an address or a network, such as 192.0.2.0/24"
        ) from None
    if network.prefixlen < _WIDEST[network.version]:
        raise ValueError(
            f"{name} is too wide to be allowed by command; write a network of"
            f" /{_WIDEST[network.version]} or smaller, or dry_run = true under [policy]"
        )
    if "/" not in plain:
        return f"address:{addresses.address(plain)}"
    return f"network:{network}"


def _network(key: str) -> IPv4Network | IPv6Network:
    return ip_network(key.partition(":")[2])


def _allowance(found: Any) -> Allowance:
    key, since, until, by, reason = found
    allowance = Allowance(text(key), instant(since), instant(until), text(by), text(reason))
    _network(allowance.key)
    return allowance
