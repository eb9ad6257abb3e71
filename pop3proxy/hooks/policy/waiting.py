"""Where attempts wait that the store holds, until it lets them fly or refuses them; no reactor and no clock.

Time comes with each call, so that old traffic waits in its own time. What is held counts nowhere. When
something has settled at a place, those that wait there are asked about again, one after the other in the
order in which they came. One that now waits for another place keeps none behind it from being asked.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from .store import Answer, Attempt, Fate

HELD_AT_ONE: Final = 100
"""Attempts that are held at a time for one address, or for one other place: each holds a session."""

HELD_IN_ALL: Final = 2_000
"""Attempts that are held at a time."""

_MOST_ALARMS: Final = 4 * HELD_IN_ALL
"""Alarms from which on those are dropped whose attempts wait no longer."""

Ask = Callable[[Attempt, float], "Answer | Deferred[Answer]"]


class Waiter(NamedTuple):
    """Who waits: the key of the client's address, the session, and which of its attempts."""

    home: str
    session: str
    attempt: Hashable = 0


class _Held:
    """An attempt that waits: where, until when at the most, and when it is asked about next."""

    __slots__ = (
        *("again", "answered", "asking", "attempt", "deadline"),
        *("missed", "number", "place", "waiter"),
    )

    def __init__(self, number: int, attempt: Attempt, waiter: Waiter, deadline: float) -> None:
        self.number = number
        self.attempt = attempt
        self.waiter = waiter
        self.deadline = deadline
        self.answered: Deferred[Answer] | None = None
        self.place = ""
        self.again = math.inf
        self.asking = False
        self.missed = False  # a notice came while it was asked about


