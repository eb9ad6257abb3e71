"""Plays every transcript with verdicts: for any cutting both sides get the same, and events are the same."""

import difflib
import random
from collections.abc import Iterable

import pytest

from .script import Act, Cut, Script, play, read_all

SCRIPTS = read_all()
CUTTINGS = 20

every_transcript = pytest.mark.parametrize(
    "script", SCRIPTS, ids=[script.name for script in SCRIPTS]
)


def _whole(act: Act) -> Iterable[bytes]:
    return [act.data]


def _line_by_line(act: Act) -> Iterable[bytes]:
    return act.said


def _byte_by_byte(act: Act) -> Iterable[bytes]:
    return (act.data[at : at + 1] for at in range(len(act.data)))


def _at_random(source: random.Random) -> Cut:
    """Cut at as many places as chance will have it, most often at few."""

    def cut(act: Act) -> Iterable[bytes]:
        data = act.data
        most = max(0, min(source.choice((1, 3, 10, 40)), len(data) - 1))
        cuts = sorted(source.sample(range(1, len(data)), most)) if most else []
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    return cut


def _check(script: Script, cut: Cut, later: bool = False) -> None:
    """Fail with the transcript as a diff, if it was not as it should have been."""
    should, was = play(script, cut, later)
    if script.events_vary and cut is not _line_by_line:
        should, was = ([line for line in lines if line[:2] != "> "] for lines in (should, was))
    if should != was:
        lines = difflib.unified_diff(should, was, "expected", "played", lineterm="", n=6)
        pytest.fail("\n".join((script.rule, *lines)), pytrace=False)


@every_transcript
def test_line_by_line(script: Script) -> None:
    _check(script, _line_by_line)


@every_transcript
def test_whole(script: Script) -> None:
    _check(script, _whole)


@every_transcript
def test_byte_by_byte(script: Script) -> None:
    _check(script, _byte_by_byte)


@every_transcript
@pytest.mark.parametrize("seed", range(CUTTINGS))
def test_cut_at_random(script: Script, seed: int) -> None:
    _check(script, _at_random(random.Random(f"{script.name} {seed}")))


@every_transcript
@pytest.mark.parametrize("cut", [_line_by_line, _whole, _byte_by_byte])
def test_answered_later(script: Script, cut: Cut) -> None:
    _check(script, cut, later=True)


def test_every_transcript_says_which_rule_it_guards_and_what_the_hook_answers() -> None:
    assert [script.name for script in SCRIPTS if not (script.rule and script.answers)] == []
    assert len(SCRIPTS) >= 25
