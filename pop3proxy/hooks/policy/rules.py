"""The rules of a configuration, as they are asked: what each counts of which attempt; decides nothing."""

import hashlib
import sys
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from ...analyzer.events import Connection, Reason
from .config import Policy, PolicyRule
from .rhythm import minute_of
from .store import SECRET, Charge, Window

_MEMBERS: Final = {
    "passwords": "password",
    "users": "user",
    "addresses": "address",
    "networks": "network",
    "success_addresses": "address",
    "success_networks": "network",
}


class Who(NamedTuple):
    """Who tries to log in, as keys; each is empty if it is not known."""

    address: str
    network: str
    user: str
    password: str  # a hash
    pair: str
    listener: str = ""  # only if a rule counts by it, and so is the next
    ja4: str = ""
    country: str = ""  # only if a rule is for places, and so is the next
    asn: str = ""

    def value(self, by: str) -> str:
        """Return the value of a key of some kind; empty if it is not known."""
        return str(getattr(self, by))

    def places(self) -> "Places":
        """Return the keys of its values, such as ``user:bob``; empty for what is not known."""
        address, network, user, password, pair, listener, ja4, _, _ = self
        return (
            address and f"address:{address}",
            network and f"network:{network}",
            user and f"user:{user}",
            password and f"password:{password}",
            pair and f"pair:{pair}",
            listener and f"listener:{listener}",
            ja4 and f"ja4:{ja4}",
        )


_PLACES: Final = 7
"""Values of ``Who`` that have a place; those behind them are only for conditions."""

Places = tuple[str, str, str, str, str, str, str]


class Charged(NamedTuple):
    """A charge, and the rule that it is for."""

    rule: "Rule"
    charge: Charge
    value: str


class Rule:
    """A rule of the configuration, and what of it is worked out once."""

    __slots__ = (
        *("by", "conditional", "config", "dry", "enforced", "key_prefix", "least"),
        *("prefix", "reasons", "trickle", "windows", "_member", "_waived"),
    )

    def __init__(self, config: PolicyRule, policy: Policy) -> None:
        self.config = config
        self.windows = tuple(Window(limit.seconds, limit.count) for limit in config.limits)
        self.dry = policy.dry_run or config.dry_run
        # What is about a success refuses no attempt.
        about_success = config.of_success or config.of_guess
        self.trickle = config.trickle
        self.enforced = config.action in ("deny", "drop", "ban") and not about_success
        self.reasons = frozenset(map(Reason, config.reasons or policy.reasons))
        # Counts of a rule that was changed otherwise than in its limits are not taken for its own.
        shape = f"{config.counts} {config.by} {[limit.seconds for limit in config.limits]}"
        shape += " regular" if config.regular is not None else ""
        mark = SECRET if config.secret else ""
        self.prefix = f"{mark}{config.name}.{hashlib.sha256(shape.encode()).hexdigest()[:6]}|"
        # Worked out once, since each login asks every rule.
        self.by = Who._fields.index(config.by)
        self._member = Who._fields.index(member) if (member := _MEMBERS.get(config.counts)) else -1
        self.key_prefix = f"{self.prefix}{config.by}:"
        conditions = config.listener, config.tls, config.user, config.country, config.asn
        self.conditional = any(condition is not None for condition in conditions)
        self.least = min(window.limit for window in self.windows)
        # Who is welcome at an account may still not guess there.
        self._waived = config.by != "pair"

    def key(self, ban_key: str) -> str:
        """Return the key of the count of ``kind:value``."""
        return self.prefix + ban_key

    def charge(self, who: Who, places: Places, c: Connection) -> Charged | None:
        """Return what this rule counts of an attempt; None if it does not apply."""
        if self.conditional and not self._applies(who, c):
            return None
        value = who[self.by]
        seen = "" if self._member < 0 else who[self._member]
        if not value or (self._member >= 0 and not seen):
            return None
        key = self.key_prefix + value
        # What a rule with conditions does not count does not hold up what it does.
        place = key if self.conditional else places[self.by]
        enforced = self.enforced and not self.dry
        # Made so in half the time, and each login makes many.
        what = (
            *(key, self.windows, seen, enforced, self._waived, place, self._member, self.least),
            *(self.trickle, False),
        )
        return Charged(self, Charge._make(what), value)

    def _applies(self, who: Who, c: Connection) -> bool:
        config = self.config
        return (
            (config.listener is None or config.listener == c.listener)
            and (config.tls is None or config.tls is bool(c.tls))
            and (config.user is None or fnmatchcase(who.user, config.user))
            and (config.country is None or _is_of(who.country, config.country))
            and (config.asn is None or who.asn in map(str, config.asn))
        )


