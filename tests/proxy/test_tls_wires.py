"""Wires that turn TLS on: the engine's, and those over Twisted's transports, by the same tests.

The peers are the standard library's TLS over real sockets on 127.0.0.1; the test turns the reactor.
"""

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from twisted.internet.endpoints import serverFromString
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import capturedLogs
from zope.interface import implementer

from pop3proxy.analyzer.events import Side
from pop3proxy.config import Certificate, TlsOptions, Upstream
from pop3proxy.proxy.engine import Engine
from pop3proxy.proxy.ja4 import Hello
from pop3proxy.proxy.plainwire import PlainWire
from pop3proxy.proxy.tls import NOT_BEGUN, ClientTls, ServerTls
from pop3proxy.proxy.wire import Wire

from .authority import Authority
from .live import PATIENCE, reset
from .loop import Heard, open_sockets

MUCH = b"line of a message\r\n" * 500_000

Context = ssl.SSLContext


class Peer:
    """The other end: a socket that does not block, and TLS on it once it has shaken hands."""

    def __init__(self, stage: "Stage", plain: socket.socket) -> None:
        self.stage = stage
        self.socket: Any = plain
        plain.setblocking(False)

    def wrap(self, context: Context, **more: Any) -> None:
        more.setdefault("server_side", False)
        self.socket = context.wrap_socket(
            self.socket, do_handshake_on_connect=False, suppress_ragged_eofs=False, **more
        )

    def shake(self, context: Context, **more: Any) -> None:
        self.wrap(context, **more)
        self.stage.until(lambda: self.tried(self.socket.do_handshake))

    @staticmethod
    def tried(act: Callable[..., Any], *arguments: Any) -> tuple[Any] | None:
        try:
            return (act(*arguments),)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return None

    def say(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            part = left[:65536]
            (count,) = self.stage.until(lambda: self.tried(self.socket.send, part))  # noqa: B023
            left = left[count:]

    def hear(self, size: int) -> bytes:
        """Read so many octets, or up to the end."""
        data = bytearray()
        while len(data) < size:
            left = min(65536, size - len(data))
            (chunk,) = self.stage.until(lambda: self.tried(self.socket.recv, left))  # noqa: B023
            if not chunk:
                break
            data += chunk
        return bytes(data)

    def end(self) -> None:
        """Say that no more is sent (close_notify); what the proxy says to that is not waited for."""
        with suppress(ssl.SSLError, OSError):
            self.socket.unwrap()

    def close(self) -> None:
        self.socket.close()


@implementer(IProtocolFactory)
class WireFactory:
    """Gives the one wire to whoever connects."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...

    def startedConnecting(self, connector: object) -> None: ...

    def clientConnectionLost(self, connector: object, reason: object) -> None: ...

    def buildProtocol(self, addr: object) -> Any:
        return self.wire


class Stage:
    """A reactor that is turned by hand, with an engine in it, and what was opened there."""

    def __init__(self, make: str) -> None:
        self.make = make
        self.reactor: Any = EPollReactor()
        self.reactor.startRunning(installSignalHandlers=False)
        self.engine = Engine(self.reactor)
        self.engine.start()
        self.peers: list[Peer] = []
        self.wires: list[Wire] = []
        self.heard = Heard()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Turn the reactor until the condition holds, and return what it gave."""
        late: list[bool] = []
        call = self.reactor.callLater(PATIENCE, late.append, True)
        while not (found := condition()):
            assert not late, f"in vain; heard: {self.heard.names}"
            self.reactor.iterate(0.01)
        call.cancel()
        return found

    def hears(self, *names: str) -> None:
        self.until(lambda: set(names) <= set(self.heard.names))

    def pair(self, tls: ServerTls | ClientTls) -> tuple[Wire, Peer]:
        """Return a wire that is up, on the side that ``tls`` is for, and its peer."""
        side = Side.CLIENT if isinstance(tls, ServerTls) else Side.SERVER
        with socket.create_server(("127.0.0.1", 0)) as listening:
            if self.make == "engine":
                theirs = socket.create_connection(listening.getsockname(), PATIENCE)
                ours, _ = listening.accept()
                ours.setblocking(False)
                wire: Wire = PlainWire(self.heard, side, self.engine, ours)
                wire.begin()  # type: ignore[attr-defined]
            else:
                wire = Wire(self.heard, side)
                theirs = self._twisted(wire, side, listening)
        self.wires.append(wire)
        peer = Peer(self, theirs)
        self.peers.append(peer)
        self.hears("begun")
        return wire, peer

    def _twisted(self, wire: Wire, side: Side, listening: socket.socket) -> socket.socket:
        factory = WireFactory(wire)
        if side is Side.SERVER:
            self.reactor.connectTCP(*listening.getsockname(), factory)
            self.hears("begun")
            return listening.accept()[0]
        theirs = socket.create_connection(listening.getsockname(), PATIENCE)
        ours, _ = listening.accept()
        with ours:
            self.reactor.adoptStreamConnection(ours.fileno(), socket.AF_INET, factory)
        return theirs

    def close(self) -> None:
        for wire in self.wires:
            if not {"lost", "insecure"} & set(self.heard.names):
                wire.abort()
        for peer in self.peers:
            peer.close()
        self.until(lambda: not self.wires or {"lost", "insecure"} & set(self.heard.names))
        self.engine.stop()
        self.reactor.fireSystemEvent("shutdown")
        for reader in self.reactor.removeAll():
            reader.connectionLost(None)
        self.reactor._poller.close()


@pytest.fixture(params=["engine", "twisted"])
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    before = open_sockets()
    stage = Stage(request.param)
    # Small writes over TLS wait for a turn of the global reactor, which nobody turns here.
    monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: stage.reactor)
    with capturedLogs() as log:
        yield stage
        stage.close()
    assert open_sockets() <= before
    assert [entry for entry in log if entry["log_level"].name in ("error", "critical")] == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def mail(authority: Authority) -> tuple[str, str]:
    return authority.issue("mail", "mail.example.org", "127.0.0.1")


