"""A running proxy whose hook raises anything, cannot start or stop, or holds the thread."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .live import (
    CHECKOUT,
    PATIENCE,
    TROUBLE,
    MailServer,
    Proxy,
    receive,
    receive_all,
    running,
    session,
    until,
)

ANYTHING = {
    "RuntimeError": "RuntimeError",
    "CancelledError": "asyncio.CancelledError",
    "SystemExit": "SystemExit",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "GeneratorExit": "GeneratorExit",
    "Own": "Own",
    "Speechless": "Speechless",
}
"""What is raised, as the log names it and as it is written."""

MODULE = """\
import asyncio
import time

from twisted.internet.defer import fail, succeed

from pop3proxy.hooks.api import Deny, Hook


class Own(BaseException):
    pass


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("hunter2")


"""


def where(text: str, mark: str) -> int:
    """The number of the line with a mark."""
    (number,) = [n for n, line in enumerate(text.splitlines(), 1) if mark in line]
    return number


@contextmanager
def hooked(folder: Path, server: MailServer, hook: str, *more: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy with a hook ``Bad``; yield it, and the text of the hook's file."""
    config = write_hook(folder, hook, *more)
    options = ("--config", config, "--events", str(folder / "events.jsonl"))
    with running(server.port, *options) as proxy:
        yield proxy, MODULE + hook


def write_hook(folder: Path, hook: str, *more: str) -> str:
    (folder / "bad_hook.py").write_text(MODULE + hook)
    path = folder / "bad.toml"
    entry = '[[hooks]]\nname = "bad_hook:Bad"\n'
    path.write_text("\n".join([entry, *more]) + "\n")
    return str(path)


def trouble(log: str) -> list[str]:
    return TROUBLE.findall(log)


def asks(client: socket.socket, server: socket.socket, request: bytes) -> bytes:
    """Send a line, answer it, and return what the client gets."""
    client.sendall(request)
    server.settimeout(PATIENCE)
    assert receive(server, len(request)) == request
    server.sendall(b"+OK done\r\n")
    return receive(client, 10)


BLOCKING = """\
class Bad(Hook):
    blocking = True

    {define} pop3_request(self, event):
        {way}
"""
LISTENING = BLOCKING.replace("    blocking = True\n\n", "")

WAYS = {
    "in the call": ("def", "raise {problem}('hunter2')  # here"),
    "in a coroutine": ("async def", "raise {problem}('hunter2')  # here"),
    "behind an await": ("async def", "await succeed(None); raise {problem}('hunter2')  # here"),
    "by a Deferred": ("def", "return fail({problem}('hunter2'))"),
}


@pytest.mark.parametrize("kind", [LISTENING, BLOCKING], ids=["listening", "blocking"])
@pytest.mark.parametrize(
    ("way", "problem"), list(zip(WAYS, ("CancelledError", "SystemExit") * 2, strict=True))
)
def test_what_a_hook_raises_costs_no_session(
    tmp_path: Path, mail_server: MailServer, problem: str, way: str, kind: str
) -> None:
    define, statement = WAYS[way]
    code = kind.format(define=define, way=statement.format(problem=ANYTHING[problem]))
    with hooked(tmp_path, mail_server, code) as (proxy, text):
        with session(proxy, mail_server) as first, session(proxy, mail_server) as second:
            for one in (first, second, first):
                assert asks(*one, b"NOOP\r\n") == b"+OK done\r\n"
            with session(proxy, mail_server) as third:
                assert asks(*third, b"NOOP\r\n") == b"+OK done\r\n"
        log = proxy.stop()
    mark = "# here" if "# here" in text else "pop3_request"
    place = f"{tmp_path / 'bad_hook.py'}:{where(text, mark)}"
    assert trouble(log)[0].endswith(
        f"error hook Bad failed on pop3_request: {problem} at {place}; 1 times so far"
    )
    assert [line for line in trouble(log) if "hook Bad failed" not in line] == []
    assert "hook_failures 4" in log
    assert "hunter2" not in log


