"""What TLS we speak, to clients and to the mail server, and how its failures read; carries no byte of it."""

import functools
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL._util import lib
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate
from service_identity.hazmat import DNS_ID
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.logger import Logger
from zope.interface import implementer

from ..analyzer.events import Tls
from ..config import TlsOptions, Upstream
from .addresses import destination
from .certificatenames import AlternativeNames
from .ja4 import Hello

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only, as RFC 9325 section 4.2 has it. TLS 1.3 has
nothing else."""

TICKET_LIFETIME: Final = 3600
"""Seconds for which a client may resume its session: longer than mail programs wait between two visits."""

NEXT_PROTOCOL: Final = b"pop3"
"""POP3's name in ALPN (RFC 7301, IANA's registry)."""

NAMES_SHOWN: Final = 3
"""Names of a foreign certificate that are written down: it may have thousands."""

SHARED: Final = 64
"""How many different ``facts`` are kept for connections to come. Clients make them up, so it is a few."""

TEXT_SHOWN: Final = 256
"""Characters of a foreign text, such as a certificate's subject, that are written down."""

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_PRIVATE_KEY: Final = re.compile(
    rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL
)

# What cryptography raises for a certificate, or a part of one, that it cannot read.
_UNREADABLE: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_CLOSED: Final = "it closed the connection during the handshake"

NOT_BEGUN: Final = "it closed the connection before the handshake"
"""Why there is no TLS with a client that has sent no ClientHello: a check whether the port is open, say."""

# Why a certificate is refused, by the numbers of OpenSSL's x509_vfy.h. {ca}: where authorities are named.
_REFUSED: Final = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed; to trust it all the same, name its file in {ca}",
    19: "is from an authority that is not trusted; name that in {ca}",
    20: "is from an authority that is not trusted, or comes without its chain; name the former in {ca}",
    21: "is from an authority that is not trusted, or comes without its chain; name the former in {ca}",
    23: "is revoked",
    26: "is for another purpose",
    66: "has a key that is too weak",
    67: "is from an authority whose key is too weak",
    68: "is signed with a digest that is too weak",
}

# Why a handshake failed, by what is in OpenSSL's reason; the first that fits.
_REASONS: Final = (
    ("http request", "it does not speak TLS, but HTTP"),
    ("https proxy request", "it does not speak TLS, but HTTP"),
    ("wrong version number", "it does not speak TLS"),
    ("packet length too long", "it does not speak TLS"),
    ("record layer failure", "it does not speak TLS"),
    ("peer did not return a certificate", "it showed no certificate, and must"),
    ("unsupported protocol", "it speaks no version of TLS that is allowed here"),
    ("version too low", "it speaks no version of TLS that is allowed here"),
    ("no shared cipher", "it offers no cipher that is allowed here"),
    ("unexpected eof", _CLOSED),
)


class TlsError(ValueError):
    """A mistake in what was set for TLS: one line that says what to change."""


_refused: Final[WeakKeyDictionary[SSL.Connection, str]] = WeakKeyDictionary()
"""Why a certificate was refused, of connections whose handshake is about to fail. Their own place for such
notes, ``set_app_data``, is Twisted's."""


