"""Plays a made-up client against a made server, with the proxy between them, and checks what must hold.

Between the two is what ``pop3proxy serve`` runs, in memory: ``pop3proxy.testing.Play``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.task import deferLater

from pop3proxy.analyzer.events import (
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Unexpected,
)
from pop3proxy.hooks.api import PASS, Deny, Hook, Verdict
from pop3proxy.testing import Play

from .dialogues import Dialogue
from .habits import Extra, Habits, Rest, told
from .madeserver import TAG, Judged, MadeServer

_ROUNDS = 2000
"""How often server and proxy may answer each other before that counts as endless."""

_HONEST = re.compile(rb"[A-Za-z0-9+/=*]*( [^\0-\x1f]*)?\r\n\Z")


_NOT_JUDGED = (Oddity.LOGIN_CANCELLED, Oddity.CUT_LOGIN)

Outcome = LoginSuccess | LoginFailure | Unexpected


@dataclass(slots=True)
class Asking:
    """An attempt that a hook was asked about, and what came of it."""

    attempt: int
    user: bytes
    password: bytes
    mechanism: str
    denied: bool


def _sent(text: str) -> bytes:
    """Return the bytes that a text of an event stands for."""
    return text.encode("utf-8", "surrogateescape")


class _Listening(Hook):
    """Hears of logins, and decides nothing."""

    def pop3_login_attempt(self, event: LoginAttempt) -> None:
        """Hear of an attempt."""


class _Deciding(Hook):
    """Denies the attempts of some numbers, and notes what it is asked."""

    blocking = True

    def __init__(self, dialogue: Dialogue) -> None:
        self.asked: list[Asking] = []
        self._refuses = dialogue.refuses
        self._later = dialogue.later
        self._reactor: Any = None

    def start(self, reactor: Any) -> None:
        self._reactor = reactor

    def pop3_login_attempt(self, event: LoginAttempt) -> Any:
        denied = event.attempt - 1 in self._refuses
        user, password = _sent(event.user), _sent(event.password)
        self.asked.append(Asking(event.attempt, user, password, event.mechanism, denied))
        verdict: Verdict = Deny() if denied else PASS
        return deferLater(self._reactor, 0, lambda: verdict) if self._later else verdict


class _DecidingMore(_Deciding):
    """Is asked about requests too, and passes them."""

    def pop3_request(self, event: object) -> Verdict:
        return PASS


class Stage:
    """One session: the client's dialogue, the proxy, and a server with its habits."""

    def __init__(self, habits: Habits, dialogue: Dialogue, hook: Hook) -> None:
        self.habits = habits
        self.dialogue = dialogue
        self.server = MadeServer(habits)
        self.play = Play(hook)
        self.said = b""  # by the client
        self.answered = b""  # by the server
        self._unsent: list[bytes] = []  # of the server
        self._seen = 0  # of what the server got
        self._left = False

    def perform(self) -> None:
        """Play the dialogue to the end of what both have to say."""
        greeting = self.server.greeting()
        if not self.dialogue.greets_late:
            self._answer(greeting)
        for number, group in enumerate(self.dialogue.groups):
            self._say(b"".join(group))
            if number == 0 and self.dialogue.greets_late:
                self._answer(greeting)
            self._settle()
            self.settled()

    def settled(self) -> None:
        """Check what must hold whenever all has been said that can be."""

    def judged(self, judged: Judged) -> None:
        """Check what must hold when the server has judged a login."""

    def _say(self, data: bytes) -> None:
        size = self.dialogue.piece or len(data) or 1
        if size == 1 and len(data) > 600:
            # What is long is cut otherwise, or it takes seconds.
            size = 97
        for at in range(0, len(data), size):
            if self.play.over:
                return
            self.said += data[at : at + size]
            self.play.client(data[at : at + size])
            self._read()

    def _read(self) -> None:
        """Let the server read what has reached it."""
        got = self.play.to_server[self._seen :]
        if not got or self._left:
            return
        self._seen += len(got)
        before = len(self.server.judged)
        self._unsent += self.server.feed(got)
        for judged in self.server.judged[before:]:
            self.judged(judged)

    def _settle(self) -> None:
        """Let the server answer until neither has more to say."""
        for _ in range(_ROUNDS):
            self._read()
            if not self._unsent:
                break
            if self.habits.writes_apart:
                self._answer(self._unsent.pop(0))
            else:
                replies, self._unsent = b"".join(self._unsent), []
                self._answer(replies)
        else:
            raise AssertionError("the server and the proxy answer each other without end")
        if self.server.closed and not self._left and not self.play.over:
            self._left = True
            self.play.server_leaves()

    def _answer(self, data: bytes) -> None:
        size = self.dialogue.reply_piece or len(data)
        if self.habits.extra is not Extra.NOTHING or self.server.overflowed:
            # A line too much is in the same write: else no reader could tell which line it answers.
            size = len(data)
        for at in range(0, len(data), size or 1):
            if self.play.over:
                return
            self.answered += data[at : at + size]
            self.play.server(data[at : at + size])

    def end(self) -> None:
        """Let the client leave, and see that the proxy had no trouble of its own."""
        if not self.play.over and not self._left:
            self.play.client_leaves()
        self.play.close()
        assert self.play.failed == [], "a hook failed"
        assert "inspection_failed" not in self.play.counts, "inspection failed"
        self._see_outcomes()

    def _see_outcomes(self) -> None:
        """See that each attempt has one outcome; a failure without credentials is no attempt."""
        attempts = [event.attempt for event in self.play.raised("pop3_login_attempt")]
        outcomes = [outcome.attempt for outcome in self.outcomes()]
        assert sorted(outcomes) == list(range(1, len(outcomes) + 1)), f"outcomes are {outcomes}"
        assert attempts == sorted(set(attempts)), f"attempts are {attempts}"
        assert set(attempts) <= set(outcomes), f"of {attempts} only {outcomes} have an outcome"
        for success in self.play.raised("pop3_login_success"):
            assert success.attempt in attempts, f"nobody tried {success}"

    def outcomes(self) -> list[Outcome]:
        """Return what became of the attempts."""
        return [
            event
            for event in self.play.events
            if isinstance(event, LoginSuccess | LoginFailure)
            or (isinstance(event, Unexpected) and event.msg in _NOT_JUDGED and event.attempt)
        ]

    # --- the client's own count -------------------------------------------------------------------------

    def responses(self) -> list[bytes]:
        """Return the first lines of what answered the client, as it counts them; not the greeting."""
        return list(_responses(self.play.to_client, self.server.bodies))[1:]

    def lines(self) -> list[bytes]:
        """Return the whole lines that the client has said, each with its end."""
        return re.findall(rb"[^\n]*\n", self.said)


