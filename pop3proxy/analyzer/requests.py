"""Reads the client's side of a dialogue: commands, SASL responses, the message of XTND XMIT; no replies.

What is particular to a command stands in ``grammar``, to a SASL mechanism in ``sasl``.
"""

import re
from collections.abc import Callable, Mapping

from . import grammar
from .events import (
    AUTHORIZATION,
    CLIENT,
    Data,
    LoginAttempt,
    Oddity,
    Request,
    Secret,
)
from .grammar import Command, Role
from .lines import Body
from .owed import Owed, OwedToExchange, OwedToLogin, OwedToUser
from .protocols import foreign_client, is_tls
from .sasl import Exchange, readable
from .state import ANSWER, COMMAND, MESSAGE, NO_TALLY, NOT_SECRET, SASL, DialogueState, Expect
from .text import decode

USER_PASS = "USER/PASS"
"""The mechanism of a login by USER and PASS (RFC 1939 section 7)."""

# Most commands leave nothing to remember, so one value serves all sessions.
_SINGLE = {row: Owed(row) for row in grammar.ROWS}
_MULTI = {row: Owed(row, True) for row in grammar.ROWS}
COUNTED = frozenset({"RETR", "TOP", "DELE"})

_LETTERS = re.compile(rb"[A-Za-z]{0,16}")
_NAME_AND_DIGEST = re.compile(rb"(.*)[\t-\r ].*\Z", re.S)
_DIGEST = re.compile(rb"[\t-\r ][0-9a-f]{32}(?:[\t-\r ]|\Z)", re.I)
_ENDS_FOR_SOME = re.compile(rb"(?:\A|\r)[ \t]*\.[ \t]*(?:\r|\Z)")


def _split(text: bytes) -> tuple[bytes, bytes]:
    """Split a command line into its word and its argument (RFC 1939 section 3)."""
    word, _, arg = text.partition(b" ")
    return word, arg


