"""The command table of POP3: everything that depends on which command it is, and nothing else.

A row says in which states a command is allowed, whether it needs an argument, when its +OK opens a
multi-line body, what of it is secret, and which part it plays in the dialogue. Rules come from RFC 1939
unless a row names another source.
"""

import re
from collections.abc import Callable, Collection, Mapping
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
    MECHANISMS = "lists the mechanisms of AUTH"
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


class Form(Enum):
    """What the guard passes of a command line behind its word and one blank."""

    ALONE = rb" *"
    NAME = rb"[^\0-\x20\x7f][^\0-\x1f\x7f]*"
    PASSWORD = rb"[^\0\r]*"
    NAME_AND_DIGEST = rb"[^\0-\x20\x7f][^\0-\x1f\x7f]* [0-9A-Fa-f]{32}"
    MECHANISM = rb" *|[A-Za-z0-9_-]{1,20}(?: (?:=|[A-Za-z0-9+/]+={0,2}))?"
    LANGUAGE = rb" *|[A-Za-z0-9*-]{1,40}"
    NUMBER = rb"[0-9]{1,10}"
    MAYBE_NUMBER = rb" *|[0-9]{1,10}"
    TWO_NUMBERS = rb"[0-9]{1,10} [0-9]{1,10}"
    TEXT = rb"[^\0-\x1f\x7f]*"

    __hash__ = object.__hash__


