"""Keys of addresses are what the library makes of them, also where they are made faster."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.users import Addresses


@given(st.ip_addresses(), st.integers(8, 32), st.integers(8, 32))
def test_places_are_the_address_and_its_network(host: object, one: int, other: int) -> None:
    prefix, network = max(one, other), min(one, other)
    addresses = Addresses(Policy(ipv4_prefix=prefix, ipv4_network=network))
    found = ip_address(str(host))
    if found.version == 6:
        found = getattr(found, "ipv4_mapped", None) or found
    bits = (prefix, network) if found.version == 4 else (64, 48)
    own, around = (str(ip_network((found, each), strict=False)) for each in bits)
    address = str(found) if bits[0] == found.max_prefixlen else own
    assert addresses.places(str(host)) == (f"address:{address}", f"network:{around}")
    assert addresses.address(str(host)) == address
    assert addresses.network(str(host)) == around


@pytest.mark.parametrize(
    "host", ["", "mail.example", "1.2.3", "01.2.3.4", "1.2.3.4\0", "é", "\ud800"]
)
def test_what_is_no_address_is_its_own_place(host: str) -> None:
    assert Addresses(Policy()).places(host) == (f"address:{host}", f"network:{host}")
