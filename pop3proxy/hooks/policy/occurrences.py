"""Counts what happens besides judged logins, such as connections, and keeps clients out for it.

Each is counted when it happens: then rules log and ban. What rules delay, deny and drop comes later: the next
connection, and each login. Who is welcome gets in all the same: an address from which somebody logged in may
connect, and log in where it did so before.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final, NamedTuple

from twisted.internet.defer import Deferred

from ...analyzer.events import (
    AUTHORIZATION,
    Event,
    LoginAttempt,
    LoginFailure,
    Reason,
    Reply,
    Request,
    SessionEnd,
)
from ...analyzer.events import Policy as PolicyEvent
from ...analyzer.grammar import COMMANDS
from ..api import PASS, Delay, Deny, Drop, Hook, Verdict
from .accounts import Accounts
from .config import Occurrence, PolicyRule
from .engine import Engine, then
from .penalties import Decision
from .rules import Charged, Rule, Who
from .store import Charge, Settled, Settlement, Tally

BARRING: Final = frozenset({"delay", "deny", "drop"})
"""The actions that are done to what comes later."""

DENYING: Final = frozenset({"deny", "busy", "banned"})
"""The actions in decisions that deny a login."""

OVERHEARD: Final = frozenset(
    {"refused_users", "denied", "unknown_commands", "unknown_users", "trap_users"}
)
"""What is known by commands and their replies, which the policy does not decide about."""

_KNOWN: Final = frozenset(row.name for row in COMMANDS.values())

_LOGINS: Final = frozenset({"USER", "APOP", "AUTH"})
"""The commands that begin a login; a PASS that is denied is known by its attempt."""

_MAX_DOUBLINGS: Final = 30


class _Counted(NamedTuple):
    """A charge, its count, and how much of that is the very event that is judged."""

    each: Charged
    tally: Tally
    own: int


class Occurrences:
    """Counts what rules ask for, by an engine's keys, in its store; judges connections and logins by it."""

    def __init__(self, engine: Engine, accounts: Accounts) -> None:
        self._engine = engine
        self._accounts = accounts
        self._denial = engine.policy.users.denial
        self._rules = tuple(rule for rule in engine.rules.all if rule.config.of_occurrence)
        self._barring = tuple(rule for rule in self._rules if rule.config.action in BARRING)
        self.kinds = frozenset(rule.config.counts for rule in self._rules)
        self._by_name = not self.kinds.isdisjoint(("unknown_users", "trap_users"))
        # Whether connections, and logins, are worth asking about.
        self.judges_connections = bool(self._barring) or "connections" in self.kinds
        self.judges_logins = bool(self._barring) or self._by_name

    # --- what happens -----------------------------------------------------------------------------------

    def occurred(self, kind: Occurrence, event: Event) -> "Decision | Deferred[Decision]":
        """Count something; a session whose client is banned for it, or dropped, ends."""
        who, decision = self._engine.whereabouts(event.c), Decision()
        charged = self._charged(self._of(kind), who, event)
        if not charged:
            return decision

        def go_on(answer: Settled) -> Decision:
            for each, tally in zip(charged, answer.tallies, strict=True):
                self._follow(decision, event, who, each, tally, answer.home)
                if each.rule.config.action == "drop" and not answer.home:
                    self._drop(decision, event, _Counted(each, tally, 1))
            if self._is_banned(decision):
                decision.ending.add(event.c.uid)
            return decision

        return then(self._counted(charged, (), self._engine.home_mark(who), event.ts), go_on)

    def _drop(self, decision: Decision, event: Event, counted: _Counted) -> None:
        if _excess(counted) is not None:
            self._engine.penalties.done(decision, event, counted.each, counted.tally, "drop")
            if not counted.each.rule.dry:
                decision.ending.add(event.c.uid)

    # --- what is judged ---------------------------------------------------------------------------------

    def connected(self, event: Event) -> "Decision | Deferred[Decision]":
        """Count and judge a connection of a client that is not banned."""
        who, decision = self._engine.whereabouts(event.c), Decision()
        counted = self._charged(self._of("connections"), who, event)
        others = [rule for rule in self._barring if rule.config.counts != "connections"]
        asked = self._charged(others, who, event)
        if not (counted or asked):
            return decision

        def go_on(answer: Settled) -> Decision:
            found = _paired(counted, asked, answer)
            self._follow_all(decision, event, who, found, answer.home)
            if self._is_banned(decision):
                again = self._engine.connect(event)
                decision.verdict = again.verdict
                decision.events += again.events
            elif not answer.home:
                self._bar(decision, event, found, self._engine.policy.banned_reply)
            return decision

        return then(self._counted(counted, asked, self._engine.home_mark(who), event.ts), go_on)

    def attempted(self, event: LoginAttempt) -> "Decision | Deferred[Decision]":
        """Count a login at a trap, or a name without account; judge it, also by what was counted before."""
        who, decision = self._engine.reading(event), Decision()
        kinds = self._kinds_of(event.user)
        counting = [rule for rule in self._rules if rule.config.counts in kinds]
        counted = self._charged(counting, who, event)
        others = [rule for rule in self._barring if rule not in counting]
        asked = self._charged(others, who, event)
        if not (counted or asked or kinds):
            return decision

        def go_on(answer: Settled) -> Decision:
            found = _paired(counted, asked, answer)
            # Nobody is welcome at what is no account: then it is asked who is at home at the address.
            self._follow_all(decision, event, who, found, answer.home)
            if kinds or not answer.home:
                self._bar(decision, event, found, self._denial)
            if "trap_users" in kinds:
                self._shut(decision, event, who)
            return decision

        mark = self._engine.home_mark(who) if kinds else self._engine.welcome_mark(who)
        return then(self._counted(counted, asked, mark, event.ts), go_on)

    def _kinds_of(self, user: str) -> frozenset[str]:
        """Return as what an attempt at a name is counted."""
        if not self._by_name:
            return frozenset()
        found = {
            "trap_users": self._accounts.is_trap(user),
            "unknown_users": self._accounts.is_unknown(user),
        }
        return self.kinds & {kind for kind, is_one in found.items() if is_one}

    def _shut(self, decision: Decision, event: Event, who: Who) -> None:
        """Deny a login at a trap, whatever has become of its address, and say why."""
        if self._engine.is_allowed(event):
            return
        for rule in self._of("trap_users"):
            config = rule.config
            if config.action != "ban" or rule.dry:
                continue
            decision.verdict = Deny(config.reply)
            if not self._is_banned(decision):
                said = (config.name, "deny", f"user:{who.user}", config.counts)
                limit = config.limits[0]
                decision.events.append(
                    PolicyEvent(event.c, event.ts, *said, 1, 0, limit.seconds, 0.0, False)
                )
            return

    # --- the parts --------------------------------------------------------------------------------------

    def _of(self, kind: Occurrence) -> Iterable[Rule]:
        return [rule for rule in self._rules if rule.config.counts == kind]

    def _charged(self, rules: Iterable[Rule], who: Who, event: Event) -> tuple[Charged, ...]:
        if self._engine.is_allowed(event):
            return ()
        found = [rule.charge(who, who.places(), event.c) for rule in rules]
        in_grace, now = self._engine.store.in_grace, event.ts
        return tuple(
            each
            for each in found
            if each is not None and not in_grace(f"{each.rule.config.by}:{each.value}", now)
        )

    def _counted(
        self, counted: Sequence[Charged], asked: Sequence[Charged], mark: str, now: float
    ) -> "Settled | Deferred[Settled]":
        def charges(of: Sequence[Charged]) -> tuple[Charge, ...]:
            return tuple(each.charge for each in of)

        settlement = Settlement(charges=charges(counted), asked=charges(asked), home=mark)
        return self._engine.store.settle(settlement, now)

    def _follow_all(
        self, decision: Decision, event: Event, who: Who, found: Iterable[_Counted], home: bool
    ) -> None:
        for each, tally, own in found:
            if own:
                self._follow(decision, event, who, each, tally, home)

    def _follow(
        self, decision: Decision, event: Event, who: Who, each: Charged, tally: Tally, home: bool
    ) -> None:
        """Log or ban; what else a rule does comes later."""
        if each.rule.config.action not in BARRING:
            self._engine.penalties.failed(decision, event, who, each, tally, home)

    @staticmethod
    def _is_banned(decision: Decision) -> bool:
        return any(event.action == "ban" and not event.dry_run for event in decision.events)

    def _bar(self, decision: Decision, event: Event, found: Iterable[_Counted], reply: str) -> None:
        """Deny, drop or delay by the rules that are exceeded; the first that refuses ends it.

        ``reply`` is for those that have none of their own.
        """
        for counted in found:
            rule, excess = counted.each.rule.config, _excess(counted)
            if excess is None or rule.action not in BARRING:
                continue
            seconds = 0.0
            if rule.action == "delay":
                seconds = min(rule.delay * 2 ** min(excess, _MAX_DOUBLINGS), rule.delay_max)
            self._engine.penalties.done(
                decision, event, counted.each, counted.tally, rule.action, seconds
            )
            if counted.each.rule.dry:
                continue
            own = rule.reply if rule.reply != self._denial else reply
            decision.verdict = _verdict(rule, seconds, own, decision.verdict)
            if rule.action != "delay":
                return


