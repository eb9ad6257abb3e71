"""Set files: what is in them, that elements never overlap, and that nft takes them."""

import os
import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3proxy.hooks.policy.export import nftset
from pop3proxy.hooks.policy.export.nftset import Network, apart, rendered, replace_file
from pop3proxy.hooks.policy.export.targets import Targets
from pop3proxy.hooks.policy.export.trouble import ExportTrouble
from tests.integration.processes import own_network, program

BANNED: list[tuple[Network, float]] = [
    (ip_network("192.0.2.1"), 600.4),
    (ip_network("198.51.100.0/24"), 3600.0),
    (ip_network("198.51.100.9"), 10.0 * 365 * 86400),
    (ip_network("2001:db8:1::/48"), 0.2),
    (ip_network("2001:db8:1:2::/64"), 60.0),
    (ip_network("2001:db8:2:2::/64"), 10.0 * 365 * 86400),
]


@pytest.fixture(scope="module")
def nft() -> list[str]:
    """The words that run nft in a network of its own, where it harms no firewall."""
    return [*own_network(), program("nft")]


def text(banned: list[tuple[Network, float]]) -> str:
    return "".join(rendered("pop3proxy", banned))


def elements(written: str) -> list[tuple[str, int]]:
    return [
        (network, int(seconds))
        for network, seconds in re.findall(r"([0-9a-f.:/]+) timeout (\d+)s", written)
    ]


def test_each_version_has_its_set_and_each_element_its_timeout() -> None:
    lines = text(BANNED).splitlines()
    assert lines[-4:] == [
        "flush set inet pop3proxy banned4",
        "add element inet pop3proxy banned4"
        " { 192.0.2.1 timeout 601s, 198.51.100.0/24 timeout 3600s }",
        "flush set inet pop3proxy banned6",
        "add element inet pop3proxy banned6"
        " { 2001:db8:1::/48 timeout 1s, 2001:db8:2:2::/64 timeout 31536000s }",
    ]


def test_without_bans_the_sets_are_made_and_emptied() -> None:
    lines = text([]).splitlines()
    assert "\tset banned4 { type ipv4_addr; flags interval, timeout; }" in lines
    assert lines[-2:] == [
        "flush set inet pop3proxy banned4",
        "flush set inet pop3proxy banned6",
    ]


NETWORKS = st.builds(
    lambda number, bits: IPv4Network((number >> (32 - bits) << (32 - bits), bits)),
    st.integers(0x0A000000, 0x0A0000FF),
    st.integers(24, 32),
)


@settings(deadline=None)  # other threads get their turn within it
@given(st.lists(st.tuples(NETWORKS, st.floats(1, 1e6)), max_size=40), st.integers(1, 5))
def test_no_element_lies_in_another_and_none_is_left_out(
    banned: list[tuple[Network, float]], portion: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nftset, "_SORTED", portion)
        written = list(apart(banned))
    for index, (network, _) in enumerate(written):
        assert not any(network.overlaps(other) for other, _ in written[index + 1 :])
    for network, seconds in banned:
        (around,) = [each for each in written if each[0].overlaps(network)]
        assert around[0].prefixlen <= network.prefixlen
        if around[0] == network:
            assert around[1] >= seconds


