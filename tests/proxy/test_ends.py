"""How a session ends: by its time limits, its peers, a hook, an error of ours; and what is said of it."""

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import (
    Connect,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reply,
    SessionEnd,
)
from pop3proxy.analyzer.limits import Limits
from pop3proxy.hooks.api import Delay, Hook
from pop3proxy.proxy.session import Mode

from .pair import Pair

GREETING = b"+OK ready\r\n"
DONE = Failure(ConnectionDone())
LOST = Failure(ConnectionLost())
TRY_LATER = b"-ERR [SYS/TEMP] "


def greeted(limits: Limits | None = None) -> Pair:
    pair = Pair(limits).connect()
    pair.server_says(GREETING)
    pair.client.clear()
    return pair


def logged_in() -> Pair:
    pair = greeted()
    pair.client_says(b"USER bob\r\nPASS hunter2\r\n")
    pair.server_says(b"+OK\r\n+OK\r\n")
    pair.client.clear()
    return pair


def secured() -> Pair:
    pair = greeted()
    pair.client_says(b"STLS\r\n")
    pair.server_says(b"+OK\r\n")
    pair.client_says(b"\x16\x03\x01")
    pair.client.clear()
    return pair


# --- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "limit", "seconds"),
    [
        (Pair, "connect", 10),
        (lambda: Pair().connect(), "greeting", 30),
        (greeted, "login", 180),
        (logged_in, "idle", 600),
        (secured, "idle", 600),
    ],
)
def test_each_limit_ends_the_session_after_its_time_and_not_before(
    begin: Callable[[], Pair], limit: str, seconds: float
) -> None:
    pair = begin()
    assert pair.wait(seconds) == ""
    assert pair.wait(0.01) == limit
    assert pair.around.counts[f"timeout_{limit}"] == 1
    assert pair.both_gone().reason == f"timeout:{limit}"


@pytest.mark.parametrize("begin", [greeted, logged_in, secured])
def test_a_limit_after_the_greeting_closes_without_a_word(begin: Callable[[], Pair]) -> None:
    pair = begin()
    assert pair.wait(601) in ("login", "idle")
    assert pair.client.value() == b""
    assert pair.client.disconnecting
    assert pair.server.disconnecting


@pytest.mark.parametrize("begin", [Pair, lambda: Pair().connect()])
def test_a_limit_before_the_greeting_is_one_line_that_says_so(begin: Callable[[], Pair]) -> None:
    pair = begin()
    pair.wait(31)
    assert pair.client.value().startswith(TRY_LATER)
    assert pair.client.value().endswith(b"\r\n")
    assert pair.client.value().count(b"\n") == 1


def test_a_greeting_that_has_begun_is_not_torn_apart() -> None:
    pair = Pair().connect()
    pair.server_says(b"+OK rea")
    assert pair.wait(181) == "login"
    assert pair.client.value() == b"+OK rea"


def test_a_client_that_keeps_talking_must_log_in_in_time() -> None:
    pair = greeted()
    for _ in range(18):
        pair.client_says(b"NOOP\r\n")
        pair.server_says(b"-ERR\r\n")
        assert pair.wait(10) == ""
    assert pair.wait(1) == "login"


def test_bytes_of_either_side_begin_the_idle_time_anew() -> None:
    pair = secured()
    for say in (pair.client_says, pair.server_says, pair.client_says):
        assert pair.wait(599) == ""
        say(b"x")
    assert pair.wait(601) == "idle"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_half_closed_session_has_the_idle_time_and_not_the_login_time(side: str) -> None:
    pair = greeted()
    wire = pair.session.client if side == "client" else pair.session.server
    assert wire is not None
    wire.readConnectionLost()
    assert pair.wait(599) == ""
    assert pair.wait(2) == "idle"


def test_the_greeting_is_waited_for_no_longer_because_the_client_speaks_no_pop3() -> None:
    pair = Pair().connect()
    pair.client_says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert pair.wait(31) == "greeting"
    assert pair.client.value() == b""


