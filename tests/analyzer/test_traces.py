"""Compares the analyzer with Zeek's on the captures of Zeek's own tests, where they are at hand.

The requests and the replies are the same events in the same order. Where a client pipelines, Zeek raises
a request when the one ahead of it was answered, this analyzer when it was sent: so each is compared as
standing before its reply.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection, Event, Reply, Request, StartTLS

from .captures import Flow, read_flows
from .player import Player

PROJECT = Path(__file__).parents[2]
TRACES = PROJECT.parent / "shared" / "traces"

pytestmark = pytest.mark.skipif(
    not TRACES.is_dir(), reason="no captures in ../shared/traces beside the project"
)

Line = tuple[str, str, str]


def _play(flow: Flow) -> tuple[Analyzer, list[Event]]:
    connection = Connection("CuidOfATrace", *flow.client, *flow.server)
    player = Player(Analyzer(connection))
    events: list[Event] = []
    for piece in flow.pieces:
        events += player.say(piece.side, piece.data) if piece.data else player.end(piece.side)
    return player.analyzer, events


def _dialogue(events: list[Event]) -> Iterator[Line]:
    """Write requests and replies as Zeek does, each request directly before its reply."""
    requests = [event for event in events if isinstance(event, Request)]
    replies = [event for event in events if isinstance(event, Reply)]
    assert len(replies) == 1 + len(requests)
    for request, reply in zip([None, *requests], replies, strict=True):
        if request is not None:
            yield "pop3_request", request.command, request.arg
        yield "pop3_reply", reply.cmd, reply.msg


def _zeek_dialogues() -> list[list[Line]]:
    """Read what Zeek printed, a list for each connection."""
    dialogues: dict[str, list[Line]] = {}
    for line in (TRACES / "zeek-pop3.expected.txt").read_text().splitlines():
        uid, name, _, word, text = line.split(", ", 4)
        dialogues.setdefault(uid, []).append((name, word, text))
    return list(dialogues.values())


def test_requests_and_replies_are_zeek_s() -> None:
    flows = read_flows(TRACES / "zeek-pop3.pcap")
    assert [[*_dialogue(_play(flow)[1])] for flow in flows] == _zeek_dialogues()


def test_logins_of_the_capture_are_told_apart() -> None:
    flows = read_flows(TRACES / "zeek-pop3.pcap")
    names = [
        [event.name for event in _play(flow)[1] if event.name.startswith("pop3_login")]
        for flow in flows
    ]
    failure = ["pop3_login_attempt", "pop3_login_failure"]
    success = ["pop3_login_attempt", "pop3_login_success"]
    assert names == [[], failure, [], success, success]


def test_the_capture_has_nothing_unexpected() -> None:
    for flow in read_flows(TRACES / "zeek-pop3.pcap"):
        analyzer, events = _play(flow)
        assert "pop3_unexpected" not in {event.name for event in events}
        assert (analyzer.inspected, analyzer.owed) == ("whole", 0)


def test_events_end_with_starttls() -> None:
    (flow,) = read_flows(TRACES / "zeek-pop3-starttls.pcap")
    analyzer, events = _play(flow)
    assert [type(event) for event in events] == [Reply, Request, StartTLS]
    assert analyzer.inspected == "until_tls"
