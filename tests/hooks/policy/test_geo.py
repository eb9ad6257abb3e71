"""Rules for clients of some countries and autonomous systems, by files that are made here."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.analyzer.events import Connect, Connection, LoginAttempt, LoginFailure, Reason
from pop3proxy.config import ConfigError, load
from pop3proxy.hooks.api import PASS, Deny
from pop3proxy.hooks.policy import geo, watchedfiles
from pop3proxy.hooks.policy.config import Policy, PolicyRule
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.geo import Geo, Place
from pop3proxy.hooks.policy.watchedfiles import LOOK_EVERY, PolicyFileError
from pop3proxy.loading import load_hooks

from .mmdb import mmdb
from .test_occurrences import NOW, rule

HOME, ABROAD, ELSEWHERE = "192.0.2.1", "203.0.113.9", "198.51.100.77"

COUNTRIES = {
    "192.0.2.0/24": {"country": {"iso_code": "AT", "names": {"en": "Austria"}}},
    "203.0.113.0/25": {"country": {"iso_code": "FR"}},
    "203.0.113.128/25": {"registered_country": {"iso_code": "FR"}, "country": {}},
    "2001:db8::/32": {"country": {"iso_code": "DE"}},
}
NUMBERS = {
    "192.0.2.0/24": {"autonomous_system_number": 64496},
    "203.0.113.0/24": {"autonomous_system_number": 4200000000},
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    pytest.importorskip("maxminddb")
    found = []
    for name, records in (("country", COUNTRIES), ("asn", NUMBERS)):
        path = tmp_path / f"{name}.mmdb"
        path.write_bytes(mmdb(records, f"Test-{name}"))
        found.append(str(path))
    return found


def policy(files: list[str], **more: Any) -> FailedLogins:
    one = rule("failures", "deny", 1, **more)
    return FailedLogins(Policy.model_validate({"rules": [one], "geo_files": files}), live=False)


def denied_after_a_failure(hook: FailedLogins, host: str, **more: Any) -> bool:
    c = Connection("Cx", host, 1, "198.51.100.4", 110, "tcp:110", **more)
    hook.pop3_login_failure(LoginFailure(c, NOW, "bob", "1", "PLAIN", Reason.CREDENTIALS))
    verdict = hook.pop3_login_attempt(LoginAttempt(c, NOW, "bob", "2", "PLAIN"))
    assert verdict in (PASS, Deny())
    return verdict == Deny()


# --- where a client is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "place"),
    [
        (HOME, Place("AT", "64496")),
        (ABROAD, Place("FR", "4200000000")),
        ("203.0.113.200", Place("FR", "4200000000")),
        ("2001:db8::1", Place("DE", "")),
        (ELSEWHERE, Place()),
        ("::1", Place()),
        ("/run/socket", Place()),
        ("", Place()),
    ],
)
def test_a_place_is_put_together_from_all_files(files: list[str], host: str, place: Place) -> None:
    assert Geo(Policy(geo_files=tuple(files))).place(host) == place


def test_what_is_damaged_says_nothing(tmp_path: Path) -> None:
    pytest.importorskip("maxminddb")
    whole = mmdb(COUNTRIES)
    path = tmp_path / "test.mmdb"
    for at in range(len(whole) - 300):
        path.write_bytes(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])
        place = Geo(Policy(geo_files=(str(path),))).place(HOME)
        assert place in (Place("AT"), Place()) or len(place.country) == 2


@pytest.mark.parametrize("record", ["text", {"country": "AT"}, {"country": {"iso_code": 7}}, {}])
def test_a_record_of_another_shape_says_nothing(tmp_path: Path, record: Any) -> None:
    pytest.importorskip("maxminddb")
    path = tmp_path / "test.mmdb"
    path.write_bytes(mmdb({"192.0.2.0/24": record}))
    assert Geo(Policy(geo_files=(str(path),))).place(HOME) == Place()


# --- the conditions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "applies"),
    [
        ({"country": ["AT"]}, [HOME]),
        ({"country": ["at", "fr"]}, [HOME, ABROAD]),
        ({"country": ["!AT"]}, [ABROAD, ELSEWHERE]),
        ({"country": ["!AT", "!FR"]}, [ELSEWHERE]),
        ({"country": []}, []),
        ({"asn": [64496]}, [HOME]),
        ({"asn": [64496, 4200000000]}, [HOME, ABROAD]),
        ({"country": ["AT"], "asn": [4200000000]}, []),
    ],
)
def test_a_rule_is_for_clients_of_its_places(
    files: list[str], more: dict[str, Any], applies: list[str]
) -> None:
    hook = policy(files, **more)
    hosts = (HOME, ABROAD, ELSEWHERE)
    assert [host for host in hosts if denied_after_a_failure(hook, host)] == applies


def test_connections_of_a_place_can_be_counted(files: list[str]) -> None:
    one = rule("connections", "deny", 1, by="listener", country=["!AT"])
    hook = FailedLogins(Policy.model_validate({"rules": [one], "geo_files": files}), live=False)
    verdicts = [
        hook.pop3_connect(Connect(Connection("Cx", host, 1, "h", 110, "tcp:110"), NOW))
        for host in (ABROAD, HOME, ELSEWHERE)
    ]
    assert [verdict is PASS for verdict in verdicts] == [True, True, False]


def test_a_client_without_an_address_is_nowhere(files: list[str]) -> None:
    hook = policy(files, country=["AT"], by="user")
    assert not denied_after_a_failure(hook, HOME, orig_unknown=True)
    assert denied_after_a_failure(hook, HOME)


# --- the configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"country": ["Austria"]}, '"Austria" is no country; write its two letters like "US"'),
        ({"country": ["AT", "!DE"]}, 'country: names some with "!" and some without'),
        ({"asn": [0]}, "greater than or equal to 1"),
        ({"asn": ["AS64496"]}, "valid integer"),
    ],
)
def test_a_place_that_is_none_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PolicyRule.model_validate(rule("failures", "log", **more))
    assert said in str(caught.value)


@pytest.mark.parametrize("more", [{"country": ["AT"]}, {"asn": [64496]}])
def test_a_rule_for_places_needs_a_file(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match='geo_files: is missing, and "r" is for a country'):
        policy([], **more)


def mistake(tmp_path: Path, path: Path) -> str:
    config = tmp_path / "test.toml"
    config.write_text(
        f'listen = ["tcp:0"]\nupstream = "tcp:localhost:110"\n[policy]\ngeo_files = ["{path}"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_hooks(load(str(config), {}))
    (found,) = caught.value.mistakes
    return found


def test_a_file_that_is_none_is_a_mistake_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("maxminddb")
    path = tmp_path / "test.mmdb"
    cannot = f"policy.geo_files: cannot read {path}: "
    assert mistake(tmp_path, path).startswith(f"{cannot}No such file")
    path.mkdir()
    assert mistake(tmp_path, path).startswith(cannot)
    path.rmdir()
    for text in (b"", b"no database"):
        path.write_bytes(text)
        said = mistake(tmp_path, path)
        assert said.startswith(f"policy.geo_files: {path} is no MaxMind DB file; name one like")
    monkeypatch.setattr(geo, "MAX_OCTETS", 10)
    assert "has more than 10 octets; name a smaller one" in mistake(tmp_path, path)


def test_without_the_library_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    said = mistake(tmp_path, tmp_path / "test.mmdb")
    assert said == "policy.geo_files needs maxminddb; install pop3proxy[geo]"


def test_no_library_is_needed_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    assert policy([]).engine.geo.place(HOME) == Place()


# --- changes ----------------------------------------------------------------------------------------------


def test_a_file_that_changes_is_read_again_and_a_bad_one_is_not_used(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchedfiles, "deferToThread", maybeDeferred)
    hook = FailedLogins(
        Policy.model_validate(
            {"rules": [rule("failures", "log", country=["DE"])], "geo_files": files}
        )
    )
    clock = Clock()
    hook.start(clock)
    assert hook.engine.geo.place(HOME).country == "AT"
    new = Path(files[0]).with_name("new")
    new.write_bytes(mmdb({"192.0.2.0/24": {"country": {"iso_code": "DE"}}}))
    os.replace(new, files[0])
    with capturedLogs() as events:
        clock.pump([LOOK_EVERY] * 2)
    assert hook.engine.geo.place(HOME) == Place("DE", "64496")
    assert [str(formatEvent(event)) for event in events] == [
        f"policy: {files[0]} and {files[1]} read again: Test, Test-asn"
    ]
    Path(files[0]).write_bytes(b"cut")
    with capturedLogs() as events:
        clock.pump([LOOK_EVERY] * 2)
    (said,) = [str(formatEvent(event)) for event in events]
    assert said.endswith("; what was read before stays in use")
    assert hook.engine.geo.place(HOME) == Place("DE", "64496")
    hook.stop()
    assert clock.getDelayedCalls() == []


def test_reading_raises_one_line(tmp_path: Path) -> None:
    pytest.importorskip("maxminddb")
    with pytest.raises(PolicyFileError) as caught:
        Geo(Policy(geo_files=(str(tmp_path),)))
    assert "\n" not in str(caught.value)
