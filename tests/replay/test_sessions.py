"""Which connections are sessions, what begins and ends them, and what hooks hear of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from pop3proxy.analyzer.events import Connect, LoginAttempt, Side
from pop3proxy.hooks.api import Delay, Deny, EndSession, Hook, Verdict
from pop3proxy.replay import sessions
from pop3proxy.replay.sessions import PacketClock

from . import making
from .making import SYN, C, Ends, S, Said, Segment, frames, pcap, segments
from .replaying import LOGIN, Replayed, live, replayed, replayed_segments

ODD = Ends(server_port=10110)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Give what is logged."""
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        said.append(formatEvent(event))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield said
    globalLogPublisher.removeObserver(observer)


def capture(path: Path, *frames_of: list[bytes], times: making.Times = making.evenly) -> Path:
    path = path / "capture"
    path.write_bytes(pcap([frame for part in frames_of for frame in part], times=times))
    return path


def test_a_session_begins_at_its_first_packet_and_ends_at_its_last(tmp_path: Path) -> None:
    what = segments(LOGIN)
    done = replayed_segments(tmp_path, what)
    connect, (end,) = done.events[0], done.ends
    assert isinstance(connect, Connect)
    assert connect.ts == making.evenly(0) / 1e9
    assert end.ts == making.evenly(len(what) - 1) / 1e9
    assert done.events[-1] is end
    assert (connect.c.orig_h, connect.c.orig_p) == ("192.0.2.1", 40000)
    assert (connect.c.resp_h, connect.c.resp_p) == ("198.51.100.1", 110)
    sent = {side: sum(len(run.data or b"") for run in LOGIN if run.side is side) for side in Side}
    assert (end.orig_octets, end.resp_octets) == (sent[C], sent[S])
    assert (end.user, end.outcome, end.retr, end.commands) == ("bob", "success", 1, 4)
    assert (end.reason, end.inspected) == ("server_closed", "whole")
    assert end.duration == round((len(what) - 1) * 1e-3, 6)


def test_the_last_record_says_who_tried_to_log_in_and_what_was_deleted(tmp_path: Path) -> None:
    dialogue = [
        Said(S, b"+OK ready\r\n"),
        Said(C, b"USER bob\r\nPASS secret\r\nDELE 1\r\nDELE 2\r\nRSET\r\nDELE 3\r\nQUIT\r\n"),
        Said(S, b"+OK\r\n" * 7),
        Said(S, None),
        Said(C, None),
    ]
    (end,) = replayed_segments(tmp_path, segments(dialogue)).ends
    assert (end.user, end.mechanism) == ("bob", "USER/PASS")
    assert (end.dele, end.deleted, end.denied) == (3, 1, 0)


def test_who_leaves_without_a_word_is_a_session(tmp_path: Path) -> None:
    done = replayed_segments(tmp_path, segments([Said(C, None), Said(S, None)]))
    assert done.names == ["pop3_connect", "pop3_unexpected", "pop3_session"]
    assert done.ends[0].reason == "client_closed"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_connection_that_is_only_opened_is_no_session(tmp_path: Path, count: int) -> None:
    assert replayed_segments(tmp_path, segments(LOGIN)[:count]).events == []


def test_two_replays_are_equal(tmp_path: Path) -> None:
    path = capture(tmp_path, frames(segments(LOGIN)), frames(segments(LOGIN, isn=(9, 9))))
    first, second = Replayed(path), Replayed(path)
    uids = [end.c.uid for end in first.ends]
    assert uids == [end.c.uid for end in second.ends]
    assert len(set(uids)) == 2
    assert all(re.fullmatch("C[0-9A-Za-z]{17}", uid) for uid in uids)


@pytest.mark.parametrize("cut", [making.whole, making.in_pieces_of(1)])
@pytest.mark.parametrize("greeting", [b"+OK ready\r\n", b"+OK\r\n", b"+OK\n", b"-ERR busy\r\n"])
def test_a_greeting_shows_pop3_on_any_port(
    tmp_path: Path, greeting: bytes, cut: making.Cut
) -> None:
    runs = [Said(S, greeting), *LOGIN[1:]]
    done = replayed(tmp_path, pcap(frames(segments(runs, cut), ODD)))
    assert done.said == live(runs)
    assert done.events[0].c.resp_p == 10110


