"""The records of many files as one table that questions are asked of; knows no question by name."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from .addresses import UNKNOWN, Known, Network, Places, Wanted
from .addresses import read as read_address
from .columns import COLUMNS, FIRST_TIME, LAST_TIME, WITH_COLUMN, listed, literal, quoted
from .database import Database, Progress
from .problems import EngineError, ReportError
from .questions import Question
from .sources import Kind, Source, ends_within_a_record
from .views import VIEWS, used_in, uses_addresses

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of a record; no event has a longer one."""

_ALWAYS: Final = ("ts", "event", "uid", "id.orig_h", "orig_unknown", "listener")
"""Fields that every question needs, or the filters and addresses do."""

UNREADABLE: Final = f"((event IS NOT NULL AND ts BETWEEN {FIRST_TIME} AND {LAST_TIME}) IS NOT TRUE)"
"""What is no record; the engine makes a row without fields of a line that it cannot read."""

_SOURCE: Final = (
    f"CASE WHEN orig_unknown THEN '{UNKNOWN}' || coalesce(listener, '') ELSE \"id.orig_h\" END"
)
"""Who a client is: its address, or the listener of one whose address is not known."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What all questions can be narrowed to; empty is everything. ``until`` is exclusive."""

    since: datetime | None = None
    until: datetime | None = None
    users: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    listeners: tuple[str, ...] = ()
    mechanisms: tuple[str, ...] = ()

    @property
    def first(self) -> float:
        """The beginning of the period, in seconds since the epoch."""
        return self.since.timestamp() if self.since is not None else FIRST_TIME

    @property
    def end(self) -> float:
        """The end of the period; without one it has none, since a clock may be ahead of this one."""
        return self.until.timestamp() if self.until is not None else LAST_TIME + 1


