"""STLS before a running proxy that answers it, or does not let it through; the mail server knows no TLS."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..integration.certificates import Certificates
from .live import (
    MailServer,
    Proxy,
    meanwhile,
    receive,
    receive_all,
    reset,
    running,
    send_until_full,
    session,
    until,
)

BEGIN = b"+OK Begin TLS negotiation now.\r\n"
CAPA = b"+OK list\r\nTOP\r\nUSER\r\nSASL PLAIN EXTERNAL SCRAM-SHA-1-PLUS\r\n.\r\n"
MODES = ("pass", "none", "terminate", "require")

Start = Callable[..., AbstractContextManager[Proxy]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def start(certificates: Certificates, events: Path, mail_server: MailServer) -> Start:
    """Run a proxy whose listener is in a mode; it must end without a trouble."""

    @contextmanager
    def started(mode: str, more: str = "") -> Iterator[Proxy]:
        config = events.with_name("tls.toml")
        config.write_text(
            f'[[listen]]\nendpoint = "tcp:0:interface=127.0.0.1"\ntls = "{mode}"\n'
            f'[[tls.certificates]]\nchain = "{certificates.server}"\n'
            f'key = "{certificates.server_key}"\n{more}'
        )
        options = ("--config", str(config), "--events", str(events))
        with running(mail_server.port, *options, listen=None) as proxy:
            yield proxy
            proxy.stop()

    return started


def client_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.authority))
    # The authority of the tests has no key usage, which only some versions of Python ask for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def over_tls(client: socket.socket, certificates: Certificates) -> ssl.SSLSocket:
    return client_context(certificates).wrap_socket(client, server_hostname="127.0.0.1")


def records(events: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in events.read_text().splitlines()]


def named(events: Path, name: str) -> list[dict[str, Any]]:
    return [record for record in records(events) if record["event"] == name]


def the_end(events: Path) -> dict[str, Any]:
    """Wait for the session's last record."""
    until(lambda: bool(named(events, "pop3_session")), "pop3_session")
    (record,) = named(events, "pop3_session")
    return record


@pytest.mark.parametrize("mode", ["terminate", "require"])
def test_a_session_turns_in_the_middle_of_a_dialogue_and_is_inspected_on(
    mode: str, start: Start, certificates: Certificates, events: Path, mail_server: MailServer
) -> None:
    with start(mode) as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"CAPA\r\nNOOP\r\nSTLS\r\n")
        assert receive(server, 6) == b"CAPA\r\n"
        server.sendall(CAPA)
        assert receive(server, 6) == b"NOOP\r\n"
        server.sendall(b"+OK noop\r\n")
        shown = b"+OK list\r\nTOP\r\nUSER\r\nSASL PLAIN\r\nSTLS\r\n.\r\n"
        if mode == "require":
            shown = b"+OK list\r\nTOP\r\nSTLS\r\n.\r\n"
        expected = shown + b"+OK noop\r\n" + BEGIN
        assert receive(client, len(expected)) == expected
        with over_tls(client, certificates) as secure:
            secure.sendall(b"USER bob\r\nPASS secret\r\nCAPA\r\n")
            assert receive(server, 29) == b"USER bob\r\nPASS secret\r\nCAPA\r\n"
            server.sendall(b"+OK\r\n+OK\r\n" + CAPA)
            expected = b"+OK\r\n+OK\r\n+OK list\r\nTOP\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
            assert receive(secure, len(expected)) == expected
            secure.sendall(b"QUIT\r\n")
            assert receive(server, 6) == b"QUIT\r\n"
            server.sendall(b"+OK bye\r\n")
            server.close()
            assert receive_all(secure) == b"+OK bye\r\n"
        end = the_end(events)
    assert (end["user"], end["outcome"], end["inspected"]) == ("bob", "success", "whole")
    names = [record["event"] for record in records(events)]
    turned = names.index("pop3_starttls")
    secured = [record.get("tls_version") for record in records(events)]
    assert secured == [None] * (turned + 1) + ["TLSv1.3"] * (len(names) - turned - 1)
    (login,) = named(events, "pop3_login_success")
    assert (login["user"], login["password"]) == ("bob", "(masked)")
    assert login["tls_cipher"].startswith("TLS_")


