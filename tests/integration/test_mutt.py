"""mutt: its two ways to read mail by POP3, and every way to log in that Debian's mutt has (GNU SASL)."""

import re

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job, Outcome, fetched_into_maildir, mutt
from .mail import TAME_MAILS, Mail
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

# What mutt writes into the header of a message that it saves.
COUNTED = re.compile(rb"^(Content-Length|Lines): .*\n", re.MULTILINE)
SAVE_ALL = "<tag-pattern>~A<enter><tag-prefix><save-message>=mail<enter><quit>"
METHODS = [
    pytest.param("user", "USER/PASS", id="user"),
    pytest.param("apop", "APOP", id="apop"),
    pytest.param("plain", "PLAIN", id="plain"),
    pytest.param("login", "LOGIN", id="login"),
    pytest.param("cram-md5", "CRAM-MD5", id="cram-md5"),
    pytest.param("digest-md5", "DIGEST-MD5", id="digest-md5"),
    pytest.param("scram-sha-1", "SCRAM-SHA-1", id="scram-sha-1"),
    pytest.param("scram-sha-256", "SCRAM-SHA-256", id="scram-sha-256"),
    pytest.param("", "SCRAM-SHA-256", id="its-own-choice"),
]


def method(authenticator: str) -> str:
    return f'set pop_authenticators="{authenticator}"'


def open_mailbox(job: Job, settings: str) -> Outcome:
    """Read the mailbox as a folder, and move everything from there."""
    return mutt(job, settings, ("-f", f"pop://127.0.0.1:{job.port}"), SAVE_ALL)


def assert_fetched(mails: tuple[Mail, ...], job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    fetched = sorted(COUNTED.sub(b"", mail) for mail in fetched_into_maildir(job))
    assert fetched == sorted(mail.with_bare_newlines for mail in mails)


@pytest.mark.parametrize(("authenticator", "mechanism"), METHODS)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    tame_job: Job, authenticator: str, mechanism: str, ran: Ran
) -> None:
    assert_fetched(TAME_MAILS, tame_job, open_mailbox(tame_job, method(authenticator)))
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, with_version("mutt"), tame_job.server, "mail fetched")


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_mail_arrives_unchanged_for_a_token_and_every_event_is_recorded(
    tame_job: Job, mechanism: str, ran: Ran
) -> None:
    refresh = f'set pop_oauth_refresh_command="echo {tame_job.account.token}"'
    outcome = open_mailbox(tame_job, f"{method(mechanism.lower())}\n{refresh}")
    assert_fetched(TAME_MAILS, tame_job, outcome)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, with_version("mutt"), tame_job.server, "mail fetched")


def test_gssapi_is_recorded_without_a_user_since_it_shows_none(gssapi_job: Job, ran: Ran) -> None:
    assert_fetched(TAME_MAILS, gssapi_job, open_mailbox(gssapi_job, method("gssapi")))
    assert_every_event_recorded(gssapi_job.visit(), Login("", "GSSAPI"))
    ran("GSSAPI", with_version("mutt"), gssapi_job.server, "mail fetched")


def test_mail_fetched_into_the_spool_is_unchanged_and_deleted_there(
    tame_job: Job, ran: Ran
) -> None:
    """``pop_delete`` makes mutt send DELE behind each RETR."""
    settings = f"set pop_host=pop://127.0.0.1:{tame_job.port} pop_delete=yes"
    outcome = mutt(tame_job, f"{method('user')}\n{settings}", (), "<fetch-mail><quit>")
    assert_fetched(TAME_MAILS, tame_job, outcome)
    visit = tame_job.visit()
    assert_every_event_recorded(visit, Login(tame_job.account.user, "USER/PASS"))
    assert visit.transcript.count("DELE") == len(TAME_MAILS)


@pytest.mark.parametrize(("authenticator", "mechanism"), METHODS[:-1])
def test_a_wrong_password_is_recorded_as_a_failure(
    strangers_job: Job, authenticator: str, mechanism: str, ran: Ran
) -> None:
    open_mailbox(strangers_job, method(authenticator))
    assert fetched_into_maildir(strangers_job) == []
    login = Login(strangers_job.account.user, mechanism, success=False)
    assert_every_event_recorded(strangers_job.visit(), login)
    ran(mechanism, with_version("mutt"), strangers_job.server, "wrong password")
