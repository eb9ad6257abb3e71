"""Every listener mode before every upstream mode, and every client with TLS; docs/tls.md has the tables."""

import poplib
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates
from .clients import (
    Job,
    Outcome,
    curl,
    fetched_by_curl,
    fetched_by_delivery,
    fetched_into_maildir,
    fetchmail,
    getmail,
    mpop,
)
from .conftest import Events
from .dovecot import Account, Dovecot
from .front import FETCHED, MAIL, Front, new_mailbox, running_front, session, trusting, upstream_of
from .popclient import PopClient
from .processes import program
from .records import RecordedSession
from .tls_table import (
    AT_ONCE,
    CLEAR,
    CLIENT_MODES,
    CLIENTS,
    LISTENERS,
    NO_SESSION,
    NOT_ABLE,
    SEEN,
    STLS,
    UNSEEN,
    UPSTREAMS,
    WAYS,
    expected,
    expected_of,
)

pytestmark = pytest.mark.integration

Fronts = Mapping[str, Front]


@pytest.fixture(scope="module")
def fronts(
    tls_dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fronts]:
    """For every upstream mode a proxy with a listener of every mode."""
    listeners = {mode: {"tls": mode} for mode in LISTENERS}
    with ExitStack() as stack:
        yield {
            upstream: stack.enter_context(
                running_front(
                    tmp_path_factory.mktemp(f"front-{upstream}"),
                    events_in(f"front-{upstream}"),
                    listeners,
                    upstream_of(tls_dovecot, upstream, certificates),
                    certificates=[proxy_certificate],
                )
            )
            for upstream in UPSTREAMS
        }


@pytest.fixture
def account(tls_dovecot: Dovecot) -> Account:
    """Someone with one message."""
    return new_mailbox(tls_dovecot)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("listener", LISTENERS)
def test_a_session_comes_to_what_the_table_says(
    fronts: Fronts,
    account: Account,
    certificates: Certificates,
    listener: str,
    way: str,
    upstream: str,
) -> None:
    front = fronts[upstream]
    start = front.events.size
    implicit = listener == "implicit"
    came_to = session(
        front.ports[listener], way, account, trusting(certificates), talks_first=implicit
    )
    if implicit and came_to == NO_SESSION:
        # There is none before the handshake: nothing is recorded, and no mail server was asked.
        assert front.events.size == start
    else:
        (recorded,) = front.sessions(start)
        if came_to == FETCHED:
            came_to = as_recorded(recorded, account, way)
        else:
            assert recorded.of("pop3_login_success") == []
    assert came_to == expected(listener, way, upstream)


def as_recorded(recorded: RecordedSession, account: Account, way: str) -> str:
    """Whether the login of a session in which mail was fetched was seen; if so, that all else was, too."""
    seen = bool(recorded.of("pop3_login_success"))
    assert bool(recorded.of("pop3_starttls")) == (way == STLS)
    if not seen:
        assert recorded.end["inspected"] == "until_tls"
        return UNSEEN
    assert recorded.said("pop3_login_success", "user", "mechanism") == [(account.user, "PLAIN")]
    (success,) = recorded.of("pop3_login_success")
    assert success.get("tls_version") == (None if way == CLEAR else "TLSv1.3")
    assert recorded.end["inspected"] == "whole"
    assert recorded.end["retr"] == 1
    return SEEN


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_logins_are_shown_only_where_they_are_let_in(
    fronts: Fronts, account: Account, certificates: Certificates, upstream: str
) -> None:
    """CAPA names STLS where the proxy answers it, and ways to log in where there are some."""
    start = fronts[upstream].events.size

    def capabilities(listener: str, way: str) -> list[str]:
        context = trusting(certificates)
        with PopClient(
            fronts[upstream].ports[listener], context if way == AT_ONCE else None
        ) as client:
            if way == STLS:
                assert client.ask("STLS")
                client.turn_tls(context)
            lines = client.ask_for_lines("CAPA")
            assert client.ask("QUIT")
            client.read_to_the_end()
            return lines

    secure = [
        capabilities("implicit", AT_ONCE),
        capabilities("terminate", STLS),
        capabilities("require", STLS),
    ]
    assert secure[0] == secure[1] == secure[2]
    assert "STLS" not in secure[0]
    assert "USER" in secure[0]
    assert "SASL PLAIN" in [line.replace(" EXTERNAL", "") for line in secure[0]]
    assert "STLS" not in capabilities("none", CLEAR)
    assert {"STLS", "USER"} <= set(capabilities("terminate", CLEAR))
    required = capabilities("require", CLEAR)
    assert "STLS" in required
    assert not [line for line in required if line.startswith(("USER", "SASL"))]
    assert len(fronts[upstream].sessions(start, 6)) == 6


# --- every client ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a client is to trust, and whether it turns TLS by STLS."""

    authority: Path
    stls: bool


