"""One row of the table by which a refusal is read, checked by itself; nothing is looked up here."""

import codecs
import json
from dataclasses import dataclass
from typing import Final

from .events import Reason

MAX_TEXT: Final = 200
"""Characters of a row's text."""

MIN_WORDS: Final = 4
"""Bytes of a row's text without its wildcards and blanks; fewer would be found in many refusals."""

WORDED: Final = (
    Reason.CREDENTIALS,
    Reason.IN_USE,
    Reason.TEMPORARY,
    Reason.LOGIN_DELAY,
    Reason.ACCOUNT,
    Reason.TLS_REQUIRED,
    Reason.MALFORMED,
    Reason.UNSUPPORTED,
    Reason.UNKNOWN,
)
"""The reasons that a server's words can mean; the others are known otherwise."""

_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F)))


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table: what a server says, and the reason that this means.

    ``text`` is found anywhere in a refusal, in any case of letters; ``*`` stands for any run of bytes, also
    none. ``source`` is where a built-in row is from. Raises ValueError with one line for the operator.
    """

    text: str
    reason: Reason
    source: str = ""
    charset: str = "utf-8"

    def __post_init__(self) -> None:
        """Refuse a row that cannot be looked up."""
        _ = self.codec
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    @property
    def codec(self) -> str:
        """The charset by the name of its codec."""
        return charset_of(self.charset)

    def _problem(self) -> str:
        if self.reason not in WORDED:
            return f"reason: no words mean {self.reason}; write one of {', '.join(WORDED)}"
        if len(self.text) > MAX_TEXT:
            return f"text: is longer than {MAX_TEXT} characters; write less of what the server says"
        example = 'write words of the server, such as "mailbox locked"'
        if not self.text.isprintable():
            return f"text: holds a control character; {example}"
        words = self.text.replace("*", "").replace(" ", "")
        try:
            size = len(words.encode(self.charset))
        except UnicodeEncodeError as problem:
            character = words[problem.start]
            return (
                f'text: "{character}" is not in the charset {self.charset}; name that of the server'
            )
        if size < MIN_WORDS:
            return (
                f"text: has fewer than {MIN_WORDS} bytes besides * and blanks, and would be found in many"
                f" refusals; {example}"
            )
        return ""


def charset_of(name: str) -> str:
    """Return the codec's own name of a charset. Raises ValueError if none of that name can be used."""
    example = 'write a name like "gbk" or "koi8-r"'
    try:
        # What is no codec of text, such as "hex", raises LookupError too.
        like_ascii = _PRINTABLE.encode(name) == _PRINTABLE.encode("ascii")
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ValueError(f"charset: there is no {json.dumps(name)}; {example}") from None
    if not like_ascii:
        # UTF-16 and its kin: no line of POP3 can be in them.
        raise ValueError(f"charset: {json.dumps(name)} does not write ASCII as ASCII; {example}")
    return codec