@pytest.mark.parametrize(
    "runs",
    [
        [Said(S, b"220 mail ESMTP\r\n"), *LOGIN[1:]],
        [Said(S, b"+OKAY then\r\n"), *LOGIN[1:]],
        [Said(C, b"GET / HTTP/1.1\r\n\r\n"), Said(S, b"+OK\r\n")],
    ],
    ids=["another greeting", "no greeting", "the client first"],
)
def test_other_traffic_is_passed_over(tmp_path: Path, runs: list[Said]) -> None:
    done = replayed(tmp_path, pcap(frames(segments(runs), ODD)))
    assert done.events == []
    assert done.replay.flows.open == 0


def test_other_traffic_whose_start_was_not_seen_is_passed_over(tmp_path: Path) -> None:
    assert replayed(tmp_path, pcap(frames(segments(LOGIN)[3:], ODD))).events == []


def test_a_port_that_is_said_to_be_pop3_needs_no_greeting(tmp_path: Path) -> None:
    content = pcap(frames(segments(LOGIN)[7:], ODD))
    assert "pop3_request" in replayed(tmp_path, content, [10110]).names


def test_tls_ends_inspection_and_not_the_session(tmp_path: Path) -> None:
    runs = [
        Said(S, b"+OK\r\n"),
        Said(C, b"STLS\r\n"),
        Said(S, b"+OK\r\n"),
        Said(C, b"\x16\x03\x01" + bytes(200)),
        Said(S, b"\x16\x03\x03" + bytes(1000)),
        Said(C, None),
        Said(S, None),
    ]
    done = replayed_segments(tmp_path, segments(runs))
    assert done.names[-2:] == ["pop3_starttls", "pop3_session"]
    assert (done.ends[0].inspected, done.ends[0].resp_octets) == ("until_tls", 1013)


def test_too_many_commands_without_replies_end_inspection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_WAITING", 1000)
    runs = [Said(S, b"+OK\r\n"), Said(C, b"NOOP\r\n" * 4095), Said(C, b"NOOP\r\n" * 200)]
    done = replayed_segments(tmp_path, segments([*runs, Said(S, b"+OK\r\n" * 9)]))
    assert done.ends[0].inspected == "lost:pending"


def test_what_all_analyzers_keep_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_KEPT", 100_000)
    monkeypatch.setattr(sessions, "LOOK_EVERY", 10_000)
    out = frames(segments(LOGIN[:4]))
    for number in range(40):
        half_a_line = [Said(S, b"+OK\r\n"), Said(C, b"AUTH PLAIN " + b"A" * 5000)]
        out += frames(segments(half_a_line), Ends(client_port=1000 + number))
    done = replayed(tmp_path, pcap([*out, *frames(segments(LOGIN))[7:]]))
    kept = [end for end in done.ends if end.inspected == "whole"]
    assert 0 < len(kept) <= 100_000 // 5000 + 2
    assert {end.inspected for end in done.ends} == {"whole", "lost:memory"}
    assert next(end for end in done.ends if end.c.orig_p == 40000).inspected == "whole"


def test_commands_that_wait_for_room_are_read_when_replies_come(tmp_path: Path) -> None:
    runs = [
        Said(S, b"+OK\r\n"),
        Said(C, b"NOOP\r\n" * 4200),
        Said(S, b"+OK\r\n" * 4200),
        Said(C, b"QUIT\r\n"),
        Said(S, b"+OK\r\n"),
    ]
    done = replayed_segments(tmp_path, segments(runs))
    assert (done.ends[0].commands, done.ends[0].inspected) == (4201, "whole")


class Judge(Hook):
    """Decides what a test wants."""

    blocking = True

    def __init__(self, verdict: "Verdict | Deferred[Verdict] | None" = None) -> None:
        self.verdict = verdict
        self.asked: list[str] = []

    def pop3_login_attempt(self, event: LoginAttempt) -> "Verdict | Deferred[Verdict] | None":
        self.asked.append(event.user)
        return self.verdict


def test_a_verdict_is_logged_and_counted_and_changes_nothing(
    tmp_path: Path, log: list[str]
) -> None:
    hook = Judge(Deny("-ERR not today"))
    done = Replayed(capture(tmp_path, frames(segments(LOGIN))), hooks=[hook])
    assert hook.asked == ["bob"]
    assert done.said == live(LOGIN)
    assert done.replay.sessions.counts["verdicts"] == 1
    (said,) = [each for each in log if "would have" in each]
    assert "pop3_login_attempt" in said
    assert "-ERR not today" in said
    assert done.ends[0].c.uid in said
    assert "secret" not in said


def test_a_hook_that_passes_is_asked_and_nothing_is_recorded(tmp_path: Path) -> None:
    hook = Judge()
    done = Replayed(capture(tmp_path, frames(segments(LOGIN))), hooks=[hook])
    assert hook.asked == ["bob"]
    assert "verdicts" not in done.replay.sessions.counts


