"""A thousand sessions held at once: each is small, and all are released by one word or by their time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .court import DENIED, Case, Courtroom, sitting

NUMBER = 1_000
GROWTH = 16 << 20
"""What holding them all may add to the octets that are resident: from 3.3 to 4.8 million were measured."""


@contextmanager
def sessions(room: Courtroom) -> Iterator[list[Case]]:
    """Begin them all, behind a first one that has warmed the proxy up."""
    with ExitStack() as stack:
        with room.session() as first:
            first.goes_on()
        yield [stack.enter_context(room.session()) for _ in range(NUMBER)]


def try_to_log_in(cases: list[Case]) -> None:
    for number, case in enumerate(cases):
        case.client.says(b"USER u%d\r\nPASS p%d\r\nNOOP\r\n" % (number, number))
        case.server.hears(b"USER u%d\r\n" % number)
        case.server.says(b"+OK %d\r\n" % number)
        case.client.hears(b"+OK %d\r\n" % number)


def get_in(cases: list[Case], step: int = 1) -> None:
    for number in range(0, NUMBER, step):
        case = cases[number]
        case.server.hears(b"PASS p%d\r\n" % number)
        case.answers(b"+OK in %d\r\n" % number)
        case.server.hears(b"NOOP\r\n")
        case.answers(b"+OK 0 0\r\n")


@pytest.mark.parametrize("coroutine", [True, False], ids=["coroutine", "Deferred"])
def test_a_thousand_sessions_wait_for_one_word(tmp_path: Path, coroutine: bool) -> None:
    with sitting(tmp_path, coroutine=coroutine) as room, sessions(room) as cases:
        before = room.proxy.memory()
        try_to_log_in(cases)
        for number, case in enumerate(cases):
            case.question(user=f"u{number}", password=f"p{number}")
        room.court.fence()
        for case in cases:
            case.server.has_heard_nothing()
            case.client.has_heard_nothing()
        assert room.proxy.memory() - before < GROWTH
        room.court.release()
        get_in(cases)
        assert room.proxy.most_memory() - before < GROWTH


def test_a_thousand_sessions_are_each_denied_or_let_in(tmp_path: Path) -> None:
    with sitting(tmp_path) as room, sessions(room) as cases:
        try_to_log_in(cases)
        questions = [case.question(user=f"u{number}") for number, case in enumerate(cases)]
        for number in reversed(range(NUMBER)):
            questions[number].answer("deny" if number % 2 else "pass")
        get_in(cases, 2)
        for case in cases[1::2]:
            case.client.hears(DENIED)
            case.server.hears(b"NOOP\r\n")


def test_a_thousand_sessions_are_delayed_at_once(tmp_path: Path) -> None:
    with sitting(tmp_path) as room:
        with sessions(room) as cases:
            before = room.proxy.memory()
            try_to_log_in(cases)
            questions = [case.question(user=f"u{number}") for number, case in enumerate(cases)]
            for question in questions:
                question.answer("delay 0.5")
            room.court.fence()
            assert room.proxy.memory() - before < GROWTH
            get_in(cases)
        assert room.counted("delayed") == NUMBER
