"""A relay that keeps what both sides said, so that tests know the truth about a session."""

import socket
import socketserver
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from .processes import eventually
from .servers import ThreadingServer

CHUNK = 2**16


@dataclass(slots=True)
class Conversation:
    """The bytes of one connection, the port that the tap passed them on from, and whether it is over."""

    port: int = 0
    client: bytearray = field(default_factory=bytearray)
    server: bytearray = field(default_factory=bytearray)
    over: bool = False


class _Relay(socketserver.BaseRequestHandler):
    server: "Tap"
    request: socket.socket

    def handle(self) -> None:
        conversation = Conversation()
        self.server.conversations.append(conversation)
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.to_port)) as upstream,
        ):
            conversation.port = upstream.getsockname()[1]
            back = threading.Thread(
                target=_pump, args=(upstream, self.request, conversation.server), daemon=True
            )
            back.start()
            _pump(self.request, upstream, conversation.client)
            back.join()
        conversation.over = True


def _pump(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            heard += data
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Tap(ThreadingServer):
    """Listens on a port of its own and passes everything to another."""

    def __init__(self, to_port: int) -> None:
        super().__init__(_Relay)
        self.to_port = to_port
        self.conversations: list[Conversation] = []

    def only_one_since(self, mark: int) -> Conversation:
        """The conversation after the first ``mark``, as soon as it is over; there must be no other."""

        def over() -> list[Conversation]:
            recent = self.conversations[mark:]
            return recent if all(one.over for one in recent) else []

        (only,) = eventually(over, "a conversation is over")
        return only
