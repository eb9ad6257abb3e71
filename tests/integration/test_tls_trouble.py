"""What goes wrong with TLS, by real tools and servers: each ends as told, and the log says what to do."""

import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL

from .certificates import Certificates
from .conftest import Events
from .dovecot import Account, Dovecot
from .front import FETCHED, Front, fetch, new_mailbox, running_front, trusting, upstream_of
from .mail import large_mail
from .popclient import TIME_LIMIT, Attempt, PopClient, ServerGoneError
from .processes import eventually, program, stopped_at_the_end
from .servers import ThreadingServer, serving
from .stub import PASSWORD as STUB_PASSWORD
from .stub import StubServer

pytestmark = pytest.mark.integration

LISTENERS = {"implicit": {"tls": "implicit"}, "terminate": {"tls": "terminate"}}
LARGE = 100 * 2**20
MAY_GROW = 16 * 2**20


@pytest.fixture(scope="module")
def front(
    tls_dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    """A proxy that ends its clients' TLS, before a Dovecot with TLS."""
    with running_front(
        tmp_path_factory.mktemp("trouble"),
        events_in("trouble"),
        LISTENERS,
        upstream_of(tls_dovecot, "starttls", certificates),
        certificates=[proxy_certificate],
    ) as front:
        yield front


@pytest.fixture
def account(tls_dovecot: Dovecot) -> Account:
    """Someone with one message."""
    return new_mailbox(tls_dovecot)


# --- clients --------------------------------------------------------------------------------------------


def test_a_client_that_renegotiates_gets_nowhere(
    front: Front, account: Account, certificates: Certificates, tmp_path: Path
) -> None:
    """TLS 1.2 has renegotiation; a peer could have the proxy compute handshakes for ever by it."""
    start = front.events.size
    place = ("-connect", f"127.0.0.1:{front.ports['implicit']}", "-tls1_2")
    log = tmp_path / "s_client"
    with log.open("wb") as output:
        client = subprocess.Popen(
            [program("openssl"), "s_client", *place, "-CAfile", certificates.authority],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    assert client.stdin is not None
    with client.stdin, stopped_at_the_end(client):
        eventually(lambda: b"+OK" in log.read_bytes(), "s_client is greeted")
        # A line R is a command to s_client.
        client.stdin.write(b"R\n")
        client.stdin.flush()
        client.wait(TIME_LIMIT)
    said = log.read_text()
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said
    (recorded,) = front.sessions(start)
    assert recorded.of("pop3_request") == []
    with PopClient(front.ports["implicit"], trusting(certificates)) as other:
        assert fetch(other, account) == FETCHED


def test_clear_text_where_tls_is_due_is_cut_off_and_logged(front: Front) -> None:
    start = front.events.size
    with pytest.raises((ServerGoneError, ConnectionResetError)):
        PopClient(front.ports["implicit"], first=b"USER somebody\r\n")
    front.proxy.logged("does not speak TLS")
    assert front.events.size == start


def test_tls_where_clear_text_is_due_is_a_session_without_a_login(
    front: Front, certificates: Certificates
) -> None:
    start = front.events.size
    with pytest.raises(ssl.SSLError):
        PopClient(front.ports["terminate"], trusting(certificates))
    (recorded,) = front.sessions(start)
    assert recorded.of("pop3_login_attempt") == []
    # It may come before the greeting or after it.
    assert "tls_from_first_byte" in [odd["msg"] for odd in recorded.of("pop3_unexpected")]


# --- the mail server's certificate ----------------------------------------------------------------------


class _Greeter(socketserver.BaseRequestHandler):
    """Greets inside TLS, if the proxy lets it come to that."""

    server: "TlsServer"
    request: socket.socket

    def handle(self) -> None:
        with suppress(OSError), self.server.context.wrap_socket(self.request, True) as secure:
            secure.sendall(b"+OK nobody should see this\r\n")
            secure.recv(100)


class TlsServer(ThreadingServer):
    """A mail server with a certificate of one's choice."""

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(_Greeter)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)


def expired(certificates: Certificates) -> tuple[Path, Path]:
    """The tests' authority has signed it, and it was over yesterday."""
    path, key = certificates.server_for("expired", "IP:127.0.0.1")
    found = x509.load_pem_x509_certificate(path.read_bytes())
    authority = x509.load_pem_x509_certificate(certificates.authority.read_bytes())
    signer = load_pem_private_key((certificates.folder / "authority.key").read_bytes(), None)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder(
        authority.subject, found.subject, found.public_key(), x509.random_serial_number()
    )
    builder = builder.not_valid_before(yesterday - timedelta(days=1)).not_valid_after(yesterday)
    for extension in found.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path.write_bytes(builder.sign(signer, SHA256()).public_bytes(Encoding.PEM))  # type: ignore[arg-type]
    return path, key


def for_another(certificates: Certificates) -> tuple[Path, Path]:
    return certificates.server_for("another", "DNS:other.example")


def self_signed(certificates: Certificates) -> tuple[Path, Path]:
    return Certificates.self_signed_in(certificates.folder)


@pytest.mark.parametrize(
    ("make", "explained"),
    [
        pytest.param(for_another, "is not for 127.0.0.1 but for other.example", id="another"),
        pytest.param(expired, "has expired", id="expired"),
        pytest.param(self_signed, "is self-signed", id="self-signed"),
    ],
)
def test_a_mail_server_with_a_wrong_certificate_is_not_spoken_to(
    certificates: Certificates,
    events_in: Events,
    tmp_path: Path,
    make: Callable[[Certificates], tuple[Path, Path]],
    explained: str,
    request: pytest.FixtureRequest,
) -> None:
    with serving(TlsServer(*make(certificates))) as server:
        upstream = {
            "endpoint": f"tcp:127.0.0.1:{server.port}",
            "tls": "tls",
            "ca": certificates.authority,
        }
        events = events_in(f"certificate-{request.node.callspec.id}")
        with running_front(tmp_path, events, {"plain": {"tls": "none"}}, upstream) as front:
            with PopClient(front.ports["plain"]) as client:
                assert client.greeting.startswith("-ERR [SYS/TEMP] ")
                client.read_to_the_end()
            front.proxy.logged(re.escape(explained))
            (recorded,) = front.sessions(0)
    assert recorded.of("pop3_reply") == []


# --- new certificates -----------------------------------------------------------------------------------


def test_a_new_certificate_is_for_new_sessions_and_the_old_ones_go_on(
    tls_dovecot: Dovecot,
    account: Account,
    certificates: Certificates,
    events_in: Events,
    tmp_path: Path,
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    shown: dict[str, bytes] = {}

    def use(name: str) -> None:
        for path, made in zip(
            (chain, key), certificates.server_for(name, "IP:127.0.0.1"), strict=True
        ):
            path.write_bytes(made.read_bytes())
        shown[name] = ssl.PEM_cert_to_DER_cert(chain.read_text())

    use("first")
    context = trusting(certificates)
    upstream = upstream_of(tls_dovecot, "plain", certificates)
    with (
        running_front(
            tmp_path, events_in("reload"), LISTENERS, upstream, certificates=[(chain, key)]
        ) as front,
        PopClient(front.ports["implicit"], context) as before,
    ):
        assert before.peer_certificate == shown["first"]
        use("second")
        os.kill(front.proxy.process.pid, signal.SIGHUP)

        def is_new() -> bool:
            with PopClient(front.ports["implicit"], context) as client:
                assert client.ask("QUIT")
                client.read_to_the_end()
                return client.peer_certificate == shown["second"]

        eventually(is_new, "new clients are shown the new certificate")
        assert fetch(before, account) == FETCHED

        # A mistake is told, and changes nothing.
        key.write_text("no key\n")
        os.kill(front.proxy.process.pid, signal.SIGHUP)
        front.proxy.logged_error(r"key\.pem holds no private key")
        assert is_new()


# --- much data, and ends --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large_mailbox(tls_dovecot: Dovecot) -> Account:
    """Someone with a message of 100 MB."""
    account = tls_dovecot.new_account()
    tls_dovecot.deliver(account.user, [large_mail(LARGE)])
    return account


@pytest.mark.parametrize("upstream", ["plain", "starttls"])
def test_a_client_that_does_not_read_100_mb_inside_tls_costs_no_memory(
    tls_dovecot: Dovecot,
    large_mailbox: Account,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path: Path,
    upstream: str,
) -> None:
    to_dovecot = upstream_of(tls_dovecot, upstream, certificates)
    events = events_in(f"large-{upstream}")
    with running_front(
        tmp_path, events, LISTENERS, to_dovecot, certificates=[proxy_certificate]
    ) as front:
        with PopClient(front.ports["implicit"], trusting(certificates)) as client:
            attempt = Attempt(large_mailbox.user, large_mailbox.password, "PLAIN", True)
            assert client.log_in(attempt)
            before = front.proxy.most_memory()
            client.send("RETR 1")
            client.wait_until_nothing_more_comes()
            assert front.proxy.most_memory() - before < MAY_GROW
            assert client.count_body() >= LARGE
            assert client.ask("QUIT")
            client.read_to_the_end()
        assert front.proxy.most_memory() - before < MAY_GROW
        (recorded,) = front.sessions(0)
        assert recorded.end["retr"] == 1
        assert recorded.end["resp_octets"] > LARGE


def test_a_client_that_says_no_more_inside_tls_still_gets_all(
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path: Path,
) -> None:
    """RFC 8446 section 6.1: close_notify closes one direction only. Dovecot would take it for the end."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.load_verify_locations(str(certificates.authority))
    context.set_verify(SSL.VERIFY_PEER)
    mail = large_mail()
    events = events_in("half-close")
    with (
        serving(StubServer([mail])) as server,
        running_front(
            tmp_path,
            events,
            LISTENERS,
            {"endpoint": f"tcp:127.0.0.1:{server.port}"},
            certificates=[proxy_certificate],
        ) as front,
    ):
        with socket.create_connection(("127.0.0.1", front.ports["implicit"])) as plain:
            plain.settimeout(None)
            client = SSL.Connection(context, plain)
            client.set_connect_state()
            client.do_handshake()
            said = ("USER", "somebody"), ("PASS", STUB_PASSWORD), ("RETR", "1"), ("QUIT",)
            client.sendall("".join(f"{' '.join(words)}\r\n" for words in said).encode())
            client.shutdown()
            got = bytearray()
            with suppress(SSL.ZeroReturnError):
                while True:
                    got += client.recv(2**16)
        assert mail.sent.replace(b"\r\n.", b"\r\n..") + b".\r\n+OK" in bytes(got)
        (recorded,) = front.sessions(0)
    assert recorded.said("pop3_login_success", "user") == [("somebody",)]
    assert (recorded.end["inspected"], recorded.end["retr"]) == ("whole", 1)


def test_a_session_turns_tls_in_the_middle_of_a_dialogue_and_goes_on_being_inspected(
    front: Front, account: Account, certificates: Certificates
) -> None:
    """What comes before STLS in the same segment is answered before it."""
    start = front.events.size
    with PopClient(front.ports["terminate"]) as client:
        client.send("CAPA", "NOOP", "STLS")
        told = []
        while (line := client.line()) != ".":
            told.append(line)
        assert "STLS" in told
        assert client.line().startswith("-ERR")
        assert client.line().startswith("+OK")
        client.turn_tls(trusting(certificates))
        assert fetch(client, account) == FETCHED
    (recorded,) = front.sessions(start)
    commands: Mapping[str, int] = {
        command: recorded.said("pop3_request", "command").count((command,))
        for command in ("CAPA", "NOOP", "STLS", "AUTH", "RETR", "QUIT")
    }
    assert set(commands.values()) == {1}
    assert len(recorded.of("pop3_starttls")) == 1
    assert recorded.end["inspected"] == "whole"
