"""curl: every mechanism that it has, with and without an initial response."""

from collections.abc import Sequence

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job, Outcome, curl, fetched_by_curl
from .kerberos import REALM
from .mail import ODD_MAILS, TAME_MAILS, Mail
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

WITH_PASSWORD = ["PLAIN", "LOGIN", "CRAM-MD5", "NTLM", "+APOP"]
INITIAL_RESPONSE = [pytest.param((), id="without-ir"), pytest.param(("--sasl-ir",), id="with-ir")]


def messages(mails: Sequence[Mail]) -> str:
    return f"[1-{len(mails)}]"


def fetch(job: Job, mechanism: str, *options: str) -> Outcome:
    user = f"{job.account.user}:{job.account.password}"
    login = ("--login-options", f"AUTH={mechanism}", "--user", user)
    return curl(job, messages(ODD_MAILS), *login, *options)


def fetch_with_token(job: Job, *options: str) -> Outcome:
    login = ("--oauth2-bearer", job.account.token, "--user", f"{job.account.user}:")
    return curl(job, messages(ODD_MAILS), *login, *options)


def try_in_vain(job: Job, *options: str) -> None:
    assert curl(job, "1", *options).status != 0


def assert_fetched(mails: Sequence[Mail], job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    assert fetched_by_curl(job) == [mail.sent for mail in mails]


@pytest.mark.parametrize("ir", INITIAL_RESPONSE)
@pytest.mark.parametrize("mechanism", WITH_PASSWORD)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    job: Job, mechanism: str, ir: tuple[str, ...], ran: Ran
) -> None:
    outcome = fetch(job, mechanism, *ir)
    assert_fetched(ODD_MAILS, job, outcome)
    name = mechanism.removeprefix("+")
    assert_every_event_recorded(job.visit(), Login(job.account.user, name))
    ran(name, with_version("curl"), job.server, "mail fetched")


@pytest.mark.parametrize("ir", INITIAL_RESPONSE)
def test_oauthbearer_fetches_mail_unchanged_and_every_event_is_recorded(
    job: Job, ir: tuple[str, ...], ran: Ran
) -> None:
    outcome = fetch_with_token(job, *ir)
    assert_fetched(ODD_MAILS, job, outcome)
    assert_every_event_recorded(job.visit(), Login(job.account.user, "OAUTHBEARER"))
    ran("OAUTHBEARER", with_version("curl"), job.server, "mail fetched")


@pytest.mark.parametrize("ir", INITIAL_RESPONSE)
def test_xoauth2_fetches_mail_unchanged_and_every_event_is_recorded(
    xoauth2_job: Job, ir: tuple[str, ...], ran: Ran
) -> None:
    outcome = fetch_with_token(xoauth2_job, *ir)
    assert_fetched(ODD_MAILS, xoauth2_job, outcome)
    login = Login(xoauth2_job.account.user, "XOAUTH2")
    assert_every_event_recorded(xoauth2_job.visit(), login)
    ran("XOAUTH2", with_version("curl"), xoauth2_job.server, "mail fetched")


def test_gssapi_is_recorded_without_a_user_since_it_shows_none(gssapi_job: Job, ran: Ran) -> None:
    login = ("--login-options", "AUTH=GSSAPI", "--user", f"{gssapi_job.account.user}@{REALM}:")
    outcome = curl(gssapi_job, messages(TAME_MAILS), *login)
    assert_fetched(TAME_MAILS, gssapi_job, outcome)
    assert_every_event_recorded(gssapi_job.visit(), Login("", "GSSAPI"))
    ran("GSSAPI", with_version("curl"), gssapi_job.server, "mail fetched")


@pytest.mark.parametrize("mechanism", WITH_PASSWORD)
def test_a_wrong_password_is_recorded_as_a_failure(job: Job, mechanism: str, ran: Ran) -> None:
    user = f"{job.account.user}:wrong"
    try_in_vain(job, "--login-options", f"AUTH={mechanism}", "--user", user)
    name = mechanism.removeprefix("+")
    assert_every_event_recorded(job.visit(), Login(job.account.user, name, success=False))
    ran(name, with_version("curl"), job.server, "wrong password")


def test_a_token_refused_by_a_challenge_is_recorded_as_a_failure_of_oauthbearer(
    job: Job, ran: Ran
) -> None:
    try_in_vain(job, "--oauth2-bearer", "nobodys", "--user", f"{job.account.user}:")
    login = Login(job.account.user, "OAUTHBEARER", success=False)
    assert_every_event_recorded(job.visit(), login)
    ran("OAUTHBEARER", with_version("curl"), job.server, "wrong token")