class WaitingRoom:
    """All attempts that are held.

    ``due`` is the next time at which ``tick`` is to be called, infinite if there is none. ``on_due`` is
    called with it and with the time that it is now, whenever it has changed.
    """

    def __init__(self, ask: Ask, unwanted: Callable[[Attempt], None], wait: float) -> None:
        """Take what asks the store, what takes a flight back, and the seconds that one is held at most."""
        self.due = math.inf
        self.on_due: Callable[[float, float], None] = _unscheduled
        self._ask = ask
        self._unwanted = unwanted
        self._wait = wait
        self._held: dict[int, _Held] = {}
        self._at: dict[str, dict[int, _Held]] = {}
        self._by_session: dict[str, dict[int, _Held]] = {}
        self._crowd: Counter[str] = Counter()  # of those held, by address and by place
        self._alarms: list[tuple[float, int]] = []
        self._asking: set[str] = (
            set()
        )  # places that are gone through, perhaps while a store takes its time
        self._missed: set[str] = set()  # of those, where something has settled since
        self._last = 0

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._held)

    def held_at(self, place: str) -> int:
        """Return how many are held for a place or address."""
        return self._crowd[place]

    def hold(
        self, attempt: Attempt, waiter: Waiter, answer: Answer, now: float
    ) -> "Answer | Deferred[Answer]":
        """Hold an attempt until the store says otherwise.

        What comes is the store's last answer, which is HELD if there is no room, or if it took too long. A
        Deferred that is cancelled is asked about no more.
        """
        crowded = any(
            self._crowd[place] >= HELD_AT_ONE for place in (waiter.home, answer.place) if place
        )
        if crowded or len(self._held) >= HELD_IN_ALL:
            return answer
        self._last += 1
        one = _Held(self._last, attempt, waiter, now + self._wait)
        one.answered = Deferred(lambda _: self._remove(one))
        self._held[one.number] = one
        self._by_session.setdefault(waiter.session, {})[one.number] = one
        if waiter.home:
            self._crowd[waiter.home] += 1
        self._goes_to(one, answer, now)
        return one.answered

    def leave(self, session: str) -> None:
        """Forget what is held of a session that has ended."""
        for one in list(self._by_session.get(session, {}).values()):
            self._remove(one)

    def answered(self, session: str, attempt: Hashable) -> None:
        """Forget an attempt that has its answer though it was held: in old traffic it was not."""
        for one in self._by_session.get(session, {}).values():
            if one.waiter.attempt == attempt:
                self._remove(one)
                return

    def settled(self, places: Iterable[str], now: float) -> None:
        """Ask again about those that wait at these places."""
        if not self._held:
            return
        for place in places:
            if place in self._asking:
                self._missed.add(place)
            elif place in self._at:
                Deferred.fromCoroutine(self._go_through(place, now))

    def tick(self, now: float) -> None:
        """Ask again about those whose time has come."""
        numbers = set()
        while self._alarms and self._alarms[0][0] <= now:
            numbers.add(heappop(self._alarms)[1])
        for number in sorted(numbers):
            one = self._held.get(number)
            if one is not None and not one.asking:
                Deferred.fromCoroutine(self._ask_about(one, now))
        self._set_due(now)

    # --- the parts --------------------------------------------------------------------------------------

    async def _go_through(self, place: str, now: float) -> None:
        """Ask about those that wait at a place, and once more if something settled there meanwhile."""
        self._asking.add(place)
        try:
            while place in self._at:
                self._missed.discard(place)
                await self._ask_in_order(place, sorted(self._at[place]), now)
                if place not in self._missed:
                    return
        finally:
            self._asking.discard(place)
            self._missed.discard(place)

    async def _ask_in_order(self, place: str, numbers: Iterable[int], now: float) -> None:
        """Ask about those that wait at a place, up to one that shows that there is no room for any."""
        for number in numbers:
            one = self._held.get(number)
            if one is None or one.place != place:
                continue
            if one.asking:
                one.missed = True
                continue
            answer = await self._ask_about(one, now)
            if answer.place == place and _holds_all(one.attempt, answer):
                return

    async def _ask_about(self, one: _Held, now: float) -> Answer:
        """Ask, and do as the store says."""
        one.asking = True
        while True:
            one.missed = False
            answer = self._ask(one.attempt, now)
            if isinstance(answer, Deferred):
                answer = await answer
            if not (one.missed and answer.fate is Fate.HELD and one.number in self._held):
                break
        one.asking = False
        if one.number not in self._held:
            if answer.fate is Fate.FLIES:
                self._unwanted(one.attempt)
        elif answer.fate is not Fate.HELD or now >= one.deadline:
            self._done(one, answer)
        else:
            self._goes_to(one, answer, now)
        return answer

    def _goes_to(self, one: _Held, answer: Answer, now: float) -> None:
        """Wait at the place that the store names, if there is room."""
        if answer.place != one.place:
            if one.place and self._crowd[answer.place] >= HELD_AT_ONE:
                self._done(one, answer)
                return
            self._leave_place(one)
            one.place = answer.place
            self._at.setdefault(one.place, {})[one.number] = one
            if one.place != one.waiter.home:
                self._crowd[one.place] += 1
        when = min(answer.again, one.deadline) if answer.again > now else one.deadline
        if when < one.again or one.again <= now:
            one.again = when
            heappush(self._alarms, (when, one.number))
            self._set_due(now)

    def _done(self, one: _Held, answer: Answer) -> None:
        self._remove(one)
        assert one.answered is not None
        one.answered.callback(answer)

    def _remove(self, one: _Held) -> None:
        if self._held.pop(one.number, None) is None:
            return
        self._leave_place(one)
        home, session, _ = one.waiter
        if home:
            self._count_down(home)
        of_session = self._by_session[session]
        del of_session[one.number]
        if not of_session:
            del self._by_session[session]
        if not self._held:
            self._set_due(0.0)

    def _leave_place(self, one: _Held) -> None:
        place, one.place = one.place, ""
        if not place:
            return
        there = self._at[place]
        del there[one.number]
        if not there:
            del self._at[place]
        if place != one.waiter.home:
            self._count_down(place)

    def _count_down(self, key: str) -> None:
        self._crowd[key] -= 1
        if not self._crowd[key]:
            del self._crowd[key]

    def _set_due(self, now: float) -> None:
        """Find the next alarm; alarms of those who wait no longer are harmless, and dropped in time."""
        if not self._held:
            self._alarms.clear()
        elif len(self._alarms) > _MOST_ALARMS:
            self._alarms = [alarm for alarm in self._alarms if alarm[1] in self._held]
            heapify(self._alarms)
        due = self._alarms[0][0] if self._alarms else math.inf
        if due != self.due:
            self.due = due
            self.on_due(due, now)


def _holds_all(attempt: Attempt, answer: Answer) -> bool:
    """Return whether what holds an attempt holds every other that waits there: it counts all alike."""
    if answer.fate is not Fate.HELD:
        return False
    return answer.held_by < 0 or attempt.charges[answer.held_by].kind < 0


def _unscheduled(due: float, now: float) -> None:
    """Take an alarm where time comes by itself."""