class _Verifier:
    """Keeps why a peer's certificate is refused; OpenSSL alone decides."""

    __slots__ = ("_authorities",)

    def __init__(self, authorities: str) -> None:
        """``authorities``: the setting that names those that are trusted."""
        self._authorities = authorities

    def __call__(
        self, connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int
    ) -> bool:
        if not ok:
            why = _REFUSED.get(error, f"is not trusted: OpenSSL's verify error {error}")
            whose = (
                "a certificate of its chain" if depth and error in (9, 10) else "its certificate"
            )
            _refused[connection] = f"{whose} {why.format(ca=self._authorities)}"
        return bool(ok)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """TLS towards clients: our certificates, and which of them is for whom.

    Sessions are resumed by tickets, under keys that live as long as the contexts: not beyond a ``reload``,
    and not in another process. OpenSSL lets a session be resumed under another of our names, too; nobody
    gains by that, as the same is asked of clients under each of them.
    """

    _log = Logger(namespace="pop3proxy.tls")

    def __init__(self, options: TlsOptions) -> None:
        """Load all files. Raises TlsError."""
        self._options = options
        self._contexts, self._names = self._loaded()

    def reload(self) -> None:
        """Load all files anew, for connections to come. Raises TlsError, and then nothing changes."""
        self._contexts, self._names = self._loaded()

    def context(self) -> SSL.Context:
        """Return the context of a new connection; it gives way to another's if the client names a server."""
        return self._contexts[0]

    def connection(self, socket: Any) -> "HeardConnection":
        """Return a connection that waits for a client's handshake; without a socket it is a memory BIO."""
        connection = _without_retries(HeardConnection(self._contexts[0], socket), socket)
        connection.set_accept_state()
        return connection

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return a connection for Twisted's TLS (IOpenSSLServerConnectionCreator)."""
        return self.connection(None)

    def problem(self, connection: SSL.Connection) -> str:
        """Say why the client is refused after its handshake: OpenSSL has refused it already, so ``""``."""
        return ""

    def _loaded(self) -> tuple[list[SSL.Context], dict[str, SSL.Context]]:
        if not self._options.certificates:
            raise TlsError("tls.certificates: there is none; name the files of one: chain and key")
        contexts: list[SSL.Context] = []
        names: dict[str, SSL.Context] = {}

        def choose(connection: SSL.Connection) -> None:
            context = _find(names, _server_name(connection))
            if context is not None and context is not connection.get_context():
                connection.set_context(context)

        for index, certificate in enumerate(self._options.certificates):
            place = f"tls.certificates[{index}]"
            context = self._context(choose)
            contexts.append(context)
            leaf = _use_certificate(context, place, "chain", certificate.chain, certificate.key)
            self._warn_if_expired(place, leaf, certificate.chain)
            for name in _names(leaf):
                names.setdefault(_normal(name), context)
        return contexts, names

    def _context(self, choose: Any) -> SSL.Context:
        options = self._options
        context = _new_context(SSL.TLS_SERVER_METHOD, options.minimum)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_tlsext_servername_callback(choose)
        context.set_alpn_select_callback(_choose_protocol)
        # Tickets need no memory of ours. The id is what a session of a client with a certificate is bound to,
        # and without one OpenSSL refuses to resume it.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"pop3proxy")
        context.set_timeout(TICKET_LIFETIME)
        if options.client_ca is not None:
            _use_authorities(context, "tls.client_ca", options.client_ca)
            try:
                context.load_client_ca(os.fsencode(options.client_ca))
            except SSL.Error as problem:
                raise _refusal("tls.client_ca", options.client_ca, problem) from None
            mode = SSL.VERIFY_PEER
            if options.client_certificate == "required":
                mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            context.set_verify(mode, _Verifier("tls.client_ca"))
        return context

    def _warn_if_expired(self, place: str, leaf: x509.Certificate, path: str) -> None:
        if leaf.not_valid_after_utc < datetime.now(UTC):
            self._log.warn(
                "{place}: the certificate in {path} has expired on {day}; get a new one",
                place=f"{place}.chain",
                path=path,
                day=leaf.not_valid_after_utc.date(),
            )


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """TLS towards the mail server: whom we trust, and who we are."""

    _log = Logger(namespace="pop3proxy.tls")

    def __init__(self, upstream: Upstream) -> None:
        """Load all files. Raises TlsError. That nobody is verified is logged each time."""
        self._upstream = upstream
        host = destination(upstream.endpoint)[0]
        # A UNIX socket's path is no host.
        self.name = (upstream.name or ("" if "/" in host else host)).rstrip(".")
        self._is_address = _is_address(self.name)
        if not self._is_address:
            self._check_name()
        self._context = self._loaded()
        if not upstream.verify:
            self._log.warn(
                "upstream.verify = false: the certificate of {endpoint} is not verified,"
                " and whoever answers in its place reads every password",
                endpoint=upstream.endpoint,
            )

    def _check_name(self) -> None:
        if not self.name:
            if self._upstream.verify:
                raise TlsError(
                    "upstream.name: the endpoint names no host;"
                    " set the name that the mail server's certificate is for"
                )
            return
        try:
            self.name.encode("ascii")
            DNS_ID(self.name)
        except ValueError:
            raise TlsError(
                f"upstream.name: {self.name!r} is no host name;"
                " write it in its ASCII form, as it is in the certificate"
            ) from None

    def reload(self) -> None:
        """Load all files anew, for connections to come. Raises TlsError, and then nothing changes."""
        self._context = self._loaded()

    def context(self) -> SSL.Context:
        """Return the context of a new connection."""
        return self._context

    def connection(self, socket: Any) -> SSL.Connection:
        """Return a connection that begins a handshake; without a socket it is a memory BIO."""
        connection = _new_connection(self._context, socket)
        if self.name and not self._is_address:
            connection.set_tlsext_host_name(self.name.encode("ascii"))
        connection.set_connect_state()
        return connection

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return a connection for Twisted's TLS (IOpenSSLClientConnectionCreator)."""
        return self.connection(None)

    def problem(self, connection: SSL.Connection) -> str:
        """Say why the mail server is refused after its handshake: its certificate is another's (RFC 9525)."""
        if not self._upstream.verify:
            return ""
        certificate = connection.get_peer_certificate()
        if certificate is None:
            return "it showed no certificate"
        names = AlternativeNames(dump_certificate(FILETYPE_ASN1, certificate))
        if names.cover(self.name):
            return ""
        found = names.hosts + names.addresses
        if found:
            return f"its certificate is not for {self.name} but for {_shown(found)}"
        return f"its certificate is not for {self.name}: it names no host, or none that can be read"

    def _loaded(self) -> SSL.Context:
        upstream = self._upstream
        context = _new_context(SSL.TLS_CLIENT_METHOD, "1.2")
        if upstream.verify:
            if upstream.ca is None:
                context.set_default_verify_paths()
            else:
                _use_authorities(context, "upstream.ca", upstream.ca)
            context.set_verify(SSL.VERIFY_PEER, _Verifier("upstream.ca"))
        if upstream.certificate is not None:
            _use_certificate(context, "upstream", "certificate", upstream.certificate, upstream.key)
        return context


