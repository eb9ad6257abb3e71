"""The fields of a PROXY header: the checksum, and what a load balancer says of the client's TLS."""

import struct

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.analyzer.events import Tls
from pop3proxy.proxy.crc32c import crc32c
from pop3proxy.proxy.proxyfields import LONGEST_TEXT, NO_FIELDS, FieldError, Fields, read_fields
from pop3proxy.proxy.proxyheader import SIGNATURE_V2, Header, HeaderError, Reader

ADDRESSES = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 56324, 110)
START = len(SIGNATURE_V2) + 4 + len(ADDRESSES)


def field(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def header(fields: bytes, command: int = 0x21) -> bytes:
    block = ADDRESSES + fields
    return SIGNATURE_V2 + struct.pack("!BBH", command, 0x11, len(block)) + block


def read(fields: bytes) -> Fields:
    return read_fields(header(fields), START)


# --- the checksum ---------------------------------------------------------------------------------------

EMPTY_CRC = field(0x03, bytes(4))


def checked(before: bytes = b"", behind: bytes = b"", command: int = 0x21) -> bytes:
    """A header with its checksum between other fields."""
    whole = header(before + EMPTY_CRC + behind, command)
    at = START + len(before) + 3
    return whole[:at] + struct.pack("!I", crc32c(whole)) + whole[at + 4 :]


@pytest.mark.parametrize("command", [0x20, 0x21], ids=["local", "proxy"])
@pytest.mark.parametrize(
    ("before", "behind"),
    [(b"", b""), (field(0x04, b"xx"), b""), (b"", field(0x05, b"id"))],
    ids=["alone", "last", "first"],
)
def test_a_right_checksum_is_accepted_wherever_it_stands(
    before: bytes, behind: bytes, command: int
) -> None:
    data = checked(before, behind, command)
    found = Reader().feed(data + b"CAPA\r\n")
    assert found is not None
    assert found[1] == b"CAPA\r\n"


# A flip in the signature, the lengths or the command makes no header, or another one.
COVERED = [*range(16, START), *range(START + 3, START + 5)]


@given(st.sampled_from([0x20, 0x21]), st.sampled_from(COVERED), st.integers(0, 7))
def test_any_flipped_bit_of_a_header_with_a_checksum_refuses_it(
    command: int, at: int, bit: int
) -> None:
    whole = bytearray(checked(field(0x04, b"xx"), field(0x05, b"id"), command))
    whole[at] ^= 1 << bit
    with pytest.raises(HeaderError, match=r"its checksum \(CRC32C\) is wrong"):
        Reader().feed(bytes(whole))


def test_a_checksum_of_another_length_is_refused() -> None:
    with pytest.raises(FieldError, match="its checksum has 3 bytes and not 4"):
        read(field(0x03, bytes(3)))


def test_without_a_checksum_none_is_compared() -> None:
    assert read(field(0x04, b"anything")) == NO_FIELDS


# --- what breaks fields ---------------------------------------------------------------------------------

SSL = struct.pack("!BI", 0x01, 0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (b"\x04", "its last field is cut off"),
        (b"\x04\x00", "its last field is cut off"),
        (field(0x04, b"") + b"\x04\x00", "its last field is cut off"),
        (b"\x04\x00\x01", "its field 0x04 is longer than the header"),
        (b"\xea\xff\xffx", "its field 0xea is longer than the header"),
        (EMPTY_CRC + EMPTY_CRC, "it has two fields 0x03"),
        (field(0x20, SSL) * 2, "it has two fields 0x20"),
        (field(0x02, b"a") + field(0x02, b"b"), "it has two fields 0x02"),
        (field(0x20, b""), "its field 0x20 is cut off"),
        (field(0x20, SSL[:-1]), "its field 0x20 is cut off"),
        (field(0x20, SSL + b"\x21"), "its last field is cut off"),
        (field(0x20, SSL + b"\x21\x00\x08TLSv1.3"), "its field 0x21 is longer than the header"),
        (field(0x20, bytes(5) + b"\x21\x00\x08TLSv1.3"), "its field 0x21 is longer"),
        (field(0x20, SSL + field(0x21, b"TLSv1.2") + field(0x21, b"TLSv1.3")), "two fields 0x21"),
    ],
)
def test_broken_fields_are_refused_with_the_reason(fields: bytes, why: str) -> None:
    with pytest.raises(FieldError, match=why):
        read(fields)


def test_kinds_that_are_not_read_may_come_as_often_as_they_like() -> None:
    assert read(field(0x04, b"") * 5 + field(0xEA, b"x") * 2) == NO_FIELDS


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_refused(data: bytes) -> None:
    try:
        found = read(data)
    except FieldError:
        return
    assert (found.tls is None) or found.tells_tls


# --- the client's TLS -----------------------------------------------------------------------------------


def ssl(flags: int, verify: int = 0, **inner: bytes) -> bytes:
    kinds = {"version": 0x21, "name": 0x22, "cipher": 0x23}
    parts = b"".join(field(kinds[name], value) for name, value in inner.items())
    return field(0x20, struct.pack("!BI", flags, verify) + parts)


FULL = {"version": b"TLSv1.3", "cipher": b"TLS_AES_128_GCM_SHA256", "name": b"bob"}


def test_the_facts_of_the_clients_tls_are_read() -> None:
    fields = field(0x01, b"pop3") + field(0x02, b"mail.example.org") + ssl(0x07, 0, **FULL)
    expected = Tls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "mail.example.org", "pop3", "CN=bob")
    assert read(fields) == Fields(expected, tells_tls=True)


def test_a_client_without_tls_at_the_load_balancer_is_said_to_have_none() -> None:
    assert read(ssl(0x00, 1, **FULL)) == Fields(None, tells_tls=True)


def test_tls_without_facts_is_tls_all_the_same() -> None:
    assert read(ssl(0x01)) == Fields(Tls("", ""), tells_tls=True)


@pytest.mark.parametrize(
    ("flags", "verify", "client"),
    [(0x03, 0, "CN=bob"), (0x05, 0, "CN=bob"), (0x01, 0, ""), (0x07, 1, ""), (0x03, 2**31, "")],
)
def test_only_a_certificate_that_was_shown_and_verified_names_the_client(
    flags: int, verify: int, client: str
) -> None:
    found = read(ssl(flags, verify, **FULL)).tls
    assert found is not None
    assert found.client == client


def test_text_has_a_bound_and_no_line_of_its_own() -> None:
    found = read(ssl(0x01, version=b"T\r\nx\xff", cipher=b"c" * 4000)).tls
    assert found == Tls("T??x\\xff", "c" * LONGEST_TEXT)


@pytest.mark.parametrize(
    "name", ["bob", "Bob, Ltd", "#1", " x", "x ", " ", "  ", 'a+b"c\\d<e>f;g', "a=b", "\u00e4"]
)
def test_a_name_is_written_as_in_a_subject(name: str) -> None:
    found = read(ssl(0x03, name=name.encode())).tls
    assert found is not None
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, name)
    assert x509.Name.from_rfc4514_string(found.client) == x509.Name([attribute])
    assert found.client == x509.Name([attribute]).rfc4514_string()


def test_a_proxy_that_speaks_for_itself_says_nothing_of_a_client() -> None:
    local = header(ssl(0x01, 0, **FULL), command=0x20)
    assert Reader().feed(local) == (Header(), b"")
