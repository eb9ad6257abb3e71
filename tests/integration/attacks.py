"""Attacks and mishaps, played to a real Dovecot with and without policy; run, it writes their table.

    python -m tests.integration.attacks              # all
    python -m tests.integration.attacks patient …    # these, by the names of their functions

Each scenario is a function of a Stage. What is counted: the wrong passwords of Dovecot's own log, and what
happened to logins with right ones. What the policy decides is pop3proxy's; nothing is judged here.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore

import pytest

from .dovecot import Account, Dovecot, Setting, running_dovecot
from .popclient import Attempt, PopClient
from .processes import eventually, stopped_at_the_end
from .proxy import CHECKOUT, start_proxy
from .turned import SharedClock

DOCUMENT = CHECKOUT / "docs" / "policy.md"
MORNING = 1_767_600_000.0
"""5 January 2026, 8:00 UTC: always the same, so that windows begin where they did the last time."""

MINUTE, HOUR, DAY = 60, 3600, 86400

SETTING = Setting("plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 apop")
"""The server that all is played to."""

SIDE_BY_SIDE = 10
CROWD = 8

_STARTING = BoundedSemaphore(3)
"""Proxies that start at a time: all at once, each takes longer than a start may take."""

POLICY = "[policy]\nban_jitter = 0.0  # or the table would come out differently each time\n"


@dataclass(slots=True)
class Logins:
    """What became of the logins of one honest person, or of several that are alike."""

    made: int = 0
    refused: int = 0
    longest_delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario came to."""

    tried: int
    seen: int
    honest: dict[str, Logins]
    said: set[str]
    """The rules that decided or logged something."""

    @property
    def refused(self) -> dict[str, Logins]:
        return {who: logins for who, logins in self.honest.items() if logins.refused}


def address(network: int, host: int = 1) -> str:
    """An address of 127.0.0.0/8; each ``network`` is a /24 of its own."""
    return f"127.{10 + network // 250}.{network % 250}.{host}"


@dataclass(slots=True)
class Stage:
    """A proxy with a clock, in front of Dovecot; who attacks it and who uses it."""

    server: Dovecot
    port: int
    clock: SharedClock
    crowd: ThreadPoolExecutor | None
    """Makes guesses side by side, where none depends on those before: Dovecot answers them twice a second."""
    tried: int = 0
    honest: dict[str, Logins] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    _guesses: list[Future[bool]] = field(default_factory=list)

    def account(self) -> Account:
        """Somebody new."""
        account = self.server.new_account()
        self.users.add(account.user)
        return account

    def guess(self, where: str, user: str, password: str, *mechanisms: str) -> None:
        """Try a wrong password in a session of its own, by USER and PASS or by some mechanisms."""
        log_in = partial(self._log_in, where, user, password, *mechanisms)
        self.tried += len(mechanisms) or 1
        if self.crowd is None:
            log_in()
        else:
            self._guesses.append(self.crowd.submit(log_in))

    def turn(self, seconds: float) -> None:
        """Let time pass; without policy it means nothing, and sessions may be open."""
        if self.crowd is None:
            self.clock.turn(seconds)

    def wait(self) -> None:
        """See all guesses through."""
        for guess in self._guesses:
            guess.result()

    def honest_login(self, who: str, where: str, account: Account) -> bool:
        """Log in with the right password; how that went is noted under ``who``."""
        logins = self.honest.setdefault(who, Logins())
        before = self.clock.now()
        accepted = self._log_in(where, account.user, account.password)
        logins.made += 1
        logins.refused += not accepted
        logins.longest_delay = max(logins.longest_delay, self.clock.now() - before)
        return accepted

    def honest_at_once(self, who: str, where: str, accounts: Sequence[Account]) -> None:
        """Log all of them in with their right passwords in the same moment, each in a session of its own."""
        logins = self.honest.setdefault(who, Logins())
        with ExitStack() as stack:
            clients = [stack.enter_context(PopClient(self.port, address=where)) for _ in accounts]
            for client, account in zip(clients, accounts, strict=True):
                assert client.ask(f"USER {account.user}")
            for client, account in zip(clients, accounts, strict=True):
                client.send(f"PASS {account.password}")
            for client in clients:
                logins.made += 1
                logins.refused += not client.line().startswith("+OK")

    def mistake(
        self, who: str, where: str, account: Account, password: str, *mechanisms: str
    ) -> None:
        """Mistype; only the wait counts as harm."""
        logins = self.honest.setdefault(who, Logins())
        before = self.clock.now()
        self.guess(where, account.user, password, *mechanisms)
        logins.longest_delay = max(logins.longest_delay, self.clock.now() - before)

    def _log_in(self, where: str, user: str, password: str, *mechanisms: str) -> bool:
        with PopClient(self.port, address=where) as client:
            if not client.greeting.startswith("+OK"):
                return False
            accepted = False
            for mechanism in mechanisms:
                accepted = client.log_in(Attempt(user, password, mechanism))
            if not mechanisms:
                accepted = client.ask(f"USER {user}") and client.ask(f"PASS {password}")
            client.send("QUIT")
            # To the end of the session: the next one begins behind it.
            client.read_to_the_end()
            return accepted

    def pipelined(self, where: str, user: str, passwords: Sequence[str]) -> None:
        """Try them all in one session, and wait for nothing."""
        self.tried += len(passwords)
        with PopClient(self.port, address=where) as client:
            client.send(*(f"USER {user}\r\nPASS {each}" for each in passwords), "QUIT")
            client.read_to_the_end()

    def at_once(self, guesses: Sequence[tuple[str, str, str]]) -> None:
        """Try each (where, user, password) in a session of its own, all at the same time."""
        self.tried += len(guesses)
        with ExitStack() as stack:
            clients = [
                stack.enter_context(PopClient(self.port, address=each[0])) for each in guesses
            ]
            for client, (_, user, _) in zip(clients, guesses, strict=True):
                assert client.ask(f"USER {user}")
            for client, (_, _, password) in zip(clients, guesses, strict=True):
                client.send(f"PASS {password}")
            for client in clients:
                client.line()


