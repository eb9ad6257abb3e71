"""What MailKit says, spoken by a client of the tests' own.

Source: jstedfast/MailKit at d1f7aa7655d5 (4.17.0), Net/Pop3/Pop3Client.cs and Security/SaslMechanism.cs: APOP
first if the greeting has a time stamp, then the mechanisms of CAPA by rank, without an initial response,
then USER and PASS; CAPA and STAT behind the login; RETR and DELE pipelined if the server can.
"""

import pytest

from .attempts import assert_each_fails_before_plain, attempt
from .audit import Login, assert_every_event_recorded
from .clients import Job
from .mail import TAME_MAILS
from .mechanisms import Ran
from .popclient import PopClient

pytestmark = pytest.mark.integration

CLIENT = "as MailKit"
RANKED = ["SCRAM-SHA-256", "SCRAM-SHA-1", "NTLM", "DIGEST-MD5", "CRAM-MD5", "PLAIN", "LOGIN"]


def fetch_and_delete(client: PopClient) -> None:
    """Ask for everything in one write, then delete everything in one write."""
    assert "PIPELINING" in client.ask_for_lines("CAPA")
    assert client.ask("STAT")
    numbers = range(1, len(client.ask_for_lines("UIDL")) + 1)
    client.send(*(f"RETR {number}" for number in numbers))
    for mail in TAME_MAILS:
        assert client.accepted()
        text = "".join(f"{line}\r\n" for line in client.body())
        assert text.encode(errors="surrogateescape") == mail.sent
    client.send(*(f"DELE {number}" for number in numbers))
    assert all(client.accepted() for _ in numbers)
    assert client.ask("QUIT")
    client.read_to_the_end()


@pytest.mark.parametrize("mechanism", ["APOP", *RANKED, "USER/PASS"])
def test_login_and_pipelined_mail_pass(tame_job: Job, mechanism: str, ran: Ran) -> None:
    with PopClient(tame_job.port) as client:
        client.ask_for_lines("CAPA")
        assert client.log_in(attempt(tame_job, mechanism))
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, CLIENT, tame_job.server, "mail fetched")


def test_a_mechanism_of_a_lower_rank_passes_behind_those_that_failed(tame_job: Job) -> None:
    """Servers that keep hashes offer APOP and SCRAM, too, and refuse each."""
    refused = ("APOP", *RANKED[:5])
    assert_each_fails_before_plain(tame_job, refused, fetch_and_delete)


def test_every_mechanism_fails_for_a_wrong_password(strangers_job: Job) -> None:
    ways = ("APOP", *RANKED, "USER/PASS")
    with PopClient(strangers_job.port) as client:
        client.ask_for_lines("CAPA")
        for way in ways:
            assert not client.log_in(attempt(strangers_job, way))
        assert client.ask("QUIT")
        client.read_to_the_end()
    failures = [Login(strangers_job.account.user, way, success=False) for way in ways]
    assert_every_event_recorded(strangers_job.visit(), *failures)


def test_what_the_server_lacks_is_refused_and_the_session_goes_on(tame_job: Job) -> None:
    """``EnableUTF8`` and ``GetLanguages``, in that order before and behind a login."""
    with PopClient(tame_job.port) as client:
        client.ask_for_lines("CAPA")
        assert not client.ask("UTF8")
        assert not client.ask("LANG")
        assert client.log_in(attempt(tame_job, "APOP"))
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "APOP"))
