"""``pop3proxy archive``: old records move to Parquet, and none is lost whatever goes wrong."""

import fcntl
import gzip
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pop3proxy.reports import archive as archiving
from pop3proxy.reports.asking import answers
from pop3proxy.reports.database import Database, Progress
from pop3proxy.reports.questions import shipped

from .attackday import BEGINNING, AttackDay
from .conftest import EVERYTHING, asked, rows_of
from .test_ask import Done, run
from .test_reading import failure, users, written, zstd

DAY = 86400.0
FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


def old(path: Path) -> Path:
    """Make a file look as if it had last been written to when its records were."""
    os.utime(path, (FIRST, FIRST))
    return path


def archived(folder: Path, *more: str) -> Done:
    return run("archive", str(folder), "--older-than", "7d", *more, cwd=folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of two days."""
    lines = [failure(ts=FIRST + number * DAY / 2, user=f"u{number}") for number in range(4)]
    old(written(tmp_path / "pop3.jsonl.1", *lines))
    return tmp_path


def test_records_move_to_a_file_a_day(folder: Path) -> None:
    done = archived(folder)
    assert done.returncode == 0
    assert names(folder) == [
        *("pop3-2026-03-01.parquet", "pop3-2026-03-02.parquet", "pop3-2026-03-03.parquet"),
    ]
    assert users(folder) == ["u0", "u1", "u2", "u3"]
    assert users(folder / "pop3-2026-03-02.parquet") == ["u1", "u2"]
    assert done.stdout.splitlines()[-1] == (
        "files archived 1, records 4, files kept 0, days removed 0"
    )


def test_days_are_readable_by_owner_and_group_alone(folder: Path) -> None:
    archived(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_every_question_is_answered_as_before(files: list[Path], tmp_path: Path) -> None:
    originals = tmp_path / "originals"
    originals.mkdir()
    for file in files:
        lines = [
            line for line in file.read_bytes().splitlines(keepends=True) if line[-2:] == b"}\n"
        ]
        readable = [line for line in lines if b"\xff" not in line]
        old(written(originals / file.name, *readable))
    questions = [question for question in shipped().values() if not question.needs_geo]
    before, _ = answers(questions, asked([originals], EVERYTHING))
    assert archived(originals).returncode == 0
    assert all(name.endswith(".parquet") for name in names(originals))
    after, _ = answers(questions, asked([originals], EVERYTHING))
    for name, answer in before.items():
        assert sorted(map(repr, after[name].rows)) == sorted(map(repr, answer.rows)), name


@pytest.mark.parametrize(
    "make", [lambda path, source: path.write_bytes(gzip.compress(source.read_bytes())), zstd]
)
def test_compressed_files_move_too(folder: Path, make: Callable[[Path, Path], object]) -> None:
    source = (folder / "pop3.jsonl.1").rename(folder / "source")
    make(folder / "pop3.jsonl.2.x", source)
    source.unlink()
    old(folder / "pop3.jsonl.2.x")
    assert archived(folder).returncode == 0
    assert users(folder) == ["u0", "u1", "u2", "u3"]


def test_files_of_one_day_come_together(folder: Path) -> None:
    archived(folder)
    old(written(folder / "other.jsonl", failure(ts=FIRST, user="other", uid="C0")))
    archived(folder)
    assert len(names(folder)) == 3
    assert users(folder) == ["other", "u0", "u1", "u2", "u3"]


def test_what_is_recent_stays(folder: Path) -> None:
    os.utime(folder / "pop3.jsonl.1")  # written to just now
    old(written(folder / "mixed.jsonl", failure(), failure(ts=datetime.now(UTC).timestamp())))
    written(folder / "empty.jsonl")
    done = archived(folder)
    assert (done.returncode, done.stdout.splitlines()) == (
        *(0, ["files archived 0, records 0, files kept 0, days removed 0"]),
    )
    assert names(folder) == ["empty.jsonl", "mixed.jsonl", "pop3.jsonl.1"]


def test_a_file_that_a_process_has_open_stays(folder: Path) -> None:
    with (folder / "pop3.jsonl.1").open("ab"):
        done = archived(folder)
    assert done.returncode == 1
    assert "pop3.jsonl.1: kept: a process has it open; rotate it first" in done.stdout
    assert names(folder) == ["pop3.jsonl.1"]


def test_a_file_that_grows_meanwhile_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = folder / "pop3.jsonl.1"

    right = archiving.Archive._write_days

    def slowly(self: archiving.Archive, *arguments: Any) -> Any:
        written = right(self, *arguments)
        with original.open("ab") as file:
            file.write(failure(ts=FIRST, user="late", uid="C0"))
        old(original)
        return written

    monkeypatch.setattr(archiving.Archive, "_write_days", slowly)
    assert "kept: was written to meanwhile" in archived(folder).stdout
    monkeypatch.undo()
    assert archived(folder).returncode == 0
    assert users(folder) == ["late", "u0", "u1", "u2", "u3"]


def test_a_run_that_was_cut_off_adds_nothing_twice(folder: Path) -> None:
    content = (folder / "pop3.jsonl.1").read_bytes()
    archived(folder)
    # As if it had ended before it removed the original, and before the last day.
    old(written(folder / "pop3.jsonl.1", content))
    (folder / "pop3-2026-03-03.parquet").unlink()
    written(folder / ".pop3-2026-03-03.parquet.tmp", b"half")
    assert archived(folder).returncode == 0
    assert users(folder) == ["u0", "u1", "u2", "u3"]
    assert len(names(folder)) == 3


def test_lines_that_cannot_be_read_are_put_aside(folder: Path) -> None:
    bad = [b"garbage\n", failure(user="X").replace(b"X", b"\xff"), b'{"v":1,"ts":17']
    original = folder / "pop3.jsonl.1"
    old(written(original, original.read_bytes(), b"\n", *bad))
    done = archived(folder)
    assert done.returncode == 0
    assert (folder / "pop3.jsonl.1.unreadable").read_bytes() == b"".join(bad)
    assert users(folder) == ["u0", "u1", "u2", "u3"]
    # The next file of that name does not take their place.
    old(written(original, failure(ts=FIRST + 9), b"more\n"))
    archived(folder)
    assert (folder / "pop3.jsonl.1.unreadable").read_bytes() == b"".join(bad) + b"more\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (failure(novelty=1), "the field 'novelty', which this version does not know"),
        (failure(attempt="first"), "the field attempt as another type"),
        (b'{"setting": true}\n', "has no records; move it away"),
        (b"\x1f\x8b and nothing more", "GZIP"),
    ],
)
def test_what_would_be_lost_stays(folder: Path, content: bytes, said: str) -> None:
    old(written(folder / "other.jsonl", content))
    done = archived(folder)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "other.jsonl" in line]
    assert said in line
    assert (folder / "other.jsonl").read_bytes() == content
    # The others are archived all the same.
    assert not (folder / "pop3.jsonl.1").exists()


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("SELECT 1 AS ts", "was written by another program"),
        ("DAMAGED", "pop3-2026-03-01.parquet"),
    ],
)
def test_a_day_of_another_program_is_not_touched(folder: Path, there: str, said: str) -> None:
    import duckdb

    path = folder / "pop3-2026-03-01.parquet"
    if there == "DAMAGED":
        path.write_bytes(b"PAR1 and nothing more")
    else:
        duckdb.execute(f"COPY ({there}) TO '{path}' (FORMAT parquet)")
    content = path.read_bytes()
    done = archived(folder)
    assert done.returncode == 1
    assert said in done.stdout
    assert path.read_bytes() == content
    assert (folder / "pop3.jsonl.1").exists()


@pytest.mark.parametrize(
    ("changed", "by"),
    [(" ORDER BY ts", " LIMIT 0"), ("SELECT * FROM", "SELECT * REPLACE ('eve' AS \"user\") FROM")],
)
def test_an_original_stays_if_its_days_hold_something_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str, by: str
) -> None:
    right = Database.run

    def wrong(
        self: Database,
        statement: str,
        values: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        if statement.startswith("COPY"):
            assert changed in statement
            statement = statement.replace(changed, by)
        right(self, statement, values, progress)

    monkeypatch.setattr(Database, "run", wrong)
    done = archived(folder)
    assert "does not hold what was written to it; check the disk" in done.stdout
    assert "pop3.jsonl.1" in names(folder)
    assert not any(name.endswith(".parquet") for name in names(folder))


def test_days_are_kept_for_so_long(folder: Path) -> None:
    archived(folder)
    long_ago = ["pop3-2020-01-01.parquet", "pop3-2020-99-99.parquet", "mine-2020-01-01.parquet"]
    for name in long_ago:
        written(folder / name)
    age = (datetime.now(UTC) - datetime(2026, 3, 2, tzinfo=UTC)).days
    done = archived(folder, "--keep", f"{age}d")
    assert done.returncode == 0
    assert names(folder) == [
        *("mine-2020-01-01.parquet", "pop3-2020-99-99.parquet"),
        *("pop3-2026-03-02.parquet", "pop3-2026-03-03.parquet"),
    ]
    assert done.stdout.splitlines()[-1].endswith("days removed 2")


def test_links_are_not_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = old(written(tmp_path_factory.mktemp("elsewhere") / "target", failure(ts=FIRST)))
    (folder / "link.jsonl").symlink_to(target)
    archived(folder)
    assert target.exists()
    assert (folder / "link.jsonl").is_symlink()


def test_one_run_works_at_a_time(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = archived(folder)
    finally:
        os.close(descriptor)
    assert (done.returncode, done.stderr) == (
        *(1, f"pop3proxy: {folder}: another run archives it; wait for its end\n"),
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "DIR"),
        (("nowhere", "--older-than", "7d"), 1, "nowhere: cannot be opened: No such file"),
        ((".",), 2, "--older-than"),
        ((".", "--older-than", "week"), 2, "week: is no length of time"),
        ((".", "--older-than", "7d", "--keep", "3d"), 2, "--keep 3d is not longer"),
        ((".", "--older-than", "7d", "--memory", "x"), 2, "is no amount of memory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = run("archive", *arguments, cwd=tmp_path)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert said in line


def test_the_archive_is_asked_together_with_the_live_file(day: AttackDay, tmp_path: Path) -> None:
    day.write(tmp_path / "pop3.jsonl.1", until=BEGINNING)
    old(tmp_path / "pop3.jsonl.1")
    archived(tmp_path)
    day.write(tmp_path / "pop3.jsonl", since=BEGINNING)
    found = {row["account"]: row["address"] for row in rows_of("guessed-passwords", [tmp_path])}
    assert found == day.truth.guessed
