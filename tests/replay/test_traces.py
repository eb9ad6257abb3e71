"""Compares a replay with what Zeek says of the captures of its own tests, where they are at hand.

The requests and the replies are the same events in the same order. Where a client pipelines, Zeek raises
a request when the one ahead of it was answered, this analyzer when it was sent: so each is compared as
standing before its reply.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3proxy.analyzer.events import Event, Reply, Request

from .replaying import Replayed

TRACES = Path(__file__).parents[3] / "shared" / "traces"

pytestmark = pytest.mark.skipif(
    not TRACES.is_dir(), reason="no captures in ../shared/traces beside the project"
)

Line = tuple[str, str, str]


def _zeek() -> list[list[Line]]:
    """Read what Zeek printed, a list for each connection."""
    dialogues: dict[str, list[Line]] = {}
    for line in (TRACES / "zeek-pop3.expected.txt").read_text(encoding="utf-8").splitlines():
        uid, name, _, word, text = line.split(", ", 4)
        dialogues.setdefault(uid, []).append((name, word, text))
    return list(dialogues.values())


def _dialogue(events: list[Event]) -> Iterator[Line]:
    requests = [event for event in events if isinstance(event, Request)]
    replies = [event for event in events if isinstance(event, Reply)]
    for request, reply in zip([None, *requests], replies, strict=True):
        if request is not None:
            yield "pop3_request", request.command, request.arg
        yield "pop3_reply", reply.cmd, reply.msg


def test_requests_and_replies_are_zeek_s() -> None:
    done = Replayed(TRACES / "zeek-pop3.pcap")
    uids = dict.fromkeys(event.c.uid for event in done.events)
    of_each = [[event for event in done.events if event.c.uid == uid] for uid in uids]
    assert [[*_dialogue(events)] for events in of_each] == _zeek()


def test_events_end_with_starttls() -> None:
    done = Replayed(TRACES / "zeek-pop3-starttls.pcap")
    assert done.names == [
        "pop3_connect",
        "pop3_reply",
        "pop3_request",
        "pop3_starttls",
        "pop3_session",
    ]
    assert done.ends[0].inspected == "until_tls"
