"""What a hook costs that raises anything, cannot be called, decides unasked, or holds the thread."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from pop3proxy.analyzer.events import Event, LoginAttempt, Policy, Request, SessionEnd
from pop3proxy.hooks import asking, dispatcher, faults
from pop3proxy.hooks.api import PASS, Deny, EndSession, Hook, Verdict
from pop3proxy.hooks.asking import UNAVAILABLE
from pop3proxy.hooks.dispatcher import (
    MAX_PENDING,
    Dispatcher,
    HookNotStarted,
    WrongSignature,
    methods_of,
)
from pop3proxy.hooks.faults import BLAMED, LONGEST_HOLD, Faults, HookMethod
from pop3proxy.hooks.logging.jsonlines import JsonLines
from pop3proxy.testing import Play

from .examples import TS, connection, every_event

C = connection()
REQUEST = Request(C, TS, "PASS", "hunter2")
ATTEMPT = LoginAttempt(C, TS, "bob", "hunter2", "USER/PASS")
(END,) = [event for event in every_event(C) if isinstance(event, SessionEnd)]


class Own(BaseException):
    """A hook's own, that no ``except Exception`` catches."""


class Speechless(Exception):
    """One whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("hunter2")

    __repr__ = __str__


ANYTHING: list[type[BaseException]] = [
    RuntimeError,
    asyncio.CancelledError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    Own,
    Speechless,
]


@pytest.fixture(params=ANYTHING, ids=lambda kind: kind.__name__)
def problem(request: pytest.FixtureRequest) -> BaseException:
    """Anything that a hook may raise."""
    made: BaseException = request.param("hunter2")
    return made


Act = Callable[[], Any]


class Raising:
    """The ways in which the code of a hook may fail, each under its name."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem
        self.waiting: Deferred[None] = Deferred()

    def call(self) -> Any:
        raise self.problem

    async def coroutine(self) -> None:
        raise self.problem

    async def behind_an_await(self) -> None:
        await self.waiting
        raise self.problem

    def deferred(self) -> Any:
        return fail(self.problem)

    def awaitable(self) -> Any:
        raising = self

        class Awaitable:
            def __await__(self) -> Any:
                return raising.call()

        return Awaitable()


WAYS = ["call", "coroutine", "behind_an_await", "deferred", "awaitable"]
ways = pytest.mark.parametrize("way", WAYS)


class Listener(Hook):
    """Does something at each request."""

    def __init__(self, act: Act = lambda: None) -> None:
        self.act = act

    def pop3_request(self, event: Request) -> Any:
        return self.act()


class Gate(Listener):
    """Does something when it is asked about a request, and about the end of a session."""

    blocking = True

    def pop3_session(self, event: SessionEnd) -> Any:
        return self.act()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logs() -> Iterator[Sequence[Any]]:
    """What was logged; nothing of it is of Twisted, and nothing tells a secret."""
    with capturedLogs() as found:
        yield found
        gc.collect()
    assert [log for log in found if "label" not in log] == []
    assert "hunter2" not in str(found)


def started(clock: Clock, *hooks: Hook) -> Dispatcher:
    found = Dispatcher(hooks)
    found.start(clock)
    return found


def line_of(function: Any, offset: int = 0) -> str:
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


# --- what is raised -------------------------------------------------------------------------------------


@ways
def test_a_listening_hook_may_raise_anything(
    clock: Clock, logs: Sequence[Any], problem: BaseException, way: str
) -> None:
    heard: list[str] = []
    raising = Raising(problem)
    found = started(clock, Listener(getattr(raising, way)), Listener(lambda: heard.append("it")))
    found.dispatch([REQUEST, REQUEST])
    raising.waiting.callback(None)
    assert heard == ["it", "it"]
    assert found.failures == {"Listener": 2}
    assert clock.getDelayedCalls() == []
    assert logs[0]["event"] == "pop3_request"