def test_what_does_not_end_within_the_drain_time_is_reset_and_counted() -> None:
    pair = logged_in()
    pair.session.shut_down()
    assert pair.wait(30) == ""
    assert pair.wait(0.01) == "drain"
    assert pair.client.aborted
    assert pair.server.aborted
    assert pair.around.counts["timeout_drain"] == 1
    assert pair.both_gone().reason == "shutdown"


def test_a_limit_of_ours_is_no_login_that_the_server_aborted() -> None:
    pair = Pair().connect()
    pair.server_says(b"+OK ready\r\n")
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    assert pair.wait(601) == "login"
    assert "pop3_login_failure" not in {event.name for event in pair.around.told}
    assert pair.both_gone().outcome == "none"


def test_a_limit_is_logged_with_the_session_and_the_count() -> None:
    pair = logged_in()
    with capturedLogs() as log:
        pair.wait(601)
    (entry,) = log
    assert formatEvent(entry) == "Cuid: time limit idle ran out for 192.0.2.1:4000; 1 by now"


def test_a_limit_before_the_greeting_is_logged_as_the_servers() -> None:
    pair = Pair().connect()
    with capturedLogs() as log:
        pair.wait(31)
    (entry,) = log
    assert "for 192.0.2.1:4000, whose mail server does not answer; 1 by now" in formatEvent(entry)


def test_an_unreachable_server_is_answered_and_counted() -> None:
    pair = Pair()
    pair.session.unreachable("refused")
    assert pair.client.value().startswith(TRY_LATER)
    assert pair.client.disconnecting
    assert pair.around.counts["upstream_unreachable"] == 1
    assert pair.both_gone().reason == "upstream_unreachable"


@pytest.mark.parametrize("why", [DONE, LOST])
def test_a_server_that_is_lost_before_its_greeting_is_answered(why: Failure) -> None:
    pair = Pair().connect()
    pair.server_wire.connectionLost(why)
    assert pair.client.value().startswith(TRY_LATER)


# --- errors of ours -----------------------------------------------------------------------------------


