"""What `[policy]` in a configuration may say, and the rules if it names none; nothing is counted here."""

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    Strict,
    model_validator,
)

from ...values import (
    Count,
    DenialReply,
    Network,
    Seconds,
    SecondsOrNone,
    Switch,
    Table,
    shown,
)
from ..api import Deny
from .export.options import PolicyExport
from .names import PolicyUsers

Kind = Literal["address", "network", "user", "pair"]
ReasonName = Literal[
    "credentials",
    "in_use",
    "temporary",
    "login_delay",
    "account",
    "tls_required",
    "malformed",
    "unsupported",
    "aborted",
    "unknown",
]

Occurrence = Literal[
    "refused_users",
    "denied",
    "connections",
    "unknown_commands",
    "handshakes_failed",
    "opaque_sessions",
    "unknown_users",
    "trap_users",
]
"""What can be counted that is no login which the server has judged."""

OCCURRENCES: Final[frozenset[str]] = frozenset(get_args(Occurrence))


def _country_code(text: str) -> str:
    """Refuse what is no country."""
    if not re.fullmatch("!?[A-Za-z]{2}", text):
        raise ValueError(f'{shown(text)} is no country; write its two letters like "US" or "!US"')
    return text.upper()


CountryCode = Annotated[str, AfterValidator(_country_code)]
AsNumber = Annotated[int, Strict(), Field(ge=1, le=2**32 - 1)]

MIN_KEY: Final = 16
"""Letters of a `fingerprint_key` at the least: who can guess the key can guess passwords by it."""


LEAST_REGULAR: Final = 5
"""Failures, at the least, of which a rule can ask whether they are regular."""


class PolicyLimit(Table):
    """So many in so long a time."""

    count: Count = Field(default=5, ge=1)
    """How many are let through; with distinct things, how many different ones."""
    seconds: Annotated[float, Strict(), Field(ge=1, allow_inf_nan=False)] = 3600
    """The time that is looked back on."""


class PolicyRegular(Table):
    """How regular failures have to be, for a rule to say so."""

    interval: Annotated[float, Strict(), Field(ge=120, allow_inf_nan=False)] = 600
    """The median interval between failures has at least so many seconds; those within a minute are one."""
    spread: Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)] = 0.3
    """Half of the intervals differ from the median by at most this part of it; `0`: by nothing."""


