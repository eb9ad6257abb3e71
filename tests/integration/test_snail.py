"""s-nail, Debian's mailx: what it has without TLS."""

import re

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job, Outcome, fetched_into_maildir, snail
from .mail import TAME_MAILS
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

# What s-nail writes into the header of a message that it copies.
STATUS = re.compile(rb"^Status: .*\n", re.MULTILINE)
INTO_A_MAILDIR = "set newfolders=maildir"
COPY_ALL = "from *\ncopy * +mail\nquit\n"
MOVE_ALL = "copy * +mail\ndelete *\nquit\n"
METHODS = [
    pytest.param("set pop3-auth=plain pop3-no-apop", "USER/PASS", id="plain"),
    pytest.param("set pop3-auth=plain", "APOP", id="apop"),
    pytest.param("set pop3-no-apop pop3-bulk-load", "USER/PASS", id="bulk-load"),
]


def assert_mail_fetched(job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    # It puts an empty line between messages, in a Maildir too.
    fetched = sorted(STATUS.sub(b"", mail).rstrip(b"\n") for mail in fetched_into_maildir(job))
    assert fetched == sorted(mail.with_bare_newlines.rstrip(b"\n") for mail in TAME_MAILS)


@pytest.mark.parametrize(("settings", "mechanism"), METHODS)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    tame_job: Job, settings: str, mechanism: str, ran: Ran
) -> None:
    assert_mail_fetched(tame_job, snail(tame_job, f"{INTO_A_MAILDIR}\n{settings}", COPY_ALL))
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, with_version("s-nail"), tame_job.server, "mail fetched")


def test_gssapi_is_recorded_without_a_user_since_it_shows_none(gssapi_job: Job, ran: Ran) -> None:
    settings = f"{INTO_A_MAILDIR}\nset pop3-auth=gssapi"
    assert_mail_fetched(gssapi_job, snail(gssapi_job, settings, COPY_ALL))
    assert_every_event_recorded(gssapi_job.visit(), Login("", "GSSAPI"))
    ran("GSSAPI", with_version("s-nail"), gssapi_job.server, "mail fetched")


def test_deleted_mail_is_gone(tame_job: Job) -> None:
    assert_mail_fetched(tame_job, snail(tame_job, INTO_A_MAILDIR, MOVE_ALL))
    visit = tame_job.visit()
    assert_every_event_recorded(visit, Login(tame_job.account.user, "APOP"))
    assert visit.transcript.count("DELE") == len(TAME_MAILS)


@pytest.mark.parametrize(("settings", "mechanism"), METHODS[:2])
def test_a_wrong_password_is_recorded_as_a_failure(
    strangers_job: Job, settings: str, mechanism: str, ran: Ran
) -> None:
    outcome = snail(strangers_job, settings, COPY_ALL)
    assert "POP3 error: -ERR" in outcome.output
    login = Login(strangers_job.account.user, mechanism, success=False)
    assert_every_event_recorded(strangers_job.visit(), login)
    ran(mechanism, with_version("s-nail"), strangers_job.server, "wrong password")
