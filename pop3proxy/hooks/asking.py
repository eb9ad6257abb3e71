"""Asks blocking hooks for their verdicts, one after the other, and waits for those that take their time.

What a verdict does to the bytes is the session's business. A plain answer makes no Deferred and no timer.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..analyzer.events import Event
from .api import PASS, VERDICTS, Delay, Deny, Drop, EndSession, Pass, Verdict
from .faults import LONGEST_HOLD, Held, HookMethod, NoVerdict, TimedCoroutine, TimeLimit

UNAVAILABLE = Deny("-ERR [SYS/TEMP] Temporarily unavailable, please try again later.")
"""What a hook that failed stands for under ``on_error = "deny"`` (RFC 3206 section 3)."""


class Pending:
    """An awaitable that a hook returned: ends once, by its result, its exception or the time limit.

    ``done`` gets the result and None, or None and the exception; perhaps before the constructor returns.
    """

    __slots__ = ("_deferred", "_done", "_timer")

    def __init__(
        self,
        clock: IReactorTime,
        method: HookMethod,
        event: Event,
        awaitable: Awaitable[Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Run a coroutine, or wait for a Deferred, for the hook's ``time_limit`` at the most.

        The method's ``faults`` hear of each step of a coroutine that holds the thread for too long.
        """
        self._done: Callable[[Any, BaseException | None], None] | None = done
        self._timer = clock.callLater(method.limit, self._late, method.limit)
        try:
            self._deferred = _deferred(awaitable, partial(method.faults.held, method, event))
            self._deferred.addCallbacks(self._answered, self._failed)
        # An awaitable's methods are a hook's code, too.
        except BaseException as problem:
            self._deferred = Deferred()
            self._end(None, problem)

    # A hook may return one Deferred for several events. Who waits for it next gets what these return: the
    # same answer, or what is no verdict; with None a failure, or a denial, would pass from there on.

    def _answered(self, result: Any) -> Any:
        self._end(result, None)
        return result

    def _failed(self, failure: Failure) -> Any:
        self._end(None, failure.value)
        return failure.value

    def _late(self, limit: float) -> None:
        done, self._done = self._done, None
        assert done is not None
        self._cancel()
        done(None, TimeLimit(f"{limit:g} s"))

    def _end(self, result: Any, problem: BaseException | None) -> None:
        """Pass the outcome on, unless it comes too late: who was cancelled may still answer."""
        done, self._done = self._done, None
        if done is not None:
            self._timer.cancel()
            done(result, problem)

    def cancel(self) -> None:
        """Stop it, because nobody wants to know any more; ``done`` is not called."""
        if self._done is not None:
            self._done = None
            self._timer.cancel()
            self._cancel()

    def _cancel(self) -> None:
        # Its canceller is a hook's code, and whatever that raises has no consequence any more.
        with suppress(BaseException):
            self._deferred.cancel()


def discard(awaitable: Awaitable[Any]) -> None:
    """Give up an awaitable that nobody has begun to wait for; raises nothing."""
    with suppress(BaseException):
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        elif isinstance(awaitable, Deferred):
            awaitable.addErrback(_unheard)
            awaitable.cancel()


def _unheard(failure: Failure) -> Any:
    """Take the failure of what was given up; the Deferred's next reader gets what is no verdict."""
    return failure.value


def _deferred(awaitable: Awaitable[Any], held: Held) -> Deferred[Any]:
    if isinstance(awaitable, Deferred):
        return awaitable
    coroutine = awaitable if inspect.iscoroutine(awaitable) else _awaited(awaitable)
    return Deferred.fromCoroutine(TimedCoroutine(coroutine, held))


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Asker(HookMethod):
    """One method of a blocking hook."""

    __slots__ = ()

    def ask(self, event: Event) -> Verdict | Awaitable[Any]:
        """Call the method; raises nothing."""
        began = monotonic()
        answer: Verdict | Awaitable[Any]
        try:
            said = self.call(event)
            if said is None or said is PASS:
                answer = PASS
            else:
                answer = said if inspect.isawaitable(said) else _checked(said, event)
        # SystemExit and asyncio.CancelledError among them: a hook's fault is never more than its own.
        except BaseException as problem:
            answer = self.failed(event, problem)
        ended = monotonic()
        if ended - began > LONGEST_HOLD:
            self.faults.held(self, event, began, ended)
        return answer

    def answered(self, event: Event, answer: Any) -> Verdict:
        """Take what an awaitable came to."""
        try:
            return _checked(answer, event)
        except BaseException as problem:
            return self.failed(event, problem)

    def failed(self, event: Event, problem: BaseException) -> Verdict:
        """Report what went wrong, and return what the hook stands for then.

        The wish to end the session is nothing that went wrong.
        """
        if isinstance(problem, EndSession):
            return Drop()
        self.faults.failed(self, event, problem)
        if not self.denies:
            return PASS
        return UNAVAILABLE if Deny in VERDICTS.get(type(event), ()) else Drop()


