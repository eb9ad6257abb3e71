"""JA4 of what clients say first: the examples of its description, real clients, and anything else."""

import re
import ssl
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.proxy.ja4 import LONGEST, Hello, fingerprint

CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
EXTENSIONS = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
SIGNATURES = "0403,0804,0401,0503,0805,0501,0806,0601"
"""Those of the example in the description."""

JA4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"


def numbers(text: str) -> bytes:
    return bytes.fromhex(text.replace(",", ""))


def vector(data: bytes, size: int = 2) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extensions(
    listed: str = EXTENSIONS,
    signatures: str = SIGNATURES,
    versions: str = "0304,0303",
    protocols: Iterable[bytes] = (b"h2", b"http/1.1"),
) -> bytes:
    own = {
        "000d": vector(numbers(signatures)),
        "002b": vector(numbers(versions), 1),
        "0010": vector(b"".join(vector(name, 1) for name in protocols)),
    }
    return b"".join(
        numbers(kind) + vector(own.get(kind, b"")) for kind in listed.split(",") if kind
    )


def body(ciphers: str = CIPHERS, more: bytes | None = None, version: int = 0x0303) -> bytes:
    """Return the body of a ClientHello; ``more`` are its extensions."""
    head = struct.pack("!H32s", version, bytes(32)) + vector(b"session", 1)
    rest = vector(numbers(ciphers)) + vector(b"\0", 1)
    return head + rest + vector(extensions() if more is None else more)


def message(hello: bytes) -> bytes:
    return b"\x01" + vector(hello, 3)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"\x16\x03\x01" + vector(part) for part in parts)


def read(data: bytes, cut: int = 1 << 20) -> Hello:
    hello = Hello()
    for at in range(0, len(data), cut):
        hello.feed(data[at : at + cut])
    return hello


# --- the description ------------------------------------------------------------------------------------


def test_the_example_of_the_description() -> None:
    assert fingerprint(body()) == JA4


def test_without_signature_algorithms_the_list_of_extensions_is_hashed_alone() -> None:
    assert fingerprint(body(more=extensions(signatures=""))).endswith("_6d807ffa2a79")


def test_the_order_of_ciphers_and_extensions_does_not_matter_and_that_of_signatures_does() -> None:
    def turned(text: str) -> str:
        return ",".join(reversed(text.split(",")))

    assert fingerprint(body(turned(CIPHERS), extensions(turned(EXTENSIONS)))) == JA4
    other = fingerprint(body(more=extensions(signatures=turned(SIGNATURES))))
    assert other[:23] == JA4[:23]
    assert other != JA4


def test_grease_is_left_out_everywhere() -> None:
    more = extensions(
        f"0a0a,{EXTENSIONS},fafa", f"1a1a,{SIGNATURES}", "8a8a,0304,0303", (b"h2", b"x")
    )
    assert fingerprint(body(f"3a3a,{CIPHERS}", more)) == JA4


def test_what_only_looks_like_grease_counts() -> None:
    assert fingerprint(body(f"{CIPHERS},0a1a")).startswith("t13d1616h2_")


def test_values_that_are_no_ciphers_count() -> None:
    assert fingerprint(body(f"{CIPHERS},00ff,5600")).startswith("t13d1716h2_")


def test_a_client_that_names_no_server_goes_to_an_address_and_has_the_same_hash() -> None:
    more = extensions(EXTENSIONS.replace("0000,", "").replace("0010,", ""))
    assert fingerprint(body(more=more)) == "t13i151400_8daaf6152771_e5627efa2ab1"


@pytest.mark.parametrize(
    ("version", "offered", "shown"),
    [
        (0x0303, "0304,0303", "13"),
        (0x0303, "0302,0303", "12"),
        (0x0303, "7f1c", "00"),
        (0x0303, "", "00"),
        (0x0303, None, "12"),
        (0x0302, None, "11"),
        (0x0301, None, "10"),
        (0x0300, None, "s3"),
        (0x0002, None, "s2"),
        (0x0505, None, "00"),
    ],
)
def test_the_version_is_the_highest_that_is_offered(
    version: int, offered: str | None, shown: str
) -> None:
    listed = EXTENSIONS if offered is not None else EXTENSIONS.replace("002b,", "")
    more = extensions(listed, versions=offered or "")
    assert fingerprint(body(more=more, version=version))[1:3] == shown


