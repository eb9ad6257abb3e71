"""Reads which hosts and addresses a certificate is for, whatever else stands in it.

A parser of whole certificates gives up at the first name that breaks a rule, such as ``DNS:192.0.2.1`` or an
empty one, and with it the right one is lost. Here each name is read alone, and one that fits is enough.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

_SEQUENCE, _OCTET_STRING, _OBJECT = 0x30, 0x04, 0x06
_EXTENSIONS: Final = 0xA3
"""The tag of a certificate's extensions (RFC 5280 section 4.1)."""

_ALTERNATIVE_NAMES: Final = b"\x55\x1d\x11"
"""The object identifier 2.5.29.17 (RFC 5280 section 4.2.1.6)."""

_DNS, _ADDRESS = 0x82, 0x87
"""The tags of the two kinds of names that are for hosts."""

_FEWEST_LABELS: Final = 3
"""Labels of a name with an asterisk at least: no certificate is for a whole top-level domain."""

Element = tuple[int, bytes]
"""Tag and value."""


class AlternativeNames:
    """The host names and IP addresses among a certificate's alternative names (subjectAltName).

    ``hosts`` are in ASCII, as they stand there; ``addresses`` are as text.
    """

    def __init__(self, certificate: bytes) -> None:
        """Read a certificate in DER, which OpenSSL has taken for one."""
        self.hosts: list[str] = []
        self.addresses: list[str] = []
        self.present = False
        for extension in _extensions(certificate):
            self.present = True
            for tag, value in _names(extension):
                self._add(tag, value)

    def _add(self, tag: int, value: bytes) -> None:
        if tag == _DNS and value.strip() and value.isascii():
            self.hosts.append(value.strip().decode("ascii"))
        elif tag == _ADDRESS and len(value) in (4, 16):
            self.addresses.append(str(ip_address(value)))

    def cover(self, host: str) -> bool:
        """Return whether one of the names is that of a host, or the IP address that it is (RFC 9525)."""
        try:
            return str(ip_address(host)) in self.addresses
        except ValueError:
            wanted = host.lower().rstrip(".")
            return any(_fits(name.lower(), wanted) for name in self.hosts)


def _fits(name: str, host: str) -> bool:
    """Compare a name with a host's; an asterisk stands for the whole first label (RFC 9525 section 6.3)."""
    if name == host:
        return bool(host)
    first, _, parent = name.partition(".")
    label, _, rest = host.partition(".")
    return (
        first == "*"
        and len(name.split(".")) >= _FEWEST_LABELS
        and bool(label)
        and bool(rest)
        and parent == rest
    )


def _extensions(certificate: bytes) -> Iterator[bytes]:
    """Yield the values of all extensions that hold alternative names."""
    for part in _inside(_inside_of(certificate, _SEQUENCE), _SEQUENCE):
        for tag, value in _elements(part):
            if tag == _EXTENSIONS:
                for extension in _inside(_inside_of(value, _SEQUENCE), _SEQUENCE):
                    yield from _named(extension)


def _named(extension: bytes) -> Iterator[bytes]:
    """Yield an extension's value if it holds alternative names."""
    (tag, name), *rest = _elements(extension) or [(0, b"")]
    if tag == _OBJECT and name == _ALTERNATIVE_NAMES:
        yield from (value for tag, value in rest if tag == _OCTET_STRING)


def _names(extension: bytes) -> list[Element]:
    return _elements(_inside_of(extension, _SEQUENCE))


def _inside(data: bytes, tag: int) -> list[bytes]:
    return [value for found, value in _elements(data) if found == tag]


def _inside_of(data: bytes, tag: int) -> bytes:
    """Return the value of the one element that data is; nothing if it is another."""
    found = _elements(data)
    return found[0][1] if len(found) == 1 and found[0][0] == tag else b""


def _elements(data: bytes) -> list[Element]:
    """Take DER apart into its elements, one level deep, as far as it can be read (X.690 section 8.1)."""
    found: list[Element] = []
    start = 0
    while start + 2 <= len(data):
        tag, length = data[start], data[start + 1]
        start += 2
        if length >= 0x80:
            size = length - 0x80
            length = int.from_bytes(data[start : start + size])
            start += size
        end = start + length
        if end > len(data):
            break
        found.append((tag, data[start:end]))
        start = end
    return found
