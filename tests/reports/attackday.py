"""An attack day, made from a seed, and the truth about it: what every question is held against.

Fifty users work from their offices. A collector fetches the mail of forty of them, two telephones have an
outdated password, and three attackers come: one guesses at one account and gets in, one tries many accounts
and gets into one, one guesses from many networks and gets nowhere. Fourteen quiet days go before.

As a script it writes the records to a file: ``python -m tests.reports.attackday events.jsonl``.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pop3proxy.analyzer.events import (
    Connect,
    Connection,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Policy,
    Reason,
    Reply,
    Request,
    Secret,
    SessionEnd,
    Tls,
    Unexpected,
)
from pop3proxy.hooks.logging.records import line, with_fingerprint
from pop3proxy.hooks.masking import masked

DAY: Final = 86400.0
BEGINNING: Final = datetime(2026, 3, 17, tzinfo=UTC).timestamp()
"""The attack day: a Tuesday, in UTC."""

END: Final = BEGINNING + DAY
QUIET_DAYS: Final = 14
LOGINS: Final = 20_000
"""Logins of the attack day."""

STRANGE_NAMES: Final = (
    *("2024-01-01", "2024-01-01T08:00:00Z", "12345", "007", "1e5", "true", "null", "NaN"),
    *("550e8400-e29b-41d4-a716-446655440000", "10.0.0.1", "jos\udce9", "m\u00fcller"),
    *("</script><img onerror=alert(1)>", "=cmd|' /C calc'!A0", "o'brien", 'quo"te', "[red]x[/red]"),
    *("Carol ", "a|b", "tab\tbed", "es\x1b[31mcape"),
)

BRUTE: Final = "203.0.113.66"
SPRAYER: Final = "198.51.100.23"
BOTS: Final = 120
COLLECTOR: Final = "192.0.2.250"
PHONE_AT_HOME: Final = "10.1.20.99"
PHONE_ABROAD: Final = "2001:db8:77::5"
CERTIFICATES: Final = (
    ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
)
OLD_TLS: Final = "TLSv1", "ECDHE-RSA-AES256-SHA"
MECHANISMS: Final = ("USER/PASS", "PLAIN", "LOGIN", "CRAM-MD5", "APOP", "SCRAM-SHA-256")


@dataclass(frozen=True, slots=True)
class User:
    """An account, and how its owner logs in."""

    name: str
    address: str
    mechanism: str
    tls: Tls | None

    @property
    def account(self) -> str:
        return account(self.name)


def account(name: str) -> str:
    """Return the name as questions have it: bytes that are no UTF-8 shown, no blanks around, lower case."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return shown.strip(" ").lower()


@dataclass(frozen=True, slots=True)
class Login:
    """A login that was judged."""

    ts: float
    account: str
    address: str
    mechanism: str
    tls: str | None
    listener: str
    reason: str | None = None
    code: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Visit:
    """A session that ended."""

    ts: float
    account: str
    address: str
    outcome: str
    retr: int
    dele: int
    deleted: int
    sent: int
    received: int


