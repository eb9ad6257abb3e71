"""A proxy behind the firewall of ``conf/pop3proxy.nft``: its bans keep a client out, and let it in again.

``python -m tests.integration.firewalled FOLDER`` is run by test_export.py in a network of its own, where no
port is taken and no other firewall is harmed. It ends with a traceback if anything is not so.
"""

import socket
import subprocess
import sys
from pathlib import Path

from pop3proxy.controlclient import ask

from ..proxy.live import CHECKOUT, running, until
from .processes import program
from .servers import serving
from .stub import StubServer

GUESSER, OTHER = "127.0.0.9", "127.0.0.8"
SOON = 0.5
"""Seconds within which a connection on one machine is made, if no firewall drops it."""

CONFIG = """
listen = [{{ endpoint = "tcp:110:interface=127.0.0.1", tls = "none" }}]
[policy]
control = "socket"
rules = [{{ name = "r", counts = "passwords", action = "ban", limits = [{{ count = 2, seconds = 600 }}] }}]
[policy.export]
nft_file = "{folder}/bans.nft"
command = ["{nft}", "-f", "{folder}/bans.nft"]
interval = 0.05
"""


def connected(address: str) -> socket.socket:
    """Connect to the proxy from an address. Raises TimeoutError if nothing comes back."""
    client = socket.socket()
    client.bind((address, 0))
    client.settimeout(SOON)
    try:
        client.connect(("127.0.0.1", 110))
    except TimeoutError:
        client.close()
        raise
    return client


def gets_through(address: str) -> bool:
    """Return whether the firewall lets an address connect; the proxy may still turn it away."""
    try:
        connected(address).close()
    except TimeoutError:
        return False
    return True


def guess(address: str) -> None:
    with connected(address) as client, client.makefile("rb") as lines:
        client.settimeout(None)
        lines.readline()
        for password in ("one", "two"):
            client.sendall(f"USER bob\r\nPASS {password}\r\n".encode())
            lines.readline()
            assert lines.readline().startswith(b"-ERR")


def play(folder: Path) -> None:
    """Have one address banned, and let in again."""
    nft = program("nft")
    subprocess.run([program("ip"), "link", "set", "lo", "up"], check=True)
    subprocess.run([nft, "-f", str(CHECKOUT / "conf" / "pop3proxy.nft")], check=True)
    (folder / "policy.toml").write_text(CONFIG.format(folder=folder, nft=nft))
    with serving(StubServer()) as server:
        options = ("--config", "policy.toml")
        with running(server.port, *options, listen=None, folder=folder) as proxy:
            assert gets_through(GUESSER)
            guess(GUESSER)
            until(lambda: not gets_through(GUESSER), "the guesser is kept out")
            assert gets_through(OTHER)
            ask(str(folder / "socket"), {"do": "remove", "what": GUESSER})
            until(lambda: gets_through(GUESSER), "the guesser is let in again")
            assert "not exported" not in proxy.stop()


if __name__ == "__main__":
    play(Path(sys.argv[1]))
