"""What rules count besides judged logins, in sessions that the analyzer and the guard read."""

import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from pop3proxy.analyzer.events import (
    ALL,
    Connect,
    Connection,
    Event,
    LoginAttempt,
    LoginFailure,
    Reason,
    SessionEnd,
    Tls,
)
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop, Hook
from pop3proxy.hooks.logging.records import line
from pop3proxy.hooks.policy.commands import PLAINTEXT_LOGINS, TLS_REQUIRED, CommandRules
from pop3proxy.hooks.policy.config import Policy, PolicyRule
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.policytest import test as policy_test

from ...proxy.pair import Pair

HOST = "192.0.2.1"  # of Pair's client
OTHER = "203.0.113.9"
NOW = 1000.0  # by Pair's clock
TODAY = 1_764_000_000.0


def rule(counts: str, action: str, count: int = 2, **more: Any) -> dict[str, Any]:
    limits = [{"count": count, "seconds": 3600.0}]
    return {"name": "r", "counts": counts, "limits": limits, "action": action, **more}


def ear(told: list[Event]) -> Hook:
    """Make a hook that keeps all that it hears."""

    def heard(self: Hook, event: Event) -> None:
        told.append(event)

    made: Hook = type("Ear", (Hook,), {kind.name: heard for kind in ALL})()
    return made


class Town:
    """A policy, and sessions one after the other."""

    def __init__(self, *rules: dict[str, Any], first: Sequence[Hook] = (), **more: Any) -> None:
        self.policy = FailedLogins(
            Policy.model_validate({"rules": rules, "ban_jitter": 0.0, **more}), live=False
        )
        self.told: list[Event] = []
        self.ended: list[str] = []
        self.hooks = (ear(self.told), *first, *self.policy.ears, self.policy)
        self.policy.end_sessions = self.ended.extend

    def session(self, *lines: tuple[bytes, bytes]) -> bytes:
        """Play a session: what the client says, and what the server answers; return all that came back."""
        pair = Pair(hooks=self.hooks)
        if not pair.client.disconnecting:
            pair.connect().server_says(b"+OK ready\r\n")
            for said, answer in lines:
                before = pair.server_got
                pair.client_says(said + b"\r\n")
                if pair.server_got != before:
                    pair.server_says(answer + b"\r\n")
        written = pair.client_got
        pair.session.end("client_closed")
        pair.both_gone()
        return written.removeprefix(b"+OK ready\r\n")

    def decisions(self) -> list[tuple[str, str, int]]:
        return [
            (event.action, event.key, event.count)
            for event in self.told
            if isinstance(event, PolicyEvent)
        ]


REFUSED = (b"USER nobody", b"-ERR no such user")
UNKNOWN = (b"XFOO", b"-ERR what")
PLAINTEXT = CommandRules([PLAINTEXT_LOGINS])

WAYS: dict[str, Callable[[Town], object]] = {
    "refused_users": lambda town: town.session(REFUSED),
    "denied": lambda town: town.session((b"USER bob", b"")),
    "connections": lambda town: town.session(),
    "unknown_commands": lambda town: town.session(UNKNOWN),
    "handshakes_failed": lambda town: town.policy.handshake_failed(
        Connection("C1", HOST, 1, "198.51.100.4", 110, "tcp:995"), NOW
    ),
    "opaque_sessions": lambda town: town.session((b"STLS", b"+OK begin")),
}
"""How a client does once what is counted."""


def town_that_counts(counts: str, action: str, **more: Any) -> Town:
    first = (PLAINTEXT,) if counts == "denied" else ()
    return Town(rule(counts, action, **more), first=first)


@pytest.mark.parametrize("counts", WAYS)
def test_so_many_are_let_through_and_then_the_address_is_denied_at_connect(counts: str) -> None:
    town = town_that_counts(counts, "deny", reply="-ERR enough")
    for _ in range(2):
        assert WAYS[counts](town) != b"-ERR enough\r\n"
    assert town.session(REFUSED) == b"-ERR enough\r\n"
    assert ("deny", f"address:{HOST}") in [decision[:2] for decision in town.decisions()]


