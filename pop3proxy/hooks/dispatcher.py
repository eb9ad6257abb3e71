"""Brings each event to the hooks that hear it or decide about it; knows nothing of sessions and sockets."""

import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_type_hints

from twisted.internet.interfaces import IReactorTime

from ..analyzer.events import ALL, Event, LoginAnnounced, Reply
from ..problems import in_one_line, text_in_one_line
from .api import VERDICTS, EndSession, Hook, Verdict
from .asking import Asker, Pending, Question, discard
from .faults import LONGEST_HOLD, Faults, HookMethod, TimeLimit, place

Method = Callable[[Any], Any]

MAX_PENDING = 1_000
"""Awaitables of one listening hook that run at a time; one more is cancelled at once, and counted."""

_HEARD: frozenset[type[Event]] = ALL | {LoginAnnounced}

_BY_NAME = {kind.name: kind for kind in _HEARD}


class UnusableHook(ValueError):
    """A hook that can't do what it seems to be meant for; the text says what would be right."""


class UnknownEvent(UnusableHook):
    """A hook has a method for an event that does not exist."""


class ImpossibleVerdict(UnusableHook):
    """A hook says that it returns a verdict which its event can't get, or that it is not asked for."""


class WrongSignature(UnusableHook):
    """A method of a hook cannot be called as it will be."""


class HookNotStarted(Exception):
    """A hook's ``start`` has failed, which is the cause; the text is one line for the operator."""


def _of_peers(events: Iterable[Event]) -> Iterator[Event]:
    """Yield what a peer gave rise to: no hook decides about the reply of a denial, which is a verdict."""
    return (event for event in events if not (type(event) is Reply and event.denial))


def _label(hook: Hook) -> str:
    return hook.label or type(hook).__name__


def methods_of(hook: Hook) -> dict[type[Event], Method]:
    """Find the hook's methods that are named after events.

    Raises UnknownEvent for a method that begins with ``pop3_`` and is no event: a slip of the pen there
    would otherwise be a hook that silently hears nothing. Raises WrongSignature for a method that cannot
    be called with its arguments. Raises ImpossibleVerdict for a method whose return annotation names a
    verdict that it can't have. Raises UnusableHook for a time limit or an ``on_error`` that would mean
    nothing when it is needed.
    """
    _check_settings(hook)
    for name, arguments in _OTHER_METHODS.items():
        _check_signature(hook, name, getattr(hook, name), arguments)
    found: dict[type[Event], Method] = {}
    for name in dir(hook):
        if not name.startswith("pop3_"):
            continue
        if name not in _BY_NAME:
            known = ", ".join(sorted(kind.name for kind in ALL))
            raise UnknownEvent(f"{_label(hook)}.{name} is no event; the events are {known}")
        method = getattr(hook, name)
        _check_signature(hook, name, method, ("event",))
        _check_verdicts(hook, _BY_NAME[name], method)
        found[_BY_NAME[name]] = method
    return found


def _check_settings(hook: Hook) -> None:
    limit: Any = hook.time_limit
    number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    if not (number and math.isfinite(limit) and limit > 0):
        raise UnusableHook(
            f"{_label(hook)}.time_limit is {limit!r}; it can be a number of seconds above 0"
        )
    if hook.on_error not in ("pass", "deny"):
        raise UnusableHook(
            f'{_label(hook)}.on_error is {hook.on_error!r}; it can be "pass" or "deny"'
        )


_OTHER_METHODS = {"start": ("reactor",), "stop": (), "reopen": ()}
"""What is called beside the methods of events, and with which arguments."""


def _check_signature(hook: Hook, name: str, method: Any, arguments: tuple[str, ...]) -> None:
    """Hold what a method takes against what it is called with."""
    right = f"def {name}({', '.join(('self', *arguments))})"
    if not callable(method):
        raise WrongSignature(f"{_label(hook)}.{name} is no method; write it as {right}")
    if name in _OTHER_METHODS and inspect.iscoroutinefunction(method):
        raise WrongSignature(
            f"{_label(hook)}.{name} is a coroutine, which nothing would await; write it as {right}"
        )
    try:
        signature = inspect.signature(method)
    except ValueError:
        # Of a built-in nothing is known; of a method it means that it does not even take self.
        if not inspect.ismethod(method):
            return
        signature = inspect.signature(method.__func__)
    else:
        try:
            signature.bind(*arguments)
            return
        except TypeError:
            pass
    raise WrongSignature(
        f"{_label(hook)}.{name} takes {signature} and is called with"
        f" {arguments[0] if arguments else 'nothing'}; write it as {right}"
    )


