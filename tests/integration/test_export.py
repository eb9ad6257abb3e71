"""Bans that reach programs outside: a running proxy with `[policy.export]`, its file and its command."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pop3proxy.controlclient import ask

from ..proxy.live import CHECKOUT, Proxy, running, until
from .processes import own_network, program
from .servers import serving
from .stub import PASSWORD, StubServer

pytestmark = pytest.mark.integration

RULE = 'name = "r", counts = "passwords", action = "ban", limits = [{ count = 2, seconds = 600 }]'
CONFIG = f"""
listen = [{{ endpoint = "tcp:0:interface=127.0.0.1", tls = "none" }}]
[policy]
control = "socket"
snapshot = "state"
rules = [{{ {RULE} }}]
[policy.export]
nft_file = "bans.nft"
interval = 0.05
"""
NOTE = """#!/bin/sh
echo "$POP3PROXY_EXPORT $*" >>notes
"""

Start = Callable[[str], Proxy]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a proxy in the folder of the test, with more lines under `[policy.export]`."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(StubServer()))

        def start(more: str) -> Proxy:
            (tmp_path / "policy.toml").write_text(CONFIG + more)
            proxy = running(server.port, "--config", "policy.toml", listen=None, folder=tmp_path)
            return stack.enter_context(proxy)

        yield start


@pytest.fixture
def note(tmp_path: Path) -> str:
    """What has the changes noted in a file."""
    script = tmp_path / "note"
    script.write_text(NOTE)
    script.chmod(0o755)
    return f'command = ["{script}", "{{changes}}"]'


def log_in(proxy: Proxy, *passwords: str) -> bytes:
    """Log in as bob by each of these; return the last answer."""
    with proxy.connect() as client, client.makefile("rb") as lines:
        answer = lines.readline()
        for password in passwords:
            client.sendall(f"USER bob\r\nPASS {password}\r\n".encode())
            lines.readline()
            answer = lines.readline()
        return answer


def noted(folder: Path) -> list[str]:
    notes = folder / "notes"
    return notes.read_text().splitlines() if notes.exists() else []


def test_a_ban_by_a_rule_and_its_end_reach_the_file_and_the_command(
    tmp_path: Path, start: Start, note: str
) -> None:
    proxy = start(note)
    until(lambda: noted(tmp_path) == ["all "], "what there is at the start is exported")
    log_in(proxy, "one", "two")
    until(lambda: len(noted(tmp_path)) == 2, "the ban is exported")
    assert re.fullmatch(r"changes ban=127\.0\.0\.1,6\d\d", noted(tmp_path)[1])
    assert "127.0.0.1 timeout 6" in (tmp_path / "bans.nft").read_text()
    ask(str(tmp_path / "socket"), {"do": "remove", "what": "127.0.0.1", "reason": ""})
    until(lambda: len(noted(tmp_path)) == 3, "its end is exported")
    assert noted(tmp_path)[2] == "changes unban=127.0.0.1"
    assert "127.0.0.1" not in (tmp_path / "bans.nft").read_text()
    # The last one may not have been waited for.
    assert re.search("exported [23]", proxy.stop())


def test_an_address_that_is_allowed_by_command_is_taken_out_and_banned_again_behind_it(
    tmp_path: Path, start: Start, note: str
) -> None:
    start(note)
    until(lambda: noted(tmp_path) == ["all "], "what there is at the start is exported")
    control = str(tmp_path / "socket")
    ask(control, {"do": "add", "what": "192.0.2.1", "seconds": 600, "reason": ""})
    until(lambda: len(noted(tmp_path)) == 2, "the ban is exported")
    ask(control, {"do": "allow", "what": "192.0.2.0/24", "seconds": 60, "reason": ""})
    until(lambda: noted(tmp_path)[2:] == ["all "], "nothing is banned any more")
    assert "192.0.2.1" not in (tmp_path / "bans.nft").read_text()
    ask(control, {"do": "disallow", "what": "192.0.2.0/24", "reason": ""})
    until(lambda: len(noted(tmp_path)) == 4, "the ban is exported again")
    assert noted(tmp_path)[3].startswith("all ban=192.0.2.1,")


def test_bans_of_the_snapshot_are_exported_at_the_next_start(
    tmp_path: Path, start: Start, note: str
) -> None:
    proxy = start("")
    log_in(proxy, "one", "two")
    proxy.stop()
    start(note)
    until(lambda: bool(noted(tmp_path)), "the ban is exported")
    assert noted(tmp_path)[0].startswith("all ban=127.0.0.1,6")
    assert "127.0.0.1 timeout 6" in (tmp_path / "bans.nft").read_text()


def test_a_command_that_hangs_costs_no_login_and_no_stop(tmp_path: Path, start: Start) -> None:
    proxy = start(f'command = ["{program("sleep")}", "1000"]\ntime_limit = 60')
    ask(str(tmp_path / "socket"), {"do": "add", "what": "192.0.2.1", "seconds": 600, "reason": ""})
    assert log_in(proxy, PASSWORD).startswith(b"+OK")
    log = proxy.stop()
    assert "not exported" not in log


def test_a_command_that_fails_is_said_and_counted_and_costs_no_login(
    tmp_path: Path, start: Start
) -> None:
    proxy = start(f'command = ["{program("sh")}", "-c", "echo no firewall here >&2; exit 7"]')
    line = proxy.log.expect("bans are not exported: (.*)")[1]
    assert "sh exited with status 7: no firewall here; it is tried again each 10 s" in line
    assert log_in(proxy, PASSWORD).startswith(b"+OK")
    assert "export_failed 1" in proxy.stop()


def test_what_cannot_work_stops_the_start(tmp_path: Path) -> None:
    for more, said in (
        ('command = ["/no/such/program"]', "policy.export.command: cannot run /no/such/program"),
        ('nft_table = "x"', "policy.export.nft_file: cannot write no/bans.nft"),
    ):
        config = CONFIG.replace("bans.nft", "no/bans.nft") if "table" in more else CONFIG
        (tmp_path / "policy.toml").write_text(f'upstream = "tcp:127.0.0.1:1"\n{config}{more}\n')
        ran = subprocess.run(
            [sys.executable, "-m", "pop3proxy", "serve", "--config", "policy.toml"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 1
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_firewall_keeps_a_banned_client_out_until_its_ban_is_removed(tmp_path: Path) -> None:
    program("nft")
    command = [*own_network(), sys.executable, "-m", "tests.integration.firewalled", str(tmp_path)]
    ran = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_script_of_the_chapter_keeps_a_list_of_what_is_banned(tmp_path: Path) -> None:
    """It is played as the proxy runs it, and must have the same list as one that was told all."""
    chapter = (CHECKOUT / "docs" / "policy.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(.*?)^```", chapter, re.M | re.S)
    calls = tmp_path / "calls"
    tool = tmp_path / "ipset"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    tool.chmod(0o755)
    path = tmp_path / "on-bans"
    path.write_text(script.replace("/usr/sbin/ipset", str(tool)))
    for export, changes in (
        ("all", ["ban=192.0.2.1,600", "ban=198.51.100.0/24,60"]),
        ("changes", ["unban=192.0.2.1"]),
    ):
        environment = {"POP3PROXY_EXPORT": export}
        subprocess.run([program("sh"), str(path), *changes], env=environment, check=True)
    assert calls.read_text().splitlines() == [
        "flush banned",
        "add banned 192.0.2.1 timeout 600 -exist",
        "add banned 198.51.100.0/24 timeout 60 -exist",
        "del banned 192.0.2.1 -exist",
    ]


# --- fail2ban ---------------------------------------------------------------------------------------------


FAIL2BAN = CHECKOUT / "conf" / "fail2ban"


def found_by_fail2ban(events: Path) -> list[str]:
    """Return the addresses that fail2ban's own program finds by the filter, in order."""
    command = [program("fail2ban-regex"), "--out", "ip", "--no-check-all", str(events)]
    filter_file = str(FAIL2BAN / "filter.d" / "pop3proxy.conf")
    ran = subprocess.run(
        [*command, filter_file], capture_output=True, text=True, timeout=60, check=True
    )
    return ran.stdout.split()


