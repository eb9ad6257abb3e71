"""A mail server that is named by a host name, so that Twisted's transports carry its side."""

import re
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from .authority import Authority
from .live import GREETING, PATIENCE, MailServer, receive, receive_all, running


@pytest.mark.parametrize("options", ["", 'proxy_protocol = "v1"'], ids=["plain", "header"])
def test_a_server_that_ends_its_bytes_still_reads(
    options: str, mail_server: MailServer, tmp_path: Path
) -> None:
    config = tmp_path / "upstream.toml"
    config.write_text(
        f'listen = ["tcp:0:interface=127.0.0.1"]\n'
        f'[upstream]\nendpoint = "tcp:localhost:{mail_server.port}"\n{options}\n'
    )
    with (
        running(None, "--config", str(config), listen=None) as proxy,
        proxy.connect() as client,
        mail_server.accept() as server,
    ):
        if options:
            while receive(server, 1) != b"\n":
                pass
        server.sendall(GREETING)
        assert receive(client, len(GREETING)) == GREETING
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
        client.sendall(b"NOOP\r\n")
        assert receive(server, 6) == b"NOOP\r\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [("self-signed", "its certificate is self-signed"), ("expired", "its certificate has expired")],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_why_a_certificate_is_refused_is_logged_over_either_make_of_wire(
    host: str, name: str, why: str, mail_server: MailServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    is_self_signed = name == "self-signed"
    days = 2 if is_self_signed else -1
    files = authority.issue(name, "127.0.0.1", self_signed=is_self_signed, days=days)
    config = tmp_path / "upstream.toml"
    config.write_text(
        'listen = ["tcp:0:interface=127.0.0.1"]\n'
        f'[upstream]\nendpoint = "tcp:{host}:{mail_server.port}"\n'
        f'tls = "tls"\nname = "127.0.0.1"\nca = "{authority.file}"\n'
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    with (
        running(None, "--config", str(config), listen=None) as proxy,
        proxy.connect() as client,
        mail_server.accept() as plain,
    ):
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as server:
            receive_all(server)
        client.settimeout(PATIENCE)
        assert receive_all(client).startswith(b"-ERR [SYS/TEMP] ")
        proxy.log.expect(f"cannot reach the mail server: .*{re.escape(why)}")