@ways
@pytest.mark.parametrize(("on_error", "verdict"), [("pass", PASS), ("deny", UNAVAILABLE)])
def test_a_blocking_hook_that_raises_anything_stands_for_its_on_error(
    clock: Clock,
    logs: Sequence[Any],
    problem: BaseException,
    way: str,
    on_error: Literal["pass", "deny"],
    verdict: Verdict,
) -> None:
    raising = Raising(problem)
    gate = Gate(getattr(raising, way))
    gate.on_error = on_error
    found = started(clock, gate)
    question = found.ask([REQUEST])
    assert question is not None
    raising.waiting.callback(None)
    assert question.verdict is verdict
    assert found.failures == {"Gate": 1}
    assert clock.getDelayedCalls() == []
    assert logs


@ways
def test_what_is_only_told_may_fail_by_anything(
    clock: Clock, logs: Sequence[Any], problem: BaseException, way: str
) -> None:
    raising = Raising(problem)
    found = started(clock, Gate(getattr(raising, way)))
    found.inform([END])
    raising.waiting.callback(None)
    assert found.failures == {"Gate": 1}
    assert logs[0]["event"] == "pop3_session"


def test_who_emits_is_not_hit_by_what_another_raises(
    clock: Clock, logs: Sequence[Any], problem: BaseException
) -> None:
    class Hearing(Hook):
        def pop3_policy(self, event: Policy) -> None:
            raise problem

    class Deciding(Hearing):
        blocking = True

    told: list[str] = []
    listener = Listener()
    found = started(clock, Hearing(), Deciding(), listener)

    def tell() -> None:
        listener.emit(Policy(C, TS, "r", "log", "k", "failures", 5, 5, 60.0, 0.0, False))
        told.append("went on")

    listener.act = tell
    found.dispatch([REQUEST])
    assert told == ["went on"]
    assert found.failures == {"Hearing": 1, "Deciding": 1}
    assert logs


@pytest.mark.parametrize("kind", [Listener, Gate])
@pytest.mark.parametrize("ends", ["its time limit", "whoever waited"])
def test_a_canceller_may_raise_anything(
    clock: Clock, logs: Sequence[Any], problem: BaseException, kind: type[Listener], ends: str
) -> None:
    cancelled: list[str] = []

    def cancel(_: Deferred[None]) -> None:
        cancelled.append("it")
        raise problem

    found = started(clock, kind(lambda: Deferred(cancel)))
    question = found.ask([REQUEST])
    found.dispatch([REQUEST])
    if ends == "its time limit":
        clock.advance(5)
        assert found.failures == {kind.__name__: 1}
    elif question is not None:
        question.cancel()
    else:
        found.stop()
    assert cancelled == ["it"]
    assert clock.getDelayedCalls() == []


def test_a_coroutine_that_is_cancelled_may_raise_anything(
    clock: Clock, logs: Sequence[Any], problem: BaseException
) -> None:
    async def stubborn() -> None:
        try:
            await Deferred()
        except BaseException:
            raise problem from None

    found = started(clock, Gate(stubborn))
    question = found.ask([REQUEST])
    assert question is not None
    question.cancel()
    assert found.failures == {}
    assert clock.getDelayedCalls() == []


def test_one_awaitable_too_many_may_raise_when_it_is_given_up(
    clock: Clock, logs: Sequence[Any]
) -> None:
    def cancel(_: Deferred[None]) -> None:
        raise SystemExit

    found = started(clock, Listener(lambda: Deferred(cancel)))
    found.dispatch([REQUEST] * (MAX_PENDING + 1))
    assert found.failures == {"Listener": 1}
    found.stop()
    assert clock.getDelayedCalls() == []


def test_what_a_deferred_fails_with_need_be_no_exception(clock: Clock, logs: Sequence[Any]) -> None:
    def failing() -> Any:
        return fail(Failure("hunter2", str))

    found = started(clock, Listener(failing))
    found.dispatch([REQUEST])
    assert found.failures == {"Listener": 1}
    assert logs[0]["problem"] == f"str at {line_of(Listener.pop3_request)}"


