"""Answers of a proxy as lines of text."""

from typing import Any

import pytest

from pop3proxy.inwords import ban_in_words, written

BAN: dict[str, Any] = {
    "key": "user:bob",
    "rule": "r",
    "since": 0.0,
    "until": 60.0,
    "in_force": True,
    "times": 2,
    "evidence": ["because"],
}


def test_a_ban_is_a_line_and_its_evidence() -> None:
    assert list(ban_in_words(BAN)) == [
        "user:bob  r  since 1970-01-01T00:00:00Z  until 1970-01-01T00:01:00Z  times 2",
        "    because",
    ]


@pytest.mark.parametrize("until", [1e300, -1e300, float("nan"), float("inf"), 1e15])
def test_a_time_that_no_date_can_be_written_for_is_a_number(until: float) -> None:
    line, _ = ban_in_words({**BAN, "until": until})
    assert f"until {until:g}  times" in line


def test_a_name_steers_no_terminal() -> None:
    lines = iter(("user:\x1b[2Jbob\nadmin", "next"))
    assert written(lines) == "user:\\x1b[2Jbob\\nadmin\nnext"
