"""poplib: Python's own client, used line by line."""

import platform
import poplib
from contextlib import closing

import pytest

from .audit import Login, assert_every_event_recorded, assert_let_in
from .clients import Job
from .mail import ODD_MAILS, Mail
from .mechanisms import Ran

pytestmark = pytest.mark.integration

CLIENT = f"poplib {platform.python_version()}"


@pytest.fixture(autouse=True)
def _no_limit_on_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poplib refuses lines over 2 KiB, which real mail has."""
    monkeypatch.setattr(poplib, "_MAXLINE", 2**20)


def fetch_all(client: poplib.POP3) -> list[bytes]:
    messages, _ = client.stat()
    fetched = [client.retr(number)[1] for number in range(1, messages + 1)]
    return [b"".join(line + b"\r\n" for line in lines) for lines in fetched]


def assert_odd_mail_fetched(client: poplib.POP3) -> None:
    assert fetch_all(client) == [mail.sent for mail in ODD_MAILS]


def test_mail_arrives_unchanged_after_user_and_pass(job: Job, ran: Ran) -> None:
    with closing(poplib.POP3("127.0.0.1", job.port)) as client:
        client.user(job.account.user)
        client.pass_(job.account.password)
        assert_odd_mail_fetched(client)
        client.quit()
    assert_every_event_recorded(job.visit(), Login(job.account.user, "USER/PASS"))
    ran("USER/PASS", CLIENT, job.server, "mail fetched")


def test_mail_arrives_unchanged_after_apop(job: Job, ran: Ran) -> None:
    with closing(poplib.POP3("127.0.0.1", job.port)) as client:
        client.apop(job.account.user, job.account.password)
        assert_odd_mail_fetched(client)
        client.quit()
    assert_every_event_recorded(job.visit(), Login(job.account.user, "APOP"))
    ran("APOP", CLIENT, job.server, "mail fetched")


def test_every_command_and_every_line_is_recorded_with_data(data_job: Job) -> None:
    with closing(poplib.POP3("127.0.0.1", data_job.port)) as client:
        client.capa()
        client.user(data_job.account.user)
        client.pass_(data_job.account.password)
        client.list()
        client.list(1)
        client.uidl()
        client.uidl(1)
        client.top(1, 0)
        client.top(2, 1000)
        client.noop()
        client.dele(1)
        client.rset()
        assert client.retr(2)[1] == ODD_MAILS[1].sent.split(b"\r\n")[:-1]
        client.quit()
    login = Login(data_job.account.user, "USER/PASS")
    assert_every_event_recorded(data_job.visit(), login, data=True)


def test_a_refused_utf8_is_a_request_and_a_reply(job: Job) -> None:
    with closing(poplib.POP3("127.0.0.1", job.port)) as client:
        with pytest.raises(poplib.error_proto, match="Unknown command"):
            client.utf8()
        client.user(job.account.user)
        client.pass_(job.account.password)
        client.quit()
    assert_every_event_recorded(job.visit(), Login(job.account.user, "USER/PASS"))


def test_logins_of_one_session_are_recorded_each_with_its_own_user(job: Job) -> None:
    with closing(poplib.POP3("127.0.0.1", job.port)) as client:
        client.user("nobody-of-that-name")
        with pytest.raises(poplib.error_proto):
            client.pass_("any")
        with pytest.raises(poplib.error_proto):
            client.apop(job.account.user, "wrong")
        client.apop(job.account.user, job.account.password)
        client.quit()
    assert_every_event_recorded(
        job.visit(),
        Login("nobody-of-that-name", "USER/PASS", success=False),
        Login(job.account.user, "APOP", success=False),
        Login(job.account.user, "APOP"),
    )


def test_a_message_of_10_mb_arrives_unchanged(large_job: Job, large: Mail) -> None:
    with closing(poplib.POP3("127.0.0.1", large_job.port)) as client:
        client.user(large_job.account.user)
        client.pass_(large_job.account.password)
        assert fetch_all(client) == [large.sent]
        client.quit()
    assert_every_event_recorded(large_job.visit(), Login(large_job.account.user, "USER/PASS"))


def test_rpop_is_refused_under_guard_and_the_session_goes_on(job: Job) -> None:
    """RFC 1460 had it; poplib has it still, and some servers take it for a login."""
    with closing(poplib.POP3("127.0.0.1", job.port)) as client:
        client.user(job.account.user)
        with pytest.raises(poplib.error_proto):
            client.rpop("somebody")
        client.user(job.account.user)
        client.pass_(job.account.password)
        client.quit()
    login = Login(job.account.user, "USER/PASS")
    if job.guarded:
        assert_let_in(job.visit(b"RPOP somebody\r\n"), login, unexpected=["not_passed"])
    else:
        assert job.visit().recorded.said("pop3_login_success", "user") == [(job.account.user,)]
