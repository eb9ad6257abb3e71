"""What monitoring and load balancers say, spoken by a client of the tests' own.

Sources: monitoring-plugins at 7db2b280a54d (3.0.3), plugins/check_tcp.c as check_pop: it expects +OK, sends
QUIT and closes without the answer; zabbix, src/libs/zbxsysinfo/simple/simple.c at 01d70eca3dd0, the same;
others connect and close, or reset, or say NOOP or CAPA.
"""

import pytest

from .audit import BY_A_PEER
from .clients import Job
from .popclient import PopClient

pytestmark = pytest.mark.integration


def assert_nothing_happened(job: Job, *requests: str) -> None:
    """The session had these requests and no login, and the proxy ended nothing and found nothing odd."""
    (recorded,) = job.recorded()
    end = recorded.end
    assert end["reason"] in BY_A_PEER
    assert end["outcome"] == "none"
    assert recorded.said("pop3_request", "command") == [(request,) for request in requests]
    assert recorded.of("pop3_login_attempt", "pop3_login_failure", "pop3_policy") == []
    assert recorded.of("pop3_unexpected") == []


def test_quit_behind_the_greeting_without_the_answer(job: Job) -> None:
    with PopClient(job.port) as client:
        assert client.greeting.startswith("+OK")
        client.send("QUIT")
    assert_nothing_happened(job, "QUIT")


def test_quit_behind_the_greeting_with_the_answer(job: Job) -> None:
    with PopClient(job.port) as client:
        assert client.ask("QUIT")
        client.read_to_the_end()
    assert_nothing_happened(job, "QUIT")


def test_quit_at_once(job: Job) -> None:
    """Before it has read the greeting, as a command line with ``nc`` does."""
    with PopClient(job.port, first=b"QUIT\r\n") as client:
        client.say_no_more()
        assert client.accepted()
        client.read_to_the_end()
    assert_nothing_happened(job, "QUIT")


def test_a_connection_that_is_closed_behind_the_greeting(job: Job) -> None:
    with PopClient(job.port) as client:
        assert client.greeting.startswith("+OK")
    assert_nothing_happened(job)


def test_a_connection_that_is_reset_behind_the_greeting(job: Job) -> None:
    with PopClient(job.port) as client:
        client.reset()
    assert_nothing_happened(job)


def test_noop_before_a_login(job: Job) -> None:
    """Whatever the server answers: Dovecot knows it there."""
    with PopClient(job.port) as client:
        client.ask("NOOP")
        assert client.ask("QUIT")
        client.read_to_the_end()
    assert_nothing_happened(job, "NOOP", "QUIT")


def test_capa_and_quit(job: Job) -> None:
    with PopClient(job.port) as client:
        assert "PIPELINING" in client.ask_for_lines("CAPA")
        assert client.ask("QUIT")
        client.read_to_the_end()
    assert_nothing_happened(job, "CAPA", "QUIT")


def test_capa_and_quit_in_one_write(job: Job) -> None:
    with PopClient(job.port) as client:
        client.send("CAPA", "QUIT")
        assert client.accepted()
        assert "PIPELINING" in client.body()
        assert client.accepted()
        client.read_to_the_end()
    assert_nothing_happened(job, "CAPA", "QUIT")
