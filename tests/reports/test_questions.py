"""Every question agrees with the truth about the attack day."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pop3proxy.reports.asking import Answer, answers
from pop3proxy.reports.questions import shipped

from .attackday import (
    BEGINNING,
    BOTS,
    COLLECTOR,
    PHONE_ABROAD,
    PHONE_AT_HOME,
    SPRAYER,
    AttackDay,
    Login,
    Truth,
)
from .conftest import THE_DAY, asked, rows_of

QUESTIONS = {name: each for name, each in shipped().items() if not each.needs_geo}


@pytest.fixture(scope="session")
def found(files: list[Path]) -> dict[str, Answer]:
    """The answers about the attack day, of one reading of the files as a report has them."""
    given, skipped = answers(list(QUESTIONS.values()), asked(files, THE_DAY))
    assert skipped.total == 2
    return given


def rows(answer: Answer) -> list[dict[str, Any]]:
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def by(answer: Answer, *keys: str) -> dict[Any, dict[str, Any]]:
    """Return the rows by the values of some columns, of one by it alone."""
    made = {tuple(row[key] for key in keys): row for row in rows(answer)}
    assert len(made) == len(answer.rows)
    return {key[0] if len(keys) == 1 else key: row for key, row in made.items()}


def counted(logins: Iterable[Login], key: Callable[[Login], Any]) -> dict[Any, int]:
    return dict(Counter(map(key, logins)))


def column(answer: Answer, name: str, *keys: str) -> dict[Any, Any]:
    return {key: row[name] for key, row in by(answer, *keys).items()}


def of_the_day(day: AttackDay, succeeded: bool) -> list[Login]:
    return [login for login in day.truth.of_the_day() if login.succeeded is succeeded]


def pair(login: Login) -> tuple[str, str]:
    return login.account, login.address


def bucket(login: Login, seconds: int) -> datetime:
    return datetime.fromtimestamp(login.ts // seconds * seconds).astimezone()


def test_the_day_has_twenty_thousand_logins(day: AttackDay) -> None:
    assert len(day.truth.of_the_day()) == 20_000


def test_failed_logins(found: dict[str, Answer], day: AttackDay) -> None:
    failed = of_the_day(day, succeeded=False)
    answer = found["failed-logins"]
    assert column(answer, "failures", "account", "address") == counted(failed, pair)
    clear = counted((login for login in failed if login.tls is None), pair)
    without = {
        key: row for key, row in column(answer, "without_tls", "account", "address").items() if row
    }
    assert without == clear
    assert {name for row in rows(answer) for name in row["mechanisms"]} == {
        login.mechanism for login in failed
    }


def test_failure_reasons(found: dict[str, Answer], day: AttackDay) -> None:
    failed = of_the_day(day, succeeded=False)
    (row,) = rows(found["failure-reasons"])
    assert (row["reason"], row["code"]) == ("credentials", "AUTH")
    assert row["failures"] == len(failed)
    assert row["percent"] == 100.0
    assert row["accounts"] == len({login.account for login in failed})
    assert row["addresses"] == len({login.address for login in failed})


def test_successful_logins(found: dict[str, Answer], day: AttackDay) -> None:
    succeeded = of_the_day(day, succeeded=True)
    assert column(found["successful-logins"], "logins", "account", "address") == counted(
        succeeded, pair
    )


def test_logins_over_time(found: dict[str, Answer], day: AttackDay) -> None:
    given = column(found["logins-over-time"], "logins", "time", "outcome")
    judged = {key: count for key, count in given.items() if key[1] in ("success", "failure")}
    assert judged == counted(
        day.truth.of_the_day(),
        lambda login: (bucket(login, 3600), "success" if login.succeeded else "failure"),
    )
    unjudged = Counter({outcome: 0 for _, outcome in given.keys() - judged.keys()})
    for (_, outcome), count in given.items():
        if outcome in unjudged:
            unjudged[outcome] += count
    assert unjudged == {"cancelled": 2, "unanswered": 1}


def test_logins_by_weekday(found: dict[str, Answer], day: AttackDay) -> None:
    answer = found["logins-by-weekday"]
    assert column(answer, "logins", "weekday", "hour") == counted(
        day.truth.of_the_day(), lambda login: (2, int(login.ts - BEGINNING) // 3600)
    )
    assert all(row["logins"] == row["succeeded"] + row["failed"] for row in rows(answer))


def test_guessed_passwords(found: dict[str, Answer], day: AttackDay) -> None:
    answer = found["guessed-passwords"]
    assert column(answer, "address", "account") == day.truth.guessed
    assert len(day.truth.guessed) == 2


def test_attacked_accounts(found: dict[str, Answer], day: AttackDay) -> None:
    truth = {name: count for name, count in day.truth.attacked.items() if count >= 10}
    answer = found["attacked-accounts"]
    assert column(answer, "guesses", "account") == truth
    assert len(truth) == 2
    got_in = {name for name, row in by(answer, "account").items() if row["got_in"]}
    assert got_in == truth.keys() & day.truth.guessed.keys()
    # The sprayer was there, too.
    assert max(row["addresses"] for row in rows(answer)) == BOTS + 1


def test_sources(found: dict[str, Answer], day: AttackDay) -> None:
    failed = of_the_day(day, succeeded=False)
    assert column(found["sources"], "failures", "address") == counted(
        failed, lambda login: login.address
    )
    assert column(found["sources"], "accounts_entered", "address")[SPRAYER] == 1


def test_source_networks(found: dict[str, Answer], day: AttackDay) -> None:
    answer = by(found["source-networks"], "network")
    assert sum(row["failures"] for row in answer.values()) == len(of_the_day(day, succeeded=False))
    assert answer["100.64.1.0/24"]["failures"] == 3
    assert answer["2001:db8:f000::/48"]["failures"] == 3
    assert answer["10.1.20.0/24"]["addresses"] == 1


def test_spraying(found: dict[str, Answer], day: AttackDay) -> None:
    assert column(found["spraying"], "accounts", "address") == day.truth.sprayers
    assert column(found["spraying"], "accounts_entered", "address") == {SPRAYER: 1}


def test_stale_devices(found: dict[str, Answer], day: AttackDay) -> None:
    answer = found["stale-devices"]
    assert column(answer, "address", "account") == day.truth.phones
    assert column(answer, "failures", "address") == {PHONE_AT_HOME: 96, PHONE_ABROAD: 288}
    assert column(answer, "every_minutes", "address") == {PHONE_AT_HOME: 15, PHONE_ABROAD: 5}


def test_new_networks(found: dict[str, Answer], day: AttackDay) -> None:
    assert column(found["new-networks"], "address", "account") == day.truth.moved
    assert len(day.truth.moved) == 3


def test_dormant_accounts(found: dict[str, Answer], day: AttackDay) -> None:
    answer = found["dormant-accounts"]
    assert set(by(answer, "account")) == day.truth.dormant
    assert [row["days"] for row in rows(answer)] == [100]


def test_unusual_hours(found: dict[str, Answer], day: AttackDay) -> None:
    assert set(by(found["unusual-hours"], "account")) == day.truth.at_night
    assert len(day.truth.at_night) == 2


def test_cleartext_logins(found: dict[str, Answer], day: AttackDay) -> None:
    clear = [login for login in day.truth.of_the_day() if login.tls is None]
    answer = found["cleartext-logins"]
    good = counted((login for login in clear if login.succeeded), pair)
    assert {k: n for k, n in column(answer, "logins", "account", "address").items() if n} == good
    assert {name for row in rows(answer) for name in row["listeners"]} == {"tcp:110"}
    assert sum(row["logins"] + row["failures"] for row in rows(answer)) == len(clear)


def test_weak_mechanisms(found: dict[str, Answer], day: AttackDay) -> None:
    def weak(login: Login) -> bool:
        if login.mechanism in ("CRAM-MD5", "APOP"):
            return True
        return login.tls is None and login.mechanism in ("USER/PASS", "PLAIN", "LOGIN")

    truth = counted(
        filter(weak, of_the_day(day, succeeded=True)),
        lambda login: (login.mechanism, login.tls is not None),
    )
    assert column(found["weak-mechanisms"], "logins", "mechanism", "tls") == truth
    assert ("SCRAM-SHA-256", False) not in truth


def test_old_tls(found: dict[str, Answer], day: AttackDay) -> None:
    truth = counted((login for login in day.truth.of_the_day() if login.tls == "TLSv1"), pair)
    assert column(found["old-tls"], "logins", "account", "address") == truth
    assert len(truth) == 1


def test_encryption_over_time(found: dict[str, Answer], day: AttackDay) -> None:
    assert column(found["encryption-over-time"], "logins", "encryption", "mechanism") == counted(
        day.truth.of_the_day(), lambda login: (login.tls or "none", login.mechanism)
    )


def sessions(truth: Truth) -> dict[str, list[int]]:
    """Return sessions, messages fetched and bytes both ways of each account on the attack day."""
    found: dict[str, list[int]] = {}
    for visit in truth.visits:
        if visit.ts >= BEGINNING and visit.outcome == "success":
            sums = found.setdefault(visit.account, [0, 0, 0, 0])
            for number, value in enumerate((1, visit.retr, visit.received, visit.sent)):
                sums[number] += value
    return found


def test_sessions_by_user(found: dict[str, Answer], day: AttackDay) -> None:
    given = {
        name: [row["sessions"], row["retrieved"], row["bytes_received"], row["bytes_sent"]]
        for name, row in by(found["sessions-by-user"], "account").items()
    }
    assert given == sessions(day.truth)


def test_top_talkers(found: dict[str, Answer], day: AttackDay) -> None:
    truth: Counter[tuple[str, str]] = Counter()
    for visit in day.truth.visits:
        if visit.ts >= BEGINNING:
            name = visit.account if visit.outcome == "success" else ""
            truth[visit.address, name] += visit.sent + visit.received
    assert column(found["top-talkers"], "bytes", "address", "account") == dict(truth)


def test_deletions(found: dict[str, Answer], day: AttackDay) -> None:
    truth: Counter[tuple[str, str]] = Counter()
    for visit in day.truth.visits:
        if visit.ts >= BEGINNING and visit.deleted:
            truth[visit.account, visit.address] += visit.deleted
    answer = found["deletions"]
    assert column(answer, "deleted", "account", "address") == dict(truth)
    first = rows(answer)[0]
    assert (first["deleted"], first["not_fetched"]) == (500, 500)
    assert {row["address"] for row in rows(answer)[1:]} == {COLLECTOR}


def test_policy_decisions(found: dict[str, Answer], day: AttackDay) -> None:
    given = {
        (row["rule"], row["action"], row["effect"] == "would have"): row["times"]
        for row in rows(found["policy-decisions"])
    }
    assert given == day.truth.decided


def test_anomalies(found: dict[str, Answer], day: AttackDay) -> None:
    assert column(found["anomalies"], "times", "anomaly", "side") == day.truth.odd


def test_gaps(found: dict[str, Answer], day: AttackDay) -> None:
    answer = found["gaps"]
    lines = [row for row in rows(answer) if row["gap"] == "lines that cannot be read"]
    assert [row["times"] for row in lines] == [2]
    others = {row["gap"]: row["times"] for row in rows(answer) if row not in lines}
    assert others == day.truth.gaps


def test_silence_is_a_gap(files: list[Path], day: AttackDay) -> None:
    times = sorted(ts for ts in day.truth.times if ts < BEGINNING)
    pauses = [after - before for before, after in pairwise(times)]
    truth = [pause for pause in pauses if pause >= 7200]
    given = rows_of("gaps", files[:1], values={"minutes": "120"})
    assert len([row for row in given if row["gap"] == "silence"]) == len(truth) > 10


def test_answers_are_the_same_one_by_one(files: list[Path], found: dict[str, Answer]) -> None:
    """A question that is asked alone reads less of the files."""
    for name in ("guessed-passwords", "unusual-hours", "gaps", "anomalies", "policy-decisions"):
        assert len(rows_of(name, files, THE_DAY)) == len(found[name].rows)


def test_columns_of_a_chart_are_columns_of_the_answer(found: dict[str, Answer]) -> None:
    for name, answer in found.items():
        assert set(QUESTIONS[name].chart.columns) <= set(answer.columns), name


def test_every_question_is_held_against_the_truth() -> None:
    tested = {name.removeprefix("test_").replace("_", "-") for name in globals()}
    assert set(QUESTIONS) <= tested
