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
    Reason,
    Reply,
    Request,
    Side,
    StartTLS,
)
from pop3proxy.analyzer.steps import Step

from .player import new_connection

C, S = Side.CLIENT, Side.SERVER
RESPONSE = base64.b64encode(b"\0bob\0secret") + b"\r\n"


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
    """Return a gated analyzer behind its greeting."""
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
    ],
)
def test_an_unfinished_login_may_become_an_attempt(analyzer: Analyzer, head: bytes) -> None:
    _settle(analyzer, (C, b"NOOP\r\n"))
    step = _open_step(analyzer, C, head)
    assert step.may >= {Request, LoginAttempt}


@pytest.mark.parametrize("head", [b"N", b"NOOP", b"USER bob", b"PASSS", b"QUIT "])
def test_an_unfinished_other_command_may_become_a_request_only(
    analyzer: Analyzer, head: bytes
) -> None:
    _settle(analyzer, (C, b"NOOP\r\n"))
    step = _open_step(analyzer, C, head)
    assert Request in step.may
    assert LoginAttempt not in step.may


@pytest.mark.parametrize(
    ("side", "head"),
    [(C, b"E"), (C, b"x "), (C, b"GET"), (C, b"\x16"), (C, b"NOOPS"), (S, b"2"), (S, b"* O")],
)
def test_a_first_line_of_another_protocol_may_become_anything(side: Side, head: bytes) -> None:
    assert _open_step(Analyzer(new_connection()), side, head).may == ALL


@pytest.mark.parametrize(
    ("side", "head"), [(C, b"u"), (C, b"USER b"), (C, b"XCLIEN"), (S, b"+"), (S, b"-ERR n")]
)
def test_a_first_line_that_begins_like_pop3_is_no_exception(side: Side, head: bytes) -> None:
    may = _open_step(Analyzer(new_connection()), side, head).may
    assert LoginAttempt not in may
    assert (Request if side is C else Reply) in may


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
    return instead, list(analyzer.answered(b"-ERR [AUTH] no\r\n", 5.0))


@pytest.mark.parametrize(
    "line", [b"NOOP\r\n", b"USER bob\r\n", b"STLS\r\n", b"XTND XMIT\r\n", b"X\r\n"]
)
def test_nothing_is_owed_for_what_was_refused(gated: Analyzer, line: bytes) -> None:
    instead, (reply,) = _refuse(gated, line)
    assert instead == b""
    assert isinstance(reply, Reply)
    assert (reply.cmd, reply.msg, reply.denial) == ("ERR", "[AUTH] no", True)
    assert gated.owed == 0
    # Nothing waits behind it, either.
    assert _last_step(gated, b"NOOP\r\n").events


@pytest.mark.parametrize(
    ("line", "user", "mechanism"),
    [
        (b"PASS x\r\n", "bob", "USER/PASS"),
        (b"APOP al c4c9334bac560ecc979e58001b3e22fb\r\n", "al", "APOP"),
        (b"RPOP al\r\n", "bob", "RPOP"),
        (b"AUTH PLAIN " + RESPONSE, "bob", "PLAIN"),
    ],
)
def test_a_login_that_was_refused_has_failed(
    gated: Analyzer, line: bytes, user: str, mechanism: str
) -> None:
    _settle(gated, (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    instead, (event, reply) = _refuse(gated, line)
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
    assert gated.failures == 1


def test_an_exchange_that_the_server_has_begun_is_cancelled(gated: Analyzer) -> None:
    _settle(gated, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    instead, (event, _) = _refuse(gated, RESPONSE)
    assert instead == b"*\r\n"
    assert isinstance(event, LoginFailure)
    assert event.reason is Reason.DENIED


def test_a_cancellation_that_succeeds_ends_inspection(gated: Analyzer) -> None:
    _settle(gated, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    gated.refused(_last_step(gated, RESPONSE))
    _settle(gated, (S, b"+OK\r\n"))
    assert gated.inspected == "lost:out_of_step"


def test_the_beginning_of_a_withheld_answer_is_withheld(gated: Analyzer) -> None:
    _settle(gated, (C, b"AUTH PLAIN\r\n"), (S, b"+ \r\n"))
    gated.refused(_last_step(gated, RESPONSE))
    for data in (b"-", b"ERR", b" no\r", b"\n"):
        assert not gated.quiet
        gated.feed(S, data, 0.0)
        assert [step.withheld for step in _pull(gated, S)] == [True]
    assert gated.quiet


def test_the_user_named_before_a_refused_login_is_remembered(gated: Analyzer) -> None:
    _settle(gated, (C, b"USER bob\r\n"), (S, b"+OK\r\n"))
    _refuse(gated, b"PASS x\r\n")
    (_, attempt) = _last_step(gated, b"PASS y\r\n").events
    assert isinstance(attempt, LoginAttempt)
    assert attempt.user == "bob"


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


@pytest.mark.parametrize("waiting", [b"PASS y\r\n", b"APOP a b\r\n", b"AUTH PLAIN\r\n", b"P"])
def test_a_login_waits_for_the_answer_to_the_one_before(waiting: bytes) -> None:
    analyzer = Analyzer(new_connection(), gated=frozenset({LoginAttempt}))
    _settle(analyzer, (S, b"+OK ready\r\n"), (C, b"USER bob\r\nPASS x\r\nSTAT\r\n"))
    analyzer.feed(C, waiting, 0.0)
    assert analyzer.next(C) is None
    _settle(analyzer, (S, b"+OK\r\n-ERR\r\n"))
    step = analyzer.next(C)
    assert step is not None
    assert step.size == len(waiting)


def test_every_command_waits_for_a_login_s_answer_where_commands_are_gated() -> None:
    analyzer = Analyzer(new_connection(), gated=frozenset({Request}))
    _settle(analyzer, (S, b"+OK ready\r\n"), (C, b"PASS x\r\nSTAT\r\n"))
    assert analyzer.next(C) is None
    _settle(analyzer, (S, b"-ERR\r\n"))
    assert analyzer.next(C) is not None


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
    gated: Analyzer,
) -> None:
    first = _last_step(gated, b"AUTH PLAIN =\r\n").events[-2:]
    _settle(gated, (S, b"+ \r\n"))
    second = _last_step(gated, RESPONSE).events
    assert [event.user for event in (*first, *second) if isinstance(event, LoginAttempt)] == [
        "",
        "bob",
    ]


def test_mail_that_nobody_can_send_yet_is_no_place_to_hide_a_login(gated: Analyzer) -> None:
    _settle(gated, (C, b"XTND XMIT\r\n"), (S, b"+OK\r\n"))
    assert gated.inspected == "lost:out_of_step"


def test_each_line_of_a_body_is_a_step_of_its_own_where_data_is_gated(gated: Analyzer) -> None:
    _settle(gated, (C, b"CAPA\r\n"), (S, b"+OK\r\n"))
    gated.feed(S, b"UIDL\r\nTOP\r\n.\r\n", 0.0)
    assert [step.size for step in _pull(gated, S)] == [6, 5, 3]
