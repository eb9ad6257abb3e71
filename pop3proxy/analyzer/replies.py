"""Reads the server's side of a dialogue: pairs replies with requests, skips bodies, doubts; no commands.

What the text of a refusal means stands in ``refusals``.
"""

from collections.abc import Callable, Mapping

from .doubt import Doubt
from .events import (
    AUTHORIZATION,
    SERVER,
    TRANSACTION,
    Data,
    DataRun,
    LoginAnnounced,
    LoginAttempt,
    LoginSuccess,
    Oddity,
    Reason,
    Reply,
    StartTLS,
)
from .grammar import Command, Role
from .guard import USER_PASS
from .lines import Body, BodyEnd
from .owed import AFTER_XMIT, CANCELLED, GREETING, Owed, OwedToExchange, OwedToLogin, OwedToUser
from .protocols import foreign_server, is_tls
from .requests import Requests
from .sasl import LAYERED, Exchange
from .state import ANSWER, BODY, BODY_END, COMMAND, DOUBT, MESSAGE, SASL, STATUS, Expect
from .status import Kind, Status, parse_status
from .summary import DELETING
from .text import decode

_PLUS_ERR = Kind.PLUS_ERR
_CHALLENGE = Kind.CHALLENGE


class Replies(Requests):
    """The server's half of the analyzer, on top of the client's, to which it says what comes next."""

    __slots__ = ()

    def _server_step(self) -> int:
        """Take the next run of the server's bytes and return its size."""
        if self._server_expects is BODY_END:
            return self._skip_body()
        # A reply ends its step even if a body follows: client bytes that waited for it come first then.
        in_body = self._server_expects is BODY
        if self._line_by_line:
            return self._server_line()
        size = (in_body and self._server_run()) or self._server_line()
        while in_body and self._server_expects is BODY and self._server.waiting:
            size += self._server_run() or self._server_line()
        return size

    def _server_run(self) -> int:
        """Take plain lines of a body all in one, if that is asked for; return the octets taken."""
        server = self._server
        if DataRun not in self._wants or self._listing is not None:
            return 0
        again = server.rejoin() if server.unfinished else 0
        if server.unfinished:
            return 0
        assert self._body is not None
        chunk, start = server.chunk()
        run = self._body.run(chunk, start, self._limits.data_line)
        if run is None:
            return self._server_line() - again if again else 0
        data, lines = run
        server.skip(len(data))
        self._out.append(DataRun(self.connection, self.ts, data, lines))
        return len(data) - again

    def _server_line(self) -> int:
        """Cut and read one line, or the beginning of one; return the octets taken."""
        server, limits = self._server, self._limits
        in_body = self._server_expects is BODY
        text = server.cut(limits.data_line if in_body else limits.status_line)
        if text is not None and server.truncated:
            self._too_long = self._may_become(SERVER, text[:5])
        if not in_body and (self._undecided is not None or self._client.begun is not None):
            self._remember_unread()
        if self._server_fresh:
            if is_tls(server.head(3) if text is None else text):
                self._foreign(Oddity.TLS_FROM_FIRST_BYTE, False, b"", "tls")
                return server.taken
            if text is not None:
                self._server_fresh = False
                if not server.truncated and (protocol := foreign_server(text)):
                    self._foreign(Oddity.NOT_POP3, False, text, protocol)
                    return server.taken
        size = server.taken
        if text is not None:
            _READ_SERVER[self._server_expects](self, text)
        return size

    def _status_line(self, text: bytes) -> None:
        status = parse_status(text)
        if status is None:
            self._no_status_line(text)
            return
        self._after_unknown = False
        if self._server.truncated:
            self._odd(Oddity.LINE_TOO_LONG, False, text)
        if status.ok and self._owed and not self._gated:
            # Most replies; there is nothing else that such a line can be.
            self._pair(status, True)
        elif status.kind is _CHALLENGE:
            self._challenge(status.text)
        else:
            self._reply(status, True)

    def _challenge(self, text: bytes) -> None:
        """Take ``+ ``: the client's next line is a SASL response (RFC 5034 section 4)."""
        owed = self._owed[0] if self._owed else None
        waits = self._client_expects is ANSWER and self._unsent is None
        if not isinstance(owed, OwedToExchange) or not waits:
            self._odd(Oddity.STRAY_CHALLENGE, False, b"+ " + text)
            if self._guard.lock_step:
                # The client's next line may be a response to it, and no command.
                self._lose("out_of_step")
            return
        self._challenged(owed.exchange, text)

    def _challenged(self, exchange: Exchange, text: bytes) -> None:
        exchange.challenge(text)
        if exchange.announced and exchange.attempt and self._gated:
            self._announcement = LoginAnnounced(self.connection, self.ts, exchange.attempt)
        self._guard.challenged()
        self._may_be_in = False
        self._client_expects = SASL
        self._read_undecided()

    def _reply(self, status: Status, certain: bool) -> None:
        """Take a status line: the reply to the oldest command that waits for one, or to none."""
        if self._cancelling and self._answers_cancellation:
            self._exchange_cancelled(status)
            return
        if self._guard.lock_step and self._waits_for_more(status):
            return
        speaks_out_of_turn = self._guard.lock_step and self._client_expects is SASL
        if (
            not self._owed
            or speaks_out_of_turn
            or self._answers_unsent
            or self._is_farewell(status)
        ):
            self._unsolicited(status)
        else:
            self._pair(status, certain)

    def _pair(self, status: Status, certain: bool) -> None:
        """Take a status line as the reply to the oldest command that waits for one."""
        text = status.text
        owed = self._owed.pop(0)
        if 0 <= self._body_closed_at < self.commands - len(self._owed):
            # It was sent behind the last body, and is answered.
            self._body_closed_at = -1
        self._credentials -= owed.octets
        row = owed.command
        if self._perhaps_in is not None:
            self._tell_perhaps_in(row, status.ok)
        misplaced = self.connection.state not in row.states
        answer = _ON_REPLY.get(row.role)
        if answer is not None and answer(self, owed, status, certain):
            # The reply did not end the command, which waits for another.
            return
        if row in DELETING and certain:
            self.summary.answered(owed, status.ok)
        if misplaced:
            self._misplaced(row, status.ok)
        if status.kind is _PLUS_ERR:
            self._odd(Oddity.BAD_STATUS, False, text)
        if self.blind:
            return
        self._raise_reply(status)
        if status.ok and owed.multiline:
            self._open_body()
        if self._undecided is not None and self._client_expects is not ANSWER:
            self._read_undecided()

    def _unsolicited(self, status: Status) -> None:
        self._odd(Oddity.UNSOLICITED_REPLY, False, status.text)
        self._raise_reply(status)
        if self._guard.lock_step and self._farewell is None:
            # From here on replies may be paired with the wrong commands.
            self._lose("out_of_step")

    def _waits_for_more(self, status: Status) -> bool:
        """Look whether a guarded server says farewell; return whether that is to be told by what follows.

        It is one if the server then closes. If it says more, it was the reply to what the client had sent.
        """
        if self._farewell is None:
            if self._is_farewell(status):
                self._farewell = status
            return self._farewell is not None
        first, self._farewell = self._farewell, None
        if self._owed and not self._answers_unsent:
            self._pair(first, True)
        else:
            self._unsolicited(first)
        return self.blind

    @property
    def _answers_unsent(self) -> bool:
        """Whether all that the server could answer is a command that it has not got."""
        return self._unsent is not None and len(self._owed) == 1 and not self._unsent.in_exchange

    @property
    def _answers_cancellation(self) -> bool:
        """Whether the server's next status line answers a ``*`` that the client has not sent."""
        return bool(self._owed) and self._owed[0] is CANCELLED

    def _exchange_cancelled(self, status: Status) -> None:
        """Take the answer to a cancellation that the client knows nothing of."""
        self._cancelling = False
        self._owed.pop(0)
        self._client_expects = COMMAND
        if status.ok:
            # It may have logged somebody in, and nobody can tell whom.
            self._lose("out_of_step")

    def _raise_reply(self, status: Status) -> None:
        if Reply in self._wants:
            cmd = "OK" if status.ok else "ERR"
            self._out.append(Reply(self.connection, self.ts, cmd, decode(status.text)))

    def _is_farewell(self, status: Status) -> bool:
        """Return whether an -ERR announces the end of the connection; a greeting may be worded like that."""
        greeting = bool(self._owed) and self._owed[0] is GREETING
        if status.ok or greeting:
            return False
        waits = self._owed[0] if self._owed else None
        if isinstance(waits, OwedToLogin):
            tried = waits.attempt
            return self._refusals.is_farewell(status.text, tried.user, tried.password)
        if isinstance(waits, OwedToExchange):
            tried = self._of(waits.exchange)
            return self._refusals.is_farewell(status.text, tried.user, tried.password)
        return self._refusals.is_farewell(status.text)

    def _misplaced(self, row: Command, ok: bool) -> None:
        """Report a command that the state does not allow, now that the state is certain."""
        if ok and row.role is Role.MAILBOX:
            self.connection.state = TRANSACTION
            self._odd(Oddity.NO_LOGIN_SEEN, True, row.name.encode("ascii"))
            if self._guard.lock_step:
                # The hooks were not asked about this login.
                self._lose("no_login_seen")
            self._guard.entered(TRANSACTION)
        else:
            self._odd(Oddity.WRONG_STATE, True, row.name.encode("ascii"))

    def _answer_greeting(self, owed: Owed, status: Status, certain: bool) -> None:
        """A client that began with TLS speaks to a POP3 server after all."""
        if not self._owed and self._client_expects is ANSWER:
            self._client_expects = COMMAND

    def _answer_user(self, owed: Owed, status: Status, certain: bool) -> None:
        assert isinstance(owed, OwedToUser)
        self._named_last = owed.user
        self._name_refused = not status.ok
        if self._gated:
            self._guard.named(status.ok)
        if status.ok:
            self._named = owed.user
            self._may_be_in = False
        elif self._user == owed.user and self._named is not None:
            self._user = self._named

    def _answer_login(self, owed: Owed, status: Status, certain: bool) -> None:
        assert isinstance(owed, OwedToLogin)
        attempt = owed.attempt
        if self.connection.state is TRANSACTION:
            self._came_to_nothing(Oddity.LOGIN_CANCELLED, attempt.attempt)
            return
        if owed.named is None or owed.command.role is Role.RPOP:
            # The server decides whose PASS it is.
            named = self._named if self._named is not None else (owed.named or self._named_last)
            self._named = None
        else:
            named = owed.named
        if named is None and not status.ok:
            # Whatever it says, it cannot have judged a password without a name.
            self._came_to_nothing(Oddity.LOGIN_CANCELLED, attempt.attempt)
            return
        user = named or ""
        if status.ok and owed.command.role is Role.PASS and self._name_refused:
            # No server takes a password for a name that it has refused: this answers another line, and the
            # next reply tells. Courier 1.0.16 reads the rest of a line of 8 KiB as more lines.
            self._perhaps_in = attempt
            return
        if owed.complete or status.ok:
            self._judge(attempt, user, status, True, certain, owed.malformed)

    def _answer_auth(self, owed: Owed, status: Status, certain: bool) -> bool:
        assert isinstance(owed, OwedToExchange)
        exchange = owed.exchange
        authorizing = self.connection.state is AUTHORIZATION
        if status.ok and authorizing and not exchange.attempt:
            return self._accepted_nothing(owed)
        self._client_expects = COMMAND
        self._auth_refused = self._auth_refused or not status.ok
        if self._unsent is not None:
            # It has ended an exchange whose last response is held, and has judged nothing.
            self._stale = True
            self._attempted = None
            self._came_to_nothing(Oddity.LOGIN_CANCELLED, exchange.attempt)
            if status.ok:
                self._lose("out_of_step")
            return False
        if not (authorizing and (status.ok or exchange.judged)):
            self._came_to_nothing(Oddity.LOGIN_CANCELLED, exchange.attempt)
            return False
        attempt = self._of(exchange)
        if status.ok and exchange.odd_line and certain:
            self._perhaps_in = attempt
            self._expect_a_list()
        else:
            self._judge(attempt, exchange.user, status, exchange.complete, certain)
        return False

    def _expect_a_list(self) -> None:
        """Read what comes as the body of a reply, if it is no status line."""
        self._after_unknown = True
        self._body = Body(self._server.crlf)

    def _tell_perhaps_in(self, row: Command, ok: bool) -> None:
        """Tell, by the reply to the next command, whether what seemed to be a login was one."""
        attempt, self._perhaps_in = self._perhaps_in, None
        assert attempt is not None
        if ok and row.role is Role.MAILBOX:
            self._accepted(attempt, attempt.user)
        else:
            self._came_to_nothing(Oddity.CUT_LOGIN, attempt.attempt)

    def _accepted_nothing(self, owed: OwedToExchange) -> bool:
        """Take a +OK to an AUTH without credentials, which is no login; return whether it goes on.

        Exchange 2000 to 2007 begins an NTLM exchange so. Others list their mechanisms.
        """
        if owed.exchange.mechanism == "NTLM" and not owed.exchange.responded:
            self._owed.insert(0, owed)
            self._challenged(owed.exchange, b"")
            return True
        self._client_expects = COMMAND
        self._expect_a_list()
        if self._guard.lock_step:
            self._lose("out_of_step")
        return False

    def _judge(
        self,
        attempt: LoginAttempt,
        user: str,
        status: Status,
        complete: bool,
        certain: bool,
        malformed: bool = False,
    ) -> None:
        """Raise the login event of an attempt that the server has judged.

        In doubt it is not said, and not believed: a wrong failure bans an honest user, and a login that was
        accepted shows by the first mailbox command. Nor is a refusal that may only say that the client is
        logged in already.
        """
        if not certain or (not status.ok and self._may_be_in):
            self._came_to_nothing(Oddity.CUT_LOGIN, attempt.attempt)
        elif status.ok:
            self._accepted(attempt, user)
        else:
            reason, code = self._refusals.reason(
                status.text, user, attempt.password, complete, self.auth_resp_code
            )
            if reason is Reason.MALFORMED and attempt.mechanism == USER_PASS:
                # The server says that it knows no name, and has judged nothing.
                self._came_to_nothing(Oddity.LOGIN_CANCELLED, attempt.attempt)
                return
            self._failed(attempt, user, Reason.MALFORMED if malformed else reason, code)
            if self._guard.lock_step and self._guard.long_line:
                # A server with a smaller buffer answers the rest of the line, too.
                self._ends = "long_login"

    def _accepted(self, attempt: LoginAttempt, user: str) -> None:
        self.connection.state = TRANSACTION
        self._guard.entered(TRANSACTION)
        self.user = user
        self.summary.attempted(user, attempt.mechanism)
        self._layer_due = attempt.mechanism in LAYERED
        if LoginSuccess in self._wants:
            number = attempt.attempt or self._number()
            self._out.append(
                LoginSuccess(
                    *(self.connection, self.ts, user, attempt.password, attempt.mechanism), number
                )
            )

    def _answer_stls(self, owed: Owed, status: Status, certain: bool) -> None:
        """RFC 2595 section 4: the handshake follows the +OK at once, and nothing may come before it."""
        self._client_expects = COMMAND
        if not status.ok:
            return
        if StartTLS in self._wants:
            self._out.append(StartTLS(self.connection, self.ts))
        detail = self._limits.detail
        early = bytes(self._undecided[:detail]) if self._undecided else b""
        if certain and self._gated:
            self._injected = self._client.waiting
            early = early or self._client.peek(detail)
        if early:
            line = early.partition(b"\n")[0].rstrip(b"\r")
            self._odd(Oddity.CLIENT_INJECTION, True, line)
        if self._guard.lock_step:
            self._tls_head = 0
        self._stop("until_tls")
        self._handshake_due = True

    def _answer_xmit(self, owed: Owed, status: Status, certain: bool) -> None:
        if status.ok:
            self._client_expects = MESSAGE
            self._owed.append(AFTER_XMIT)
        else:
            self._client_expects = COMMAND
            self._message = None

    def _answer_message(self, owed: Owed, status: Status, certain: bool) -> None:
        if self._client_expects is MESSAGE:
            self._odd(Oddity.EARLY_REPLY, False, status.text)

    def _answer_list(self, owed: Owed, status: Status, certain: bool) -> None:
        self._listing = owed.command.role if status.ok else None
        refused = self._gated and certain and not status.ok
        self._capa_refused = refused and owed.command.role is Role.CAPA

    def _answer_unknown(self, owed: Owed, status: Status, certain: bool) -> None:
        """A body may follow: kept ready as it would have to be read."""
        self._after_unknown = status.ok
        self._body = Body(self._server.crlf)

    # --- multi-line bodies ----------------------------------------------------------------------------

    def _open_body(self) -> None:
        """Read the body line by line only if someone wants its lines."""
        crlf = self._server.crlf
        if Data in self._wants or self._listing is not None or self._line_by_line:
            self._server_expects = BODY
            self._body = Body(crlf)
        else:
            self._server_expects = BODY_END
            self._body_end = BodyEnd(crlf)

    def _body_line(self, text: bytes) -> None:
        assert self._body is not None
        line = self._body.line(text, self._server.crlf)
        if line is None:
            self._body_closed(self._body.mixed)
            return
        if self._listing is Role.CAPA and line.strip().upper() == b"AUTH-RESP-CODE":
            self.auth_resp_code = True
        if Data in self._wants:
            self._out.append(Data(self.connection, self.ts, decode(line)))
            if self._server.truncated:
                self._odd(Oddity.LINE_TOO_LONG, False, b"")

    def _skip_body(self) -> int:
        """Pass a body of which nobody wants the lines: one search for its end a chunk."""
        assert self._body_end is not None
        server = self._server
        chunk, position = server.chunk()
        end = self._body_end.find(chunk, position)
        if end < 0:
            return len(server.take(server.waiting))
        size = len(server.take(end - position))
        self._body_closed(self._body_end.mixed)
        return size

    def _body_closed(self, mixed: bool) -> None:
        if mixed:
            self._odd(Oddity.MIXED_TERMINATOR, False, b".")
        self._server_expects = STATUS
        self._body = self._body_end = None
        self._body_closed_at = self.commands
        self._listing = None

    # --- doubt ----------------------------------------------------------------------------------------

    def _no_status_line(self, text: bytes) -> None:
        """A line that is no status line: the body of an unknown command, or the end of certainty."""
        if self._after_unknown:
            self._after_unknown = False
            if self._perhaps_in is not None:
                # It was a list of mechanisms: Dovecot 2.3 reads two blanks behind AUTH as no argument.
                self._came_to_nothing(Oddity.LOGIN_CANCELLED, self._perhaps_in.attempt)
                self._perhaps_in = None
            self._odd(Oddity.UNKNOWN_BODY, False, text)
            self._server_expects = BODY
            self._body_line(text)
            return
        self._odd(Oddity.OUT_OF_STEP, False, text)
        if self._guard.lock_step:
            self._lose("out_of_step")
            return
        if not self._may_be_body:
            return
        self._server_expects = DOUBT
        self._doubt = Doubt()
        self._doubtful_line(text)

    @property
    def _may_be_body(self) -> bool:
        """Whether what the server says may be the rest of a body that seemed to have ended.

        It cannot once a command that was sent behind the body is answered, or if no body came before.
        """
        return self._body_closed_at >= 0

    def _doubtful_line(self, text: bytes) -> None:
        """Look for the first way out of doubt: a line of one dot, then status lines for all that is owed."""
        doubt = self._doubt
        assert doubt is not None
        status = parse_status(text)
        doubt.client_spoke = False
        doubt.lines += 1
        doubt.answer = status if doubt.lines == 1 else None
        if text == b".":
            doubt.after_dot = []
        elif status is None or status.kind is _CHALLENGE:
            doubt.after_dot = None
        elif doubt.after_dot is not None:
            doubt.after_dot.append(status)
            if len(doubt.after_dot) > self._limits.doubtful:
                doubt.after_dot = None
        if doubt.after_dot is not None and self._answers_all(doubt.after_dot):
            self._end_doubt()
            for answer in doubt.after_dot:
                self._reply(answer, False)

    def _answers_all(self, answers: list[Status]) -> bool:
        """Say whether these can be the replies to all that is owed: a body follows none but the last."""
        counted = self._doubt is not None and self._doubt.counted
        return (
            counted
            and len(answers) == len(self._owed)
            and not any(
                answer.ok and owed.multiline
                for answer, owed in zip(answers[:-1], self._owed, strict=False)
            )
        )

    def _client_speaks_in_doubt(self, doubt: Doubt) -> None:
        """Look for the second way out of doubt: one status line for the one command of the last run."""
        if not doubt.client_spoke:
            return
        doubt.client_spoke = False
        if doubt.answered:
            self._settle_doubt(doubt)
        elif doubt.lines:
            if self._client_expects is ANSWER:
                # Several lines came for an AUTH or STLS: what the client sends now can't be told.
                self._lose("out_of_step")
            doubt.commands = doubt.lines = 0
            doubt.answer = None

    def _settle_doubt(self, doubt: Doubt) -> None:
        """Take the one status line that came as the reply to the one command that was sent."""
        self._end_doubt()
        for owed in self._owed[:-1]:
            self._came_to_nothing(Oddity.CUT_LOGIN, owed.login)
        del self._owed[:-1]
        self._credentials = self._owed[0].octets if self._owed else 0
        assert doubt.answer is not None
        if doubt.answer.kind is _CHALLENGE:
            self._challenge(doubt.answer.text)
        else:
            self._reply(doubt.answer, False)

    def _end_doubt(self) -> None:
        self._doubt = None
        self._server_expects = STATUS


_READ_SERVER: Mapping[Expect, Callable[[Replies, bytes], None]] = {
    STATUS: Replies._status_line,
    BODY: Replies._body_line,
    DOUBT: Replies._doubtful_line,
}

_ON_REPLY: Mapping[Role, Callable[[Replies, Owed, Status, bool], bool | None]] = {
    Role.GREETING: Replies._answer_greeting,
    Role.USER: Replies._answer_user,
    Role.PASS: Replies._answer_login,
    Role.APOP: Replies._answer_login,
    Role.RPOP: Replies._answer_login,
    Role.AUTH: Replies._answer_auth,
    Role.STLS: Replies._answer_stls,
    Role.CAPA: Replies._answer_list,
    Role.MECHANISMS: Replies._answer_list,
    Role.XMIT: Replies._answer_xmit,
    Role.AFTER_XMIT: Replies._answer_message,
    Role.UNKNOWN: Replies._answer_unknown,
}
