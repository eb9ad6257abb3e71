"""Questions: one SQL file each, with what it says of itself in the comments at its head; asks nothing.

The head of a file is the comments before its first statement, ``-- key: value`` each:

``title``
    what the answer shows, in a few words
``says``
    one sentence for people who do not read SQL
``group``
    under which heading it is listed
``parameter``
    ``name = default: what it is``; in the SQL it is ``$name``. Repeatable
``chart``
    how the answer is drawn: ``bar x y``, ``line x y by z``, ``heat x y z`` or ``none``
``events``
    the events that it needs of ``events``; the views know theirs
``before``
    how much before ``--since`` it must know, such as ``30d``, or ``all``
``needs``
    ``geo`` if it can only be answered with a file that knows countries or networks
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Final

from .columns import EVENTS
from .moments import span
from .problems import ReportError, Unanswerable

MAX_FILE: Final = 256 * 1024
"""Bytes of a question; the longest here has a hundredth of it."""

CHARTS: Final = ("none", "bar", "line", "heat")

GROUPS: Final = ("logins", "attacks", "accounts", "encryption", "mail", "proxy")
"""The headings, in the order in which they are listed."""

OWN_GROUP: Final = "own"
"""The heading of questions that an operator added and put under none."""

PROVIDED: Final = ("since", "until")
"""Parameters that every question can use: the period in seconds since the epoch."""

_HEAD: Final = re.compile(r"--\s*([a-z]+):\s*(.*)")
_PARAMETER: Final = re.compile(r"([a-z][a-z_]*)\s*=\s*(-?[0-9]+(?:\.[0-9]+)?)\s*:\s*(\S.*)")
_USED: Final = re.compile(r"\$([A-Za-z_][A-Za-z_0-9]*)")
_COMMENT: Final = re.compile(r"--[^\n]*")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that the asker can change."""

    name: str
    default: float | int
    says: str

    def value(self, text: str) -> float | int:
        """Read a value for it. Raises Unanswerable."""
        try:
            return int(text)
        except ValueError:
            pass
        try:
            found = float(text)
            if found - found == 0:  # neither infinite nor NaN
                return found
        except ValueError:
            pass
        raise Unanswerable(f"--set {self.name}={text}: is no number; its default is {self.default}")


@dataclass(frozen=True, slots=True)
class Chart:
    """How an answer is drawn: a form, and the columns that it is drawn from."""

    form: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A question: its SQL and what its head says."""

    name: str
    title: str
    says: str
    sql: str
    group: str = OWN_GROUP
    parameters: tuple[Parameter, ...] = ()
    chart: Chart = field(default_factory=lambda: Chart("none"))
    events: tuple[str, ...] = ()
    before: timedelta | None = timedelta(0)
    """How much before the period it needs; None for all that there is."""
    needs_geo: bool = False

    @property
    def statement(self) -> str:
        """The SQL without comments: what decides which columns and views are needed."""
        return _COMMENT.sub("", self.sql)

    def values(self, given: Mapping[str, str]) -> dict[str, float | int]:
        """Return its parameters with what was given for them. Raises Unanswerable."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                has = ", ".join(f"{each.name}={each.default}" for each in self.parameters)
                raise Unanswerable(f"--set {name}: {self.name} has {has or 'no parameters'}")
        return {
            name: parameter.value(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }


def shipped() -> dict[str, Question]:
    """Return the questions that come with the program, by name."""
    folder = resources.files(__package__) / "questions"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=str)
    return {
        file.name.removesuffix(".sql"): parsed(
            file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"), file.name
        )
        for file in files
    }


