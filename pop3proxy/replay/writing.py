"""Writes the events of a replay to a file or stream, and waits for it: no slow reader loses any."""

import os
from collections.abc import Sequence
from typing import BinaryIO, Final, Protocol

from ..analyzer.events import ALL, Data, DataRun, Event
from ..analyzer.text import decode
from ..hooks.logging.records import line, lines
from ..hooks.masking import in_clear, masked, repeats_no_secret

BATCH: Final = 256 * 1024
"""Octets that are written at once."""

STANDARD_OUTPUT: Final = "-"

_STDOUT: Final = 1

# Owner writes, group reads, as with the live proxy's file: the records name people.
_MODE: Final = 0o640


class WriteError(Exception):
    """The events cannot be written: one line that says why."""


class EventWriter(Protocol):
    """What the events of a replay are written to; each of its methods raises WriteError."""

    @property
    def wants(self) -> frozenset[type[Event]]:
        """The types of events that it takes."""

    def write(self, events: Sequence[Event]) -> None:
        """Write events."""

    def close(self) -> None:
        """Write what is due, and take no more."""


class EventFile:
    """A file of events as JSON Lines. ``wants`` are the types of events that it takes."""

    def __init__(self, path: str, data: bool, show_secrets: bool) -> None:
        """Open ``path`` to append to it, or standard output if it is ``-``. Raises WriteError.

        ``data`` adds ``pop3_data``, the lines of the mail itself; ``show_secrets`` leaves passwords in clear.
        """
        self.wants: frozenset[type[Event]] = ALL | {DataRun} if data else ALL - {Data}
        self._path = path
        self._shown = in_clear if show_secrets else masked
        try:
            self._file = _opened(path)
        except (OSError, ValueError) as problem:
            raise self._error(problem) from None

    def write(self, events: Sequence[Event]) -> None:
        """Write events. Raises WriteError."""
        write, shown = self._file.write, self._shown
        try:
            for event in events:
                if type(event) is not DataRun:
                    write(line(shown(event)))
                elif shown is in_clear or repeats_no_secret(event):
                    write(lines(event))
                else:
                    for text in event.lines:
                        write(line(shown(Data(event.c, event.ts, decode(text)))))
        except OSError as problem:
            raise self._error(problem) from None

    def close(self) -> None:
        """Write what is due, and close. Raises WriteError."""
        try:
            self._file.close()
        except OSError as problem:
            raise self._error(problem) from None

    def _error(self, problem: Exception) -> WriteError:
        why = problem.strerror if isinstance(problem, OSError) else str(problem)
        return WriteError(f"cannot write to {self._path}: {why}")


def _opened(path: str) -> BinaryIO:
    if path == STANDARD_OUTPUT:
        return os.fdopen(os.dup(_STDOUT), "wb", BATCH)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
    return os.fdopen(descriptor, "wb", BATCH)
