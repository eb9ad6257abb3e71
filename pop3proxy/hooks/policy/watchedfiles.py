"""Reads files that a policy needs, and again when they change; what is in them is known elsewhere.

They are read in another thread. Where that fails, the log says so, and what was read before stays in use.
"""

import os
from collections.abc import Callable, Iterable
from typing import ClassVar, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

LOOK_EVERY: Final = 5.0
"""Seconds between two looks whether a file has changed."""


class PolicyFileError(OSError):
    """A file of the policy cannot be used: one line that says what to change."""


class WatchedFiles(Generic[T]):
    """Files that are read together."""

    _log: ClassVar[Logger] = Logger(namespace="pop3proxy.hooks.policy")

    def __init__(
        self, paths: Iterable[str], read: Callable[[], T], use: Callable[[T], str]
    ) -> None:
        """Read them at once. Raises PolicyFileError, as ``read`` does.

        ``use`` takes what was read, in this thread, and returns a few words about it for the log.
        """
        self._paths = tuple(paths)
        self._read = read
        self._use = use
        self._looking = LoopingCall(self.look)
        self._reading = DeferredLock()
        self._stamp = self._stamps()
        use(read())

    def watch(self, clock: IReactorTime) -> None:
        """Begin to look whether the files change, if there are any."""
        if self._paths:
            self._looking.clock = clock
            self._looking.start(LOOK_EVERY, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def look(self) -> "Deferred[None]":
        """Read the files again if they have changed."""
        return self._reading.run(deferToThread, self._changed).addCallbacks(self._take, self._keep)

    def reread(self) -> "Deferred[None] | None":
        """Read the files again, if there are any."""
        if not self._paths:
            return None
        self._stamp = ()
        return self.look()

    def _stamps(self) -> tuple[object, ...]:
        return tuple(map(_stamp, self._paths))

    def _changed(self) -> T | None:
        """Return what the files say, or None if they have not changed."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        return self._read()

    def _take(self, found: T | None) -> None:
        if found is not None:
            self._log.info(
                "policy: {files} read again: {what}",
                files=" and ".join(self._paths),
                what=self._use(found),
            )

    def _keep(self, failure: Failure) -> None:
        failure.trap(PolicyFileError)
        self._log.error("{problem}; what was read before stays in use", problem=str(failure.value))


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as problem:
        return type(problem), getattr(problem, "errno", None)
    return found.st_ino, found.st_size, found.st_mtime_ns
