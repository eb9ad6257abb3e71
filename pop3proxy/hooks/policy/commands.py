"""Denies commands by rules: their names, the state, TLS; logins are judged elsewhere, by who tries them."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ...analyzer.events import Connection, Request, Secret, SessionEnd, State
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

    def applies(self, names: set[str], states: tuple[State, ...], tls: bool) -> bool:
        """Say whether it denies a command of these names, which is sent in one of these states."""
        return (
            not self.commands.isdisjoint(names)
            and (self.state is None or self.state in states)
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

    Mail servers read a line more leniently than the RFC: with blanks before the command, with a tab or
    nothing behind it. A line is denied if any of these readings is.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Take the rules in their order."""
        self._rules = tuple(rules)
        self._logging_in: set[str] = set()

    def pop3_request(self, event: Request) -> Deny | None:
        """Look for the first rule that applies."""
        names = _names(event)
        states = self._states(event.c)
        for rule in self._rules:
            if rule.applies(names, states, event.c.tls is not None):
                return rule.denial
        if event.c.state is State.AUTHORIZATION and _may_log_in(names):
            self._logging_in.add(event.c.uid)
        return None

    def pop3_session(self, event: SessionEnd) -> None:
        """Forget the session."""
        self._logging_in.discard(event.c.uid)

    def _states(self, c: Connection) -> tuple[State, ...]:
        """Say in which states the server may be when it reads the command.

        A client need not wait for the answer to its login (RFC 2449 section 6.6), so from there on, until
        the server accepts one, a command may be meant for either state.
        """
        if c.state is State.AUTHORIZATION and c.uid in self._logging_in:
            return (State.AUTHORIZATION, State.TRANSACTION)
        return (c.state,)


# What may stand before a command that a server executes, the command, and what follows it. Of a line that
# is no command to the analyzer, the event's command ends before the first character that is no letter.
_LINE: Final = re.compile(
    r"[\0-\x20]*(UTF ?8|[A-Z]{1,16})(.*)", re.IGNORECASE | re.ASCII | re.DOTALL
)

# The second word, whatever sets it apart.
_SECOND: Final = re.compile(r"[^A-Z0-9_-]*([A-Z0-9_-]+)", re.IGNORECASE | re.ASCII)


def _names(event: Request) -> set[str]:
    """Find all names that a server may see in a line: there are servers that end lines at a bare CR."""
    names = {UNKNOWN} if _is_unknown(event) else set()
    for part in f"{event.command} {event.arg}".split("\r"):
        if line := _LINE.match(part):
            names.update(_readings(line[1].upper().replace(" ", ""), line[2]))
    return names


def _readings(word: str, rest: str) -> Iterable[str]:
    if word not in _KNOWN:
        return (UNKNOWN, f"{UNKNOWN} {word}")
    if word in ("AUTH", "XTND") and (second := _SECOND.match(rest)):
        return (word, f"{word} {second[1].upper()}")
    return (word,)


def _is_unknown(event: Request) -> bool:
    """Say whether the line is no command to the analyzer, even if its first letters look like one.

    Of ``DELE-ALL`` the event shows ``DELE``; but the analyzer takes what follows an unknown word for a
    secret. What it takes for one behind PASS in any case is left to the rules for PASS.
    """
    row = _KNOWN.get(event.command)
    if row is None:
        return True
    if row.secret is Secret.ARGUMENT:
        return False
    return event.secret in (Secret.ARGUMENT, Secret.LINE)


def _may_log_in(names: set[str]) -> bool:
    """Say whether a login may begin here; AUTH without a mechanism only asks for their list."""
    return any(name in ("PASS", "APOP", "RPOP") or name.startswith("AUTH ") for name in names)
