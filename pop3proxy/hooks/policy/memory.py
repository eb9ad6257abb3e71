"""Keeps counts and bans in memory, bounded; what they mean is said in store.py, files in snapshot.py."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from .store import (
    BUCKETS,
    SECRET,
    Answer,
    Attempt,
    Ban,
    Charge,
    Settlement,
    Tally,
    Window,
    exceeded,
)

_LOOKED_AT: Final = 8
"""The longest unused counts, of which the smallest goes when there is no room."""

_FEW: Final = 64
"""The oldest bans, of which one that is over goes first."""


class PlainCount:
    """Counts in windows; each window has its buckets, as pairs of number and count."""

    __slots__ = ("pending", "windows")

    def __init__(self, windows: list[dict[int, int]]) -> None:
        self.windows = windows
        self.pending = 0

    @classmethod
    def of_one(cls, windows: tuple[Window, ...], at: float) -> "PlainCount":
        """Begin with one."""
        return cls([{int(at * BUCKETS // window.seconds): 1} for window in windows])

    def total(self) -> int:
        """Return how much is in it, to compare with others."""
        return max(sum(buckets.values()) for buckets in self.windows)

    def add(self, windows: tuple[Window, ...], at: float) -> None:
        """Add one to the buckets of a time."""
        for window, buckets in zip(windows, self.windows, strict=True):
            number = int(at * BUCKETS // window.seconds)
            buckets[number] = buckets.get(number, 0) + 1

    def take(self, windows: tuple[Window, ...], at: float) -> bool:
        """Take one from the buckets of a time, if it is there; say whether any window holds more."""
        more = False
        for window, buckets in zip(windows, self.windows, strict=True):
            number = int(at * BUCKETS // window.seconds)
            left = buckets.pop(number, 0) - 1
            if left > 0:
                buckets[number] = left
            if buckets:
                more = True
        return more

    def counts(self, windows: tuple[Window, ...], now: float) -> tuple[int, ...]:
        """Count what each window holds, and forget what is older."""
        return tuple(map(self._count, windows, self.windows, (now,) * len(windows)))

    @staticmethod
    def _count(window: Window, buckets: dict[int, int], now: float) -> int:
        newest = _bucket(window, now)
        oldest = newest - BUCKETS
        # What is a window ahead was counted before the clock was set back.
        for number in [n for n in buckets if not oldest <= n <= newest + BUCKETS]:
            del buckets[number]
        return sum(buckets.values())


def _bucket(window: Window, at: float) -> int:
    return int(at * BUCKETS // window.seconds)


class DistinctCount:
    """Counts different members: when each was last seen, and those that wait for the server's answer."""

    __slots__ = ("members", "waiting")

    def __init__(self) -> None:
        self.members: dict[str, float] = {}
        self.waiting: set[str] = set()

    def total(self) -> int:
        """Return how much is in it, to compare with others."""
        return len(self.members)

    def counts(self, windows: tuple[Window, ...], now: float) -> tuple[int, ...]:
        """Count what each window holds, and forget what is older."""
        longest = max(window.seconds for window in windows)
        # What is a window ahead was seen before the clock was set back.
        for member in [
            m for m, seen in self.members.items() if not -longest < seen - now <= longest
        ]:
            del self.members[member]
            self.waiting.discard(member)
        seen = self.members.values()
        return tuple(sum(at > now - window.seconds for at in seen) for window in windows)

    def add(self, member: str, windows: tuple[Window, ...], at: float, waits: bool) -> None:
        """Add a member; beyond one more than the highest limit, that not seen for longest goes.

        What waits takes no such place: it may be taken back.
        """
        if member not in self.members:
            if self.members and len(self.members) > max(window.limit for window in windows):
                if waits:
                    return
                oldest = min(self.members, key=self.members.__getitem__)
                self.remove(oldest)
            if waits:
                self.waiting.add(member)
        self.members[member] = max(at, self.members.get(member, at))
        if not waits:
            self.waiting.discard(member)

    def remove(self, member: str) -> None:
        """Forget a member."""
        self.members.pop(member, None)
        self.waiting.discard(member)


Counter = PlainCount | DistinctCount


