"""Appends lines to a file or stream, without waiting for it or tearing a line; renders nothing.

The rules of this file:

- Lines are queued and written in batches. The order of the lines is that in which they were handed in.
- A regular file gets a batch in one ``write``. What it does not take is cut back to the last whole line
  and stays queued.
- A pipe, terminal or socket is written to only as far as it takes bytes at once.
- The queue is bounded. Beyond the bound the newest lines are dropped and counted: what is queued keeps
  its order and a line of which a reader has the beginning is never lost. The last half of the queue is
  kept for lines that must not wait, since a flood of the others is what fills it.
"""

import errno
import os
import select
import stat
from math import inf
from os import write
from time import monotonic
from typing import Any, Final

from twisted.logger import Logger

BATCH: Final = 64 * 1024
"""Queued bytes that are written at once: enough to make a write's cost per line small."""

FLUSH_AFTER: Final = 0.25
"""Seconds that a line may wait for its batch; also until the next attempt on a file that takes no more."""

LIMIT: Final = 1024 * 1024
"""Bytes of the queue beyond which every line is dropped: minutes of a busy server's logins."""

ROOM: Final = LIMIT // 2
"""Bytes of the queue beyond which a line that may wait is dropped."""

SAY_EVERY: Final = 60.0
"""Seconds between two complaints about the same output."""

LAST_WAIT = 1.0
"""Seconds that ``close`` gives a slow reader in all, when there are no sessions left to be held up."""

STANDARD_OUTPUT: Final = "-"

_STDOUT = 1

# Owner writes, group reads (log shippers), nobody else: the records name people and their addresses.
_MODE: Final = 0o640

# Without O_NONBLOCK the opening of a named pipe waits for its reader.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# The reader of a pipe, the peer of a socket, the terminal's window.
_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.EIO)

_SLOW: Final = "its reader is too slow"
_DESERTED: Final = "its reader is gone"


class OutputError(OSError):
    """The output cannot be opened; the text is one line for the operator."""


class _ReaderGone(Exception):
    """Nobody will ever read what is written to this stream."""


class _File:
    """A regular file, which takes everything at once unless the disk is full or broken."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def take(self, queue: bytearray, until: float) -> None:
        """Write the queue and take from it what was written. Raises OSError."""
        done = 0
        try:
            while done < len(queue):
                count = write(self.descriptor, queue[done:] if done else queue)
                if not count:
                    raise OSError(errno.EIO, "the file takes nothing")
                done += count
        except OSError:
            whole = queue.rfind(b"\n", 0, done) + 1
            if done > whole and not self._cut(done - whole):
                whole = done
            del queue[:whole]
            raise
        queue.clear()

    def _cut(self, size: int) -> bool:
        """Take our last bytes off the file again, unless somebody else has written behind them."""
        try:
            end = os.lseek(self.descriptor, 0, os.SEEK_CUR)
            if os.fstat(self.descriptor).st_size != end:
                return False
            os.ftruncate(self.descriptor, end - size)
            # Standard output may have been redirected without O_APPEND.
            os.lseek(self.descriptor, end - size, os.SEEK_SET)
        except OSError:
            return False
        return True


class _Stream:
    """A pipe, terminal, socket or device, whose reader may be slow, stalled or gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def take(self, queue: bytearray, until: float) -> None:
        """Write what the stream takes by the monotonic time ``until`` and take that from the queue.

        Raises _ReaderGone and OSError.
        """
        while queue and self._poll.poll(max(0.0, until - monotonic()) * 1000):
            try:
                # A blocking descriptor that polls writable takes this much without blocking, pipe(7).
                count = write(self.descriptor, queue[: select.PIPE_BUF])
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in _GONE:
                    raise _ReaderGone from problem
                raise
            del queue[:count]


