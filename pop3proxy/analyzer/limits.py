"""How much the analyzer keeps of what the peers send, each limit with its reason; nothing else."""

from dataclasses import dataclass

from .sasl import MOST_EXCHANGED


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one session's analyzer; octets unless said otherwise."""

    pending: int = 4096
    """Commands whose reply has not come. Clients pipeline some hundreds (one RETR a message); each is
    one small value. At the limit the session stops reading the client."""

    command_line: int = 8192
    """RFC 2449 section 4 allows 255; user names and passwords in use are longer."""

    sasl_line: int = 65536
    """RFC 5034 section 4 exempts SASL lines; OAuth tokens run to 4 KiB and Kerberos tickets to 48."""

    status_line: int = 8192
    """RFC 2449 section 4 allows 512; Exchange greets with some kilobytes."""

    data_line: int = 65536
    """Of a line of mail, as a ``pop3_data`` event shows it; RFC 5322 allows 998, mailers send more."""

    undecided: int = 65536 + 8192
    """Of what a client pipelines behind AUTH, STLS and XTND XMIT: a SASL response and a command."""

    credentials: int = 65536
    """Of user names and passwords in commands that wait for their reply."""

    doubtful: int = 16
    """Status lines kept while replies are out of step, to be paired when they are certain again."""

    detail: int = 256
    """Of a line in ``pop3_unexpected``: enough to recognise it."""

    secrets: int = 64
    """How many secrets of a session are remembered for masking. One login has one to three, and a server
    closes after some failures. After one more, all that the server says is masked."""

    secret_bytes: int = 16384
    """Of all of them: an OAuth token of 4 KiB counts twice, in base64 and without. Beyond it as above."""

    deletions: int = 65535
    """The highest message number of which is remembered whether it is marked as deleted: one bit each. Few
    mailboxes hold more, and each DELE of a higher number counts."""

    unexpected: int = 20
    """``pop3_unexpected`` of each kind; more are only counted, so that a peer can't flood a log."""

    @property
    def retained(self) -> int:
        """What one analyzer keeps at the most, whatever the peers send, in octets."""
        lines = max(self.command_line, self.sasl_line) + max(self.status_line, self.data_line)
        # A user name or password once read is kept as text of up to four octets a character.
        credentials = 4 * (self.credentials + 2 * self.command_line + 2 * self.sasl_line)
        doubtful = self.doubtful * (self.status_line + 128)
        pending = self.pending * 128
        # The user of the last attempt, and one bit for each message that may be marked.
        summary = 4 * self.sasl_line + self.deletions // 8 + 1
        # With what they are searched by: a probe of each fourth byte or so, which takes a hundred.
        secrets = 128 * self.secrets + 40 * self.secret_bytes
        # One exchange is under way at a time; a digest of APOP is in the credentials.
        secrets += MOST_EXCHANGED
        return lines + self.undecided + credentials + doubtful + pending + summary + secrets + 65536
