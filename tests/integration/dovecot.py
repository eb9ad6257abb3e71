"""A Dovecot of the tests' own: its configuration, accounts, mailboxes and log."""

import grp
import itertools
import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

from .certificates import Certificates
from .kerberos import Realm
from .mail import Mail
from .processes import eventually, free_port, program, stopped_at_the_end, unavailable

HERE = Path(__file__).parent
TEMPLATE = HERE / "dovecot.conf.template"
NTLM_HELPER = HERE / "ntlm_helper.py"
GSSAPI_MODULES = [
    Path(folder, "dovecot/modules/auth/libmech_gssapi.so") for folder in ("/usr/lib", "/usr/lib64")
]
PORTS_TO_TRY = 5
USERS = 5_000
PASSWORD = "correct horse"


@dataclass(frozen=True, slots=True)
class Account:
    """A user and what proves it: a password, or the token that the introspection service knows."""

    user: str
    password: str

    @property
    def token(self) -> str:
        return f"token-of-{self.user}"


@dataclass(frozen=True, slots=True)
class JudgedLogin:
    """What Dovecot's log says of one finished authentication."""

    user: str
    port: int
    mechanism: str
    success: bool
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens; 0 is nowhere. Behind proxies each connection begins with a PROXY header."""

    pop3: int
    pop3s: int
    pop3_behind_proxies: int
    pop3s_behind_proxies: int

    @classmethod
    def free(cls, tls: bool) -> "Ports":
        return cls(
            free_port(),
            free_port() if tls else 0,
            free_port(),
            free_port() if tls else 0,
        )


def _user(number: int) -> str:
    return f"user{number}"


@dataclass(frozen=True, slots=True)
class Identities:
    """Who the parts of Dovecot run as."""

    login_user: str
    internal_user: str
    internal_group: str
    auth_user: str
    mail_uid: int
    mail_gid: int

    @classmethod
    def possible(cls) -> "Identities":
        """Debian's users for them, or for want of rights the caller."""
        if os.geteuid() == 0:
            mail = pwd.getpwnam("mail")
            return cls("dovenull", "dovecot", "dovecot", "root", mail.pw_uid, mail.pw_gid)
        user = pwd.getpwuid(os.geteuid()).pw_name
        group = grp.getgrgid(os.getegid()).gr_name
        return cls(user, user, group, user, os.geteuid(), os.getegid())


class Dovecot:
    """A running server."""

    def __init__(self, root: Path, ports: Ports) -> None:
        self.ports = ports
        self._root = root
        self._numbers = itertools.count(1)

    @property
    def port(self) -> int:
        """That of plain POP3, which is where STLS is."""
        return self.ports.pop3

    @property
    def title(self) -> str:
        """Its name and version."""
        version = subprocess.check_output([program("dovecot"), "--version"], text=True).split()[0]
        return f"Dovecot {version}"

    def new_account(self) -> Account:
        """A user whom no other test has."""
        return Account(_user(next(self._numbers)), PASSWORD)

    def deliver(self, user: str, mails: Sequence[Mail]) -> None:
        """Put messages into a user's mailbox, in this order."""
        maildir = self._root / "mail" / user
        for folder in ("cur", "new", "tmp"):
            (maildir / folder).mkdir(parents=True)
        for number, mail in enumerate(mails, 1_000_000_000):
            (maildir / "new" / f"{number}.{mail.name}.example").write_bytes(mail.stored)
        identities = Identities.possible()
        for path in (maildir, *maildir.rglob("*")):
            os.chown(path, identities.mail_uid, identities.mail_gid)

    def judged_logins(self) -> list[JudgedLogin]:
        """Every authentication that ended with a verdict, in the log's order."""
        marker = "stats: Info: "
        lines = (self._root / "dovecot.log").read_text(errors="replace").splitlines()
        return [
            _judged(json.loads(line.partition(marker)[2])["fields"])
            for line in lines
            if marker in line
        ]


