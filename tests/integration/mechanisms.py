"""The table of which client and server ran each login mechanism, put together from the tests that passed."""

import re
import subprocess
from collections.abc import Callable, Iterable

import pytest

from .processes import program

PROPERTY = "mechanism that ran"
SAYS_ITS_VERSION = {"fetchmail": "-V", "mutt": "-v"}
HEADINGS = ("mechanism", "client", "server", "results")

Ran = Callable[[str, str, str, str], None]
"""Mechanism, client, server, result."""


def ran_in(record_property: Callable[[str, object], None]) -> Ran:
    """Notes rows for the table on a test's report."""

    def ran(mechanism: str, client: str, server: str, result: str) -> None:
        record_property(PROPERTY, (mechanism, client, server, result))

    return ran


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """The rows of all reports, as a table in Markdown; one row for all results of the same three."""
    results: dict[tuple[str, ...], set[str]] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, (list, tuple)):
                *who, result = map(str, value)
                results.setdefault(tuple(who), set()).add(result)
    if not results:
        return []
    rule = tuple("---" for _ in HEADINGS)
    rows = [(*who, "; ".join(sorted(some))) for who, some in sorted(results.items())]
    return [f"| {' | '.join(row)} |" for row in (HEADINGS, rule, *rows)]


def with_version(client: str) -> str:
    """A program's name, and the first version number in what it says of itself."""
    command = [program(client), SAYS_ITS_VERSION.get(client, "--version")]
    output = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    ).stdout
    version = re.search(rb"\d+\.\d+[\d.]*", output)
    assert version, output
    return f"{client} {version[0].decode()}"
