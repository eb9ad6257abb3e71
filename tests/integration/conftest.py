"""What the integration tests stand on: servers, routes through a proxy, accounts, the table of mechanisms."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from .certificates import Certificates
from .clients import Job
from .dovecot import Account, Dovecot, Setting, running_dovecot
from .guarded import Guard
from .introspection import Introspection
from .kerberos import Realm, running_realm
from .mail import ODD_MAILS, TAME_MAILS, Mail, large_mail
from .mechanisms import Ran, ran_in, table
from .proxy import CHECKOUT, Route, running_route
from .records import EventsFile, RecordSchema
from .servers import ThreadingServer, serving
from .stub import PASSWORD as STUB_PASSWORD
from .stub import STAMP as STUB_STAMP
from .stub import StubServer

EVERY_MECHANISM = (
    "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 apop ntlm anonymous external"
    " oauthbearer xoauth2"
)

# In lower case, since Dovecot looks names up so, and without TABs, which it lets no password have.
ODD_ACCOUNTS = (
    Account(r"example\scanner", "correct horse"),
    Account("müller", "correct horse"),
    Account("müller".encode("latin-1").decode("utf-8", "surrogateescape"), "correct horse"),
    Account("first last", "correct horse"),
    Account("blanks", "  correct  horse "),
    Account("eight-bit", "Paßwort \udcfc="),
)


@pytest.fixture(scope="session")
def record_schema() -> RecordSchema:
    """What the proxy says that its records look like."""
    command = [sys.executable, "-m", "pop3proxy", "schema"]
    return RecordSchema(json.loads(subprocess.check_output(command, cwd=CHECKOUT)))


Events = Callable[[str], EventsFile]


@pytest.fixture(scope="session")
def events_in(
    tmp_path_factory: pytest.TempPathFactory, record_schema: RecordSchema
) -> Iterator[Events]:
    """Files of events by name. All their records are valid in the end, also those that no test looks at."""
    folder = tmp_path_factory.mktemp("events")
    files: list[EventsFile] = []

    def events(name: str) -> EventsFile:
        files.append(EventsFile(folder / f"{name}.jsonl", record_schema))
        return files[-1]

    yield events
    for file in files:
        file.validate()


@pytest.fixture(scope="session")
def introspection() -> Iterator[ThreadingServer]:
    """A service that knows every account's OAuth token."""
    with serving(ThreadingServer(Introspection)) as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of this run, with a certificate for 127.0.0.1."""
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """A Kerberos realm."""
    with running_realm(tmp_path_factory.mktemp("realm")) as realm:
        yield realm


@pytest.fixture(scope="session")
def dovecot(introspection: ThreadingServer) -> Iterator[Dovecot]:
    """A server with every mechanism that needs no service besides."""
    with running_dovecot(Setting(EVERY_MECHANISM, introspection.port)) as server:
        yield server


@pytest.fixture(scope="session")
def xoauth2_dovecot(introspection: ThreadingServer) -> Iterator[Dovecot]:
    """A server that does not offer OAUTHBEARER, which clients would prefer."""
    with running_dovecot(Setting("plain xoauth2", introspection.port)) as server:
        yield server


@pytest.fixture(scope="session")
def gssapi_dovecot(realm: Realm) -> Iterator[Dovecot]:
    """A server of the realm."""
    with running_dovecot(Setting("plain gssapi", realm=realm)) as server:
        yield server


@pytest.fixture(scope="session")
def odd_dovecot() -> Iterator[Dovecot]:
    """A server with accounts whose names and passwords are odd."""
    with running_dovecot(Setting("plain login", named=ODD_ACCOUNTS)) as server:
        for account in ODD_ACCOUNTS:
            server.deliver(account.user, TAME_MAILS)
        yield server


@pytest.fixture(scope="session")
def tls_dovecot(certificates: Certificates) -> Iterator[Dovecot]:
    """A server with STLS, which knows clients by their certificates."""
    with running_dovecot(Setting("plain external", certificates=certificates)) as server:
        yield server


@pytest.fixture(scope="session")
def proxy_certificate(certificates: Certificates) -> tuple[Path, Path]:
    """What a proxy shows its clients: for 127.0.0.1, and another than the server's."""
    return certificates.server_for("proxy", "IP:127.0.0.1")


@pytest.fixture(scope="session")
def stub() -> Iterator[StubServer]:
    """A server that knows USER and PASS only, with the odd messages."""
    with serving(StubServer(ODD_MAILS)) as server:
        yield server


@pytest.fixture(scope="session")
def apop_stub() -> Iterator[StubServer]:
    """A server with APOP, with the odd messages."""
    with serving(StubServer(ODD_MAILS, STUB_STAMP)) as server:
        yield server


@pytest.fixture(scope="session", params=["unguarded", "guarded"])
def guarding(request: pytest.FixtureRequest) -> str:
    """Whether a blocking hook is asked: every test of a route runs once without it, and once with it."""
    way: str = request.param
    return way


Laid = AbstractContextManager[Route]
Lay = Callable[..., Laid]


@pytest.fixture(scope="session")
def lay(guarding: str, events_in: Events, tmp_path_factory: pytest.TempPathFactory) -> Lay:
    """Lays routes by name, through a proxy of that way to guard; ``options`` are of the command line."""
    folder = tmp_path_factory.mktemp("guards")

    def laid(name: str, server_port: int, *options: str) -> Laid:
        title = f"{name}-{guarding}"
        guard = Guard.made_in(folder, title) if guarding == "guarded" else None
        return running_route(server_port, events_in(title), *options, guard=guard)

    return laid


