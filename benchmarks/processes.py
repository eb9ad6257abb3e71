"""Processes: started on one core, measured through /proc, ended with everything they started."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

GRACE_S = 5.0
"""How long a process may take to end when asked; then it is killed."""

SETTLE_S = 0.025
"""A process is at rest when its CPU time didn't grow for so long."""

SETTLE_TIMES = 40
"""How often that is asked before the last answer is taken."""


@contextlib.contextmanager
def started(
    command: Sequence[str], core: int, log: Path, *, piped: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run ``command`` on ``core`` with its errors in ``log``; at the end nothing of it is left.

    ``piped`` gives a process that is talked to on its standard input and output.
    """
    talk = subprocess.PIPE if piped else subprocess.DEVNULL
    everywhere = os.sched_getaffinity(0)
    with log.open("w", encoding="utf-8") as errors:
        # Set before the start and inherited, so that it holds for threads and children too.
        os.sched_setaffinity(0, {core})
        try:
            process = subprocess.Popen(
                command, stdin=talk, stdout=talk, stderr=errors, text=True, start_new_session=True
            )
        finally:
            os.sched_setaffinity(0, everywhere)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to end, then kill what is left of the group that it led."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def allow_many_files() -> int:
    """Raise the limit of open files, which children inherit, to the highest, and return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def settled_cpu_ns(pid: int) -> int:
    """Return the CPU time of the process and all that it started, in ns, once it is at rest."""
    last = _cpu_ns(pid)
    for _ in range(SETTLE_TIMES):
        time.sleep(SETTLE_S)
        now = _cpu_ns(pid)
        if now == last:
            break
        last = now
    return now


def private_kb(pid: int) -> int:
    """Return the memory that only the process and what it started have, in kB."""
    return sum(
        int(line.split()[1])
        for each in _family(pid)
        for line in Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii").splitlines()
        if line.startswith("Private_")
    )


def _cpu_ns(pid: int) -> int:
    return sum(
        int((task / "schedstat").read_text(encoding="ascii").split()[0])
        for each in _family(pid)
        for task in Path(f"/proc/{each}/task").iterdir()
    )


def _family(pid: int) -> list[int]:
    """Return the processes of the session that ``pid`` leads: it and what it started."""
    return [
        int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _session(stat) == pid
    ]


def _session(stat: Path) -> int | None:
    try:
        told = stat.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # It ended between the listing and now.
    # The name may hold blanks and brackets; behind it: state, parent, group, session.
    return int(told.rpartition(")")[2].split()[3])
