"""The policy, with a rule that bans a thousand addresses in each second that is even: see benchmarks.kept."""

import time
from typing import Any, Final

from twisted.internet.task import LoopingCall

from pop3proxy.analyzer.events import Connection
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.penalties import Decision
from pop3proxy.hooks.policy.store import Ban

BANS: Final = 10_000
SECONDS: Final = 10
TURN: Final = 0.01
"""Seconds between two lots of bans."""


def floods(now: float) -> bool:
    """Return whether bans are made now: both sides of the measurement know it by the clock."""
    return int(now) % 2 == 0


class Flood(FailedLogins):
    """Bans in memory and on disk as a rule does, with a record of each."""

    def __init__(self, after: float, snapshot: str = "") -> None:
        """Begin ``after`` so many seconds."""
        super().__init__(Policy(snapshot=snapshot or None))
        self._after = after
        self._made = 0
        self._turns = LoopingCall(self._turn)

    def start(self, reactor: Any) -> None:
        """Start the policy, and the time until the flood."""
        super().start(reactor)
        reactor.callLater(self._after, self._turns.start, TURN)

    def _turn(self) -> None:
        if self._made >= BANS:
            self._turns.stop()
        elif floods(time.time()):
            for _ in range(int(BANS / SECONDS * TURN)):
                self._ban(self._made, time.time())
                self._made += 1

    def _ban(self, number: int, now: float) -> None:
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        evidence = (
            f"passwords 20 of 20 in 3600 s by address:{host}; the last one in session C{number}"
        )
        c = Connection(f"C{number}", host, 4096, "198.51.100.1", 110)
        found = ("brute-force", "ban", f"address:{host}", "passwords", 20, 20, 3600.0, 600.0, False)
        self.engine.store.ban(
            Ban(f"address:{host}", "brute-force", now, now + 600, 1, (evidence,)), now
        )
        self._done(Decision(events=[PolicyEvent(c, now, *found)]))
