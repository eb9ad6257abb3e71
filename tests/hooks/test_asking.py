"""How blocking hooks are asked for verdicts, and what it means if they take their time, or fail."""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pytest
from twisted.internet.defer import AlreadyCalledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from pop3proxy.analyzer.events import (
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    Reply,
    Request,
    SessionEnd,
)
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop, EndSession, Hook, Verdict
from pop3proxy.hooks.asking import UNAVAILABLE, Question
from pop3proxy.hooks.dispatcher import (
    MAX_PENDING,
    Dispatcher,
    ImpossibleVerdict,
    UnusableHook,
    methods_of,
)

from .examples import TS, connection, every_event

C = connection()
REQUEST = Request(C, TS, "PASS", "hunter2")
ATTEMPT = LoginAttempt(C, TS, "bob", "hunter2", "USER/PASS")
SUCCESS = LoginSuccess(C, TS, "bob", "hunter2", "USER/PASS")
FAILURE = LoginFailure(C, TS, "bob", "hunter2", "USER/PASS", Reason.CREDENTIALS)
DATA = Data(C, TS, "Subject: hello")
(END,) = [event for event in every_event(C) if isinstance(event, SessionEnd)]

DENY = Deny("-ERR no")


class Gate(Hook):
    """Answers events of some kinds by a function, and notes which it was asked about."""

    blocking = True

    def __init__(
        self,
        answer: Callable[[Any], Any] = lambda event: None,
        *kinds: type[Event],
        limit: float = 5.0,
        on_error: Literal["pass", "deny"] = "pass",
        label: str = "Gate",
    ) -> None:
        self.asked: list[Event] = []
        self.time_limit = limit
        self.on_error = on_error
        self.label = label  # type: ignore[misc]
        self._answer = answer
        for kind in kinds or (Request,):
            setattr(self, kind.name, self._ask)

    def _ask(self, event: Event) -> Any:
        self.asked.append(event)
        return self._answer(event)


METHOD = f"{__file__}:{Gate._ask.__code__.co_firstlineno}"
"""Where a log line points to if the hook's code raised nothing."""


class Listener(Gate):
    """The same, but nobody waits for its answers."""

    blocking = False


def gives(answer: Any) -> Callable[[Any], Any]:
    return lambda event: answer


def raises(problem: Exception) -> Callable[[Any], Any]:
    def answer(event: Any) -> Any:
        raise problem

    return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quiet() -> Iterator[Sequence[Any]]:
    """What was logged, what nobody looked at included; gone for pytest."""
    with capturedLogs() as logs:
        yield logs
        gc.collect()


Start = Callable[..., Dispatcher]


@pytest.fixture
def started(clock: Clock) -> Start:
    def start(*hooks: Hook) -> Dispatcher:
        dispatcher = Dispatcher(hooks)
        dispatcher.start(clock)
        return dispatcher

    return start


class Asked:
    """A question, and what it was settled with later."""

    def __init__(self, dispatcher: Dispatcher, *events: Event) -> None:
        question = dispatcher.ask(events)
        assert question is not None
        self.question: Question = question
        self.later: list[Verdict] = []
        if question.verdict is None:
            question.settled = self.later.append

    @property
    def at_once(self) -> Verdict | None:
        return None if self.later else self.question.verdict


def unhandled(logs: Sequence[Any]) -> list[Any]:
    """What of a log is not a line about a hook that failed."""
    gc.collect()
    return [log for log in logs if "label" not in log]


# --- plain answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, PASS], ids=["nothing", "PASS"])
def test_nothing_and_pass_let_the_bytes_go_on(started: Start, answer: Any) -> None:
    assert Asked(started(Gate(gives(answer))), REQUEST).at_once is PASS


@pytest.mark.parametrize("verdict", [Delay(2), DENY, Drop()], ids=repr)
def test_a_plain_verdict_is_there_at_once(started: Start, clock: Clock, verdict: Verdict) -> None:
    assert Asked(started(Gate(gives(verdict))), REQUEST).at_once is verdict
    assert clock.getDelayedCalls() == []


