"""What Thunderbird says, spoken by a client of the tests' own.

Sources: comm-central, mailnews/local/src/Pop3Client.sys.mjs at 0da1312d40ec (2026) for versions from 102 on;
mailnews/local/src/nsPop3Protocol.cpp at 036a23e1b73a for those before, which ask AUTH before CAPA. It waits
for each answer, never sends an initial response, and tries what is left when a mechanism fails.
"""

import pytest

from .attempts import assert_each_fails_before_plain, attempt
from .audit import Login, assert_every_event_recorded
from .clients import Job
from .mechanisms import Ran
from .popclient import Attempt, PopClient
from .test_outlook import fetch_and_delete

pytestmark = pytest.mark.integration

CLIENT = "as Thunderbird"
# By authMethod: 3 is PLAIN, LOGIN, then USER and PASS; 4 CRAM-MD5, or APOP where the server lacks it; 6 NTLM.
MECHANISMS = ["PLAIN", "LOGIN", "USER/PASS", "CRAM-MD5", "APOP", "NTLM"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_login_and_mail_pass(tame_job: Job, mechanism: str, ran: Ran) -> None:
    with PopClient(tame_job.port) as client:
        client.ask_for_lines("CAPA")
        assert client.log_in(attempt(tame_job, mechanism))
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, CLIENT, tame_job.server, "mail fetched")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_login_and_mail_of_old_versions_pass(tame_job: Job, mechanism: str) -> None:
    with PopClient(tame_job.port) as client:
        client.ask_for_lines("AUTH")
        client.ask_for_lines("CAPA")
        assert client.log_in(attempt(tame_job, mechanism))
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))


@pytest.mark.parametrize("length", [100, 2_000, 5_000])
def test_a_token_of_any_length_passes_in_a_line_of_its_own(
    tame_job: Job, length: int, ran: Ran
) -> None:
    """Microsoft's have some 2,000 bytes."""
    token = f"{tame_job.account.token}.".ljust(length, "t")
    with PopClient(tame_job.port) as client:
        client.ask_for_lines("CAPA")
        assert client.log_in(Attempt(tame_job.account.user, token, "XOAUTH2"))
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "XOAUTH2"))
    ran("XOAUTH2", CLIENT, tame_job.server, "mail fetched")


def test_each_way_to_log_in_fails_once_until_the_password_is_right(tame_job: Job) -> None:
    """Asked for a new password, it begins again with the first mechanism."""
    ways = ("PLAIN", "LOGIN", "USER/PASS")
    assert_each_fails_before_plain(tame_job, ways, fetch_and_delete)


def test_a_check_of_the_password_passes(job: Job) -> None:
    """``verifyLogon``: nothing but QUIT behind the login."""
    with PopClient(job.port) as client:
        client.ask_for_lines("CAPA")
        assert client.log_in(attempt(job, "PLAIN"))
        assert client.ask("QUIT")
        client.read_to_the_end()
    assert_every_event_recorded(job.visit(), Login(job.account.user, "PLAIN"))
