"""What TLS we speak: certificates and whom they are for, resumption, and the mistakes of those who set it up.

Both ends are in memory: no socket is needed to shake hands.
"""

import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.analyzer.events import Tls
from pop3proxy.config import Certificate, TlsOptions, Upstream
from pop3proxy.proxy.tls import ClientTls, ServerTls, TlsError, explained, facts

from .authority import Authority

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> dict[str, tuple[str, str]]:
    """The files of certificates and their keys."""
    return {
        "mail": authority.issue("mail", "mail.example.org", "pop.example.org"),
        "wild": authority.issue("wild", "*.example.net", "192.0.2.7", "2001:db8::7"),
        "bare": authority.issue("bare.example.com"),
        "bob": authority.issue("bob"),
    }


def options(*pairs: tuple[str, str], **more: Any) -> TlsOptions:
    made = tuple(Certificate(chain=chain, key=key) for chain, key in pairs)
    return TlsOptions(certificates=made, **more)


class Client:
    """A client in memory, on the standard library's TLS."""

    def __init__(self, context: ssl.SSLContext, name: str | None, session: Any = None) -> None:
        self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.inward, self.outward, server_hostname=name, session=session
        )

    def meet(self, server: SSL.Connection) -> SSL.Error | None:
        """Shake hands as far as both will; return what the server has against it."""
        refused = None
        for _ in range(4):
            try:
                self.tls.do_handshake()
                self.tls.read(1)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return refused
            if self.outward.pending:
                server.bio_write(self.outward.read())
            try:
                server.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error as problem:
                refused = problem
            with suppress(SSL.WantReadError):
                self.inward.write(server.bio_read(1 << 16))
        return refused

    @property
    def common_name(self) -> str:
        found: Any = self.tls.getpeercert()
        return str(found["subject"][0][0][1])


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    """The clients' context; they look at names themselves."""
    context = ssl.create_default_context(cafile=authority.file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = False
    return context


def met(
    ours: ServerTls, context: ssl.SSLContext, name: str | None = None, session: Any = None
) -> tuple[Client, SSL.Connection]:
    client, server = Client(context, name, session), ours.connection(None)
    assert client.meet(server) is None
    return client, server


# --- whom a certificate is for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (None, "mail"),
        ("mail.example.org", "mail"),
        ("POP.Example.ORG", "mail"),
        ("pop.example.org.", "mail"),
        ("any.example.net", "wild"),
        ("two.labels.example.net", "mail"),
        ("example.net", "mail"),
        ("192.0.2.7", "wild"),
        ("bare.example.com", "bare.example.com"),
        ("unheard-of.example", "mail"),
    ],
)
def test_a_client_gets_the_certificate_for_the_name_it_asks_for(
    files: dict[str, tuple[str, str]], context: ssl.SSLContext, name: str | None, shown: str
) -> None:
    ours = ServerTls(options(files["mail"], files["wild"], files["bare"]))
    if name == "192.0.2.7":
        # The standard library names no address; some clients do.
        server = ours.connection(None)
        other = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        other.set_tlsext_host_name(name.encode())
        other.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            other.do_handshake()
        server.bio_write(other.bio_read(1 << 16))
        with pytest.raises(SSL.WantReadError):
            server.do_handshake()
        certificate = server.get_certificate()
        assert certificate is not None
        assert certificate.to_cryptography().subject.rfc4514_string() == f"CN={shown}"
        return
    client, _ = met(ours, context, name)
    assert client.common_name == shown


def test_the_facts_are_those_of_the_connection(
    authority: Authority, files: dict[str, tuple[str, str]], context: ssl.SSLContext
) -> None:
    ours = ServerTls(options(files["mail"], client_ca=authority.file))
    context.maximum_version = TLS_1_2
    context.set_alpn_protocols(["imap", "pop3"])
    context.load_cert_chain(*files["bob"])
    client, server = met(ours, context, "mail.example.org")
    cipher = client.tls.cipher()
    assert cipher is not None
    found = facts(server)
    known = "TLSv1.2", cipher[0], "mail.example.org", "pop3", "CN=bob"
    assert found == Tls(*known, found.ja4)
    assert found.ja4.startswith("t12d")
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]
    assert cipher[0].startswith("ECDHE-")