def test_a_client_that_leaves_when_its_token_is_refused_has_failed(
    xoauth2_job: Job, ran: Ran
) -> None:
    """Curl does not answer the challenge with the error, so that the server says no -ERR."""
    user = f"{xoauth2_job.account.user}:"
    try_in_vain(xoauth2_job, "--oauth2-bearer", "nobodys", "--user", user)
    recorded = xoauth2_job.visit().recorded
    attempt = (xoauth2_job.account.user, "XOAUTH2")
    assert recorded.said("pop3_login_attempt", "user", "mechanism") == [attempt]
    assert recorded.said("pop3_login_failure", "user", "mechanism") == [attempt]
    assert recorded.of("pop3_login_success") == []
    ran("XOAUTH2", with_version("curl"), xoauth2_job.server, "wrong token; the client leaves")


def test_external_without_a_certificate_is_recorded_as_a_failure(job: Job, ran: Ran) -> None:
    user = f"{job.account.user}:"
    try_in_vain(job, "--login-options", "AUTH=EXTERNAL", "--user", user)
    assert_every_event_recorded(job.visit(), Login(job.account.user, "EXTERNAL", success=False))
    ran("EXTERNAL", with_version("curl"), job.server, "refused: no TLS")


def test_an_exchange_that_curl_cancels_is_no_login(job: Job, ran: Ran) -> None:
    """Curl does not take the quotes around the algorithm in Dovecot's challenge."""
    user = f"{job.account.user}:{job.account.password}"
    try_in_vain(job, "--login-options", "AUTH=DIGEST-MD5", "--user", user)
    assert_every_event_recorded(job.visit())
    ran("DIGEST-MD5", with_version("curl"), job.server, "cancelled by the client")


def test_user_and_pass_are_recorded_where_the_server_has_nothing_else(
    stub_job: Job, ran: Ran
) -> None:
    user = f"{stub_job.account.user}:{stub_job.account.password}"
    outcome = curl(stub_job, messages(ODD_MAILS), "--login-options", "AUTH=*", "--user", user)
    assert_fetched(ODD_MAILS, stub_job, outcome)
    assert_every_event_recorded(stub_job.visit(), Login(stub_job.account.user, "USER/PASS"))
    ran("USER/PASS", with_version("curl"), stub_job.server, "mail fetched")


def test_a_message_of_10_mb_arrives_unchanged(large_job: Job, large: Mail) -> None:
    user = f"{large_job.account.user}:{large_job.account.password}"
    outcome = curl(large_job, "1", "--login-options", "AUTH=PLAIN", "--user", user)
    assert_fetched([large], large_job, outcome)
    assert_every_event_recorded(large_job.visit(), Login(large_job.account.user, "PLAIN"))


def test_with_data_every_line_of_the_mail_is_recorded_up_to_a_limit(data_job: Job) -> None:
    outcome = fetch(data_job, "PLAIN")
    assert_fetched(ODD_MAILS, data_job, outcome)
    login = Login(data_job.account.user, "PLAIN")
    assert_every_event_recorded(data_job.visit(), login, data=True, unexpected=["line_too_long"])


def test_with_data_a_message_of_10_mb_is_recorded_line_by_line(
    large_data_job: Job, large: Mail
) -> None:
    user = f"{large_data_job.account.user}:{large_data_job.account.password}"
    outcome = curl(large_data_job, "1", "--login-options", "AUTH=PLAIN", "--user", user)
    assert_fetched([large], large_data_job, outcome)
    visit = large_data_job.visit()
    assert_every_event_recorded(visit, Login(large_data_job.account.user, "PLAIN"), data=True)


@pytest.mark.parametrize("request_line", ["UIDL", "LIST", "TOP 1 0", "RETR 1", "CAPA"])
def test_a_request_of_ones_own_with_a_body_is_recorded(job: Job, request_line: str) -> None:
    user = f"{job.account.user}:{job.account.password}"
    outcome = curl(job, "", "--user", user, "--request", request_line)
    assert outcome.status == 0, outcome.output
    visit = job.visit()
    assert_every_event_recorded(visit, Login(job.account.user, "CRAM-MD5"))
    assert tuple(request_line.partition(" ")[::2]) in visit.transcript.requests


@pytest.mark.parametrize("request_line", ["STAT", "NOOP", "RSET", "DELE 1", "LIST 1", "UIDL 1"])
def test_a_request_of_ones_own_without_a_body_is_recorded(job: Job, request_line: str) -> None:
    user = f"{job.account.user}:{job.account.password}"
    outcome = curl(job, "", "--user", user, "--head", "--request", request_line)
    assert outcome.status == 0, outcome.output
    visit = job.visit()
    assert_every_event_recorded(visit, Login(job.account.user, "CRAM-MD5"))
    assert tuple(request_line.partition(" ")[::2]) in visit.transcript.requests


def test_a_list_is_recorded(job: Job) -> None:
    user = f"{job.account.user}:{job.account.password}"
    outcome = curl(job, "", "--user", user, "--list-only")
    assert outcome.status == 0, outcome.output
    assert_every_event_recorded(job.visit(), Login(job.account.user, "CRAM-MD5"))
