"""The command line: exit statuses, and errors in one line each."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0
UPSTREAM = ("--upstream", "tcp:127.0.0.1:110")


def run(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pop3proxy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve",), "listen"),
        (("serve", "--listen", "tcp:0"), "upstream"),
        (("serve", "--listen", "nonsense", *UPSTREAM), "nonsense"),
        (("serve", "--listen", "tcp:0", *UPSTREAM, "--data"), "events"),
        (("serve", "--config", "nowhere.toml"), "nowhere.toml"),
        (("sevre",), "sevre"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_to_change(
    arguments: tuple[str, ...], said: str
) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert all(line.startswith("pop3proxy: ") for line in done.stderr.splitlines())


def test_a_port_in_use_is_status_1_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--listen", f"tcp:{port}:interface=127.0.0.1", *UPSTREAM)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if " error " in line]
    assert f"tcp:{port}" in line
    assert "Traceback" not in done.stderr


def test_a_file_of_events_that_cannot_be_opened_is_status_1(tmp_path: Path) -> None:
    events = str(tmp_path / "missing" / "events.jsonl")
    done = run("serve", "--listen", "tcp:0:interface=127.0.0.1", *UPSTREAM, "--events", events)
    assert done.returncode == 1
    assert events in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schema_is_printed_as_json() -> None:
    done = run("schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["$schema"].startswith("https://json-schema.org/")


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert "pop3proxy" in done.stdout


class Serve:
    """A running ``pop3proxy serve`` before a mail server that greets and says nothing else."""

    def __init__(self, process: "subprocess.Popen[str]", server: socket.socket) -> None:
        self.process = process
        self.log: list[str] = []
        self._server = server
        self.port = int(self.says(r"listening on 127\.0\.0\.1:(\d+)")[1])

    def says(self, pattern: str) -> "re.Match[str]":
        """Wait for a line of the log."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"{pattern} is not in {''.join(self.log)}")

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold a session open, its greeting read."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            behind, _ = self._server.accept()
            with behind:
                behind.sendall(b"+OK ready\r\n")
                assert client.recv(100) == b"+OK ready\r\n"
                yield

    def ended(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal, and give the exit status and what else was printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def serving(*arguments: str, cwd: Path, limits: str = "") -> Iterator[Serve]:
    """Run the proxy until the block ends; ``limits`` are commands of the shell that starts it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        upstream = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        command = ["sh", "-c", f'{limits} exec "$@"', "sh"]
        command += [sys.executable, "-m", "pop3proxy", "serve", *arguments]
        command += ["--listen", "tcp:0:interface=127.0.0.1", "--upstream", upstream]
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Serve(process, server)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with serving(cwd=tmp_path) as serve:
        status, _, err = serve.ended(number)
    assert status == 0
    assert "Traceback" not in err


def test_a_second_signal_cuts_off_what_still_runs(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as serve, serve.session():
        serve.process.send_signal(signal.SIGTERM)
        serve.says("waiting for 1 sessions")
        status, _, err = serve.ended()
    assert status == 1
    assert "Traceback" not in err


def test_log_lines_have_time_level_and_text(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as serve:
        _, _, err = serve.ended()
    for line in (*serve.log, *err.splitlines(keepends=True)):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\S+ (info|warn) \S.*\n", line)


def test_events_go_to_standard_output(tmp_path: Path) -> None:
    with serving("--events", "-", cwd=tmp_path) as serve:
        with serve.session():
            pass
        _, out, _ = serve.ended()
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ["pop3_connect", "pop3_reply", "pop3_session"]


def test_sigusr1_opens_the_file_of_events_anew(tmp_path: Path) -> None:
    with serving("--events", "events", cwd=tmp_path) as serve:
        (tmp_path / "events").rename(tmp_path / "moved")
        serve.process.send_signal(signal.SIGUSR1)
        with serve.session():
            pass
        serve.ended()
    assert "pop3_session" in (tmp_path / "events").read_text()
    assert "pop3_session" not in (tmp_path / "moved").read_text()


def test_a_hook_may_lie_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "own.py").write_text(
        "from pop3proxy.hooks.api import Hook\n\n\n"
        "class Own(Hook):\n"
        "    def pop3_reply(self, event):\n"
        "        print(event.msg, flush=True)\n"
    )
    (tmp_path / "beside" / "own.toml").write_text('[[hooks]]\nname = "own:Own"\n')
    with serving("--config", "beside/own.toml", cwd=tmp_path) as serve:
        with serve.session():
            pass
        _, out, _ = serve.ended()
    assert out == "ready\n"


def test_that_nobody_hears_the_events_is_said(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as serve:
        assert any("warn nobody hears the events" in line for line in serve.log)


def test_the_limit_of_open_files_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    with serving(cwd=tmp_path, limits="ulimit -Sn 100; ulimit -Hn 300;") as serve:
        assert resource.prlimit(serve.process.pid, resource.RLIMIT_NOFILE) == (300, 300)


def test_a_limit_of_open_files_that_is_too_low_is_said(tmp_path: Path) -> None:
    with serving(cwd=tmp_path, limits="ulimit -n 300;") as serve:
        assert any("warn limits.connections is 8000" in line for line in serve.log)
