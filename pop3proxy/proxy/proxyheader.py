"""PROXY protocol headers, read and built; no socket, and no word on who may send one.

The specification is HAProxy's ``proxy-protocol.txt``; sections are named by its numbers.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from ..analyzer.events import Tls
from .proxyfields import NO_FIELDS, FieldError, Fields, built_fields, read_fields

SIGNATURE_V1: Final = b"PROXY "
SIGNATURE_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"

LONGEST_V1: Final = 107
"""Octets of a version 1 header at most, its CRLF among them (section 2.1)."""

LONGEST_V2: Final = 4096
"""Octets behind the fixed part of a version 2 header at most. It could say 64 KiB; addresses need 216, and
with TLS facts and a certificate's name senders come to a few hundred."""

_FIXED: Final = len(SIGNATURE_V2) + 4

_LOCAL, _PROXY = 0x0, 0x1
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
"""Octets of addresses by family and transport, streams only (section 2.2)."""

_HIGHEST_PORT: Final = 65535

Address = tuple[str, int]
"""Host, as text, and port."""


class HeaderError(ValueError):
    """Bytes that are no acceptable header; the text is a few words for a log.

    ``missing``: they are not even the beginning of one.
    """

    def __init__(self, text: str, missing: bool = False) -> None:
        super().__init__(text)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says. Without addresses the sender speaks for itself (LOCAL), or knows no client's.

    ``fields`` are those of a client, in version 2.
    """

    source: Address | None = None
    destination: Address | None = None
    fields: Fields = NO_FIELDS


def is_address(host: str) -> bool:
    """Return whether a host is named by an IP address, as clients of a UNIX socket are not.

    By the C library, since it is asked for each client.
    """
    try:
        if ":" in host:
            inet_pton(AF_INET6, host.partition("%")[0])
        else:
            inet_pton(AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def begins(data: bytes) -> bool | None:
    """Say whether bytes begin with a header's signature; None if they are only a part of one."""
    if data.startswith((SIGNATURE_V1, SIGNATURE_V2)):
        return True
    return None if _may_begin(data) else False


def _may_begin(data: bytes) -> bool:
    return SIGNATURE_V1.startswith(data) or SIGNATURE_V2.startswith(data)


