"""Whom a certificate is for: real ones, in whose alternative names odd ones stand beside the right one."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.proxy.certificatenames import AlternativeNames

from .authority import Authority


def element(tag: int, value: bytes) -> bytes:
    """DER of one element."""
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 + len(length)]) + length + value


def names_of(*names: bytes) -> bytes:
    return element(0x30, b"".join(names))


def dns(name: bytes) -> bytes:
    return element(0x82, name)


RIGHT = dns(b"mail.example.org")
ADDRESS = element(0x87, bytes([192, 0, 2, 7]))

ODD = {
    "an address as a host name": dns(b"192.0.2.1"),
    "an asterisk": dns(b"*"),
    "an asterisk for a domain": dns(b"*.org"),
    "an asterisk within": dns(b"m*l.example.org"),
    "two asterisks": dns(b"*.*.org"),
    "an empty host name": dns(b""),
    "a blank": dns(b" "),
    "a host name with a NUL": dns(b"mail.example.org\0.example.net"),
    "a host name that is not ASCII": dns(b"m\xe4il.example.org"),
    "a long host name": dns(b"x" * 300),
    "a URI": element(0x86, b"https://mail.example.org/"),
    "a URI that is none": element(0x86, b"\xff\0"),
    "an empty URI": element(0x86, b""),
    "a mail address": element(0x81, b"mail.example.org"),
    "an address of three bytes": element(0x87, b"\x01\x02\x03"),
    "an empty address": element(0x87, b""),
    "an x400Address": element(0xA3, b"\x05\x00"),
    "an ediPartyName": element(0xA5, b""),
    "an otherName": element(0xA0, b"\x06\x01\x2a"),
    "a registered identifier": element(0x88, b"\x80"),
    "a directory name": element(0xA4, b"\x30\x00"),
    "an unknown kind": element(0x8F, b"mail.example.org"),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def issued(authority: Authority, *names: str, raw_names: bytes = b"") -> AlternativeNames:
    """What a real certificate is for."""
    chain, _ = authority.issue("leaf", *names, raw_names=raw_names)
    leaf = x509.load_pem_x509_certificate(Path(chain).read_bytes())
    return AlternativeNames(leaf.public_bytes(Encoding.DER))


@pytest.mark.parametrize("odd", ODD)
def test_the_right_name_counts_whatever_stands_before_or_behind_it(
    authority: Authority, odd: str
) -> None:
    for names in ((ODD[odd], RIGHT, ADDRESS), (RIGHT, ADDRESS, ODD[odd])):
        found = issued(authority, raw_names=names_of(*names))
        assert found.cover("mail.example.org")
        assert found.cover("192.0.2.7")
        assert not found.cover("other.example.org")
        assert not found.cover("192.0.2.8")


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_name_is_for_nobody(authority: Authority, odd: str) -> None:
    found = issued(authority, raw_names=names_of(ODD[odd]))
    for host in ("mail.example.org", "192.0.2.1", "example.org", "org", "localhost"):
        assert not found.cover(host)


@pytest.mark.parametrize(
    ("names", "host", "covered"),
    [
        (["mail.example.org"], "MAIL.example.ORG.", True),
        (["Mail.Example.ORG"], "mail.example.org", True),
        (["mail.example.org"], "example.org", False),
        (["example.org"], "mail.example.org", False),
        (["*.example.org"], "mail.example.org", True),
        (["*.example.org"], "xn--bcher-kva.example.org", True),
        (["*.example.org"], "a.mail.example.org", False),
        (["*.example.org"], "example.org", False),
        (["*.example.org"], ".example.org", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["2001:db8::7"], "2001:DB8:0::7", True),
        (["2001:db8::7"], "2001:db8::8", False),
        (["mail.example.org"], "192.0.2.7", False),
        ([], "leaf", False),
    ],
)
def test_names_are_compared_as_rfc_9525_has_it(
    authority: Authority, names: Sequence[str], host: str, covered: bool
) -> None:
    assert issued(authority, *names).cover(host) is covered


def test_names_behind_what_cannot_be_read_are_lost_and_those_before_it_are_not(
    authority: Authority,
) -> None:
    found = issued(authority, raw_names=names_of(RIGHT, b"\x82\x7fx", dns(b"lost.example.org")))
    assert found.hosts == ["mail.example.org"]


@given(st.binary(max_size=200))
def test_any_bytes_are_for_nobody(data: bytes) -> None:
    assert not AlternativeNames(data).cover("mail.example.org")


@given(st.integers(0), st.binary(min_size=1, max_size=3))
def test_a_damaged_certificate_raises_nothing(where: int, damage: bytes) -> None:
    whole = element(
        0x30,
        element(
            0x30,
            element(
                0xA3,
                names_of(
                    element(0x30, b"\x06\x03\x55\x1d\x11" + element(0x04, names_of(RIGHT, ADDRESS)))
                ),
            ),
        ),
    )
    assert AlternativeNames(whole).cover("mail.example.org")
    at = where % len(whole)
    AlternativeNames(whole[:at] + damage + whole[at + 1 :]).cover("mail.example.org")
    AlternativeNames(whole[:at]).cover("mail.example.org")
