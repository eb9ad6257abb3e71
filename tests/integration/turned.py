"""The proxy as a process whose events have the time that a test says; all else is as ``pop3proxy`` does it.

    python -m tests.integration.turned CLOCK serve --config FILE ...

The file CLOCK holds the time. Where the policy delays a reply the clock goes on by as much, and the reply
comes at once: so weeks of attacks take seconds, and what somebody waited is known to the millisecond.
"""

import mmap
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from pop3proxy import cli, loading
from pop3proxy.hooks.api import PASS, Delay
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.penalties import Decision
from pop3proxy.proxy import service

_FORM = struct.Struct("d")


class SharedClock:
    """A time in seconds since the epoch, in a file that two processes share; one at a time turns it."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORM.size)

    @classmethod
    def made(cls, path: Path, now: float) -> "SharedClock":
        """Make the file."""
        path.write_bytes(_FORM.pack(now))
        return cls(path)

    def now(self) -> float:
        """Read it."""
        now: float = _FORM.unpack_from(self._memory)[0]
        return now

    def turn(self, seconds: float) -> None:
        """Go on."""
        _FORM.pack_into(self._memory, 0, self.now() + seconds)

    def close(self) -> None:
        self._memory.close()


class Hasty(FailedLogins):
    """Lets delays pass at once."""

    def __init__(self, *arguments: Any, clock: SharedClock, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clock = clock

    def _done(self, decision: Decision) -> Any:
        verdict = super()._done(decision)
        if isinstance(verdict, Delay):
            self._clock.turn(verdict.seconds)
            return PASS
        return verdict


def main() -> None:
    clock = SharedClock(Path(sys.argv.pop(1)))
    with (
        mock.patch.object(service, "ProxyService", partial(service.ProxyService, now=clock.now)),
        mock.patch.object(loading, "FailedLogins", partial(Hasty, clock=clock)),
    ):
        cli.main()


if __name__ == "__main__":
    main()
