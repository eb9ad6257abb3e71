"""Masks the secrets in events, for every hook that writes them down; no formats and no files.

A hook that writes passes each event through ``masked`` first and writes what comes back. What is secret
is marked by the analyzer (``Secret``), named by the event (``password``) or known from what the client
sent before (``Connection.secrets``).
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..analyzer.events import (
    Connect,
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Policy,
    Reply,
    Request,
    Secret,
    SessionEnd,
    StartTLS,
    Unexpected,
)

MASK: Final = "(masked)"
"""What is written in a secret's place."""

E = TypeVar("E", bound=Event)

# Looked up for each request: on Python 3.11 a member costs as much as what is done with it.
_NOTHING: Final = Secret.NOTHING

# A server may cut off what it echoes, so the beginning of a long secret is as good as the whole.
_TELLING: Final = 16

# Below this length a secret is likely to be a part of some innocent word.
_SHORT: Final = 4

_FIRST_WORD: Final = re.compile("[A-Za-z]{0,16}")


def masked(event: E) -> E:
    """Give the event as it may be written down: itself if nothing in it is secret, else a masked copy.

    Masking what is masked changes nothing. Raises KeyError for an event that no rule is known for, so
    that a new event is not written before somebody has thought about its secrets.
    """
    shown: E = _RULES[type(event)](event)
    return shown


def in_clear(event: E) -> E:
    """Give the event as it is: for the operator who wants secrets written, and said so."""
    return event


def _request(event: Request) -> Request:
    if event.secret is _NOTHING:
        return event
    command, arg = _MASKED_LINE[event.secret](event.command, event.arg)
    return Request(event.c, event.ts, command, arg, event.secret)


def _all(text: str) -> str:
    return MASK if text else ""


def _after_first_word(arg: str) -> str:
    words = arg.split(None, 1)
    return f"{words[0]} {MASK}" if len(words) > 1 else arg


def _after_last_blank(arg: str) -> str:
    """Mask all where no blank sets the secret apart: better no name than a secret."""
    public, blank, _ = arg.rstrip().rpartition(" ")
    return f"{public} {MASK}" if blank else _all(arg)


_MASKED_LINE: Final[dict[Secret, Callable[[str, str], tuple[str, str]]]] = {
    Secret.ARGUMENT: lambda command, arg: (command, _all(arg)),
    Secret.AFTER_FIRST_WORD: lambda command, arg: (command, _after_first_word(arg)),
    Secret.AFTER_LAST_BLANK: lambda command, arg: (command, _after_last_blank(arg)),
    Secret.LINE: lambda command, arg: (_all(command), _all(arg)),
}


def _reply(event: Reply) -> Reply:
    if _repeats(event.msg, event.c.secrets):
        return Reply(event.c, event.ts, event.cmd, MASK, event.denial)
    return event


def _login_attempt(event: LoginAttempt) -> LoginAttempt:
    if not event.password:
        return event
    return LoginAttempt(event.c, event.ts, event.user, MASK, event.mechanism)


def _login_success(event: LoginSuccess) -> LoginSuccess:
    if not event.password:
        return event
    return LoginSuccess(event.c, event.ts, event.user, MASK, event.mechanism)


def _login_failure(event: LoginFailure) -> LoginFailure:
    # The code is the beginning of the server's text, which may be an echo.
    code = MASK if _repeats(event.code, event.c.secrets) else event.code
    return LoginFailure(
        event.c, event.ts, event.user, _all(event.password), event.mechanism, event.reason, code
    )


def _unexpected(event: Unexpected) -> Unexpected:
    if event.is_orig:
        detail = _first_word(event)
    elif _repeats(event.detail, event.c.secrets):
        detail = MASK
    else:
        return event
    return Unexpected(event.c, event.ts, event.is_orig, event.msg, detail, event.secret)


def _first_word(event: Unexpected) -> str:
    """Show of a client's line its first word: what follows may be anything, a mistyped PASS too."""
    if event.secret is Secret.LINE:
        return _all(event.detail)
    word = _FIRST_WORD.match(event.detail)
    return word[0] if word else ""


def _repeats(text: str, secrets: tuple[str, ...]) -> bool:
    """Tell whether the server's text repeats one of the secrets, in any case of letters."""
    if not secrets or not text:
        return False
    text = text.casefold()
    for secret in secrets:
        wanted = secret.casefold()
        if _holds(text, wanted):
            return True
    return False


def _holds(text: str, secret: str) -> bool:
    """Look for a secret; a short one counts only if no letter, digit or underscore touches it."""
    if len(secret) >= _SHORT:
        return secret[:_TELLING] in text
    return secret != "" and re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text) is not None


_RULES: Final[dict[type[Event], Callable[[Any], Any]]] = {
    Connect: in_clear,
    Request: _request,
    Reply: _reply,
    Data: in_clear,
    LoginAttempt: _login_attempt,
    LoginSuccess: _login_success,
    LoginFailure: _login_failure,
    StartTLS: in_clear,
    Unexpected: _unexpected,
    SessionEnd: in_clear,
    # Its passwords are numbers.
    Policy: in_clear,
}