def test_a_client_that_speaks_another_protocol_by_its_own_account_is_let_in(
    files: dict[str, tuple[str, str]], context: ssl.SSLContext
) -> None:
    context.set_alpn_protocols(["imap"])
    _, server = met(ServerTls(options(files["mail"])), context)
    assert facts(server).next_protocol == ""


def test_the_oldest_version_is_what_is_set(
    files: dict[str, tuple[str, str]], context: ssl.SSLContext
) -> None:
    context.maximum_version = TLS_1_2
    client = Client(context, None)
    server = ServerTls(options(files["mail"], minimum="1.3")).connection(None)
    problem = client.meet(server)
    assert problem is not None
    assert explained(problem, server) == "it speaks no version of TLS that is allowed here"


def test_ciphers_without_forward_secrecy_are_refused(
    files: dict[str, tuple[str, str]], context: ssl.SSLContext
) -> None:
    context.maximum_version = TLS_1_2
    context.set_ciphers("AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA")
    client = Client(context, None)
    server = ServerTls(options(files["mail"])).connection(None)
    problem = client.meet(server)
    assert problem is not None
    assert explained(problem, server) == "it offers no cipher that is allowed here"


# --- resumption -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("asked", ["", "optional", "required"])
@pytest.mark.parametrize("name", ["mail.example.org", "any.example.net"])
def test_a_second_connection_resumes_the_session_of_the_first(
    authority: Authority,
    files: dict[str, tuple[str, str]],
    context: ssl.SSLContext,
    version: ssl.TLSVersion,
    asked: str,
    name: str,
) -> None:
    more = {"client_ca": authority.file, "client_certificate": asked} if asked else {}
    ours = ServerTls(options(files["mail"], files["wild"], **more))
    context.maximum_version = version
    if asked:
        context.load_cert_chain(*files["bob"])
    first, _ = met(ours, context, name)
    second, server = met(ours, context, name, first.tls.session)
    assert (first.tls.session_reused, second.tls.session_reused) == (False, True)
    assert facts(server).client == ("CN=bob" if asked else "")
    assert facts(server).server_name == name


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_no_session_outlives_a_reload(
    authority: Authority,
    files: dict[str, tuple[str, str]],
    context: ssl.SSLContext,
    version: ssl.TLSVersion,
) -> None:
    ours = ServerTls(options(files["mail"], client_ca=authority.file))
    context.maximum_version = version
    context.load_cert_chain(*files["bob"])
    first, _ = met(ours, context)
    ours.reload()
    second, _ = met(ours, context, session=first.tls.session)
    assert not second.tls.session_reused


# --- files ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "damaged.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    return tmp_path


def mistake(made: TlsOptions) -> str:
    with pytest.raises(TlsError) as found:
        ServerTls(made)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_file_that_is_not_there_is_named(folder: Path, files: dict[str, tuple[str, str]]) -> None:
    absent = str(folder / "absent.pem")
    assert mistake(options(files["mail"], (absent, absent))) == (
        f"tls.certificates[1].chain: cannot read {absent}: No such file or directory;"
        " name a file that we may read"
    )
    assert mistake(options((files["mail"][0], absent))).startswith(
        f"tls.certificates[0].key: cannot read {absent}:"
    )
    assert mistake(options(files["mail"], client_ca=absent)).startswith(
        f"tls.client_ca: cannot read {absent}:"
    )


def test_a_folder_is_no_file(folder: Path) -> None:
    assert "Is a directory" in mistake(options((str(folder), str(folder))))


@pytest.mark.parametrize("name", ["empty.pem", "damaged.pem"])
def test_what_holds_no_certificate_or_key_is_named(
    folder: Path, files: dict[str, tuple[str, str]], name: str
) -> None:
    path = str(folder / name)
    begin = "must be PEM, and begin with -----BEGIN CERTIFICATE-----"
    assert begin in mistake(options((path, path)))
    assert begin in mistake(options(files["mail"], client_ca=path))
    assert (
        mistake(options((files["mail"][0], path)))
        == {
            "empty.pem": f"tls.certificates[0].key: {path} holds no private key; it must be PEM,"
            " with a line -----BEGIN PRIVATE KEY-----",
            "damaged.pem": f"tls.certificates[0].key: the key in {path} is damaged, or of an unknown kind",
        }[name]
    )


