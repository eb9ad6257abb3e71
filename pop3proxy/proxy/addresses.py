"""Reads hosts and ports out of Twisted's addresses and endpoint strings; connects to nothing."""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address as IPv6
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from .proxyheader import is_address


def host_and_port(address: Any) -> tuple[str, int]:
    """Return host and port of an address; a UNIX socket's path, and port 0, where there are none.

    An IPv4 client of an IPv6 socket is that IPv4 client: ``::ffff:192.0.2.1`` is ``192.0.2.1``. A path that
    reads like an IP address is not taken for one: a client of a UNIX socket chooses its path.
    """
    if isinstance(address, IPv4Address):
        return address.host, address.port
    if isinstance(address, IPv6Address):
        return _unmapped(address.host), address.port
    name = getattr(address, "name", None)
    path = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else ""
    return (f"./{path}" if is_address(path) else path), 0


def host_and_port_of(address: Any) -> tuple[str, int]:
    """Return host and port of a TCP socket's address, in the form that ``host_and_port`` gives them."""
    if len(address) == 4 and address[3]:
        # The socket module leaves out of which link a link-local address is.
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        return _unmapped(socket.getnameinfo(address, numeric)[0]), address[1]
    return _unmapped(address[0]), address[1]


def _unmapped(host: str) -> str:
    if not host.startswith("::ffff:"):
        return host
    mapped = IPv6(host.partition("%")[0]).ipv4_mapped
    return host if mapped is None else str(mapped)


_PART = re.compile(r"(?:\\.|[^:\\])+")
_ESCAPED = re.compile(r"\\(.)")


def destination(endpoint: str) -> tuple[str, int]:
    """Return host and port of a client endpoint string as it names them, before any look-up.

    ``endpoint`` is one that Twisted accepts: parts between colons, a colon inside a part escaped.
    """
    _, placed, named = _parts(endpoint)
    unnamed = iter(placed)
    host = named.get("host") or next(unnamed, "")
    port = named.get("port") or next(unnamed, "")
    return host, int(port) if port.isdigit() else 0


def kind_of(endpoint: str) -> str:
    """Return the kind of an endpoint string in lower case: ``tcp``, ``ssl``."""
    return _parts(endpoint)[0].lower()


def has_option(endpoint: str, name: str) -> bool:
    """Return whether an endpoint string sets an option by its name: ``backlog`` in ``tcp:110:backlog=50``."""
    return name in _parts(endpoint)[2]


def _parts(endpoint: str) -> tuple[str, list[str], dict[str, str]]:
    """Take an endpoint string apart: its kind, what is known by its place, and what by its name."""
    kind, *parts = [_ESCAPED.sub(r"\1", part) for part in _PART.findall(endpoint)]
    named = dict(part.partition("=")[::2] for part in parts if "=" in part)
    return kind, [part for part in parts if "=" not in part], named


TIMEOUT = 30
"""Seconds that a ``tcp:`` endpoint has to connect if its string names none: Twisted's own."""


_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect over TCP, with nothing left to look up."""

    family: int
    address: Any
    timeout: float = TIMEOUT
    bind: Any = None


def target(endpoint: str) -> Target | None:
    """Return where a ``tcp:`` endpoint string leads if it names IP addresses only, else nothing.

    ``endpoint`` is one that Twisted accepts.
    """
    kind, _, named = _parts(endpoint)
    if kind.lower() != "tcp" or not named.keys() <= {"host", "port", "timeout", "bindAddress"}:
        return None
    host, port = destination(endpoint)
    found = _numeric(host, port)
    if found is None:
        return None
    family, address = found
    bind = None
    if "bindAddress" in named:
        own = _numeric(named["bindAddress"], 0)
        if own is None or own[0] != family:
            return None
        bind = own[1]
    return Target(family, address, int(named.get("timeout", TIMEOUT)), bind)


def _numeric(host: str, port: int) -> tuple[int, Any] | None:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    if port > _HIGHEST_PORT:
        # The look-up would take it modulo 65536.
        return None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError:
        return None
    return found[0][0], found[0][4]