def added(folder: str) -> dict[str, Question]:
    """Return the questions of an operator's folder, by name. Raises ReportError."""
    found: dict[str, Question] = {}
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix == ".sql")
        for path in paths:
            if path.stat().st_size > MAX_FILE:
                raise ReportError(f"{path}: is longer than {MAX_FILE} bytes; a question is short")
            found[path.stem] = parsed(path.stem, path.read_text(encoding="utf-8"), str(path))
    except OSError as problem:
        raise ReportError(
            f"{problem.filename or folder}: cannot be read: {problem.strerror}; name a folder of"
            " questions, one .sql file each"
        ) from None
    except UnicodeDecodeError:
        raise ReportError(f"{folder}: a question in it is no UTF-8; save it as UTF-8") from None
    return found


def parsed(name: str, text: str, path: str) -> Question:
    """Read a question. Raises ReportError that names ``path`` and what to change."""
    head = _Head(text, path)
    question = Question(
        name=name,
        title=head.one("title"),
        says=head.one("says"),
        sql=text,
        group=head.word("group", (*GROUPS, OWN_GROUP), OWN_GROUP),
        parameters=tuple(map(head.parameter, head.all("parameter"))),
        chart=head.chart(),
        events=head.events(),
        before=head.before(),
        needs_geo=head.word("needs", ("geo", ""), "") == "geo",
    )
    declared = {*PROVIDED, *(parameter.name for parameter in question.parameters)}
    for used in _USED.findall(question.statement):
        if used not in declared:
            raise ReportError(
                f"{path}: uses ${used}, which its head does not declare; add a line"
                f" `-- parameter: {used} = 10: what it is`"
            )
    if not question.statement.strip():
        raise ReportError(f"{path}: has no SQL; write one SELECT behind its head")
    return question


class _Head:
    """The head of a file."""

    _KEYS: Final = (*("title", "says", "group", "parameter", "chart", "events", "before", "needs"),)

    def __init__(self, text: str, path: str) -> None:
        self._path = path
        self._said: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.strip() and not line.startswith("--"):
                break
            found = _HEAD.fullmatch(line.strip())
            if found is None:
                continue
            if found[1] not in self._KEYS:
                raise self._wrong(f"has the key {found[1]}; known are {', '.join(self._KEYS)}")
            self._said.setdefault(found[1], []).append(found[2].strip())

    def all(self, key: str) -> list[str]:
        return self._said.get(key, [])

    def one(self, key: str, default: str | None = None) -> str:
        values = self.all(key)
        if not values and default is not None:
            return default
        if len(values) != 1 or not values[0]:
            raise self._wrong(f"needs one line `-- {key}: ...` at its head")
        return values[0]

    def word(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        found = self.one(key, default)
        if found not in allowed:
            raise self._wrong(f"has {key}: {found}; it can be {', '.join(filter(None, allowed))}")
        return found

    def parameter(self, text: str) -> Parameter:
        found = _PARAMETER.fullmatch(text)
        if found is None:
            raise self._wrong(f"has parameter: {text}; write `-- parameter: name = 10: what it is`")
        number = float(found[2]) if "." in found[2] else int(found[2])
        return Parameter(found[1], number, found[3])

    def chart(self) -> Chart:
        form, *columns = self.one("chart", "none").replace(" by ", " ").split()
        wanted = {"none": (0,), "bar": (2,), "line": (2, 3), "heat": (3,)}
        if len(columns) not in wanted.get(form, ()):
            raise self._wrong(
                f"has chart: {self.one('chart')}; write `bar x y`, `line x y by z`, `heat x y z` or `none`"
            )
        return Chart(form, tuple(columns))

    def events(self) -> tuple[str, ...]:
        found = (
            tuple(self.one("events", "").replace(",", " ").split()) if self.all("events") else ()
        )
        for name in found:
            if name not in EVENTS:
                raise self._wrong(f"needs the event {name}, which there is not; see docs/events.md")
        return found

    def before(self) -> timedelta | None:
        text = self.one("before", "0s")
        try:
            return None if text == "all" else span(text)
        except Unanswerable as problem:
            raise self._wrong(f"has before: {problem}, or all") from None

    def _wrong(self, what: str) -> ReportError:
        return ReportError(f"{self._path}: {what}")
