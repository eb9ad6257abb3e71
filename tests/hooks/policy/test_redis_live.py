"""Running proxies that share a Redis: bans that arrive, and logins that go on whatever becomes of it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from tests.integration.servers import serving
from tests.integration.stub import PASSWORD, StubServer
from tests.proxy.live import PATIENCE, Proxy, running, until

from .redisserver import KEY, SERVERS, RedisServer, running_redis

BAN = 'name = "guessing", counts = "passwords", action = "ban", limits = [{ count = 3, seconds = 600 }]'


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running_redis(program=request.param) as server:
        yield server


@pytest.fixture
def start(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Start proxies that share the Redis, in front of one mail server."""
    path = tmp_path / "policy.toml"
    with ExitStack() as stack:
        mail = stack.enter_context(serving(StubServer()))

        def start(rules: str = "", redis: str = "") -> Proxy:
            path.write_text(
                f'[policy]\nfingerprint_key = "{KEY}"\n{rules}\n'
                f'[policy.redis]\nurl = "{server.url}"\nprobe_interval = 0.1\n{redis}\n'
            )
            proxy = stack.enter_context(running(mail.port, "--config", str(path)))
            proxy.log.expect("Redis at .* takes part")
            return proxy

        yield start


class Client:
    """One session with a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.socket: socket.socket = proxy.connect()
        self.lines: IO[bytes] = self.socket.makefile("rb")
        self.greeting = self.lines.readline()

    def log_in(self, user: str, password: str) -> bytes:
        self.socket.sendall(f"USER {user}\r\n".encode())
        self.lines.readline()
        self.socket.sendall(f"PASS {password}\r\n".encode())
        return self.lines.readline()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def greeting(proxy: Proxy) -> bytes:
    client = Client(proxy)
    client.close()
    return client.greeting


def test_who_is_banned_by_one_proxy_is_turned_away_by_the_other(
    start: Callable[..., Proxy], record_property: Callable[[str, object], None]
) -> None:
    rules = f"rules = [{{ {BAN} }}]"
    one, two = start(rules), start(rules)
    open_there = Client(two)
    assert open_there.greeting.startswith(b"+OK")
    guesser = Client(one)
    for number in range(3):
        assert guesser.log_in("bob", f"guess{number}").startswith(b"-ERR")
    banned = time.perf_counter()
    until(lambda: greeting(two).startswith(b"-ERR [SYS/TEMP]"), "the other turns it away")
    record_property("ban_in_force_ms", round((time.perf_counter() - banned) * 1000, 2))
    assert greeting(one).startswith(b"-ERR [SYS/TEMP]")
    # A session that was open there ends too.
    assert open_there.lines.readline() == b""
    for client in (guesser, open_there):
        client.close()


def test_guesses_spread_over_proxies_are_counted_together(start: Callable[..., Proxy]) -> None:
    deny = BAN.replace('"ban"', '"deny"').replace('"guessing"', '"denied"')
    proxies = [start(f"rules = [{{ {deny} }}]") for _ in range(2)]
    answers = []
    for number in range(6):
        client = Client(proxies[number % 2])
        answers.append(client.log_in("bob", f"guess{number}"))
        client.close()
    seen = [answer for answer in answers if b"[AUTH] no" in answer]
    assert answers[:3] == seen, "the mail server sees three and no more"


def test_no_login_fails_while_redis_is_frozen_killed_and_started_again(
    server: RedisServer, start: Callable[..., Proxy]
) -> None:
    proxy = start(redis="connect_limit = 0.5\ntime_limit = 0.1")
    done: list[bytes] = []
    going = threading.Event()
    going.set()

    def log_in_again_and_again(user: str) -> None:
        while going.is_set():
            client = Client(proxy)
            done.append(client.log_in(user, PASSWORD))
            client.close()

    def some_more() -> None:
        enough = len(done) + 50
        until(lambda: len(done) >= enough, "logins go on")

    names = [f"user{number}" for number in range(8)]
    threads = [threading.Thread(target=log_in_again_and_again, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        some_more()
        server.freeze()
        proxy.log.expect("not asked any more")
        some_more()
        server.thaw()
        proxy.log.expect("takes part again")
        some_more()
        server.kill()
        some_more()
        server.start()
        some_more()
        server.freeze()
        some_more()
    finally:
        going.clear()
        for thread in threads:
            thread.join(3 * PATIENCE)
    assert set(done) == {b"+OK welcome\r\n"}
    log = proxy.stop()
    assert log.count("not asked any more") == 1
    for counted in ("redis_asked", "redis_slow", "redis_alone", "redis_outages"):
        assert counted in log
