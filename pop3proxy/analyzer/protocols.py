"""Recognises from the first bytes of a session that its server is not a POP3 server."""

import re
from typing import Final

TLS_HEAD: Final = (b"\x15\x16", b"\x03", b"\0\1\2\3\4")
"""The bytes that a TLS record may begin with: a handshake or an alert (RFC 8446 section 5.1)."""


def is_tls(head: bytes) -> bool:
    """Return whether a side begins with a TLS record."""
    return len(head) >= 3 and head[0] in (0x15, 0x16) and head[1] == 0x03 and head[2] <= 0x04


_SERVER = (
    (re.compile(rb"SSH-\d"), "ssh"),
    (re.compile(rb"HTTP/\d"), "http"),
    (re.compile(rb"220[ -]"), "smtp"),
    (re.compile(rb"\* (?:OK|PREAUTH|BYE)(?: |\Z)", re.I), "imap"),
)


def foreign_server(line: bytes) -> str:
    """Return the protocol that a server's first line belongs to, or ``""``."""
    for form, protocol in _SERVER:
        if form.match(line):
            return protocol
    return ""
