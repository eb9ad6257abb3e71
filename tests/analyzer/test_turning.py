"""STLS that the caller answers itself, and what is forgotten inside TLS; lists of capabilities."""

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import (
    ALL,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Reason,
    Reply,
    Request,
    Side,
    StartTLS,
    Tls,
    Unexpected,
)
from pop3proxy.analyzer.grammar import Role
from pop3proxy.analyzer.steps import Step

from .player import new_connection

C, S = Side.CLIENT, Side.SERVER
TURNS: frozenset[type[Event]] = frozenset({StartTLS})
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")
GREETING = b"+OK ready\r\n"


def made(gated: frozenset[type[Event]] = TURNS, wants: frozenset[type[Event]] = ALL) -> Analyzer:
    analyzer = Analyzer(new_connection(), wants=wants, gated=gated)
    say(analyzer, S, GREETING)
    return analyzer


def say(analyzer: Analyzer, side: Side, data: bytes) -> list[Step]:
    """Feed bytes, and pull all steps of that side."""
    analyzer.feed(side, data, 1.0)
    return pull(analyzer, side)


def pull(analyzer: Analyzer, side: Side) -> list[Step]:
    steps = []
    while (step := analyzer.next(side)) is not None:
        steps.append(step)
    return steps


def events(steps: list[Step]) -> list[Event]:
    return [event for step in steps for event in step.events]


def kinds(found: list[Event]) -> list[type[Event]]:
    return [type(event) for event in found]


def turn(analyzer: Analyzer) -> None:
    """Have STLS answered by the caller, and TLS turned on."""
    (step,) = say(analyzer, C, b"STLS\r\n")
    assert analyzer.refused(step) == b""
    assert analyzer.quiet
    assert kinds(list(analyzer.turned(1.0))) == [StartTLS]
    analyzer.secured(TLS)


@pytest.mark.parametrize(
    "head", [b"S", b"stls\r", b"STLS ", b" ST", b"\0", b"N\r", b"N", b"USER b"]
)
def test_every_unfinished_line_may_be_stls_where_the_caller_answers_it(head: bytes) -> None:
    analyzer = made()
    say(analyzer, C, b"NOOP\r\n")
    say(analyzer, S, b"+OK\r\n")
    (step,) = say(analyzer, C, head)
    assert step.open
    assert StartTLS in step.may


@pytest.mark.parametrize(
    ("head", "held"),
    [
        *((head, True) for head in (b"S", b"stls", b"STLS\t", b" ST", b"\0", b"    S", b"     ")),
        *((head, False) for head in (b"N", b"STA", b"STLSX", b"RETR 1", b" R", b"NOOP STLS")),
    ],
)
def test_behind_the_login_only_an_unfinished_line_that_may_be_stls_is_held_for_it(
    head: bytes, held: bool
) -> None:
    analyzer = made()
    say(analyzer, C, b"USER bob\r\nPASS x\r\n")
    say(analyzer, S, b"+OK\r\n+OK\r\n")
    (step,) = say(analyzer, C, head)
    assert (StartTLS in step.may) is held


def test_no_unfinished_line_is_held_for_stls_where_nobody_answers_it() -> None:
    analyzer = made(frozenset({Reply}))
    say(analyzer, C, b"NOOP\r\n")
    (step,) = say(analyzer, C, b"ST")
    assert StartTLS not in step.may


@pytest.mark.parametrize("wants", [ALL, frozenset[type[Event]]()])
@pytest.mark.parametrize("line", [b"STLS\r\n", b"stls\n", b"Stls \r\n", b"STLS now\r\n"])
def test_the_step_that_completes_stls_says_so(line: bytes, wants: frozenset[type[Event]]) -> None:
    analyzer = made(wants=wants)
    (step,) = say(analyzer, C, line)
    assert (step.stls, step.refusal) == (True, None)