Play = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is played, and how it is told."""

    name: str
    title: str
    play: Play


SCENARIOS: list[Scenario] = []


def scenario(title: str) -> Callable[[Play], Play]:
    """List a function as a scenario."""

    def add(play: Play) -> Play:
        SCENARIOS.append(Scenario(play.__name__, title, play))
        return play

    return add


# --- who is there in all of them --------------------------------------------------------------------------


class Neighbours:
    """Ten users at addresses of their own, who log in each day."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._homes = [(address(2000 + number), stage.account()) for number in range(10)]
        self.log_in()
        stage.turn(DAY)

    def log_in(self) -> None:
        """All of them."""
        for where, account in self._homes:
            self._stage.honest_login("others", where, account)


class Owner:
    """Somebody whose account is attacked, who logged in from home the day before."""

    def __init__(self, stage: Stage, where: str = address(3000)) -> None:
        self._stage = stage
        self._where = where
        self.account = stage.account()
        self.log_in()
        stage.turn(DAY)

    @property
    def user(self) -> str:
        return self.account.user

    def log_in(self) -> None:
        """From home."""
        self._stage.honest_login("the owner", self._where, self.account)

    def travel(self) -> None:
        """Log in from where nobody logged in before."""
        self._stage.honest_login("the owner, at a new address", address(3001), self.account)

    def move(self, number: int) -> None:
        """Log in from an address that changes, as a phone's does."""
        where = address(3100 + number)
        self._stage.honest_login("the owner, at changing addresses", where, self.account)


# --- the scenarios ----------------------------------------------------------------------------------------


