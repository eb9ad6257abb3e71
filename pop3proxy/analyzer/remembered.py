"""Remembers the secrets of one session, within bounds, and finds their repetitions; knows no commands.

What counts as a repetition, in bytes and in any case of letters:

- of a secret of 6 to 64 bytes, any 6 in a row, or a word of 4 or 5 that is its beginning or its end;
- of a longer one, any 16 in a row (and some runs of 8 to 15);
- of one of 4 or 5 bytes, all of it; of a shorter one, all of it as a word of its own.

In mail there is more text for a chance hit: 8 in a row there, and secrets below 6 are not looked for.
"""

import re
from collections.abc import Iterable
from typing import Final

PIECE: Final = 6
"""Bytes in a row of a secret that repeat it. Servers cut an unknown command off at 8 or so."""

LONG: Final = 64
"""A longer secret is a token or a ticket, of which 6 bytes tell nothing."""

LONG_PIECE: Final = 16
"""Bytes in a row that repeat a longer secret."""

MAIL_PIECE: Final = 8
"""Bytes in a row that repeat a secret in a line of mail."""

WORD: Final = 4
"""A shorter secret is likely to be a part of some innocent word."""

_FEW: Final = 32
"""Up to so many probes it takes less time to search the text for each than to look at each place in it."""

_FEW_PARTS: Final = 8
"""Parts of a secret up to which a short one may be a piece of a password, and no accident."""

_WORDS: Final = re.compile(rb"[0-9a-z_\x80-\xff]+")
_SEPARATORS: Final = re.compile(rb"[\0-\x1f]+")
_BLANKS: Final = bytes(range(0x21))


def folded(text: str) -> bytes:
    """Return what is the same for a text in any case of letters."""
    text = text.lower() if text.isascii() else text.casefold()
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a pair of UTF-16, which no peer's bytes become.
        return text.encode("utf-8", "surrogatepass")


def _folded_bytes(data: bytes) -> bytes:
    return data.lower() if data.isascii() else folded(data.decode("utf-8", "surrogateescape"))


class _Pieces:
    """Finds ``size`` bytes in a row of any of some secrets; of a shorter secret, all of it.

    Whatever it finds holds one of ``probes``: ``probe`` bytes from every so many places of a secret.
    """

    __slots__ = ("_probe", "_secrets", "_size", "probes")

    def __init__(self, secrets: Iterable[bytes], size: int, probe: int) -> None:
        self._secrets = tuple(secrets)
        self._size = size
        self._probe = probe
        found = {
            secret[at : at + probe]
            for secret in self._secrets
            for at in (*range(0, len(secret) - probe, size - probe + 1), len(secret) - probe)
        }
        self.probes: set[bytes] | tuple[bytes, ...] = tuple(found) if len(found) <= _FEW else found

    def may_be_in(self, text: bytes) -> bool:
        """Return whether a probe is in the text."""
        if isinstance(self.probes, tuple):
            return any(probe in text for probe in self.probes)
        return not self.probes.isdisjoint(_runs(text, self._probe))

    def found_in(self, text: bytes) -> bool:
        """Return whether the text holds a piece."""
        if not self.may_be_in(text):
            return False
        wanted: set[bytes] = set()
        for secret in self._secrets:
            if len(secret) < self._size:
                if secret in text:
                    return True
            else:
                wanted.update(_runs(secret, self._size))
        return not wanted.isdisjoint(_runs(text, self._size))


def _runs(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(len(text) - size + 1)]


class _Index:
    """What is looked for in a text, made once for what a session has said so far."""

    __slots__ = ("_long", "_mail", "_pieces", "_secrets", "_words")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets
        self._words = tuple(secret for secret in secrets if len(secret) < WORD)
        self._pieces = _Pieces(_between(secrets, WORD, LONG), PIECE, WORD)
        self._long = _Pieces(_between(secrets, LONG + 1), LONG_PIECE, MAIL_PIECE)
        self._mail: _Pieces | None = None

    def repeated_in(self, text: bytes) -> bool:
        """Return whether a line of the server repeats a secret."""
        for word in self._words:
            if word in text and _is_word_of(word, text):
                return True
        if self._pieces.may_be_in(text) and (
            self._pieces.found_in(text) or self._begins_or_ends_in(text)
        ):
            return True
        return self._long.may_be_in(text)

    def repeated_in_mail(self, text: bytes) -> bool:
        """Return whether lines of mail repeat a secret."""
        if self._mail is None:
            self._mail = _Pieces(_between(self._secrets, PIECE, LONG), MAIL_PIECE, PIECE)
        return self._mail.found_in(text) or self._long.may_be_in(text)

    def _begins_or_ends_in(self, text: bytes) -> bool:
        """Return whether a word of the text is a secret's beginning or end: servers cut echoes off."""
        words = tuple({word for word in _WORDS.findall(text) if len(word) >= WORD})
        return any(
            secret.startswith(words) or secret.endswith(words)
            for secret in _between(self._secrets, PIECE, LONG)
        )