def test_stls_octet_by_octet(
    start: Start, certificates: Certificates, mail_server: MailServer
) -> None:
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"sTLs\r\n":
            client.sendall(bytes([octet]))
        assert receive(client, len(BEGIN)) == BEGIN
        with over_tls(client, certificates) as secure:
            secure.sendall(b"NOOP\r\n")
            assert receive(server, 6) == b"NOOP\r\n"


@pytest.mark.parametrize("mode", ["terminate", "require"])
def test_what_is_pipelined_behind_stls_ends_the_session(
    mode: str, start: Start, events: Path, mail_server: MailServer
) -> None:
    with start(mode) as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\nUSER eve\r\nPASS x\r\n")
        assert receive_all(client) == b""
        assert receive_all(server) == b""
        assert the_end(events)["reason"] == "client_injection"
    (odd,) = named(events, "pop3_unexpected")
    assert (odd["msg"], odd["detail"]) == ("client_injection", "USER")
    assert named(events, "pop3_starttls") == []


@pytest.mark.parametrize(
    ("mode", "answer"),
    [("none", b"-ERR TLS is not available here.\r\n"), ("pass", b"")],
)
def test_stls_where_the_proxy_does_not_answer_it(
    mode: str, answer: bytes, start: Start, mail_server: MailServer
) -> None:
    with start(mode) as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\nNOOP\r\n")
        if answer:
            assert receive(client, len(answer)) == answer
            assert receive(server, 6) == b"NOOP\r\n"
        else:
            assert receive(server, 12) == b"STLS\r\nNOOP\r\n"


def test_stls_within_tls_is_refused(
    start: Start, certificates: Certificates, mail_server: MailServer
) -> None:
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        with over_tls(client, certificates) as secure:
            secure.sendall(b"STLS\r\nNOOP\r\n")
            assert receive(secure, 25) == b"-ERR TLS is on already.\r\n"
            assert receive(server, 6) == b"NOOP\r\n"


def test_no_login_passes_before_tls_where_it_is_required(
    start: Start, events: Path, mail_server: MailServer
) -> None:
    refusal = b"-ERR [AUTH] TLS is required to log in; turn it on in your mail program.\r\n"
    digest = b"c4c9334bac560ecc979e58001b3e22fb"
    logins = b"USER bob\r\nAPOP bob " + digest + b"\r\nAUTH PLAIN AGJvYgB4\r\nauth\r\n"
    not_passed = b"PASS x\r\nRPOP bob\r\n\tPASS x\r\n"
    with start("require") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(logins + b"NOOP\r\n")
        assert receive(client, 4 * len(refusal)) == 4 * refusal
        assert receive(server, 6) == b"NOOP\r\n"
        server.sendall(b"+OK\r\n")
        assert receive(client, 5) == b"+OK\r\n"
        client.sendall(not_passed + b"QUIT\r\n")
        assert receive(server, 6) == b"QUIT\r\n"
        server.sendall(b"+OK bye\r\n")
        server.close()
        *refused, bye = receive_all(client).splitlines()
        assert [line[:5] for line in refused] == [b"-ERR "] * 3
        assert bye == b"+OK bye"
        client.close()
        assert the_end(events)["outcome"] == "failure"


@pytest.mark.parametrize(
    "said", [b"USER bob\r\nPASS x\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\0\x05xxxxx"]
)
def test_a_handshake_that_fails_ends_the_session(
    said: bytes, start: Start, events: Path, mail_server: MailServer
) -> None:
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        client.sendall(said)
        assert b"+OK" not in receive_all(client)
        assert receive_all(server) == b""
        proxy.log.expect("no TLS with 127.0.0.1:")
        assert the_end(events)["reason"] == "tls_handshake"


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_client_that_leaves_while_it_turns(
    leave: Callable[[socket.socket], None], start: Start, events: Path, mail_server: MailServer
) -> None:
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        leave(client)
        assert receive_all(server) == b""
        assert the_end(events)["reason"] == "tls_handshake"