@scenario("Brute force: one address, one account, 500 passwords, one each 2 s")
def brute_force(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(500):
        stage.guess(address(0), owner.user, f"guess {number}")
        stage.turn(2)
        if number % 100 == 50:
            owner.log_in()
            owner.travel()
            others.log_in()


@scenario("Brute force by CRAM-MD5, DIGEST-MD5 and SCRAM-SHA-1 in turn, otherwise the same")
def hidden_brute_force(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(500):
        mechanism = ("CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1")[number % 3]
        stage.guess(address(0), owner.user, f"guess {number}", mechanism)
        stage.turn(2)
        if number % 100 == 50:
            owner.log_in()
            owner.travel()
            others.log_in()


@scenario("Password spraying: one address, 300 accounts, one password, one each 2 s")
def spraying(stage: Stage) -> None:
    others = Neighbours(stage)
    owners = [Owner(stage, address(3000 + number)) for number in range(3)]
    users = [owner.user for owner in owners] + [stage.account().user for _ in range(297)]
    for user in users:
        stage.guess(address(0), user, "Spring2026")
        stage.turn(2)
    for owner in owners:
        owner.log_in()
        owner.travel()
    others.log_in()


@scenario("Spraying from a botnet: 300 addresses, 300 accounts, one password, in an hour")
def spraying_botnet(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(300):
        user = owner.user if number == 150 else stage.account().user
        stage.guess(address(number), user, "Spring2026")
        stage.turn(12)
    owner.log_in()
    owner.travel()
    others.log_in()


@scenario("Distributed: 300 addresses, one account, one password each, in an hour")
def distributed(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(300):
        stage.guess(address(number), owner.user, f"guess {number}")
        stage.turn(12)
        if number % 100 == 50:
            owner.log_in()
            owner.travel()
            others.log_in()


@scenario(
    "One account, 30 addresses that change after 15 guesses each, one guess a minute for ten hours"
)
def changing_addresses(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(600):
        stage.guess(address(number // 15 % 30), owner.user, f"guess {number}")
        stage.turn(MINUTE)
        if number % 60 == 30:
            owner.log_in()
            owner.move(number // 60)
    others.log_in()


@scenario("Patient: one guess each 5 minutes, each from another address, for a day")
def patient(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(288):
        stage.guess(address(number), owner.user, f"guess {number}")
        stage.turn(5 * MINUTE)
        if number % 72 == 36:
            owner.log_in()
            others.log_in()


@scenario("A botnet that tries each stolen pair once: 100 addresses, accounts and passwords")
def stuffing(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(100):
        user = owner.user if number == 50 else stage.account().user
        stage.guess(address(number), user, f"stolen {number}")
        stage.turn(12)
    owner.log_in()
    owner.travel()
    others.log_in()


@scenario("A stale phone: one password 96 times in 8 hours, behind the address of an office of 20")
def stale_phone(stage: Stage) -> None:
    office = address(0)
    colleagues = [stage.account() for _ in range(19)]
    owner = Owner(stage, office)
    for number in range(96):
        stage.guess(office, owner.user, "the password before")
        stage.turn(5 * MINUTE)
        if number % 12 == 6:
            owner.log_in()
            for colleague in colleagues:
                stage.honest_login("colleagues", office, colleague)


@scenario(
    "A stale phone with CRAM-MD5, one try a minute for 8 hours; its owner is at the same address"
)
def stale_cram_phone(stage: Stage) -> None:
    office = address(0)
    colleague, owner = stage.account(), Owner(stage, office)
    for number in range(480):
        stage.guess(office, owner.user, "the password before", "CRAM-MD5")
        stage.turn(MINUTE)
        if number % 60 == 30:
            owner.log_in()
            owner.travel()
            stage.honest_login("colleagues", office, colleague)


@scenario("Lock-out: one address, 4 guesses an hour at one account, for two days")
def lock_out(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for hour in range(48):
        for number in range(4):
            stage.guess(address(0), owner.user, f"guess {hour} {number}")
            stage.turn(HOUR / 4)
        if hour % 24 == 12:
            owner.log_in()
            owner.travel()
            others.log_in()


@scenario("Lock-out from the owner's own address: 40 guesses by a colleague, one each 2 s")
def lock_out_inside(stage: Stage) -> None:
    office = address(0)
    colleagues = [stage.account() for _ in range(19)]
    for colleague in colleagues:
        stage.honest_login("colleagues", office, colleague)
    owner = Owner(stage, office)
    for number in range(40):
        stage.guess(office, owner.user, f"guess {number}")
        stage.turn(2)
        if number % 10 == 9:
            owner.log_in()
    for colleague in colleagues:
        stage.honest_login("colleagues", office, colleague)


@scenario("100 guesses in one session, without waiting for an answer")
def pipelined(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    stage.pipelined(address(0), owner.user, [f"guess {number}" for number in range(100)])
    owner.log_in()
    others.log_in()


@scenario("200 sessions of one address at once, one guess each")
def parallel(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    stage.at_once([(address(0), owner.user, f"guess {number}") for number in range(200)])
    owner.log_in()
    others.log_in()


@scenario("200 addresses at once, one guess each at one account")
def parallel_botnet(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    stage.at_once([(address(n), owner.user, f"guess {n}") for n in range(200)])
    owner.log_in()
    owner.travel()
    others.log_in()


@scenario("Slow: one address, one account, one guess each 10 minutes, two days")
def slow(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(288):
        stage.guess(address(0), owner.user, f"guess {number}")
        stage.turn(10 * MINUTE)
        if number % 72 == 36:
            owner.log_in()
            others.log_in()


@scenario("Slower than every limit: one guess each 40 minutes, two days")
def slower(stage: Stage) -> None:
    others, owner = Neighbours(stage), Owner(stage)
    for number in range(72):
        stage.guess(address(0), owner.user, f"guess {number}")
        stage.turn(40 * MINUTE)
    owner.log_in()
    others.log_in()


def _monday(stage: Stage, colleagues: Sequence[Account]) -> None:
    """Everybody in an office tries the old password first."""
    office = address(0)
    for number, colleague in enumerate(colleagues):
        stage.mistake("colleagues", office, colleague, f"old {number}")
        stage.honest_login("colleagues", office, colleague)
        stage.turn(MINUTE)


@scenario("No attack: an office of 40 tries its old passwords once each, known from the day before")
def office_known(stage: Stage) -> None:
    colleagues = [stage.account() for _ in range(40)]
    for colleague in colleagues:
        stage.honest_login("colleagues", address(0), colleague)
    stage.turn(DAY)
    _monday(stage, colleagues)


@scenario("No attack: the same, on the first day of the policy")
def office_new(stage: Stage) -> None:
    _monday(stage, [stage.account() for _ in range(40)])


@scenario("No attack: a webmail logs 40 accounts in at once from one address, three times")
def webmail(stage: Stage) -> None:
    accounts = [stage.account() for _ in range(40)]
    for _ in range(3):
        stage.honest_at_once("the webmail's users", address(0), accounts)
        stage.turn(5 * MINUTE)


@scenario(
    "No attack: an office of 25 logs in at nine o'clock, behind one address, of which five mistype once"
)
def nine_o_clock(stage: Stage) -> None:
    colleagues = [stage.account() for _ in range(25)]
    for number, colleague in enumerate(colleagues[:5]):
        stage.mistake("colleagues", address(0), colleague, f"typo {number}")
    stage.honest_at_once("colleagues", address(0), colleagues)


@scenario("No attack: somebody new mistypes four times, then logs in")
def mistyping(stage: Stage) -> None:
    account = stage.account()
    for number in range(4):
        stage.mistake("somebody new", address(0), account, f"typo {number}")
        stage.turn(5)
    stage.honest_login("somebody new", address(0), account)


@scenario("No attack: somebody new mistypes once, the program tries that by eight mechanisms")
def many_mechanisms(stage: Stage) -> None:
    account = stage.account()
    # Without NTLM, of which Dovecot's log does not say whose password was wrong.
    hidden = ("APOP", "SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5", "CRAM-MD5")
    mechanisms = (*hidden, "PLAIN", "LOGIN", "USER/PASS")
    stage.mistake("somebody new", address(0), account, "typo", *mechanisms)
    stage.honest_login("somebody new", address(0), account)


# --- how they are run -------------------------------------------------------------------------------------


@contextmanager
def staged(server: Dovecot, policy: bool) -> Iterator[Stage]:
    """Run a proxy with or without policy."""
    with tempfile.TemporaryDirectory(prefix="pop3-attacks-") as name:
        folder = Path(name)
        clock = SharedClock.made(folder / "clock", MORNING)
        configuration = folder / "proxy.toml"
        configuration.write_text(POLICY if policy else "")
        with ExitStack() as running:
            with _STARTING:
                proxy = start_proxy(
                    server.port,
                    folder / "events.jsonl",
                    folder / "log",
                    *("--config", str(configuration)),
                    program=("tests.integration.turned", str(folder / "clock")),
                )
                running.enter_context(stopped_at_the_end(proxy.process))
                port = proxy.port
            crowd = running.enter_context(ThreadPoolExecutor(CROWD))
            stage = Stage(server, port, clock, None if policy else crowd)
            yield stage
            stage.wait()
        proxy.assert_untroubled()
        records = map(json.loads, (folder / "events.jsonl").read_text("utf-8").splitlines())
        stage.said |= {each["rule"] for each in records if each["event"] == "pop3_policy"}
        clock.close()


def outcome(server: Dovecot, play: Play, policy: bool) -> Outcome:
    """Play a scenario."""
    with staged(server, policy) as stage:
        play(stage)
    return Outcome(stage.tried, _failures(server, stage.users), stage.honest, stage.said)


def outcomes(server: Dovecot, scenarios: Sequence[Scenario]) -> Iterator[tuple[Outcome, Outcome]]:
    """Play scenarios without and with policy, side by side: each has proxies and users of its own."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        # The longest first: those under policy guess one by one.
        under = [pool.submit(outcome, server, each.play, policy=True) for each in scenarios]
        without = [pool.submit(outcome, server, each.play, policy=False) for each in scenarios]
        for one, other in zip(without, under, strict=True):
            yield one.result(), other.result()


def _failures(server: Dovecot, users: Collection[str]) -> int:
    """How many wrong passwords of these the server saw: all are in its log once a later login is."""
    account = server.new_account()
    with PopClient(server.port) as client:
        assert client.ask(f"USER {account.user}")
        assert client.ask(f"PASS {account.password}")
        client.ask("QUIT")
    eventually(
        lambda: any(login.user == account.user for login in server.judged_logins()),
        "Dovecot writes its log",
    )
    return sum(not login.success for login in server.judged_logins() if login.user in users)


# --- how they are told ------------------------------------------------------------------------------------

HEAD = (
    "scenario | guesses | the server saw, without policy | with policy | honest logins refused"
    " | longest wait of somebody honest"
)


def row(what: Scenario, without: Outcome, under: Outcome) -> str:
    """One line of the table."""
    made = sum(logins.made for logins in under.honest.values())
    refused = sum(logins.refused for logins in under.honest.values())
    whose = ", ".join(
        f"{who} {logins.refused} of {logins.made}" for who, logins in under.refused.items()
    )
    hurt = f"{refused} of {made}" + (f": {whose}" if whose else "")
    wait = max(logins.longest_delay for logins in under.honest.values())
    cells = what.title, under.tried, without.seen, under.seen, hurt, f"{wait:g} s"
    return f"| {' | '.join(map(str, cells))} |\n"


def table(rows: Sequence[str]) -> str:
    return f"| {HEAD} |\n|{'---|' * 6}\n" + "".join(rows)


def _part() -> re.Match[str]:
    found = re.search(
        r"(<!-- attacks: [^\n]*-->\n)(.*?)(?=<!-- end -->)", DOCUMENT.read_text("utf-8"), re.S
    )
    assert found, "docs/policy.md has no part for the attacks"
    return found


def documented() -> str:
    """The table as the documentation has it."""
    return _part()[2]


def write(text: str) -> None:
    """Put the table into the documentation."""
    part = _part()
    DOCUMENT.write_text(part.string[: part.start(2)] + text + part.string[part.end(2) :], "utf-8")


def played(server: Dovecot, scenarios: Sequence[Scenario]) -> str:
    """Play some, and return the table; other rows stay as the documentation has them."""
    found = outcomes(server, scenarios)
    rows = {line.split(" | ")[0]: f"{line}\n" for line in documented().splitlines()}
    for each, both in zip(scenarios, found, strict=True):
        rows[f"| {each.title}"] = row(each, *both)
    return table([rows[f"| {each.title}"] for each in SCENARIOS if f"| {each.title}" in rows])


def main(names: Sequence[str]) -> int:
    known = {each.name: each for each in SCENARIOS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.stderr.write(
            f"attacks: there is no {', '.join(unknown)}; there are {', '.join(known)}\n"
        )
        return 2
    try:
        with running_dovecot(SETTING) as server:
            text = played(server, [known[name] for name in names] or SCENARIOS)
    except pytest.skip.Exception as problem:
        sys.stderr.write(f"attacks: {problem}\n")
        return 1
    sys.stdout.write(text)
    write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
