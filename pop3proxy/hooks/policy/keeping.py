"""Has counts and bans survive a restart or a kill: a snapshot at intervals, a journal of what came since."""

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import snapshot
from .allowances import Allowances
from .journal import Journal, JournalFile
from .memory import MemoryStore

EARLY: Final = 10.0
"""Seconds that are left between two snapshots that a full journal asks for."""

Aside = Callable[[Callable[[], None]], Deferred[None]]
"""Runs a function while logins go on."""


def _in_a_thread(work: Callable[[], None]) -> Deferred[None]:
    return deferToThread(work)


class Keeper:
    """Keeps what a store in memory holds, and what is allowed by command, in a snapshot and a journal.

    The journal has what was decided since the snapshot began, by number; the snapshot has the number that it
    includes, so that nothing is applied twice.
    """

    _log: ClassVar[Logger] = Logger(namespace="pop3proxy.hooks.policy")

    def __init__(
        self,
        store: MemoryStore,
        allowances: Allowances,
        path: str,
        interval: float,
        secrets: bool,
        counts: Counter[str],
        aside: Aside = _in_a_thread,
    ) -> None:
        """Take what is kept, and where; ``secrets`` keeps what comes from passwords, too.

        ``aside`` runs what waits for the disk.
        """
        self._aside = aside
        self._store = store
        self._allowances = allowances
        self._path = path
        self._interval = interval
        self._secrets = secrets
        self._counts = counts
        self._file = JournalFile(f"{path}.journal")
        self._journal = Journal(self._file, aside, counts)
        self._journal.on_full = self._early
        self._snapshots = LoopingCall(self._save)
        self._lock = Lock()
        self._reactor: Any = None
        self._saving = False
        self._saved = -EARLY

    def start(self, reactor: Any, now: float) -> None:
        """Load what is there, and write it again: that a file cannot be written is better found now.

        Raises SnapshotError.
        """
        self._reactor = reactor
        found = snapshot.contents(self._store, self._allowances, self._path) or {}
        last: int = found.get(snapshot.JOURNAL, [0])[0]
        for number, record in self._file.read():
            if number > last:
                self._apply(record, now)
                last = number
        self._journal.start(reactor, last)
        self._snapshot()()
        self._store.on_change = self._allowances.on_change = self._journal.record
        self._snapshots.clock = reactor
        self._snapshots.start(self._interval, now=False)

    def stop(self) -> None:
        """Write a last snapshot."""
        if not self._snapshots.running:
            return
        self._snapshots.stop()
        through = self._journal.last
        try:
            self._snapshot()()
        except snapshot.SnapshotError as problem:
            self._not_saved(problem)
        else:
            self._journal.covered(through)
        self._journal.stop()

    def kept(self) -> "Deferred[None]":
        """Return what fires once all that was decided so far is on disk, or fails with SnapshotError."""
        return self._journal.kept()

    def _apply(self, record: Any, now: float) -> None:
        try:
            kept = self._allowances if record[0] in ("allow", "disallow") else self._store
            kept.apply(record, now)
        except (LookupError, TypeError, ValueError):
            raise snapshot.SnapshotError(
                f"policy.snapshot: {self._path}.journal has a record of another version, or a damaged one;"
                " move it away: bans that it has and the snapshot has not are lost"
            ) from None

    def _early(self) -> None:
        """Write a snapshot before its time, since the journal is full."""
        if self._reactor.seconds() - self._saved >= EARLY:
            self._save()

    def _save(self) -> "Deferred[None] | None":
        """Write a snapshot, aside: a large one takes seconds, in which logins go on."""
        if self._saving:
            return None
        self._saving, self._saved = True, self._reactor.seconds()
        through = self._journal.last

        def saved(_: object) -> None:
            self._saving = False
            self._journal.covered(through)

        def failed(failure: Failure) -> None:
            self._saving = False
            failure.trap(snapshot.SnapshotError)
            self._not_saved(failure.value)

        return self._aside(self._snapshot()).addCallbacks(saved, failed)

    def _snapshot(self) -> Callable[[], None]:
        """Return what writes a snapshot of now, and then empties the journal of what is in it."""
        through = self._journal.last
        held = {
            **self._store.dump(self._secrets),
            snapshot.ALLOWED: self._allowances.rows(),
            snapshot.JOURNAL: [through],
        }
        write = snapshot.writing(held, self._path, self._lock)

        def save() -> None:
            write()
            self._file.drop(through)

        return save

    def _not_saved(self, problem: object) -> None:
        self._counts["snapshot_failed"] += 1
        self._log.error("{problem}", problem=str(problem))
