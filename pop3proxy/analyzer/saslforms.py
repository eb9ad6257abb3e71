"""The forms of SASL messages that all servers read alike: one row a mechanism, and nothing that is not here.

A message has the form of its mechanism's RFC: no field twice, fields in the RFC's order where it has one,
blanks where it has blanks. Servers differ in what they make of anything else. The guard passes no other.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z")


def is_strict_base64(text: bytes) -> bool:
    """Return whether a text is base64 of RFC 4648 section 4: padded, and without blanks."""
    return _BASE64.match(text) is not None


Reads = Callable[[bytes], bool]
"""Returns whether a decoded message has a form."""


@dataclass(frozen=True, slots=True)
class SaslForm:
    """What the client says in an exchange of one mechanism.

    ``responses`` are the forms of its messages in their order; the last may come again if ``endless``.
    ``initial``: the first may stand on the AUTH line. ``report``: the server may say why it refuses in a
    further challenge, or send its own proof, which a response of the form ``report`` answers.
    ``long``: a response may be longer than the buffers of servers, as tokens are; ``mark`` is then what each
    message holds that is a login, or None if no message alone is one.
    """

    responses: tuple[Reads, ...]
    initial: bool = True
    report: Reads | None = None
    endless: bool = False
    long: bool = False
    mark: re.Pattern[bytes] | None = None

    @property
    def challenges(self) -> int:
        """How many challenges an exchange without an initial response has at the most."""
        return len(self.responses) + (self.report is not None)

    def fits(self, turn: int, message: bytes) -> bool:
        """Return whether a decoded message has the form of the client's response number ``turn``, from 0."""
        if turn < len(self.responses):
            return self.responses[turn](message)
        if self.endless:
            return self.responses[-1](message)
        return self.report is not None and self.report(message)


def _form(pattern: bytes) -> Reads:
    match = re.compile(rb"(?:%s)\Z" % pattern, re.S).match
    return lambda message: match(message) is not None


# RFC 4616 section 2: names have up to 255 bytes; so have passwords, which are longer in use.
_NAME = rb"[^\0-\x1f\x7f]{1,255}"
# Courier's authentication daemon reads lines: a password ends there at a line feed.
_PASSWORD = rb"[^\0\r\n]{0,1024}"
_EMPTY = _form(rb"")
_ANYTHING = _form(rb".*")

# RFC 4616 section 2.
_PLAIN = _form(rb"[^\0-\x1f\x7f]{0,255}\0" + _NAME + rb"\0" + _PASSWORD)
_PLAIN_MARK = re.compile(rb"\0%s\0" % _NAME)

# RFC 2195 section 2.
_CRAM_MD5 = _form(_NAME + rb" [0-9A-Fa-f]{32}")

# RFC 2831 section 2.1.2; GNU SASL writes a blank behind each comma.
_DIRECTIVE = re.compile(
    rb'([a-z-]+)=(?:"(?:[^"\\\0-\x1f\x7f]|\\["\\])*"|[^\0-\x20\x7f",=]+)(?:, ?(?=.)|\Z)', re.S
)
_DIRECTIVES = frozenset(
    {b"username", b"realm", b"nonce", b"cnonce", b"nc", b"qop", b"digest-uri", b"response"}
    | {b"maxbuf", b"charset", b"cipher", b"authzid"}
)


def _digest_md5(message: bytes) -> bool:
    """Return whether a message is known directives, each once: of two some servers take the first."""
    names: set[bytes] = set()
    position = 0
    while position < len(message):
        directive = _DIRECTIVE.match(message, position)
        if directive is None or directive[1] in names or directive[1] not in _DIRECTIVES:
            return False
        names.add(directive[1])
        position = directive.end()
    return {b"username", b"response"} <= names


