"""STLS that the proxy answers itself, and lists of capabilities that it edits, over transports in memory."""

import os
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from pop3proxy.analyzer.events import (
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Reply,
    Request,
    Side,
    StartTLS,
    Tls,
    Unexpected,
)
from pop3proxy.config import Listener, Upstream
from pop3proxy.hooks.api import Delay, Deny, Drop, Hook
from pop3proxy.hooks.policy.commands import TLS_REQUIRED, CommandRules, Rule
from pop3proxy.proxy.relay import CAPA_HELD
from pop3proxy.proxy.session import Mode
from pop3proxy.proxy.terms import (
    ALREADY_ON,
    BEGIN_TLS,
    NO_TLS,
    TOO_LATE,
    Terms,
    terms_for,
)

from ..analyzer.sessions import Run, sessions
from .pair import TLS, Pair

GREETING = b"+OK ready\r\n"
GONE = Failure(ConnectionDone())
CAPA = b"+OK list\r\nTOP\r\nUSER\r\nSASL PLAIN EXTERNAL\r\nSTLS\r\nX\r\n.\r\n"

MODES = ("none", "implicit", "terminate", "require")


def terms(mode: Any, upstream: Any = "plain") -> Terms | None:
    return terms_for(
        Listener(endpoint="tcp:1110", tls=mode),
        Upstream(endpoint="tcp:localhost:110", tls=upstream),
    )


def relaying(
    mode: str,
    *hooks: Hook,
    tls: Tls | None = None,
    on_blind: Any = "drop",
    greeting: bytes = GREETING,
) -> Pair:
    if mode == "implicit":
        tls = TLS
    pair = Pair(hooks=hooks, terms=terms(mode), tls=tls, on_blind=on_blind).connect()
    pair.server_says(greeting)
    return cleared(pair)


def cleared(pair: Pair) -> Pair:
    pair.client.clear()
    pair.server.clear()
    pair.around.told.clear()
    return pair


def turning(mode: str = "terminate", *hooks: Hook) -> Pair:
    pair = relaying(mode, *hooks)
    pair.client_says(b"STLS\r\n")
    assert pair.client.value() == BEGIN_TLS
    assert pair.session.mode is Mode.TURNING
    return cleared(pair)


def secure(mode: str = "terminate", *hooks: Hook) -> Pair:
    pair = turning(mode, *hooks)
    pair.turning.succeed()
    return cleared(pair)


def told(pair: Pair, kind: type[Any]) -> list[Any]:
    return [event for event in pair.around.told if type(event) is kind]


class Asked(Hook):
    """Answers ``pop3_starttls`` when it is told to."""

    blocking = True

    def __init__(self) -> None:
        self.answer: Deferred[Any] = Deferred()

    def pop3_starttls(self, event: StartTLS) -> Deferred[Any]:
        return self.answer


both = pytest.mark.parametrize("mode", ["terminate", "require"])


@both
def test_stls_is_answered_and_never_reaches_the_server(mode: str) -> None:
    pair = relaying(mode)
    pair.client_says(b"stls\r\n")
    assert pair.client.value() == BEGIN_TLS
    assert pair.turning.turning
    assert pair.server.value() == b""
    assert len(told(pair, StartTLS)) == 1
    assert pair.server.producerState == "paused"


@both
def test_stls_octet_by_octet_reaches_nobody(mode: str) -> None:
    pair = relaying(mode)
    for octet in b"STLS\r\n":
        assert not pair.turning.turning
        pair.client_says(bytes([octet]))
    assert pair.turning.turning
    assert pair.server.value() == b""


@both
def test_the_session_goes_on_inside_tls_and_is_inspected(mode: str) -> None:
    pair = secure(mode)
    assert pair.session.mode is Mode.RELAY
    assert pair.session.connection.tls is TLS
    assert pair.server.producerState == "producing"
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    assert pair.server.value() == b"USER bob\r\nPASS x\r\n"
    pair.server_says(b"+OK\r\n+OK\r\n")
    (login,) = told(pair, LoginSuccess)
    assert (login.user, login.c.tls) == ("bob", TLS)
    assert pair.both_gone().inspected == "whole"


def test_the_answer_waits_for_what_is_owed() -> None:
    pair = relaying("terminate")
    pair.client_says(b"NOOP\r\nSTLS\r\n")
    assert pair.server.value() == b"NOOP\r\n"
    assert pair.client.value() == b""
    pair.server_says(b"+OK no")
    assert not pair.turning.turning
    pair.server_says(b"op\r\n")
    assert pair.client.value() == b"+OK noop\r\n" + BEGIN_TLS
    assert pair.turning.turning


def test_the_answer_waits_for_the_greeting() -> None:
    pair = Pair(terms=terms("terminate")).connect()
    pair.client_says(b"STLS\r\n")
    assert not pair.turning.turning
    pair.server_says(GREETING)
    assert pair.client.value() == GREETING + BEGIN_TLS