def server_tls(pair: tuple[str, str], **more: Any) -> ServerTls:
    return ServerTls(TlsOptions(certificates=(Certificate(chain=pair[0], key=pair[1]),), **more))


def client_tls(**more: Any) -> ClientTls:
    more.setdefault("name", "mail.example.org")
    return ClientTls(Upstream(endpoint="tcp:127.0.0.1:110", tls="starttls", **more))


@pytest.fixture
def ours(mail: tuple[str, str]) -> ServerTls:
    """The proxy's TLS towards a client."""
    return server_tls(mail)


@pytest.fixture
def theirs(authority: Authority) -> Context:
    """A client's context."""
    context = ssl.create_default_context(cafile=authority.file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = False
    return context


def serving(pair: tuple[str, str]) -> Context:
    """A mail server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


@pytest.fixture
def secured(stage: Stage, ours: ServerTls, theirs: Context) -> tuple[Wire, Peer]:
    """A wire to a client, inside TLS, and that client."""
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    peer.shake(theirs)
    stage.hears("secured")
    return wire, peer


# --- the handshake --------------------------------------------------------------------------------------


def test_a_client_is_served_inside_tls(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    peer.say(b"NOOP\r\n")
    stage.until(lambda: stage.heard.octets == b"NOOP\r\n")
    wire.write(b"+OK\r\n")
    assert peer.hear(5) == b"+OK\r\n"
    assert stage.heard.names == ["begun", "secured", "data"]
    assert wire.tls is not None
    assert (wire.tls.version, wire.tls.cipher) == ("TLSv1.3", peer.socket.cipher()[0])
    assert wire.secure


@pytest.mark.parametrize("piece", [1, 100, 1 << 16])
def test_the_client_s_program_is_known_by_its_first_bytes(
    stage: Stage, ours: ServerTls, theirs: Context, piece: int
) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = theirs.wrap_bio(incoming, outgoing)
    said = b""

    def shaken() -> bool:
        nonlocal said
        with suppress(BlockingIOError):
            incoming.write(peer.socket.recv(1 << 16))
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        said += outgoing.read()
        while said:
            peer.socket.send(said[:piece])
            said = said[piece:]
            stage.reactor.iterate(0)
        return "secured" in stage.heard.names

    first = ssl.MemoryBIO()
    client = theirs.wrap_bio(ssl.MemoryBIO(), first)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    expected = Hello()
    expected.feed(first.read())
    stage.until(shaken)
    assert wire.tls is not None
    assert wire.tls.ja4 == expected.ja4 != ""


@pytest.mark.parametrize("name", ["mail.example.org", "127.0.0.1"])
def test_a_mail_server_is_spoken_to_inside_tls(
    stage: Stage, authority: Authority, mail: tuple[str, str], name: str
) -> None:
    tls = client_tls(ca=authority.file, name=name)
    wire, peer = stage.pair(tls)
    wire.start_tls(tls)
    peer.shake(serving(mail), server_side=True)
    peer.say(b"+OK ready\r\n")
    stage.until(lambda: stage.heard.octets == b"+OK ready\r\n")
    wire.write(b"QUIT\r\n")
    assert peer.hear(6) == b"QUIT\r\n"
    assert wire.tls is not None
    assert wire.tls.server_name == ("" if name == "127.0.0.1" else name)
    assert wire.tls.client == ""
    assert wire.tls.ja4 == ""


@pytest.mark.parametrize("said", [b"+OK begin\r\n", MUCH])
def test_what_was_written_before_goes_out_in_clear_before(
    stage: Stage, ours: ServerTls, theirs: Context, said: bytes
) -> None:
    wire, peer = stage.pair(ours)
    wire.write(said)
    wire.start_tls(ours)
    assert peer.hear(len(said)) == said
    peer.shake(theirs)
    stage.hears("secured", *(["drained"] if said is MUCH else []))
    assert not wire.unsent
    wire.write(b"+OK\r\n")
    assert peer.hear(5) == b"+OK\r\n"


def test_what_is_written_meanwhile_goes_out_inside(
    stage: Stage, ours: ServerTls, theirs: Context
) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    wire.write(b"+OK ")
    wire.write(b"ready\r\n")
    peer.shake(theirs)
    assert peer.hear(11) == b"+OK ready\r\n"
    stage.until(lambda: not wire.unsent)


def test_a_wire_that_is_paused_shakes_hands_and_reads_nothing_until_it_may(
    stage: Stage, ours: ServerTls, theirs: Context
) -> None:
    wire, peer = stage.pair(ours)
    wire.pause()
    wire.start_tls(ours)
    wire.pause()
    peer.shake(theirs)
    stage.hears("secured")
    peer.say(b"NOOP\r\n")
    for _ in range(3):
        stage.reactor.iterate(0)
    assert "data" not in stage.heard.names
    wire.resume()
    stage.until(lambda: stage.heard.octets == b"NOOP\r\n")


def test_another_user_hears_what_comes_after_the_hand_over(
    stage: Stage, secured: tuple[Wire, Peer]
) -> None:
    wire, peer = secured
    other = Heard()
    wire.hand_over(other)
    peer.say(b"NOOP\r\n")
    stage.until(lambda: other.octets)
    wire.hand_over(stage.heard)
    assert stage.heard.names == ["begun", "secured"]


def test_a_reload_leaves_those_inside_alone(
    stage: Stage, ours: ServerTls, secured: tuple[Wire, Peer]
) -> None:
    wire, peer = secured
    ours.reload()
    peer.say(b"NOOP\r\n")
    stage.until(lambda: stage.heard.octets == b"NOOP\r\n")
    wire.write(b"+OK\r\n")
    assert peer.hear(5) == b"+OK\r\n"


@pytest.mark.parametrize("act", ["abort", "close"])
def test_a_handshake_that_stalls_is_given_up_by_who_waits(
    stage: Stage, ours: ServerTls, act: str
) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    peer.say(b"\x16\x03\x01")
    for _ in range(3):
        stage.reactor.iterate(0)
    getattr(wire, act)()
    stage.hears("lost")
    assert stage.heard.names == ["begun", "lost"]


# --- bulk -----------------------------------------------------------------------------------------------


def test_much_is_sent_as_fast_as_it_is_read(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    wire.write(MUCH)
    assert wire.unsent
    assert peer.hear(len(MUCH)) == MUCH
    stage.hears("drained")
    assert not wire.unsent


def test_much_is_received_whole(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    _, peer = secured
    peer.say(MUCH)
    stage.until(lambda: len(stage.heard.octets) >= len(MUCH))
    assert stage.heard.octets == MUCH


def test_who_is_not_read_cannot_send_on(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    wire.pause()
    sent = 0
    quiet = 0
    while quiet < 20:
        found = peer.tried(peer.socket.send, MUCH[:65536])
        sent += found[0] if found else 0
        quiet = 0 if found else quiet + 1
        stage.reactor.iterate(0)
    assert len(stage.heard.octets) <= 1 << 18
    wire.resume()
    stage.until(lambda: len(stage.heard.octets) >= sent)
    # OpenSSL wants the record again that it could not send whole.
    peer.say(MUCH[:65536])
    stage.until(lambda: len(stage.heard.octets) >= sent + 65536)


# --- the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, len(MUCH)])
@pytest.mark.parametrize("act", ["end", "close"])
def test_what_is_unsent_goes_out_before_the_end_which_is_said(
    stage: Stage, secured: tuple[Wire, Peer], act: str, size: int
) -> None:
    wire, peer = secured
    wire.write(MUCH[:size])
    getattr(wire, act)()
    assert peer.hear(size + 1) == MUCH[:size]
    peer.end()
    peer.close()
    if "lost" not in stage.heard.names:
        stage.until(lambda: {"ended", "lost"} & set(stage.heard.names))


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_who_has_ended_reads_on(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    wire.end()
    assert peer.hear(1) == b""
    peer.say(b"more")
    stage.until(lambda: stage.heard.octets == b"more")
    peer.end()
    stage.hears("ended")
    assert not wire.truncated
    wire.close()
    assert stage.heard.names[-2:] == ["ended", "lost"]


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_a_peer_that_has_ended_reads_on(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    peer.end()
    stage.hears("ended")
    wire.write(b"+OK bye\r\n")
    wire.close()
    assert stage.heard.all[-1] == ("lost", Side.CLIENT, True)
    assert not wire.truncated


@pytest.mark.parametrize("stage", ["twisted"], indirect=True)
def test_twisted_takes_the_peers_end_for_the_loss(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    peer.end()
    stage.hears("lost")
    assert stage.heard.all[-1] == ("lost", Side.CLIENT, True)
    assert not wire.truncated


def test_bytes_that_end_without_the_peers_word_are_truncated(
    stage: Stage, secured: tuple[Wire, Peer]
) -> None:
    wire, peer = secured
    wire.write(b"+OK\r\n")
    # Whoever leaves with something unread resets, and its tickets are among that.
    assert peer.hear(5) == b"+OK\r\n"
    peer.say(b"RETR 1")
    peer.close()
    stage.until(lambda: {"ended", "lost"} & set(stage.heard.names))
    assert stage.heard.octets == b"RETR 1"
    assert wire.truncated


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_an_end_right_behind_much_is_heard_though_the_wire_was_paused(
    stage: Stage, secured: tuple[Wire, Peer]
) -> None:
    wire, peer = secured
    wire.pause()
    peer.say(MUCH[:49152])
    peer.end()
    wire.resume()
    stage.until(lambda: len(stage.heard.octets) >= 49152)
    wire.pause()
    wire.resume()
    stage.hears("ended")
    assert stage.heard.names.count("ended") == 1


def test_a_reset_says_nothing(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    wire, peer = secured
    wire.abort()
    stage.hears("lost")
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        peer.hear(1)
    assert stage.heard.all[-1] == ("lost", Side.CLIENT, False)
    assert not wire.truncated


def test_a_peers_reset_is_a_loss(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    _, peer = secured
    reset(peer.socket)
    stage.hears("lost")
    assert stage.heard.all[-1] == ("lost", Side.CLIENT, False)


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_bytes_that_are_no_tls_lose_the_wire(stage: Stage, secured: tuple[Wire, Peer]) -> None:
    _, peer = secured
    raw = socket.socket(fileno=peer.socket.detach())
    peer.socket = raw
    raw.sendall(b"QUIT\r\n")
    stage.hears("lost")
    assert stage.heard.all[-1] == ("lost", Side.CLIENT, False)


# --- handshakes that fail -------------------------------------------------------------------------------


def why(stage: Stage) -> str:
    stage.hears("insecure")
    for _ in range(3):
        stage.reactor.iterate(0)
    assert stage.heard.names == ["begun", "insecure"]
    return str(stage.heard.all[-1][2])


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"USER bob\r\nPASS secret\r\n", "it does not speak TLS"),
        (b"+OK ready\r\n", "it does not speak TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "it does not speak TLS, but HTTP"),
        (b"", "it closed the connection during the handshake"),
    ],
)
@pytest.mark.parametrize("towards", ["client", "server"])
def test_who_does_not_speak_tls_is_told_apart(
    stage: Stage, ours: ServerTls, said: bytes, says: str, towards: str
) -> None:
    tls = ours if towards == "client" else client_tls()
    wire, peer = stage.pair(tls)
    wire.start_tls(tls)
    if said:
        peer.say(said)
    else:
        peer.socket.shutdown(socket.SHUT_WR)
    if said.startswith(b"GET") and towards == "server":
        says = "it does not speak TLS"
    if not said and towards == "client":
        says = NOT_BEGUN
    assert why(stage).startswith(says)


def test_a_reset_during_the_handshake_is_named(stage: Stage, ours: ServerTls) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    hello = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    hello.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        hello.do_handshake()
    peer.say(hello.bio_read(1 << 16))
    # The answer means that the hello was heard.
    assert peer.hear(1) == b"\x16"
    reset(peer.socket)
    assert why(stage) in (
        "the connection failed during the handshake: Connection reset by peer",
        "it closed the connection during the handshake",
    )


def test_a_reset_before_the_handshake_is_a_client_that_has_left(
    stage: Stage, ours: ServerTls
) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    reset(peer.socket)
    assert why(stage) == NOT_BEGUN


def test_tls_1_1_is_refused_with_an_alert(stage: Stage, ours: ServerTls) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x02\xc0\x13" + b"\x01\x00"
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    peer.say(b"\x16\x03\x01" + struct.pack(">H", len(message)) + message)
    assert why(stage) == "it speaks no version of TLS that is allowed here"
    alert = peer.hear(7)
    assert (alert[0], alert[-1]) == (21, 70)  # protocol_version, RFC 8446 section 6.2


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Other authority")


@pytest.mark.parametrize(
    ("shows", "says"),
    [
        (
            "another's",
            "its certificate is not for mail.example.org but for a.example.net, b.example.net,"
            " c.example.net and 1 more",
        ),
        ("expired", "its certificate has expired"),
        (
            "self-signed",
            "its certificate is self-signed; to trust it all the same, name its file in upstream.ca",
        ),
        ("unknown", "its certificate is from an authority that is not trusted"),
    ],
)
def test_a_mail_server_that_cannot_be_verified_is_refused(
    stage: Stage, authority: Authority, other: Authority, shows: str, says: str
) -> None:
    name = "mail.example.org"
    shown = {
        "another's": lambda: authority.issue("abcd", *(f"{char}.example.net" for char in "abcd")),
        "expired": lambda: authority.issue("expired", name, days=-1),
        "self-signed": lambda: authority.issue("alone", name, self_signed=True),
        "unknown": lambda: other.issue("foreign", name),
    }[shows]()
    tls = client_tls(ca=authority.file)
    wire, peer = stage.pair(tls)
    wire.start_tls(tls)
    peer.wrap(serving(shown), server_side=True)

    def refused() -> bool:
        with suppress(OSError):
            peer.tried(peer.socket.do_handshake)
        return "insecure" in stage.heard.names

    stage.until(refused)
    assert why(stage).startswith(says)


def test_nobody_is_refused_where_nobody_is_verified(stage: Stage, other: Authority) -> None:
    tls = client_tls(verify=False)
    wire, peer = stage.pair(tls)
    wire.start_tls(tls)
    peer.shake(serving(other.issue("anybody", "anybody.example", days=-1)), server_side=True)
    stage.hears("secured")


def test_an_alert_of_the_peer_is_named(stage: Stage, ours: ServerTls, other: Authority) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    context = ssl.create_default_context(cafile=other.file)
    with pytest.raises(ssl.SSLCertVerificationError):
        peer.shake(context, server_hostname="mail.example.org")
    assert why(stage) == "it refused the handshake: alert unknown ca"


# --- clients with certificates --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("asked", "shows", "says"),
    [
        ("optional", "", ""),
        ("optional", "good", "CN=bob"),
        ("required", "good", "CN=bob"),
        ("required", "", "it showed no certificate, and must"),
        ("optional", "expired", "its certificate has expired"),
        ("optional", "unknown", "its certificate is from an authority that is not trusted"),
    ],
)
def test_clients_certificates(
    stage: Stage,
    authority: Authority,
    other: Authority,
    mail: tuple[str, str],
    theirs: Context,
    version: ssl.TLSVersion,
    asked: str,
    shows: str,
    says: str,
) -> None:
    shown = {
        "": lambda: None,
        "good": lambda: authority.issue("bob"),
        "expired": lambda: authority.issue("late", days=-1),
        "unknown": lambda: other.issue("eve"),
    }[shows]()
    theirs.maximum_version = version
    if shown is not None:
        theirs.load_cert_chain(*shown)
    tls = server_tls(mail, client_ca=authority.file, client_certificate=asked)
    wire, peer = stage.pair(tls)
    wire.start_tls(tls)
    with suppress(ssl.SSLError, ConnectionError):
        # TLS 1.3: the client is done before it has been judged.
        peer.shake(theirs)
    stage.until(lambda: {"secured", "insecure"} & set(stage.heard.names))
    if wire.tls is not None:
        assert wire.tls.client == says
    else:
        assert why(stage).startswith(says)
        assert says


# --- hostile peers --------------------------------------------------------------------------------------


def test_nobody_renegotiates(stage: Stage, ours: ServerTls) -> None:
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    tls = SSL.Connection(context, peer.socket)
    tls.set_connect_state()

    def done(act: Callable[[], Any]) -> bool:
        try:
            act()
        except (SSL.WantReadError, SSL.WantWriteError):
            return False
        return True

    stage.until(lambda: done(tls.do_handshake))
    stage.hears("secured")
    assert tls.renegotiate()
    with pytest.raises(SSL.Error) as refused:
        stage.until(lambda: done(tls.do_handshake))
    assert "no renegotiation" in str(refused.value)


class KeyUpdates:
    """Seals KeyUpdate messages of a client by its own keys (RFC 8446 sections 4.6.3, 5.2, 7.2)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _expanded(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack(">HB", size, len(label)) + label + b"\x00"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def sealed(self, data: bytes = b"") -> bytes:
        """Return a record of data, or one that changes keys and asks for the other side's to change."""
        key, nonce = self._expanded(b"key", 32), self._expanded(b"iv", 12)
        text = data + b"\x17" if data else b"\x18\x00\x00\x01\x01" + b"\x16"
        header = b"\x17\x03\x03" + struct.pack(">H", len(text) + 16)
        record = header + AESGCM(key).encrypt(nonce, text, header)
        self._secret = self._expanded(b"traffic upd", 48)
        return record


def with_own_keys(stage: Stage, ours: ServerTls) -> tuple[Wire, Peer, KeyUpdates]:
    """Return a wire inside TLS, and a peer that can change its keys at will, but say nothing else."""
    secrets: list[bytes] = []
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tls13_ciphersuites(b"TLS_AES_256_GCM_SHA384")
    context.set_keylog_callback(lambda _, line: secrets.append(line))
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    tls = SSL.Connection(context, peer.socket)
    tls.set_connect_state()

    def shaken() -> bool:
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    stage.until(shaken)
    stage.hears("secured")
    (line,) = [line for line in secrets if line.startswith(b"CLIENT_TRAFFIC_SECRET_0 ")]
    return wire, peer, KeyUpdates(bytes.fromhex(line.split()[-1].decode()))


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_who_asks_for_new_keys_without_end_and_reads_nothing_is_reset(
    stage: Stage, ours: ServerTls
) -> None:
    wire, peer, updates = with_own_keys(stage, ours)
    wire.write(MUCH)
    assert wire.unsent
    with suppress(ConnectionError):
        while "lost" not in stage.heard.names:
            peer.say(b"".join(updates.sealed() for _ in range(50)))
    stage.hears("lost")
    assert stage.heard.all[-1] == ("lost", Side.CLIENT, False)


@pytest.mark.parametrize("stage", ["engine"], indirect=True)
def test_who_changes_keys_without_end_keeps_nobody_waiting(stage: Stage, ours: ServerTls) -> None:
    _, peer, updates = with_own_keys(stage, ours)
    peer.say(b"".join(updates.sealed() for _ in range(200)) + updates.sealed(b"NOOP\r\n"))
    turns = 0
    while not stage.heard.octets:
        (ready,) = (number for number, watcher in stage.engine._watchers.items())
        select.select([ready], [], [], PATIENCE)
        stage.engine.doRead()
        turns += 1
    assert turns > 200
    assert stage.heard.octets == b"NOOP\r\n"


def test_an_error_of_the_user_about_being_secured_resets(ours: ServerTls, theirs: Context) -> None:
    stage = Stage("engine")
    stage.heard.raises.add("secured")
    wire, peer = stage.pair(ours)
    wire.start_tls(ours)
    with capturedLogs() as log:
        peer.shake(theirs)
        stage.hears("lost")
    assert len(log) == 1
    stage.close()


# --- endpoints with TLS of their own --------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["twisted"], indirect=True)
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # by Twisted
@pytest.mark.parametrize("speaks", [True, False])
def test_an_endpoints_own_tls_is_up_only_after_its_handshake(
    stage: Stage, mail: tuple[str, str], theirs: Context, speaks: bool
) -> None:
    wire = Wire(stage.heard, Side.CLIENT)
    factory = WireFactory(wire)
    chain, key = mail
    text = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}"
    ports: list[Any] = []
    serverFromString(stage.reactor, text).listen(factory).addCallback(ports.append)
    stage.until(lambda: ports)
    address = ports[0].getHost()
    peer = Peer(stage, socket.create_connection((address.host, address.port), PATIENCE))
    stage.peers.append(peer)
    stage.wires.append(wire)
    stage.until(lambda: wire.transport is not None)
    assert stage.heard.names == []
    if speaks:
        peer.shake(theirs, server_hostname="mail.example.org")
        stage.hears("begun")
        assert wire.tls is not None
        assert (wire.tls.version, wire.tls.server_name) == ("TLSv1.3", "mail.example.org")
    else:
        peer.say(b"USER bob\r\n")
        stage.hears("insecure")
        assert stage.heard.all == [("insecure", Side.CLIENT, "it does not speak TLS")]
    stopped = ports[0].stopListening()
    stage.until(lambda: stopped.called)