@pytest.mark.parametrize(
    ("protocols", "shown"),
    [
        ((b"h2",), "h2"),
        ((b"http/1.1", b"h2"), "h1"),
        ((b"pop3",), "p3"),
        ((b"x",), "xx"),
        ((), "00"),
        ((b"",), "00"),
        ((b"\xab",), "ab"),
        ((b"\xab\xcd",), "ad"),
        ((b"\x30\xab",), "3b"),
        ((b"\x30\x31\xab\xcd",), "3d"),
        ((b"\x30\xab\xcd\x31",), "01"),
    ],
)
def test_the_protocol_is_the_ends_of_the_first(protocols: tuple[bytes, ...], shown: str) -> None:
    assert fingerprint(body(more=extensions(protocols=protocols)))[8:10] == shown


def test_nothing_has_no_hash() -> None:
    assert fingerprint(body("", b"")) == "t12i000000_000000000000_000000000000"
    assert fingerprint(body("")[: -len(vector(extensions()))])[:10] == "t12i000000"


def test_only_what_the_first_part_names_leaves_the_last_without_a_hash() -> None:
    assert fingerprint(body(more=extensions("0000,0010"))).endswith("_000000000000")


def test_counts_end_at_99() -> None:
    many = ",".join(f"{number:04x}" for number in range(0x1000, 0x1000 + 150))
    assert fingerprint(body(many, extensions(many)))[4:8] == "9999"


# --- the first bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 2, 3, 100, 1 << 20])
@pytest.mark.parametrize("size", [1, 7, 300, 1 << 14])
def test_it_is_read_from_any_pieces_of_any_records(cut: int, size: int) -> None:
    hello = read(records(message(body()), size) + b"\x14\x03\x03\0\1\1", cut)
    assert (hello.ja4, hello.wanted) == (JA4, False)


def test_it_is_wanted_up_to_its_last_octet() -> None:
    whole = records(message(body()))
    hello = read(whole[:-1])
    assert (hello.ja4, hello.wanted) == ("", True)
    hello.feed(whole[-1:])
    assert (hello.ja4, hello.wanted) == (JA4, False)


@pytest.mark.parametrize(
    "data",
    [
        b"USER bob\r\nPASS secret\r\n",
        b"\x80\x2e\x01\x03\x01" + bytes(60),
        b"\x15\x03\x01\0\2\2\x28" + bytes(60),
        b"\x16\x03\x01\0\0" + bytes(60),
        records(b"\x02" + vector(body(), 3)),
        records(message(body()[:50])),
        records(message(body()[:-1])),
        records(message(body(more=b"\0\x0d\0\3\0\5\4"))),
        records(message(b"")),
    ],
)
def test_what_is_no_hello_has_none_and_is_not_waited_for(data: bytes) -> None:
    hello = read(data)
    assert (hello.ja4, hello.wanted) == ("", False)


@pytest.mark.parametrize("cut", [1 << 10, 1 << 20])
def test_what_is_kept_of_a_hello_is_bounded(cut: int) -> None:
    for data in (
        records(message(bytes(1 << 20)), 1000),
        b"\x16\x03\x01\xff\xff" + bytes(1 << 16),
    ):
        hello = Hello()
        for at in range(0, len(data), cut):
            hello.feed(data[at : at + cut])
            assert len(hello._records) + len(hello._message) <= 2 * LONGEST
        assert (hello.ja4, hello.wanted) == ("", False)


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(1, 50))
def test_anything_is_read_without_an_error(noise: bytes, at: int, cut: int) -> None:
    whole = records(message(body()))
    data = whole[:at] + noise + whole[at + len(noise) :]
    hello = read(data, cut)
    assert hello.ja4 == read(data).ja4
    assert not hello.ja4 or re.fullmatch(r"t..[di]\d{4}.._[0-9a-f]{12}_[0-9a-f]{12}", hello.ja4)


# --- a real client ----------------------------------------------------------------------------------------


def said_by(context: ssl.SSLContext, name: str | None) -> bytes:
    """Return what the standard library's client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_real_client_has_the_same_each_time_and_another_if_it_is_set_otherwise() -> None:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["pop3"])
    first, again = (read(said_by(context, "mail.example.org")).ja4 for _ in range(2))
    assert first == again
    assert re.fullmatch(r"t13d\d{4}p3_[0-9a-f]{12}_[0-9a-f]{12}", first)
    context.check_hostname = False
    assert read(said_by(context, None)).ja4[:4] == "t13i"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert read(said_by(context, "mail.example.org")).ja4[:4] == "t12d"