def test_the_answer_waits_until_the_client_has_taken_all() -> None:
    pair = relaying("terminate")
    pair.session.client.unsent = True
    pair.client_says(b"STLS\r\n")
    assert not pair.turning.turning
    pair.session.client.unsent = False
    pair.session.drained(Side.CLIENT)
    assert pair.turning.turning


@both
@pytest.mark.parametrize("behind", [b"USER eve\r\n", b"x", b"\x16\x03\x01"])
def test_what_is_pipelined_behind_stls_ends_the_session(mode: str, behind: bytes) -> None:
    pair = relaying(mode)
    pair.client_says(b"STLS\r\n" + behind)
    assert not pair.turning.turning
    assert pair.client.value() == pair.server.value() == b""
    assert [event.msg for event in told(pair, Unexpected)] == [Oddity.CLIENT_INJECTION]
    assert told(pair, StartTLS) == []
    assert pair.around.counts["client_injection"] == 1
    assert pair.both_gone().reason == "client_injection"


def test_what_comes_behind_stls_while_a_reply_is_owed_ends_the_session() -> None:
    pair = relaying("terminate")
    pair.client_says(b"NOOP\r\nSTLS\r\n")
    pair.client_says(b"USER eve\r\n")
    pair.server_says(b"+OK\r\n")
    assert pair.client.value() == b"+OK\r\n"
    assert pair.server.value() == b"NOOP\r\n"
    assert pair.both_gone().reason == "client_injection"


# --- hooks ------------------------------------------------------------------------------------------------


def test_a_hook_is_asked_before_tls_and_may_let_it_begin() -> None:
    hook = Asked()
    pair = relaying("terminate", hook)
    pair.client_says(b"STLS\r\n")
    assert pair.client.value() == b""
    hook.answer.callback(None)
    assert pair.client.value() == BEGIN_TLS
    assert pair.turning.turning


def test_a_hook_may_drop_the_session_instead() -> None:
    hook = Asked()
    pair = relaying("terminate", hook)
    pair.client_says(b"STLS\r\n")
    hook.answer.callback(Drop())
    assert pair.client.value() == b""
    assert pair.both_gone().reason == "dropped"


def test_what_comes_while_a_hook_is_asked_is_an_injection_too() -> None:
    hook = Asked()
    pair = relaying("terminate", hook)
    pair.client_says(b"STLS\r\n")
    pair.client_says(b"USER eve\r\n")
    hook.answer.callback(None)
    assert not pair.turning.turning
    assert [event.msg for event in told(pair, Unexpected)] == [Oddity.CLIENT_INJECTION]
    assert pair.both_gone().reason == "client_injection"


def test_a_client_that_leaves_while_a_hook_is_asked_ends_the_session() -> None:
    pair = relaying("terminate", Asked())
    pair.client_says(b"STLS\r\n")
    pair.session.client.readConnectionLost()
    assert pair.both_gone().reason == "client_closed"


def test_a_rule_that_denies_stls_comes_first() -> None:
    pair = relaying("terminate", CommandRules([Rule(frozenset({"STLS"}), denial=Deny("-ERR no"))]))
    pair.client_says(b"STLS\r\n")
    assert pair.client.value() == b"-ERR no\r\n"
    assert not pair.turning.turning


def test_the_server_judges_a_user_from_before_tls_and_its_name_is_seen() -> None:
    """The server still knows it, and may log it in."""
    pair = relaying("terminate")
    pair.client_says(b"USER mallory\r\n")
    pair.server_says(b"+OK\r\n")
    pair.client_says(b"STLS\r\n")
    pair.turning.succeed()
    cleared(pair)
    pair.client_says(b"PASS x\r\n")
    assert pair.server.value() == b"PASS x\r\n"
    pair.server_says(b"+OK\r\n")
    (login,) = told(pair, LoginSuccess)
    assert login.user == "mallory"


def test_where_logins_are_decided_about_a_user_from_before_tls_is_nobody_s() -> None:
    pair = relaying("terminate", CommandRules([Rule(frozenset({"DELE"}), denial=Deny("-ERR no"))]))
    pair.client_says(b"USER mallory\r\n")
    pair.server_says(b"+OK\r\n")
    pair.client_says(b"STLS\r\n")
    pair.turning.succeed()
    cleared(pair)
    pair.client_says(b"PASS x\r\nNOOP\r\n")
    assert pair.client.value() == b"-ERR Send USER first.\r\n"
    assert pair.server.value() == b"NOOP\r\n"
    assert told(pair, LoginAttempt) == []


def test_a_pass_alone_is_the_server_s_to_judge_where_nobody_was_named_before_tls() -> None:
    pair = secure()
    pair.client_says(b"PASS x\r\n")
    assert pair.server.value() == b"PASS x\r\n"


