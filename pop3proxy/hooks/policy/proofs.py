"""Reads how a login proved a password without showing it, so that others can be tried on it; keeps nothing.

Each mechanism is one function in a table. It gets what the analyzer has of the exchange, challenges with
their responses, and returns a Proof, or None if a server that reads strictly would not judge it. NTLM and
GSSAPI are not here: NTLM hashes with MD4, which OpenSSL 3 does not offer, and GSSAPI's tokens are sealed by a
third party.
"""

import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ...analyzer.events import Exchanged

MOST_ROUNDS: Final = 20_000
"""Rounds of SCRAM beyond which a proof is not read: 20 ms of SHA-256 for each password that is tried."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves one password.

    ``rounds`` of PBKDF2 are what it takes to try one, ``size`` is how many bytes the proof keeps.
    """

    rounds: int
    size: int
    _is_of: Callable[[bytes], bool] = field(repr=False)

    def is_of(self, password: bytes) -> bool:
        """Return whether this is the password, in this spelling."""
        try:
            return self._is_of(password)
        except ValueError:
            # OpenSSL in FIPS mode has no MD5.
            return False


def spellings(password: str) -> tuple[bytes, ...]:
    """Return the bytes as which clients take a password: those sent, and others if it is not plain ASCII.

    SCRAM is for SASLprep (RFC 5802 section 5.1), DIGEST-MD5 for ISO 8859-1 where that is enough (RFC 2831
    section 2.1.2.1), and old clients know nothing else.
    """
    if password.isascii():
        return (password.encode("ascii"),)
    sent = password.encode("utf-8", "surrogateescape")
    try:
        text = sent.decode("utf-8")
    except UnicodeDecodeError:
        text = sent.decode("iso-8859-1")
    found = [sent, text.encode("utf-8"), _prepared(text).encode("utf-8")]
    with suppress(UnicodeEncodeError):
        found.append(text.encode("iso-8859-1"))
    return tuple(dict.fromkeys(found))


def _prepared(text: str) -> str:
    """Map by SASLprep (RFC 4013 section 2.1 and 2.2); what it prohibits is not looked for."""
    mapped = (
        " " if stringprep.in_table_c12(letter) else letter
        for letter in text
        if not stringprep.in_table_b1(letter)
    )
    return unicodedata.normalize("NFKC", "".join(mapped))


def read_proof(mechanism: str, exchanged: Exchanged) -> Proof | None:
    """Return what a login proved its password by; None if no password can be tried on it."""
    if not exchanged:
        return None
    read = _READERS.get(mechanism.removesuffix("-PLUS"))
    return None if read is None else read(exchanged)


# --- APOP and CRAM-MD5 ------------------------------------------------------------------------------------

_MD5: Final = re.compile(rb"[0-9A-Fa-f]{32}\Z")


def _apop(exchanged: Exchanged) -> Proof | None:
    """RFC 1939 section 7: MD5 of the time stamp and the password."""
    stamp, digest = exchanged[-1]
    if _MD5.match(digest) is None:
        return None
    return Proof(0, len(stamp) + 32, partial(_is_apop, stamp, digest.lower()))


def _is_apop(stamp: bytes, digest: bytes, password: bytes) -> bool:
    return _hex(stamp + password) == digest


def _cram_md5(exchanged: Exchanged) -> Proof | None:
    """RFC 2195 section 2: HMAC-MD5 of the challenge, the password being the key."""
    challenge, response = exchanged[-1]
    digest = response.rpartition(b" ")[2]
    if _MD5.match(digest) is None:
        return None
    return Proof(0, len(challenge) + 32, partial(_is_cram_md5, challenge, digest.lower()))


def _is_cram_md5(challenge: bytes, digest: bytes, password: bytes) -> bool:
    return hmac.digest(password, challenge, "md5").hex().encode() == digest


def _hex(*parts: bytes) -> bytes:
    return hashlib.md5(b":".join(parts), usedforsecurity=False).hexdigest().encode()


# --- DIGEST-MD5 -------------------------------------------------------------------------------------------

_DIRECTIVE: Final = re.compile(
    rb'[ \t]*([A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))[ \t]*(?:,|\Z)', re.S
)
_NO_BODY: Final = b":" + b"0" * 32


