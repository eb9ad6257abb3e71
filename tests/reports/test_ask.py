"""``pop3proxy ask``: what it prints where, exit statuses, and mistakes in one line each."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from pop3proxy.cli import main
from pop3proxy.reports.questions import shipped

from .attackday import BRUTE, SPRAYER, AttackDay
from .test_reading import failure, gz, written

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """How the command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, cwd: Path, content: str = "", **environment: str) -> Done:
    """Run the command in this process: a hundred others would take minutes."""
    out, err = io.StringIO(), io.StringIO()
    given = {"TZ": "UTC", "POP3PROXY_EVENTS": "", "POP3PROXY_QUESTIONS": "", **environment}
    with ExitStack() as stack:
        stack.enter_context(chdir(cwd))
        stack.enter_context(mock.patch.dict(os.environ, given))
        stdin = io.TextIOWrapper(io.BytesIO(content.encode()))
        stack.enter_context(mock.patch.object(sys, "stdin", stdin))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of four failed logins."""
    written(
        tmp_path / "events.jsonl",
        failure(),
        failure(ts=1773705700.0, user="carol", **{"id.orig_h": "10.1.2.3"}),
        failure(ts=1773705800.0, user="=1+1", mechanism="LOGIN"),
        failure(ts=1773705900.0, user="a|b\x1b[31m", reason="temporary"),
    )
    return tmp_path


def test_without_a_question_all_are_listed(tmp_path: Path) -> None:
    done = run("ask", cwd=tmp_path)
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == set(shipped())


def test_a_question_is_explained_by_its_sql(tmp_path: Path) -> None:
    done = run("ask", "sources", "--explain", cwd=tmp_path)
    assert done.stdout.strip() == shipped()["sources"].sql.strip()


def test_a_table_has_a_title_and_a_row_each(folder: Path) -> None:
    done = run("ask", "failed-logins", "events.jsonl", cwd=folder)
    title, heads, *rows = done.stdout.splitlines()
    assert title == "Failed logins"
    assert heads.split()[:3] == ["account", "address", "failures"]
    assert len(rows) == 4
    assert "\x1b" not in done.stdout
    assert r"a|b\x1b[31m" in done.stdout
    assert done.stderr == ""


def test_json_is_a_record_a_line(folder: Path) -> None:
    done = run("ask", "failed-logins", "events.jsonl", "--json", "--user", "bob", cwd=folder)
    (record,) = map(json.loads, done.stdout.splitlines())
    assert record == {
        "account": "bob",
        "address": "192.0.2.17",
        "failures": 1,
        "without_tls": 1,
        "mechanisms": ["PLAIN"],
        "reasons": ["credentials"],
        "first": "2026-03-17T00:00:00.250+00:00",
        "last": "2026-03-17T00:00:00.250+00:00",
    }


def test_csv_holds_no_formula(folder: Path) -> None:
    done = run("ask", "failed-logins", "events.jsonl", "--csv", cwd=folder)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["account"] for row in rows} == {"bob", "carol", "'=1+1", "a|b\x1b[31m"}


def test_markdown_is_escaped(folder: Path) -> None:
    done = run("ask", "failed-logins", "events.jsonl", "--markdown", cwd=folder)
    head, line, *rows = done.stdout.splitlines()
    assert head.startswith("| account | address |")
    assert line.startswith("|---|")
    assert any(row.startswith(r"| a\|b\\x1b\[31m |") for row in rows)


def test_filters_and_limits_narrow_the_answer(folder: Path) -> None:
    ask = ("ask", "failed-logins", "events.jsonl", "--json")
    for more, names in (
        (("--address", "10.0.0.0/8"), {"carol"}),
        (("--mechanism", "login"), {"=1+1"}),
        (("--since", "2026-03-17T00:04+00:00"), {"a|b\x1b[31m"}),
        (("--until", "2026-03-17T01:01", "--zone", "Europe/Berlin"), {"bob"}),
        (("--listener", "tcp:995"), set()),
        (("--user", "bob", "--user", "Carol"), {"bob", "carol"}),
        (("--set", "at_least=2"), set()),
    ):
        done = run(*ask, *more, cwd=folder)
        assert {json.loads(line)["account"] for line in done.stdout.splitlines()} == names, more
    done = run(*ask, "--limit", "2", cwd=folder)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "pop3proxy: only the first 2 rows are shown; --limit 0 shows all\n"


def test_a_table_is_limited_unless_asked_otherwise(tmp_path: Path) -> None:
    written(tmp_path / "e.jsonl", *[failure(user=f"u{number}") for number in range(60)])
    assert len(run("ask", "failed-logins", "e.jsonl", cwd=tmp_path).stdout.splitlines()) == 42
    done = run("ask", "failed-logins", "e.jsonl", "--limit", "0", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 62
    done = run("ask", "failed-logins", "e.jsonl", "--csv", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 61


def test_times_are_those_of_the_zone(folder: Path) -> None:
    ask = ("ask", "failed-logins", "events.jsonl", "--json", "--user", "bob")
    done = run(*ask, "--zone", "Asia/Kolkata", cwd=folder)
    assert json.loads(done.stdout)["first"] == "2026-03-17T05:30:00.250+05:30"
    done = run(*ask, cwd=folder, TZ="Europe/Berlin")
    assert json.loads(done.stdout)["first"] == "2026-03-17T01:00:00.250+01:00"


def test_fail_if_any_is_status_3(folder: Path) -> None:
    ask = ("ask", "failed-logins", "events.jsonl", "--fail-if-any")
    assert run(*ask, cwd=folder).returncode == 3
    none = run(*ask, "--user", "nobody", cwd=folder)
    assert (none.returncode, none.stderr) == (0, "pop3proxy: no rows\n")
    sql = ("ask", "--sql", "SELECT 1 FROM events", "events.jsonl", "--fail-if-any")
    assert run(*sql, cwd=folder).returncode == 3


def test_sql_is_asked_over_events_and_the_views(folder: Path) -> None:
    statement = (
        """SELECT "user", network FROM logins JOIN (SELECT uid FROM events LIMIT 1) USING (uid)"""
    )
    done = run("ask", "--sql", statement, "events.jsonl", "--json", "--user", "carol", cwd=folder)
    assert json.loads(done.stdout) == {"user": "carol", "network": "10.1.2.0/24"}
    done = run(
        "ask",
        "--sql",
        "SELECT count(*) AS n, max(time) AS t FROM events",
        "--json",
        "events.jsonl",
        cwd=folder,
    )
    assert json.loads(done.stdout) == {"n": 4, "t": "2026-03-17T00:05:00+00:00"}


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO 'stolen.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "INSTALL httpfs",
        "SELECT * FROM 'https://example.org/x.parquet'",
        "SET enable_external_access = true",
    ],
)
def test_sql_reaches_nothing_but_the_files(folder: Path, statement: str) -> None:
    done = run("ask", "--sql", statement, "events.jsonl", cwd=folder)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "stolen.csv").exists()


def test_skipped_lines_are_told(folder: Path) -> None:
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b"x\ny\n")
    for ask in (("failed-logins",), ("--sql", "SELECT 1 FROM events")):
        done = run("ask", *ask, "events.jsonl", "--json", cwd=folder)
        assert (
            done.stderr == "pop3proxy: events.jsonl: 2 lines could not be read and were skipped\n"
        )


def test_files_come_from_standard_input(folder: Path) -> None:
    content = (folder / "events.jsonl").read_text()
    done = run("ask", "failed-logins", "-", "--json", cwd=folder, content=content)
    assert len(done.stdout.splitlines()) == 4


def test_files_come_from_a_configuration_and_its_rotated_ones(folder: Path) -> None:
    gz(folder / "events.jsonl.1.gz", written(folder / "old", failure(user="old")))
    (folder / "pop3.toml").write_text(
        'listen = ["tcp:1110"]\nupstream = "tcp:mail.example.org:110"\n'
        'events = { path = "events.jsonl" }\n'
    )
    done = run("ask", "failed-logins", "--config", "pop3.toml", "--json", cwd=folder)
    assert len(done.stdout.splitlines()) == 5


def test_files_come_from_the_environment(folder: Path) -> None:
    gz(folder / "old.gz", folder / "events.jsonl")
    ask = ("ask", "failure-reasons", "--json")
    done = run(*ask, cwd=folder, POP3PROXY_EVENTS="events.jsonl:old.gz")
    assert json.loads(done.stdout.splitlines()[0])["failures"] == 6


OWN = """\
-- title: Own
-- says: One of the operator's own.
-- parameter: least = 1: rows
SELECT account, count(*) AS n FROM logins GROUP BY account HAVING count(*) >= $least ORDER BY 1
"""


def test_a_folder_adds_questions_and_replaces_them(folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "mine.sql").write_text(OWN)
    (folder / "own" / "sources.sql").write_text(OWN)
    (folder / "own" / "README").write_text("no question")
    listed = run("ask", "--questions", "own", cwd=folder).stdout
    assert "own:\n  mine " in listed
    done = run("ask", "mine", "events.jsonl", "--json", cwd=folder, POP3PROXY_QUESTIONS="own")
    assert len(done.stdout.splitlines()) == 4
    done = run("ask", "sources", "events.jsonl", "--questions", "own", cwd=folder)
    assert done.stdout.startswith("Own\n")


WRONG_CONFIG = 'listen = ["tcp:1110"]\nupstream = "tcp:mail.example.org:110"\n'


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("no-such-question",), 2, "there is no question no-such-question"),
        (("sources",), 2, "no files of events"),
        (("sources", "nowhere.jsonl"), 1, "nowhere.jsonl: cannot be read"),
        (("sources", "--config", "nowhere.toml"), 2, "nowhere.toml"),
        (("sources", "--config", "wrong.toml"), 2, 'under [events] set path = "FILE"'),
        (("sources", "e", "--since", "soon"), 2, "soon: is no time; write it like 7d"),
        (("sources", "e", "--until", "2026-13-01"), 2, "2026-13-01: is no time"),
        (("sources", "e", "--since", "1d", "--until", "2d"), 2, "--since is not before --until"),
        (("sources", "e", "--zone", "Mars/Olympus"), 2, "Mars/Olympus: is no time zone"),
        (("sources", "e", "--zone", "../../etc/passwd"), 2, "is no time zone"),
        (("sources", "e", "--address", "300.1.1.1"), 2, "300.1.1.1: is no address"),
        (("sources", "e", "--memory", "lots"), 2, "lots: is no amount of memory"),
        (("sources", "e", "--limit", "-1"), 2, "limit"),
        (("spraying", "e", "--set", "accounts"), 2, "--set accounts: has no value"),
        (("spraying", "e", "--set", "accounts=many"), 2, "accounts=many: is no number"),
        (("spraying", "e", "--set", "acounts=1"), 2, "spraying has accounts=10, per_account=5"),
        (("sources", "e", "--set", "x=1"), 2, "sources has no parameters"),
        (("source-countries", "e"), 1, "source-countries needs a file that knows where"),
        (("source-countries", "e", "--geo", "nowhere.mmdb"), 1, "nowhere.mmdb: cannot be read"),
        (("source-countries", "e", "--geo", "e"), 1, "e: is no MaxMind file"),
        (("--sql", "SELEC 1", "e"), 1, "syntax error"),
        (("--sql", "SELECT nothing FROM events", "e"), 1, "nothing"),
        (("--questions", "nowhere"), 1, "nowhere: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    folder: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    written(folder / "e", failure())
    (folder / "wrong.toml").write_text(WRONG_CONFIG)
    done = run("ask", *arguments, cwd=folder, POP3PROXY_EVENTS="")
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("pop3proxy: ")
    assert said in line


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("duckdb", ("sources", "events.jsonl"), "pop3proxy[audit]"),
        ("rich", ("sources", "events.jsonl"), "pop3proxy[audit]"),
        ("maxminddb", ("source-countries", "events.jsonl", "--geo", "x"), "pop3proxy[geo]"),
    ],
)
def test_a_missing_package_is_said_with_the_extra_that_has_it(
    folder: Path, package: str, arguments: tuple[str, ...], extra: str
) -> None:
    missing = f"import sys; sys.modules[{package!r}] = None; from pop3proxy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", missing, "ask", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"pip install '{extra}'" in line


def test_other_commands_need_no_such_package(tmp_path: Path) -> None:
    missing = (
        "import sys; sys.modules.update(duckdb=None, rich=None, maxminddb=None);"
        " from pop3proxy.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", missing, "schema"],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0


ENDLESS = "SELECT count(*) FROM range(300000) a, range(300000) b WHERE a.range * b.range % 7 = 3"


def test_an_interruption_ends_a_question_at_once(folder: Path) -> None:
    """A terminal shows a bar as soon as the engine works; then Ctrl-C comes."""
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        # What starts the tests may ignore the signal, as a shell does for what it runs behind.
        [
            *("env", "--default-signal=INT", sys.executable, "-m", "pop3proxy"),
            *("ask", "--sql", ENDLESS, "events.jsonl"),
        ],
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )
    os.close(terminal)
    try:
        shown = b""
        while b"%" not in shown:
            shown += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(leader)
    assert process.returncode == 1
    assert out == b""


def test_too_little_memory_is_said(files: list[Path], tmp_path: Path) -> None:
    statement = "SELECT list(e) AS all_of_it FROM events e"
    ask = ("ask", "--sql", statement, *map(str, files), "--memory", "80MB", "--json")
    done = run(*ask, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "more than --memory 80MB is needed" in line


def test_little_memory_is_enough_for_a_question(files: list[Path], tmp_path: Path) -> None:
    ask = ("ask", "spraying", *map(str, files), "--memory", "100MB", "--json", "--zone", "UTC")
    done = run(*ask, cwd=tmp_path)
    assert json.loads(done.stdout)["address"] == SPRAYER


def test_a_reader_that_leaves_ends_it_quietly(
    files: list[Path], tmp_path: Path, day: AttackDay
) -> None:
    command = f"{sys.executable} -m pop3proxy ask failed-logins {files[1]} --json | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert json.loads(done.stdout)["address"] == BRUTE
    assert "Traceback" not in done.stderr