def test_inside_tls_hooks_decide_as_before() -> None:
    pair = secure("require", CommandRules([Rule(frozenset({"DELE"}), denial=Deny("-ERR no"))]))
    pair.client_says(b"USER bob\r\n")
    pair.server_says(b"+OK\r\n")
    pair.client_says(b"PASS x\r\n")
    pair.server_says(b"+OK\r\n")
    cleared(pair)
    pair.client_says(b"NOOP\r\nDELE 1\r\n")
    pair.server_says(b"+OK\r\n")
    assert pair.server.value() == b"NOOP\r\n"
    assert pair.client.value() == b"+OK\r\n-ERR no\r\n"


def test_a_listening_hook_that_ends_the_session_ends_it_before_tls() -> None:
    pair = relaying("terminate")
    pair.around.refuses = StartTLS
    pair.client_says(b"STLS\r\n")
    assert not pair.turning.turning
    assert pair.both_gone().reason == "hook"


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "answer"), [("none", NO_TLS), ("implicit", ALREADY_ON)])
def test_stls_is_refused_where_there_is_no_other_tls(mode: str, answer: Deny) -> None:
    pair = relaying(mode)
    pair.client_says(b"STLS\r\nNOOP\r\n")
    assert pair.client.value() == answer.line
    assert pair.server.value() == b"NOOP\r\n"


@both
def test_stls_is_refused_inside_tls(mode: str) -> None:
    pair = secure(mode)
    pair.client_says(b"STLS\r\n")
    assert pair.client.value() == ALREADY_ON.line
    assert pair.server.value() == b""


@pytest.mark.parametrize("pipelined", [False, True])
def test_stls_behind_a_login_is_refused(pipelined: bool) -> None:
    pair = relaying("terminate")
    pair.client_says(b"USER bob\r\nPASS x\r\n" + b"STLS\r\n" * pipelined)
    pair.server_says(b"+OK\r\n+OK\r\n")
    if not pipelined:
        pair.client_says(b"STLS\r\n")
    assert pair.client.value() == b"+OK\r\n+OK\r\n" + TOO_LATE.line
    pair.client_says(b"NOOP\r\n")
    assert pair.server.value() == b"USER bob\r\nPASS x\r\nNOOP\r\n"


def test_stls_behind_a_login_that_failed_is_taken() -> None:
    pair = relaying("terminate")
    pair.client_says(b"USER bob\r\nPASS x\r\nSTLS\r\n")
    pair.server_says(b"+OK\r\n-ERR\r\n")
    assert pair.client.value() == b"+OK\r\n-ERR\r\n" + BEGIN_TLS


@pytest.mark.parametrize("line", [b" STLS\r\n", b"STLS\t\r\n", b"\tstls\r\n"])
def test_what_some_servers_take_for_stls_is_answered_as_stls(line: bytes) -> None:
    for cut in range(len(line)):
        pair = relaying("none")
        pair.client_says(line[:cut])
        pair.client_says(line[cut:])
        assert pair.server.value() == b""
        assert pair.client.value() == NO_TLS.line


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("line", [b" STLS\r\n", b"STLS\t\r\n", b"NOOP\rSTLS\r\n", b"NOOP\0\r\n"])
def test_neither_that_nor_a_line_that_is_two_to_some_reaches_the_server(
    mode: str, line: bytes
) -> None:
    for cut in range(len(line)):
        pair = relaying(mode)
        pair.client_says(line[:cut])
        pair.client_says(line[cut:])
        assert pair.server.value() == b""
        assert pair.client.value().count(b"\r\n") == 1
        assert pair.client.value().startswith((b"-ERR ", BEGIN_TLS))


# --- TLS is required --------------------------------------------------------------------------------------


DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"


@pytest.mark.parametrize(
    "line", [b"USER bob", b"APOP bob " + DIGEST, b"AUTH", b"AUTH PLAIN AGJvYgB4"]
)
def test_logins_before_tls_are_refused_where_it_is_required(line: bytes) -> None:
    for cut in range(len(line)):
        pair = relaying("require")
        pair.client_says(line[:cut])
        pair.client_says(line[cut:] + b"\r\nNOOP\r\n")
        assert pair.server.value() == b"NOOP\r\n"
        assert pair.client.value() == TLS_REQUIRED.line


def test_a_login_before_tls_is_a_denied_one() -> None:
    pair = relaying("require")
    pair.client_says(b"APOP bob " + DIGEST + b"\r\n")
    (failure,) = told(pair, LoginFailure)
    assert (failure.reason, failure.code) == ("denied", "AUTH")


@pytest.mark.parametrize("on_blind", ["drop", "pass"])
@pytest.mark.parametrize(
    "line",
    [
        b"\tUSER bob",
        b"PASS x",
        b"PASS\tx",
        b" PASS x",
        b"RPOP bob",
        b"NOOP\rPASS x",
        b"GET / HTTP/1.0",
        b"NOOP " + b"x" * 300 + b" PASS x",
    ],
)
def test_what_some_servers_take_for_a_login_is_not_passed(line: bytes, on_blind: Any) -> None:
    pair = relaying("require", on_blind=on_blind)
    pair.client_says(line + b"\r\nNOOP\r\n")
    assert pair.server.value() == b"NOOP\r\n"
    assert pair.client.value().startswith(b"-ERR ")
    assert pair.client.value().count(b"\r\n") == 1
    assert pair.around.counts["not_passed"] == 1


