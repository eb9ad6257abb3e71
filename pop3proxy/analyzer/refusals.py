"""What a server's refusal of a login means: from its response code and its words to a reason; no state.

The words are looked up in a table: rows of the configuration first, then those of ``refusaltable``.

A client chooses its user and its password, and a server may repeat them in its refusal. So that no choice
of them makes another reason of ``credentials``, three rules hold; ``docs/refusals.md`` says what they give:

- What could be an echo of the user or the password is replaced by ``MASK``, a byte that no row matches. A row
  then matches only bytes that are the server's own, and that stand together.
- A row of ``credentials`` ends the lookup and is searched for in the text as it is, so that a mask cannot
  hide it.
- Which rows are asked depends on the response code alone.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from .events import Reason
from .refusalrow import WORDED, Refusal
from .refusaltable import BUILT_IN
from .text import decode

MASK: Final = b"\0"
"""Stands for a byte of the attempt's user or password. No row can hold it: it is a control character."""

TEXT_READ: Final = 512
"""Bytes of a refusal whose words are looked up: RFC 2449 section 4 allows a reply no more."""

TEXT_MASKED: Final = 4096
"""Bytes of a refusal that are searched for echoes and for rows of ``credentials``; the words of a longer one
are not looked up. It is below ``Limits.status_line``, so that what is read is never cut off."""

WHOLE_WORD: Final = 3
"""An echo this long is masked also if it is a part of a word. A shorter one is then no echo: most words hold
an ``a``, and a user of that name has a right to an answer."""

MAX_CUSTOM: Final = 200
"""Rows that a configuration may add: each costs about 60 ns a refusal."""

MAX_CHARSETS: Final = 8
"""Charsets of a table, UTF-8 included: a text is folded, and an echo sought, once for each."""

# With [AUTH], which RFC 3206 section 4 wants on every problem with credentials, servers also say that they
# have not judged any: Dovecot "[AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS)
# connections.", Cyrus "[AUTH] Must give USER command". No RFC has a code for that.
_NOT_JUDGED: Final = frozenset({Reason.TLS_REQUIRED, Reason.MALFORMED, Reason.UNSUPPORTED})

# RFC 2449 section 3: any printable ASCII but the brackets and, between levels, a slash.
_CODE = re.compile(rb"\s*\[([!-Z\\^-~]{1,255})(?: [^\]]*)?\]")
_FIRST_LEVEL = re.compile(rb"\s*\[([!-.0-Z\\^-~]{1,255})/")

# RFC 2449 section 8.1, RFC 3206 section 3 and 4, RFC 6856 section 5, RFC 5530's name for the last.
_REASONS = {
    "AUTH": Reason.CREDENTIALS,
    "IN-USE": Reason.IN_USE,
    "LOGIN-DELAY": Reason.LOGIN_DELAY,
    "SYS/TEMP": Reason.TEMPORARY,
    "SYS/PERM": Reason.ACCOUNT,
    "UTF8": Reason.ACCOUNT,
    "PRIVACYREQUIRED": Reason.TLS_REQUIRED,
}

# Dovecot, UW and others announce with -ERR that they close an idle session, though RFC 1939 section 3 says
# that the server closes without a word.
_FAREWELL = re.compile(
    rb"\s*(?:\[[^\]]*\]\s*)?(?:disconnected\b|auto-?logout|server (?:is )?shutting down|shutting down"
    rb"|too many (?:invalid )?bad commands|idle time-?out|(?:connection|session) timed? ?out)",
    re.I,
)

_ALNUM: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

_CREDENTIALS: Final = (
    Reason.CREDENTIALS
)  # looking a member up in its class costs as much as two comparisons

_Fold = Callable[[bytes], bytes]


def response_code(text: bytes) -> str:
    """Return the response code at the beginning of a status line's text (RFC 2449 section 8), or ``""``."""
    match = _CODE.match(text)
    return decode(match[1]) if match is not None else ""