def test_nft_takes_a_file_and_takes_it_again(nft: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bans.nft"
    for banned in ([], BANNED):
        replace_file(str(path), "pop3proxy", banned)
        subprocess.run([*nft, "-c", "-f", str(path)], check=True)
    shell = f"{nft[-1]} -f {path} && {nft[-1]} -f {path} && {nft[-1]} list table inet pop3proxy"
    listed = subprocess.run(
        [*nft[:-1], "sh", "-c", shell], check=True, capture_output=True, text=True
    ).stdout
    assert "192.0.2.1 timeout 10m1s" in listed
    assert "198.51.100.0/24 timeout 1h" in listed
    assert "2001:db8:2:2::/64 timeout 365d" in listed
    assert "198.51.100.9" not in listed


def test_nft_takes_a_file_of_many(nft: list[str], tmp_path: Path) -> None:
    many = [(ip_network((0x0A000000 + 2 * number, 32)), 60.0) for number in range(5000)]
    path = tmp_path / "bans.nft"
    replace_file(str(path), "pop3proxy", many)
    subprocess.run([*nft, "-c", "-f", str(path)], check=True)
    assert len(elements(path.read_text())) == 5000


def test_the_example_of_a_firewall_takes_the_file(nft: list[str], tmp_path: Path) -> None:
    example = Path(__file__).parents[4] / "conf" / "pop3proxy.nft"
    path = tmp_path / "bans.nft"
    replace_file(str(path), "pop3proxy", BANNED)
    shell = f"{nft[-1]} -f {example} && {nft[-1]} -f {path} && {nft[-1]} list table inet pop3proxy"
    # Bans may be there before the firewall's rules, too.
    for commands in (shell, f"{nft[-1]} -f {path} && {shell}"):
        listed = subprocess.run(
            [*nft[:-1], "sh", "-c", commands], check=True, capture_output=True, text=True
        ).stdout
        assert "ip saddr @banned4" in listed
        assert "ip6 saddr @banned6" in listed
        assert "192.0.2.1 timeout" in listed


# --- the file ---------------------------------------------------------------------------------------------


def test_the_file_is_replaced_and_no_other_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bans.nft"
    path.write_text("old")
    (tmp_path / ".bans.nft.new").write_text("of a proxy that was killed")
    with path.open() as held:
        replace_file(str(path), "pop3proxy", BANNED)
        # Whoever has it open still reads the old one, whole.
        assert held.read() == "old"
    assert elements(path.read_text())[0] == ("192.0.2.1", 601)
    assert os.listdir(tmp_path) == ["bans.nft"]
    assert path.stat().st_mode & 0o137 == 0


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "bans.nft"
    path.write_text("old")

    def broken() -> Iterator[tuple[Network, float]]:
        yield BANNED[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(ExportTrouble, match=r"nft_file: cannot write .*: No space left on device;"):
        replace_file(str(path), "pop3proxy", broken())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["bans.nft"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportTrouble, match="make its folder writable"):
        replace_file(str(tmp_path / "no" / "bans.nft"), "pop3proxy", [])


# --- which networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "networks"),
    [
        ("address:192.0.2.1", ["192.0.2.1/32"]),
        ("network:192.0.2.0/24", ["192.0.2.0/24"]),
        ("address:2001:db8::/64", ["2001:db8::/64"]),
        ("address:/run/client", []),
        # Two allowed addresses in a banned network, and one that is allowed itself.
        ("network:203.0.113.0/29", ["203.0.113.0/31", "203.0.113.3/32", "203.0.113.4/30"]),
        ("address:203.0.113.2", []),
        ("address:2001:db8:ff::/64", []),
    ],
)
def test_a_key_means_networks_without_what_is_allowed(key: str, networks: list[str]) -> None:
    allow = [ip_network("203.0.113.2/32"), ip_network("2001:db8:ff::/48")]
    assert sorted(map(str, Targets(allow).networks(key))) == networks


@settings(deadline=None)  # a busy machine is no failure
@given(NETWORKS, st.lists(NETWORKS, max_size=8))
def test_what_is_banned_and_what_is_allowed_do_not_overlap_and_leave_nothing_out(
    banned: IPv4Network, allow: list[IPv4Network]
) -> None:
    left = Targets(allow).networks(f"network:{banned}")
    addresses = {address for network in left for address in network}
    assert addresses == set(banned) - {address for network in allow for address in network}
    assert sum(network.num_addresses for network in left) == len(addresses)


def test_what_is_allowed_for_now_is_banned_again_later() -> None:
    targets, key = Targets([ip_network("192.0.2.9/32")]), "address:192.0.2.1"
    assert targets.networks(key) == (ip_network("192.0.2.1"),)
    targets.allow_for_now((ip_network("192.0.2.0/24"),))
    assert targets.networks(key) == ()
    targets.allow_for_now(())
    assert targets.networks(key) == (ip_network("192.0.2.1"),)
    assert targets.networks("address:192.0.2.9") == ()
