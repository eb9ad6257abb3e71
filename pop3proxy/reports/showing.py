"""Writes the answer of a question: a table for people, or JSON Lines, CSV or Markdown; asks nothing."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol, TextIO

from .problems import ReportError

Row = Sequence[Any]


class Form(Protocol):
    """A way to write an answer."""

    def __call__(
        self, out: TextIO, title: str, columns: Sequence[str], rows: Iterable[Row]
    ) -> None:
        """Write it to ``out``."""


def as_json(out: TextIO, title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write an object a line."""
    del title
    for row in rows:
        record = {name: _plain(value) for name, value in zip(columns, row, strict=True)}
        out.write(json.dumps(record, ensure_ascii=False) + "\n")


def as_csv(out: TextIO, title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write CSV (RFC 4180) with a line of names first.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, since user names come from
    attackers.
    """
    del title
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_without_formula(value) for value in row])


def as_markdown(out: TextIO, title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table of Markdown."""
    del title
    out.write(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    for row in rows:
        cells = (_in_markdown(_printable(_text(value))) for value in row)
        out.write(f"| {' | '.join(cells)} |\n")


def as_table(out: TextIO, title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table as wide as the terminal; where there is none nothing is cut off or folded."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        raise ReportError(
            "tables need the package rich; install it with pip install 'pop3proxy[audit]', or use --json"
        ) from None
    wide = None if out.isatty() else _ENDLESS
    console = Console(file=out, width=wide, highlight=False, soft_wrap=False)
    kept = [[_printable(_shown(value)) for value in row] for row in rows]
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        numeric = bool(kept) and all(_is_number(row[number]) for row in kept if row[number])
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        table.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(table)
    # Without a terminal the lines would be padded to that width.
    out.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


_ENDLESS: Final = 10_000
"""Letters of a line where no terminal says how many fit."""

FORMS: Final[dict[str, Form]] = {
    "json": as_json,
    "csv": as_csv,
    "markdown": as_markdown,
    "table": as_table,
}


class Counted:
    """Rows that are counted as they are written, up to a limit; ``more`` if there were more than that."""

    def __init__(self, rows: Iterable[Row], limit: int | None) -> None:
        self._rows = rows
        self._limit = limit
        self.count = 0
        self.more = False

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            if self.count == self._limit:
                self.more = True
                return
            self.count += 1
            yield row


def _plain(value: Any) -> Any:
    """Make a value one of JSON's."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value if each is not None]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return str(value)


def _text(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, list):
        return ", ".join(map(_text, plain))
    return str(plain)


def _shown(value: Any) -> str:
    """Write a value as people read it: times without their zone, numbers with few digits."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return _text(value)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).removeprefix("-").isdecimal()


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def _without_formula(value: Any) -> Any:
    text = _text(value)
    if isinstance(value, str) and text.startswith(_FORMULA):
        return f"'{text}"
    return text


def _printable(text: str) -> str:
    """Escape what could steer a terminal, since it comes from a peer."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _in_markdown(text: str) -> str:
    """Escape what Markdown or HTML would take for its own."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+!|~$" else c for c in text)
