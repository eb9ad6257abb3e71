"""A running proxy at its limits and under its operator's signals."""

import errno
import json
import resource
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from .live import (
    PATIENCE,
    MailServer,
    Proxy,
    receive,
    receive_all,
    running,
    session,
    until,
)


def refused(proxy: Proxy) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", proxy.port)) == errno.ECONNREFUSED


ENDLESS = b"+OK and no end" * 4_000_000


def configuration(folder: Path, text: str) -> str:
    path = folder / "proxy.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
def test_clients_beyond_a_limit_are_refused_and_counted(
    mail_server: MailServer, tmp_path: Path, limit: str
) -> None:
    path = configuration(tmp_path, f"limits.{limit} = 2\n")
    with running(mail_server.port, "--config", path) as proxy:
        with ExitStack() as inside:
            for _ in range(2):
                inside.enter_context(session(proxy, mail_server))
            for _ in range(3):
                with proxy.connect() as client:
                    answer = receive_all(client)
                assert answer.startswith(b"-ERR [SYS/TEMP] ")
                assert answer.count(b"\n") == 1
            proxy.log.expect(f"limit {limit} reached: refused 127.0.0.1:")
        assert f"refused_{limit} 3" in proxy.stop().splitlines()[-1]


def test_a_client_is_let_in_again_once_another_has_left(
    mail_server: MailServer, tmp_path: Path
) -> None:
    path = configuration(tmp_path, "limits.connections = 1\n")
    with running(mail_server.port, "--config", path) as proxy:
        idle = proxy.descriptors()
        for _ in range(3):
            with session(proxy, mail_server) as (client, server):
                client.shutdown(socket.SHUT_WR)
                server.shutdown(socket.SHUT_WR)
                assert receive_all(client) == receive_all(server) == b""
            until(lambda: proxy.descriptors() == idle, "the session is over")
        assert "refused" not in proxy.stop()


def test_an_upstream_that_never_accepts_is_answered_when_the_time_is_up(tmp_path: Path) -> None:
    path = configuration(tmp_path, "timeouts.connect = 0.2\n")
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with running(full.getsockname()[1], "--config", path) as proxy:
            with proxy.connect() as client:
                assert receive_all(client).startswith(b"-ERR [SYS/TEMP] ")
            assert "timeout_connect 1" in proxy.stop().splitlines()[-1]


def test_an_upstream_that_never_greets_is_answered_when_the_time_is_up(
    mail_server: MailServer, tmp_path: Path
) -> None:
    path = configuration(tmp_path, "timeouts.greeting = 0.2\n")
    with running(mail_server.port, "--config", path) as proxy:
        with proxy.connect() as client, mail_server.accept() as server:
            assert receive_all(client).startswith(b"-ERR [SYS/TEMP] ")
            assert receive_all(server) == b""
        assert "timeout_greeting 1" in proxy.stop().splitlines()[-1]


def test_a_client_that_does_not_log_in_is_closed_without_a_word(
    mail_server: MailServer, tmp_path: Path
) -> None:
    path = configuration(tmp_path, "timeouts.login = 0.2\n")
    with running(mail_server.port, "--config", path) as proxy:
        with session(proxy, mail_server) as (client, server):
            assert receive_all(client) == receive_all(server) == b""
        assert "timeout_login 1" in proxy.stop().splitlines()[-1]


