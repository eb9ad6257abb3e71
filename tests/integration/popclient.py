"""A small blocking POP3 client that logs in by every mechanism, and can misbehave on request."""

import fcntl
import hashlib
import re
import socket
import ssl
import struct
import termios
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from .processes import eventually
from .sasl import MECHANISMS, Exchange

TIME_LIMIT = 60
LOOKS_ALIKE = 50
LEAVE_AT_ONCE = struct.pack("ii", 1, 0)


class ServerGoneError(ConnectionError):
    """The connection ended where a line was due."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is to be tried: ``USER/PASS``, ``APOP`` or a SASL mechanism."""

    user: str
    password: str
    mechanism: str
    initial_response: bool = False

    def exchange(self) -> Exchange:
        """The SASL exchange, begun."""
        exchange = MECHANISMS[self.mechanism](self.user, self.password)
        next(exchange)
        return exchange


class PopClient:
    """One connection, greeted.

    ``tls``: with TLS from the first byte. ``address``: one of 127.0.0.0/8 to come from. ``first``: what is
    said before all else, also before TLS; ``first_inside``: inside TLS. Neither waits for the greeting.
    """

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        first: bytes = b"",
        first_inside: bytes = b"",
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIME_LIMIT, (address, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self.address = address
        self.port: int = self._socket.getsockname()[1]
        try:
            self._socket.sendall(first)
            if tls is not None:
                self.turn_tls(tls)
            self._socket.sendall(first_inside)
            self.greeting = self.line()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def turn_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands, and go on inside TLS."""
        self._lines.close()
        self._socket = context.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self._lines = self._socket.makefile("rb")

    @property
    def peer_certificate(self) -> bytes:
        """What the other side has shown, as DER."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket.getpeercert(binary_form=True) or b""

    def reset(self) -> None:
        """Leave in the rudest way."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LEAVE_AT_ONCE)
        self.close()

    def say_no_more(self) -> None:
        """Half-close."""
        self._socket.shutdown(socket.SHUT_WR)

    def wait_until_nothing_more_comes(self) -> None:
        """Read nothing; return when all buffers on the way are full."""
        looks: list[int] = []

        def full() -> bool:
            waiting = fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4))
            looks.append(struct.unpack("i", waiting)[0])
            alike = set(looks[-LOOKS_ALIKE:])
            return len(looks) > LOOKS_ALIKE and len(alike) == 1 and alike != {0}

        eventually(full, "nothing more comes")

    def count_body(self) -> int:
        """Read a multi-line reply; return how many octets its lines had."""
        assert self.accepted()
        total = 0
        while (line := self._lines.readline()) != b".\r\n":
            assert line.endswith(b"\n")
            total += len(line)
        return total

    def read_to_the_end(self) -> None:
        self._lines.read()

    def line(self) -> str:
        """The next line; a part of one is none."""
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ServerGoneError
        return line.decode(errors="surrogateescape").rstrip("\r\n")

    def send(self, *lines: str) -> None:
        """All of them at once."""
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def write(self, data: bytes) -> None:
        """These bytes as they are, at once."""
        self._socket.sendall(data)

    def type(self, data: bytes) -> None:
        """These bytes one by one, as a terminal without a line discipline sends them."""
        for byte in data:
            self.write(bytes([byte]))

    def answered(self, data: bytes) -> bool:
        """Whether the answer to a line that is sent as it is, with its end, is +OK."""
        self.write(data)
        return self.accepted()

    def body(self) -> list[str]:
        """The lines behind a status line, dots taken off."""
        lines = []
        while (line := self.line()) != ".":
            lines.append(line.removeprefix("."))
        return lines

    def ask(self, line: str) -> bool:
        """Whether the answer is +OK."""
        self.send(line)
        return self.accepted()

    def ask_for_lines(self, line: str) -> list[str]:
        """The lines behind the status line of a multi-line reply, dots taken off."""
        assert self.ask(line)
        return self.body()

    def accepted(self) -> bool:
        """Whether the next line but challenges is +OK."""
        while (line := self.line()).startswith("+ "):
            continue
        return line.startswith("+OK")

    def log_in(self, attempt: Attempt) -> bool:
        """Try, each line after the answer to the one before; whether it was accepted."""
        if attempt.mechanism == "USER/PASS":
            assert self.ask(f"USER {attempt.user}")
            return self.ask(f"PASS {attempt.password}")
        if attempt.mechanism == "APOP":
            return self.ask(self._apop(attempt))
        exchange = attempt.exchange()
        self.send(self._auth(attempt, exchange))
        while (line := self.line()).startswith("+ "):
            self.send(_encoded(exchange.send(b64decode(line.removeprefix("+ ")))))
        return line.startswith("+OK")

    def in_one_go(self, attempt: Attempt) -> list[str]:
        """The lines of an attempt whose mechanism needs no challenge."""
        if attempt.mechanism == "USER/PASS":
            return [f"USER {attempt.user}", f"PASS {attempt.password}"]
        if attempt.mechanism == "APOP":
            return [self._apop(attempt)]
        exchange = attempt.exchange()
        lines = [self._auth(attempt, exchange)]
        with suppress(StopIteration):
            while True:
                lines.append(_encoded(exchange.send(b"")))
        return lines

    def _auth(self, attempt: Attempt, exchange: Exchange) -> str:
        if attempt.initial_response:
            return f"AUTH {attempt.mechanism} {_encoded(exchange.send(b''))}"
        return f"AUTH {attempt.mechanism}"

    def _apop(self, attempt: Attempt) -> str:
        stamp = re.search("<.*>", self.greeting)
        assert stamp
        digest = hashlib.md5(f"{stamp[0]}{attempt.password}".encode()).hexdigest()
        return f"APOP {attempt.user} {digest}"


def _encoded(response: bytes) -> str:
    return b64encode(response).decode()