def _is_of(country: str, named: tuple[str, ...]) -> bool:
    """Return whether a country is one of those that are named, or none of those that are left out."""
    if named and named[0].startswith("!"):
        return f"!{country}" not in named
    return country in named


class Rules:
    """All rules of a policy, by when they are asked.

    ``failing`` count failures, and ``succeeding`` successes; ``judging`` are those of the first that can
    refuse an attempt, or would if they were not on trial; they are ``plain`` if none has conditions.
    ``any_regular`` is whether one of the first asks how regular failures are.
    """

    def __init__(self, policy: Policy) -> None:
        self.all = tuple(Rule(rule, policy) for rule in policy.rules_in_force)
        self.failing = tuple(rule for rule in self.all if rule.config.of_failure)
        self.succeeding = tuple(rule for rule in self.all if rule.config.of_success)
        self.any_regular = any(rule.config.regular is not None for rule in self.failing)
        self.judging = tuple(rule for rule in self.failing if rule.enforced)
        self._by_pair = tuple(rule for rule in self.failing if rule.config.by == "pair")
        self.plain = not any(rule.conditional for rule in self.judging)
        self._prefixes = tuple((rule.by, rule.key_prefix) for rule in self.judging)
        self._rooms = tuple(
            min((rule.least for rule in self.judging if rule.by == by), default=sys.maxsize)
            for by in range(_PLACES)
        )

    def keys_of(self, who: Who) -> list[str]:
        """Return the keys of all counts that could refuse an attempt, if no rule has conditions."""
        return [prefix + who[by] for by, prefix in self._prefixes]

    def rooms_at(self, places: Places) -> list[tuple[str, int]]:
        """Return how many can be in flight at each place before a rule could hold one."""
        return [(place, room) for place, room in zip(places, self._rooms, strict=True) if place]

    def count_by(self, kind: str) -> bool:
        """Return whether any rule has a count for each value of a kind."""
        return any(rule.config.by == kind for rule in self.all)

    @property
    def of_places(self) -> bool:
        """Whether any rule is for clients of some places only."""
        return any(rule.config.of_place for rule in self.all)

    def keys(self, ban_key: str) -> list[str]:
        """Return the keys of all counts of ``kind:value``."""
        return [rule.key(ban_key) for rule in self.all]

    def keys_of_pair(self, who: Who) -> tuple[str, ...]:
        """Return the keys of the counts that a good login clears."""
        if not who.pair:
            return ()
        pair = f"pair:{who.pair}"
        return tuple([rule.prefix + pair for rule in self._by_pair])


def counted(rules: Iterable[Rule], who: Who, places: Places, c: Connection) -> tuple[Charged, ...]:
    """Return what rules count of a login that was judged."""
    return tuple([each for rule in rules if (each := rule.charge(who, places, c)) is not None])


def at_minute(found: Iterable[Charged], at: float) -> list[Charged]:
    """Charge the minute of a failure, where a rule asks how regular failures are."""
    member = minute_of(at)
    return [
        each
        if each.rule.config.regular is None
        else each._replace(charge=each.charge._replace(member=member, timed=True))
        for each in found
    ]


def charged(
    rules: Iterable[Rule],
    who: Who,
    places: Places,
    c: Connection,
    graced: Callable[[str], bool],
) -> tuple[Charged, ...]:
    """Return what rules count of an attempt; none is enforced of a value whose ban was just taken back."""
    found = counted(rules, who, places, c)
    graces = {place for place in places if place and graced(place)}
    if graces:
        return tuple(
            each._replace(charge=each.charge._replace(enforced=False))
            if f"{each.rule.config.by}:{each.value}" in graces
            else each
            for each in found
        )
    return found
