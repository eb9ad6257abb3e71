"""A proxy that is killed at any moment leaves a snapshot and a journal that have all that it acknowledged."""

import json
import random
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pop3proxy.controlclient import ask
from pop3proxy.hooks.policy import snapshot
from pop3proxy.hooks.policy.allowances import Allowances
from pop3proxy.hooks.policy.journal import JournalFile
from pop3proxy.hooks.policy.memory import MemoryStore

from ..proxy.live import CHECKOUT, MailServer, Proxy, receive_all, running

pytestmark = pytest.mark.integration

KILLS = 12
BANS = 3000
"""So many that a snapshot takes as long as the time between two: most kills hit one that is being written."""

CONFIG = """
listen = [{ endpoint = "tcp:0:interface=127.0.0.1", tls = "none" }]
upstream = "tcp:127.0.0.1:110"
[policy]
snapshot = "state"
snapshot_interval = 0.01
control = "socket"
banned_reply = "-ERR [SYS/TEMP] Not today."
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(CONFIG)
    return tmp_path


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def saved_bans(folder: Path) -> set[str]:
    """Return the bans that the next proxy will find."""
    store, path = MemoryStore(4 * BANS, 4 * BANS, 1e9), str(folder / "state")
    found = snapshot.contents(store, Allowances(), path)
    assert found is not None
    for number, record in JournalFile(f"{path}.journal").read():
        if number > found.get(snapshot.JOURNAL, [0])[0]:
            store.apply(record, 0.0)
    return set(store.all_bans)


def furnish(folder: Path) -> None:
    """A snapshot with many bans, as an earlier proxy would have left it."""
    store = MemoryStore(BANS, BANS, 1.0)
    snapshot.write(store, str(folder / "state"), secrets=False)
    found = json.loads((folder / "state").read_text())
    found["bans"] = [
        [f"address:{address(n)}", "brute-force", 0.0, 1e10, 1, ["evidence " * 9]]
        for n in range(BANS)
    ]
    (folder / "state").write_text(json.dumps(found))


def ban_until_killed(folder: Path, proxy: Proxy, first: int, life: float) -> list[str]:
    """Ban one after another until the proxy is gone; return those that it said were banned."""
    done: list[str] = []
    killer = threading.Timer(life, proxy.process.kill)
    killer.start()
    with suppress(OSError, ValueError):
        while True:
            request = {
                "do": "add",
                "what": address(first + len(done)),
                "seconds": 9000,
                "reason": "",
            }
            ask(str(folder / "socket"), request)
            done.append(address(first + len(done)))
    killer.join()
    proxy.process.wait(10)
    return done


def test_a_kill_at_any_moment_leaves_what_was_acknowledged(folder: Path) -> None:
    furnish(folder)
    moments = random.Random(6)
    server = MailServer()
    first, before = 1 << 20, saved_bans(folder)
    for _ in range(KILLS):
        with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
            done = ban_until_killed(folder, proxy, first, moments.uniform(0.02, 0.3))
        now = saved_bans(folder)
        # Nothing that was acknowledged is lost; of what was not, there is the last one at the most.
        new = now - before
        assert before <= now
        assert new == {f"address:{address(first + n)}" for n in range(len(new))}
        assert len(done) <= len(new) <= len(done) + 1
        first, before = first + len(done) + 1, now
    assert len(before) > BANS, "no ban was ever saved: the kills came too early"
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        assert "no snapshot" not in proxy.stop()
    server.close()


def bans(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pop3proxy", "bans", *arguments, "--config", "policy.toml"]
    environment = {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("until", ["1e300", "-1", "NaN", '"5"'])
def test_a_snapshot_with_an_impossible_time_stops_the_start_with_one_line(
    folder: Path, until: str
) -> None:
    text = f'"bans":[["address:192.0.2.1","r",0,{until},1,[]]],"counters":[],"marks":[],"graces":[]'
    (folder / "state").write_text(f'{{"v":1,{text}}}')
    command = [sys.executable, "-m", "pop3proxy", "serve", "--config", "policy.toml"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    (said,) = [line for line in done.stderr.splitlines() if " error " in line]
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert "policy.snapshot: state is damaged, or no snapshot of this version; move it away" in said
    assert (folder / "state").read_text() == f'{{"v":1,{text}}}'


def test_who_is_banned_gets_the_configured_line_and_the_server_hears_nothing(folder: Path) -> None:
    server = MailServer()
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        added = bans(folder, "add", "127.0.0.1", "--reason", "a test", "--seconds", "1000")
        assert added.returncode == 0, added.stderr
        with proxy.connect() as client:
            assert receive_all(client) == b"-ERR [SYS/TEMP] Not today.\r\n"
        assert "a test" in bans(folder, "why", "127.0.0.1").stdout
        proxy.process.kill()
        proxy.process.wait(10)
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        with proxy.connect() as client:
            assert receive_all(client) == b"-ERR [SYS/TEMP] Not today.\r\n"
        assert bans(folder, "remove", "127.0.0.1").returncode == 0
        assert bans(folder, "list").stdout == "no bans\n"
        proxy.process.kill()
        proxy.process.wait(10)
    with running(server.port, "--config", "policy.toml", listen=None, folder=folder) as proxy:
        with proxy.connect() as client, server.accept() as upstream:
            # The first that dials: nobody did while the ban was in force.
            upstream.sendall(b"+OK ready\r\n")
            assert client.recv(100) == b"+OK ready\r\n"
        assert "removed by uid:" in bans(folder, "why", "127.0.0.1").stdout
        again = bans(folder, "remove", "127.0.0.1")
        assert (again.returncode, again.stdout) == (1, "")
        proxy.stop()
    server.close()
