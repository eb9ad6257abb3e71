"""``pop3proxy replay``: options, what is written where, exit statuses."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .making import Ends, Segment, frames, packed, pcap, segments
from .replaying import LOGIN

SEGMENTS = segments(LOGIN)
ORDINARY = Ends()


def run(
    *arguments: str, cwd: Path, content: bytes | None = None
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "pop3proxy", "replay", *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=cwd,
        input=content,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def capture(folder: Path, what: list[Segment] = SEGMENTS, ends: Ends = ORDINARY) -> str:
    (folder / "capture.pcap").write_bytes(pcap(frames(what, ends)))
    return "capture.pcap"


def records(lines: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.splitlines()]


def test_events_go_to_standard_output_with_the_mail_and_without_secrets(tmp_path: Path) -> None:
    done = run(capture(tmp_path), "--events", "-", cwd=tmp_path)
    assert done.returncode == 0
    names = [record["event"] for record in records(done.stdout)]
    assert names.count("pop3_data") == 4
    assert (names[0], names[-1]) == ("pop3_connect", "pop3_session")
    assert b"secret" not in done.stdout + done.stderr


def test_options_leave_out_the_mail_and_show_secrets(tmp_path: Path) -> None:
    done = run(capture(tmp_path), "--events", "-", "--no-data", "--show-secrets", cwd=tmp_path)
    assert b"pop3_data" not in done.stdout
    assert b'"arg":"secret"' in done.stdout


def test_events_are_appended_to_a_file_and_two_replays_are_equal(tmp_path: Path) -> None:
    name = capture(tmp_path)
    for _ in range(2):
        assert run(name, "--events", "events.jsonl", cwd=tmp_path).returncode == 0
    content = (tmp_path / "events.jsonl").read_bytes()
    assert content[: len(content) // 2] == content[len(content) // 2 :]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o007 == 0


def test_a_capture_comes_from_standard_input(tmp_path: Path) -> None:
    content = packed(pcap(frames(SEGMENTS)))
    done = run("-", "--events", "-", cwd=tmp_path, content=content)
    assert b"pop3_login_success" in done.stdout


def test_ports_are_named(tmp_path: Path) -> None:
    name = capture(tmp_path, SEGMENTS[7:], Ends(server_port=10110))
    assert run(name, "--events", "-", cwd=tmp_path).stdout == b""
    assert run(name, "--events", "-", "--port", "10110", cwd=tmp_path).stdout != b""


def test_hooks_of_the_configuration_hear_the_events_and_its_file_is_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text(
        "from pop3proxy.hooks.api import Hook\n\n\n"
        "class Own(Hook):\n"
        "    def pop3_login_success(self, event):\n"
        "        print(event.user, flush=True)\n",
        encoding="utf-8",
    )
    (tmp_path / "own.toml").write_text(
        'listen = ["systemd:domain=INET:index=0"]\nupstream = "tls:mail.example.org:995"\n'
        'events = { path = "live.jsonl" }\n'
        '[[hooks]]\nname = "own:Own"\n[rules]\ndeny = [{ commands = ["RETR"] }]\n',
        encoding="utf-8",
    )
    done = run(capture(tmp_path), "--config", "own.toml", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == b"bob\n"
    assert b"pop3_request would have been answered with Deny" in done.stderr
    assert not (tmp_path / "live.jsonl").exists()


def test_a_capture_that_is_cut_off_gives_what_it_has_and_a_warning(tmp_path: Path) -> None:
    content = pcap(frames(SEGMENTS))
    (tmp_path / "cut.pcap").write_bytes(content[:-10])
    done = run("cut.pcap", "--events", "-", cwd=tmp_path)
    assert done.returncode == 0
    assert b"warn cut.pcap: its last record is cut off" in done.stderr
    assert b"pop3_login_success" in done.stdout


def test_without_an_option_the_session_is_printed(tmp_path: Path) -> None:
    done = run(capture(tmp_path), cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} \w{6} (C:|S:|  ) pop3_\w+", line) for line in lines)
    assert next(line.split(maxsplit=2)[2] for line in lines if "PASS" in line) == (
        "C: pop3_request       PASS (masked)"
    )
    assert "pop3_data" in done.stdout.decode()
    assert "secret" not in done.stdout.decode()
    assert "\x1b" not in done.stdout.decode()


def test_what_is_printed_obeys_the_options(tmp_path: Path) -> None:
    done = run(capture(tmp_path), "--no-data", "--show-secrets", cwd=tmp_path)
    assert b"pop3_data" not in done.stdout
    assert b"PASS secret" in done.stdout


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    name = capture(tmp_path)
    leader, terminal = pty.openpty()
    try:
        for environment, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
            done = subprocess.run(
                [sys.executable, "-m", "pop3proxy", "replay", name],
                stdout=terminal,
                stderr=subprocess.DEVNULL,
                timeout=60,
                check=False,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            )
            assert done.returncode == 0
            assert (b"\x1b[1;32m" in os.read(leader, 65536)) is colours
    finally:
        os.close(terminal)
        os.close(leader)


def test_what_cannot_be_printed_is_one_line(tmp_path: Path) -> None:
    name = capture(tmp_path)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pop3proxy", "replay", name],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert done.returncode == 1
    assert b"pop3proxy: cannot write to standard output: No space left on device\n" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_question_is_answered_about_the_capture(tmp_path: Path) -> None:
    done = run(capture(tmp_path), "--ask", "successful-logins", cwd=tmp_path)
    assert done.returncode == 0
    title, heads, *rows = done.stdout.decode().splitlines()
    assert title == "Successful logins"
    (row,) = rows
    cells = dict(zip(heads.split(), row.split(), strict=False))
    assert (cells["account"], cells["logins"], cells["without_tls"]) == ("bob", "1", "1")


def test_a_question_about_a_damaged_capture_is_answered_as_far_as_it_goes(tmp_path: Path) -> None:
    content = pcap(frames(SEGMENTS)) + b"\xff" * 32
    (tmp_path / "capture").write_bytes(content)
    done = run("capture", "--ask", "successful-logins", cwd=tmp_path)
    assert done.returncode == 1
    assert b"bob" in done.stdout
    assert b"is damaged at octet" in done.stderr


def test_a_question_about_no_capture_is_one_line(tmp_path: Path) -> None:
    done = run("nowhere.pcap", "--ask", "sources", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert b"nowhere.pcap: cannot be read" in line


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        (("nowhere.pcap",), b"", "nowhere.pcap: cannot be read: No such file"),
        ((".",), b"", "cannot be read: Is a directory"),
        (("capture",), b"nothing of the kind", "is no capture"),
        (("capture",), b"", "is empty"),
        (("capture",), pcap(frames(SEGMENTS)) + b"\xff" * 32, "is damaged at octet"),
        (("capture", "--events", "no/where"), pcap([]), "cannot write to no/where: No such file"),
        (("capture", "--events", "/dev/full"), pcap(frames(SEGMENTS)), "No space left"),
    ],
)
def test_what_fails_is_status_1_and_one_line(
    tmp_path: Path, arguments: tuple[str, ...], content: bytes, said: str
) -> None:
    (tmp_path / "capture").write_bytes(content)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("pop3proxy: ")]
    assert said in line
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--no-such-option",),
        ("capture", "--port", "0"),
        ("capture", "--config", "nowhere.toml"),
        ("capture", "--ask", "no-such-question"),
        ("capture", "--ask", "sources", "--events", "file"),
    ],
)
def test_wrong_usage_is_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert all(line.startswith(b"pop3proxy: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("name", ["capture.pcap", "-"])
def test_a_terminal_gets_a_progress_bar(tmp_path: Path, name: str) -> None:
    capture(tmp_path)
    ours, theirs = pty.openpty()
    with (tmp_path / "capture.pcap").open("rb") as content:
        done = subprocess.run(
            [sys.executable, "-m", "pop3proxy", "replay", name, "--events", "out"],
            stderr=theirs,
            stdin=content,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"},
        )
    os.close(theirs)
    with open(ours, "rb", 0) as terminal:
        shown = terminal.read(10_000)
    assert done.returncode == 0
    assert b"100%" in shown


HOOK = """\
from pop3proxy.hooks.api import Hook

class Bad(Hook):
    def start(self, reactor):
        self.reactor = reactor
        if {fails}:
            raise SystemExit

    def pop3_request(self, event):
        self.reactor.callLater(0, self.later)
        raise SystemExit(event.arg)

    def later(self):
        raise SystemExit("secret")
"""


@pytest.mark.parametrize("fails", [True, False])
def test_a_hook_may_raise_anything(tmp_path: Path, fails: bool) -> None:
    (tmp_path / "bad_of_replay.py").write_text(HOOK.format(fails=fails))
    (tmp_path / "bad.toml").write_text('[[hooks]]\nname = "bad_of_replay:Bad"\n')
    options = ("--events", "-", "--config", "bad.toml")
    done = run(capture(tmp_path), *options, cwd=tmp_path)
    log = done.stderr.decode()
    assert done.returncode == int(fails)
    if fails:
        assert "pop3proxy: hook Bad does not start: SystemExit at " in log
    else:
        assert records(done.stdout)[-1]["event"] == "pop3_session"
        assert "hook Bad failed on pop3_request: SystemExit at " in log
        assert "a delayed call of a hook failed: SystemExit" in log
    assert "listener" not in done.stdout.decode()
    assert "secret" not in log
    assert "Traceback" not in log
