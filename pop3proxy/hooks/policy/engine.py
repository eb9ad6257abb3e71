"""Judges logins by rules, given the time and a store: no reactor, no file, and no clock of its own.

An attempt is asked about (``rules`` say what it may count as, the ``store`` what becomes of it), perhaps
waits (``waiting``), is in flight (``attempts``) and lands. Then it is counted, and ``penalties`` say what
follows.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from ...analyzer.events import (
    Connection,
    Event,
    LoginAnnounced,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    SessionEnd,
)
from ..api import Delay, Deny, Drop
from .allowances import Allowances
from .attempts import ANSWER_TIME, Attempts, Flying
from .banrecords import LATEST
from .config import Policy
from .geo import NOWHERE, Geo
from .penalties import Decision, Penalties
from .rightpasswords import RightPasswords
from .rules import Charged, Rules, Who, at_minute, charged, counted
from .store import (
    SECRET,
    Answer,
    Attempt,
    Ban,
    Budget,
    Charge,
    Fate,
    Flight,
    Settled,
    Settlement,
    Store,
    Window,
    places_of,
)
from .tries import Aside, Failed, Outcome, Tries
from .users import Addresses, Passwords, Users, unknown_place
from .waiting import Waiter, WaitingRoom

T = TypeVar("T")
R = TypeVar("R")

_NO_PLACES: Final = ("", "", "", "", "", "", "")
"""Where a login is in flight that was judged."""

TRIES: Final = (10, 288.0)
"""Tries of a welcome client at once, and the seconds after which there is one more: 300 a day."""

TRIES_NEARBY: Final = (3, 864.0)
"""Those of a client in the network of a welcome one: 100 a day."""

MANUAL: Final = "manual"
"""The name of the rule by which an operator bans."""


def then(found: "T | Deferred[T]", go_on: "Callable[[T], R | Deferred[R]]") -> "R | Deferred[R]":
    """Go on with what a store says, now or when it says it."""
    if isinstance(found, Deferred):
        later: Deferred[R] = found.addCallback(go_on)
        return later
    return go_on(found)


Undoable = tuple[tuple[float, Charge], ...]
"""What a failure added to counts without members, and when."""


@dataclass(slots=True)
class _Asked:
    """An attempt that is asked about; ``ban`` is one of its user that welcome clients do not meet."""

    event: LoginAttempt
    who: Who
    charged: tuple[Charged, ...]
    attempt: Attempt
    ban: Ban | None
    decision: Decision = field(default_factory=Decision)


class Engine:
    """Counts logins and says what becomes of them.

    ``before_success`` is called with each success before anybody becomes welcome by it.
    Every method takes an event, whose stamp is the time, and returns a Decision, or a Deferred of one if
    the attempt is held or the store takes its time. ``counts`` has what is worth knowing.
    """

    def __init__(
        self,
        policy: Policy,
        store: Store,
        key: bytes,
        chance: Callable[[], float] = random.random,
        aside: Aside = maybeDeferred,
    ) -> None:
        """Take the rules, the key of the passwords' hashes, and where a number from 0 to 1 comes from.

        ``aside`` has a function called in a thread; without it that is done at once.
        Raises PolicyFileError for what cannot be read of ``geo_files``.
        """
        self.policy = policy
        self.store = store
        self.users = Users(policy)
        self.addresses = Addresses(policy)
        self.passwords = Passwords(key)
        self.rules = Rules(policy)
        self.penalties = Penalties(policy, store, self.passwords, chance)
        self.counts = self.penalties.counts
        self.attempts = Attempts()
        self.tries: Tries[Undoable] = Tries(policy.same_try, aside)
        self.waiting = WaitingRoom(self._ask, self._take_back, policy.wait)
        store.on_settled = self._settled_at
        self._sessions = self.penalties.sessions
        self.allowances = Allowances()
        self._reasons = frozenset(map(Reason, policy.reasons))
        self._by_listener = self.rules.count_by("listener")
        self._by_ja4 = self.rules.count_by("ja4")
        self.geo = Geo(policy)
        self._of_places = self.rules.of_places
        self._asks_more = self._by_listener or self._by_ja4 or self._of_places
        self.before_success: Callable[[LoginSuccess, Who], None] | None = None
        self._denial = Deny(policy.users.denial)
        self._banned = Drop() if policy.banned == "drop" else Deny(policy.banned_reply)
        self._right = RightPasswords()
        self._paces = 0 if policy.dry_run else policy.misconfigured_delay
        # They stand in place of the rules by pair: where there are none, nothing is said about pairs.
        self._budgeted = any(
            rule.config.by == "pair" and not rule.dry for rule in self.rules.judging
        )
        self._answered_at = -inf
        self._flights = 0
        self._now = -inf

    # --- what is asked ----------------------------------------------------------------------------------

    def connect(self, event: Event) -> Decision:
        """Judge a client that has connected: is it banned?"""
        c, decision = event.c, Decision()
        if self._is_allowed(event):
            return decision
        keys = self._places(c)
        ban = self.store.ban_of(keys, event.ts)
        if ban is not None:
            self.penalties.turned_away(decision, event, ban, self._banned)
        elif self.policy.end_sessions:
            self._sessions.remember(c.uid, keys)
        return decision

    def attempt(self, event: LoginAttempt) -> "Decision | Deferred[Decision]":
        """Judge a login before the server sees it."""
        c, now = event.c, event.ts
        if self._is_allowed(event):
            return Decision()
        self._time_is(now)
        who = self._who(event)
        ban = self._ban_of(who, c, now)
        if ban is not None and not _is_for_strangers(ban):
            decision = Decision()
            self.penalties.turned_away(decision, event, ban, self._denial)
            return decision
        self.tries.goes_on(who.pair, now, self.policy.wait)
        self.attempts.opened(c.uid)
        if self._is_right(who, now):
            self._flies_freely(event, who)
            return Decision()
        if ban is None and self.rules.plain and self._flies_at_once(event, who):
            return Decision()
        asked = self._asked(event, who, ban)
        return then(self._ask(asked.attempt, now), partial(self._answered, asked))

    def announced(self, event: LoginAnnounced) -> None:
        """Take an attempt for failed, of which the server has said so in a challenge."""
        self._time_is(event.ts)
        self._server_answers(event.ts)
        for flying in self.attempts.of(event.c.uid, event.attempt):
            self.store.announced(flying.flight, self.policy.wait)

    def failure(self, event: LoginFailure) -> "Decision | Deferred[Decision]":
        """Count a failed login; its reply may wait."""
        now = event.ts
        if self._is_allowed(event):
            return Decision()
        self._time_is(now)
        flying = self._landed(event)
        if event.reason is Reason.DENIED:
            if flying is not None:
                self._end_all((flying,))
            return Decision()
        self._server_answers(now)
        who = self._who(event) if flying is None else flying.who
        found = self._counted(event, who, flying)
        if event.reason not in self._reasons:
            return self._failed(event, who, flying, found, None, Outcome())
        failed = Failed(
            *(event.mechanism, who.password, event.password, event.exchanged),
            counts=flying is None or not flying.repeated,
            since=now if flying is None else flying.flight.at,
        )
        charges = tuple((now, each.charge) for each in found if not each.charge.member)
        outcome = self.tries.failed(who.pair, failed, charges, now)
        repeat = self._repeat(who)
        if repeat is not None:
            self._right.was_wrong(repeat.key)
        return then(outcome, partial(self._failed, event, who, flying, found, repeat))

    def _failed(
        self,
        event: LoginFailure,
        who: Who,
        flying: Flying | None,
        found: list[Charged],
        repeat: Charge | None,
        outcome: Outcome[Undoable],
    ) -> "Decision | Deferred[Decision]":
        """Count a failure; of one that is a part of another only what that has not counted."""
        now = event.ts
        paced = () if repeat is None or flying is None else self._paced(flying, now)
        if not outcome.more:
            if outcome.again or found:
                self.counts["same_try"] += 1
            found = [each for each in found if _is_new_in(each)]
        if outcome.again:
            # A further mechanism, and not the same once more.
            repeat = None
        settlement = Settlement(
            None if flying is None else flying.flight,
            (*(each.charge for each in found), *(() if repeat is None else (repeat,))),
            _spent(flying) if outcome.more and event.reason in self._reasons else None,
            marks=paced,
            home=_home(who),
            undone=tuple(each for charges in outcome.undone for each in charges),
        )
        decision = Decision()

        def go_on(settled: Settled) -> Decision:
            if repeat is not None:
                self.penalties.misconfigured(decision, event, who, settled.tallies[-1].counts[0])
            for each, tally in zip(found, settled.tallies, strict=False):
                self.penalties.failed(decision, event, who, each, tally, settled.home)
            if isinstance(decision.verdict, Delay):
                self.tries.held(who.pair, now + decision.verdict.seconds)
            return decision

        return then(self.store.settle(settlement, now), go_on)

    def success(self, event: LoginSuccess) -> "Decision | Deferred[Decision]":
        """Forget what was counted of the pair, and keep its address in good memory."""
        c, now = event.c, event.ts
        if self._is_allowed(event):
            return Decision()
        self._time_is(now)
        self._server_answers(now)
        flying = self._landed(event)
        who = self._who(event) if flying is None else flying.who
        self.tries.forget(who.pair)
        if who.password and who.pair:
            self._right.was_right(_repeat_key(who), now)
        if self.before_success is not None:
            self.before_success(event, who)
        found = counted(self.rules.succeeding, who, _NO_PLACES, c)
        settlement = Settlement(
            None if flying is None else flying.flight,
            tuple([each.charge for each in found]),
            marks=self._marks(who),
            cleared=self._cleared(who),
        )
        if self.policy.end_sessions:
            self._sessions.remember(c.uid, _accounts(who))
        decision = Decision()

        def go_on(settled: Settled) -> Decision:
            for each, tally in zip(found, settled.tallies, strict=True):
                self.penalties.failed(decision, event, who, each, tally, home=False)
            return decision

        return then(self.store.settle(settlement, now), go_on)

    def ended(self, event: SessionEnd) -> "Decision | Deferred[Decision]":
        """Settle what is in flight, since no answer will come, and forget the session.

        What the client did not wait for has failed: else an attacker who knows wrong passwords by how long
        the answer takes would guess for nothing. The rest is taken back.
        """
        uid = event.c.uid
        self._time_is(event.ts)
        self._sessions.forget(uid)
        self.waiting.leave(uid)
        decision = Decision()
        found: Decision | Deferred[Decision] = decision
        for flying in self.attempts.ended(uid):
            if self._client_left(event, flying):
                found = then(self._abandoned(decision, event, flying), lambda _: decision)
            else:
                self._end_all((flying,))
        return found

    def tick(self, now: float) -> None:
        """Let it be so late: ``waiting.due`` says when that is needed."""
        self._now = max(now, self._now)
        self.waiting.tick(now)

    # --- for operators ----------------------------------------------------------------------------------

    def keys_of(self, event: Event) -> tuple[str, ...]:
        """Return the keys of who an event is about, such as ``user:bob``."""
        if isinstance(event, LoginAttempt | LoginSuccess | LoginFailure):
            return (*self._places(event.c), *_accounts(self._who(event)))
        return self._places(event.c)

    def ban(self, key: str, seconds: float, why: str, now: float) -> set[str]:
        """Ban by hand; return the sessions that this ends."""
        past = self.store.past(key, now)
        times = 1 if past is None else past.times + 1
        self.store.ban(Ban(key, MANUAL, now, now + seconds, times, (why,)), now)
        return self._sessions.of(key) if self.policy.end_sessions else set()

    def unban(self, key: str, now: float) -> bool:
        """End a ban, forget what was counted of the same, and count nothing against it for a time."""
        return self.store.unban(
            key, self.rules.keys(key), min(now + self.policy.grace, LATEST), now
        )

    def sessions(self, key: str) -> set[str]:
        """Return the sessions that a ban of this key, made elsewhere, ends."""
        if not self.policy.end_sessions or key.startswith("user:"):  # who is logged in is welcome
            return set()
        return self._sessions.of(key)

    # --- for what else is counted -----------------------------------------------------------------------

    def is_allowed(self, event: Event) -> bool:
        """Return whether a client is never counted, delayed, denied or banned."""
        return self._is_allowed(event)

    def whereabouts(self, c: Connection) -> Who:
        """Return what is known of a client that has named no user."""
        return Who(*self._whereabouts(c), "", "", "", *self._besides(c))

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

    # --- an attempt -------------------------------------------------------------------------------------

    def _is_right(self, who: Who, now: float) -> bool:
        """Return whether a client at this address has logged in with this password lately."""
        known = bool(_welcome(who) and who.password)
        return known and self._right.has(_repeat_key(who), now)

    def _flies_freely(self, event: LoginAttempt, who: Who) -> None:
        """Let an attempt fly that guesses nothing, and that nothing waits for."""
        self._flights += 1
        flight = Flight(f"{event.c.uid}.{self._flights}", event.ts, who)
        flying = Flying(flight, who, event.attempt, event.user, "", False, None)
        self.attempts.takes_off(event.c.uid, flying)

    def _flies_at_once(self, event: LoginAttempt, who: Who) -> bool:
        """Let an attempt fly if nothing is known that could refuse or hold it, which is most of the time."""
        uid, number = event.c.uid, event.attempt
        if number and self.attempts.of(uid, number):
            return False
        keys, rooms = self.rules.keys_of(who), self.rules.rooms_at(who.places())
        places = [place for place, _ in rooms]
        tries = ""
        if who.password and who.pair:
            keys.append(_repeat_key(who))
            if self._paces:
                tries = _tries_key(who, event.mechanism)
                rooms.append((tries, 1))
                places.append(tries)
        self._flights += 1
        flight = Flight(f"{uid}.{self._flights}", event.ts, who, tuple(places))
        attempt = Attempt(flight, tries=tries, budgets=self._budgets(who))
        answer = self.store.flies_at_once(attempt, keys, rooms, event.ts)
        if answer is None:
            return False
        if answer.budget >= 0:
            flight = flight._replace(places=places_of(attempt, answer))
        budget = _budget_of(attempt, answer)
        self.attempts.takes_off(uid, Flying(flight, who, number, event.user, tries, False, budget))
        return True

    def _budgets(self, who: Who) -> tuple[Budget, ...]:
        """Return the tries of clients that are welcome at an account, in place of the rules by pair."""
        if not (self._budgeted and who.address and who.user):
            return ()
        # A device whose mechanism shows no password leaves the tries of those that do, and the reverse.
        kind = "visible" if who.password else "hidden"
        by_pair = Budget(_welcome(who), f"tries|{kind}|{who.pair}", *TRIES)
        if self.policy.known_by == "address":
            return (by_pair,)
        near = f"{who.network}|{who.user}"
        return by_pair, Budget(f"near|{near}", f"tries|{kind}|near|{near}", *TRIES_NEARBY)

    def _asked(self, event: LoginAttempt, who: Who, ban: Ban | None) -> _Asked:
        """Put together what the store is asked about an attempt."""
        c, places = event.c, who.places()
        found = charged(
            *(self.rules.judging, who, places, c),
            lambda key: self.store.in_grace(key, event.ts),
        )
        at = dict.fromkeys(place for place in places if place)
        at.update((each.charge.place, None) for each in found)
        # Another reading of the same attempt's name is the same password.
        number = event.attempt
        others = self.attempts.of(c.uid, number) if number else ()
        if others:
            other = {place for flying in others for place in flying.flight.places}
            found = tuple(each for each in found if each.charge.place not in other)
            at = {place: None for place in at if place not in other}
        repeat = self._repeat(who)
        tries = ""
        if repeat is not None and self._paces:
            tries = _tries_key(who, event.mechanism)
            at[tries] = None
        self._flights += 1
        flight = Flight(f"{c.uid}.{self._flights}", event.ts, who, tuple(at))
        charges = tuple([each.charge for each in found])
        attempt = Attempt(
            *(flight, charges, _welcome(who), repeat, tries, self.policy.wait),
            budgets=self._budgets(who),
        )
        return _Asked(event, who, found, attempt, ban)

    def _ask(self, attempt: Attempt, now: float) -> "Answer | Deferred[Answer]":
        """Ask the store about an attempt, as it is now."""
        who = attempt.flight.members
        if isinstance(who, Who) and self._is_right(who, now):
            # Held behind another of its kind, which has logged in meanwhile.
            return Answer(welcome=True)
        silent = now - self._answered_at >= self.policy.wait
        if silent or now != attempt.flight.at:
            flight = attempt.flight._replace(at=now)
            attempt = attempt._replace(flight=flight, overdue_fail=not silent)
        return self.store.attempt(attempt, now)

    def _answered(self, asked: _Asked, answer: Answer) -> "Decision | Deferred[Decision]":
        """Take the store's first word on an attempt."""
        if answer.fate is not Fate.HELD:
            return self._decided(asked, answer)
        uid = asked.event.c.uid
        home = f"address:{asked.who.address}" if asked.who.address else f"pair:{asked.who.pair}"
        number = asked.event.attempt
        waiter = Waiter(home, uid, (number, asked.event.user) if number else asked.who)
        self.counts["held"] += 1
        last = self.waiting.hold(asked.attempt, waiter, answer, asked.event.ts)
        return then(last, partial(self._decided, asked))

    def _decided(self, asked: _Asked, answer: Answer) -> Decision:
        """Take the store's last word on an attempt."""
        event, who, decision, penalties = asked.event, asked.who, asked.decision, self.penalties
        if answer.budget >= 0 and answer.fate is not Fate.FLIES and answer.possible.counts:
            budget = asked.attempt.budgets[answer.budget]
            penalties.no_tries(decision, event, who, budget, answer)
        elif answer.fate is Fate.REFUSED:
            penalties.refuse(decision, event, asked.charged, answer)
        elif answer.fate is Fate.HELD:
            penalties.busy(decision, event, who, asked.charged, answer)
        else:
            self._takes_off(asked, answer)
        return decision

    def _takes_off(self, asked: _Asked, answer: Answer) -> None:
        event, who, decision = asked.event, asked.who, asked.decision
        attempt = asked.attempt
        flight = attempt.flight._replace(places=places_of(attempt, answer))
        now = max(self._now, event.ts)
        ban = asked.ban
        if now > event.ts:
            # It has waited, perhaps for long.
            ban = self._ban_of(who, event.c, now)
        if ban is not None and not (_is_for_strangers(ban) and answer.welcome):
            self._end(flight)
            self.penalties.turned_away(decision, event, ban, self._denial)
            return
        if any(asked.charged[number].charge.enforced for number in answer.trickled):
            self.counts["trickled"] += 1
        if answer.over:
            self.penalties.would_refuse(decision, event, asked.charged, answer)
        flying = Flying(
            flight._replace(at=now),
            *(who, event.attempt, event.user, attempt.tries, answer.repeats > 0),
            _budget_of(attempt, answer),
        )
        if not self.attempts.takes_off(event.c.uid, flying):
            # The session has ended while the store was asked.
            self._end(flight)

    def _take_back(self, attempt: Attempt) -> None:
        """Take back an attempt that flies though its client has left."""
        places = (*attempt.flight.places, *(budget.key for budget in attempt.budgets))
        self._end(attempt.flight._replace(places=places))

    def _settled_at(self, places: Iterable[str]) -> None:
        if len(self.waiting):
            self.waiting.settled(places, self._now)

    # --- an answer --------------------------------------------------------------------------------------

    def _landed(self, event: LoginSuccess | LoginFailure) -> Flying | None:
        """Find the attempt that an answer is to; those before it will get none, and are taken back."""
        who = None if event.attempt else self._who(event)
        found, others = self.attempts.lands(event, who)
        self._end_all(others)
        if found is None and len(self.waiting):
            self.waiting.answered(event.c.uid, who or (event.attempt, event.user))
        return found

    def _counted(self, event: LoginFailure, who: Who, flying: Flying | None) -> list[Charged]:
        """Return what counts of a failure: of a password that is known to be wrong nothing."""
        if flying is not None and (flying.repeated or flying.budget is not None):
            return []
        found = self._failing(event, who)
        # What another reading of the same name is counted for is no second failure.
        at = None if flying is None else set(flying.flight.places)
        return [
            each
            for each in found
            if event.reason in each.rule.reasons and (at is None or _is_at(each, at))
        ]

    def _failing(self, event: Event, who: Who) -> Sequence[Charged]:
        """Return what rules count of a failure."""
        found = counted(self.rules.failing, who, _NO_PLACES, event.c)
        return at_minute(found, event.ts) if self.rules.any_regular else found

    def _paced(self, flying: Flying, now: float) -> tuple[tuple[str, float], ...]:
        """Return the mark while which the same wrong password waits."""
        left = flying.flight.at + self._paces - now
        return ((flying.tries, left),) if flying.tries and left > 0 else ()

    def _server_answers(self, now: float) -> None:
        self._answered_at = max(self._answered_at, now)

    def _client_left(self, event: SessionEnd, flying: Flying) -> bool:
        """Return whether the session ended by the client, or by its time limit, before an answer was due.

        A client that gives up behind ``policy.wait`` on a server that answers no login has not guessed.
        """
        by_client = event.reason.startswith(("client_", "timeout:"))
        left = event.ts - event.closing
        waited = left - flying.flight.at
        if not by_client or waited >= ANSWER_TIME:
            return False
        return waited < self.policy.wait or left - self._answered_at < self.policy.wait

    def _abandoned(
        self, decision: Decision, event: SessionEnd, flying: Flying
    ) -> "Deferred[None] | None":
        """Count an attempt whose answer the client did not wait for."""
        who = flying.who
        repeat = self._repeat(who)
        at = set(flying.flight.places)
        found = [
            each
            for each in self._failing(event, who)
            if not self._reasons.isdisjoint(each.rule.reasons) and _is_at(each, at)
        ]
        if flying.repeated or flying.budget is not None:
            found = []
        charges = tuple(each.charge for each in found)
        settlement = Settlement(
            flying.flight,
            charges if repeat is None else (*charges, repeat),
            _spent(flying),
            marks=() if repeat is None else self._paced(flying, event.ts),
            home=_home(who),
        )
        self.counts["abandoned"] += 1

        def go_on(settled: Settled) -> None:
            for each, tally in zip(found, settled.tallies, strict=False):
                # There is no reply to delay, and what may not have failed bans no one.
                if each.rule.config.action == "log":
                    self.penalties.logged(decision, event, each, tally)

        return then(self.store.settle(settlement, event.ts), go_on)

    def _end_all(self, flying: Iterable[Flying]) -> None:
        """Take attempts back."""
        for each in flying:
            self._end(each.flight)

    def _end(self, flight: Flight) -> None:
        self.store.settle(Settlement(flight), self._now)

    # --- who and what -----------------------------------------------------------------------------------

    def _time_is(self, now: float) -> None:
        """Know the time, and let what was to happen until now happen first."""
        self._now = now
        if self.waiting.due <= now:
            self.waiting.tick(now)

    def _who(self, event: LoginAttempt | LoginSuccess | LoginFailure) -> Who:
        address, network = self._whereabouts(event.c)
        user = self.users.key(event.user)
        place = unknown_place(event.c.listener) if event.c.orig_unknown else address
        pair = f"{place}|{user}" if place and user else ""
        password = self.passwords.fingerprint(event.password)
        if not self._asks_more:
            return Who(address, network, user, password, pair)
        return Who(address, network, user, password, pair, *self._besides(event.c))

    def _besides(self, c: Connection) -> tuple[str, str, str, str]:
        """Return what else some rules want to know of a client."""
        where = self.geo.place(c.orig_h) if self._of_places and not c.orig_unknown else NOWHERE
        ja4 = c.tls.ja4 if self._by_ja4 and c.tls is not None else ""
        return (c.listener if self._by_listener else "", ja4, *where)

    def _whereabouts(self, c: Connection) -> tuple[str, str]:
        """Return the client's address and network as keys; a proxy's own address says nothing of a client."""
        if c.orig_unknown:
            return "", ""
        return self.addresses.address(c.orig_h), self.addresses.network(c.orig_h)

    def _is_allowed(self, event: Event) -> bool:
        c = event.c
        if c.orig_unknown:
            return False  # the address of a proxy that names no client allows nobody
        return self.addresses.allowed(c.orig_h) or bool(self.allowances.of(c.orig_h, event.ts))

    def _places(self, c: Connection) -> tuple[str, ...]:
        return () if c.orig_unknown else self.addresses.places(c.orig_h)

    def _ban_of(self, who: Who, c: Connection, now: float) -> Ban | None:
        return self.store.ban_of((*self._places(c), *_accounts(who)), now)

    def _marks(self, who: Who) -> tuple[tuple[str, float], ...]:
        """Return what a good login makes known, and for how long."""
        welcome, known = _welcome(who), self.policy.known
        if not welcome:
            return ()
        if self.policy.known_by == "address":
            return (welcome, known), (_home(who), known)
        near = f"near|{who.network}|{who.user}"
        return (welcome, known), (_home(who), known), (near, known)

    def _cleared(self, who: Who) -> tuple[str, ...]:
        """Return the counts that a good login clears."""
        keys = self.rules.keys_of_pair(who)
        return (*keys, _repeat_key(who)) if who.password and who.pair else keys

    def _repeat(self, who: Who) -> Charge | None:
        """Return the count of this very password of this client; None if none is seen."""
        if not (who.password and who.pair):
            return None
        window = Window(self.policy.misconfigured_memory, 1)
        return Charge(_repeat_key(who), (window,))


