"""Gathers what ``pop3_session`` says about a session: its login, denials and deletions; raises nothing."""

import re
from typing import Final

from .grammar import COMMANDS
from .owed import Owed, OwedToDele

_DELE: Final = COMMANDS[b"DELE"]
_RSET: Final = COMMANDS[b"RSET"]
DELETING: Final = frozenset({_DELE, _RSET, COMMANDS[b"QUIT"]})
"""The commands whose answers decide what is deleted (RFC 1939 section 5 and 6)."""

# Servers take blanks, a sign and zeros before the number, and more behind it.
_NUMBER: Final = re.compile(rb"[\t-\r +]*0*([0-9]{1,18})")


def owed_to_dele(arg: bytes) -> OwedToDele:
    """Return the pending reply to a DELE; an argument that holds no number counts as message 0."""
    found = _NUMBER.match(arg)
    return OwedToDele(_DELE, int(found[1]) if found else 0)


class Summary:
    """What is known of one session's login, denials and deletions.

    ``user`` and ``mechanism`` are those of the login that succeeded, else those of the last attempt.
    ``denied`` counts what the proxy answered with -ERR in the server's place. ``deleted`` counts messages:
    DELE was answered +OK, no RSET undid it, and QUIT was answered +OK (RFC 1939 section 6).

    ``remembered`` is the highest message number of which is known whether it is marked: a number above it
    counts each time that the server accepts a DELE of it (which it should do once).
    """

    __slots__ = ("_above", "_marked", "_remembered", "deleted", "denied", "mechanism", "user")

    def __init__(self, remembered: int) -> None:
        self.user = ""
        self.mechanism = ""
        self.denied = 0
        self.deleted = 0
        self._remembered = remembered
        self._marked: bytearray | None = None  # one bit a message number
        self._above = 0

    @property
    def kept(self) -> int:
        """The number of bytes that are kept of what the client sent."""
        return len(self.user) + (len(self._marked) if self._marked else 0)

    def attempted(self, user: str, mechanism: str) -> None:
        """Note an attempt to log in, or its success: no attempt comes behind that."""
        self.user, self.mechanism = user, mechanism

    def answered(self, owed: Owed, ok: bool) -> None:
        """Note the server's answer to one of ``DELETING``."""
        if not ok:
            return
        if isinstance(owed, OwedToDele):
            self._mark(owed.number)
        elif owed.command is _RSET:
            self._forget_marks()
        elif self._marked is not None or self._above:
            self.deleted += self._count_marks()
            self._forget_marks()

    def _mark(self, number: int) -> None:
        if number > self._remembered:
            self._above += 1
            return
        if self._marked is None:
            self._marked = bytearray()
        at, bit = divmod(number, 8)
        missing = at + 1 - len(self._marked)
        if missing > 0:
            self._marked += bytes(missing)
        self._marked[at] |= 1 << bit

    def _count_marks(self) -> int:
        if self._marked is None:
            return self._above
        return int.from_bytes(self._marked).bit_count() + self._above

    def _forget_marks(self) -> None:
        self._marked = None
        self._above = 0
