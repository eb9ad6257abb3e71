"""Commands: run without a shell, within a time limit, and what is said of those that fail."""

import os
import threading
from pathlib import Path

import pytest

from pop3proxy.hooks.policy.export.program import MAX_SAID, Program, check_program
from pop3proxy.hooks.policy.export.trouble import ExportTrouble
from tests.integration.processes import eventually, program


@pytest.fixture
def shell() -> str:
    return program("sh")


def failed(shell: str, script: str, time_limit: float = 30) -> str:
    with pytest.raises(ExportTrouble) as raised:
        Program(time_limit).run([shell, "-c", script], {})
    return str(raised.value)


def test_arguments_reach_the_command_as_they_are(tmp_path: Path, shell: str) -> None:
    said = tmp_path / "said"
    words = ["$HOME `id` ; rm -rf /", "ban=192.0.2.1,600", "*"]
    Program(30).run([shell, "-c", f'printf "%s\\n" "$@" >{said}', "sh", *words], {})
    assert said.read_text().splitlines() == words


def test_the_environment_has_what_is_told_and_nothing_of_the_proxy(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of the proxy")
    said = tmp_path / "said"
    Program(30).run([shell, "-c", f"{program('env')} >{said}"], {"POP3PROXY_BANS": "3"})
    lines = dict(line.split("=", 1) for line in said.read_text().splitlines())
    assert lines["POP3PROXY_BANS"] == "3"
    assert lines["LC_ALL"] == "C"
    assert set(lines) - {"PWD", "SHLVL", "_"} == {"POP3PROXY_BANS", "LC_ALL", "PATH"}


def test_standard_input_is_empty(shell: str) -> None:
    Program(30).run([shell, "-c", "! read line"], {})


def test_a_status_is_said_with_the_first_words(shell: str) -> None:
    line = failed(shell, "echo 'no such\n\033[1mset' >&2; exit 3")
    assert line == f"policy.export.command: {shell} exited with status 3: no such ?[1mset"


def test_a_signal_is_named(shell: str) -> None:
    assert failed(shell, "kill -9 $$").endswith(f"{shell} was ended by SIGKILL")


def test_no_more_is_kept_of_what_it_says_than_the_bound(shell: str) -> None:
    line = failed(shell, "yes xxxxxxxxx | head -c 300000 >&2; exit 1")
    assert MAX_SAID - 10 < len(line.partition(" status 1: ")[2]) <= MAX_SAID


def test_a_command_that_takes_too_long_is_killed_with_its_children(
    tmp_path: Path, shell: str
) -> None:
    child = tmp_path / "child"
    line = failed(shell, f"sleep 1000 & echo $! >{child}; wait", 0.3)
    assert "did not end within 0.3 s and was killed; make it quicker, or raise policy" in line
    number = int(child.read_text())
    eventually(lambda: not alive(number), "the child is gone")


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_command_that_never_stops_talking_is_killed_too(shell: str) -> None:
    assert "did not end within 0.3 s" in failed(shell, "while :; do echo x >&2; done", 0.3)


def test_a_child_that_goes_on_holds_nothing_up(tmp_path: Path, shell: str) -> None:
    child = tmp_path / "child"
    Program(30).run([shell, "-c", f"sleep 1000 & echo $! >{child}"], {})
    number = int(child.read_text())
    assert alive(number)
    os.kill(number, 9)


def test_a_run_is_ended_by_a_stop_and_none_begins_behind_it(tmp_path: Path, shell: str) -> None:
    began, again = tmp_path / "began", tmp_path / "again"
    running, said = Program(30), list[str]()

    def run() -> None:
        try:
            running.run([shell, "-c", f"echo >{began}; exec sleep 1000"], {})
        except ExportTrouble as problem:
            said.append(str(problem))

    thread = threading.Thread(target=run)
    thread.start()
    eventually(began.exists, "it runs")
    running.end()
    thread.join(30)
    assert not thread.is_alive()
    assert "SIGTERM" in said[0]
    running.run([shell, "-c", f"echo >{again}"], {})
    assert not again.exists()


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    missing = str(tmp_path / "missing")
    with pytest.raises(ExportTrouble, match="missing cannot be run: No such file or directory;"):
        Program(30).run([missing], {})
    with pytest.raises(ExportTrouble, match="missing: there is no such file; name an executable"):
        check_program(missing)
    for path in (str(plain), str(tmp_path)):
        with pytest.raises(ExportTrouble, match="it is not executable; name an executable"):
            check_program(path)
