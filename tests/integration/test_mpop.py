"""mpop: every authentication method that it is built with."""

from collections.abc import Iterable

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job, Outcome, fetched_into_maildir, mpop
from .mail import ODD_MAILS, TAME_MAILS, Mail
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

METHODS = [
    pytest.param("user", "USER/PASS", id="user"),
    pytest.param("plain", "PLAIN", id="plain"),
    pytest.param("login", "LOGIN", id="login"),
    pytest.param("cram-md5", "CRAM-MD5", id="cram-md5"),
    pytest.param("digest-md5", "DIGEST-MD5", id="digest-md5"),
    pytest.param("scram-sha-1", "SCRAM-SHA-1", id="scram-sha-1"),
    pytest.param("scram-sha-256", "SCRAM-SHA-256", id="scram-sha-256"),
    pytest.param("ntlm", "NTLM", id="ntlm"),
]
WITH_TOKEN = [
    pytest.param("xoauth2", "XOAUTH2", id="xoauth2"),
    pytest.param("oauthbearer", "OAUTHBEARER", id="oauthbearer"),
]


def assert_fetched(mails: Iterable[Mail], job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    delivered = sorted(mail.with_bare_newlines for mail in mails)
    assert sorted(fetched_into_maildir(job)) == delivered


@pytest.mark.parametrize(("method", "mechanism"), METHODS)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    job: Job, method: str, mechanism: str, ran: Ran
) -> None:
    assert_fetched(ODD_MAILS, job, mpop(job, method, job.account.password))
    assert_every_event_recorded(job.visit(), Login(job.account.user, mechanism))
    ran(mechanism, with_version("mpop"), job.server, "mail fetched")


@pytest.mark.parametrize(("method", "mechanism"), WITH_TOKEN)
def test_mail_arrives_unchanged_for_a_token_and_every_event_is_recorded(
    job: Job, method: str, mechanism: str, ran: Ran
) -> None:
    assert_fetched(ODD_MAILS, job, mpop(job, method, job.account.token))
    assert_every_event_recorded(job.visit(), Login(job.account.user, mechanism))
    ran(mechanism, with_version("mpop"), job.server, "mail fetched")


def test_apop_is_recorded_with_a_stamp_that_mpop_accepts(apop_stub_job: Job, ran: Ran) -> None:
    """Dovecot's has equals signs in it."""
    assert_fetched(
        ODD_MAILS, apop_stub_job, mpop(apop_stub_job, "apop", apop_stub_job.account.password)
    )
    assert_every_event_recorded(apop_stub_job.visit(), Login(apop_stub_job.account.user, "APOP"))
    ran("APOP", with_version("mpop"), apop_stub_job.server, "mail fetched")


def test_gssapi_is_recorded_without_a_user_since_it_shows_none(gssapi_job: Job, ran: Ran) -> None:
    assert_fetched(TAME_MAILS, gssapi_job, mpop(gssapi_job, "gssapi", "none"))
    assert_every_event_recorded(gssapi_job.visit(), Login("", "GSSAPI"))
    ran("GSSAPI", with_version("mpop"), gssapi_job.server, "mail fetched")


@pytest.mark.parametrize(("method", "mechanism"), [*METHODS, *WITH_TOKEN])
def test_a_wrong_secret_is_recorded_as_a_failure(
    job: Job, method: str, mechanism: str, ran: Ran
) -> None:
    assert mpop(job, method, "wrong").status != 0
    assert_every_event_recorded(job.visit(), Login(job.account.user, mechanism, success=False))
    ran(mechanism, with_version("mpop"), job.server, "wrong secret")


def test_external_without_a_certificate_is_recorded_as_a_failure(job: Job, ran: Ran) -> None:
    assert mpop(job, "external", "none").status != 0
    assert_every_event_recorded(job.visit(), Login(job.account.user, "EXTERNAL", success=False))
    ran("EXTERNAL", with_version("mpop"), job.server, "refused: no TLS")


def test_a_message_of_10_mb_arrives_unchanged(large_job: Job, large: Mail) -> None:
    outcome = mpop(large_job, "plain", large_job.account.password)
    assert outcome.status == 0, outcome.output
    assert fetched_into_maildir(large_job) == [large.with_bare_newlines]
    assert_every_event_recorded(large_job.visit(), Login(large_job.account.user, "PLAIN"))


MODES = [
    pytest.param("on", "SCRAM-SHA-256", ("tls off",), id="its-own-choice"),
    pytest.param("user", "USER/PASS", ("tls off", "pipelining on"), id="pipelining"),
    pytest.param("user", "USER/PASS", ("tls off", "pipelining off"), id="no-pipelining"),
    pytest.param("user", "USER/PASS", ("tls off", "keep off"), id="delete"),
    pytest.param("user", "USER/PASS", ("tls off", "filter cat >/dev/null"), id="filter"),
    pytest.param("user", "USER/PASS", ("tls off", "skipsize 1000000"), id="skipsize"),
]


@pytest.mark.parametrize(("method", "mechanism", "settings"), MODES)
def test_mail_arrives_unchanged_in_every_mode(
    job: Job, method: str, mechanism: str, settings: tuple[str, ...]
) -> None:
    assert_fetched(ODD_MAILS, job, mpop(job, method, job.account.password, *settings))
    assert_every_event_recorded(job.visit(), Login(job.account.user, mechanism))