def _check_verdicts(hook: Hook, kind: type[Event], method: Method) -> None:
    """Hold the verdicts of a method's return annotation against those that its event may get."""
    declared = set(_verdicts_in(_return_annotation(method)))
    if declared and not hook.blocking:
        raise ImpossibleVerdict(
            f"{_label(hook)}.{kind.name} returns {_names(declared)}, but the hook only listens;"
            " set blocking = True"
        )
    possible = VERDICTS.get(kind, ())
    impossible = declared.difference(possible)
    if impossible:
        raise ImpossibleVerdict(
            f"{_label(hook)}.{kind.name} returns {_names(impossible)}; {kind.name} can get"
            f" {_names(possible) or 'no verdict'}"
        )


def _names(kinds: Iterable[type[Verdict]]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))


def _return_annotation(method: Method) -> Any:
    """Evaluate the annotation alone: the others may name what is imported for the type checker only."""
    try:
        function: Any = inspect.unwrap(method)
        alone = SimpleNamespace(__annotations__={"return": function.__annotations__["return"]})
        return get_type_hints(alone, function.__globals__)["return"]
    except Exception:
        # So may this one, or anything else; and what is called need not be a function.
        return None


def _verdicts_in(annotation: Any) -> Iterator[type[Verdict]]:
    """Yield the verdicts that an annotation names, however deep: ``Deferred[Deny | None]``, say."""
    if isinstance(annotation, type) and issubclass(annotation, Verdict):
        if annotation is not Verdict:
            yield annotation
        return
    for part in get_args(annotation):
        yield from _verdicts_in(part)


