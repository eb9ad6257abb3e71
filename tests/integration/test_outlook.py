r"""What Outlook says, spoken by a client of the tests' own.

Sources: [MS-POP3] 2.2.1 and 4 (AUTH with a trailing blank lists mechanisms; AUTH NTLM, Type 1, Type 3);
Dovecot 2.3, src/pop3-login/client-authenticate.c ("Old-style SASL discovery, used by MS Outlook");
Microsoft KB 155515, the Pop3.log of Outlook Express 4 (USER, PASS, STAT, UIDL, LIST, RETR, DELE, QUIT).
"""

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job
from .mail import TAME_MAILS
from .mechanisms import Ran
from .popclient import Attempt, PopClient
from .sasl import NTLM_NEGOTIATE

pytestmark = pytest.mark.integration

CLIENT = "as Outlook"


def log_in(client: PopClient, job: Job) -> None:
    assert client.ask(f"USER {job.account.user}")
    assert client.ask(f"PASS {job.account.password}")


def fetch_and_delete(client: PopClient) -> None:
    assert client.ask("STAT")
    numbers = range(1, len(client.ask_for_lines("UIDL")) + 1)
    assert len(client.ask_for_lines("LIST")) == len(TAME_MAILS)
    for number, mail in zip(numbers, TAME_MAILS, strict=True):
        lines = client.ask_for_lines(f"RETR {number}")
        text = "".join(f"{line}\r\n" for line in lines)
        assert text.encode(errors="surrogateescape") == mail.sent
    assert all(client.ask(f"DELE {number}") for number in numbers)
    assert client.ask("QUIT")
    client.read_to_the_end()


@pytest.mark.parametrize("discovery", ["", "AUTH ", "AUTH", "CAPA"])
def test_discovery_and_login_and_mail_pass(tame_job: Job, discovery: str, ran: Ran) -> None:
    with PopClient(tame_job.port) as client:
        if discovery:
            assert "PLAIN" in " ".join(client.ask_for_lines(discovery))
        log_in(client, tame_job)
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "USER/PASS"))
    ran("USER/PASS", CLIENT, tame_job.server, "mail fetched")


def test_secure_password_authentication_passes(tame_job: Job, ran: Ran) -> None:
    """NTLM, whose last message is longer than a command may be."""
    with PopClient(tame_job.port) as client:
        assert "NTLM" in client.ask_for_lines("AUTH ")
        assert client.log_in(Attempt(tame_job.account.user, tame_job.account.password, "NTLM"))
        fetch_and_delete(client)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "NTLM"))
    ran("NTLM", CLIENT, tame_job.server, "mail fetched")


def test_secure_password_authentication_with_a_wrong_password_fails(
    strangers_job: Job, ran: Ran
) -> None:
    account = strangers_job.account
    with PopClient(strangers_job.port) as client:
        assert not client.log_in(Attempt(account.user, account.password, "NTLM"))
        assert client.ask("QUIT")
        client.read_to_the_end()
    login = Login(account.user, "NTLM", success=False)
    assert_every_event_recorded(strangers_job.visit(), login)
    ran("NTLM", CLIENT, strangers_job.server, "wrong password")


def test_a_cancelled_exchange_of_ntlm_is_no_login_and_the_next_login_passes(tame_job: Job) -> None:
    """Secure Password Authentication that the user gives up before a password is known."""
    with PopClient(tame_job.port) as client:
        client.send("AUTH NTLM")
        assert client.line().startswith("+ ")
        client.send(NTLM_NEGOTIATE)
        assert client.line().startswith("+ TlRMTVNTUAAC")
        assert not client.ask("*")
        log_in(client, tame_job)
        fetch_and_delete(client)
    visit = tame_job.visit()
    assert_every_event_recorded(visit, Login(tame_job.account.user, "USER/PASS"))


def test_ntlm_that_the_server_lacks_is_no_login_and_the_next_login_passes(
    tame_tls_job: Job,
) -> None:
    with PopClient(tame_tls_job.port) as client:
        assert "NTLM" not in client.ask_for_lines("AUTH ")
        assert not client.ask("AUTH NTLM")
        log_in(client, tame_tls_job)
        fetch_and_delete(client)
    visit = tame_tls_job.visit()
    assert_every_event_recorded(visit, Login(tame_tls_job.account.user, "USER/PASS"))
