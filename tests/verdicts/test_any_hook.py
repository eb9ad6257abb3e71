"""Plays the analyzer's transcripts to hooks that pass everything, and to hooks that answer at random."""

import random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from pop3proxy.analyzer.events import (
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Request,
    Side,
    StartTLS,
)
from pop3proxy.hooks.api import VERDICTS, Delay, Deny, Drop, Hook, Pass, Verdict
from pop3proxy.hooks.faults import TimeLimit
from pop3proxy.testing import Play
from tests.analyzer.player import Cut, at_random, byte_by_byte, whole
from tests.analyzer.transcript import Transcript, Turn, read_all

TRANSCRIPTS = read_all()
SEEDS = 500

Kinds = frozenset[type[Event]]

EVERYTHING: Kinds = frozenset(VERDICTS)
ATTEMPTS: Kinds = frozenset({LoginAttempt})
OUTCOMES: Kinds = frozenset({LoginSuccess, LoginFailure})
UNGUARDED: Kinds = EVERYTHING - ATTEMPTS - OUTCOMES - {Request, StartTLS}

# Where being asked shows, though the hook passes everything.
ANSWERED_TOO_SOON = {
    "doubt-farewell-while-an-auth-waits",
    "sasl-refused-twice-then-a-login",
    "stls-and-auth-in-one-segment",
}
"""The server answers in one run what it gets, with such a hook, one after the other."""
TOO_LONG = {"framing-long-command-line", "sasl-plain-oversize"}
"""A line that can't be held ends the session."""
HALF_A_LINE = {"framing-client-cut-inside-a-line"}
"""Half a command is not passed on."""

PLAYABLE = [
    transcript
    for transcript in TRANSCRIPTS
    if transcript.name not in ANSWERED_TOO_SOON | TOO_LONG | HALF_A_LINE
]