def _responses(data: bytes, bodies: Iterable[int]) -> Iterable[bytes]:
    lines = iter(re.findall(rb"[^\n]*\n", data))
    for line in lines:
        yield line
        tag = TAG.match(line)
        if tag is not None and int(tag[1]) in bodies:
            for inner in lines:
                if inner.rstrip(b"\r\n") == b".":
                    break


class Guarded(Stage):
    """With a hook that decides about logins: none is judged that it was not asked about."""

    def __init__(self, habits: Habits, dialogue: Dialogue) -> None:
        self.hook = (_DecidingMore if dialogue.decides_requests else _Deciding)(dialogue)
        super().__init__(habits, dialogue, self.hook)
        self._judged_of = 0  # how many of the askings were there when the last login was judged

    def judged(self, judged: Judged) -> None:
        """Check that the hook was asked about this login, and passed it."""
        asked = self.hook.asked[self._judged_of :]
        self._judged_of = len(self.hook.asked)
        assert asked, f"judged, and nobody was asked: {judged}"
        # An attempt is asked about once for each way in which servers read its name.
        last = [ask for ask in asked if ask.attempt == asked[-1].attempt]
        assert any(self._is_of(ask, judged) for ask in last), f"{judged} is not what {last} asked"
        assert not any(ask.denied for ask in last), f"judged, and denied: {judged}"

    def _is_of(self, ask: Asking, judged: Judged) -> bool:
        if (ask.user, ask.mechanism) != (judged.name, judged.mechanism):
            return False
        return judged.password is None or self._reads(ask.password, judged.password)

    def _reads(self, asked: bytes, judged: bytes) -> bool:
        """Return whether this server may read a password so: it may trim it, or cut it off."""
        if asked == judged:
            return True
        if self.habits.trims_the_end and asked.rstrip() == judged.rstrip():
            return True
        if self.habits.skips_blanks_behind_the_word and asked.lstrip() == judged:
            return True
        return self.server.overflowed > 0 and asked.startswith(judged)

    def settled(self) -> None:
        self._see_pairs()
        if not self.play.over and not self._may_hang():
            assert len(self.responses()) == len(self.lines()), "a line is not answered"

    @property
    def _counts(self) -> bool:
        """Whether the server has given each of the client's lines one reply."""
        server = self.server
        splits = server.overflowed and self.habits.rest is Rest.LINE
        return self.habits.one_reply_a_line and not splits and not server.swallowed

    def _may_hang(self) -> bool:
        if not self._counts or self.server.waiting:
            return True
        return self.server.logged_in and not self._honest

    @property
    def _honest(self) -> bool:
        begun = self.said.rpartition(b"\n")[2]
        return b"\r" not in begun and all(_HONEST.match(line) for line in self.lines())

    def _see_pairs(self) -> None:
        """See that each reply of the server is where the client expects it, by its own count."""
        if not self._counts or (self.server.logged_in and not self._honest):
            return
        lines = self.lines()
        for number, response in enumerate(self.responses()):
            tag = TAG.match(response)
            if tag is not None:
                answered = self.server.lines[int(tag[1])].strip()
                assert number < len(lines), f"answers nothing: {response!r}"
                line = lines[number].strip()
                assert line.startswith(answered), f"{response!r} in the place of {line!r}"


