"""The command line: exit statuses, and errors in one line each."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert "Traceback" not in done.stderr


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
