"""The terms in which counts and bans are kept, and what keeps them must do; nothing is kept here.

One decision is one call of ``attempt`` or ``settle``: a store on another machine needs one round trip for it.
Counts are of what failed. What waits for the mail server's answer is in flight, and kept once for each value
that it has (its address, network, user, pair, password), not once for each rule.
What is asked when a client connects (``ban_of``, ``ban``, ``in_grace``) is answered from this machine.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from .memory import MemoryStore

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
    """What a failed attempt adds to one count.

    With a ``member`` the count is of different members, exact up to one more than the highest limit of its
    windows, and no more are kept; without it each charge counts. An ``enforced`` charge that would exceed a
    limit refuses the attempt, unless it is ``waived`` for welcome clients. ``place`` is where the attempts
    are in flight that may fail and be counted, too; ``kind`` is which of their members would be (see
    ``Flight``), -1 of a count without members. ``least`` is the lowest limit of the windows. If ``trickle``
    is not 0, an attempt beyond the limit is let through all the same, unless one was in so many seconds. Of a
    ``timed`` charge, which has members, the tally says when each was last seen.
    """

    key: str
    windows: tuple[Window, ...]
    member: str = ""
    enforced: bool = False
    waived: bool = True
    place: str = ""
    kind: int = -1
    least: int = 0
    trickle: float = 0.0
    timed: bool = False


class Budget(NamedTuple):
    """What welcome clients have in place of rules: ``size`` tries at once, and one more each ``seconds``.

    Clients are welcome while ``mark`` is set. ``key`` names both the place where their attempts are in flight
    and the mark of what is spent: it ends when all tries are there again.
    """

    mark: str
    key: str
    size: int
    seconds: float


class Flight(NamedTuple):
    """An attempt between the client and the mail server's answer.

    ``id`` is unique among all proxies of a store. ``at`` is when it was let through. ``members`` are what it
    may add to counts of different things, in the order of ``rules.Who``. It is in flight at all ``places``:
    one for each value, such as ``address:192.0.2.1``, and more for rules that do not apply to every attempt
    there.
    """

    id: str
    at: float
    members: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


class Tally(NamedTuple):
    """A count in each window of its charge; ``ages``, of a timed one, how long ago members were seen."""

    counts: tuple[int, ...]
    ages: tuple[float, ...] = ()


def trickle_mark(key: str) -> str:
    """Return the mark that is set while a count lets no further attempt through beyond its limit."""
    # It begins as the count's key does, which says whether it comes from passwords.
    return f"{key}|trickle"


def exceeded(charge: Charge, tally: Tally) -> bool:
    """Return whether a count is above one of its limits."""
    return any(
        count > window.limit for count, window in zip(tally.counts, charge.windows, strict=True)
    )


class Fate(Enum):
    """What a store makes of an attempt."""

    FLIES = "it is in flight now, and may reach the mail server"
    REFUSED = "what has failed so far exceeds a limit with it"
    HELD = "what is in flight could fail, and then exceed a limit with it: it is in flight nowhere"

    __hash__ = object.__hash__


class Attempt(NamedTuple):
    """A login that is about to be tried.

    ``repeat`` is the count of one wrong password of one client: if it is not 0 the attempt counts for
    nothing, and is in flight at ``tries`` alone; None if no password is seen. Only one attempt is in flight
    at ``tries``, the same password of the same client by one mechanism, and while the mark of that name is
    set a repeated one is held. If the mark ``welcome`` is set, charges that can be are waived. The first of
    the ``budgets`` whose clients are welcome counts in place of all charges: a failure takes one try of it.

    Attempts that are in flight for ``wait`` seconds are overdue: no other attempt is held because of them.
    They count as failures if ``overdue_fail`` is true, else as nothing.
    """

    flight: Flight
    charges: tuple[Charge, ...] = ()
    welcome: str = ""
    repeat: Charge | None = None
    tries: str = ""
    wait: float = 10.0
    overdue_fail: bool = True
    budgets: tuple[Budget, ...] = ()


class Settlement(NamedTuple):
    """What became of an attempt, or of a login that was not seen to be tried.

    The ``flight`` ends, the counts ``cleared`` begin at 0, and ``charges`` are added, so that they are there
    when the end is heard of. ``asked`` are only looked up. A try of the budget ``spent`` is taken. ``marks``
    are set for so many seconds. The mark ``home`` is looked up. A flight that is never settled must come to
    an end by itself. ``undone`` are charges without a member that were added at the times given, and are
    taken back before others are added.
    """

    flight: Flight | None = None
    charges: tuple[Charge, ...] = ()
    spent: Budget | None = None
    marks: tuple[tuple[str, float], ...] = ()
    cleared: tuple[str, ...] = ()
    home: str = ""
    undone: tuple[tuple[float, Charge], ...] = ()
    asked: tuple[Charge, ...] = ()


class Over(NamedTuple):
    """A charge of an attempt, by its number, whose count would exceed a limit, and how it would stand."""

    number: int
    tally: Tally


class Answer(NamedTuple):
    """What a store says to an Attempt.

    ``over`` are the charges that would exceed a limit by what has failed, whether they are enforced or not;
    ``trickled`` are the numbers of those that let the attempt through all the same.
    ``repeats`` is the count of ``repeat``. Of a held attempt, ``place`` is where something must settle first,
    ``held_by`` the number of the charge that asks for it (-1 if it is ``tries``), ``possible`` how that would
    stand if all failed, and ``again`` the time at which to ask about it again if no notice comes before.
    ``budget`` is the number of the budget that counts, -1 if none does; ``possible`` is then of its tries.
    """

    fate: Fate = Fate.FLIES
    over: tuple[Over, ...] = ()
    welcome: bool = False
    repeats: int = 0
    place: str = ""
    held_by: int = -1
    possible: Tally = Tally(())
    again: float = 0.0
    budget: int = -1
    trickled: tuple[int, ...] = ()


def places_of(attempt: Attempt, answer: Answer) -> tuple[str, ...]:
    """Return where an attempt is in flight that the store has let fly."""
    tries = (attempt.tries,) if attempt.tries else ()
    if answer.repeats:
        return tries
    if answer.budget >= 0:
        return (attempt.budgets[answer.budget].key, *tries)
    return attempt.flight.places


class Settled(NamedTuple):
    """What a store says to a Settlement: how its charges and what is asked stand then, and its mark."""

    tallies: tuple[Tally, ...] = ()
    home: bool = False


@dataclass(frozen=True, slots=True)
class Ban:
    """Somebody is kept out; ``key`` is like ``address:192.0.2.1``. Times are in seconds since the epoch.

    ``times`` counts the bans of this key, this one included; 0 if it was removed. ``evidence`` are lines for
    people to read.
    """

    key: str
    rule: str
    since: float
    until: float
    times: int = 1
    evidence: tuple[str, ...] = field(default=())


class Store(Protocol):
    """Keeps counts, what is in flight, and bans. All times are in seconds since the epoch, and given.

    A Deferred comes soon and never fails: a store that cannot be reached has something to fall back on. Not
    everybody waits for it, since a settlement that only ends a flight needs no answer.
    """

    on_settled: Callable[[Iterable[str]], None]
    """Called with the places at which a flight has ended, here or in another process: what is held there
    should be asked about again. Notices may get lost, and then ``Answer.again`` says when to ask."""

    @property
    def memory(self) -> "MemoryStore":
        """What is kept in this process: counts, of a shared store those made here, and all bans."""

    def attempt(self, attempt: Attempt, now: float) -> Answer | Deferred[Answer]:
        """Let an attempt fly, hold it or refuse it."""

    def flies_at_once(
        self, attempt: Attempt, keys: Iterable[str], rooms: Iterable[tuple[str, int]], now: float
    ) -> Answer | None:
        """Let an attempt fly if none of these counts exists, and each place has room for more in flight.

        Then no rule can refuse or hold it, and its charges need not be worked out. A store that cannot know
        that at once returns None, and does nothing.
        """

    def settle(self, settlement: Settlement, now: float) -> Settled | Deferred[Settled]:
        """Take what became of an attempt."""

    def announced(self, flight: Flight, wait: float) -> None:
        """Take an attempt for overdue, ``wait`` seconds being the time for that: it has failed already."""

    def may_hold(self, key: str) -> bool:
        """Return whether there may be a count of a key: to ask is in vain where there is none."""

    def ban_of(self, keys: Iterable[str], now: float) -> Ban | None:
        """Find the first of these keys that is banned."""

    def past(self, key: str, now: float) -> Ban | None:
        """Find the last ban of a key, also one that is over."""

    def ban(self, ban: Ban, now: float) -> None:
        """Put a ban in force, in place of another of the same key."""

    def unban(self, key: str, cleared: Sequence[str], grace_until: float, now: float) -> bool:
        """End a ban, clear counts, and begin the grace; return whether there was one."""

    def in_grace(self, key: str, now: float) -> bool:
        """Return whether a ban of this key was taken back a short time ago."""

    def bans(self, now: float) -> list[Ban]:
        """List the bans in force."""

    def watch_bans(self, changed: Callable[[str], None]) -> None:
        """Call this with the key of each ban that begins, is replaced, or ends before its time."""
