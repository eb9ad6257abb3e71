"""Clients between accept and session, before a running proxy: PROXY headers, TLS, limits."""

import json
import re
import resource
import signal
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pop3proxy.cli import WRONG_USAGE, main
from pop3proxy.proxy.arrival import NO_ROOM
from pop3proxy.proxy.proxyheader import SIGNATURE_V2

from ..integration.certificates import Certificates
from .live import (
    GREETING,
    PATIENCE,
    MailServer,
    Proxy,
    receive,
    receive_all,
    reset,
    running,
    until,
)

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 110\r\n"
LOCAL = SIGNATURE_V2 + struct.pack("!BBH", 0x20, 0x00, 5) + b"\x04\x00\x02xx"
BLOCK = bytes([192, 0, 2, 7, 198, 51, 100, 2]) + struct.pack("!HH", 4711, 110)
V2 = SIGNATURE_V2 + struct.pack("!BBH", 0x21, 0x11, len(BLOCK) + 8) + BLOCK + b"\x05\x00\x05tlv\r\n"

V2_WRONG = (
    SIGNATURE_V2 + struct.pack("!BBH", 0x21, 0x11, len(BLOCK) + 7) + BLOCK + b"\x03\x00\x04\0\0\0\0"
)
"""A header whose checksum is wrong."""

CLIENT = ("192.0.2.7", 4711)
PEER = None
"""The proxy that has connected is the client."""

HEADERS = {
    "v1": (V1, CLIENT),
    "v1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:db8::2 4711 110\r\n", ("2001:db8::7", 4711)),
    "v1, mapped": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 110\r\n", CLIENT),
    "v1, unknown": (b"PROXY UNKNOWN\r\n", PEER),
    "v1, unknown, long": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", PEER),
    "v2, fields": (V2, CLIENT),
    "v2, local": (LOCAL, PEER),
}

