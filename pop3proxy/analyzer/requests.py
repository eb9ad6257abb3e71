"""Reads the client's side of a dialogue: commands, SASL responses, the message of XTND XMIT; no replies.

What is particular to a command stands in ``grammar``, to a SASL mechanism in ``sasl``.
"""

import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace

from . import grammar
from .events import (
    AUTHORIZATION,
    CLIENT,
    Data,
    LoginAttempt,
    Oddity,
    Reason,
    Request,
    Secret,
)
from .grammar import Command, Role
from .guard import MALFORMED, MAX_NOT_PASSED, USER_PASS, LocalReply, Strictness
from .lines import Body
from .owed import GREETING, Owed, OwedToExchange, OwedToLogin, OwedToUser
from .protocols import is_tls
from .sasl import Exchange
from .state import (
    ANSWER,
    COMMAND,
    MESSAGE,
    NO_TALLY,
    NOT_SECRET,
    SASL,
    STATUS,
    DialogueState,
    Expect,
)
from .summary import owed_to_dele
from .text import decode

# Most commands leave nothing to remember, so one value serves all sessions.
_SINGLE = {row: Owed(row) for row in grammar.ROWS}
_MULTI = {row: Owed(row, True) for row in grammar.ROWS}
COUNTED = frozenset({"RETR", "TOP", "DELE"})
_AUTH = Role.AUTH
_DELE = grammar.COMMANDS[b"DELE"]

