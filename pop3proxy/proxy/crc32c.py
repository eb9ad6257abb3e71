"""Computes CRC32C, the checksum that a PROXY header of version 2 may carry."""

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's polynomial, its bits reversed (RFC 3720 section 12.1)."""

_ALL_ONES: Final = 0xFFFFFFFF


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(map(_entry, range(256)))
"""What each value of a byte adds to the checksum."""


def crc32c(data: bytes) -> int:
    """Return the CRC32C of bytes (RFC 3720 appendix B.4), as an integer of 32 bits."""
    table, value = _TABLE, _ALL_ONES
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ _ALL_ONES
