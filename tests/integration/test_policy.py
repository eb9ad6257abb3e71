"""Failed logins have consequences in the program as it is run: bans at connect, by hand, over a restart."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pop3proxy.hooks.logging.schema import schema

from ..proxy.live import MailServer, Proxy, receive, receive_all, reset, running, session, until

CONFIG = """
listen = [{ endpoint = "tcp:0:interface=127.0.0.1", tls = "none" }]
upstream = "tcp:127.0.0.1:110"
[events]
path = "events.jsonl"
[policy]
snapshot = "state"
snapshot_interval = 0.05
control = "socket"
[[policy.rules]]
name = "guessing"
counts = "passwords"
limits = [{ count = 2, seconds = 60 }]
action = "ban"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(CONFIG)
    return tmp_path


def commanded(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pop3proxy", *arguments, "--control", "socket"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


def bans(folder: Path, *arguments: str) -> str:
    done = commanded(folder, "bans", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def policy(folder: Path, *arguments: str) -> str:
    done = commanded(folder, "policy", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def guess(proxy: Proxy, server: MailServer, passwords: list[bytes]) -> None:
    with session(proxy, server) as (client, upstream):
        talk = client.makefile("rb")
        for password in passwords:
            for line, answer in ((b"USER bob", b"+OK"), (b"PASS " + password, b"-ERR [AUTH] no")):
                client.sendall(line + b"\r\n")
                assert upstream.recv(100) == line + b"\r\n"
                upstream.sendall(answer + b"\r\n")
                assert talk.readline() == answer + b"\r\n"
        talk.close()


def turned_away(proxy: Proxy) -> bool:
    with proxy.connect() as client:
        return receive_all(client).startswith(b"-ERR [SYS/TEMP] Too many failed logins")


def test_a_ban_bites_before_the_server_is_dialled_and_can_be_looked_at(folder: Path) -> None:
    server = MailServer()
    options = ("--config", "policy.toml")
    with running(server.port, *options, listen=None, folder=folder) as proxy:
        guess(proxy, server, [b"one", b"two"])
        assert turned_away(proxy)
        assert "address:127.0.0.1  guessing" in bans(folder, "list")
        assert "passwords 2 of 2" in bans(folder, "why", "127.0.0.1")
        assert os.stat(folder / "socket").st_mode & 0o777 == 0o600
        proxy.tell(signal.SIGTERM)
        assert proxy.process.wait(10) == 0
    assert not (folder / "socket").exists()
    with running(server.port, *options, listen=None, folder=folder) as proxy:
        # Banned still; the server was dialled for the first session alone.
        assert turned_away(proxy)
        bans(folder, "remove", "127.0.0.1")
        with session(proxy, server):
            pass
        bans(folder, "add", "127.0.0.1", "--reason", "by hand")
        assert turned_away(proxy)
        # Killed with a socket and a snapshot in place.
        proxy.process.kill()
        proxy.process.wait(10)
    with running(server.port, *options, listen=None, folder=folder) as proxy:
        bans(folder, "list")
        assert "policy cannot see" not in proxy.stop()
    server.close()
    decided = [r["action"] for r in records(folder) if r["event"] == "pop3_policy"]
    assert decided == ["ban", "banned", "banned", "remove", "ban", "banned"]


def test_a_denied_pair_is_listed_explained_and_cleared(folder: Path) -> None:
    server = MailServer()
    text = CONFIG.replace('action = "ban"', 'action = "deny"\nby = "pair"')
    (folder / "policy.toml").write_text(text.replace('"passwords"', '"failures"'))
    pair = "pair:127.0.0.1|bob"
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        guess(proxy, server, [b"one", b"two"])
        assert bans(folder, "list") == "no bans\n"
        (line,) = policy(folder, "list").splitlines()
        assert line.startswith(f"{pair}  guessing refuses every login until 20")
        (row,) = map(json.loads, policy(folder, "list", "--json").splitlines())
        assert (row["kind"], row["key"]) == ("denied", pair)
        for said in (policy(folder, "why", "bob"), bans(folder, "why", "127.0.0.1")):
            assert "2 of 2 failures in 60 s" in said
            assert f"at once: pop3proxy bans remove '{pair}'" in said
        assert json.loads(policy(folder, "why", "bob", "--json"))["about"] == ["user:bob"]
        said = bans(folder, "remove", "127.0.0.1|bob", "--reason", "the helpdesk called")
        assert said.startswith(f"cleared 2 failures of {pair} (guessing), no rule bans or refuses")
        assert "the helpdesk called" in policy(folder, "why", "127.0.0.1|bob")
        assert policy(folder, "list") == "nothing is refused\n"
        guess(proxy, server, [b"three", b"four", b"five"])
        proxy.stop()
    server.close()
    decided = [r for r in records(folder) if r["event"] == "pop3_policy"]
    assert [(r["action"], r["key"], r["by"], r["reason"]) for r in decided] == [
        ("remove", pair, f"uid:{os.getuid()}", "the helpdesk called")
    ]
    known = jsonschema.Draft202012Validator(schema())
    for record in decided:
        known.validate(record)


def test_an_allowance_lets_a_banned_client_in_also_behind_a_kill(folder: Path) -> None:
    server = MailServer()
    options = ("--config", "policy.toml")
    with running(server.port, *options, listen=None, folder=folder) as proxy:
        bans(folder, "add", "127.0.0.1")
        assert turned_away(proxy)
        said = policy(folder, "allow", "127.0.0.1", "--for", "7d", "--reason", "our monitoring")
        assert said.startswith("address:127.0.0.1 is allowed until 20")
        assert "no ban holds there of address:127.0.0.1" in said
        proxy.process.kill()
        proxy.process.wait(10)
    with running(server.port, *options, listen=None, folder=folder) as proxy:
        guess(proxy, server, [b"one", b"two", b"three"])
        assert "our monitoring: nothing is refused" in policy(folder, "why", "127.0.0.1")
        assert policy(folder, "disallow", "127.0.0.1") == "address:127.0.0.1 is no longer allowed\n"
        assert turned_away(proxy)
        proxy.stop()
    server.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "bans add 192.0.2.1 --why x",
            "--why is called --reason now; see pop3proxy bans add --help",
        ),
        ("policy allow 192.0.2.1 --for week", "week: write it like 30m, 12h or 7d"),
        ("policy allow 192.0.2.1", "Missing option '--for'"),
        ("policy why", "Missing argument 'ADDRESS|USER|PAIR'"),
    ],
)
def test_a_mistaken_command_is_told_what_would_be_right(
    folder: Path, arguments: str, said: str
) -> None:
    done = commanded(folder, *arguments.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_a_proxy_without_a_snapshot_says_what_ends_with_it(folder: Path) -> None:
    server = MailServer()
    text = CONFIG.replace('snapshot = "state"\nsnapshot_interval = 0.05\n', "")
    (folder / "policy.toml").write_text(text)
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        done = commanded(folder, "bans", "add", "192.0.2.1")
        assert done.returncode == 0
        assert (
            "kept in memory, and ends with the proxy; name a file as policy.snapshot" in done.stderr
        )
        proxy.stop()
    server.close()


def test_a_ban_ends_the_other_sessions_of_who_is_banned(folder: Path) -> None:
    server = MailServer()
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        with session(proxy, server) as (client, upstream):
            guess(proxy, server, [b"one", b"two"])
            assert (receive_all(client), receive_all(upstream)) == (b"", b"")
        assert "sessions_ended 1" in proxy.stop()
    server.close()


def test_a_denied_login_looks_as_the_server_s_own_and_does_not_reach_it(folder: Path) -> None:
    server = MailServer()
    text = CONFIG.replace('action = "ban"', 'action = "deny"')
    (folder / "policy.toml").write_text(text)
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        guess(proxy, server, [b"one", b"two"])
        with session(proxy, server) as (client, upstream):
            client.sendall(b"USER bob\r\nPASS three\r\nQUIT\r\n")
            assert receive(upstream, 10) == b"USER bob\r\n"
            upstream.sendall(b"+OK\r\n")
            assert receive(upstream, 6) == b"QUIT\r\n"
            upstream.sendall(b"+OK bye\r\n")
            upstream.close()
            denied = b"-ERR [AUTH] Authentication failed.\r\n"
            assert receive_all(client) == b"+OK\r\n" + denied + b"+OK bye\r\n"
        proxy.stop()
    server.close()


def test_a_listener_whose_logins_are_hidden_behind_stls_is_named(folder: Path) -> None:
    server = MailServer()
    with running(server.port, "--config", "policy.toml", folder=folder) as proxy:
        log = proxy.stop()
    server.close()
    assert log.count("policy cannot see logins after STLS on tcp:0") == 1


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_who_leaves_before_the_answer_has_guessed(
    folder: Path, leave: Callable[[socket.socket], None]
) -> None:
    server = MailServer()
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        for password in (b"one", b"two"):
            with session(proxy, server) as (client, upstream):
                client.sendall(b"USER bob\r\n")
                assert upstream.recv(100) == b"USER bob\r\n"
                upstream.sendall(b"+OK\r\n")
                assert receive(client, 5) == b"+OK\r\n"
                client.sendall(b"PASS " + password + b"\r\n")
                assert upstream.recv(100) == b"PASS " + password + b"\r\n"
                leave(client)
                with suppress(ConnectionResetError):
                    assert upstream.recv(100) == b""
        ended = (folder / "events.jsonl").read_text
        until(lambda: ended().count('"pop3_session"') == 2, "both sessions are over")
        with session(proxy, server) as (client, upstream):
            client.sendall(b"USER bob\r\n")
            assert upstream.recv(100) == b"USER bob\r\n"
            upstream.sendall(b"+OK\r\n")
            assert receive(client, 5) == b"+OK\r\n"
            client.sendall(b"PASS three\r\n")
            assert receive(client, 4) == b"-ERR"
        proxy.stop()
    server.close()


PACED = """
listen = [{ endpoint = "tcp:0:interface=127.0.0.1", tls = "none" }]
upstream = "tcp:127.0.0.1:110"
[events]
path = "events.jsonl"
[policy]
misconfigured_delay = 60.0
"""


def test_one_wrong_password_of_a_client_that_never_waits_reaches_the_server_once(
    folder: Path,
) -> None:
    server = MailServer()
    (folder / "policy.toml").write_text(PACED)
    heard: list[bytes] = []
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        for number in range(50):
            with session(proxy, server) as (client, upstream):
                client.sendall(b"USER bob\r\n")
                assert upstream.recv(100) == b"USER bob\r\n"
                upstream.sendall(b"+OK\r\n")
                assert receive(client, 5) == b"+OK\r\n"
                client.sendall(b"PASS stale\r\n")
                if number == 0:
                    assert upstream.recv(100) == b"PASS stale\r\n"
                client.close()
                # To the end of the session, with all that it has passed on.
                heard.append(receive_all(upstream))
        log = proxy.stop()
    server.close()
    assert heard == [b""] * 50
    assert "abandoned 1" in log
    assert "held 49" in log
    records = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert not [r for r in records if r["event"] == "pop3_policy"]


def test_forty_accounts_that_log_in_at_once_all_get_in(folder: Path) -> None:
    server = MailServer()
    (folder / "policy.toml").write_text(PACED)
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        with ExitStack() as stack:
            pairs = [stack.enter_context(session(proxy, server)) for _ in range(40)]
            for number, (client, upstream) in enumerate(pairs):
                client.sendall(b"USER user%d\r\n" % number)
                assert upstream.recv(100) == b"USER user%d\r\n" % number
                upstream.sendall(b"+OK\r\n")
                assert receive(client, 5) == b"+OK\r\n"
                client.sendall(b"PASS right %d\r\n" % number)
            for number, (client, upstream) in enumerate(pairs):
                # The first fly, and each that gets in lets another one fly.
                assert receive(upstream, 13) == (b"PASS right %d\r\n" % number)[:13]
                upstream.sendall(b"+OK\r\n")
                assert receive(client, 5) == b"+OK\r\n"
        log = proxy.stop()
    server.close()
    assert "busy" not in log
    assert "held 25" in log
