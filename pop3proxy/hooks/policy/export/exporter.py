"""Gathers changes of bans, and hands them out: one export at a time, and at most one that waits behind it."""

import heapq
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..store import Store
from .nftset import Network
from .outlet import Export, Outlet
from .trouble import ExportTrouble

MAX_CHANGED: Final = 10_000
"""Changed bans that are remembered one by one; beyond that all bans are exported."""

RETRY: Final = 10.0
"""Seconds after which an export that failed is tried again, with all bans."""

SAID_EVERY: Final = 60.0
"""Seconds between two lines about exports that fail."""

LOOK: Final = 60.0
"""Seconds in which a clock that was set is noticed, and the end of an allowance."""

EXPORTED: Final = ("address:", "network:")
"""What the keys of bans begin with that a firewall can know anything of."""

_SPARE: Final = 1024
"""Outdated ends that may lie about before all are written again."""


class _State(Enum):
    IDLE = auto()
    GATHERING = auto()
    EXPORTING = auto()
    STOPPED = auto()


InThread = Callable[[Callable[[Export], None], Export], "Deferred[None]"]


class Exporter:
    """Hears which bans change, and exports them; no login ever waits for it.

    ``exported`` and ``export_failed`` are counted.
    """

    _log: ClassVar[Logger] = Logger(namespace="pop3proxy.hooks.policy")

    def __init__(
        self,
        outlet: Outlet,
        interval: float,
        store: Store,
        counts: Counter[str],
        clock: Callable[[], float] = time.time,
        in_thread: InThread = deferToThread,
        allowed: Callable[[], tuple[Network, ...]] = tuple,
    ) -> None:
        """``interval`` is how many seconds changes are gathered; ``clock`` says the time of bans.

        ``allowed`` returns the networks that are not banned now, besides those of the configuration.
        """
        self._outlet = outlet
        self._interval = interval
        self._store = store
        self._counts = counts
        self._clock = clock
        self._in_thread = in_thread
        self._allowed = allowed
        self._was_allowed: tuple[Network, ...] = ()
        self._reactor: Any = None
        self._state = _State.IDLE
        self._timer: Any = None
        # Keys whose bans have changed, in order; None if all are to be exported.
        self._changed: dict[str, None] | None = None
        self._held: dict[str, float] = {}
        self._ends: list[tuple[float, str]] = []
        self._failing = False
        self._said = -SAID_EVERY

    # --- start and stop ---------------------------------------------------------------------------------

    def start(self, reactor: Any) -> None:
        """Write the file, and export all bans. Raises ExportTrouble if that cannot work."""
        self._reactor = reactor
        self._outlet.check(self._gathered())
        self._changed = None
        self._store.watch_bans(self.changed)
        self._export()

    def stop(self) -> None:
        """Export no more; what is exported at the next start is all that is in force then."""
        self._state = _State.STOPPED
        self._cancel_timer()
        self._outlet.end()

    # --- what is heard ----------------------------------------------------------------------------------

    def changed(self, key: str) -> None:
        """Note that the ban of a key has begun, changed or ended."""
        if not key.startswith(EXPORTED):
            return
        if self._changed is not None:
            self._changed[key] = None
            if len(self._changed) > MAX_CHANGED:
                self._changed = None
        if self._state is _State.IDLE:
            self._gather(self._interval)

    def look_at_allowed(self) -> None:
        """Export all bans if other networks are allowed than were at the last export."""
        if self._allowed() != self._was_allowed:
            self._changed = None
            if self._state is _State.IDLE:
                self._gather(self._interval)

    def _gather(self, seconds: float) -> None:
        """Export after so many seconds what has changed until then."""
        self._state = _State.GATHERING
        self._set_timer(seconds, self._export)

    # --- one export -------------------------------------------------------------------------------------

    def _export(self) -> None:
        self._state = _State.EXPORTING
        self._cancel_timer()
        export = self._gathered()
        done = self._in_thread(self._outlet.hand_out, export)
        done.addCallbacks(self._was_exported, self._not_exported)
        done.addErrback(self._broken)
        done.addCallback(lambda _: self._go_on())

    def _gathered(self) -> Export:
        """Find out how the bans stand, and take that for handed out."""
        now, keys, allowed = self._clock(), self._changed, self._allowed()
        if allowed != self._was_allowed:
            keys, self._was_allowed = None, allowed
        self._changed = {}
        if keys is None:
            bans = self._store.bans(now)
            self._held = {ban.key: ban.until for ban in bans if ban.key.startswith(EXPORTED)}
            self._order_ends()
            changes = self._held.copy()
        else:
            changes = {key: self._held.get(key, 0.0) for key in keys if self._has_changed(key, now)}
        return Export(changes, self._held.copy(), keys is None, now, allowed)

    def _has_changed(self, key: str, now: float) -> bool:
        """Compare a ban with what was handed out of it, and take it for handed out."""
        ban, held = self._store.ban_of((key,), now), self._held.get(key)
        if ban is None:
            self._held.pop(key, None)
            return held is not None
        self._held[key] = ban.until
        self._note_end(ban.until, key)
        return ban.until != held

    def _was_exported(self, _: object) -> None:
        self._counts["exported"] += 1
        if self._failing:
            self._failing = False
            self._log.info("bans are exported again")

    def _not_exported(self, failure: Failure) -> None:
        failure.trap(ExportTrouble)
        self._failed(str(failure.value))

    def _broken(self, failure: Failure) -> None:
        self._log.failure("exporting bans failed", failure)
        self._failed("an error in the proxy; report it")

    def _failed(self, why: str) -> None:
        """Say it; the next export has all bans, as what was taken is not known."""
        if self._state is _State.STOPPED:
            return
        self._counts["export_failed"] += 1
        self._changed = None
        now = self._reactor.seconds()
        if not self._failing or now - self._said >= SAID_EVERY:
            self._said = now
            self._log.error(
                "bans are not exported: {why}; it is tried again each {seconds:.0f} s",
                why=why.rstrip("."),
                seconds=RETRY,
            )
        self._failing = True

    def _go_on(self) -> None:
        """Wait to try again, for further changes, or for the end of a ban."""
        if self._state is _State.STOPPED:
            return
        if self._failing:
            self._gather(RETRY)
        elif self._changed is None or self._changed:
            self._gather(self._interval)
        else:
            self._state = _State.IDLE
            self._wait_for_ends()

    # --- the ends of bans -------------------------------------------------------------------------------

    def _note_end(self, until: float, key: str) -> None:
        heapq.heappush(self._ends, (until, key))
        if len(self._ends) > 2 * len(self._held) + _SPARE:
            self._order_ends()

    def _order_ends(self) -> None:
        self._ends = [(until, key) for key, until in self._held.items()]
        heapq.heapify(self._ends)

    def _wait_for_ends(self) -> None:
        if self._ends:
            left = self._ends[0][0] - self._clock()
            self._set_timer(min(max(0.0, left), LOOK), self._look_at_ends)

    def _look_at_ends(self) -> None:
        now, ended = self._clock(), False
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            if self._held.get(key, now + 1) <= now:
                self.changed(key)
                ended = True
        if not ended:
            self.look_at_allowed()
        if self._state is _State.IDLE:
            self._wait_for_ends()

    # --- the timer --------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._reactor.callLater(seconds, act)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
