"""The SASL mechanisms of a made mail server: what it reads from the client's responses, and what it judges.

A mechanism is a generator: it yields challenges, gets decoded responses, and returns whether the login
succeeded, or None if it judged nothing. Proofs are not computed: ``RIGHT`` in a proof's place is right.
"""

import binascii
import re
from collections.abc import Callable, Generator, Mapping

from .habits import Base64, Habits, Nul, Which

Exchange = Generator[bytes, bytes, bool | None]

RIGHT = b"right"
"""The password of all accounts, and what stands for a right proof."""

RIGHT_DIGEST = b"a" * 32
WRONG_DIGEST = b"b" * 32

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


class Desk:
    """Where a mechanism's claims are judged. ``judge`` takes name, password and whether a proof is right."""

    def __init__(
        self, habits: Habits, judge: Callable[[bytes, bytes | None, bool | None], bool]
    ) -> None:
        self.habits = habits
        self._judge = judge
        self.named: bytes | None = None  # whom the last claim was about

    def judge(
        self,
        name: bytes,
        password: bytes | None = None,
        proof: bool | None = None,
        realm: bytes | None = None,
    ) -> bool:
        """Judge a claim; return whether it holds."""
        if self.habits.skips_blanks_before_names:
            name = name.lstrip(b" ")
        self.named = read_name(name, self.habits)
        if realm and self.habits.joins_the_realm and b"@" not in self.named:
            self.named += b"@" + realm
        return self._judge(self.named, password, proof)


def read_name(name: bytes, habits: Habits) -> bytes:
    """Return what the server makes of a name: it may stop at a NUL, or at a blank."""
    if habits.nul is Nul.ENDS:
        name = name.partition(b"\0")[0]
    elif habits.nul is Nul.SKIPPED:
        name = name.replace(b"\0", b"")
    if habits.trims_the_end:
        name = name.rstrip(b" ")
    return name.partition(b" ")[0] if habits.names_stop_at_a_blank else name


def decoded(text: bytes, habits: Habits) -> bytes | None:
    """Decode base64 as the server does; None if it refuses it."""
    if habits.base64 is Base64.STRICT:
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            return None
    if habits.base64 is Base64.SKIPS:
        text = _NOT_BASE64.sub(b"", text)
    else:
        text = _NOT_BASE64.split(text, maxsplit=1)[0]
    # One letter alone holds no whole byte.
    text = text[: len(text) - (len(text) % 4 == 1)]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def _picked(found: list[bytes], habits: Habits) -> bytes | None:
    """Return that of several values of a field which counts."""
    if not found:
        return None
    return found[0 if habits.which is Which.FIRST else -1]


def _plain(desk: Desk, initial: bytes | None) -> Exchange:
    data = (yield b"") if initial is None else initial
    parts = data.split(b"\0", 2)
    if len(parts) < 3:
        return None
    return desk.judge(parts[1], parts[2])


def _login(desk: Desk, initial: bytes | None) -> Exchange:
    name = (yield b"Username:") if initial is None else initial
    if not name and desk.habits.asks_again:
        name = yield b"Username:"
    password = yield b"Password:"
    if desk.judge(name, password):
        return True
    if not desk.habits.asks_again:
        return False
    return desk.judge(name, (yield b"Password:"))


def _cram_md5(desk: Desk, initial: bytes | None) -> Exchange:
    data = (yield b"<1.2@made>") if initial is None else initial
    name, blank, digest = data.rpartition(b" ")
    if not blank:
        return None
    return desk.judge(name, proof=digest == RIGHT_DIGEST)


_DIRECTIVE = re.compile(rb'([^\s=,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,"]*))', re.S)


def _digest_md5(desk: Desk, initial: bytes | None) -> Exchange:
    data = (yield b'realm="made",nonce="1",qop="auth"') if initial is None else initial
    fields: dict[bytes, list[bytes]] = {}
    for key, quoted, token in _DIRECTIVE.findall(data):
        value = re.sub(rb"\\(.)", rb"\1", quoted, flags=re.S) or token.strip()
        fields.setdefault(key.lower(), []).append(value)
    name = _picked(fields.get(b"username", []), desk.habits)
    proof = _picked(fields.get(b"response", []), desk.habits)
    if name is None or proof is None:
        return None
    realm = _picked(fields.get(b"realm", []), desk.habits)
    if not desk.judge(name, proof=proof == RIGHT_DIGEST, realm=realm):
        return False
    yield b"rspauth=" + RIGHT_DIGEST
    return True


