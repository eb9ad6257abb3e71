"""The hook by which failed logins have consequences; what they are is judged in engine.py."""

import math
import secrets
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ...analyzer.events import (
    Connect,
    Event,
    LoginAnnounced,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    SessionEnd,
)
from ...analyzer.events import Policy as PolicyEvent
from ..api import PASS, Delay, Deny, Drop, Hook, Pass, Verdict
from .byhand import ByHand
from .config import Policy
from .control import NO_NOTES, Control, Notes
from .decisions import Decisions
from .engine import Engine, then
from .explanations import Explanations
from .export.exporter import Exporter
from .export.outlet import Outlet
from .export.targets import Targets
from .keeping import Keeper
from .memory import MemoryStore
from .penalties import Decision
from .store import Ban, Store

if TYPE_CHECKING:
    from .redis.store import RedisStore

_NOT_KEPT: Final = (
    "this is kept in memory, and ends with the proxy; name a file as policy.snapshot to keep it"
)
_IN_MEMORY: Final = Notes(bans=_NOT_KEPT, allowances=_NOT_KEPT)

_IN_REDIS: Final = Notes(
    counts="counts and decisions are those of this proxy; others that share its Redis may have more",
    allowances="this holds at this proxy alone, and ends with it; policy.allow holds at each that has it",
)

_Any = Pass | Delay | Deny | Drop

SPARE: Final = 5.0
"""Seconds beyond the longest wait of an attempt, after which something is wrong with the policy."""


def _shared(policy: Policy) -> "RedisStore | None":
    """Make the store that is shared, if there is to be one. Raises PolicyUnusable without txredisapi."""
    if policy.redis is None:
        return None
    try:
        from .redis.store import RedisStore
    except ModuleNotFoundError as problem:
        if problem.name != "txredisapi":
            raise
        raise PolicyUnusable("policy.redis needs txredisapi; install pop3proxy[redis]") from None
    return RedisStore(policy, policy.redis)


class PolicyUnusable(Exception):
    """What the configuration asks for cannot be had; the text says what would be right."""


