"""Says what of a client's line is secret, and which of its words are public; remembers nothing.

A line that is no command may be a mistyped password, the rest of one that held a line feed, or the response
to an AUTH that the server refused. So what is public is listed here, and all else is secret.
"""

import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from .events import Secret
from .grammar import COMMANDS, Command
from .sasl import is_mechanism
from .saslforms import READABLE

WORDS: Final[Mapping[str, str]] = {
    "POP3": " ".join(sorted(row.name for row in COMMANDS.values())),
    "SMTP, LMTP": "ATRN AUTH BDAT BURL DATA EHLO ETRN EXPN HELO HELP LHLO MAIL NOOP QUIT RCPT RSET SAML SEND"
    " SOML STARTTLS TURN VRFY XCLIENT XFORWARD",
    "IMAP": "APPEND AUTHENTICATE CAPABILITY CHECK CLOSE COPY CREATE DELETE ENABLE EXAMINE EXPUNGE FETCH ID"
    " IDLE LIST LOGIN LOGOUT LSUB MOVE NAMESPACE NOOP RENAME SEARCH SELECT STARTTLS STATUS STORE SUBSCRIBE"
    " UID UNSELECT UNSUBSCRIBE",
    "HTTP": "CONNECT DELETE GET HEAD OPTIONS PATCH POST PRI PROPFIND PUT TRACE",
    "NNTP": "ARTICLE AUTHINFO BODY CAPABILITIES DATE GROUP HDR HEAD HELP IHAVE LAST LIST LISTGROUP MODE"
    " NEWGROUPS NEWNEWS NEXT OVER POST QUIT STARTTLS STAT XHDR XOVER",
    "ManageSieve": "AUTHENTICATE CAPABILITY CHECKSCRIPT DELETESCRIPT GETSCRIPT HAVESPACE LISTSCRIPTS LOGOUT"
    " NOOP PUTSCRIPT RENAMESCRIPT SETACTIVE STARTTLS UNAUTHENTICATE",
}
"""The verbs of mail protocols, and of those whose clients try the port: no secret, where they are a whole
word at the beginning of a line."""

PUBLIC: Final = frozenset(word for words in WORDS.values() for word in words.split())
"""All of them."""

MECHANISMS: Final = READABLE | frozenset(
    {
        "9798-M-DSA-SHA1",
        "9798-M-ECDSA-SHA1",
        "9798-M-RSA-SHA1-ENC",
        "9798-U-DSA-SHA1",
        "9798-U-ECDSA-SHA1",
        "9798-U-RSA-SHA1-ENC",
        "ANONYMOUS",
        "CRAM-MD5",
        "DIGEST-MD5",
        "EAP-AES128",
        "EAP-AES128-PLUS",
        "ECDH-X25519-CHALLENGE",
        "ECDSA-NIST256P-CHALLENGE",
        "EXTERNAL",
        "GS2-KRB5",
        "GS2-KRB5-PLUS",
        "GSS-SPNEGO",
        "GSSAPI",
        "KERBEROS_V4",
        "KERBEROS_V5",
        "LOGIN",
        "MSN",
        "NMAS_AUTHEN",
        "NTLM",
        "OAUTH10A",
        "OAUTHBEARER",
        "OPENID20",
        "OTP",
        "PLAIN",
        "SAML20",
        "SCRAM-SHA-1",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-224",
        "SCRAM-SHA-256",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-384",
        "SCRAM-SHA-512",
        "SCRAM-SHA-512-PLUS",
        "SECURID",
        "SKEY",
        "SPNEGO",
        "SPNEGO-PLUS",
        "SXOVER-PLUS",
        "XOAUTH",
        "XOAUTH2",
        "XYMCOOKIE",
    }
)
"""Names of SASL mechanisms: those that can be read, IANA's registry, and others that mail clients have."""

_WORD: Final = re.compile(rb"([A-Za-z]{1,16})(?:[\0-\x20]|\Z)")
_LETTERS: Final = re.compile(rb"[A-Za-z]*")
_BLANKS: Final = bytes(range(0x21))

_MOST_WORDS: Final = 4
"""Words of a line that are looked at as base64: AUTH, a mechanism and a response, and one before them."""

# A password behind the name, as of a person who types both on one line.
_AND_PASS: Final = re.compile(rb"[\0-\x20,;](?:PASS|PASSWORD)[\0-\x20:=]+(?=.)", re.I | re.S)
_STUCK: Final = re.compile(rb"PASS|APOP|AUTH|USER", re.I)
_NUMBERS: Final = re.compile(rb"[ \t]*(?:\d{1,10}(?:[ \t]+\d{1,10})?[ \t]*)?\Z")
_LANGUAGE: Final = re.compile(rb"[ \t]*(?:\*|[a-z]{2,3}(?:-[a-z0-9]{1,8})*)?[ \t]*\Z", re.I)


def password_behind(name: bytes) -> bytes:
    """Return what follows the word PASS behind a user's name, or nothing."""
    found = _AND_PASS.search(name)
    return name[found.end() :] if found else b""


