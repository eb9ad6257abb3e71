"""What operators do by command: bans, removals and allowances, each with who did it and why."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ...analyzer.events import Connection
from ...analyzer.events import Policy as PolicyEvent
from .allowances import Allowance
from .banrecords import LATEST, ended
from .engine import MANUAL, Engine
from .explanations import Explanations, Standing
from .store import Ban


class Operator(NamedTuple):
    """Who gives a command, such as ``uid:0``, and why."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Removed:
    """What ``remove`` has taken back of one key: a ban, or none, and counts; ``grace`` is until when."""

    key: str
    ban: Ban | None
    counts: tuple[Standing, ...]
    grace: float


class ByHand:
    """Does what operators command, and tells everybody by ``pop3_policy``."""

    def __init__(
        self,
        engine: Engine,
        explanations: Explanations,
        emit: Callable[[PolicyEvent], None],
        end: Callable[[set[str]], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """``end`` ends the sessions of these uids."""
        self._engine = engine
        self._explanations = explanations
        self._emit = emit
        self._end = end
        self.now = now

    def ban(self, key: str, seconds: float, operator: Operator) -> Ban:
        """Ban, and end the sessions of who is banned."""
        now, engine = self.now(), self._engine
        evidence = f"by {operator.by}: {operator.reason or 'no reason given'}"
        ending = engine.ban(key, seconds, evidence, now)
        self._say("ban", key, seconds, operator)
        self._end(ending)
        ban = engine.store.past(key, now)
        assert ban is not None, "it was put in force"
        return ban

    def remove(self, keys: list[str], operator: Operator) -> list[Removed]:
        """End bans, clear counts, and begin the grace, of those keys of which there is something.

        The first is what the operator names; others, such as its network, are taken back if they are
        banned or refused.
        """
        done = []
        for number, key in enumerate(keys):
            removed = self._held(key)
            refused = any(each.refuses for each in removed.counts)
            worth = refused if number else bool(removed.counts)
            if removed.ban is not None or worth:
                self._take_back(removed, operator)
                done.append(removed)
        return done

    def allow(self, key: str, seconds: float, operator: Operator) -> Allowance:
        """Allow an address or network for a time. Raises AllowancesFull."""
        now = self.now()
        allowance = Allowance(key, now, min(now + seconds, LATEST), *operator)
        self._engine.allowances.allow(allowance, now)
        self._say("allow", key, seconds, operator)
        return allowance

    def disallow(self, key: str, operator: Operator) -> Allowance | None:
        """End an allowance; return it, or None if there was none."""
        was = self._engine.allowances.end(key, self.now())
        if was is not None:
            self._say("disallow", key, 0.0, operator)
        return was

    def _held(self, key: str) -> Removed:
        """Return what would be taken back of a key."""
        now, engine = self.now(), self._engine
        ban = engine.store.ban_of((key,), now)
        counts = tuple(self._explanations.standings_of(key, now))
        return Removed(key, ban, counts, min(now + engine.policy.grace, LATEST))

    def _take_back(self, removed: Removed, operator: Operator) -> None:
        now, engine, ban = self.now(), self._engine, removed.ban
        engine.unban(removed.key, now)
        if ban is not None:
            # So that it can be asked about.
            line = f"removed by {operator.by}: {operator.reason or 'no reason given'}"
            engine.store.memory.ban(ended(ban, now, line), now)
        self._say("remove", removed.key, engine.policy.grace, operator)

    def _say(self, action: str, key: str, seconds: float, operator: Operator) -> None:
        # There is no session that it is about.
        c = Connection("", "", 0, "", 0)
        found = ("", 0, 0, 0.0, seconds, False, operator.by, operator.reason)
        self._emit(PolicyEvent(c, self.now(), MANUAL, action, key, *found))