def test_a_handshake_that_stalls_runs_out_of_time(
    start: Start, events: Path, mail_server: MailServer
) -> None:
    limit = "[timeouts]\nhandshake = 0.1\n"
    with start("terminate", limit) as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        assert receive_all(client) == b""
        assert receive_all(server) == b""
        assert the_end(events)["reason"] == "timeout:handshake"


def test_what_the_server_says_while_the_client_turns_is_said_inside_tls(
    start: Start, certificates: Certificates, events: Path, mail_server: MailServer
) -> None:
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        server.sendall(b"-ERR idle for too long\r\n")
        server.close()
        with over_tls(client, certificates) as secure:
            assert receive_all(secure) == b"-ERR idle for too long\r\n"
        assert the_end(events)["reason"] == "server_closed"


def test_a_client_that_has_sent_all_inside_tls_may_still_read(
    start: Start, certificates: Certificates, mail_server: MailServer
) -> None:
    """OpenSSL's own half-close: Python's sends close_notify and waits, in a thread, for the other's."""
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = client_context(certificates).wrap_bio(
            incoming, outgoing, server_hostname="127.0.0.1"
        )

        def pumped(act: Callable[[], Any]) -> Any:
            while True:
                try:
                    return act()
                except ssl.SSLWantReadError:
                    client.sendall(outgoing.read())
                    chunk = client.recv(1 << 16)
                    incoming.write(chunk) if chunk else incoming.write_eof()

        pumped(secure.do_handshake)
        secure.write(b"STAT\r\n")
        client.sendall(outgoing.read())
        with pytest.raises(ssl.SSLWantReadError):
            secure.unwrap()
        client.sendall(outgoing.read())
        assert receive_all(server) == b"STAT\r\n"
        server.sendall(b"+OK 0 0\r\n")
        server.close()
        assert pumped(lambda: secure.read(100)) == b"+OK 0 0\r\n"


def test_a_client_that_ends_without_a_word_is_named(
    start: Start, certificates: Certificates, events: Path, mail_server: MailServer
) -> None:
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        with over_tls(client, certificates) as secure:
            secure.sendall(b"NOOP\r\n")
            assert receive(server, 6) == b"NOOP\r\n"
            secure.shutdown(socket.SHUT_WR)
            assert receive_all(server) == b""
            server.close()
            assert the_end(events)["reason"] == "client_truncated"


def test_a_client_that_reads_nothing_inside_tls_stops_the_server(
    start: Start, certificates: Certificates, mail_server: MailServer
) -> None:
    size = 64_000_000
    with start("terminate") as proxy, session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(client, len(BEGIN)) == BEGIN
        with over_tls(client, certificates) as secure:
            before = proxy.memory()
            message = b"+OK\r\n" + b"x" * 998 + b"\r\n"
            data = message + (b"x" * 998 + b"\r\n") * (size // 1000)
            secure.sendall(b"RETR 1\r\n")
            assert receive(server, 8) == b"RETR 1\r\n"
            sent = send_until_full(server, data)
            assert sent < size
            assert proxy.most_memory() - before < 16_000_000
            with meanwhile(lambda: server.sendall(data[sent:])):
                assert receive(secure, len(data)) == data


@pytest.mark.parametrize("mode", MODES)
def test_a_list_of_capabilities_arrives_as_the_mode_has_it(
    mode: str, start: Start, mail_server: MailServer
) -> None:
    listed = CAPA[:-3] + b"STLS\r\n.\r\n"
    bound = b"SASL PLAIN EXTERNAL SCRAM-SHA-1-PLUS\r\n"
    shown = {
        "pass": listed,
        "none": CAPA,
        "terminate": listed.replace(bound, b"SASL PLAIN\r\n"),
        "require": listed.replace(b"USER\r\n" + bound, b""),
    }[mode]
    with start(mode) as proxy, session(proxy, mail_server) as (client, server):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(0, len(listed), 7):
            client.sendall(b"CAPA\r\n")
            assert receive(server, 6) == b"CAPA\r\n"
            server.sendall(listed[:cut])
            server.sendall(listed[cut:])
            assert receive(client, len(shown)) == shown