def _judged(fields: dict[str, object]) -> JudgedLogin:
    return JudgedLogin(
        user=str(fields.get("original_user", "")),
        port=int(str(fields["remote_port"])),
        mechanism=str(fields["mechanism"]),
        success=fields.get("success") == "yes",
        address=str(fields["remote_ip"]),
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """What tells one server of the tests from another."""

    mechanisms: str
    introspection_port: int = 0
    certificates: Certificates | None = None
    realm: Realm | None = None
    named: Sequence[Account] = ()
    """Accounts of these very names, with any byte in name and password but NUL, LF and colon."""


def _tls_settings(certificates: Certificates | None) -> str:
    if certificates is None:
        return "ssl = no"
    return "\n".join(
        (
            "ssl = yes",
            f"ssl_cert = <{certificates.server}",
            f"ssl_key = <{certificates.server_key}",
            f"ssl_ca = <{certificates.authority}",
            "ssl_require_crl = no",
            "ssl_verify_client_cert = yes",
            "auth_ssl_username_from_cert = yes",
        )
    )


def _write_ntlm_helper(root: Path) -> None:
    """Dovecot passes arguments of its own, so that ours need a script around the helper."""
    helper = root / "ntlm-helper"
    helper.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{NTLM_HELPER}' '{root / 'users'}'\n")
    helper.chmod(0o755)


def _write_oauth2_settings(root: Path, introspection_port: int) -> None:
    (root / "oauth2.conf").write_text(
        "introspection_mode = get\n"
        f"introspection_url = http://127.0.0.1:{introspection_port}/?token=\n"
        "username_attribute = username\n"
        "username_format = %u\n"
        "active_attribute = active\n"
        "active_value = true\n"
    )


def _entry(account: Account) -> bytes:
    # Dovecot looks for names with their backslashes doubled.
    user = account.user.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    password = b64encode(account.password.encode("utf-8", "surrogateescape"))
    return user + b":{PLAIN.b64}" + password + b"::::::\n"


def _furnish(root: Path, setting: Setting) -> None:
    # Dovecot's unprivileged processes must get through.
    root.chmod(0o755)
    # All of them at once: Dovecot may take a second to see that the file has changed.
    users = (f"{_user(number)}:{{PLAIN}}{PASSWORD}::::::\n" for number in range(1, USERS + 1))
    named = (_entry(account) for account in setting.named)
    (root / "users").write_bytes("".join(users).encode() + b"".join(named))
    (root / "run").mkdir()
    (root / "mail").mkdir()
    (root / "mail").chmod(0o777)
    _write_ntlm_helper(root)
    _write_oauth2_settings(root, setting.introspection_port)


def _write_configuration(root: Path, ports: Ports, setting: Setting) -> Path:
    path = root / "dovecot.conf"
    path.write_text(
        Template(TEMPLATE.read_text()).substitute(
            {**asdict(Identities.possible()), **asdict(ports)},
            root=root,
            mechanisms=setting.mechanisms,
            tls=_tls_settings(setting.certificates),
            krb5_config=setting.realm.configuration if setting.realm else "",
            krb5_keytab=setting.realm.keytab if setting.realm else "",
        )
    )
    return path


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            return client.recv(3) == b"+OK"
    except OSError:
        return False


def _serves(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it does; False if it gave up, as it must when the port was taken meanwhile."""
    eventually(lambda: process.poll() is not None or _greets(port), "Dovecot greets or gives up")
    return process.poll() is None


@contextmanager
def running_dovecot(setting: Setting) -> Iterator[Dovecot]:
    """Start a server on a port of its own, and stop it at the end."""
    command = program("dovecot")
    program("pop3-login")
    if setting.realm is not None and not any(map(Path.exists, GSSAPI_MODULES)):
        unavailable("Dovecot's module for GSSAPI is not installed")
    with tempfile.TemporaryDirectory(prefix="pop3-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        _furnish(root, setting)
        for _ in range(PORTS_TO_TRY):
            ports = Ports.free(tls=setting.certificates is not None)
            configuration = _write_configuration(root, ports, setting)
            with (root / "output").open("wb") as output:
                process = subprocess.Popen(
                    [command, "-F", "-c", configuration], stdout=output, stderr=output
                )
            with stopped_at_the_end(process):
                if _serves(process, ports.pop3):
                    yield Dovecot(root, ports)
                    return
        raise AssertionError(f"Dovecot does not start: {(root / 'output').read_text()}")
