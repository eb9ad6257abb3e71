"""The terms in which counts and bans are kept, and what keeps them must do; nothing is kept here.

One decision is one call of ``attempt`` or ``settle``: a store on another machine needs one round trip for it.
What is asked when a client connects (``ban_of``, ``ban``, ``in_grace``) is answered from this machine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

BUCKETS: Final = 12
"""Parts of a window in which a plain count forgets; one more is kept, so that no window is too short."""

SECRET: Final = "~"
"""What keys begin with that come from passwords: they are worth nothing without the key of the hashes."""


# Named tuples, since each login makes many, and they are made in a third of the time.
class Window(NamedTuple):
    """At most ``limit`` in ``seconds``."""

    seconds: float
    limit: int


class Charge(NamedTuple):
    """What an attempt adds to one count.

    With a ``member`` the count is of different members, exact up to one more than the highest limit of its
    windows, and no more are kept; without it each charge counts. An ``enforced`` charge that would exceed a
    limit refuses the attempt, unless it is ``waived`` for who is welcome.
    """

    key: str
    windows: tuple[Window, ...]
    member: str = ""
    enforced: bool = False
    waived: bool = True


class Tally(NamedTuple):
    """A count in each window of its charge; ``pending`` of them wait for the server's answer."""

    counts: tuple[int, ...]
    pending: int = 0


def exceeded(charge: Charge, tally: Tally) -> bool:
    """Say whether a count is above one of its limits."""
    return any(
        count > window.limit for count, window in zip(tally.counts, charge.windows, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is about to be tried.

    ``repeat`` is the count of one wrong password of one client: if it is not 0 nothing is charged; None if no
    password is seen. If the mark ``welcome`` is set, charges that can be are waived.
    """

    charges: tuple[Charge, ...]
    welcome: str = ""
    repeat: Charge | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of an attempt that was charged at the time ``at``.

    ``kept`` are no longer pending, ``refunded`` are taken back, the counts ``cleared`` begin at 0, and
    ``charges`` are added now, not pending, and enforce nothing: in this order. ``asked`` are only looked
    up. ``marks`` are set for so many seconds. The mark ``home`` is looked up. A pending charge that is never
    settled must come to an end by itself: with the longest of its windows at the latest.
    """

    at: float
    kept: tuple[Charge, ...] = ()
    refunded: tuple[Charge, ...] = ()
    charges: tuple[Charge, ...] = ()
    marks: tuple[tuple[str, float], ...] = ()
    cleared: tuple[str, ...] = ()
    home: str = ""
    asked: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store says to an Attempt or Settlement.

    ``tallies`` are those of the charges (of a Settlement: ``kept``, ``charges``, ``asked``), with them
    added, or as they would be. ``refused`` says that a limit would be exceeded: then nothing was added.
    ``charged`` says whether the charges are pending now. ``repeats`` is the count of ``repeat``.
    """

    tallies: tuple[Tally, ...] = ()
    refused: bool = False
    charged: bool = False
    welcome: bool = False
    home: bool = False
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Ban:
    """Somebody is kept out; ``key`` is like ``address:192.0.2.1``. Times are in seconds since the epoch.

    ``times`` counts the bans of this key, this one included; ``evidence`` are lines for people to read.
    """

    key: str
    rule: str
    since: float
    until: float
    times: int = 1
    evidence: tuple[str, ...] = field(default=())


class Store(Protocol):
    """Keeps counts and bans. All times are in seconds since the epoch, and given.

    A Deferred comes soon and never fails: a store that cannot be reached has something to fall back on. Not
    everybody waits for it, since what is taken back needs no answer.
    """

    def attempt(self, attempt: Attempt, now: float) -> Answer | Deferred[Answer]:
        """Charge an attempt, all of it or nothing, and say how the counts stand."""

    def settle(self, settlement: Settlement, now: float) -> Answer | Deferred[Answer]:
        """Take what became of an attempt."""

    def may_hold(self, key: str) -> bool:
        """Return whether there may be a count of a key: to ask is in vain where there is none."""

    def ban_of(self, keys: Iterable[str], now: float) -> Ban | None:
        """Find the first of these keys that is banned."""

    def past(self, key: str, now: float) -> Ban | None:
        """Find the last ban of a key, also one that is over."""

    def ban(self, ban: Ban, now: float) -> None:
        """Put a ban in force, in place of another of the same key."""

    def unban(self, key: str, cleared: Sequence[str], grace_until: float, now: float) -> bool:
        """End a ban, clear counts, and begin the grace; say whether there was one."""

    def in_grace(self, key: str, now: float) -> bool:
        """Say whether a ban of this key was taken back a short time ago."""

    def bans(self, now: float) -> list[Ban]:
        """List the bans in force."""
