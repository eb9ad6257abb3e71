"""The command table of POP3: everything that depends on which command it is, and nothing else.

A row says in which states a command is allowed, whether it needs an argument, when its +OK opens a
multi-line body, what of it is secret, and which part it plays in the dialogue. Rules come from RFC 1939
unless a row names another source.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from .events import Secret, State


class Role(Enum):
    """The part that a command plays in the dialogue."""

    GREETING = "the greeting, which answers no command"
    PLAIN = "no part: its reply ends it"
    MAILBOX = "its +OK proves that the client is logged in"
    USER = "names the user of a later PASS or RPOP"
    PASS = "a login with the user that was named before"
    APOP = "a login in one line"
    RPOP = "a login by the client's address"
    AUTH = "opens a SASL exchange"
    STLS = "turns the session to TLS"
    CAPA = "lists what the server can do"
    XMIT = "makes the client the sender of a message"
    AFTER_XMIT = "the reply to the message that XTND XMIT sent"
    CANCELLED = "no command: an exchange that was cancelled, but not by the client"
    UNKNOWN = "not known: its +OK may open a body"

    # Members are singletons, so identity is a sound hash, and a fast one: roles are looked up per reply.
    __hash__ = object.__hash__


def _never(arg: bytes) -> bool:
    return False


def _always(arg: bytes) -> bool:
    return True


def _without_argument(arg: bytes) -> bool:
    return not arg.strip()


def _xtnd_body(arg: bytes) -> bool:
    """RFC 1082: BBOARDS without a name lists all; XLST always lists."""
    words = arg.upper().split()
    return words[:1] == [b"XLST"] or words == [b"BBOARDS"]


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One row of the table; ``multiline`` takes the argument and says whether +OK opens a body."""

    name: str
    states: frozenset[State]
    role: Role = Role.PLAIN
    multiline: Callable[[bytes], bool] = _never
    needs_argument: bool = False
    secret: Secret = Secret.NOTHING


_A = frozenset({State.AUTHORIZATION})
_T = frozenset({State.TRANSACTION})
ANYWHERE = _A | _T

_ROWS = (
    # RFC 1939 section 4 and 7: AUTHORIZATION
    Command("USER", _A, Role.USER, needs_argument=True),
    Command("PASS", _A, Role.PASS, secret=Secret.ARGUMENT),
    Command("APOP", _A, Role.APOP, needs_argument=True, secret=Secret.AFTER_NAME),
    Command("QUIT", ANYWHERE),
    # RFC 1939 section 5 and 7: TRANSACTION
    Command("STAT", _T, Role.MAILBOX),
    Command("LIST", _T, Role.MAILBOX, _without_argument),
    Command("RETR", _T, Role.MAILBOX, _always, needs_argument=True),
    Command("DELE", _T, Role.MAILBOX, needs_argument=True),
    Command("RSET", _T, Role.MAILBOX),
    Command("TOP", _T, Role.MAILBOX, _always, needs_argument=True),
    Command("UIDL", _T, Role.MAILBOX, _without_argument),
    # TRANSACTION only by the RFC, but servers answer it before login as well.
    Command("NOOP", ANYWHERE),
    # RFC 2449 section 5
    Command("CAPA", ANYWHERE, Role.CAPA, _always),
    # RFC 2595 section 4
    Command("STLS", _A, Role.STLS),
    # RFC 1734 and 5034; without a mechanism it lists them ([MS-POP3] 2.2.1)
    Command("AUTH", _A, Role.AUTH, _without_argument, secret=Secret.AFTER_FIRST_WORD),
    # RFC 6856 section 2 and 3
    Command("UTF8", _A),
    Command("LANG", ANYWHERE, multiline=_without_argument),
    # RFC 1081, 1082, 1225 and 1460
    Command("LAST", _T, Role.MAILBOX),
    Command("RPOP", _A, Role.RPOP),
    Command("XTND", _T, multiline=_xtnd_body),
    # Dovecot and its kin; XSENDER is Netscape's
    Command("XCLIENT", _A),
    Command("XOIP", _A),
    Command("XSENDER", _T),
)

COMMANDS: Mapping[bytes, Command] = {row.name.encode("ascii"): row for row in _ROWS}