def test_a_step_names_its_command_and_no_other() -> None:
    analyzer = made()
    say(analyzer, C, b"NOOP\r\n")
    say(analyzer, S, b"+OK\r\n")
    user, begun = say(analyzer, C, b"USER bob\r\nPA")
    (rest,) = say(analyzer, C, b"SS x\r\n")
    assert [step.command.name if step.command else "" for step in (user, begun, rest)] == [
        "USER",
        "",
        "PASS",
    ]
    assert not user.stls


@pytest.mark.parametrize("line", [b" STLS", b"STLS\t", b"\tstls now", b"stls\t"])
def test_a_line_that_is_stls_to_some_servers_is_stls(line: bytes) -> None:
    (step,) = say(made(), C, line + b"\r\n")
    assert (step.stls, step.refusal) == (True, None)


TWO_LINES = [b"NOOP\rSTLS", b"NOOP\r\0stls\0", b"stls\r", b"USER b\0b", b"PASS x\r", b"\0STLS"]


@pytest.mark.parametrize("line", TWO_LINES)
def test_a_line_that_is_two_to_some_servers_is_not_passed(line: bytes) -> None:
    analyzer = made()
    (step,) = say(analyzer, C, line + b"\r\n")
    assert step.refusal is not None
    assert step.refusal.reply.startswith(b"-ERR ")
    assert Oddity.NOT_PASSED in [e.msg for e in step.events if isinstance(e, Unexpected)]
    analyzer.refused(step)
    assert analyzer.owed == 0


@pytest.mark.parametrize("line", [b"NOOP\rSTLS", b"X\0Y"])
def test_it_passes_where_nobody_answers_stls(line: bytes) -> None:
    (step,) = say(made(frozenset({Reply})), C, line + b"\r\n")
    assert step.refusal is None


def test_it_passes_behind_a_login() -> None:
    analyzer = made()
    say(analyzer, C, b"USER bob\r\nPASS x\r\n")
    say(analyzer, S, b"+OK\r\n+OK\r\n")
    (step,) = say(analyzer, C, b"NOOP\rSTLS\r\n")
    assert step.refusal is None


def test_only_barriers_wait_and_no_login_does() -> None:
    analyzer = made()
    assert (
        len(say(analyzer, C, b"USER bob\r\nPASS x\r\nUSER eve\r\nPASS y\r\nSTLS\r\nNOOP\r\n")) == 5
    )
    assert not analyzer.blind


def test_a_line_behind_auth_waits_since_it_may_be_stls() -> None:
    analyzer = made()
    (step,) = say(analyzer, C, b"AUTH FOO\r\nSTLS\r\n")
    assert step.size == 10
    say(analyzer, S, b"-ERR\r\n")
    (step,) = pull(analyzer, C)
    assert step.stls


@pytest.mark.parametrize("line", [b"\tPASS x\r\n", b"EHLO me\r\n", b"GET / HTTP/1.0\r\n"])
def test_no_line_of_a_client_ends_inspection(line: bytes) -> None:
    analyzer = made()
    say(analyzer, C, line)
    assert analyzer.inspected == "whole"


def test_the_caller_s_answer_raises_the_event_and_inspection_goes_on() -> None:
    analyzer = made()
    turn(analyzer)
    assert analyzer.connection.tls is TLS
    assert analyzer.inspected == "whole"
    assert kinds(events(say(analyzer, C, b"USER bob\r\nPASS x\r\n"))) == [
        Request,
        Request,
        LoginAttempt,
    ]
    found = events(say(analyzer, S, b"+OK\r\n+OK\r\n"))
    assert kinds(found) == [Reply, LoginSuccess, Reply]
    assert all(event.c.tls is TLS for event in found)


def test_what_nobody_wants_is_not_raised() -> None:
    analyzer = made(wants=frozenset())
    (step,) = say(analyzer, C, b"STLS\r\n")
    analyzer.refused(step)
    assert list(analyzer.turned(1.0)) == []


def test_what_is_pipelined_behind_stls_is_reported_instead() -> None:
    analyzer = made()
    step = say(analyzer, C, b"STLS\r\nUSER eve\r\nPASS x\r\n")[0]
    assert step.size == 6
    analyzer.refused(step)
    (event,) = analyzer.turned(1.0)
    assert isinstance(event, Unexpected)
    assert (event.msg, event.detail, event.is_orig) == (Oddity.CLIENT_INJECTION, "USER eve", True)


