"""Keeps counts, flights and bans in memory; what they mean is said in store.py, files in snapshot.py."""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from .banrecords import LATEST, ban_of_row, instant, row, text, whole
from .store import (
    BUCKETS,
    SECRET,
    Answer,
    Attempt,
    Ban,
    Budget,
    Charge,
    Fate,
    Flight,
    Over,
    Settled,
    Settlement,
    Tally,
    Window,
    exceeded,
    places_of,
    trickle_mark,
)

_LOOKED_AT: Final = 8
"""The longest unused counts, of which the smallest goes when there is no room."""

_FEW: Final = 64
"""The oldest bans, of which one that is over goes first."""


class PlainCount:
    """Counts in windows; each window has its buckets, as pairs of number and count."""

    __slots__ = ("windows",)

    def __init__(self, windows: list[dict[int, int]]) -> None:
        self.windows = windows

    @classmethod
    def of_one(cls, windows: tuple[Window, ...], at: float) -> "PlainCount":
        """Begin with one."""
        return cls([{_bucket(window, at): 1} for window in windows])

    def fits(self, charge: Charge) -> bool:
        """Return whether it can be the count of a charge."""
        return not charge.member and len(self.windows) == len(charge.windows)

    def total(self) -> int:
        """Return how much is in it, to compare with others."""
        return max(sum(buckets.values()) for buckets in self.windows)

    def add(self, windows: tuple[Window, ...], at: float) -> None:
        """Add one to the buckets of a time."""
        for window, buckets in zip(windows, self.windows, strict=True):
            number = _bucket(window, at)
            buckets[number] = buckets.get(number, 0) + 1

    def take(self, windows: tuple[Window, ...], at: float) -> None:
        """Take one from the buckets of a time, if it is there."""
        for window, buckets in zip(windows, self.windows, strict=True):
            number = _bucket(window, at)
            left = buckets.pop(number, 0) - 1
            if left > 0:
                buckets[number] = left

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
    """Counts different members: when each was last seen."""

    __slots__ = ("members",)

    def __init__(self) -> None:
        self.members: dict[str, float] = {}

    def fits(self, charge: Charge) -> bool:
        """Return whether it can be the count of a charge."""
        return charge.kind >= 0 or bool(charge.member)

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
        seen = self.members.values()
        return tuple(sum(at > now - window.seconds for at in seen) for window in windows)

    def counts_with(
        self, windows: tuple[Window, ...], now: float, more: Collection[str]
    ) -> tuple[int, ...]:
        """Count what each window would hold if these members were seen now."""
        found = self.counts(windows, now)
        last = [self.members.get(member, -1.0) for member in more]
        return tuple(
            count + sum(seen <= now - window.seconds for seen in last)
            for count, window in zip(found, windows, strict=True)
        )

    def add(self, member: str, windows: tuple[Window, ...], at: float) -> None:
        """Add a member; beyond one more than the highest limit, that not seen for longest goes."""
        most = max(window.limit for window in windows)
        if member not in self.members and len(self.members) > most:
            del self.members[min(self.members, key=self.members.__getitem__)]
        self.members[member] = max(at, self.members.get(member, at))


Counter = PlainCount | DistinctCount

_FLIES: Final = Answer()

_ROUNDING: Final = 1e-6
"""Tries that a time since the epoch may be off by."""

_CLOCK: Final = 1.0
"""Seconds that a mark may be further ahead than it can be."""

_NOWHERE: Final[dict[str, Flight]] = {}