class Dispatcher:
    """Delivers events to hooks, in the configuration's order.

    ``wants`` is the set of event types that anyone hears: what is not in it need not be built.
    ``blocking`` are those of them that someone decides about. ``failures`` counts what went wrong by hook,
    ``holds`` how often one held the thread for too long.

    Whatever a hook raises, BaseException included, ends here.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        end_sessions: Callable[[Collection[str]], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        """Look up once which hook hears what; ``end_sessions`` is given to them. Raises UnusableHook."""
        self.hooks = tuple(hooks)
        self._faults = faults = Faults() if faults is None else faults
        self.failures = faults.failures
        self.holds = faults.holds
        self._labels = {id(hook): _label(hook) for hook in self.hooks}
        self._started: list[Hook] = []
        self._clock: IReactorTime | None = None
        self._pending: dict[str, set[Pending]] = {}
        listeners: dict[type[Event], list[HookMethod]] = {}
        askers: dict[type[Event], list[Asker]] = {}
        for hook in self.hooks:
            hook.emit = self.emit
            if end_sessions is not None:
                hook.end_sessions = end_sessions
            label = self._labels[id(hook)]
            for kind, method in methods_of(hook).items():
                if hook.blocking:
                    askers.setdefault(kind, []).append(Asker(hook, label, method, faults))
                else:
                    listeners.setdefault(kind, []).append(HookMethod(hook, label, method, faults))
        self._listeners = listeners
        self._askers = askers
        self.wants: frozenset[type[Event]] = frozenset(listeners) | frozenset(askers)
        self.blocking: frozenset[type[Event]] = frozenset(askers).intersection(VERDICTS)
        self.has_blocking = any(hook.blocking for hook in self.hooks)

    # --- start and stop ---------------------------------------------------------------------------------

    def start(self, reactor: Any) -> None:
        """Start the hooks. Raises HookNotStarted for the first that fails; those before it are stopped."""
        self._clock = reactor
        for hook in self.hooks:
            try:
                hook.start(reactor)
            except BaseException as problem:
                self.stop()
                raise HookNotStarted(self._not_started(hook, problem)) from problem
            self._started.append(hook)

    def _not_started(self, hook: Hook, problem: BaseException) -> str:
        """Say why a hook has not started: there was no client yet, so the text holds no password of one."""
        if isinstance(problem, OSError) and type(hook).__module__.startswith("pop3proxy."):
            # These are written for the operator.
            return text_in_one_line(problem)
        where = place(problem, hook)
        found = f" at {where}" if where else ""
        return f"hook {self._labels[id(hook)]} does not start: {in_one_line(problem)}{found}"

    def stop(self) -> None:
        """Cancel what hooks still do, and stop those that were started; what they raise is logged."""
        for running in self._pending.values():
            for pending in list(running):
                pending.cancel()
        self._pending.clear()
        while self._started:
            self._do(self._started.pop(0), "stop")

    def reopen(self) -> None:
        """Have the started hooks open anew what they write to; what they raise is logged."""
        for hook in list(self._started):
            self._do(hook, "reopen")

    def _do(self, hook: Hook, what: Literal["stop", "reopen"]) -> None:
        try:
            if what == "stop":
                hook.stop()
            else:
                hook.reopen()
        except BaseException as problem:
            self._faults.failed_beside(hook, self._labels[id(hook)], what, problem)

    # --- events -----------------------------------------------------------------------------------------

    def dispatch(self, events: Iterable[Event]) -> None:
        """Tell every listening hook of each event.

        Raises EndSession, after all have heard, if a hook wants the session ended; any other exception
        of a hook is logged and counted.
        """
        end: EndSession | None = None
        # The end of one call is the beginning of the next, so that the clock is read once a call.
        began = monotonic()
        for event in events:
            for method in self._listeners.get(type(event), ()):
                try:
                    result = method.call(event)
                    if result is not None:
                        self._returned(method, event, result)
                except EndSession as wish:
                    end = wish
                # SystemExit and asyncio.CancelledError among them.
                except BaseException as problem:
                    self._faults.failed(method, event, problem)
                ended = monotonic()
                if ended - began > LONGEST_HOLD:
                    self._faults.held(method, event, began, ended)
                began = ended
        if end is not None:
            raise end

    def _returned(self, method: HookMethod, event: Event, result: Any) -> None:
        """Take what a method of a listening hook has returned, or its awaitable has come to."""
        if isinstance(result, Verdict):
            self._faults.ignored(method, event, result)
        elif inspect.isawaitable(result):
            self._run(method, event, result)

    def ask(self, events: Sequence[Event]) -> Question | None:
        """Ask the blocking hooks about the events of a step; None if there is nobody to ask."""
        for event in events:
            if type(event) in self.blocking:
                assert self._clock is not None, "hooks are started before they are asked"
                return Question(self._clock, self._askers, _of_peers(events))
        return None

    def inform(self, events: Iterable[Event]) -> None:
        """Tell the blocking hooks what nobody can decide about any more, such as the end of a session."""
        for event in _of_peers(events):
            for asker in self._askers.get(type(event), ()):
                answer = asker.ask(event)
                if not isinstance(answer, Verdict):
                    self._run(asker, event, answer)

    def emit(self, event: Event) -> None:
        """Tell all hooks of an event that one of them raises; it decides nothing."""
        # What it is about is told, and is decided, by itself.
        with suppress(EndSession):
            self.dispatch((event,))
        self.inform((event,))

    def _run(self, method: HookMethod, event: Event, awaitable: Awaitable[Any]) -> None:
        """Let an awaitable come to its end, with nobody waiting for it."""
        assert self._clock is not None, "hooks are started before they hear events"
        running = self._pending.setdefault(method.label, set())
        if len(running) >= MAX_PENDING:
            discard(awaitable)
            problem = TimeLimit(f"{MAX_PENDING} calls have not ended")
            self._faults.failed(method, event, problem)
            return
        over = False

        def done(result: Any, problem: BaseException | None) -> None:
            nonlocal over
            over = True
            running.discard(pending)
            if problem is not None:
                self._faults.failed(method, event, problem)
            elif isinstance(result, Verdict) and not method.hook.blocking:
                self._faults.ignored(method, event, result)

        pending: Any = None
        pending = Pending(self._clock, method, event, awaitable, done)
        if not over:
            running.add(pending)
