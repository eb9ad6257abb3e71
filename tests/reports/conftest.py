"""The attack day in files, made once, and ways to ask about it."""

import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pop3proxy.reports.asking import Asked, ask
from pop3proxy.reports.log import Filters
from pop3proxy.reports.questions import Question, shipped

from .attackday import BEGINNING, END, AttackDay

NOW = datetime.fromtimestamp(END, UTC)
THE_DAY = Filters(since=datetime.fromtimestamp(BEGINNING, UTC), until=NOW)
EVERYTHING = Filters()

Rows = list[dict[str, Any]]
Ask = Callable[..., Rows]


def asked(
    files: Sequence[Path | str], filters: Filters = EVERYTHING, form: str = "json", **more: Any
) -> Asked:
    """Return how a question is asked that is answered in UTC, at the end of the attack day."""
    return Asked([str(file) for file in files], filters, NOW, ZoneInfo("UTC"), form, **more)


def rows_of(
    question: Question | str,
    files: Sequence[Path | str],
    filters: Filters = EVERYTHING,
    **more: Any,
) -> Rows:
    """Ask a question, and return its rows by the names of their columns."""
    found = shipped()[question] if isinstance(question, str) else question
    out = io.StringIO()
    ask(found, asked(files, filters, **more), out, lambda text: None)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture(scope="session")
def day() -> AttackDay:
    """The attack day with its truth."""
    return AttackDay(seed=20260317)


@pytest.fixture(scope="session")
def files(day: AttackDay, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The records: the quiet days in one file, and the attack day in one that is still being written."""
    folder = tmp_path_factory.mktemp("attackday")
    before, today = folder / "events.jsonl.1", folder / "events.jsonl"
    day.write(before, until=BEGINNING)
    day.write(today, since=BEGINNING)
    with today.open("ab") as file:
        file.write(b"no record\n")
        file.write(b'{"v":1,"ts":1773705600.0,"event":"pop3_login_failure","user":"\xff\xfe"}\n')
        file.write(b'{"v":1,"ts":1773705600.0,"event":"pop3_login_fai')
    return [before, today]
