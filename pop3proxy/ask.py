"""The command `pop3proxy ask`: what can be asked, of which files, within which filters; asks by `reports`."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from .config import ConfigError, load_apart
from .reports.addresses import network
from .reports.asking import Asked, ask, ask_sql
from .reports.database import DEFAULT_MEMORY, Database, memory
from .reports.log import Filters
from .reports.moments import moment, zone
from .reports.problems import ReportError, Unanswerable
from .reports.questions import GROUPS, OWN_GROUP, Question, added, shipped
from .reports.sources import STANDARD_INPUT, beside

FAILED: Final = 1
WRONG_USAGE: Final = 2
FOUND: Final = 3
"""The exit status of --fail-if-any when there is a row."""

EVENTS_VARIABLE: Final = "POP3PROXY_EVENTS"
QUESTIONS_VARIABLE: Final = "POP3PROXY_QUESTIONS"

LIMIT_OF_TABLES: Final = 40
"""Rows of a table that people read, without --limit."""


def add_ask(commands: click.Group) -> None:
    """Add the command to those of the program."""
    commands.add_command(ask_command)


_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _all(*options: _Decorator) -> _Decorator:
    """Make one decorator of several."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_period: Final = _all(
    click.option("--since", metavar="TIME", help="From then on: 7d, 12h, 2026-11-30, with a time."),
    click.option("--until", metavar="TIME", help="Before then."),
    click.option("--zone", metavar="ZONE", help="Time zone of times, such as Europe/Berlin."),
)
_filters: Final = _all(
    click.option("--user", "users", metavar="USER", multiple=True, help="Only this; repeatable."),
    click.option(
        *("--address", "addresses"),
        metavar="ADDRESS|NETWORK",
        multiple=True,
        help="Only clients there; repeatable.",
    ),
    click.option(
        *("--listener", "listeners"),
        metavar="LISTENER",
        multiple=True,
        help="Only clients of this listener, such as tcp:110 or 0.0.0.0:110; repeatable.",
    ),
    click.option(
        *("--mechanism", "mechanisms"),
        metavar="MECHANISM",
        multiple=True,
        help="Only logins by this, such as PLAIN; repeatable.",
    ),
)
_forms: Final = _all(
    click.option("--json", "form", flag_value="json", help="Write JSON Lines."),
    click.option("--csv", "form", flag_value="csv", help="Write CSV."),
    click.option("--markdown", "form", flag_value="markdown", help="Write a table of Markdown."),
    click.option(
        "--limit", metavar="ROWS", type=click.IntRange(0), help="The most rows; 0 for all of them."
    ),
)


@click.command("ask")
@click.argument("words", metavar="[QUESTION] [FILE]...", nargs=-1)
@click.option("--config", "path", metavar="FILE.toml", help="Ask the events of this proxy.")
@click.option("--sql", metavar="SQL", help="Ask this SQL over the view events.")
@click.option("--set", "values", metavar="NAME=NUMBER", multiple=True, help="A parameter.")
@click.option("--questions", "folder", metavar="DIR", help="Further questions, one .sql file each.")
@click.option("--explain", is_flag=True, help="Print the question's SQL instead of asking it.")
@_period
@_filters
@_forms
@click.option(
    "--geo", "places", metavar="FILE.mmdb", multiple=True, help="Knows countries or providers."
)
@click.option(
    "--memory", metavar="SIZE", default=DEFAULT_MEMORY, show_default=True, help="At most."
)
@click.option("--fail-if-any", is_flag=True, help="Exit with 3 if the answer has a row.")
def ask_command(
    words: tuple[str, ...],
    path: str | None,
    sql: str | None,
    folder: str | None,
    explain: bool,
    fail_if_any: bool,
    **how: Any,
) -> int:
    """Ask a question of files of events; without one, list the questions.

    A FILE is JSON Lines, plain or compressed (gzip, zstd), or Parquet; a glob or folder of them; or - for
    standard input. Without any, the files are those of --config or of the variable POP3PROXY_EVENTS.
    """
    try:
        questions = shipped() | added_by(folder)
        if sql is not None:
            return _sql(sql, _asked(words, path, how), fail_if_any)
        if not words:
            return _list(questions)
        question = chosen(questions, words[0])
        if explain:
            click.echo(question.sql.rstrip())
            return 0
        asked = _asked(words[1:], path, how)
        rows = ask(question, asked, sys.stdout, _tell)
    except ReportError as problem:
        return complain(problem)
    return FOUND if fail_if_any and rows else 0


