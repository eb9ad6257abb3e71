"""Draws the unique ids of connections; knows nothing of them."""

import os

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = [low + high for high in _DIGITS for low in _DIGITS]
_PAIR = len(_PAIRS)
_BITS = 96

# 62 ** 17 is more than 2 ** 96: eight pairs and one digit, the lowest first. Four pairs fit a machine word.
_HALF = _PAIR**4


def new_uid() -> str:
    """Return ``C`` and 96 random bits in base 62: unique over restarts, processes and hosts.

    The system draws the bits at each call, so that processes which share a past do not share ids.
    """
    return uid_of(os.urandom(_BITS // 8))


def uid_of(octets: bytes) -> str:
    """Write 96 bits as a unique id."""
    rest, low = divmod(int.from_bytes(octets, "big"), _HALF)
    last, high = divmod(rest, _HALF)
    return f"C{_four_pairs(low)}{_four_pairs(high)}{_DIGITS[last]}"


def _four_pairs(number: int) -> str:
    number, first = divmod(number, _PAIR)
    number, second = divmod(number, _PAIR)
    fourth, third = divmod(number, _PAIR)
    return f"{_PAIRS[first]}{_PAIRS[second]}{_PAIRS[third]}{_PAIRS[fourth]}"