def test_a_verdict_that_takes_time_gets_the_packets_time(tmp_path: Path, log: list[str]) -> None:
    class Slow(Judge):
        def start(self, reactor: PacketClock) -> None:
            self.clock = reactor

        def pop3_login_attempt(self, event: LoginAttempt) -> "Deferred[Verdict]":
            answer: Deferred[Verdict] = Deferred()
            self.clock.callLater(0.002, answer.callback, Delay(2))
            self.began = self.clock.seconds()
            return answer

    hook = Slow()
    done = Replayed(capture(tmp_path, frames(segments(LOGIN))), hooks=[hook])
    assert hook.began == making.evenly(6) / 1e9
    assert done.replay.sessions.counts["verdicts"] == 1
    assert "Delay(seconds=2)" in "\n".join(log)


def test_what_is_asked_last_is_answered_behind_the_end_of_the_capture(tmp_path: Path) -> None:
    hook = Judge(Deferred())
    hook.on_error = "deny"
    done = Replayed(capture(tmp_path, frames(segments(LOGIN[:4]))), hooks=[hook])
    assert done.replay.sessions.counts["verdicts"] == 1


def test_a_hook_that_never_answers_runs_into_its_time_limit(tmp_path: Path) -> None:
    hook = Judge(Deferred())
    hook.on_error = "deny"
    path = capture(
        tmp_path, frames(segments(LOGIN)), times=lambda n: making.START * 10**9 + n * 10**9
    )
    assert Replayed(path, hooks=[hook]).replay.sessions.counts["verdicts"] == 1


def test_a_hook_that_would_end_the_session_does_not_end_it(tmp_path: Path, log: list[str]) -> None:
    class Ends_(Hook):
        def pop3_login_success(self, event: object) -> None:
            raise EndSession("not recorded")

    done = Replayed(capture(tmp_path, frames(segments(LOGIN))), hooks=[Ends_()])
    assert done.said == live(LOGIN)
    assert "would have ended the session" in "\n".join(log)


def test_an_error_in_the_analyzer_costs_only_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("pop3proxy.analyzer.dialogue.Analyzer._challenge", broken)
    runs = [*LOGIN[:1], Said(C, b"AUTH PLAIN\r\n"), Said(S, b"+ \r\n"), *LOGIN[5:]]
    done = replayed(
        tmp_path,
        pcap([*frames(segments(runs)), *frames(segments(LOGIN), Ends(client_port=9))]),
    )
    assert [end.inspected for end in done.ends] == ["lost:error", "whole"]
    assert "secret" not in "\n".join(log)


def test_the_clock_never_goes_back() -> None:
    clock = PacketClock()
    for ts in (5.0, 3.0, 7.0):
        clock.move(ts)
    assert clock.seconds() == 7.0


def test_a_delayed_call_that_fails_hinders_no_other(log: list[str]) -> None:
    clock = PacketClock()
    made: list[int] = []
    clock.callLater(1, lambda: 1 / 0)
    clock.callLater(2, made.append, 2)
    clock.move(5.0)
    assert made == [2]
    assert log == ["a delayed call of a hook failed: ZeroDivisionError"]


FLOOD = 1_000_000
MAX_GROWTH = 96 * 1024 * 1024
"""Octets that the tables of a flood may take: 65,536 openings, and what Python keeps beside them."""


def test_a_flood_of_a_million_connections_is_bounded_and_hides_no_session(tmp_path: Path) -> None:
    """The flood's SYNs come between the packets of a session, whose own SYN came before them."""
    head = making.ethernet(making.ipv4(Segment(C, 1, 0, SYN)))[:54]
    session = frames(segments(LOGIN))
    every = FLOOD // (len(session) - 1)
    before = _resident()
    grown = 0

    def packets() -> Iterator[tuple[float, int, bytes]]:
        nonlocal grown
        queue = iter(session[3:])
        for frame in session[:4]:
            yield 1.0, 1, frame
        next(queue)
        for number in range(FLOOD):
            address = (0x0A000000 + number).to_bytes(4, "big")
            yield 1.0, 1, head[:26] + address + head[30:]
            if number % every == every - 1:
                yield 2.0, 1, next(queue, b"")
        grown = _resident() - before

    path = capture(tmp_path, [])
    done = Replayed(path)
    done.replay.run(packets())
    assert done.said == live(LOGIN)
    assert len(done.ends) == 1
    assert done.replay.flows.unopened >= FLOOD - 65_536
    assert grown < MAX_GROWTH


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096
