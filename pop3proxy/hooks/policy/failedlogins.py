"""The hook by which failed logins have consequences; what they are is judged in engine.py."""

import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ...analyzer.events import (
    Connect,
    Connection,
    Event,
    LoginAnnounced,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    SessionEnd,
)
from ...analyzer.events import Policy as PolicyEvent
from ..api import PASS, Delay, Deny, Drop, Hook, Pass, Verdict
from .accounts import Accounts
from .byhand import ByHand
from .config import Occurrence, Policy
from .control import NO_NOTES, Control, Notes
from .decisions import Decisions
from .engine import Engine, then
from .explanations import Explanations
from .export.exporter import Exporter
from .export.outlet import Outlet
from .export.targets import Targets
from .guessed import LikelyGuessed
from .keeping import Keeper
from .memory import MemoryStore
from .occurrences import OVERHEARD, Occurrences, Overhearing, ending
from .penalties import Decision
from .rules import Who
from .store import Ban, Store

if TYPE_CHECKING:
    from .redis.store import RedisStore

_LEAST_EXPIRY: Final = 1.0
"""Seconds between two looks for tries that go on no longer, at the least."""
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

    def __init__(
        self,
        policy: Policy,
        store: Store | None = None,
        live: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take the configuration, a store other than that in memory, and what says the time.

        Not ``live``, no file is written, no snapshot read, no socket opened and no thread used: for a replay.
        Raises PolicyFileError for a file of names that cannot be read.
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
            *(policy, self.store, secrets.token_bytes(32) if key is None else key.encode()),
            aside=deferToThread if live else maybeDeferred,
        )
        self.accounts = Accounts(policy, self.engine.users)
        self._files = self.accounts.files, self.engine.geo.files
        self._guessed = LikelyGuessed(self.engine)
        if self._guessed.asks and not self._guessed.decides:
            self.engine.before_success = self._ask_whether_guessed
        self._occurrences = Occurrences(self.engine, self.accounts)
        self._denied: set[str] = set()  # sessions whose last login was denied here
        self._live = live
        self._on_trial: Counter[str] = Counter()  # rule and action, of rules that only say it
        self._expiry = LoopingCall(lambda: self.engine.tries.expire(now()))
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

    @property
    def ears(self) -> tuple[Hook, ...]:
        """The hooks that hear for this one what it does not decide about, to be loaded with it."""
        if self._occurrences.kinds.isdisjoint(OVERHEARD):
            return ()
        return (Overhearing(self.occurred, self.denied_here, self.accounts),)

    # --- start and stop ---------------------------------------------------------------------------------

    def start(self, reactor: Any) -> None:
        """Load the snapshot, export the bans, and open the control socket.

        Raises OSError with one line for the operator.
        """
        self._reactor = reactor
        self.engine.waiting.on_due = self._set_alarm
        if not self._live:
            return
        for files in self._files:
            files.watch(reactor)
        policy = self.policy
        self._expiry.clock = reactor
        self._expiry.start(max(policy.same_try, _LEAST_EXPIRY), now=False)
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

    def reopen(self) -> None:
        """Read the files of names again."""
        if self._live:
            for files in self._files:
                files.reread()

    def stop(self) -> None:
        """Write a last snapshot, and say what was decided."""
        if self._expiry.running:
            self._expiry.stop()
        self._unset_alarm()
        for files in self._files:
            files.stop()
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

    def pop3_connect(self, event: Connect) -> "_Any | Deferred[_Any]":
        """Turn a banned client away, and one that has done too much of what else is counted."""
        decision = self.engine.connect(event)
        if decision.verdict is not PASS or not self._occurrences.judges_connections:
            return self._decided(event, decision)
        return then(self._occurrences.connected(event), partial(self._decided, event))

    def pop3_login_attempt(self, event: LoginAttempt) -> "_Any | Deferred[_Any]":
        """Deny a login that is one too many, or hold it until that is known."""
        if not self._occurrences.judges_logins:
            judged = self.engine.attempt(event)
            if isinstance(judged, Decision) and not judged.events:
                return self._done(judged)
            return then(judged, self._attempted(event))

        def go_on(decision: Decision) -> Any:
            verdict = self._attempted(event)(decision)
            if isinstance(verdict, Deny | Drop):
                return verdict

            def or_else(found: Any) -> Any:
                return verdict if found is PASS else found  # a delay

            return then(then(self.engine.attempt(event), self._attempted(event)), or_else)

        # A Deferred waits for one that its callback returns.
        found: _Any | Deferred[_Any] = then(self._occurrences.attempted(event), go_on)
        return found

    def _attempted(self, event: LoginAttempt) -> "Callable[[Decision], _Any]":
        """Return what carries a decision about a login out, and remembers whether it was denied."""

        def done(decision: Decision) -> _Any:
            verdict = self._decided(event, decision)
            if isinstance(verdict, Deny):
                self.has_denied(event.c.uid)
            return verdict

        return done

    def has_denied(self, uid: str) -> None:
        """Note that this policy denies the login of a session, whose failure is no denial by others."""
        self._denied.add(uid)

    def denied_here(self, uid: str) -> bool:
        """Return whether this policy has denied the last login of a session; a second call returns False."""
        found = uid in self._denied
        self._denied.discard(uid)
        return found

    def occurred(self, kind: Occurrence, event: Event) -> None:
        """Count something else than a login."""
        if kind in self._occurrences.kinds:

            def done(decision: Decision) -> None:
                self._decided(event, decision)

            then(self._occurrences.occurred(kind, event), done)

    def handshake_failed(self, c: Connection, ts: float) -> None:
        """Count a TLS handshake that failed before there was a session."""
        self.occurred("handshakes_failed", Event(c, ts))

    def pop3_login_announced(self, event: LoginAnnounced) -> None:
        """Count an attempt as failed before the client has heard the last of it."""
        self.engine.announced(event)

    def pop3_login_failure(self, event: LoginFailure) -> "Pass | Delay | Drop | Deferred[Any]":
        """Count it, and slow it down."""
        self._guessed.failed(event)
        return then(self.engine.failure(event), partial(self._decided, event))

    def pop3_login_success(self, event: LoginSuccess) -> "_Any | Deferred[_Any]":
        """Take back what was counted of it, unless it was probably guessed and is denied for that."""
        decided = partial(self._decided, event)
        if not self._guessed.decides:
            return then(self.engine.success(event), decided)

        def go_on(decision: Decision) -> Any:
            verdict = decided(decision)

            def instead(found: Any) -> Any:
                return found if verdict is PASS else verdict

            if not isinstance(verdict, Deny | Drop):
                return then(then(self.engine.success(event), decided), instead)
            # Nobody becomes welcome by it, and it counts as what it is taken for.
            taken_for = LoginFailure(
                *(event.c, event.ts, event.user, event.password, event.mechanism),
                *(Reason.CREDENTIALS, "", event.attempt),
            )
            return then(then(self.engine.failure(taken_for), decided), instead)

        judged = self._guessed.succeeded(event, self.engine.reading(event))
        found: _Any | Deferred[_Any] = then(judged, go_on)
        return found

    def _ask_whether_guessed(self, event: LoginSuccess, who: Who) -> None:
        """Ask whether a login was guessed, and let nobody wait for it, since it is only said."""
        if self._guessed.may_be(who):
            then(self._guessed.succeeded(event, who), partial(self._decided, event))

    def pop3_session(self, event: SessionEnd) -> "Deferred[None] | None":
        """Settle what has no answer, and count what the session was."""
        self._denied.discard(event.c.uid)
        if self._occurrences.kinds:
            for kind in ending(event):
                self.occurred(kind, event)

        def done(decision: Decision) -> None:
            self._decided(event, decision)

        return then(self.engine.ended(event), done)

    def _decided(self, about: Event, decision: Decision) -> _Any:
        """Remember a decision by whom it is about, and do it."""
        if decision.events:
            keys = self.engine.keys_of(about)
            user = about.user if isinstance(about, LoginAttempt | LoginSuccess) else ""
            for event in decision.events:
                self._decisions.remember(keys, event)
                self._guessed.refused(event, user)
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
