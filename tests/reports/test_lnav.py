"""The format for lnav shows and finds what records say."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from pop3proxy.reports.columns import COLUMNS, EVENTS

from ..integration.processes import program
from .attackday import BEGINNING, AttackDay
from .test_reading import failure, written

FORMAT = Path(__file__).parents[2] / "conf" / "lnav.json"


def lnav(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["lnav", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "TZ": "UTC"},
    )
    assert "error" not in done.stderr
    return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the format is installed."""
    program("lnav")
    lnav(tmp_path, "-i", str(FORMAT))
    return tmp_path


def test_a_failed_login_is_a_line_to_read(home: Path) -> None:
    path = written(home / "events.jsonl", failure(), failure(user="carol"))
    first, second = lnav(home, "-n", str(path)).splitlines()
    assert re.split(" +", first.strip()) == [
        *("2026-03-17T00:00:00.250", "C1", "192.0.2.17", "pop3_login_failure", "bob"),
        *("PLAIN", "credentials"),
    ]
    assert "carol" in second


def test_records_are_asked_by_sql(home: Path, day: AttackDay) -> None:
    path = home / "events.jsonl"
    day.write(path, since=BEGINNING)
    statement = ";SELECT log_level, count(*) AS n FROM pop3proxy_log GROUP BY log_level"
    out = lnav(home, "-n", "-c", statement, "-c", ":write-csv-to -", str(path))
    found = {row["log_level"]: int(row["n"]) for row in csv.DictReader(out.splitlines())}
    failed = [login for login in day.truth.of_the_day() if not login.succeeded]
    assert found["error"] == len(failed)
    assert sum(found.values()) == sum(1 for ts, _ in day.lines() if ts >= BEGINNING)


def test_the_format_names_fields_and_events_that_there_are() -> None:
    said = json.loads(FORMAT.read_text(encoding="utf-8"))["pop3proxy_log"]
    shown = {each["field"] for each in said["line-format"] if isinstance(each, dict)}
    assert (shown | set(said["value"])) - {"__timestamp__"} <= set(COLUMNS)
    levels = list(said["level"].values())
    for event in EVENTS:
        assert len([level for level in levels if re.search(level, event)]) == 1, event
