"""Names a TLS client's program by its ClientHello: JA4, and no other fingerprint of that family.

Written from FoxIO's description of JA4 ("JA4: TLS Client Fingerprinting"; unlike JA4S, JA4X and others of its
family it is free to use, under BSD 3-Clause), and RFC 8446 section 4 for the message.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

LONGEST: Final = 16 * 1024
"""Octets of a ClientHello that are kept; of a longer one no fingerprint is made. Programs send some 2 KiB."""

_RECORD: Final = 5
"""Octets of a record's header (RFC 8446 section 5.1)."""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1

_SERVER_NAME, _SIGNATURE_ALGORITHMS, _ALPN, _SUPPORTED_VERSIONS = 0x0000, 0x000D, 0x0010, 0x002B

_VERSIONS: Final = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
}

_MOST_COUNTED: Final = 99

_NOTHING: Final = "0" * 12


class Hello:
    """Reads the first bytes of a client, as they come, up to the end of its ClientHello.

    ``wanted`` says whether there is more to read. ``ja4`` is empty until the message is complete, and for
    what is no ClientHello or too long.
    """

    __slots__ = ("_message", "_records", "ja4", "wanted")

    def __init__(self) -> None:
        self._records = b""  # what is not read yet: a part of one at the most
        self._message = b""
        self.ja4 = ""
        self.wanted = True

    def feed(self, data: bytes) -> None:
        """Take bytes that follow those before. Raises nothing, whatever they are."""
        if not self.wanted or not data:
            return
        self._records += data
        self._read_records()
        if len(self._records) > LONGEST + _RECORD:
            # No record is so long; what OpenSSL makes of it is the session's business.
            self._give_up()

    def _read_records(self) -> None:
        while self.wanted and len(self._records) >= _RECORD:
            size = int.from_bytes(self._records[3:_RECORD], "big")
            if self._records[0] != _HANDSHAKE or not size:
                self._give_up()
                return
            if len(self._records) < _RECORD + size:
                return
            self._message += self._records[_RECORD : _RECORD + size]
            self._records = self._records[_RECORD + size :]
            self._read_message()

    def _read_message(self) -> None:
        message = self._message
        if message[0] != _CLIENT_HELLO or len(message) > LONGEST:
            self._give_up()
        elif len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
            self.ja4 = fingerprint(message[4 : 4 + int.from_bytes(message[1:4], "big")])
            self._give_up()

    def _give_up(self) -> None:
        """Read no more, and keep nothing but the fingerprint."""
        self.wanted = False
        self._records = self._message = b""


def fingerprint(hello: bytes) -> str:
    """Return the JA4 of the body of a ClientHello that came over TCP; empty for what is none."""
    try:
        version, ciphers, extensions = _parts(hello)
        return _ja4(version, ciphers, extensions)
    except _Cut:
        return ""


def _ja4(version: int, ciphers: list[int], extensions: dict[int, bytes]) -> str:
    listed = list(_without_grease(extensions))
    hashed = [number for number in sorted(listed) if number not in (_SERVER_NAME, _ALPN)]
    signatures = _Reader(extensions.get(_SIGNATURE_ALGORITHMS, b"\0\0")).vector(2).numbers()
    algorithms = _hex(_without_grease(signatures))
    first = "".join(
        (
            "t",
            _VERSIONS.get(_version(version, extensions), "00"),
            "d" if _SERVER_NAME in extensions else "i",
            f"{min(len(ciphers), _MOST_COUNTED):02}",
            f"{min(len(listed), _MOST_COUNTED):02}",
            _next_protocol(extensions),
        )
    )
    third = _hex(hashed) + (f"_{algorithms}" if algorithms else "")
    return f"{first}_{_hashed(_hex(sorted(ciphers)))}_{_hashed(third if hashed else '')}"


def _version(version: int, extensions: dict[int, bytes]) -> int:
    """Return the highest version that the client speaks."""
    if _SUPPORTED_VERSIONS not in extensions:
        return version
    offered = _Reader(extensions[_SUPPORTED_VERSIONS]).vector(1).numbers()
    return max(_without_grease(offered), default=0)


def _next_protocol(extensions: dict[int, bytes]) -> str:
    """Return the ends of the first protocol of ALPN, or of how it is written in hexadecimal digits."""
    protocols = _Reader(extensions.get(_ALPN, b"\0\0")).vector(2)
    name = protocols.vector(1).rest() if protocols else b""
    if not name:
        return "00"
    ends = bytes((name[0], name[-1]))
    text = ends.decode("ascii") if ends.isalnum() and ends.isascii() else name.hex()
    return text[0] + text[-1]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else _NOTHING


def _hex(numbers: Iterable[int]) -> str:
    return ",".join(f"{number:04x}" for number in numbers)


def _without_grease(numbers: Iterable[int]) -> Iterator[int]:
    """Leave out the values of which a client sends some to see that servers ignore them (RFC 8701)."""
    return (n for n in numbers if n & 0x0F0F != 0x0A0A or n >> 8 != n & 0xFF)


# --- the message ----------------------------------------------------------------------------------------


class _Cut(Exception):
    """A message ends too early."""


class _Reader:
    """Takes fields off the front of a message."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Take so many octets. Raises _Cut."""
        end = self._at + size
        if end > len(self._data):
            raise _Cut
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        """Take a number of so many octets. Raises _Cut."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> "_Reader":
        """Take what follows its length, which has ``size`` octets. Raises _Cut."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data) - self._at)

    def numbers(self) -> Sequence[int]:
        """Take all that is left, as numbers of two octets. Raises _Cut."""
        found = []
        while self:
            found.append(self.number(2))
        return found


def _parts(hello: bytes) -> tuple[int, list[int], dict[int, bytes]]:
    """Return the version, the cipher suites without GREASE, and the extensions. Raises _Cut."""
    reader = _Reader(hello)
    version = reader.number(2)
    reader.take(32)
    reader.vector(1)
    ciphers = list(_without_grease(reader.vector(2).numbers()))
    reader.vector(1)
    extensions: dict[int, bytes] = {}
    if reader:
        block = reader.vector(2)
        while block:
            kind = block.number(2)
            extensions[kind] = block.vector(2).rest()
    return version, ciphers, extensions