def _is_for_strangers(ban: Ban) -> bool:
    """Return whether welcome clients do not meet a ban: a rule's ban of a user; only the store knows them."""
    return ban.key.startswith("user:") and ban.rule != MANUAL


def _budget_of(attempt: Attempt, answer: Answer) -> Budget | None:
    """Return what a failure of an attempt is taken from, if it is the tries of a welcome client."""
    if answer.budget < 0 or answer.repeats:
        return None
    return attempt.budgets[answer.budget]


def _spent(flying: Flying | None) -> Budget | None:
    return None if flying is None else flying.budget


def _repeat_key(who: Who) -> str:
    return f"{SECRET}repeat|{who.pair}|{who.password}"


def _tries_key(who: Who, mechanism: str) -> str:
    return f"{SECRET}tries|{who.pair}|{who.password}|{mechanism}"


def _is_at(each: Charged, places: set[str]) -> bool:
    """Return whether the value that a rule counts by is one of the flight's own."""
    return f"{each.rule.config.by}:{each.value}" in places


def _accounts(who: Who) -> tuple[str, ...]:
    user = (f"user:{who.user}",) if who.user else ()
    return (*user, f"pair:{who.pair}") if who.pair else user


def _welcome(who: Who) -> str:
    # Clients without an address are all in one place: a login of one makes no other welcome there.
    return f"known|{who.pair}" if who.pair and who.address else ""


def _is_new_in(each: Charged) -> bool:
    """Return whether a charge counts of a part of another failure, too: it is of a member or a password."""
    return bool(each.charge.member and not each.charge.timed) or each.rule.config.by == "password"


def _home(who: Who) -> str:
    return f"home|{who.address}" if who.address else ""
