"""A POP3 server of few words: cheap, and without a list of SASL mechanisms."""

import base64
import hashlib
import socketserver
from collections.abc import Callable, Sequence
from contextlib import suppress

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


class StubServer(ThreadingServer):
    """Everybody has the same password and the same mail."""

    title = "the tests' own server"

    def __init__(self, mails: Sequence[Mail] = (), stamp: str = "") -> None:
        super().__init__(_Dialogue)
        self.mails = mails
        self.stamp = stamp
