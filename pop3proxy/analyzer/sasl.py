"""Reads from an AUTH exchange the credentials that it carried; knows mechanisms, but no replies and no state.

Each mechanism is one function in a table. It gets the decoded responses of the client one after the
other and notes the user and the password in the exchange. What it can't read it says so and guesses nothing:
a password in a field that is taken for a user name would be shown.
"""

import binascii
import re
from collections.abc import Callable, Mapping

from .text import decode

_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}\Z")
_BLANKS = b" \t\r\0"


class Exchange:
    """One AUTH command from its line to the server's answer (RFC 5034 section 4, RFC 4422).

    ``complete``: the client has sent all that the server needs to decide; ``responded``: it has sent
    anything at all; ``announced``: a challenge said that the login failed, before the -ERR does;
    ``cancelled``: the client gave up with ``*``; ``malformed``: the last response could not be read;
    ``refused``: so could one before, and no user is known since; ``prompt``: the last challenge, decoded;
    ``odd_line``: that line is no AUTH in the RFC's form, and may be another command to the server;
    ``early``: what is known came on the AUTH line, which a server may ignore; ``attempt``: the number of the
    login attempt under way, 0 before the credentials are complete; ``realm``: where the user's account is, if
    the client has said so; ``disputed``: servers read the user in different ways.

    A server that ignores the initial response (RFC 1734 has none), or does not like what it got, asks again
    within the exchange. Then what the client says last is what counts.
    """

    __slots__ = (
        "_read",
        "announced",
        "attempt",
        "cancelled",
        "complete",
        "disputed",
        "early",
        "malformed",
        "mechanism",
        "odd_line",
        "password",
        "prompt",
        "realm",
        "refused",
        "responded",
        "turn",
        "user",
    )

    def __init__(self, mechanism: bytes) -> None:
        """Begin with the mechanism's name in any case, as the AUTH line has it."""
        self.mechanism = decode(mechanism.upper()) if is_mechanism(mechanism) else ""
        self.user = ""
        self.password = ""
        self.turn = 0  # how many responses were read
        self.complete = False
        self.responded = False
        self.announced = False
        self.cancelled = False
        self.malformed = False
        self.refused = False
        self.early = False
        self.odd_line = False
        self.attempt = 0
        self.prompt = b""
        self.realm = ""
        self.disputed = False
        self._read = _reader(self.mechanism)

    @property
    def judged(self) -> bool:
        """Whether a refusal now is the server's verdict on a login."""
        return self.announced or (self.responded and not self.cancelled)

    @property
    def asks_again(self) -> bool:
        """Whether a server that was told the user on the AUTH line asks for the user all the same."""
        return self.early and self.mechanism == "LOGIN" and self.prompt.lower().startswith(b"user")

    def initial(self, data: bytes) -> None:
        """Take the initial response of the AUTH line; ``=`` stands for an empty one.

        What follows a blank is left out if it is no base64: Courier 1.0.16 does not read it.
        """
        self.early = True
        if _base64(data) is None:
            data = data.split(None, 1)[0]
        self.respond(b"" if data == b"=" else data)

    def respond(self, line: bytes) -> None:
        """Take one line of the client: base64, or ``*`` to cancel."""
        self.malformed = False
        if line == b"*":
            # After a challenge that announced the failure it only ends what was judged already.
            self.cancelled = not self.announced
            return
        self.responded = True
        self.cancelled = False
        data = _base64(line)
        if data is not None:
            self._read(self, data)
            self.turn += 1
        elif not self.announced:
            self.refuse()

    def settled(self, data: bytes) -> bool:
        """Say whether there is nothing to read: an empty initial response, or an acknowledgement."""
        return not data and (self.complete or self.turn == 0)

    def challenge(self, line: bytes) -> None:
        """Take what the server sent behind ``+ ``."""
        data = _base64(line)
        self.prompt = data or b""
        if self.complete and _announces_failure(self.mechanism, data):
            self.announced = True

    def refuse(self) -> None:
        """Note that a response is not of the mechanism's form: nothing is read from it.

        What is known from responses before it does not count any more either.
        """
        self.user = self.password = ""
        self.malformed = self.refused = True
        self.complete = True


def _base64(line: bytes) -> bytes | None:
    """Decode leniently: blanks inside and missing padding do not matter, other letters do."""
    text = line.translate(None, _BLANKS).rstrip(b"=")
    if _BASE64.match(text) is None:
        return None
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return None