class Unguarded(Stage):
    """With a hook that only listens: bytes pass unchanged, and the outcomes are the server's."""

    def __init__(self, habits: Habits, dialogue: Dialogue) -> None:
        super().__init__(habits, dialogue, _Listening())

    def settled(self) -> None:
        assert self.play.to_server == self.said, "the server did not get what the client said"
        assert self.play.to_client == self.answered, "the client did not get what the server said"

    def end(self) -> None:
        super().end()
        habits = self.habits
        if habits.reads_as_most and habits.one_reply_a_line and not self.server.overflowed:
            self._see_verdicts()

    def _see_verdicts(self) -> None:
        """See that each login that the server judged came to the same in the events, in that order.

        What it refused unread may have failed in the events, too: an -ERR does not always say which it was.
        """
        told = [
            (_sent(login.user).strip(), login.mechanism, isinstance(login, LoginSuccess))
            for login in self.outcomes()
            if not isinstance(login, Unexpected)
        ]
        judged = [
            (login.name.strip(), login.mechanism, login.success)
            for login in self.server.judged
            if login.success is not None
        ]
        difference = f"events tell of {told}, and the server judged {judged}"
        later = iter(told)
        assert all(any(map(_same(login), later)) for login in judged), difference
        successes = sum(login[2] for login in told)
        assert successes == sum(login.success is True for login in self.server.judged), difference


_Told = tuple[bytes, str, bool]


def _same(judged: _Told) -> Callable[[_Told], bool]:
    """Make what compares a login of the events with one that the server judged.

    A server that ignored the initial response may have got an empty name behind it.
    """
    name, *rest = judged
    return lambda told: (told[0] == name or not name) and list(told[1:]) == rest


def guarded(habits: Habits, dialogue: Dialogue) -> Guarded:
    """Play a guarded session. Raises AssertionError for what must not be."""
    stage = Guarded(habits, dialogue)
    _perform(stage)
    return stage


def unguarded(habits: Habits, dialogue: Dialogue) -> Unguarded:
    """Play an unguarded session. Raises AssertionError for what must not be."""
    stage = Unguarded(habits, dialogue)
    _perform(stage)
    return stage


def _perform(stage: Stage) -> None:
    try:
        stage.perform()
        stage.end()
    except AssertionError as problem:
        raise AssertionError(f"{problem}\n  server: {told(stage.habits)}") from problem
