"""Cyrus's POP3 server, whose saslauthd is this process."""

import os
import pwd
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template
from typing import Any

from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from ..processes import eventually, free_port, stopped_at_the_end, unavailable
from .courier import asking_process, listens
from .oracle import Oracle
from .servers import Fuzzed, started
from .unpacked import unpacked

MECHANISMS = ("PLAIN", "LOGIN")
"""Those whose passwords saslauthd is asked about; the others Cyrus judges by a file of its own."""

MASTER = Path("/usr/lib/cyrus/bin/master")
MAKER = Path("/usr/lib/cyrus/bin/mbpath")

SETTINGS = Template("""
configdirectory: $root/config
proc_path: $root/proc
mboxname_lockpath: $root/lock
defaultpartition: default
partition-default: $root/spool
hashimapspool: no
allowplaintext: yes
allowanonymouslogin: no
popminpoll: 0
poptimeout: 10
maxlogins_per_host: 0
maxlogins_per_user: 0
failedloginpause: 0
autocreate_quota: 0
autocreate_post: yes
autocreate_users: anyone
altnamespace: no
unixhierarchysep: no
virtdomains: off
username_tolower: no
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: $root/mux/mux
sasl_mech_list: PLAIN LOGIN
sasl_auto_transition: no
cyrus_user: cyrus
duplicate_db_path: $root/config/deliver.db
""")

SERVICES = Template("""
START {
  recover cmd="/usr/lib/cyrus/bin/ctl_cyrusdb -r"
}
SERVICES {
  pop3 cmd="$pop3d -C $settings -U 500" listen="127.0.0.1:$port" prefork=4 maxchild=300
}
EVENTS {
}
DAEMON {
}
""")


def peer_port(process: int, server_port: int) -> int:
    """Return the port of the client that a process serves: that of its socket on the server's port."""
    inodes = set()
    for number in ("0", "1"):
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{process}/fd/{number}"))
        except OSError:
            return 0
        if found:
            inodes.add(found[1])
    local = f":{server_port:04X}"
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[1].endswith(local):
                return int(fields[2].rpartition(":")[2], 16)
    return 0


class Saslauthd(Protocol):
    """Answers one question: four strings, each with its length: user, password, service, realm."""

    def __init__(self, oracle: Oracle, server_port: int) -> None:
        self._oracle = oracle
        self._server_port = server_port
        self._held = b""

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        strings: list[str] = []
        at = 0
        while len(strings) < 4:
            size = int.from_bytes(self._held[at : at + 2], "big")
            end = at + 2 + size
            if len(self._held) < max(end, at + 2):
                return
            strings.append(self._held[at + 2 : end].decode("utf-8", "surrogateescape"))
            at = end
        transport: Any = self.transport
        user, password, _, realm = strings
        name = f"{user}@{realm}" if realm else user
        port = peer_port(asking_process(transport), self._server_port)
        answer = b"OK" if self._oracle.judge(port, name, password) else b"NO"
        transport.write(len(answer).to_bytes(2, "big") + answer)
        transport.loseConnection()


def _furnish(root: Path, port: int) -> tuple[Path, Path]:
    try:
        cyrus = pwd.getpwnam("cyrus")
    except KeyError:
        unavailable("Cyrus's user is not there: install cyrus-common")
    root.chmod(0o755)
    for folder in (
        "config",
        "config/db",
        "config/socket",
        "config/log",
        "config/proc",
        "config/msg",
    ):
        (root / folder).mkdir()
    for folder in ("proc", "lock", "spool", "mux"):
        (root / folder).mkdir()
    for folder in ("config/user", "config/quota", "config/sieve"):
        (root / folder).mkdir()
    settings, services = root / "imapd.conf", root / "cyrus.conf"
    settings.write_text(SETTINGS.substitute(root=root))
    pop3d = unpacked("/usr/lib/cyrus/bin/pop3d")
    services.write_text(SERVICES.substitute(pop3d=pop3d, settings=settings, port=port))
    for path in (root, *root.rglob("*")):
        os.chown(path, cyrus.pw_uid, cyrus.pw_gid)
    return settings, services


@asynccontextmanager
async def running(reactor: Any, root: Path, oracle: Oracle) -> AsyncIterator[Fuzzed]:
    """Run Cyrus's server in a folder."""
    if os.geteuid() != 0 or not MASTER.exists():
        unavailable("Cyrus's master needs root, and cyrus-common")
    port = free_port()
    settings, services = _furnish(root, port)
    factory: Any = Factory()
    factory.buildProtocol = lambda _: Saslauthd(oracle, port)
    daemon: Any = await UNIXServerEndpoint(reactor, str(root / "mux/mux"), mode=0o666).listen(
        factory
    )
    command = [
        str(MASTER),
        "-C",
        str(settings),
        "-M",
        str(services),
        "-p",
        str(root / "master.pid"),
    ]
    with stopped_at_the_end(started(command, root)):
        eventually(lambda: listens(port), "Cyrus listens")
        yield Fuzzed("Cyrus", port, MECHANISMS, patience=0.3, authzid=False, at_a_time=12)
    await daemon.stopListening()
