"""Certificates that a test run makes for itself: an authority, a server, and clients named after users."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .processes import program


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the files are."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    @property
    def server(self) -> Path:
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.folder / "server.key"

    def client(self, user: str) -> tuple[Path, Path]:
        """The certificate and the key of a user."""
        return self._sign(user, user, "extendedKeyUsage=clientAuth")

    def server_for(self, name: str, *names: str) -> tuple[Path, Path]:
        """The certificate and the key of a server with these names, such as ``DNS:mail.example``.

        Fetchmail wants an address to be the common name, and no host name beside it.
        """
        return self._sign(name, names[0].partition(":")[2], f"subjectAltName={','.join(names)}")

    def _sign(self, name: str, subject: str, *extensions: str) -> tuple[Path, Path]:
        issuer = ["-CA", str(self.authority), "-CAkey", str(self.folder / "authority.key")]
        return _issue(self.folder, name, subject, *issuer, *_options("-addext", extensions))

    @staticmethod
    def self_signed_in(folder: Path) -> tuple[Path, Path]:
        """The certificate and the key of a server that vouches for itself."""
        return _issue(folder, "self-signed", "127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")

    @classmethod
    def made_in(cls, folder: Path) -> "Certificates":
        made = cls(folder)
        _issue(folder, "authority", "Authority of the tests")
        made._sign("server", "127.0.0.1", "subjectAltName=IP:127.0.0.1")
        return made


def _options(name: str, values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in (name, value)]


def _issue(folder: Path, name: str, subject: str, *options: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    kind = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    content = ("-nodes", "-days", "2", "-subj", f"/CN={subject}")
    files = ("-out", certificate, "-keyout", key)
    subprocess.run(
        [program("openssl"), *kind, *content, *files, *options], check=True, capture_output=True
    )
    return certificate, key