class Output:
    """The queue in front of a file, a named pipe or standard output (``-``).

    ``written`` and ``dropped`` count lines; ``late`` counts those that should not have waited and did.
    """

    _log = Logger(namespace="pop3proxy.hooks")

    def __init__(self, path: str) -> None:
        """Remember where to write; nothing is opened yet."""
        self.path = path
        self.written = 0
        self.dropped = 0
        self.late = 0
        self._sink: _File | _Stream
        self._reactor: Any = None
        self._queue = bytearray()
        self._try_at = BATCH
        self._timer: Any = None
        self._why = ""
        self._quiet_until = 0.0
        self._said = False
        self._gone = False

    def open(self, reactor: Any) -> None:
        """Open the file, creating it if need be; ``reactor`` gives the time. Raises OutputError."""
        self._reactor = reactor
        self._sink = self._opened()

    def _opened(self) -> _File | _Stream:
        try:
            if self.path == STANDARD_OUTPUT:
                descriptor = _standard_output()
            else:
                descriptor = os.open(self.path, _FLAGS, _MODE)
        except (OSError, ValueError) as problem:
            raise OutputError(f"cannot write to {self.path}: {_reason(problem)}") from problem
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _Stream(descriptor)
        if self.path != STANDARD_OUTPUT and _ends_inside_a_line(self.path):
            # Who wrote it last was killed: do not let its last line spoil our first.
            self._queue[:0] = b"\n"
        return _File(descriptor)

    def add(self, line: bytes) -> None:
        """Queue a line, which includes its line feed; it is written with its batch."""
        if len(self._queue) >= ROOM:
            self.dropped += 1
            self._complain()
            return
        self._queue += line
        if len(self._queue) >= self._try_at:
            self.flush()
        elif self._timer is None:
            self._set_timer()

    def add_now(self, line: bytes) -> bool:
        """Write a line, and all that was queued before it; tell whether it reached the kernel."""
        if len(self._queue) < LIMIT or self._write():
            self._queue += line
            if self._write():
                return True
        else:
            self.dropped += 1
        self.late += 1
        self._complain()
        return False

    def flush(self, until: float = 0.0) -> bool:
        """Write what is queued, waiting no longer than to the monotonic time ``until``.

        Returns whether all of it was written.
        """
        written = self._write(until)
        if not written and self._why != _SLOW:
            self._complain()
        return written

    def _write(self, until: float = 0.0) -> bool:
        if not self._queue:
            return True
        lines = self._queue.count(b"\n")
        try:
            self._sink.take(self._queue, until)
        except _ReaderGone:
            self._why = _DESERTED
        except OSError as problem:
            self._why = _reason(problem)
        else:
            self._why = _SLOW
        self.written += lines - self._queue.count(b"\n")
        if self._why == _DESERTED:
            self._lose_reader()
            return False
        if not self._queue:
            self._recover()
            return True
        self._try_at = len(self._queue) + BATCH
        if self._timer is None:
            self._set_timer()
        return False

    def reopen(self) -> None:
        """Write what is queued and open the path anew; if that fails, say so and keep the old file."""
        self.flush()
        if self.path == STANDARD_OUTPUT:
            return
        try:
            sink = self._opened()
        except OutputError as problem:
            self._log.error("{problem}; going on with the old file", problem=str(problem))
            return
        self._close()
        self._sink = sink

    def close(self) -> None:
        """Write what is queued, giving a slow reader a last moment; say what was lost, and close."""
        self.flush(monotonic() + LAST_WAIT)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.dropped += self._queue.count(b"\n")
        self._queue.clear()
        if self.dropped:
            self._log.error(
                "{dropped} events were not written to {path}", dropped=self.dropped, path=self.path
            )
        self._close()

    def _close(self) -> None:
        try:
            os.close(self._sink.descriptor)
        except OSError as problem:
            self._log.error(
                "closing {path}: {why}; its last events may be lost",
                path=self.path,
                why=_reason(problem),
            )

    def _set_timer(self) -> None:
        self._timer = self._reactor.callLater(FLUSH_AFTER, self._expired)

    def _expired(self) -> None:
        self._timer = None
        self.flush()

    def _lose_reader(self) -> None:
        """Drop what is queued: a reader that is gone is seldom coming back."""
        self.dropped += self._queue.count(b"\n")
        self._queue.clear()
        self._try_at = BATCH
        if not self._gone:
            self._gone = True
            self._quiet_until = 0.0

    def _complain(self) -> None:
        """Say what is wrong: at most once in a while, and but once that the reader is gone."""
        now = self._reactor.seconds()
        if now < self._quiet_until:
            return
        self._quiet_until = inf if self._gone else now + SAY_EVERY
        self._said = True
        self._log.error(
            "events cannot be written to {path}: {why}; {queued} bytes wait, {late} login events were"
            " not written before their answer, {dropped} events were dropped so far",
            path=self.path,
            why=self._why,
            queued=len(self._queue),
            late=self.late,
            dropped=self.dropped,
        )

    def _recover(self) -> None:
        """Go back to normal; say so if a complaint was."""
        self._try_at = BATCH
        if self._gone:
            self._gone = False
            self._quiet_until = 0.0
        if self._said:
            self._said = False
            self._log.info(
                "events are written to {path} again; {dropped} were dropped so far",
                path=self.path,
                dropped=self.dropped,
            )


def _standard_output() -> int:
    """Give a descriptor of our own for standard output.

    That of a pipe or terminal is shared with the shell that started us, so it may not be made
    non-blocking; where the system lets us open it anew, we can do so with the new one.
    """
    if not stat.S_ISREG(os.fstat(_STDOUT).st_mode):
        try:
            return os.open(
                f"/proc/self/fd/{_STDOUT}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
        except OSError:
            # A socket, or no such system: polling and small writes must do.
            pass
    return os.dup(_STDOUT)


def _ends_inside_a_line(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        # Empty, or ours to write but not to read.
        return False


def _reason(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.errno == errno.ENXIO:
        return "a pipe that nobody reads yet, or a socket"
    return getattr(problem, "strerror", None) or str(problem)
