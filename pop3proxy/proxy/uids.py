"""Draws the unique ids of connections; knows nothing of them."""

import os

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BITS = 96
_LENGTH = 17  # 62 ** 17 is more than 2 ** 96


def new_uid() -> str:
    """Return ``C`` and 96 random bits in base 62: unique over restarts, processes and hosts.

    The system draws the bits at each call, so that processes which share a past do not share ids.
    """
    return uid_of(os.urandom(_BITS // 8))


def uid_of(octets: bytes) -> str:
    """Write 96 bits as a unique id."""
    number = int.from_bytes(octets, "big")
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "C" + "".join(digits)
