"""The type-length-value fields behind the addresses of a PROXY header of version 2, read and built.

The specification is HAProxy's ``proxy-protocol.txt``; sections are named by its numbers.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..analyzer.events import Tls
from .crc32c import crc32c

_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL = 0x01, 0x02, 0x03, 0x05, 0x20
_SSL_VERSION, _SSL_NAME, _SSL_CIPHER = 0x21, 0x22, 0x23
_OVER_TLS, _CERTIFICATE_HERE, _CERTIFICATE_IN_SESSION = 0x01, 0x02, 0x04
_VERIFIED, _NOT_VERIFIED = 0, 1

_READ: Final = frozenset({_ALPN, _AUTHORITY, _CRC32C, _SSL, _SSL_VERSION, _SSL_NAME, _SSL_CIPHER})
"""Kinds that are read. Two of one kind could be read in two ways, so that a header has one at most."""

_SSL_FIXED: Final = struct.Struct("!BI")
"""The beginning of PP2_TYPE_SSL: what is said of the client, and whether its certificate is verified."""

_KIND_AND_LENGTH: Final = struct.Struct("!BH")

LONGEST_ID: Final = 128
"""Bytes of PP2_TYPE_UNIQUE_ID at most (section 2.2.5)."""

LONGEST_TEXT: Final = 256
"""Characters of a field that are kept: TLS allows a server name of 255."""


class FieldError(ValueError):
    """Fields that are broken or do not fit the checksum; the text is a few words for a log."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What is read of a header's fields.

    ``tells_tls``: the sender says whether the client speaks TLS to it; ``tls`` is None if it does not.
    """

    tls: Tls | None = None
    tells_tls: bool = False


NO_FIELDS: Final = Fields()


def read_fields(header: bytes, start: int) -> Fields:
    """Read the fields from ``start`` to the end of a whole header, and compare its checksum if it has one.

    Raises FieldError.
    """
    found = _split(header, start)
    if _CRC32C in found:
        _compare_checksum(header, *found[_CRC32C])
    values = {kind: header[begin:end] for kind, (begin, end) in found.items()}
    if _SSL not in values:
        return NO_FIELDS
    return Fields(_tls(values), tells_tls=True)


def _split(data: bytes, start: int) -> dict[int, tuple[int, int]]:
    """Return where the values of the kinds that are read begin and end."""
    found: dict[int, tuple[int, int]] = {}
    for kind, begin, end in _each(data, start):
        if kind not in _READ:
            continue
        if kind in found:
            raise FieldError(f"it has two fields 0x{kind:02x}")
        found[kind] = begin, end
    return found


def _each(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    while start < len(data):
        if len(data) - start < _KIND_AND_LENGTH.size:
            raise FieldError("its last field is cut off")
        kind, length = _KIND_AND_LENGTH.unpack_from(data, start)
        begin = start + _KIND_AND_LENGTH.size
        start = begin + length
        if start > len(data):
            raise FieldError(f"its field 0x{kind:02x} is longer than the header")
        yield kind, begin, start


def _compare_checksum(header: bytes, begin: int, end: int) -> None:
    """Compute the checksum of the whole header with zeros in its place (section 2.2.3)."""
    if end - begin != 4:
        raise FieldError(f"its checksum has {end - begin} bytes and not 4")
    zeroed = header[:begin] + bytes(4) + header[end:]
    if crc32c(zeroed) != int.from_bytes(header[begin:end]):
        raise FieldError("its checksum (CRC32C) is wrong")


def _tls(values: Mapping[int, bytes]) -> Tls | None:
    """Read what the sender says of the client's TLS (section 2.2.6)."""
    value = values[_SSL]
    if len(value) < _SSL_FIXED.size:
        raise FieldError("its field 0x20 is cut off")
    flags, verify = _SSL_FIXED.unpack_from(value)
    inner = {
        kind: value[begin:end] for kind, (begin, end) in _split(value, _SSL_FIXED.size).items()
    }
    if not flags & _OVER_TLS:
        return None
    shown = flags & (_CERTIFICATE_HERE | _CERTIFICATE_IN_SESSION) and verify == _VERIFIED
    name = _text(inner.get(_SSL_NAME, b"")) if shown else ""
    return Tls(
        version=_text(inner.get(_SSL_VERSION, b"")),
        cipher=_text(inner.get(_SSL_CIPHER, b"")),
        server_name=_text(values.get(_AUTHORITY, b"")),
        next_protocol=_text(values.get(_ALPN, b"")),
        client=f"CN={_escaped(name)}" if name else "",
    )


def _text(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")[:LONGEST_TEXT]
    return "".join(char if char.isprintable() else "?" for char in text)


_SPECIAL: Final = str.maketrans({char: f"\\{char}" for char in '\\,+"<>;'})


def _escaped(name: str) -> str:
    """Write a name as the value of an attribute in a subject (RFC 4514 section 2.4)."""
    text = name.translate(_SPECIAL)
    if len(name) > 1 and name[-1] == " ":
        text = f"{text[:-1]}\\ "
    return f"\\{text}" if name[0] in "# " else text


# --- building -------------------------------------------------------------------------------------------


def built_fields(uid: str, tls: Tls | None) -> bytes:
    """Build the fields of a header: PP2_TYPE_UNIQUE_ID and what is known of the client's TLS."""
    fields = b"" if tls is None else _tls_fields(tls)
    return fields + _field(_UNIQUE_ID, uid.encode("utf-8")[:LONGEST_ID]) if uid else fields


def _tls_fields(tls: Tls) -> bytes:
    flags, verify = _OVER_TLS, _NOT_VERIFIED
    if tls.client:
        # A client whose certificate is not verified does not come this far.
        flags, verify = flags | _CERTIFICATE_HERE | _CERTIFICATE_IN_SESSION, _VERIFIED
    inner = _field(_SSL_VERSION, tls.version.encode()) + _field(_SSL_CIPHER, tls.cipher.encode())
    fields = _field(_SSL, _SSL_FIXED.pack(flags, verify) + inner)
    if tls.next_protocol:
        fields = _field(_ALPN, tls.next_protocol.encode()) + fields
    if tls.server_name:
        fields = _field(_AUTHORITY, tls.server_name.encode()) + fields
    return fields


def _field(kind: int, value: bytes) -> bytes:
    return _KIND_AND_LENGTH.pack(kind, len(value)) + value
