"""File formats and layers: whatever a session was captured in, it is the same session."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pop3proxy.replay.captures import CaptureError, CaptureFile, Frame, Stamp

from . import making
from .making import LINKS, START, Segment, ethernet, frames, ipv4, ipv6, packed, pcap, pcapng
from .replaying import LOGIN, SCRIPTS, live, replayed, runs_of

SEGMENTS = making.segments(LOGIN)
FRAMES = frames(SEGMENTS)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_of_either_order_and_resolution(tmp_path: Path, order: str, nano: bool) -> None:
    assert replayed(tmp_path, pcap(FRAMES, order=order, nano=nano)).said == live(LOGIN)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("resolution", [None, 3, 6, 9, 0x80 | 10])
def test_pcapng_of_either_order_and_any_resolution(
    tmp_path: Path, order: str, resolution: int | None
) -> None:
    done = replayed(tmp_path, pcapng(FRAMES, order=order, resolution=resolution))
    assert done.said == live(LOGIN)
    assert abs(done.events[0].ts - START) < 0.001


@pytest.mark.parametrize("kind", [2, 3])
def test_pcapng_with_older_and_simple_packets(tmp_path: Path, kind: int) -> None:
    assert replayed(tmp_path, pcapng(FRAMES, kind=kind)).said == live(LOGIN)


def test_pcapng_of_several_sections(tmp_path: Path) -> None:
    both = pcapng(FRAMES[:7], order="<") + pcapng(FRAMES[7:], order=">", resolution=9)
    assert replayed(tmp_path, both).said == live(LOGIN)


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_gzipped(tmp_path: Path, make: object) -> None:
    assert callable(make)
    assert replayed(tmp_path, packed(make(FRAMES))).said == live(LOGIN)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("make", [pcap, pcapng])
def test_every_link_type_with_ipv4(tmp_path: Path, link: str, make: object) -> None:
    assert callable(make)
    number, wrap = LINKS[link]
    content = make([wrap(ipv4(each)) for each in SEGMENTS], number)
    assert replayed(tmp_path, content).said == live(LOGIN)


@pytest.mark.parametrize("link", LINKS)
def test_every_link_type_with_ipv6(tmp_path: Path, link: str) -> None:
    number, wrap = LINKS[link]
    done = replayed(tmp_path, pcap([wrap(ipv6(each)) for each in SEGMENTS], number))
    assert done.said == live(LOGIN)
    connection = done.events[0].c
    assert (connection.orig_h, connection.orig_p) == ("2001:db8::1", 40000)
    assert (connection.resp_h, connection.resp_p) == ("2001:db8::2", 110)


def test_the_transcripts_in_all_kinds_of_captures(tmp_path: Path) -> None:
    source = random.Random(1)
    for script in SCRIPTS:
        runs = runs_of(script)
        number, wrap = source.choice(list(LINKS.values()))
        packet = source.choice((ipv4, ipv6))
        packets = [wrap(packet(each)) for each in making.segments(runs, making.cut_by(source))]
        content = source.choice((pcap, pcapng))(packets, number, source.choice("<>"))
        if source.random() < 0.3:
            content = packed(content)
        assert replayed(tmp_path, content).said == live(runs), script.name


def test_ipv4_with_options(tmp_path: Path) -> None:
    content = pcap([ethernet(ipv4(each, options=bytes(8))) for each in SEGMENTS])
    assert replayed(tmp_path, content).said == live(LOGIN)


def test_ipv4_whose_length_was_left_to_the_network_card(tmp_path: Path) -> None:
    content = pcap([making.sll(ipv4(each, size=-1)) for each in SEGMENTS], 113)
    assert replayed(tmp_path, content).said == live(LOGIN)


def test_ipv6_with_extension_headers(tmp_path: Path) -> None:
    content = pcap([ethernet(ipv6(each, extended=True)) for each in SEGMENTS])
    assert replayed(tmp_path, content).said == live(LOGIN)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("cut", [making.ipv4_fragments, making.ipv6_fragments])
def test_fragments_in_any_order(tmp_path: Path, cut: object, backwards: bool) -> None:
    assert callable(cut)
    out: list[bytes] = []
    for number, each in enumerate(SEGMENTS):
        pieces = [ethernet(piece) for piece in cut(each, number)]
        out += pieces[::-1] if backwards else pieces
    assert replayed(tmp_path, pcap(out)).said == live(LOGIN)


def test_of_fragments_that_overlap_the_first_counts(tmp_path: Path) -> None:
    out: list[bytes] = []
    for number, each in enumerate(SEGMENTS):
        pieces = making.ipv4_fragments(each, number)
        forged = making.ipv4_fragments(Segment(each.side, 0, 0, 0, b"X" * len(each.data)), number)
        out += [ethernet(piece) for piece in [*pieces[:-1], *forged[:-1], pieces[-1]]]
    assert replayed(tmp_path, pcap(out)).said == live(LOGIN)


def test_a_datagram_without_one_of_its_fragments_is_missing(tmp_path: Path) -> None:
    out: list[bytes] = []
    for number, each in enumerate(SEGMENTS):
        pieces = making.ipv4_fragments(each, number)
        out += [ethernet(piece) for piece in (pieces[1:] if b"RETR" in each.data else pieces)]
    done = replayed(tmp_path, pcap(out))
    assert done.replay.decoder.lost_fragments == 1
    assert ("pop3_unexpected", True, "gap", "") in done.said


def test_other_protocols_and_unknown_links_are_passed_over(tmp_path: Path) -> None:
    other = [b"", b"\0", bytes(60), b"\xff" * 90, bytes(12) + b"\x08\x06" + bytes(28)]
    assert replayed(tmp_path, pcap([*other, *FRAMES, *other])).said == live(LOGIN)
    done = replayed(tmp_path, pcap(FRAMES, link=147))
    assert done.events == []
    assert done.replay.decoder.unknown_links == {147: len(FRAMES)}


@pytest.mark.parametrize("wrap", [ethernet, making.vlan])
def test_a_segment_whose_header_is_too_short_is_passed_over(
    tmp_path: Path, wrap: Callable[[bytes], bytes]
) -> None:
    packets = [ipv4(each) for each in SEGMENTS]
    forged = [each[:32] + b"\x40" + each[33:] for each in packets]
    content = pcap([wrap(each) for pair in zip(forged, packets, strict=True) for each in pair])
    assert replayed(tmp_path, content).said == live(LOGIN)


def test_frames_cut_by_the_snap_length_are_gaps_and_no_data(tmp_path: Path) -> None:
    done = replayed(tmp_path, pcap(FRAMES, snap=80))
    assert ("pop3_unexpected", False, "gap", "") in done.said
    assert not any("hello" in str(event) for event in done.said)


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_file_cut_anywhere_gives_what_it_has(tmp_path: Path, make: object) -> None:
    assert callable(make)
    content = make(FRAMES)
    before: list[object] = []
    # The end of the capture is told of at the end, so whole events are compared up to there.
    for size in range(24, len(content), 13):
        done = replayed(tmp_path, content[:size])
        requests = [event for event in done.said if event[0] == "pop3_request"]
        assert requests[: len(before)] == before
        before = list(requests)
        assert len(done.ends) == (1 if done.events else 0)
    assert replayed(tmp_path, content).capture.cut == ""
    assert "cut off" in replayed(tmp_path, content[:-1]).capture.cut


def test_a_gzipped_file_cut_anywhere_gives_what_it_has(tmp_path: Path) -> None:
    content = packed(pcap(FRAMES))
    for size in range(len(content) // 2, len(content), 29):
        assert "cut off" in replayed(tmp_path, content[:size]).capture.cut


@pytest.mark.parametrize("content", [b"", b"no capture at all", b"\x1f\x8b"])
def test_what_is_no_capture_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CaptureError):
        replayed(tmp_path, content)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nowhere: cannot be read"):
        CaptureFile(str(tmp_path / "nowhere"))


def test_damage_ends_the_reading_behind_what_comes_before_it(tmp_path: Path) -> None:
    content = pcap(FRAMES)
    path = tmp_path / "damaged"
    path.write_bytes(content + b"\xff" * 64)
    capture = CaptureFile(str(path))
    read: list[Frame] = []
    with pytest.raises(CaptureError, match="damaged at octet"):
        read.extend(capture.frames())
    assert [frame for _, _, frame in read] == FRAMES
    capture.close()


def test_times_are_those_of_the_packets_with_all_their_digits(tmp_path: Path) -> None:
    def times(number: int) -> int:
        return START * 10**9 + 123_456_789 + number

    nano = replayed(tmp_path, pcap(FRAMES, nano=True, times=times)).events[1].ts
    assert f"{nano:.6f}" == f"{START}.123456792"
    micro = replayed(tmp_path, pcap(FRAMES, times=times)).events[1].ts
    assert f"{micro:.6f}" == f"{START}.123456"
    section = replayed(tmp_path, pcapng(FRAMES, resolution=9, times=times)).events[1].ts
    assert f"{section:.6f}" == f"{START}.123456792"


def test_a_stamp_is_a_number_of_seconds() -> None:
    stamp = Stamp(1_500_000_000, 9)
    assert stamp == 1.5
    assert f"{stamp:.6f}" == "1.500000000"