def _paired(
    counted: Sequence[Charged], asked: Sequence[Charged], answer: Settled
) -> list[_Counted]:
    """Return what a store says of charges that were counted, and of others."""
    own = (*(1 for _ in counted), *(0 for _ in asked))
    return list(map(_Counted, (*counted, *asked), answer.tallies, own))


def _excess(counted: _Counted) -> int | None:
    """Return by how much the first limit that is reached is exceeded; the event itself is one more."""
    each, tally, own = counted
    for count, window in zip(tally.counts, each.charge.windows, strict=True):
        if count - own >= window.limit:
            return count - own - window.limit
    return None


def _verdict(rule: PolicyRule, seconds: float, reply: str, before: Verdict) -> Verdict:
    """Return what a rule does."""
    if rule.action == "delay":
        longer = before.seconds if isinstance(before, Delay) else 0.0
        return Delay(max(seconds, longer)) if max(seconds, longer) > 0 else PASS
    return Drop() if rule.action == "drop" else Deny(reply)


class Overhearing(Hook):
    """Hears the commands and replies by which names, denials and unknown commands are counted.

    Before the login the guard passes one command at a time, so a reply is to the last command. Of a capture
    that does not hold: a USER that is refused behind others in the same segment is not counted.
    """

    label: ClassVar[str] = "FailedLogins"

    def __init__(
        self,
        tell: Callable[[Occurrence, Event], None],
        denied_here: Callable[[str], bool],
        accounts: Accounts,
    ) -> None:
        """``denied_here`` says whether the policy itself has denied the last login of a session."""
        self._tell = tell
        self._denied_here = denied_here
        self._accounts = accounts
        self._commands: dict[str, Request] = {}  # the last one of a session, until it is answered
        self._failed = ""  # the session of the last denied login, until the reply to it

    def pop3_request(self, event: Request) -> None:
        """Count a command that is not known, and remember any other for its reply."""
        c = event.c
        if c.state is not AUTHORIZATION:
            return
        if event.command not in _KNOWN:
            self._tell("unknown_commands", event)
        elif event.command == "USER" and self._accounts.is_trap(event.arg):
            # Its server may refuse the name, and then no attempt follows.
            self._tell("trap_users", event)
        self._commands[c.uid] = event

    def pop3_login_failure(self, event: LoginFailure) -> None:
        """Count a login that somebody else has denied."""
        if event.reason is not Reason.DENIED:
            return
        self._failed = event.c.uid
        if not self._denied_here(event.c.uid):
            self._tell("denied", event)

    def pop3_reply(self, event: Reply) -> None:
        """Count a name that the server refuses, or the beginning of a login that is denied."""
        uid = event.c.uid
        request = self._commands.pop(uid, None)
        failed, self._failed = self._failed == uid, ""
        if event.cmd != "ERR" or failed or request is None:
            return
        if event.denial:
            if request.command in _LOGINS:
                self._tell("denied", event)
        elif request.command == "USER":
            self._tell("refused_users", event)
            if self._accounts.is_unknown(request.arg):
                self._tell("unknown_users", event)

    def pop3_session(self, event: SessionEnd) -> None:
        """Forget a session."""
        self._commands.pop(event.c.uid, None)


def ending(event: SessionEnd) -> tuple[Occurrence, ...]:
    """Return what is counted of a session because of its end."""
    found: list[Occurrence] = []
    if event.reason == "tls_handshake":
        found.append("handshakes_failed")
    if event.inspected != "whole":
        found.append("opaque_sessions")
    return tuple(found)