class Reader:
    """Reads one header, however it is cut. It keeps no more than the longest header has."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._data = b""

    def feed(self, data: bytes) -> tuple[Header, bytes] | None:
        """Take bytes; return the header and the bytes behind it, or None while it is not complete.

        Raises HeaderError as soon as it can't become one. After either, the reader is of no more use.
        """
        self._data = data = self._data + data
        if data.startswith(SIGNATURE_V2):
            return self._version_2()
        if data.startswith(SIGNATURE_V1):
            return self._version_1()
        if not _may_begin(data):
            raise HeaderError("there is none", missing=True)
        return None

    def _version_1(self) -> tuple[Header, bytes] | None:
        line, end, rest = self._data[:LONGEST_V1].partition(b"\r\n")
        # A CR at the very end may be waiting for its LF.
        if b"\n" in line or b"\r" in (line if end else line[:-1]):
            raise HeaderError("its line does not end in CRLF")
        if end:
            return _read_line(line), rest + self._data[LONGEST_V1:]
        if len(line) >= LONGEST_V1:
            raise HeaderError(f"it is longer than {LONGEST_V1} octets")
        return None

    def _version_2(self) -> tuple[Header, bytes] | None:
        data = self._data
        if len(data) < _FIXED:
            return None
        version_and_command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE_V2))
        version, command = divmod(version_and_command, 16)
        if version != 2:
            raise HeaderError(f"it has the signature of version 2, but is of version {version}")
        if command not in (_LOCAL, _PROXY):
            raise HeaderError(f"it has the unknown command {command}")
        if length > LONGEST_V2:
            raise HeaderError(f"it says that it is longer than {LONGEST_V2} octets")
        if command == _PROXY:
            needed = _ADDRESSES.get(family)
            if needed is None:
                raise HeaderError(f"its family and transport, 0x{family:02x}, are no stream's")
            if length < needed:
                raise HeaderError("it is too short for its addresses")
        end = _FIXED + length
        if len(data) < end:
            return None
        return _read_header(command, family, data[:end]), data[end:]


def _read_line(line: bytes) -> Header:
    """Read a line of version 1, without its CRLF (section 2.1)."""
    if line.split(b" ")[1] == b"UNKNOWN":
        # Whatever stands behind that must be ignored.
        return Header()
    try:
        _, protocol, *rest = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise HeaderError("it is not ASCII") from None
    if protocol not in ("TCP4", "TCP6"):
        raise HeaderError("its protocol is none of TCP4, TCP6 and UNKNOWN")
    if len(rest) != 4:
        raise HeaderError("it has not two addresses and two ports")
    kind = IPv4Address if protocol == "TCP4" else IPv6Address
    hosts = [_host(kind, text) for text in rest[:2]]
    ports = [_port(text) for text in rest[2:]]
    return Header((hosts[0], ports[0]), (hosts[1], ports[1]))


def _host(kind: type[IPv4Address] | type[IPv6Address], text: str) -> str:
    try:
        if "%" in text:
            raise ValueError
        return _unmapped(kind(text))
    except ValueError:
        raise HeaderError("one of its addresses is none of its protocol") from None


def _port(text: str) -> int:
    if not text.isdigit() or str(int(text[:6])) != text or int(text) > _HIGHEST_PORT:
        raise HeaderError("one of its ports is none")
    return int(text)


def _read_header(command: int, family: int, data: bytes) -> Header:
    """Read a whole header of version 2, whose length has room for its addresses (section 2.2)."""
    behind = _FIXED + _ADDRESSES.get(family, len(data))
    try:
        fields = read_fields(data, behind)
    except FieldError as problem:
        raise HeaderError(str(problem)) from None
    if command != _PROXY:
        return Header()
    if family not in (_TCP4, _TCP6):
        return Header(fields=fields)
    layout, kind = ("!4s4sHH", IPv4Address) if family == _TCP4 else ("!16s16sHH", IPv6Address)
    source, destination, from_port, to_port = struct.unpack_from(layout, data, _FIXED)
    return Header(
        (_unmapped(kind(source)), from_port), (_unmapped(kind(destination)), to_port), fields
    )


def _unmapped(address: IPv4Address | IPv6Address) -> str:
    """Write an address; an IPv4 client is that, by whatever family it was named."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address if mapped is None else mapped)


# --- building -------------------------------------------------------------------------------------------


def version_1(source: Address, destination: Address) -> bytes:
    """Build a version 1 header; ``PROXY UNKNOWN`` where one of the two is no IP address."""
    pair = _one_family(source[0], destination[0])
    if pair is None:
        return SIGNATURE_V1 + b"UNKNOWN\r\n"
    protocol = "TCP4" if isinstance(pair[0], IPv4Address) else "TCP6"
    hosts = f"{_written(pair[0])} {_written(pair[1])}"
    return f"PROXY {protocol} {hosts} {source[1]} {destination[1]}\r\n".encode("ascii")


def version_2(
    source: Address, destination: Address, uid: str = "", tls: Tls | None = None
) -> bytes:
    """Build a version 2 header; without addresses (UNSPEC) where one of the two is no IP address.

    ``uid`` becomes its PP2_TYPE_UNIQUE_ID. ``tls`` is what is known of the client's TLS, so that a mail
    server knows that the client's side is secure though ours may not be.
    """
    family, block = _UNSPEC, b""
    pair = _one_family(source[0], destination[0])
    if pair is not None:
        family = _TCP4 if isinstance(pair[0], IPv4Address) else _TCP6
        ports = struct.pack("!HH", source[1], destination[1])
        block = pair[0].packed + pair[1].packed + ports
    block += built_fields(uid, tls)
    fixed = struct.pack("!BBH", 0x20 | _PROXY, family, len(block))
    return SIGNATURE_V2 + fixed + block


Pair = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]


def _one_family(source: str, destination: str) -> Pair | None:
    """Return both addresses as of one family, an IPv4 one mapped into IPv6 if the other needs that."""
    try:
        # Which link a link-local address is on means nothing to another host.
        first, second = (ip_address(host.partition("%")[0]) for host in (source, destination))
    except ValueError:
        return None
    if isinstance(first, IPv4Address) and isinstance(second, IPv4Address):
        return first, second
    return _mapped(first), _mapped(second)


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")


def _written(address: IPv4Address | IPv6Address) -> str:
    """Write an address; which form a mapped one has does not depend on the version of Python."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"
