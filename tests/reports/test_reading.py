"""What is read of files: all that can be read, by the types of the schema, and nothing twice."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pop3proxy.hooks.logging.schema import schema
from pop3proxy.reports.addresses import Places, network
from pop3proxy.reports.columns import COLUMNS, WITH_COLUMN
from pop3proxy.reports.database import Database
from pop3proxy.reports.log import Filters, Log
from pop3proxy.reports.problems import ReportError
from pop3proxy.reports.questions import Question, parsed
from pop3proxy.reports.sources import Kind, Source, beside, find

from .conftest import NOW, rows_of

FAILURE = {
    "v": 1,
    "ts": 1773705600.25,
    "event": "pop3_login_failure",
    "uid": "C1",
    "id.orig_h": "192.0.2.17",
    "id.orig_p": 51234,
    "id.resp_h": "198.51.100.4",
    "id.resp_p": 110,
    "listener": "tcp:110",
    "listener.h": "0.0.0.0",
    "listener.p": 110,
    "is_orig": False,
    "user": "bob",
    "password": "(masked)",
    "mechanism": "PLAIN",
    "reason": "credentials",
    "code": "AUTH",
    "attempt": 1,
}

USERS = parsed(
    "users",
    '-- title: Users\n-- says: Them.\nSELECT "user" FROM logins ORDER BY ts, uid',
    "users.sql",
)


def failure(**fields: Any) -> bytes:
    return json.dumps(FAILURE | fields, ensure_ascii=False).encode() + b"\n"


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def users(*files: Path | str, filters: Filters | None = None) -> list[str]:
    return [row["user"] for row in rows_of(USERS, files, filters or Filters())]


def skipped(*files: Path) -> dict[str, int]:
    with Database() as database, Places(()) as places:
        log = Log(database, find(map(str, files)), Filters(), NOW.timestamp(), places)
        log.load([USERS])
        return {Path(file).name: lines for file, lines in log.skipped.lines.items()}


# --- columns --------------------------------------------------------------------------------------------


def test_columns_are_the_properties_of_the_schema() -> None:
    properties = {name for each in schema()["$defs"].values() for name in each["properties"]}
    assert set(COLUMNS) == properties
    kinds = {
        "ts": "DOUBLE",
        "user": "VARCHAR",
        "is_orig": "BOOLEAN",
        "attempt": "BIGINT",
        "v": "BIGINT",
    }
    assert {name: COLUMNS[name] for name in kinds} == kinds
    assert WITH_COLUMN["detail"] == ("pop3_unexpected",)


@pytest.mark.parametrize(
    "name",
    [
        *("2024-01-01", "2024-01-01T00:00:00Z", "12:30:00", "12345", "007", "1e5", "true", "null"),
        *(
            "550e8400-e29b-41d4-a716-446655440000",
            "192.0.2.1",
            "",
            " bob",
            "a\0b",
            "{}",
            "[1]",
            "'",
        ),
    ],
)
def test_a_user_stays_the_text_that_it_is(tmp_path: Path, name: str) -> None:
    """All users of the file look alike, as when types are guessed from a sample."""
    path = written(tmp_path / "events.jsonl", *[failure(user=name)] * 50)
    assert users(path) == [name] * 50


def test_a_field_that_is_null_at_first_keeps_its_type(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", *[failure(user=None)] * 3000, failure(user="2024-01-01"))
    assert users(path)[-1] == "2024-01-01"


def test_a_field_that_comes_late_is_read(tmp_path: Path) -> None:
    early = {key: value for key, value in FAILURE.items() if key != "user"}
    lines = [json.dumps(early).encode() + b"\n"] * 60_000
    path = written(tmp_path / "a.jsonl", *lines, failure(user="late", uid="C2"))
    assert users(path)[-1] == "late"


def test_records_without_newer_fields_are_read(tmp_path: Path) -> None:
    newer = {"attempt", "listener", "listener.h", "listener.p", "code"}
    old = {key: value for key, value in FAILURE.items() if key not in newer}
    path = written(tmp_path / "old.jsonl", json.dumps(old).encode() + b"\n")
    (row,) = rows_of("failed-logins", [path])
    assert (row["account"], row["failures"]) == ("bob", 1)


def test_a_field_that_no_schema_has_does_no_harm(tmp_path: Path) -> None:
    assert users(written(tmp_path / "a.jsonl", failure(novelty={"deep": [1]}))) == ["bob"]


@pytest.mark.parametrize(
    "fields",
    [{"ts": 1e300}, {"ts": -5}, {"ts": "yesterday"}, {"ts": None}, {"event": None}],
    ids=str,
)
def test_a_record_without_a_time_or_event_is_skipped(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    path = written(tmp_path / "a.jsonl", failure(), failure(**fields), failure(user="after"))
    assert users(path) == ["bob", "after"]
    assert skipped(path) == {"a.jsonl": 1}


# --- lines that are none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"[1, 2]\n",
        b"null\n",
        b"3\n",
        b'"text"\n',
        b'{"v":1,\n',
        b"\0\0\0\0\n",
        failure(user="X").replace(b"X", b"\xff"),
        failure(user="X").replace(b"X", b"\\ud800"),
        failure().rstrip() + failure(),
    ],
    ids=lambda line: str(line[:12]),
)
def test_a_line_that_cannot_be_read_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "a.jsonl", failure(), line, failure(user="after"))
    assert users(path) == ["bob", "after"]
    assert skipped(path) == {"a.jsonl": 1}


def test_empty_lines_are_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", failure(), b"\n", failure(user="after"))
    assert users(path) == ["bob", "after"]
    assert skipped(path) == {}


@pytest.mark.parametrize("cut", [1, 10, 100, -2])
def test_a_last_line_that_is_half_written_is_no_damage(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "a.jsonl", failure(), failure(user="half")[:cut])
    assert users(path) == ["bob"]
    assert skipped(path) == {}


def test_other_damage_of_such_a_file_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b"garbage\n", failure(), failure()[:50])
    assert skipped(path) == {"a.jsonl": 1}


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert users(written(tmp_path / "a.jsonl")) == []


def test_a_file_that_grows_is_read_once(tmp_path: Path) -> None:
    """Questions of one reading agree, though the proxy writes on between them."""
    path = written(tmp_path / "a.jsonl", failure())
    with Database() as database, Places(()) as places:
        log = Log(database, find([str(path)]), Filters(), NOW.timestamp(), places)
        log.load([USERS])
        with path.open("ab") as file:
            file.write(failure(user="later"))
        for _ in range(2):
            log.ask(USERS, {})
            assert database.rows(10) == [("bob",)]


# --- files ----------------------------------------------------------------------------------------------


def parquet(path: Path, source: Path, columns: str = "*") -> Path:
    import duckdb

    duckdb.execute(
        f"COPY (SELECT {columns} FROM read_json('{source}', format = 'newline_delimited'))"
        f" TO '{path}' (FORMAT parquet)"
    )
    return path


def zstd(path: Path, source: Path) -> Path:
    """Write a file of lines compressed by zstd."""
    import duckdb

    duckdb.execute(
        f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited'))"
        f" TO '{path}' (FORMAT json, COMPRESSION zstd)"
    )
    return path


def gz(path: Path, source: Path) -> Path:
    path.write_bytes(gzip.compress(source.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("make", "kind"), [(gz, Kind.GZIP), (zstd, Kind.ZSTD), (parquet, Kind.PARQUET)]
)
def test_a_file_is_known_by_its_first_bytes(
    tmp_path: Path, make: Callable[[Path, Path], Path], kind: Kind
) -> None:
    plain = written(tmp_path / "plain", failure(), failure(user="carol", uid="C2"))
    packed = make(tmp_path / "misnamed.log.1", plain)
    assert find([str(packed)]) == [Source(str(packed), kind)]
    assert users(packed) == ["bob", "carol"]


def test_files_of_all_kinds_are_read_together(tmp_path: Path) -> None:
    for number, make in enumerate((gz, zstd, parquet)):
        source = written(tmp_path / f"source{number}", failure(user=f"u{number}", uid=f"C{number}"))
        make(tmp_path / f"events.jsonl.{number}", source)
    written(tmp_path / "events.jsonl", failure(user="u3", uid="C3"))
    assert users(str(tmp_path / "events.jsonl*")) == ["u0", "u1", "u2", "u3"]
    assert users(tmp_path) == ["u0", "u1", "u2", "u3"]


def test_a_file_with_two_names_is_read_once(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", failure())
    (tmp_path / "current.jsonl").symlink_to(path)
    (tmp_path / "hard.jsonl").hardlink_to(path)
    assert users(path, path, tmp_path, str(tmp_path / "*.jsonl")) == ["bob"]


def test_parquet_lacks_what_it_lacks_and_casts_the_rest(tmp_path: Path) -> None:
    source = written(tmp_path / "source", failure())
    columns = "event, ts::VARCHAR AS ts, uid, \"user\", 'novel' AS novelty"
    path = parquet(tmp_path / "a.parquet", source, columns)
    more = parquet(tmp_path / "b.parquet", source)
    (row,) = rows_of("failed-logins", [path])
    assert (row["account"], row["address"], row["reasons"]) == ("bob", None, [])
    assert users(path, more) == ["bob", "bob"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.gz", gzip.compress(failure() * 1000)[:60], "a.gz"),
        ("a.parquet", b"PAR1 and nothing more", "a.parquet"),
        ("a.zst", b"\x28\xb5\x2f\xfd and nothing more", "a.zst"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(ReportError, match=said) as raised:
        users(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.jsonl", "cannot be read: No such file"),
        ("no*.jsonl", "no file matches"),
        (".", "has no files of events"),
        ("/dev/null", "is no file"),
        ("a\0b", "cannot be read"),
    ],
)
def test_a_name_without_a_file_says_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReportError, match=said):
        find([name])


def test_a_name_may_have_letters_of_globs_and_of_sql(tmp_path: Path) -> None:
    path = written(tmp_path / "e'v[1]{a}.jsonl", failure())
    assert users(path) == ["bob"]


def test_rotated_files_are_beside_the_one_that_is_written(tmp_path: Path) -> None:
    for name in (
        "pop3.jsonl",
        "pop3.jsonl.1",
        "pop3.jsonl.2.gz",
        "pop3.jsonl-20260301",
        "pop3.jsonlx",
    ):
        written(tmp_path / name, failure())
    found = find(beside(str(tmp_path / "pop3.jsonl")))
    assert [Path(source.path).name for source in found] == [
        *("pop3.jsonl", "pop3.jsonl.1", "pop3.jsonl.2.gz", "pop3.jsonl-20260301"),
    ]


# --- filters --------------------------------------------------------------------------------------------


SPELLINGS = (
    *("10.0.0.1", "10.255.0.9", "11.0.0.1", "2001:db8::1", "2001:0db8:0:0::0002", "2001:db9::1"),
    *("::ffff:10.1.1.1", "/run/pop3.sock", "", "not an address"),
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("10.0.0.0/8", {"10.0.0.1", "10.255.0.9", "::ffff:10.1.1.1"}),
        ("10.0.0.1", {"10.0.0.1"}),
        ("10.1.1.1", {"::ffff:10.1.1.1"}),
        ("::ffff:10.1.1.0/120", {"::ffff:10.1.1.1"}),
        ("2001:db8::/32", {"2001:db8::1", "2001:0db8:0:0::0002"}),
        ("2001:DB8::2", {"2001:0db8:0:0::0002"}),
        ("0.0.0.0/0", {"10.0.0.1", "10.255.0.9", "11.0.0.1", "::ffff:10.1.1.1"}),
    ],
)
def test_addresses_are_compared_as_numbers(tmp_path: Path, wanted: str, found: set[str]) -> None:
    lines = [failure(**{"id.orig_h": each, "user": each, "uid": each}) for each in SPELLINGS]
    path = written(tmp_path / "a.jsonl", *lines)
    assert set(users(path, filters=Filters(networks=(network(wanted),)))) == found


def test_a_client_without_an_address_has_that_of_its_listener(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", failure(orig_unknown=True))
    (row,) = rows_of("failed-logins", [path])
    assert row["address"] == "unknown@tcp:110"
    assert users(path, filters=Filters(networks=(network("192.0.2.0/24"),))) == []


def moments(*seconds: float) -> list[datetime]:
    return [datetime.fromtimestamp(each, UTC) for each in seconds]


def test_the_period_has_its_beginning_and_not_its_end(tmp_path: Path) -> None:
    lines = [failure(ts=float(second), user=str(second)) for second in range(1000, 1005)]
    path = written(tmp_path / "a.jsonl", *lines)
    packed = parquet(tmp_path / "a.parquet", path)
    since, until = moments(1001, 1003)
    for file in (path, packed):
        assert users(file, filters=Filters(since=since, until=until)) == ["1001", "1002"]
        assert users(file, filters=Filters(since=until)) == ["1003", "1004"]


def test_a_record_of_a_clock_that_is_ahead_is_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", failure(ts=NOW.timestamp() + 1e6))
    assert users(path) == ["bob"]


def session(uid: str, user: str, mechanism: str, listener: str) -> list[bytes]:
    """A session with an anomaly, whose record has none of the three."""
    common = {key: value for key, value in FAILURE.items() if key.startswith("id.")}
    odd = {
        **common,
        "v": 1,
        "ts": 1773705600.0,
        "event": "pop3_unexpected",
        "uid": uid,
        "is_orig": True,
        "msg": "unknown_command",
        "detail": user,
    }
    host, port = "0.0.0.0", int(listener.partition(":")[2])
    own = {"listener": listener, "listener.h": host, "listener.p": port}
    return [
        failure(uid=uid, user=user, mechanism=mechanism, **own),
        json.dumps(odd).encode() + b"\n",
    ]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(users=(" BOB ",)), {"bob"}),
        (Filters(users=("bob", "carol")), {"bob", "carol"}),
        (Filters(mechanisms=("plain",)), {"bob", "dave"}),
        (Filters(listeners=("tcp:995",)), {"dave"}),
        (Filters(listeners=("0.0.0.0:995",)), {"dave"}),
        (Filters(users=("nobody",)), set()),
        (Filters(users=("'; DROP TABLE records; --",)), set()),
        (Filters(users=("bob", "dave"), listeners=("tcp:110",)), {"bob"}),
    ],
)
def test_filters_hold_for_the_sessions_other_records_too(
    tmp_path: Path, filters: Filters, found: set[str]
) -> None:
    path = written(
        tmp_path / "a.jsonl",
        *session("C1", "bob", "PLAIN", "tcp:110"),
        *session("C2", "carol", "LOGIN", "tcp:110"),
        *session("C3", "dave", "PLAIN", "tcp:995"),
    )
    assert set(users(path, filters=filters)) == found
    details = Question(
        name="details",
        title="",
        says="",
        sql="SELECT detail FROM events WHERE event = 'pop3_unexpected'",
        events=("pop3_unexpected",),
    )
    assert {row["detail"] for row in rows_of(details, [path], filters)} == found


def test_what_lies_before_the_period_is_seen_as_far_as_the_question_says(tmp_path: Path) -> None:
    text = (
        '-- title: t\n-- says: s\n-- before: {}\nSELECT "user", ts >= $since AS inside FROM logins'
    )
    lines = [failure(ts=second * 86400.0, user=str(second)) for second in range(1, 11)]
    path = written(tmp_path / "a.jsonl", *lines)
    (since,) = moments(8 * 86400)
    for before, first in (("0s", 8), ("3d", 5), ("all", 1)):
        question = parsed("q", text.format(before), "q.sql")
        found = rows_of(question, [path], Filters(since=since))
        assert sorted(int(row["user"]) for row in found) == list(range(first, 11))
        assert sum(row["inside"] for row in found) == 3
