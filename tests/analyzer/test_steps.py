"""The pulled interface: what a step covers, what an open line may become, what waits at a barrier."""

import base64

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import (
    ALL,
    Data,
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
    Unexpected,
)
from pop3proxy.analyzer.steps import Step

from .player import new_connection

C, S = Side.CLIENT, Side.SERVER
RESPONSE = base64.b64encode(b"\0bob\0secret") + b"\r\n"
DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"

LOGINS: frozenset[type[Event]] = frozenset({Request, LoginAttempt, LoginSuccess, LoginFailure})


def _pull(analyzer: Analyzer, side: Side) -> list[Step]:
    """Pull one side to the end."""
    steps = []
    while (step := analyzer.next(side)) is not None:
        steps.append(step)
    return steps


def _settle(analyzer: Analyzer, *said: tuple[Side, bytes]) -> list[Event]:
    """Feed and pull, as an ungated session does, and return the last events."""
    events: list[Event] = []
    for side, data in said:
        analyzer.feed(side, data, 0.0)
        events = [event for step in _pull(analyzer, side) for event in step.events]
    return events


@pytest.fixture
def analyzer() -> Analyzer:
    """Return an ungated analyzer behind its greeting."""
    analyzer = Analyzer(new_connection())
    _settle(analyzer, (S, b"+OK ready\r\n"))
    return analyzer


@pytest.fixture
def gated() -> Analyzer:
    """Return an analyzer behind its greeting that is gated for everything but logins and requests."""
    analyzer = Analyzer(new_connection(), gated=ALL - LOGINS)
    _settle(analyzer, (S, b"+OK ready\r\n"))
    return analyzer


@pytest.fixture
def guarded() -> Analyzer:
    """Return an analyzer behind its greeting that is gated for everything."""
    analyzer = Analyzer(new_connection(), gated=ALL)
    _settle(analyzer, (S, b"+OK ready\r\n"))
    return analyzer


def _open_step(analyzer: Analyzer, side: Side, data: bytes) -> Step:
    analyzer.feed(side, data, 0.0)
    (step,) = _pull(analyzer, side)
    assert step.open
    assert step.size == len(data)
    assert not step.events
    return step


def test_nothing_fed_is_no_step(analyzer: Analyzer) -> None:
    assert analyzer.next(C) is None
    assert analyzer.next(S) is None


def test_a_complete_line_is_no_open_step(analyzer: Analyzer) -> None:
    analyzer.feed(C, b"NOOP\r\n", 0.0)
    (step,) = _pull(analyzer, C)
    assert (step.size, step.open) == (6, False)


@pytest.mark.parametrize(
    "head",
    [
        b"P",
        b"PASS",
        b"PASS\r",
        b"pass ",
        b"PASS sec",
        b"A",
        b"APOP b",
        b"AUTH PLAIN AG",
        b"RP",
        b"RPOP\r",
        b" ",
        b"\tPASS",
    ],
)
def test_an_unfinished_login_may_become_an_attempt(analyzer: Analyzer, head: bytes) -> None:
    _settle(analyzer, (C, b"NOOP\r\n"))
    step = _open_step(analyzer, C, head)
    assert step.may >= {Request, LoginAttempt}


@pytest.mark.parametrize("head", [b"N", b"NOOP", b"USER bob", b"QUIT ", b"PASSS", b"\x16", b" ST"])
def test_an_unfinished_line_may_become_anything_where_the_guard_reads_it(
    guarded: Analyzer, head: bytes
) -> None:
    _settle(guarded, (C, b"NOOP\r\n"), (S, b"+OK\r\n"))
    assert _open_step(guarded, C, head).may == ALL


@pytest.mark.parametrize(
    ("side", "head"),
    [(C, b"E"), (C, b"GET"), (C, b"\x16"), (C, b"USER b"), (S, b"2"), (S, b"* O")],
)
def test_a_first_line_that_may_show_another_protocol_may_become_anything(
    side: Side, head: bytes
) -> None:
    assert _open_step(Analyzer(new_connection()), side, head).may == ALL


@pytest.mark.parametrize("head", [b"+", b"-ERR n"])
def test_a_first_line_of_the_server_that_begins_like_pop3_is_no_exception(head: bytes) -> None:
    may = _open_step(Analyzer(new_connection()), S, head).may
    assert LoginAttempt not in may
    assert Reply in may


