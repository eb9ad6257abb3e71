"""Judges logins by rules, given the time and a store: no reactor, no file, and no clock of its own."""

import hashlib
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from ...analyzer.events import (
    Connection,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    SessionEnd,
)
from ...analyzer.events import Policy as PolicyEvent
from ..api import PASS, Delay, Deny, Drop, Verdict
from ..masking import shown_name
from .config import Policy, PolicyRule
from .store import (
    SECRET,
    Answer,
    Attempt,
    Ban,
    Charge,
    Settlement,
    Store,
    Tally,
    Window,
    exceeded,
)
from .users import Addresses, Passwords, Users, unknown_place

T = TypeVar("T")
R = TypeVar("R")

MISCONFIGURED: Final = "misconfigured"
"""The name under which the same wrong password of one client is reported."""

MANUAL: Final = "manual"
"""The name of the rule by which an operator bans."""

ANSWER_TIME: Final = 60.0
"""Seconds from a login to the end of its session, below which it is the client that did not wait.

Many servers accept at once and refuse after seconds, so that to leave early is to know the answer. The end
comes up to ``timeouts.drain`` after the client has left.
"""

_MAX_DOUBLINGS: Final = 30

_MAX_SAID: Final = 10_000


def then(found: "T | Deferred[T]", go_on: "Callable[[T], R]") -> "R | Deferred[R]":
    """Go on with what a store says, now or when it says it."""
    if isinstance(found, Deferred):
        return found.addCallback(go_on)
    return go_on(found)


@dataclass(slots=True)
class Decision:
    """A verdict, the events that say why, and the sessions that a ban ends."""

    verdict: Verdict = PASS
    events: list[PolicyEvent] = field(default_factory=list)
    ending: set[str] = field(default_factory=set)


class Who(NamedTuple):
    """Who tries to log in, as keys; each is empty if it is not known."""

    address: str
    network: str
    user: str
    password: str  # a hash
    pair: str
    listener: str = ""

    def value(self, by: str) -> str:
        """Return the value of a key of some kind; empty if it is not known."""
        return str(getattr(self, by))


class Charged(NamedTuple):
    """A charge, and the rule that it is for."""

    rule: "Rule"
    charge: Charge
    value: str


@dataclass(frozen=True, slots=True)
class Flight:
    """An attempt that waits for the server's answer.

    ``number`` is the attempt's in its session: of a name with a blank there is one for each reading.
    """

    who: Who
    number: int
    charged: tuple[Charged, ...]
    at: float


class Rule:
    """A rule of the configuration, and what of it is worked out once."""

    __slots__ = (
        *("config", "dry", "enforced", "prefix", "reasons", "windows"),
        *("_by", "_conditional", "_key", "_member"),
    )

    _MEMBERS: Final = {
        "passwords": "password",
        "users": "user",
        "addresses": "address",
        "networks": "network",
        "success_addresses": "address",
        "success_networks": "network",
    }

    def __init__(self, config: PolicyRule, policy: Policy) -> None:
        self.config = config
        self.windows = tuple(Window(limit.seconds, limit.count) for limit in config.limits)
        self.dry = policy.dry_run or config.dry_run
        self.enforced = config.action in ("deny", "drop", "ban") and not config.of_success
        self.reasons = frozenset(map(Reason, config.reasons or policy.reasons))
        # Counts of a rule that was changed otherwise than in its limits are not taken for its own.
        shape = f"{config.counts} {config.by} {[limit.seconds for limit in config.limits]}"
        mark = SECRET if config.secret else ""
        self.prefix = f"{mark}{config.name}.{hashlib.sha256(shape.encode()).hexdigest()[:6]}|"
        # Worked out once, since each login asks every rule.
        self._by = Who._fields.index(config.by)
        self._member = (
            Who._fields.index(member) if (member := self._MEMBERS.get(config.counts)) else -1
        )
        self._key = f"{self.prefix}{config.by}:"
        self._conditional = (config.listener, config.tls, config.user) != (None, None, None)

    def key(self, ban_key: str) -> str:
        """Return the key of the count of ``kind:value``."""
        return self.prefix + ban_key

    def charge(self, who: Who, c: Connection, graced: Callable[[str], bool]) -> Charged | None:
        """Return what this rule counts of an attempt; None if it does not apply."""
        if self._conditional and not self._applies(who, c):
            return None
        value = who[self._by]
        seen = "" if self._member < 0 else who[self._member]
        if not value or (self._member >= 0 and not seen):
            return None
        by = self.config.by
        enforced = self.enforced and not self.dry and not graced(f"{by}:{value}")
        # Who is welcome at an account may still not guess there.
        waived = by != "pair"
        return Charged(self, Charge(self._key + value, self.windows, seen, enforced, waived), value)

    def _applies(self, who: Who, c: Connection) -> bool:
        config = self.config
        return (
            (config.listener is None or config.listener == c.listener)
            and (config.tls is None or config.tls is bool(c.tls))
            and (config.user is None or fnmatchcase(who.user, config.user))
        )