class MemoryStore:
    """Counts, flights and bans of this process.

    There are at most ``max_keys`` counts, marks and graces each, and ``max_bans`` bans: each has room of
    its own, so that no flood of counts drives a ban out. Flights are as many as their sessions.
    """

    def __init__(self, max_keys: int, max_bans: int, ban_memory: float) -> None:
        """Begin empty; ``ban_memory`` is how many seconds a ban is remembered behind its end."""
        self.counters: OrderedDict[str, Counter] = OrderedDict()
        self.marks: OrderedDict[str, float] = OrderedDict()
        self.graces: OrderedDict[str, float] = OrderedDict()
        self.all_bans: OrderedDict[str, Ban] = OrderedDict()
        self.flights: dict[str, dict[str, Flight]] = {}  # by place and id
        self.evicted = 0
        self._ban_changed: Callable[[str], None] = lambda key: None
        self.on_change: Callable[[list[Any]], None] = lambda change: None
        """Called with each ban and its end, as ``apply`` takes them, to have them kept."""
        self.on_settled: Callable[[Iterable[str]], None] = _unheard
        self._max_keys = max_keys
        self._max_bans = max_bans
        self._ban_memory = ban_memory

    @property
    def memory(self) -> "MemoryStore":
        """What is kept in this process: all of it."""
        return self

    # --- decisions --------------------------------------------------------------------------------------

    def attempt(self, attempt: Attempt, now: float) -> Answer:
        """Let an attempt fly, hold it or refuse it."""
        number = self._welcomed(attempt, now)
        welcome = number >= 0 or self._marked(attempt.welcome, now)
        if attempt.repeat is not None:
            (repeats,) = self._standing(attempt.repeat, now).counts
            again = self._again(attempt, now, repeats)
            if again > now:
                return Answer(
                    Fate.HELD, welcome=welcome, repeats=repeats, place=attempt.tries, again=again
                )
            if repeats:
                answer = Answer(welcome=welcome, repeats=repeats)
                self.take_off(attempt, answer)
                return answer
        if number >= 0:
            return self._within(number, attempt, now)
        return self._by_charges(attempt, welcome, now)

    def _by_charges(self, attempt: Attempt, welcome: bool, now: float) -> Answer:
        over: list[Over] = []
        trickled: list[int] = []
        held = refused = -1
        at_most = Tally(())
        for number, charge in enumerate(attempt.charges):
            counter = self._counter(charge)
            flights = self.flights.get(charge.place, _NOWHERE)
            if counter is None and len(flights) < charge.least:
                continue
            settled, possible = self._with(charge, counter, flights.values(), attempt, now)
            spared = charge.waived and welcome
            counts = charge.enforced and not spared
            if not exceeded(charge, settled):
                if counts and held < 0 and exceeded(charge, possible):
                    held, at_most = number, possible
            elif charge.trickle and not spared and not self._paced(charge, now):
                trickled.append(number)
            else:
                over.append(Over(number, settled))
                refused = number if counts else refused
        if refused >= 0:
            return Answer(Fate.REFUSED, tuple(over), welcome)
        if held >= 0:
            place = attempt.charges[held].place
            again = self._next_overdue(place, attempt.wait, now)
            return Answer(Fate.HELD, tuple(over), welcome, 0, place, held, at_most, again)
        answer = _flies(over, trickled, welcome)
        self.take_off(attempt, answer)
        return answer

    def _welcomed(self, attempt: Attempt, now: float) -> int:
        """Return the number of the first budget whose clients are welcome, -1 if none is."""
        for number, budget in enumerate(attempt.budgets):
            if self._marked(budget.mark, now):
                return number
        return -1

    def _within(self, number: int, attempt: Attempt, now: float) -> Answer:
        """Let an attempt fly if there are tries for it."""
        budget = attempt.budgets[number]
        flights = self.flights.get(budget.key, _NOWHERE).values()
        waiting = sum(now - flight.at < attempt.wait for flight in flights)
        overdue = len(flights) - waiting if attempt.overdue_fail else 0
        spent = self._spent(budget, now)
        failed = math.ceil(spent - _ROUNDING) + overdue + 1
        answer = Answer(welcome=True, budget=number)
        if failed > budget.size:
            return answer._replace(fate=Fate.REFUSED, possible=Tally((failed,)))
        if failed + waiting > budget.size:
            again = self._next_overdue(budget.key, attempt.wait, now)
            possible = Tally((failed + waiting,))
            return answer._replace(fate=Fate.HELD, place=budget.key, possible=possible, again=again)
        self.take_off(attempt, answer)
        return answer

    def _spent(self, budget: Budget, now: float) -> float:
        """Return how many tries of a budget are spent."""
        ahead = self.marks.get(budget.key, 0.0) - now
        if ahead > (budget.size + 1) * budget.seconds:
            # More than a budget holds: the clock was set back. One try is left, and more come with time.
            ahead = (budget.size - 1) * budget.seconds
            self.marks[budget.key] = now + ahead
        return max(0.0, ahead) / budget.seconds

    def flies_at_once(
        self, attempt: Attempt, keys: Iterable[str], rooms: Iterable[tuple[str, int]], now: float
    ) -> Answer | None:
        """Let an attempt fly of whose values little is known."""
        counters, flights = self.counters, self.flights
        for key in keys:
            if key in counters:
                return None
        for place, room in rooms:
            there = flights.get(place)
            if there is not None and len(there) >= room:
                return None
        answer = _FLIES
        number = self._welcomed(attempt, now)
        if number >= 0:
            key = attempt.budgets[number].key
            if key in self.marks or key in flights:
                return None
            answer = Answer(welcome=True, budget=number)
        self.take_off(attempt, answer)
        return answer

    def settle(self, settlement: Settlement, now: float) -> Settled:
        """Take what became of an attempt."""
        for at, charge in settlement.undone:
            self._undo(charge, at)
        for key in settlement.cleared:
            self.counters.pop(key, None)
        for charge in settlement.charges:
            self._add(charge, now)
        if settlement.spent is not None:
            budget = settlement.spent
            level = max(now, self.marks.get(budget.key, 0.0))
            self._mark(budget.key, level + budget.seconds)
        for mark, seconds in settlement.marks:
            self._mark(mark, now + seconds)
        asked = (*settlement.charges, *settlement.asked)
        tallies = tuple([self._standing(charge, now) for charge in asked])
        settled = Settled(tallies, self._marked(settlement.home, now))
        if settlement.flight is not None:
            self._lands(settlement.flight)
        return settled

    def announced(self, flight: Flight, wait: float) -> None:
        """Take an attempt for overdue."""
        places = [
            place for place in flight.places if flight.id in self.flights.get(place, _NOWHERE)
        ]
        overdue = flight._replace(at=flight.at - wait)
        for place in places:
            self.flights[place][flight.id] = overdue
        self.on_settled(places)

    def take_off(self, attempt: Attempt, answer: Answer) -> None:
        """Have an attempt in flight, where the answer says."""
        flights, flight = self.flights, attempt.flight
        for place in places_of(attempt, answer):
            there = flights.get(place)
            if there is None:
                flights[place] = {flight.id: flight}
            else:
                there[flight.id] = flight
        for number in answer.trickled:
            charge = attempt.charges[number]
            self._mark(trickle_mark(charge.key), flight.at + charge.trickle)

    def _lands(self, flight: Flight) -> None:
        flights, number = self.flights, flight.id
        for place in flight.places:
            there = flights.get(place)
            if there is not None and there.pop(number, None) is not None and not there:
                del flights[place]
        self.on_settled(flight.places)

    def _again(self, attempt: Attempt, now: float, repeats: int) -> float:
        """Return until when a password waits for the one before; 0 if it does not."""
        if not attempt.tries:
            return 0.0
        if attempt.tries in self.flights:
            again = self._next_overdue(attempt.tries, attempt.wait, now)
            if again > now:
                return again
        return self.marks.get(attempt.tries, 0.0) if repeats else 0.0

    def _next_overdue(self, place: str, wait: float, now: float) -> float:
        """Return when the next of those in flight at a place is overdue; 0 if none will be."""
        due = [flight.at + wait for flight in self.flights.get(place, _NOWHERE).values()]
        return min((at for at in due if at > now), default=0.0)

    def _with(
        self,
        charge: Charge,
        counter: Counter | None,
        flights: Iterable[Flight],
        attempt: Attempt,
        now: float,
    ) -> tuple[Tally, Tally]:
        """Count, with this charge, what has failed, and what has failed or may yet fail."""
        overdue: list[Flight] = []
        waiting: list[Flight] = []
        for flight in flights:
            (waiting if now - flight.at < attempt.wait else overdue).append(flight)
        if not attempt.overdue_fail:
            overdue = []
        windows, kind = charge.windows, charge.kind
        if kind < 0:
            counts = (0,) * len(windows) if counter is None else counter.counts(windows, now)
            failed = len(overdue) + 1
            return (
                Tally(tuple([count + failed for count in counts])),
                Tally(tuple([count + failed + len(waiting) for count in counts])),
            )
        distinct = counter if isinstance(counter, DistinctCount) else DistinctCount()
        members = {charge.member, *(flight.members[kind] for flight in overdue)} - {""}
        more = members.union(flight.members[kind] for flight in waiting) - {""}
        return (
            Tally(distinct.counts_with(windows, now, members)),
            Tally(distinct.counts_with(windows, now, more)),
        )

    def _paced(self, charge: Charge, now: float) -> bool:
        """Return whether one beyond the limit was let through a short time ago."""
        left = self.marks.get(trickle_mark(charge.key), 0.0) - now
        # What is further ahead was let through before the clock was set back.
        return 0 < left <= charge.trickle + _CLOCK

    def _counter(self, charge: Charge) -> Counter | None:
        """Return the count of a charge; one of another shape, which a damaged snapshot had, is dropped."""
        counter = self.counters.get(charge.key)
        if counter is None or counter.fits(charge):
            return counter
        del self.counters[charge.key]
        return None

    def _mark(self, mark: str, until: float) -> None:
        self.marks[mark] = until
        self.marks.move_to_end(mark)
        if len(self.marks) > self._max_keys:
            self.marks.popitem(last=False)

    def _marked(self, mark: str, now: float) -> bool:
        return bool(mark) and self.marks.get(mark, 0.0) > now

    def _standing(self, charge: Charge, now: float) -> Tally:
        counter = self._counter(charge)
        if counter is None:
            return Tally((0,) * len(charge.windows))
        counts = counter.counts(charge.windows, now)
        if charge.timed and isinstance(counter, DistinctCount):
            return Tally(counts, tuple([now - seen for seen in counter.members.values()]))
        return Tally(counts)

    def _add(self, charge: Charge, at: float) -> None:
        counter = self._counter(charge)
        if counter is None:
            if len(self.counters) >= self._max_keys:
                self._evict()
            if not charge.member:
                self.counters[charge.key] = PlainCount.of_one(charge.windows, at)
                return
            counter = self.counters[charge.key] = DistinctCount()
        else:
            self.counters.move_to_end(charge.key)
        if isinstance(counter, DistinctCount):
            counter.add(charge.member, charge.windows, at)
        else:
            counter.add(charge.windows, at)

    def _undo(self, charge: Charge, at: float) -> None:
        counter = self._counter(charge)
        if isinstance(counter, PlainCount):
            counter.take(charge.windows, at)
            if not counter.total():
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
        if not bans:
            return None
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
            self.drop_ban((over or oldest)[0].key)
        self.all_bans[ban.key] = ban
        self.all_bans.move_to_end(ban.key)
        self._ban_changed(ban.key)
        self.on_change(["ban", *row(ban)])

    def drop_ban(self, key: str) -> None:
        """Forget a ban, if there is one."""
        if self.all_bans.pop(key, None) is not None:
            self._ban_changed(key)

    def unban(self, key: str, cleared: Sequence[str], grace_until: float, now: float) -> bool:
        """End a ban, clear counts, and begin the grace; return whether there was one."""
        was = self.ban_of((key,), now)
        self.drop_ban(key)
        for each in cleared:
            self.counters.pop(each, None)
        self.graces[key] = grace_until
        self.graces.move_to_end(key)
        if len(self.graces) > self._max_keys:
            self.graces.popitem(last=False)
        self.on_change(["unban", key, list(cleared), grace_until])
        return was is not None

    def in_grace(self, key: str, now: float) -> bool:
        """Return whether a ban of this key was taken back a short time ago."""
        return self.graces.get(key, 0.0) > now

    def bans(self, now: float) -> list[Ban]:
        """List the bans in force."""
        return [ban for ban in self.all_bans.values() if _in_force(ban, now)]

    def watch_bans(self, changed: Callable[[str], None]) -> None:
        """Call this with the key of each ban that begins, is replaced, or ends before its time."""
        self._ban_changed = changed

    # --- to and from a snapshot -------------------------------------------------------------------------

    def dump(self, secrets: bool) -> dict[str, Iterable[Any]]:
        """Return all that is worth keeping, as JSON has it, without what is in flight.

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
            "marks": [(mark, min(until, LATEST)) for mark, until in self.marks.items()],
            "graces": [(key, min(until, LATEST)) for key, until in self.graces.items()],
            "bans": (row(ban) for ban in bans),
        }

    def load(self, found: dict[str, Any]) -> None:
        """Take what ``dump`` returned. Raises LookupError, TypeError or ValueError for anything else."""
        counters: OrderedDict[str, Counter] = OrderedDict()
        for key, kind, held in found["counters"][-self._max_keys :]:
            counters[text(key)] = _loaded(kind, held)
        marks, graces = (
            OrderedDict(
                (text(key), instant(until)) for key, until in found[name][-self._max_keys :]
            )
            for name in ("marks", "graces")
        )
        bans = [ban_of_row(each) for each in found["bans"][-self._max_bans :]]
        self.counters, self.marks, self.graces = counters, marks, graces
        self.all_bans = OrderedDict((ban.key, ban) for ban in bans)

    def apply(self, change: list[Any], now: float) -> None:
        """Take what ``on_change`` was called with. Raises TypeError or ValueError for anything else."""
        if change[0] == "ban":
            self.ban(ban_of_row(change[1:]), now)
            return
        _, key, cleared, grace_until = change
        names = [text(each) for each in cleared]
        self.unban(text(key), names, instant(grace_until), now)


def _unheard(places: Iterable[str]) -> None:
    """Take a notice that nobody waits for."""


def _flies(over: Sequence[Over], trickled: Sequence[int], welcome: bool) -> Answer:
    if not (over or trickled or welcome):
        return _FLIES
    return Answer(Fate.FLIES, tuple(over), welcome, trickled=tuple(trickled))


def _in_force(ban: Ban, now: float) -> bool:
    """Return whether a ban is neither removed, nor over, nor of a time from which the clock was set back."""
    return ban.times > 0 and 0 < ban.until - now <= 2 * (ban.until - ban.since)


def _dumped(counter: Counter) -> tuple[str, Any]:
    # Each copy is one step to other threads.
    if isinstance(counter, DistinctCount):
        return "distinct", [[member, at] for member, at in counter.members.copy().items()]
    return "plain", [sorted(buckets.copy().items(), reverse=True) for buckets in counter.windows]


def _loaded(kind: str, held: Any) -> Counter:
    if kind == "distinct":
        distinct = DistinctCount()
        distinct.members = {text(member): instant(at) for member, at in held}
        return distinct
    if kind != "plain" or not held:
        raise ValueError
    return PlainCount([dict(map(_bucket_of_row, buckets)) for buckets in held])


def _bucket_of_row(found: Any) -> tuple[int, int]:
    which, count = found
    return whole(which), whole(count, least=1)
