"""The plainest reading of the bytes of a well-behaved POP3 session, to hold events against."""

from collections.abc import Iterator
from dataclasses import dataclass, field

MULTI_LINE = {"CAPA", "RETR", "TOP"}
MULTI_LINE_IF_BARE = {"LIST", "UIDL", "AUTH"}


@dataclass(slots=True)
class Transcript:
    """What was said, in order, each kind by itself."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    replies: list[tuple[str, str]] = field(default_factory=list)
    body_lines: list[bytes] = field(default_factory=list)
    starttls: bool = False

    def count(self, command: str) -> int:
        return [name for name, _ in self.requests].count(command)


def read(client: bytes, server: bytes) -> Transcript:
    """Read what a client and a server sent; after an accepted STLS nothing more."""
    told = Transcript()
    client_lines, server_lines = _lines(client), _lines(server)
    _take_status(told, server_lines)
    for line in client_lines:
        command, _, argument = line.partition(b" ")
        told.requests.append((_text(command).upper(), _text(argument)))
        _read_answer(told, client_lines, server_lines)
        if told.starttls:
            break
    return told


def _lines(data: bytes) -> Iterator[bytes]:
    return iter(data.split(b"\r\n")[:-1])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _take_status(told: Transcript, server_lines: Iterator[bytes]) -> bool:
    line = next(server_lines, None)
    if line is None:
        return False
    sign, _, text = line.partition(b" ")
    told.replies.append((_text(sign[1:]), _text(text)))
    return sign == b"+OK"


def _read_answer(
    told: Transcript, client_lines: Iterator[bytes], server_lines: Iterator[bytes]
) -> None:
    command, argument = told.requests[-1]
    if command == "AUTH" and argument:
        server_lines = _after_challenges(client_lines, server_lines)
    if not _take_status(told, server_lines):
        return
    if command == "STLS":
        told.replies.pop()
        told.starttls = True
    elif command in MULTI_LINE or (command in MULTI_LINE_IF_BARE and not argument):
        told.body_lines.extend(_body(server_lines))


def _after_challenges(
    client_lines: Iterator[bytes], server_lines: Iterator[bytes]
) -> Iterator[bytes]:
    for line in server_lines:
        if line.startswith(b"+OK") or not line.startswith(b"+"):
            yield line
            return
        next(client_lines, None)


def _body(server_lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in server_lines:
        if line == b".":
            return
        yield line.removeprefix(b".")