class FailedLogins(Hook):
    """Counts logins and failed logins, and slows, denies, drops and bans by rules."""

    blocking: ClassVar[bool] = True
    _log: ClassVar[Logger] = Logger(namespace="pop3proxy.hooks.policy")

    def __init__(self, policy: Policy, store: Store | None = None, live: bool = True) -> None:
        """Take the configuration, and a store other than that in memory.

        Not ``live``, no file is read or written and no socket opened: for a replay.
        """
        self.policy = policy
        key = policy.fingerprint_key
        self._shared = _shared(policy) if store is None and live else None
        self.store: Store = (
            store
            or self._shared
            or MemoryStore(policy.max_keys, policy.max_bans, policy.ban_memory)
        )
        self.engine = Engine(
            policy, self.store, secrets.token_bytes(32) if key is None else key.encode()
        )
        self._live = live
        self._on_trial: Counter[str] = Counter()  # rule and action, of rules that only say it
        self._decisions = Decisions()
        self._keeper: Keeper | None = None
        # An attempt may be held for as long as the engine says, and then has an answer.
        self.time_limit = policy.wait + SPARE
        self._alarm: Any = None
        self._control: Control | None = None
        self._exporter = self._made_exporter() if live else None

    def _made_exporter(self) -> Exporter | None:
        export = self.policy.export
        if export is None:
            return None
        outlet = Outlet(export, Targets(self.policy.allow))
        return Exporter(
            *(outlet, export.interval, self.store, self.counts),
            allowed=lambda: self.engine.allowances.networks(time.time()),
        )

    @property
    def counts(self) -> Counter[str]:
        """What is worth knowing of what was decided."""
        return self.engine.counts

    # --- start and stop ---------------------------------------------------------------------------------

    def start(self, reactor: Any) -> None:
        """Load the snapshot, export the bans, and open the control socket.

        Raises OSError with one line for the operator.
        """
        self._reactor = reactor
        self.engine.waiting.on_due = self._set_alarm
        if not self._live:
            return
        policy = self.policy
        if policy.snapshot is not None and isinstance(self.store, MemoryStore):
            # What comes from passwords is worth nothing if the key of their hashes is made at each start.
            secret = policy.fingerprint_key is not None
            self._keeper = Keeper(
                self.store,
                *(self.engine.allowances, policy.snapshot, policy.snapshot_interval),
                *(secret, self.counts),
            )
            self._keeper.start(reactor, time.time())
        if self._shared is not None:
            self._shared.counts = self.counts
            self._shared.on_ban = self._banned_elsewhere
            self._shared.start(reactor)
        if self._exporter is not None:
            self._exporter.start(reactor)
        if policy.control is not None:
            self._control = self._controlled(reactor)
            self._control.listen(reactor, policy.control)

    def stop(self) -> None:
        """Write a last snapshot, and say what was decided."""
        self._unset_alarm()
        if self._control is not None:
            self._control.close()
        if self._exporter is not None:
            self._exporter.stop()
        if self._shared is not None:
            self._shared.stop()
        if self._keeper is not None:
            self._keeper.stop()
        if self._live:
            counts = ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
            self._log.info("policy stopped; counted: {counts}", counts=counts or "nothing")
            if self.policy.dry_run or self._on_trial:
                tried = (f"{what} {count}" for what, count in sorted(self._on_trial.items()))
                self._log.info(
                    "policy dry run; without it would have been done: {tried}",
                    tried=", ".join(tried) or "nothing",
                )

    def _controlled(self, reactor: Any) -> Control:
        explanations = Explanations(
            self.engine, self._decisions, lambda: deferLater(reactor, 0, lambda: None)
        )
        by_hand = ByHand(self.engine, explanations, self._commanded, self._end)
        return Control(self.engine, explanations, by_hand, self._kept, self._notes)

    @property
    def _notes(self) -> Notes:
        if self._shared is not None:
            return _IN_REDIS
        return _IN_MEMORY if self._keeper is None else NO_NOTES

    def _kept(self) -> "Deferred[None]":
        return succeed(None) if self._keeper is None else self._keeper.kept()

    # --- time ---------------------------------------------------------------------------------------------

    def _set_alarm(self, due: float, now: float) -> None:
        """Wake the engine at a time, by a clock that never steps."""
        self._unset_alarm()
        if math.isfinite(due):
            self._alarm = self._reactor.callLater(max(0.0, due - now), self._wake, due)

    def _unset_alarm(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()

    def _wake(self, due: float) -> None:
        self._alarm = None
        self.engine.tick(due)

    def _banned_elsewhere(self, ban: Ban) -> None:
        self._end(self.engine.sessions(ban.key))

    # --- events -----------------------------------------------------------------------------------------

    def pop3_connect(self, event: Connect) -> _Any:
        """Turn a banned client away."""
        return self._decided(event, self.engine.connect(event))

    def pop3_login_attempt(self, event: LoginAttempt) -> "_Any | Deferred[_Any]":
        """Deny a login that is one too many, or hold it until that is known."""
        return then(self.engine.attempt(event), partial(self._decided, event))

    def pop3_login_announced(self, event: LoginAnnounced) -> None:
        """Count an attempt as failed before the client has heard the last of it."""
        self.engine.announced(event)

    def pop3_login_failure(self, event: LoginFailure) -> "Pass | Delay | Drop | Deferred[Any]":
        """Count it, and slow it down."""
        return then(self.engine.failure(event), partial(self._decided, event))

    def pop3_login_success(self, event: LoginSuccess) -> "_Any | Deferred[_Any]":
        """Take back what was counted of it."""
        return then(self.engine.success(event), partial(self._decided, event))

    def pop3_session(self, event: SessionEnd) -> "Deferred[None] | None":
        """Settle what has no answer."""

        def done(decision: Decision) -> None:
            self._decided(event, decision)

        return then(self.engine.ended(event), done)

    def _decided(self, about: Event, decision: Decision) -> _Any:
        """Remember a decision by whom it is about, and do it."""
        if decision.events:
            keys = self.engine.keys_of(about)
            for event in decision.events:
                self._decisions.remember(keys, event)
        return self._done(decision)

    def _done(self, decision: Decision) -> _Any:
        for event in decision.events:
            if event.dry_run:
                self._on_trial[f"{event.rule} {event.action}"] += 1
            self.emit(event)
        self._end(decision.ending)
        verdict: Verdict = decision.verdict
        return verdict if isinstance(verdict, _Any) else PASS

    def _commanded(self, event: PolicyEvent) -> None:
        self._decisions.remember((), event)
        self.emit(event)
        if self._exporter is not None:
            self._exporter.look_at_allowed()

    def _end(self, uids: set[str]) -> None:
        if uids:
            self.counts["sessions_ended"] += len(uids)
            self.end_sessions(uids)
