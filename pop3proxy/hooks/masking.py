"""Masks the secrets in events, for every hook that writes them down; no formats and no files.

A hook that writes passes each event through ``masked`` first and writes what comes back. What is secret
is marked by the analyzer (``Secret``), named by the event (``password``) or known from what the client
sent before (``Connection.secrets``). A text that a program writes besides goes through ``shown``.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, TypeVar

from ..analyzer.events import (
    Connect,
    Connection,
    Data,
    DataRun,
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
from ..analyzer.remembered import NOTHING_REMEMBERED
from ..analyzer.secrets import MECHANISMS, PUBLIC, password_behind
from ..analyzer.text import decode
from .ordinary import is_ordinary

MASK: Final = "(masked)"
"""What is written in a secret's place."""

E = TypeVar("E", bound=Event)

# Looked up for each request: on Python 3.11 a member costs as much as what is done with it.
_NOTHING: Final = Secret.NOTHING

_LETTERS: Final = re.compile(r"[A-Za-z]{1,16}")
_LENGTH: Final = re.compile(r"\([1-9][0-9]* bytes?\)")
_LONGEST_ORDINARY: Final = 96
"""Characters of a text that may be one that servers have built in."""

_DIGEST: Final = re.compile(r"(?<=[\0-\x20])[0-9a-f]{16,}", re.IGNORECASE)
_MECHANISMS: Final = MECHANISMS | {"", "USER/PASS", "APOP", "RPOP"}


def masked(event: E) -> E:
    """Give the event as it may be written down: itself if nothing in it is secret, else a masked copy.

    Masking what is masked changes nothing. Raises KeyError for an event that no rule is known for, so
    that a new event is not written before somebody has thought about its secrets.
    """
    result: E = RULES[type(event)](event)
    return result


def in_clear(event: E) -> E:
    """Give the event as it is: for the operator who wants secrets written, and said so."""
    return event


def shown(text: str, c: Connection) -> str:
    """Mask a text that is written beside the events of a session if it repeats a secret of the session."""
    if c.secrets is NOTHING_REMEMBERED or (len(text) <= _LONGEST_ORDINARY and is_ordinary(text)):
        return text
    return MASK if c.secrets.repeated_in(text) else text


def shown_name(name: str) -> str:
    """Mask in a user's name a password, or APOP's digest, that was sent on the same line.

    The name itself is shown even if the client has sent it as a password too: records are there to say
    who logged in, and a client must not be able to hide that.
    """
    if _is_plain(name):
        return name
    if (digest := _DIGEST.search(name)) is not None:
        name = name[: digest.start()] + MASK
    return _after_pass(name)


def repeats_no_secret(run: DataRun) -> bool:
    """Return whether all lines of a run of mail can be written as they are."""
    secrets = run.c.secrets
    return secrets is NOTHING_REMEMBERED or not secrets.repeated_in_mail(run.data)


# --- what is shown of a text ------------------------------------------------------------------------------


def _all(text: str) -> str:
    return MASK if text else ""


def _length(size: int) -> str:
    """Write how long a word is, in its place."""
    if not size:
        return ""
    return "(1 byte)" if size == 1 else f"({size} bytes)"


def _word(word: str) -> str:
    """Show a line's first letters if they are a verb, which is no secret, or else their number."""
    return word if word in PUBLIC or _LENGTH.fullmatch(word) else _length(len(word))


def _mechanism(name: str) -> str:
    """Show the name of a known mechanism, or else its length: it may be a password in a wrong place."""
    if name in _MECHANISMS or name.upper() in _MECHANISMS or _LENGTH.fullmatch(name):
        return name
    return _length(len(name.encode("utf-8", "surrogateescape")))


def _is_plain(name: str) -> bool:
    """Return whether nothing can have been sent with a name."""
    return name.isprintable() and " " not in name and "," not in name and ";" not in name


def _user(user: str, mechanism: str) -> str:
    """Show a name; what follows a blank in APOP's is more likely a digest before an extra word."""
    if _is_plain(user):
        return user
    if mechanism == "APOP" and len(user.split(None, 1)) > 1:
        return _after_name(user)
    return shown_name(user)


def _after_first_word(arg: str) -> str:
    """Mask the response behind a mechanism's name, and the name if it is not a known one."""
    if _LENGTH.match(arg.lstrip()):
        return arg
    blanks = arg[: len(arg) - len(arg.lstrip())]
    words = arg.split(None, 1)
    name = blanks + _mechanism(words[0]) if words else arg
    return f"{name} {MASK}" if len(words) > 1 else name


def _after_name(arg: str) -> str:
    """Mask all where nothing follows the name: better no name than a secret."""
    words = arg.split(None, 1)
    return f"{words[0]} {MASK}" if len(words) > 1 else _all(arg)


def _after_pass(name: str) -> str:
    password = decode(password_behind(name.encode("utf-8", "surrogateescape")))
    return name[: len(name) - len(password)] + MASK if password else name


