"""Lines of mail that are taken in runs, because there are very many, are written as one by one."""

import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import ALL, DataRun, Event
from pop3proxy.analyzer.limits import Limits
from pop3proxy.hooks.logging.records import line, lines
from tests.analyzer.player import Player, new_connection

from .making import C, S, Said
from .replaying import SCRIPTS, runs_of

_LINES = st.sampled_from(
    [b"plain", b"", b".", b"..", b".stuffed", b"a\rb", b"tab\t", b'"', b"\\", b"\xff", b"\xc3\xa9"]
)
_ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r\r\n"])
_BODIES = st.lists(st.tuples(_LINES, _ENDS).map(b"".join), max_size=12).map(b"".join)


def written(runs: Iterable[Said], sizes: random.Random, kinds: frozenset[type[Event]]) -> bytes:
    """Write what sessions say, cut as chance will have it."""
    player = Player(Analyzer(new_connection(), Limits(data_line=40), wants=kinds))
    out = []
    for side, data in runs:
        at = 0
        events: list[Event] = []
        while data and at < len(data):
            size = sizes.choice((1, 5, 20, 200))
            events += player.say(side, data[at : at + size])
            at += size
        if data is None:
            events += player.end(side)
        out += [lines(each) if isinstance(each, DataRun) else line(each) for each in events]
    return b"".join(out)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(body=_BODIES, end=st.sampled_from([b"\r\n", b"\n"]), seed=st.integers(0, 1 << 16))
def test_runs_are_written_as_their_lines_one_by_one(body: bytes, end: bytes, seed: int) -> None:
    runs = [
        Said(S, b"+OK" + end),
        Said(C, b"RETR 1\r\n"),
        Said(S, b"+OK" + end + body + b"." + end),
    ]
    one_by_one = written(runs, random.Random(seed), ALL)
    assert written(runs, random.Random(seed), ALL | {DataRun}) == one_by_one


def test_the_transcripts_are_written_the_same_in_runs() -> None:
    for script in SCRIPTS:
        runs = runs_of(script)
        one_by_one = written(runs, random.Random(1), ALL)
        assert written(runs, random.Random(1), ALL | {DataRun}) == one_by_one, script.name


def test_most_lines_of_a_body_are_in_runs() -> None:
    player = Player(Analyzer(new_connection(), wants=ALL | {DataRun}))
    player.say(S, b"+OK\r\n")
    player.say(C, b"RETR 1\r\n")
    events = player.say(S, b"+OK\r\n" + b"line\r\n" * 100 + b"half")
    events += player.say(S, b"a line\r\n" + b"line\r\n" * 100 + b".\r\n")
    runs = [event for event in events if isinstance(event, DataRun)]
    assert [run.data.count(b"\n") for run in runs] == [100, 101]
