"""PROXY headers: what is read out of them, however they are cut, and what is built."""

import struct
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.analyzer.events import Tls
from pop3proxy.proxy.proxyfields import Fields
from pop3proxy.proxy.proxyheader import (
    LONGEST_V1,
    LONGEST_V2,
    SIGNATURE_V2,
    Header,
    HeaderError,
    Reader,
    begins,
    version_1,
    version_2,
)

BEHIND = b"USER bob\r\n"
NOBODY = Header()
V4 = Header(("192.0.2.1", 56324), ("198.51.100.2", 110))
V6 = Header(("2001:db8::1", 1), ("2001:db8::2", 65535))
V4_BLOCK = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 56324, 110)
V6_BLOCK = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02") + (
    struct.pack("!HH", 1, 65535)
)
TLVS = b"\x02\x00\x04mail\x05\x00\x01x\x04\x00\x00"
LONGEST = (
    b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    b" ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
)


def v2(block: bytes = b"", command: int = 0x21, family: int = 0x11, length: int = -1) -> bytes:
    length = len(block) if length < 0 else length
    return SIGNATURE_V2 + struct.pack("!BBH", command, family, length) + block


GOOD = {
    "tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 110\r\n", V4),
    "tcp6": (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 65535\r\n", V6),
    "mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 56324 110\r\n", V4),
    "unknown, short": (b"PROXY UNKNOWN\r\n", NOBODY),
    "unknown, long": (LONGEST, NOBODY),
    "unknown, odd": (b"PROXY UNKNOWN  \x00 \xff anything\r\n", NOBODY),
    "v2 tcp4": (v2(V4_BLOCK), V4),
    "v2 tcp4, fields": (v2(V4_BLOCK + TLVS), V4),
    "v2 tcp6": (v2(V6_BLOCK, family=0x21), V6),
    "v2 mapped": (
        v2(
            bytes(10) + b"\xff\xff" + V4_BLOCK[:4] + bytes(10) + b"\xff\xff" + V4_BLOCK[4:],
            family=0x21,
        ),
        V4,
    ),
    "v2 unix": (v2(bytes(216), family=0x31), NOBODY),
    "v2 unspec": (v2(family=0x00), NOBODY),
    "v2 unspec, fields": (v2(TLVS, family=0x00), NOBODY),
    "v2 local": (v2(command=0x20, family=0x00), NOBODY),
    "v2 local, addresses and fields": (v2(V4_BLOCK + TLVS, command=0x20), NOBODY),
    "v2 local, unknown family": (v2(b"abc", command=0x20, family=0x77), NOBODY),
    "v2 local, too short for its addresses": (v2(V4_BLOCK[:-1], command=0x20), NOBODY),
    "v2 longest": (v2(V4_BLOCK + b"\x04\x0f\xf1".ljust(LONGEST_V2 - 12, b"\0")), V4),
}

