"""Reassembly: whatever becomes of the packets, the bytes come in order, and what is missing is said."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pop3proxy.analyzer.events import Side
from pop3proxy.replay import flows, streams
from tests.analyzer.transcript import Transcript

from . import making
from .making import ACK, FIN, RST, SYN, C, Ends, S, Said, Segment, frames, pcap, segments
from .replaying import (
    LOGIN,
    SCRIPTS,
    Replayed,
    live,
    replayed,
    replayed_segments,
    runs_of,
    shown,
)

GAP_OF_CLIENT = ("pop3_unexpected", True, "gap", "")
GAP_OF_SERVER = ("pop3_unexpected", False, "gap", "")


def without(what: Sequence[Segment], marks: Iterable[bytes]) -> list[Segment]:
    """Lose the segments that have one of these in them."""
    return [each for each in what if not any(mark in each.data for mark in marks)]


def logins(done: Replayed) -> list[str]:
    return [name for name in done.names if name in ("pop3_login_success", "pop3_login_failure")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_transcript_in_a_capture_is_what_it_is_live(tmp_path: Path, script: Transcript) -> None:
    runs = runs_of(script)
    pieces = max(1, max(len(run.data or b"") for run in runs) // 500)
    for cut in (making.whole, making.in_pieces_of(7 * pieces), making.in_pieces_of(pieces)):
        done = replayed_segments(tmp_path, making.acknowledged(segments(runs, cut)))
        assert done.said == live(runs)


def test_numbers_wrap_around(tmp_path: Path) -> None:
    for isn in range(2**32 - 60, 2**32, 7):
        what = segments(LOGIN, making.in_pieces_of(9), (isn, isn - 11))
        assert replayed_segments(tmp_path, what).said == live(LOGIN)


def test_retransmits_are_passed_over(tmp_path: Path) -> None:
    what = [each for each in segments(LOGIN) for _ in range(3)]
    assert replayed_segments(tmp_path, what).said == live(LOGIN)


def test_of_bytes_that_come_twice_the_first_copy_counts(tmp_path: Path) -> None:
    out: list[Segment] = []
    for each in segments(LOGIN, making.in_pieces_of(6)):
        out += (
            [each, replace(each, data=b"#" * (len(each.data) + 2), flags=ACK)]
            if each.data
            else [each]
        )
    # What was forged goes on for two octets that the sender has not sent yet: there it is the first copy.
    forged = replayed_segments(tmp_path, out)
    assert forged.said != live(LOGIN)
    out = [each for each in out if b"#" not in each.data or each.data.strip(b"#")]
    assert replayed_segments(tmp_path, out).said == live(LOGIN)


def test_of_held_bytes_that_come_twice_the_first_copy_counts(tmp_path: Path) -> None:
    what = segments(LOGIN, making.in_pieces_of(4))
    at = next(n for n, each in enumerate(what) if b"USER" in each.data)
    first, second = what[at], what[at + 1]
    forged = replace(first, data=first.data + b"XXXX")
    what[at : at + 2] = [second, forged]
    assert replayed_segments(tmp_path, what).said == live(LOGIN)


def test_a_gap_that_the_peer_acknowledged_is_said_without_the_end_of_the_session(
    tmp_path: Path,
) -> None:
    more = [Said(C, b"NOOP\r\n"), Said(S, b"+OK\r\n")] * streams.REORDERED
    runs = [*LOGIN[:2], Said(S, b"+OK lost\r\n"), *LOGIN[3:7], *more]
    done = replayed_segments(tmp_path, without(segments(runs), [b"lost"]))
    assert done.said.count(GAP_OF_SERVER) == 1
    (gap,) = [event for event in done.events if shown_gap(event)]
    assert gap.ts < done.ends[0].ts - 0.05
    assert done.ends[0].reason == "capture_end"


def shown_gap(event: object) -> bool:
    return getattr(event, "msg", None) == "gap"


def test_no_login_is_invented_where_its_answer_is_lost(tmp_path: Path) -> None:
    done = replayed_segments(tmp_path, without(segments(LOGIN), [b"logged in"]))
    assert logins(done) == []
    assert GAP_OF_SERVER in done.said


def test_no_login_is_invented_where_its_command_is_lost(tmp_path: Path) -> None:
    done = replayed_segments(tmp_path, without(segments(LOGIN), [b"PASS"]))
    assert logins(done) == []
    assert GAP_OF_CLIENT in done.said


def test_inspection_finds_its_way_back_behind_a_gap(tmp_path: Path) -> None:
    runs = [
        *LOGIN[:1],
        *[Said(C, b"NOOP\r\n"), Said(S, b"+OK\r\n")] * 2,
        Said(C, b"CAPA\r\n"),
        Said(S, b"+OK\r\nUSER\r\n.\r\n"),
        *LOGIN[1:],
    ]
    what = without(segments(runs), [b"CAPA"])
    assert logins(replayed_segments(tmp_path, what)) == ["pop3_login_success"]


@pytest.mark.parametrize("lost", range(3))
def test_a_handshake_of_which_a_packet_is_lost(tmp_path: Path, lost: int) -> None:
    what = segments(LOGIN)
    del what[lost]
    done = replayed_segments(tmp_path, what)
    assert done.said == live(LOGIN)


def test_a_session_whose_start_was_not_seen_gives_what_is_certain(tmp_path: Path) -> None:
    runs = [Said(C, b"NOOP\r\n"), Said(S, b"+OK\r\n")] * 3
    at = 3 + len(LOGIN) - 4
    done = replayed_segments(tmp_path, segments([*LOGIN[:-4], *runs, *LOGIN[-4:]])[at:])
    assert GAP_OF_CLIENT in done.said
    assert GAP_OF_SERVER in done.said
    assert ("pop3_request", True, "QUIT", "") in done.said
    assert ("pop3_reply", False, "OK", "bye") in done.said
    assert logins(done) == []
    assert done.ends[0].reason == "server_closed"


def test_the_client_alone_gives_its_requests(tmp_path: Path) -> None:
    done = replayed_segments(tmp_path, [each for each in segments(LOGIN) if each.side is C])
    requests = [event[2] for event in done.said if event[0] == "pop3_request"]
    assert requests == ["USER", "PASS", "RETR", "QUIT"]
    assert "pop3_login_attempt" in done.names
    assert logins(done) == []
    assert done.ends[0].resp_octets == 0


def test_the_server_alone_gives_its_greeting_and_no_logins(tmp_path: Path) -> None:
    done = replayed_segments(tmp_path, [each for each in segments(LOGIN) if each.side is S])
    assert done.said[0] == ("pop3_reply", False, "OK", "ready")
    assert logins(done) == []
    assert done.ends[0].orig_octets == 0


@pytest.mark.parametrize(
    ("side", "reason"), [(C, "client_lost"), (S, "server_lost")], ids=["client", "server"]
)
def test_a_reset_ends_the_session(tmp_path: Path, side: Side, reason: str) -> None:
    what = segments(LOGIN[:5])
    last = {each.side: each for each in what}
    reset = Segment(side, last[side].seq + len(last[side].data), 0, RST)
    done = replayed_segments(tmp_path, [*what, reset, *segments(LOGIN)[8:]])
    assert [end.reason for end in done.ends] == [reason]
    assert done.ends[0].outcome == "success"


def test_a_reset_out_of_place_is_no_end(tmp_path: Path) -> None:
    what = segments(LOGIN)
    forged = [Segment(S, what[3].seq - 1, 0, RST), Segment(C, what[4].seq - 1, 0, RST)]
    assert replayed_segments(tmp_path, [*what[:6], *forged, *what[6:]]).said == live(LOGIN)


def test_a_server_that_resets_has_judged_the_login_that_waits(tmp_path: Path) -> None:
    what = segments(LOGIN[:4])
    due = next(each for each in reversed(what) if each.side is S)
    done = replayed_segments(tmp_path, [*what, Segment(S, due.seq + len(due.data), 0, RST)])
    assert logins(done) == ["pop3_login_failure"]


def test_the_end_of_a_capture_judges_no_login(tmp_path: Path) -> None:
    done = replayed_segments(tmp_path, segments(LOGIN[:4]))
    assert logins(done) == []
    assert done.said[-1] == ("pop3_unexpected", False, "cut_login", "")
    assert done.ends[0].reason == "capture_end"


def test_ports_used_again_are_another_session(tmp_path: Path) -> None:
    first, second = segments(LOGIN), segments(LOGIN, isn=(77_000, 88_000))
    for begun in (first, first[:-2], first[:6]):
        done = replayed_segments(tmp_path, [*begun, *second])
        assert len(done.ends) == 2
        assert len({end.c.uid for end in done.ends}) == 2
        assert done.said[-len(live(LOGIN)) :] == live(LOGIN)
    assert done.ends[0].reason == "port_reused"


def test_ports_used_again_without_a_syn_are_another_session(tmp_path: Path) -> None:
    second = segments(LOGIN, isn=(2**31, 2**30))[3:]
    done = replayed_segments(tmp_path, [*segments(LOGIN)[:6], *second])
    assert [end.reason for end in done.ends] == ["port_reused", "server_closed"]


def test_what_is_sent_again_behind_the_end_begins_no_session(tmp_path: Path) -> None:
    what = segments(LOGIN)
    assert len(replayed_segments(tmp_path, [*what, *what[3:], *what[3:]]).ends) == 1


@pytest.mark.parametrize("clock", ["back", "ahead", "still"])
def test_clocks_may_jump(tmp_path: Path, clock: str) -> None:
    def times(number: int) -> int:
        jump = {"back": -3_600, "ahead": 10**8, "still": 0}[clock]
        return making.START * 10**9 + (number * 10**6 + jump * 10**9 if number > 5 else 0)

    done = replayed(tmp_path, pcap(frames(segments(LOGIN)), times=times))
    assert done.said == live(LOGIN)
    assert done.ends[0].ts == times(len(segments(LOGIN)) - 1) / 1e9
    assert done.ends[0].duration >= 0


def mixed(what: list[Segment], source: random.Random) -> list[Segment]:
    """Send bytes again in other pieces, double packets and bring them out of order."""
    out: list[tuple[float, Segment]] = []
    for number, each in enumerate(what):
        out.append((number + source.random() * 8, each))
        if source.random() < 0.3:
            out.append((number + source.random() * 8, each))
    for _ in range(len(what) // 3):
        number = source.randrange(len(what))
        first = what[number]
        # As long as nobody else spoke, the bytes behind are the sender's next ones.
        data = first.data
        for later in what[number + 1 :]:
            if later.side is not first.side or not later.data:
                break
            data += later.data
        begin = source.randrange(len(data) + 1)
        # No more than fits into an IP packet.
        end = source.randrange(begin, min(len(data), begin + 60_000) + 1)
        again = replace(
            first,
            seq=(first.seq + begin) % 2**32,
            data=data[begin:end],
            flags=first.flags & ~(SYN | FIN),
        )
        if again.data and not first.flags & (SYN | FIN):
            out.append((number + source.random() * 8, again))
    return [each for _, each in sorted(out, key=lambda item: item[0])]


@pytest.mark.parametrize("seed", range(4))
def test_any_sizes_order_doubles_and_overlaps_give_the_events_of_live(
    tmp_path: Path, seed: int
) -> None:
    source = random.Random(seed)
    for script in SCRIPTS:
        runs = runs_of(script)
        if not any(run.data for run in runs):
            # That a connection was opened is known by its handshake alone then, which has one order.
            continue
        isn = (source.randrange(2**32), source.randrange(2**32))
        what = mixed(segments(runs, making.cut_by(source), isn), source)
        assert replayed_segments(tmp_path, what).said == live(runs), script.name


def known(events: list[tuple[object, ...]]) -> set[tuple[object, ...]]:
    """Give the logins of a session, also as they are told if USER is lost."""
    all_of = {event[:5] for event in events}
    return all_of | {(*event[:2], "", *event[3:]) for event in all_of if len(event) == 5}


LOGS_IN_AGAIN = "after-a-success"
"""In these transcripts the client logs in once more: if the first login is lost, the second may be it."""


def test_any_loss_invents_no_login(tmp_path: Path) -> None:
    for script in SCRIPTS:
        if LOGS_IN_AGAIN in script.name:
            continue
        # Each has losses of its own, whatever other transcripts there are.
        source = random.Random(script.name)
        runs = runs_of(script)
        pieces = max(1, max(len(run.data or b"") for run in runs) // 300)
        for _ in range(3):
            what = [
                each
                for each in segments(runs, making.in_pieces_of(source.choice((3, 40)) * pieces))
                if source.random() < 0.8
            ]
            done = replayed_segments(tmp_path, what)
            verdicts = ("pop3_login_success", "pop3_login_failure")
            told = {event for event in done.said if event[0] in verdicts}
            assert {event[:5] for event in told} <= known(live(runs)), script.name


def test_many_connections_at_a_time_are_told_apart(tmp_path: Path) -> None:
    source = random.Random(1)
    queues = [
        frames(segments(LOGIN), Ends(client=f"192.0.2.{number}", client_port=1000 + number))
        for number in range(100)
    ]
    out = []
    while queues:
        queue = source.choice(queues)
        out.append(queue.pop(0))
        if not queue:
            queues.remove(queue)
    done = replayed(tmp_path, pcap(out))
    assert len(done.ends) == 100
    assert len(done.said) == 100 * len(live(LOGIN))


def test_too_many_connections_end_the_one_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "MAX_FLOWS", 10)
    busy = frames(segments(LOGIN))
    out = []
    for number in range(60):
        silent = segments(LOGIN)[:4]
        out += frames(silent, Ends(client_port=1000 + number))
        out += busy[number // 2 : number // 2 + 1] if number % 2 == 0 else []
    done = replayed(tmp_path, pcap(out))
    left = [end for end in done.ends if end.reason == "capture_end"]
    assert len(left) <= 10
    assert done.replay.flows.forgotten == 61 - 1 - len(left)
    reasons = [end.reason for end in done.ends if end.c.orig_p == 40000]
    assert reasons == ["server_closed"]


def test_sessions_that_lack_a_packet_end_when_others_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "MAX_CLOSING", 3)
    out = []
    for number in range(8):
        out += frames(without(segments(LOGIN), [b"RETR"]), Ends(client_port=1000 + number))
    done = replayed(tmp_path, pcap(out))
    ports = [event.c.orig_p for event in done.events if event.name == "pop3_session"]
    assert ports == list(range(1000, 1008))
    first = done.events.index(done.ends[0])
    assert {event.c.orig_p for event in done.events[:first]} == {1000, 1001, 1002, 1003}
    assert {end.reason for end in done.ends} == {"server_closed"}
    assert done.replay.flows.forgotten == 0


def test_who_holds_too_much_costs_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "MAX_HELD_IN_ALL", 50_000)
    honest = segments(LOGIN, making.in_pieces_of(4))
    for at in range(5, len(honest) - 3, 4):
        honest[at], honest[at + 2] = honest[at + 2], honest[at]
    out = []
    for number, frame in enumerate(frames(honest)):
        what = segments([Said(S, b"+OK\r\n"), Said(S, b"lost"), *[Said(S, b"x" * 1400)] * 10])
        out += frames(without(what, [b"lost"]), Ends(client_port=1000 + number))
        out.append(frame)
    done = replayed(tmp_path, pcap(out))
    uid = next(end.c.uid for end in done.ends if end.c.orig_p == 40000)
    said = [shown(event) for event in done.events if event.c.uid == uid]
    assert said[1:-1] == live(LOGIN)


def test_what_is_held_is_bounded(tmp_path: Path) -> None:
    what = segments(LOGIN[:6])
    hole = what[-1].ack + 10
    block = b"x" * 1400
    flood = [Segment(S, (hole + n * 1400) % 2**32, what[-1].ack, ACK, block) for n in range(5000)]
    path = tmp_path / "capture"
    path.write_bytes(pcap(frames([*what, *flood])))
    done = Replayed(path)
    assert done.said.count(GAP_OF_SERVER) == 1
    assert done.replay.flows.held == 0
