"""One wrong password is one failure, by whatever mechanisms a client tries it at a real Dovecot."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from .attempts import attempt
from .clients import Job, fetchmail, mutt
from .conftest import Events
from .dovecot import Dovecot
from .popclient import PopClient
from .proxy import Route, running_route
from .test_mailkit import RANKED

pytestmark = pytest.mark.integration

LIMIT = 3
POLICY = f"""
[[policy.rules]]
name = "guessing"
counts = "failures"
by = "pair"
limits = [{{ count = {LIMIT}, seconds = 3600 }}]
action = "deny"
"""
MAILKIT = ("APOP", *RANKED, "USER/PASS")
ORDERS = {
    "as MailKit, with APOP first": MAILKIT,
    "as MailKit, with APOP last": (*RANKED, "APOP", "USER/PASS"),
    "as Thunderbird": ("PLAIN", "LOGIN", "USER/PASS", "CRAM-MD5", "APOP", "NTLM"),
    "weakest first": MAILKIT[::-1],
    "those that show nothing but NTLM": ("SCRAM-SHA-1", "CRAM-MD5", "NTLM"),
}


@pytest.fixture(scope="module")
def policed(
    dovecot: Dovecot, events_in: Events, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Route]:
    """Through a proxy that lets three different passwords fail at an account in an hour."""
    configuration = tmp_path_factory.mktemp("policy") / "proxy.toml"
    configuration.write_text(POLICY)
    options = ("--config", str(configuration))
    with running_route(dovecot.port, events_in("same-try"), *options) as route:
        yield route


@pytest.fixture
def policed_job(policed: Route, dovecot: Dovecot, tmp_path: Path) -> Job:
    """Log in to an account of its own."""
    return Job(policed.port, dovecot.new_account(), tmp_path, policed.watch(), dovecot.title)


def mistyped(job: Job, password: str = "wrong") -> Job:
    return replace(job, account=replace(job.account, password=password))


def failures(job: Job, sessions: int) -> list[tuple[str, str]]:
    """The mechanisms that have failed in sessions that are over, and why."""
    found: list[tuple[str, str]] = []
    for recorded in job.recorded(sessions):
        found += recorded.said("pop3_login_failure", "mechanism", "reason")
        assert recorded.of("pop3_policy") == []
    return found


def log_in(job: Job, *mechanisms: str) -> list[bool]:
    """Try mechanisms in one session, until one is accepted."""
    accepted: list[bool] = []
    with PopClient(job.port) as client:
        client.ask_for_lines("CAPA")
        while len(accepted) < len(mechanisms) and True not in accepted:
            accepted.append(client.log_in(attempt(job, mechanisms[len(accepted)])))
        assert client.ask("QUIT")
        client.read_to_the_end()
    return accepted


@pytest.mark.parametrize("order", ORDERS)
def test_behind_one_mistake_the_right_password_gets_in(policed_job: Job, order: str) -> None:
    tried = ORDERS[order]
    assert log_in(mistyped(policed_job), *tried) == [False] * len(tried)
    # One mistake more, and the limit is not exceeded.
    assert log_in(mistyped(policed_job, "wrong again"), "USER/PASS") == [False]
    assert log_in(policed_job, tried[0]) == [True]
    assert failures(policed_job, 3) == [(each, "credentials") for each in (*tried, "USER/PASS")]


@pytest.mark.parametrize("order", ["as MailKit, with APOP first", "weakest first"])
def test_one_mistake_counts(policed_job: Job, order: str) -> None:
    log_in(mistyped(policed_job), *ORDERS[order])
    for number in range(1, LIMIT):
        assert log_in(mistyped(policed_job, f"guess {number}"), "USER/PASS") == [False]
    assert log_in(policed_job, "USER/PASS") == [False]
    watch = policed_job.watch
    assert watch is not None
    denied = watch.recorded(LIMIT + 1)[-1].said("pop3_login_failure", "reason")
    assert denied == [("denied",)]


def test_mutt_makes_one_mistake_by_all_its_mechanisms(policed_job: Job) -> None:
    methods = ("scram-sha-256", "digest-md5", "cram-md5", "apop", "plain", "login", "user")
    settings = f'set sleep_time=0 pop_authenticators="{":".join(methods)}"'
    target = ("-f", f"pop://127.0.0.1:{policed_job.port}")
    mutt(mistyped(policed_job), settings, target, "<quit>")
    mechanisms = [method.upper() for method in methods[:-1]]
    assert failures(policed_job, 1) == [
        (each, "credentials") for each in (*mechanisms, "USER/PASS")
    ]
    assert log_in(mistyped(policed_job, "guess"), "USER/PASS") == [False]
    assert log_in(policed_job, "PLAIN") == [True]


def test_fetchmail_makes_one_mistake_by_all_its_mechanisms(policed_job: Job) -> None:
    assert fetchmail(mistyped(policed_job), "protocol POP3").status != 0
    tried = ("NTLM", "CRAM-MD5", "USER/PASS")
    assert failures(policed_job, 1) == [(each, "credentials") for each in tried]
    assert log_in(mistyped(policed_job, "guess"), "USER/PASS") == [False]
    assert log_in(policed_job, "PLAIN") == [True]