class MemoryStore:
    """Counts and bans of this process.

    There are at most ``max_keys`` counts, marks and graces each, and ``max_bans`` bans: each has room of
    its own, so that no flood of counts drives a ban out.
    """

    def __init__(self, max_keys: int, max_bans: int, ban_memory: float) -> None:
        """Begin empty; ``ban_memory`` is how many seconds a ban is remembered behind its end."""
        self.counters: OrderedDict[str, Counter] = OrderedDict()
        self.marks: OrderedDict[str, float] = OrderedDict()
        self.graces: OrderedDict[str, float] = OrderedDict()
        self.all_bans: OrderedDict[str, Ban] = OrderedDict()
        self.evicted = 0
        self._max_keys = max_keys
        self._max_bans = max_bans
        self._ban_memory = ban_memory

    # --- decisions --------------------------------------------------------------------------------------

    def attempt(self, attempt: Attempt, now: float) -> Answer:
        """Charge an attempt, all of it or nothing, and say how the counts stand."""
        welcome = self._marked(attempt.welcome, now)
        repeats = 0
        if attempt.repeat is not None:
            (repeats,) = self._standing(attempt.repeat, now, 0).counts
        if repeats:
            return Answer(welcome=welcome, repeats=repeats)
        tallies, refused = [], False
        for charge in attempt.charges:
            tally = self._standing(charge, now, 1)
            tallies.append(tally)
            if charge.enforced and not (charge.waived and welcome) and exceeded(charge, tally):
                refused = True
        if not refused:
            for charge in attempt.charges:
                self._add(charge, now, waits=True)
        return Answer(tuple(tallies), refused, not refused and bool(attempt.charges), welcome)

    def settle(self, settlement: Settlement, now: float) -> Answer:
        """Take what became of an attempt."""
        for charge in settlement.kept:
            self._keep(charge, settlement.at)
        for charge in settlement.refunded:
            self._refund(charge, settlement.at)
        for key in settlement.cleared:
            self.counters.pop(key, None)
        for charge in settlement.charges:
            self._add(charge, now, waits=False)
        for mark, seconds in settlement.marks:
            self.marks[mark] = now + seconds
            self.marks.move_to_end(mark)
            if len(self.marks) > self._max_keys:
                self.marks.popitem(last=False)
        asked = (*settlement.kept, *settlement.charges, *settlement.asked)
        tallies = tuple(self._standing(charge, now, 0) for charge in asked)
        return Answer(tallies, home=self._marked(settlement.home, now))

    def _marked(self, mark: str, now: float) -> bool:
        return bool(mark) and self.marks.get(mark, 0.0) > now

    def _standing(self, charge: Charge, now: float, more: int) -> Tally:
        """Count, as it would be with ``more`` of this charge."""
        counter = self.counters.get(charge.key)
        if counter is None:
            return Tally((more,) * len(charge.windows), more)
        counts = counter.counts(charge.windows, now)
        if isinstance(counter, PlainCount):
            return Tally(tuple(count + more for count in counts), counter.pending + more)
        pending = len(counter.waiting)
        if not more:
            return Tally(counts, pending)
        seen = counter.members.get(charge.member)
        fresh = (seen is None or seen <= now - window.seconds for window in charge.windows)
        with_it = tuple(count + new for count, new in zip(counts, fresh, strict=True))
        return Tally(with_it, pending + (seen is None))

    def _add(self, charge: Charge, at: float, waits: bool) -> None:
        counter = self.counters.get(charge.key)
        if counter is None:
            if len(self.counters) >= self._max_keys:
                self._evict()
            if not charge.member:
                plain = self.counters[charge.key] = PlainCount.of_one(charge.windows, at)
                plain.pending = int(waits)
                return
            counter = self.counters[charge.key] = DistinctCount()
        else:
            self.counters.move_to_end(charge.key)
        if isinstance(counter, DistinctCount):
            counter.add(charge.member, charge.windows, at, waits)
        else:
            counter.add(charge.windows, at)
            counter.pending += waits

    def _keep(self, charge: Charge, at: float) -> None:
        counter = self.counters.get(charge.key)
        if counter is None:
            # It was driven out, or cleared by another's success: what failed is counted all the same.
            self._add(charge, at, waits=False)
        elif isinstance(counter, DistinctCount):
            counter.add(charge.member, charge.windows, at, waits=False)
        else:
            counter.pending = max(0, counter.pending - 1)

    def _refund(self, charge: Charge, at: float) -> None:
        counter = self.counters.get(charge.key)
        if counter is None:
            return
        if isinstance(counter, DistinctCount):
            # A member that failed before stays.
            if charge.member in counter.waiting:
                counter.remove(charge.member)
            more = bool(counter.members)
        else:
            more = counter.take(charge.windows, at)
            counter.pending = max(0, counter.pending - 1)
        if not more:
            del self.counters[charge.key]

    def _evict(self) -> None:
        """Drop the smallest of the counts that were not used for longest."""
        oldest = islice(self.counters.items(), _LOOKED_AT)
        key, _ = min(oldest, key=lambda item: item[1].total())
        del self.counters[key]
        self.evicted += 1

    def may_hold(self, key: str) -> bool:
        """Return whether there is a count of a key."""
        return key in self.counters

    # --- bans -------------------------------------------------------------------------------------------

    def ban_of(self, keys: Iterable[str], now: float) -> Ban | None:
        """Find the first of these keys that is banned."""
        bans = self.all_bans
        for key in keys:
            ban = bans.get(key)
            if ban is not None and _in_force(ban, now):
                return ban
        return None

    def past(self, key: str, now: float) -> Ban | None:
        """Find the last ban of a key, also one that is over."""
        ban = self.all_bans.get(key)
        if ban is not None and ban.until + self._ban_memory <= now:
            del self.all_bans[key]
            return None
        return ban

    def ban(self, ban: Ban, now: float) -> None:
        """Put a ban in force, in place of another of the same key."""
        if ban.key not in self.all_bans and len(self.all_bans) >= self._max_bans:
            oldest = list(islice(self.all_bans.values(), _FEW))
            over = [old for old in oldest if old.until <= now]
            del self.all_bans[(over or oldest)[0].key]
        self.all_bans[ban.key] = ban
        self.all_bans.move_to_end(ban.key)

    def unban(self, key: str, cleared: Sequence[str], grace_until: float, now: float) -> bool:
        """End a ban, clear counts, and begin the grace; say whether there was one."""
        was = self.ban_of((key,), now)
        self.all_bans.pop(key, None)
        for each in cleared:
            self.counters.pop(each, None)
        if was is not None:
            self.graces[key] = grace_until
            self.graces.move_to_end(key)
            if len(self.graces) > self._max_keys:
                self.graces.popitem(last=False)
        return was is not None

    def in_grace(self, key: str, now: float) -> bool:
        """Say whether a ban of this key was taken back a short time ago."""
        return self.graces.get(key, 0.0) > now

    def bans(self, now: float) -> list[Ban]:
        """List the bans in force."""
        return [ban for ban in self.all_bans.values() if _in_force(ban, now)]

    # --- to and from a snapshot -------------------------------------------------------------------------

    def dump(self, secrets: bool) -> dict[str, Iterable[Any]]:
        """Return all that is worth keeping, as JSON has it, without what waits for an answer.

        ``secrets`` keeps what comes from passwords too. What is returned may be iterated over in another
        thread while counting goes on.
        """
        counters, bans = list(self.counters.items()), list(self.all_bans.values())
        return {
            "counters": (
                [key, *_dumped(counter)]
                for key, counter in counters
                if secrets or not key.startswith(SECRET)
            ),
            "marks": list(self.marks.items()),
            "graces": list(self.graces.items()),
            "bans": ([b.key, b.rule, b.since, b.until, b.times, list(b.evidence)] for b in bans),
        }

    def load(self, found: dict[str, Any]) -> None:
        """Take what ``dump`` returned. Raises LookupError, TypeError or ValueError for anything else."""
        counters: OrderedDict[str, Counter] = OrderedDict()
        for key, kind, held in found["counters"][-self._max_keys :]:
            counters[str(key)] = _loaded(kind, held)
        marks = OrderedDict((str(k), float(t)) for k, t in found["marks"][-self._max_keys :])
        graces = OrderedDict((str(k), float(t)) for k, t in found["graces"][-self._max_keys :])
        bans = [
            Ban(str(key), str(rule), float(since), float(until), int(times), tuple(map(str, why)))
            for key, rule, since, until, times, why in found["bans"][-self._max_bans :]
        ]
        self.counters, self.marks, self.graces = counters, marks, graces
        self.all_bans = OrderedDict((ban.key, ban) for ban in bans)


def _in_force(ban: Ban, now: float) -> bool:
    """Say whether a ban is neither over nor of a time from which the clock was set back."""
    return 0 < ban.until - now <= 2 * (ban.until - ban.since)


def _dumped(counter: Counter) -> tuple[str, Any]:
    # Each copy is one step to other threads. Who stops or begins to wait in between is left out, too.
    if isinstance(counter, DistinctCount):
        waited = counter.waiting.copy()
        members = list(counter.members.items())
        waited |= counter.waiting.copy()
        return "distinct", [[m, at] for m, at in members if m not in waited]
    windows, pending = [], counter.pending
    for buckets in counter.windows:
        left, kept = pending, []
        # What waits is what came last.
        for number, count in sorted(buckets.items(), reverse=True):
            taken = min(left, count)
            left -= taken
            if count > taken:
                kept.append([number, count - taken])
        windows.append(kept)
    return "plain", windows


def _loaded(kind: str, held: Any) -> Counter:
    if kind == "distinct":
        distinct = DistinctCount()
        distinct.members = {str(member): float(at) for member, at in held}
        return distinct
    if not held:
        raise ValueError
    return PlainCount([{int(n): int(count) for n, count in buckets} for buckets in held])
