"""What Jakarta Mail (JavaMail, Angus) says, spoken by a client of the tests' own.

Source: eclipse-ee4j/angus-mail, org/eclipse/angus/mail/pop3/Protocol.java of 2.0: ``login`` pipelines USER
and PASS (inside TLS, if the server has PIPELINING), PLAIN and XOAUTH2 have an initial response of any length
(XOAUTH2 in two lines if a property says so), ``retr`` pipelines LIST and RETR.
"""

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job
from .mail import TAME_MAILS
from .mechanisms import Ran
from .popclient import Attempt, PopClient

pytestmark = pytest.mark.integration

CLIENT = "as Jakarta Mail"


def fetch(client: PopClient) -> None:
    """Ask for each message's size and the message in one go."""
    assert client.ask("STAT")
    for number, mail in enumerate(TAME_MAILS, 1):
        client.send(f"LIST {number}")
        client.send(f"RETR {number}")
        assert client.accepted()
        assert client.accepted()
        text = "".join(f"{line}\r\n" for line in client.body())
        assert text.encode(errors="surrogateescape") == mail.sent
    assert client.ask("QUIT")
    client.read_to_the_end()


def test_a_pipelined_login_passes(tame_job: Job, ran: Ran) -> None:
    with PopClient(tame_job.port) as client:
        assert "PIPELINING" in client.ask_for_lines("CAPA")
        client.send(f"USER {tame_job.account.user}")
        client.send(f"PASS {tame_job.account.password}")
        assert client.accepted()
        assert client.accepted()
        fetch(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "USER/PASS"))
    ran("USER/PASS", CLIENT, tame_job.server, "mail fetched")


def log_in(job: Job, secret: str, mechanism: str) -> None:
    with PopClient(job.port) as client:
        client.ask_for_lines("CAPA")
        assert client.log_in(Attempt(job.account.user, secret, mechanism, initial_response=True))
        fetch(client)
    assert_every_event_recorded(job.visit(), Login(job.account.user, mechanism))


def test_a_password_as_an_initial_response_passes(tame_job: Job, ran: Ran) -> None:
    log_in(tame_job, tame_job.account.password, "PLAIN")
    ran("PLAIN", CLIENT, tame_job.server, "mail fetched")


@pytest.mark.parametrize("length", [100, 1_000, 5_000])
def test_a_token_of_any_length_passes_as_an_initial_response(
    tame_job: Job, length: int, ran: Ran
) -> None:
    log_in(tame_job, f"{tame_job.account.token}.".ljust(length, "t"), "XOAUTH2")
    ran("XOAUTH2", CLIENT, tame_job.server, "mail fetched")
