"""Courier's POP3 server, whose authentication daemon is this process."""

import hmac
import os
import socket
import struct
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from ..dovecot import Identities
from ..processes import eventually, free_port, program, stopped_at_the_end
from .oracle import Oracle, is_known, right_password
from .servers import Fuzzed, started
from .unpacked import cover, unpacked, without_sleep

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")
LIBRARY = "/usr/lib/courier/courier"
SOCKETS = "courier/authdaemon"
"""Where in /run its library looks for the daemon; no setting names another place."""


def asking_process(transport: Any) -> int:
    """Return the process at the other end of a UNIX socket."""
    found = transport.socket.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    process: int = struct.unpack("3i", found)[0]
    return process


def variable(process: int, name: str) -> str:
    """Return a variable of the environment with which a process began, or ``""``."""
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return ""
    found = (pair.partition(b"=") for pair in environment.split(b"\0"))
    return next((value.decode() for key, _, value in found if key == name.encode()), "")


class Authdaemon(Protocol):
    """Answers one question: ``AUTH n``, then n bytes: service, type, and what proves the user."""

    def __init__(self, oracle: Oracle, maildir: Path) -> None:
        self._oracle = oracle
        self._maildir = maildir
        self._held = b""

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        # A line says where the client is, and the next begins the question.
        _, found, rest = self._held.partition(b"AUTH ")
        size, end, body = rest.partition(b"\n")
        if not found or not end or len(body) < int(size):
            return
        transport: Any = self.transport
        port = int(variable(asking_process(transport), "TCPREMOTEPORT") or 0)
        transport.write(self._answer(port, body[: int(size)].split(b"\n")))
        transport.loseConnection()

    def _answer(self, port: int, words: list[bytes]) -> bytes:
        _, kind, first, second, *_ = (*words, b"", b"", b"", b"")
        if kind == b"login":
            user = _text(first)
            accepted = self._oracle.judge(port, user, _text(second))
        elif kind == b"cram-md5":
            accepted = self._judge_proof(port, first, second)
        else:
            return b"FAIL\n"
        return self._account() if accepted else b"FAIL\n"

    def _judge_proof(self, port: int, challenge: bytes, response: bytes) -> bool:
        try:
            name, blank, digest = b64decode(response).rpartition(b" ")
            stamp = b64decode(challenge)
        except ValueError:
            blank = b""
        if not blank:
            # There is no user in it, so that nothing can be judged.
            return False
        user = _text(name)
        right = hmac.new(right_password(user).encode("utf-8", "surrogateescape"), stamp, "md5")
        accepted = is_known(user) and digest == right.hexdigest().encode()
        self._oracle.note(port, user, None, accepted)
        return accepted

    def _account(self) -> bytes:
        identities = Identities.possible()
        home = str(self._maildir.parent).encode()
        return b"UID=%d\nGID=%d\nHOME=%b\nADDRESS=mail\nMAILDIR=%b\nNAME=x\nOPTIONS=\n.\n" % (
            identities.mail_uid,
            identities.mail_gid,
            home,
            bytes(self._maildir),
        )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@asynccontextmanager
async def running(reactor: Any, root: Path, oracle: Oracle) -> AsyncIterator[Fuzzed]:
    """Run Courier's server in a folder."""
    root.chmod(0o755)
    login = without_sleep(unpacked(f"{LIBRARY}/courierpop3login"), root)
    server = unpacked(f"{LIBRARY}/courierpop3d")
    identities = Identities.possible()
    maildir = root / "home" / "Maildir"
    for folder in ("cur", "new", "tmp"):
        (maildir / folder).mkdir(parents=True)
    for path in (maildir.parent, maildir, *maildir.iterdir()):
        os.chown(path, identities.mail_uid, identities.mail_gid)
    sockets = cover("/run") / SOCKETS
    sockets.mkdir(parents=True)
    factory: Any = Factory()
    factory.buildProtocol = lambda _: Authdaemon(oracle, maildir)
    daemon: Any = await UNIXServerEndpoint(reactor, str(sockets / "socket"), mode=0o666).listen(
        factory
    )
    port = free_port()
    command = [program("couriertcpd"), "-address=127.0.0.1", "-maxprocs=400", "-maxperip=400"]
    command += ["-nodnslookup", "-noidentlookup", str(port), str(login), str(server), "Maildir"]
    environment = {
        "PATH": os.environ["PATH"],
        "POP3AUTH": " ".join(MECHANISMS),
        "POP3_PROXY": "0",
        "POP3_STARTTLS": "NO",
        "POP3_TLS": "0",
        "POP3_TLS_REQUIRED": "0",
    }
    with stopped_at_the_end(started(command, root, environment)):
        eventually(lambda: listens(port), "Courier listens")
        yield Fuzzed("Courier", port, MECHANISMS, patience=0.5)
    await daemon.stopListening()


def listens(port: int) -> bool:
    """Return whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
