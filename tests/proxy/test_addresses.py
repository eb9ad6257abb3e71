"""Hosts and ports out of Twisted's addresses and endpoint strings."""

import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from pop3proxy.proxy.addresses import destination, host_and_port, host_and_port_of
from pop3proxy.proxy.proxyheader import is_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (IPv4Address("TCP", "192.0.2.1", 110), ("192.0.2.1", 110)),
        (IPv6Address("TCP", "2001:db8::1", 110), ("2001:db8::1", 110)),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 4000), ("192.0.2.1", 4000)),
        (IPv6Address("TCP", "::ffff:192.0.2.1%eth0", 4000), ("192.0.2.1", 4000)),
        (IPv6Address("TCP", "fe80::1%eth0", 110), ("fe80::1%eth0", 110)),
        (IPv6Address("TCP", "::ffff:0:192.0.2.1", 1), ("::ffff:0:192.0.2.1", 1)),
        (UNIXAddress(b"/run/pop3"), ("/run/pop3", 0)),
        (UNIXAddress(b"/run/\xff"), ("/run/\udcff", 0)),
        (UNIXAddress(None), ("", 0)),
        (None, ("", 0)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: Any, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp:mail.example.org:110", ("mail.example.org", 110)),
        ("tcp:host=mail.example.org:port=110", ("mail.example.org", 110)),
        ("tcp:host=mail.example.org:110", ("mail.example.org", 110)),
        ("tcp:mail.example.org:port=110", ("mail.example.org", 110)),
        ("tcp:port=110:host=mail.example.org", ("mail.example.org", 110)),
        ("tcp:mail.example.org:110:timeout=5", ("mail.example.org", 110)),
        ("tls:mail.example.org:995", ("mail.example.org", 995)),
        (r"tcp:2001\:db8\:\:1:110", ("2001:db8::1", 110)),
        (r"tcp:host=2001\:db8\:\:1:port=110", ("2001:db8::1", 110)),
        ("unix:/run/pop3", ("/run/pop3", 0)),
    ],
)
def test_an_endpoint_names_a_host_and_a_port(endpoint: str, expected: tuple[str, int]) -> None:
    assert destination(endpoint) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.1", 110), ("192.0.2.1", 110)),
        (("2001:db8::1", 110, 0, 0), ("2001:db8::1", 110)),
        (("::ffff:192.0.2.1", 4000, 0, 0), ("192.0.2.1", 4000)),
        (("fe80::1", 110, 0, socket.if_nametoindex("lo")), ("fe80::1%lo", 110)),
    ],
)
def test_the_address_of_a_socket_has_the_same_form(address: Any, expected: tuple[str, int]) -> None:
    assert host_and_port_of(address) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"/run/pop3", "/run/pop3"),
        (b"", ""),
        (b"192.0.2.1", "./192.0.2.1"),
        (b"::1", "./::1"),
        (b"\0::1", "\0::1"),
    ],
)
def test_a_path_is_no_address(name: bytes, expected: str) -> None:
    """A client of a UNIX socket binds its own to any path, and must not be allowed or trusted by it."""
    assert host_and_port(UNIXAddress(name)) == (expected, 0)
    assert not is_address(expected)
