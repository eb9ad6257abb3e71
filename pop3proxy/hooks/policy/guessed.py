"""Tells a login that was probably guessed: it succeeds where strangers have failed, or is from a bad place.

Counted are, by rules that count ``likely_guessed``, different guesses of strangers at an account, and what
was refused of a network. A success of somebody who is welcome at the account is never a guess.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred

from ...analyzer.events import Connection, Event, LoginFailure, LoginSuccess, Reason
from ...analyzer.events import Policy as PolicyEvent
from ..api import Delay, Deny, Drop
from .engine import Engine, then
from .penalties import Decision
from .rules import Charged, Rule, Who
from .store import Charge, Settled, Settlement, Tally, Window

REFUSING: Final = frozenset({"deny", "drop", "ban", "banned"})
"""The actions that refuse a client; a login that is only told ``busy_reply`` is none."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What a rule asks about a success: three counts, in this order."""

    each: Charged
    guesses: Charge
    refused: Charge
    refused_here: Charge
    network: str

    @property
    def charges(self) -> tuple[Charge, ...]:
        return self.guesses, self.refused, self.refused_here


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Why a success is likely guessed."""

    key: str
    counted: str
    count: int
    window: Window


class LikelyGuessed:
    """Counts, by an engine's keys and in its store, and judges successes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rules = [rule for rule in engine.rules.all if rule.config.of_guess]
        self._prefixes = [(rule.key("user:"), rule.key("network:")) for rule in self._rules]

    @property
    def asks(self) -> bool:
        """Whether a rule wants to know."""
        return bool(self._rules)

    @property
    def decides(self) -> bool:
        """Whether logins have to wait for what is found: a rule does more than to log."""
        return any(rule.config.action != "log" and not rule.dry for rule in self._rules)

    # --- what is counted --------------------------------------------------------------------------------

    def failed(self, event: LoginFailure) -> None:
        """Count a guess at an account, unless the client is welcome there."""
        if event.reason is Reason.DENIED or self._engine.is_allowed(event):
            return
        who, store = self._engine.reading(event), self._engine.store
        charges = tuple(
            each.charge._replace(member=_guess(who))
            for rule in self._rules
            if event.reason in rule.reasons
            and (each := rule.charge(who, who.places(), event.c)) is not None
        )
        if not charges:
            return

        def go_on(answer: Settled) -> None:
            if not answer.home:
                store.settle(Settlement(charges=charges), event.ts)

        mark = self._engine.welcome_mark(who)
        then(store.settle(Settlement(home=mark), event.ts), go_on)

    def refused(self, decision: PolicyEvent, user: str) -> None:
        """Count that a client was refused, at an account if it had named one."""
        if decision.action not in REFUSING or decision.dry_run:
            return
        network = self._engine.whereabouts(decision.c).network
        if not network:
            return
        key, now = self._engine.users.key(user), decision.ts
        charges: list[Charge] = []
        for rule in self._rules:
            charges.append(_refused(rule, network))
            if key:
                charges.append(_refused(rule, network, key))
        if charges:
            self._engine.store.settle(Settlement(charges=tuple(charges)), now)

    # --- what is judged ---------------------------------------------------------------------------------

    def succeeded(self, event: LoginSuccess, who: Who) -> "Decision | Deferred[Decision]":
        """Judge a login that the server has accepted."""
        decision, store = Decision(), self._engine.store
        if self._engine.is_allowed(event) or not self.may_be(who):
            return decision
        questions = list(self._questions(who, event.c, event.ts))
        if not questions:
            return decision

        def go_on(answer: Settled) -> Any:
            if answer.home:
                return decision
            tallies = iter(answer.tallies)
            for question in questions:
                found = _evidence(question, next(tallies), next(tallies), next(tallies))
                if found is not None:
                    return self._act(decision, event, who, question.each, found)
            return decision

        asked = tuple(charge for question in questions for charge in question.charges)
        mark = self._engine.welcome_mark(who)
        settlement = Settlement(asked=asked, home=mark)
        # A Deferred waits for one that its callback returns.
        judged: Decision | Deferred[Decision] = then(store.settle(settlement, event.ts), go_on)
        return judged

    def may_be(self, who: Who) -> bool:
        """Return whether it is worth asking: of most logins nothing is counted."""
        may_hold = self._engine.store.may_hold
        for of_users, of_networks in self._prefixes:
            if may_hold(of_users + who.user) or may_hold(of_networks + who.network):
                return True
        return False

    def _questions(self, who: Who, c: Connection, now: float) -> Iterator[_Question]:
        for rule in self._rules:
            each = rule.charge(who, who.places(), c)
            if each is None or self._engine.store.in_grace(f"user:{who.user}", now):
                continue
            guesses = each.charge._replace(member=_guess(who))
            refused = _refused(rule, who.network), _refused(rule, who.network, who.user)
            yield _Question(each, guesses, *refused, who.network)

    def _act(
        self, decision: Decision, event: Event, who: Who, each: Charged, found: _Evidence
    ) -> "Decision | Deferred[Decision]":
        """Do what a rule says about a success that is likely guessed."""
        rule, dry = each.rule.config, each.rule.dry
        seconds = rule.delay if rule.action == "delay" else 0.0
        said = (found.key, found.counted, found.count, found.window.limit, found.window.seconds)
        action = "deny" if rule.action == "ban" else rule.action
        decision.events.append(
            PolicyEvent(event.c, event.ts, rule.name, action, *said, round(seconds, 3), dry)
        )
        if not dry:
            self._engine.counts["likely_guessed"] += 1
            verdicts = {"delay": Delay(seconds), "drop": Drop(), "log": decision.verdict}
            decision.verdict = verdicts.get(rule.action, Deny(rule.reply))
        if rule.action != "ban":
            return decision

        def go_on(answer: Settled) -> Decision:
            counts = Tally((found.count,) * len(each.charge.windows))
            self._engine.penalties.failed(decision, event, who, each, counts, answer.home)
            return decision

        home = Settlement(home=self._engine.home_mark(who))
        return then(self._engine.store.settle(home, event.ts), go_on)


def _guess(who: Who) -> str:
    """Name a guess: the same password from the same address is one."""
    return f"{who.address or who.pair}|{who.password}"


def _refused(rule: Rule, network: str, user: str = "") -> Charge:
    """Return the count of what was refused of a network, or of that at one account."""
    key = f"network:{network}|{user}" if user else f"network:{network}"
    return Charge(rule.key(key), rule.windows)


def _evidence(
    question: _Question, guesses: Tally, refused: Tally, refused_here: Tally
) -> _Evidence | None:
    """Return the first limit that is reached, by guesses at the account or by refusals at others."""
    windows = question.guesses.windows
    for window, count in zip(windows, guesses.counts, strict=True):
        if count >= window.limit:
            return _Evidence(f"user:{question.each.value}", "guesses", count, window)
    if not question.network:
        return None
    for window, count, here in zip(windows, refused.counts, refused_here.counts, strict=True):
        if count - here >= window.limit:
            return _Evidence(f"network:{question.network}", "refusals", count - here, window)
    return None
