"""Countries and providers come from local files of MaxMind's format."""

from pathlib import Path

import pytest

from pop3proxy.reports.addresses import IPV4_NETWORK, IPV6_NETWORK, Places, read
from pop3proxy.reports.problems import ReportError

from .attackday import BOTS, BRUTE, SPRAYER, AttackDay
from .conftest import THE_DAY, rows_of
from .mmdb import mmdb

COUNTRIES = {
    f"{BRUTE}/32": {"country": {"iso_code": "XA"}},
    f"{SPRAYER}/32": {"country": {"iso_code": "XB"}},
    "100.64.0.0/10": {"country": {"iso_code": "XC"}},
    "2001:db8:f000::/36": {"country": {"iso_code": "XC"}},
}
PROVIDERS = {
    "203.0.113.0/24": {
        "autonomous_system_number": 64496,
        "autonomous_system_organization": "Example Networks of a long Name, Limited",
    },
}


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    (tmp_path / "country.mmdb").write_bytes(mmdb(COUNTRIES))
    (tmp_path / "asn.mmdb").write_bytes(mmdb(PROVIDERS))
    return [str(tmp_path / "country.mmdb"), str(tmp_path / "asn.mmdb")]


def test_source_countries(places: list[str], files: list[Path], day: AttackDay) -> None:
    found = {
        row["country"]: row for row in rows_of("source-countries", files, THE_DAY, places=places)
    }
    assert found["XA"]["failures"] == 600
    assert found["XA"]["accounts_entered"] == 1
    assert found["XB"]["accounts_tried"] == 200
    assert (found["XC"]["failures"], found["XC"]["addresses"]) == (BOTS * 3, BOTS)
    judged = len(day.truth.of_the_day())
    assert sum(row["failures"] + row["successes"] for row in found.values()) == judged
    assert set(found) == {"XA", "XB", "XC", "unknown"}


def test_source_providers(places: list[str], files: list[Path]) -> None:
    found = {row["asn"]: row for row in rows_of("source-providers", files, THE_DAY, places=places)}
    assert set(found) == {64496, None}
    assert found[64496]["provider"] == "Example Networks of a long Name, Limited"
    assert found[64496]["failures"] == 600


def test_networks_are_those_of_the_policy() -> None:
    from pop3proxy.hooks.policy.config import Policy

    fields = Policy.model_fields
    assert fields["ipv4_network"].default == IPV4_NETWORK
    assert fields["ipv6_network"].default == IPV6_NETWORK


def test_ipv6_is_looked_up_in_a_file_of_ipv4_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "four.mmdb"
    path.write_bytes(mmdb({f"{BRUTE}/32": COUNTRIES[f"{BRUTE}/32"]}, ip_version=4))
    with Places([str(path)]) as places:
        assert places.known(BRUTE, read(BRUTE)).country == "XA"
        assert places.known("2001:db8::1", read("2001:db8::1")).country is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mmdb"
    content = mmdb({f"{BRUTE}/32": {"country": {"iso_code": "XA"}}})
    # The length of the first text says more than the file has.
    path.write_bytes(content.replace(b"\x47country", b"\x5dcountry"))
    with Places([str(path)]) as places, pytest.raises(ReportError, match="is damaged"):
        places.known(BRUTE, read(BRUTE))
