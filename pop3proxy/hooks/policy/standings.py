"""How a count stands, and until when it is over a limit; reads what memory.py keeps, and changes nothing."""

from typing import Final, NamedTuple

from .memory import Counter, PlainCount
from .store import BUCKETS, Window

NOTHING: Final = 0.0


class Reading(NamedTuple):
    """How much is counted in each window; ``until`` is when all are below their limit, 0 if they are."""

    counts: tuple[int, ...]
    until: float


def reading(counter: Counter | None, windows: tuple[Window, ...], now: float) -> Reading:
    """Read a count, as if nothing more failed from now on."""
    if counter is None:
        return Reading((0,) * len(windows), NOTHING)
    counts = counter.counts(windows, now)
    ends = [
        _below(counter, index, window, now)
        for index, (count, window) in enumerate(zip(counts, windows, strict=True))
        if count >= window.limit
    ]
    return Reading(counts, max(ends, default=NOTHING))


def _below(counter: Counter, index: int, window: Window, now: float) -> float:
    """Return when so much is forgotten that a window's count is below its limit."""
    if isinstance(counter, PlainCount):
        part = window.seconds / BUCKETS
        parts = sorted(counter.windows[index].items())
        # The part of a count is forgotten a whole window behind its end.
        leaving = [((which + BUCKETS + 1) * part, count) for which, count in parts]
    else:
        seen = sorted(at for at in counter.members.values() if at > now - window.seconds)
        leaving = [(at + window.seconds, 1) for at in seen]
    left = sum(count for _, count in leaving)
    for at, count in leaving:
        left -= count
        if left < window.limit:
            return at
    return now