def ask_capture(name: str, replay: Callable[[str], int]) -> int:
    """Answer a question about a capture, of what ``replay`` writes to the file that it is given.

    ``replay`` returns an exit status; of a damaged capture, what was read is asked.
    """
    try:
        question = chosen(shipped() | added_by(None), name)
        # A missing engine is said before a long replay.
        with Database(), tempfile.TemporaryDirectory(prefix="pop3proxy-") as folder:
            file = os.path.join(folder, "capture.jsonl")
            status = replay(file)
            if not os.path.exists(file):
                return status
            place = zone(None)
            now = datetime.now(UTC).astimezone(place)
            asked = Asked([file], Filters(), now, place, limit=LIMIT_OF_TABLES)
            ask(question, asked, sys.stdout, _tell)
    except ReportError as problem:
        return complain(problem)
    return status


def complain(problem: ReportError) -> int:
    """Say what is wrong in one line, and return the exit status that it comes to."""
    click.echo(f"pop3proxy: {problem}", err=True)
    return WRONG_USAGE if isinstance(problem, Unanswerable) else FAILED


def added_by(folder: str | None) -> dict[str, Question]:
    """Return the questions of a folder that was named, or that the environment names."""
    named = folder or os.environ.get(QUESTIONS_VARIABLE)
    return added(named) if named else {}


def chosen(questions: dict[str, Question], name: str) -> Question:
    """Return a question by its name. Raises Unanswerable."""
    if name not in questions:
        raise Unanswerable(f"there is no question {name}; `pop3proxy ask` lists the questions")
    return questions[name]


def _tell(text: str) -> None:
    click.echo(f"pop3proxy: {text}", err=True)


def _sql(statement: str, asked: Asked, fail_if_any: bool) -> int:
    rows = ask_sql(statement, asked, sys.stdout, _tell)
    return FOUND if fail_if_any and rows else 0


def _asked(files: Sequence[str], path: str | None, how: dict[str, Any]) -> Asked:
    """Read the options. Raises ReportError."""
    place = zone(how["zone"])
    now = datetime.now(UTC).astimezone(place)
    form = how["form"] or "table"
    limit = how["limit"]
    if limit is None and form == "table":
        limit = LIMIT_OF_TABLES
    return Asked(
        files=_files(files, path),
        filters=_narrowed(how, now),
        now=now,
        zone=place,
        form=form,
        limit=limit or None,
        memory=memory(how["memory"]),
        places=how["places"],
        values=dict(map(_value, how["values"])),
    )


def _narrowed(how: dict[str, Any], now: datetime) -> Filters:
    since, until = (moment(how[name], now) if how[name] else None for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise Unanswerable("--since is not before --until; exchange them")
    return Filters(
        since=since,
        until=until,
        users=how["users"],
        networks=tuple(map(network, how["addresses"])),
        listeners=how["listeners"],
        mechanisms=how["mechanisms"],
    )


def _value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Unanswerable(f"--set {text}: has no value; write it like --set failures=10")
    return name.strip(), value.strip()


def _files(named: Sequence[str], path: str | None) -> Sequence[str]:
    """Return the files to ask: those named, else those of a configuration, else of the environment."""
    if named:
        return named
    if path is not None:
        written = load_apart(path).events.path
        if written is None or written == STANDARD_INPUT:
            raise ConfigError(
                [f'{path}: names no file of events; under [events] set path = "FILE"']
            )
        return beside(written)
    from_environment = os.environ.get(EVENTS_VARIABLE, "")
    if not from_environment:
        raise Unanswerable(
            "no files of events; name them behind the question, or give --config FILE.toml, or set"
            f" {EVENTS_VARIABLE}"
        )
    return from_environment.split(os.pathsep)


def _list(questions: dict[str, Question]) -> int:
    width = max(map(len, questions))
    for group in (*GROUPS, OWN_GROUP):
        of_group = [each for each in questions.values() if each.group == group]
        if of_group:
            click.echo(f"{group}:")
        for question in sorted(of_group, key=lambda each: each.name):
            click.echo(f"  {question.name:{width}}  {question.title}")
    click.echo("\npop3proxy ask QUESTION FILE... asks one; --explain prints its SQL.")
    return 0
