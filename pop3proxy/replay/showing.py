"""Prints the events of a replay for people to read, in the form of `pop3proxy demo`."""

import os
from collections.abc import Sequence
from typing import TextIO

from ..analyzer.events import ALL, Data, Event
from ..hooks.logging.reading import coloured, line_to_read
from ..hooks.masking import in_clear, masked
from .writing import WriteError


class Printed:
    """A stream of events as text. ``wants`` are the types of events that it takes."""

    def __init__(self, out: TextIO, data: bool, show_secrets: bool) -> None:
        """Print to ``out``, in colours if it is a terminal, unless its user opted out (NO_COLOR).

        ``data`` adds ``pop3_data``, the lines of the mail itself; ``show_secrets`` leaves passwords in clear.
        """
        self.wants: frozenset[type[Event]] = ALL if data else ALL - {Data}
        self._out = out
        self._colour = out.isatty() and not os.environ.get("NO_COLOR")
        self._shown = in_clear if show_secrets else masked

    def write(self, events: Sequence[Event]) -> None:
        """Print events. Raises WriteError."""
        try:
            for event in events:
                text = line_to_read(self._shown(event))
                self._out.write((coloured(text, event) if self._colour else text) + "\n")
        except OSError as problem:
            raise self._error(problem) from None

    def close(self) -> None:
        """Print what is due. Raises WriteError."""
        try:
            self._out.flush()
        except OSError as problem:
            raise self._error(problem) from None

    def _error(self, problem: OSError) -> WriteError:
        return WriteError(f"cannot write to standard output: {problem.strerror}")