def test_nobody_is_asked_about_events_that_no_hook_decides_about(started: Start) -> None:
    dispatcher = started(Gate(gives(DENY), LoginAttempt), Listener(gives(None), Request))
    assert dispatcher.ask([REQUEST]) is None


def test_blocking_is_what_blocking_hooks_have_methods_for_and_can_decide_about() -> None:
    dispatcher = Dispatcher([Gate(gives(None), Request, SessionEnd), Listener(gives(None), Reply)])
    assert dispatcher.blocking == {Request}
    assert dispatcher.wants == {Request, SessionEnd, Reply}
    assert dispatcher.has_blocking


def test_a_listening_hook_gives_no_verdict(started: Start) -> None:
    dispatcher = started(Listener(gives(DENY)))
    dispatcher.dispatch([REQUEST])
    assert (dispatcher.has_blocking, dispatcher.ask([REQUEST])) == (False, None)


def test_a_blocking_hook_does_not_hear_an_event_twice(started: Start) -> None:
    gate = Gate()
    dispatcher = started(gate)
    dispatcher.dispatch([REQUEST])
    Asked(dispatcher, REQUEST)
    assert gate.asked == [REQUEST]


# --- order --------------------------------------------------------------------------------------------


def test_hooks_are_asked_in_their_order_event_by_event(started: Start) -> None:
    order: list[tuple[str, str]] = []

    def noting(name: str) -> Callable[[Any], Any]:
        return lambda event: order.append((name, event.name))

    kinds = (Request, LoginAttempt)
    Asked(started(Gate(noting("a"), *kinds), Gate(noting("b"), *kinds)), REQUEST, ATTEMPT)
    assert order == [
        ("a", "pop3_request"),
        ("b", "pop3_request"),
        ("a", "pop3_login_attempt"),
        ("b", "pop3_login_attempt"),
    ]


@pytest.mark.parametrize("verdict", [Delay(2), DENY, Drop()], ids=repr)
def test_the_first_verdict_but_pass_ends_the_asking(started: Start, verdict: Verdict) -> None:
    last = Gate(gives(Drop()))
    asked = Asked(started(Gate(gives(PASS)), Gate(gives(verdict)), last), REQUEST)
    assert asked.at_once is verdict
    assert last.asked == []


@pytest.mark.parametrize("verdict", [DENY, Drop()], ids=repr)
def test_a_denial_spares_the_later_events_of_the_step(started: Start, verdict: Verdict) -> None:
    gate = Gate(gives(verdict), Request, LoginAttempt)
    Asked(started(gate), REQUEST, ATTEMPT)
    assert gate.asked == [REQUEST]


def test_a_delay_does_not_spare_the_later_events_of_the_step(started: Start) -> None:
    asked = Asked(started(Gate(gives(Delay(2))), Gate(gives(DENY), LoginAttempt)), REQUEST, ATTEMPT)
    assert asked.at_once is DENY


@pytest.mark.parametrize("seconds", [(1, 3), (3, 1), (3, 0)])
def test_of_several_delays_the_longest_counts(started: Start, seconds: tuple[int, int]) -> None:
    first, second = seconds
    dispatcher = started(Gate(gives(Delay(first))), Gate(gives(Delay(second)), LoginAttempt))
    assert Asked(dispatcher, REQUEST, ATTEMPT).at_once == Delay(3)


def test_a_delay_of_nothing_ends_the_asking_too(started: Start) -> None:
    last = Gate(gives(DENY))
    assert Asked(started(Gate(gives(Delay(0))), last), REQUEST).at_once == Delay(0)
    assert last.asked == []