# Where the guard shows.
NOT_PASSED = frozenset(
    [
        "command-behind-a-blank",
        "command-of-nul-bytes",
        "command-plus-minus-user",
        "command-word-of-an-unknown-command",
        "command-xclient-and-xoip",
        "framing-bare-cr-ends-no-line",
        "framing-colon-in-a-command",
        "framing-cr-cr-lf",
        "framing-eight-bit-names",
        "framing-empty-client-line",
        "framing-long-commands-within-the-limit",
        "framing-pipelined-lf-and-crlf",
        "framing-user-without-a-name",
        "login-again-after-a-success",
        "login-again-after-a-success-unanswered",
        "login-apop-behind-a-tab",
        "login-apop-forgets-the-pending-user",
        "login-apop-trailing-blank",
        "login-apop-with-a-digest-elsewhere",
        "login-apop-without-a-digest-is-malformed",
        "login-auth-after-a-success",
        "login-empty-name-refused",
        "login-harmless-commands-between-user-and-pass",
        "login-pass-accepted-behind-a-refused-user",
        "login-pass-accepted-behind-a-refused-user-and-in",
        "login-pass-behind-a-refused-user",
        "login-pass-without-any-user",
        "login-pass-without-any-user-accepted",
        "login-pipelined-guesses",
        "login-rpop-failure",
        "login-rpop-success",
        "login-second-pass-accepted",
        "login-second-pass-refused",
        "login-user-refused-behind-an-accepted-one",
        "not-pop3-http-client",
        "not-pop3-only-as-the-first-line",
        "not-pop3-tls-client",
        "not-pop3-tls-client-after-the-greeting",
        "quirk-cyrus",
        "quirk-dovecot",
        "sasl-blanks-of-any-kind",
        "sasl-cancelled-then-a-login",
        "sasl-challenges-without-end",
        "sasl-cram-md5-initial-response-ignored",
        "sasl-foo-cancelled",
        "sasl-foo-initial-response-failure",
        "sasl-foo-success",
        "sasl-foo-unsupported-with-initial-response",
        "sasl-login-asked-again-for-who-knows-what",
        "sasl-login-empty-user",
        "sasl-login-empty-user-asked-again",
        "sasl-oauthbearer-malformed",
        "sasl-oauthbearer-without-a-user",
        "sasl-plain-behind-two-blanks-left-open",
        "sasl-plain-behind-two-blanks-lists",
        "sasl-plain-behind-two-blanks-logs-in",
        "sasl-plain-empty-initial-response",
        "sasl-plain-malformed-initial-response-ignored",
        "sasl-plain-nul-in-password",
        "sasl-plain-one-nul",
        "sasl-plain-without-padding",
        "sasl-plain-word-behind-the-initial-response",
        "sasl-refused-mechanism-then-a-login",
        "sasl-refused-twice-then-a-login",
        "sasl-response-behind-a-refused-auth",
        "sasl-scram-malformed",
        "sasl-xoauth2-malformed",
        "state-authorization-commands-after-login",
        "state-other-command-before-login",
        "stls-and-auth-in-one-segment",
    ]
)
"""A line is not passed."""
NOT_STRICT_BEHIND_LOGIN = frozenset({"framing-commands-without-their-arguments", "xmit-refused"})
"""A line is not passed if requests are decided about."""
RESPONSE_NOT_PASSED = frozenset(
    [
        "sasl-commands-are-responses-while-challenged",
        "sasl-cram-md5-malformed",
        "sasl-digest-md5-malformed",
        "sasl-login-asked-again",
        "sasl-login-initial-response-ignored",
        "sasl-login-malformed-user",
        "sasl-ntlm-failure",
        "sasl-ntlm-malformed",
        "sasl-plain-empty-response",
        "sasl-plain-initial-response-ignored",
        "sasl-plain-inner-blanks",
        "sasl-plain-not-base64",
        "sasl-xoauth2-initial-response-ignored",
    ]
)
"""A response is malformed, or one too many, and the exchange is cancelled."""
NEVER_IN_TURN = frozenset(
    [
        "cut-login-behind-an-unanswered-stls",
        "cut-login-by-the-client",
        "login-unanswered-in-a-half-read-body",
        "not-pop3-imap-client",
        "not-pop3-smtp-client",
        "not-pop3-ssh-client",
        "reason-aborted-in-mid-line",
        "reason-aborted-is-the-first-of-many",
    ]
)
"""A line waits for a reply that never comes, and the server does not get it."""
NO_TLS_BEHIND_STLS = frozenset(
    [
        "stls-accepted-then-clear-text",
        "stls-with-bytes-behind-it",
        "stls-with-bytes-of-both-sides-behind-it",
        "stls-with-half-a-line-behind-it",
    ]
)
"""A session ends in which no TLS follows STLS."""
OTHERWISE = (
    NOT_PASSED | NOT_STRICT_BEHIND_LOGIN | RESPONSE_NOT_PASSED | NEVER_IN_TURN | NO_TLS_BEHIND_STLS
)

STRICT = [
    transcript
    for transcript in TRANSCRIPTS
    if transcript.name not in OTHERWISE | TOO_LONG | HALF_A_LINE
]


def _hook(kinds: Kinds, decide: Any) -> Hook:
    """Make a hook that is asked about some events; ``decide`` gets it and the event."""
    methods = {kind.name: decide for kind in kinds}
    made: Hook = type("Any", (Hook,), {"blocking": True, "start": _start, **methods})()
    return made


def _start(hook: Any, reactor: Any) -> None:
    hook.reactor = reactor


def _pass_at_once(hook: Any, event: Event) -> None:
    return None


def _pass_later(hook: Any, event: Event) -> Any:
    return deferLater(hook.reactor, 0, lambda: None)


def _perform(play: Play, turn: Turn, cut: Cut) -> None:
    if turn.ends:
        play.say(turn.said[0].source)
        return
    say = play.client if turn.side is Side.CLIENT else play.server
    for piece in cut(turn):
        say(piece)


def _got(transcript: Transcript, cut: Cut, *hooks: Hook) -> tuple[bytes, bytes, str]:
    with Play(*hooks, config={"verdicts": {"on_blind": "pass"}}) as play:
        for turn in transcript.turns:
            _perform(play, turn, cut)
        assert play.failed == []
        return play.to_server, play.to_client, play.reason


