"""fetchmail: every kind of authentication that its POP3 has."""

import pytest

from .audit import Login, assert_every_event_recorded, assert_logins_recorded
from .clients import Job, Outcome, fetched_by_delivery, fetchmail
from .mail import TAME_MAILS, Mail
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

DELIVERED = [mail.with_bare_newlines for mail in TAME_MAILS]
KINDS = [
    pytest.param("protocol POP3 auth password", "USER/PASS", id="password"),
    pytest.param("protocol POP3 auth cram-md5", "CRAM-MD5", id="cram-md5"),
    pytest.param("protocol POP3 auth ntlm", "NTLM", id="ntlm"),
    pytest.param("protocol APOP", "APOP", id="apop"),
]


def assert_mail_fetched(job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    assert sorted(fetched_by_delivery(job)) == sorted(DELIVERED)


@pytest.mark.parametrize(("kind", "mechanism"), KINDS)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    tame_job: Job, kind: str, mechanism: str, ran: Ran
) -> None:
    assert_mail_fetched(tame_job, fetchmail(tame_job, kind))
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, with_version("fetchmail"), tame_job.server, "mail fetched")


def test_gssapi_is_recorded_without_a_user_since_it_shows_none(gssapi_job: Job, ran: Ran) -> None:
    assert_mail_fetched(gssapi_job, fetchmail(gssapi_job, "protocol POP3 auth gssapi"))
    assert_every_event_recorded(gssapi_job.visit(), Login("", "GSSAPI"))
    ran("GSSAPI", with_version("fetchmail"), gssapi_job.server, "mail fetched")


@pytest.mark.parametrize(("kind", "mechanism"), KINDS)
def test_a_wrong_password_is_recorded_as_a_failure(
    strangers_job: Job, kind: str, mechanism: str, ran: Ran
) -> None:
    assert fetchmail(strangers_job, kind).status != 0
    login = Login(strangers_job.account.user, mechanism, success=False)
    assert_every_event_recorded(strangers_job.visit(), login)
    ran(mechanism, with_version("fetchmail"), strangers_job.server, "wrong password")


def test_a_refused_mechanism_is_no_login(job: Job, ran: Ran) -> None:
    """``auth msn`` asks for a mechanism that Dovecot lacks; fetchmail cancels what did not begin.

    The guard keeps both lines from the server, since it could not read the exchange.
    """
    assert fetchmail(job, "protocol POP3 auth msn").status != 0
    recorded = job.visit(*(b"AUTH MSN\r\n", b"*\r\n")[: 2 * job.guarded]).recorded
    assert recorded.of("pop3_login_attempt", "pop3_login_success", "pop3_login_failure") == []
    assert ("AUTH", "MSN") in recorded.said("pop3_request", "command", "arg")
    assert recorded.end["inspected"] == "whole"
    ran("MSN", with_version("fetchmail"), job.server, "refused: unknown to the server")


def test_a_message_of_10_mb_arrives_unchanged(large_job: Job, large: Mail) -> None:
    outcome = fetchmail(large_job, "protocol POP3 auth password")
    assert outcome.status == 0, outcome.output
    assert fetched_by_delivery(large_job) == [large.with_bare_newlines]
    assert_every_event_recorded(large_job.visit(), Login(large_job.account.user, "USER/PASS"))


MODES = [
    pytest.param("protocol POP3 auth password uidl", "keep", id="uidl"),
    pytest.param("protocol POP3 auth password", "limit 100000 keep", id="limit"),
    pytest.param("protocol POP3 auth password", "limitflush limit 100000", id="limitflush"),
    pytest.param("protocol POP3 auth password", "fetchlimit 99 batchlimit 2", id="batches"),
    pytest.param("protocol POP3 auth password", "pass8bits flush", id="flush"),
]


@pytest.mark.parametrize(("kind", "more"), MODES)
def test_mail_arrives_unchanged_in_every_mode(tame_job: Job, kind: str, more: str) -> None:
    assert_mail_fetched(tame_job, fetchmail(tame_job, kind, tls=f"sslproto '' {more}"))
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "USER/PASS"))


def test_the_way_that_it_chooses_is_recorded(tame_job: Job) -> None:
    assert_mail_fetched(tame_job, fetchmail(tame_job, "protocol POP3"))
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "NTLM"))


def test_mail_that_is_expunged_every_two_messages_takes_a_session_each(tame_job: Job) -> None:
    outcome = fetchmail(tame_job, "protocol POP3 auth password", tls="sslproto '' expunge 2")
    assert_mail_fetched(tame_job, outcome)
    sessions = tame_job.recorded((len(TAME_MAILS) + 1) // 2)
    for recorded in sessions:
        assert_logins_recorded(recorded, Login(tame_job.account.user, "USER/PASS"))
    assert sum(recorded.end["dele"] for recorded in sessions) == len(TAME_MAILS)


def test_a_check_for_mail_is_recorded(tame_job: Job) -> None:
    outcome = fetchmail(tame_job, "protocol POP3 auth password", more=("--check",))
    assert outcome.status == 0, outcome.output
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "USER/PASS"))