def test_who_comes_behind_one_that_takes_its_time_is_asked_when_it_has_passed(
    started: Start,
) -> None:
    waiting: Deferred[None] = Deferred()
    last = Gate(gives(DENY))
    asked = Asked(started(Gate(gives(waiting)), last), REQUEST)
    assert last.asked == []
    waiting.callback(None)
    assert asked.later == [DENY]


def test_several_hooks_may_take_their_time_one_after_the_other(
    started: Start, clock: Clock
) -> None:
    first: Deferred[Any] = Deferred()
    second: Deferred[Any] = Deferred()
    gate = Gate(gives(second), LoginAttempt)
    asked = Asked(started(Gate(gives(first)), gate), REQUEST, ATTEMPT)
    first.callback(Delay(2))
    assert (gate.asked, asked.later) == ([ATTEMPT], [])
    assert len(clock.getDelayedCalls()) == 1
    second.callback(Delay(1))
    assert asked.later == [Delay(2)]
    assert clock.getDelayedCalls() == []


# --- coroutines and Deferreds -------------------------------------------------------------------------


async def immediately(event: Event) -> Verdict:
    return DENY


class Awaitable:
    """Neither a coroutine nor a Deferred."""

    def __await__(self) -> Iterator[Any]:
        return succeed(DENY).__await__()


@pytest.mark.parametrize(
    "answer",
    [immediately, lambda event: succeed(DENY), lambda event: Awaitable()],
    ids=["coroutine", "Deferred", "awaitable"],
)
def test_what_is_answered_already_needs_no_waiting_and_leaves_no_timer(
    started: Start, clock: Clock, answer: Callable[[Any], Any]
) -> None:
    assert Asked(started(Gate(answer)), REQUEST).at_once is DENY
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("as_coroutine", [True, False], ids=["coroutine", "Deferred"])
@pytest.mark.parametrize(
    ("result", "verdict"),
    [(None, PASS), (PASS, PASS), (Delay(1), Delay(1)), (DENY, DENY), (Drop(), Drop())],
    ids=repr,
)
def test_an_awaited_verdict_settles_the_question(
    started: Start, clock: Clock, as_coroutine: bool, result: Any, verdict: Verdict
) -> None:
    waiting: Deferred[Any] = Deferred()

    async def answer(event: Event) -> Any:
        return await waiting

    asked = Asked(started(Gate(answer if as_coroutine else gives(waiting))), REQUEST)
    assert asked.question.verdict is None
    waiting.callback(result)
    assert asked.later == [verdict]
    assert clock.getDelayedCalls() == []


def test_a_thousand_answered_coroutines_do_not_recurse(started: Start) -> None:
    async def answer(event: Event) -> None:
        pass

    gates = [Gate(answer) for _ in range(max(1_000, sys.getrecursionlimit()))]
    assert Asked(started(*gates), REQUEST).at_once is PASS


def test_a_thousand_coroutines_answered_behind_a_slow_one_do_not_recurse(started: Start) -> None:
    waiting: Deferred[Any] = Deferred()

    async def answer(event: Event) -> None:
        pass

    gates = [Gate(answer) for _ in range(max(1_000, sys.getrecursionlimit()))]
    asked = Asked(started(Gate(gives(waiting)), *gates), REQUEST)
    waiting.callback(None)
    assert asked.later == [PASS]


def test_a_deferred_that_is_returned_twice_answers_twice(started: Start) -> None:
    waiting: Deferred[Any] = Deferred()
    dispatcher = started(Gate(gives(waiting)))
    first, second = Asked(dispatcher, REQUEST), Asked(dispatcher, REQUEST)
    waiting.callback(DENY)
    assert (first.later, second.later) == ([DENY], [DENY])


def test_a_deferred_that_is_returned_twice_fails_twice(started: Start, quiet: Any) -> None:
    waiting: Deferred[Any] = Deferred()
    dispatcher = started(Gate(gives(waiting), on_error="deny"))
    first, second = Asked(dispatcher, REQUEST), Asked(dispatcher, REQUEST)
    waiting.errback(RuntimeError())
    assert (first.later, second.later) == ([UNAVAILABLE], [UNAVAILABLE])
    assert unhandled(quiet) == []