_LETTERS = re.compile(rb"[A-Za-z]{0,16}")
_NAME_AND_DIGEST = re.compile(rb"(.*)[\t-\r ].*\Z", re.S)
# What RFC 1939 section 7 has of MD5; wherever it is in the line, there are servers that judge it.
_MAYBE_DIGEST = re.compile(rb"[0-9a-f]{32}", re.I)
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
        if self._client_fresh:
            self._look_for_tls()
        if self._guard.lock_step:
            if not (self._in_turn or self.blind):
                return -1
        elif self._client_expects is ANSWER:
            return self._keep_undecided()
        elif self._undecided or self._too_much_owed():
            if self._doubt is None:
                return -1
            # Nothing pairs replies while in doubt, so waiting for them could last for ever.
            self._lose("out_of_step")
        if self.inspected != "whole":
            # These are the bytes that settled the doubt, and the client's first after STLS if it was that.
            self._handshake_due = False
            return len(client.take(client.waiting))
        self._client_line()
        return client.taken

    @property
    def _in_turn(self) -> bool:
        """Whether the server has answered all that it got, and waits for the client's next line."""
        waits = self._client_expects is SASL or not self._owed
        return waits and self._farewell is None and self._server_rests

    @property
    def _server_rests(self) -> bool:
        """Whether the server has said nothing by halves."""
        server = self._server
        return self._server_expects is STATUS and not server.unfinished and not server.waiting

    def _keep_undecided(self) -> int:
        """Let bytes behind a barrier pass, and keep a copy until the server has answered."""
        client = self._client
        if self._guard.strictness is not Strictness.NONE:
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
        if text is None:
            return
        self._client_fresh = False
        if client.truncated:
            self._too_long = self._may_become(CLIENT, text[:5])
        if self._client_torn:
            self._client_torn = False
            # The end of a line may be the end of a password; a known command is most likely a whole line.
            if grammar.command(*_split(text)) is grammar.UNKNOWN:
                self._secret_of_unknown(text)
                return
        _READ_CLIENT[self._client_expects](self, text)

    def _look_for_tls(self) -> None:
        """Look whether the client begins with TLS before it is greeted.

        Whether the session is TLS is the server's to say: what the client sends is kept until it speaks.
        """
        client = self._client
        if not is_tls((client.head(3) + client.peek(3))[:3]):
            return
        self._client_fresh = False
        self._odd(Oddity.TLS_FROM_FIRST_BYTE, True, b"")
        if self._owed and self._owed[0] is GREETING:
            if self._gated:
                self._lose("tls")
            else:
                self._client_expects = ANSWER

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
            self._before, self._attempted = self._user, None
            self._row = row = self._guard.row(word, row)
            if self._guard.strictness is not Strictness.NONE:
                self._refusal = self._guard.refusal(text, row, arg)
        if self._doubt is not None:
            self._doubt.commands += 1
        if self._refusal is not None:
            self._not_passed(row, text, arg, self._refusal)
            return
        self._request(row, text, arg)

    def _request(self, row: Command, text: bytes, arg: bytes) -> None:
        """Raise the events of a command that goes to the server, and remember what that owes for it."""
        self._loose = False
        if row is grammar.UNKNOWN:
            row, arg = self._request_unknown(text, arg)
        elif not row.name:
            # A word that the operator has added.
            self._raise_unknown(text)
        else:
            if row.name in COUNTED:
                self._count(row.name)
            self._raise_request(row, arg)
            if row.needs_argument and not arg.strip():
                self._odd(Oddity.BAD_ARGUMENTS, True, text)
        if b"\r" in text or b"\0" in text:
            self._odd(Oddity.AMBIGUOUS_LINE, True, b"")
        if self._client.truncated:
            self._secrets_lost()
            self._odd(Oddity.LINE_TOO_LONG, True, text, row.secret)
        self._owe(row, arg)

    def _request_unknown(self, text: bytes, arg: bytes) -> tuple[Command, bytes]:
        """Raise the events of a line that is no command by the RFC; return its row and argument.

        That of a command that some servers read in it: if the server says +OK, it was that.
        """
        loose = grammar.loosely(text)
        if loose is None:
            secret = self._raise_unknown(text)
            self._odd(Oddity.UNKNOWN_COMMAND, True, text, secret)
            return grammar.UNKNOWN, arg
        self._loose = True
        self._row, arg = loose
        if self._row.name in COUNTED:
            self._count(self._row.name)
        self._raise_request(self._row, arg)
        self._odd(Oddity.UNKNOWN_COMMAND, True, text, self._secret_of_unknown(text))
        return self._row, arg

    def _raise_request(self, row: Command, arg: bytes) -> Secret:
        """Raise the request of a known command, and return what of it is secret."""
        secret = self._secret_of(row, arg) if arg else row.secret
        if Request in self._wants:
            self._out.append(Request(self.connection, self.ts, row.name, decode(arg), secret))
        return secret

    def _not_passed(self, row: Command, text: bytes, arg: bytes, refusal: LocalReply) -> None:
        """Raise the events of a line that the proxy answers, and the login that fails by it."""
        self._end_if_too_many()
        secret = self._raise_request(row, arg) if row.name else self._raise_unknown(text)
        self._odd(Oddity.NOT_PASSED, True, text, secret)
        if row.role is _AUTH:
            self._auth_refused = True
            if refusal.reason is not None:
                exchange = Exchange(arg.split()[0])
                exchange.initial(arg.split(None, 1)[1])
                self._malformed(exchange, refusal.reason)

    def _end_if_too_many(self) -> None:
        if self._guard.not_passed > MAX_NOT_PASSED:
            self._ends = "not_passed"

    def _malformed(self, exchange: Exchange, reason: Reason) -> None:
        """Raise the attempt that fails because a response of it does not pass."""
        self._odd(Oddity.BAD_SASL_RESPONSE, True, b"", Secret.LINE)
        if exchange.announced:
            reason = Reason.CREDENTIALS
        if exchange.attempt:
            self._attempted = self._of(exchange), reason
            return
        attempt = self._attempt(exchange.user, exchange.password, exchange.mechanism)
        exchange.attempt = attempt.attempt
        self._attempted = attempt, reason

    def _of(self, exchange: Exchange) -> LoginAttempt:
        """Return what an exchange tries to log in with."""
        return LoginAttempt(
            *(self.connection, self.ts, exchange.user, exchange.password, exchange.mechanism),
            exchange.attempt,
        )

    def _owe(self, row: Command, arg: bytes) -> None:
        """Remember what the server owes for a command, and do what is particular to it."""
        request = _ON_REQUEST.get(row.role)
        if request is not None:
            owed = request(self, row, arg)
            self._credentials += owed.octets
        elif row is _DELE:
            owed = owed_to_dele(arg)
        else:
            owed = (_MULTI if row.multiline(arg) else _SINGLE)[row]
        self._owed.append(owed)

    def _count(self, name: str) -> None:
        if self.tally is NO_TALLY:
            self.tally = {}
        self.tally[name] = self.tally.get(name, 0) + 1

    def _raise_unknown(self, text: bytes) -> Secret:
        """Raise the request of a line that is no command, and return what of it is secret."""
        letters = _LETTERS.match(text)[0]  # type: ignore[index]  # it matches every line
        arg = text[len(letters) :]
        secret = self._secret_of_unknown(text)
        if Request in self._wants:
            shown = decode(arg[1:] if arg[:1] == b" " else arg)
            self._out.append(
                Request(self.connection, self.ts, decode(letters.upper()), shown, secret)
            )
        return secret

    def _request_user(self, row: Command, arg: bytes) -> Owed:
        self._user = decode(arg)
        return OwedToUser(row, self._user)

    def _request_pass(self, row: Command, arg: bytes) -> Owed:
        """RFC 1939 section 7: the password is the rest of the line, blanks included."""
        attempt = self._attempt(self._user or "", decode(arg), USER_PASS)
        return OwedToLogin(row, attempt, None)

    def _request_apop(self, row: Command, arg: bytes) -> Owed:
        """RFC 1939 section 7: a name, a blank and the digest; the name may hold blanks.

        There are servers that take a tab for a blank.
        """
        parts = _NAME_AND_DIGEST.match(arg.rstrip())
        if parts is None:
            name = decode(arg)
            none = LoginAttempt(self.connection, self.ts, name, "", "APOP")
            return OwedToLogin(row, none, name, complete=False)
        user = parts[1]
        malformed = _MAYBE_DIGEST.search(arg) is None
        attempt = self._attempt(decode(user), "", "APOP")
        return OwedToLogin(row, attempt, attempt.user, malformed=malformed)

    def _request_rpop(self, row: Command, arg: bytes) -> Owed:
        """RFC 1081: the server trusts the client's address; USER, or else the argument, names the user."""
        user = decode(arg)
        return OwedToLogin(row, self._attempt(self._user or user, "", "RPOP"), user)

    def _request_auth(self, row: Command, arg: bytes) -> Owed:
        """RFC 5034 section 4: a mechanism and perhaps an initial response; then the server's turn.

        Whatever blank sets them apart: there are servers that take a tab for one.
        """
        mechanism, *initials = arg.split(None, 1)
        exchange = Exchange(mechanism)
        exchange.odd_line = self._loose or arg[:1] <= b" "
        self._client_expects = ANSWER
        initial = initials[0].strip() if initials else b""
        if initial:
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
        if not self._owed:
            # The server's bytes have ended, and the exchange with them: nobody judges this response.
            self._remember_line(text)
            return
        owed = self._owed[-1]
        assert isinstance(owed, OwedToExchange)
        exchange = owed.exchange
        if self._client.truncated:
            self._secrets_lost()
            self._odd(Oddity.LINE_TOO_LONG, True, text, Secret.LINE)
        self._remember_line(text)
        self._client_expects = ANSWER
        self._attempted = None
        before = (exchange.user, exchange.password) if exchange.complete else None
        if self._guard.lock_step:
            passed = self._passed(exchange, text)
            if passed is None:
                self._refusal = MALFORMED
                self._guard.not_passed += 1
                self._end_if_too_many()
                self._malformed(exchange, Reason.MALFORMED)
                return
            owed.exchange = exchange = passed
        else:
            exchange.respond(text)
        self._responded(exchange, before)

    def _passed(self, exchange: Exchange, text: bytes) -> Exchange | None:
        """Return the exchange behind a response that passes the guard, None if it does not pass.

        It passes if it has its form, and the analyzer can read it.
        """
        if exchange.asks_again or not self._guard.passes_response(text):
            return None
        behind = copy(exchange)
        behind.respond(text)
        if behind.malformed or behind.disputed:
            return None
        return behind if self._guard.passes_name(behind.user, behind.realm) else None

    def _responded(self, exchange: Exchange, before: tuple[str, str] | None) -> None:
        """Raise what a response gave rise to.

        ``before`` are the credentials if they seemed complete: the server may ask for others, as after an
        empty initial response to AUTH PLAIN.
        """
        if exchange.malformed:
            self._odd(Oddity.BAD_SASL_RESPONSE, True, b"", Secret.LINE)
        if exchange.complete and before != (exchange.user, exchange.password):
            self._remember(exchange.password.encode("utf-8", "surrogateescape"))
            self._came_to_nothing(Oddity.LOGIN_CANCELLED, exchange.attempt)
            attempt = self._attempt(exchange.user, exchange.password, exchange.mechanism)
            exchange.attempt = attempt.attempt

    def _attempt(self, user: str, password: str, mechanism: str) -> LoginAttempt:
        """Raise and return an attempt; it has no number if the client is logged in already."""
        attempt = LoginAttempt(self.connection, self.ts, user, password, mechanism)
        if self.connection.state is not AUTHORIZATION:
            return attempt
        self.attempts += 1
        attempt.attempt = self.attempts
        self.summary.attempted(user, mechanism)
        if self._gated:
            self._attempted = attempt, Reason.DENIED
        if LoginAttempt in self._wants:
            self._out.append(attempt)
            for name in self._guard.readings(user):
                self._read_too(replace(attempt, user=name))
        return attempt

    def _message_line(self, text: bytes) -> None:
        """Read a line of the message that the client sends after XTND XMIT (RFC 1081 and 1082)."""
        assert self._message is not None
        if (
            self._guard.strictness is Strictness.LINES
            and text != b"."
            and _ENDS_FOR_SOME.search(text)
        ):
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