def test_an_unfinished_sasl_response_may_become_an_attempt(analyzer: Analyzer) -> None:
    _settle(analyzer, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    step = _open_step(analyzer, C, b"AG")
    assert LoginAttempt in step.may
    assert Request not in step.may


def test_an_unfinished_status_line_may_become_a_reply_and_a_login(analyzer: Analyzer) -> None:
    _settle(analyzer, (C, b"USER bob\r\nPASS x\r\n"), (S, b"+OK\r\n"))
    step = _open_step(analyzer, S, b"+O")
    assert step.may >= {Reply, LoginSuccess, LoginFailure}
    assert Data not in step.may


def test_an_unfinished_status_line_may_become_starttls(analyzer: Analyzer) -> None:
    _settle(analyzer, (C, b"STLS\r\n"))
    assert StartTLS in _open_step(analyzer, S, b"+OK").may


def test_an_unfinished_line_of_a_body_may_become_data(analyzer: Analyzer) -> None:
    _settle(analyzer, (C, b"CAPA\r\n"), (S, b"+OK\r\n"))
    step = _open_step(analyzer, S, b"US")
    assert Data in step.may
    assert not step.may & {Reply, LoginSuccess, LoginFailure}


def test_an_unfinished_line_of_a_sent_message_may_become_data(analyzer: Analyzer) -> None:
    _settle(
        analyzer,
        (C, b"USER bob\r\nPASS x\r\nXTND XMIT\r\n"),
        (S, b"+OK\r\n+OK\r\n+OK\r\n"),
    )
    step = _open_step(analyzer, C, b"PASS")
    assert Data in step.may
    assert not step.may & {Request, LoginAttempt}


def test_each_command_is_a_step_of_its_own(gated: Analyzer) -> None:
    gated.feed(C, b"NOOP\r\nUSER bob\r\nPASS x", 0.0)
    assert [step.size for step in _pull(gated, C)] == [6, 10, 6]


def test_each_status_line_is_a_step_of_its_own(gated: Analyzer) -> None:
    _settle(gated, (C, b"USER bob\r\nPASS x\r\nNOOP\r\n"))
    gated.feed(S, b"+OK\r\n-ERR no\r\n+OK\r\n", 0.0)
    assert [step.size for step in _pull(gated, S)] == [5, 9, 5]


def test_no_event_comes_of_bytes_that_were_not_pulled(gated: Analyzer) -> None:
    gated.feed(C, b"NOOP\r\nUSER bob\r\n", 0.0)
    step = gated.next(C)
    assert step is not None
    assert [event.name for event in step.events] == ["pop3_request"]
    assert gated.owed == 1


@pytest.mark.parametrize("barrier", [b"AUTH FOO\r\n", b"STLS\r\n", b"XTND XMIT\r\n"])
def test_a_gated_analyzer_holds_what_is_behind_a_barrier(gated: Analyzer, barrier: bytes) -> None:
    gated.feed(C, barrier + b"USER bob\r\n", 0.0)
    assert [step.size for step in _pull(gated, C)] == [len(barrier)]
    gated.feed(C, b"PASS x\r\n", 0.0)
    assert gated.next(C) is None


@pytest.mark.parametrize("barrier", [b"AUTH FOO\r\n", b"STLS\r\n", b"XTND XMIT\r\n"])
def test_an_ungated_analyzer_passes_what_is_behind_a_barrier(
    analyzer: Analyzer, barrier: bytes
) -> None:
    analyzer.feed(C, barrier + b"USER bob\r\nPASS x\r\n", 0.0)
    first, *others = _pull(analyzer, C)
    assert first.size == len(barrier)
    assert sum(step.size for step in others) == len(b"USER bob\r\nPASS x\r\n")
    assert not any(step.events for step in others)


def test_a_gated_analyzer_lets_one_sasl_response_pass_a_challenge(gated: Analyzer) -> None:
    gated.feed(C, b"AUTH PLAIN\r\n" + RESPONSE + b"STAT\r\n", 0.0)
    _pull(gated, C)
    _settle(gated, (S, b"+ \r\n"))
    steps = _pull(gated, C)
    assert [step.size for step in steps] == [len(RESPONSE)]
    assert [event.name for event in steps[0].events] == ["pop3_login_attempt"]


def test_events_bear_the_time_of_the_bytes_that_completed_them(analyzer: Analyzer) -> None:
    analyzer.feed(C, b"USER bob\r\nPASS x", 1.0)
    (user,) = [event for step in _pull(analyzer, C) for event in step.events]
    analyzer.feed(C, b"\r\n", 2.0)
    events = [event for step in _pull(analyzer, C) for event in step.events]
    assert user.ts == 1.0
    assert [event.ts for event in events] == [2.0, 2.0]


def test_a_login_event_bears_the_time_of_its_reply(analyzer: Analyzer) -> None:
    _settle(analyzer, (C, b"USER bob\r\nPASS x\r\n"), (S, b"+OK\r\n"))
    analyzer.feed(S, b"-ERR", 7.0)
    _pull(analyzer, S)
    analyzer.feed(S, b" no\r\n", 8.0)
    events = [event for step in _pull(analyzer, S) for event in step.events]
    assert [(event.name, event.ts) for event in events] == [
        ("pop3_login_failure", 8.0),
        ("pop3_reply", 8.0),
    ]


def test_all_events_are_of_the_session_s_connection() -> None:
    connection = new_connection()
    events = _settle(Analyzer(connection), (S, b"+OK\r\n"))
    assert [event.c for event in events] == [connection]


def test_a_body_that_nobody_wants_is_one_step_a_chunk() -> None:
    analyzer = Analyzer(new_connection(), wants=ALL - {Data})
    _settle(
        analyzer,
        (S, b"+OK\r\n"),
        (C, b"USER bob\r\nPASS x\r\nRETR 1\r\n"),
        (S, b"+OK\r\n+OK\r\n+OK\r\n"),
    )
    analyzer.feed(S, b"a line of mail\r\n" * 4000, 0.0)
    (step,) = _pull(analyzer, S)
    assert (step.size, len(step.events)) == (64_000, 0)


# --- lock-step ------------------------------------------------------------------------------------------

COMMANDS = [b"NOOP\r\n", b"USER bob\r\n", b"CAPA\r\n", b"AUTH PLAIN\r\n", b"STLS\r\n", b"X\r\n"]


@pytest.mark.parametrize("kind", [Request, LoginAttempt, LoginSuccess, LoginFailure])
@pytest.mark.parametrize("waiting", [*COMMANDS, b"P"])
def test_a_guarded_line_waits_for_the_reply_to_the_one_before(
    kind: type[Event], waiting: bytes
) -> None:
    analyzer = Analyzer(new_connection(), gated=frozenset({kind}))
    analyzer.feed(C, b"NOOP\r\n" + waiting, 0.0)
    assert analyzer.next(C) is None
    _settle(analyzer, (S, b"+OK ready\r\n"))
    assert [step.size for step in _pull(analyzer, C)] == [6]
    _settle(analyzer, (S, b"+OK"))
    assert analyzer.next(C) is None
    _settle(analyzer, (S, b"\r\n"))
    assert [step.size for step in _pull(analyzer, C)] == [len(waiting)]


def test_a_guarded_line_waits_for_the_whole_body(guarded: Analyzer) -> None:
    guarded.feed(C, b"CAPA\r\nNOOP\r\n", 0.0)
    assert len(_pull(guarded, C)) == 1
    for data in (b"+OK\r\n", b"UIDL\r\n", b"."):
        _settle(guarded, (S, data))
        assert guarded.next(C) is None
    _settle(guarded, (S, b"\r\n"))
    assert len(_pull(guarded, C)) == 1


def test_a_guarded_response_waits_for_its_challenge(guarded: Analyzer) -> None:
    guarded.feed(C, b"AUTH LOGIN\r\nYm9i\r\nc2VjcmV0\r\nNOOP\r\n", 0.0)
    assert [step.size for step in _pull(guarded, C)] == [12]
    _settle(guarded, (S, b"+ \r\n"))
    assert [step.size for step in _pull(guarded, C)] == [6]
    _settle(guarded, (S, b"+ \r\n"))
    assert [step.size for step in _pull(guarded, C)] == [10]
    _settle(guarded, (S, b"-ERR no\r\n"))
    assert [step.size for step in _pull(guarded, C)] == [6]


@pytest.mark.parametrize("line", [b"-ERR what\r\n", b"+OK what\r\n"])
def test_a_status_line_that_answers_nothing_ends_the_inspection_of_a_guarded_session(
    guarded: Analyzer, line: bytes
) -> None:
    _settle(guarded, (S, line))
    assert guarded.inspected == "lost:out_of_step"


def test_a_status_line_too_many_ends_it_before_the_next_line_is_read(guarded: Analyzer) -> None:
    guarded.feed(C, b"USER bob\r\nPASS x\r\n", 0.0)
    _pull(guarded, C)
    _settle(guarded, (S, b"+OK\r\n+OK\r\n"))
    assert guarded.inspected == "lost:out_of_step"


@pytest.mark.parametrize("line", [b"Welcome\r\n", b".\r\n", b"+ go on\r\n"])
def test_a_line_that_is_no_reply_ends_the_inspection_of_a_guarded_session(
    guarded: Analyzer, line: bytes
) -> None:
    _settle(guarded, (S, line))
    assert guarded.inspected == "lost:out_of_step"


FAREWELL = b"-ERR Disconnected for inactivity.\r\n"


def test_no_guarded_line_passes_behind_a_farewell(guarded: Analyzer) -> None:
    _settle(guarded, (S, FAREWELL))
    guarded.feed(C, b"USER bob\r\n", 0.0)
    assert guarded.next(C) is None
    assert not guarded.blind


def test_a_farewell_is_one_if_the_server_then_closes(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"USER bob\r\n"), (S, FAREWELL))
    names = [event.name for event in guarded.ended(S, 1.0)]
    assert names == ["pop3_unexpected", "pop3_reply"]


