"""Asks questions from beginning to end: finds the files, opens the engine, asks, and writes the answer."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TextIO
from zoneinfo import ZoneInfo

from .addresses import Places
from .database import DEFAULT_MEMORY, Database, Progress
from .log import Filters, Log, Skipped, needs_places
from .problems import ReportError
from .questions import Question
from .showing import FORMS, Counted
from .sources import STANDARD_INPUT, Source, find, spooled

ROWS: Final = 1000
"""Rows that are fetched at a time."""

Tell = Callable[[str], None]
"""Receives a line that belongs beside the answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How a question is asked, and how its answer is to look."""

    files: Sequence[str]
    filters: Filters
    now: datetime
    zone: ZoneInfo
    form: str = "table"
    limit: int | None = None
    """The most rows that are written; None for all."""
    memory: str = DEFAULT_MEMORY
    places: Sequence[str] = ()
    values: Mapping[str, str] = field(default_factory=dict)


def ask(question: Question, asked: Asked, out: TextIO, tell: Tell) -> int:
    """Write the answer of a question, and return how many rows it has. Raises ReportError."""
    values = question.values(asked.values)
    needs_places(question, asked.places)
    with _log(asked) as (database, log), _bar() as progress:
        log.load([question], progress)
        log.ask(question, values, progress)
        progress(100)
        return _write(question.title, database, log.skipped, asked, out, tell)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question came to. ``more`` says that there were more rows than were asked for."""

    question: Question
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool


def answers(questions: Sequence[Question], asked: Asked) -> tuple[dict[str, Answer], Skipped]:
    """Ask several questions of one reading of the files, so that their numbers agree. Raises ReportError."""
    found: dict[str, Answer] = {}
    with _log(asked) as (database, log), _bar() as progress:
        log.load(questions, progress)
        for question in questions:
            needs_places(question, asked.places)
            log.ask(question, question.values({}), progress)
            columns = database.columns
            rows = Counted(_rows(database), asked.limit)
            found[question.name] = Answer(question, columns, tuple(map(tuple, rows)), rows.more)
        return found, log.skipped


def ask_sql(statement: str, asked: Asked, out: TextIO, tell: Tell) -> int:
    """Write the answer of a statement over the view ``events``, and return how many rows it has."""
    with _log(asked) as (database, log), _bar() as progress:
        log.attach(statement, progress)
        database.run(statement, progress=progress)
        progress(100)
        return _write("", database, log.skipped, asked, out, tell)


@contextmanager
def _log(asked: Asked) -> Iterator[tuple[Database, Log]]:
    with Database(asked.memory) as database, Places(asked.places) as places:
        sources = _sources(asked.files, database.folder)
        database.set_zone(asked.zone.key)
        yield database, Log(database, sources, asked.filters, asked.now.timestamp(), places)


def _sources(files: Sequence[str], folder: str) -> list[Source]:
    named = [file for file in files if file != STANDARD_INPUT]
    return find(named) + ([spooled(folder)] if len(named) < len(files) else [])


def _write(
    title: str, database: Database, skipped: Skipped, asked: Asked, out: TextIO, tell: Tell
) -> int:
    columns = database.columns
    rows = Counted(_rows(database), asked.limit)
    FORMS[asked.form](out, title, columns, rows)
    out.flush()
    for file, lines in skipped.lines.items():
        tell(
            f"{file}: {lines} {'line' if lines == 1 else 'lines'} could not be read and were skipped"
        )
    if rows.more:
        tell(f"only the first {rows.count} rows are shown; --limit 0 shows all")
    if not rows.count:
        tell("no rows")
    return rows.count


def _rows(database: Database) -> Iterator[tuple[Any, ...]]:
    while some := database.rows(ROWS):
        yield from some


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show on a terminal how far long statements are; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
    except ModuleNotFoundError:
        raise ReportError(
            "the progress bar needs the package rich; install it with pip install 'pop3proxy[audit]'"
        ) from None
    bar = Bar(
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("reading", total=100)

    def show(done: float) -> None:
        if done >= 100:
            bar.stop()
        else:
            bar.start()
            bar.update(task, completed=done)

    try:
        yield show
    finally:
        bar.stop()