def _checked(answer: Any, event: Event) -> Verdict:
    """Return the verdict that an answer stands for. Raises NoVerdict."""
    if answer is None:
        return PASS
    if not isinstance(answer, Verdict):
        raise NoVerdict(f"{type(answer).__name__} is no verdict")
    if type(answer) not in VERDICTS.get(type(event), (Pass,)):
        raise NoVerdict(f"{event.name} cannot get {type(answer).__name__}")
    return answer


Askers = Mapping[type[Event], Sequence[Asker]]


class Question:
    """What is asked about the events of one step, in their order.

    For each event the hooks are asked in the configuration's order, up to the first that does not pass.
    A Deny or a Drop ends it all; of several delays the longest counts. ``verdict`` is None as long as a
    hook takes its time; then ``settled`` is called with it.
    """

    __slots__ = (
        "_asker",
        "_askers",
        "_cancelled",
        "_clock",
        "_delay",
        "_event",
        "_left",
        "_pending",
        "_queue",
        "settled",
        "verdict",
    )

    def __init__(self, clock: IReactorTime, askers: Askers, events: Iterable[Event]) -> None:
        """Ask at once; the verdict may be there already when this returns."""
        self.verdict: Verdict | None = None
        self.settled: Callable[[Verdict], None] | None = None
        self._clock = clock
        self._askers = askers
        self._queue: Iterator[Event] = iter(events)
        self._left: Iterator[Asker] = iter(())
        self._event: Event | None = None
        self._asker: Asker | None = None  # who takes time to answer
        self._pending: Pending | None = None
        self._delay: Delay | None = None
        self._cancelled = False
        self._go_on()

    def cancel(self) -> None:
        """Ask no more: nobody wants to know. A hook may be the cause, while it is asked."""
        self.settled = None
        self._cancelled = True
        self._queue = iter(())
        self._left = iter(())
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    def _go_on(self) -> None:
        """Ask until somebody decides, or takes time, or nobody is left."""
        while self.verdict is None and self._asker is None:
            asker = next(self._left, None)
            if asker is not None:
                self._ask(asker)
            elif (event := next(self._queue, None)) is not None:
                self._event = event
                self._left = iter(self._askers.get(type(event), ()))
            else:
                self.verdict = self._delay or PASS

    def _ask(self, asker: Asker) -> None:
        assert self._event is not None
        answer = asker.ask(self._event)
        if isinstance(answer, Verdict):
            self._take(answer)
            return
        self._asker = asker
        pending = Pending(self._clock, asker, self._event, answer, self._answered)
        if self._cancelled:
            pending.cancel()
        elif self._asker is not None:
            self._pending = pending

    def _answered(self, answer: Any, problem: BaseException | None) -> None:
        asker, self._asker = self._asker, None
        assert asker is not None
        assert self._event is not None
        if problem is None:
            self._take(asker.answered(self._event, answer))
        else:
            self._take(asker.failed(self._event, problem))
        if self._pending is None:
            # It was answered at once, and whoever asked goes on.
            return
        self._pending = None
        self._go_on()
        if self.verdict is not None and self.settled is not None:
            self.settled(self.verdict)

    def _take(self, verdict: Verdict) -> None:
        if isinstance(verdict, Delay):
            if self._delay is None or verdict.seconds > self._delay.seconds:
                self._delay = verdict
            self._left = iter(())
        elif not isinstance(verdict, Pass):
            self.verdict = verdict
