"""What a server's refusal of a login means: from its response code and text to a reason; no state."""

import re

from .events import Reason
from .text import decode

# RFC 2449 section 3: any printable ASCII but the brackets and, between levels, a slash.
_CODE = re.compile(rb"\s*\[([!-Z\\^-~]{1,255})(?: [^\]]*)?\]")

# RFC 2449 section 8.1, RFC 3206 section 3 and 4, RFC 6856 section 5, RFC 5530's name for the last.
_REASONS = {
    "AUTH": Reason.CREDENTIALS,
    "IN-USE": Reason.IN_USE,
    "LOGIN-DELAY": Reason.LOGIN_DELAY,
    "SYS/TEMP": Reason.TEMPORARY,
    "SYS/PERM": Reason.ACCOUNT,
    "UTF8": Reason.ACCOUNT,
    "PRIVACYREQUIRED": Reason.TLS_REQUIRED,
}

# Dovecot says "[AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections." and
# Cyrus "[AUTH] USER command only available under a layer". No RFC has a code for it.
_NEEDS_TLS = re.compile(
    rb"plain ?text auth\w* (?:is )?(?:disallowed|not allowed|disabled)"
    rb"|only available under a layer|(?:must|need to|requires?) .{0,30}(?:STLS|STARTTLS|TLS|SSL)",
    re.I,
)

# The server refuses the mechanism and has judged no credentials: nobody is to be banned for that.
_NO_MECHANISM = re.compile(
    rb"(?:unsupported|unknown|unrecogni[sz]ed|invalid|no such)[\w ]{0,20}(?:mechanism|auth\w* type)"
    rb"|mechanism[\w ]{0,20}(?:not (?:supported|available|enabled)|unsupported|unavailable|unknown)",
    re.I,
)

# Dovecot, UW and others announce with -ERR that they close an idle session, though RFC 1939 section 3 says
# that the server closes without a word.
_FAREWELL = re.compile(
    rb"\s*(?:\[[^\]]*\]\s*)?(?:disconnected\b|auto-?logout|server (?:is )?shutting down|shutting down"
    rb"|too many (?:invalid )?bad commands|idle time-?out|(?:connection|session) timed? ?out)",
    re.I,
)


def response_code(text: bytes) -> str:
    """Return the response code at the beginning of a status line's text (RFC 2449 section 8), or ``""``."""
    match = _CODE.match(text)
    return decode(match[1]) if match is not None else ""


def reason(text: bytes, complete: bool, codes_announced: bool) -> tuple[Reason, str]:
    """Return why a login was refused, and the raw response code.

    ``complete``: the client had sent all its credentials. ``codes_announced``: the server says that it marks
    wrong credentials with [AUTH] (AUTH-RESP-CODE, RFC 3206 section 5), so a refusal without it is another.
    """
    code = response_code(text)
    if _NEEDS_TLS.search(text):
        return Reason.TLS_REQUIRED, code
    if _NO_MECHANISM.search(text):
        return Reason.UNKNOWN, code
    if code:
        return _by_code(code.upper()), code
    return (Reason.CREDENTIALS if complete and not codes_announced else Reason.UNKNOWN), code


def _by_code(code: str) -> Reason:
    """Look up a code; a hierarchical one means at least what its beginning means (RFC 2449 section 8)."""
    while code:
        if code in _REASONS:
            return _REASONS[code]
        code = code.rpartition("/")[0]
    return Reason.UNKNOWN


def is_farewell(text: bytes) -> bool:
    """Say whether an -ERR announces the end of the connection rather than answers a command."""
    return _FAREWELL.match(text) is not None
