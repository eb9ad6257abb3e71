"""Moves old records from JSON Lines to Parquet, one file a day, each verified before its original is removed.

A day's file is written beside its place, read back, compared and renamed. It remembers the originals that are
in it, so that a run that was cut off before an original was removed does not add it twice.
"""

import fcntl
import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from .columns import COLUMNS, FIRST_TIME, LAST_TIME, literal, quoted
from .database import Database
from .log import MAX_LINE, UNREADABLE, json_columns
from .problems import EngineError, ReportError
from .sources import Kind, Source, find, is_events_name

DAY_FILE: Final = "pop3-{day}.parquet"
_DAY_NAME: Final = re.compile(r"pop3-(\d{4}-\d\d-\d\d)\.parquet")

_ORIGINALS: Final = "pop3proxy.originals"
"""Where a day's file keeps the digests of the originals that are in it."""

_READ_AT_ONCE: Final = 1024 * 1024

# The owner writes, the group reads, as with the live file: the records name people.
_UMASK: Final = 0o027

Tell = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a run did. ``kept`` are files that should have been archived and could not be."""

    archived: int = 0
    records: int = 0
    kept: int = 0
    removed: int = 0


class _Kept(Exception):
    """An original stays where it is; the text says why and what to do."""


class Archive:
    """The files of events of one folder."""

    def __init__(self, folder: Path, database: Database, now: datetime, tell: Tell) -> None:
        """Take the folder; ``tell`` receives a line for each file that is moved, removed or kept."""
        self.outcome = Outcome()
        self._folder = folder
        self._database = database
        self._now = now
        self._tell = tell
        database.set_zone("UTC")

    def run(self, older_than: timedelta, keep: timedelta | None) -> None:
        """Archive the files whose records are all older, and remove days that are kept no longer.

        Raises ReportError if the folder cannot be worked in at all.
        """
        with _alone(self._folder), _private():
            for left in self._folder.glob(".pop3-*.parquet.tmp"):
                left.unlink()
            for source in self._originals():
                self._archive(source, self._now - older_than)
            if keep is not None:
                self._remove(self._now - keep)

    def _originals(self) -> list[Source]:
        names = sorted(path for path in self._folder.iterdir() if is_events_name(path.name))
        files = [str(path) for path in names if path.is_file() and not path.is_symlink()]
        return [source for source in find(files) if source.kind is not Kind.PARQUET]

    def _archive(self, source: Source, before: datetime) -> None:
        path = Path(source.path)
        try:
            status = path.stat()
            if not status.st_size or status.st_mtime >= before.timestamp():
                return
            with _closed_elsewhere(path):
                if not self._read(source, before):
                    return
                digest = _digest(path)
                self._check(source)
                days, records = self._write_days(digest, status)
                # From here on nothing takes long, and nothing else opens a file that was closed before.
                if not _same(status, path.stat()):
                    raise _Kept("was written to meanwhile; it is archived by the next run")
                for beside, day in days:
                    beside.rename(day)
                self._keep_unreadable(source)
                _sync(self._folder)
                path.unlink()
        except (_Kept, EngineError, OSError) as problem:
            self.outcome.kept += 1
            why = problem.strerror if isinstance(problem, OSError) else problem
            self._tell(f"{path}: kept: {why}")
            return
        _sync(self._folder)
        self.outcome.archived += 1
        self.outcome.records += records
        self._tell(f"{path}: archived, {records} records")

    def _read(self, source: Source, before: datetime) -> bool:
        """Read an original into a table; return whether all of its records are old enough."""
        self._database.run(
            "CREATE OR REPLACE TEMP TABLE lines AS SELECT * EXCLUDE (filename),"
            f" {UNREADABLE} AS unreadable FROM ({json_columns([source.path], source.kind, tuple(COLUMNS))})"
        )
        ((last,),) = self._database.all_rows("SELECT max(ts) FROM lines WHERE NOT unreadable")
        if last is None:
            raise _Kept("has no records; move it away if it is no file of events")
        return bool(last < before.timestamp())

    def _check(self, source: Source) -> None:
        """Raise _Kept if a field of the original would not come through."""
        objects = (
            f"read_ndjson_objects({literal(source.path)}, ignore_errors = true,"
            f" compression = {literal(source.kind.value)}, maximum_object_size = {MAX_LINE})"
        )
        counted = self._database.all_rows(
            "SELECT key, count(*) FROM (SELECT unnest(json_keys(json)) AS key"
            f" FROM {objects} WHERE json_type(json) = 'OBJECT') GROUP BY key ORDER BY key"
        )
        columns = ", ".join(f"count({quoted(name)})" for name in COLUMNS)
        (values,) = self._database.all_rows(f"SELECT {columns} FROM lines")
        stored = dict(zip(COLUMNS, values, strict=True))
        for key, count in counted:
            if key not in stored:
                raise _Kept(
                    f"its records have the field {key!r}, which this version does not know; archive it"
                    " with the version that wrote it"
                )
            if stored[key] != count:
                raise _Kept(f"its records have the field {key} as another type than the schema has")

    def _write_days(
        self, digest: str, status: os.stat_result
    ) -> tuple[list[tuple[Path, Path]], int]:
        """Write the records of the table to files beside those of their days.

        Returns these files, each with the day's file that it is to replace, and how many records there are.
        """
        days = self._database.all_rows(
            "SELECT to_timestamp(ts)::DATE::VARCHAR AS day, count(*) FROM lines WHERE NOT unreadable"
            " GROUP BY day ORDER BY day"
        )
        written = [self._write_day(day, digest, status) for day, _ in days]
        return [pair for pair in written if pair is not None], sum(count for _, count in days)

    def _write_day(self, day: str, digest: str, status: os.stat_result) -> tuple[Path, Path] | None:
        """Write the file of a day, and compare; None if the day's file has these records already."""
        path = self._folder / DAY_FILE.format(day=day)
        beside = self._folder / f".{path.name}.tmp"
        columns = ", ".join(map(quoted, COLUMNS))
        rows = (
            f"SELECT {columns} FROM lines"
            f" WHERE NOT unreadable AND to_timestamp(ts)::DATE = {literal(day)}::DATE"
        )
        originals: list[str] = []
        if path.exists():
            originals = self._originals_in(path)
            if digest in originals:
                return None
            rows += f" UNION ALL SELECT {self._columns_in(path)} FROM read_parquet({literal(str(path))})"
        inside = json.dumps([*originals, digest])
        self._database.run(
            f"COPY (SELECT * FROM ({rows}) ORDER BY ts) TO {literal(str(beside))}"
            " (FORMAT parquet, COMPRESSION zstd,"
            f" KV_METADATA {{{quoted(_ORIGINALS)}: {literal(inside)}}})"
        )
        written = f"SELECT {columns} FROM read_parquet({literal(str(beside))})"
        if self._sum(rows) != self._sum(written):
            raise _Kept(f"{beside.name} does not hold what was written to it; check the disk")
        _take_over(beside, status)
        return beside, path

    def _sum(self, rows: str) -> tuple[int, int]:
        """Return how many rows there are, and a sum over all of their fields, in whatever order."""
        columns = ", ".join(map(quoted, COLUMNS))
        (found,) = self._database.all_rows(
            f"SELECT count(*), coalesce(sum(hash({columns})::HUGEINT), 0) FROM ({rows})"
        )
        return int(found[0]), int(found[1])

    def _originals_in(self, path: Path) -> list[str]:
        rows = self._database.all_rows(
            f"SELECT decode(value) FROM parquet_kv_metadata({literal(str(path))})"
            f" WHERE decode(key) = {literal(_ORIGINALS)}"
        )
        if not rows:
            raise _Kept(f"{path.name} was written by another program; move it away")
        return list(json.loads(rows[0][0]))

    def _columns_in(self, path: Path) -> str:
        """Select the columns of a day's file; one that an older version wrote lacks newer fields."""
        rows = self._database.all_rows(f"DESCRIBE SELECT * FROM read_parquet({literal(str(path))})")
        have = {row[0] for row in rows}
        if unknown := sorted(have - set(COLUMNS)):
            raise _Kept(
                f"{path.name} has the field {unknown[0]!r}, which this version does not know"
            )
        return ", ".join(
            quoted(name) if name in have else f"NULL::{kind} AS {quoted(name)}"
            for name, kind in COLUMNS.items()
        )

    def _keep_unreadable(self, source: Source) -> None:
        """Put aside the lines that are no records, as they are, since the original goes."""
        ((count,),) = self._database.all_rows("SELECT count(*) FROM lines WHERE unreadable")
        if not count:
            return
        path = Path(f"{source.path}.unreadable")
        lines = list(_unreadable_lines(source))
        if len(lines) != count:
            raise _Kept(f"{count} of its lines cannot be read, and cannot be told from the others")
        with path.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        self._tell(f"{path}: has the {count} lines that could not be read")

    def _remove(self, before: datetime) -> None:
        """Remove the days that ended before a time."""
        for path in sorted(self._folder.iterdir()):
            found = _DAY_NAME.fullmatch(path.name)
            if found is None:
                continue
            try:
                ends = datetime.combine(date.fromisoformat(found[1]), datetime.min.time(), UTC)
            except ValueError:
                continue  # a name that only looks like a day's
            if ends + timedelta(days=1) <= before:
                path.unlink()
                self.outcome.removed += 1
                self._tell(f"{path}: removed")


