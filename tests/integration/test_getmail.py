"""getmail6: its two ways to log in."""

import pytest

from .audit import Login, assert_every_event_recorded, assert_let_in
from .clients import Job, Outcome, fetched_by_delivery, getmail
from .mail import ODD_MAILS, Mail
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

WAYS = [
    pytest.param((), "USER/PASS", id="user"),
    pytest.param(("use_apop = true",), "APOP", id="apop"),
]


def delivered(mail: Mail) -> bytes:
    """Getmail puts a line before each message, unlike the other clients."""
    return b"Return-Path: <unknown>\n" + mail.with_bare_newlines


def assert_mail_fetched(job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    assert sorted(fetched_by_delivery(job)) == sorted(map(delivered, ODD_MAILS))


@pytest.mark.parametrize(("settings", "mechanism"), WAYS)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    job: Job, settings: tuple[str, ...], mechanism: str, ran: Ran
) -> None:
    assert_mail_fetched(job, getmail(job, *settings))
    assert_every_event_recorded(job.visit(), Login(job.account.user, mechanism))
    ran(mechanism, with_version("getmail"), job.server, "mail fetched")


@pytest.mark.parametrize(("settings", "mechanism"), WAYS)
def test_a_wrong_password_is_recorded_as_a_failure(
    strangers_job: Job, settings: tuple[str, ...], mechanism: str, ran: Ran
) -> None:
    """Getmail sends RSET then, which needs a login: the guard keeps it from the server."""
    assert getmail(strangers_job, *settings).status != 0
    login = Login(strangers_job.account.user, mechanism, success=False)
    if strangers_job.guarded:
        assert_let_in(strangers_job.visit(b"RSET\r\n"), login, unexpected=["not_passed"])
    else:
        assert_every_event_recorded(strangers_job.visit(), login, unexpected=["wrong_state"])
    ran(mechanism, with_version("getmail"), strangers_job.server, "wrong password")


def test_a_message_of_10_mb_arrives_unchanged(large_job: Job, large: Mail) -> None:
    outcome = getmail(large_job)
    assert outcome.status == 0, outcome.output
    assert fetched_by_delivery(large_job) == [delivered(large)]
    assert_every_event_recorded(large_job.visit(), Login(large_job.account.user, "USER/PASS"))


MODES = [
    pytest.param(("delete = true",), id="delete"),
    pytest.param(("delete = false", "max_messages_per_session = 99"), id="keep"),
    pytest.param(("max_message_size = 1000000",), id="size"),
]


@pytest.mark.parametrize("options", MODES)
def test_mail_arrives_unchanged_in_every_mode(job: Job, options: tuple[str, ...]) -> None:
    assert_mail_fetched(job, getmail(job, options=options))
    assert_every_event_recorded(job.visit(), Login(job.account.user, "USER/PASS"))