class Requests(DialogueState):
    """The client's half of the analyzer."""

    __slots__ = ()

    def _client_step(self) -> int:
        """Take the next run of the client's bytes; return its size, or -1 if it has to wait."""
        client = self._client
        if self._client_expects is ANSWER:
            return self._keep_undecided()
        waits = (self._in_flight or self._alone) and self._must_wait()
        if waits or self._undecided or self._too_much_owed():
            if self._doubt is None:
                return -1
            # Nothing pairs replies while in doubt, so waiting for them could last for ever.
            self._lose("out_of_step")
        if self.blind:
            # These are the bytes that settled the doubt, and the client's first after STLS if it was that.
            self._handshake_due = False
            return len(client.take(client.waiting))
        self._client_line()
        return client.taken

    def _must_wait(self) -> bool:
        """Say whether the next line cannot be judged before what is ahead of it is answered."""
        if self._alone:
            self._alone = bool(self._owed)
            if self._alone:
                return True
        if not self._in_flight:
            return False
        if self._commands_wait or self._doubt is not None:
            return True
        # Of a line that is passed piece by piece the beginning is gone, and decides all the same.
        line = (self._client.head(5) + self._client.peek(5)).partition(b"\n")[0]
        return grammar.may_become_login(line)

    def _keep_undecided(self) -> int:
        """Let bytes behind a barrier pass, and keep a copy until the server has answered."""
        client = self._client
        if self._gated:
            if self._doubt is None:
                return -1
            # Nothing tells in doubt which answer is the barrier's, so waiting for it could last for ever.
            self._lose("out_of_step")
            return len(client.take(client.waiting))
        if self._undecided is None:
            self._undecided, self._unread = bytearray(), 0
        room = self._limits.undecided - len(self._undecided)
        if room <= 0:
            if self._doubt is None:
                return -1
            self._lose("out_of_step")
            return len(client.take(client.waiting))
        piece = client.take(room)
        self._undecided += piece
        return len(piece)

    def _read_undecided(self) -> None:
        """Read what passed behind a barrier, now that the server has said what it is."""
        kept, self._undecided = self._undecided, None
        if not kept:
            return
        client = self._client
        later = client.take(client.waiting)
        client.feed(bytes(kept))
        while client.waiting and not (
            self._client_expects is ANSWER or self._too_much_owed() or self.blind
        ):
            self._client_line()
        if client.waiting and not self.blind:
            self._undecided = bytearray(client.take(client.waiting))
            # What was searched for secrets need not be once more.
            self._unread = max(0, len(self._undecided) - len(kept) + self._unread)
        client.feed(later)

    def _client_line(self) -> None:
        """Cut and read one line, or the beginning of one."""
        client = self._client
        if self._layer_due:
            self._layer_due = False
            # A security layer's buffers begin with their length in four octets (RFC 4422 section 3.7).
            if client.peek(1) == b"\0":
                self._odd(Oddity.SECURITY_LAYER, True, b"")
                self._lose("security_layer")
                client.take(client.waiting)
                return
        text = client.cut(self._client_limit())
        if text is not None and client.truncated:
            self._too_long = self._may_become(CLIENT, text[:5])
        if (self._client_fresh or self._client_torn) and self._is_no_line(text):
            return
        if text is not None:
            _READ_CLIENT[self._client_expects](self, text)

    def _is_no_line(self, text: bytes | None) -> bool:
        """Look whether the first line, or the first behind a gap, is one of POP3; stop if it is not."""
        if self._client_fresh:
            if is_tls(self._client.head(3) if text is None else text):
                self._foreign(Oddity.TLS_FROM_FIRST_BYTE, True, b"", "tls")
                return True
            if text is not None:
                self._client_fresh = False
                if not self._client.truncated and (protocol := foreign_client(text)):
                    self._foreign(Oddity.NOT_POP3, True, text, protocol)
                    return True
        if self._client_torn and text is not None:
            self._client_torn = False
            # The end of a line may be the end of a password; a known command is most likely a whole line.
            if grammar.command(*_split(text)) is grammar.UNKNOWN:
                self._secret_of_unknown(text)
                return True
        return False

    def _client_limit(self) -> int:
        limits = self._limits
        if self._client_expects is MESSAGE:
            return limits.data_line
        head = self._client.head(5) + self._client.peek(5)
        if self._client_expects is SASL or grammar.may_carry_sasl(head):
            return limits.sasl_line
        return limits.command_line

    def _command(self, text: bytes) -> None:
        """Read a command line (RFC 1939 section 3; RFC 2449 section 4)."""
        word, arg = _split(text)
        row = grammar.command(word, arg)
        self.commands += 1
        if self._gated:
            self._keep_what_was(row, text)
        if self._doubt is not None:
            self._doubt.commands += 1
        if row is grammar.UNKNOWN:
            self._unknown(text)
        else:
            if row.name in COUNTED:
                self._count(row.name)
            secret = self._secret_of(row, arg)
            if Request in self._wants:
                self._out.append(Request(self.connection, self.ts, row.name, decode(arg), secret))
            if row.needs_argument and not arg.strip():
                self._odd(Oddity.BAD_ARGUMENTS, True, text)
        if self._client.truncated:
            self._secrets_lost()
            self._odd(Oddity.LINE_TOO_LONG, True, text, row.secret)
        self._owe(row, arg)
        if self._guards_login:
            self._look_for_a_login(row, text)

    def _keep_what_was(self, row: Command, text: bytes) -> None:
        """Note what the caller decides by, and what the command can be taken back to."""
        self._before = self._user, self._user_last
        self._attempted = None
        self._row = row
        if self._stls_waits and self.connection.state is AUTHORIZATION:
            self._hides_stls = grammar.stls_to_some(text, row)

    def _owe(self, row: Command, arg: bytes) -> None:
        """Remember what the server owes for a command, and do what is particular to it."""
        request = _ON_REQUEST.get(row.role)
        if request is not None:
            owed = request(self, row, arg)
            self._credentials += owed.octets
            self._in_flight += self._logins_wait and isinstance(owed, OwedToLogin)
        else:
            owed = (_MULTI if row.multiline(arg) else _SINGLE)[row]
        self._owed.append(owed)

    def _look_for_a_login(self, row: Command, text: bytes) -> None:
        """Look whether a command line can be others to some servers."""
        # They may not answer it at all: the next command's reply would be paired with it.
        self._alone = not self._client.crlf or not text.strip()
        if grammar.login_to_some(text, row):
            # Nobody can be asked about what is a login to one server and nonsense to another.
            self._lose("out_of_step")

    def _count(self, name: str) -> None:
        if self.tally is NO_TALLY:
            self.tally = {}
        self.tally[name] = self.tally.get(name, 0) + 1

    def _unknown(self, text: bytes) -> None:
        """Raise the events of a line that is no command."""
        letters = _LETTERS.match(text)[0]  # type: ignore[index]  # it matches every line
        arg = text[len(letters) :]
        secret = self._secret_of_unknown(text)
        if Request in self._wants:
            shown = decode(arg[1:] if arg[:1] == b" " else arg)
            self._out.append(
                Request(self.connection, self.ts, decode(letters.upper()), shown, secret)
            )
        self._odd(Oddity.UNKNOWN_COMMAND, True, text, secret)

    def _request_user(self, row: Command, arg: bytes) -> Owed:
        self._user = self._user_last = decode(arg)
        return OwedToUser(row, self._user)

    def _request_pass(self, row: Command, arg: bytes) -> Owed:
        """RFC 1939 section 7: the password is the rest of the line, blanks included."""
        password = decode(arg)
        self._attempt(
            self._user if self._user is not None else self._user_last, password, USER_PASS
        )
        return OwedToLogin(row, USER_PASS, None, password)

    def _request_apop(self, row: Command, arg: bytes) -> Owed:
        """RFC 1939 section 7: a name, a blank and the digest; the name may hold blanks.

        There are servers that take a tab for a blank, and such as look no further than the first digest.
        """
        parts = _NAME_AND_DIGEST.match(arg.rstrip())
        if parts is None:
            return OwedToLogin(row, "APOP", decode(arg), complete=False)
        user = parts[1]
        if self._guards_login and _DIGEST.search(user):
            self._lose("out_of_step")
        self._attempt(decode(user), "", "APOP")
        return OwedToLogin(row, "APOP", decode(user))

    def _request_rpop(self, row: Command, arg: bytes) -> Owed:
        """RFC 1081: the server trusts the client's address; USER, or else the argument, names the user."""
        user = decode(arg)
        self._attempt(self._user if self._user is not None else user, "", "RPOP")
        return OwedToLogin(row, "RPOP", user)

    def _request_auth(self, row: Command, arg: bytes) -> Owed:
        """RFC 5034 section 4: a mechanism and perhaps an initial response; then the server's turn.

        Whatever blank sets them apart: there are servers that take a tab for one.
        """
        mechanism, *initials = arg.split(None, 1)
        exchange = Exchange(mechanism)
        self._client_expects = ANSWER
        initial = initials[0].strip() if initials else b""
        if initial:
            if self._guards_login and not readable(initial):
                self._lose("out_of_step")
            exchange.initial(initial)
            self._responded(exchange, None)
        return OwedToExchange(row, exchange)

    def _request_barrier(self, row: Command, arg: bytes) -> Owed:
        """STLS and XTND XMIT: what the client sends next depends on the answer."""
        self._client_expects = ANSWER
        if row.role is Role.XMIT:
            self._message = Body(self._client.crlf)
        return _SINGLE[row]

    def _sasl_response(self, text: bytes) -> None:
        """Read a line of a SASL exchange; an empty one is a response too."""
        owed = self._owed[-1]
        assert isinstance(owed, OwedToExchange)
        if self._client.truncated:
            self._secrets_lost()
            self._odd(Oddity.LINE_TOO_LONG, True, text, Secret.LINE)
        self._remember_line(text)
        if self._guards_login and (b"\r" in text or not readable(text)):
            # It is several lines to some servers, or carries a login to those that decode it somehow.
            self._lose("out_of_step")
            return
        exchange = owed.exchange
        before = (exchange.user, exchange.password) if exchange.complete else None
        exchange.respond(text)
        self._responded(exchange, before)
        self._client_expects = ANSWER

    def _responded(self, exchange: Exchange, before: tuple[str, str] | None) -> None:
        """Raise what a response gave rise to.

        ``before`` are the credentials if they seemed complete: the server may ask for others, as after an
        empty initial response to AUTH PLAIN.
        """
        if exchange.malformed:
            self._odd(Oddity.BAD_SASL_RESPONSE, True, b"", Secret.LINE)
        if exchange.complete and before != (exchange.user, exchange.password):
            self._remember(exchange.password.encode("utf-8", "surrogateescape"))
            self._attempt(exchange.user, exchange.password, exchange.mechanism)

    def _attempt(self, user: str, password: str, mechanism: str) -> None:
        """Raise the attempt, unless the client is logged in already: then the server does not judge it."""
        self._user = None
        if self.connection.state is not AUTHORIZATION:
            return
        if self._gated:
            self._attempted = user, password, mechanism
        if LoginAttempt in self._wants:
            self._out.append(LoginAttempt(self.connection, self.ts, user, password, mechanism))

    def _message_line(self, text: bytes) -> None:
        """Read a line of the message that the client sends after XTND XMIT (RFC 1081 and 1082)."""
        assert self._message is not None
        if self._logins_wait and text != b"." and _ENDS_FOR_SOME.search(text):
            # What follows is a command to those, and mail to others.
            self._lose("out_of_step")
            return
        line = self._message.line(text, self._client.crlf)
        if line is None:
            if self._message.mixed:
                self._odd(Oddity.MIXED_TERMINATOR, True, text)
            self._message = None
            self._client_expects = COMMAND
            return
        if Data in self._wants:
            self._out.append(Data(self.connection, self.ts, decode(line), True))
            if self._client.truncated:
                self._odd(Oddity.LINE_TOO_LONG, True, b"")

    def _client_cut(self, head: bytes) -> None:
        """Report a client line that has no end; what would be secret of it as a whole is so of a part."""
        secret = NOT_SECRET
        if self._client_expects is SASL:
            secret = Secret.LINE
        elif self._client_expects is COMMAND:
            secret = self._secret_of_any(head)
        self._remember_unread()
        self._odd(Oddity.CUT_LINE, True, head, secret)


_READ_CLIENT: Mapping[Expect, Callable[[Requests, bytes], None]] = {
    COMMAND: Requests._command,
    SASL: Requests._sasl_response,
    MESSAGE: Requests._message_line,
}

_ON_REQUEST: Mapping[Role, Callable[[Requests, Command, bytes], Owed]] = {
    Role.USER: Requests._request_user,
    Role.PASS: Requests._request_pass,
    Role.APOP: Requests._request_apop,
    Role.RPOP: Requests._request_rpop,
    Role.AUTH: Requests._request_auth,
    Role.STLS: Requests._request_barrier,
    Role.XMIT: Requests._request_barrier,
}