class Engine:
    """Counts logins and says what becomes of them.

    Every method takes an event, whose stamp is the time, and returns a Decision, or a Deferred of one if
    the store takes its time. ``counts`` has what is worth knowing.
    """

    def __init__(
        self,
        policy: Policy,
        store: Store,
        key: bytes,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take the rules, the key of the passwords' hashes, and where a number from 0 to 1 comes from."""
        self.policy = policy
        self.store = store
        self.users = Users(policy)
        self.addresses = Addresses(policy)
        self.passwords = Passwords(key)
        self.counts: Counter[str] = Counter()
        self._reasons = frozenset(map(Reason, policy.reasons))
        self._chance = chance
        self._rules = [Rule(rule, policy) for rule in policy.rules_in_force]
        self._failing = [rule for rule in self._rules if rule.config.of_failure]
        self._succeeding = [rule for rule in self._rules if rule.config.of_success]
        self._on_trial = any(rule.dry for rule in self._rules)
        self._by_pair = [rule for rule in self._failing if rule.config.by == "pair"]
        self._flights: dict[str, deque[Flight]] = {}
        self._said: OrderedDict[str, float] = OrderedDict()
        self._keys: dict[str, set[str]] = {}
        self._open: dict[str, set[str]] = {}
        self._banned = Drop() if policy.banned == "drop" else Deny(policy.banned_reply)

    # --- what is asked ----------------------------------------------------------------------------------

    def connect(self, event: Event) -> Decision:
        """Judge a client that has connected: is it banned?"""
        c, decision = event.c, Decision()
        if self._is_allowed(c):
            return decision
        keys = self._places(c)
        ban = self.store.ban_of(keys, event.ts)
        if ban is not None:
            self._turned_away(decision, event, ban, self._banned)
        elif self.policy.end_sessions:
            self._remember(c.uid, keys)
        return decision

    def attempt(self, event: LoginAttempt) -> "Decision | Deferred[Decision]":
        """Judge a login before the server sees it."""
        c, decision = event.c, Decision()
        if self._is_allowed(c):
            return decision
        who = self._who(event)
        ban = self.store.ban_of((*self._places(c), *self._accounts(who)), event.ts)
        # A rule's ban of a user leaves those in who are welcome; only the store knows them.
        for_strangers = ban is not None and ban.key.startswith("user:") and ban.rule != MANUAL
        if ban is not None and not for_strangers:
            self._turned_away(decision, event, ban, Deny())
            return decision
        charged = self._not_yet_charged(self._charged(self._failing, who, event), event)
        attempt = Attempt(tuple(each.charge for each in charged), _welcome(who), self._repeat(who))

        def go_on(answer: Answer) -> Decision:
            if answer.refused:
                self._refuse(decision, event, charged, answer)
                return decision
            flight = Flight(who, event.attempt, charged if answer.charged else (), event.ts)
            if ban is not None and not answer.welcome:
                self._settle_all((flight,), event.ts)
                self._turned_away(decision, event, ban, Deny())
                return decision
            flights = self._flights.get(c.uid)
            if flights is None:
                # The session has ended while the store was asked.
                self._settle_all((flight,), event.ts)
                return decision
            self._would_refuse(decision, event, charged, answer)
            flights.append(flight)
            return decision

        self._flights.setdefault(c.uid, deque())
        return then(self.store.attempt(attempt, event.ts), go_on)

    def failure(self, event: LoginFailure) -> "Decision | Deferred[Decision]":
        """Count a failed login; its reply may wait."""
        c, decision = event.c, Decision()
        if self._is_allowed(c):
            return decision
        who = self._who(event)
        flight = self._landed(event, who)
        if event.reason is Reason.DENIED:
            if flight is not None:
                self._settle_all((flight,), event.ts)
            return decision
        repeated = flight is not None and not flight.charged
        kept, refunded = self._sorted(event, who, flight)
        repeat = self._repeat(who) if event.reason in self._reasons else None
        late: tuple[Charge, ...] = ()
        if flight is None:
            # No attempt was seen: what counts is counted now.
            charged, kept = kept, ()
            late = tuple(each.charge for each in charged)
        else:
            charged = kept
        added = late if repeat is None else (*late, repeat)
        settlement = Settlement(
            event.ts if flight is None else flight.at,
            tuple(each.charge for each in kept),
            tuple(each.charge for each in refunded),
            added,
            home=_home(who),
        )

        def go_on(answer: Answer) -> Decision:
            if repeat is not None:
                self._misconfigured(decision, event, who, answer.tallies[-1].counts[0])
            if not repeated:
                for each, tally in zip(charged, answer.tallies, strict=False):
                    self._failed(decision, event, who, each, tally, answer.home)
            return decision

        return then(self.store.settle(settlement, event.ts), go_on)

    def success(self, event: LoginSuccess) -> "Decision | Deferred[Decision]":
        """Forget what was counted of the pair, and keep its address in good memory."""
        c, decision = event.c, Decision()
        if self._is_allowed(c):
            return decision
        who = self._who(event)
        flight = self._landed(event, who)
        charged = self._charged(self._succeeding, who, event)
        pair = f"pair:{who.pair}"
        repeat = self._repeat(who)
        known = self.policy.known
        settlement = Settlement(
            event.ts if flight is None else flight.at,
            refunded=() if flight is None else tuple(each.charge for each in flight.charged),
            charges=tuple(each.charge for each in charged),
            marks=((_welcome(who), known), (_home(who), known)) if _welcome(who) else (),
            cleared=(
                *([rule.key(pair) for rule in self._by_pair] if who.pair else ()),
                *(() if repeat is None else (repeat.key,)),
            ),
        )
        if self.policy.end_sessions:
            self._remember(c.uid, self._accounts(who))

        def go_on(answer: Answer) -> Decision:
            for each, tally in zip(charged, answer.tallies, strict=True):
                self._failed(decision, event, who, each, tally, home=False)
            return decision

        return then(self.store.settle(settlement, event.ts), go_on)

    def ended(self, event: SessionEnd) -> "Decision | Deferred[Decision]":
        """Settle what waits, since no answer will come, and forget the session.

        What the client did not wait for has failed: else whoever knows wrong passwords by how long the
        answer takes would guess for nothing. The rest is taken back.
        """
        uid = event.c.uid
        self._forget(uid)
        flights = self._flights.pop(uid, ())
        left = [flight for flight in flights if _client_left(event, flight)]
        self._settle_all((flight for flight in flights if flight not in left), event.ts)
        decision = Decision()
        found: Decision | Deferred[Decision] = decision
        for flight in left:
            found = then(self._abandoned(decision, event, flight), lambda _: decision)
        return found

    def _abandoned(
        self, decision: Decision, event: SessionEnd, flight: Flight
    ) -> "Deferred[None] | None":
        """Count an attempt whose answer nobody waited for."""
        who = flight.who
        repeat = self._repeat(who)
        kept = tuple(
            each for each in flight.charged if not self._reasons.isdisjoint(each.rule.reasons)
        )
        settlement = Settlement(
            flight.at,
            kept=tuple(each.charge for each in kept),
            refunded=tuple(each.charge for each in flight.charged if each not in kept),
            charges=() if repeat is None else (repeat,),
            home=_home(who),
        )
        self.counts["abandoned"] += 1

        def go_on(answer: Answer) -> None:
            for each, tally in zip(kept, answer.tallies, strict=False):
                # There is no reply that could wait, and nobody is banned for what may not have failed.
                if each.rule.config.action == "log":
                    self._failed(decision, event, who, each, tally, answer.home)

        return then(self.store.settle(settlement, event.ts), go_on)

    def _forget(self, uid: str) -> None:
        for key in self._keys.pop(uid, ()):
            uids = self._open[key]
            uids.discard(uid)
            if not uids:
                del self._open[key]

    # --- for operators ----------------------------------------------------------------------------------

    def ban(self, key: str, seconds: float, why: str, now: float) -> set[str]:
        """Ban by hand; return the sessions that this ends."""
        past = self.store.past(key, now)
        times = 1 if past is None else past.times + 1
        self.store.ban(Ban(key, MANUAL, now, now + seconds, times, (why,)), now)
        return set(self._open.get(key, ())) if self.policy.end_sessions else set()

    def unban(self, key: str, now: float) -> bool:
        """End a ban, forget what was counted of the same, and count nothing against it for a time."""
        cleared = [rule.key(key) for rule in self._rules]
        return self.store.unban(key, cleared, now + self.policy.grace, now)

    # --- the parts --------------------------------------------------------------------------------------

    def _who(self, event: LoginAttempt | LoginSuccess | LoginFailure) -> Who:
        address, network = self._whereabouts(event.c)
        user = self.users.key(event.user)
        place = unknown_place(event.c.listener) if event.c.orig_unknown else address
        pair = f"{place}|{user}" if place and user else ""
        return Who(
            address,
            network,
            user,
            self.passwords.fingerprint(event.password),
            pair,
            event.c.listener,
        )

    def _whereabouts(self, c: Connection) -> tuple[str, str]:
        """Return the client's address and network as keys; a proxy's own address says nothing of a client."""
        if c.orig_unknown:
            return "", ""
        return self.addresses.address(c.orig_h), self.addresses.network(c.orig_h)

    def _is_allowed(self, c: Connection) -> bool:
        # The address of a proxy that names no client allows nobody.
        return not c.orig_unknown and self.addresses.allowed(c.orig_h)

    def _places(self, c: Connection) -> tuple[str, ...]:
        return () if c.orig_unknown else self.addresses.places(c.orig_h)

    @staticmethod
    def _accounts(who: Who) -> tuple[str, ...]:
        pair = who.pair
        user = (f"user:{who.user}",) if who.user else ()
        return (*user, f"pair:{pair}") if pair else user

    def _repeat(self, who: Who) -> Charge | None:
        """Return the count of this very password of this client; None if none is seen."""
        if not (who.password and who.pair):
            return None
        window = Window(self.policy.misconfigured_memory, 1)
        return Charge(f"{SECRET}repeat|{who.pair}|{who.password}", (window,))

    def _charged(self, rules: Iterable[Rule], who: Who, event: Event) -> tuple[Charged, ...]:
        def graced(key: str) -> bool:
            return self.store.in_grace(key, event.ts)

        c = event.c
        found = [rule.charge(who, c, graced) for rule in rules]
        return tuple([each for each in found if each is not None])

    def _not_yet_charged(
        self, charged: tuple[Charged, ...], event: LoginAttempt
    ) -> tuple[Charged, ...]:
        """Leave out what another reading of the same attempt's name is charged for: it is one password."""
        done = {
            each.charge.key
            for flight in self._flights.get(event.c.uid, ())
            if event.attempt and flight.number == event.attempt
            for each in flight.charged
        }
        return tuple(each for each in charged if each.charge.key not in done)

    def _charged_for(self, event: LoginFailure, who: Who) -> tuple[Charged, ...]:
        every = self._charged(self._failing, who, event)
        return tuple(each for each in every if event.reason in each.rule.reasons)

    def _sorted(
        self, event: LoginFailure, who: Who, flight: Flight | None
    ) -> tuple[tuple[Charged, ...], tuple[Charged, ...]]:
        """Part what counts of a failure from what does not."""
        if flight is None:
            return self._charged_for(event, who), ()
        kept = tuple(each for each in flight.charged if event.reason in each.rule.reasons)
        refunded = tuple(each for each in flight.charged if event.reason not in each.rule.reasons)
        return kept, refunded

    def _landed(self, event: LoginSuccess | LoginFailure, who: Who) -> Flight | None:
        """Find the attempt that an answer is to.

        Those before it will get none, and are taken back; so are the other readings of a name that is in.
        """
        flights = self._flights.get(event.c.uid)
        if flights is None:
            return None
        for index, flight in enumerate(flights):
            if flight.who == who and flight.number == event.attempt:
                others = [flights.popleft() for _ in range(index + 1)][:-1]
                if isinstance(event, LoginSuccess):
                    while flights and flights[0].number == event.attempt:
                        others.append(flights.popleft())
                self._settle_all(others, event.ts)
                return flight
        return None

    def _settle_all(self, flights: Iterable[Flight], now: float) -> None:
        """Take attempts back."""
        for flight in flights:
            if flight.charged:
                refunded = tuple(each.charge for each in flight.charged)
                self.store.settle(Settlement(flight.at, refunded=refunded), now)

    def sessions(self, key: str) -> set[str]:
        """Return the sessions that a ban of this key, made elsewhere, ends."""
        if not self.policy.end_sessions or key.startswith("user:"):  # who is logged in is welcome
            return set()
        return set(self._open.get(key, ()))

    def _remember(self, uid: str, keys: tuple[str, ...]) -> None:
        # Of each connection, and a flood has many: without a set that is made in vain.
        held = self._keys.get(uid)
        if held is None:
            held = self._keys[uid] = set()
        held.update(keys)
        for key in keys:
            uids = self._open.get(key)
            if uids is None:
                self._open[key] = {uid}
            else:
                uids.add(uid)

    # --- for what counts something else than logins -----------------------------------------------------

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the configuration's order."""
        return tuple(self._rules)

    def is_allowed(self, c: Connection) -> bool:
        """Return whether a client is never counted, delayed, denied or banned."""
        return self._is_allowed(c)

    def whereabouts(self, c: Connection) -> Who:
        """Return what is known of a client that has named no user."""
        return Who(*self._whereabouts(c), "", "", "", c.listener)

    def reading(self, event: LoginAttempt | LoginSuccess | LoginFailure) -> Who:
        """Return who tries to log in."""
        return self._who(event)

    @staticmethod
    def home_mark(who: Who) -> str:
        """Return the mark of an address that somebody logged in from; empty if there can be none."""
        return _home(who)

    @staticmethod
    def welcome_mark(who: Who) -> str:
        """Return the mark of an address that an account was logged in to from; empty if there can be none."""
        return _welcome(who)

    def follow(
        self, decision: Decision, event: Event, who: Who, each: Charged, tally: Tally, home: bool
    ) -> None:
        """Log or ban, if a rule says so and its count has reached a limit."""
        self._failed(decision, event, who, each, tally, home)

    def report(
        self,
        decision: Decision,
        event: Event,
        each: Charged,
        tally: Tally,
        action: str,
        seconds: float = 0.0,
    ) -> None:
        """Add the event that says what a rule does, and count that, unless the rule is on trial."""
        if not each.rule.dry:
            self.counts[action] += 1
        self._say(decision, event, each, tally, action, seconds=seconds)

    # --- consequences -----------------------------------------------------------------------------------

    def _turned_away(self, decision: Decision, event: Event, ban: Ban, verdict: Verdict) -> None:
        self.counts["banned"] += 1
        decision.verdict = verdict
        decision.events.append(
            PolicyEvent(
                *(event.c, event.ts, ban.rule, "banned", self._shown(ban.key), "bans"),
                *(ban.times, 0, 0.0, round(ban.until - event.ts, 3), False),
            )
        )

    def _refuse(
        self, decision: Decision, event: Event, charged: Sequence[Charged], answer: Answer
    ) -> None:
        """Deny by the first rule that is exceeded by what has failed, else by what may yet fail."""
        busy: tuple[Charged, Tally] | None = None
        for each, tally in zip(charged, answer.tallies, strict=True):
            if not each.charge.enforced or (each.charge.waived and answer.welcome):
                continue
            if not exceeded(each.charge, tally):
                continue
            if _reached(each.charge, tally, tally.pending) is not None:
                rule = each.rule.config
                action = "drop" if rule.action == "drop" else "deny"
                decision.verdict = Drop() if action == "drop" else Deny(rule.reply)
                self.counts[action] += 1
                self._say(decision, event, each, tally, action, pending=0)
                return
            if busy is None:
                busy = each, tally
        assert busy is not None, "a refusal has a rule"
        self.counts["busy"] += 1
        decision.verdict = Deny(self.policy.busy_reply)
        self._say(decision, event, *busy, "busy", pending=0)

    def _would_refuse(
        self, decision: Decision, event: Event, charged: Sequence[Charged], answer: Answer
    ) -> None:
        """Say what rules on trial would have done."""
        if not self._on_trial:
            return
        for each, tally in zip(charged, answer.tallies, strict=False):
            if not (each.rule.enforced and each.rule.dry):
                continue
            if each.charge.waived and answer.welcome:
                continue
            if exceeded(each.charge, tally):
                action = "drop" if each.rule.config.action == "drop" else "deny"
                self._say(decision, event, each, tally, action, pending=0)

    def _misconfigured(self, decision: Decision, event: Event, who: Who, count: int) -> None:
        """Slow down who sends the same wrong password again."""
        if count < 2:
            return
        self.counts[MISCONFIGURED] += 1
        policy = self.policy
        seconds = min(policy.misconfigured_delay * (count - 1), policy.misconfigured_delay_max)
        key = self._shown(f"pair:{who.pair}")
        window = policy.misconfigured_memory
        decision.events.append(
            PolicyEvent(
                *(event.c, event.ts, MISCONFIGURED, "delay", key, "failures"),
                *(count, 1, window, seconds, policy.dry_run),
            )
        )
        if not policy.dry_run:
            _slow(decision, seconds)

    def _failed(
        self,
        decision: Decision,
        event: Event,
        who: Who,
        each: Charged,
        tally: Tally,
        home: bool,
    ) -> None:
        """Do what a rule says once so many have failed, or, of a rule on successes, succeeded."""
        reached = _reached(each.charge, tally, tally.pending)
        if reached is None:
            return
        rule, excess = each.rule.config, reached[0] - reached[1].limit
        if rule.action == "ban":
            self._ban(decision, event, who, each, tally, home)
        elif rule.action == "delay":
            seconds = min(rule.delay * 2 ** min(excess, _MAX_DOUBLINGS), rule.delay_max)
            self._say(decision, event, each, tally, "delay", seconds=seconds)
            if not each.rule.dry:
                self.counts["delay"] += 1
                _slow(decision, seconds)
        elif rule.action == "log":
            if not self._logged(each.charge.key, event.ts, reached[1].seconds):
                self._say(decision, event, each, tally, "log")
        elif rule.of_success and excess > 0:
            # The limit is how many are let through; of failures the next attempt is judged.
            self._say(decision, event, each, tally, rule.action)
            if not each.rule.dry:
                self.counts[rule.action] += 1
                decision.verdict = Drop() if rule.action == "drop" else Deny(rule.reply)

    def _logged(self, key: str, now: float, seconds: float) -> bool:
        """Say whether this was said less than ``seconds`` ago; from now on it was."""
        last = self._said.get(key)
        if last is not None and 0 <= now - last < seconds:
            return True
        self._said[key] = now
        self._said.move_to_end(key)
        if len(self._said) > _MAX_SAID:
            self._said.popitem(last=False)
        return False

    def _ban(
        self,
        decision: Decision,
        event: Event,
        who: Who,
        each: Charged,
        tally: Tally,
        home: bool,
    ) -> None:
        """Ban, unless it was taken back a short time ago, or would hit those who log in from there."""
        rule, policy, now = each.rule.config, self.policy, event.ts
        about = _target(who, rule.ban)
        if not about or self.store.in_grace(about, now):
            return
        if home and rule.ban in ("address", "network"):
            # Others may log in there every day: whoever does not is denied, and nobody is banned.
            self.counts["ban_spared"] += 1
            return
        if self.store.ban_of((about,), now) is not None:
            return
        past = self.store.past(about, now)
        times = 1 if past is None else past.times + 1
        seconds = min(rule.ban_seconds * 2 ** min(times - 1, _MAX_DOUBLINGS), policy.ban_max)
        seconds *= 1 + policy.ban_jitter * self._chance()
        self._say(decision, event, each, tally, "ban", seconds=seconds)
        if each.rule.dry:
            return
        self.counts["ban"] += 1
        said = decision.events[-1]
        evidence = (
            f"{_time(now)} {said.counted} {said.count} of {said.limit} in {said.window:g} s"
            f" by {shown_name(said.key)}; the last one in session {event.c.uid}",
        )
        before = past.evidence[-9:] if past is not None else ()
        self.store.ban(Ban(about, rule.name, now, now + seconds, times, (*before, *evidence)), now)
        if policy.end_sessions and rule.ban != "user":  # who is logged in is welcome
            decision.ending = set(self._open.get(about, ())) - {event.c.uid}

    def _say(
        self,
        decision: Decision,
        event: Event,
        each: Charged,
        tally: Tally,
        action: str,
        *,
        seconds: float = 0.0,
        pending: int | None = None,
    ) -> None:
        left = tally.pending if pending is None else pending
        count, window = _reached(each.charge, tally, left) or (0, each.charge.windows[0])
        rule = each.rule.config
        key = self._shown(f"{rule.by}:{each.value}")
        found = (rule.counts, count, window.limit, window.seconds)
        decision.events.append(
            PolicyEvent(
                event.c, event.ts, rule.name, action, key, *found, round(seconds, 3), each.rule.dry
            )
        )

    def _shown(self, key: str) -> str:
        """Write a key without what comes from a password."""
        kind, _, value = key.partition(":")
        return self.passwords.named(value) if kind == "password" else key


def _reached(charge: Charge, tally: Tally, without: int) -> tuple[int, Window] | None:
    """Find the first window whose limit is reached, not counting so many; with its count."""
    for count, window in zip(tally.counts, charge.windows, strict=True):
        if count - without >= window.limit:
            return count, window
    return None


def _slow(decision: Decision, seconds: float) -> None:
    """Delay, if no longer delay is decided."""
    verdict = decision.verdict
    if seconds > 0 and (
        verdict is PASS or (isinstance(verdict, Delay) and verdict.seconds < seconds)
    ):
        decision.verdict = Delay(seconds)


def _target(who: Who, kind: str) -> str:
    value = "" if kind == "pair" and not who.address else who.value(kind)
    return f"{kind}:{value}" if value else ""


def _client_left(event: SessionEnd, flight: Flight) -> bool:
    """Say whether the session ended by the client, or by its time limit, before an answer was due."""
    by_client = event.reason.startswith(("client_", "timeout:"))
    return by_client and event.ts - flight.at < ANSWER_TIME


def _welcome(who: Who) -> str:
    # Clients without an address are all in one place: a login of one makes no other welcome there.
    return f"known|{who.pair}" if who.pair and who.address else ""


def _home(who: Who) -> str:
    return f"home|{who.address}" if who.address else ""


def _time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
