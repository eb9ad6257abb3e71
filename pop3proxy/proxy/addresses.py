"""Reads hosts and ports out of Twisted's addresses and endpoint strings; connects to nothing."""

import re
from ipaddress import IPv6Address as IPv6
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address


def host_and_port(address: Any) -> tuple[str, int]:
    """Return host and port of an address; a UNIX socket's path, and port 0, where there are none.

    An IPv4 client of an IPv6 socket is that IPv4 client: ``::ffff:192.0.2.1`` is ``192.0.2.1``.
    """
    if isinstance(address, IPv4Address):
        return address.host, address.port
    if isinstance(address, IPv6Address):
        return _unmapped(address.host), address.port
    name = getattr(address, "name", None)
    return (name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else ""), 0


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
    parts = [_ESCAPED.sub(r"\1", part) for part in _PART.findall(endpoint)[1:]]
    named = dict(part.partition("=")[::2] for part in parts if "=" in part)
    placed = [part for part in parts if "=" not in part]
    host = named.get("host") or (placed[0] if placed else "")
    port = named.get("port") or (placed[1] if len(placed) > 1 else "")
    return host, int(port) if port.isdigit() else 0