def by_curl(job: Job, trust: Trust) -> Outcome:
    user = ("--user", f"{job.account.user}:{job.account.password}")
    if trust.stls:
        return curl(job, "1", "--ssl-reqd", "--cacert", trust.authority, *user)
    target = ("--output", job.folder / "mail-1", f"pop3s://127.0.0.1:{job.port}/1")
    return job.run("curl", "--silent", "--show-error", "--cacert", trust.authority, *user, *target)


def by_fetchmail(job: Job, trust: Trust) -> Outcome:
    tls = f'sslproto tls1.2+ sslcertck sslcertfile "{trust.authority}"'
    return fetchmail(job, "protocol POP3 auth password", tls if trust.stls else f"ssl {tls}")


def by_mpop(job: Job, trust: Trust) -> Outcome:
    starttls = f"tls_starttls {'on' if trust.stls else 'off'}"
    authority = f"tls_trust_file {trust.authority}"
    return mpop(job, "plain", job.account.password, "tls on", starttls, authority)


def by_getmail(job: Job, trust: Trust) -> Outcome:
    return getmail(job, f"ca_certs = {trust.authority}", kind="SimplePOP3SSLRetriever")


def by_openssl(job: Job, trust: Trust) -> Outcome:
    said = f"USER {job.account.user}\r\nPASS {job.account.password}\r\nRETR 1\r\nQUIT\r\n"
    options = ("-quiet", "-verify_return_error", "-CAfile", trust.authority)
    place = ("-connect", f"127.0.0.1:{job.port}", *(("-starttls", "pop3") if trust.stls else ()))
    return job.run("openssl", "s_client", *options, *place, stdin=said)


def by_poplib(job: Job, trust: Trust) -> Outcome:
    context = ssl.create_default_context(cafile=str(trust.authority))
    client: poplib.POP3
    if trust.stls:
        client = poplib.POP3("127.0.0.1", job.port)
        client.stls(context)
    else:
        client = poplib.POP3_SSL("127.0.0.1", job.port, context=context)
    with closing(client):
        client.user(job.account.user)
        client.pass_(job.account.password)
        (job.folder / "mail-1").write_bytes(b"\r\n".join([*client.retr(1)[1], b""]))
        client.quit()
    return Outcome(0, "")


def printed_by_openssl(outcome: Outcome) -> list[bytes]:
    _, begin, rest = outcome.output.replace("\r\n", "\n").partition(" octets\n")
    mail, end, _ = f"\n{rest}".partition("\n.\n+OK")
    assert begin
    assert end
    return [f"{mail[1:]}\n".replace("\n.", "\n").encode()]


def without_return_path(mails: list[bytes]) -> list[bytes]:
    return [mail.removeprefix(b"Return-Path: <unknown>\n") for mail in mails]


RUN: dict[str, Callable[[Job, Trust], Outcome]] = {
    "curl": by_curl,
    "fetchmail": by_fetchmail,
    "mpop": by_mpop,
    "getmail": by_getmail,
    "openssl s_client": by_openssl,
    "poplib": by_poplib,
}
FETCHED_BY: dict[str, Callable[[Job, Outcome], list[bytes]]] = {
    "curl": lambda job, _: fetched_by_curl(job),
    "fetchmail": lambda job, _: fetched_by_delivery(job),
    "mpop": lambda job, _: fetched_into_maildir(job),
    "getmail": lambda job, _: without_return_path(fetched_by_delivery(job)),
    "openssl s_client": lambda _, outcome: printed_by_openssl(outcome),
    "poplib": lambda job, _: fetched_by_curl(job),
}


def test_every_client_of_the_table_is_run() -> None:
    assert tuple(RUN) == tuple(FETCHED_BY) == CLIENTS


@pytest.mark.parametrize(
    ("client", "mode"),
    [
        (client, mode)
        for client in CLIENTS
        for mode in CLIENT_MODES
        if expected_of(client, mode) != NOT_ABLE
    ],
)
def test_a_client_fetches_mail_and_its_login_is_seen(
    fronts: Fronts,
    account: Account,
    certificates: Certificates,
    tmp_path: Path,
    client: str,
    mode: str,
) -> None:
    if client not in ("poplib", "openssl s_client"):
        program(client)
    front = fronts["starttls"]
    start = front.events.size
    job = Job(front.ports[mode], account, tmp_path)
    outcome = RUN[client](job, Trust(certificates.authority, mode == "terminate"))
    assert outcome.status == 0, outcome.output
    fetched = [mail.replace(b"\r\n", b"\n") for mail in FETCHED_BY[client](job, outcome)]
    assert fetched == [MAIL.with_bare_newlines]
    (recorded,) = front.sessions(start)
    assert recorded.said("pop3_login_success", "user") == [(account.user,)]
    assert recorded.end["inspected"] == "whole"
    assert expected_of(client, mode) == SEEN