@pytest.mark.parametrize("counts", WAYS)
def test_a_ban_holds_from_the_last_of_them_on(counts: str) -> None:
    town = town_that_counts(counts, "ban")
    WAYS[counts](town)
    assert town.decisions() == []
    WAYS[counts](town)
    assert town.session(REFUSED).startswith(b"-ERR [SYS/TEMP] Too many failed logins")
    (ban,) = town.policy.store.bans(NOW)
    assert (ban.key, ban.rule) == (f"address:{HOST}", "r")
    assert f"{counts} 2 of 2" in ban.evidence[0]


@pytest.mark.parametrize("counts", WAYS)
def test_a_rule_can_only_say_it(counts: str) -> None:
    town = town_that_counts(counts, "log")
    for _ in range(4):
        WAYS[counts](town)
    town.session()
    known = [decision for decision in town.decisions() if decision[0] == "log"]
    # A client without a session has no other that would hear of it.
    assert known in ([("log", f"address:{HOST}", 2)], [])
    assert bool(known) is (counts != "handshakes_failed")


@pytest.mark.parametrize("counts", WAYS)
@pytest.mark.parametrize("action", ["deny", "ban", "drop", "delay"])
def test_a_dry_run_does_nothing(counts: str, action: str) -> None:
    town = town_that_counts(counts, action, dry_run=True)
    for _ in range(4):
        WAYS[counts](town)
    told = TLS_REQUIRED.line if counts == "denied" else b"-ERR no such user\r\n"
    assert town.session(REFUSED) == told
    assert town.ended == []
    assert not town.policy.counts[action]


def connect(town: Town, host: str = HOST, listener: str = "tcp:110") -> Any:
    c = Connection("Cx", host, 1, "198.51.100.4", 110, listener)
    return town.policy.pop3_connect(Connect(c, NOW))


PASSWORDS = map(str, count())
"""Each is tried once, since the same password again would be held."""


def attempt(town: Town, host: str = HOST, user: str = "bob") -> Any:
    c = Connection("Cx", host, 1, "198.51.100.4", 110)
    return town.policy.pop3_login_attempt(LoginAttempt(c, NOW, user, next(PASSWORDS), "PLAIN"))


def fail(town: Town, host: str = HOST, user: str = "bob") -> None:
    c = Connection("Cx", host, 1, "198.51.100.4", 110)
    failure = LoginFailure(c, NOW, user, next(PASSWORDS), "PLAIN", Reason.CREDENTIALS)
    town.policy.pop3_login_failure(failure)


def guess(number: int) -> list[tuple[bytes, bytes]]:
    """Return the lines of a wrong login, each time with another password."""
    return [(b"USER bob", b"+OK"), (b"PASS x%d" % number, b"-ERR [AUTH] no")]


def log_in(town: Town) -> None:
    town.session((b"USER bob", b"+OK"), (b"PASS secret", b"+OK in"))


def test_a_connection_over_the_limit_is_dropped() -> None:
    town = Town(rule("connections", "drop"))
    assert [connect(town) for _ in range(4)] == [PASS, PASS, Drop(), Drop()]
    assert connect(town, OTHER) is PASS


def test_each_further_connection_waits_twice_as_long() -> None:
    town = Town(rule("connections", "delay", delay=1.0, delay_max=3.0))
    assert [connect(town) for _ in range(5)] == [PASS, PASS, Delay(1.0), Delay(2.0), Delay(3.0)]


def test_without_a_reply_of_its_own_a_rule_tells_a_connection_what_a_ban_tells_it() -> None:
    town = Town(rule("connections", "deny", 1))
    assert [connect(town) for _ in range(2)] == [PASS, Deny(town.policy.policy.banned_reply)]


@pytest.mark.parametrize(
    ("by", "same", "key"),
    [
        ("address", [HOST], f"address:{HOST}"),
        ("network", [HOST, "192.0.2.77"], "network:192.0.2.0/24"),
        ("listener", [HOST, OTHER], "listener:tcp:110"),
    ],
)
def test_connections_are_counted_by_what_a_rule_says(by: str, same: list[str], key: str) -> None:
    town = Town(rule("connections", "deny", len(same), by=by))
    said: list[PolicyEvent] = []
    town.policy.emit = said.append  # type: ignore[assignment]
    assert [connect(town, host) for host in same] == [PASS] * len(same)
    assert isinstance(connect(town, same[-1]), Deny)
    assert [event.key for event in said] == [key]
    assert connect(town, "198.51.100.77", "tcp:995") is PASS


