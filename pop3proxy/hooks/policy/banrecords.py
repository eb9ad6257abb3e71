"""Bans as rows of JSON, as snapshots, journals and other proxies have them; impossible values are refused."""

import re
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any, Final

from .store import Ban

LATEST: Final = 253_402_300_799.0
"""The last second of the year 9999: no date can be written for what is later."""

MAX_EVIDENCE: Final = 9
"""Lines of evidence that an ended ban keeps, besides that of its end."""


def row(ban: Ban) -> list[Any]:
    """Return what ``ban_of_row`` reads. A ban that a configuration makes longer ends with the year 9999."""
    until = min(ban.until, LATEST)
    return [ban.key, ban.rule, ban.since, until, ban.times, list(ban.evidence)]


def ban_of_row(found: Any) -> Ban:
    """Read a ban. Raises TypeError or ValueError for what cannot be one."""
    key, rule, since, until, times, evidence = found
    if not isinstance(evidence, list):
        raise TypeError("the evidence is no list")
    return Ban(
        ban_key(key),
        text(rule),
        instant(since),
        instant(until),
        whole(times),
        tuple(text(line) for line in evidence),
    )


def ended(ban: Ban, now: float, line: str) -> Ban:
    """Return a ban as it is remembered behind its removal; it makes the next one no longer."""
    evidence = (*ban.evidence[-MAX_EVIDENCE:], line)
    return Ban(ban.key, ban.rule, ban.since, min(ban.until, now), 0, evidence)


def time_of(at: float) -> str:
    """Write a time as people read it, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(found: Any) -> float:
    """Read a time in seconds since the epoch. Raises TypeError or ValueError for what cannot be one."""
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise TypeError("a time is no number")
    if not 0 <= found <= LATEST:  # nor is NaN
        raise ValueError("a time is out of range")
    return float(found)


def text(found: Any) -> str:
    """Read a text. Raises TypeError or ValueError for what cannot be one."""
    if not isinstance(found, str):
        raise TypeError("a text is none")
    if not is_text(found):
        raise ValueError("a text has half a character")
    return found


def is_text(found: str) -> bool:
    """Return whether a text can be written: bytes may stand in it as surrogates, halves of others may not."""
    return _HALF.search(found) is None


_HALF: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def ban_key(found: Any) -> str:
    """Read the key of a ban. Raises TypeError or ValueError for what cannot be one."""
    key = text(found)
    kind, _, value = key.partition(":")
    if kind not in BAN_KINDS or not value:
        raise ValueError("a ban is of nothing")
    if kind in ("address", "network") and ("%" in value or not ip_network(value).prefixlen):
        raise ValueError("a ban is of all addresses, or of one of an interface")
    return key


BAN_KINDS: Final = frozenset({"address", "network", "user", "pair"})
"""What can be banned."""


def whole(found: Any, least: int = 0) -> int:
    """Read how many. Raises TypeError or ValueError for what cannot be that."""
    if isinstance(found, bool) or not isinstance(found, int):
        raise TypeError("a count is no whole number")
    if not least <= found <= 2**53:
        raise ValueError("a count is out of range")
    return found
