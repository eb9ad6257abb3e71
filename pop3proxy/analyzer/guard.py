"""The guard: which of a client's lines pass while somebody decides about logins or commands.

It is a whitelist. A line passes because it is known to mean one thing to every server, in an order in
which every server judges the same name; any other is answered by the proxy. What passes, and why, is
explained in ``docs/guard.md``. The rules on words and their arguments are columns of the command table
(``grammar``), those on SASL messages the table of ``saslforms``; here is what they have in common, and the
order.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from . import grammar
from .events import (
    AUTHORIZATION,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    Request,
    StartTLS,
    State,
)
from .grammar import Command, Role
from .sasl import Exchange
from .saslforms import SaslForm, is_strict_base64, opaque_form, sasl_form

LINE: Final = 255 - 2
"""Bytes of a command line without CR LF (RFC 2449 section 4): a server may read more as another line."""

SASL_LINE: Final = 4096 - 2
"""Bytes of a SASL response from which on servers are known to cut it (Cyrus 3.6.1 reads 8,191 at a time)."""

MAX_NOT_PASSED: Final = 20
"""Lines of a session that are answered by the proxy; with one more it ends."""

_LOGIN_EVENTS: Final = frozenset({Request, LoginAttempt, LoginSuccess, LoginFailure})


class Strictness(Enum):
    """What the guard demands of a client's lines, from nothing to everything."""

    NONE = "every line passes at once"
    NO_LOGIN = "no login and no STLS pass: the client has logged in"
    WHOLE = "a line is one line to every server: no bare CR and no NUL"
    LINES = "strict lines"
    LOCK_STEP = "strict lines in a strict order, each behind the whole reply to the one before"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What an operator can widen (``[verdicts]``).

    ``words`` are further commands that pass before the login, and whether their +OK opens a body.
    ``unknown_mechanisms``: mechanisms of AUTH that cannot be read pass, and hooks are asked about a login
    without a name. ``blanks_in_names``: a name with a blank in it is asked about as a whole and as the
    servers read it that stop at the blank, or only as a whole, or is denied. ``mailbox_before_login``: the
    mail server may take the client for logged in without a login.
    """

    words: Mapping[bytes, Literal["line", "body"]] = field(default_factory=dict)
    unknown_mechanisms: bool = False
    blanks_in_names: Literal["both", "whole", "deny"] = "both"
    mailbox_before_login: bool = False


DEFAULT_OPTIONS: Final = GuardOptions()


@dataclass(frozen=True, slots=True)
class LocalReply:
    """How a line that does not pass is answered; with a ``reason``, a login fails by it.

    ``needs_login``: it is a command for which the client must have logged in.
    """

    reply: bytes
    reason: Reason | None = None
    needs_login: bool = False


_UNKNOWN: Final = LocalReply(b"-ERR Unknown command.\r\n")
_FORM: Final = LocalReply(b"-ERR Malformed command.\r\n")
_LOGGED_IN: Final = LocalReply(b"-ERR You have logged in already.\r\n")
_LOG_IN_FIRST: Final = LocalReply(b"-ERR Log in first.\r\n", needs_login=True)
_TOO_LONG: Final = LocalReply(b"-ERR Line too long.\r\n")
_USER_FIRST: Final = LocalReply(b"-ERR Send USER first.\r\n")
_NO_BLANKS: Final = LocalReply(b"-ERR [AUTH] User names with blanks are not accepted.\r\n")
_NO_MECHANISM: Final = LocalReply(b"-ERR Unsupported authentication mechanism.\r\n")
_NO_INITIAL: Final = LocalReply(b"-ERR This mechanism takes no initial response.\r\n")
MALFORMED: Final = LocalReply(b"-ERR Malformed authentication response.\r\n", Reason.MALFORMED)

_CONTROL: Final = re.compile(rb"[\0-\x1f\x7f]")
_TWO_LINES: Final = re.compile(rb"[\0\r]")
_BLANK_OR_CONTROL: Final = re.compile(rb"[\0-\x20\x7f]")
_WORD: Final = re.compile(rb"[A-Za-z]{1,16}\Z")
_NO_NAME: Final = re.compile(r"[\0-\x1f\x7f]")

_REFUSED_BEHIND_LOGIN: Final = grammar.LOGIN_WORDS | grammar.STLS_WORDS

# RFC 1939 section 7: PASS only immediately behind USER. These change nothing that a server knows of a login.
_KEEPS_NAME: Final = frozenset({"CAPA", "LANG", "UTF8", "NOOP"})


class Guard:
    """The guard of one session, in the order of its client's lines.

    ``strictness`` follows from what is decided about and from the session's state. The caller asks
    ``refusal`` or ``passes_response`` for each line, and reports what becomes of the lines that pass.
    """

    __slots__ = (
        "_challenges",
        "_decides_logins",
        "_decides_requests",
        "_decides_stls",
        "_form",
        "_named",
        "_options",
        "_realm",
        "_turn",
        "lock_step",
        "long_line",
        "not_passed",
        "strictness",
    )

    def __init__(self, options: GuardOptions) -> None:
        """Begin with nothing to guard."""
        self._options = options
        self._decides_logins = self._decides_requests = self._decides_stls = False
        self._named = False  # the server has accepted the USER that stands before the next PASS
        self._form: SaslForm | None = None  # of the exchange under way
        self._turn = 0  # responses in it
        self._challenges = 0  # that it may still have
        self._realm = ""  # that the client has named in it
        self.long_line = False  # the last line may be several to a server with a small buffer
        self.not_passed = 0
        self.strictness = Strictness.NONE
        self.lock_step = False  # whether each line waits for the reply to the one before

    def watch(self, decided: frozenset[type[Event]], state: State) -> None:
        """Guard for those who decide about these event types, in this state."""
        self._decides_requests = Request in decided
        self._decides_logins = not decided.isdisjoint(_LOGIN_EVENTS)
        self._decides_stls = StartTLS in decided
        self.entered(state)

    def entered(self, state: State) -> None:
        """Know the session's state."""
        if state is AUTHORIZATION:
            self.strictness = (
                Strictness.LOCK_STEP
                if self._decides_logins
                else Strictness.WHOLE
                if self._decides_stls
                else Strictness.NONE
            )
        elif self._decides_requests:
            self.strictness = Strictness.LINES
        else:
            self.strictness = Strictness.NO_LOGIN if self._decides_logins else Strictness.NONE
        self.lock_step = self.strictness is Strictness.LOCK_STEP

    def restarted(self) -> None:
        """Forget the dialogue before TLS (RFC 2595 section 4)."""
        self._named = False

    # --- commands -----------------------------------------------------------------------------------------

    def row(self, word: bytes, row: Command) -> Command:
        """Return the row of a command, which for a word that the operator has added is that of its kind."""
        if row is grammar.UNKNOWN and self.lock_step:
            kind = self._options.words.get(word.upper())
            if kind is not None:
                return grammar.UNKNOWN_BODY if kind == "body" else grammar.UNKNOWN_LINE
        return row

    def refusal(self, text: bytes, row: Command, arg: bytes) -> LocalReply | None:
        """Return how a command line is answered that does not pass; None if it passes."""
        self.long_line = len(text) > LINE
        self._realm = ""
        if self.strictness is Strictness.WHOLE:
            return _FORM if _TWO_LINES.search(text) else None
        if self.strictness is Strictness.NO_LOGIN:
            refusal = self._refusal_behind_login(text, row)
        else:
            refusal = self._refusal_of_line(text, row, arg)
        if self.strictness is Strictness.LINES:
            refusal = refusal or self._refusal_behind_login(text, row)
        if self.lock_step:
            refusal = refusal or self._refusal_of_order(text, row, arg)
            if row.role in _FORGETS_NAME or (refusal is None and row.name not in _KEEPS_NAME):
                self._named = False
        if refusal is not None:
            self.not_passed += 1
        return refusal

    def holds(self, head: bytes) -> bool:
        """Return whether an unfinished line that begins so must be held until it is whole."""
        if self.strictness is Strictness.NONE or self.strictness is Strictness.NO_LOGIN:
            words = _REFUSED_BEHIND_LOGIN if self.strictness is Strictness.NO_LOGIN else frozenset()
            return grammar.may_be(words, head) or (
                self._decides_stls and grammar.may_be(grammar.STLS_WORDS, head)
            )
        return True

    def _refusal_behind_login(self, text: bytes, row: Command) -> LocalReply | None:
        """Refuse what belongs before the login of a client that has logged in.

        Twisted's server judges a second login (against RFC 5034 section 4). STLS (RFC 2595 section 4: only in
        the AUTHORIZATION state) would hide one.
        """
        if row is grammar.UNKNOWN and (loose := grammar.loosely(text)) is not None:
            row = loose[0]
        return _LOGGED_IN if row.name.encode("ascii") in _REFUSED_BEHIND_LOGIN else None

    def _refusal_of_line(self, text: bytes, row: Command, arg: bytes) -> LocalReply | None:
        if row is grammar.UNKNOWN:
            word = text.partition(b" ")[0]
            if self.lock_step or not _WORD.match(word):
                return _UNKNOWN
        if not (row.has_form(arg) and text[:1] > b" "):
            return _FORM
        if row.role is not Role.PASS and _CONTROL.search(text):
            return _FORM
        return _TOO_LONG if len(text) > LINE and not self._may_be_long(text, row, arg) else None

    def _may_be_long(self, text: bytes, row: Command, arg: bytes) -> bool:
        """Return whether a server with a small buffer finds no command in the rest of a long line."""
        if row.role is Role.PASS:
            return not (_BLANK_OR_CONTROL.search(arg) or grammar.ends_in_command(text))
        if row.role is Role.AUTH:
            mechanism, _, initial = arg.partition(b" ")
            form = sasl_form(mechanism.decode("ascii").upper())
            if form is None:
                form = opaque_form()
            return form.long and _is_safe_when_long(initial, form)
        return False

    def _refusal_of_order(self, text: bytes, row: Command, arg: bytes) -> LocalReply | None:
        if not (row.before_login or self._is_added(text)):
            preauthenticated = row.role is Role.MAILBOX and self._options.mailbox_before_login
            if preauthenticated:
                return None
            return _UNKNOWN if AUTHORIZATION in row.states else _LOG_IN_FIRST
        if row.role is Role.PASS:
            return None if self._named else _USER_FIRST
        if row.role is Role.AUTH:
            return self._refusal_of_auth(arg)
        if row.role is Role.USER or row.role is Role.APOP:
            name = arg if row.role is Role.USER else arg[:-33]
            if b" " in name and self._options.blanks_in_names == "deny":
                return _NO_BLANKS
        return None

    def _is_added(self, text: bytes) -> bool:
        return text.partition(b" ")[0].upper() in self._options.words

    # --- exchanges ----------------------------------------------------------------------------------------

    def _refusal_of_auth(self, arg: bytes) -> LocalReply | None:
        mechanism, blank, initial = arg.partition(b" ")
        form = sasl_form(mechanism.decode("ascii").upper())
        if form is None:
            if not self._options.unknown_mechanisms:
                return _NO_MECHANISM
            form = opaque_form()
        self._form, self._turn, self._challenges = form, 0, form.challenges
        if not blank:
            return None
        if not form.initial:
            return _NO_INITIAL
        message = b"" if initial == b"=" else _decoded(initial)
        if message is None or not form.fits(0, message):
            return MALFORMED
        exchange = Exchange(mechanism)
        exchange.initial(initial)
        if not self.passes_name(exchange.user):
            return _NO_BLANKS
        self._turn = 1
        self._challenges -= 1
        return None

    def challenged(self) -> None:
        """Count a challenge of the server."""
        self._challenges -= 1

    def passes_response(self, text: bytes) -> bool:
        """Return whether a SASL response passes, as ``*`` does."""
        self.long_line = len(text) > SASL_LINE
        if text == b"*":
            return True
        form = self._form
        if form is None or (self._challenges < 0 and not form.endless):
            return False
        message = _decoded(text)
        if message is None or not form.fits(self._turn, message):
            return False
        if self.long_line and not form.long:
            return False
        if len(text) > LINE and not _is_safe_when_long(text, form):
            return False
        self._turn += 1
        return True

    def passes_name(self, user: str, realm: str = "") -> bool:
        """Return whether the name that was read in a SASL message passes, and note the realm besides it."""
        self._realm = realm
        blanks = self._options.blanks_in_names != "deny" or " " not in user
        return blanks and _NO_NAME.search(user) is None

    # --- what becomes of lines ----------------------------------------------------------------------------

    def named(self, ok: bool) -> None:
        """Know the server's answer to USER."""
        self._named = ok

    def readings(self, user: str) -> tuple[str, ...]:
        """Return the names besides ``user`` that some servers read in it.

        They stop at a blank, or trim: Twisted's server skips blanks before the name. Dovecot 2.3.19 and
        Cyrus SASL look for the account in the realm of DIGEST-MD5.
        """
        if not self.lock_step:
            return ()
        names = [user]
        if " " in user and self._options.blanks_in_names == "both":
            trimmed = user.strip(" ")
            names += [trimmed, user.rstrip(" "), trimmed.partition(" ")[0]]
        if self._realm:
            names += [f"{name}@{self._realm}" for name in names if "@" not in name]
        return tuple(name for name in dict.fromkeys(names) if name != user)

    @property
    def hides_unreadable(self) -> bool:
        """Whether mechanisms are taken out of the server's lists that would be refused."""
        return self.lock_step and not self._options.unknown_mechanisms


USER_PASS: Final = "USER/PASS"
"""The mechanism of a login by USER and PASS (RFC 1939 section 7)."""

_FORGETS_NAME: Final = frozenset({Role.AUTH, Role.APOP, Role.STLS, Role.PASS, Role.RPOP})


def _decoded(text: bytes) -> bytes | None:
    """Decode strict base64; return None if it is none."""
    return binascii.a2b_base64(text) if is_strict_base64(text) else None


def _is_safe_when_long(text: bytes, form: SaslForm) -> bool:
    """Return whether what a small buffer leaves of a long base64 text is neither a command nor a response.

    The rest may begin at any of its characters, so it is decoded from each of the four offsets.
    """
    if grammar.ends_in_command(text):
        return False
    if form.mark is None:
        return True
    padded = (text.rstrip(b"=")[offset:] for offset in (1, 2, 3))
    shifted = (base64.b64decode(part[: len(part) - len(part) % 4]) for part in padded)
    return not any(form.mark.search(message) for message in shifted)