class PolicyRule(Table):
    """One rule: what is counted, of whom, how much is too much, and what then."""

    name: str = ""
    """What events and bans call it; each rule has its own, without blanks and `|`."""
    counts: Literal[
        "failures",
        "passwords",
        "users",
        "addresses",
        "networks",
        "successes",
        "success_addresses",
        "success_networks",
        "refused_users",
        "denied",
        "connections",
        "unknown_commands",
        "handshakes_failed",
        "opaque_sessions",
        "unknown_users",
        "trap_users",
        "likely_guessed",
    ] = "failures"
    """What is counted: failed logins; different passwords, users, addresses or networks of failed ones;
    logins that succeed; different addresses or networks of those; names refused at USER; logins denied
    by others than the policy; connections; unknown commands; TLS handshakes that failed; sessions that could
    not be inspected whole; attempts at names that are not in `users_file`, and at `trap_users`;
    guesses of strangers before a login that succeeds."""
    by: Literal["address", "network", "user", "pair", "password", "listener", "ja4"] = "address"
    """What has a count of its own; `pair` is an address with a user, `listener` all clients of one, `ja4` all
    that begin TLS with the proxy alike."""
    limits: tuple[PolicyLimit, ...] = (PolicyLimit(),)
    """Limits, all in force at once."""
    listener: str | None = None
    """Only on the listener of this endpoint string."""
    tls: Switch | None = None
    """`true`: only from clients that talk TLS to the proxy; `false`: only from the others; else both."""
    user: str | None = None
    """Only users of this pattern, as of files: `*@example.org`."""
    country: tuple[CountryCode, ...] | None = None
    """Only clients of these countries by `geo_files`, as ISO 3166 has them: `["US", "CA"]`; `["!US", "!CA"]`:
    only clients of all others."""
    asn: tuple[AsNumber, ...] | None = None
    """Only clients of autonomous systems of these numbers by `geo_files`."""
    reasons: tuple[ReasonName, ...] | None = None
    """The reasons of failures that count; without it those of the whole policy."""
    regular: PolicyRegular | None = None
    """Only failures that come at regular intervals; for the action `log`."""
    action: Literal["log", "delay", "deny", "drop", "ban"] = "log"
    """`log`: only the event; `delay`: the reply to a failed login waits; `deny`: logins are refused without
    asking the server; `drop`: the session ends; `ban`: refused, and banned once so many have failed."""
    delay: Seconds = 1
    """Seconds of the first `delay`; it doubles with each further count."""
    delay_max: Seconds = 30
    """Seconds of the longest `delay`."""
    trickle: SecondsOrNone = 0
    """With `deny` and `drop`: beyond a limit one login is let through each so many seconds, of all clients
    together that would be refused; `0`: none is."""
    reply: DenialReply = Deny().reply
    """What a denied login is told; without it what `policy.users.server` says of a wrong password."""
    ban: Kind = "address"
    """What is banned."""
    ban_seconds: Seconds = 600
    """How long the first ban lasts; each further one twice as long."""
    dry_run: Switch = False
    """Only say what would be done."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        problem = _problem_of(self)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def of_success(self) -> bool:
        """Whether it counts logins that succeed."""
        return self.counts.startswith("success")

    @property
    def of_failure(self) -> bool:
        """Whether it counts logins that fail."""
        return not (self.of_success or self.of_occurrence or self.of_guess)

    @property
    def of_guess(self) -> bool:
        """Whether it is about successes that were probably guessed."""
        return self.counts == "likely_guessed"

    @property
    def of_occurrence(self) -> bool:
        """Whether it counts something else than logins that the server has judged."""
        return self.counts in OCCURRENCES

    @property
    def of_place(self) -> bool:
        """Whether it is for clients of some places only."""
        return self.country is not None or self.asn is not None

    @property
    def secret(self) -> bool:
        """Whether what it keeps comes from passwords."""
        return self.counts == "passwords" or self.by == "password"


# What a count of one thing says about that same thing is always 1.
_POINTLESS: Final = frozenset(
    {
        ("passwords", "password"),
        ("users", "user"),
        ("users", "pair"),
        ("addresses", "address"),
        ("addresses", "pair"),
        ("networks", "address"),
        ("networks", "network"),
        ("networks", "pair"),
        ("success_addresses", "address"),
        ("success_addresses", "pair"),
        ("success_networks", "address"),
        ("success_networks", "network"),
        ("success_networks", "pair"),
    }
)


def _problem_of(rule: PolicyRule) -> str | None:
    return _problem_of_form(rule) or _problem_of_sense(rule)


def _problem_of_form(rule: PolicyRule) -> str | None:
    if not rule.name or not rule.name.isprintable() or set(" |~") & set(rule.name):
        return 'name: must be a word without blanks, "|" and "~", such as "brute-force"'
    if rule.country and len({code.startswith("!") for code in rule.country}) > 1:
        return 'country: names some with "!" and some without; write all of them one way'
    if not rule.limits:
        return "limits: needs one at least, such as { count = 5, seconds = 60 }"
    return None


def _problem_of_sense(rule: PolicyRule) -> str | None:
    if (rule.counts, rule.by) in _POINTLESS:
        return f"counts {rule.counts} by {rule.by}, which is always 1; choose another `by`"
    if rule.action == "ban" and rule.by in ("listener", "ja4"):
        return f"a count by {rule.by} is of many clients; it can deny, and ban nobody"
    if rule.counts == "handshakes_failed" and rule.by == "ja4":
        return "handshakes_failed by ja4, which is known only of those that succeed; choose another"
    if rule.regular is not None:
        return _problem_of_regular(rule)
    if rule.trickle and not (rule.of_failure and rule.action in ("deny", "drop")):
        return (
            'trickle: is for rules on failed logins whose action is "deny" or "drop"; leave it out'
        )
    if rule.of_guess and rule.by != "user":
        return 'likely_guessed is counted by user; write by = "user"'
    if rule.of_occurrence:
        return _problem_of_occurrence(rule)
    # A wrong password must not take its user, or everybody, away from the account (lock-out).
    if rule.action == "ban" and rule.ban in ("user", "pair") and rule.by == "password":
        return "a count by password can ban an address or network, no user"
    if rule.action == "ban" and rule.ban == "user" and rule.by in ("address", "network", "pair"):
        return 'one address must not lock a user out; ban "pair", or count by user'
    return None


def _problem_of_regular(rule: PolicyRule) -> str | None:
    if rule.counts != "failures" or rule.action != "log":
        return 'regular: is for rules that count "failures" and whose action is "log"; leave it out'
    if min(limit.count for limit in rule.limits) < LEAST_REGULAR:
        return (
            f"limits: a count below {LEAST_REGULAR} says nothing of regularity; write a higher one"
        )
    return None


def _problem_of_occurrence(rule: PolicyRule) -> str | None:
    if rule.by in ("user", "pair", "password"):
        return (
            f"{rule.counts} cannot be counted by {rule.by};"
            ' write "address", "network", "listener" or "ja4"'
        )
    if rule.user is not None or rule.reasons is not None:
        what = "reasons" if rule.user is None else "user"
        return f"{what}: has no meaning where {rule.counts} are counted; leave it out"
    if rule.action == "ban" and rule.ban in ("user", "pair"):
        return f'{rule.counts} are of clients; ban "address" or "network"'
    return None


def _rule(
    name: str, counts: str, by: str, limits: Iterable[tuple[int, int]], **more: object
) -> PolicyRule:
    windows = tuple(PolicyLimit(count=count, seconds=seconds) for count, seconds in limits)
    return PolicyRule.model_validate(
        {"name": name, "counts": counts, "by": by, "limits": windows, **more}
    )


MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400

# Beyond an account's limit strangers share one try each 15 minutes: its owner, at a new address, may get it.
_ONE_A_QUARTER: Final = {"action": "deny", "trickle": 15 * MINUTE}

DEFAULT_RULES: Final = (
    _rule(
        "slow-down", "failures", "pair", [(3, 5 * MINUTE)], action="delay", delay=1, delay_max=10
    ),
    _rule("guessing", "failures", "pair", [(5, MINUTE), (15, HOUR), (40, DAY)], action="deny"),
    _rule("brute-force", "passwords", "address", [(20, HOUR), (60, DAY)], action="ban"),
    _rule("hidden-password", "failures", "address", [(40, HOUR), (120, DAY)], action="ban"),
    _rule("spraying", "users", "address", [(15, HOUR), (40, DAY)], action="ban"),
    _rule("neighbours", "passwords", "network", [(100, HOUR), (300, DAY)], action="deny"),
    # One who has a /48 has 65,536 addresses, and by CRAM-MD5, say, shows no password in any.
    _rule("hidden-neighbours", "failures", "network", [(200, HOUR), (600, DAY)], action="deny"),
    _rule("distributed", "addresses", "user", [(10, HOUR), (30, DAY)], **_ONE_A_QUARTER),
    # More wrong passwords than a user tries where they have not logged in yet, and more failures than two
    # devices make that try an outdated password each quarter of an hour at changing addresses.
    _rule("guesses", "passwords", "user", [(20, HOUR), (60, DAY)], **_ONE_A_QUARTER),
    _rule("hidden-guesses", "failures", "user", [(60, HOUR), (200, DAY)], **_ONE_A_QUARTER),
    _rule("common-password", "users", "password", [(10, HOUR), (30, DAY)], action="deny"),
    # What passes every limit above, and is no human: too slow for them, and too regular.
    _rule("slow-address", "failures", "address", [(20, 7 * DAY)], regular=PolicyRegular()),
    _rule("slow-account", "failures", "user", [(20, 7 * DAY)], regular=PolicyRegular()),
    _rule("many-places", "success_networks", "user", [(10, DAY)], action="log"),
    _rule("likely-guessed", "likely_guessed", "user", [(5, DAY)], action="log"),
)
"""The rules of a policy that names none."""


TRAP_RULE: Final = _rule(
    "trap-users", "trap_users", "address", [(1, HOUR)], action="ban", ban_seconds=float(DAY)
)
"""What becomes of an attempt at one of `trap_users`, unless a rule counts them."""


def _redis_url(text: str) -> str:
    problem = _problem_of_url(text)
    if problem:
        raise ValueError(problem)
    return text


def _problem_of_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return 'is no URL; write it like "redis://192.0.2.1:6379/0"'
    if parts.username is not None or parts.password is not None:
        # The input is not shown: it is a secret.
        return "must not hold a password; write that into a file, and name it as password_file"
    if parts.query or parts.fragment:
        return "must end behind the database's number; leave out what begins with ? or #"
    if parts.scheme == "unix":
        whole = not parts.netloc and parts.path.startswith("/") and len(parts.path) > 1
        return None if whole else 'must name a socket like "unix:///run/redis/redis.sock"'
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        return "must begin with redis://HOST, rediss://HOST (TLS) or unix:///PATH"
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit() and len(database) < 6):
        return 'must end in the database\'s number, such as "/0", or in nothing'
    return None


def _redis_prefix(text: str) -> str:
    if not 1 <= len(text) <= 64:
        raise ValueError("must have 1 to 64 letters")
    if not re.fullmatch(r"[^{}]*(\{[^{}]+\}[^{}]*)?", text):
        raise ValueError(
            f'{shown(text)} has braces that are no hash tag; write it like "pop3proxy:"'
        )
    return text


class PolicyRedis(Table):
    """A Redis or Valkey server by which several proxies share counts and bans."""

    url: Annotated[str, AfterValidator(_redis_url)]
    """`redis://HOST:PORT/DATABASE`, `rediss://…` for TLS, or `unix:///PATH`."""
    ca: str | None = None
    """A PEM file of certificates that a server's may come from; without it those of the system."""
    username: str | None = None
    """The user of Redis's own access list."""
    password_file: str | None = None
    """A file that holds the password in one line; read at each connection."""
    prefix: Annotated[str, AfterValidator(_redis_prefix)] = "pop3proxy:"
    """What all channels begin with, and all keys, there in braces: a cluster keeps them on one node."""
    time_limit: Annotated[float, Strict(), Field(ge=0.001, le=10)] = 0.25
    """Seconds that a decision waits for Redis; then it is made by what this proxy has counted."""
    probe_interval: Annotated[float, Strict(), Field(ge=0.01, le=60)] = 1
    """Seconds between two looks whether Redis is well, and between two attempts to reach it."""
    connect_limit: Annotated[float, Strict(), Field(ge=0.01, le=60)] = 5
    """Seconds that each step of connecting may take, and that Redis may hang before it is dialled anew."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.username is not None and self.password_file is None:
            raise ValueError("username: needs a password_file")
        if self.ca is not None and not self.url.startswith("rediss:"):
            raise ValueError('ca: is for TLS; write the url like "rediss://redis.example.org"')
        return self


class Policy(Table):
    """Consequences of failed logins; without this table there are none."""

    dry_run: Switch = False
    """Only say what all rules would do; bans that are in force stay so."""
    rules: tuple[PolicyRule, ...] = DEFAULT_RULES
    """The rules; without any, those that docs/policy.md lists."""
    allow: tuple[Network, ...] = ()
    """Networks whose clients are never counted, delayed, denied or banned."""
    reasons: tuple[ReasonName, ...] = ("credentials",)
    """The reasons of failures that count, as in `pop3_login_failure`."""
    ipv4_prefix: Count = Field(default=32, ge=8, le=32)
    """Bits that make an IPv4 address."""
    ipv6_prefix: Count = Field(default=64, ge=16, le=128)
    """Bits that make an IPv6 address: who has one has all of its /64."""
    ipv4_network: Count = Field(default=24, ge=8, le=32)
    """Bits that make an IPv4 network."""
    ipv6_network: Count = Field(default=48, ge=16, le=128)
    """Bits that make an IPv6 network."""
    users: PolicyUsers = PolicyUsers()
    """Which ways to write a user name are one account."""
    users_file: str | None = None
    """A file with the names of all users, one a line; read again when it changes, and at SIGHUP."""
    aliases_file: str | None = None
    """A file of lines like `sales: bob`, as Postfix has them: attempts at `sales` count for `bob`."""
    trap_users: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Users that nobody is, or patterns of such as of files: an attempt at one bans its address for a day."""
    geo_files: tuple[str, ...] = ()
    """MaxMind DB files with countries or autonomous systems, for rules with `country` or `asn`; read again
    when they change, and at SIGHUP."""
    banned: Literal["deny", "drop"] = "deny"
    """What a banned client gets when it connects: `banned_reply`, or nothing."""
    banned_reply: DenialReply = "-ERR [SYS/TEMP] Too many failed logins, please try again later."
    """What a banned client is told."""
    wait: Annotated[float, Strict(), Field(ge=0.1, le=60, allow_inf_nan=False)] = 10
    """Seconds that a login is held at the most while others, which might fail, wait for the mail server;
    and after which one without an answer counts as failed, as long as the mail server answers others."""
    busy_reply: DenialReply = "-ERR [SYS/TEMP] Too many logins at once, please try again."
    """What a login is told that was held for `wait` seconds, or finds too many held: 100 for an address,
    2,000 in all."""
    ban_max: Seconds = 7 * DAY
    """Seconds that no ban exceeds, its jitter aside."""
    ban_jitter: Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """A ban lasts longer by up to this part, so that its end cannot be foretold."""
    ban_memory: Seconds = 30 * DAY
    """Seconds after its end that a ban is remembered, for `why` and for the next one's length."""
    end_sessions: Switch = True
    """A ban ends the sessions of who is banned."""
    grace: SecondsOrNone = HOUR
    """Seconds after `bans remove` in which the same is not banned or denied again."""
    known: Seconds = 30 * DAY
    """Seconds that an address stays welcome at an account after a login."""
    known_by: Literal["address", "network"] = "address"
    """`network`: an account is known in the network of an address, too, with fewer tries: 3 in place of 10 at
    once, and 100 in place of 300 a day."""
    same_try: Annotated[float, Strict(), Field(ge=0, le=60)] = 10
    """Seconds within which the next mechanism belongs to the same try: one wrong password by several
    mechanisms is one failure. `0`: each counts for itself."""
    misconfigured_delay: SecondsOrNone = 2
    """Seconds that the answer to the same wrong password of one client waits, longer with each time; and that
    lie at least between two that reach the mail server, whether the client waits for the answer or not."""
    misconfigured_delay_max: SecondsOrNone = 20
    """Seconds that the answer waits at the most."""
    misconfigured_memory: Seconds = DAY
    """Seconds that a wrong password is remembered, to know it again."""
    fingerprint_key: str | None = None
    """A secret by which passwords are hashed; without it one is made at each start."""
    max_keys: Count = Field(default=200_000, ge=100)
    """Counts that are kept; beyond that the least useful go."""
    max_bans: Count = Field(default=100_000, ge=100)
    """Bans that are kept."""
    snapshot: str | None = None
    """A file that counts and bans survive a restart in; what is decided in between is in `FILE.journal`."""
    snapshot_interval: Seconds = 300
    """Seconds between two snapshots; one more is written when the proxy stops."""
    control: str | None = None
    """A Unix socket for `pop3proxy bans` and `pop3proxy policy why`, `list` and `allow`."""
    redis: PolicyRedis | None = None
    """Share counts and bans with other proxies; all need the same `fingerprint_key`."""
    export: PolicyExport | None = None
    """Bans for a firewall; not where clients come through load balancers."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'rules: two are called "{name}"; each needs its own name')
        if self._needs_trap_rule and TRAP_RULE.name in names:
            raise ValueError(
                f'rules: "{TRAP_RULE.name}" is the rule of trap_users; call yours another name'
            )
        if self.ipv4_network > self.ipv4_prefix or self.ipv6_network > self.ipv6_prefix:
            raise ValueError("a network has fewer bits than an address; lower the network's")
        if self.fingerprint_key is not None and len(self.fingerprint_key) < MIN_KEY:
            # The input is not shown: it is a secret.
            raise ValueError(f"fingerprint_key: is too short; write {MIN_KEY} letters or more")
        if self.redis is not None and self.fingerprint_key is None:
            raise ValueError("redis: needs a fingerprint_key, the same for all proxies that share")
        if self.redis is not None and self.snapshot is not None:
            raise ValueError(
                "snapshot: is not used with redis, which keeps the counts; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _names_the_files_of_its_rules(self) -> Self:
        if self.users_file is None and any(rule.counts == "unknown_users" for rule in self.rules):
            raise ValueError("users_file: is missing, and a rule counts unknown_users; name a file")
        for rule in self.rules:
            if rule.of_place and not self.geo_files:
                raise ValueError(
                    f'geo_files: is missing, and "{rule.name}" is for a country or asn; name a file'
                )
        return self

    @property
    def rules_in_force(self) -> tuple[PolicyRule, ...]:
        """The rules with their replies, and that of `trap_users` unless a rule counts them."""
        rules = (*self.rules, TRAP_RULE) if self._needs_trap_rule else self.rules
        denial = self.users.denial
        return tuple(
            rule if "reply" in rule.model_fields_set else rule.model_copy(update={"reply": denial})
            for rule in rules
        )

    @property
    def _needs_trap_rule(self) -> bool:
        counted = any(rule.counts == "trap_users" for rule in self.rules)
        return bool(self.trap_users) and not counted