def test_a_client_that_reads_nothing_is_reset_when_the_drain_time_is_up(
    mail_server: MailServer, tmp_path: Path, events: Path
) -> None:
    path = configuration(tmp_path, "timeouts.login = 0.2\ntimeouts.drain = 0.2\n")
    with running(mail_server.port, "--config", path, "--events", str(events)) as proxy:
        idle = proxy.descriptors()
        with session(proxy, mail_server) as (client, server):
            server.settimeout(PATIENCE)
            with suppress(ConnectionError):
                server.sendall(ENDLESS)
            until(lambda: proxy.descriptors() == idle, "both connections are gone")
            assert len(receive_all(client)) < len(ENDLESS)
        assert "timeout_drain 1, timeout_login 1" in proxy.stop().splitlines()[-1]
    assert recorded(events)[-1]["reason"] == "timeout:login"


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(mail_server: MailServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with running(mail_server.port) as proxy:
            assert resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_second_sigterm_cuts_the_sessions_off(proxy: Proxy, mail_server: MailServer) -> None:
    with session(proxy, mail_server) as (client, server):
        proxy.tell(signal.SIGTERM)
        proxy.log.expect("waiting for 1 sessions to end")
        proxy.tell(signal.SIGTERM)
        assert proxy.process.wait(PATIENCE) == 1
        assert receive_all(client) == receive_all(server) == b""


def test_sigterm_lets_a_session_finish(proxy: Proxy, mail_server: MailServer) -> None:
    with session(proxy, mail_server) as (client, server):
        proxy.tell(signal.SIGTERM)
        proxy.log.expect("waiting for 1 sessions to end")
        until(lambda: refused(proxy), "it listens no more")
        client.sendall(b"QUIT\r\n")
        assert receive(server, 6) == b"QUIT\r\n"
        server.sendall(b"+OK bye\r\n")
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"+OK bye\r\n"
        client.close()
        assert proxy.process.wait(PATIENCE) == 0
    assert "counted: inspected_whole 1, sessions 1" in proxy.log.whole().splitlines()[-1]


def test_sigterm_ends_a_session_whose_drain_time_is_over(
    mail_server: MailServer, tmp_path: Path
) -> None:
    path = configuration(tmp_path, "timeouts.drain = 0.2\n")
    with running(mail_server.port, "--config", path) as proxy:
        with session(proxy, mail_server) as (client, server):
            proxy.tell(signal.SIGTERM)
            assert receive_all(client) == receive_all(server) == b""
            assert proxy.process.wait(PATIENCE) == 0
        assert "drain_over 1" in proxy.log.whole().splitlines()[-1]


def test_sigterm_without_sessions_ends_at_once(proxy: Proxy) -> None:
    assert "stopped; counted: nothing" in proxy.stop()


def test_an_unfinished_reply_at_the_end_of_the_drain_is_recorded_and_not_answered(
    mail_server: MailServer, tmp_path: Path, events: Path
) -> None:
    path = configuration(tmp_path, "timeouts.drain = 0.2\n")
    with (
        running(mail_server.port, "--config", path, "--events", str(events)) as proxy,
        session(proxy, mail_server) as (client, server),
    ):
        client.sendall(b"LIST\r\n")
        assert receive(server, 6) == b"LIST\r\n"
        server.sendall(b"+OK\r\n1 2\r\n")
        assert receive(client, 10) == b"+OK\r\n1 2\r\n"
        proxy.tell(signal.SIGTERM)
        assert receive_all(client) == b""
        assert proxy.process.wait(PATIENCE) == 0
    last = recorded(events)[-1]
    assert (last["event"], last["reason"]) == ("pop3_session", "shutdown")


def test_sigusr1_opens_the_events_anew(
    proxy: Proxy, mail_server: MailServer, events: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "events.jsonl.1"
    with session(proxy, mail_server):
        events.rename(moved)
        proxy.tell(signal.SIGUSR1)
        until(events.exists, "there is a new file")
    proxy.stop()
    assert [record["event"] for record in recorded(moved)] == ["pop3_connect", "pop3_reply"]
    assert [record["event"] for record in recorded(events)] == ["pop3_session"]


def test_a_closed_pipe_of_events_does_not_stop_the_proxy(mail_server: MailServer) -> None:
    with running(mail_server.port, "--events", "-", stdout=subprocess.PIPE) as proxy:
        assert proxy.process.stdout is not None
        proxy.process.stdout.close()
        for _ in range(3):
            with session(proxy, mail_server) as (client, server):
                client.sendall(b"USER bob\r\nPASS x\r\n")
                assert receive(server, 18) == b"USER bob\r\nPASS x\r\n"
                server.sendall(b"+OK\r\n+OK\r\n")
                assert receive(client, 10) == b"+OK\r\n+OK\r\n"
        assert "sessions 3" in proxy.stop()


def recorded(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_hooks_did_not_manage_is_counted_at_the_stop(
    mail_server: MailServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(
        "from pop3proxy.hooks.api import Hook\n"
        "class Broken(Hook):\n"
        "    def pop3_reply(self, event):\n"
        "        raise RuntimeError\n"
    )
    path = configuration(tmp_path, '[[hooks]]\nname = "broken:Broken"\n')
    with running(mail_server.port, "--config", path) as proxy:
        with session(proxy, mail_server) as (client, server):
            server.sendall(b"+OK\r\n")
            assert receive(client, 5) == b"+OK\r\n"
        assert "hook_failures 2" in proxy.stop().splitlines()[-1]