@pytest.mark.parametrize("kind", [Listener, Gate])
def test_a_deferred_that_cannot_be_waited_for_is_a_failure(
    clock: Clock, logs: Sequence[Any], kind: type[Listener]
) -> None:
    class Odd(Deferred[None]):
        def addCallbacks(self, *arguments: Any, **more: Any) -> Any:
            raise SystemExit("hunter2")

    found = started(clock, kind(Odd))
    found.dispatch([REQUEST])
    found.ask([REQUEST])
    assert found.failures == {kind.__name__: 1}
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("kind", [Listener, Gate])
def test_an_exception_that_a_hook_keeps_and_raises_again_does_not_grow(
    clock: Clock, logs: Sequence[Any], kind: type[Listener]
) -> None:
    kept = RuntimeError("hunter2")
    found = started(clock, kind(Raising(kept).call))
    for _ in range(3):
        found.dispatch([REQUEST])
        found.ask([REQUEST])
    assert found.failures == {kind.__name__: 3}
    assert kept.__traceback__ is None


def test_the_wish_to_end_a_session_is_heard_though_another_exits(
    clock: Clock, logs: Sequence[Any]
) -> None:
    found = started(
        clock, Listener(Raising(EndSession()).call), Listener(Raising(SystemExit()).call)
    )
    with pytest.raises(EndSession):
        found.dispatch([REQUEST])
    assert found.failures == {"Listener": 1}


# --- start, stop, reopen --------------------------------------------------------------------------------


class Lifelike(Hook):
    """Notes what it is told, and raises at some of it."""

    def __init__(self, name: str, told: list[str], **problems: BaseException) -> None:
        self.name = name
        self.told = told
        self.problems = problems

    def start(self, reactor: Any) -> None:
        self._note("start")

    def stop(self) -> None:
        self._note("stop")

    def reopen(self) -> None:
        self._note("reopen")

    def _note(self, what: str) -> None:
        self.told.append(f"{self.name} {what}")
        if what in self.problems:
            raise self.problems[what]


def test_a_start_that_raises_anything_is_one_line_and_stops_the_others(
    clock: Clock, problem: BaseException
) -> None:
    told: list[str] = []
    found = Dispatcher(
        [Lifelike("a", told), Lifelike("b", told, start=problem), Lifelike("c", told)]
    )
    with pytest.raises(HookNotStarted) as raised:
        found.start(clock)
    assert told == ["a start", "b start", "a stop"]
    text = str(raised.value)
    assert text.startswith(f"hook Lifelike does not start: {type(problem).__name__}")
    assert text.endswith(f" at {line_of(Lifelike._note, 3)}")
    assert "\n" not in text
    assert raised.value.__cause__ is problem


def test_what_the_program_itself_says_of_a_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events"
    with pytest.raises(HookNotStarted, match=r"^cannot write to .*/events: No such file"):
        Dispatcher([JsonLines(str(path))]).start(Clock())


@pytest.mark.parametrize("what", ["stop", "reopen"])
def test_a_stop_or_reopen_that_raises_anything_is_logged_and_the_others_run(
    clock: Clock, logs: Sequence[Any], problem: BaseException, what: str
) -> None:
    told: list[str] = []
    found = started(clock, Lifelike("a", told, **{what: problem}), Lifelike("b", told))
    getattr(found, what)()
    assert told[2:] == [f"a {what}", f"b {what}"]
    assert found.failures == {"Lifelike": 1}
    (log,) = logs
    assert log["event"] == what
    assert log["problem"] == f"{type(problem).__name__} at {line_of(Lifelike._note, 3)}"


def test_a_hook_that_has_not_started_reopens_nothing(clock: Clock) -> None:
    told: list[str] = []
    Dispatcher([Lifelike("a", told)]).reopen()
    assert told == []


def test_a_play_raises_what_a_start_has_raised() -> None:
    class Exiting(Hook):
        def start(self, reactor: Any) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        Play(Exiting())


# --- the place ------------------------------------------------------------------------------------------