@dataclass(slots=True)
class Skipped:
    """Lines that could not be read, by file."""

    lines: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Lines that could not be read, of all files."""
        return sum(self.lines.values())


class Log:
    """The records of some files, within filters. Ask it with ``ask``, and fetch from its database."""

    def __init__(
        self,
        database: Database,
        sources: Sequence[Source],
        filters: Filters,
        now: float,
        places: Places,
    ) -> None:
        """Take what is to be read; ``load`` or ``attach`` reads it."""
        self.skipped = Skipped()
        self._database = database
        self._sources = sources
        self._filters = filters
        self._now = now
        self._places = places
        self._unfinished = self._growing()
        self._columns: tuple[str, ...] = ()
        self._has_addresses = False

    def load(self, questions: Iterable[Question], progress: Progress | None = None) -> None:
        """Read what these questions need into a table, in one pass over the files.

        All are asked of this table, so their numbers agree even while the proxy goes on writing. Raises
        ReportError.
        """
        asked = tuple(questions)
        texts = [_with_views(question.statement) for question in asked]
        self._columns = _needed(" ".join((*texts, *self._filter_columns())))
        condition = self._condition(asked)
        with self._named_files():
            self._database.run(
                f"CREATE TEMP TABLE records AS {self._files(condition)}", progress=progress
            )
        self._count_skipped()
        if self._filters.networks or any(map(_asks_for_addresses, asked)):
            self._learn_addresses()
        self._write_filters()
        self._database.allow_only(())

    def attach(self, statement: str, progress: Progress | None = None) -> None:
        """Make the views over the files as they are, for a statement of which nothing is known."""
        self._columns = tuple(COLUMNS)
        with self._named_files():
            self._database.run(f"CREATE TEMP VIEW records AS {self._files('true')}")
            self._count_skipped(progress)
        if self._filters.networks or uses_addresses(statement):
            self._learn_addresses()
        self._write_filters()
        self._make_views(self._filters.first)
        self._database.allow_only([source.path for source in self._sources])

    def ask(
        self, question: Question, values: dict[str, float | int], progress: Progress | None = None
    ) -> None:
        """Ask a question that was loaded for; its rows are the database's. Raises ReportError."""
        self._make_views(self._earliest(question))
        given: dict[str, Any] = {"since": self._filters.first, "until": self._until(), **values}
        used = {name: given[name] for name in given if f"${name}" in _names(question.statement)}
        self._database.run(question.sql.strip().rstrip(";"), used, progress)

    def _condition(self, questions: Sequence[Question]) -> str:
        """Write which records questions need."""
        earliest = min(map(self._earliest, questions), default=self._filters.first)
        period = f"ts >= {earliest!r} AND ts < {self._filters.end!r}"
        events = _events(questions)
        if not events:
            return period
        # What a session's other records say of it.
        for column in self._filter_columns():
            events.update(WITH_COLUMN[column])
        return f"event IN {listed(sorted(events))} AND {period}"

    def _until(self) -> float:
        return self._now if self._filters.until is None else self._filters.end

    def _earliest(self, question: Question) -> float:
        if question.before is None:
            return FIRST_TIME
        if question.before == timedelta(0):
            return self._filters.first
        return max(FIRST_TIME, self._filters.first - question.before.total_seconds())

    def _files(self, condition: str) -> str:
        """Write the SELECT of the records that a condition holds for; each kind of file is read by itself."""
        parts = []
        for kind in Kind:
            paths = [source.path for source in self._sources if source.kind is kind]
            if paths and kind is Kind.PARQUET:
                parts.append(f"FROM ({self._parquet(paths)}) WHERE {condition}")
            elif paths:
                lines = json_columns(paths, kind, self._columns)
                parts.append(f"FROM ({lines}) WHERE ({condition}) OR {UNREADABLE}")
        columns = ", ".join(map(quoted, self._columns))
        unreadable = f"CASE WHEN {UNREADABLE} THEN filename END AS unreadable"
        return " UNION ALL ".join(
            f"SELECT {columns}, {_SOURCE} AS source, {unreadable} {part}" for part in parts
        )

    @contextmanager
    def _named_files(self) -> Iterator[None]:
        """Say which file is damaged where the engine does not."""
        try:
            yield
        except EngineError as problem:
            packed = [source for source in self._sources if source.kind is not Kind.PLAIN]
            for source in packed:
                why = self._problem_of(source)
                if why is not None:
                    raise ReportError(
                        f"{source.path}: cannot be read: {why}; restore it, or leave it out"
                    ) from problem
            raise

    def _problem_of(self, source: Source) -> str | None:
        """Read a file by itself, and return what the engine says if that fails."""
        if source.kind is Kind.PARQUET:
            files = f"read_parquet({literal(source.path)})"
        else:
            files = f"({json_columns([source.path], source.kind, ('event',))})"
        try:
            self._database.run(f"SELECT count(event) FROM {files}")
        except EngineError as problem:
            return str(problem)
        return None

    def _parquet(self, paths: Sequence[str]) -> str:
        """Select columns of Parquet files, whoever wrote them; what they lack is NULL."""
        files = f"read_parquet([{', '.join(map(literal, paths))}], union_by_name = true, filename = true)"
        rows = self._database.all_rows(f"DESCRIBE SELECT * FROM {files}")
        have = {row[0]: row[1] for row in rows}
        shown = (_converted(column, have.get(column)) for column in self._columns)
        return f"SELECT {', '.join(shown)}, filename FROM {files}"

    def _count_skipped(self, progress: Progress | None = None) -> None:
        statement = (
            "SELECT unreadable, count(*) FROM records WHERE unreadable IS NOT NULL"
            " GROUP BY unreadable ORDER BY unreadable"
        )
        self._database.run(statement, progress=progress)
        counted = dict(self._database.rows(len(self._sources)))
        for path in self._unfinished | self._growing():
            if path in counted:
                counted[path] -= 1
        self.skipped = Skipped({path: lines for path, lines in counted.items() if lines})
        self._database.run("CREATE TEMP TABLE unread_lines (file VARCHAR, lines BIGINT)")
        self._database.insert(
            "unread_lines", ("VARCHAR", "BIGINT"), list(self.skipped.lines.items())
        )

    def _growing(self) -> set[str]:
        """Return the files that end with half a record: it is read next time, and is no damage."""
        plain = (source.path for source in self._sources if source.kind is Kind.PLAIN)
        return set(filter(ends_within_a_record, plain))

    def _learn_addresses(self) -> None:
        """Work out what is known of each distinct address."""
        wanted = Wanted(self._filters.networks)
        self._database.run(
            "CREATE TEMP TABLE addresses (source VARCHAR, address VARCHAR, network VARCHAR,"
            " country VARCHAR, asn BIGINT, as_name VARCHAR, chosen BOOLEAN)"
        )
        rows = self._database.all_rows(
            "SELECT DISTINCT source FROM records WHERE source IS NOT NULL"
        )
        learned = [_row(self._places, source, wanted) for (source,) in rows]
        types = ("VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "VARCHAR", "BOOLEAN")
        self._database.insert("addresses", types, learned)
        self._has_addresses = True

    def _write_filters(self) -> None:
        for table, values in self._lists():
            self._database.run(f"CREATE TEMP TABLE {table} (value VARCHAR)")
            self._database.insert(table, ("VARCHAR",), [(value,) for value in values])

    def _lists(self) -> list[tuple[str, tuple[str, ...]]]:
        given = (
            ("chosen_users", tuple(user.strip().lower() for user in self._filters.users)),
            ("chosen_listeners", self._filters.listeners),
            ("chosen_mechanisms", tuple(each.strip().upper() for each in self._filters.mechanisms)),
        )
        return [(table, values) for table, values in given if values]

    def _filter_columns(self) -> list[str]:
        """Name the fields that the filters compare, but for addresses, which all records have."""
        return [column for table, _ in self._lists() for column in _COMPARED[table]]

    def _make_views(self, earliest: float) -> None:
        conditions = [
            f"ts >= {earliest!r}",
            f"ts < {self._filters.end!r}",
            "unreadable IS NULL",
            *(_BY_SESSION[table] for table, _ in self._lists()),
        ]
        if self._filters.networks:
            conditions.append("source IN (SELECT source FROM addresses WHERE chosen)")
        self._database.run(
            "CREATE OR REPLACE TEMP VIEW events AS SELECT * EXCLUDE (unreadable), to_timestamp(ts) AS time"
            f" FROM records WHERE {' AND '.join(conditions)}"
        )
        for view in VIEWS if self._has_addresses else ():
            # What no question needs was not loaded.
            if set(_needed(view.sql)) <= set(self._columns):
                self._database.run(f"CREATE OR REPLACE TEMP VIEW {view.name} AS {view.sql}")


def _converted(column: str, kind: str | None) -> str:
    if kind is None:
        return f"NULL::{COLUMNS[column]} AS {quoted(column)}"
    if kind == COLUMNS[column]:
        return quoted(column)
    return f"TRY_CAST({quoted(column)} AS {COLUMNS[column]}) AS {quoted(column)}"


def json_columns(paths: Sequence[str], kind: Kind, columns: Sequence[str]) -> str:
    """Select columns of files of JSON Lines; a line that cannot be read is a row of NULLs."""
    types = ", ".join(f"{quoted(column)}: {literal(COLUMNS[column])}" for column in columns)
    return (
        f"SELECT {', '.join(map(quoted, columns))}, filename"
        f" FROM read_json([{', '.join(map(literal, paths))}], format = 'newline_delimited',"
        f" columns = {{{types}}}, compression = {literal(kind.value)}, ignore_errors = true,"
        f" filename = true, maximum_object_size = {MAX_LINE})"
    )


def _row(places: Places, source: str, wanted: Wanted) -> tuple[Any, ...]:
    address = read_address(source)
    known: Known = places.known(source, address)
    return (
        *(known.source, known.address, known.network),
        *(known.country, known.asn, known.as_name, address in wanted),
    )


def _with_views(statement: str) -> str:
    return " ".join((statement, *(view.sql for view in used_in(statement))))


def _needed(text: str) -> tuple[str, ...]:
    """Return the fields that a text names, in the order of the records."""
    return tuple(
        column
        for column in COLUMNS
        if column in _ALWAYS or re.search(rf"(?<!\w){re.escape(column)}(?!\w)", text)
    )


def _names(statement: str) -> set[str]:
    return set(re.findall(r"\$\w+", statement))


def _events(questions: Iterable[Question]) -> set[str]:
    """Return the events that questions need; none if one of them may need any."""
    found: set[str] = set()
    for question in questions:
        views = used_in(question.statement)
        if not question.events and re.search(r"\bevents\b", question.statement):
            return set()
        found.update(question.events, *(view.events for view in views))
    return found


def _asks_for_addresses(question: Question) -> bool:
    return uses_addresses(question.statement)


def _by_session(column: str, condition: str) -> str:
    """Write a filter: by a field where an event has it, elsewhere by the other records of the session."""
    own = f"event IN {listed(WITH_COLUMN[column])}"
    return (
        f"(({own} AND {condition}) OR (NOT {own}"
        f" AND uid IN (SELECT uid FROM records WHERE {own} AND {condition})))"
    )


_COMPARED: Final = {
    "chosen_users": ("user",),
    "chosen_listeners": ("listener", "listener.h", "listener.p"),
    "chosen_mechanisms": ("mechanism",),
}
"""The fields that each filter compares."""

_BY_SESSION: Final = {
    "chosen_users": _by_session("user", 'lower(trim("user")) IN (SELECT value FROM chosen_users)'),
    "chosen_listeners": _by_session(
        "listener",
        "(listener IN (SELECT value FROM chosen_listeners)"
        """ OR "listener.h" || ':' || "listener.p" IN (SELECT value FROM chosen_listeners))""",
    ),
    "chosen_mechanisms": _by_session(
        "mechanism", "upper(mechanism) IN (SELECT value FROM chosen_mechanisms)"
    ),
}


def needs_places(question: Question, places: Sequence[str]) -> None:
    """Raise ReportError if a question needs a file that knows where addresses are, and has none."""
    if question.needs_geo and not places:
        raise ReportError(
            f"{question.name} needs a file that knows where addresses are; give --geo"
            " GeoLite2-Country.mmdb or --geo GeoLite2-ASN.mmdb"
        )
