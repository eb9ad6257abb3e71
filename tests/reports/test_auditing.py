"""The commands of the chapter for the auditor run, and print what it says."""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3proxy.reports.questions import parsed

from ..replay.making import frames, pcap, segments
from ..replay.replaying import LOGIN
from .attackday import BEGINNING, AttackDay
from .test_ask import ROOT, run

CHAPTER = (ROOT / "docs" / "auditing.md").read_text(encoding="utf-8")

WHOLE_DAY = ("--since", "2026-03-17", "--until", "2026-03-18")


def commands() -> Iterator[str]:
    for block in re.findall(r"^```sh\n(.*?)^```", CHAPTER, re.M | re.S):
        yield from (line for line in block.splitlines() if not line.startswith("export "))


@pytest.fixture(scope="module")
def machine(day: AttackDay, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chapter's commands find on a machine, under a folder of its own."""
    folder = tmp_path_factory.mktemp("machine")
    log = folder / "var" / "log"
    (log / "archive").mkdir(parents=True)
    day.write(log / "pop3.jsonl", since=BEGINNING)
    day.write(log / "older", until=BEGINNING)
    (log / "pop3.jsonl.2.gz").write_bytes(gzip.compress((log / "older").read_bytes()))
    shutil.copy(log / "older", log / "archive" / "2026-03.jsonl")
    (folder / "old.pcap").write_bytes(pcap(frames(segments(LOGIN))))
    (log / "old").mkdir()
    shutil.copy(log / "older", log / "old" / "pop3.jsonl.9")
    os.utime(log / "old" / "pop3.jsonl.9", (BEGINNING, BEGINNING))
    (folder / "pop3proxy.toml").write_text(
        'listen = ["tcp:1110"]\nupstream = "tcp:mail.example.org:110"\n'
        f'events = {{ path = "{log}/pop3.jsonl" }}\n'
    )
    return folder


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_of_the_chapter_runs(command: str, machine: Path) -> None:
    text, _, status = command.partition("#")
    log = str(machine / "var" / "log")
    words = shlex.split(text.replace("/var/log", log))
    if "|" in words or words[1] == "replay":
        program = f"{sys.executable} -m pop3proxy"
        text = text.replace("/var/log", log).replace("pop3proxy", program, 1)
        done = subprocess.run(
            ["sh", "-c", text],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=machine,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
        return
    # On the day itself: the chapter's periods end when it is read.
    if words[1] == "ask":
        words = [word if word not in ("1h", "1d", "7d", "30d") else "2026-03-17" for word in words]
    ended = run(*words[1:], cwd=machine, POP3PROXY_EVENTS=f"{log}/pop3.jsonl*")
    assert ended.returncode == int(status or 0), ended.stderr


def test_the_chapter_shows_what_is_printed(machine: Path) -> None:
    (shown,) = re.findall(r"^    (Failed logins\n(?:    .+\n)+)", CHAPTER, re.M)
    events = str(machine / "var" / "log" / "pop3.jsonl")
    options = ("--set", "at_least=50", *WHOLE_DAY)
    done = run("ask", "failed-logins", *options, cwd=machine, POP3PROXY_EVENTS=events)
    assert done.stdout == re.sub(r"^    ", "", shown, flags=re.M)


def test_the_chapters_own_question_is_one() -> None:
    (text,) = re.findall(r"^```sql\n(.*?)^```", CHAPTER, re.M | re.S)
    question = parsed("vip", text, "vip.sql")
    assert question.chart.form == "bar"


def test_every_key_of_a_head_is_explained() -> None:
    from pop3proxy.reports.questions import _Head

    rows = CHAPTER.partition("| key | what it says |")[2].partition("\n\n")[0]
    named = {
        name
        for cell in re.findall(r"^\| (.*?) \|", rows, re.M)
        for name in re.findall(r"\w+", cell)
    }
    assert named == set(_Head._KEYS)
