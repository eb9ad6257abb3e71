"""Replays captures that a test made, and plays the same sessions live, to compare what they say."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import ALL, Event, SessionEnd, Side
from pop3proxy.hooks.api import Hook
from pop3proxy.replay.captures import CaptureFile
from pop3proxy.replay.run import Replay
from tests.analyzer import transcript
from tests.analyzer.player import Player, new_connection

from .making import C, S, Said, Segment, frames, pcap

Shown = tuple[Any, ...]


class Collect(Hook):
    """Keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        for kind in ALL:
            setattr(self, kind.name, self.events.append)


class Replayed:
    """A capture that was replayed, and what came of it."""

    def __init__(self, path: Path, ports: Iterable[int] = (), hooks: Sequence[Hook] = ()) -> None:
        self.capture = CaptureFile(str(path))
        collect = Collect()
        self.replay = Replay(self.capture, ports, None, [collect, *hooks])
        try:
            self.replay.run(self.capture.frames())
        finally:
            self.events = collect.events
            self.capture.close()

    @property
    def said(self) -> list[Shown]:
        """All that the analyzer raised."""
        return [shown(event) for event in self.events if type(event).name not in _AROUND]

    @property
    def ends(self) -> list[SessionEnd]:
        return [event for event in self.events if isinstance(event, SessionEnd)]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


_AROUND = frozenset({"pop3_connect", "pop3_session"})


def shown(event: Event) -> Shown:
    """Give what of an event does not depend on time and addresses."""
    return (event.name, *(getattr(event, name) for name in event.parameters))


def replayed(path: Path, content: bytes, ports: Iterable[int] = ()) -> Replayed:
    path = path / "capture"
    path.write_bytes(content)
    return Replayed(path, ports)


def replayed_segments(path: Path, what: Iterable[Segment]) -> Replayed:
    return replayed(path, pcap(frames(what)))


def live(runs: Sequence[Said]) -> list[Shown]:
    """Play a session as the live proxy does, and end it."""
    player = Player(Analyzer(new_connection()))
    events: list[Event] = []
    ended: list[Side] = []
    for side, data in runs:
        if data is None:
            events += player.end(side)
            ended.append(side)
        else:
            events += player.say(side, data)
    for side in (S, C) if ended[:1] == [S] else (C, S):
        events += player.end(side)
    return [shown(event) for event in events]


def runs_of(script: transcript.Transcript) -> list[Said]:
    return [Said(turn.side, None if turn.ends else turn.data) for turn in script.turns]


SCRIPTS = [script for script in transcript.read_all() if not script.flags]

LOGIN = [
    Said(S, b"+OK ready\r\n"),
    Said(C, b"USER bob\r\n"),
    Said(S, b"+OK\r\n"),
    Said(C, b"PASS secret\r\n"),
    Said(S, b"+OK logged in\r\n"),
    Said(C, b"RETR 1\r\n"),
    Said(S, b"+OK\r\nSubject: hello\r\n\r\n..\r\nbye\r\n.\r\n"),
    Said(C, b"QUIT\r\n"),
    Said(S, b"+OK bye\r\n"),
    Said(S, None),
    Said(C, None),
]
"""A session with all that an ordinary one has."""