# --- failures -----------------------------------------------------------------------------------------


async def raising_at_once(event: Event) -> None:
    raise RuntimeError(f"cannot bear {event}")


@pytest.mark.parametrize(
    "answer",
    [
        raises(RuntimeError("hunter2")),
        raising_at_once,
        lambda event: fail(RuntimeError("hunter2")),
        gives("hunter2"),
        gives(False),
        gives(Deny),
        lambda event: succeed("hunter2"),
    ],
    ids=["raised", "coroutine", "Deferred", "text", "False", "class", "awaited"],
)
@pytest.mark.parametrize(("on_error", "verdict"), [("pass", PASS), ("deny", UNAVAILABLE)])
def test_a_hook_that_fails_stands_for_what_its_on_error_says(
    started: Start,
    clock: Clock,
    quiet: Sequence[Any],
    answer: Any,
    on_error: Literal["pass", "deny"],
    verdict: Verdict,
) -> None:
    dispatcher = started(Gate(answer, on_error=on_error))
    assert Asked(dispatcher, REQUEST).at_once is verdict
    assert dispatcher.failures == {"Gate": 1}
    assert clock.getDelayedCalls() == []
    assert [log["event"] for log in quiet] == ["pop3_request"]
    assert "hunter2" not in str(quiet)
    assert unhandled(quiet) == []