def test_what_comes_while_somebody_is_asked_is_reported_too() -> None:
    analyzer = made()
    (step,) = say(analyzer, C, b"STLS\r\n")
    analyzer.refused(step)
    assert kinds(list(analyzer.turned(1.0))) == [StartTLS]
    analyzer.feed(C, b"x", 1.0)
    (event,) = analyzer.turned(1.0)
    assert isinstance(event, Unexpected)


def test_the_guard_forgets_the_user_named_before_tls() -> None:
    analyzer = made(ALL)
    say(analyzer, C, b"USER eve\r\n")
    say(analyzer, S, b"+OK\r\n")
    turn(analyzer)
    (step,) = say(analyzer, C, b"PASS x\r\n")
    assert step.refusal is not None
    assert LoginAttempt not in kinds(events([step]))


@pytest.mark.parametrize(
    ("answer", "kind"), [(b"+OK\r\n", LoginSuccess), (b"-ERR\r\n", LoginFailure)]
)
def test_unguarded_the_server_says_whether_a_user_named_before_tls_counts(
    answer: bytes, kind: type[Event]
) -> None:
    analyzer = made()
    say(analyzer, C, b"USER eve\r\n")
    say(analyzer, S, b"+OK\r\n")
    turn(analyzer)
    (attempt,) = (e for e in events(say(analyzer, C, b"PASS x\r\n")) if isinstance(e, LoginAttempt))
    outcome = events(say(analyzer, S, answer))[0]
    assert isinstance(outcome, LoginSuccess | LoginFailure)
    assert type(outcome) is kind
    assert (attempt.user, outcome.user) == ("eve", "eve")
    assert attempt.attempt == outcome.attempt


def test_a_refused_auth_before_tls_makes_no_secret_of_a_line_behind_it() -> None:
    analyzer = made()
    say(analyzer, C, b"AUTH FOO\r\n")
    say(analyzer, S, b"-ERR\r\n")
    turn(analyzer)
    # A verb of other protocols, and base64.
    request = events(say(analyzer, C, b"HELP\r\n"))[0]
    assert isinstance(request, Request)
    assert request.secret.name == "ARGUMENT"


@pytest.mark.parametrize(
    ("announced", "reason"), [(False, Reason.CREDENTIALS), (True, Reason.UNKNOWN)]
)
def test_auth_resp_code_is_forgotten_unless_it_is_configured(
    announced: bool, reason: Reason
) -> None:
    analyzer = Analyzer(new_connection(), gated=TURNS, auth_resp_code=announced)
    say(analyzer, S, GREETING)
    say(analyzer, C, b"CAPA\r\n")
    say(analyzer, S, b"+OK\r\nAUTH-RESP-CODE\r\n.\r\n")
    assert analyzer.auth_resp_code
    turn(analyzer)
    assert analyzer.auth_resp_code is announced
    say(analyzer, C, b"USER bob\r\nPASS x\r\n")
    failure = events(say(analyzer, S, b"+OK\r\n-ERR no\r\n"))[1]
    assert isinstance(failure, LoginFailure)
    assert failure.reason == reason


def test_what_is_held_back_can_change_with_tls() -> None:
    analyzer = made(TURNS | {Request, LoginAttempt})
    (step,) = say(analyzer, C, b"STLS\r\n")
    analyzer.refused(step)
    analyzer.turned(1.0)
    analyzer.secured(TLS, TURNS)
    assert len(say(analyzer, C, b"USER bob\r\nPASS x\r\nUSER eve\r\n")) == 3
    say(analyzer, C, b"\tPASS x\r\n")
    assert analyzer.inspected == "whole"


# --- STLS that is between client and server -------------------------------------------------------------

CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"


def passed() -> Analyzer:
    """Return an analyzer whose guarded client's STLS the server has accepted."""
    analyzer = made(frozenset({LoginAttempt}))
    say(analyzer, C, b"STLS\r\n")
    assert kinds(events(say(analyzer, S, b"+OK\r\n"))) == [StartTLS]
    return analyzer