class Refusals:
    """The table in force, ready to be looked up; one serves all sessions.

    Raises ValueError with one line for the operator if ``custom``, which comes first, has too many rows.
    """

    __slots__ = ("_folds", "_rows")

    def __init__(self, custom: Sequence[Refusal] = ()) -> None:
        """Make the table of the built-in rows behind ``custom``."""
        if len(custom) > MAX_CUSTOM:
            raise ValueError(f"has {len(custom)} rows; write {MAX_CUSTOM} at most")
        table = (*custom, *BUILT_IN)
        charsets = tuple(dict.fromkeys(("utf-8", *(row.codec for row in table))))
        if len(charsets) > MAX_CHARSETS:
            raise ValueError(f"are in {len(charsets)} charsets; use {MAX_CHARSETS} at most")
        self._folds = {charset: _fold_of(charset) for charset in charsets}
        self._rows = tuple(
            (row.reason, row.codec, first, rest)
            for row in table
            for first, *rest in (_pieces(row, self._folds[row.codec]),)
        )

    def reason(
        self, text: bytes, user: str, password: str, complete: bool, codes_announced: bool
    ) -> tuple[Reason, str]:
        """Return why a login was refused, and the raw response code.

        ``complete``: the client had sent all its credentials. ``codes_announced``: the server says that it
        marks wrong credentials with [AUTH] (AUTH-RESP-CODE, RFC 3206 section 5), so that a refusal without it
        is another.
        """
        code = response_code(text)
        whole = {charset: fold(text[:TEXT_MASKED]) for charset, fold in self._folds.items()}
        masked = self._masked(text[:TEXT_MASKED], whole, (user, password))
        own = _own_code(masked).upper()
        known = _by_code(own)
        if known is None and _by_code(code.upper()) is Reason.CREDENTIALS:
            # A user named "auth" masks it. If it is only an echo, this is the reason that harms its owner.
            known = Reason.CREDENTIALS
        if known not in (None, Reason.CREDENTIALS):
            return known, code
        asked = WORDED if known is None else _NOT_JUDGED
        worded = self._by_words(whole, masked, asked) if len(text) <= TEXT_MASKED else None
        if worded is not None:
            return worded, code
        wrong = complete and not codes_announced and not own
        return known or (Reason.CREDENTIALS if wrong else Reason.UNKNOWN), code

    def is_farewell(self, text: bytes, user: str = "", password: str = "") -> bool:
        """Return whether an -ERR announces the end of the connection rather than answers a command.

        ``user`` and ``password`` are those of the login that waits for its answer: what repeats them is none.
        """
        if _FAREWELL.match(text) is None:
            return False
        if not (user or password):
            return True
        text = text[:TEXT_MASKED]
        whole = {charset: fold(text) for charset, fold in self._folds.items()}
        return _FAREWELL.match(self._masked(text, whole, (user, password))) is not None

    def _by_words(
        self, whole: dict[str, bytes], masked: bytes, asked: Collection[Reason]
    ) -> Reason | None:
        """Return the reason of the first row that matches, of the reasons asked for; None for credentials."""
        read = {charset: fold(masked[:TEXT_READ]) for charset, fold in self._folds.items()}
        for reason, charset, first, rest in self._rows:
            if reason is _CREDENTIALS:
                if first in whole[charset] and _in_order((first, *rest), whole[charset]):
                    return None
            elif (
                first in read[charset]
                and reason in asked
                and (not rest or _in_a_run((first, *rest), read[charset]))
            ):
                return reason
        return None

    def _masked(self, text: bytes, whole: dict[str, bytes], echoes: tuple[str, ...]) -> bytes:
        """Replace each byte of a text that may be of an echo; ``whole`` is it in one case of letters."""
        masked = bytearray(text)
        for echo in echoes:
            sent = echo.encode("utf-8", "surrogateescape")
            forms = tuple(_forms(sent, self._folds))
            for form, glued in forms:
                _mask(masked, text.lower(), form.lower(), glued)
            if not sent.isascii():
                for charset, fold in self._folds.items():
                    for form, glued in forms:
                        _mask(masked, whole[charset], fold(form), glued)
        return bytes(masked)