@pytest.mark.parametrize(
    ("event", "verdict"),
    [
        (REQUEST, UNAVAILABLE),
        (ATTEMPT, UNAVAILABLE),
        (SUCCESS, UNAVAILABLE),
        (FAILURE, Drop()),
        (DATA, Drop()),
        (Reply(C, TS, "OK", ""), Drop()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_where_nothing_can_be_denied_a_failure_that_should_deny_drops(
    started: Start, quiet: Any, event: Event, verdict: Verdict
) -> None:
    gate = Gate(raises(RuntimeError()), type(event), on_error="deny")
    assert Asked(started(gate), event).at_once == verdict


def test_behind_a_hook_that_failed_and_passes_the_next_is_asked(started: Start, quiet: Any) -> None:
    assert Asked(started(Gate(raises(RuntimeError())), Gate(gives(DENY))), REQUEST).at_once is DENY


@pytest.mark.parametrize(("on_error", "verdict"), [("pass", PASS), ("deny", UNAVAILABLE)])
def test_raising_behind_an_await_is_a_failure_too(
    started: Start, clock: Clock, quiet: Any, on_error: Literal["pass", "deny"], verdict: Verdict
) -> None:
    waiting: Deferred[None] = Deferred()

    async def answer(event: Event) -> None:
        await waiting
        raise RuntimeError("hunter2")

    dispatcher = started(Gate(answer, on_error=on_error))
    asked = Asked(dispatcher, REQUEST)
    waiting.callback(None)
    assert asked.later == [verdict]
    assert dispatcher.failures == {"Gate": 1}
    assert quiet[0]["problem"].startswith(f"RuntimeError at {__file__}:")
    assert "hunter2" not in str(quiet)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("awaited", [True, False])
def test_a_verdict_that_the_event_cannot_get_is_a_failure(
    started: Start, quiet: Sequence[Any], awaited: bool
) -> None:
    answer = (lambda event: succeed(DENY)) if awaited else gives(DENY)
    dispatcher = started(Gate(answer, LoginFailure, on_error="deny"))
    assert Asked(dispatcher, FAILURE).at_once == Drop()
    assert [log["problem"] for log in quiet] == [
        f"NoVerdict: pop3_login_failure cannot get Deny at {METHOD}"
    ]


def test_what_is_no_verdict_is_named_by_its_type_alone(
    started: Start, quiet: Sequence[Any]
) -> None:
    Asked(started(Gate(gives("hunter2"))), REQUEST)
    assert [log["problem"] for log in quiet] == [f"NoVerdict: str is no verdict at {METHOD}"]


async def giving_up(event: Event) -> None:
    raise EndSession


@pytest.mark.parametrize("answer", [raises(EndSession()), giving_up], ids=["raised", "awaited"])
def test_a_hook_that_gives_up_the_session_drops_it_and_has_not_failed(
    started: Start, quiet: Sequence[Any], answer: Any
) -> None:
    dispatcher = started(Gate(answer, Request))
    assert Asked(dispatcher, REQUEST).at_once == Drop()
    assert (dispatcher.failures, list(quiet)) == ({}, [])


# --- the time limit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_error", "event", "verdict"),
    [
        ("pass", REQUEST, PASS),
        ("deny", REQUEST, UNAVAILABLE),
        ("pass", FAILURE, PASS),
        ("deny", FAILURE, Drop()),
    ],
)
def test_a_hook_that_takes_too_long_stands_for_what_its_on_error_says(
    started: Start,
    clock: Clock,
    quiet: Sequence[Any],
    on_error: Literal["pass", "deny"],
    event: Event,
    verdict: Verdict,
) -> None:
    waiting: Deferred[Any] = Deferred()
    dispatcher = started(Gate(gives(waiting), type(event), limit=3, on_error=on_error))
    asked = Asked(dispatcher, event)
    clock.advance(2.9)
    assert asked.later == []
    clock.advance(0.2)
    assert asked.later == [verdict]
    assert dispatcher.failures == {"Gate": 1}
    assert [log["problem"] for log in quiet] == [f"TimeLimit: 3 s at {METHOD}"]
    assert unhandled(quiet) == []


def test_a_hook_that_takes_too_long_is_cancelled(started: Start, clock: Clock, quiet: Any) -> None:
    cancelled: list[Any] = []
    waiting: Deferred[Any] = Deferred(cancelled.append)
    Asked(started(Gate(gives(waiting))), REQUEST)
    clock.advance(5)
    assert cancelled == [waiting]


def test_each_hook_has_the_whole_time_for_itself(started: Start, clock: Clock) -> None:
    first: Deferred[Any] = Deferred()
    second: Deferred[Any] = Deferred()
    asked = Asked(started(Gate(gives(first)), Gate(gives(second))), REQUEST)
    clock.advance(4)
    first.callback(None)
    clock.advance(4)
    second.callback(DENY)
    assert asked.later == [DENY]


@pytest.mark.parametrize(
    "late",
    [lambda d: d.callback(DENY), lambda d: d.errback(RuntimeError("hunter2"))],
    ids=["answer", "failure"],
)
def test_an_answer_behind_the_time_limit_changes_nothing(
    started: Start, clock: Clock, quiet: Sequence[Any], late: Callable[[Any], None]
) -> None:
    waiting: Deferred[Any] = Deferred()
    dispatcher = started(Gate(gives(waiting)))
    asked = Asked(dispatcher, REQUEST)
    clock.advance(5)
    late(waiting)
    assert asked.later == [PASS]
    assert dispatcher.failures == {"Gate": 1}
    assert unhandled(quiet) == []


async def answers(waiting: Deferred[Any]) -> Any:
    """Answers although it was cancelled."""
    try:
        await waiting
    except Exception:
        return DENY


async def fails(waiting: Deferred[Any]) -> Any:
    """Fails because it was cancelled."""
    try:
        await waiting
    except Exception:
        raise RuntimeError("hunter2") from None


async def goes_on(waiting: Deferred[Any]) -> Any:
    """Goes on waiting although it was cancelled."""
    try:
        await waiting
    except Exception:
        await Deferred()


def stubborn_canceller(waiting: Deferred[Any]) -> Deferred[Any]:
    """A Deferred whose canceller fails."""

    def cancel(_: Any) -> None:
        raise RuntimeError("hunter2")

    return Deferred(cancel)


STUBBORN = [answers, fails, goes_on, stubborn_canceller]


@pytest.mark.parametrize("stubborn", STUBBORN)
def test_a_hook_that_does_not_let_itself_be_cancelled_in_time_changes_nothing(
    started: Start, clock: Clock, quiet: Sequence[Any], stubborn: Callable[[Any], Any]
) -> None:
    dispatcher = started(Gate(lambda event: stubborn(Deferred())))
    asked = Asked(dispatcher, REQUEST)
    clock.advance(5)
    clock.advance(5)
    assert asked.later == [PASS]
    assert [log["problem"] for log in quiet] == [f"TimeLimit: 5 s at {METHOD}"]
    assert unhandled(quiet) == []


def test_a_deferred_that_fires_twice_settles_once(started: Start) -> None:
    waiting: Deferred[Any] = Deferred()
    asked = Asked(started(Gate(gives(waiting))), REQUEST)
    waiting.callback(DENY)
    with pytest.raises(AlreadyCalledError):
        waiting.callback(Drop())
    assert asked.later == [DENY]


# --- cancelled questions ------------------------------------------------------------------------------


def test_a_question_that_nobody_waits_for_any_more_cancels_the_answer(
    started: Start, clock: Clock, quiet: Sequence[Any]
) -> None:
    cancelled: list[Any] = []
    waiting: Deferred[Any] = Deferred(cancelled.append)
    dispatcher = started(Gate(gives(waiting), on_error="deny"))
    asked = Asked(dispatcher, REQUEST)
    asked.question.cancel()
    assert cancelled == [waiting]
    assert (asked.later, dispatcher.failures) == ([], {})
    assert clock.getDelayedCalls() == []
    assert unhandled(quiet) == []


@pytest.mark.parametrize("stubborn", STUBBORN)
def test_what_a_cancelled_hook_does_is_heard_by_nobody(
    started: Start, clock: Clock, quiet: Sequence[Any], stubborn: Callable[[Any], Any]
) -> None:
    last = Gate(gives(DENY))
    dispatcher = started(Gate(lambda event: stubborn(Deferred())), last)
    asked = Asked(dispatcher, REQUEST)
    asked.question.cancel()
    clock.advance(10)
    assert (asked.later, last.asked, dispatcher.failures) == ([], [], {})
    assert list(quiet) == []


def test_an_answer_to_a_cancelled_question_changes_nothing(started: Start) -> None:
    waiting: Deferred[Any] = Deferred()
    last = Gate(gives(DENY))
    asked = Asked(started(Gate(gives(waiting)), last), REQUEST)
    asked.question.cancel()
    waiting.callback(PASS)
    assert (asked.later, last.asked) == ([], [])


@pytest.mark.parametrize("behind", [gives(None), lambda event: Deferred()])
def test_a_hook_that_ends_the_session_while_it_is_asked_ends_the_asking(
    started: Start, clock: Clock, behind: Callable[[Any], Any]
) -> None:
    waiting: Deferred[Any] = Deferred()
    last = Gate(gives(DENY))

    def kick(event: Event) -> Any:
        asked.question.cancel()
        return behind(event)

    asked = Asked(started(Gate(gives(waiting)), Gate(kick), last), REQUEST)
    waiting.callback(PASS)
    assert (asked.later, last.asked) == ([], [])
    assert clock.getDelayedCalls() == []


def test_cancelling_what_is_settled_or_cancelled_changes_nothing(started: Start) -> None:
    asked = Asked(started(Gate(gives(DENY))), REQUEST)
    asked.question.cancel()
    asked.question.cancel()
    assert asked.question.verdict is DENY


# --- informing ----------------------------------------------------------------------------------------


def test_blocking_hooks_are_informed_of_what_is_past_deciding(started: Start, quiet: Any) -> None:
    gate = Gate(gives(None), SessionEnd)
    dispatcher = started(gate)
    assert dispatcher.ask([END]) is None
    dispatcher.inform([END])
    assert (gate.asked, dispatcher.failures) == ([END], {})


@pytest.mark.parametrize(
    "answer",
    [raises(RuntimeError("hunter2")), gives(DENY), raising_at_once],
    ids=["raised", "verdict", "coroutine"],
)
def test_who_fails_when_informed_is_counted_and_keeps_it_from_nobody(
    started: Start, quiet: Sequence[Any], answer: Any
) -> None:
    last = Gate(gives(None), SessionEnd, label="last")
    dispatcher = started(Gate(answer, SessionEnd, on_error="deny"), last)
    dispatcher.inform([END])
    assert (last.asked, dispatcher.failures) == ([END], {"Gate": 1})
    assert "hunter2" not in str(quiet)


def test_blocking_hooks_neither_decide_about_the_reply_of_a_denial_nor_hear_of_it(
    started: Start,
) -> None:
    gate, listener = Gate(gives(Drop()), Reply), Listener(gives(None), Reply)
    dispatcher = started(gate, listener)
    denial, server_s = Reply(C, TS, "ERR", "no", denial=True), Reply(C, TS, "ERR", "no")
    assert Asked(dispatcher, denial).at_once is PASS
    dispatcher.inform([denial])
    assert gate.asked == []
    dispatcher.dispatch([denial])
    assert listener.asked == [denial]
    assert Asked(dispatcher, denial, server_s).at_once == Drop()
    assert gate.asked == [server_s]


# --- listening hooks with coroutines ------------------------------------------------------------------


def test_a_listening_hooks_coroutine_is_run(started: Start) -> None:
    waiting: Deferred[None] = Deferred()
    heard: list[str] = []

    async def answer(event: Event) -> None:
        heard.append("before")
        await waiting
        heard.append("behind")

    started(Listener(answer)).dispatch([REQUEST])
    assert heard == ["before"]
    waiting.callback(None)
    assert heard == ["before", "behind"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_listening_hooks_coroutine_that_fails_is_counted_and_logged_without_secrets(
    started: Start, clock: Clock, quiet: Sequence[Any], at_once: bool
) -> None:
    waiting: Deferred[None] = Deferred()

    async def answer(event: Event) -> None:
        if not at_once:
            await waiting
        raise RuntimeError(f"cannot bear {event}")

    dispatcher = started(Listener(answer))
    dispatcher.dispatch([REQUEST])
    waiting.callback(None)
    assert dispatcher.failures == {"Gate": 1}
    assert quiet[0]["problem"].startswith(f"RuntimeError at {__file__}:")
    assert "hunter2" not in str(quiet)
    assert clock.getDelayedCalls() == []


def test_a_listening_hooks_coroutine_has_a_time_limit(
    started: Start, clock: Clock, quiet: Sequence[Any]
) -> None:
    dispatcher = started(Listener(lambda event: Deferred(), limit=2))
    dispatcher.dispatch([REQUEST])
    clock.advance(2)
    assert [log["problem"] for log in quiet] == [f"TimeLimit: 2 s at {METHOD}"]
    assert unhandled(quiet) == []


async def forever(event: Event) -> None:
    await Deferred()


@pytest.mark.parametrize(
    "answer", [forever, lambda event: Deferred()], ids=["coroutine", "Deferred"]
)
def test_of_a_listening_hook_so_many_calls_run_at_a_time_and_no_more(
    started: Start, clock: Clock, quiet: Sequence[Any], answer: Any
) -> None:
    dispatcher = started(Listener(answer))
    dispatcher.dispatch([REQUEST] * (MAX_PENDING + 2))
    assert len(clock.getDelayedCalls()) == MAX_PENDING
    assert dispatcher.failures == {"Gate": 2}
    assert "calls have not ended" in quiet[0]["problem"]
    dispatcher.stop()
    assert unhandled(quiet) == []


def test_what_is_one_call_too_many_is_cancelled_and_its_failure_heard_by_nobody(
    started: Start, clock: Clock, quiet: Sequence[Any]
) -> None:
    last: Deferred[Any] = Deferred(lambda d: d.errback(RuntimeError("hunter2")))
    waiting: list[Deferred[Any]] = [Deferred() for _ in range(MAX_PENDING)] + [last]
    answers = iter(waiting)
    dispatcher = started(Listener(lambda event: next(answers)))
    dispatcher.dispatch([REQUEST] * len(waiting))
    assert last.called
    dispatcher.stop()
    assert "hunter2" not in str(quiet)
    assert unhandled(quiet) == []


def test_calls_that_have_ended_make_room(started: Start, quiet: Any) -> None:
    waiting: list[Deferred[None]] = []

    async def answer(event: Event) -> None:
        waiting.append(Deferred())
        await waiting[-1]

    dispatcher = started(Listener(answer))
    for _ in range(3):
        dispatcher.dispatch([REQUEST] * MAX_PENDING)
        while waiting:
            waiting.pop().callback(None)
    assert dispatcher.failures == {}


def test_calls_that_are_answered_at_once_take_no_room(started: Start) -> None:
    async def answer(event: Event) -> None:
        pass

    dispatcher = started(Listener(answer))
    dispatcher.dispatch([REQUEST] * (MAX_PENDING + 1))
    assert dispatcher.failures == {}


def test_stopping_cancels_what_listening_hooks_still_do_and_then_stops_them(
    clock: Clock, quiet: Sequence[Any]
) -> None:
    order: list[str] = []

    class Own(Listener):
        def stop(self) -> None:
            order.append("stopped")

    dispatcher = Dispatcher([Own(lambda event: Deferred(lambda _: order.append("cancelled")))])
    dispatcher.start(clock)
    dispatcher.dispatch([REQUEST])
    dispatcher.stop()
    assert order == ["cancelled", "stopped"]
    assert dispatcher.failures == {}
    assert clock.getDelayedCalls() == []
    assert unhandled(quiet) == []


# --- what is refused at load --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), None, "5", True])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(limit: Any) -> None:
    with pytest.raises(UnusableHook, match=r"^Gate\.time_limit is "):
        methods_of(Gate(limit=limit))


def test_an_on_error_that_is_none_is_refused() -> None:
    with pytest.raises(UnusableHook, match=r"^Gate\.on_error is 'drop'; .* \"pass\" or \"deny\""):
        methods_of(Gate(on_error="drop"))  # type: ignore[arg-type]


class Annotated(Hook):
    """Names what is there for a type checker only, and a verdict in text."""

    blocking = True

    def pop3_data(self, event: "NoSuchName") -> "Deny | None":  # type: ignore[name-defined] # noqa: F821
        return None


def test_an_impossible_verdict_is_found_beside_annotations_that_cannot_be_evaluated() -> None:
    with pytest.raises(ImpossibleVerdict, match=r"^Annotated\.pop3_data returns Deny"):
        methods_of(Annotated())


class Unknown(Hook):
    """Says of its verdict nothing that can be evaluated."""

    blocking = True

    def pop3_data(self, event: Data) -> "NoSuchName":  # type: ignore[name-defined] # noqa: F821
        return None


def test_an_annotation_that_cannot_be_evaluated_refuses_no_hook() -> None:
    assert set(methods_of(Unknown())) == {Data}


class Nested(Hook):
    """Returns a verdict that its event cannot get, deep inside."""

    blocking = True

    async def pop3_login_failure(self, event: LoginFailure) -> list[Deferred[Deny | None]] | None:
        return None


def test_an_impossible_verdict_is_found_however_deep() -> None:
    with pytest.raises(ImpossibleVerdict, match="pop3_login_failure can get Delay, Drop, Pass"):
        methods_of(Nested())
