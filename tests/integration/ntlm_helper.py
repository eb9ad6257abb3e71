"""Stands in for Samba's ``ntlm_auth``: the program that Dovecot asks to judge NTLM logins.

It is run by Dovecot with the name of a passwd-file, and speaks the protocol ``squid-2.5-ntlmssp``.
"""

import base64
import hmac
import os
import struct
import subprocess
import sys
from pathlib import Path

TARGET = "EXAMPLE"
UNICODE_AND_NTLM = 0x0201
VERSION_1 = 24
"""Bytes of a response of that version."""


def _openssl(*arguments: str, data: bytes) -> bytes:
    """MD4 and single DES are in OpenSSL's legacy provider only."""
    command = ["openssl", *arguments, "-provider", "legacy", "-provider", "default"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def _des_key(seven_bytes: bytes) -> bytes:
    bits = int.from_bytes(seven_bytes, "big")
    return bytes((bits >> (49 - 7 * place) & 0x7F) << 1 for place in range(8))


def _nt_hash(password: str) -> bytes:
    return _openssl("dgst", "-md4", "-binary", data=password.encode("utf-16-le"))


def ntlmv2_proof(user: str, domain: str, password: str, challenged: bytes) -> bytes:
    """[MS-NLMP] 3.3.2; ``challenged`` is the server's challenge and what the client has added to it."""
    name = (user.upper() + domain).encode("utf-16-le")
    return hmac.digest(hmac.digest(_nt_hash(password), name, "md5"), challenged, "md5")


def _expected_response(password: str, challenge: bytes) -> bytes:
    hashed = _nt_hash(password).ljust(21, b"\0")
    keys = (_des_key(hashed[start : start + 7]).hex() for start in (0, 7, 14))
    return b"".join(
        _openssl("enc", "-des-ecb", "-nopad", "-K", key, data=challenge) for key in keys
    )


def _challenge_message(challenge: bytes) -> bytes:
    target = TARGET.encode("utf-16-le")
    head = struct.pack("<8sIHHII", b"NTLMSSP", 2, len(target), len(target), 48, UNICODE_AND_NTLM)
    return head + challenge + bytes(16) + target


def _field(message: bytes, place: int) -> bytes:
    length, _, start = struct.unpack_from("<HHI", message, place)
    return message[start : start + length]


def _passwords(passwd_file: Path) -> dict[str, str]:
    entries = (line.split(":") for line in passwd_file.read_text().splitlines())
    return {entry[0]: entry[1].removeprefix("{PLAIN}") for entry in entries}


def _verdict(message: bytes, challenge: bytes, passwd_file: Path) -> str:
    user = _field(message, 36).decode("utf-16-le")
    password = _passwords(passwd_file).get(user)
    response = _field(message, 20)
    if password is None:
        return "NA unknown user"
    if len(response) > VERSION_1:
        added, domain = response[16:], _field(message, 28).decode("utf-16-le")
        expected = ntlmv2_proof(user, domain, password, challenge + added) + added
    else:
        expected = _expected_response(password, challenge)
    return f"AF {user}" if response == expected else "NA wrong password"


def main() -> None:
    passwd_file = Path(sys.argv[1])
    challenge = b""
    for line in sys.stdin:
        verb, _, encoded = line.strip().partition(" ")
        if verb == "YR":
            challenge = os.urandom(8)
            answer = f"TT {base64.b64encode(_challenge_message(challenge)).decode()}"
        else:
            answer = _verdict(base64.b64decode(encoded), challenge, passwd_file)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