def _cuts(transcript: Transcript) -> list[Cut]:
    return [whole] if len(transcript.turns[-1].data) > 3000 else [whole, byte_by_byte]


@pytest.mark.parametrize("decide", [_pass_at_once, _pass_later])
@pytest.mark.parametrize("transcript", PLAYABLE, ids=[transcript.name for transcript in PLAYABLE])
def test_a_hook_that_passes_everything_changes_nothing(transcript: Transcript, decide: Any) -> None:
    for cut in _cuts(transcript):
        assert _got(transcript, cut, _hook(UNGUARDED, decide)) == _got(transcript, cut)


@pytest.mark.parametrize("kinds", [EVERYTHING, ATTEMPTS, OUTCOMES], ids=["all", "try", "outcome"])
@pytest.mark.parametrize("decide", [_pass_at_once, _pass_later])
@pytest.mark.parametrize("transcript", STRICT, ids=[transcript.name for transcript in STRICT])
def test_the_guard_changes_nothing_of_a_session_that_is_strict(
    transcript: Transcript, kinds: Kinds, decide: Any
) -> None:
    for cut in _cuts(transcript):
        assert _got(transcript, cut, _hook(kinds, decide)) == _got(transcript, cut)


@pytest.mark.parametrize("name", sorted(NOT_PASSED))
def test_a_line_that_the_guard_does_not_pass_is_said(name: str) -> None:
    (transcript,) = (transcript for transcript in TRANSCRIPTS if transcript.name == name)
    raised = []
    for cut in _cuts(transcript):
        hook = _hook(ATTEMPTS, _pass_at_once)
        with Play(hook, config={"verdicts": {"on_blind": "pass"}}) as play:
            for turn in transcript.turns:
                _perform(play, turn, cut)
            raised += [event.msg for event in play.raised("pop3_unexpected")]
    assert "not_passed" in raised


@pytest.mark.parametrize(
    "transcript", TRANSCRIPTS, ids=[transcript.name for transcript in TRANSCRIPTS]
)
def test_the_server_gets_nothing_of_a_guarded_client_that_it_has_not_sent(
    transcript: Transcript,
) -> None:
    hook = _hook(ATTEMPTS, _pass_at_once)
    sent = b"".join(turn.data for turn in transcript.turns if turn.side is Side.CLIENT)
    got, _, _ = _got(transcript, whole, hook)
    lines = iter(sent.splitlines(keepends=True))
    behind = iter(got.splitlines(keepends=True))
    assert all(line == b"*\r\n" or line in lines for line in behind)


