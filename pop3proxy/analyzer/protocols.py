"""Recognises from the first bytes of a session that its server is not a POP3 server."""

import re
from typing import Final

TLS_HEAD: Final = (b"\x15\x16", b"\x03", b"\0\1\2\3\4")
"""The bytes that a TLS record may begin with: a handshake or an alert (RFC 8446 section 5.1)."""


def is_tls(head: bytes) -> bool:
    """Return whether a side begins with a TLS record."""
    return len(head) >= len(TLS_HEAD) and all(map(bytes.__contains__, TLS_HEAD, head))


_SERVER = (
    (re.compile(rb"SSH-\d"), "ssh"),
    (re.compile(rb"HTTP/\d"), "http"),
    (re.compile(rb"220[ -]"), "smtp"),
    (re.compile(rb"\* (?:OK|PREAUTH|BYE)(?: |\Z)", re.I), "imap"),
)


def foreign_server(line: bytes) -> str:
    """Return the protocol that a server's first line belongs to, or ``""``."""
    return next((protocol for form, protocol in _SERVER if form.match(line)), "")