@pytest.mark.parametrize("problem", ANYTHING)
def test_whatever_a_hook_raises_stands_for_its_on_error(
    tmp_path: Path, mail_server: MailServer, problem: str
) -> None:
    code = BLOCKING.format(define="def", way=f"raise {ANYTHING[problem]}('hunter2')")
    with hooked(tmp_path, mail_server, code, 'on_error = "deny"') as (proxy, _):
        with session(proxy, mail_server) as (client, _):
            client.sendall(b"NOOP\r\nNOOP\r\n")
            answer = receive(client, 130)
        log = proxy.stop()
    assert answer.startswith(b"-ERR [SYS/TEMP] ")
    assert answer.count(b"-ERR [SYS/TEMP] ") == 2
    assert f"hook Bad failed on pop3_request: {problem} at " in log
    assert "hunter2" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_still_ends_the_program(
    tmp_path: Path, mail_server: MailServer, number: signal.Signals
) -> None:
    code = LISTENING.format(define="def", way="raise KeyboardInterrupt")
    with hooked(tmp_path, mail_server, code) as (proxy, _):
        with session(proxy, mail_server) as one:
            assert asks(*one, b"NOOP\r\n") == b"+OK done\r\n"
        proxy.tell(number)
        assert proxy.process.wait(PATIENCE) == 0


TIMER = """\
class Bad(Hook):
    def start(self, reactor):
        self.reactor = reactor

    def pop3_request(self, event):
        self.reactor.callLater(0, self.later, event)
        fail(ValueError(event.arg))

    def later(self, event):
        raise SystemExit(event.arg)  # here
"""


def test_a_hook_s_own_timers_and_deferreds_cost_nothing_and_tell_no_secret(
    tmp_path: Path, mail_server: MailServer
) -> None:
    with hooked(tmp_path, mail_server, TIMER) as (proxy, text):
        with session(proxy, mail_server) as one:
            assert asks(*one, b"PASS hunter2\r\n") == b"+OK done\r\n"
            assert asks(*one, b"NOOP\r\n") == b"+OK done\r\n"
        log = proxy.stop()
    assert f'bad_hook.py", line {where(text, "# here")}, in later' in log
    assert "builtins.SystemExit\n" in log
    assert "builtins.ValueError\n" in log
    assert "hunter2" not in log


# --- start, stop, reopen --------------------------------------------------------------------------------


def serve(folder: Path, hook: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pop3proxy", "serve", "--config", write_hook(folder, hook)]
    command += ["--listen", "tcp:0:interface=127.0.0.1", "--upstream", "tcp:127.0.0.1:110"]
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("problem", ["CancelledError", "SystemExit", "Speechless"])
def test_a_start_that_fails_ends_the_program_with_one_line(tmp_path: Path, problem: str) -> None:
    code = f"class Bad(Hook):\n    def start(self, reactor):\n        raise {ANYTHING[problem]}\n"
    done = serve(tmp_path, code)
    assert done.returncode == 1
    place = f"{tmp_path / 'bad_hook.py'}:{where(MODULE + code, 'raise ' + ANYTHING[problem])}"
    (line,) = trouble(done.stderr)
    assert line.endswith(f"error hook Bad does not start: {problem} at {place}")


@pytest.mark.parametrize("problem", ["SystemExit", "Speechless", "asyncio.CancelledError"])
@pytest.mark.parametrize("place", ["module", "constructor"])
def test_a_hook_that_cannot_be_made_ends_the_program_with_one_line(
    tmp_path: Path, problem: str, place: str
) -> None:
    code = f"raise {problem}\n"
    if place == "constructor":
        code = f"class Bad(Hook):\n    def __init__(self):\n        raise {problem}\n"
    done = serve(tmp_path, code)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("pop3proxy: hooks[0]: bad_hook:Bad: ")
    assert line.endswith(f"with {problem.rpartition('.')[2]}")


def test_a_wrong_signature_ends_the_program_with_one_line(tmp_path: Path) -> None:
    done = serve(tmp_path, "class Bad(Hook):\n    def pop3_connect(self):\n        pass\n")
    assert done.returncode == 2
    assert done.stderr == (
        "pop3proxy: hooks[0]: bad_hook:Bad: Bad.pop3_connect takes () and is called with event;"
        " write it as def pop3_connect(self, event)\n"
    )


LIFE = """\
class Bad(Hook):
    def stop(self):
        raise SystemExit("hunter2")

    def reopen(self):
        raise asyncio.CancelledError


class Good(Hook):
    def stop(self):
        print("good: stopped", flush=True)

    def reopen(self):
        print("good: reopened", flush=True)
"""


def test_a_stop_or_reopen_that_fails_is_logged_and_the_other_hooks_run(
    tmp_path: Path, mail_server: MailServer
) -> None:
    config = write_hook(tmp_path, LIFE, '[[hooks]]\nname = "bad_hook:Good"')
    with running(mail_server.port, "--config", config, stdout=subprocess.PIPE) as proxy:
        assert proxy.process.stdout is not None
        with session(proxy, mail_server) as one:
            proxy.tell(signal.SIGUSR1)
            assert proxy.process.stdout.readline() == b"good: reopened\n"
            assert asks(*one, b"NOOP\r\n") == b"+OK done\r\n"
        log = proxy.stop()
        assert proxy.process.stdout.read() == b"good: stopped\n"
    assert re.search(r"hook Bad failed on reopen: CancelledError at .*/bad_hook\.py:\d+;", log)
    assert re.search(r"hook Bad failed on stop: SystemExit at .*/bad_hook\.py:\d+;", log)
    assert "hook_failures 2" in log.splitlines()[-1]
    assert "hunter2" not in log


# --- a held thread, a verdict without effect ------------------------------------------------------------

HOLDING = """\
class Bad(Hook):
    blocking = {blocking}

    {define} pop3_request(self, event):
        {wait}
        time.sleep(0.6)
"""


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    ("define", "wait"), [("def", "pass"), ("async def", "await succeed(None)")]
)
def test_a_hook_that_holds_the_thread_is_named_with_its_event(
    tmp_path: Path, mail_server: MailServer, blocking: bool, define: str, wait: str
) -> None:
    code = HOLDING.format(blocking=blocking, define=define, wait=wait)
    with hooked(tmp_path, mail_server, code) as (proxy, _):
        with session(proxy, mail_server) as one:
            assert asks(*one, b"NOOP\r\n") == b"+OK done\r\n"
        log = proxy.stop()
    (line,) = [line for line in trouble(log) if "held the thread" in line]
    assert re.search(r"warn hook Bad held the thread for \d+\.\d s on pop3_request,", line)
    assert "hook_holds 1" in log.splitlines()[-1]