@dataclass(slots=True)
class Truth:
    """What happened."""

    logins: list[Login] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    guessed: dict[str, str] = field(default_factory=dict)
    """Accounts whose password was guessed, with the address that got in."""
    attacked: dict[str, int] = field(default_factory=dict)
    """Accounts at which strangers guessed at least ten times, with how often."""
    sprayers: dict[str, int] = field(default_factory=dict)
    """Addresses that sprayed, with the accounts that they failed at."""
    phones: dict[str, str] = field(default_factory=dict)
    """Accounts whose device has an outdated password, with its address."""
    moved: dict[str, str] = field(default_factory=dict)
    """Accounts that were logged in to from a new network, with the address."""
    dormant: set[str] = field(default_factory=set)
    at_night: set[str] = field(default_factory=set)
    odd: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often each anomaly occurred, by side."""
    decided: dict[tuple[str, str, bool], int] = field(default_factory=dict)
    """What the policy did, by rule and action; the last is whether it only would have."""
    gaps: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    """The times of all records that questions about gaps look at."""

    def of_the_day(self) -> list[Login]:
        return [login for login in self.logins if login.ts >= BEGINNING]


class AttackDay:
    """Makes the records, in the order of time, and the truth about them."""

    def __init__(self, seed: int = 1) -> None:
        self.truth = Truth()
        self._random = random.Random(seed)
        self._records: list[tuple[float, int, bytes]] = []
        self._sessions = 0
        self.users = [self._user(number) for number in range(50)]
        self._play()

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Yield each record with its time, sorted by it."""
        for ts, _, record in sorted(self._records):
            yield ts, record

    def write(self, path: Path, since: float = 0.0, until: float = END) -> None:
        """Write the records of a period to a file."""
        path.write_bytes(b"".join(record for ts, record in self.lines() if since <= ts < until))

    def _user(self, number: int) -> User:
        name = STRANGE_NAMES[number] if number < len(STRANGE_NAMES) else f"user{number}@example.org"
        address = f"2001:db8:{number:x}::1" if number % 5 == 4 else f"10.1.{number}.7"
        tls: Tls | None = Tls(*CERTIFICATES[number % 2])
        if number % 4 == 0:
            tls = None
        if number == 13:
            tls = Tls(*OLD_TLS)
        return User(name, address, MECHANISMS[number % len(MECHANISMS)], tls)

    # --- what happened ----------------------------------------------------------------------------------

    def _play(self) -> None:
        for day in range(QUIET_DAYS):
            self._quiet(BEGINNING - (QUIET_DAYS - day) * DAY)
        self._long_ago()
        self._brute_force()
        self._spray()
        self._bots()
        self._phones()
        self._collect(BEGINNING)
        self._travel()
        self._night()
        self._oddities()
        self._holes()
        for _ in range(LOGINS - len(self.truth.of_the_day())):
            user = self._random.choice(self.users[:49])
            self._work(user, BEGINNING + self._random.uniform(8, 17) * 3600)

    def _quiet(self, day: float) -> None:
        for user in self.users[:49]:
            for hour in (9, 12, 15):
                self._work(user, day + hour * 3600 + self._random.uniform(0, 3500))
        self._collect(day)

    def _work(self, user: User, ts: float) -> None:
        fetched = self._random.randrange(3)
        self._session(user.address, ts, user, fetched=fetched)

    def _collect(self, day: float) -> None:
        """Fetch and delete the mail of forty accounts, six times a day."""
        for hour in range(0, 24, 4):
            for number, user in enumerate(self.users[:40]):
                collected = User(user.name, COLLECTOR, "PLAIN", Tls(*CERTIFICATES[0]))
                self._session(
                    COLLECTOR, day + hour * 3600 + number * 20, collected, fetched=2, deleted=2
                )

    def _long_ago(self) -> None:
        """The last user left a hundred days ago."""
        user = self.users[49]
        self._work(user, BEGINNING - 100 * DAY)
        self.truth.dormant.add(user.account)

    def _brute_force(self) -> None:
        user = self.users[3]
        guesser = User(user.name, BRUTE, "USER/PASS", None)
        ts = BEGINNING + 2 * 3600
        for guess in range(0, 600, 5):
            self._guess(guesser, ts + guess, [f"guess{guess + number}" for number in range(5)])
        for number in range(30):
            dry = number >= 20
            self._decide("guessing", "deny", f"pair:{BRUTE}|{user.account}", ts + number, dry)
        self._session(BRUTE, ts + 700, guesser, fetched=3)
        self.truth.guessed[user.account] = BRUTE
        # No other login of the account falls between one and three.
        self.truth.at_night.add(user.account)
        self.truth.moved[user.account] = BRUTE
        self._attacked(user.account, 600)

    def _spray(self) -> None:
        tried = [user.name for user in self.users[:45]] + [
            f"nobody{number}" for number in range(155)
        ]
        hit = self.users[7]
        ts = BEGINNING + 3600
        for number, name in enumerate(tried):
            sprayer = User(name, SPRAYER, "LOGIN", Tls(*CERTIFICATES[0]))
            self._guess(sprayer, ts + number * 7, ["Spring2026"])
            self._attacked(account(name), 1)
        entered = User(hit.name, SPRAYER, "LOGIN", Tls(*CERTIFICATES[0]))
        self._session(SPRAYER, ts + 200 * 7 + 60, entered, fetched=10)
        self.truth.sprayers[SPRAYER] = len(tried)
        self.truth.guessed[hit.account] = SPRAYER
        self.truth.moved[hit.account] = SPRAYER
        self._decide("spraying", "ban", f"address:{SPRAYER}", ts + 100, True)

    def _bots(self) -> None:
        victim = self.users[11]
        for number in range(BOTS):
            address = f"2001:db8:f{number:03x}::9" if number % 3 == 0 else f"100.64.{number}.9"
            bot = User(victim.name, address, "PLAIN", None)
            guesses = [f"bot{number}-{guess}" for guess in range(3)]
            self._guess(bot, BEGINNING + 5 * 3600 + number * 60, guesses)
        self._attacked(victim.account, BOTS * 3)

    def _attacked(self, name: str, failures: int) -> None:
        self.truth.attacked[name] = self.truth.attacked.get(name, 0) + failures

    def _phones(self) -> None:
        for number, address, minutes in ((20, PHONE_AT_HOME, 15), (21, PHONE_ABROAD, 5)):
            phone = User(self.users[number].name, address, "PLAIN", Tls(*CERTIFICATES[1]))
            for ts in range(0, int(DAY), minutes * 60):
                self._guess(phone, BEGINNING + ts + self._random.uniform(0, 5), ["old password"])
            self.truth.phones[phone.account] = address

    def _travel(self) -> None:
        user = self.users[30]
        abroad = User(user.name, "198.18.77.7", user.mechanism, user.tls)
        self._session(abroad.address, BEGINNING + 10 * 3600, abroad, fetched=1)
        self.truth.moved[user.account] = abroad.address

    def _night(self) -> None:
        """One works at three in the morning, and another empties a mailbox by day."""
        late, leaving = self.users[45], self.users[31]
        self._session(late.address, BEGINNING + 3 * 3600 + 5, late, fetched=1)
        self.truth.at_night.add(late.account)
        self._session(leaving.address, BEGINNING + 11 * 3600, leaving, deleted=500)

    def _decide(self, rule: str, action: str, key: str, ts: float, dry: bool) -> None:
        c = self._connection(BRUTE, None)
        self._add(Policy(c, ts, rule, action, key, "failures", 5, 5, 60.0, 0.0, dry))
        what = rule, action, dry
        self.truth.decided[what] = self.truth.decided.get(what, 0) + 1

    def _oddities(self) -> None:
        """Two logins are cancelled, one gets no answer; seven clients come with HTTP."""
        user = self.users[22]
        for number, oddity in enumerate(
            (Oddity.LOGIN_CANCELLED, Oddity.LOGIN_CANCELLED, Oddity.CUT_LOGIN)
        ):
            c, ts = self._connection(user.address, user.tls), BEGINNING + 12 * 3600 + number
            self._add(Connect(c, ts))
            self._add(LoginAttempt(c, ts, user.name, "x", "PLAIN", 1))
            self._odd(Unexpected(c, ts + 0.1, True, oddity, "", attempt=1))
            self._end(c, ts + 1, user.name, "none")
        for number in range(7):
            c, ts = self._connection(f"198.18.0.{number}", None), BEGINNING + 13 * 3600 + number
            self._add(Connect(c, ts))
            self._odd(Unexpected(c, ts + 0.1, True, Oddity.NOT_POP3, "GET"))
            self._end(c, ts + 1, "", "none")

    def _odd(self, event: Unexpected) -> None:
        self._add(event)
        what = event.msg.value, "client" if event.is_orig else "server"
        self.truth.odd[what] = self.truth.odd.get(what, 0) + 1

    def _holes(self) -> None:
        """The proxy was killed with three sessions open, and was blind to four others."""
        user, ts = self.users[23], BEGINNING + 14 * 3600
        for number in range(3):
            self._add(Connect(self._connection(user.address, None), ts + number))
        c = self._connection(user.address, None)
        self._end(c, ts + 5, "", "none")
        c = self._connection(user.address, None)
        self._add(Connect(c, ts + 6))
        self._add(LoginAttempt(c, ts + 6, user.name, "x", "PLAIN", 1))
        self._end(c, ts + 7, user.name, "none")
        for number in range(4):
            c = self._connection(user.address, None)
            self._add(Connect(c, ts + 10 + number))
            self._end(c, ts + 10.5 + number, "", "none", inspected="until_tls")
        self.truth.gaps |= {
            "session without an end": 3,
            "session without a beginning": 1,
            "attempt without an outcome": 1,
            "not inspected: until_tls": 4,
        }

    # --- how it is written down -------------------------------------------------------------------------

    def _connection(self, address: str, tls: Tls | None) -> Connection:
        self._sessions += 1
        port = 995 if tls is not None else 110
        uid, client_port = f"C{self._sessions:08d}", self._random.randrange(1024, 65536)
        c = Connection(
            uid, address, client_port, "198.51.100.4", 110, f"tcp:{port}", "0.0.0.0", port
        )
        c.tls = tls
        return c

    def _session(
        self, address: str, ts: float, user: User, fetched: int = 0, deleted: int = 0
    ) -> None:
        """A login that succeeds, and what follows."""
        c = self._connection(address, user.tls)
        self._add(Connect(c, ts))
        self._add(Reply(c, ts, "OK", "ready"))
        self._add(Request(c, ts, "USER", user.name, Secret.NOTHING))
        self._add(LoginAttempt(c, ts + 0.1, user.name, "right", user.mechanism, 1), "right")
        self._add(LoginSuccess(c, ts + 0.2, user.name, "right", user.mechanism, 1), "right")
        tls = None if user.tls is None else user.tls.version
        login = Login(ts + 0.2, user.account, address, user.mechanism, tls, c.listener)
        self.truth.logins.append(login)
        self._end(c, ts + 1.5, user.name, "success", user.mechanism, fetched, deleted)

    def _guess(self, user: User, ts: float, passwords: list[str]) -> None:
        """A session whose logins fail."""
        c = self._connection(user.address, user.tls)
        self._add(Connect(c, ts))
        for number, password in enumerate(passwords, 1):
            when = ts + number * 0.1
            self._add(LoginAttempt(c, when, user.name, password, user.mechanism, number), password)
            failure = LoginFailure(
                *(c, when, user.name, password, user.mechanism, Reason.CREDENTIALS, "AUTH", number)
            )
            self._add(failure, password)
            tls = None if user.tls is None else user.tls.version
            self.truth.logins.append(
                Login(
                    *(when, user.account, user.address, user.mechanism, tls, c.listener),
                    *("credentials", "AUTH"),
                )
            )
        self._end(c, ts + 1.0, user.name, "failure", user.mechanism)

    def _end(
        self,
        c: Connection,
        ts: float,
        name: str,
        outcome: str,
        mechanism: str = "",
        fetched: int = 0,
        deleted: int = 0,
        inspected: str = "whole",
    ) -> None:
        sent, received = 60 + 10 * fetched, 200 + 5000 * fetched
        self._add(
            SessionEnd(
                *(c, ts, name, outcome, 4 + fetched + deleted, fetched, 0, deleted, sent, received),
                *(0.5, "client_closed", 0, inspected, mechanism, deleted, 0),
            )
        )
        self.truth.visits.append(
            Visit(
                *(ts, account(name), c.orig_h, outcome, fetched, deleted, deleted, sent, received)
            )
        )

    def _add(self, event: Event, password: str = "") -> None:
        record = line(masked(event))
        if password:
            # One that is the same for the same password, as the policy's keyed hash is.
            record = with_fingerprint(record, password.encode().hex()[-16:].rjust(16, "0"))
        # Times are written with six decimals.
        ts = round(event.ts, 6)
        self._records.append((ts, len(self._records), record))
        if not isinstance(event, (Policy, Reply, Request)):
            self.truth.times.append(ts)


def main() -> None:
    """Write the records of the attack day and of the days before it."""
    parser = argparse.ArgumentParser(description="Write the records of an attack day.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    AttackDay(given.seed).write(given.path)


if __name__ == "__main__":
    main()