Start = Callable[..., AbstractContextManager[Proxy]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def start(certificates: Certificates, events: Path, mail_server: MailServer) -> Start:
    """Run a proxy whose listener has some options."""

    @contextmanager
    def started(
        options: str, more: str = "", endpoint: str = "tcp:0:interface=127.0.0.1"
    ) -> Iterator[Proxy]:
        config = events.with_name("arrival.toml")
        # A UNIX socket is no address that the log shows: another listener is there for that.
        first = ""
        if not endpoint.startswith("tcp"):
            first = '[[listen]]\nendpoint = "tcp:0:interface=127.0.0.1"\n'
        config.write_text(
            f'{first}[[listen]]\nendpoint = "{endpoint}"\n{options}\n'
            f'[[tls.certificates]]\nchain = "{certificates.server}"\n'
            f'key = "{certificates.server_key}"\n{more}'
        )
        arguments = ("--config", str(config), "--events", str(events))
        with running(mail_server.port, *arguments, listen=None) as proxy:
            yield proxy

    return started


TRUSTED = 'proxies = ["127.0.0.1", "2001:db8::/32"]'
IMPLICIT = 'tls = "implicit"'
BEFORE = f"{IMPLICIT}\n{TRUSTED}"
INSIDE = f'{BEFORE}\nproxy_header = "inside_tls"'


def connect(proxy: Proxy, source: str = "127.0.0.1") -> socket.socket:
    """Become a client, or a proxy before this one, at an address of this machine."""
    target = ("127.0.0.1", proxy.port)
    client = socket.create_connection(target, PATIENCE, source_address=(source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


ELSEWHERE = "127.0.0.2"


def send_octets(connection: socket.socket, data: bytes) -> None:
    for octet in data:
        connection.sendall(bytes([octet]))


class Secure:
    """TLS on a socket, whose first octets can be sent in one segment with others."""

    def __init__(self, client: socket.socket, certificates: Certificates) -> None:
        context = ssl.create_default_context(cafile=str(certificates.authority))
        # The authority of the tests has no key usage, which only some versions of Python ask for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def handshake(self, before: bytes = b"") -> "Secure":
        self._until_done(self.tls.do_handshake, before)
        return self

    def _until_done(self, act: Callable[[], Any], before: bytes = b"") -> Any:
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                self.client.sendall(before + self.outgoing.read())
                before = b""
                data = self.client.recv(1 << 16)
                assert data
                self.incoming.write(data)
            else:
                self.client.sendall(self.outgoing.read())
                return done

    def sendall(self, data: bytes) -> None:
        self.tls.write(data)
        self.client.sendall(self.outgoing.read())

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._until_done(lambda: self.tls.read(size))
        return data


def the_client(events: Path) -> tuple[str, int]:
    """Wait for the end of the session, and return who its client was."""

    def ends() -> list[dict[str, Any]]:
        records = [json.loads(line) for line in events.read_text().splitlines()]
        return [record for record in records if record["event"] == "pop3_session"]

    until(lambda: bool(ends()), "pop3_session")
    (record,) = ends()
    return record["id.orig_h"], record["id.orig_p"]


def talk(mail_server: MailServer, client: Any, due: bytes = b"") -> None:
    """Play a session, of which the server gets ``due`` before anything is said."""
    with mail_server.accept() as server:
        server.sendall(GREETING)
        assert receive(server, len(due)) == due
        got = (
            client.receive(len(GREETING))
            if isinstance(client, Secure)
            else receive(client, len(GREETING))
        )
        assert got == GREETING
        client.sendall(b"QUIT\r\n")
        assert receive(server, 6) == b"QUIT\r\n"


def gone(client: socket.socket) -> bytes:
    """Read to the end of a connection that the proxy closes."""
    return receive_all(client)


# --- headers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", HEADERS)
def test_the_header_names_the_client(
    name: str, at_once: bool, start: Start, mail_server: MailServer, events: Path
) -> None:
    header, expected = HEADERS[name]
    with start(TRUSTED) as proxy:
        with connect(proxy) as client:
            own = client.getsockname()
            if at_once:
                client.sendall(header + b"CAPA\r\n")
            else:
                send_octets(client, header + b"CAPA\r\n")
            talk(mail_server, client, due=b"CAPA\r\n")
        assert the_client(events) == (own if expected is PEER else expected)
        assert "proxy_header" not in proxy.stop()


@pytest.mark.parametrize("octets", [False, True])
@pytest.mark.parametrize("name", ["v1", "v2, fields", "v2, local"])
@pytest.mark.parametrize("options", [BEFORE, INSIDE], ids=["before", "inside"])
def test_a_header_and_tls_in_both_orders(
    options: str,
    name: str,
    octets: bool,
    start: Start,
    certificates: Certificates,
    mail_server: MailServer,
    events: Path,
) -> None:
    header, expected = HEADERS[name]
    with start(options) as proxy:
        with connect(proxy) as client:
            own = client.getsockname()
            secure = Secure(client, certificates)
            if options == BEFORE and octets:
                send_octets(client, header)
                secure.handshake()
            elif options == BEFORE:
                # Header and ClientHello in one segment: what is behind the header is for TLS.
                secure.handshake(header)
            else:
                secure.handshake()
                for part in (
                    [bytes([octet]) for octet in header] if octets else [header + b"CAPA\r\n"]
                ):
                    secure.sendall(part)
            due = b"CAPA\r\n" if options == INSIDE and not octets else b""
            talk(mail_server, secure, due)
        assert the_client(events) == (own if expected is PEER else expected)
        proxy.stop()


def test_without_proxies_the_line_is_an_unknown_command(
    start: Start, mail_server: MailServer
) -> None:
    with start("") as proxy, connect(proxy) as client:
        client.sendall(V1)
        talk(mail_server, client, due=V1)


@pytest.mark.parametrize("octets", [False, True])
@pytest.mark.parametrize("header", [V1, V2, LOCAL], ids=["v1", "v2", "local"])
@pytest.mark.parametrize("options", [TRUSTED, BEFORE], ids=["plain", "implicit"])
def test_a_header_from_elsewhere_is_refused(
    options: str, header: bytes, octets: bool, start: Start
) -> None:
    with start(options) as proxy:
        with connect(proxy, ELSEWHERE) as client:
            if octets:
                for octet in header[:12]:
                    client.sendall(bytes([octet]))
            else:
                client.sendall(header)
            assert gone(client) == b""
            port = client.getsockname()[1]
        proxy.log.expect(f"refused {ELSEWHERE}:{port}: it sent a PROXY header, but is none of the")
        assert "proxy_header_refused 1" in proxy.stop()


def test_a_header_from_elsewhere_inside_tls_is_refused(
    start: Start, certificates: Certificates
) -> None:
    with start(INSIDE) as proxy:
        with connect(proxy, ELSEWHERE) as client:
            Secure(client, certificates).handshake().sendall(V1)
            gone(client)
        assert "proxy_header_refused 1" in proxy.stop()


@pytest.mark.parametrize("beginning", [b"P", b"PROXY", SIGNATURE_V2[:11]])
def test_from_elsewhere_what_only_begins_like_a_header_is_held_and_then_passed(
    beginning: bytes, start: Start, mail_server: MailServer
) -> None:
    with start(TRUSTED) as proxy:
        with connect(proxy, ELSEWHERE) as client, mail_server.accept() as server:
            # The server speaks first, whatever the client may turn out to be.
            server.sendall(GREETING)
            assert receive(client, len(GREETING)) == GREETING
            send_octets(client, beginning)
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.recv(1)
            server.settimeout(PATIENCE)
            client.sendall(b"ASS x\r\n")
            expected = beginning + b"ASS x\r\n"
            assert receive(server, len(expected)) == expected
            client.sendall(V1)
            assert receive(server, len(V1)) == V1
        assert "proxy_header_refused" not in proxy.stop()


def test_what_is_held_is_passed_on_before_the_end(start: Start, mail_server: MailServer) -> None:
    with (
        start(TRUSTED) as proxy,
        connect(proxy, ELSEWHERE) as client,
        mail_server.accept() as server,
    ):
        server.sendall(GREETING)
        assert receive(client, len(GREETING)) == GREETING
        client.sendall(b"PROXY")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"PROXY"


NO_HEADER = [
    (b"USER bob\r\n", "missing", "there is none"),
    (b"\x16\x03\x01", "missing", "there is none"),
    (b"", "missing", "none is complete within 0.2 seconds"),
    (V1[:-1], "missing", "none is complete within 0.2 seconds"),
    (V2[:-1], "missing", "none is complete within 0.2 seconds"),
    (b"PROXY TCP4 1.2.3.4 nobody 1 2\r\n", "invalid", "one of its addresses"),
    (SIGNATURE_V2 + b"\x21\x11\xff\xff", "invalid", "longer than 4096 octets"),
    (V2[:-8] + b"\x05\x00\x06tlv\r\n", "invalid", "field 0x05 is longer than the header"),
    (V2[:-8] + b"\x03\x00\x04\x00\x00\x00\x00x", "invalid", "last field is cut off"),
    (V2[:-8] + b"\x04\x00\x01x\x03\x00\x04\x00", "invalid", "field 0x03 is longer"),
    (b"PROXY UNKNOWN " + b"x" * 200, "invalid", "longer than 107 octets"),
    (V2_WRONG, "invalid", r"its checksum \(CRC32C\) is wrong"),
]


@pytest.mark.parametrize("options", [TRUSTED, BEFORE], ids=["plain", "implicit"])
def test_a_proxy_without_a_proper_header_is_refused(options: str, start: Start) -> None:
    with start(options, "[timeouts]\nproxy_header = 0.2\n") as proxy, ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy)) for _ in NO_HEADER]
        for client, (data, _, _) in zip(clients, NO_HEADER, strict=True):
            client.sendall(data)
        for client, (_, _, why) in zip(clients, NO_HEADER, strict=True):
            assert gone(client) == b""
            port = client.getsockname()[1]
            proxy.log.expect(rf"refused \S+:{port}, which must send a PROXY header: .*{why}")
        log = proxy.stop()
    assert "proxy_header_missing 5" in log
    assert "proxy_header_invalid 7" in log
    assert "sessions" not in log.rpartition("counted:")[2]


