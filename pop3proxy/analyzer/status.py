"""Reads a server's status line; knows nothing of what it answers."""

import re
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a status line says."""

    OK = "OK"
    ERR = "ERR"
    PLUS_ERR = "+ERR"  # hMailServer's, meant as -ERR
    CHALLENGE = "+"  # RFC 5034 section 4

    __hash__ = object.__hash__


class Status(NamedTuple):
    """A status line: what it says, and the text behind the indicator and one blank."""

    kind: Kind
    text: bytes
    ok: bool  # whether it is positive: asked several times a reply


# Looking a member up by its class costs more than comparing it, and this is done for each reply.
_OK = Kind.OK

_INDICATORS = {
    b"+OK": Kind.OK,
    b"-ERR": Kind.ERR,
    b"+ERR": Kind.PLUS_ERR,
    b"+": Kind.CHALLENGE,
}


_LOOSE = re.compile(rb"[ \t]*(\+OK|[-+]ERR|\+)(?:[ \t](.*))?\Z", re.I | re.S)


def may_become_status(head: bytes) -> bool:
    """Say whether a line that begins with ``head`` can be a status line in the RFC's spelling."""
    return any(head[:4].startswith(word[: len(head)]) for word in (b"+OK", b"-ERR"))


def parse_status(line: bytes) -> Status | None:
    """Return the status, or None if the line is none (RFC 1939 section 3).

    The indicator is taken in any case and behind leading blanks, since servers send both; a blank or the
    line's end has to follow it, so ``+OKAY`` is no status line. The text may be missing.
    """
    indicator, _, text = line.partition(b" ")
    kind = _INDICATORS.get(indicator)
    if kind is None:
        match = _LOOSE.match(line)
        if match is None:
            return None
        kind, text = _INDICATORS[match[1].upper()], match[2] or b""
    return Status(kind, text, kind is _OK)
