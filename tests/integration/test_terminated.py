"""Clients whose TLS the proxy ends: what they say inside is guarded and recorded as in the clear."""

import poplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from .audit import BY_A_PEER, Login, assert_attempts_asked, assert_logins_recorded
from .certificates import Certificates
from .clients import (
    Job,
    curl,
    fetched_by_curl,
    fetched_by_delivery,
    fetched_into_maildir,
    fetchmail,
    mpop,
    mutt,
    snail,
)
from .conftest import Events
from .dovecot import Dovecot
from .front import Front, running_front
from .guarded import Guard
from .mail import DOTS, TAME_MAILS
from .popclient import Attempt, PopClient
from .test_mutt import SAVE_ALL
from .test_snail import COPY_ALL, INTO_A_MAILDIR

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Terminated:
    """A running proxy that ends TLS, and who its clients trust."""

    front: Front
    guard: Guard | None
    certificates: Certificates


@pytest.fixture(scope="module")
def terminated(
    guarding: str,
    dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Terminated]:
    """Through a proxy that ends STLS, to ``dovecot`` in the clear."""
    folder = tmp_path_factory.mktemp("terminated")
    guard = Guard.made_in(folder, "guard") if guarding == "guarded" else None
    with running_front(
        folder,
        events_in(f"terminated-{guarding}"),
        {"stls": {"tls": "terminate"}},
        {"endpoint": f"tcp:127.0.0.1:{dovecot.port}", "tls": "plain"},
        certificates=[proxy_certificate],
        more=guard.path.read_text() if guard else "",
    ) as front:
        yield Terminated(front, guard, certificates)


@pytest.fixture
def tls_job(terminated: Terminated, dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the tamer of the odd messages."""
    account = dovecot.new_account()
    dovecot.deliver(account.user, TAME_MAILS)
    return Job(terminated.front.ports["stls"], account, tmp_path)


def by_curl(job: Job, trust: Certificates) -> None:
    user = f"{job.account.user}:{job.account.password}"
    outcome = curl(
        job, f"[1-{len(TAME_MAILS)}]", "--ssl-reqd", "--cacert", trust.authority, "--user", user
    )
    assert outcome.status == 0, outcome.output
    assert fetched_by_curl(job) == [mail.sent for mail in TAME_MAILS]


def by_fetchmail(job: Job, trust: Certificates) -> None:
    tls = f'sslproto tls1.2+ sslcertck sslcertfile "{trust.authority}"'
    outcome = fetchmail(job, "protocol POP3 auth password", tls=tls)
    assert outcome.status == 0, outcome.output
    delivered = sorted(mail.with_bare_newlines for mail in TAME_MAILS)
    assert sorted(fetched_by_delivery(job)) == delivered


def by_mpop(job: Job, trust: Certificates) -> None:
    tls = ("tls on", "tls_starttls on", f"tls_trust_file {trust.authority}")
    outcome = mpop(job, "scram-sha-256", job.account.password, *tls)
    assert outcome.status == 0, outcome.output
    delivered = sorted(mail.with_bare_newlines for mail in TAME_MAILS)
    assert sorted(fetched_into_maildir(job)) == delivered


def by_mutt(job: Job, trust: Certificates) -> None:
    tls = f"set ssl_starttls=yes ssl_force_tls=yes ssl_ca_certificates_file={trust.authority}"
    host = ("-f", f"pop://127.0.0.1:{job.port}")
    outcome = mutt(job, f"set certificate_file={trust.authority}\n{tls}", host, SAVE_ALL)
    assert len(fetched_into_maildir(job)) == len(TAME_MAILS), outcome.output


def by_snail(job: Job, trust: Certificates) -> None:
    """What it calls ``oauthbearer`` is XOAUTH2, which it has inside TLS only."""
    with_token = replace(job, account=replace(job.account, password=job.account.token))
    tls = f"set pop3-use-starttls tls-ca-file={trust.authority} tls-ca-no-defaults pop3-auth=oauthbearer"
    outcome = snail(with_token, f"{INTO_A_MAILDIR}\n{tls}", COPY_ALL)
    assert len(fetched_into_maildir(job)) == len(TAME_MAILS), outcome.output


def by_poplib(job: Job, trust: Certificates) -> None:
    with closing(poplib.POP3("127.0.0.1", job.port)) as client:
        client.stls(ssl.create_default_context(cafile=str(trust.authority)))
        client.user(job.account.user)
        client.pass_(job.account.password)
        _, lines, _ = client.retr(1)
        client.quit()
    assert b"".join(line + b"\r\n" for line in lines) == DOTS.sent


def as_jakarta_mail(job: Job, trust: Certificates) -> None:
    """It pipelines the login inside TLS."""
    with PopClient(job.port) as client:
        assert client.ask("STLS")
        client.turn_tls(ssl.create_default_context(cafile=str(trust.authority)))
        assert "PIPELINING" in client.ask_for_lines("CAPA")
        client.send(f"USER {job.account.user}")
        client.send(f"PASS {job.account.password}")
        assert client.accepted()
        assert client.accepted()
        assert client.ask("QUIT")
        client.read_to_the_end()


def as_outlook(job: Job, trust: Certificates) -> None:
    """NTLM inside TLS."""
    with PopClient(job.port) as client:
        assert client.ask("STLS")
        client.turn_tls(ssl.create_default_context(cafile=str(trust.authority)))
        client.ask_for_lines("AUTH ")
        assert client.log_in(Attempt(job.account.user, job.account.password, "NTLM"))
        assert client.ask("QUIT")
        client.read_to_the_end()


CLIENTS = [
    pytest.param(by_curl, "CRAM-MD5", id="curl"),
    pytest.param(by_fetchmail, "USER/PASS", id="fetchmail"),
    pytest.param(by_mpop, "SCRAM-SHA-256", id="mpop"),
    pytest.param(by_mutt, "SCRAM-SHA-256", id="mutt"),
    pytest.param(by_snail, "XOAUTH2", id="s-nail"),
    pytest.param(by_poplib, "USER/PASS", id="poplib"),
    pytest.param(as_jakarta_mail, "USER/PASS", id="jakarta-mail"),
    pytest.param(as_outlook, "NTLM", id="outlook"),
]


@pytest.mark.parametrize(("fetch", "mechanism"), CLIENTS)
def test_mail_arrives_and_the_login_inside_is_recorded_and_asked_about(
    terminated: Terminated,
    tls_job: Job,
    fetch: Callable[[Job, Certificates], None],
    mechanism: str,
) -> None:
    start = terminated.front.events.size
    fetch(tls_job, terminated.certificates)
    (recorded,) = terminated.front.sessions(start)
    assert recorded.end["reason"] in BY_A_PEER
    assert recorded.end["inspected"] == "whole"
    login = Login(tls_job.account.user, mechanism)
    assert_logins_recorded(recorded, login)
    if terminated.guard:
        assert_attempts_asked(terminated.guard.asked(recorded.end["uid"]), login)