def _announces_failure(mechanism: str, data: bytes | None) -> bool:
    """RFC 7628 section 3.2.2 and XOAUTH2: a challenge behind the token is an error report.

    RFC 5802 section 7: a SCRAM server that refuses says ``e=`` and why.
    """
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        return True
    return mechanism.startswith("SCRAM-") and data is not None and data.startswith(b"e=")


def _plain(exchange: Exchange, data: bytes) -> None:
    """RFC 4616: authorization identity, authentication identity and password, NUL between them."""
    if not data:
        if not (exchange.user or exchange.password):
            # Wrong, but the server may still ask for the real response.
            exchange.malformed = exchange.complete = True
        return
    parts = data.split(b"\0", 2)
    if len(parts) < 3:
        exchange.refuse()
        return
    exchange.user, exchange.password = decode(parts[1]), decode(parts[2])
    exchange.complete = True


def _login(exchange: Exchange, data: bytes) -> None:
    """The user, then the password, whatever the prompts say (draft-murchison-sasl-login).

    Prompts are heeded where they alone can tell what is asked for: a server that got an empty name, or
    ignored that of the AUTH line, asks for it again, and so may one that did not like the password. A
    password is never taken for a name.
    """
    prompt = exchange.prompt.lower()
    again = prompt.startswith(b"user")
    first = exchange.turn == 0 and not exchange.refused
    if first or (again and (exchange.complete or exchange.early or not exchange.user)):
        exchange.early = first and exchange.early
        exchange.user, exchange.password = decode(data), ""
        exchange.complete = exchange.refused = False
    elif exchange.refused:
        return
    elif exchange.complete and not prompt.startswith(b"pass"):
        exchange.refuse()
    else:
        exchange.password = decode(data)
        exchange.complete = True


def _cram_md5(exchange: Exchange, data: bytes) -> None:
    """RFC 2195: user, blank, digest; the user may hold blanks, the digest does not."""
    if exchange.settled(data):
        return
    user, blank, _ = data.rpartition(b" ")
    if not blank:
        exchange.refuse()
        return
    exchange.user = decode(user)
    exchange.complete = True


_DIRECTIVE = re.compile(rb'([^\s=,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,"]*))', re.S)


def _digest_md5(exchange: Exchange, data: bytes) -> None:
    """RFC 2831 section 2.1.2; a later, empty response only acknowledges ``rspauth``."""
    if exchange.settled(data):
        return
    said: dict[bytes, str] = {}
    # One directive after the other, since what looks like one may stand in another's quotes.
    for name, quoted, token in _DIRECTIVE.findall(data):
        value = re.sub(rb"\\(.)", rb"\1", quoted, flags=re.S) or token.strip()
        said.setdefault(name.lower(), decode(value))
    user = said.get(b"username")
    if user is not None:
        exchange.user, exchange.realm = user, said.get(b"realm", "")
        exchange.complete = True
    elif not exchange.complete:
        exchange.refuse()


_SCRAM_FIRST = re.compile(rb"(?:[ny]|p=[^,]*),(?:a=[^,]*)?,(?:m=[^,]*,)?n=([^,]*),")


def _scram(exchange: Exchange, data: bytes) -> None:
    """RFC 5802 section 7: the user in client-first, the proof in client-final."""
    if exchange.settled(data):
        return
    if data.startswith(b"c="):
        exchange.complete = True
        return
    match = _SCRAM_FIRST.match(data)
    if match is None:
        if not exchange.announced:
            exchange.refuse()
        return
    exchange.complete = exchange.announced = False
    exchange.user = decode(match[1].replace(b"=2C", b",").replace(b"=3D", b"="))


def _bearer(exchange: Exchange, data: bytes, user: re.Pattern[bytes]) -> None:
    if exchange.settled(data):
        return
    name = user.match(data)
    token = _BEARER_TOKEN.search(data)
    if name is None or token is None:
        # What answers an error report ends what was judged already, whatever it says.
        if not exchange.announced:
            exchange.refuse()
        return
    exchange.announced = False
    exchange.user = decode(name[1] or b"").replace("=2C", ",").replace("=3D", "=")
    exchange.password = decode(token[1])
    exchange.complete = True


