"""A POP3 server of few words: cheap, and without a list of SASL mechanisms."""

import base64
import hashlib
import socketserver
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

from .mail import Mail
from .servers import ThreadingServer

PASSWORD = "correct horse"
STAMP = "<1896.697170952@stub.example.org>"
"""For APOP; every client takes it."""

Answer = Callable[[str], None]


class _Dialogue(socketserver.StreamRequestHandler):
    server: "StubServer"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            self._say(f"+OK ready {self.server.stamp}")
            while line := self.rfile.readline():
                command, _, argument = line.decode().rstrip("\r\n").partition(" ")
                answer: Answer = getattr(self, f"_{command.lower()}", self._unknown)
                answer(argument)
                if command == "QUIT":
                    return

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _judge(self, accepted: bool) -> None:
        self._say("+OK welcome" if accepted else "-ERR [AUTH] no")

    def _unknown(self, _: str) -> None:
        self._say("-ERR unknown")

    def _capa(self, _: str) -> None:
        self._say("+OK", "USER", "UIDL", ".")

    def _user(self, name: str) -> None:
        self._say("+OK")

    def _pass(self, password: str) -> None:
        self._judge(password == PASSWORD)

    def _apop(self, argument: str) -> None:
        expected = hashlib.md5(f"{self.server.stamp}{PASSWORD}".encode()).hexdigest()
        self._judge(argument.rpartition(" ")[2] == expected)

    def _auth(self, argument: str) -> None:
        response = base64.b64decode(argument.removeprefix("PLAIN "))
        self._judge(response.endswith(f"\0{PASSWORD}".encode()))

    def _stat(self, _: str) -> None:
        self._say(
            f"+OK {len(self.server.mails)} {sum(len(mail.sent) for mail in self.server.mails)}"
        )

    def _list(self, _: str) -> None:
        sizes = (f"{n} {len(mail.sent)}" for n, mail in enumerate(self.server.mails, 1))
        self._say("+OK", *sizes, ".")

    def _uidl(self, _: str) -> None:
        self._say("+OK", *(f"{n} {mail.name}" for n, mail in enumerate(self.server.mails, 1)), ".")

    def _retr(self, number: str) -> None:
        lines = self.server.mails[int(number) - 1].sent.split(b"\r\n")[:-1]
        stuffed = b"".join(
            (b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines
        )
        self.wfile.write(b"+OK\r\n" + stuffed + b".\r\n")

    def _quit(self, _: str) -> None:
        self._say("+OK bye")


class _DialogueWithoutCapa(_Dialogue):
    """As servers spoke before RFC 2449: no CAPA, no AUTH, and all that clients use then."""

    def _capa(self, argument: str) -> None:
        self._unknown(argument)

    def _auth(self, argument: str) -> None:
        self._unknown(argument)

    def _list(self, number: str) -> None:
        if number:
            self._say(f"+OK {number} {len(self.server.mails[int(number) - 1].sent)}")
        else:
            super()._list(number)

    def _top(self, argument: str) -> None:
        """Give the head of a message, and nothing of its body."""
        number, _, _ = argument.partition(" ")
        head = self.server.mails[int(number) - 1].sent.partition(b"\r\n\r\n")[0]
        self._say("+OK", *head.decode().split("\r\n"), "", ".")

    def _dele(self, _: str) -> None:
        self._say("+OK deleted")


class StubServer(ThreadingServer):
    """Everybody has the same password and the same mail."""

    title = "the tests' own server"
    dialogue: ClassVar[type[_Dialogue]] = _Dialogue

    def __init__(self, mails: Sequence[Mail] = (), stamp: str = "") -> None:
        super().__init__(self.dialogue)
        self.mails = mails
        self.stamp = stamp


class StubServerWithoutCapa(StubServer):
    """It refuses CAPA and AUTH; a DELE changes nothing."""

    dialogue = _DialogueWithoutCapa
