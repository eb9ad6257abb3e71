"""Plays every transcript in every cutting, and checks that together they cover the specification."""

import difflib
import random
import re

import pytest

from pop3proxy.analyzer.events import (
    ALL,
    Data,
    Event,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Unexpected,
)
from pop3proxy.analyzer.grammar import COMMANDS

from .player import Cut, Script, at_random, byte_by_byte, line_by_line, whole
from .transcript import Transcript, read_all

TRANSCRIPTS = read_all()
CUTTINGS = 20

# The points of the collection of pitfalls that concern an analyzer: framing (1-14), states and login
# (15-28), SASL (29-36), and what TLS and doubt mean to it.
PITFALLS = frozenset({*range(1, 37), 37, 38, 39, 41, 49})

WITHOUT_DATA = ALL - {Data}
# With these gated, client bytes wait at barriers, but not for the answer to a login.
BARRIERS: frozenset[type[Event]] = frozenset({Data, Unexpected})
LOGINS_ONLY: frozenset[type[Event]] = frozenset({LoginSuccess, LoginFailure})

every_transcript = pytest.mark.parametrize(
    "transcript", TRANSCRIPTS, ids=[transcript.name for transcript in TRANSCRIPTS]
)


def _check(transcript: Transcript, script: Script) -> None:
    """Fail with the transcript as a diff, if it was not as it should have been."""
    if script.should != script.was:
        lines = difflib.unified_diff(
            script.should, script.was, "expected", "raised", lineterm="", n=6
        )
        pytest.fail("\n".join((transcript.rule, *lines)), pytrace=False)


def _play(transcript: Transcript, script: Script, cut: Cut) -> None:
    for turn in transcript.turns:
        script.play(turn, cut)
    _check(transcript, script)


@every_transcript
def test_events_are_raised_behind_their_lines(transcript: Transcript) -> None:
    script = Script(transcript)
    for turn in transcript.turns:
        script.play_line_by_line(turn)
    _check(transcript, script)


@every_transcript
def test_events_of_whole_runs(transcript: Transcript) -> None:
    _play(transcript, Script(transcript), whole)


@every_transcript
def test_events_byte_by_byte(transcript: Transcript) -> None:
    _play(transcript, Script(transcript), byte_by_byte)


@every_transcript
def test_events_in_random_cuts(transcript: Transcript) -> None:
    for seed in range(CUTTINGS):
        source = random.Random(f"{transcript.name} {seed}")
        _play(transcript, Script(transcript), at_random(source))


@every_transcript
def test_what_a_transcript_leaves_open_is_the_same_for_any_cutting(transcript: Transcript) -> None:
    raised = []
    for cut in (whole, byte_by_byte):
        script = Script(transcript)
        for turn in transcript.turns:
            script.play(turn, cut)
        raised.append(script.raised)
    assert raised[0] == raised[1]


# Where bytes are held back, a session that begins with TLS is not inspected.
HELD_BACK = [transcript for transcript in TRANSCRIPTS if transcript.name != "not-pop3-tls-client"]


@pytest.mark.parametrize("transcript", HELD_BACK, ids=[each.name for each in HELD_BACK])
@pytest.mark.parametrize("cut", [whole, line_by_line, byte_by_byte])
def test_events_are_the_same_where_client_bytes_wait_at_barriers(
    transcript: Transcript, cut: Cut
) -> None:
    _play(transcript, Script(transcript, gated=BARRIERS), cut)


@every_transcript
@pytest.mark.parametrize("wants", [WITHOUT_DATA, LOGINS_ONLY], ids=["without-data", "logins-only"])
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_what_nobody_wants_changes_nothing_else(
    transcript: Transcript, cut: Cut, wants: frozenset[type[Event]]
) -> None:
    _play(transcript, Script(transcript, wants=wants), cut)


@every_transcript
def test_a_transcript_says_which_rule_it_guards(transcript: Transcript) -> None:
    assert transcript.rule.endswith(".")


def test_every_pitfall_has_a_transcript() -> None:
    named = {
        int(number)
        for transcript in TRANSCRIPTS
        for numbers in re.findall(r"pitfalls? ([\d, ]+)", transcript.rule)
        for number in re.findall(r"\d+", numbers)
    }
    assert named >= PITFALLS


def _expected_values(name: str, position: int) -> set[bytes]:
    return {
        event.values[position].data
        for transcript in TRANSCRIPTS
        for event in transcript.expected
        if event.kind.name == name
    }


def test_every_oddity_has_a_transcript() -> None:
    # A gap is nothing that a peer says, and what does not pass has transcripts with verdicts.
    others = {Oddity.GAP, Oddity.NOT_PASSED}
    oddities = {oddity.value.encode() for oddity in set(Oddity) - others}
    assert _expected_values("pop3_unexpected", 1) >= oddities


def test_every_command_has_a_transcript() -> None:
    assert _expected_values("pop3_request", 0) >= set(COMMANDS)
