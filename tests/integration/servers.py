"""Small servers that run in threads of the test process; what they say is their users' business."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Server = TypeVar("Server", bound=socketserver.BaseServer)


class ThreadingServer(socketserver.ThreadingTCPServer):
    """One thread a connection, on a free port of 127.0.0.1."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    with server:
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
