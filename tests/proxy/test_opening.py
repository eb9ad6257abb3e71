"""What is said to a mail server before a session begins, by a running proxy before a server of the test's."""

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from pop3proxy.proxy.proxyheader import Header, Reader

from ..integration.certificates import Certificates
from .live import MailServer, Proxy, receive, receive_all, running

GREETING = b"+OK ready <1.2@mail>\r\n"
LOGIN = b"USER bob\r\nPASS secret\r\n"
UNREACHABLE = b"-ERR [SYS/TEMP] the mail server cannot be reached, please try again later\r\n"

Start = Callable[[str], AbstractContextManager[Proxy]]

# By an address a server is reached by the engine, by a name through Twisted's endpoints.
HOSTS = ("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=HOSTS)
def start(
    request: pytest.FixtureRequest,
    events: Path,
    mail_server: MailServer,
) -> Start:
    """Run a proxy that speaks to the mail server as some options have it."""

    @contextmanager
    def started(options: str) -> Iterator[Proxy]:
        config = events.with_name("opening.toml")
        config.write_text(
            'listen = ["tcp:0:interface=127.0.0.1"]\n[upstream]\n'
            f'endpoint = "tcp:{request.param}:{mail_server.port}"\n{options}\n'
        )
        with running(None, "--config", str(config), listen=None) as proxy:
            yield proxy
            proxy.stop()

    return started


def tls(mode: str, certificates: Certificates, name: str = "127.0.0.1") -> str:
    return f'tls = "{mode}"\nname = "{name}"\nca = "{certificates.authority}"'


def secured(plain: socket.socket, certificates: Certificates) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    return context.wrap_socket(plain, server_side=True)


def line_of(connection: socket.socket) -> bytes:
    """Read one line, octet by octet: what is behind it may be TLS."""
    line = b""
    while not line.endswith(b"\n") and (octet := connection.recv(1)):
        line += octet
    return line


def a_session_goes_on(client: socket.socket, server: socket.socket) -> None:
    """See that both hear each other, and that nothing was left over on the way."""
    assert receive(client, len(GREETING)) == GREETING
    client.sendall(LOGIN)
    assert receive(server, len(LOGIN)) == LOGIN
    server.sendall(b"+OK\r\n+OK\r\n")
    assert receive(client, 10) == b"+OK\r\n+OK\r\n"


def test_a_header_of_version_1_comes_first(start: Start, mail_server: MailServer) -> None:
    with (
        start('proxy_protocol = "v1"') as proxy,
        proxy.connect() as client,
        mail_server.accept() as server,
    ):
        port = client.getsockname()[1]
        header = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {proxy.port}\r\n"
        assert line_of(server) == header.encode()
        server.sendall(GREETING)
        a_session_goes_on(client, server)


def test_a_header_of_version_2_comes_first(start: Start, mail_server: MailServer) -> None:
    with (
        start('proxy_protocol = "v2"') as proxy,
        proxy.connect() as client,
        mail_server.accept() as server,
    ):
        reader = Reader()
        read = None
        while read is None:
            read = reader.feed(server.recv(1))
        assert read == (Header(client.getsockname(), ("127.0.0.1", proxy.port)), b"")
        server.sendall(GREETING)
        a_session_goes_on(client, server)


def test_a_header_comes_before_tls(
    start: Start, mail_server: MailServer, certificates: Certificates
) -> None:
    options = tls("tls", certificates) + '\nproxy_protocol = "v1"'
    with start(options) as proxy, proxy.connect() as client, mail_server.accept() as plain:
        assert line_of(plain).startswith(b"PROXY TCP4 127.0.0.1 ")
        with secured(plain, certificates) as server:
            server.sendall(GREETING)
            a_session_goes_on(client, server)


def test_stls_comes_before_the_greeting_is_relayed(
    start: Start, mail_server: MailServer, certificates: Certificates
) -> None:
    with (
        start(tls("starttls", certificates)) as proxy,
        proxy.connect() as client,
        mail_server.accept() as plain,
    ):
        plain.sendall(GREETING)
        assert line_of(plain) == b"STLS\r\n"
        plain.sendall(b"+OK begin\r\n")
        with secured(plain, certificates) as server:
            a_session_goes_on(client, server)


def test_what_a_client_says_early_waits_for_tls(
    start: Start, mail_server: MailServer, certificates: Certificates
) -> None:
    with (
        start(tls("starttls", certificates)) as proxy,
        proxy.connect() as client,
        mail_server.accept() as plain,
    ):
        client.sendall(LOGIN)
        plain.sendall(GREETING)
        assert line_of(plain) == b"STLS\r\n"
        plain.sendall(b"+OK begin\r\n")
        with secured(plain, certificates) as server:
            assert receive(server, len(LOGIN)) == LOGIN
            assert receive(client, len(GREETING)) == GREETING


@pytest.mark.parametrize(
    ("greeting", "answer", "why"),
    [
        (b"+OK ready\r\n", b"-ERR no\r\n", 'it refuses STLS, so there is no TLS: "-ERR no"'),
        (b"+OK ready\r\n", b"+OK\r\n+OK in\r\n", 'it said more than was asked: behind "+OK"'),
        (b"+OK ready\r\n", b"+OK\r\n\x16", 'it said more than was asked: behind "+OK"'),
        (b"+OK ready\r\n+OK\r\n", b"", 'it said more than was asked: behind "+OK ready"'),
        (b"-ERR [SYS/TEMP] busy\r\n", b"", 'it greets with "-ERR [SYS/TEMP] busy"'),
        (b"HTTP/1.1 400\r\n", b"", 'it greets with "HTTP/1.1 400"'),
        (b"+OK" + b"x" * 8192, b"", "it sent a line of more than 8192 octets"),
    ],
)
def test_without_tls_nothing_goes_on(
    start: Start,
    mail_server: MailServer,
    certificates: Certificates,
    greeting: bytes,
    answer: bytes,
    why: str,
) -> None:
    with start(tls("starttls", certificates)) as proxy:
        with proxy.connect() as client, mail_server.accept() as server:
            client.sendall(LOGIN)
            server.sendall(greeting)
            if answer:
                assert line_of(server) == b"STLS\r\n"
                server.sendall(answer)
            assert receive_all(client) == UNREACHABLE
            assert b"USER" not in receive_all(server)
        proxy.log.expect(re.escape(f"cannot reach the mail server: {why}"))


@pytest.mark.parametrize("mode", ["tls", "starttls"])
def test_a_certificate_for_another_is_refused(
    start: Start, mail_server: MailServer, certificates: Certificates, mode: str
) -> None:
    with start(tls(mode, certificates, "mail.example.org")) as proxy:
        with proxy.connect() as client, mail_server.accept() as plain:
            if mode == "starttls":
                plain.sendall(GREETING)
                assert line_of(plain) == b"STLS\r\n"
                plain.sendall(b"+OK\r\n")
            # The end may come before the server has all of the handshake.
            with suppress(ConnectionResetError), secured(plain, certificates) as server:
                assert receive_all(server) == b""
            assert receive_all(client) == UNREACHABLE
        proxy.log.expect("no TLS with it: its certificate is not for mail.example.org but for")


def test_a_server_that_speaks_no_tls_is_refused(
    start: Start, mail_server: MailServer, certificates: Certificates
) -> None:
    with start(tls("tls", certificates)) as proxy:
        with proxy.connect() as client, mail_server.accept() as server:
            server.sendall(GREETING)
            assert receive_all(client) == UNREACHABLE
        proxy.log.expect("no TLS with it: it does not speak TLS")


@pytest.mark.parametrize(
    ("until", "when"),
    [
        (0, "before its greeting"),
        (1, "instead of answering STLS"),
        (2, "during the (TLS )?handshake"),
    ],
)
def test_a_server_that_leaves_on_the_way_is_not_reached(
    start: Start, mail_server: MailServer, certificates: Certificates, until: int, when: str
) -> None:
    with start(tls("starttls", certificates)) as proxy, proxy.connect() as client:
        with mail_server.accept() as server:
            if until > 0:
                server.sendall(GREETING)
                assert line_of(server) == b"STLS\r\n"
            if until > 1:
                server.sendall(b"+OK\r\n")
                receive(server, 1)
        assert receive_all(client) == UNREACHABLE
        proxy.log.expect(f"cannot reach the mail server: .*{when}")


def test_xclient_tells_who_the_client_is(start: Start, mail_server: MailServer) -> None:
    with (
        start("xclient = true") as proxy,
        proxy.connect() as client,
        mail_server.accept() as server,
    ):
        server.sendall(GREETING)
        port = client.getsockname()[1]
        told = rf"XCLIENT ADDR=127\.0\.0\.1 PORT={port} SESSION=C\w+ DESTADDR=127\.0\.0\.1"
        assert re.fullmatch(rf"{told} DESTPORT={proxy.port}\r\n", line_of(server).decode())
        server.sendall(b"+OK Updated\r\n")
        a_session_goes_on(client, server)


def test_xclient_comes_inside_tls(
    start: Start, mail_server: MailServer, certificates: Certificates
) -> None:
    with (
        start(tls("starttls", certificates) + "\nxclient = true") as proxy,
        proxy.connect() as client,
        mail_server.accept() as plain,
    ):
        plain.sendall(GREETING)
        assert line_of(plain) == b"STLS\r\n"
        plain.sendall(b"+OK\r\n")
        with secured(plain, certificates) as server:
            assert line_of(server).startswith(b"XCLIENT ADDR=127.0.0.1 PORT=")
            server.sendall(b"+OK Updated\r\n")
            a_session_goes_on(client, server)


def test_a_server_that_refuses_xclient_is_not_reached(
    start: Start, mail_server: MailServer
) -> None:
    with start("xclient = true") as proxy, proxy.connect() as client:
        with mail_server.accept() as server:
            server.sendall(GREETING)
            assert line_of(server).startswith(b"XCLIENT ")
            server.sendall(b"-ERR You are not from trusted IP\r\n")
            assert receive_all(client) == UNREACHABLE
        proxy.log.expect("it refuses XCLIENT: .* not from trusted IP.*login_trusted_networks")


@pytest.mark.parametrize(
    ("options", "limit"), [("greeting = 0.1", "greeting"), ("handshake = 0.1", "handshake")]
)
def test_a_server_that_stalls_is_given_up(
    start: Start, mail_server: MailServer, certificates: Certificates, options: str, limit: str
) -> None:
    with start(tls("starttls", certificates) + f"\n[timeouts]\n{options}") as proxy:
        with proxy.connect() as client, mail_server.accept() as server:
            if limit == "handshake":
                server.sendall(GREETING)
                assert line_of(server) == b"STLS\r\n"
                server.sendall(b"+OK\r\n")
            answer = b"-ERR [SYS/TEMP] the mail server does not answer, please try again later\r\n"
            assert receive_all(client) == answer
            receive_all(server)
        proxy.log.expect(f"time limit {limit} ran out")


def test_a_client_that_leaves_takes_the_way_to_the_server_with_it(
    start: Start, mail_server: MailServer, certificates: Certificates
) -> None:
    with start(tls("starttls", certificates) + "\n[timeouts]\ngreeting = 0.1") as proxy:
        client = proxy.connect()
        with mail_server.accept() as server:
            client.close()
            assert receive_all(server) == b""


def test_nobody_verified_is_said_at_the_start(start: Start) -> None:
    with start('tls = "tls"\nverify = false') as proxy:
        proxy.log.expect(r"warn upstream\.verify = false: ")


def test_clients_that_may_claim_an_address_are_said_at_the_start(start: Start) -> None:
    with start("xclient = true") as proxy:
        proxy.log.expect(r"warn upstream\.xclient: .* add the table \[rules\]")
    with start("xclient = true\n[rules]") as proxy:
        assert "warn" not in proxy.stop()