def _own_code(masked: bytes) -> str:
    """Return the response code, or its first level if an echo is behind it, as in ``[REFERRAL/bob@…]``."""
    match = _CODE.match(masked) or _FIRST_LEVEL.match(masked)
    return decode(match[1]) if match is not None else ""


def _by_code(code: str) -> Reason | None:
    """Look up a code; a hierarchical one means at least what its beginning means (RFC 2449 section 8)."""
    while code:
        if code in _REASONS:
            return _REASONS[code]
        code = code.rpartition("/")[0]
    return None


def _pieces(row: Refusal, fold: _Fold) -> tuple[bytes, ...]:
    """Return what stands between a row's wildcards, as bytes of its charset."""
    return tuple(fold(piece.encode(row.charset)) for piece in row.text.split("*") if piece)


def _in_order(pieces: tuple[bytes, ...], text: bytes) -> bool:
    """Return whether the pieces are in a text, one behind the other: in linear time, without backtracking."""
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def _in_a_run(pieces: tuple[bytes, ...], masked: bytes) -> bool:
    """Return whether the pieces are in order in a text with no masked byte between them."""
    return _in_order(pieces, masked) and any(_in_order(pieces, run) for run in masked.split(MASK))


# --- echoes ---------------------------------------------------------------------------------------------


def _forms(sent: bytes, charsets: Iterable[str]) -> Iterator[tuple[bytes, int]]:
    """Yield how a server may repeat what a client has sent.

    As sent; in the server's charset; without the blanks around it, or its domain, which servers take off.
    Each comes with the bytes that it must have to be masked inside a word too.
    """
    for form in dict.fromkeys((sent, *_in_other_charsets(sent, charsets))):
        yield form, WHOLE_WORD
        shorter = {form.strip(), form.rpartition(b"@")[0].strip()}
        for part in shorter - {b"", form}:
            yield part, TEXT_READ


def _in_other_charsets(sent: bytes, charsets: Iterable[str]) -> Iterator[bytes]:
    if sent.isascii():
        return
    for charset in charsets:
        for one, other in (("utf-8", charset), (charset, "utf-8")):
            try:
                yield sent.decode(one).encode(other)
            except UnicodeError:
                continue


def _mask(masked: bytearray, folded: bytes, echo: bytes, glued: int) -> None:
    """Mask an echo wherever it is a word, and inside words too if it has ``glued`` bytes."""
    echo = echo[:TEXT_READ]
    at = folded.find(echo) if echo else -1
    while 0 <= at < TEXT_READ:
        end = at + len(echo)
        if len(echo) >= glued or _is_word(folded, at, end):
            masked[at:end] = MASK * (end - at)
        at = folded.find(echo, at + 1)


def _is_word(text: bytes, at: int, end: int) -> bool:
    """Return whether a part of a text does not go on, to either side, in a letter or digit of ASCII."""
    before = at > 0 and text[at - 1] in _ALNUM and text[at] in _ALNUM
    behind = end < len(text) and text[end] in _ALNUM and text[end - 1] in _ALNUM
    return not before and not behind


# --- case -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _fold_of(charset: str) -> _Fold:
    """Return what makes letters of one case alike, without changing a text's length.

    UTF-8 is folded character by character; another charset byte by byte, as far as a byte is a character.
    """
    if charset == "utf-8":
        return _fold_utf8
    table = bytearray(range(256))
    for byte in range(256):
        try:
            lower = bytes((byte,)).decode(charset).lower().encode(charset)
        except UnicodeError:
            continue
        if len(lower) == 1:
            table[byte] = lower[0]
    return lambda text: text.translate(table)


def _fold_utf8(text: bytes) -> bytes:
    if text.isascii():
        return text.lower()
    return b"".join(map(_fold_character, text.decode("utf-8", "surrogateescape")))


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> bytes:
    raw, folded = (
        each.encode("utf-8", "surrogateescape") for each in (character, character.casefold())
    )
    return folded if len(folded) == len(raw) else raw


DEFAULT_REFUSALS: Final = Refusals()
"""The built-in table alone."""
