"""Dialogues that mail clients do not have, between a client of the tests' own and Dovecot."""

import base64

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job
from .mail import ODD_MAILS
from .mechanisms import Ran
from .popclient import Attempt, PopClient

pytestmark = pytest.mark.integration

UNGUARDED = pytest.mark.parametrize("guarding", ["unguarded"], indirect=True)


def test_anonymous_is_recorded_with_its_trace(job: Job, ran: Ran) -> None:
    with PopClient(job.port) as client:
        assert client.log_in(Attempt("somebody@example.org", "", "ANONYMOUS"))
        assert client.ask("QUIT")
    assert_every_event_recorded(job.visit(), Login("somebody@example.org", "ANONYMOUS"))
    ran("ANONYMOUS", "the tests' own client", job.server, "logged in")


@UNGUARDED
def test_a_login_in_one_segment_with_a_refused_auth_before_it_is_recorded(job: Job) -> None:
    with PopClient(job.port) as client:
        client.send("AUTH FOO", f"USER {job.account.user}", f"PASS {job.account.password}", "QUIT")
        assert [client.accepted() for _ in range(4)] == [False, True, True, True]
    assert_every_event_recorded(job.visit(), Login(job.account.user, "USER/PASS"))


@UNGUARDED
def test_a_response_sent_behind_a_refused_auth_is_no_login_and_no_secret_is_written(
    job: Job,
) -> None:
    response = base64.b64encode(f"\0{job.account.user}\0{job.account.password}".encode()).decode()
    with PopClient(job.port) as client:
        client.send("AUTH FOO", response, "QUIT")
        assert [client.accepted() for _ in range(3)] == [False, False, True]
    recorded = job.visit().recorded
    assert recorded.of("pop3_login_attempt", "pop3_login_success", "pop3_login_failure") == []
    assert not any(response[16:] in str(record) for record in recorded.records)
    assert [oddity["msg"] for oddity in recorded.of("pop3_unexpected")] == ["unknown_command"]


def test_a_whole_session_in_one_segment_is_recorded_with_every_line_of_mail(data_job: Job) -> None:
    count = len(ODD_MAILS)
    retrievals = [f"RETR {number % count + 1}" for number in range(10 * count)]
    login = f"USER {data_job.account.user}", f"PASS {data_job.account.password}"
    with PopClient(data_job.port) as client:
        client.send(*login, "STAT", "LIST", *retrievals, "TOP 1 0", "UIDL", "QUIT")
        client.read_to_the_end()
    assert_every_event_recorded(
        data_job.visit(),
        Login(data_job.account.user, "USER/PASS"),
        data=True,
        unexpected=["line_too_long"] * 10,
    )
