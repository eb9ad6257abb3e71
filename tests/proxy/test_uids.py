"""The unique ids of connections."""

import os
import re

import pytest

from pop3proxy.proxy.uids import new_uid


def test_a_uid_is_c_and_base_62() -> None:
    assert all(re.fullmatch(r"C[0-9A-Za-z]{17}", new_uid()) for _ in range(1000))


def test_no_two_uids_are_equal() -> None:
    assert len({new_uid() for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("octet", [b"\x00", b"\xff"])
def test_no_bit_of_the_random_number_is_lost(monkeypatch: pytest.MonkeyPatch, octet: bytes) -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    monkeypatch.setattr(os, "urandom", lambda size: octet * size)
    number = 0
    for digit in reversed(new_uid()[1:]):
        number = number * 62 + digits.index(digit)
    assert number == int.from_bytes(octet * 12, "big")