def facts(connection: SSL.Connection, of_client: bool = True) -> Tls:
    """Return what is known of a connection's TLS after the handshake.

    ``of_client``: whether the peer is a client, whose certificate is worth noting.
    """
    return _shared(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        _server_name(connection)[:TEXT_SHOWN],
        _text(connection.get_alpn_proto_negotiated()),
        _subject(connection) if of_client else "",
        connection.hello.ja4 if isinstance(connection, HeardConnection) else "",
    )


@functools.lru_cache(SHARED)
def _shared(
    version: str, cipher: str, server_name: str, next_protocol: str, client: str, ja4: str
) -> Tls:
    """Return the same object for all connections that are alike, as nearly all are: most are idle."""
    return Tls(version, cipher, server_name, next_protocol, client, ja4)


def explained(problem: BaseException, connection: SSL.Connection | None = None) -> str:
    """Say in one line why a handshake failed; nothing that the peer made up is in it."""
    if connection is not None:
        if connection in _refused:
            return _refused[connection]
        if connection.client_random() is None and _is_departure(problem):
            return NOT_BEGUN
    if isinstance(problem, SSL.SysCallError):
        number = problem.args[0]
        if number <= 0:
            return _CLOSED
        return f"the connection failed during the handshake: {os.strerror(number)}"
    if isinstance(problem, SSL.Error):
        return _explained_reason(problem)
    if isinstance(problem, ConnectionDone | ConnectionLost):
        # Twisted says no more of either.
        return _CLOSED
    if isinstance(problem, OSError) and problem.errno:
        return f"the connection failed during the handshake: {os.strerror(problem.errno)}"
    return "the connection was lost during the handshake"


def _is_departure(problem: BaseException) -> bool:
    """Return whether a connection has ended, or was reset, and nothing that was said is wrong."""
    if isinstance(problem, SSL.Error) and not isinstance(problem, SSL.SysCallError):
        return _explained_reason(problem) == _CLOSED
    return isinstance(problem, SSL.SysCallError | ConnectionDone | ConnectionLost | OSError)


def _explained_reason(problem: SSL.Error) -> str:
    reasons = problem.args[0] if problem.args else ()
    if not reasons:
        # So OpenSSL 4 reports the end of the peer's bytes.
        return _CLOSED
    reason = str(reasons[-1][-1])
    _, alert, name = reason.partition(" alert ")
    if alert:
        return f"it refused the handshake: alert {name}"
    for part, text in _REASONS:
        if any(part in str(entry[-1]) for entry in reasons):
            return text
    return f"the handshake failed: {reason}"


# --- contexts and files ---------------------------------------------------------------------------------


def _new_context(method: int, minimum: str) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(_VERSIONS[minimum])
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # Most sessions are idle, and need no 34 KiB of buffers then.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


class HeardConnection(SSL.Connection):
    """A client's connection, whose ClientHello is read along.

    Over a memory BIO it is heard here; who gives it a socket tells ``hello`` what comes there.
    """

    def __init__(self, context: SSL.Context, socket: Any) -> None:
        super().__init__(context, socket)
        self.hello = Hello()

    def bio_write(self, buf: Any) -> int:
        """Take bytes of the client (Connection)."""
        if self.hello.wanted:
            self.hello.feed(bytes(buf))
        return super().bio_write(buf)


C = TypeVar("C", bound=SSL.Connection)


def _new_connection(context: SSL.Context, socket: Any) -> SSL.Connection:
    return _without_retries(SSL.Connection(context, socket), socket)