def test_a_key_for_another_certificate_is_named(files: dict[str, tuple[str, str]]) -> None:
    chain, key = files["mail"][0], files["wild"][1]
    assert mistake(options((chain, key))) == (
        f"tls.certificates[0].chain: the first certificate in {chain} is not that of the key in {key};"
        " name the two that belong together"
    )


def test_a_chain_in_the_wrong_order_is_named(
    folder: Path, authority: Authority, files: dict[str, tuple[str, str]]
) -> None:
    chain, key = files["mail"]
    turned = folder / "turned.pem"
    turned.write_text(Path(authority.file).read_text() + Path(chain).read_text())
    assert mistake(options((str(turned), key))).endswith(
        "; it is further down, and must come first"
    )


def test_a_key_that_needs_a_passphrase_is_named(authority: Authority) -> None:
    chain, key = authority.issue("hidden", "hidden.example", passphrase=b"a secret")
    assert f"the key in {key} is encrypted" in mistake(options((chain, key)))


def test_no_certificate_at_all_is_named() -> None:
    assert mistake(TlsOptions()).startswith("tls.certificates: there is none")


def test_certificate_and_key_may_be_in_one_file(
    folder: Path, files: dict[str, tuple[str, str]], context: ssl.SSLContext
) -> None:
    both = folder / "both.pem"
    both.write_text("".join(Path(path).read_text() for path in files["mail"]))
    ours = ServerTls(TlsOptions(certificates=(Certificate(chain=str(both)),)))
    client, _ = met(ours, context)
    assert client.common_name == "mail"


def test_a_certificate_that_has_expired_is_used_with_a_warning(
    authority: Authority,
) -> None:
    chain, key = authority.issue("old", "old.example.org", days=-1)
    with capturedLogs() as log:
        ServerTls(options((chain, key)))
    (entry,) = log
    assert entry["log_level"].name == "warn"
    assert f"tls.certificates[0].chain: the certificate in {chain} has expired on" in formatEvent(
        entry
    )


def test_a_reload_shows_new_certificates_and_a_mistake_keeps_the_old(
    authority: Authority, folder: Path, files: dict[str, tuple[str, str]], context: ssl.SSLContext
) -> None:
    chain, key = folder / "chain.pem", folder / "key.pem"

    def show(name: str) -> None:
        chain.write_bytes(Path(files[name][0]).read_bytes())
        key.write_bytes(Path(files[name][1]).read_bytes())

    show("mail")
    ours = ServerTls(options((str(chain), str(key))))
    show("wild")
    assert met(ours, context)[0].common_name == "mail"
    ours.reload()
    assert met(ours, context)[0].common_name == "wild"
    key.write_text("")
    with pytest.raises(TlsError):
        ours.reload()
    assert met(ours, context)[0].common_name == "wild"


# --- towards the mail server ----------------------------------------------------------------------------


def towards(endpoint: str = "tcp:mail.example.org:110", **more: Any) -> Upstream:
    return Upstream(endpoint=endpoint, tls="starttls", **more)


@pytest.mark.parametrize(
    ("upstream", "name"),
    [
        (towards(), "mail.example.org"),
        (towards(name="pop.example.org."), "pop.example.org"),
        (towards("tcp:192.0.2.7:110"), "192.0.2.7"),
    ],
)
def test_the_name_to_verify_is_the_endpoints_unless_it_is_set(
    upstream: Upstream, name: str
) -> None:
    assert ClientTls(upstream).name == name