CHECKS = [
    pytest.param(TRUSTED, b"", id="plain"),
    pytest.param(IMPLICIT, b"", id="implicit"),
    pytest.param(BEFORE, b"", id="before"),
    pytest.param(BEFORE, LOCAL, id="before, local"),
    pytest.param(BEFORE, b"PROXY UNKNOWN\r\n", id="before, unknown"),
    pytest.param(INSIDE, b"", id="inside"),
]
"""What load balancers say that only look whether a port is open, by what the listener waits for."""


def check_port(client: socket.socket, header: bytes, way: str) -> None:
    """Connect as a health check does, and leave."""
    if header:
        client.sendall(header)
    if way == "reset":
        reset(client)
    elif way == "closed":
        client.close()
    else:
        client.shutdown(socket.SHUT_WR)
        # OpenSSL sends an alert to who ends without a word.
        gone(client)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize(("options", "header"), CHECKS)
def test_a_health_check_that_only_connects_makes_no_line(
    options: str, header: bytes, unix: bool, start: Start, tmp_path: Path
) -> None:
    path = str(tmp_path / "pop3")
    endpoint = f"unix:{path}" if unix else "tcp:0:interface=127.0.0.1"
    with start(options, endpoint=endpoint) as proxy:
        proxy.log.expect(f"listening on {path if unix else '127'}")
        for way in ("closed", "reset", "half-closed"):
            with socket.socket(socket.AF_UNIX) if unix else connect(proxy) as client:
                client.settimeout(PATIENCE)
                if unix:
                    client.connect(path)
                check_port(client, header, way)
        log = proxy.stop()
    assert "counted: left_early 3\n" in log
    assert re.findall("refused|no TLS|ran out", log) == []


