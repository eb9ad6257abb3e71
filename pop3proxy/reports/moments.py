"""Reads points in time as people write them: 7d, 2026-11-30, 2026-11-30T08:00+01:00; knows no files."""

import os
import re
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from .problems import Unanswerable

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhdw])")


def span(text: str) -> timedelta:
    """Read a length of time: a number and s, m, h, d or w. Raises Unanswerable."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise Unanswerable(f"{text}: is no length of time; write it like 90m, 12h or 7d")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise Unanswerable(f"{text}: is too long; write it like 90m, 12h or 7d") from None


def moment(text: str, now: datetime) -> datetime:
    """Read a moment: so long before ``now``, or a date or time in the zone of ``now`` unless it names one.

    A date is its first moment. Raises Unanswerable.
    """
    text = text.strip()
    if text == "now":
        return now
    try:
        if _SPAN.fullmatch(text):
            return now - span(text)
        found = datetime.fromisoformat(text)
        # So that what is compared later cannot overflow there.
        found = found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo)
        found.timestamp()
    except (ValueError, OverflowError):
        raise Unanswerable(
            f"{text}: is no time; write it like 7d, 2026-11-30 or 2026-11-30T08:00+01:00"
        ) from None
    return found


def zone(name: str | None) -> ZoneInfo:
    """Return a time zone by its name, or without one that of this machine. Raises Unanswerable."""
    wanted = name if name is not None else _zone_of_machine()
    try:
        return ZoneInfo(wanted)
    # A name with a slash at its beginning, with a NUL or of a folder each raises something else.
    except (KeyError, ValueError, OSError):
        raise Unanswerable(
            f"{wanted}: is no time zone; write --zone Europe/Berlin or --zone UTC"
        ) from None


def _zone_of_machine() -> str:
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        return named
    _, _, linked = os.path.realpath("/etc/localtime").partition("zoneinfo/")
    return linked or "UTC"
