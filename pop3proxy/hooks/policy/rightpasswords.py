"""Remembers which passwords were right lately, by keys that tell nothing; these go to no store or file."""

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 3600.0
"""Seconds for which a password is taken to be still right; a failure with it ends that."""

MOST: Final = 10_000
"""Passwords that are remembered; the one that was right longest ago goes first."""


class RightPasswords:
    """Passwords with which clients have logged in, by client, account and keyed hash.

    Logins with one of these need not wait for each other: they guess nothing.
    """

    def __init__(self) -> None:
        self._at: OrderedDict[str, float] = OrderedDict()

    def was_right(self, key: str, now: float) -> None:
        """Remember a password."""
        self._at[key] = now
        self._at.move_to_end(key)
        if len(self._at) > MOST:
            self._at.popitem(last=False)

    def was_wrong(self, key: str) -> None:
        """Forget a password: it was changed, or the account was locked."""
        self._at.pop(key, None)

    def has(self, key: str, now: float) -> bool:
        """Return whether a password was right lately."""
        at = self._at.get(key)
        return at is not None and 0 <= now - at < REMEMBERED
