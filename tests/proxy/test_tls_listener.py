"""A listener that ends TLS itself: what is said over it is inspected, and known to be secret."""

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..integration.certificates import Certificates
from .live import GREETING, PATIENCE, MailServer, Proxy, receive, running

RULES = '[rules]\nplaintext_logins = "deny"\n'
BOTH = r"listening on \S+:(\d+),.*\n.*listening on \S+:(\d+),"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def proxy(certificates: Certificates, events: Path, mail_server: MailServer) -> Iterator[Proxy]:
    """A proxy that refuses logins in clear, and listens both in clear and with TLS."""
    rules = events.with_name("rules.toml")
    rules.write_text(RULES)
    secure = (
        f"ssl:0:interface=127.0.0.1:privateKey={certificates.server_key}"
        f":certKey={certificates.server}"
    )
    options = ("--listen", secure, "--config", str(rules), "--events", str(events))
    with running(mail_server.port, *options) as proxy:
        yield proxy
        proxy.stop()


def over_tls(proxy: Proxy, certificates: Certificates) -> socket.socket:
    port = int(proxy.log.expect(BOTH)[2])
    context = ssl.create_default_context(cafile=str(certificates.authority))
    # The authority of the tests has no key usage, which only some versions of Python ask for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_login_over_tls_passes_and_is_seen(
    proxy: Proxy, certificates: Certificates, events: Path, mail_server: MailServer
) -> None:
    with over_tls(proxy, certificates) as client, mail_server.accept() as upstream:
        upstream.sendall(GREETING)
        assert receive(client, len(GREETING)) == GREETING
        client.sendall(b"USER bob\r\nPASS secret\r\n")
        for line in (b"USER bob\r\n", b"PASS secret\r\n"):
            assert receive(upstream, len(line)) == line
            upstream.sendall(b"+OK\r\n")
        assert receive(client, 10) == b"+OK\r\n+OK\r\n"
        records = [json.loads(line) for line in events.read_text().splitlines()]
    assert "pop3_login_success" in [record["event"] for record in records]


def test_the_same_login_in_clear_is_refused(proxy: Proxy, mail_server: MailServer) -> None:
    with proxy.connect() as client, mail_server.accept() as upstream:
        upstream.sendall(GREETING)
        assert receive(client, len(GREETING)) == GREETING
        client.sendall(b"USER bob\r\nAUTH PLAIN\r\nNOOP\r\n")
        assert receive(upstream, 6) == b"NOOP\r\n"
        refusal = b"-ERR [AUTH] TLS is required to log in; turn it on in your mail program.\r\n"
        assert receive(client, 2 * len(refusal)) == 2 * refusal