_MATCHES = {form: re.compile(rb"(?:%s)\Z" % form.value, re.S) for form in Form}


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One row of the table; ``multiline`` takes the argument and says whether +OK opens a body.

    ``form`` is what the guard demands of the argument, ``before_login`` whether it passes the command
    while the client is not logged in.
    """

    name: str
    states: frozenset[State]
    role: Role = Role.PLAIN
    multiline: Callable[[bytes], bool] = _never
    needs_argument: bool = False
    secret: Secret = Secret.NOTHING
    form: Form = Form.ALONE
    before_login: bool = False

    def has_form(self, arg: bytes) -> bool:
        """Return whether an argument has the form that all servers read alike."""
        return _MATCHES[self.form].match(arg) is not None


_A = frozenset({State.AUTHORIZATION})
_T = frozenset({State.TRANSACTION})
ANYWHERE = _A | _T

_ROWS = (
    # RFC 1939 section 4 and 7: AUTHORIZATION
    Command("USER", _A, Role.USER, needs_argument=True, form=Form.NAME, before_login=True),
    Command("PASS", _A, Role.PASS, secret=Secret.ARGUMENT, form=Form.PASSWORD, before_login=True),
    Command(
        *("APOP", _A, Role.APOP),
        needs_argument=True,
        secret=Secret.AFTER_NAME,
        form=Form.NAME_AND_DIGEST,
        before_login=True,
    ),
    Command("QUIT", ANYWHERE, before_login=True),
    # RFC 1939 section 5 and 7: TRANSACTION
    Command("STAT", _T, Role.MAILBOX),
    Command("LIST", _T, Role.MAILBOX, _without_argument, form=Form.MAYBE_NUMBER),
    Command("RETR", _T, Role.MAILBOX, _always, needs_argument=True, form=Form.NUMBER),
    Command("DELE", _T, Role.MAILBOX, needs_argument=True, form=Form.NUMBER),
    Command("RSET", _T, Role.MAILBOX),
    Command("TOP", _T, Role.MAILBOX, _always, needs_argument=True, form=Form.TWO_NUMBERS),
    Command("UIDL", _T, Role.MAILBOX, _without_argument, form=Form.MAYBE_NUMBER),
    # TRANSACTION only by the RFC, but servers answer it before login as well.
    Command("NOOP", ANYWHERE, before_login=True),
    # RFC 2449 section 5
    Command("CAPA", ANYWHERE, Role.CAPA, _always, before_login=True),
    # RFC 2595 section 4
    Command("STLS", _A, Role.STLS, before_login=True),
    # RFC 1734 and 5034; without a mechanism it lists them ([MS-POP3] 2.2.1)
    Command(
        *("AUTH", _A, Role.AUTH, _without_argument),
        secret=Secret.AFTER_FIRST_WORD,
        form=Form.MECHANISM,
        before_login=True,
    ),
    # RFC 6856 section 2 and 3
    Command("UTF8", _A, before_login=True),
    Command("LANG", ANYWHERE, multiline=_without_argument, form=Form.LANGUAGE, before_login=True),
    # RFC 1081, 1082, 1225 and 1460
    Command("LAST", _T, Role.MAILBOX),
    Command("RPOP", _A, Role.RPOP, form=Form.TEXT),
    Command("XTND", _T, multiline=_xtnd_body, form=Form.TEXT),
    # Dovecot and its kin; XSENDER is Netscape's
    Command("XCLIENT", _A, form=Form.TEXT),
    Command("XOIP", _A, form=Form.TEXT),
    Command("XSENDER", _T, form=Form.MAYBE_NUMBER),
)

COMMANDS: Mapping[bytes, Command] = {row.name.encode("ascii"): row for row in _ROWS}

GREETING = Command("", ANYWHERE, Role.GREETING)
UNKNOWN = Command("", ANYWHERE, Role.UNKNOWN, secret=Secret.ARGUMENT, form=Form.TEXT)
UNKNOWN_LINE = Command("", ANYWHERE, secret=Secret.ARGUMENT, form=Form.TEXT)
UNKNOWN_BODY = Command("", ANYWHERE, multiline=_always, secret=Secret.ARGUMENT, form=Form.TEXT)
BARE_AUTH = Command("AUTH", _A, Role.MECHANISMS, multiline=_always, before_login=True)
XMIT = Command("XTND", _T, Role.XMIT, form=Form.TEXT)
AFTER_XMIT = Command("XTND", _T, Role.AFTER_XMIT)
CANCELLED = Command("AUTH", _A, Role.CANCELLED)
XTND_OTHER = Command("XTND", _T, Role.UNKNOWN, form=Form.TEXT)

ROWS = (*_ROWS, UNKNOWN, UNKNOWN_LINE, UNKNOWN_BODY, BARE_AUTH, XMIT, XTND_OTHER)

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


_LOOSE = re.compile(rb"[\0-\x20]*([A-Za-z0-9]{3,8})(?:[\0-\x20]+(.*))?\Z", re.S)


def loosely(line: bytes) -> tuple[Command, bytes] | None:
    """Return the known command that some servers read in a line that is none by the RFC, and its argument.

    Courier 1.0.16 skips blanks before the word and takes a TAB for one; others do so with control bytes.
    """
    match = _LOOSE.match(line)
    if match is None:
        return None
    word, arg = match[1], match[2] or b""
    row = command(word, arg)
    return None if row is UNKNOWN else (row, arg)


def may_carry_sasl(head: bytes) -> bool:
    """Return whether a command line that begins with ``head`` may carry an initial response (RFC 5034)."""
    return head[:5].upper() == b"AUTH "


def may_be(words: Collection[bytes], head: bytes) -> bool:
    """Return whether a line that begins with these 5 bytes may be one of some commands to some server."""
    start = head.lstrip(_BLANKS).upper()
    return any(
        word.startswith(start[: len(word)]) and not start[len(word) :].strip(_BLANKS)
        for word in words
    )


_BLANKS = bytes(range(0x21))
STLS_WORDS = frozenset({b"STLS"})
LOGIN_WORDS = frozenset(
    name
    for name, row in COMMANDS.items()
    if row.role in (Role.PASS, Role.APOP, Role.RPOP, Role.AUTH)
)


def ends_in_command(text: bytes) -> bool:
    """Return whether a text ends in a command word, which a server with a small buffer may read alone."""
    return _AT_THE_END.search(text[-_LONGEST:]) is not None


_LONGEST = max(map(len, COMMANDS))
_AT_THE_END = re.compile(rb"(?:%s)\Z" % b"|".join(COMMANDS), re.I)