def _nothing(arg: bytes) -> Secret:
    return Secret.ODD_ARGUMENT if arg.strip(_BLANKS) else Secret.NOTHING


def _numbers(arg: bytes) -> Secret:
    if (arg.isdigit() and len(arg) <= 10) or _NUMBERS.match(arg):
        return Secret.NOTHING
    return Secret.ODD_ARGUMENT


def _language(arg: bytes) -> Secret:
    return Secret.NOTHING if _LANGUAGE.match(arg) else Secret.ODD_ARGUMENT


def _name(arg: bytes) -> Secret:
    return Secret.AFTER_PASS if password_behind(arg) else Secret.NOTHING


def _mechanism(arg: bytes) -> Secret:
    words = arg.split(None, 1)
    if not words:
        return Secret.NOTHING
    return Secret.AFTER_FIRST_WORD if is_mechanism(words[0]) else Secret.ARGUMENT


_SECRET_OF: Final[Mapping[str, Callable[[bytes], Secret]]] = {
    **dict.fromkeys(("CAPA", "LAST", "NOOP", "QUIT", "RSET", "STAT", "STLS", "UTF8"), _nothing),
    **dict.fromkeys(("DELE", "LIST", "RETR", "TOP", "UIDL"), _numbers),
    **dict.fromkeys(("RPOP", "USER"), _name),
    "AUTH": _mechanism,
    "LANG": _language,
}
"""Of which commands the argument decides; what is secret of the others is in their row."""


def secret_of(row: Command, arg: bytes) -> Secret:
    """Return which part of a known command's line is secret."""
    if not arg:
        return row.secret
    judge = _SECRET_OF.get(row.name)
    return row.secret if judge is None else judge(arg)


def secret_of_unknown(line: bytes) -> Secret:
    """Return which part of a line that is no known command is secret: all but a public first word."""
    if not line[:1].isalpha():
        return Secret.ARGUMENT
    word = _WORD.match(line)
    public = word is not None and word[1].upper().decode("ascii") in PUBLIC
    return Secret.ARGUMENT if public else Secret.LINE


def secrets_of(secret: Secret, arg: bytes) -> Iterator[bytes]:
    """Yield the secrets in the argument of a known command, of which a part is marked as secret."""
    if secret is Secret.AFTER_PASS:
        yield password_behind(arg)
    elif secret is Secret.AFTER_FIRST_WORD:
        mechanism, *response = arg.split(None, 1)
        if mechanism.upper().decode("ascii", "replace") not in MECHANISMS:
            yield mechanism
        yield from secrets_of_response(response[0].strip() if response else b"")
    elif secret is Secret.AFTER_NAME:
        words = arg.split(None, 1)
        yield words[-1] if words else b""
        yield arg.rpartition(b" ")[2]
    elif secret is not Secret.NOTHING:
        yield arg


def secrets_of_unknown(line: bytes) -> Iterator[bytes]:
    """Yield the secrets in a line that is no known command: all of it, and what may be parts of it."""
    first, _, rest = line.lstrip(_BLANKS).partition(b" ")
    if secret_of_unknown(line) is Secret.LINE:
        yield line
        yield first
        if (stuck := _STUCK.match(first)) is not None:
            yield first[stuck.end() :].lstrip(b":=")
    else:
        yield line[len(_LETTERS.match(line)[0]) :].strip(_BLANKS)  # type: ignore[index]  # it matches all
    yield rest
    for word in line.split(None, _MOST_WORDS)[:_MOST_WORDS]:
        data = _decoded(word)
        if data.isascii() and data.decode("ascii").isprintable():
            # What AUTH LOGIN asks for is nothing but the password.
            yield data
        yield from _secrets_in(data)


def secrets_of_response(line: bytes) -> Iterator[bytes]:
    """Yield the secrets in a SASL response: the line, and what is in it if it is base64."""
    if line not in (b"*", b"="):
        yield line
        yield from _secrets_in(_decoded(line))


_BEARER: Final = re.compile(rb"(?:\A|\x01)auth=Bearer +([^\x01]+)", re.I)
_PROOF: Final = re.compile(rb"(?:\A|,)(?:p|response)=([^,]+)|\A[^\0]* ([0-9a-f]{32,})\Z")


def _secrets_in(data: bytes) -> Iterator[bytes]:
    """Yield what proves who the client is in a decoded response, as far as it shows there.

    That is the password of PLAIN (RFC 4616), a bearer's token (RFC 7628, XOAUTH2), and the proofs of
    CRAM-MD5, DIGEST-MD5 and SCRAM.
    """
    for form in (_BEARER, _PROOF):
        if (found := form.search(data)) is not None:
            yield found[found.lastindex or 0]
    parts = data.split(b"\0")
    if len(parts) >= 3:
        yield parts[-1]


def _decoded(word: bytes) -> bytes:
    """Decode base64, leniently; nothing if it is none."""
    text = word.rstrip(b"=")
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error:
        return b""