def problems(hook: Hook, logs: Sequence[Any]) -> list[str]:
    found = started(Clock(), hook)
    found.dispatch([REQUEST])
    if question := found.ask([REQUEST]):
        question.cancel()
    return [log["problem"] for log in logs]


def test_a_problem_of_a_library_is_placed_where_the_hook_has_called_it(logs: Sequence[Any]) -> None:
    def decode() -> None:
        json.loads("hunter2")

    assert problems(Listener(decode), logs) == [f"JSONDecodeError at {line_of(decode, 1)}"]


def test_a_problem_of_the_program_is_placed_where_the_hook_has_called_it(
    logs: Sequence[Any],
) -> None:
    def deny() -> None:
        Deny("hunter2")

    assert problems(Gate(deny), logs) == [f"ValueError at {line_of(deny, 1)}"]


def test_a_problem_behind_a_deferred_is_placed_in_the_coroutine(logs: Sequence[Any]) -> None:
    async def ask() -> None:
        await fail(OSError("hunter2"))

    assert problems(Listener(ask), logs) == [f"OSError at {line_of(ask, 1)}"]


@pytest.mark.parametrize("answer", ["hunter2", fail], ids=["text", "Deferred"])
def test_what_the_hook_did_not_raise_is_placed_where_its_method_begins(
    logs: Sequence[Any], answer: Any
) -> None:
    gate = Gate(lambda: answer if isinstance(answer, str) else answer(OSError("hunter2")))
    what = "NoVerdict: str is no verdict" if answer == "hunter2" else "OSError"
    assert problems(gate, logs) == [f"{what} at {line_of(Listener.pop3_request)}"]


def test_the_text_is_not_shown_of_an_exception_that_only_looks_like_the_dispatcher_s(
    logs: Sequence[Any],
) -> None:
    def late() -> None:
        raise faults.TimeLimit("hunter2")

    assert problems(Listener(late), logs) == [f"TimeLimit at {line_of(late, 1)}"]


def test_a_hook_of_another_package_is_known_by_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Sequence[Any]
) -> None:
    """Its helper lies beside it, and belongs to it."""
    (tmp_path / "faults_helper.py").write_text("def help_out():\n    raise OSError('hunter2')\n")
    (tmp_path / "faults_own.py").write_text(
        "from faults_helper import help_out\nfrom pop3proxy.hooks.api import Hook\n\n\n"
        "class Helped(Hook):\n    def pop3_request(self, event):\n        help_out()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    hook = import_module("faults_own").Helped()
    assert problems(hook, logs) == [f"OSError at {tmp_path / 'faults_helper.py'}:2"]


# --- signatures -----------------------------------------------------------------------------------------


def hook_with(name: str, method: Any) -> Hook:
    made: Hook = type("Wrong", (Hook,), {name: method})()
    return made


async def _coroutine(self: Hook) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "method", "said"),
    [
        (
            "pop3_connect",
            lambda self: None,
            "Wrong.pop3_connect takes () and is called with event;"
            " write it as def pop3_connect(self, event)",
        ),
        ("pop3_connect", lambda: None, "Wrong.pop3_connect takes () and is called with event;"),
        ("pop3_data", lambda self, a, b: None, "takes (a, b) and is called with event;"),
        ("pop3_data", lambda self, *, event: None, "takes (*, event) and is called with event;"),
        ("pop3_data", "nothing", "Wrong.pop3_data is no method; write it as def pop3_data(self, e"),
        ("start", lambda self: None, "Wrong.start takes () and is called with reactor;"),
        ("start", _coroutine, "Wrong.start is a coroutine, which nothing would await;"),
        (
            "stop",
            lambda self, x: None,
            "takes (x) and is called with nothing; write it as def stop(s",
        ),
        ("stop", _coroutine, "Wrong.stop is a coroutine, which nothing would await;"),
        ("reopen", lambda self, x: None, "Wrong.reopen takes (x) and is called with nothing;"),
    ],
)
def test_a_method_that_cannot_be_called_is_refused(name: str, method: Any, said: str) -> None:
    with pytest.raises(WrongSignature) as raised:
        methods_of(hook_with(name, method))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "method",
    [
        lambda self, event: None,
        lambda self, event, more=1: None,
        lambda *arguments: None,
        lambda self, *events, **more: None,
        staticmethod(lambda event: None),
        classmethod(lambda cls, event: None),
        print,
        [].append,
    ],
)
def test_a_method_that_can_be_called_with_an_event_is_taken(method: Any) -> None:
    assert len(methods_of(hook_with("pop3_connect", method))) == 1


