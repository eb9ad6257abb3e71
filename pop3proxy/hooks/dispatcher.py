"""Brings each event to the hooks that want to hear it; knows nothing of sessions and sockets."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.logger import Logger

from ..analyzer.events import ALL, Event
from .api import EndSession, Hook

Listener = Callable[[Any], None]

_BY_NAME = {kind.name: kind for kind in ALL}


class UnknownEvent(ValueError):
    """A hook has a method for an event that does not exist."""


def _label(hook: Hook) -> str:
    return hook.label or type(hook).__name__


def _listeners(hook: Hook) -> dict[type[Event], Listener]:
    """Find the hook's methods that are named after events.

    Raises UnknownEvent for a method that begins with ``pop3_`` and is no event: a slip of the pen there
    would otherwise be a hook that silently hears nothing.
    """
    found: dict[type[Event], Listener] = {}
    for name in dir(hook):
        if not name.startswith("pop3_"):
            continue
        if name not in _BY_NAME:
            known = ", ".join(sorted(_BY_NAME))
            raise UnknownEvent(f"{_label(hook)}.{name} is no event; the events are {known}")
        found[_BY_NAME[name]] = getattr(hook, name)
    return found


class Dispatcher:
    """Delivers events to hooks in the configuration's order.

    ``wants`` is the set of event types that anyone listens to: what is not in it need not be built.
    ``failures`` counts exceptions by hook.
    """

    _log = Logger(namespace="pop3proxy.hooks")

    def __init__(self, hooks: Sequence[Hook]) -> None:
        """Look up once which hook listens to what. Raises UnknownEvent."""
        self.hooks = tuple(hooks)
        self.failures: Counter[str] = Counter()
        listeners: dict[type[Event], list[tuple[str, Listener]]] = {}
        for hook in self.hooks:
            for kind, listener in _listeners(hook).items():
                listeners.setdefault(kind, []).append((_label(hook), listener))
        self._listeners = listeners
        self.wants: frozenset[type[Event]] = frozenset(listeners)

    def dispatch(self, events: Iterable[Event]) -> None:
        """Tell every listener of each event.

        Raises EndSession, after all have heard, if a hook wants the session ended; any other exception
        of a hook is logged and counted.
        """
        end: EndSession | None = None
        for event in events:
            for label, listener in self._listeners.get(type(event), ()):
                try:
                    listener(event)
                except EndSession as wish:
                    end = wish
                except Exception:
                    self._failed(label, event)
        if end is not None:
            raise end

    def _failed(self, label: str, event: Event) -> None:
        """Report a failure in full at first, then at every power of two: a broken hook fails often."""
        self.failures[label] += 1
        count = self.failures[label]
        if count & (count - 1) == 0:
            # The exception's text and frames may hold the event, and with it a password: name its
            # type and place only.
            self._log.error(
                "hook {label} failed on {event} ({count} times by now): {problem}",
                label=label,
                event=event.name,
                count=count,
                problem=_describe_failure(),
            )


def _describe_failure() -> str:
    """Name the type of the exception being handled, and where it was raised."""
    kind, _, trace = sys.exc_info()
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{kind.__name__ if kind else 'unknown'}{where}"