BAD = {
    "other bytes": (b"USER bob\r\n", "there is none"),
    "almost": (b"PROXY\r\n", "there is none"),
    "lower case": (b"proxy TCP4", "there is none"),
    "almost v2": (SIGNATURE_V2[:-1] + b"X", "there is none"),
    "bare LF": (b"PROXY UNKNOWN\n", "does not end in CRLF"),
    "bare CR": (b"PROXY UNKNOWN\r ", "does not end in CRLF"),
    "two CRs": (b"PROXY UNKNOWN x\r\r\n", "does not end in CRLF"),
    "too long": (LONGEST[:-2].ljust(LONGEST_V1, b" "), "longer than 107"),
    "too long, with its end": (LONGEST[:-2] + b" " + b"\r\n", "longer than 107"),
    "protocol": (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", "none of TCP4"),
    "protocol, case": (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", "none of TCP4"),
    "unknown, longer word": (b"PROXY UNKNOWNX\r\n", "none of TCP4"),
    "too few": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "two addresses"),
    "too many": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", "two addresses"),
    "two blanks": (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", "two addresses"),
    "family": (b"PROXY TCP4 ::1 1.2.3.4 1 1\r\n", "addresses"),
    "families mixed": (b"PROXY TCP6 2001:db8::1 1.2.3.4 1 1\r\n", "addresses"),
    "leading zero": (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n", "addresses"),
    "zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "addresses"),
    "host name": (b"PROXY TCP4 localhost 1.2.3.4 1 1\r\n", "addresses"),
    "port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", "ports"),
    "port, zeros": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 0110\r\n", "ports"),
    "port, sign": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +1\r\n", "ports"),
    "port, none": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "ports"),
    "not ASCII": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xd9\xa1\r\n", "not ASCII"),
    "v2 version": (v2(V4_BLOCK, command=0x11), "of version 1"),
    "v2 command": (v2(V4_BLOCK, command=0x22), "unknown command 2"),
    "v2 datagram": (v2(V4_BLOCK, family=0x12), "no stream's"),
    "v2 family": (v2(V4_BLOCK, family=0x41), "no stream's"),
    "v2 short": (v2(V4_BLOCK[:-1]), "too short"),
    "v2 short, tcp6": (v2(V6_BLOCK[:-1], family=0x21), "too short"),
    "v2 long": (v2(length=LONGEST_V2 + 1), "longer than 4096"),
    "v2 field, cut off": (v2(V4_BLOCK + TLVS + b"\x04\x00"), "last field is cut off"),
    "v2 field, too long": (v2(V4_BLOCK + b"\x04\x00\x01"), "field 0x04 is longer than the header"),
    "v2 field, too long, unspec": (v2(b"\xea\x00\x09vpce", family=0x00), "field 0xea is longer"),
    "v2 field, too long, local": (
        v2(V4_BLOCK + b"\x02\xff\xffmail", command=0x20),
        "field 0x02 is longer",
    ),
    "v2 long, local": (v2(command=0x20, length=0xFFFF), "longer than 4096"),
}


def read(*chunks: bytes) -> tuple[Header, bytes] | None:
    reader = Reader()
    for index, chunk in enumerate(chunks):
        found = reader.feed(chunk)
        if found is not None:
            return found[0], found[1] + b"".join(chunks[index + 1 :])
    return None


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_and_what_is_behind_it_is_given_back(name: str) -> None:
    data, header = GOOD[name]
    assert read(data) == (header, b"")
    assert read(data + BEHIND) == (header, BEHIND)


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_octet_by_octet_and_not_before_its_last(name: str) -> None:
    data, header = GOOD[name]
    reader = Reader()
    for octet in data[:-1]:
        assert reader.feed(bytes([octet])) is None
    assert reader.feed(data[-1:] + BEHIND) == (header, BEHIND)


@given(st.sampled_from(sorted(GOOD)), st.integers(min_value=1))
def test_a_header_is_read_wherever_it_is_cut(name: str, where: int) -> None:
    data, header = GOOD[name]
    cut = where % len(data)
    assert read(data[:cut], data[cut:] + BEHIND) == (header, BEHIND)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_with_the_reason_whole_and_octet_by_octet(name: str) -> None:
    data, why = BAD[name]
    for chunks in ([data], [bytes([octet]) for octet in data]):
        with pytest.raises(HeaderError, match=why) as raised:
            read(*chunks)
        assert raised.value.missing is (why == "there is none")


def test_the_longest_line_is_as_long_as_the_specification_has_it() -> None:
    assert len(LONGEST) == 104 + len("\r\n") + 1 == LONGEST_V1


@pytest.mark.parametrize("data", [BEHIND, b"\x16\x03\x01", b"\n", b"\x00", b"p"])
def test_what_cannot_be_a_header_is_known_by_its_first_octet(data: bytes) -> None:
    with pytest.raises(HeaderError) as raised:
        Reader().feed(data[:1])
    assert raised.value.missing


BYTES = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=120).map(lambda tail: b"PROXY " + tail),
    st.binary(max_size=300).map(lambda tail: SIGNATURE_V2 + tail),
    st.binary(max_size=300).map(lambda tail: SIGNATURE_V2 + b"\x21" + tail),
)


