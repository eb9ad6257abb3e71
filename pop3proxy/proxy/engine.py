"""Waits for many plain sockets at once, as one descriptor of the reactor; reads and writes none of them.

The reactor does for each descriptor that is ready what it must do for any: it sets up a logging context,
asks for the descriptor's number before and after, and translates conditions. For a short line that costs
more than the line. The engine has an epoll of its own, in which plain sockets are registered, and that
epoll is one descriptor of the reactor, whichever reactor it is: only its public interface is used.
"""

import select
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..problems import described

READ: Final = getattr(select, "EPOLLIN", 0)
WRITE: Final = getattr(select, "EPOLLOUT", 0)

BROKEN: Final = getattr(select, "EPOLLERR", 0) | getattr(select, "EPOLLHUP", 0)
"""What epoll reports unasked: an error, or that both directions are over."""

AT_ONCE: Final = 256
"""Events that are handled before the reactor's timers and other descriptors have their turn."""


class Watcher(Protocol):
    """What hears that its socket is ready."""

    def ready(self, events: int) -> None:
        """Do what the events allow. They may be out of date, and none of them may be wanted any more."""

    def failed(self) -> None:
        """Give up, because ``ready`` has raised."""


def usable(reactor: Any) -> bool:
    """Tell whether the system and the reactor have what an engine needs."""
    return hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor)


@implementer(IReadDescriptor)
class Engine:
    """One epoll, and who watches which of its descriptors."""

    _log = Logger(namespace="pop3proxy.engine")

    def __init__(self, reactor: Any) -> None:
        """Prepare; nothing is opened before ``start``."""
        self.reactor = reactor
        self._epoll: Any = None
        self._watchers: dict[int, Watcher] = {}

    def start(self) -> None:
        """Open the epoll and give it to the reactor."""
        self._epoll = select.epoll()
        self.reactor.addReader(self)

    def stop(self) -> None:
        """Close the epoll; what is still watched is told nothing more. A second call does nothing."""
        if self._epoll is not None:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None
        self._watchers.clear()

    # --- what watchers do with it -----------------------------------------------------------------------

    # A descriptor is taken out before it is closed: its number may be another's at once, and a process
    # that is being forked would keep the old one in the epoll.

    def add(self, descriptor: int, watcher: Watcher, events: int) -> None:
        """Begin to watch a descriptor."""
        self._epoll.register(descriptor, events)
        self._watchers[descriptor] = watcher

    def change(self, descriptor: int, watcher: Watcher, events: int) -> None:
        """Watch for other events, or for another watcher."""
        self._epoll.modify(descriptor, events)
        self._watchers[descriptor] = watcher

    def remove(self, descriptor: int) -> None:
        """Watch a descriptor no longer."""
        if self._watchers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def soon(self, act: Callable[..., object], *arguments: object) -> None:
        """Do something when whoever acts now has finished."""
        self.reactor.callLater(0, act, *arguments)

    def wake(self, watcher: Watcher, events: int) -> None:
        """Let a watcher act when whoever acts now has finished, as if its descriptor were ready."""
        self.soon(self._wake, watcher, events)

    def _wake(self, watcher: Watcher, events: int) -> None:
        try:
            watcher.ready(events)
        except BaseException as problem:
            self._failed(watcher, problem)

    def report(self, problem: BaseException) -> None:
        """Log an error of ours that costs a connection."""
        self._log.error(
            "a connection is reset by an error of ours: {problem}", problem=described(problem)
        )

    # --- what the reactor says --------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the epoll's number, or -1 if it is closed (IFileDescriptor)."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Name the engine (ILoggingContext)."""
        return "engine"

    def doRead(self) -> None:
        """Tell the watchers of all descriptors that are ready (IReadDescriptor).

        They are looked up before the first of them acts, since a number that one of them closes can be
        given to another's socket within the same batch.
        """
        find = self._watchers.get
        ready = [(find(number), events) for number, events in self._epoll.poll(0, AT_ONCE)]
        for watcher, events in ready:
            if watcher is None:
                continue
            try:
                watcher.ready(events)
            # What came out of here, SystemExit say, would have the reactor take the engine away from all.
            except BaseException as problem:
                self._failed(watcher, problem)

    def _failed(self, watcher: Watcher, problem: BaseException) -> None:
        """Let an error of ours cost the one connection that met it, and no other."""
        self.report(problem)
        try:
            watcher.failed()
        except BaseException as another:
            self.report(another)

    def connectionLost(self, reason: Failure) -> None:
        """Let go of everything: the reactor stops, or we have stopped ourselves (IFileDescriptor)."""
        watchers = list(self._watchers.values())
        for watcher in watchers:
            watcher.failed()
        self.stop()