def _unreadable_lines(source: Source) -> Iterator[bytes]:
    """Yield the lines of a file that the engine does not read as records."""
    if source.kind is Kind.ZSTD:
        raise _Kept("some of its lines cannot be read; decompress it with zstd -d first")
    opened = gzip.open if source.kind is Kind.GZIP else open
    with opened(source.path, "rb") as file:
        for line in file:
            if line.strip() and not _is_record(line):
                yield line


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line, parse_constant=_no_number)
        # Half of a pair in UTF-16 is no text to the engine.
        json.dumps(record, ensure_ascii=False).encode()
        return record["event"] is not None and FIRST_TIME <= float(record["ts"]) <= LAST_TIME
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def _no_number(text: str) -> float:
    raise ValueError(text)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder. Raises ReportError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise ReportError(
            f"{folder}: cannot be opened: {problem.strerror}; name the folder of the files of events"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReportError(f"{folder}: another run archives it; wait for its end") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ReportError(f"{folder}: cannot be written to; run this as the owner of the files")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _private() -> Iterator[None]:
    before = os.umask(_UMASK)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _closed_elsewhere(path: Path) -> Iterator[None]:
    """Make sure that no process has a file open, since what it writes would be lost with the original.

    Linux gives a lease for writing only on such a file (fcntl(2), F_SETLEASE). Raises _Kept.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            raise _Kept("a process has it open; rotate it first") from None
        except OSError:
            # Network file systems know no leases, nor may one take them on another user's file. What is
            # left is to look at the size and the time once more at the end.
            yield
            return
        # From here on the engine opens it, too: a lease would only tell this process of that.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        yield
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_ino, before.st_size, before.st_mtime_ns) == (
        *(after.st_ino, after.st_size, after.st_mtime_ns),
    )


def _take_over(path: Path, status: os.stat_result) -> None:
    """Put a file on disk that belongs to whom the original does."""
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o640)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Put names on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
