"""Servers that PAM judges for, one process a connection: mailutils-pop3d, popa3d and solid-pop3d.

They are asked by a file of PAM's own and find users in /etc/passwd; both are laid over the machine's for the
fuzzer alone. ``pam_exec`` runs a script of Perl, which every Debian has, and that asks this process.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from ..dovecot import Identities
from ..processes import eventually, free_port, program, stopped_at_the_end
from .courier import listens
from .oracle import Oracle, users
from .servers import Fuzzed, started
from .unpacked import cover, cover_file, unpacked, without_sleep

ASK = r"""#!/usr/bin/perl
# Asks the fuzzer about a password: the client's port, the user and the password, each with its length.
use strict; use Socket;
local $/; my $password = <STDIN>; $password =~ s/\0.*//s;
open(my $file, '<', "/proc/" . getppid() . "/environ") or exit 1;
my ($port) = <$file> =~ /\bTCPREMOTEPORT=(\d+)/;
my $asked;
socket($asked, PF_UNIX, SOCK_STREAM, 0) && connect($asked, sockaddr_un('@socket@')) or exit 1;
syswrite($asked, pack('(n/a*)3', $port // 0, $ENV{PAM_USER} // '', $password));
sysread($asked, my $answer, 1);
exit($answer eq '+' ? 0 : 1);
"""

PAM = """auth requisite pam_exec.so expose_authtok quiet {ask}
auth required pam_permit.so
account required pam_permit.so
session required pam_permit.so
password required pam_deny.so
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One such server: its program with its arguments, its name for PAM, and what it can."""

    title: str
    binary: str
    service: str
    arguments: Sequence[str] = ()
    mechanisms: tuple[str, ...] = ()
    patience: float = 0.0


MAILUTILS = Kind("mailutils-pop3d", "/usr/sbin/pop3d", "other", ("--inetd",))
POPA3D = Kind("popa3d", "/usr/sbin/popa3d", "popa3d")
SOLID = Kind("solid-pop3d", "/usr/sbin/solid-pop3d", "solid-pop3d", patience=0.3)


class _Asked(Protocol):
    """Answers one question of the script."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._held = b""

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        strings: list[str] = []
        at = 0
        while len(strings) < 3:
            end = at + 2 + int.from_bytes(self._held[at : at + 2], "big")
            if len(self._held) < max(end, at + 2):
                return
            strings.append(self._held[at + 2 : end].decode("utf-8", "surrogateescape"))
            at = end
        port, user, password = strings
        transport: Any = self.transport
        transport.write(b"+" if self._oracle.judge(int(port), user, password) else b"-")
        transport.loseConnection()


def _furnish(kind: Kind, root: Path) -> None:
    """Lay users, PAM's file and an empty spool over those of the machine."""
    ask = root / "ask"
    ask.write_text(ASK.replace("@socket@", str(root / "socket")))
    ask.chmod(0o755)
    identities = Identities.possible()
    ids = f"{identities.mail_uid}:{identities.mail_gid}"
    known = Path("/etc/passwd").read_text()
    added = [f"{user}:x:{ids}::{root}/home:/bin/sh\n" for user in users()]
    if "popa3d:" not in known:
        added.append(f"popa3d:x:{ids}::/nonexistent:/bin/false\n")
    cover_file("/etc/passwd", known + "".join(added), root)
    cover("/etc/pam.d")
    service = Path("/etc/pam.d", kind.service)
    service.write_text(PAM.format(ask=ask))
    spool = cover("/var/mail")
    spool.chmod(0o1777)
    for user in users():
        mailbox = spool / user
        mailbox.touch(0o600)
        os.chown(mailbox, identities.mail_uid, identities.mail_gid)
    if kind is POPA3D:
        # Where it locks itself in while it knows no user.
        cover("/var/lib").joinpath("popa3d").mkdir(mode=0o755)
    (root / "home").mkdir()
    os.chown(root / "home", identities.mail_uid, identities.mail_gid)


def runs(
    kind: Kind,
) -> Callable[[Any, Path, Oracle], AbstractAsyncContextManager[Fuzzed]]:
    """Return what runs a server of a kind."""

    @asynccontextmanager
    async def running(reactor: Any, root: Path, oracle: Oracle) -> AsyncIterator[Fuzzed]:
        root.chmod(0o755)
        _furnish(kind, root)
        binary = without_sleep(unpacked(kind.binary), root)
        factory: Any = Factory()
        factory.buildProtocol = lambda _: _Asked(oracle)
        endpoint = UNIXServerEndpoint(reactor, str(root / "socket"), mode=0o666)
        asked: Any = await endpoint.listen(factory)
        port = free_port()
        command = [program("couriertcpd"), "-address=127.0.0.1", "-maxprocs=400", "-maxperip=400"]
        command += ["-nodnslookup", "-noidentlookup", str(port), str(binary), *kind.arguments]
        with stopped_at_the_end(started(command, root)):
            eventually(lambda: listens(port), f"{kind.title} listens")
            yield Fuzzed(kind.title, port, kind.mechanisms, patience=kind.patience, at_a_time=24)
        await asked.stopListening()

    return running