def test_a_coroutine_method_is_taken() -> None:
    class Slow(Hook):
        async def pop3_connect(self, event: Event) -> None:
            pass

    assert len(methods_of(Slow())) == 1


# --- verdicts without effect ----------------------------------------------------------------------------


@pytest.mark.parametrize("as_coroutine", [True, False])
@pytest.mark.parametrize("verdict", [PASS, Deny()], ids=repr)
def test_a_verdict_of_a_hook_that_only_listens_is_said_once(
    clock: Clock, as_coroutine: bool, verdict: Verdict
) -> None:
    async def later() -> Verdict:
        return verdict

    found = started(clock, Listener(later if as_coroutine else lambda: verdict))
    with capturedLogs() as logs:
        found.dispatch([REQUEST] * 3)
    (log,) = logs
    assert log["log_level"].name == "warn"
    assert (log["label"], log["event"]) == ("Listener", "pop3_request")
    assert log["verdict"] == type(verdict).__name__
    assert found.failures == {}


def test_a_verdict_without_effect_is_said_for_each_hook_and_event(clock: Clock) -> None:
    class Both(Listener):
        def pop3_login_attempt(self, event: LoginAttempt) -> Any:
            return self.act()

    found = started(clock, Both(Deny), Both(Deny))
    with capturedLogs() as logs:
        found.dispatch([REQUEST, ATTEMPT] * 2)
    assert [log["event"] for log in logs] == ["pop3_request"] * 2 + ["pop3_login_attempt"] * 2


def test_what_a_blocking_hook_says_of_the_end_is_no_such_verdict(
    clock: Clock, logs: Sequence[Any]
) -> None:
    async def later() -> Verdict:
        return PASS

    found = started(clock, Gate(later))
    found.inform([END])
    assert not logs


# --- holding the thread ---------------------------------------------------------------------------------


