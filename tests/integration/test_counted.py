"""What is counted besides failed logins, before a real Dovecot: names, traps, scans, programs, guesses."""

import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from .certificates import Certificates
from .conftest import Events
from .dovecot import Dovecot
from .front import trusting
from .popclient import PopClient
from .proxy import CHECKOUT, configured_proxy

pytestmark = pytest.mark.integration

TIME_LIMIT = 30
RULES = """
[rules]
plaintext_logins = "deny"
[policy]
fingerprint_key = "0123456789abcdef"
trap_users = ["admin", "test*"]
[[policy.rules]]
name = "no-tls"
counts = "denied"
limits = [{ count = 3, seconds = 600 }]
action = "ban"
[[policy.rules]]
name = "scan"
counts = "unknown_commands"
limits = [{ count = 3, seconds = 600 }]
action = "deny"
reply = "-ERR enough"
[[policy.rules]]
name = "strangers"
counts = "unknown_users"
limits = [{ count = 3, seconds = 600 }]
action = "deny"
[[policy.rules]]
name = "program"
counts = "addresses"
by = "ja4"
limits = [{ count = 3, seconds = 600 }]
action = "log"
[[policy.rules]]
name = "likely-guessed"
counts = "likely_guessed"
by = "user"
limits = [{ count = 3, seconds = 600 }]
"""


def log_in(port: int, context: ssl.SSLContext, address: str, user: str, password: str) -> str:
    """Try once over TLS, as a client at an address; return the line that ended it."""
    with PopClient(port, address=address) as client:
        assert client.ask("STLS")
        client.turn_tls(context)
        client.send(f"USER {user}")
        client.line()
        client.send(f"PASS {password}")
        return client.line()


def first_line(port: int, address: str) -> bytes:
    connection = socket.create_connection(("127.0.0.1", port), TIME_LIMIT, (address, 0))
    with connection, connection.makefile("rb") as lines:
        return lines.readline()


def test_what_is_counted_besides_failed_logins(
    dovecot: Dovecot, certificates: Certificates, events_in: Events, tmp_path: Path
) -> None:
    owner, other = dovecot.new_account(), dovecot.new_account()
    events = events_in("counted")
    (tmp_path / "users").write_text(f"{owner.user}\n{other.user}\n")
    (tmp_path / "aliases").write_text(f"sales: {owner.user}\n")
    rules = RULES.replace(
        "[policy]\n",
        f'[policy]\nusers_file = "{tmp_path}/users"\naliases_file = "{tmp_path}/aliases"\n',
    )
    configuration = f"""
listen = [{{ endpoint = "tcp:0:interface=127.0.0.1", tls = "terminate" }}]
upstream = "tcp:127.0.0.1:{dovecot.port}"
[[tls.certificates]]
chain = "{certificates.server}"
key = "{certificates.server_key}"
[events]
path = "{events.path}"
{rules}"""
    context = trusting(certificates)
    with configured_proxy(configuration, tmp_path) as proxy:
        port = proxy.port

        def tried(address: str, user: str, password: str) -> bool:
            return log_in(port, context, address, user, password).startswith("+OK")

        # Guesses of three strangers at the owner's account, by an alias too; then one is right.
        for number in range(3):
            user = owner.user if number else "sales"
            assert not tried(f"127.0.0.{11 + number}", user, f"wrong{number}")
        assert tried("127.0.0.14", owner.user, owner.password)
        # A trap: not even the right password of another account helps its address afterwards.
        with PopClient(port, address="127.0.0.21") as client:
            assert client.ask("STLS")
            client.turn_tls(context)
            client.send("USER test7")
            client.read_to_the_end()
        assert first_line(port, "127.0.0.21").startswith(b"-ERR [SYS/TEMP] Too many failed logins")
        # Logins without TLS that [rules] denies.
        for _ in range(3):
            with PopClient(port, address="127.0.0.31") as client:
                client.send(f"USER {other.user}")
                assert client.line().startswith("-ERR [AUTH] TLS is required")
        assert first_line(port, "127.0.0.31").startswith(b"-ERR [SYS/TEMP] Too many failed logins")
        # A scanner.
        with PopClient(port, address="127.0.0.41") as client:
            assert not any(client.ask(f"XFOO{number}") for number in range(3))
        assert first_line(port, "127.0.0.41") == b"-ERR enough\r\n"
        # Names that do not exist: behind the third no more is let in.
        for number in range(3):
            assert not tried("127.0.0.51", f"nobody{number}", "wrong")
        assert first_line(port, "127.0.0.51").startswith(b"-ERR [SYS/TEMP] Too many failed logins")
        # None of that hurts anybody else.
        assert tried("127.0.0.61", other.user, other.password)
    written = [json.loads(line) for line in events.path.read_text().splitlines()]
    decided = [record for record in written if record["event"] == "pop3_policy"]
    assert [(each["rule"], each["action"], each["key"]) for each in decided] == [
        ("program", "log", decided[0]["key"]),
        ("likely-guessed", "log", f"user:{owner.user}"),
        ("trap-users", "ban", "address:127.0.0.21"),
        ("trap-users", "banned", "address:127.0.0.21"),
        ("no-tls", "ban", "address:127.0.0.31"),
        ("no-tls", "banned", "address:127.0.0.31"),
        ("scan", "deny", "address:127.0.0.41"),
        ("strangers", "deny", "address:127.0.0.51"),
        # Somebody new, from a network of which so many were refused: that is only said.
        ("likely-guessed", "log", "network:127.0.0.0/24"),
    ]
    programs = {record["tls_ja4"] for record in written if "tls_version" in record}
    assert {f"ja4:{program}" for program in programs} == {decided[0]["key"]}
    judged = {
        one.user for one in dovecot.judged_logins() if one.user.startswith(("nobody", "test"))
    }
    assert judged == {"nobody0", "nobody1", "nobody2"}
    assert replayed(events.path, tmp_path) == [
        (each["rule"], each["action"], each["key"]) for each in decided
    ]


def replayed(log: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Return what ``policy test`` decides about a log."""
    command = [sys.executable, "-m", "pop3proxy", "policy", "test", str(log)]
    command += ["--config", str(folder / "pop3proxy.toml")]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=TIME_LIMIT, check=True
    )
    decided = map(json.loads, done.stdout.splitlines())
    return [(each["rule"], each["action"], each["key"]) for each in decided]
