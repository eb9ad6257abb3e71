"""Replays one capture from its file to the hooks, and says what was found; decides nothing about packets."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click
from twisted.logger import Logger

from ..analyzer.events import Event
from ..analyzer.refusals import DEFAULT_REFUSALS, Refusals
from ..hooks.api import Hook
from ..hooks.dispatcher import Dispatcher
from .captures import CaptureFile, Frame
from .flows import Flows
from .packets import Decoder
from .sessions import PacketClock, Sessions
from .writing import EventWriter

POP3: Final = 110
"""The port of POP3 (RFC 1939 section 3)."""

_STEP: Final = 4096
"""Frames between two looks at how far the file was read."""


class Replay:
    """A capture on its way to the hooks."""

    _log = Logger(namespace="pop3proxy.replay")

    def __init__(
        self,
        capture: CaptureFile,
        ports: Iterable[int],
        file: EventWriter | None,
        hooks: Sequence[Hook],
        auth_resp_code: bool = False,
        refusals: Refusals = DEFAULT_REFUSALS,
    ) -> None:
        """Prepare. ``ports`` are those of POP3 servers besides 110. Raises UnusableHook."""
        self._capture = capture
        self._file = file
        self._clock = PacketClock()
        self._dispatcher = Dispatcher(hooks)
        if file is not None:
            for hook in hooks:
                hook.emit = self._emit
        # So that what is asked last is answered, too, or runs into its limit.
        self._patience = max((hook.time_limit for hook in hooks), default=0.0)
        self.sessions = Sessions(self._dispatcher, self._clock, file, auth_resp_code, refusals)
        self.decoder = Decoder()
        self.flows = Flows(self.sessions, {POP3, *ports})

    def _emit(self, event: Event) -> None:
        """Bring to the file, too, what a hook tells all others."""
        assert self._file is not None
        self._file.write((event,))
        self._dispatcher.emit(event)

    def run(self, frames: Iterable[Frame]) -> None:
        """Replay frames. Raises CaptureError, WriteError, and what a hook raises when it is started.

        What was read before an error has been told, the ends of its sessions too.
        """
        self._dispatcher.start(self._clock)
        try:
            try:
                self.flows.take(self.decoder.decode(frames))
            finally:
                self.flows.finish()
                self._clock.advance(self._patience)
                if self._file is not None:
                    self._file.close()
        finally:
            self._dispatcher.stop()

    def summarize(self) -> None:
        """Log what was found, and what is to be known of how complete that is."""
        decoder, flows = self.decoder, self.flows
        if self._capture.cut:
            self._log.warn("{path}: {what}", path=self._capture.path, what=self._capture.cut)
        for link, count in sorted(decoder.unknown_links.items()):
            self._log.warn(
                "{count} frames of link type {link}, which is not known, were passed over",
                count=count,
                link=link,
            )
        if decoder.lost_fragments:
            self._log.warn(
                "{count} datagrams lack fragments, and were passed over",
                count=decoder.lost_fragments,
            )
        if flows.forgotten:
            self._log.warn(
                "{count} sessions were given up because too many went on at a time",
                count=flows.forgotten,
            )
        counts = ", ".join(
            f"{what} {count}" for what, count in sorted(self.sessions.counts.items())
        )
        self._log.info(
            "{path}: frames {frames}, TCP segments {segments}, of POP3: {counts}",
            path=self._capture.path,
            frames=decoder.frames,
            segments=decoder.segments,
            counts=counts or "nothing",
        )


def watched(capture: CaptureFile, frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield frames while a progress bar on standard error shows how much of the file was read."""
    with click.progressbar(length=capture.size, label=capture.path, file=sys.stderr) as bar:
        shown = 0
        for number, frame in enumerate(frames):
            if not number % _STEP:
                position = capture.position
                bar.update(position - shown)
                shown = position
            yield frame
        bar.update(capture.size - shown)
