"""A Kerberos realm of the tests' own, for logins by GSSAPI."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import eventually, free_port, program, stopped_at_the_end

REALM = "EXAMPLE.ORG"
SERVICE = "pop/127.0.0.1"
PASSWORD = "everybody-has-the-same"
PORTS_TO_TRY = 5

CONFIGURATION = """\
[libdefaults]
  default_realm = {realm}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
[domain_realm]
  127.0.0.1 = {realm}
[realms]
  {realm} = {{
    kdc = 127.0.0.1:{port}
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
  }}
[kdcdefaults]
  kdc_listen = ""
  kdc_tcp_listen = 127.0.0.1:{port}
"""


@dataclass(frozen=True, slots=True)
class Realm:
    """A running realm."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "krb5.conf"

    @property
    def keytab(self) -> Path:
        return self.folder / "keytab"

    @property
    def environment(self) -> dict[str, str]:
        """What makes Kerberos programs use this realm and no other."""
        return {
            "KRB5_CONFIG": str(self.configuration),
            "KRB5_KDC_PROFILE": str(self.configuration),
            "KRB5CCNAME": f"FILE:{self.folder / 'tickets'}",
        }

    def log_in(self, user: str) -> None:
        """Make a user and get its ticket."""
        self.administer(f"addprinc -pw {PASSWORD} {user}")
        self.run("kinit", user, text=f"{PASSWORD}\n")

    def administer(self, query: str) -> None:
        self.run("kadmin.local", "-r", REALM, "-q", query)

    def run(self, name: str, *arguments: str, text: str = "") -> None:
        subprocess.run(
            [program(name), *arguments],
            env=self.environment,
            input=text.encode(),
            check=True,
            capture_output=True,
        )


def _configure(realm: Realm, port: int) -> None:
    text = CONFIGURATION.format(realm=REALM, folder=realm.folder, port=port)
    realm.configuration.write_text(text)


def _furnish(realm: Realm) -> None:
    realm.run("kdb5_util", "create", "-s", "-r", REALM, "-P", "the database's own")
    realm.administer(f"addprinc -randkey {SERVICE}")
    realm.administer(f"ktadd -k {realm.keytab} {SERVICE}")
    realm.keytab.chmod(0o644)


def _serves(process: subprocess.Popen[bytes], log: Path) -> bool:
    eventually(
        lambda: process.poll() is not None or b"starting..." in log.read_bytes(),
        "the key distribution centre starts or gives up",
    )
    return process.poll() is None


@contextmanager
def running_realm(folder: Path) -> Iterator[Realm]:
    """Start a realm on a port of its own, and stop it at the end."""
    command = program("krb5kdc")
    realm = Realm(folder)
    _configure(realm, port=0)
    _furnish(realm)
    log = folder / "kdc.log"
    for _ in range(PORTS_TO_TRY):
        _configure(realm, free_port())
        with log.open("wb") as output:
            process = subprocess.Popen(
                [command, "-n", "-r", REALM], env=realm.environment, stdout=output, stderr=output
            )
        with stopped_at_the_end(process):
            if _serves(process, log):
                yield realm
                return
    raise AssertionError(f"the key distribution centre does not start: {log.read_text()}")