def _digest_md5(exchanged: Exchanged) -> Proof | None:
    """RFC 2831 section 2.1.2.1; the last response that is not empty counts."""
    said = next((response for _, response in reversed(exchanged) if response), b"")
    fields = _directives(said)
    if not {b"username", b"nonce", b"cnonce", b"nc", b"digest-uri", b"response"} <= fields.keys():
        return None
    qop = fields.get(b"qop", b"auth")
    method = b"AUTHENTICATE:" + fields[b"digest-uri"] + (b"" if qop == b"auth" else _NO_BODY)
    behind = (fields[b"nonce"], fields[b"nc"], fields[b"cnonce"], qop, _hex(method))
    session = [fields[b"nonce"], fields[b"cnonce"]]
    if b"authzid" in fields:
        session.append(fields[b"authzid"])
    account = fields[b"username"], fields.get(b"realm", b"")
    # By the RFC the name is hashed in ISO 8859-1 where that is enough; not all clients know it.
    accounts = tuple(dict.fromkeys((account, (_latin(account[0]), _latin(account[1])))))
    response = fields[b"response"].lower()
    return Proof(
        *(0, len(said)), partial(_is_digest_md5, accounts, tuple(session), behind, response)
    )


def _is_digest_md5(
    accounts: tuple[tuple[bytes, bytes], ...],
    session: tuple[bytes, ...],
    behind: tuple[bytes, ...],
    response: bytes,
    password: bytes,
) -> bool:
    for user, realm in accounts:
        secret = hashlib.md5(b":".join((user, realm, password)), usedforsecurity=False).digest()
        if _hex(_hex(secret, *session), *behind) == response:
            return True
    return False


def _latin(text: bytes) -> bytes:
    try:
        return text.decode("utf-8").encode("iso-8859-1")
    except UnicodeError:
        return text


def _directives(said: bytes) -> dict[bytes, bytes]:
    """Read directives, each once; nothing if that is not all there is: servers may read another one."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(said):
        directive = _DIRECTIVE.match(said, position)
        if directive is None or directive[1].lower() in found:
            return {}
        quoted, token = directive[2], directive[3]
        value = token if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted, flags=re.S)
        found[directive[1].lower()] = value
        position = directive.end()
    return found


# --- SCRAM ------------------------------------------------------------------------------------------------

_FIRST: Final = re.compile(rb"(?:[ny]|p=[^,]*),(?:a=[^,]*)?,(n=[^,]*,r=[^,]+(?:,.*)?)\Z", re.S)
_SERVER_FIRST: Final = re.compile(rb"r=([^,]+),s=([^,]+),i=([1-9][0-9]{0,8})(?:,.*)?\Z", re.S)
_FINAL: Final = re.compile(rb"(c=[^,]+,r=([^,]+)(?:,[a-oq-z]=[^,]*)*),p=([^,]+)\Z", re.S)


def _scram(hash_name: str, exchanged: Exchanged) -> Proof | None:
    """RFC 5802 section 3; the last final message counts, and the first message before it."""
    finals = [turn for turn, (_, said) in enumerate(exchanged) if said.startswith(b"c=")]
    if not finals or not finals[-1]:
        return None
    first = _FIRST.match(exchanged[finals[-1] - 1][1])
    challenge, response = exchanged[finals[-1]]
    asked, final = _SERVER_FIRST.match(challenge), _FINAL.match(response)
    if first is None or asked is None or final is None or asked[1] != final[2]:
        return None
    rounds, salt, proof = int(asked[3]), _decoded(asked[2]), _decoded(final[3])
    if rounds > MOST_ROUNDS or salt is None or proof is None:
        return None
    message = b",".join((first[1], challenge, final[1]))
    size = len(message) + len(salt) + len(proof)
    return Proof(rounds, size, partial(_is_scram, hash_name, salt, rounds, message, proof))


def _is_scram(
    hash_name: str, salt: bytes, rounds: int, message: bytes, proof: bytes, password: bytes
) -> bool:
    salted = hashlib.pbkdf2_hmac(hash_name, password, salt, rounds)
    key = hmac.digest(salted, b"Client Key", hash_name)
    signature = hmac.digest(hashlib.new(hash_name, key).digest(), message, hash_name)
    return len(proof) == len(key) and bytes(map(int.__xor__, key, signature)) == proof


def _decoded(text: bytes) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        return None


_READERS: Final[Mapping[str, Callable[[Exchanged], Proof | None]]] = {
    "APOP": _apop,
    "CRAM-MD5": _cram_md5,
    "DIGEST-MD5": _digest_md5,
    **{
        f"SCRAM-{name}": partial(_scram, name.replace("SHA-", "sha").replace("SHA3-", "sha3_"))
        for name in ("SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512", "SHA3-512")
    },
}
