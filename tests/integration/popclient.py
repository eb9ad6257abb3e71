"""A small blocking POP3 client that logs in by every mechanism, and can misbehave on request."""

import hashlib
import re
import socket
import struct
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from .sasl import MECHANISMS, Exchange

TIME_LIMIT = 60
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
    """One connection, greeted."""

    def __init__(self, port: int, source: str = "") -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", port), TIME_LIMIT, (source, 0) if source else None
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self.port: int = self._socket.getsockname()[1]
        try:
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

    def reset(self) -> None:
        """Leave in the rudest way."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LEAVE_AT_ONCE)
        self.close()

    def say_no_more(self) -> None:
        """Half-close."""
        self._socket.shutdown(socket.SHUT_WR)

    def read_to_the_end(self) -> None:
        self._lines.read()

    def line(self) -> str:
        """The next line; a part of one is none."""
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ServerGoneError
        return line.decode().rstrip("\r\n")

    def send(self, *lines: str) -> None:
        """All of them at once."""
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def ask(self, line: str) -> bool:
        """Whether the answer is +OK."""
        self.send(line)
        return self.accepted()

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
