"""The messages that the tests' mailboxes hold, as stored and as a POP3 server sends them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mail:
    """One message: its lines end with LF where it is stored."""

    name: str
    stored: bytes

    @property
    def sent(self) -> bytes:
        """What is sent, without the stuffed dots: CRLF everywhere, also at the end of nothing."""
        lines = self.stored.replace(b"\n", b"\r\n")
        return lines if lines.endswith(b"\r\n") else lines + b"\r\n"

    @property
    def with_bare_newlines(self) -> bytes:
        """What a client writes that stores mail with LF."""
        return self.sent.replace(b"\r\n", b"\n")


def _mail(name: str, body: bytes) -> Mail:
    header = (
        f"From: <writer@example.org>\nTo: <reader@example.org>\n"
        f"Subject: {name}\nMessage-ID: <{name}@example.org>\n\n"
    )
    return Mail(name, header.encode() + body)


ODD_BYTES = bytes(byte for byte in range(1, 256) if byte not in b"\r\n")

DOTS = _mail(
    "dots",
    b".\n..\n...\n. \n .\n.x\n.\n\n.\nA line before a dot, and no blank line between them\n.\n",
)
EIGHT_BIT = _mail(
    "eight-bit", "Grüße, 世界\n".encode() + "Grüße\n".encode("latin-1") + ODD_BYTES + b"\n"
)
LONG_LINE = _mail("long-line", b"x" * 70_000 + b"\n." + b"y" * 60_000 + b"\nshort\n")
NO_FINAL_NEWLINE = _mail("no-final-newline", b"The last line is not ended")
NO_BODY = _mail("no-body", b"")
LIKE_A_DIALOGUE = _mail(
    "like-a-dialogue",
    b"+OK Logged in.\n-ERR [AUTH] Authentication failed.\nUSER eve\nPASS secret\n+ \n+OK\n.\nQUIT\n",
)
EMPTY = Mail("empty", b"")

TAME_MAILS = (DOTS, EIGHT_BIT, NO_FINAL_NEWLINE, NO_BODY, LIKE_A_DIALOGUE)
"""What fetchmail, too, takes as it is: it cuts lines after 8 KiB, and gives an empty message a header."""
ODD_MAILS = (EMPTY, *TAME_MAILS, LONG_LINE)


def large_mail(size: int = 10 * 2**20) -> Mail:
    """A message of that size, made of lines as long as RFC 5322 lets them be."""
    line = b"".join(b"%07d " % number for number in range(124)) + b"tail\n"
    return _mail("large", line * (size // len(line) + 1))