# RFC 5802 section 7.
_SASLNAME = rb"(?:[^\0-\x1f\x7f,=]|=2C|=3D)+"
_PRINTABLE = rb"[!-+\--~]+"
# Of the letters that the RFC has given no meaning: no attribute comes twice.
_EXTENSIONS = rb"(?:,[bdfghj-loqtuw-z]=[^\0,]*)*"
_SCRAM_FIRST = _form(
    rb"(?:n|y|p=[A-Za-z0-9.-]+),(?:a=%s)?,n=%s,r=%s%s"
    % (_SASLNAME, _SASLNAME, _PRINTABLE, _EXTENSIONS)
)
_SCRAM_FINAL = _form(
    rb"c=[A-Za-z0-9+/]+={0,2},r=%s%s,p=[A-Za-z0-9+/]+={0,2}" % (_PRINTABLE, _EXTENSIONS)
)

# A token is printable (RFC 6750 section 2.1); the rest as the large providers document it.
_TOKEN = rb"[!-~]+"
# A name with the field's own name in it would be another name to a server that reads the end of a long line.
_XOAUTH2 = _form(rb"user=(?!(?i:[^\x01]*user=))%s\x01auth=Bearer %s\x01\x01" % (_NAME, _TOKEN))

# RFC 7628 section 3.1: an authorization identity, and each key once.
_OAUTHBEARER = _form(
    rb"[ny],a=%s,\x01(?:host=[!-~]+\x01)?(?:port=[0-9]+\x01)?auth=Bearer %s\x01\x01"
    % (_SASLNAME, _TOKEN)
)
_OAUTH_REPORT = _form(rb"\x01?")
_BEARER = re.compile(rb"auth=bearer", re.I)

# RFC 4422 appendix A and RFC 4505.
_IDENTITY = _form(rb"[^\0-\x1f\x7f]{0,255}")
_TRACE = _form(rb"[^\0-\x1f\x7f]{0,255}")

# [MS-NLMP] 2.2.1: an AUTHENTICATE message has flags, and its user name lies behind its fixed part.
_NTLM_NEGOTIATE = _form(rb"NTLMSSP\0\x01\0\0\0.*")
_NTLM_AUTHENTICATE = _form(rb"NTLMSSP\0\x03\0\0\0.{52}.*")

_SCRAM: Final = SaslForm((_SCRAM_FIRST, _SCRAM_FINAL), report=_EMPTY)
_OPAQUE: Final = SaslForm((_ANYTHING,), endless=True, long=True)

_FORMS: Final[Mapping[str, SaslForm]] = {
    "PLAIN": SaslForm((_PLAIN,), long=True, mark=_PLAIN_MARK),
    "LOGIN": SaslForm((_form(_NAME), _form(_PASSWORD))),
    "CRAM-MD5": SaslForm((_CRAM_MD5,), initial=False),
    "DIGEST-MD5": SaslForm((_digest_md5,), initial=False, report=_EMPTY),
    "XOAUTH2": SaslForm((_XOAUTH2,), report=_OAUTH_REPORT, long=True, mark=_BEARER),
    "OAUTHBEARER": SaslForm((_OAUTHBEARER,), report=_OAUTH_REPORT, long=True, mark=_BEARER),
    "EXTERNAL": SaslForm((_IDENTITY,)),
    "ANONYMOUS": SaslForm((_TRACE,)),
    "NTLM": SaslForm((_NTLM_NEGOTIATE, _NTLM_AUTHENTICATE)),
    # RFC 4752: tokens of which none shows a name.
    "GSSAPI": _OPAQUE,
    **{
        f"SCRAM-{digest}{plus}": _SCRAM
        for digest in ("SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512", "SHA3-512")
        for plus in ("", "-PLUS")
    },
}

READABLE: Final = frozenset(_FORMS)
"""The mechanisms whose exchanges the analyzer can read, and GSSAPI, which shows no name to anyone."""


def sasl_form(mechanism: str) -> SaslForm | None:
    """Return the form of a mechanism's exchanges, or None if it cannot be read."""
    return _FORMS.get(mechanism)


def opaque_form() -> SaslForm:
    """Return the form of a mechanism that is passed without being read: any tokens."""
    return _OPAQUE