_BEARER_TOKEN = re.compile(rb"\x01auth=Bearer +([^\x01]*)(?:\x01|\Z)", re.I)
_XOAUTH2_USER = re.compile(rb"user=([^\x01]*)\x01", re.I)
_OAUTHBEARER_USER = re.compile(rb"[nyp](?:=[^,]*)?,(?:a=([^,]*))?,")


def _xoauth2(exchange: Exchange, data: bytes) -> None:
    """``user=bob^Aauth=Bearer token^A^A``: the token is what proves who the client is."""
    _bearer(exchange, data, _XOAUTH2_USER)


def _oauthbearer(exchange: Exchange, data: bytes) -> None:
    """RFC 7628 section 3.1: a GS2 header with the user, then key-value pairs with the token."""
    _bearer(exchange, data, _OAUTHBEARER_USER)


def _names_user(exchange: Exchange, data: bytes) -> None:
    """EXTERNAL (RFC 4422 appendix A) and ANONYMOUS (RFC 4505): all there is is a name, maybe empty."""
    if data or not exchange.complete:
        exchange.user = decode(data)
        exchange.complete = True


_NTLM_SIGNATURE = b"NTLMSSP\0"
_NTLM_UNICODE = 0x00000001
_NTLM_OEM = 0x00000002


def _ntlm(exchange: Exchange, data: bytes) -> None:
    """[MS-NLMP] 2.2.1: the AUTHENTICATE message (type 3) holds the user name, UTF-16LE or OEM."""
    if exchange.settled(data):
        return
    kind = int.from_bytes(data[8:12], "little")
    if not data.startswith(_NTLM_SIGNATURE) or kind not in (1, 3):
        exchange.refuse()
    elif kind == 3:
        exchange.complete = True
        length = int.from_bytes(data[36:38], "little")
        offset = int.from_bytes(data[40:44], "little")
        name = data[offset : offset + length]
        unicode = bool(int.from_bytes(data[60:64], "little") & _NTLM_UNICODE)
        try:
            exchange.user = name.decode("utf-16-le") if unicode else decode(name)
        except UnicodeDecodeError:
            exchange.refuse()
            return
        # Samba's ntlm_auth reads names as the server chose, whatever the message says of itself.
        exchange.disputed = _ntlm_chosen(exchange.prompt) == (not unicode)
        if len(data) < 44 or len(name) < length:
            exchange.refuse()


def _ntlm_chosen(challenge: bytes) -> bool | None:
    """[MS-NLMP] 2.2.1.2: return whether a CHALLENGE message chooses UTF-16LE for names; None if neither."""
    chosen = int.from_bytes(challenge[20:24], "little") & (_NTLM_UNICODE | _NTLM_OEM)
    if chosen in (_NTLM_UNICODE, _NTLM_OEM) and challenge.startswith(_NTLM_SIGNATURE):
        return chosen == _NTLM_UNICODE
    return None


def _opaque(exchange: Exchange, data: bytes) -> None:
    """GSSAPI and what is not known here: the credentials are there, and show no user."""
    exchange.complete = True


_Reader = Callable[[Exchange, bytes], None]

_MECHANISMS: Mapping[str, _Reader] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "CRAM-MD5": _cram_md5,
    "DIGEST-MD5": _digest_md5,
    "XOAUTH2": _xoauth2,
    "OAUTHBEARER": _oauthbearer,
    "EXTERNAL": _names_user,
    "ANONYMOUS": _names_user,
    "NTLM": _ntlm,
    "GSSAPI": _opaque,
}

LAYERED = frozenset({"GSSAPI", "DIGEST-MD5", "KERBEROS_V4"})
"""Mechanisms that can negotiate a security layer, in force right behind the +OK (RFC 5034 section 4)."""


_REGISTERED = re.compile(rb"[A-Z0-9_-]{1,20}\Z")


def is_mechanism(word: bytes) -> bool:
    """Say whether a word can be a mechanism's name (RFC 4422 section 3.1), in any case if it is known.

    A client that forgot the name has sent its response in that place.
    """
    known = decode(word.upper())
    return known in _MECHANISMS or known.startswith("SCRAM-") or bool(_REGISTERED.match(word))


def _reader(mechanism: str) -> _Reader:
    if mechanism.startswith("SCRAM-"):
        return _scram
    return _MECHANISMS.get(mechanism, _opaque)