def test_tls_that_is_there_from_the_start_is_enough() -> None:
    pair = relaying("require", tls=TLS)
    pair.client_says(b"USER bob\r\nPASS x\r\n")
    assert pair.server.value() == b"USER bob\r\nPASS x\r\n"


def test_an_error_of_ours_before_required_tls_ends_the_session(monkeypatch: Any) -> None:
    pair = relaying("require")

    def fails(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(type(pair.analyzer), "next", fails)
    pair.client_says(b"USER bob\r\n")
    assert pair.server.value() == b""
    assert pair.both_gone().reason == "blind"


@pytest.mark.parametrize("mode", ["none", "implicit", "terminate"])
def test_elsewhere_a_session_that_is_blind_goes_on(mode: str) -> None:
    pair = relaying(mode, greeting=b"220 smtp.example.org ESMTP\r\n")
    pair.client_says(b"GET / HTTP/1.0\r\n")
    assert pair.server.value() == b"GET / HTTP/1.0\r\n"
    assert pair.session.mode is Mode.TUNNEL
    assert pair.around.counts["blind_passed"] == 0


# --- the handshake ----------------------------------------------------------------------------------------


def test_a_handshake_that_fails_ends_the_session() -> None:
    pair = turning()
    pair.turning.fail("it does not speak TLS")
    assert pair.server.disconnecting
    assert pair.around.counts["tls_failed"] == 1
    pair.server_wire.connectionLost(GONE)
    assert pair.summary().reason == "tls_handshake"


def test_a_handshake_that_stalls_runs_out_of_time() -> None:
    pair = turning()
    limit = pair.around.timeouts.handshake
    assert pair.wait(limit) == ""
    assert pair.wait(0.001) == "handshake"
    assert pair.client.disconnecting
    assert pair.client.value() == b""
    assert pair.both_gone().reason == "timeout:handshake"


def test_a_handshake_that_fails_once_the_session_is_over_is_no_news() -> None:
    pair = turning()
    pair.session.shut_down()
    pair.turning.fail("closed")
    assert pair.around.counts["tls_failed"] == 0
    pair.server_wire.connectionLost(GONE)
    assert pair.summary().reason == "shutdown"


def test_a_client_that_is_lost_while_it_turns_ends_the_session() -> None:
    pair = turning()
    pair.session.client.connectionLost(GONE)
    assert pair.both_gone().reason == "client_closed"


def test_a_server_that_is_lost_while_the_client_turns_ends_the_session() -> None:
    pair = turning()
    pair.server_wire.connectionLost(GONE)
    assert pair.client.disconnecting
    assert pair.both_gone().reason == "server_closed"


def test_a_server_that_ends_while_the_client_turns_is_passed_on_inside_tls() -> None:
    pair = turning()
    pair.server_says(b"-ERR idle too long\r\n")
    pair.server_wire.readConnectionLost()
    assert pair.session.mode is Mode.TURNING
    pair.turning.succeed()
    assert pair.client.value() == b"-ERR idle too long\r\n"
    assert pair.client.disconnecting
    assert pair.both_gone().reason == "server_closed"


def test_what_is_drained_while_turning_reads_nothing_on() -> None:
    pair = turning()
    pair.session.drained(Side.CLIENT)
    pair.session.drained(Side.SERVER)
    assert pair.server.producerState == "paused"


def test_a_server_that_has_ended_before_stls_gets_no_tls() -> None:
    pair = relaying("terminate")
    pair.server_wire.readConnectionLost()
    pair.client_says(b"STLS\r\n")
    assert not pair.turning.turning
    assert pair.both_gone().reason == "server_closed"


def test_inspection_that_ends_while_the_client_turns_leaves_no_side_unread(
    monkeypatch: Any,
) -> None:
    pair = turning()

    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(type(pair.analyzer), "feed", broken)
    # A transport may have read on before it was paused.
    pair.server_says(b"-ERR idle too long\r\n")
    pair.turning.succeed()
    assert pair.session.mode is Mode.TUNNEL
    assert pair.session.connection.tls is TLS
    assert pair.server.producerState == "producing"
    assert pair.client.value() == b"-ERR idle too long\r\n"


@pytest.mark.parametrize("mode", MODES)
def test_a_long_line_of_the_server_may_not_be_stls_and_costs_nothing(mode: str) -> None:
    pair = relaying(mode)
    reply = b"+OK " + b"x" * 10_000 + b"\r\n"
    pair.client_says(b"NOOP\r\n")
    for start in range(0, len(reply), 1000):
        pair.server_says(reply[start : start + 1000])
    assert pair.client.value() == reply
    assert pair.session.mode is Mode.RELAY


class Slows(Hook):
    """Delays the answer to a login that failed."""

    blocking = True

    def pop3_login_failure(self, event: LoginFailure) -> Delay:
        return Delay(2)


def test_a_server_that_ends_while_its_answer_before_stls_waits_is_the_reason() -> None:
    pair = relaying("terminate", Slows())
    pair.client_says(b"USER bob\r\nPASS x\r\nSTLS\r\n")
    pair.server_says(b"+OK\r\n")
    pair.server_says(b"-ERR no\r\n")
    pair.server_wire.readConnectionLost()
    pair.around.time.advance(2)
    assert pair.client.value() == b"+OK\r\n-ERR no\r\n"
    assert not pair.turning.turning
    assert pair.both_gone().reason == "server_closed"


@pytest.mark.parametrize("side", Side)
def test_an_end_of_tls_without_a_word_is_named(side: Side) -> None:
    pair = secure()
    wire = pair.session.client if side is Side.CLIENT else pair.server_wire
    wire.truncated = True
    wire.readConnectionLost()
    assert pair.both_gone().reason == f"{side.value}_truncated"


@pytest.mark.parametrize("limit", ["connect", "handshake", "greeting"])
def test_what_the_way_to_the_server_has_come_to_has_its_time(limit: str) -> None:
    pair = Pair()
    pair.around.clock += 5
    pair.session.opening_limit = limit
    seconds = getattr(pair.around.timeouts, limit)
    assert pair.wait(seconds) == ""
    assert pair.wait(0.001) == limit
    assert pair.client.value().startswith(b"-ERR [SYS/TEMP] the mail server does not answer")
    assert pair.both_gone().reason == f"timeout:{limit}"


def test_tls_that_fails_on_the_way_to_the_server_is_an_unreachable_one() -> None:
    pair = Pair()
    pair.session.insecure(Side.SERVER, "its certificate has expired")
    assert pair.client.value().startswith(b"-ERR [SYS/TEMP]")
    assert pair.both_gone().reason == "upstream_unreachable"


# --- lists of capabilities --------------------------------------------------------------------------------

SHOWN = {
    "none": CAPA.replace(b"STLS\r\n", b""),
    "implicit": CAPA.replace(b"STLS\r\n", b"").replace(b" EXTERNAL", b""),
    "terminate": CAPA.replace(b" EXTERNAL", b""),
    "require": CAPA.replace(b"USER\r\n", b"").replace(b"SASL PLAIN EXTERNAL\r\n", b""),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_list_is_edited_however_it_is_cut(mode: str) -> None:
    for cut in range(len(CAPA)):
        pair = relaying(mode)
        pair.client_says(b"CAPA\r\nNOOP\r\n")
        pair.server_says(CAPA[:cut])
        pair.server_says(CAPA[cut:])
        pair.server_says(b"+OK\r\n")
        assert pair.client.value() == SHOWN[mode] + b"+OK\r\n"


@pytest.mark.parametrize("mode", MODES)
def test_a_list_is_edited_octet_by_octet(mode: str) -> None:
    pair = relaying(mode)
    pair.client_says(b"NOOP\r\nCAPA\r\nCAPA\r\n")
    for octet in b"+OK\r\n" + CAPA + CAPA:
        pair.server_says(bytes([octet]))
    assert pair.client.value() == b"+OK\r\n" + SHOWN[mode] + SHOWN[mode]


def test_a_list_is_edited_however_hooks_look_at_it() -> None:
    class Looks(Hook):
        blocking = True

        def pop3_reply(self, event: Any) -> None:
            """Look."""

        def pop3_data(self, event: Any) -> None:
            """Look."""

    for cut in range(len(CAPA)):
        pair = relaying("terminate", Looks())
        pair.client_says(b"CAPA\r\nNOOP\r\n")
        pair.server_says(CAPA[:cut])
        pair.server_says(CAPA[cut:] + b"+OK\r\n")
        assert pair.client.value() == SHOWN["terminate"] + b"+OK\r\n"


@both
def test_inside_tls_a_list_shows_no_stls(mode: str) -> None:
    pair = secure(mode)
    pair.client_says(b"CAPA\r\n")
    pair.server_says(CAPA)
    assert pair.client.value() == SHOWN["implicit"]


def test_where_stls_passes_only_what_hangs_on_one_tls_is_hidden() -> None:
    pair = cleared(Pair(terms=terms("pass", "tls")).connect())
    pair.server_says(GREETING)
    pair.client_says(b"CAPA\r\n")
    pair.server_says(CAPA)
    assert pair.client.value() == GREETING + CAPA.replace(b" EXTERNAL", b"")
    pair.client_says(b"STLS\r\n")
    assert pair.server.value() == b"CAPA\r\nSTLS\r\n"


# --- records of what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "line", "denial"),
    [
        ("none", b"STLS", NO_TLS),
        ("implicit", b"STLS", ALREADY_ON),
        ("none", b" STLS", NO_TLS),
        ("require", b"USER bob", TLS_REQUIRED),
        ("require", b"AUTH", TLS_REQUIRED),
    ],
)
def test_what_the_terms_refuse_has_its_reply_among_the_events(
    mode: str, line: bytes, denial: Deny
) -> None:
    pair = relaying(mode)
    pair.client_says(line + b"\r\n")
    assert pair.client.value() == denial.line
    kinds = [type(event) for event in pair.around.told if type(event) is not Unexpected]
    assert kinds == [Request, Reply]
    (reply,) = told(pair, Reply)
    assert (reply.cmd, reply.msg, reply.denial) == ("ERR", denial.reply[5:], True)
    assert pair.analyzer.summary.denied == pair.around.counts["denied"] == 1


def test_stls_that_comes_too_late_has_its_reply_among_the_events() -> None:
    pair = relaying("terminate")
    pair.client_says(b"USER bob\r\nPASS secret\r\nSTLS\r\n")
    pair.server_says(b"+OK\r\n+OK\r\n")
    assert pair.client.value() == b"+OK\r\n+OK\r\n" + TOO_LATE.line
    assert [reply.denial for reply in told(pair, Reply)] == [False, False, True]
    assert pair.analyzer.summary.denied == pair.around.counts["denied"] == 1


def test_a_denial_that_cannot_be_recorded_is_not_sent() -> None:
    pair = relaying("none")
    pair.around.refuses = Reply
    pair.client_says(b"STLS\r\n")
    assert pair.client.value() == b""
    assert pair.both_gone().reason == "hook"


def test_the_denial_of_a_success_that_cannot_be_recorded_is_not_sent() -> None:
    class Denies(Hook):
        blocking = True

        def pop3_login_success(self, event: LoginSuccess) -> Deny:
            pair.around.refuses = Reply
            return Deny()

    pair = relaying("terminate", Denies())
    pair.client_says(b"APOP bob c4c9334bac560ecc979e58001b3e22fb\r\n")
    pair.server_says(b"+OK welcome\r\n")
    assert pair.client.value() == b""
    assert pair.both_gone().reason == "hook"


def test_stls_that_the_session_s_end_overtakes_is_no_denial() -> None:
    pair = relaying("terminate")
    pair.client_says(b"NOOP\r\nSTLS\r\n")
    pair.session.end("shutdown")
    assert told(pair, Reply) == []
    assert pair.both_gone().denied == 0


# --- a server without CAPA ----------------------------------------------------------------------------------

REFUSAL = b"-ERR unknown command\r\n"
ANSWERED = {
    "none": REFUSAL,
    "implicit": REFUSAL,
    "terminate": b"+OK Capability list follows\r\nTOP\r\nUIDL\r\nUSER\r\nSTLS\r\n.\r\n",
    "require": b"+OK Capability list follows\r\nTOP\r\nUIDL\r\nSTLS\r\n.\r\n",
}


class LooksAtReplies(Hook):
    """Holds every line of the server that may be a reply, until it is whole."""

    blocking = True

    def pop3_reply(self, event: Any) -> None:
        """Look."""


@pytest.mark.parametrize("hooks", [(), (LooksAtReplies(),)], ids=["no hook", "a hook"])
@pytest.mark.parametrize("mode", MODES)
def test_a_refused_capa_is_answered_in_its_place_however_it_is_cut(
    mode: str, hooks: tuple[Hook, ...]
) -> None:
    for cut in range(len(REFUSAL)):
        pair = relaying(mode, *hooks)
        pair.client_says(b"NOOP\r\nCAPA\r\nNOOP\r\n")
        pair.server_says(b"+OK 1\r\n")
        pair.server_says(REFUSAL[:cut])
        pair.server_says(REFUSAL[cut:])
        pair.server_says(b"+OK 2\r\n")
        assert pair.client.value() == b"+OK 1\r\n" + ANSWERED[mode] + b"+OK 2\r\n"
        said = [(event.cmd, event.msg, event.denial) for event in told(pair, Reply)]
        assert said == [("OK", "1", False), ("ERR", "unknown command", False), ("OK", "2", False)]
        assert pair.around.counts["capa_answered"] == (ANSWERED[mode] != REFUSAL)


@both
def test_every_refused_capa_is_answered_octet_by_octet_with_the_server_s_line_end(
    mode: str,
) -> None:
    pair = relaying(mode)
    pair.client_says(b"CAPA\r\nCAPA\r\n")
    for octet in b"+err\n" + REFUSAL:
        pair.server_says(bytes([octet]))
    assert pair.client.value() == ANSWERED[mode].replace(b"\r", b"") + ANSWERED[mode]


@both
def test_inside_tls_a_refused_capa_is_answered_without_stls(mode: str) -> None:
    pair = secure(mode)
    pair.client_says(b"CAPA\r\n")
    pair.server_says(REFUSAL)
    assert pair.client.value() == ANSWERED["terminate"].replace(b"STLS\r\n", b"")


@pytest.mark.parametrize(
    "said",
    [
        b"-ERR Disconnected for inactivity.\r\n",
        b"no status line\r\n",
        b"+OK half a list\r\nTOP\r\n",
        b"-ERR " + b"x" * CAPA_HELD,
        b"-ERR half a lin",
    ],
    ids=lambda said: said[:12].decode(),
)
def test_what_is_no_refusal_of_capa_arrives_unchanged_with_the_server_s_end(said: bytes) -> None:
    for cut in (0, 1, 5, len(said)):
        pair = relaying("terminate")
        pair.client_says(b"CAPA\r\n")
        pair.server_says(said[:cut])
        pair.server_says(said[cut:])
        pair.server_wire.connectionLost(GONE)
        assert pair.client.value() == said
        assert pair.around.counts["capa_answered"] == 0


def test_behind_a_line_in_its_place_a_refused_capa_is_answered() -> None:
    farewell = b"-ERR Disconnected " + b"x" * CAPA_HELD + b"\r\n"
    for cut in (3, CAPA_HELD + 10, len(farewell)):
        pair = relaying("terminate")
        pair.client_says(b"CAPA\r\n")
        pair.server_says(farewell[:cut])
        pair.server_says(farewell[cut:])
        pair.server_says(REFUSAL)
        assert pair.client.value() == farewell + ANSWERED["terminate"]


def test_in_doubt_a_refusal_is_left_alone_and_so_is_what_follows_it() -> None:
    farewell = b"-ERR Disconnected for inactivity.\r\n"
    pair = relaying("terminate")
    pair.client_says(b"NOOP\r\n")
    pair.server_says(b"no status line\r\n")
    pair.client_says(b"CAPA\r\n")
    pair.server_says(REFUSAL)
    pair.client_says(b"CAPA\r\n")
    assert not pair.analyzer.in_doubt
    pair.server_says(farewell)
    assert pair.client.value() == b"no status line\r\n" + REFUSAL + farewell
    pair.server_says(REFUSAL)
    assert pair.client.value().endswith(farewell + ANSWERED["terminate"])


def test_the_beginning_of_mail_ahead_of_a_capa_is_not_held() -> None:
    pair = relaying("terminate")
    pair.client_says(b"USER bob\r\nPASS secret\r\nRETR 1\r\nCAPA\r\n")
    pair.server_says(b"+OK\r\n+OK\r\n+OK\r\n-ERR half a line of m")
    assert pair.client.value().endswith(b"-ERR half a line of m")


def test_stls_behind_a_refused_capa_is_answered_behind_the_list() -> None:
    pair = relaying("require")
    pair.client_says(b"CAPA\r\nSTLS\r\n")
    pair.server_says(REFUSAL)
    assert pair.client.value() == ANSWERED["require"] + BEGIN_TLS


def test_the_analyzer_sees_the_server_s_list() -> None:
    pair = relaying("terminate")
    pair.client_says(b"CAPA\r\n")
    pair.server_says(b"+OK\r\nAUTH-RESP-CODE\r\n.\r\n")
    assert pair.analyzer.auth_resp_code


def test_stls_behind_capa_is_answered_behind_the_edited_list() -> None:
    pair = relaying("terminate")
    pair.client_says(b"CAPA\r\nNOOP\r\nSTLS\r\n")
    for octet in CAPA + b"+OK\r\n":
        pair.server_says(bytes([octet]))
    assert pair.client.value() == SHOWN["terminate"] + b"+OK\r\n" + BEGIN_TLS


def test_a_list_that_is_too_long_passes_unedited_and_the_next_one_is_edited() -> None:
    pair = relaying("none")
    long = (
        b"+OK\r\nSTLS\r\n"
        + b"X" * 70 * 1
        + b"\r\n"
        + (b"X" * 70 + b"\r\n") * (CAPA_HELD // 72)
        + b"STLS\r\n.\r\n"
    )
    assert len(long) > CAPA_HELD
    pair.client_says(b"CAPA\r\nCAPA\r\n")
    most = 0
    for at in range(0, len(long), 100):
        pair.server_says(long[at : at + 100])
        most = max(most, at + 100 - len(pair.client.value()))
    assert most <= CAPA_HELD + 100
    pair.server_says(CAPA)
    assert pair.client.value() == long + SHOWN["none"]
    assert pair.around.counts["capa_too_long"] == 1


@pytest.mark.parametrize("end", ["fin", "lost"])
def test_the_end_of_a_server_inside_a_list_lets_go_of_it_unchanged(end: str) -> None:
    part = CAPA[:-5]
    pair = relaying("none")
    pair.client_says(b"CAPA\r\n")
    pair.server_says(part)
    assert pair.client.value() == b""
    if end == "fin":
        pair.server_wire.readConnectionLost()
    else:
        pair.server_wire.connectionLost(GONE)
    assert pair.client.value() == part
    assert pair.both_gone().reason == "server_closed"


def test_an_error_of_ours_inside_a_list_lets_go_of_it_unchanged(monkeypatch: Any) -> None:
    pair = relaying("none")
    pair.client_says(b"CAPA\r\n")
    pair.server_says(CAPA[:20])
    assert pair.client.value() == b""

    def fails(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(type(pair.analyzer), "next", fails)
    pair.server_says(CAPA[20:])
    assert pair.client.value() == CAPA


def test_a_client_that_half_closes_gets_its_list() -> None:
    pair = relaying("none")
    pair.client_says(b"CAPA\r\n")
    pair.server_says(CAPA[:20])
    pair.session.client.readConnectionLost()
    assert pair.server.disconnecting
    pair.server_says(CAPA[20:])
    assert pair.client.value() == SHOWN["none"]


def test_a_denial_waits_for_the_list_that_is_held() -> None:
    pair = relaying("terminate", CommandRules([Rule(frozenset({"NOOP"}), denial=Deny("-ERR no"))]))
    pair.client_says(b"CAPA\r\nNOOP\r\n")
    pair.server_says(CAPA[:30])
    assert pair.client.value() == b""
    pair.server_says(CAPA[30:])
    assert pair.client.value() == SHOWN["terminate"] + b"-ERR no\r\n"


def test_sessions_without_terms_hold_nothing() -> None:
    pair = Pair().connect()
    pair.server_says(GREETING)
    cleared(pair)
    pair.client_says(b"ST")
    assert pair.server.value() == b"ST"
    pair.client_says(b"AT\r\nCAPA\r\n")
    pair.server_says(b"-ERR\r\n" + CAPA[:15])
    assert pair.client.value() == b"-ERR\r\n" + CAPA[:15]
    assert len(told(pair, Request)) == 2


# --- whatever the peers say -------------------------------------------------------------------------------

EXAMPLES = 1000 if os.environ.get("CI") else 200


def plays(pair: Pair, runs: list[Run], source: random.Random) -> None:
    """Have both say what they say, in pieces, until the session ends or turns."""
    for side, data in runs:
        size = source.choice([1, 3, 30])
        for at in range(0, len(data), size):
            if pair.session.mode not in (Mode.RELAY, Mode.TUNNEL):
                return
            (pair.client_says if side is Side.CLIENT else pair.server_says)(data[at : at + size])


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(sessions(), st.sampled_from(MODES), st.integers(0, 1 << 32))
def test_no_stls_reaches_a_server_as_long_as_the_session_is_inspected(
    runs: list[Run], mode: str, seed: int
) -> None:
    # Within an exchange, or a message, STLS is no command.
    rare = re.compile(rb"AUTH|XTND|STAT|QUIT|RETR 1", re.I)
    pair = relaying(mode)
    plays(pair, [(side, rare.sub(b"STLS", data)) for side, data in runs], random.Random(seed))
    if not pair.analyzer.blind:
        words = [line.split(b" ")[0].upper() for line in pair.server.value().split(b"\n")]
        assert b"STLS" not in [word.removesuffix(b"\r") for word in words]


@pytest.mark.parametrize("mode", ["none", "implicit", "terminate", "require"])
def test_the_beginning_of_a_reply_waits_for_nothing(mode: str) -> None:
    """Though a reply is what turns TLS on elsewhere."""
    pair = relaying(mode)
    pair.client_says(b"NOOP\r\n")
    cleared(pair)
    pair.server_says(b"+O")
    assert pair.client.value() == b"+O"


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(sessions(), st.sampled_from(["none", "implicit", "terminate"]), st.integers(0, 1 << 32))
def test_where_nothing_is_said_of_tls_all_that_is_said_arrives(
    runs: list[Run], mode: str, seed: int
) -> None:
    # A list is edited, and a line with a bare CR or NUL is not passed.
    edited = re.compile(rb"\0|\r(?!\n)")
    runs = [(side, edited.sub(b"x", data).replace(b"CAPA", b"NOOP")) for side, data in runs]
    runs = [(side, data.replace(b"STLS", b"STAT")) for side, data in runs]
    pair = relaying(mode)
    plays(pair, runs, random.Random(seed))
    said = {side: b"".join(data for who, data in runs if who is side) for side in Side}
    assert said[Side.SERVER] == pair.client.value()
    # What waits for an answer, or is the beginning of a line that may be STLS, has not gone on.
    assert said[Side.CLIENT].startswith(pair.server.value())
    pair.analyzer.give_up("the test's end")
    pair.client_says(b"\n")
    assert pair.server.value() == said[Side.CLIENT] + b"\n"


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(sessions(), st.integers(0, 1 << 32))
def test_no_login_reaches_a_server_before_required_tls(runs: list[Run], seed: int) -> None:
    pair = relaying("require")
    plays(pair, runs, random.Random(seed))
    lines = re.split(rb"[\r\n][\0-\x20]*", b"\n" + pair.server.value().upper())
    words = {re.split(rb"[\0-\x20]", line)[0] for line in lines}
    assert words.isdisjoint({b"USER", b"PASS", b"APOP", b"RPOP", b"AUTH"})
    assert pair.analyzer.user is None