@pytest.mark.parametrize("cut", range(len(CLIENT_HELLO)))
def test_behind_a_guarded_stls_a_tls_record_passes(cut: int) -> None:
    analyzer = passed()
    steps = say(analyzer, C, CLIENT_HELLO[:cut]) + say(analyzer, C, CLIENT_HELLO[cut:])
    assert [step.ends for step in steps if step.ends] == []
    assert analyzer.done


@pytest.mark.parametrize(
    "data", [b"USER bob\r\n", b"\x17\x03\x03\0\x10", b"\x16\x02\x01", b"\x16\x03\x05", b"\r\n"]
)
@pytest.mark.parametrize("cut", [1, 2])
def test_behind_a_guarded_stls_anything_else_ends_the_session(data: bytes, cut: int) -> None:
    analyzer = passed()
    ends = [step.ends for step in say(analyzer, C, data[:cut]) + say(analyzer, C, data[cut:])]
    assert "no_tls" in ends


def test_what_waited_behind_a_guarded_stls_ends_the_session() -> None:
    analyzer = made(frozenset({LoginAttempt}))
    say(analyzer, C, b"STLS\r\nUSER eve\r\n")
    (event, *_) = [e for e in events(say(analyzer, S, b"+OK\r\n")) if isinstance(e, Unexpected)]
    assert event.msg is Oddity.CLIENT_INJECTION
    assert [step.ends for step in pull(analyzer, C)] == ["client_injection"]


# --- lists of capabilities ------------------------------------------------------------------------------


CAPA = b"+OK list\r\nTOP\r\nSTLS\r\n.\r\n"


def flags(steps: list[Step]) -> list[tuple[int, Role | None, bool]]:
    return [(step.size, step.listing, step.listing_ends) for step in steps]


@pytest.mark.parametrize("wants", [ALL, frozenset[type[Event]]()])
def test_the_steps_of_a_list_of_capabilities_say_so(wants: frozenset[type[Event]]) -> None:
    analyzer = made(wants=wants)
    say(analyzer, C, b"NOOP\r\nCAPA\r\nNOOP\r\n")
    found = flags(say(analyzer, S, b"+OK\r\n" + CAPA + b"+OK\r\n"))
    assert found == [
        (5, None, False),
        (10, Role.CAPA, False),
        (14, Role.CAPA, True),
        (5, None, False),
    ]


@pytest.mark.parametrize("command", [b"AUTH\r\n", b"AUTH \r\n"])
def test_the_steps_of_a_list_of_mechanisms_say_so(command: bytes) -> None:
    analyzer = made()
    say(analyzer, C, command)
    found = flags(say(analyzer, S, b"+OK\r\nPLAIN\r\n.\r\n"))
    assert found == [(5, Role.MECHANISMS, False), (10, Role.MECHANISMS, True)]


def test_they_say_so_however_they_are_cut() -> None:
    for at in range(1, len(CAPA)):
        analyzer = made()
        say(analyzer, C, b"CAPA\r\nNOOP\r\n")
        steps = say(analyzer, S, CAPA[:at]) + say(analyzer, S, CAPA[at:] + b"+OK\r\n")
        assert sum(step.size for step in steps if step.listing) == len(CAPA)
        assert [step.listing_ends for step in steps] == [False] * (len(steps) - 2) + [True, False]


def test_a_refused_capa_says_so_where_it_ends() -> None:
    for at in range(1, 6):
        analyzer = made()
        say(analyzer, C, b"CAPA\r\n")
        steps = say(analyzer, S, b"-ERR\r\n"[:at]) + say(analyzer, S, b"-ERR\r\n"[at:])
        assert flags(steps) == [(at, Role.CAPA, False), (6 - at, Role.CAPA, True)]
        assert [step.capa_refused for step in steps] == [False, True]


def test_another_list_is_no_list_of_capabilities() -> None:
    analyzer = made()
    say(analyzer, C, b"LIST\r\n")
    assert not any(step.listing for step in say(analyzer, S, CAPA))