def test_a_client_that_leaves_in_the_middle_of_its_handshake_is_no_health_check(
    start: Start, certificates: Certificates
) -> None:
    with start(IMPLICIT) as proxy:
        with connect(proxy) as client:
            secure = Secure(client, certificates)
            with pytest.raises(ssl.SSLWantReadError):
                secure.tls.do_handshake()
            client.sendall(secure.outgoing.read())
            assert client.recv(1)
        proxy.log.expect(r"no TLS with 127\.0\.0\.1:\d+: .* during the handshake")
        assert "counted: tls_failed 1\n" in proxy.stop()


def test_the_address_limit_counts_real_clients_and_never_a_proxy(
    start: Start, mail_server: MailServer
) -> None:
    with (
        start(TRUSTED, "[limits]\nconnections_per_address = 1\n") as proxy,
        ExitStack() as stack,
    ):

        def come(header: bytes) -> socket.socket:
            client = stack.enter_context(connect(proxy))
            client.sendall(header)
            return client

        for header in (LOCAL, LOCAL, b"PROXY UNKNOWN\r\n", V1):
            come(header)
            stack.enter_context(mail_server.accept())
        assert gone(come(V1)) == NO_ROOM
        assert gone(come(V2)) == NO_ROOM
        come(V1.replace(b"192.0.2.7", b"192.0.2.8"))
        stack.enter_context(mail_server.accept())
        proxy.log.expect(r"connections_per_address reached: refused 192\.0\.2\.7:4711; 2 by now")


def test_who_has_left_makes_room_for_the_same_address(
    start: Start, mail_server: MailServer, events: Path
) -> None:
    with start(TRUSTED, "[limits]\nconnections_per_address = 1\n") as proxy:
        for count in range(1, 4):
            with connect(proxy) as client:
                client.sendall(V1)
                talk(mail_server, client)

            def ends() -> int:
                return events.read_text().count('"pop3_session"')

            until(lambda count=count: ends() == count, "pop3_session")  # type: ignore[misc]
        assert "refused" not in proxy.stop()