def test_a_farewell_behind_which_the_server_says_more_was_the_reply(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"USER bob\r\n"), (S, b"+OK\r\n"), (C, b"PASS x\r\n"), (S, FAREWELL))
    guarded.feed(S, b"-ERR no\r\n", 1.0)
    events = [event for step in _pull(guarded, S) for event in step.events]
    assert [type(event) for event in events][:2] == [LoginFailure, Reply]
    assert guarded.inspected == "lost:out_of_step"


@pytest.mark.parametrize("command", [b"STAT\r\n", b"RETR 1\r\n", b"LIST\r\n", b"XTND XMIT\r\n"])
def test_no_mailbox_command_passes_before_a_guarded_login(
    guarded: Analyzer, command: bytes
) -> None:
    step = _last_step(guarded, command)
    assert step.refusal is not None
    assert step.refusal.reply == b"-ERR Log in first.\r\n"


def test_a_guarded_ok_to_a_login_without_credentials_ends_inspection(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"AUTH PLAIN\r\n"))
    events = _settle(guarded, (S, b"+OK\r\n"))
    assert guarded.inspected == "lost:out_of_step"
    assert not any(isinstance(event, LoginSuccess) for event in events)


def test_lines_are_strict_behind_the_login_without_lock_step_if_requests_are_decided_about() -> (
    None
):
    analyzer = Analyzer(new_connection(), gated=frozenset({Request}))
    _settle(analyzer, (S, b"+OK ready\r\n"), (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    _settle(analyzer, (C, b"PASS x\r\n"), (S, b"+OK\r\n"))
    analyzer.feed(C, b"STAT\r\nXFOO a b\r\nRETR  1\r\nX\tY\r\nDELE 1\r\n", 0.0)
    assert [step.refusal is None for step in _pull(analyzer, C)] == [True, True, False, False, True]
    analyzer.feed(C, b"NOOP\rDELE 1\r\nPASS x\rDELE 1\r\nNOOP\0\r\n DELE 1\r\n", 0.0)
    assert [step.refusal is None for step in _pull(analyzer, C)] == [False] * 4


def test_nothing_is_strict_behind_the_login_if_only_logins_are_decided_about() -> None:
    analyzer = Analyzer(new_connection(), gated=frozenset({LoginAttempt, LoginFailure}))
    _settle(analyzer, (S, b"+OK ready\r\n"), (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    _settle(analyzer, (C, b"PASS x\r\n"), (S, b"+OK\r\n"))
    analyzer.feed(C, b" RETR 1\r\nX\tY\r\nNOOP\r\r\n", 0.0)
    assert [step.refusal for step in _pull(analyzer, C)] == [None] * 3


# --- what the proxy answers itself ---------------------------------------------------------------------


def _last_step(analyzer: Analyzer, data: bytes) -> Step:
    analyzer.feed(C, data, 0.0)
    return _pull(analyzer, C)[-1]


def _refuse(analyzer: Analyzer, data: bytes) -> tuple[bytes, list[Event]]:
    """Refuse the last of the client's lines; return what the server gets for it, and the events."""
    instead = analyzer.refused(_last_step(analyzer, data))
    if instead:
        analyzer.feed(S, b"-ERR cancelled\r\n", 0.0)
        (step,) = _pull(analyzer, S)
        assert step.withheld
        assert not step.events
    assert analyzer.quiet
    return instead, list(analyzer.answered(b"-ERR [AUTH] no\r\n", 5.0).events)


@pytest.mark.parametrize(
    "line", [b"NOOP\r\n", b"USER bob\r\n", b"STLS\r\n", b"CAPA\r\n", b"AUTH PLAIN\r\n", b"AUTH\r\n"]
)
def test_nothing_is_owed_for_what_was_refused(guarded: Analyzer, line: bytes) -> None:
    instead, (reply,) = _refuse(guarded, line)
    assert instead == b""
    assert isinstance(reply, Reply)
    assert (reply.cmd, reply.msg, reply.denial) == ("ERR", "[AUTH] no", True)
    assert guarded.owed == 0
    # Nothing waits behind it, either.
    assert _last_step(guarded, b"NOOP\r\n").events


@pytest.mark.parametrize(
    "line", [b"X\r\n", b" NOOP\r\n", b"STAT\r\n", b"PASS x\r\n", b"RPOP bob\r\n"]
)
def test_nothing_is_owed_for_what_is_not_passed(guarded: Analyzer, line: bytes) -> None:
    instead, (reply,) = _refuse(guarded, line)
    assert instead == b""
    assert isinstance(reply, Reply)
    assert (guarded.owed, guarded.attempts) == (0, 0)
    assert _last_step(guarded, b"NOOP\r\n").events


def test_a_line_that_is_not_passed_raises_what_it_was_and_that_it_was_not(
    guarded: Analyzer,
) -> None:
    request, unexpected = _last_step(guarded, b"PASS secret\r\n").events
    assert isinstance(request, Request)
    assert (request.command, request.arg) == ("PASS", "secret")
    assert isinstance(unexpected, Unexpected)
    assert (unexpected.msg, unexpected.is_orig) == (Oddity.NOT_PASSED, True)


@pytest.mark.parametrize(
    ("line", "user", "mechanism"),
    [
        (b"PASS x\r\n", "bob", "USER/PASS"),
        (b"APOP al " + DIGEST + b"\r\n", "al", "APOP"),
        (b"AUTH PLAIN " + RESPONSE, "bob", "PLAIN"),
    ],
)
def test_a_login_that_was_refused_has_failed(
    guarded: Analyzer, line: bytes, user: str, mechanism: str
) -> None:
    _settle(guarded, (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    instead, (event, reply) = _refuse(guarded, line)
    assert isinstance(reply, Reply)
    assert instead == b""
    assert isinstance(reply, Reply)
    assert isinstance(event, LoginFailure)
    assert (event.user, event.mechanism, event.reason, event.code, event.ts) == (
        user,
        mechanism,
        Reason.DENIED,
        "AUTH",
        5.0,
    )
    assert (event.attempt, guarded.failures) == (1, 1)


def test_an_exchange_that_the_server_has_begun_is_cancelled(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    instead, (event, _) = _refuse(guarded, RESPONSE)
    assert instead == b"*\r\n"
    assert isinstance(event, LoginFailure)
    assert event.reason is Reason.DENIED


def test_a_malformed_response_cancels_the_exchange_and_fails(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    step = _last_step(guarded, b"AGJvYgBz!\r\n")
    assert step.refusal is not None
    assert guarded.refused(step) == b"*\r\n"
    _settle(guarded, (S, b"-ERR cancelled\r\n"))
    event, _ = guarded.answered(step.refusal.reply, 5.0).events
    assert isinstance(event, LoginFailure)
    assert (event.reason, event.attempt) == (Reason.MALFORMED, 1)


def test_a_cancellation_that_succeeds_ends_inspection(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    guarded.refused(_last_step(guarded, RESPONSE))
    _settle(guarded, (S, b"+OK\r\n"))
    assert guarded.inspected == "lost:out_of_step"


def test_the_beginning_of_a_withheld_answer_is_withheld(guarded: Analyzer) -> None:
    _settle(guarded, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    guarded.refused(_last_step(guarded, RESPONSE))
    for data in (b"-", b"ERR", b" no\r", b"\n"):
        assert not guarded.quiet
        guarded.feed(S, data, 0.0)
        assert [step.withheld for step in _pull(guarded, S)] == [True]
    assert guarded.quiet


def test_the_user_named_before_a_refused_login_is_remembered_where_order_is_free(
    gated: Analyzer,
) -> None:
    _settle(gated, (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    _refuse(gated, b"PASS x\r\n")
    (_, attempt) = _last_step(gated, b"PASS y\r\n").events
    assert isinstance(attempt, LoginAttempt)
    assert attempt.user == "bob"


def test_the_user_named_before_a_refused_login_is_forgotten_by_the_guard(
    guarded: Analyzer,
) -> None:
    _settle(guarded, (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    _refuse(guarded, b"PASS x\r\n")
    step = _last_step(guarded, b"PASS y\r\n")
    assert step.refusal is not None
    assert step.refusal.reply == b"-ERR Send USER first.\r\n"


def test_a_refused_user_is_not_remembered(gated: Analyzer) -> None:
    _settle(gated, (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    _refuse(gated, b"USER eve\r\n")
    (_, attempt) = _last_step(gated, b"PASS y\r\n").events
    assert isinstance(attempt, LoginAttempt)
    assert attempt.user == "bob"


def test_a_refused_command_is_not_counted_as_sent(gated: Analyzer) -> None:
    _refuse(gated, b"RETR 1\r\n")
    assert gated.tally["RETR"] == 0


def test_a_line_of_ours_has_no_place_inside_a_body(gated: Analyzer) -> None:
    _settle(gated, (C, b"CAPA\r\nUSER bob\r\n"))
    gated.feed(C, b"NOOP\r\n", 0.0)
    (step,) = _pull(gated, C)
    gated.refused(step)
    for data in (b"+OK\r\nUID", b"L\r\n", b".\r\n", b"+OK"):
        _settle(gated, (S, data))
        assert not gated.quiet
    _settle(gated, (S, b"\r\n"))
    assert gated.quiet


@pytest.mark.parametrize("cut", [1, 4, 100, 8193, 8194, 9000])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_line_is_too_long_however_it_is_cut(gated: Analyzer, cut: int, end: bytes) -> None:
    _settle(gated, (C, b"NOOP\r\n"))
    line = b"PASS " + b"x" * 8188
    steps = []
    for data in (line[:cut], line[cut:], end):
        gated.feed(C, data, 0.0)
        steps += _pull(gated, C)
    assert any(step.too_long and LoginAttempt in step.may for step in steps)


def test_a_line_of_the_greatest_length_is_not_too_long(gated: Analyzer) -> None:
    _settle(gated, (C, b"NOOP\r\n"))
    steps = []
    for data in (b"PASS " + b"x" * 8187, b"\r", b"\n"):
        gated.feed(C, data, 0.0)
        steps += _pull(gated, C)
    assert not any(step.too_long for step in steps)


def test_credentials_that_replace_others_in_one_exchange_are_another_attempt(
    analyzer: Analyzer,
) -> None:
    first = _settle(analyzer, (C, b"AUTH PLAIN =\r\n"))
    _settle(analyzer, (S, b"+ \r\n"))
    second = _settle(analyzer, (C, RESPONSE))
    attempts = [event for event in (*first, *second) if isinstance(event, LoginAttempt)]
    assert [(event.user, event.attempt) for event in attempts] == [("", 1), ("bob", 2)]
    assert isinstance(second[0], Unexpected)
    assert (second[0].msg, second[0].attempt) == (Oddity.LOGIN_CANCELLED, 1)


def test_each_line_of_a_body_is_a_step_of_its_own_where_data_is_gated(gated: Analyzer) -> None:
    _settle(gated, (C, b"CAPA\r\n"), (S, b"+OK\r\n"))
    gated.feed(S, b"UIDL\r\nTOP\r\n.\r\n", 0.0)
    assert [step.size for step in _pull(gated, S)] == [6, 5, 3]
