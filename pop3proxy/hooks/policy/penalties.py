"""What becomes of attempts and failures by the rules: verdicts, bans, and the events that say why."""

import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...analyzer.events import Event
from ...analyzer.events import Policy as PolicyEvent
from ..api import PASS, Delay, Deny, Drop, Verdict
from ..masking import shown_name
from .banrecords import time_of
from .config import Policy, PolicyRegular
from .rhythm import Rhythm, rhythm_of
from .rules import Charged, Who
from .sessions import OpenSessions
from .store import Answer, Ban, Budget, Charge, Fate, Store, Tally, Window
from .users import Passwords

MISCONFIGURED: Final = "misconfigured"
"""The name under which the same wrong password of one client is reported."""

WELCOME: Final = "welcome"
"""The name under which it is reported that a welcome client has no tries left."""

_MAX_DOUBLINGS: Final = 30

_MAX_SAID: Final = 10_000


@dataclass(slots=True)
class Decision:
    """A verdict, the events that say why, and the sessions that a ban ends."""

    verdict: Verdict = PASS
    events: list[PolicyEvent] = field(default_factory=list)
    ending: set[str] = field(default_factory=set)


class Penalties:
    """Says what follows from how the counts stand. ``counts`` has what is worth knowing."""

    def __init__(
        self,
        policy: Policy,
        store: Store,
        passwords: Passwords,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take the policy, where bans are kept, the passwords' numbers, and numbers from 0 to 1."""
        self.policy = policy
        self.store = store
        self.sessions = OpenSessions()
        self.counts: Counter[str] = Counter()
        self._passwords = passwords
        self._chance = chance
        self._said: OrderedDict[str, float] = OrderedDict()
        self._busy = Deny(policy.busy_reply)

    # --- of attempts ------------------------------------------------------------------------------------

    def turned_away(self, decision: Decision, event: Event, ban: Ban, verdict: Verdict) -> None:
        """Refuse a client or login because of a ban."""
        self.counts["banned"] += 1
        decision.verdict = verdict
        _report(
            *(decision, event, ban.rule, "banned", self._shown(ban.key), "bans"),
            *(ban.times, 0, 0.0, round(ban.until - event.ts, 3), False),
        )

    def refuse(
        self, decision: Decision, event: Event, charged: Sequence[Charged], answer: Answer
    ) -> None:
        """Deny by the first rule of which too much has failed."""
        for each, tally in _over(charged, answer):
            if not each.charge.enforced or (each.charge.waived and answer.welcome):
                continue
            rule = each.rule.config
            action = "drop" if rule.action == "drop" else "deny"
            decision.verdict = Drop() if action == "drop" else Deny(rule.reply)
            self.counts[action] += 1
            self._say(decision, event, each, tally, action)
            return
        raise AssertionError("a refusal has a rule")

    def no_tries(
        self, decision: Decision, event: Event, who: Who, budget: Budget, answer: Answer
    ) -> None:
        """Deny a welcome client that has no tries left, or whose tries are in flight for too long."""
        held = answer.fate is Fate.HELD
        self.counts["busy" if held else "deny"] += 1
        decision.verdict = self._busy if held else Deny()
        key, (count,) = self._shown(f"pair:{who.pair}"), answer.possible.counts
        _report(
            *(decision, event, WELCOME, "busy" if held else "deny", key, "failures"),
            *(count, budget.size, budget.size * budget.seconds, 0.0, False),
        )

    def busy(
        self,
        decision: Decision,
        event: Event,
        who: Who,
        charged: Sequence[Charged],
        answer: Answer,
    ) -> None:
        """Deny because too many attempts are held, or because this one was held for too long."""
        self.counts["busy"] += 1
        decision.verdict = self._busy
        if answer.held_by >= 0:
            self._say(decision, event, charged[answer.held_by], answer.possible, "busy")
            return
        key = self._shown(f"pair:{who.pair}")
        _report(
            *(decision, event, MISCONFIGURED, "busy", key, "failures"),
            *(answer.repeats + 1, 1, self.policy.misconfigured_delay, 0.0, False),
        )

    def would_refuse(
        self, decision: Decision, event: Event, charged: Sequence[Charged], answer: Answer
    ) -> None:
        """Say what rules on trial would have done."""
        for each, tally in _over(charged, answer):
            if not each.rule.dry or (each.charge.waived and answer.welcome):
                continue
            action = "drop" if each.rule.config.action == "drop" else "deny"
            self._say(decision, event, each, tally, action)

    # --- of failures ------------------------------------------------------------------------------------

    def misconfigured(self, decision: Decision, event: Event, who: Who, count: int) -> None:
        """Delay the answer to a wrong password that the client has sent before."""
        if count < 2:
            return
        self.counts[MISCONFIGURED] += 1
        policy = self.policy
        seconds = min(policy.misconfigured_delay * (count - 1), policy.misconfigured_delay_max)
        key = self._shown(f"pair:{who.pair}")
        window = policy.misconfigured_memory
        _report(
            *(decision, event, MISCONFIGURED, "delay", key, "failures"),
            *(count, 1, window, seconds, policy.dry_run),
        )
        if not policy.dry_run:
            _slow(decision, seconds)

    def failed(
        self,
        decision: Decision,
        event: Event,
        who: Who,
        each: Charged,
        tally: Tally,
        home: bool,
    ) -> None:
        """Do what a rule says once so many have failed, or, of a rule on successes, succeeded.

        ``home`` is whether anybody logs in from the address.
        """
        reached = _reached(each.charge, tally)
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
            self.logged(decision, event, each, tally)
        elif rule.of_success and excess > 0:
            # The limit is how many are let through; of failures the next attempt is judged.
            self._say(decision, event, each, tally, rule.action)
            if not each.rule.dry:
                self.counts[rule.action] += 1
                decision.verdict = Drop() if rule.action == "drop" else Deny(rule.reply)

    def logged(self, decision: Decision, event: Event, each: Charged, tally: Tally) -> None:
        """Say, once a window, that so many have failed, if that was as regular as the rule asks for."""
        reached = _reached(each.charge, tally)
        if reached is None:
            return
        interval, window = 0.0, reached[1]
        if (regular := each.rule.config.regular) is not None:
            rhythm = rhythm_of(age for age in tally.ages if age < window.seconds)
            if rhythm is None or not _is_met(regular, rhythm):
                return
            interval = rhythm.interval
        if not self._was_said(each.charge.key, event.ts, window.seconds):
            self._say(decision, event, each, tally, "log", seconds=interval)

    def _was_said(self, key: str, now: float, seconds: float) -> bool:
        """Return whether this was said less than ``seconds`` ago; from now on it was."""
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
            # Others may log in there every day: the rest is denied login by login, and no ban begins.
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
            f"{time_of(now)} {said.counted} {said.count} of {said.limit} in {said.window:g} s"
            f" by {shown_name(said.key)}; the last one in session {event.c.uid}",
        )
        before = past.evidence[-9:] if past is not None else ()
        self.store.ban(Ban(about, rule.name, now, now + seconds, times, (*before, *evidence)), now)
        if policy.end_sessions and rule.ban != "user":  # who is logged in is welcome
            decision.ending = self.sessions.of(about) - {event.c.uid}

    # --- of what else is counted --------------------------------------------------------------------------

    def done(
        self,
        decision: Decision,
        event: Event,
        each: Charged,
        tally: Tally,
        action: str,
        seconds: float = 0.0,
    ) -> None:
        """Say what a rule does, and count it unless the rule is on trial."""
        if not each.rule.dry:
            self.counts[action] += 1
        self._say(decision, event, each, tally, action, seconds=seconds)

    # --- how it is said ---------------------------------------------------------------------------------

    def _say(
        self,
        decision: Decision,
        event: Event,
        each: Charged,
        tally: Tally,
        action: str,
        *,
        seconds: float = 0.0,
    ) -> None:
        count, window = _reached(each.charge, tally) or (0, each.charge.windows[0])
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
        return self._passwords.named(value) if kind == "password" else key


def _over(charged: Sequence[Charged], answer: Answer) -> list[tuple[Charged, Tally]]:
    return [(charged[number], tally) for number, tally in answer.over]


def _reached(charge: Charge, tally: Tally) -> tuple[int, Window] | None:
    """Find the first window whose limit is reached; with its count."""
    for count, window in zip(tally.counts, charge.windows, strict=True):
        if count >= window.limit:
            return count, window
    return None


def _is_met(regular: PolicyRegular, rhythm: Rhythm) -> bool:
    return rhythm.interval >= regular.interval and rhythm.spread <= regular.spread


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


def _report(decision: Decision, event: Event, *found: Any) -> None:
    """Add an event about what was decided; ``found`` are its parameters."""
    decision.events.append(PolicyEvent(event.c, event.ts, *found))
