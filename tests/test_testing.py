"""Plays of one session: what they let happen, what they note, and that hooks of every kind work in them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from pop3proxy import testing
from pop3proxy.analyzer.events import Event, LoginFailure, Reason, Tls
from pop3proxy.config import ConfigError
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop, Hook
from pop3proxy.hooks.dispatcher import UnknownEvent
from pop3proxy.hooks.faults import NoVerdict, TimeLimit
from pop3proxy.testing import NotConnected, Play, TranscriptError, said

LOGIN = """
    S: +OK ready
    C: USER bob
    S: +OK
    C: PASS secret
    S: +OK welcome
"""
NO = Deny("-ERR no")


class Deciding(Hook):
    """Answers each login attempt by what it is given."""

    blocking = True

    def __init__(self, answer: Callable[[Event], Any]) -> None:
        self.answer = answer

    def pop3_login_attempt(self, event: Event) -> Any:
        return self.answer(event)


class Listening(Hook):
    """Keeps its reactor, and what it hears and when."""

    def __init__(self) -> None:
        self.reactor: Any = None
        self.stopped = False
        self.heard: list[tuple[str, float]] = []

    def start(self, reactor: Any) -> None:
        self.reactor = reactor

    def stop(self) -> None:
        self.stopped = True

    def pop3_login_success(self, event: Event) -> None:
        self.heard.append((event.name, event.ts))


# --- the dialogue ---------------------------------------------------------------------------------------


def test_bytes_pass_unchanged_both_ways() -> None:
    with Play() as play:
        play.say(LOGIN)
        assert play.to_server == b"USER bob\r\nPASS secret\r\n"
        assert play.to_client == b"+OK ready\r\n+OK\r\n+OK welcome\r\n"


def test_a_line_of_text_gets_its_end_and_bytes_do_not() -> None:
    with Play() as play:
        play.server("+OK ready")
        play.client(b"NO")
        play.client(b"OP\r\n")
        play.client("LIST \\{ü")
        assert play.to_server == b"NOOP\r\nLIST \\{\xc3\xbc\r\n"
        assert play.to_client == b"+OK ready\r\n"


def test_events_are_there_in_order_though_no_hook_wants_them() -> None:
    with Play() as play:
        play.say(LOGIN)
        assert [event.name for event in play.events] == [
            "pop3_connect",
            "pop3_reply",
            "pop3_request",
            "pop3_reply",
            "pop3_request",
            "pop3_login_attempt",
            "pop3_login_success",
            "pop3_reply",
        ]
        assert play.raised("pop3_login_success")[0].user == "bob"


def test_raised_knows_the_names_of_events() -> None:
    with Play() as play, pytest.raises(ValueError, match="pop3_login is no event; the events are"):
        play.raised("pop3_login")


def test_the_end_of_one_sides_bytes_leaves_the_other_side_its_say() -> None:
    with Play() as play:
        play.say("S: +OK ready\nC: QUIT\nC: <end>\nS: +OK bye")
        assert play.to_client.endswith(b"+OK bye\r\n")
        assert play.reason == ""
        play.say("S: <end>")
        assert play.reason == "client_closed"


def test_a_client_that_leaves_is_followed_by_the_server() -> None:
    with Play() as play:
        play.say(LOGIN)
        play.client_leaves()
        assert (play.over, play.reason) == (True, "client_closed")
        assert play.events[-1].name == "pop3_session"


def test_a_server_that_leaves_is_followed_by_the_client() -> None:
    with Play() as play:
        play.say(LOGIN)
        play.server_leaves()
        assert (play.over, play.reason) == (True, "server_closed")


def test_what_is_said_to_a_closed_connection_is_lost() -> None:
    with Play() as play:
        play.say(LOGIN)
        play.server_leaves()
        play.say("C: NOOP\nS: +OK")
        assert play.to_server == b"USER bob\r\nPASS secret\r\n"


def test_a_session_goes_on_until_the_play_is_closed() -> None:
    with Play() as play:
        play.say(LOGIN)
        assert (play.over, play.reason) == (False, "")
    assert (play.over, play.reason) == (True, "shutdown")
    play.close()


def test_time_limits_are_those_of_serve() -> None:
    with Play() as play:
        play.advance(30)
        assert not play.over
        play.advance(1)
        assert play.reason == "timeout:greeting"
        assert play.to_client.startswith(b"-ERR [SYS/TEMP] ")


def test_a_play_takes_what_a_configuration_says() -> None:
    with Play(config={"timeouts": {"greeting": 5}}) as play:
        play.advance(6)
        assert play.reason == "timeout:greeting"


def test_a_play_has_the_rules_of_a_configuration() -> None:
    with Play(config={"rules": {"deny": [{"commands": ["DELE"]}]}}) as play:
        play.say(LOGIN + "C: DELE 1")
        assert b"DELE" not in play.to_server
        assert play.to_client.splitlines()[-1].startswith(b"-ERR ")


def test_what_a_configuration_cannot_say_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"did you mean timeouts\.greeting"):
        Play(config={"timeouts": {"greting": 5}})


def test_a_limit_keeps_another_client_out() -> None:
    with Play(config={"limits": {"connections": 1}}) as play:
        refused = play.another()
        assert refused.over
        assert refused.to_client.startswith(b"-ERR [SYS/TEMP] too many connections")
        with pytest.raises(NotConnected, match="not let in"):
            refused.events  # noqa: B018


# --- the notation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("C: USER bob", b"USER bob\r\n"),
        ("C:", b"\r\n"),
        ("C:  NOOP ", b" NOOP \r\n"),
        ("S: +OK<lf>", b"+OK\n"),
        ("S: +O<open>", b"+O"),
        ("S: <end>", None),
        (r"C: \0\t\\\{\xff", b"\0\t\\{\xff\r\n"),
        (r"C: AUTH PLAIN {b64 \0bob\0secret}", b"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n"),
        ("C: {3*a}{2*{2*b}}", b"aaabbbb\r\n"),
    ],
)
def test_lines_of_a_transcript(line: str, data: bytes | None) -> None:
    assert said(line) == data


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("USER bob", "line 2: begins with none of C:, S:, T: and #: USER bob"),
        ("C: {x}", r"line 2: neither b64 nor a repetition; a brace itself is \\{"),
        ("T: soon", "line 2: no number of seconds: T: soon"),
        ("T: -1", "line 2: no number of seconds: T: -1"),
    ],
)
def test_mistakes_in_a_transcript_are_told_with_their_line(line: str, problem: str) -> None:
    with Play() as play, pytest.raises(TranscriptError, match=problem):
        play.say(f"# remarks are nothing\n{line}")


# --- hooks that listen ----------------------------------------------------------------------------------


def test_a_hook_is_started_with_the_clock_and_stopped_at_the_end() -> None:
    hook = Listening()
    with Play(hook) as play:
        assert hook.reactor is play.clock
        assert not hook.stopped
    assert hook.stopped


def test_events_have_the_time_of_the_play() -> None:
    hook = Listening()
    night = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
    with Play(hook, at=night) as play:
        play.say("T: 20\n" + LOGIN)
    assert hook.heard == [("pop3_login_success", (night + timedelta(seconds=20)).timestamp())]


def test_a_hook_that_listens_and_fails_costs_nothing_and_is_told() -> None:
    class Broken(Hook):
        def pop3_login_success(self, event: Event) -> None:
            raise KeyError("x")

    with Play(Broken()) as play:
        play.say(LOGIN)
        assert play.to_client.endswith(b"+OK welcome\r\n")
        (failed,) = play.failed
        assert (failed.hook, failed.event.name) == ("Broken", "pop3_login_success")
        assert isinstance(failed.problem, KeyError)


def test_a_hook_whose_start_fails_fails_the_play() -> None:
    class Unstartable(Hook):
        def start(self, reactor: Any) -> None:
            raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        Play(Unstartable())


def test_a_hook_with_a_misspelt_method_cannot_be_played() -> None:
    class Misspelt(Hook):
        def pop3_login(self, event: Event) -> None:
            """Hear what there is not."""

    with pytest.raises(UnknownEvent, match="pop3_login is no event"):
        Play(Misspelt())


# --- hooks that decide ----------------------------------------------------------------------------------


def test_a_denial_is_answered_in_the_servers_place() -> None:
    with Play(Deciding(lambda event: NO)) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret")
        assert play.to_server == b"USER bob\r\n"
        assert play.to_client == b"+OK ready\r\n+OK\r\n-ERR no\r\n"
        assert play.verdicts == [("pop3_login_attempt", NO)]
        (failure,) = play.raised("pop3_login_failure")
        assert isinstance(failure, LoginFailure)
        assert failure.reason is Reason.DENIED


def test_the_configuration_says_what_a_refusal_means() -> None:
    rows = [{"text": "m\u00f6bliert", "charset": "latin-1", "reason": "temporary"}]
    for config, reason in (
        ({}, Reason.CREDENTIALS),
        ({"analyzer": {"refusals": rows}}, Reason.TEMPORARY),
    ):
        with Play(Listening(), config=config) as play:
            play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret\nS: -ERR M\\xd6BLIERT")
            (failure,) = play.raised("pop3_login_failure")
            assert isinstance(failure, LoginFailure)
            assert failure.reason is reason


def test_a_delay_lasts_until_the_clock_is_turned() -> None:
    with Play(Deciding(lambda event: Delay(3))) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret\nT: 2.5")
        assert b"PASS" not in play.to_server
        play.advance(0.5)
        assert play.to_server.endswith(b"PASS secret\r\n")


def test_a_drop_ends_the_session() -> None:
    with Play(Deciding(lambda event: Drop())) as play:
        play.say(LOGIN)
        assert play.reason == "dropped"
        assert play.to_client == b"+OK ready\r\n+OK\r\n"
        assert play.counts["dropped"] == 1


def test_a_coroutine_decides_when_its_time_has_come() -> None:
    class Asking(Hook):
        blocking = True

        def start(self, reactor: Any) -> None:
            self.reactor = reactor

        async def pop3_login_attempt(self, event: Event) -> Deny:
            await deferLater(self.reactor, 2, lambda: None)
            return NO

    with Play(Asking()) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret")
        assert play.verdicts == [("pop3_login_attempt", None)]
        play.advance(2)
        assert play.verdicts == [("pop3_login_attempt", NO)]
        assert play.to_client.endswith(b"-ERR no\r\n")


def test_a_deferred_decides_when_it_fires() -> None:
    waiting: Deferred[Any] = Deferred()
    with Play(Deciding(lambda event: waiting)) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret\nC: STAT")
        assert play.to_server == b"USER bob\r\n"
        waiting.callback(PASS)
        play.advance(0)
        assert play.to_server == b"USER bob\r\nPASS secret\r\n"
        play.say("S: +OK")
        assert play.to_server == b"USER bob\r\nPASS secret\r\nSTAT\r\n"


def test_a_hook_that_takes_too_long_is_given_up_as_in_serve() -> None:
    hook = Deciding(lambda event: Deferred())
    hook.on_error = "deny"
    with Play(hook) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret\nT: 4.9")
        assert play.failed == []
        play.advance(0.1)
        (asked,) = play.asked
        assert isinstance(asked.problem, TimeLimit)
        assert isinstance(asked.verdict, Deny)
        assert [failed.hook for failed in play.failed] == ["Deciding"]


def test_what_is_no_verdict_is_a_failure_and_passes() -> None:
    with Play(Deciding(lambda event: True)) as play:
        play.say(LOGIN)
        (asked,) = play.asked
        assert isinstance(asked.problem, NoVerdict)
        assert asked.verdict is PASS
        assert play.to_server.endswith(b"PASS secret\r\n")


def test_who_leaves_while_a_hook_is_asked_gets_no_verdict() -> None:
    cancelled: list[object] = []
    waiting: Deferred[Any] = Deferred(cancelled.append)
    with Play(Deciding(lambda event: waiting)) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret")
        play.client_leaves()
        assert play.verdicts == [("pop3_login_attempt", None)]
        assert play.reason == "client_closed"
    assert cancelled == [waiting]


def test_hooks_are_asked_in_order_up_to_the_first_that_does_not_pass() -> None:
    class Second(Deciding):
        label = "second"

    class Third(Deciding):
        label = "third"

    hooks = Deciding(lambda event: None), Second(lambda event: NO), Third(lambda event: Drop())
    with Play(*hooks) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret")
        assert [(asked.hook, asked.verdict) for asked in play.asked] == [
            ("Deciding", PASS),
            ("second", NO),
        ]


def test_the_end_of_a_session_is_told_to_hooks_that_decide_and_nobody_is_asked() -> None:
    heard: list[str] = []

    class Counting(Hook):
        blocking = True

        def pop3_session(self, event: Event) -> None:
            heard.append(event.name)

    with Play(Counting()) as play:
        play.say(LOGIN)
        play.client_leaves()
        assert heard == ["pop3_session"]
        assert play.asked == []


class AtTheDoor(Hook):
    """Answers each connection by what it is given."""

    blocking = True

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    def pop3_connect(self, event: Event) -> Any:
        return self.verdict


def test_a_client_denied_at_the_door_costs_the_server_nothing() -> None:
    with Play(AtTheDoor(NO)) as play:
        assert play.to_client == b"-ERR no\r\n"
        assert (play.dialled, play.over, play.reason) == (False, True, "denied")


def test_a_server_that_is_not_dialled_yet_can_say_nothing() -> None:
    with Play(AtTheDoor(Delay(2))) as play:
        with pytest.raises(NotConnected, match="has not dialled"):
            play.server("+OK ready")
        play.advance(2)
        play.server("+OK ready")
        assert play.to_client == b"+OK ready\r\n"


def test_a_client_that_leaves_before_the_server_is_dialled_is_not_connected() -> None:
    with Play(AtTheDoor(Delay(2))) as play:
        play.client_leaves()
        play.advance(2)
        assert (play.dialled, play.reason) == (False, "client_closed")


def test_a_session_that_can_no_longer_be_inspected_is_dropped_as_in_serve() -> None:
    with Play(Deciding(lambda event: None)) as play:
        play.say("S: * OK IMAP4rev1 ready")
        assert play.reason == "blind"
    with Play(Deciding(lambda event: None), config={"verdicts": {"on_blind": "pass"}}) as play:
        play.say("S: * OK IMAP4rev1 ready")
        assert play.to_client == b"* OK IMAP4rev1 ready\r\n"
        assert not play.over


# --- several sessions -----------------------------------------------------------------------------------


def test_another_session_has_the_same_hooks_and_the_same_clock() -> None:
    hook = Listening()
    with Play(hook) as play:
        other = play.another("2001:db8::7")
        play.say(LOGIN + "T: 20")
        other.say(LOGIN)
        assert [moment - play.events[0].ts for _, moment in hook.heard] == [0, 20]
        assert play.connection.orig_h == testing.CLIENT
        assert other.connection.orig_h == "2001:db8::7"
        assert len(play.raised("pop3_login_success")) == 1
    assert other.reason == "shutdown"


def test_time_passes_moment_by_moment() -> None:
    with Play() as play:
        seen: list[float] = []
        start = play.clock.seconds()
        for moment in (0.1, 0.7, 2.3):
            play.clock.callLater(moment, lambda: seen.append(play.clock.seconds() - start))
        play.advance(5)
        assert seen == [0.1, 0.7, 2.3]
        assert play.clock.seconds() == start + 5


def test_time_does_not_run_backwards() -> None:
    with Play() as play, pytest.raises(ValueError, match="from 0 seconds on, not -1"):
        play.advance(-1)


def test_the_example_of_the_module_is_true() -> None:
    text = (testing.__doc__ or "").partition("tested so::")[2].partition("The lines of")[0]
    names: dict[str, Any] = {}
    exec("\n".join(line.removeprefix("    ") for line in text.splitlines()), names)
    names["test_nobody_gets_in"]()


def test_a_client_may_talk_tls() -> None:
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    rules = {"rules": {"plaintext_logins": "deny"}}
    with Play(config=rules, tls=tls) as play, play.another() as clear:
        for session in (play, clear):
            session.say("S: +OK")
            session.client("USER bob")
        assert play.to_server == b"USER bob\r\n"
        assert play.raised("pop3_request")[0].c.tls is tls
        assert clear.to_server == b""
