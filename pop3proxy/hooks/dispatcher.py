"""Brings each event to the hooks that hear it or decide about it; knows nothing of sessions and sockets."""

import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..analyzer.events import ALL, Event, Reply
from ..problems import described
from .api import VERDICTS, EndSession, Hook, Verdict
from .asking import Asker, NoVerdict, Pending, Question, TimeLimit

Method = Callable[[Any], Any]

MAX_PENDING = 1_000
"""Awaitables of one listening hook that run at a time; one more is cancelled at once, and counted."""

_BY_NAME = {kind.name: kind for kind in ALL}


class UnusableHook(ValueError):
    """A hook that can't do what it seems to be meant for; the text says what would be right."""


class UnknownEvent(UnusableHook):
    """A hook has a method for an event that does not exist."""


class ImpossibleVerdict(UnusableHook):
    """A hook says that it returns a verdict which its event can't get, or that it is not asked for."""


def _of_peers(events: Iterable[Event]) -> Iterator[Event]:
    """Yield what a peer gave rise to: no hook decides about the reply of a denial, which is a verdict."""
    return (event for event in events if not (type(event) is Reply and event.denial))


def _label(hook: Hook) -> str:
    return hook.label or type(hook).__name__


def methods_of(hook: Hook) -> dict[type[Event], Method]:
    """Find the hook's methods that are named after events.

    Raises UnknownEvent for a method that begins with ``pop3_`` and is no event: a slip of the pen there
    would otherwise be a hook that silently hears nothing. Raises ImpossibleVerdict for a method whose
    return annotation names a verdict that it can't have. Raises UnusableHook for a time limit or an
    ``on_error`` that would mean nothing when it is needed.
    """
    _check_settings(hook)
    found: dict[type[Event], Method] = {}
    for name in dir(hook):
        if not name.startswith("pop3_"):
            continue
        if name not in _BY_NAME:
            known = ", ".join(sorted(_BY_NAME))
            raise UnknownEvent(f"{_label(hook)}.{name} is no event; the events are {known}")
        method = getattr(hook, name)
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
    ``blocking`` are those of them that someone decides about. ``failures`` counts what went wrong by hook.
    """

    _log = Logger(namespace="pop3proxy.hooks")

    def __init__(
        self, hooks: Sequence[Hook], end_sessions: Callable[[Collection[str]], None] | None = None
    ) -> None:
        """Look up once which hook hears what; ``end_sessions`` is given to them. Raises UnusableHook."""
        self.hooks = tuple(hooks)
        self.failures: Counter[str] = Counter()
        self._started: list[Hook] = []
        self._clock: IReactorTime | None = None
        self._pending: dict[str, set[Pending]] = {}
        listeners: dict[type[Event], list[tuple[str, Hook, Method]]] = {}
        askers: dict[type[Event], list[Asker]] = {}
        for hook in self.hooks:
            hook.emit = self.emit
            if end_sessions is not None:
                hook.end_sessions = end_sessions
            label = _label(hook)
            for kind, method in methods_of(hook).items():
                if hook.blocking:
                    askers.setdefault(kind, []).append(Asker(hook, label, method, self._failed))
                else:
                    listeners.setdefault(kind, []).append((label, hook, method))
        self._listeners = listeners
        self._askers = askers
        self.wants: frozenset[type[Event]] = frozenset(listeners) | frozenset(askers)
        self.blocking: frozenset[type[Event]] = frozenset(askers).intersection(VERDICTS)
        self.has_blocking = any(hook.blocking for hook in self.hooks)

    # --- start and stop ---------------------------------------------------------------------------------

    def start(self, reactor: Any) -> None:
        """Start the hooks. Raises what a hook raises; those started before it are stopped."""
        self._clock = reactor
        try:
            for hook in self.hooks:
                hook.start(reactor)
                self._started.append(hook)
        except Exception:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel what hooks still do, and stop those that were started."""
        for running in self._pending.values():
            for pending in list(running):
                pending.cancel()
        self._pending.clear()
        while self._started:
            self._started.pop(0).stop()

    # --- events -----------------------------------------------------------------------------------------

    def dispatch(self, events: Iterable[Event]) -> None:
        """Tell every listening hook of each event.

        Raises EndSession, after all have heard, if a hook wants the session ended; any other exception
        of a hook is logged and counted.
        """
        end: EndSession | None = None
        for event in events:
            for label, hook, method in self._listeners.get(type(event), ()):
                try:
                    result = method(event)
                    if result is not None and inspect.isawaitable(result):
                        self._run(label, hook, event, result)
                except EndSession as wish:
                    end = wish
                except Exception as problem:
                    self._failed(label, event, problem)
        if end is not None:
            raise end

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
                    self._run(asker.label, asker.hook, event, answer)

    def emit(self, event: Event) -> None:
        """Tell all hooks of an event that one of them raises; it decides nothing."""
        # What it is about is told, and is decided, by itself.
        with suppress(EndSession):
            self.dispatch((event,))
        self.inform((event,))

    def _run(self, label: str, hook: Hook, event: Event, awaitable: Awaitable[Any]) -> None:
        """Let an awaitable come to its end, with nobody waiting for it."""
        assert self._clock is not None, "hooks are started before they hear events"
        running = self._pending.setdefault(label, set())
        if len(running) >= MAX_PENDING:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            else:
                Pending(self._clock, awaitable, hook.time_limit, _unheard).cancel()
            self._failed(label, event, TimeLimit(f"{MAX_PENDING} calls have not ended"))
            return
        over = False

        def done(_: Any, problem: BaseException | None) -> None:
            nonlocal over
            over = True
            running.discard(pending)
            if problem is not None:
                self._failed(label, event, problem)

        pending: Any = None
        pending = Pending(self._clock, awaitable, hook.time_limit, done)
        if not over:
            running.add(pending)

    def _failed(self, label: str, event: Event, problem: BaseException) -> None:
        """Report a failure in full at first, then at every power of two: a broken hook fails often."""
        self.failures[label] += 1
        count = self.failures[label]
        if count & (count - 1) == 0:
            self._log.error(
                "hook {label} failed on {event} ({count} times by now): {problem}",
                label=label,
                event=event.name,
                count=count,
                problem=_describe(problem),
            )


def _unheard(_: Any, problem: BaseException | None) -> None:
    """Take the outcome of what was given up."""


def _describe(problem: BaseException) -> str:
    """Name an exception; the text of our own is known to hold nothing secret."""
    if isinstance(problem, (TimeLimit, NoVerdict)):
        return f"{type(problem).__name__}: {problem}"
    return described(problem)