class Watch:
    """The monotonic clock, which stands still unless somebody holds the thread."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def hold(self, seconds: float = LONGEST_HOLD + 0.25) -> None:
        self.now += seconds


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found = Watch()
    for module in (dispatcher, asking, faults):
        monkeypatch.setattr(module, "monotonic", found)
    return found


class Named(Listener):
    """A hook with a name of its own."""

    def __init__(self, name: str, act: Act) -> None:
        super().__init__(act)
        self.label = name  # type: ignore[misc]


def holds(logs: Sequence[Any]) -> list[tuple[str, str, str, int]]:
    return [(log["label"], log["event"], log["seconds"], log["count"]) for log in logs]


def test_a_listening_hook_that_holds_the_thread_is_named(
    clock: Clock, watch: Watch, logs: Sequence[Any]
) -> None:
    found = started(
        clock,
        Named("a", lambda: watch.hold(LONGEST_HOLD)),
        Named("b", lambda: watch.hold(2)),
        Named("c", lambda: watch.hold(0.1)),
    )
    found.dispatch([REQUEST])
    assert holds(logs) == [("b", "pop3_request", "2.0", 1)]
    assert found.holds == {"b": 1}


def test_a_hook_that_holds_the_thread_and_raises_is_named_for_both(
    clock: Clock, watch: Watch, logs: Sequence[Any]
) -> None:
    def act() -> None:
        watch.hold()
        raise SystemExit

    found = started(clock, Listener(act))
    found.dispatch([REQUEST])
    assert (found.holds, found.failures) == ({"Listener": 1}, {"Listener": 1})


@pytest.mark.parametrize("raises", [False, True])
def test_a_blocking_hook_that_holds_the_thread_is_named(
    clock: Clock, watch: Watch, logs: Sequence[Any], raises: bool
) -> None:
    def act() -> None:
        watch.hold(3)
        if raises:
            raise RuntimeError

    found = started(clock, Gate(act))
    assert found.ask([REQUEST])
    found.inform([END])
    assert found.holds == {"Gate": 2}
    first = next(log for log in logs if "seconds" in log)
    assert holds([first]) == [("Gate", "pop3_request", "3.0", 1)]


@pytest.mark.parametrize("kind", [Listener, Gate])
def test_each_step_of_a_coroutine_that_holds_the_thread_is_told_once(
    clock: Clock, watch: Watch, logs: Sequence[Any], kind: type[Listener]
) -> None:
    first: Deferred[None] = Deferred()
    second: Deferred[None] = Deferred()

    async def act() -> None:
        watch.hold(1)
        await first
        watch.hold(0.1)
        try:
            await second
        except ValueError:
            watch.hold(2)

    found = started(clock, kind(act))
    found.dispatch([REQUEST])
    found.ask([REQUEST])
    assert found.holds == {kind.__name__: 1}
    watch.hold(60)  # that is the reactor's
    first.callback(None)
    assert found.holds == {kind.__name__: 1}
    second.errback(ValueError())
    assert [seconds for _, _, seconds, _ in holds(logs)] == ["1.0", "2.0"]
    assert found.failures == {}


def test_holds_are_logged_ever_more_seldom(clock: Clock, watch: Watch, logs: Sequence[Any]) -> None:
    found = started(clock, Listener(watch.hold))
    found.dispatch([REQUEST] * 20)
    assert [count for *_, count in holds(logs)] == [1, 2, 4, 8, 16]
    assert found.holds == {"Listener": 20}


def test_who_tells_is_not_blamed_for_who_hears(
    clock: Clock, watch: Watch, logs: Sequence[Any]
) -> None:
    class Hearing(Hook):
        def pop3_policy(self, event: Policy) -> None:
            watch.hold(2)

    teller = Listener()

    def tell() -> None:
        watch.hold(0.3)
        teller.emit(Policy(C, TS, "r", "log", "k", "failures", 5, 5, 60.0, 0.0, False))

    teller.act = tell
    started(clock, Hearing(), teller).dispatch([REQUEST])
    assert holds(logs) == [("Hearing", "pop3_policy", "2.0", 1)]


def test_who_tells_is_blamed_for_its_own_part(
    clock: Clock, watch: Watch, logs: Sequence[Any]
) -> None:
    class Hearing(Hook):
        def pop3_policy(self, event: Policy) -> None:
            watch.hold(2)

    teller = Listener()

    def tell() -> None:
        teller.emit(Policy(C, TS, "r", "log", "k", "failures", 5, 5, 60.0, 0.0, False))
        watch.hold(1)

    teller.act = tell
    started(clock, Hearing(), teller).dispatch([REQUEST])
    assert [(label, seconds) for label, _, seconds, _ in holds(logs)] == [
        ("Hearing", "2.0"),
        ("Listener", "1.0"),
    ]


def test_so_many_holds_within_another_are_remembered_and_no_more(logs: Sequence[Any]) -> None:
    found = Faults()
    inner = HookMethod(Listener(), "inner", print, found)
    outer = HookMethod(Listener(), "outer", print, found)
    for n in range(BLAMED + 1):
        found.held(inner, REQUEST, n, n + 1)
    found.held(outer, REQUEST, 0, BLAMED + 1)
    # One is forgotten, so that its second is the outer's.
    assert found.holds == {"inner": BLAMED + 1, "outer": 1}
    found = Faults()
    for n in range(BLAMED):
        found.held(inner, REQUEST, n, n + 1)
    found.held(outer, REQUEST, 0, BLAMED)
    assert "outer" not in found.holds
