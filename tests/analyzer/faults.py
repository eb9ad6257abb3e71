"""Planted faults: small changes to the analyzer, each of which one property has to notice."""

import binascii
from collections.abc import Callable
from typing import Any

import pytest

from pop3proxy.analyzer import requests, sasl, state
from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Data, LoginAttempt
from pop3proxy.analyzer.lines import BodyEnd, LineCutter

Plant = Callable[[pytest.MonkeyPatch], None]


def _replacing(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    """Plant ``make(original)`` in place of an attribute."""
    original = getattr(owner, name)

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, make(original))

    return plant


def _forgets_a_cr_at_the_seam(join: Any) -> Any:
    def faulty(self: Any, rest: bytes, limit: int) -> Any:
        line = join(self, rest, limit)
        self.crlf = rest[-1:] == b"\r"
        return line

    return faulty


def _forgets_the_seam(find: Any) -> Any:
    def faulty(self: Any, data: bytes, start: int) -> Any:
        self._tail = b"xxxx"
        return find(self, data, start)

    return faulty


def _measures_only_the_last_piece(keep: Any) -> Any:
    def faulty(self: Any, piece: bytes, limit: int) -> None:
        keep(self, piece, limit)
        self._length = len(piece)

    return faulty


def _loses_what_waits(feed: Any) -> Any:
    def faulty(self: Any, data: bytes) -> None:
        self._chunk, self._pos = data, 0

    return faulty


def _one_too_few(step: Any) -> Any:
    return lambda self: step(self) - 1


def _one_too_many(step: Any) -> Any:
    return lambda self: step(self) + 1


def _raises_on_bad_base64(decode: Any) -> Any:
    return binascii.a2b_base64


def _raises_on_bad_utf8(decode: Any) -> Any:
    return lambda data: data.decode("utf-8")


def _takes_every_challenge(challenge: Any) -> Any:
    def faulty(self: Any, text: bytes) -> None:
        self._owed[0].exchange.challenge(text)
        challenge(self, text)

    return faulty


def _keeps_whole_lines(keep: Any) -> Any:
    return lambda self, piece, limit: keep(self, piece, 1 << 30)


def _keeps_all_that_is_undecided(keep: Any) -> Any:
    def faulty(self: Any) -> Any:
        piece = self._client.take(self._client.waiting)
        self._undecided = (self._undecided or bytearray()) + piece
        return len(piece)

    return faulty


def _never_owes_too_much(too_much: Any) -> Any:
    return lambda self: False


def _forgets_the_login(may_become: Any) -> Any:
    return lambda self, side, head: may_become(self, side, head) - {LoginAttempt}


def _takes_a_body_for_replies(may_become: Any) -> Any:
    return lambda self, side, head: may_become(self, side, head) - {Data}


def _expects_no_body_of_an_unknown_command(kinds: Any) -> Any:
    return kinds - {Data}


def _forgets_who_was_not_judged(came_to_nothing: Any) -> Any:
    return lambda self, oddity, attempt: None


def _forgets_who_was_refused(refused: Any) -> Any:
    def faulty(self: Any, step: Any) -> bytes:
        instead: bytes = refused(self, step)
        self._denied = None
        return instead

    return faulty


def _numbers_all_alike(number: Any) -> Any:
    def faulty(self: Any) -> int:
        number(self)
        return 1

    return faulty


FORESEEING = [
    _replacing(Analyzer, "_may_become", _forgets_the_login),
    _replacing(Analyzer, "_may_become", _takes_a_body_for_replies),
    _replacing(state, "STATUS_OR_DATA_MAY", _expects_no_body_of_an_unknown_command),
]
CUTTING = [
    _replacing(LineCutter, "_join", _forgets_a_cr_at_the_seam),
    _replacing(BodyEnd, "find", _forgets_the_seam),
    _replacing(LineCutter, "_keep", _measures_only_the_last_piece),
]
TILING = [
    _replacing(LineCutter, "feed", _loses_what_waits),
    _replacing(Analyzer, "_skip_body", _one_too_few),
    _replacing(Analyzer, "_keep_undecided", _one_too_many),
]
RAISING = [
    _replacing(sasl, "_base64", _raises_on_bad_base64),
    _replacing(requests, "decode", _raises_on_bad_utf8),
    _replacing(Analyzer, "_challenge", _takes_every_challenge),
]
JUDGING = [
    _replacing(Analyzer, "_came_to_nothing", _forgets_who_was_not_judged),
    _replacing(Analyzer, "refused", _forgets_who_was_refused),
    _replacing(Analyzer, "_number", _numbers_all_alike),
]
KEEPING = [
    _replacing(LineCutter, "_keep", _keeps_whole_lines),
    _replacing(Analyzer, "_keep_undecided", _keeps_all_that_is_undecided),
    _replacing(Analyzer, "_too_much_owed", _never_owes_too_much),
]