def _between(secrets: tuple[bytes, ...], least: int, most: int = 1 << 30) -> list[bytes]:
    return [secret for secret in secrets if least <= len(secret) <= most]


def _is_word_of(secret: bytes, text: bytes) -> bool:
    """Return whether a short secret is in a text and no letter, digit or underscore touches it."""
    around = rb"[0-9a-z_\x80-\xff]"
    return re.search(rb"(?<!%s)%s(?!%s)" % (around, re.escape(secret), around), text) is not None


def _probes(secrets: tuple[bytes, ...]) -> tuple[str, ...]:
    """Return what a text in ASCII and in small letters holds some of if it repeats one of some secrets.

    Nothing if that would be much: then an index takes less time. They lie as those of ``_Pieces``, so that
    each run of ``PIECE`` bytes, and each beginning or end, holds one.
    """
    found: list[str] = []
    for secret in secrets:
        if len(secret) > LONG or len(found) > _FEW or not secret.isascii():
            return ()
        text, last = secret.decode("ascii"), len(secret) - WORD
        if last < 0:
            found.append(text)
            continue
        found += [text[at : at + WORD] for at in range(0, last, PIECE - WORD + 1)]
        found.append(text[last:])
    return tuple(found)


class Remembered:
    """The secrets of a session, ``count`` of them and ``size`` bytes in all at the most.

    ``lost`` says that there were more, or that some were not read whole. Nothing is forgotten for a newer
    one: what the server says from then on may repeat what is not remembered, and is taken to do so.
    """

    __slots__ = ("_index", "_probes", "_room", "_secrets", "_size", "lost")

    def __init__(self, count: int, size: int) -> None:
        """Begin with nothing."""
        self.lost = False
        self._room = count
        self._size = size
        self._secrets: tuple[bytes, ...] = ()
        self._index: _Index | None = None
        self._probes: tuple[str, ...] | None = None

    def add(self, secret: bytes) -> None:
        """Remember a secret, and its parts between control characters, which end a line for some servers.

        Of many parts those of a few bytes tell nothing: the tokens of Kerberos have hundreds.
        """
        self._add(secret)
        if _SEPARATORS.search(secret) is not None:
            parts = _SEPARATORS.split(secret, self._room or 1)
            for part in parts:
                if len(part) >= WORD or len(parts) <= _FEW_PARTS:
                    self._add(part)

    def _add(self, secret: bytes) -> None:
        found = _folded_bytes(secret)
        if len(found) < PIECE:
            found = found.strip(_BLANKS)
        if not found or found in self._secrets:
            return
        if not self._room or len(found) > self._size:
            self.lost = True
            return
        self._room -= 1
        self._size -= len(found)
        self._secrets = (*self._secrets, found)
        self._index = self._probes = None

    def lose(self) -> None:
        """Note that the client said what was not read whole."""
        self.lost = True

    def repeated_in(self, text: str) -> bool:
        """Return whether a line of the server repeats a secret, or may do so."""
        if self.lost:
            return bool(text)
        # It is asked for each reply, and nearly always ends here.
        if self._probes is None:
            self._probes = _probes(self._secrets)
        if self._probes and text.isascii():
            small = text.lower()
            for probe in self._probes:
                if probe in small:
                    break
            else:
                return False
        return self._indexed().repeated_in(folded(text))

    def repeated_in_mail(self, text: str | bytes) -> bool:
        """Return whether lines of mail repeat a secret; those not remembered are not looked for."""
        if not self._secrets:
            return False
        data = folded(text) if isinstance(text, str) else _folded_bytes(text)
        return self._indexed().repeated_in_mail(data)

    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index(self._secrets)
        return self._index


NOTHING_REMEMBERED: Final = Remembered(0, 0)
"""What is remembered of a session that has said nothing secret: one for all, and never added to."""
