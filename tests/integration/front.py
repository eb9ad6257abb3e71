"""Proxies with TLS and the client's address before a Dovecot, and what one session through them comes to."""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .certificates import Certificates
from .configuration import as_toml
from .dovecot import Account, Dovecot
from .mail import DOTS
from .popclient import Attempt, PopClient, ServerGoneError
from .proxy import Proxy, configured_proxy
from .records import EventsFile, RecordedSession
from .tls_table import AT_ONCE, NO_LOGIN, NO_SESSION, NO_STLS, STLS

MAIL = DOTS
"""The one message of each mailbox."""
FETCHED = "fetched"
ANY_PORT = "tcp:0:interface=127.0.0.1"

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Front:
    """A running proxy, its listeners' ports by name, and its events."""

    proxy: Proxy
    ports: Mapping[str, int]
    events: EventsFile

    def sessions(self, start: int, count: int = 1) -> list[RecordedSession]:
        """Those that began behind an offset in the file of events, as soon as they are over."""
        return self.events.sessions(start, count)


@contextmanager
def running_front(
    folder: Path,
    events: EventsFile,
    listeners: Mapping[str, Settings],
    upstream: Settings,
    *,
    certificates: Sequence[tuple[Path, Path]] = (),
    tls: Settings | None = None,
    more: str = "",
) -> Iterator[Front]:
    """Run a proxy with listeners by name; ``more`` is what else its configuration says."""
    listen = [{"endpoint": ANY_PORT, **settings} for settings in listeners.values()]
    pairs = [{"chain": chain, "key": key} for chain, key in certificates]
    lines = [
        f"listen = {as_toml(listen)}",
        f"upstream = {as_toml(upstream)}",
        f"events = {as_toml({'path': events.path})}",
        f"tls = {as_toml({'certificates': pairs, **(tls or {})})}",
        more,
    ]
    with configured_proxy("\n".join(lines), folder) as proxy:
        ports = dict(zip(listeners, proxy.ports(len(listeners)), strict=True))
        yield Front(proxy, ports, events)


def upstream_of(dovecot: Dovecot, mode: str, certificates: Certificates) -> dict[str, Any]:
    """Settings of the way to a Dovecot in a TLS mode, its certificate verified."""
    port = dovecot.ports.pop3s if mode == "tls" else dovecot.ports.pop3
    plain = {"endpoint": f"tcp:127.0.0.1:{port}", "tls": mode}
    return plain if mode == "plain" else {**plain, "ca": certificates.authority}


def trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.authority))


def new_mailbox(dovecot: Dovecot) -> Account:
    """An account whose mailbox holds ``MAIL``."""
    account = dovecot.new_account()
    dovecot.deliver(account.user, [MAIL])
    return account


def fetch(client: PopClient, account: Account) -> str:
    """Log in, fetch the one message, leave and wait for the end."""
    if not client.log_in(Attempt(account.user, account.password, "PLAIN", True)):
        return NO_LOGIN
    lines = client.ask_for_lines("RETR 1")
    assert "".join(f"{line}\r\n" for line in lines).encode() == MAIL.sent
    assert client.ask("QUIT")
    client.read_to_the_end()
    return FETCHED


def session(
    port: int, way: str, account: Account, context: ssl.SSLContext, talks_first: bool
) -> str:
    """What one client comes to that begins in a way.

    ``talks_first``: a client that speaks clear text says something before it is greeted, since a server that
    waits for TLS says nothing.
    """
    first = b"CAPA\r\n" if talks_first and way != AT_ONCE else b""
    try:
        with PopClient(port, context if way == AT_ONCE else None, first=first) as client:
            if way == STLS:
                if not client.ask("STLS"):
                    return NO_STLS
                client.turn_tls(context)
            return fetch(client, account)
    except (ssl.SSLError, ServerGoneError, ConnectionResetError):
        return NO_SESSION
