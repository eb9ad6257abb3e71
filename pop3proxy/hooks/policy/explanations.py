"""Explains what is refused, why, until when, and what would let it in; decides and changes nothing."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from ..masking import shown_name
from .banrecords import time_of
from .decisions import Decided, Decisions
from .engine import Engine
from .penalties import MISCONFIGURED
from .rules import Rule
from .standings import reading
from .store import SECRET, Ban, Window, trickle_mark
from .subjects import Subject, overlap

MAX_SHOWN: Final = 1000
"""Rows of one kind in an answer; how many more there are is said."""

PORTION: Final = 2000
"""Keys that are looked through before logins get their turn: less than 5 ms."""

BANS_READ: Final = 10
"""What reading or writing a ban takes, in keys that are looked at."""

_SCOPES: Final = {
    "failures": "every login",
    "passwords": "logins with a password that is not among them",
    "users": "logins of users that are not among them",
    "addresses": "logins from addresses that are not among them",
    "networks": "logins from networks that are not among them",
}
"""What a rule that counts so refuses at its limit."""


SAME: Final = "failures with the same password"
"""What the count of one wrong password of one pair is of."""


class Standing(NamedTuple):
    """How one count of a rule stands; ``until`` is when all windows are below their limits, 0 if they are.

    ``refuses`` is whether logins are refused because of it; but one each ``trickle`` seconds is not, the next
    one at ``next_try``.
    """

    rule: str
    action: str
    by: str
    key: str
    counted: str
    counts: tuple[int, ...]
    windows: tuple[Window, ...]
    until: float
    refuses: bool
    dry_run: bool = False
    trickle: float = 0.0
    next_try: float = 0.0

    def shown(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        windows = [
            {"count": count, "limit": window.limit, "seconds": window.seconds}
            for count, window in zip(self.counts, self.windows, strict=True)
        ]
        return {
            "rule": self.rule,
            "action": self.action,
            "key": shown_name(self.key),
            "counted": self.counted,
            "windows": windows,
            "until": self.until,
            "refuses": _SCOPES[self.counted] if self.refuses else "",
            "dry_run": self.dry_run,
            "trickle": self.trickle if self.refuses else 0.0,
            "next_try": self.next_try if self.refuses else 0.0,
        }


class Listed(NamedTuple):
    """An answer of any length, as JSON: it is written a portion at a time, too."""

    text: str


class Explanations:
    """Reads counts, bans and decisions, a portion at a time, so that no login waits for long.

    With a store that is shared, counts are those of this process.
    """

    def __init__(
        self, engine: Engine, decisions: Decisions, pause: Callable[[], Awaitable[object]]
    ) -> None:
        """Take what is explained; what ``pause`` returns is waited for between two portions."""
        self._engine = engine
        self._decisions = decisions
        self._pause = pause
        self._rules = engine.rules.all
        self._by_prefix = {rule.prefix: rule for rule in self._rules}

    # --- what is asked ----------------------------------------------------------------------------------

    async def why(self, subject: Subject, now: float) -> dict[str, Any]:
        """Say all that is known of an address, a network, a user or a pair."""
        counts = [each for key in subject.keys for each in self.standings_of(key, now)]
        counts += await self._of_pairs(subject, now)
        bans = await self._bans(subject, now)
        welcome = await self._welcome(subject, now)
        address = next((k for k in subject.keys if k.startswith(("address:", "network:"))), "")
        allowed = self._allowed(address, now)
        if allowed:
            counts = [each._replace(refuses=False) for each in counts]
        memory = self._engine.store.memory
        refusing = [each for each in counts if each.refuses]
        in_force = [ban for ban in bans if ban.times and ban.until > now]
        return {
            "about": [shown_name(key) for key in subject.keys],
            "allowed": allowed,
            "bans": [shown_ban(ban, now) for ban in bans[:MAX_SHOWN]],
            "counts": [each.shown() for each in counts[:MAX_SHOWN]],
            "in_flight": list(self._in_flight(subject)),
            "welcome": [shown_name(pair) for pair in welcome[:MAX_SHOWN]],
            "graces": [
                {"key": shown_name(key), "until": until}
                for key in subject.keys
                if (until := memory.graces.get(key, 0.0)) > now
            ],
            "lets_in": [] if allowed else list(_remedies(in_force, refusing, subject)),
            "decisions": [
                shown_decision(each)
                for each in self._decisions.about(subject.keys)
                if subject.concerns(each.key)
            ],
            "left_out": sum(max(0, len(rows) - MAX_SHOWN) for rows in (bans, counts, welcome)),
        }

    async def listed(self, now: float) -> Listed:
        """List the bans in force."""
        rows = []
        for ban in self._engine.store.bans(now):
            rows.append(json.dumps(shown_ban(ban, now)))
            await self._count(BANS_READ)
        return Listed(f'{{"bans": [{", ".join(rows)}]}}')

    async def still_refused(self, subject: Subject, now: float) -> list[str]:
        """Return the keys of what is banned or refused of a subject."""
        found = await self.why(subject, now)
        bans = [ban["key"] for ban in found["bans"] if ban["in_force"]]
        counts = [count["key"] for count in found["counts"] if count["refuses"]]
        return list(dict.fromkeys((*bans, *counts)))

    async def bans_at(self, place: str, now: float) -> list[str]:
        """Return the keys of the bans in force of addresses that a key such as ``network:10.0.0.0/8`` has."""
        found = []
        for ban in self._engine.store.bans(now):
            await self._count(BANS_READ)
            if overlap(ban.key, place):
                found.append(ban.key)
        return found

    async def denied(self, now: float) -> dict[str, Any]:
        """List all that is refused now, by a ban or by a count, and what is allowed."""
        memory = self._engine.store.memory
        bans = memory.bans(now)
        denied: list[Standing] = []
        for key in list(memory.counters):
            if (standing := self._standing(key, now)) is not None and standing.refuses:
                denied.append(standing)
            await self._count()
        return {
            "bans": [
                {**shown_ban(ban, now), "allowed": self._is_allowed(ban.key, now)}
                for ban in bans[:MAX_SHOWN]
            ],
            "denied": [each.shown() for each in denied[:MAX_SHOWN]],
            "allowed": [each._asdict() for each in self._engine.allowances.all(now)],
            "left_out": sum(max(0, len(rows) - MAX_SHOWN) for rows in (bans, denied)),
        }

    def standings_of(self, ban_key: str, now: float) -> Iterator[Standing]:
        """Yield what is counted of ``kind:value``."""
        kind = ban_key.partition(":")[0]
        for rule in self._rules:
            if rule.config.by == kind:
                standing = self._standing(rule.key(ban_key), now)
                if standing is not None and any(standing.counts):
                    yield standing

    # --- the parts --------------------------------------------------------------------------------------

    _looked_at = 0

    async def _count(self, worth: int = 1) -> None:
        """Count a key that is looked at, and after a portion let others go on."""
        self._looked_at += worth
        if self._looked_at % PORTION < worth:
            await self._pause()

    def _standing(self, key: str, now: float) -> Standing | None:
        """Read a count; None if it is of no rule that there is."""
        head, _, ban_key = key.partition("|")
        rule = self._by_prefix.get(f"{head}|")
        if rule is None:
            return None
        engine = self._engine
        counts, until = reading(engine.store.memory.counters.get(key), rule.windows, now)
        config, shown = rule.config, ban_key
        if config.by == "password":
            shown = engine.passwords.named(ban_key.partition(":")[2])
        spared = engine.store.in_grace(ban_key, now) or self._is_allowed(ban_key, now)
        refuses = until > 0 and _is_enforced(rule) and not spared
        found = (config.name, config.action, config.by, shown, config.counts, counts)
        next_try = engine.store.memory.marks.get(trickle_mark(key), 0.0)
        if not now < next_try <= now + rule.trickle:
            next_try = now
        return Standing(*found, rule.windows, until, refuses, rule.dry, rule.trickle, next_try)

    def _in_flight(self, subject: Subject) -> Iterator[dict[str, Any]]:
        """Yield how many logins wait for the mail server's answer, and are held for these."""
        flights, waiting = self._engine.store.memory.flights, self._engine.waiting
        for key in subject.keys:
            flying, held = len(flights.get(key, ())), waiting.held_at(key)
            if flying or held:
                yield {"key": shown_name(key), "flying": flying, "held": held}

    async def _of_pairs(self, subject: Subject, now: float) -> list[Standing]:
        """Read the counts of all pairs of an address or user."""
        found = []
        for key in list(self._engine.store.memory.counters):
            await self._count()
            head, _, rest = key.partition("|")
            if rest.startswith("pair:"):
                if subject.has_pair(rest[5:]) and (each := self._standing(key, now)) is not None:
                    found.append(each)
            elif head == f"{SECRET}repeat":
                pair = rest.rpartition("|")[0]
                if subject.has_pair(pair) or f"pair:{pair}" in subject.keys:
                    found += self._repeated(key, pair, now)
        return [each for each in found if any(each.counts)]

    def _repeated(self, key: str, pair: str, now: float) -> Iterator[Standing]:
        """Yield how often the same wrong password came, if it did so more than once."""
        windows = (Window(self._engine.policy.misconfigured_memory, 1),)
        counts, _ = reading(self._engine.store.memory.counters.get(key), windows, now)
        if counts[0] > 1:
            found = (MISCONFIGURED, "delay", "pair", f"pair:{pair}", SAME, counts, windows)
            yield Standing(*found, 0.0, False)

    async def _bans(self, subject: Subject, now: float) -> list[Ban]:
        """Find the bans, in force or over."""
        store = self._engine.store
        found = [ban for key in subject.keys if (ban := store.past(key, now)) is not None]
        if subject.address or subject.user:
            for key in list(store.memory.all_bans):
                await self._count()
                if key.startswith("pair:") and subject.has_pair(key[5:]):
                    found += [ban for ban in (store.past(key, now),) if ban is not None]
        return found

    async def _welcome(self, subject: Subject, now: float) -> list[str]:
        """Find the pairs from whose address there was a login to the account, which is welcome there."""
        marks, found = self._engine.store.memory.marks, []
        for mark in list(marks):
            await self._count()
            kind, _, pair = mark.partition("|")
            asked = subject.has_pair(pair) or f"pair:{pair}" in subject.keys
            if kind == "known" and asked and marks.get(mark, 0.0) > now:
                found.append(pair)
        return found

    def _is_allowed(self, key: str, now: float) -> bool:
        """Return whether the address of an address or pair is allowed."""
        kind, _, value = key.partition(":")
        host = value.partition("|")[0].partition("/")[0]
        if kind not in ("address", "pair"):
            return False
        engine = self._engine
        return engine.addresses.allowed(host) or engine.allowances.of(host, now) is not None

    def _allowed(self, key: str, now: float) -> dict[str, Any] | None:
        """Say by what an address is allowed; None if it is not."""
        host = key.partition(":")[2].partition("/")[0]
        if not host:
            return None
        if self._engine.addresses.allowed(host):
            return {"key": key, "by": "policy.allow in the configuration"}
        found = self._engine.allowances.of(host, now)
        return None if found is None else found._asdict()


