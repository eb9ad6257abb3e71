"""An engine that is turned by hand, over real sockets and a clock that stands still."""

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from pop3proxy.analyzer.events import Side
from pop3proxy.proxy.engine import Engine

from .live import PATIENCE


class Heard:
    """A user of a wire that notes what it hears; ``raises`` is what hearing it raises."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self.raises: set[str] = set()

    def _note(self, *what: Any) -> None:
        self.all.append(what)
        if what[0] in self.raises:
            raise RuntimeError("the user's own error, with a password")

    def begun(self, side: Side) -> None:
        self._note("begun", side)

    def data(self, side: Side, data: bytes) -> None:
        self._note("data", side, data)

    def drained(self, side: Side) -> None:
        self._note("drained", side)

    def ended(self, side: Side) -> None:
        self._note("ended", side)

    def lost(self, side: Side, clean: bool) -> None:
        self._note("lost", side, clean)

    def secured(self, side: Side) -> None:
        self._note("secured", side)

    def insecure(self, side: Side, why: str) -> None:
        self._note("insecure", side, why)

    @property
    def names(self) -> list[str]:
        return [what[0] for what in self.all]

    @property
    def octets(self) -> bytes:
        return b"".join(what[2] for what in self.all if what[0] == "data")


class Loop:
    """A reactor with one engine in it, which runs when it is told to."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.engine = Engine(self.reactor)
        self.engine.start()

    def turn(self) -> bool:
        """Handle what is ready now; return whether anything was."""
        ready = select.select([self.engine], [], [], 0)[0] != []
        if ready:
            self.engine.doRead()
        self.reactor.advance(0)
        return ready

    def until(self, condition: Callable[[], Any]) -> None:
        """Handle what is ready until the condition holds."""
        self.reactor.advance(0)
        while not condition():
            assert select.select([self.engine], [], [], PATIENCE)[0], "nothing more happens"
            self.engine.doRead()
            self.reactor.advance(0)

    def close(self) -> None:
        self.engine.stop()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection; the first does not block, the second is the test's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname(), PATIENCE)
        ours, _ = listening.accept()
    ours.setblocking(False)
    return ours, theirs


def open_sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}
