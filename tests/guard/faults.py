"""Planted faults: what the guard looks at and would no longer, one thing each; the property must notice."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from pop3proxy.analyzer import guard, sasl
from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import State
from pop3proxy.analyzer.grammar import UNKNOWN, Command, Role
from pop3proxy.analyzer.guard import USER_PASS, Guard
from pop3proxy.analyzer.sasl import Exchange
from pop3proxy.analyzer.saslforms import SaslForm
from pop3proxy.analyzer.state import ANSWER, COMMAND
from pop3proxy.proxy.relay import Relay

Plant = Callable[[pytest.MonkeyPatch], None]


def _replacing(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    """Plant ``make(original)`` in place of an attribute."""
    original = getattr(owner, name)
    return lambda patch: patch.setattr(owner, name, make(original))


def _together(*plants: Plant) -> Plant:
    """Plant several changes that are one fault."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for each in plants:
            each(patch)

    return plant


def _is(value: Any) -> Callable[[Any], Any]:
    """Make a constant of what was looked at."""
    return lambda original: value


def _says(value: Any) -> Callable[[Any], Any]:
    """Answer the same to every question."""
    return lambda original: lambda *args: value


def _forgetting(*names: str) -> Plant:
    """Let the name of USER outlive some commands."""
    roles = {Role[name] for name in names}
    return _together(
        _replacing(guard, "_FORGETS_NAME", lambda forgets: forgets - roles),
        _replacing(guard, "_KEEPS_NAME", lambda keeps: keeps | set(names)),
        # The analyzer itself remembers whom USER named last.
        _replacing(Analyzer, "_attempt", _keeps_the_user),
    )


def _keeps_the_user(attempt: Any) -> Any:
    def faulty(self: Any, *args: str) -> Any:
        user = self._user
        try:
            return attempt(self, *args)
        finally:
            self._user = user

    return faulty


def _skips_blanks(check: Any) -> Any:
    return lambda self, arg: check(self, arg.lstrip(b" "))


def _believes_every_user(named: Any) -> Any:
    return lambda self, ok: named(self, True)


def _passes_unknown_words(refusal: Any) -> Any:
    def faulty(self: Any, text: bytes, row: Command, arg: bytes) -> Any:
        return None if row is UNKNOWN else refusal(self, text, row, arg)

    return faulty


def _needs_no_user(order: Any) -> Any:
    def faulty(self: Any, text: bytes, row: Command, arg: bytes) -> Any:
        return None if row.role is Role.PASS else order(self, text, row, arg)

    return faulty


def _speaks_before_the_answer(in_turn: Any) -> Any:
    return property(lambda self: self._client_expects is not ANSWER)


def _takes_ok_for_a_login(accepted_nothing: Any) -> Any:
    def faulty(self: Any, exchange: Any) -> bool:
        self._client_expects = COMMAND
        self.connection.state = State.TRANSACTION
        self._guard.entered(State.TRANSACTION)
        return False

    return faulty


def _takes_the_denied(deny: Any) -> Any:
    return lambda self, flow, step, verdict: self._let_pass(flow, step)


def _is_never_long(slot: Any) -> Any:
    return property(lambda self: False, lambda self, value: None)


def _goes_on_out_of_step(lose: Any) -> Any:
    def faulty(self: Any, why: str) -> None:
        if why != "out_of_step":
            lose(self, why)

    return faulty


def _loses_the_name(attempt: Any) -> Any:
    def faulty(self: Any, user: str, password: str, mechanism: str, *more: Any) -> Any:
        if mechanism != USER_PASS:
            self._named, self._named_last = None, ""
        return attempt(self, user, password, mechanism, *more)

    return faulty


def _in_lock_step(begin: Any) -> Any:
    def begun(self: Guard, options: Any) -> None:
        begin(self, options)
        self.lock_step = True

    return begun


GUARDED = {
    "blanks behind AUTH are skipped": _together(
        _replacing(Command, "has_form", _skips_blanks),
        _replacing(Guard, "_refusal_of_auth", _skips_blanks),
        _replacing(Guard, "_refusal_behind_login", _says(None)),
        _replacing(Exchange, "odd_line", _is(property(_says(False)(None), _says(None)(None)))),
    ),
    "a refused USER names": _replacing(Guard, "named", _believes_every_user),
    "the name outlives AUTH": _forgetting("AUTH"),
    "the name outlives APOP": _forgetting("APOP"),
    "PASS needs no USER": _replacing(Guard, "_refusal_of_order", _needs_no_user),
    "no lock-step": _replacing(Analyzer, "_in_turn", _speaks_before_the_answer),
    "a +OK is a success": _replacing(Analyzer, "_accepted_nothing", _takes_ok_for_a_login),
    "commands may be long": _replacing(guard, "LINE", _is(1 << 20)),
    "a password may be long": _replacing(Guard, "_may_be_long", _says(True)),
    "a long login is followed": _replacing(Guard, "long_line", _is_never_long),
    "arguments have any form": _together(
        _replacing(Command, "has_form", _says(True)),
        _replacing(guard, "_CONTROL", _is(re.compile(rb"(?!)"))),
    ),
    "unknown words pass": _replacing(Guard, "refusal", _passes_unknown_words),
    "messages have any form": _replacing(SaslForm, "fits", _says(True)),
    "base64 is decoded leniently": _replacing(guard, "_decoded", _is(sasl._base64)),
    "names have one reading": _replacing(Guard, "readings", _says(())),
    "replies out of step are followed": _replacing(Analyzer, "_lose", _goes_on_out_of_step),
    "the denied is passed": _replacing(Relay, "_deny", _takes_the_denied),
}
"""Faults of the guard, by what it no longer looks at."""

UNGUARDED = {
    "every session is guarded": _replacing(Guard, "__init__", _in_lock_step),
    "an attempt without an answer is forgotten": _replacing(
        Analyzer, "_came_to_nothing", _says(None)
    ),
    "AUTH takes the name of USER": _replacing(Analyzer, "_attempt", _loses_the_name),
}
"""Faults where nobody decides."""