def _is_enforced(rule: Rule) -> bool:
    return rule.enforced and not rule.dry


def _remedies(bans: list[Ban], refusing: list[Standing], subject: Subject) -> Iterator[str]:
    """Say what would let it in, in words."""
    for ban in bans:
        key = shown_name(ban.key)
        yield f"{time_of(ban.until)}: the ban of {key} ends"
        yield f"at once: pop3proxy bans remove '{key}'"
    for each in refusing:
        key = shown_name(each.key)
        if each.trickle:
            yield f"{time_of(each.next_try)}: {each.rule} lets one login of {key} through"
        yield f"{time_of(each.until)}: {key} is below the limits of {each.rule}, if no more fail"
        if each.by != "password":
            yield f"at once: pop3proxy bans remove '{key}'"
        if each.by != "pair":
            yield f"{each.rule} does not refuse an address where it has logged in to the account before"
    address = next((key for key in subject.keys if key.startswith(("address:", "network:"))), "")
    if address and (bans or refusing):
        yield f"at once: pop3proxy policy allow {address.partition(':')[2]} --for 1d --reason TEXT"


def shown_ban(ban: Ban, now: float) -> dict[str, Any]:
    """Return a ban as JSON has it."""
    return {
        "key": shown_name(ban.key),
        "rule": ban.rule,
        "since": ban.since,
        "until": ban.until,
        "in_force": ban.times > 0 and ban.until > now,
        "times": ban.times,
        "evidence": list(ban.evidence),
    }


def shown_decision(decided: Decided) -> dict[str, Any]:
    """Return a decision as JSON has it."""
    return {**asdict(decided), "key": shown_name(decided.key)}
