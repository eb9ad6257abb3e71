"""Denies commands by rules: their names, the state, TLS; logins are judged elsewhere, by who tries them."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ...analyzer.events import Request, State
from ...analyzer.grammar import COMMANDS
from ..api import Deny, Hook

DENIED: Final = Deny("-ERR Unknown command.")
"""What a client is told by a rule that has no reply of its own: as of a command that is not there."""

TLS_REQUIRED: Final = Deny(
    "-ERR [AUTH] TLS is required to log in; turn it on in your mail program."
)
"""What a client is told that would log in without TLS (RFC 3206 section 4 for the code)."""

UNKNOWN: Final = "UNKNOWN"
"""The name of all commands that are not in the table; with a second word, of the one so called."""

_KNOWN: Final = {row.name: row for row in COMMANDS.values()}

# RFC 1082. Mechanisms of AUTH are an open list, so only their form is known (RFC 4422 section 3.1).
_EXTENSIONS: Final = frozenset({"ARCHIVE", "BBOARDS", "XLST", "XMIT"})
_MECHANISM: Final = re.compile(r"[A-Z0-9_-]{1,20}")
_WORD: Final = re.compile(r"[A-Z]{1,16}")


def command_name(text: str) -> str:
    """Return the name by which a rule knows a command, from what an operator wrote in any case.

    A name is that of a known command, ``AUTH`` with a mechanism, ``XTND`` with an extension, ``unknown``
    for all commands that are not known, or ``unknown`` with the name of one. Raises ValueError for any
    other, so that a slip of the pen is no rule that never applies.
    """
    first, _, second = " ".join(text.upper().split()).partition(" ")
    if first not in _KNOWN and first != UNKNOWN:
        raise ValueError(f"{json.dumps(text)} is no known command; {_suggestion(first)}")
    if second:
        problem = _problem_of_second_word(first, second)
        if problem:
            raise ValueError(f"{json.dumps(text)}: {problem}")
    return f"{first} {second}".rstrip()


def _suggestion(word: str) -> str:
    nearest = difflib.get_close_matches(word, [*_KNOWN, UNKNOWN], n=1)
    meant = nearest[0] if nearest else "DELE"
    advice = f'did you mean "{meant}"?' if nearest else f'write a name like "{meant}"'
    if _WORD.fullmatch(word):
        advice += f' A command of your server\'s own is "unknown {word}"'
    return advice


def _problem_of_second_word(first: str, second: str) -> str | None:
    if first == "AUTH":
        return None if _MECHANISM.fullmatch(second) else f"{second} is no name of a SASL mechanism"
    if first == "XTND":
        known = ", ".join(sorted(_EXTENSIONS))
        return None if second in _EXTENSIONS else f"the extensions of XTND are {known}"
    if first == UNKNOWN:
        if second in _KNOWN:
            return f'{second} is a known command; write "{second}"'
        return None if _WORD.fullmatch(second) else "the name of a command is 1 to 16 letters"
    return f'a rule is for the whole of a command; write "{first}"'


@dataclass(frozen=True, slots=True)
class Rule:
    """Denies commands of some names, where state and TLS are as it says; None is for either.

    ``commands`` are names as ``command_name`` returns them.
    """

    commands: frozenset[str]
    state: State | None = None
    tls: bool | None = None
    denial: Deny = DENIED

    def applies(self, names: frozenset[str], state: State, tls: bool) -> bool:
        """Return whether it denies a command of these names in this state."""
        return (
            not self.commands.isdisjoint(names)
            and (self.state is None or self.state is state)
            and (self.tls is None or self.tls is tls)
        )


CLAIMED_ADDRESSES: Final = Rule(frozenset({"XCLIENT", "XOIP"}))
"""Denies the commands by which a proxy tells whom it speaks for: from a client they are a claim."""

PLAINTEXT_LOGINS: Final = Rule(
    frozenset(
        {"USER", "PASS", "APOP"}
        # What these send is the secret itself: a password, or a token as good as one.
        | {"AUTH PLAIN", "AUTH LOGIN", "AUTH OAUTHBEARER", "AUTH XOAUTH2"}
    ),
    tls=False,
    denial=TLS_REQUIRED,
)
"""Denies logins that whoever listens on the way could repeat, or search for the password (APOP)."""


class CommandRules(Hook):
    """Denies each command to which a rule applies; the first rule's reply is the answer.

    It is asked about strict lines only (``analyzer.guard``), and before the login one at a time, so that each
    is the command that it looks like, in the state that the session is in.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Take the rules in their order."""
        self._rules = tuple(rules)

    def pop3_request(self, event: Request) -> Deny | None:
        """Look for the first rule that applies."""
        names, c = _names(event), event.c
        for rule in self._rules:
            if rule.applies(names, c.state, c.tls is not None):
                return rule.denial
        return None


def _names(event: Request) -> frozenset[str]:
    """Return the names by which rules know a command."""
    command = event.command
    if command not in _KNOWN:
        return frozenset({UNKNOWN, f"{UNKNOWN} {command}"})
    if command in ("AUTH", "XTND") and (second := event.arg.split(None, 1)[:1]):
        return frozenset({command, f"{command} {second[0].upper()}"})
    return frozenset({command})
