"""Edits a server's reply to CAPA for what the proxy does about TLS: pure functions, and no dialogue."""

import re
from dataclasses import dataclass
from typing import Final

from ..analyzer.saslforms import sasl_form

_BLANKS: Final = b" \t\v\f\r"
_WORD: Final = re.compile(rb"([ \t\v\f\r]+)([^ \t\v\f\r]+)")


@dataclass(frozen=True, slots=True)
class Edits:
    r"""What is changed in a list of capabilities.

    ``stls``: STLS is shown (True), hidden (False) or left as it is (None). ``user``: USER is hidden.
    ``sasl``: all SASL mechanisms are hidden. ``bound``: those are that hang on the TLS of client and server
    being one (SCRAM-\*-PLUS, RFC 5802 section 6; EXTERNAL, RFC 4422 appendix A). ``unreadable``: those are
    that the guard would refuse.
    being one (SCRAM-\*-PLUS, RFC 5802 section 6; EXTERNAL, RFC 4422 appendix A). ``answers``: a client whose
    server refuses CAPA gets a list all the same.
    """

    stls: bool | None = None
    user: bool = False
    sasl: bool = False
    bound: bool = False
    unreadable: bool = False
    answers: bool = False

    def __bool__(self) -> bool:
        """Say whether there is anything to change."""
        return self != _NO_EDITS

    def hides(self, mechanism: bytes) -> bool:
        """Say whether a SASL mechanism is hidden."""
        name = mechanism.upper()
        return (
            self.sasl
            or (self.bound and (name == b"EXTERNAL" or _is_bound(name)))
            or (self.unreadable and sasl_form(name.decode("ascii", "replace")) is None)
        )


_NO_EDITS: Final = Edits()


def _is_bound(name: bytes) -> bool:
    return name.startswith(b"SCRAM-") and name.endswith(b"-PLUS")


def edited(reply: bytes, edits: Edits) -> bytes:
    """Return a whole +OK reply to CAPA (RFC 2449 section 5) as the client gets it.

    The status line, of which the beginning may be missing, and the closing dot stay as they are; so does
    every line that is not hidden, octet for octet, and of a SASL line what is not. STLS is added before the
    dot, with the dot's line end. What has no closing dot is no whole list, and nothing is added to it.
    """
    if not edits:
        return reply
    status, *lines = _lines(reply)
    closing = lines.pop() if lines and lines[-1] in (b".\r\n", b".\n") else b""
    shown = [status]
    has_stls = False
    for line in lines:
        keyword = b"".join(line.split(None, 1)[:1]).upper()
        has_stls |= keyword == b"STLS"
        shown.append(_shown(keyword, line, edits))
    if edits.stls and closing and not has_stls:
        shown.append(b"STLS" + closing[1:])
    return b"".join(shown) + closing


def edited_mechanisms(reply: bytes, edits: Edits) -> bytes:
    """Return a whole +OK reply to a bare AUTH, a list of one mechanism a line, as the client gets it."""
    if not edits:
        return reply
    status, *lines = _lines(reply)
    return status + b"".join(
        line for line in lines if line.rstrip(b"\r\n") == b"." or not edits.hides(line.strip())
    )


def listed(refusal: bytes, edits: Edits) -> bytes:
    """Return what the client gets whose server answers CAPA with -ERR: the refusal, or a list in its place.

    Clients look for STLS there and nowhere else (RFC 2595 section 4). TOP and UIDL are shown, though only the
    server knows, because clients try them at a server without CAPA, but not at one whose list lacks them:
    mutt 2.2 gives up. Inside TLS they ask again, and fetchmail 6.4 leaves if the list is not there any more.
    """
    if not edits.answers:
        return refusal
    user = () if edits.user else (b"USER",)
    stls = (b"STLS",) if edits.stls else ()
    end = b"\r\n" if refusal.endswith(b"\r\n") else b"\n"
    return end.join((b"+OK Capability list follows", b"TOP", b"UIDL", *user, *stls, b".", b""))


def _lines(reply: bytes) -> list[bytes]:
    """Cut at each LF and nowhere else; each line keeps its end."""
    *lines, last = reply.split(b"\n")
    whole = [line + b"\n" for line in lines]
    return [*whole, last] if last or not whole else whole


def _shown(keyword: bytes, line: bytes, edits: Edits) -> bytes:
    """Return what is shown of a line."""
    if (keyword == b"STLS" and edits.stls is False) or (keyword == b"USER" and edits.user):
        return b""
    return _sasl(line, edits) if keyword == b"SASL" else line


def _sasl(line: bytes, edits: Edits) -> bytes:
    """Take from a line the hidden mechanisms, with the blanks before each; all of it if none is left."""
    text = line.rstrip(b"\r\n")
    start = len(text) - len(text.lstrip(_BLANKS)) + len(b"SASL")
    words = _WORD.findall(text, start)
    shown = [blanks + word for blanks, word in words if not edits.hides(word)]
    if len(shown) == len(words) and not (edits.sasl and not words):
        return line
    if not shown:
        return b""
    trailing = text[len(text.rstrip(_BLANKS)) :]
    return text[:start] + b"".join(shown) + trailing + line[len(text) :]
