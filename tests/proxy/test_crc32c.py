"""CRC32C against known values, and against another way to compute it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.proxy.crc32c import crc32c

KNOWN = {
    # RFC 3720 appendix B.4
    "zeros": (bytes(32), 0x8A9136AA),
    "ones": (b"\xff" * 32, 0x62A8AB43),
    "upwards": (bytes(range(32)), 0x46DD794E),
    "downwards": (bytes(reversed(range(32))), 0x113FDB5C),
    "an iSCSI command": (
        bytes.fromhex(
            "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
        )
        + bytes.fromhex("0200000000000000"),
        0xD9963A56,
    ),
    # The check value of the catalogue of CRCs
    "digits": (b"123456789", 0xE3069283),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_values(name: str) -> None:
    data, expected = KNOWN[name]
    assert crc32c(data) == expected


def by_division(data: bytes) -> int:
    """The remainder of a division bit by bit, as the definition has it."""
    value = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            odd = (value ^ byte >> bit) & 1
            value = value >> 1 ^ (0x82F63B78 if odd else 0)
    return value ^ 0xFFFFFFFF


@given(st.binary(max_size=64))
def test_the_table_gives_what_the_division_gives(data: bytes) -> None:
    assert crc32c(data) == by_division(data)