# --- TLS that ends before the proxy ---------------------------------------------------------------------


def told(flags: int, block: bytes = BLOCK, family: int = 0x11) -> bytes:
    """A header that says of a client what its TLS at the load balancer is."""
    inner = b"\x21\x00\x07TLSv1.2\x23\x00\x06AES256"
    value = struct.pack("!BI", flags, 0) + inner
    fields = b"\x02\x00\x08mail.org" + struct.pack("!BH", 0x20, len(value)) + value
    size = len(block) + len(fields)
    return SIGNATURE_V2 + struct.pack("!BBH", 0x21, family, size) + block + fields


CLEAR, OVER_TLS = told(0), told(1)
TRUSTING = f"{TRUSTED}\ntrust_tls = true"
KNOWN_TLS = {
    "tls_version": "TLSv1.2",
    "tls_cipher": "AES256",
    "tls_server_name": "mail.org",
}


def tls_facts(events: Path) -> dict[str, str]:
    """What the record of the session's end says of TLS, once it is there."""
    the_client(events)
    (record,) = [
        json.loads(line) for line in events.read_text().splitlines() if '"pop3_session"' in line
    ]
    return {key: value for key, value in record.items() if key.startswith("tls_") and value}


@pytest.mark.parametrize(
    ("options", "header", "expected"),
    [
        pytest.param(f'{TRUSTING}\ntls = "none"', OVER_TLS, KNOWN_TLS, id="told"),
        pytest.param(f'{TRUSTING}\ntls = "require"', OVER_TLS, KNOWN_TLS, id="told, require"),
        pytest.param(
            f'{TRUSTING}\ntls = "none"', told(1, b"", 0), KNOWN_TLS, id="told of a client unknown"
        ),
        pytest.param(f'{TRUSTING}\ntls = "none"', CLEAR, {}, id="told that there is none"),
        pytest.param(f'{TRUSTING}\ntls = "none"', V2, {}, id="not told"),
        pytest.param(f'{TRUSTED}\ntls = "none"', OVER_TLS, {}, id="not believed"),
    ],
)
def test_the_load_balancers_word_on_tls_is_in_the_records_where_it_counts(
    options: str,
    header: bytes,
    expected: dict[str, str],
    start: Start,
    mail_server: MailServer,
    events: Path,
) -> None:
    with start(options) as proxy:
        with connect(proxy) as client:
            client.sendall(header)
            talk(mail_server, client)
        assert tls_facts(events) == expected
        proxy.stop()


@pytest.mark.parametrize(
    ("trust", "header", "version"),
    [
        (True, OVER_TLS, "TLSv1.2"),
        (True, CLEAR, None),
        (True, V2, "TLSv1.3"),
        (False, OVER_TLS, "TLSv1.3"),
    ],
    ids=["told", "told that there is none", "not told", "not believed"],
)
def test_on_an_implicit_listener_the_load_balancers_own_tls_is_not_the_clients(
    trust: bool,
    header: bytes,
    version: str | None,
    start: Start,
    certificates: Certificates,
    mail_server: MailServer,
    events: Path,
) -> None:
    with start(f"{BEFORE}\ntrust_tls = {str(trust).lower()}") as proxy:
        with connect(proxy) as client:
            talk(mail_server, Secure(client, certificates).handshake(header))
        assert tls_facts(events).get("tls_version") == version
        proxy.stop()


@pytest.mark.parametrize(
    ("header", "answers"),
    [(OVER_TLS, b"-ERR TLS is on already.\r\n"), (CLEAR, b"-ERR [AUTH] ")],
    ids=["with", "without"],
)
def test_a_listener_that_requires_tls_takes_the_load_balancers(
    header: bytes, answers: bytes, start: Start, mail_server: MailServer
) -> None:
    with start(f'{TRUSTING}\ntls = "require"') as proxy, connect(proxy) as client:
        client.sendall(header)
        with mail_server.accept() as server:
            server.sendall(GREETING)
            assert receive(client, len(GREETING)) == GREETING
            if header == OVER_TLS:
                client.sendall(b"STLS\r\n")
                assert receive(client, len(answers)) == answers
                client.sendall(b"USER bob\r\n")
                assert receive(server, 10) == b"USER bob\r\n"
            else:
                client.sendall(b"USER bob\r\n")
                assert receive(client, len(answers)) == answers