def _first_word(event: Unexpected) -> str:
    """Show of a client's line its first word if that is a verb, or else how many letters it begins with."""
    line = event.detail
    if _LENGTH.fullmatch(line):
        return line
    letters = _LETTERS.match(line)
    if letters is None:
        return _all(line) if event.secret is Secret.LINE else ""
    word, behind = letters[0], line[letters.end() : letters.end() + 1]
    if event.secret is not Secret.LINE and word.upper() in PUBLIC and behind <= " ":
        return word
    return _length(len(word))


# --- events -----------------------------------------------------------------------------------------------


def _copier(kind: type[E], *changed: str) -> Callable[..., E]:
    """Return what makes copies of events of one kind with other values in some fields; all others are kept.

    It is compiled, as what dataclasses make is: ``dataclasses.replace`` takes six times as long.
    """
    names = [field.name for field in fields(kind)]
    arguments = ", ".join(name if name in changed else f"event.{name}" for name in names)
    made: Callable[..., E] = eval(
        f"lambda event, {', '.join(changed)}: kind({arguments})", {"kind": kind}
    )
    return made


_copied_request: Final = _copier(Request, "command", "arg")
_copied_reply: Final = _copier(Reply, "msg")
_copied_data: Final = _copier(Data, "data")
_copied_attempt: Final = _copier(LoginAttempt, "user", "password", "mechanism")
_copied_success: Final = _copier(LoginSuccess, "user", "password", "mechanism")
_copied_failure: Final = _copier(LoginFailure, "user", "password", "mechanism", "code")
_copied_unexpected: Final = _copier(Unexpected, "detail")
_copied_end: Final = _copier(SessionEnd, "user")
_copied_policy: Final = _copier(Policy, "key")


_MASKED_LINE: Final[dict[Secret, Callable[[str, str], tuple[str, str]]]] = {
    Secret.ARGUMENT: lambda command, arg: (_word(command), _all(arg)),
    Secret.ODD_ARGUMENT: lambda command, arg: (command, _all(arg)),
    Secret.AFTER_FIRST_WORD: lambda command, arg: (command, _after_first_word(arg)),
    Secret.AFTER_NAME: lambda command, arg: (command, _after_name(arg)),
    Secret.AFTER_PASS: lambda command, arg: (command, _after_pass(arg)),
    Secret.LINE: lambda command, arg: (
        command if _LENGTH.fullmatch(command) else _length(len(command)),
        _all(arg),
    ),
}


def _request(event: Request) -> Request:
    if event.secret is _NOTHING:
        return event
    return _copied_request(event, *_MASKED_LINE[event.secret](event.command, event.arg))


def _reply(event: Reply) -> Reply:
    msg = shown(event.msg, event.c)
    return event if msg is event.msg else _copied_reply(event, msg)


def _data(event: Data) -> Data:
    secrets = event.c.secrets
    if secrets is NOTHING_REMEMBERED or not secrets.repeated_in_mail(event.data):
        return event
    return _copied_data(event, MASK)


def _login_attempt(event: LoginAttempt) -> LoginAttempt:
    user, mechanism = _user(event.user, event.mechanism), _mechanism(event.mechanism)
    if not event.password and user == event.user and mechanism == event.mechanism:
        return event
    return _copied_attempt(event, user, _all(event.password), mechanism)


def _login_success(event: LoginSuccess) -> LoginSuccess:
    user, mechanism = _user(event.user, event.mechanism), _mechanism(event.mechanism)
    if not event.password and user == event.user and mechanism == event.mechanism:
        return event
    return _copied_success(event, user, _all(event.password), mechanism)


def _login_failure(event: LoginFailure) -> LoginFailure:
    user, mechanism = _user(event.user, event.mechanism), _mechanism(event.mechanism)
    # The code is the beginning of the server's text, which may be an echo.
    code = shown(event.code, event.c)
    return _copied_failure(event, user, _all(event.password), mechanism, code)


def _unexpected(event: Unexpected) -> Unexpected:
    detail = _first_word(event) if event.is_orig else shown(event.detail, event.c)
    if detail == event.detail:
        return event
    return _copied_unexpected(event, detail)


def _session_end(event: SessionEnd) -> SessionEnd:
    user = _user(event.user, event.mechanism)
    if user == event.user:
        return event
    return _copied_end(event, user)


def _policy(event: Policy) -> Policy:
    """Mask what was sent with a user's name; the passwords in keys are numbers."""
    key = shown_name(event.key)
    if key == event.key:
        return event
    return _copied_policy(event, key)


RULES: Final[dict[type[Event], Callable[[Any], Any]]] = {
    Connect: in_clear,
    Request: _request,
    Reply: _reply,
    Data: _data,
    LoginAttempt: _login_attempt,
    LoginSuccess: _login_success,
    LoginFailure: _login_failure,
    StartTLS: in_clear,
    Unexpected: _unexpected,
    SessionEnd: _session_end,
    Policy: _policy,
}
"""What masks the events of each kind, as ``masked`` does."""
