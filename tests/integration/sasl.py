"""The client's side of SASL mechanisms, one generator each: it is sent a challenge and yields the response.

The first ``yield`` of each waits for the server to begin; where the client begins, that challenge is empty.
"""

import hashlib
import hmac
import os
import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator

from .ntlm_helper import ntlmv2_proof

NTLM_NEGOTIATE = "TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAFASgKAAAADw=="
"""The first message of Windows: no domain, no workstation, version 5.1."""

Exchange = Generator[bytes, bytes, None]
Mechanism = Callable[[str, str], Exchange]


def plain(user: str, password: str) -> Exchange:
    yield b""
    yield f"\0{user}\0{password}".encode()


def login(user: str, password: str) -> Exchange:
    yield b""
    yield user.encode()
    yield password.encode()


def cram_md5(user: str, password: str) -> Exchange:
    challenge = yield b""
    yield f"{user} {hmac.new(password.encode(), challenge, 'md5').hexdigest()}".encode()


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b":".join(parts)).hexdigest().encode()


def digest_md5(user: str, password: str) -> Exchange:
    challenge = yield b""
    found = re.search(rb'nonce="([^"]*)"', challenge)
    assert found
    nonce, cnonce, count, uri = (
        found[1],
        os.urandom(12).hex().encode(),
        b"00000001",
        b"pop/localhost",
    )
    secret = hashlib.md5(f"{user}::{password}".encode()).digest()
    session = _md5(secret, nonce, cnonce)
    response = _md5(session, nonce, count, cnonce, b"auth", _md5(b"AUTHENTICATE", uri))
    yield (
        b'username="%s",realm="",nonce="%s",cnonce="%s",nc=%s,qop=auth,digest-uri="%s",response=%s'
        % (user.encode(), nonce, cnonce, count, uri, response)
    )
    yield b""


def _scram(user: str, password: str, hash_name: str) -> Exchange:
    yield b""
    first = f"n={user},r={os.urandom(12).hex()}".encode()
    challenge = yield b"n,," + first
    fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
    salted = hashlib.pbkdf2_hmac(
        hash_name, password.encode(), b64decode(fields[b"s"]), int(fields[b"i"])
    )
    final = b"c=biws,r=" + fields[b"r"]
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    signature = hmac.digest(stored_key, b",".join((first, challenge, final)), hash_name)
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    yield final + b",p=" + b64encode(proof)
    yield b""


def scram_sha_1(user: str, password: str) -> Exchange:
    return _scram(user, password, "sha1")


def scram_sha_256(user: str, password: str) -> Exchange:
    return _scram(user, password, "sha256")


def xoauth2(user: str, token: str) -> Exchange:
    yield b""
    yield f"user={user}\1auth=Bearer {token}\1\1".encode()
    yield b""


def oauthbearer(user: str, token: str) -> Exchange:
    yield b""
    yield f"n,a={user},\1auth=Bearer {token}\1\1".encode()
    yield b"\1"


def ntlm(user: str, password: str) -> Exchange:
    """[MS-NLMP] 2.2.1, version 2, as Windows speaks it to a server of a domain."""
    yield b""
    challenge = yield b64decode(NTLM_NEGOTIATE)
    domain, workstation = "EXAMPLE", "WORKSTATION"
    pairs = ((2, domain), (1, "SERVER"), (4, "example.org"), (3, "server.example.org"))
    target = b"".join(
        struct.pack("<HH", kind, 2 * len(text)) + text.encode("utf-16-le") for kind, text in pairs
    )
    added = b"\1\1" + bytes(6) + os.urandom(16) + bytes(4) + target + bytes(8)
    proof = ntlmv2_proof(user, domain, password, challenge[24:32] + added)
    names = (text.encode("utf-16-le") for text in (domain, user, workstation))
    fixed, payload = b"NTLMSSP\0\3\0\0\0", b""
    for part in (bytes(24), proof + added, *names, os.urandom(16)):
        fixed += struct.pack("<HHI", len(part), len(part), 72 + len(payload))
        payload += part
    yield fixed + bytes.fromhex("158288e2 0a0063450000000f") + payload


def anonymous(trace: str, _: str) -> Exchange:
    yield b""
    yield trace.encode()


MECHANISMS: dict[str, Mechanism] = {
    "PLAIN": plain,
    "LOGIN": login,
    "CRAM-MD5": cram_md5,
    "DIGEST-MD5": digest_md5,
    "SCRAM-SHA-1": scram_sha_1,
    "SCRAM-SHA-256": scram_sha_256,
    "XOAUTH2": xoauth2,
    "OAUTHBEARER": oauthbearer,
    "ANONYMOUS": anonymous,
    "NTLM": ntlm,
}