def test_a_client_that_is_no_proxy_cannot_claim_tls(start: Start) -> None:
    with start(f'{TRUSTING}\ntls = "none"') as proxy:
        with connect(proxy, ELSEWHERE) as client:
            client.sendall(OVER_TLS)
            assert gone(client) == b""
        assert "proxy_header_refused 1" in proxy.stop()


def test_what_is_trusted_is_said_at_the_start(start: Start) -> None:
    with start(f'{TRUSTING}\ntls = "none"') as proxy:
        proxy.log.expect(
            "from 127.0.0.1/32, 2001:db8::/32, and what it says of the client's TLS counts"
        )
        proxy.log.expect(
            "hidden from clients; those without TLS at the load balancer send their pass"
        )


# --- TLS from the first byte ----------------------------------------------------------------------------


def test_implicit_tls(
    start: Start, certificates: Certificates, mail_server: MailServer, events: Path
) -> None:
    with start(IMPLICIT) as proxy:
        with connect(proxy) as client:
            own = client.getsockname()
            talk(mail_server, Secure(client, certificates).handshake())
        assert the_client(events) == own
        proxy.log.expect("TLS from the first byte, and sessions are inspected whole")
        proxy.stop()
    assert '"tls_version":"TLSv1.3"' in events.read_text()
    named = re.findall('"tls_ja4":"t13i[0-9]{4}00_[0-9a-f]{12}_[0-9a-f]{12}"', events.read_text())
    assert len(named) == events.read_text().count('"tls_version"')


@pytest.mark.parametrize(
    ("options", "first", "host"),
    [
        (IMPLICIT, b"", r"127\.0\.0\.1"),
        (BEFORE, V1, r"192\.0\.2\.7"),
        (INSIDE, b"", r"127\.0\.0\.1"),
    ],
    ids=["alone", "behind a header", "before a header"],
)
def test_clear_text_where_tls_begins_is_logged_with_the_client(
    options: str, first: bytes, host: str, start: Start
) -> None:
    with start(options) as proxy:
        with connect(proxy) as client:
            client.sendall(first + b"USER bob\r\nPASS secret\r\n")
            gone(client)
        proxy.log.expect(rf"no TLS with {host}:\d+: it does not speak TLS")
        log = proxy.stop()
    assert "tls_failed 1" in log
    assert "secret" not in log


COUNTED = """
[[policy.rules]]
name = "no-tls"
counts = "handshakes_failed"
limits = [{ count = 2, seconds = 3600 }]
action = "ban"
"""


def test_handshakes_that_fail_are_counted_by_the_client_s_address_and_can_ban_it(
    start: Start, certificates: Certificates, events: Path
) -> None:
    with start(BEFORE, COUNTED) as proxy:
        for _ in range(2):
            with connect(proxy) as client:
                client.sendall(V1 + b"USER bob\r\n")
                gone(client)
        with connect(proxy) as client:
            client.sendall(V1)
            secure = Secure(client, certificates).handshake()
            assert secure.receive(15) == b"-ERR [SYS/TEMP]"
        proxy.stop()
    records = [json.loads(line) for line in events.read_text().splitlines()]
    decided = [record for record in records if record["event"] == "pop3_policy"]
    assert [(each["action"], each["key"]) for each in decided] == [
        ("ban", "address:192.0.2.7"),
        ("banned", "address:192.0.2.7"),
    ]
    # There was no session, so nothing else has its uid.
    assert [r["event"] for r in records if r["uid"] == decided[0]["uid"]] == ["pop3_policy"]