class _Whims:
    """Verdicts at random, at random times."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.passes = source.choice((0.3, 0.7, 0.9))

    def decide(self, hook: Any, event: Event) -> Any:
        verdict = self._verdict(event)
        chance = self.source.random()
        if chance < 0.6:
            return verdict
        if chance < 0.9:
            return deferLater(hook.reactor, self.source.choice((0, 0, 1)), lambda: verdict)
        return Deferred()

    def _verdict(self, event: Event) -> Verdict | None:
        if self.source.random() < self.passes:
            return None
        kind = self.source.choice([kind for kind in VERDICTS[type(event)] if kind is not Pass])
        if kind is Delay:
            return Delay(self.source.choice((0, 0.5, 3)))
        return Deny("-ERR no") if kind is Deny else Drop()


def _play_at_random(source: random.Random) -> Play:
    """Play a transcript to a hook of whims, with pauses, and perhaps let the client leave."""
    transcript = source.choice(TRANSCRIPTS)
    kinds = source.sample(
        sorted(VERDICTS, key=lambda kind: kind.name), source.choice((1, 1, 2, 3, 9))
    )
    whims = _Whims(source)

    def decide(hook: Any, event: Event) -> Any:
        return whims.decide(hook, event)

    hook = _hook(frozenset(kinds), decide)
    hook.on_error = source.choice(("pass", "deny"))
    verdicts = {
        "on_blind": source.choice(("pass", "drop")),
        "delayed": source.choice((0, 1000, 1000)),
    }
    with Play(hook, config={"verdicts": verdicts}) as play:
        cut = at_random(source)
        play.advance(10)
        for turn in transcript.turns:
            if play.dialled or turn.side is Side.CLIENT:
                _perform(play, turn, cut)
            if source.random() < 0.3:
                play.advance(source.choice((0, 1, 4, 10)))
        if source.random() < 0.5:
            play.client_leaves()
        if source.random() < 0.5:
            play.advance(700)
    return play


def _denied(play: Play, name: str) -> list[Any]:
    return [
        asked.event
        for asked in play.asked
        if asked.event.name == name and isinstance(asked.verdict, Deny)
    ]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_a_hook_answers_sessions_end_and_denied_logins_are_failures(seed: int) -> None:
    play = _play_at_random(random.Random(f"any hook {seed}"))
    assert play.over
    assert [event.name for event in play.events].count("pop3_session") == 1
    assert play.events[-1].name == "pop3_session"
    assert play.counts["inspection_failed"] == 0
    assert play.clock.getDelayedCalls() == []
    assert [failed for failed in play.failed if not isinstance(failed.problem, TimeLimit)] == []
    outcomes = _outcomes(play)
    attempts = [event.attempt for event in play.raised("pop3_login_attempt")]
    assert [number for number in sorted(outcomes) if number in attempts] == attempts
    for attempt in _denied(play, "pop3_login_attempt"):
        outcome = outcomes[attempt.attempt]
        assert outcome.name == "pop3_unexpected" or outcome.reason == "denied"
        tried = [event.password for event in play.raised("pop3_login_attempt")]
        if len(attempt.password) > 5 and tried.count(attempt.password) == 1:
            assert attempt.password.encode("utf-8", "surrogateescape") not in play.to_server


def _outcomes(play: Play) -> dict[int, Any]:
    """Return each attempt's outcome by its number."""
    names = ("pop3_login_success", "pop3_login_failure", "pop3_unexpected")
    found = [event for name in names for event in play.raised(name) if event.attempt]
    by_number = {event.attempt: event for event in found}
    assert len(by_number) == len(found)
    return by_number


# --- while a hook takes its time ------------------------------------------------------------------------

ASKED = "S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret"


def _asked_about_a_login() -> tuple[Play, Deferred[Any]]:
    answer: Deferred[Any] = Deferred()
    return Play(_hook(ATTEMPTS, lambda hook, event: answer)), answer


def test_what_the_server_says_meanwhile_ends_the_session() -> None:
    play, _ = _asked_about_a_login()
    with play:
        play.say(ASKED + "\nS: +OK still here")
        assert play.raised("pop3_login_success") == []
        assert play.reason == "blind"
        assert [outcome.msg for outcome in _outcomes(play).values()] == ["cut_login"]
        assert play.to_server == b"USER bob\r\n"


def test_a_response_is_answered_after_the_server_has_given_up_the_exchange() -> None:
    play, answer = _asked_about_a_login()
    with play:
        play.say("S: +OK ready\nC: AUTH PLAIN\nS: +\nC: {b64 \\0bob\\0secret}\nS: -ERR too slow")
        answer.callback(Deny("-ERR no"))
        assert play.to_server == b"AUTH PLAIN\r\n"
        assert play.to_client.endswith(b"-ERR too slow\r\n-ERR no\r\n")
        assert play.raised("pop3_login_failure") == []
        assert [outcome.msg for outcome in _outcomes(play).values()] == ["login_cancelled"]


def test_a_challenge_meanwhile_is_out_of_turn_and_ends_the_session() -> None:
    play, _ = _asked_about_a_login()
    with play:
        play.say("S: +OK ready\nC: AUTH PLAIN {b64 \\0bob\\0secret}\nS: + more")
        oddities = [event.msg for event in play.raised("pop3_unexpected")]
        assert oddities == ["stray_challenge", "cut_login"]
        assert play.to_server == b""
        assert play.reason == "blind"
