"""Traps, the files of users and of aliases: how they are read, and what attempts at such names do."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.analyzer.events import Connection, LoginAttempt, LoginFailure, LoginSuccess, Reason
from pop3proxy.analyzer.events import Policy as PolicyEvent
from pop3proxy.config import ConfigError, load
from pop3proxy.hooks.api import PASS, Deny
from pop3proxy.hooks.policy import accounts, watchedfiles
from pop3proxy.hooks.policy.accounts import MAX_LINE
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.watchedfiles import LOOK_EVERY, PolicyFileError
from pop3proxy.loading import load_hooks
from pop3proxy.policytest import test as policy_test

from .test_occurrences import HOST, NOW, PASSWORDS, Town, rule

NO_RULES: dict[str, Any] = {"rules": [rule("failures", "log", 1000)]}


def hook(**more: Any) -> FailedLogins:
    return FailedLogins(Policy.model_validate({**NO_RULES, **more}), live=False)


def attempt(policy: FailedLogins, user: str, host: str = HOST, **more: Any) -> Any:
    c = Connection("Cx", host, 1, "198.51.100.4", 110, **more)
    return policy.pop3_login_attempt(LoginAttempt(c, NOW, user, next(PASSWORDS), "PLAIN"))


def banned(policy: FailedLogins) -> list[str]:
    return [ban.key for ban in policy.store.bans(NOW)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "names"


# --- traps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traps", "users", "tried", "caught"),
    [
        (["admin"], {}, "admin", True),
        (["admin"], {}, "ADMIN ", True),
        (["Admin"], {}, "admin", True),
        (["admin"], {"ignore_case": False}, "ADMIN", False),
        (["admin"], {}, "admin2", False),
        (["admin"], {}, "sysadmin", False),
        (["admin"], {"default_domain": "example.org"}, "admin@example.org", True),
        (["admin"], {"default_domain": "example.org"}, "admin@example.com", False),
        (["admin"], {"drop_domain": True}, "admin@example.com", True),
        (["test*"], {}, "TEST7", True),
        (["test*"], {"default_domain": "example.org"}, "test7", True),
        (["test*"], {"default_domain": "example.org"}, "test7@example.com", False),
        (["*@old.example.org"], {}, "bob@old.example.org", True),
        (["test*@example.org"], {"drop_domain": True}, "test1", True),
        (["a.c"], {}, "abc", False),
        (["bob?", "[xy]z"], {}, "xz", True),
        (["bob"], {"master_separator": "*"}, "bob*master", True),
        (["admin"], {}, "", False),
    ],
)
def test_a_trap_is_known_by_any_spelling_of_it(
    traps: list[str], users: dict[str, Any], tried: str, caught: bool
) -> None:
    policy = hook(trap_users=traps, users=users)
    assert (attempt(policy, tried) == Deny()) is caught
    assert bool(banned(policy)) is caught


def test_an_attempt_at_a_trap_bans_its_address_for_a_day() -> None:
    policy = hook(trap_users=["admin"], ban_jitter=0.0)
    assert attempt(policy, "admin") == Deny()
    (ban,) = policy.store.bans(NOW)
    assert (ban.key, ban.rule, ban.until - ban.since) == (f"address:{HOST}", "trap-users", 86400)
    assert attempt(policy, "bob") == Deny()
    assert attempt(policy, "bob", "203.0.113.9") is PASS


def test_a_trap_at_user_is_enough_and_ends_the_session() -> None:
    town = Town(rule("failures", "log"), trap_users=["admin"])
    town.session((b"USER admin", b"-ERR no such user"))
    assert town.ended == ["Cuid"]
    assert banned(town.policy) == [f"address:{HOST}"]
    assert town.decisions() == [("ban", f"address:{HOST}", 1)]


def test_no_password_at_a_trap_reaches_the_server_from_an_address_that_is_not_banned_for_it() -> (
    None
):
    policy = hook(trap_users=["admin"])
    said: list[Any] = []
    policy.emit = said.append
    c = Connection("Cx", HOST, 1, "198.51.100.4", 110)
    policy.pop3_login_success(LoginSuccess(c, NOW, "bob", "secret", "PLAIN"))
    for unknown in (False, True):
        assert attempt(policy, "admin", orig_unknown=unknown) == Deny()
        event = said.pop()
        assert isinstance(event, PolicyEvent)
        assert (event.rule, event.action, event.key) == ("trap-users", "deny", "user:admin")
    assert banned(policy) == []
    assert attempt(policy, "bob") is PASS


def test_a_rule_of_one_s_own_takes_the_place_of_that_of_traps() -> None:
    policy = hook(rules=[rule("trap_users", "log", 1)], trap_users=["admin"])
    said: list[Any] = []
    policy.emit = said.append
    assert attempt(policy, "admin") is PASS
    assert [(event.rule, event.action) for event in said] == [("r", "log")]
    assert banned(policy) == []


def test_a_trap_in_a_dry_run_only_says_it() -> None:
    policy = hook(trap_users=["admin"], dry_run=True)
    said: list[Any] = []
    policy.emit = said.append
    assert attempt(policy, "admin") is PASS
    assert [(event.action, event.dry_run) for event in said] == [("ban", True)]


def test_who_is_allowed_may_try_a_trap() -> None:
    assert attempt(hook(trap_users=["admin"], allow=["192.0.2.0/24"]), "admin") is PASS


def test_the_name_of_the_rule_of_traps_is_taken() -> None:
    with pytest.raises(ValidationError, match="call yours another name"):
        hook(rules=[{**rule("failures", "log"), "name": "trap-users"}], trap_users=["admin"])


@pytest.mark.parametrize("key", ["users_file", "aliases_file"])
def test_an_account_that_is_a_trap_is_refused_since_its_owner_would_be_banned(
    file: Path, key: str
) -> None:
    file.write_text("sales: bob\n" if key == "aliases_file" else "alice\nsales\n")
    with pytest.raises(PolicyFileError, match=r'"sales" in .* is one of policy\.trap_users'):
        hook(trap_users=["s*s"], **{key: str(file)})


# --- the file of users --------------------------------------------------------------------------------------


def unknown(file: Path, action: str, count: int = 2, **more: Any) -> FailedLogins:
    return hook(rules=[rule("unknown_users", action, count)], users_file=str(file), **more)


def test_attempts_at_names_without_account_count_apart(file: Path) -> None:
    file.write_text("# staff\nbob\n\n  Alice  \n")
    policy = unknown(file, "deny")
    for _ in range(4):
        assert attempt(policy, "bob") is PASS
        assert attempt(policy, "ALICE") is PASS
    assert [attempt(policy, name) for name in ("eve", "mallory")] == [PASS, PASS]
    assert attempt(policy, "trent") == Deny()
    # By then the address is no stranger's that may try others.
    assert attempt(policy, "bob") == Deny()
    assert attempt(policy, "bob", "203.0.113.9") is PASS


def test_a_name_without_account_can_ban_before_the_server_sees_it(file: Path) -> None:
    file.write_text("bob\n")
    policy = unknown(file, "ban")
    assert [attempt(policy, name) for name in ("eve", "mallory")] == [PASS, Deny()]
    assert banned(policy) == [f"address:{HOST}"]


def test_a_name_without_account_that_the_server_refuses_at_user_counts_once(file: Path) -> None:
    file.write_text("bob\n")
    rules = [rule("unknown_users", "log", n + 1) | {"name": f"r{n}"} for n in range(3)]
    town = Town(*rules, users_file=str(file))
    town.session((b"USER eve", b"-ERR no"), (b"USER bob", b"-ERR no"))
    assert [decision[2] for decision in town.decisions()] == [1]


def test_names_of_the_file_are_read_as_those_of_clients(file: Path) -> None:
    file.write_bytes("bob\nM\u00fcller@Example.org\n".encode() + b"\xff\xfe@example.org\n")
    policy = unknown(file, "deny", 1, users={"default_domain": "example.org"})
    for name in ("bob@EXAMPLE.org", "m\u00fcller", "\udcff\udcfe"):
        assert attempt(policy, name) is PASS
        assert attempt(policy, name) is PASS


def test_a_login_without_a_name_is_no_unknown_user(file: Path) -> None:
    file.write_text("bob\n")
    policy = unknown(file, "deny", 1)
    assert [attempt(policy, "") for _ in range(3)] == [PASS] * 3


def test_a_rule_for_unknown_users_needs_the_file() -> None:
    with pytest.raises(ValidationError, match="users_file: is missing, and a rule counts"):
        hook(rules=[rule("unknown_users", "deny")])


# --- the file of aliases ------------------------------------------------------------------------------------


def test_many_names_are_one_account(file: Path) -> None:
    file.write_text(
        "# Postfix\nsales: bob\ninfo: sales\nBob.Smith@example.org bob\n"
        'root:\n   bob\nstaff: bob, alice\nlist: bob,\n\talice\n"quoted": bob\n'
        "prog: |/usr/bin/vacation\narchive: /var/mail/x\nboth  bob alice\n"
    )
    users = hook(aliases_file=str(file)).engine.users
    for name in ("sales", "INFO", "bob.smith@example.org", "root", "quoted", "bob"):
        assert users.key(name) == "bob"
    for name in ("staff", "list", "prog", "archive", "both", "alice"):
        assert users.key(name) == name


def test_failures_at_an_alias_count_for_its_account(file: Path) -> None:
    file.write_text("sales: bob\n")
    policy = hook(rules=[rule("failures", "deny", 1, by="user")], aliases_file=str(file))
    c = Connection("Cx", HOST, 1, "198.51.100.4", 110)
    policy.pop3_login_failure(LoginFailure(c, NOW, "sales", "wrong", "PLAIN", Reason.CREDENTIALS))
    assert isinstance(attempt(policy, "bob", "203.0.113.9"), Deny)


def test_an_alias_of_an_account_is_no_unknown_user(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("bob\n")
    (tmp_path / "aliases").write_text("sales: bob\nother: nobody\n")
    policy = hook(
        rules=[rule("unknown_users", "deny", 1)],
        users_file=str(tmp_path / "users"),
        aliases_file=str(tmp_path / "aliases"),
    )
    assert [attempt(policy, "sales") for _ in range(3)] == [PASS] * 3
    assert [attempt(policy, "other") for _ in range(2)] == [PASS, Deny()]


# --- files that cannot be used ------------------------------------------------------------------------------

BAD = [
    ("users_file", None, "cannot read .*: No such file or directory; name a file that we may read"),
    ("users_file", "", "has no names; write one a line"),
    ("users_file", "# nobody\n", "has no names; write one a line"),
    ("users_file", "bob\n" + "x" * (MAX_LINE + 1), "line 2 of .* is no name; write one a line, of"),
    ("users_file", "bob\0\n", "line 1 of .* is no name"),
    ("aliases_file", None, "cannot read .*: No such file"),
    ("aliases_file", "sales\n", 'line 1 of .* is no alias; write it like "sales: bob"'),
    ("aliases_file", "a: b\n: bob\n", "line 2 of .* is no alias"),
    ("aliases_file", "a: b\nb: c\nc: a\n", '"a" in .* leads to no account .*; take the circle out'),
]


@pytest.mark.parametrize(("key", "text", "said"), BAD)
def test_a_bad_file_is_a_mistake_of_the_configuration(
    tmp_path: Path, file: Path, key: str, text: str | None, said: str
) -> None:
    if text is not None:
        file.write_text(text)
    config = tmp_path / "test.toml"
    config.write_text(
        f'listen = ["tcp:0"]\nupstream = "tcp:localhost:110"\n[policy]\n{key} = "{file}"\n'
    )
    with pytest.raises(ConfigError, match=f"^policy.{key}: .*{said}") as caught:
        load_hooks(load(str(config), {}))
    assert len(caught.value.mistakes) == 1
    log = tmp_path / "log.jsonl"
    log.write_text("")
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(
            policy_test,
            [str(log), "--config", str(config)],
            standalone_mode=False,
            catch_exceptions=False,
        )


def test_a_file_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_NAMES", 3)
    file.write_text("a\nb\nc\n")
    hook(users_file=str(file))
    file.write_text("a\nb\nc\nd\n")
    with pytest.raises(PolicyFileError, match="has more than 3 lines"):
        hook(users_file=str(file))


# --- changes ------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FailedLogins, Clock]:
    """A policy that knows bob, and a clock by which it looks at its file."""
    monkeypatch.setattr(watchedfiles, "deferToThread", maybeDeferred)
    file.write_text("bob\n")
    policy = FailedLogins(
        Policy.model_validate({"rules": [rule("unknown_users", "log")], "users_file": str(file)})
    )
    clock = Clock()
    policy.start(clock)
    return policy, clock


def write(file: Path, text: str) -> None:
    """Write a file anew, as an editor does: under another name first."""
    new = file.with_name("new")
    new.write_text(text)
    os.replace(new, file)


def test_a_file_that_changes_is_read_again(watched: tuple[FailedLogins, Clock], file: Path) -> None:
    policy, clock = watched
    write(file, "bob\neve\n")
    assert policy.accounts.is_unknown("eve")
    with capturedLogs() as events:
        clock.advance(LOOK_EVERY)
        clock.advance(LOOK_EVERY)
    assert not policy.accounts.is_unknown("eve")
    said = [formatEvent(event) for event in events]
    assert said == [f"policy: {file} read again: 2 accounts, 0 aliases"]
    policy.stop()
    assert clock.getDelayedCalls() == []


def test_a_file_is_read_again_when_the_operator_says_so(
    watched: tuple[FailedLogins, Clock], file: Path
) -> None:
    policy, _ = watched
    write(file, "eve\n")
    policy.reopen()
    assert policy.accounts.is_unknown("bob")
    policy.stop()


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_file_that_is_bad_later_is_said_once_and_what_was_read_stays(
    watched: tuple[FailedLogins, Clock], file: Path, how: str
) -> None:
    policy, clock = watched
    if how == "gone":
        file.unlink()
    else:
        write(file, "")
    with capturedLogs() as events:
        clock.pump([LOOK_EVERY] * 5)
    (said,) = [str(formatEvent(event)) for event in events]
    assert said.startswith("policy.users_file: ")
    assert said.endswith("; what was read before stays in use")
    assert policy.accounts.is_unknown("eve")
    assert not policy.accounts.is_unknown("bob")
    write(file, "eve\n")
    clock.advance(LOOK_EVERY)
    assert policy.accounts.is_unknown("bob")
    policy.stop()


def test_an_old_log_is_judged_by_the_names_of_today(tmp_path: Path, file: Path) -> None:
    file.write_text("bob\n")
    config, log = tmp_path / "test.toml", tmp_path / "log.jsonl"
    config.write_text(
        f'[policy]\nusers_file = "{file}"\ntrap_users = ["admin"]\n'
        '[[policy.rules]]\nname = "r"\ncounts = "unknown_users"\naction = "ban"\n'
        "limits = [{ count = 1, seconds = 60 }]\n"
    )
    lines = []
    for number, user in enumerate(("bob", "eve", "admin")):
        ids = {"id.orig_h": f"192.0.2.{number}", "id.orig_p": 1}
        ids |= {"id.resp_h": "198.51.100.4", "id.resp_p": 110}
        record = {"v": 1, "ts": NOW, "uid": f"C{number}", **ids, "event": "pop3_request"}
        lines.append({**record, "command": "USER", "arg": user})
        lines.append({**record, "event": "pop3_reply", "cmd": "ERR", "msg": "no"})
    log.write_text("".join(json.dumps(each) + "\n" for each in lines))
    result = CliRunner().invoke(
        policy_test, [str(log), "--config", str(config)], standalone_mode=False
    )
    decided = [json.loads(text) for text in result.stdout.splitlines()]
    assert [(each["rule"], each["key"]) for each in decided] == [
        ("r", "address:192.0.2.1"),
        ("trap-users", "address:192.0.2.2"),
    ]
