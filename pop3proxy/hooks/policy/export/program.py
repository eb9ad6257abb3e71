"""Runs the operator's command within a time limit; what it is run for is in exporter.py."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Final

from .trouble import ExportTrouble

MAX_SAID: Final = 200
"""Bytes that are kept of what a command says on standard error; the rest is read and dropped."""

_LOOK: Final = 0.05
"""Seconds between two looks whether a command has ended: a child of it may keep its standard error open."""

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}
"""What a command finds in its environment besides what it is told: nothing of the proxy's own."""


class Program:
    """One program, run in a thread without a shell, once at a time."""

    def __init__(self, time_limit: float) -> None:
        """Take the seconds after which a run is killed."""
        self._time_limit = time_limit
        self._lock = Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._ended = False

    def run(self, command: Sequence[str], told: Mapping[str, str]) -> None:
        """Run it to its end, with ``told`` in its environment.

        Raises ExportTrouble unless it exits with 0.
        """
        process = self._started(command, told)
        if process is None:
            return
        with process:
            try:
                said = self._said_until_its_end(process)
            finally:
                with self._lock:
                    self._running = None
        if process.returncode:
            raise ExportTrouble(f"{_named(command)} {_ended(process.returncode)}{_quoted(said)}")

    def end(self) -> None:
        """Ask the run that goes on to end, and begin no other.

        Its thread waits for it up to the time limit.
        """
        with self._lock:
            self._ended = True
            if self._running is not None and self._running.returncode is None:
                _signal(self._running, signal.SIGTERM)

    def _started(
        self, command: Sequence[str], told: Mapping[str, str]
    ) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            if self._ended:
                return None
            try:
                # In a session of its own, so that its children can be killed with it.
                self._running = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={**ENVIRONMENT, **told},
                    start_new_session=True,
                )
            except OSError as problem:
                raise ExportTrouble(
                    f"{_named(command)} cannot be run: {problem.strerror}; name an executable file"
                ) from None
            return self._running

    def _said_until_its_end(self, process: "subprocess.Popen[bytes]") -> bytes:
        """Read what it says. Raises ExportTrouble when the time is over, and kills it then."""
        assert process.stderr is not None
        deadline = time.monotonic() + self._time_limit
        reader, said, told_all = process.stderr.fileno(), b"", False
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while True:
            over = process.poll() is not None
            wait = 0 if over else _LOOK
            if told_all:
                time.sleep(wait)
            elif poll.poll(wait * 1000):
                chunk = os.read(reader, 1 << 16)
                said, told_all = (said + chunk)[:MAX_SAID], not chunk
            if over:
                return said
            if time.monotonic() > deadline:
                _signal(process, signal.SIGKILL)
                raise ExportTrouble(
                    f"{_named(process.args)} did not end within {self._time_limit:g} s and was killed;"
                    " make it quicker, or raise policy.export.time_limit"
                )


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signal a program that has not been waited for yet, and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def check_program(path: str) -> None:
    """Raise ExportTrouble if a command could not be run."""
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        why = "it is not executable" if os.path.exists(path) else "there is no such file"
        raise ExportTrouble(
            f"policy.export.command: cannot run {path}: {why}; name an executable file"
        )


def _named(command: object) -> str:
    assert isinstance(command, Sequence)
    return f"policy.export.command: {command[0]}"


def _ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"exited with status {status}"


def _quoted(said: bytes) -> str:
    """Write what a command said behind a colon, in one line."""
    text = " ".join(said.decode("utf-8", "replace").split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f": {shown}" if shown else ""