def test_a_verdict_of_a_hook_that_only_listens_is_said_once(
    tmp_path: Path, mail_server: MailServer
) -> None:
    code = LISTENING.format(define="def", way="return Deny()")
    with hooked(tmp_path, mail_server, code) as (proxy, _):
        for _ in range(2):
            with session(proxy, mail_server) as one:
                assert asks(*one, b"NOOP\r\n") == b"+OK done\r\n"
        log = proxy.stop()
    (line,) = [line for line in trouble(log) if "no effect" in line]
    assert "warn hook Bad returned Deny for pop3_request, which has no effect" in line
    assert "blocking = True" in line


# --- the listener in records ----------------------------------------------------------------------------


def test_records_of_connections_logins_and_sessions_name_the_listener(
    tmp_path: Path, mail_server: MailServer
) -> None:
    events, path = tmp_path / "events.jsonl", tmp_path / "pop3.sock"
    config = tmp_path / "two.toml"
    config.write_text(
        f'listen = ["tcp:0:interface=127.0.0.1", "unix:{path}"]\n'
        f'upstream = "tcp:127.0.0.1:{mail_server.port}"\n'
    )
    options = ("--config", str(config), "--events", str(events))
    with running(None, *options, listen=None) as proxy:
        until(path.exists, "the UNIX socket is there")
        with ExitStack() as both:
            tcp = both.enter_context(proxy.connect())
            unix = both.enter_context(socket.socket(socket.AF_UNIX))
            unix.settimeout(PATIENCE)
            unix.connect(str(path))
            servers = [both.enter_context(mail_server.accept()) for _ in range(2)]
            for server in servers:
                server.sendall(b"+OK ready\r\n")
            for client in (tcp, unix):
                assert receive(client, 11) == b"+OK ready\r\n"
                client.sendall(b"APOP bob 0123456789abcdef0123456789abcdef\r\n")
            for server, answer in zip(servers, (b"+OK in\r\n", b"-ERR no\r\n"), strict=True):
                assert receive(server, 43)
                server.sendall(answer)
            for client in (tcp, unix):
                assert receive(client, 8)
            for server in servers:
                server.shutdown(socket.SHUT_RDWR)
            for client in (tcp, unix):
                receive_all(client)
        port = proxy.port
        proxy.stop()
    records = [json.loads(line) for line in events.read_text().splitlines()]
    found = {
        (record["event"], *(record.get(name) for name in ("listener", "listener.h", "listener.p")))
        for record in records
    }
    over_tcp = ("tcp:0:interface=127.0.0.1", "127.0.0.1", port)
    over_unix = (f"unix:{path}", str(path), 0)
    everywhere = ("pop3_connect", "pop3_login_attempt", "pop3_session")
    outcomes = {"pop3_login_success", "pop3_login_failure"}
    assert found >= {(name, *one) for name in everywhere for one in (over_tcp, over_unix)}
    assert {name for name, *one in found if name in outcomes and None not in one} == outcomes
    assert {name for name, *one in found if one == [None] * 3} == {"pop3_request", "pop3_reply"}