def _without_retries(connection: C, socket: Any) -> C:
    if socket is not None:
        # Else one read goes on as long as the peer sends messages without data, such as KeyUpdate, and
        # everybody waits for it: OpenSSL has no limit. pyOpenSSL sets the mode, and offers no way back.
        lib.SSL_clear_mode(connection._ssl, lib.SSL_MODE_AUTO_RETRY)
    return connection


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """Take POP3 if it is offered; a client that offers others is let in all the same."""
    return NEXT_PROTOCOL if NEXT_PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _read(place: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise TlsError(
            f"{place}: cannot read {path}: {problem.strerror}; name a file that we may read"
        ) from None
    except ValueError:
        raise TlsError(f"{place}: {path!r} is no file name") from None


def _refusal(place: str, path: str, problem: SSL.Error) -> TlsError:
    reasons = problem.args[0] if problem.args else ()
    why = reasons[-1][-1] if reasons else "an unknown error"
    return TlsError(f"{place}: OpenSSL refuses {path}: {why}; name another file")


def _certificates(place: str, path: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(_read(place, path))
        for certificate in found:
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as problem:
        if isinstance(problem, TlsError):
            raise
        raise TlsError(
            f"{place}: {path} holds no certificate that can be read; it must be PEM,"
            " and begin with -----BEGIN CERTIFICATE-----"
        ) from None
    return found


def _use_authorities(context: SSL.Context, place: str, path: str) -> None:
    _certificates(place, path)
    try:
        context.load_verify_locations(path)
    except SSL.Error as problem:
        raise _refusal(place, path, problem) from None


def _use_certificate(
    context: SSL.Context, table: str, chain_key: str, chain: str, key: str | None
) -> x509.Certificate:
    """Put a certificate of ours, its chain and its key into a context; return the certificate."""
    place = f"{table}.{chain_key}"
    certificates = _certificates(place, chain)
    key_place, key_path = (place, chain) if key is None else (f"{table}.key", key)
    ours = _public(_private_key(key_place, key_path).public_key())
    if _public(certificates[0].public_key()) != ours:
        rest = any(_public(found.public_key()) == ours for found in certificates[1:])
        raise TlsError(
            f"{place}: the first certificate in {chain} is not that of the key in {key_path};"
            + (
                " it is further down, and must come first"
                if rest
                else " name the two that belong together"
            )
        )
    for use, where, path in (
        (context.use_certificate_chain_file, place, chain),
        (context.use_privatekey_file, key_place, key_path),
    ):
        try:
            use(path)
        except SSL.Error as problem:
            raise _refusal(where, path, problem) from None
    try:
        context.check_privatekey()
    except SSL.Error as problem:
        # The files have changed since they were compared.
        raise _refusal(key_place, key_path, problem) from None
    return certificates[0]


def _private_key(place: str, path: str) -> Any:
    found = _PRIVATE_KEY.search(_read(place, path))
    if found is None:
        raise TlsError(
            f"{place}: {path} holds no private key; it must be PEM,"
            " with a line -----BEGIN PRIVATE KEY-----"
        )
    try:
        return load_pem_private_key(found[0], None)
    except TypeError:
        raise TlsError(
            f"{place}: the key in {path} is encrypted, and nobody is here to type a passphrase;"
            " store it without one: openssl pkey -in FILE -out FILE"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"{place}: the key in {path} is damaged, or of an unknown kind") from None


def _public(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


# --- names ----------------------------------------------------------------------------------------------


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the hosts and addresses that a certificate is for; its common name only if it has no others.

    What cannot be read names nobody.
    """
    names = AlternativeNames(certificate.public_bytes(Encoding.DER))
    return names.hosts + names.addresses if names.present else _common_names(certificate)


def _common_names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE:
        return []
    return [str(name.value) for name in found]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _normal(name: str) -> str:
    name = name.lower().rstrip(".")
    return str(ip_address(name)) if _is_address(name) else name


def _find(names: dict[str, SSL.Context], name: str) -> SSL.Context | None:
    """Find the certificate for a name; an asterisk stands for one label (RFC 9525 section 6.3)."""
    name = _normal(name)
    found = names.get(name)
    if found is None:
        _, dot, parent = name.partition(".")
        found = names.get(f"*.{parent}") if dot else None
    return found


def _server_name(connection: SSL.Connection) -> str:
    return _text(connection.get_servername() or b"")


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


def _shown(names: Sequence[str]) -> str:
    """Name a few of what may be a lot, and nothing that could be taken for a line of ours."""
    if not names:
        return "nobody"
    shown = [_printable(name) for name in names[:NAMES_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _printable(text: str) -> str:
    text = text[:TEXT_SHOWN]
    return "".join(char if char.isprintable() else "?" for char in text)


def _subject(connection: SSL.Connection) -> str:
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return ""
    try:
        return _printable(certificate.to_cryptography().subject.rfc4514_string())
    except _UNREADABLE:
        return "?"
