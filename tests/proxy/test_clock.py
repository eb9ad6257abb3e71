"""A step of the system's clock, by an hour on or back, ends no session and keeps no limit from running."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from pop3proxy.analyzer.events import Connect, SessionEnd
from pop3proxy.config import load
from pop3proxy.proxy.arrival import HEADER, Arrival
from pop3proxy.proxy.service import ProxyService
from pop3proxy.runtime.reactor import steady_reactor

from ..integration.certificates import Certificates
from .live import GREETING, PATIENCE, MailServer, Proxy, receive, receive_all, running
from .pair import Pair
from .stepped import WrongClock

HOUR = 3600.0


def connecting(pair: Pair) -> None:
    """Leave the server away."""


def before_login(pair: Pair) -> None:
    pair.connect().server_says(GREETING)


def logged_in(pair: Pair) -> None:
    before_login(pair)
    pair.client_says(b"USER bob\r\n")
    pair.server_says(b"+OK\r\n")
    pair.client_says(b"PASS x\r\n")
    pair.server_says(b"+OK\r\n")


def silent_server(pair: Pair) -> None:
    pair.connect()


def ending(pair: Pair) -> None:
    before_login(pair)
    pair.session.end("dropped")


LIMITS: dict[str, tuple[Callable[[Pair], None], float]] = {
    "connect": (connecting, 10),
    "greeting": (silent_server, 30),
    "login": (before_login, 180),
    "idle": (logged_in, 600),
    "drain": (ending, 30),
}


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_step_neither_runs_a_limit_out_nor_stops_it(limit: str, step: float) -> None:
    come_so_far, seconds = LIMITS[limit]
    pair = Pair()
    come_so_far(pair)
    pair.around.stepped = step
    assert pair.wait(seconds - 1) == ""
    assert pair.wait(2) == limit


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_session_lasts_as_long_as_it_lasts_and_its_events_have_the_clocks_time(
    step: float,
) -> None:
    pair = Pair()
    before_login(pair)
    pair.around.clock += 5
    pair.around.stepped = step
    pair.session.end("dropped")
    summary = pair.both_gone()
    assert isinstance(pair.around.told[0], Connect)
    assert pair.around.told[0].ts == 1000.0
    assert isinstance(summary, SessionEnd)
    assert (summary.ts, summary.duration) == (1005.0 + step, 5.0)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_ends_no_arrival_and_the_sweep_goes_by_the_reactors_clock(step: float) -> None:
    reactor = MemoryReactorClock()
    wrong = [0.0]
    found = {"listen": ["tcp:1110"], "upstream": {"endpoint": "tcp:127.0.0.1:110"}}
    service: Any = ProxyService(
        reactor, load(None, found, reactor), [], now=lambda: 1e9 + wrong[0] + reactor.seconds()
    )
    entry: Any = SimpleNamespace(name="tcp:1110", leave=lambda host: None)
    arrival = Arrival(entry, service, ("192.0.2.1", 4000), (HEADER,))
    reactor.advance(4)
    wrong[0] = step
    service.sweep()
    assert service.arrivals == {arrival}
    reactor.advance(2)
    service.sweep()
    assert service.arrivals == set()
    assert service.counts == {"proxy_header_missing": 1}


def test_the_reactor_of_the_command_line_is_one_a_process() -> None:
    assert steady_reactor() is steady_reactor()


# --- a whole process ------------------------------------------------------------------------------------

SLOW = """
from pop3proxy.hooks.api import Delay, Hook


class Slow(Hook):
    blocking = True

    def pop3_connect(self, event) -> Delay | None:
        return Delay(1) if event.c.orig_p == 7 else None
"""


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[WrongClock]:
    clock = WrongClock(tmp_path / "clock")
    yield clock
    clock.close()


@pytest.fixture
def stepped(
    clock: WrongClock, mail_server: MailServer, events: Path, tmp_path: Path
) -> Iterator[Proxy]:
    """A proxy before clients that must send a header, and clients that must begin TLS within 0.2 seconds."""
    certificates = Certificates.made_in(tmp_path)
    (tmp_path / "slow_on_connect.py").write_text(SLOW)
    config = tmp_path / "stepped.toml"
    config.write_text(
        'listen = [{ endpoint = "tcp:0:interface=127.0.0.1", proxies = ["127.0.0.0/8"] },'
        ' { endpoint = "tcp:0:interface=127.0.0.1", tls = "implicit" }]\n'
        "[timeouts]\nproxy_header = 60\nhandshake = 0.2\n"
        '[[hooks]]\nname = "slow_on_connect:Slow"\n'
        f'[[tls.certificates]]\nchain = "{certificates.server}"\n'
        f'key = "{certificates.server_key}"\n'
    )
    with running(
        mail_server.port,
        *("--config", str(config), "--events", str(events)),
        listen=None,
        program=("tests.proxy.stepped", str(tmp_path / "clock")),
    ) as proxy:
        yield proxy


def swept(proxy: Proxy) -> None:
    """Wait until time limits have been looked at: one of a client that says nothing has run out."""
    port = int(proxy.log.expect(r"(?s)listening on .*listening on 127\.0\.0\.1:(\d+)")[1])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        assert receive_all(client) == b""


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["on", "back"])
def test_a_process_goes_on_when_its_clock_is_set(
    step: float, stepped: Proxy, clock: WrongClock, mail_server: MailServer, events: Path
) -> None:
    with ExitStack() as stack:

        def come(port: int) -> socket.socket:
            client = stack.enter_context(stepped.connect())
            client.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 %d 110\r\n" % port)
            return client

        def greeted(client: socket.socket) -> tuple[socket.socket, socket.socket]:
            server = stack.enter_context(mail_server.accept())
            server.sendall(GREETING)
            assert receive(client, len(GREETING)) == GREETING
            return client, server

        def say(ends: tuple[socket.socket, socket.socket], line: bytes) -> None:
            client, server = ends
            client.sendall(line)
            assert receive(server, len(line)) == line
            server.sendall(b"+OK\r\n")
            assert receive(client, 5) == b"+OK\r\n"

        inside, outside = greeted(come(1)), greeted(come(2))
        say(inside, b"USER bob\r\n")
        say(inside, b"PASS x\r\n")
        arrival = stack.enter_context(stepped.connect())
        slow = come(7)
        clock.seconds = step
        swept(stepped)
        greeted(slow)
        say(inside, b"NOOP\r\n")
        say(outside, b"USER bob\r\n")
        arrival.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 3 110\r\n")
        greeted(arrival)
    log = stepped.stop()
    assert re.findall("time limit (?!handshake).*", log) == []
    records = [json.loads(line) for line in events.read_text().splitlines()]
    (noop,) = [record for record in records if record.get("command") == "NOOP"]
    assert noop["ts"] == pytest.approx(time.time() + step, abs=3 * PATIENCE)
    ends = [record["duration"] for record in records if record["event"] == "pop3_session"]
    assert len(ends) == 4
    assert all(0 <= duration < 6 * PATIENCE for duration in ends)