def test_an_address_from_which_somebody_logged_in_may_connect_and_its_users_log_in() -> None:
    town = Town(rule("unknown_commands", "deny"))
    log_in(town)
    for _ in range(3):
        town.session(UNKNOWN)
    assert connect(town) is PASS
    assert attempt(town) is PASS
    assert attempt(town, user="alice") == Deny()


def test_an_address_from_which_somebody_logged_in_is_not_banned_for_what_is_counted() -> None:
    town = Town(rule("unknown_commands", "ban"))
    log_in(town)
    for _ in range(4):
        town.session(UNKNOWN)
    assert town.policy.store.bans(NOW) == []
    assert town.policy.counts["ban_spared"] == 3


def test_a_login_waits_no_longer_than_its_rules_say_and_is_still_counted() -> None:
    town = Town(
        rule("unknown_commands", "delay", 1, delay=2.0),
        {**rule("failures", "deny", 1), "name": "f"},
    )
    town.session(UNKNOWN)
    assert attempt(town) == Delay(2.0)
    fail(town)
    assert attempt(town) == Deny()


def test_a_session_with_one_unknown_command_too_many_is_dropped() -> None:
    town = Town(rule("unknown_commands", "drop"))
    town.session(UNKNOWN, UNKNOWN)
    assert town.ended == []
    other = Town(rule("unknown_commands", "drop"))
    other.session(UNKNOWN, UNKNOWN, UNKNOWN)
    assert other.ended == ["Cuid"]
    assert ("drop", f"address:{HOST}", 3) in other.decisions()


def test_a_ban_ends_the_session_that_caused_it() -> None:
    town = Town(rule("refused_users", "ban"))
    town.session(REFUSED, REFUSED, REFUSED)
    assert set(town.ended) == {"Cuid"}


def test_who_is_allowed_is_not_counted() -> None:
    town = Town(rule("connections", "deny", 1), allow=["192.0.2.0/24"])
    assert [connect(town) for _ in range(3)] == [PASS] * 3


def test_clients_without_an_address_are_counted_by_their_listener_alone() -> None:
    town = Town(
        rule("connections", "deny", 1),
        {**rule("connections", "log", 2, by="listener"), "name": "l"},
    )
    said: list[PolicyEvent] = []
    town.policy.emit = said.append  # type: ignore[assignment]
    for _ in range(2):
        c = Connection("Cx", "192.0.2.99", 1, "198.51.100.4", 110, "tcp:110", orig_unknown=True)
        assert town.policy.pop3_connect(Connect(c, NOW)) is PASS
    assert [(event.rule, event.key) for event in said] == [("l", "listener:tcp:110")]


def test_bans_remove_lets_an_address_in_again_for_a_time() -> None:
    town = Town(rule("connections", "ban", 1))
    connect(town)
    assert isinstance(connect(town), Deny)
    town.policy.engine.unban(f"address:{HOST}", NOW)
    assert [connect(town) for _ in range(3)] == [PASS] * 3


def test_counts_and_bars_are_bounded_by_the_store() -> None:
    town = Town(rule("connections", "deny", 1), max_keys=100)
    for number in range(1000):
        connect(town, f"198.18.{number // 256}.{number % 256}")
    assert len(getattr(town.policy.store, "counters")) == 100  # noqa: B009


# --- what is one, and what is none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "lines", "times"),
    [
        ("refused_users", [REFUSED, REFUSED], 2),
        ("refused_users", [(b"USER bob", b"+OK"), (b"PASS x", b"-ERR [AUTH] no")], 0),
        ("refused_users", [(b"USER bob", b"+OK"), (b"CAPA", b"-ERR what")], 0),
        ("unknown_commands", [UNKNOWN, (b"hello there", b""), (b"", b"")], 3),
        ("unknown_commands", [(b"NOOP", b"-ERR not now"), (b"CAPA", b"-ERR")], 0),
        (
            "unknown_commands",
            [(b"USER bob", b"+OK"), (b"PASS x", b"+OK in"), (b"XFOO", b"-ERR what")],
            0,
        ),
        ("denied", [(b"USER bob", b"+OK"), (b"PASS x", b"-ERR [AUTH] no")], 0),
        ("denied", [UNKNOWN], 0),
        ("opaque_sessions", [(b"USER bob", b"+OK"), (b"PASS x", b"+OK in")], 0),
        ("opaque_sessions", [(b"STLS", b"-ERR no")], 0),
    ],
)
def test_what_is_counted(counts: str, lines: list[tuple[bytes, bytes]], times: int) -> None:
    town = Town(*(rule(counts, "log", n + 1) | {"name": f"r{n}"} for n in range(4)))
    town.session(*lines)
    assert [decision[2] for decision in town.decisions()] == [n + 1 for n in range(times)]


