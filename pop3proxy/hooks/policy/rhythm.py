"""How regular failures are: the median interval between them, and how far most are from it."""

from collections.abc import Iterable
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

TOGETHER: Final = 60
"""Seconds whose failures are one: a mistake is tried by several mechanisms, and in several sessions."""

_LEAST: Final = 2
"""Intervals of which some can be unlike others."""


class Rhythm(NamedTuple):
    """The median interval in seconds; half of the intervals differ from it by at most this part of it."""

    interval: float
    spread: float


def minute_of(at: float) -> str:
    """Return what failures of the same minute are counted as."""
    return str(int(at // TOGETHER))


def rhythm_of(ages: Iterable[float]) -> Rhythm | None:
    """Return how regular things are that happened so many seconds ago; None if they are too few."""
    intervals = [later - sooner for sooner, later in pairwise(sorted(ages))]
    if len(intervals) < _LEAST:
        return None
    middle = median(intervals)
    if middle <= 0:
        return None
    return Rhythm(middle, median(abs(interval - middle) for interval in intervals) / middle)