GREETING = Command("", ANYWHERE, Role.GREETING)
UNKNOWN = Command("", ANYWHERE, Role.UNKNOWN, secret=Secret.ARGUMENT)
BARE_AUTH = Command("AUTH", _A, multiline=_always)
XMIT = Command("XTND", _T, Role.XMIT)
AFTER_XMIT = Command("XTND", _T, Role.AFTER_XMIT)
CANCELLED = Command("AUTH", _A, Role.CANCELLED)
XTND_OTHER = Command("XTND", _T, Role.UNKNOWN)

ROWS = (*_ROWS, UNKNOWN, BARE_AUTH, XMIT, XTND_OTHER)

_XTND_KNOWN = frozenset({b"", b"BBOARDS", b"ARCHIVE", b"XLST"})


def command(word: bytes, arg: bytes) -> Command:
    """Return the row for a command word in any case; ``UNKNOWN`` if there is none.

    Three rows depend on the argument as well: AUTH without a mechanism is only a question, and XTND
    is what its first word makes it.
    """
    row = COMMANDS.get(word.upper(), UNKNOWN)
    if row.role is Role.AUTH and not arg.strip():
        return BARE_AUTH
    if row.name == "XTND":
        extension = arg.upper().split()[:1]
        if extension == [b"XMIT"]:
            return XMIT
        if extension and extension[0] not in _XTND_KNOWN:
            return XTND_OTHER
    return row


_LOGIN_WORDS = tuple(
    name
    for name, row in COMMANDS.items()
    if row.role in (Role.PASS, Role.APOP, Role.RPOP, Role.AUTH)
)


_NAMES_USER = (b"USER", *_LOGIN_WORDS)


def may_become_command(head: bytes) -> bool:
    """Say whether a line that begins with ``head``, up to five octets, can be a known command."""
    word, blank, _ = head.upper().removesuffix(b"\r").partition(b" ")
    if blank:
        return word in COMMANDS
    return any(name.startswith(word[:5]) for name in COMMANDS)


def may_become_login(head: bytes) -> bool:
    """Say whether an unfinished command line that begins with ``head`` can still carry credentials.

    Blanks and control characters before and behind the word count as blanks: see ``login_to_some``.
    """
    start = head[:5].lstrip(_BLANKS).upper()
    word = start[:4]
    if start[4:].strip(_BLANKS):
        return False
    return any(name.startswith(word.rstrip(_BLANKS)) for name in _LOGIN_WORDS)


def may_become_stls(head: bytes) -> bool:
    """Say whether a command line that begins with ``head`` can be STLS, or that to some servers."""
    start = head[:5].lstrip(_BLANKS).upper()
    word = start[:4].rstrip(_BLANKS)
    return not start[4:].strip(_BLANKS) and b"STLS".startswith(word)


def stls_to_some(line: bytes, row: Command) -> bool:
    """Say whether some server may take for STLS, or find it in, a line that is not STLS to us.

    The reasons are those of ``login_to_some``.
    """
    return row.role is not Role.STLS and bool(_HIDDEN_STLS.search(line))


LONG = 255
"""Octets of a command line with its CR LF by RFC 2449 section 4: servers may read more as another line."""

_BLANKS = bytes(range(0x21))
_WORDS = b"|".join(_NAMES_USER)
_AT_THE_START = re.compile(rb"[\0-\x20]*(?:%s)(?:[\0-\x20]|\Z)" % _WORDS, re.I)
_ANYWHERE = re.compile(rb"(?:%s)[\0-\x20]" % _WORDS, re.I)
_HIDDEN_STLS = re.compile(rb"(?:\A|\r)[\0-\x20]*STLS(?:[\0-\x20]|\Z)", re.I)
_SHORTEST_BUFFER = 64


def login_to_some(line: bytes, row: Command) -> bool:
    """Say whether some server may take part of a login in a line that is another command, or none, to us.

    Courier's ``pop3login`` cuts its lines at blanks and tabs, and skips those before the word. There are
    servers that end lines at a bare CR, and such as read what does not fit into their buffer as one more.
    """
    if b"\r" in line or (row is UNKNOWN and _AT_THE_START.match(line)):
        return True
    return len(line) > LONG - 2 and bool(_ANYWHERE.search(line, _SHORTEST_BUFFER))


def may_carry_sasl(head: bytes) -> bool:
    """Say whether a command line that begins with ``head`` may carry an initial response (RFC 5034)."""
    return head[:5].upper() == b"AUTH "
