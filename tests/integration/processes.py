"""Other programs that the tests run: found or skipped, waited for, stopped by their process id."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

# Daemons and Dovecot's parts lie where the PATH of an ordinary user does not look.
OUT_OF_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/dovecot", "/usr/libexec/dovecot")
LOOK_AGAIN_AFTER = 0.01


def unavailable(reason: str) -> NoReturn:
    """Skip, or fail where everything is required (``POP3PROXY_REQUIRE_ALL=1``)."""
    if os.environ.get("POP3PROXY_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a program that a test cannot do without."""
    path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *OUT_OF_PATH)))
    if path is None:
        unavailable(f"{name} is not installed")
    return path


def own_network() -> list[str]:
    """The words that run a program in a network of its own, with no firewall and no port taken."""
    command = [program("unshare"), "--net"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        unavailable("no network namespace can be made here")
    return command


def eventually(condition: Callable[[], T], what: str, seconds: float = 15) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(LOOK_AGAIN_AFTER)
    return answer


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and see that it does."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextmanager
def stopped_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Lend a running program."""
    try:
        yield process
    finally:
        if process.poll() is None:
            stop(process)
