"""The one place that knows DuckDB: opens it, keeps it off the network, waits for it; asks nothing itself."""

import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from .problems import EngineError, ReportError, Unanswerable

DEFAULT_MEMORY: Final = "1GB"

LOOK_EVERY: Final = 0.1
"""Seconds between two looks at how far a statement is; Ctrl-C takes no longer."""

_MEMORY: Final = re.compile(r"([0-9]{1,6})\s*([KMGT]i?B)", re.IGNORECASE)

Progress = Callable[[float], None]
"""Receives how much of a statement is done, from 0 to 100."""


def memory(text: str) -> str:
    """Read an amount of memory. Raises Unanswerable."""
    found = _MEMORY.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise Unanswerable(f"--memory {text}: is no amount of memory; write it like 512MB or 2GB")
    return f"{found[1]}{found[2]}"


class Database:
    """A DuckDB engine in memory, which puts on disk what does not fit.

    ``folder`` is for its temporary files, and is removed with it.
    """

    def __init__(self, memory_limit: str = DEFAULT_MEMORY) -> None:
        """Open it. Raises ReportError if DuckDB is not installed."""
        try:
            import duckdb
        except ModuleNotFoundError:
            raise ReportError(
                "questions need the package duckdb; install it with pip install 'pop3proxy[audit]'"
            ) from None
        self._problems = duckdb
        self._temporary = tempfile.TemporaryDirectory(prefix="pop3proxy-")
        self.folder = self._temporary.name
        self._memory_limit = memory_limit
        self._connection: duckdb.DuckDBPyConnection = duckdb.connect(
            ":memory:",
            config={
                # What it lacks it would download.
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "memory_limit": memory_limit,
                "temp_directory": self.folder,
            },
        )
        self._connection.execute("SET enable_progress_bar = true")
        self._connection.execute("SET enable_progress_bar_print = false")
        self._connection.execute("SET python_enable_replacements = false")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._temporary.cleanup()

    def set_zone(self, name: str) -> None:
        """Show times in a zone from now on."""
        self._connection.execute(f"SET TimeZone = '{name}'")

    def allow_only(self, paths: Sequence[str]) -> None:
        """Let statements read these files from now on, and nothing else; they write nothing."""
        self._connection.execute("SET allowed_paths = " + _list(paths))
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def run(
        self,
        statement: str,
        values: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Run a statement to its end in a thread; an interruption ends it at once.

        Raises ReportError for what the engine says of it, and KeyboardInterrupt.
        """
        problems: list[BaseException] = []

        def work() -> None:
            try:
                self._connection.execute(statement, dict(values or {}))
            except BaseException as problem:
                problems.append(problem)

        thread = threading.Thread(target=work, daemon=True, name="question")
        thread.start()
        try:
            self._wait(thread, progress)
        except BaseException:
            # The statement may not have begun when it is interrupted for the first time.
            while thread.is_alive():
                self._connection.interrupt()
                thread.join(LOOK_EVERY)
            raise
        if problems:
            raise self._told(problems[0]) from None

    def rows(self, most: int) -> list[tuple[Any, ...]]:
        """Return the next rows of the last statement, none when there are no more."""
        try:
            return self._connection.fetchmany(most)
        except self._problems.Error as problem:
            raise self._told(problem) from None

    def all_rows(
        self, statement: str, values: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement whose answer is small, and return it."""
        self.run(statement, values)
        try:
            return self._connection.fetchall()
        except self._problems.Error as problem:
            raise self._told(problem) from None

    def insert(self, table: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to a table, whose columns are of these types."""
        columns = {f"c{number}": [row[number] for row in rows] for number in range(len(types))}
        unnested = (f"unnest($c{number}::{kind}[])" for number, kind in enumerate(types))
        self._connection.execute(f"INSERT INTO {table} SELECT {', '.join(unnested)}", columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the last answer's columns."""
        return tuple(column[0] for column in self._connection.description or ())

    def _wait(self, thread: threading.Thread, progress: Progress | None) -> None:
        while True:
            thread.join(LOOK_EVERY)
            if not thread.is_alive():
                return
            if progress is not None:
                progress(max(0.0, self._connection.query_progress()))

    def _told(self, problem: BaseException) -> BaseException:
        """Say in one line what the engine says at length."""
        if not isinstance(problem, self._problems.Error):
            return problem
        if isinstance(problem, self._problems.OutOfMemoryException):
            return ReportError(
                f"more than --memory {self._memory_limit} is needed; give it more, or ask about less"
                " time with --since"
            )
        first = str(problem).strip().partition("\n")[0]
        return EngineError(first)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"