@given(BYTES, st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_are_read_alike_however_they_are_cut(data: bytes, where: list[int]) -> None:
    cuts = [0, *sorted(min(cut, len(data)) for cut in where), len(data)]
    chunks = [data[start:end] for start, end in pairwise(cuts)]

    def outcome(*parts: bytes) -> object:
        try:
            return read(*parts)
        except HeaderError as problem:
            return problem.missing

    assert outcome(*chunks) == outcome(data)


@given(BYTES)
def test_a_reader_keeps_no_more_than_a_header_has(data: bytes) -> None:
    reader = Reader()
    fed = 0
    try:
        for octet in data * 20:
            if reader.feed(bytes([octet])) is not None:
                return
            fed += 1
    except HeaderError:
        pass
    assert fed <= LONGEST_V2 + 16


# --- whether there is one -------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", [b"PROXY ", SIGNATURE_V2])
def test_a_signature_is_known_when_it_is_whole(signature: bytes) -> None:
    assert begins(signature + BEHIND) is True
    for end in range(len(signature)):
        assert begins(signature[:end]) is None
        assert begins(signature[:end] + b"~") is False


# --- building -------------------------------------------------------------------------------------------

HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
PORTS = st.integers(0, 65535)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mail.example.org", "pop3", "CN=bob")


def as_read(host: str, port: int) -> tuple[str, int]:
    """An address as it comes back: IPv4 mapped into IPv6 is that IPv4 address."""
    found = read(version_2((host, port), (host, port)))
    assert found is not None
    assert found[0].source is not None
    return found[0].source


@given(HOSTS, HOSTS, PORTS, PORTS)
def test_what_is_built_is_read_again(a: str, b: str, from_port: int, to_port: int) -> None:
    source, destination = (a, from_port), (b, to_port)
    header = Header(as_read(*source), as_read(*destination))
    one = version_1(source, destination)
    assert len(one) <= LONGEST_V1
    assert read(one + BEHIND) == (header, BEHIND)
    # A header can say the common name of a client's certificate, and we send none.
    told = replace(header, fields=Fields(replace(TLS, client=""), tells_tls=True))
    assert read(version_2(source, destination, "Cuid", TLS) + BEHIND) == (told, BEHIND)


def test_version_1_is_built_as_the_specification_has_it() -> None:
    assert V4.source
    assert V4.destination
    assert version_1(V4.source, V4.destination) == GOOD["tcp4"][0]


@pytest.mark.parametrize("host", ["", "/run/pop3.sock", "localhost"])
def test_an_address_that_is_none_makes_the_client_unknown(host: str) -> None:
    for pair in [((host, 0), ("192.0.2.1", 110)), (("192.0.2.1", 110), (host, 0))]:
        assert version_1(*pair) == b"PROXY UNKNOWN\r\n"
        assert version_2(*pair) == v2(family=0x00)


def test_families_that_differ_are_made_one() -> None:
    pair = ("2001:db8::1", 4000), ("192.0.2.1", 110)
    assert version_1(*pair) == b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 4000 110\r\n"
    assert version_1(*reversed(pair)) == b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 110 4000\r\n"
    assert version_2(*pair)[13] == 0x21


def test_a_zone_is_left_out() -> None:
    line = version_1(("fe80::1%eth0", 1), ("fe80::2%2", 2))
    assert line == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"


def fields(data: bytes) -> dict[int, bytes]:
    """The type-length-value fields of some octets."""
    found = {}
    while data:
        kind, length = struct.unpack_from("!BH", data)
        found[kind] = data[3 : 3 + length]
        data = data[3 + length :]
    return found


def test_version_2_tells_the_uid_and_the_tls_of_the_client() -> None:
    built = version_2(("192.0.2.1", 1), ("192.0.2.2", 2), "Cuid", TLS)
    found = fields(built[16 + 12 :])
    assert found.keys() == {0x01, 0x02, 0x05, 0x20}
    assert (found[0x01], found[0x02], found[0x05]) == (b"pop3", b"mail.example.org", b"Cuid")
    assert struct.unpack_from("!BI", found[0x20]) == (0x07, 0)
    assert fields(found[0x20][5:]) == {0x21: b"TLSv1.3", 0x23: b"TLS_AES_256_GCM_SHA384"}


def test_a_client_without_a_certificate_is_said_to_be_not_verified() -> None:
    built = version_2(("192.0.2.1", 1), ("192.0.2.2", 2), tls=Tls("TLSv1.2", "X"))
    found = fields(built[16 + 12 :])
    assert found.keys() == {0x20}
    assert struct.unpack_from("!BI", found[0x20]) == (0x01, 1)


def test_a_uid_is_no_longer_than_the_specification_allows() -> None:
    assert len(fields(version_2(("", 0), ("", 0), "x" * 500)[16:])[0x05]) == 128