@pytest.mark.parametrize("data", [b"PASS secret\r\n", b"\r\nPASS secret\r\n"])
def test_clear_text_that_begins_like_a_header_is_no_tls(data: bytes, start: Start) -> None:
    with start(BEFORE) as proxy:
        with connect(proxy, ELSEWHERE) as client:
            send_octets(client, data[:3])
            gone(client)
        assert "tls_failed 1" in proxy.stop()


@pytest.mark.parametrize(
    ("options", "first", "source"),
    [
        (IMPLICIT, b"", "127.0.0.1"),
        (BEFORE, V1, "127.0.0.1"),
        (BEFORE, b"", ELSEWHERE),
        (INSIDE, b"", "127.0.0.1"),
    ],
    ids=["alone", "behind a header", "elsewhere", "before a header"],
)
def test_a_handshake_that_stalls_has_its_time(
    options: str, first: bytes, source: str, start: Start
) -> None:
    said = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"]
    with start(options, "[timeouts]\nhandshake = 0.2\n") as proxy, ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy, source)) for _ in said]
        for client, data in zip(clients, said, strict=True):
            client.sendall(first + data)
        assert [gone(client) for client in clients] == [b""] * len(said)
        proxy.log.expect(r"time limit handshake ran out for [\d.]+:\d+; 3 by now")
        assert "timeout_handshake 3" in proxy.stop()


def test_a_header_that_stalls_inside_tls_has_its_time(
    start: Start, certificates: Certificates
) -> None:
    with start(INSIDE, "[timeouts]\nproxy_header = 0.2\n") as proxy:
        with connect(proxy) as client:
            Secure(client, certificates).handshake().sendall(V1[:-1])
            gone(client)
        assert "proxy_header_missing 1" in proxy.stop()


