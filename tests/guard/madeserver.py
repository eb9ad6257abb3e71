"""A made mail server: bytes in, replies out, and what it judged; no sockets, no clock.

It knows most of POP3, and differs from other servers by its ``Habits``. Each reply carries the number of the
line that it answers, so that a test can tell which reply belongs to which line.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .habits import (
    Habits,
    Initial,
    LineEnd,
    Named,
    Nul,
    OkContinues,
    Rest,
    SecondUser,
    Star,
    Swallows,
    UnknownUser,
)
from .mechanisms import (
    MECHANISMS,
    RIGHT,
    RIGHT_DIGEST,
    Desk,
    Exchange,
    decoded,
    read_name,
)

ACCOUNTS = frozenset({b"bob", b"zed", b"bob smith", b"b\xf6b"})
"""Who has a mailbox; the password of each is ``RIGHT``."""

TAG = re.compile(rb"(?:\+OK|-ERR) .*#(\d+)\r\n\Z")
"""How a reply ends: with the number of the line that it answers."""

_APOP = re.compile(rb"(.*) ([0-9a-f]{32})\Z", re.S)
_ENDS: Mapping[LineEnd, re.Pattern[bytes]] = {
    LineEnd.LF: re.compile(rb"\r?\n"),
    LineEnd.CR: re.compile(rb"\r"),
    LineEnd.CRLF: re.compile(rb"\r\n"),
    LineEnd.EITHER: re.compile(rb"\r\n|\r|\n"),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A login that the server judged; ``password`` is None where the mechanism shows none.

    ``success`` is None where the credentials are right, and the client has not taken the server's own proof.
    """

    name: bytes
    password: bytes | None
    mechanism: str
    success: bool | None
    line: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a command is answered: +OK or -ERR, a text, and perhaps a body."""

    ok: bool
    text: bytes = b""
    body: bytes | None = None


_OK = _Answer(True)
_ERR = _Answer(False)
_UNKNOWN = _Answer(False, b"unknown command")


class MadeServer:
    """One session of a made server, with its habits.

    ``judged`` are the logins it judged; ``lines`` are the lines it answered, as it read them, and ``bodies``
    the numbers of those that it answered with a body. ``swallowed`` counts the lines that got no answer,
    ``overflowed`` those that did not fit into the buffer. ``closed``: it has closed the connection.
    """

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.judged: list[Judged] = []
        self.lines: list[bytes] = []
        self.bodies: set[int] = set()
        self.swallowed = 0
        self.overflowed = 0
        self.closed = False
        self.logged_in = False
        self._buffer = bytearray()
        self._name: bytes | None = None
        self._exchange: Exchange | None = None
        self._mechanism = b""
        self._challenge = b"+ \r\n"
        self._desk: Desk | None = None
        self._bad = 0
        self._skips_lf = False  # the last line ended at a CR

    @property
    def waiting(self) -> bool:
        """Whether the server has read part of a line and waits for its end."""
        return bool(self._buffer)

    def greeting(self) -> bytes:
        """Return the first line of the session."""
        return b"+OK ready <1.2@made>\r\n" + self._extra_behind(b"")

    def feed(self, data: bytes) -> list[bytes]:
        """Read bytes of the client; return the replies, each with its body."""
        replies: list[bytes] = []
        self._buffer += data
        while (line := self._line()) is not None:
            reply = self._reply_to(line)
            if reply is None:
                self.swallowed += 1
            else:
                replies.append(reply)
        return replies

    # --- lines ------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        habits = self.habits
        auth = habits.auth_has_the_sasl_buffer and self._buffer[:5].upper() == b"AUTH "
        if self._exchange is not None or auth:
            return habits.sasl_buffer
        return habits.command_buffer

    def _line(self) -> bytes | None:
        """Take a line from the buffer, without its end; None if none is there yet."""
        buffer = self._buffer
        if self.closed:
            return None
        if self._skips_lf and buffer:
            self._skips_lf = False
            if buffer[0] == 0x0A:
                del buffer[0]
        end = _ENDS[self.habits.line_end].search(buffer)
        limit = self._limit()
        if (len(buffer) if end is None else end.start()) > limit:
            return self._too_long(end, limit)
        if end is None:
            return None
        line = bytes(buffer[: end.start()])
        self._take_end(end)
        return line

    def _take_end(self, end: re.Match[bytes]) -> None:
        # The LF behind a CR belongs to it, and may come later.
        self._skips_lf = end[0] == b"\r"
        del self._buffer[: end.end()]

    def _too_long(self, end: re.Match[bytes] | None, limit: int) -> bytes | None:
        """Do with a line that does not fit what this server does with its rest."""
        rest, line = self.habits.rest, bytes(self._buffer[:limit])
        if rest is Rest.LINE:
            self.overflowed += 1
            del self._buffer[:limit]
            return line
        if rest is Rest.CLOSED:
            self.closed = True
            return None
        if end is None:
            return None
        self.overflowed += 1
        self._take_end(end)
        return line if rest is Rest.CUT else _TOO_LONG

    def _reply_to(self, line: bytes) -> bytes | None:
        """Answer a line; None if this server says nothing to it."""
        number = len(self.lines)
        self.lines.append(line)
        if self._exchange is not None:
            if self._ignores(b"EMPTY", line):
                return None
            return self._respond(line, number)
        word, arg = self._split(line)
        command = _COMMANDS.get(word) if word in self._known() else None
        if command is None and self._ignores(word, line):
            return None
        answer = self._bad_command() if command is None else command(self, arg, number)
        if isinstance(answer, bytes):
            return answer + self._extra_behind(word)
        return self._written(answer, number) + self._extra_behind(word)

    def _ignores(self, word: bytes, line: bytes) -> bool:
        swallows = self.habits.swallows
        if not line.strip(b" \t\r"):
            return swallows is not Swallows.NOTHING
        return swallows is Swallows.UNKNOWN and word != b"EMPTY"

    def _written(self, answer: _Answer, number: int) -> bytes:
        status = b"+OK " if answer.ok else b"-ERR "
        reply = b"%s%s#%d\r\n" % (status, answer.text and answer.text + b" ", number)
        if answer.body is not None:
            self.bodies.add(number)
            reply += answer.body + b".\r\n"
        return reply

    def _extra_behind(self, word: bytes) -> bytes:
        return self.habits.extra.value if word == self.habits.extra_behind else b""

    def _split(self, line: bytes) -> tuple[bytes, bytes]:
        """Split a command line into its word and its argument, as this server reads them."""
        habits = self.habits
        if line is _TOO_LONG:
            return b"", b""
        if habits.nul is Nul.ENDS:
            line = line.partition(b"\0")[0]
        elif habits.nul is Nul.SKIPPED:
            line = line.replace(b"\0", b"")
        blanks = habits.blank.value
        if habits.trims_the_end:
            line = line.rstrip(blanks)
        if habits.skips_leading_blanks:
            line = line.lstrip(blanks)
        at = next((at for at, byte in enumerate(line) if byte in blanks), len(line))
        word, arg = line[:at], line[at + 1 :]
        if habits.four_letters and len(word) > 4:
            word, arg = line[:4], line[4:].lstrip(blanks)
        if habits.skips_blanks_behind_the_word:
            arg = arg.lstrip(blanks)
        return (word.upper() if habits.any_case else word), arg

    def _known(self) -> frozenset[bytes]:
        if self.logged_in:
            return _TRANSACTION
        if not self.habits.knows_extensions:
            return _AUTHORIZATION - _EXTENSIONS
        return _AUTHORIZATION

    def _bad_command(self) -> _Answer:
        self._bad += 1
        self.closed = self._bad == self.habits.bad_commands
        self._forget(self.habits.after_other, None)
        return _UNKNOWN

    # --- logins -----------------------------------------------------------------------------------------

    def _judge(
        self,
        mechanism: bytes,
        number: int,
        name: bytes,
        password: bytes | None,
        proof: bool | None,
    ) -> bool:
        right = password == RIGHT if proof is None else proof
        success = right and (name in ACCOUNTS or mechanism in _FOR_ANYBODY)
        verdict = None if success else False
        self.judged.append(Judged(name, password, mechanism.decode(), verdict, number))
        return success

    def _accept(self) -> _Answer:
        self.logged_in = True
        self.judged[-1] = replace(self.judged[-1], success=True)
        return _OK

    def _forget(self, habit: Named, name: bytes | None) -> None:
        """Do with the name of USER what this server does behind a failure."""
        if habit is Named.DROPPED:
            self._name = None
        elif habit is Named.TAKEN and name is not None:
            self._name = name

    def _user(self, arg: bytes, number: int) -> _Answer:
        name = read_name(arg, self.habits)
        if not name:
            return _ERR
        if self._name is not None and self.habits.second_user is SecondUser.REFUSED:
            return _ERR
        if name not in ACCOUNTS and self.habits.unknown_user is not UnknownUser.ACCEPTED:
            if self.habits.unknown_user is UnknownUser.REFUSED:
                self._name = None
            return _ERR
        self._name = name
        return _OK

    def _pass(self, arg: bytes, number: int) -> _Answer:
        name = self._name
        if name is None:
            return _Answer(False, b"USER first")
        if self._judge(b"USER/PASS", number, name, arg, None):
            return self._accept()
        self._forget(self.habits.after_pass, None)
        return _ERR

    def _apop(self, arg: bytes, number: int) -> _Answer:
        parts = _APOP.match(arg)
        name = None
        if parts is not None:
            name = read_name(parts[1], self.habits)
            if self._judge(b"APOP", number, name, None, parts[2] == RIGHT_DIGEST):
                return self._accept()
        self._forget(self.habits.after_apop, name)
        return _ERR

    def _rpop(self, arg: bytes, number: int) -> _Answer:
        name = self._name if self._name is not None else arg
        if not (self.habits.knows_rpop and name):
            return self._bad_command()
        return _OK if self._judge(b"RPOP", number, name, None, False) else _ERR

    # --- SASL -------------------------------------------------------------------------------------------

    def _auth(self, arg: bytes, number: int) -> _Answer | bytes:
        habits = self.habits
        blanks = habits.blank.value
        bare = not arg.strip(blanks)
        if bare or (habits.two_blanks_are_a_bare_auth and arg[0] in blanks):
            if habits.bare_auth_lists:
                return _Answer(True, b"mechanisms", b"".join(m + b"\r\n" for m in MECHANISMS))
            return _ERR
        self._mechanism, initial = _first_word(arg, blanks)
        self._mechanism = self._mechanism.upper()
        mechanism = MECHANISMS.get(self._mechanism)
        if mechanism is None or (initial and habits.initial is Initial.REFUSED):
            self._forget(habits.after_auth, None)
            return _ERR
        data = None
        if initial and habits.initial is Initial.USED:
            data = b"" if initial == b"=" else decoded(initial, habits)
            if data is None:
                self._forget(habits.after_auth, None)
                return _Answer(False, b"no base64")
        self._desk = Desk(habits, self._judge_claim)
        self._exchange = mechanism(self._desk, data)
        return self._go_on(None, number, first=not initial)

    def _judge_claim(self, name: bytes, password: bytes | None, proof: bool | None) -> bool:
        return self._judge(self._mechanism, len(self.lines) - 1, name, password, proof)

    def _respond(self, line: bytes, number: int) -> bytes:
        if line == b"*":
            again = self.habits.star is Star.ASKED_AGAIN
            return self._challenge if again else self._exchange_failed(number)
        if self.habits.nul is Nul.ENDS:
            line = line.partition(b"\0")[0]
        data = decoded(line, self.habits)
        if data is None:
            return self._exchange_failed(number)
        return self._go_on(data, number, first=False)

    def _go_on(self, data: bytes | None, number: int, *, first: bool) -> bytes:
        """Give the exchange a response, or begin it; return the challenge or the reply."""
        assert self._exchange is not None
        try:
            challenge = next(self._exchange) if data is None else self._exchange.send(data)
        except StopIteration as end:
            if not end.value:
                return self._exchange_failed(number)
            self._exchange = None
            return self._written(self._accept(), number)
        continues = self.habits.ok_continues
        ntlm = continues is OkContinues.NTLM and self._mechanism == b"NTLM"
        if first and (ntlm or continues is OkContinues.ALWAYS):
            return self._written(_Answer(True, b64encode(challenge)), number)
        self._challenge = b"+ " + b64encode(challenge) + b"\r\n"
        return self._challenge

    def _exchange_failed(self, number: int) -> bytes:
        self._exchange = None
        self._forget(self.habits.after_auth, self._desk.named if self._desk else None)
        return self._written(_ERR, number)

    # --- the rest ---------------------------------------------------------------------------------------

    def _stls(self, arg: bytes, number: int) -> _Answer:
        self._forget(self.habits.after_other, None)
        return _ERR

    def _quit(self, arg: bytes, number: int) -> _Answer:
        self.closed = True
        return _OK

    def _capa(self, arg: bytes, number: int) -> _Answer:
        sasl = b" ".join(MECHANISMS)
        return _Answer(True, b"", b"USER\r\nPIPELINING\r\nSASL " + sasl + b"\r\n")

    def _lang(self, arg: bytes, number: int) -> _Answer:
        return _OK if arg.strip() else _Answer(True, b"", b"en English\r\n")

    def _list(self, arg: bytes, number: int) -> _Answer:
        return _OK if arg.strip() else _Answer(True, b"", b"1 20\r\n2 30\r\n")

    def _retr(self, arg: bytes, number: int) -> _Answer:
        body = b"Subject: +OK\r\n\r\n-ERR no reply\r\n..\r\n"
        return _Answer(True, b"", body) if arg.strip() in (b"1", b"2") else _ERR

    def _plain(self, arg: bytes, number: int) -> _Answer:
        return _OK


def _first_word(arg: bytes, blanks: bytes) -> tuple[bytes, bytes]:
    """Split an AUTH line's argument into the mechanism and the initial response."""
    for at, byte in enumerate(arg):
        if byte in blanks:
            return arg[:at], arg[at:].strip(blanks)
    return arg, b""


