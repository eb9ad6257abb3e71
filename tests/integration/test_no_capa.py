"""Clients that look for STLS in CAPA, before a mail server that has none."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest

from .certificates import Certificates
from .clients import (
    TIME_LIMIT,
    Job,
    Outcome,
    curl,
    fetched_by_curl,
    fetched_by_delivery,
    fetched_into_maildir,
    fetchmail,
    mpop,
)
from .conftest import Events
from .dovecot import Account
from .front import MAIL, Front, running_front, trusting
from .popclient import PopClient
from .processes import program
from .servers import serving
from .stub import PASSWORD, StubServerWithoutCapa

pytestmark = pytest.mark.integration

LISTENERS = ("terminate", "require")
ACCOUNT = Account("bob", PASSWORD)


@pytest.fixture(scope="module")
def front(
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    """A proxy with a listener of each mode before the stub, without TLS to it."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(StubServerWithoutCapa([MAIL])))
        yield stack.enter_context(
            running_front(
                tmp_path_factory.mktemp("front-no-capa"),
                events_in("front-no-capa"),
                {mode: {"tls": mode} for mode in LISTENERS},
                {"endpoint": f"tcp:127.0.0.1:{server.port}"},
                certificates=[proxy_certificate],
            )
        )


def by_curl(job: Job, authority: Path) -> Outcome:
    user = f"{job.account.user}:{job.account.password}"
    return curl(job, "1", "--ssl-reqd", "--cacert", authority, "--user", user)


def by_fetchmail(job: Job, authority: Path) -> Outcome:
    tls = f'sslproto tls1.2+ sslcertck sslcertfile "{authority}"'
    return fetchmail(job, "protocol POP3 auth password", tls)


def by_mpop(job: Job, authority: Path) -> Outcome:
    settings = ("tls on", "tls_starttls on", f"tls_trust_file {authority}")
    return mpop(job, "user", job.account.password, *settings)


FETCHED_BY: dict[str, tuple[Callable[[Job, Path], Outcome], Callable[[Job], list[bytes]]]] = {
    "curl": (by_curl, fetched_by_curl),
    "fetchmail": (by_fetchmail, fetched_by_delivery),
    "mpop": (by_mpop, fetched_into_maildir),
}


@pytest.mark.parametrize("client", FETCHED_BY)
@pytest.mark.parametrize("mode", LISTENERS)
def test_a_client_that_insists_on_stls_fetches_its_mail(
    front: Front, certificates: Certificates, tmp_path: Path, client: str, mode: str
) -> None:
    program(client)
    start = front.events.size
    run, fetched = FETCHED_BY[client]
    job = Job(front.ports[mode], ACCOUNT, tmp_path)
    outcome = run(job, certificates.authority)
    assert outcome.status == 0, outcome.output
    assert [mail.replace(b"\r\n", b"\n") for mail in fetched(job)] == [MAIL.with_bare_newlines]
    (recorded,) = front.sessions(start)
    requests = recorded.said("pop3_request", "command")
    assert requests[:2] == [("CAPA",), ("STLS",)]
    (success,) = recorded.of("pop3_login_success")
    assert success["tls_version"] == "TLSv1.3"


def test_mutt_opens_the_mailbox(front: Front, certificates: Certificates, tmp_path: Path) -> None:
    """A list without UIDL and TOP would have it give up."""
    nowhere = "set spoolfile=/dev/null folder=/dev/null mbox=/dev/null record="
    settings = tmp_path / "muttrc"
    settings.write_text(
        f'set certificate_file="{certificates.authority}" ssl_force_tls=yes ssl_starttls=yes\n'
        f'set pop_authenticators="user" pop_delete=no\n{nowhere}\n'
    )
    start = front.events.size
    place = f"pop://{ACCOUNT.user}:{quote(PASSWORD)}@127.0.0.1:{front.ports['require']}/"
    _on_a_terminal(
        [program("mutt"), "-n", "-F", str(settings), "-f", place, "-e", 'push "<exit>"'], tmp_path
    )
    (recorded,) = front.sessions(start)
    assert recorded.said("pop3_login_success", "user") == [(ACCOUNT.user,)]
    assert ("TOP",) in recorded.said("pop3_request", "command")


def _on_a_terminal(command: list[str], home: Path) -> None:
    """Run a program that needs a terminal, and read all that it draws."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs) as terminal:
        process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={"HOME": str(home), "TERM": "vt100", "PATH": os.environ["PATH"]},
        )
        deadline = time.monotonic() + TIME_LIMIT
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, "it does not end"
                if select.select([screen], [], [], 0.1)[0]:
                    screen.read(4096)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("mode", LISTENERS)
def test_capa_is_answered_before_tls_and_inside_it(
    front: Front, certificates: Certificates, mode: str
) -> None:
    start = front.events.size
    with PopClient(front.ports[mode], None) as client:
        before = client.ask_for_lines("CAPA")
        assert client.ask("STLS")
        client.turn_tls(trusting(certificates))
        inside = client.ask_for_lines("CAPA")
        assert client.ask("QUIT")
        client.read_to_the_end()
    user = ["USER"] if mode == "terminate" else []
    assert before == ["TOP", "UIDL", *user, "STLS"]
    assert inside == ["TOP", "UIDL", "USER"]
    (recorded,) = front.sessions(start)
    # The server's own replies are recorded as they were.
    replies = recorded.said("pop3_reply", "cmd", "msg")
    assert replies == [("OK", "ready "), ("ERR", "unknown"), ("ERR", "unknown"), ("OK", "bye")]