# --- over Twisted's transports --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [TRUSTED, BEFORE, INSIDE], ids=["plain", "before", "inside"])
@pytest.mark.parametrize("octets", [False, True])
def test_over_a_unix_socket_everybody_is_a_proxy(
    octets: bool,
    options: str,
    start: Start,
    certificates: Certificates,
    mail_server: MailServer,
    events: Path,
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "pop3")
    with start(options, endpoint=f"unix:{path}") as proxy:
        proxy.log.expect(f"listening on {path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            secure: Any = client
            if options == INSIDE:
                secure = Secure(client, certificates).handshake()
                secure.sendall(V1)
            elif options == BEFORE and octets:
                send_octets(client, V1)
                secure = Secure(client, certificates).handshake()
            elif options == BEFORE:
                secure = Secure(client, certificates).handshake(V1)
            elif octets:
                send_octets(client, V1)
            else:
                client.sendall(V1)
            talk(mail_server, secure)
        assert the_client(events) == CLIENT
        proxy.stop()


def test_over_a_unix_socket_a_missing_header_is_refused(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "pop3")
    more = "[timeouts]\nproxy_header = 0.2\n"
    with start(TRUSTED, more, endpoint=f"unix:{path}") as proxy:
        proxy.log.expect(f"listening on {path}")
        for data in (b"USER bob\r\n", b"PROXY"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(path)
                client.sendall(data)
                assert gone(client) == b""
        assert "proxy_header_missing 2" in proxy.stop()


# --- bounds, and the end --------------------------------------------------------------------------------

MANY = 1000
AT_A_TIME = 40


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process hold the clients' sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * MANY:
        pytest.skip(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MANY), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("options", "first"), [(TRUSTED, V2[:-1]), (IMPLICIT, b"\x16\x03")], ids=["header", "handshake"]
)
def test_arrivals_that_stall_are_bounded_and_end_with_the_proxy(
    options: str, first: bytes, start: Start
) -> None:
    more = f"[limits]\nconnections = {MANY}\n[timeouts]\nproxy_header = 600\nhandshake = 600\n"
    with start(options, more) as proxy, ExitStack() as stack:
        before, files = proxy.memory(), proxy.descriptors()
        clients: list[socket.socket] = []
        while len(clients) < MANY:
            # No more at a time than the kernel's queue has room for.
            clients += [stack.enter_context(connect(proxy)) for _ in range(AT_A_TIME)]
            for client in clients[-AT_A_TIME:]:
                client.sendall(first)
            inside = files + len(clients)
            until(lambda inside=inside: proxy.descriptors() == inside, "all are let in")  # type: ignore[misc]
        with connect(proxy) as refused:
            # Who awaits TLS could not read the line.
            assert gone(refused) == (NO_ROOM if options == TRUSTED else b"")
        until(lambda: proxy.descriptors() == files + MANY, "all are let in, and nobody else")
        assert proxy.memory() - before < MANY * 64 * 1024
        log = proxy.stop()
        assert {gone(client) for client in clients} == {b""}
    assert "refused_connections 1" in log


def test_arrivals_that_end_make_room(start: Start, mail_server: MailServer) -> None:
    more = "[limits]\nconnections = 1\n[timeouts]\nproxy_header = 0.2\n"
    with start(TRUSTED, more) as proxy:
        for data in (b"", b"QUIT\r\n", b"PROXY TCP4\r\n"):
            with connect(proxy) as client:
                client.sendall(data)
                gone(client)
        with connect(proxy) as client:
            client.sendall(V1)
            talk(mail_server, client)
        assert "refused_connections" not in proxy.stop()


def test_certificates_are_read_anew_and_a_mistake_keeps_the_old(
    start: Start, certificates: Certificates, mail_server: MailServer, events: Path, tmp_path: Path
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(certificates.server.read_bytes())
    key.write_bytes(certificates.server_key.read_bytes())
    config = events.with_name("arrival.toml")
    with start(IMPLICIT) as _:
        text = config.read_text()
    text = text.replace(str(certificates.server), str(chain))
    config.write_text(text.replace(str(certificates.server_key), str(key)))
    options = ("--config", str(config), "--events", str(events))
    with running(mail_server.port, *options, listen=None) as proxy, connect(proxy) as client:
        secure = Secure(client, certificates).handshake()
        with mail_server.accept() as server:
            proxy.tell(signal.SIGHUP)
            proxy.log.expect("certificates are read anew; sessions that run keep theirs")
            chain.write_text("nothing")
            proxy.tell(signal.SIGHUP)
            proxy.log.expect(rf"not read anew, what was in use stays: .*{re.escape(str(chain))}")
            server.sendall(GREETING)
            assert secure.receive(len(GREETING)) == GREETING
        with connect(proxy) as another:
            talk(mail_server, Secure(another, certificates).handshake())


@pytest.mark.parametrize(
    ("listen", "upstream", "why"),
    [
        ('endpoint = "haproxy:tcp:0"\nproxies = ["10.0.0.0/8"]', "", "listen[0]: haproxy: reads"),
        ('endpoint = "ssl:0:certKey=C:privateKey=K"\ntls = "implicit"', "", "listen[0]: ssl: with"),
        ('endpoint = "ssl:0:certKey=C:privateKey=K"\ntls = "require"', "", "listen[0]: ssl: with"),
        ('endpoint = "tcp:0"', 'tls = "tls"', "would be TLS inside TLS"),
        ('endpoint = "tcp:0"', 'proxy_protocol = "v2"', "would send the PROXY header inside TLS"),
    ],
)
def test_an_endpoint_that_puts_something_before_what_must_come_first_is_a_mistake(
    listen: str,
    upstream: str,
    why: str,
    certificates: Certificates,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint = "tls:mail.example.org:995" if upstream else "tcp:127.0.0.1:110"
    config = tmp_path / "mistaken.toml"
    listen = listen.replace("=C", f"={certificates.server}").replace(
        "=K", f"={certificates.server_key}"
    )
    config.write_text(
        f'[[listen]]\n{listen}\n[upstream]\nendpoint = "{endpoint}"\n{upstream}\n'
        f'[[tls.certificates]]\nchain = "{certificates.server}"\nkey = "{certificates.server_key}"\n'
    )
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--config", str(config)])
    assert ended.value.code == WRONG_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert "tcp: " in line