@pytest.fixture(scope="session")
def route(dovecot: Dovecot, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``dovecot``."""
    with lay("route", dovecot.port) as route:
        yield route


@pytest.fixture(scope="session")
def data_route(dovecot: Dovecot, lay: Lay) -> Iterator[Route]:
    """Through a proxy that writes mail down, too."""
    with lay("data-route", dovecot.port, "--data") as route:
        yield route


@pytest.fixture(scope="session")
def odd_route(odd_dovecot: Dovecot, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``odd_dovecot``."""
    with lay("odd-route", odd_dovecot.port) as route:
        yield route


@pytest.fixture(scope="session")
def xoauth2_route(xoauth2_dovecot: Dovecot, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``xoauth2_dovecot``."""
    with lay("xoauth2-route", xoauth2_dovecot.port) as route:
        yield route


@pytest.fixture(scope="session")
def gssapi_route(gssapi_dovecot: Dovecot, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``gssapi_dovecot``."""
    with lay("gssapi-route", gssapi_dovecot.port) as route:
        yield route


@pytest.fixture(scope="session")
def tls_route(tls_dovecot: Dovecot, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``tls_dovecot``."""
    with lay("tls-route", tls_dovecot.port) as route:
        yield route


@pytest.fixture(scope="session")
def stub_route(stub: StubServer, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``stub``."""
    with lay("stub-route", stub.port) as route:
        yield route


@pytest.fixture(scope="session")
def apop_stub_route(apop_stub: StubServer, lay: Lay) -> Iterator[Route]:
    """Through a proxy to ``apop_stub``."""
    with lay("apop-stub-route", apop_stub.port) as route:
        yield route


@pytest.fixture(scope="session")
def large() -> Mail:
    """A message of 10 MB."""
    return large_mail()


def _job(route: Route, server: Dovecot, folder: Path, mails: Sequence[Mail] = ODD_MAILS) -> Job:
    account = server.new_account()
    server.deliver(account.user, mails)
    return Job(route.port, account, folder, route.watch(), server.title)


@pytest.fixture
def job(route: Route, dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the odd messages."""
    return _job(route, dovecot, tmp_path)


@pytest.fixture
def tame_job(route: Route, dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the tamer of the odd messages."""
    return _job(route, dovecot, tmp_path, TAME_MAILS)


@pytest.fixture
def strangers_job(job: Job) -> Job:
    """Try the wrong password."""
    return replace(job, account=replace(job.account, password="wrong"))


@pytest.fixture
def data_job(data_route: Route, dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the odd messages, and see them written down."""
    return _job(data_route, dovecot, tmp_path)


@pytest.fixture
def large_data_job(data_route: Route, dovecot: Dovecot, tmp_path: Path, large: Mail) -> Job:
    """Fetch a message of 10 MB, and see it written down."""
    return _job(data_route, dovecot, tmp_path, [large])


@pytest.fixture
def large_job(route: Route, dovecot: Dovecot, tmp_path: Path, large: Mail) -> Job:
    """Fetch a message of 10 MB."""
    return _job(route, dovecot, tmp_path, [large])


@pytest.fixture
def xoauth2_job(xoauth2_route: Route, xoauth2_dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the odd messages where XOAUTH2 is the way to use a token."""
    return _job(xoauth2_route, xoauth2_dovecot, tmp_path)


@pytest.fixture
def gssapi_job(gssapi_route: Route, gssapi_dovecot: Dovecot, realm: Realm, tmp_path: Path) -> Job:
    """Fetch the tamer of the odd messages with the ticket of a Kerberos realm."""
    job = _job(gssapi_route, gssapi_dovecot, tmp_path, TAME_MAILS)
    realm.log_in(job.account.user)
    return replace(job, environment=realm.environment)


@pytest.fixture
def stub_job(stub_route: Route, tmp_path: Path) -> Job:
    """Fetch the odd messages from a server that knows USER and PASS only."""
    account = Account("somebody", STUB_PASSWORD)
    return Job(stub_route.port, account, tmp_path, stub_route.watch(), StubServer.title)


@pytest.fixture
def apop_stub_job(apop_stub_route: Route, tmp_path: Path) -> Job:
    """Fetch the odd messages from a server with APOP."""
    account = Account("somebody", STUB_PASSWORD)
    return Job(apop_stub_route.port, account, tmp_path, apop_stub_route.watch(), StubServer.title)


@pytest.fixture(params=ODD_ACCOUNTS, ids=lambda account: ascii(account.user))
def odd_job(
    request: pytest.FixtureRequest, odd_route: Route, odd_dovecot: Dovecot, tmp_path: Path
) -> Job:
    """Fetch the tamer of the odd messages for an account whose name or password is odd."""
    account: Account = request.param
    return Job(odd_route.port, account, tmp_path, odd_route.watch(), odd_dovecot.title)


@pytest.fixture
def tls_job(tls_route: Route, tls_dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the odd messages where TLS can be had."""
    return _job(tls_route, tls_dovecot, tmp_path)


@pytest.fixture
def tame_tls_job(tls_route: Route, tls_dovecot: Dovecot, tmp_path: Path) -> Job:
    """Fetch the tamer of the odd messages where TLS can be had."""
    return _job(tls_route, tls_dovecot, tmp_path, TAME_MAILS)


@pytest.fixture
def large_tls_job(tls_route: Route, tls_dovecot: Dovecot, tmp_path: Path, large: Mail) -> Job:
    """Fetch a message of 10 MB where TLS can be had."""
    return _job(tls_route, tls_dovecot, tmp_path, [large])


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Ran:
    """Notes which client and server ran a mechanism, if the test passes."""
    return ran_in(record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which client and server ran each mechanism."""
    rows = table(terminalreporter.getreports("passed"))
    if rows:
        terminalreporter.section("mechanisms that ran")
        terminalreporter.write("\n".join(rows) + "\n")
