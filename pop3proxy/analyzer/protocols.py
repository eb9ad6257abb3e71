"""Recognises from the first bytes of a session that it is not POP3; reads nothing further of any of them."""

import re

from .grammar import COMMANDS


def is_tls(head: bytes) -> bool:
    """Say whether a side begins with a TLS record: a handshake or an alert (RFC 8446 section 5.1)."""
    return len(head) >= 3 and head[0] in (0x15, 0x16) and head[1] == 0x03 and head[2] <= 0x04


_CLIENT = (
    (re.compile(rb"[A-Z]+ \S+ HTTP/\d"), "http"),
    (re.compile(rb"SSH-\d"), "ssh"),
    (re.compile(rb"(?:EHLO|HELO|LHLO)(?: |\Z)", re.I), "smtp"),
    (
        re.compile(
            rb"([A-Za-z0-9.]+) (?:CAPABILITY|LOGIN|AUTHENTICATE|STARTTLS|ID|NOOP|LOGOUT)(?: |\Z)",
            re.I,
        ),
        "imap",
    ),
)

_SERVER = (
    (re.compile(rb"SSH-\d"), "ssh"),
    (re.compile(rb"HTTP/\d"), "http"),
    (re.compile(rb"220[ -]"), "smtp"),
    (re.compile(rb"\* (?:OK|PREAUTH|BYE)(?: |\Z)", re.I), "imap"),
)


def foreign_client(line: bytes) -> str:
    """Name the protocol that a client's first line belongs to, or return ``""``.

    An IMAP line is a tag and a command; "USER login" looks like one and is POP3.
    """
    if line.partition(b" ")[0].upper() in COMMANDS:
        return ""
    return _name(line, _CLIENT)


def foreign_server(line: bytes) -> str:
    """Name the protocol that a server's first line belongs to, or return ``""``."""
    return _name(line, _SERVER)


def _name(line: bytes, forms: tuple[tuple[re.Pattern[bytes], str], ...]) -> str:
    for form, protocol in forms:
        if form.match(line):
            return protocol
    return ""