@pytest.mark.parametrize(
    ("upstream", "says"),
    [
        (towards("unix:/run/pop3"), "upstream.name: "),
        (towards(name="b\u00fccher.example"), "write it in its ASCII form"),
        (towards(name="two words"), "is no host name"),
        (towards(ca="/absent"), "upstream.ca: cannot read /absent: No such file or directory;"),
        (towards(certificate="/absent"), "upstream.certificate: cannot read /absent:"),
    ],
)
def test_mistakes_about_the_mail_server_are_named(upstream: Upstream, says: str) -> None:
    with pytest.raises(TlsError) as found:
        ClientTls(upstream)
    assert says in str(found.value)


def test_that_nobody_is_verified_is_logged() -> None:
    with capturedLogs() as log:
        ClientTls(towards(verify=False))
    (entry,) = log
    assert formatEvent(entry).startswith(
        "upstream.verify = false: the certificate of tcp:mail.example.org:110 is not verified"
    )


def test_without_a_name_nobody_needs_to_be_verified() -> None:
    with capturedLogs():
        assert ClientTls(towards("unix:/run/pop3", verify=False)).name == ""


# Alternative names, in DER, of which one is an x400Address, and names that are not DER at all.
UNREADABLE = (b"\x30\x04\xa3\x02\x05\x00", b"mail")


@pytest.mark.parametrize("raw_names", UNREADABLE)
def test_a_certificate_whose_names_cannot_be_read_is_shown_all_the_same(
    authority: Authority, raw_names: bytes
) -> None:
    ours = ServerTls(options(authority.issue("strange", raw_names=raw_names)))
    ours.reload()
    assert ours.connection(None).get_context() is ours.context()


def problem_of(authority: Authority, raw_names: bytes, **more: Any) -> str:
    """Shake hands with a mail server that has names, and say what is wrong with it."""
    theirs = ServerTls(options(authority.issue("strange", raw_names=raw_names))).connection(None)
    tls = ClientTls(towards(ca=authority.file, **more))
    ours = tls.connection(None)
    for one, other in ((ours, theirs), (theirs, ours), (ours, theirs)):
        with suppress(SSL.WantReadError):
            one.do_handshake()
        with suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(1 << 16))
    return tls.problem(ours)


def test_a_mail_server_whose_names_cannot_be_read_is_nobody(authority: Authority) -> None:
    # Of the two OpenSSL takes the first.
    assert problem_of(authority, UNREADABLE[0]) == (
        "its certificate is not for mail.example.org: it names no host, or none that can be read"
    )


# DNS:192.0.2.1, DNS:*, an empty name, a URI and an x400Address, and what a certificate is for behind them.
ODD = b"\x82\x09192.0.2.1\x82\x01*\x82\x00\x86\x05x:%\xff/" + UNREADABLE[0][2:]
NAMED = b"\x82\x10mail.example.org\x87\x04\xc0\x00\x02\x07"


@pytest.mark.parametrize("name", ["mail.example.org", "192.0.2.7"])
def test_a_mail_server_with_the_right_name_among_odd_ones_is_accepted(
    authority: Authority, name: str
) -> None:
    raw_names = bytes([0x30, len(ODD + NAMED)]) + ODD + NAMED
    assert problem_of(authority, raw_names, name=name) == ""


@pytest.mark.parametrize("name", ["other.example.org", "192.0.2.1"])
def test_a_mail_server_with_odd_names_alone_is_refused(authority: Authority, name: str) -> None:
    raw_names = bytes([0x30, len(ODD)]) + ODD
    assert problem_of(authority, raw_names, name=name) == (
        f"its certificate is not for {name} but for 192.0.2.1, *"
    )


# --- how failures read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (SSL.Error([]), "it closed the connection during the handshake"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "it closed the connection during the handshake"),
        (
            SSL.Error([("SSL routines", "", "ssl/tls alert certificate unknown")]),
            "it refused the handshake: alert certificate unknown",
        ),
        (
            SSL.Error([("SSL routines", "", "bad signature")]),
            "the handshake failed: bad signature",
        ),
        (
            ConnectionResetError(104, os.strerror(104)),
            "the connection failed during the handshake: Connection reset by peer",
        ),
        (RuntimeError("a secret"), "the connection was lost during the handshake"),
    ],
)
def test_a_failure_is_one_line(problem: Exception, says: str) -> None:
    assert explained(problem) == says
