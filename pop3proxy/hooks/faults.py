"""Counts and logs what goes wrong in hooks: failures, holds of the thread, verdicts without effect.

The log names a hook's own file and line, and shows no text of an exception: it may hold what a client sent.
"""

import inspect
import sysconfig
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Final

from twisted.logger import Logger

from ..analyzer.events import Event
from ..problems import described, trace_of
from .api import Hook, Verdict

LONGEST_HOLD: Final = 0.5
"""Seconds for which a hook may hold the thread, and with it every session, before that is logged."""

BLAMED: Final = 16
"""Holds that are remembered, so that a hook that raises an event is not blamed for a hook that hears it."""

_ABOVE: Final = frozenset({"pop3proxy", "twisted"})
_STANDARD: Final = tuple(
    {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "<frozen"}
)


class TimeLimit(Exception):
    """A hook took longer than its ``time_limit``."""


class NoVerdict(Exception):
    """A blocking hook returned what is no verdict, or one that its event can't get."""


class HookMethod:
    """One method of a hook that is named after an event; the hook's settings are read when this is made."""

    __slots__ = ("call", "denies", "faults", "hook", "label", "limit")

    def __init__(
        self, hook: Hook, label: str, call: Callable[[Any], Any], faults: "Faults"
    ) -> None:
        """Take the bound method; ``faults`` hears what goes wrong with it."""
        self.hook = hook
        self.label = label
        self.call = call
        self.faults = faults
        self.limit = hook.time_limit
        self.denies = hook.on_error == "deny"


class Faults:
    """What went wrong in all hooks.

    ``failures`` counts failed calls by hook, and ``holds`` the calls that held the thread for more than
    ``LONGEST_HOLD``. Each is logged the first time, then at every power of two: a broken hook fails often.
    """

    _log = Logger(namespace="pop3proxy.hooks")

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self.holds: Counter[str] = Counter()
        self._blamed: deque[tuple[float, float]] = deque(maxlen=BLAMED)
        self._ignored: set[tuple[int, type[Event]]] = set()

    def failed(self, method: HookMethod, event: Event, problem: object) -> None:
        """Report that a call has failed; raises nothing, whatever the problem is.

        The exception's traceback is taken off it: to one that a hook keeps and raises again, Python adds
        frames each time, and each holds an event.
        """
        self._report(method.label, event.name, _named(problem, method.hook, method.call))
        if isinstance(problem, BaseException):
            problem.__traceback__ = None

    def failed_beside(self, hook: Hook, label: str, what: str, problem: object) -> None:
        """Report that a hook has failed in ``stop`` or ``reopen``."""
        self._report(label, what, _named(problem, hook, getattr(type(hook), what, None)))

    def _report(self, label: str, what: str, problem: str) -> None:
        count = _counted(self.failures, label)
        if _is_told(count):
            self._log.error(
                "hook {label} failed on {event}: {problem}; {count} times so far",
                label=label,
                event=what,
                problem=problem,
                count=count,
            )

    def held(self, method: HookMethod, event: Event, began: float, ended: float) -> None:
        """Report a call that held the thread for too long, but not for the holds of others within it.

        ``began`` and ``ended`` are of the monotonic clock.
        """
        others = sum(seconds for start, seconds in self._blamed if start >= began)
        seconds = ended - began - others
        if seconds <= LONGEST_HOLD:
            return
        self._blamed.append((began, seconds))
        count = _counted(self.holds, method.label)
        if _is_told(count):
            self._log.warn(
                "hook {label} held the thread for {seconds} s on {event}, and every session waited;"
                " return an awaitable for what takes time; {count} times so far",
                label=method.label,
                seconds=f"{seconds:.1f}",
                event=event.name,
                count=count,
            )

    def ignored(self, method: HookMethod, event: Event, verdict: Verdict) -> None:
        """Report the first verdict on an event by a hook that only listens."""
        key = id(method.hook), type(event)
        if key in self._ignored:
            return
        self._ignored.add(key)
        self._log.warn(
            "hook {label} returned {verdict} for {event}, which has no effect: the hook only listens; set"
            " blocking = True, or return nothing",
            label=method.label,
            verdict=type(verdict).__name__,
            event=event.name,
        )


def _counted(counts: Counter[str], label: str) -> int:
    counts[label] += 1
    return counts[label]


def _is_told(count: int) -> bool:
    return count & (count - 1) == 0


# --- names and places -----------------------------------------------------------------------------------


def _named(problem: object, hook: Hook, method: Any) -> str:
    """Name a problem and where it was raised in the hook's code, or else where the method is defined.

    The text of what is raised here is known to hold nothing secret.
    """
    where = place(problem, hook)
    if where:
        return f"{type(problem).__name__} at {where}"
    code = _code(method)
    if code is None:
        return described(problem)
    what = type(problem).__name__
    if type(problem) in (TimeLimit, NoVerdict):
        what += f": {problem}"
    return f"{what} at {code.co_filename}:{code.co_firstlineno}"


def place(problem: object, hook: Hook) -> str:
    """Return the innermost ``file:line`` of the hook's own code on a problem's way, or ``""``."""
    package = _top(type(hook).__module__)
    found: TracebackType | None = None
    trace = trace_of(problem)
    while trace is not None:
        if _is_own(trace.tb_frame, package):
            found = trace
        trace = trace.tb_next
    return f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}" if found is not None else ""


def _is_own(frame: FrameType, package: str) -> bool:
    """Return whether a frame is of the hook's package, or of a file beside it that no library brought."""
    name = _top(str(frame.f_globals.get("__name__", "")))
    if name == package:
        return True
    file = frame.f_code.co_filename
    return name not in _ABOVE and not (
        file.startswith(_STANDARD) or "site-packages" in file or "dist-packages" in file
    )


def _top(module: str) -> str:
    return module.partition(".")[0]


def _code(method: Any) -> Any:
    """Return the code object of a method, or None where there is none."""
    try:
        return inspect.unwrap(method).__code__
    except (AttributeError, ValueError):
        return None


# --- coroutines -----------------------------------------------------------------------------------------

Held = Callable[[float, float], None]
"""Takes the monotonic times between which something held the thread for too long."""


class TimedCoroutine(Coroutine[Any, Any, Any]):
    """A hook's coroutine; tells of each of its steps that holds the thread for too long."""

    __slots__ = ("_coroutine", "_held")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], held: Held) -> None:
        """Take a coroutine that has not begun."""
        self._coroutine = coroutine
        self._held = held

    def send(self, value: Any) -> Any:
        """Run to the next await."""
        return self._timed(self._coroutine.send, value)

    def throw(self, *problem: Any) -> Any:
        """Raise a problem at the await, and run to the next."""
        return self._timed(self._coroutine.throw, *problem)

    def _timed(self, step: Callable[..., Any], *arguments: Any) -> Any:
        began = monotonic()
        try:
            return step(*arguments)
        finally:
            ended = monotonic()
            if ended - began > LONGEST_HOLD:
                self._held(began, ended)

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Any:
        """Await the coroutine, untimed."""
        return self._coroutine.__await__()
