"""Clients without an address guess at a real Dovecot: by PROXY UNKNOWN, by LOCAL, and over a UNIX socket."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Events
from .dovecot import Account, Dovecot
from .proxy import CHECKOUT, configured_proxy

pytestmark = pytest.mark.integration

UNKNOWN = b"PROXY UNKNOWN\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
TCP = "tcp:0:interface=127.0.0.1"
GUESSES = 60
"""Of each kind."""
TIME_LIMIT = 30

POLICY = """
[policy]
fingerprint_key = "0123456789abcdef"
allow = ["127.0.0.0/8"]
[[policy.rules]]
name = "guessing"
by = "pair"
limits = [{ count = 5, seconds = 600 }]
action = "deny"
[[policy.rules]]
name = "account"
by = "user"
limits = [{ count = 8, seconds = 600 }]
action = "deny"
[[policy.rules]]
name = "spraying"
counts = "users"
limits = [{ count = 2, seconds = 600 }]
action = "ban"
[[policy.rules]]
name = "neighbours"
by = "network"
limits = [{ count = 3, seconds = 600 }]
action = "ban"
ban = "network"
"""

Connect = Callable[[], socket.socket]


def log_in(connect: Connect, user: str, password: str) -> bool:
    """Try once in a session of its own, each line after the answer to the one before."""
    with closing(connect()) as client, client.makefile("rb") as lines:
        assert lines.readline().startswith(b"+OK")
        client.sendall(f"USER {user}\r\n".encode())
        assert lines.readline().startswith(b"+OK")
        client.sendall(f"PASS {password}\r\n".encode())
        accepted = lines.readline().startswith(b"+OK")
        client.sendall(b"QUIT\r\n")
        assert lines.readline().startswith(b"+OK")
        assert lines.readline() == b""
        return accepted


def over_tcp(port: int, header: bytes) -> Connect:
    def connect() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), TIME_LIMIT)
        client.sendall(header)
        return client

    return connect


def over_unix(path: Path) -> Connect:
    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIME_LIMIT)
        client.connect(str(path))
        return client

    return connect


def decisions(text: str) -> list[tuple[str, ...]]:
    """Return what was decided, of events or of what ``policy test`` writes."""
    names = ("uid", "rule", "action", "key", "counted", "count", "limit")
    records = map(json.loads, text.splitlines())
    return [
        tuple(str(record[name]) for name in names)
        for record in records
        if record["event"] == "pop3_policy"
    ]


def test_guesses_of_clients_without_an_address_end_at_the_limits_of_the_account(
    dovecot: Dovecot, events_in: Events, tmp_path: Path
) -> None:
    victim, others = dovecot.new_account(), [dovecot.new_account() for _ in range(4)]
    events, path = events_in("unknown"), tmp_path / "pop3"
    configuration = f"""
listen = [
  {{ endpoint = "{TCP}", tls = "none", proxies = ["127.0.0.0/8"] }},
  {{ endpoint = "unix:{path}", tls = "none" }},
]
upstream = "tcp:127.0.0.1:{dovecot.port}"
[events]
path = "{events.path}"
{POLICY}"""
    with configured_proxy(configuration, tmp_path) as proxy:
        proxy.logged(rf"policy: {TCP} takes PROXY headers: .*, as unknown@{TCP};")
        proxy.logged(rf"policy: clients of unix:{path} have no address: .*, as unknown@unix:")
        ways = [
            over_tcp(proxy.port, UNKNOWN),
            over_tcp(proxy.port, LOCAL),
            over_unix(path),
        ]
        for number, way in enumerate(ways):
            for guess in range(GUESSES):
                assert not log_in(way, victim.user, f"wrong{number}.{guess}")
        assert wrong(dovecot, victim) == 8
        # The address behind which they all are is not limited, nor is any other account.
        for number, way in enumerate(ways):
            assert [log_in(way, one.user, f"wrong{number}") for one in others] == [False] * 4
            assert [log_in(way, one.user, one.password) for one in others] == [True] * 4
        sessions = events.sessions(0, 3 * (GUESSES + 8))
    written = events.path.read_text()
    assert all(record["orig_unknown"] is True for one in sessions for record in one.records)
    live = decisions(written)
    # Five at one listener; three more at the other, until the account has had its eight.
    assert {(rule, action) for _, rule, action, *_ in live} == {
        ("guessing", "deny"),
        ("account", "deny"),
    }
    assert f"pair:unknown@{TCP}|{victim.user}" in {key for _, _, _, key, *_ in live}
    assert len(live) == 3 * GUESSES - 8
    command = [sys.executable, "-m", "pop3proxy", "policy", "test", str(events.path)]
    command += ["--config", str(tmp_path / "pop3proxy.toml")]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=TIME_LIMIT, check=True
    )
    assert decisions(done.stdout) == live


def wrong(dovecot: Dovecot, account: Account) -> int:
    """Return how many wrong passwords of an account the server has judged."""
    return sum(one.user == account.user and not one.success for one in dovecot.judged_logins())