def test_fail2ban_finds_the_wrong_passwords_of_a_running_proxy(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    with serving(StubServer()) as server, running(server.port, "--events", str(events)) as proxy:
        log_in(proxy, "wrong", "wronger", PASSWORD)
        proxy.stop()
    assert events.read_text().count('"reason":"credentials"') == 2
    assert found_by_fail2ban(events) == ["127.0.0.1", "127.0.0.1"]


def record(host: str, user: str = "bob", reason: str = "credentials", more: str = "") -> str:
    """A record of a failed login, as the proxy writes it; ``more`` follows the addresses."""
    beginning = '{"v":1,"ts":1796060588.829988,"event":"pop3_login_failure","uid":"CZ9"'
    places = f'"id.orig_h":"{host}","id.orig_p":1,"id.resp_h":"198.51.100.4","id.resp_p":110'
    said = f'"is_orig":false,"user":{json.dumps(user, ensure_ascii=False)},"password":"(masked)"'
    rest = f'"mechanism":"PLAIN","reason":"{reason}","code":"","attempt":1}}'
    return f"{beginning},{places}{more},{said},{rest}\n"


FORGED = 'x","reason":"credentials","id.orig_h":"198.51.100.66'


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (record("192.0.2.1"), ["192.0.2.1"]),
        (record("2001:db8::7"), ["2001:db8::7"]),
        (record("192.0.2.1", 'mü"ll\\er\\'), ["192.0.2.1"]),
        (record("192.0.2.1", FORGED), ["192.0.2.1"]),
        (
            record("192.0.2.1", more=',"tls_version":"TLSv1.3","listener":"tcp:110"'),
            ["192.0.2.1"],
        ),
        (record("192.0.2.1", FORGED, "in_use"), []),
        (record("192.0.2.1", reason="denied"), []),
        # The address of a load balancer, or none.
        (record("192.0.2.1", more=',"orig_unknown":true'), []),
        (record("/run/client"), []),
        (record("192.0.2.1").replace("login_failure", "login_success"), []),
        (record("192.0.2.1").replace('"v":1', '"v":2'), []),
    ],
)
def test_fail2ban_finds_wrong_passwords_and_cannot_be_deceived(
    tmp_path: Path, line: str, found: list[str]
) -> None:
    events = tmp_path / "events.jsonl"
    # Another line shows that the filter works at all.
    events.write_text(line + record("203.0.113.9"), encoding="utf-8")
    assert found_by_fail2ban(events) == [*found, "203.0.113.9"]


def test_fail2ban_takes_the_jail(tmp_path: Path) -> None:
    """Its own program checks the configuration, with the jail as the only one that is in force."""
    program("fail2ban-client")
    folder = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", folder)
    shutil.rmtree(folder / "jail.d")
    shutil.copytree(FAIL2BAN, folder, dirs_exist_ok=True)
    log = tmp_path / "pop3-events.jsonl"
    log.touch()
    jail = folder / "jail.d" / "pop3proxy.conf"
    jail.write_text(jail.read_text().replace("/var/log/pop3proxy/pop3-events.jsonl", str(log)))
    dump = subprocess.run(
        [program("fail2ban-client"), "-c", str(folder), "-d"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "['add', 'pop3proxy', 'polling']" in dump
    assert f"['set', 'pop3proxy', 'addlogpath', '{log}', 'head']" in dump
    assert "pop3_login_failure" in dump
