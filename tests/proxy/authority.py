"""Certificates made in a moment, right and wrong ones; knows nothing of who shows them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtensionOID, NameOID


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """An authority that issues certificates into files of a folder."""

    def __init__(self, folder: Path, name: str = "Authority of the tests") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _named(name)
        self.certificate = self._signed(self.name, self.key, (), is_authority=True)
        self.file = self._written(f"{name.split(maxsplit=1)[0]}.pem", self._pem(self.certificate))

    def _signed(
        self,
        subject: x509.Name,
        key: Any,
        names: Sequence[str],
        is_authority: bool = False,
        self_signed: bool = False,
        days: int = 2,
        raw_names: bytes = b"",
    ) -> x509.Certificate:
        end = datetime.now(UTC) + timedelta(days=days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - timedelta(days=9))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(is_authority, None), True)
        )
        if names:
            san = x509.SubjectAlternativeName([_general(name) for name in names])
            builder = builder.add_extension(san, False)
        if raw_names:
            unread = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw_names)
            builder = builder.add_extension(unread, False)
        return builder.sign(key if self_signed else self.key, SHA256())

    def _pem(self, certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(Encoding.PEM)

    def _written(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def issue(
        self,
        name: str,
        *names: str,
        days: int = 2,
        self_signed: bool = False,
        passphrase: bytes | None = None,
        raw_names: bytes = b"",
    ) -> tuple[str, str]:
        """Issue a certificate; return its file, in which the authority's follows, and that of its key.

        ``raw_names``: DER of its alternative names, such as cannot be made otherwise.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        leaf = self._signed(
            subject, key, names, self_signed=self_signed, days=days, raw_names=raw_names
        )
        hidden = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
        chain = self._pem(leaf) + (b"" if self_signed else self._pem(self.certificate))
        return self._written(f"{name}.pem", chain), self._written(f"{name}.key", pem)