def _scram(desk: Desk, initial: bytes | None) -> Exchange:
    first = (yield b"") if initial is None else initial
    header, _, bare = first.partition(b",")
    bare = bare.partition(b",")[2]
    if header[:1] not in (b"n", b"y", b"p"):
        return None
    name = _picked([part[2:] for part in bare.split(b",") if part[:2] == b"n="], desk.habits)
    if name is None:
        return None
    final = yield b"r=1,s=c2FsdA==,i=4096"
    proof = _picked([part[2:] for part in final.split(b",") if part[:2] == b"p="], desk.habits)
    if not final.startswith(b"c=") or proof is None:
        return None
    name = name.replace(b"=2C", b",").replace(b"=3D", b"=")
    if desk.judge(name, proof=proof == RIGHT):
        if desk.habits.final_apart:
            yield b"v=right"
        return True
    if desk.habits.tells_failures:
        yield b"e=invalid-proof"
    return False


_BEARER = re.compile(rb"\x01auth=Bearer +([^\x01]*)", re.I)
_XOAUTH2_USER = re.compile(rb"(?:\A|\x01)user=([^\x01]*)", re.I)


def _bearer(desk: Desk, name: bytes | None, data: bytes) -> Exchange:
    token = _picked(_BEARER.findall(data), desk.habits)
    if name is None or token is None:
        return None
    if desk.judge(name, token):
        return True
    if desk.habits.tells_failures:
        yield b'{"status":"401"}'
    return False


def _xoauth2(desk: Desk, initial: bytes | None) -> Exchange:
    data = (yield b"") if initial is None else initial
    name = _picked(_XOAUTH2_USER.findall(data), desk.habits)
    return (yield from _bearer(desk, name, data))


def _oauthbearer(desk: Desk, initial: bytes | None) -> Exchange:
    data = (yield b"") if initial is None else initial
    header = data.partition(b"\x01")[0].split(b",")
    name = _picked([part[2:] for part in header if part[:2] == b"a="], desk.habits)
    if name is not None:
        name = name.replace(b"=2C", b",").replace(b"=3D", b"=")
    return (yield from _bearer(desk, name, data))


def _external(desk: Desk, initial: bytes | None) -> Exchange:
    name = (yield b"") if initial is None else initial
    return desk.judge(name, proof=name == b"bob")


def _anonymous(desk: Desk, initial: bytes | None) -> Exchange:
    trace = (yield b"") if initial is None else initial
    return desk.judge(trace, proof=True)


def _ntlm(desk: Desk, initial: bytes | None) -> Exchange:
    first = (yield b"") if initial is None else initial
    if first[:9] != b"NTLMSSP\0\x01":
        return None
    oem = desk.habits.ntlm_is_oem
    data = yield b"NTLMSSP\0\x02" + bytes(11) + (b"\x02" if oem else b"\x01") + bytes(28)
    if data[:9] != b"NTLMSSP\0\x03" or len(data) < 64:
        return None
    length = int.from_bytes(data[36:38], "little")
    offset = int.from_bytes(data[40:44], "little")
    name = data[offset : offset + length]
    if not oem:
        name = name.decode("utf-16-le", "replace").encode()
    return desk.judge(name, proof=data.endswith(RIGHT))


def _gssapi(desk: Desk, initial: bytes | None) -> Exchange:
    data = (yield b"") if initial is None else initial
    if not data:
        return None
    last = yield b"token"
    return desk.judge(b"", proof=last == RIGHT)


MECHANISMS: Mapping[bytes, Callable[[Desk, bytes | None], Exchange]] = {
    b"PLAIN": _plain,
    b"LOGIN": _login,
    b"CRAM-MD5": _cram_md5,
    b"DIGEST-MD5": _digest_md5,
    b"SCRAM-SHA-1": _scram,
    b"XOAUTH2": _xoauth2,
    b"OAUTHBEARER": _oauthbearer,
    b"EXTERNAL": _external,
    b"ANONYMOUS": _anonymous,
    b"NTLM": _ntlm,
    b"GSSAPI": _gssapi,
}
