"""Dovecot, with a tap between its login processes and its authentication server: the protocol tells all.

What is read there is Dovecot's own authentication protocol (``AUTH``, ``CONT``, ``OK``, ``FAIL``), which has
each attempt with its port, its mechanism, its user and how it was judged, whatever the client was told.
"""

from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from twisted.internet.endpoints import (
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from ..dovecot import Identities
from ..processes import eventually, free_port, program, stopped_at_the_end
from .oracle import Oracle, right_password, users
from .playing import LOST
from .servers import Fuzzed, started

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "APOP")

CONFIGURATION = Template("""
base_dir = $root/run
state_dir = $root/run
log_path = $root/log
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
login_greeting = ready
# Users are judged as they are named.
auth_username_format =
auth_username_chars =
auth_mechanisms = plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 apop
auth_failure_delay = 0
auth_cache_size = 0
mail_max_userip_connections = 10000
default_login_user = $login_user
default_internal_user = $internal_user
default_internal_group = $internal_group
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  user = $auth_user
}
service pop3-login {
  chroot =
  service_count = 0
  client_limit = 500
  process_min_avail = 0
  inet_listener pop3 {
    port = $port
  }
  inet_listener pop3s {
    port = 0
  }
}
service pop3 {
  process_limit = 200
  service_count = 500
}
passdb {
  driver = passwd-file
  args = username_format=%u $root/users
}
userdb {
  driver = static
  args = uid=$mail_uid gid=$mail_gid home=$root/mail/all
}
first_valid_uid = $mail_uid
first_valid_gid = $mail_gid
mail_location = maildir:$root/mail/all
""")


@dataclass(slots=True)
class _Asked:
    """An authentication under way: PLAIN and LOGIN show the password, the others a proof."""

    port: int
    mechanism: str
    sent: list[bytes] = field(default_factory=list)

    @property
    def password(self) -> str | None:
        """What was shown as the password."""
        if self.mechanism == "PLAIN" and self.sent:
            return self.sent[-1].rpartition(b"\0")[2].decode("utf-8", "surrogateescape")
        if self.mechanism == "LOGIN" and len(self.sent) > 1:
            return self.sent[-1].decode("utf-8", "surrogateescape")
        return None

    @property
    def is_judged(self) -> bool:
        """Whether it came to a password or a proof: SCRAM and LOGIN name the user a step before."""
        if self.mechanism == "LOGIN":
            return len(self.sent) > 1
        return not self.mechanism.startswith("SCRAM") or any(b",p=" in each for each in self.sent)


class _Side(Protocol):
    """One of the tap's ends: hands on what it gets, and shows whole lines to a reader."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._line = b""
        self.held: list[bytes] = []
        self.peer: _Side | None = None

    def dataReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        # Before they are handed on: what is judged is noted before its answer reaches anyone.
        for line in lines:
            self._read(line.decode("utf-8", "surrogateescape").split("\t"))
        if self.peer is None:
            self.held.append(data)
        else:
            transport: Any = self.peer.transport
            transport.write(data)

    def join(self, peer: "_Side") -> None:
        """Hand on to this peer from now on."""
        self.peer, peer.peer = peer, self
        transport: Any = peer.transport
        for data in self.held:
            transport.write(data)

    def connectionLost(self, reason: Failure = LOST) -> None:
        if self.peer is not None:
            transport: Any = self.peer.transport
            transport.loseConnection()


class _Listening:
    """Understands both directions of one connection, and tells the oracle."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._asked: dict[str, _Asked] = {}

    def asks(self, words: list[str]) -> None:
        """Read a line of a login process."""
        if words[0] == "AUTH":
            fields = dict(word.partition("=")[::2] for word in words[3:])
            asked = self._asked[words[1]] = _Asked(int(fields.get("rport", "0")), words[2])
            resp = next((word[5:] for word in words[3:] if word.startswith("resp=")), None)
            if resp is not None:
                asked.sent.append(_decoded(resp))
        elif words[0] == "CONT" and words[1] in self._asked:
            self._asked[words[1]].sent.append(_decoded(words[2] if len(words) > 2 else ""))
        elif words[0] == "CANCEL":
            self._asked.pop(words[1], None)

    def answers(self, words: list[str]) -> None:
        """Read a line of the authentication server."""
        if words[0] not in ("OK", "FAIL"):
            return
        asked = self._asked.pop(words[1], None)
        user = next((word[5:] for word in words[2:] if word.startswith("user=")), None)
        # Without a user the message could not be read, and nothing was judged.
        if asked is not None and user is not None and asked.is_judged:
            self._oracle.note(asked.port, _unescaped(user), asked.password, words[0] == "OK")


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text)
    except ValueError:
        return b""


def _unescaped(text: str) -> str:
    """Take off the protocol's escapes: byte 1 and a letter or digit stand for what cannot be written."""
    for digit, meant in (("t", "\t"), ("n", "\n"), ("r", "\r"), ("0", "\0"), ("1", "\1")):
        text = text.replace(f"\1{digit}", meant)
    return text


@asynccontextmanager
async def _tapped(reactor: Any, socket: Path, oracle: Oracle) -> AsyncIterator[None]:
    """Stand between the login processes and the authentication server, before the first of them runs."""
    real = socket.with_name("login-real")
    owner = socket.stat()
    socket.rename(real)

    def build(_: object) -> _Side:
        listening = _Listening(oracle)
        front = _Side(listening.asks)

        def joined(back: Any) -> None:
            front.join(back)
            back.join(front)

        back: Any = connectProtocol(
            UNIXClientEndpoint(reactor, str(real)), _Side(listening.answers)
        )
        back.addCallback(joined)
        return front

    factory: Any = Factory()
    factory.buildProtocol = build
    port: Any = await UNIXServerEndpoint(reactor, str(socket), mode=0o666).listen(factory)
    del owner
    try:
        yield
    finally:
        await port.stopListening()


def _furnish(root: Path, port: int) -> Path:
    root.chmod(0o755)
    identities = Identities.possible()
    lines = (f"{user}:{{PLAIN}}{right_password(user)}\n" for user in users())
    (root / "users").write_text("".join(lines))
    (root / "run").mkdir()
    (root / "mail").mkdir()
    (root / "mail").chmod(0o777)
    path = root / "dovecot.conf"
    path.write_text(
        CONFIGURATION.substitute(
            root=root,
            port=port,
            login_user=identities.login_user,
            internal_user=identities.internal_user,
            internal_group=identities.internal_group,
            auth_user=identities.auth_user,
            mail_uid=identities.mail_uid,
            mail_gid=identities.mail_gid,
        )
    )
    return path


@asynccontextmanager
async def running(reactor: Any, root: Path, oracle: Oracle) -> AsyncIterator[Fuzzed]:
    """Run Dovecot in a folder."""
    program("pop3-login")
    port = free_port()
    configuration = _furnish(root, port)
    process = started([program("dovecot"), "-F", "-c", str(configuration)], root)
    with stopped_at_the_end(process):
        socket = root / "run" / "login" / "login"
        eventually(
            lambda: socket.exists() or process.poll() is not None,
            "Dovecot's authentication server listens",
        )
        assert process.poll() is None, (root / "output").read_text()
        async with _tapped(reactor, socket, oracle):
            yield Fuzzed("Dovecot", port, MECHANISMS)
