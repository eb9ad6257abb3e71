"""Keeps on disk what was decided since the last snapshot; what a record means is not known here.

Records that are written together are one line: a checksum, the number of the first record, and the records as
JSON. Only the last line can be torn, by a kill or a loss of power, since each is on disk before the next is
written; nothing that is in a torn line was acknowledged, so it is dropped.
"""

import json
import os
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .snapshot import SnapshotError, sync_folder

HEAD: Final = b"pop3proxy journal 1\n"
"""The first line; the number is raised when the form of the others changes."""

FULL: Final = 16 * 1024 * 1024
"""Bytes from which on a snapshot is asked for, which empties the journal; twice as many are the most."""

WITHIN: Final = 0.25
"""Seconds in which records wait for others, if no command waits for them to be on disk."""

RETRY: Final = 1.0
"""Seconds until records that could not be written are tried again."""

MAX_BATCH: Final = 4096
"""Records that are written at once."""

MAX_QUEUED: Final = 100_000
"""Records that wait while the file cannot be written; of more the oldest are left to the next snapshot."""

SAID_EVERY: Final = 60.0
"""Seconds between two lines of the log about a file that cannot be written."""

_TOO_MANY: Final = "policy.snapshot: more is decided than the disk takes; the next snapshot has it"

Numbered = tuple[int, bytes]
"""A record as JSON, and its number."""

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class JournalFile:
    """The file; its methods are called in any thread, and wait for the disk."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = Lock()
        self._file = -1
        self.size = 0
        """Bytes that are whole and on disk."""

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield the records and their numbers, and leave out a torn last line. Raises SnapshotError."""
        try:
            found = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as problem:
            raise self._error("read", problem, "make it readable") from None
        head, *lines = found.split(b"\n")
        torn = lines.pop() if lines else b""
        if lines and not torn and _records(lines[-1]) is None:
            lines.pop()  # its end came to the disk before its beginning
        if head + b"\n" != HEAD:
            raise self._damaged(1)
        for number, line in enumerate(lines, 2):
            records = _records(line)
            if records is None:
                raise self._damaged(number)
            yield from records

    def append(self, batch: list[Numbered]) -> None:
        """Write records and wait until they are on disk: all of them, or none. Raises SnapshotError."""
        with self._lock:
            line = _line(batch)
            try:
                if self._file < 0:
                    self._open()
                if self.size + len(line) > 2 * FULL:
                    raise OSError(27, "it is full, as no snapshot empties it")
                _write(self._file, line)
                os.fsync(self._file)
            except OSError as problem:
                self._cut()
                raise self._error("write", problem, "make room for it") from None
            self.size += len(line)

    def drop(self, through: int) -> None:
        """Leave out the records up to a number, which a snapshot has. Raises SnapshotError."""
        with self._lock:
            try:
                self._replace(HEAD + b"".join(self._behind(through)))
            except OSError as problem:
                raise self._error("write", problem, "make its folder writable") from None
            finally:
                self._close()

    def close(self) -> None:
        """Close the file; what is appended later opens it again."""
        with self._lock:
            self._close()

    def _behind(self, through: int) -> Iterator[bytes]:
        """Yield the lines that hold later records, as far as they are whole."""
        try:
            found = self._path.read_bytes()[: self.size or None]
        except OSError:
            return
        for line in found.split(b"\n")[1:-1]:
            records = _records(line)
            if records and records[-1][0] > through:
                yield line + b"\n"

    def _open(self) -> None:
        """Open the file behind what is whole in it."""
        if not self._path.exists():
            self._replace(HEAD)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        if self.size:
            os.ftruncate(self._file, self.size)
        else:
            self.size = os.fstat(self._file).st_size

    def _replace(self, content: bytes) -> None:
        """Put another file in place of this one; a kill at any moment leaves one of the two."""
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            temporary.unlink(missing_ok=True)
            # Only the owner reads it: it names people.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _write(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, self._path)
            sync_folder(self._path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _cut(self) -> None:
        """Take off what was written in part; opened again, it is looked after then."""
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, self.size)
            with suppress(OSError):
                os.close(self._file)
            self._file = -1

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self.size = -1, 0

    def _error(self, what: str, problem: OSError, remedy: str) -> SnapshotError:
        why = problem.strerror or type(problem).__name__
        return SnapshotError(f"policy.snapshot: cannot {what} {self._path}: {why}; {remedy}")

    def _damaged(self, line: int) -> SnapshotError:
        return SnapshotError(
            f"policy.snapshot: {self._path} is damaged in line {line}; move it away:"
            " bans that it has and the snapshot has not are lost"
        )


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _line(batch: list[Numbered]) -> bytes:
    """Write records as one line. A line has no end inside it: JSON escapes that."""
    first = batch[0][0]
    text = b"%d [%b]" % (first, b",".join(record for _, record in batch))
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _records(line: bytes) -> list[tuple[int, Any]] | None:
    """Read a line; None if it is not whole."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    first, _, found = text.partition(b" ")
    try:
        return list(enumerate(json.loads(found), int(first)))
    except (ValueError, TypeError, RecursionError):
        return None


class Journal:
    """Takes records, and has them written in another thread, many at once.

    ``on_full`` is called when it is time for a snapshot. ``counts`` has what is worth knowing.
    """

    _log: ClassVar[Logger] = Logger(namespace="pop3proxy.hooks.policy")

    def __init__(
        self,
        file: JournalFile,
        aside: Callable[[Callable[[], None]], "Deferred[None]"],
        counts: Counter[str],
    ) -> None:
        """Take the file, and what runs a function in another thread."""
        self._file = file
        self._aside = aside
        self._counts = counts
        self.on_full: Callable[[], None] = lambda: None
        self.last = 0
        """The number of the last record."""
        self._reactor: Any = None
        self._queue: deque[Numbered] = deque()
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()
        self._writing = False
        self._stopped = False
        self._timer: Any = None
        self._said = -SAID_EVERY

    def start(self, reactor: Any, last: int) -> None:
        """Begin behind the number of a record that is kept."""
        self._reactor = reactor
        self.last = last

    def stop(self) -> None:
        """Write no more; a last snapshot has it all."""
        self._stopped = True
        self._cancel()
        self._queue.clear()
        self._file.close()

    def record(self, record: list[Any]) -> None:
        """Have a record on disk soon: within a second, unless the disk takes longer."""
        self.last += 1
        self._queue.append((self.last, _encode(record).encode("ascii")))
        if len(self._queue) > MAX_QUEUED:
            dropped, _ = self._queue.popleft()
            self._counts["journal_dropped"] += 1
            # Those that wait for it wait for all before theirs.
            while self._waiting and self._waiting[-1][0] >= dropped:
                self._waiting.pop()[1].errback(Failure(SnapshotError(_TOO_MANY)))
        self._flush_in(WITHIN)

    def kept(self) -> "Deferred[None]":
        """Return what fires once all records so far are on disk, or fails with SnapshotError."""
        fired: Deferred[None] = Deferred()
        if not self._queue and not self._writing:
            fired.callback(None)
            return fired
        self._waiting.append((self.last, fired))
        self._cancel()
        self._flush()
        return fired

    def covered(self, through: int) -> None:
        """Forget the records up to a number: a snapshot on disk has them."""
        while self._queue and self._queue[0][0] <= through:
            self._queue.popleft()
        self._fire(through)

    def _flush_in(self, seconds: float) -> None:
        if self._timer is None and not self._writing and not self._stopped:
            self._timer = self._reactor.callLater(seconds, self._flush)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _flush(self) -> None:
        self._timer = None
        if self._writing or not self._queue:
            return
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), MAX_BATCH))]
        self._writing = True
        written = self._aside(lambda: self._file.append(batch))
        written.addCallbacks(self._written, self._not_written, (batch,), errbackArgs=(batch,))

    def _written(self, _: object, batch: list[Numbered]) -> None:
        self._writing = False
        self._fire(batch[-1][0])
        if self._file.size >= FULL:
            self.on_full()
        self._go_on(WITHIN)

    def _not_written(self, failure: Failure, batch: list[Numbered]) -> None:
        failure.trap(SnapshotError)
        self._writing = False
        self._queue.extendleft(reversed(batch))
        self._counts["journal_failed"] += 1
        now = self._reactor.seconds()
        if now - self._said >= SAID_EVERY:
            self._said = now
            self._log.error("{problem}", problem=str(failure.value))
        while self._waiting and self._waiting[0][0] <= batch[-1][0]:
            self._waiting.popleft()[1].errback(failure)
        self._flush_in(RETRY)

    def _fire(self, through: int) -> None:
        while self._waiting and self._waiting[0][0] <= through:
            self._waiting.popleft()[1].callback(None)

    def _go_on(self, seconds: float) -> None:
        if self._waiting:
            self._flush()
        elif self._queue:
            self._flush_in(seconds)
