"""Passwords tried on what each mechanism exchanged: the examples of the RFCs, and what is no proof."""

import hashlib
from typing import Any

import pytest

from pop3proxy.analyzer.events import Exchanged
from pop3proxy.hooks.policy.proofs import MOST_ROUNDS, Proof, read_proof, spellings

from ...integration.sasl import MECHANISMS

APOP: Exchanged = ((b"<1896.697170952@dbc.mtview.ca.us>", b"c4c9334bac560ecc979e58001b3e22fb"),)
CRAM: Exchanged = (
    (b"<1896.697170952@postoffice.reston.mci.net>", b"tim b913a602c7eda7a495b4e6e7334d3890"),
)
# RFC 2831 section 4, the examples for IMAP and ACAP.
DIGEST_IMAP: Exchanged = (
    (
        b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",algorithm=md5-sess,'
        b"charset=utf-8",
        b'charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",'
        b'nc=00000001,cnonce="OA6MHXh6VqTrRk",digest-uri="imap/elwood.innosoft.com",'
        b"response=d388dad90d4bbd760a152321f2143af7,qop=auth",
    ),
    (b"rspauth=ea40f60335c427b5527b84dbabcdfffd", b""),
)
DIGEST_ACAP: Exchanged = (
    (
        b'realm="elwood.innosoft.com",nonce="OA9BSXrbuRhWay",qop="auth",algorithm=md5-sess,'
        b"charset=utf-8",
        b'charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA9BSXrbuRhWay",'
        b'nc=00000001,cnonce="OA9BSuZWMSpW8m",digest-uri="acap/elwood.innosoft.com",'
        b"response=6084c6db3fede7352c551284490fd0fc,qop=auth",
    ),
)
# RFC 5802 section 5 and RFC 7677 section 3.
SCRAM_SHA_1: Exchanged = (
    (b"", b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"),
    (
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    ),
    (b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", b""),
)
SCRAM_SHA_256: Exchanged = (
    (b"", b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"),
    (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    ),
)
EXAMPLES = [
    pytest.param("APOP", APOP, b"tanstaaf", id="RFC 1939"),
    pytest.param("CRAM-MD5", CRAM, b"tanstaaftanstaaf", id="RFC 2195"),
    pytest.param("DIGEST-MD5", DIGEST_IMAP, b"secret", id="RFC 2831, IMAP"),
    pytest.param("DIGEST-MD5", DIGEST_ACAP, b"secret", id="RFC 2831, ACAP"),
    pytest.param("SCRAM-SHA-1", SCRAM_SHA_1, b"pencil", id="RFC 5802"),
    pytest.param("SCRAM-SHA-1-PLUS", SCRAM_SHA_1, b"pencil", id="RFC 5802, as PLUS"),
    pytest.param("SCRAM-SHA-256", SCRAM_SHA_256, b"pencil", id="RFC 7677"),
]


def proof(mechanism: str, exchanged: Exchanged) -> Proof:
    found = read_proof(mechanism, exchanged)
    assert found is not None
    return found


@pytest.mark.parametrize(("mechanism", "exchanged", "password"), EXAMPLES)
def test_the_password_of_an_example_is_known_again(
    mechanism: str, exchanged: Exchanged, password: bytes
) -> None:
    assert proof(mechanism, exchanged).is_of(password)


@pytest.mark.parametrize(("mechanism", "exchanged", "password"), EXAMPLES)
def test_no_other_password_is(mechanism: str, exchanged: Exchanged, password: bytes) -> None:
    found = proof(mechanism, exchanged)
    assert not found.is_of(password + b"x")
    assert not found.is_of(password[:-1])
    assert not found.is_of(b"")


def played(mechanism: str, user: str, password: str, challenges: list[bytes]) -> Exchanged:
    """Have the tests' own client answer challenges."""
    client = MECHANISMS[mechanism](user, password)
    next(client)
    return tuple((challenge, client.send(challenge)) for challenge in challenges)


@pytest.mark.parametrize("password", ["secret", "Paßwort", "秘密"])
@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "DIGEST-MD5"])
def test_a_password_is_known_again_in_any_script(mechanism: str, password: str) -> None:
    exchanged = played(mechanism, "bob", password, [b'nonce="abc",qop="auth"'])
    found = proof(mechanism, exchanged)
    assert any(found.is_of(spelling) for spelling in spellings(password))


@pytest.mark.parametrize(
    ("password", "also"),
    [
        ("Paßwort", "Paßwort".encode("iso-8859-1")),
        ("Paßwort".encode("iso-8859-1").decode("utf-8", "surrogateescape"), "Paßwort".encode()),
        ("\u2168", b"IX"),
        ("I\u00adX\u00a0\u00e4", "IX ä".encode()),
    ],
    ids=["ISO 8859-1", "from ISO 8859-1", "NFKC", "SASLprep's mapping"],
)
def test_a_password_has_other_spellings(password: str, also: bytes) -> None:
    found = spellings(password)
    assert found[0] == password.encode("utf-8", "surrogateescape")
    assert also in found


def test_a_password_in_ascii_has_one_spelling() -> None:
    assert spellings("secret") == (b"secret",)


def scram(rounds: int) -> Exchanged:
    client = MECHANISMS["SCRAM-SHA-256"]("bob", "secret")
    next(client)
    first = client.send(b"")
    challenge = b"r=%sserver,s=c2FsdA==,i=%d" % (first.rpartition(b"r=")[2], rounds)
    return ((b"", first), (challenge, client.send(challenge)))


@pytest.mark.parametrize("rounds", [1, 4096, MOST_ROUNDS])
def test_the_rounds_of_scram_are_what_it_takes(rounds: int) -> None:
    assert proof("SCRAM-SHA-256", scram(rounds)).rounds == rounds


def test_more_rounds_are_not_computed() -> None:
    assert read_proof("SCRAM-SHA-256", scram(MOST_ROUNDS + 1)) is None


@pytest.mark.parametrize("mechanism", ["APOP", "CRAM-MD5", "DIGEST-MD5"])
def test_other_mechanisms_take_no_rounds(mechanism: str) -> None:
    exchanged = {"APOP": APOP, "CRAM-MD5": CRAM, "DIGEST-MD5": DIGEST_IMAP}[mechanism]
    assert proof(mechanism, exchanged).rounds == 0


DIGEST_SAID = DIGEST_IMAP[0][1]
FINAL = SCRAM_SHA_1[1][1]


@pytest.mark.parametrize(
    ("mechanism", "exchanged"),
    [
        pytest.param("NTLM", ((b"", b"NTLMSSP"),), id="NTLM"),
        pytest.param("GSSAPI", ((b"", b"token"),), id="GSSAPI"),
        pytest.param("SCRAM-MD5", SCRAM_SHA_1, id="SCRAM with an unknown hash"),
        pytest.param("APOP", (), id="nothing"),
        pytest.param("APOP", ((b"<1@a>", b"c4c9334bac560ecc"),), id="APOP, a short digest"),
        pytest.param("CRAM-MD5", ((b"<1@a>", b"tim"),), id="CRAM-MD5 without a digest"),
        pytest.param("CRAM-MD5", ((b"<1@a>", b""),), id="CRAM-MD5 without a response"),
        pytest.param("DIGEST-MD5", ((b"", b'username="bob"'),), id="DIGEST-MD5 with a name only"),
        pytest.param(
            "DIGEST-MD5", ((b"", DIGEST_SAID + b",response=" + b"0" * 32),), id="two responses"
        ),
        pytest.param("DIGEST-MD5", ((b"", DIGEST_SAID + b",="),), id="DIGEST-MD5 with more"),
        pytest.param("SCRAM-SHA-1", SCRAM_SHA_1[:1], id="SCRAM without a final message"),
        pytest.param("SCRAM-SHA-1", SCRAM_SHA_1[1:], id="SCRAM without a first message"),
        pytest.param(
            "SCRAM-SHA-1", (SCRAM_SHA_1[0], (b"e=other-error", FINAL)), id="SCRAM without a salt"
        ),
        pytest.param(
            "SCRAM-SHA-1",
            (SCRAM_SHA_1[0], (SCRAM_SHA_1[1][0], FINAL + b",p=AAAA")),
            id="SCRAM, two proofs",
        ),
        pytest.param(
            "SCRAM-SHA-1",
            (SCRAM_SHA_1[0], (SCRAM_SHA_1[1][0], FINAL.replace(b"r=fyko", b"r=other"))),
            id="SCRAM, another nonce",
        ),
        pytest.param(
            "SCRAM-SHA-1",
            (SCRAM_SHA_1[0], (SCRAM_SHA_1[1][0], FINAL.replace(b"v0X8", b"v0X"))),
            id="SCRAM, no base64",
        ),
    ],
)
def test_what_is_no_proof_is_not_read(mechanism: str, exchanged: Exchanged) -> None:
    assert read_proof(mechanism, exchanged) is None


def test_of_an_exchange_that_begins_again_the_last_proof_counts() -> None:
    wrong = (b"challenge", b"tim " + b"0" * 32)
    assert proof("CRAM-MD5", (wrong, *CRAM)).is_of(b"tanstaaftanstaaf")


def test_without_md5_nothing_is_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise ValueError("disabled for FIPS")

    found = proof("APOP", APOP)
    assert found.is_of(b"tanstaaf")
    monkeypatch.setattr(hashlib, "md5", missing)
    assert not found.is_of(b"tanstaaf")


def test_a_proof_is_not_in_its_text() -> None:
    assert "mtview" not in repr(proof("APOP", APOP))
