"""The heads of questions: what they may say, and what is wrong in one line that names the file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pop3proxy.reports.moments import moment, span, zone
from pop3proxy.reports.problems import ReportError, Unanswerable
from pop3proxy.reports.questions import GROUPS, MAX_FILE, Chart, added, parsed, shipped

HEAD = "-- title: T\n-- says: S.\n"


def test_a_head_says_all_there_is_to_know() -> None:
    question = parsed(
        "q",
        HEAD + "-- group: mail\n-- parameter: few = 1.5: how few\n-- chart: line a b by c\n"
        "-- events: pop3_session, pop3_policy\n-- before: 30d\n-- needs: geo\n-- A remark.\n"
        "SELECT $few, $since",
        "q.sql",
    )
    assert (question.title, question.says, question.group) == ("T", "S.", "mail")
    assert question.values({}) == {"few": 1.5}
    assert question.values({"few": "3"}) == {"few": 3}
    assert question.chart == Chart("line", ("a", "b", "c"))
    assert question.events == ("pop3_session", "pop3_policy")
    assert question.before == timedelta(days=30)
    assert question.needs_geo
    assert parsed("q", HEAD + "-- before: all\nSELECT 1", "q.sql").before is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1", "needs one line `-- title: ...`"),
        ("-- title: T\nSELECT 1", "needs one line `-- says: ...`"),
        (HEAD + "-- title: again\nSELECT 1", "needs one line `-- title: ...`"),
        (HEAD + "-- tittle: T\nSELECT 1", "has the key tittle; known are title"),
        (HEAD + "-- group: misc\nSELECT 1", "has group: misc; it can be logins"),
        (HEAD + "-- parameter: x\nSELECT 1", "write `-- parameter: name = 10: what it is`"),
        (HEAD + "-- chart: pie a b\nSELECT 1", "has chart: pie a b; write `bar x y`"),
        (HEAD + "-- chart: bar a\nSELECT 1", "has chart: bar a"),
        (HEAD + "-- events: pop3_novelty\nSELECT 1", "the event pop3_novelty"),
        (HEAD + "-- before: long\nSELECT 1", "has before: long: is no length of time"),
        (HEAD + "SELECT $many", "uses $many, which its head does not declare"),
        (HEAD + "-- nothing more\n", "has no SQL"),
    ],
)
def test_a_wrong_head_says_what_to_change(text: str, said: str) -> None:
    with pytest.raises(ReportError) as raised:
        parsed("q", text, "own/q.sql")
    assert str(raised.value).startswith("own/q.sql: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_dollar_in_a_comment_is_no_parameter() -> None:
    assert parsed("q", HEAD + "SELECT 1 -- costs $many\n", "q.sql").parameters == ()


def test_a_long_file_is_no_question(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text(HEAD + "SELECT 1" + " " * MAX_FILE)
    with pytest.raises(ReportError, match="is longer than"):
        added(str(tmp_path))


def test_a_question_is_utf8(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_bytes(HEAD.encode() + b"SELECT '\xff'")
    with pytest.raises(ReportError, match="is no UTF-8"):
        added(str(tmp_path))


def test_shipped_questions_say_a_sentence_under_a_heading() -> None:
    for question in shipped().values():
        assert question.says.endswith("."), question.name
        assert question.group in GROUPS, question.name
        assert question.title[0].isupper(), question.name


NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7d", datetime(2026, 11, 23, 12, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 30, 10, 30, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 16, 12, tzinfo=UTC)),
        ("now", NOW),
        ("2026-11-29", datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29T08:15", datetime(2026, 11, 29, 8, 15, tzinfo=UTC)),
        ("2026-11-29 08:15:30+02:00", datetime(2026, 11, 29, 6, 15, 30, tzinfo=UTC)),
        ("2026-11-29T08:15Z", datetime(2026, 11, 29, 8, 15, tzinfo=UTC)),
    ],
)
def test_moments_are_read(text: str, meant: datetime) -> None:
    assert moment(text, NOW) == meant


def test_a_moment_without_a_zone_is_in_that_of_now() -> None:
    berlin = zone("Europe/Berlin")
    assert moment("2026-07-01", NOW.astimezone(berlin)) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert moment("2026-12-01", NOW.astimezone(berlin)) == datetime(2026, 11, 30, 23, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "7", "7y", "-1d", "999999999w", "2026", "soon"])
def test_what_is_no_moment_is_said(text: str) -> None:
    with pytest.raises(Unanswerable, match=r"write it like|is too long"):
        moment(text, NOW)


@pytest.mark.parametrize("text", ["d", "1.5h", "1h30m", "9999999999d"])
def test_what_is_no_length_of_time_is_said(text: str) -> None:
    with pytest.raises(Unanswerable, match="write it like"):
        span(text)