class Doorkeeper(Hook):
    """Denies each login that it is asked about."""

    blocking = True

    def pop3_login_attempt(self, event: LoginAttempt) -> Deny:
        return Deny("-ERR not today")


@pytest.mark.parametrize("lines", [1, 2], ids=["PASS", "AUTH"])
def test_a_login_that_a_hook_denies_is_counted_once(lines: int) -> None:
    town = Town(
        *(rule("denied", "log", n + 1) | {"name": f"r{n}"} for n in range(4)),
        first=(Doorkeeper(),),
    )
    talk = [(b"USER bob", b"+OK"), (b"PASS x", b"")]
    town.session(*(talk if lines == 1 else [(b"AUTH PLAIN AGJvYgBodW50ZXIy", b"")]))
    assert [decision[2] for decision in town.decisions()] == [1]


def test_what_the_policy_itself_denies_is_not_counted_as_denied() -> None:
    town = Town(rule("failures", "deny", 1), rule("denied", "ban", 1) | {"name": "d"})
    for number in range(4):
        assert town.session(*guess(number)) in (
            b"+OK\r\n-ERR [AUTH] no\r\n",
            b"+OK\r\n" + Deny().line,
        )
    assert {decision[0] for decision in town.decisions()} == {"deny"}


# --- the configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"by": "user"},
            'cannot be counted by user; write "address", "network", "listener" or "ja4"',
        ),
        ({"by": "password"}, "cannot be counted by password"),
        ({"user": "bob"}, "user: has no meaning where connections are counted; leave it out"),
        ({"reasons": ["account"]}, "reasons: has no meaning where connections are counted"),
        ({"action": "ban", "ban": "user"}, 'are of clients; ban "address" or "network"'),
        (
            {"action": "ban", "by": "listener"},
            "by listener is of many clients; it can deny, and ban nobody",
        ),
        ({"action": "ban", "by": "ja4"}, "by ja4 is of many clients; it can deny, and ban nobody"),
        (
            {"counts": "handshakes_failed", "by": "ja4"},
            "which is known only of those that succeed; choose another",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PolicyRule.model_validate(rule("connections", "log") | more)
    assert said in str(caught.value)


def test_nothing_is_overheard_that_no_rule_counts() -> None:
    assert Town(rule("failures", "deny")).policy.ears == ()
    assert Town(rule("connections", "deny")).policy.ears == ()
    assert len(Town(rule("denied", "deny")).policy.ears) == 1


# --- policy test ------------------------------------------------------------------------------------------


def judged(tmp_path: Path, town: Town, *rules: str) -> Any:
    """Try rules on the log of what was told."""
    log, config = tmp_path / "log.jsonl", tmp_path / "test.toml"
    number = 0
    with log.open("wb") as file:
        for event in town.told:
            file.write(line(event).replace(b'"Cuid"', b'"C%d"' % number))
            if isinstance(event, SessionEnd):
                number += 1
    tables = (
        f'[[policy.rules]]\nname = "{name}"\ncounts = "{name}"\naction = "ban"\n'
        "limits = [{ count = 2, seconds = 3600 }]\n"
        for name in rules
    )
    config.write_text("".join(tables))
    given = [str(log), "--config", str(config)]
    return CliRunner().invoke(policy_test, given, standalone_mode=False)


@pytest.mark.parametrize("counts", sorted(set(WAYS) - {"handshakes_failed"}))
def test_an_old_log_is_judged_as_it_would_have_been(tmp_path: Path, counts: str) -> None:
    town = town_that_counts(counts, "log", count=100)
    for _ in range(2):
        WAYS[counts](town)
    result = judged(tmp_path, town, counts)
    assert (result.return_value, result.exception) == (0, None)
    (decision, *_) = map(json.loads, result.stdout.splitlines())
    assert (decision["action"], decision["counted"], decision["count"]) == ("ban", counts, 2)


def test_what_the_policy_of_the_time_denied_is_not_counted_as_denied(tmp_path: Path) -> None:
    town = Town(rule("failures", "deny", 1))
    for number in range(4):
        town.session(*guess(number))
    assert {decision[0] for decision in town.decisions()} == {"deny"}
    assert judged(tmp_path, town, "denied").stdout == ""


def test_handshakes_before_a_session_are_in_no_log(tmp_path: Path) -> None:
    town = Town(rule("failures", "deny", 1))
    town.session()
    result = judged(tmp_path, town, "handshakes_failed")
    assert "handshakes_failed  not judged: the log says too little" in result.stderr


# --- by the client's program --------------------------------------------------------------------------------


def over_tls(host: str, ja4: str) -> Connection:
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", ja4=ja4)
    return Connection("Cx", host, 1, "198.51.100.4", 110, tls=tls)


BOTNET, MAILER = "t13d1516h2_8daaf6152771_e5627efa2ab1", "t13d1011p3_61a7ad8aa9b6_3fcd1a44f3e3"


def test_guesses_of_one_program_are_counted_from_all_addresses_and_users() -> None:
    town = Town(rule("addresses", "deny", 2, by="ja4"), {**rule("failures", "log"), "name": "l"})
    said: list[PolicyEvent] = []
    town.policy.emit = said.append  # type: ignore[assignment]

    def tried(host: str, ja4: str) -> Any:
        c, password = over_tls(host, ja4), next(PASSWORDS)
        verdict = town.policy.pop3_login_attempt(LoginAttempt(c, TODAY, host, password, "PLAIN"))
        if verdict is PASS:
            failure = LoginFailure(c, TODAY, host, password, "PLAIN", Reason.CREDENTIALS)
            town.policy.pop3_login_failure(failure)
        return verdict

    hosts = [f"192.0.2.{number}" for number in range(4)]
    assert [tried(host, BOTNET) for host in hosts] == [PASS, PASS, Deny(), Deny()]
    assert [tried(host, MAILER) for host in hosts[:2]] == [PASS, PASS]
    assert {event.key for event in said if event.rule == "r"} == {f"ja4:{BOTNET}"}
    # A client without TLS, or whose TLS ended elsewhere, has none.
    assert attempt(town) is PASS


def test_connections_of_one_program_are_counted() -> None:
    town = Town(rule("connections", "deny", 2, by="ja4"))
    verdicts = [
        town.policy.pop3_connect(Connect(over_tls(f"192.0.2.{number}", ja4), NOW))
        for ja4 in (BOTNET, MAILER)
        for number in range(3)
    ]
    assert [verdict is PASS for verdict in verdicts] == [True, True, False] * 2


@pytest.mark.parametrize("known", [True, False])
def test_an_old_log_is_judged_by_the_programs_that_it_names(tmp_path: Path, known: bool) -> None:
    log, config = tmp_path / "log.jsonl", tmp_path / "test.toml"
    with log.open("wb") as file:
        for number in range(3):
            c = over_tls(f"192.0.2.{number}", BOTNET if known else "")
            c.uid = f"C{number}"
            for event in (
                LoginAttempt(c, NOW, "bob", f"{number}", "PLAIN"),
                LoginFailure(c, NOW, "bob", f"{number}", "PLAIN", Reason.CREDENTIALS),
            ):
                file.write(line(event))
    config.write_text(
        '[[policy.rules]]\nname = "r"\nby = "ja4"\naction = "deny"\n'
        "limits = [{ count = 2, seconds = 3600 }]\n"
    )
    given = [str(log), "--config", str(config)]
    result = CliRunner().invoke(policy_test, given, standalone_mode=False)
    assert result.return_value == 0
    decided = [json.loads(text)["key"] for text in result.stdout.splitlines()]
    assert decided == ([f"ja4:{BOTNET}"] if known else [])
    assert ("r     not judged: the log says too little" in result.stderr) is not known