@pytest.fixture(params=["feed", "next", "ended"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What breaks one method of all analyzers that still inspect."""

    def fail(analyzer: Analyzer, *_: object) -> Sequence[Event]:
        if analyzer.blind:
            return ()
        raise RuntimeError("hunter2")

    return lambda: monkeypatch.setattr(Analyzer, request.param, fail)


def test_an_analyzer_that_fails_ends_inspection_once_and_changes_no_byte(
    broken: Callable[[], None],
) -> None:
    pair = logged_in()
    pair.server.clear()
    broken()
    pair.client_says(b"NOOP\r\n")
    pair.server_says(b"+OK\r\n")
    pair.session.client.readConnectionLost()
    pair.server_says(b"+OK bye\r\n")
    assert pair.server.value() == b"NOOP\r\n"
    assert pair.client.value() == b"+OK\r\n+OK bye\r\n"
    assert pair.around.counts["inspection_failed"] == 1
    assert pair.both_gone().inspected == "lost:error"


def test_an_analyzer_that_fails_at_any_time_leaves_one_summary(
    broken: Callable[[], None],
) -> None:
    pair = logged_in()
    broken()
    pair.client_says(b"NOOP\r\n")
    pair.session.shut_down()
    assert pair.session.mode is Mode.ENDING
    assert pair.both_gone().reason == "shutdown"


def test_the_log_of_a_failed_analyzer_shows_no_secret(broken: Callable[[], None]) -> None:
    pair = greeted()
    broken()
    with capturedLogs() as log:
        pair.client_says(b"USER bob\r\nPASS hunter2\r\n")
        pair.session.client.readConnectionLost()
    (entry,) = log
    assert "hunter2" not in formatEvent(entry)
    assert "log_failure" not in entry


@pytest.mark.parametrize("speaker", ["client", "server"])
def test_bytes_that_were_held_go_on_in_order_when_the_analyzer_fails(
    speaker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    pair = greeted(Limits(pending=1))
    pair.client_says(b"NOOP\r\nSTAT\r\n")
    monkeypatch.setattr(Analyzer, "next", fail)
    if speaker == "client":
        pair.client_says(b"QUIT\r\n")
    else:
        pair.server_says(b"+OK\r\n")
        pair.client_says(b"QUIT\r\n")
        assert pair.client.value() == b"+OK\r\n"
    assert pair.server.value() == b"NOOP\r\nSTAT\r\nQUIT\r\n"
    assert pair.client.producerState == "producing"


# --- hooks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Connect, LoginAttempt, LoginFailure, LoginSuccess])
def test_a_hook_may_end_the_session_at_any_event(kind: type[Event]) -> None:
    pair = Pair(refuses=kind)
    if kind is not Connect:
        pair.connect()
        pair.server_says(GREETING)
        pair.client_says(b"USER bob\r\nPASS x\r\n")
        pair.server_says(b"+OK\r\n-ERR [AUTH] no\r\n")
        pair.client_says(b"USER bob\r\nPASS x\r\n")
        pair.server_says(b"+OK\r\n+OK welcome\r\n")
    assert pair.client.disconnecting
    assert pair.around.counts["ended_by_hook"] == 1
    assert pair.both_gone().reason == "hook"


@pytest.mark.parametrize(
    ("kind", "answer"), [(LoginSuccess, b"+OK welcome\r\n"), (LoginFailure, b"-ERR [AUTH] no\r\n")]
)
def test_the_result_of_a_login_whose_record_ends_the_session_is_not_delivered(
    kind: type[Event], answer: bytes
) -> None:
    pair = greeted()
    pair.around.refuses = kind
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    pair.server_says(b"+OK\r\n")
    pair.server_says(answer)
    assert pair.client.value() == b"+OK\r\n"
    assert pair.client.disconnecting
    assert pair.server.disconnecting


def test_a_login_attempt_whose_record_ends_the_session_does_not_reach_the_server() -> None:
    pair = greeted()
    pair.around.refuses = LoginAttempt
    pair.client_says(b"USER bob\r\n")
    pair.client_says(b"PASS x\r\n")
    assert pair.server.value() == b"USER bob\r\n"


def test_a_hook_that_ends_the_session_at_its_last_event_gets_one_only() -> None:
    pair = logged_in()
    pair.around.refuses = SessionEnd
    pair.session.shut_down()
    assert pair.both_gone().reason == "shutdown"


# --- the summary --------------------------------------------------------------------------------------


def ends_by_hook(pair: Pair) -> None:
    pair.around.refuses = LoginFailure
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    pair.server_says(b"+OK\r\n-ERR\r\n")


ENDINGS: dict[str, Callable[[Pair], object]] = {
    "client_closed": lambda pair: pair.session.client.connectionLost(DONE),
    "client_lost": lambda pair: pair.session.client.connectionLost(LOST),
    "server_closed": lambda pair: pair.server_wire.connectionLost(DONE),
    "server_lost": lambda pair: pair.server_wire.connectionLost(LOST),
    "shutdown": lambda pair: pair.session.shut_down(),
    "timeout:login": lambda pair: pair.wait(181),
    "hook": ends_by_hook,
}


@pytest.mark.parametrize("then", ENDINGS)
@pytest.mark.parametrize("first", ENDINGS)
def test_one_summary_says_what_came_first_whatever_comes_next(first: str, then: str) -> None:
    pair = greeted()
    ENDINGS[first](pair)
    ENDINGS[then](pair)
    assert pair.both_gone().reason == first


def test_a_client_that_resets_resets_the_servers_connection() -> None:
    pair = greeted()
    pair.session.client.connectionLost(LOST)
    assert pair.server.aborted


def test_a_server_that_resets_closes_the_client_behind_what_it_said() -> None:
    pair = greeted()
    pair.server_wire.connectionLost(LOST)
    assert pair.client.disconnecting
    assert not pair.client.aborted


def test_the_summary_tells_the_session() -> None:
    pair = logged_in()
    pair.client_says(b"RETR 1\r\nTOP 1 0\r\nDELE 1\r\n")
    pair.server_says(b"+OK\r\nx\r\n.\r\n+OK\r\n.\r\n+OK\r\n")
    pair.around.clock += 2.5
    pair.session.client.connectionLost(DONE)
    summary = pair.both_gone()
    assert (summary.user, summary.outcome) == ("bob", "success")
    assert (summary.commands, summary.retr, summary.top, summary.dele) == (5, 1, 1, 1)
    assert (summary.orig_octets, summary.resp_octets) == (
        len(pair.server.value()),
        len(GREETING + b"+OK\r\n+OK\r\n" + b"+OK\r\nx\r\n.\r\n+OK\r\n.\r\n+OK\r\n"),
    )
    assert (summary.duration, summary.inspected) == (2.5, "whole")


def test_a_session_that_turned_tls_says_so() -> None:
    pair = secured()
    pair.session.client.connectionLost(DONE)
    assert pair.both_gone().inspected == "until_tls"


# --- ends behind what is held ---------------------------------------------------------------------------


class SlowReplies(Hook):
    """Holds back what the server says."""

    blocking = True

    def pop3_reply(self, event: Reply) -> Delay | None:
        return Delay(1.0) if event.cmd == "ERR" else None


class Judge(Hook):
    """Is asked about logins, and has nothing against them."""

    blocking = True

    def pop3_login_attempt(self, event: LoginAttempt) -> None:
        pass


def asked(hook: Hook) -> Pair:
    pair = Pair(hooks=[hook]).connect()
    pair.server_says(GREETING)
    pair.client.clear()
    return pair


def test_half_a_line_behind_a_reply_that_is_held_goes_on_with_the_server_s_end() -> None:
    pair = asked(SlowReplies())
    pair.client_says(b"NOOP\r\nNOOP\r\n")
    pair.server_says(b"-ERR no\r\n-ERR and t")
    pair.server_wire.readConnectionLost()
    pair.around.time.advance(1.0)
    assert pair.client.value() == b"-ERR no\r\n-ERR and t"
    pair.session.client.readConnectionLost()
    assert pair.session.over
    assert pair.both_gone().reason == "server_closed"


def test_a_server_that_is_gone_behind_half_a_line_is_waited_for_no_more() -> None:
    pair = asked(SlowReplies())
    pair.client_says(b"NOOP\r\nNOOP\r\n")
    pair.server_says(b"-ERR no\r\n-ERR and t")
    pair.server_wire.connectionLost(DONE)
    pair.around.time.advance(1.0)
    assert pair.client.value() == b"-ERR no\r\n-ERR and t"
    assert pair.session.over


def test_half_a_login_behind_one_that_is_answered_now_lets_the_client_s_end_go_on() -> None:
    pair = asked(Judge())
    pair.client_says(b"USER bob\r\n")
    pair.server_says(b"+OK\r\n")
    pair.server.clear()
    pair.client_says(b"PASS x\r\nNOOP\r\nPASS sec")
    pair.session.client.readConnectionLost()
    pair.server_says(b"-ERR no\r\n")
    pair.server_says(b"+OK\r\n")
    assert pair.server.disconnecting
    pair.server_wire.readConnectionLost()
    assert pair.server.value() == b"PASS x\r\nNOOP\r\n"
    assert pair.session.over


def test_what_waits_for_an_answer_of_a_server_that_has_ended_keeps_no_session() -> None:
    pair = asked(Judge())
    pair.client_says(b"AUTH PLAIN\r\nUSER bob\r\n")
    pair.server_wire.readConnectionLost()
    assert pair.session.over
    assert pair.both_gone().reason == "server_closed"
    assert pair.server.value() == b"AUTH PLAIN\r\n"


class SlowGreeting(Hook):
    """Holds back the greeting for longer than a server may take for it."""

    blocking = True

    def pop3_reply(self, event: Reply) -> Delay:
        return Delay(60.0)


def test_a_greeting_that_is_held_has_come() -> None:
    pair = Pair(hooks=[SlowGreeting()]).connect()
    pair.server_says(GREETING)
    assert pair.wait(31) == ""
    pair.around.time.advance(60.0)
    assert pair.client.value() == GREETING