_TOO_LONG = b"\0 a line that is too long"
_FOR_ANYBODY = (b"ANONYMOUS", b"GSSAPI", b"EXTERNAL")

_Command = Callable[[MadeServer, bytes, int], _Answer | bytes]

_COMMANDS: Mapping[bytes, _Command] = {
    b"USER": MadeServer._user,
    b"PASS": MadeServer._pass,
    b"APOP": MadeServer._apop,
    b"RPOP": MadeServer._rpop,
    b"AUTH": MadeServer._auth,
    b"STLS": MadeServer._stls,
    b"QUIT": MadeServer._quit,
    b"CAPA": MadeServer._capa,
    b"LANG": MadeServer._lang,
    b"UTF8": MadeServer._plain,
    b"NOOP": MadeServer._plain,
    b"STAT": MadeServer._plain,
    b"DELE": MadeServer._plain,
    b"RSET": MadeServer._plain,
    b"LIST": MadeServer._list,
    b"UIDL": MadeServer._list,
    b"RETR": MadeServer._retr,
    b"TOP": MadeServer._retr,
}
_MAILBOX = frozenset({b"STAT", b"DELE", b"RSET", b"LIST", b"UIDL", b"RETR", b"TOP"})
_EXTENSIONS = frozenset({b"LANG", b"UTF8", b"NOOP"})
_AUTHORIZATION = frozenset(_COMMANDS) - _MAILBOX
_TRANSACTION = _MAILBOX | _EXTENSIONS | {b"QUIT", b"CAPA"}
