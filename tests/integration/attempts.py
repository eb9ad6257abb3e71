"""Logins by a client of the tests' own that tries one mechanism after another, as several clients do."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from .audit import Login, assert_every_event_recorded
from .clients import Job
from .popclient import Attempt, PopClient


def attempt(job: Job, mechanism: str) -> Attempt:
    """Return an attempt with a job's own user and password."""
    return Attempt(job.account.user, job.account.password, mechanism)


def assert_each_fails_before_plain(
    job: Job, mechanisms: Iterable[str], fetch_and_delete: Callable[[PopClient], None]
) -> None:
    """Fail once by each mechanism, log in by PLAIN, fetch, and check that all of it is recorded."""
    tried = tuple(mechanisms)
    with PopClient(job.port) as client:
        client.ask_for_lines("CAPA")
        for mechanism in tried:
            assert not client.log_in(replace(attempt(job, mechanism), password="wrong"))
        assert client.log_in(attempt(job, "PLAIN"))
        fetch_and_delete(client)
    user = job.account.user
    failures = [Login(user, mechanism, success=False) for mechanism in tried]
    assert_every_event_recorded(job.visit(), *failures, Login(user, "PLAIN"))
