"""Plays a dialogue to a port, and taps what goes between the proxy and the server."""

import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from ..sasl import MECHANISMS, Exchange
from .dialogues import END, TAME_END, Begin, Dialogue, Respond, Sent

QUIET = 0.004
"""Seconds without a byte behind which an answer is taken to be whole; only the pace hangs on it."""

ANSWER = 0.1
"""Seconds for an answer to begin; where none comes the client goes on."""

CHALLENGE = 1.0
"""Seconds without a byte behind which no challenge is expected, so that there is no response.

Dovecot tells failures, which may have to come before it, every half second."""

END_LIMIT = 15.0
"""Seconds for the server to close behind the end; a dialogue that takes longer is one that hangs."""

AGAIN = 3.0
"""Seconds behind which the end is sent again: Courier loses what was sent behind a login."""


LOST = Failure(ConnectionDone())
"""Why a connection ended, where nothing else is said."""


class Peer(Protocol):
    """One end of a connection: keeps what it gets, and wakes the one who waits for more."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ending = ""
        self.over: Deferred[None] = Deferred()
        self._waiting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._wake()

    def connectionLost(self, reason: Failure = LOST) -> None:
        self.ending = "closed" if reason.check(ConnectionDone) else "reset"
        self.over.callback(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    async def news(self, reactor: Any, seconds: float) -> bool:
        """Wait for bytes or the end; return False if neither came in so many seconds."""
        if self.ending:
            return False
        self._waiting = Deferred()
        limit = reactor.callLater(seconds, self._wake)
        before = len(self.received)
        await self._waiting
        if limit.active():
            limit.cancel()
        return len(self.received) > before or bool(self.ending)


async def within(reactor: Any, seconds: float, what: Deferred[None]) -> bool:
    """Wait for something; return False if it did not come in so many seconds."""
    if what.called:
        return True
    late: Deferred[None] = Deferred()
    limit = reactor.callLater(seconds, late.callback, None)

    def came(_: object) -> None:
        if not late.called:
            late.callback(None)

    what.addBoth(came)
    await late
    if limit.active():
        limit.cancel()
    return what.called


async def pause(reactor: Any, seconds: float) -> None:
    """Wait."""
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    await over


@dataclass(slots=True)
class Played:
    """What became of a dialogue: the port it came from, both directions, and how it ended."""

    port: int
    sent: bytearray = field(default_factory=bytearray)
    received: bytes = b""
    ending: str = ""


SETTLED = 0.6
"""Seconds without a byte behind which all that was sent is answered; failures take half a second each."""


class _Playing:
    """A dialogue as it is played."""

    def __init__(self, reactor: Any, peer: Peer, patience: float) -> None:
        self._reactor = reactor
        self._patience = patience
        self._peer = peer
        transport: Any = peer.transport
        self._transport = transport
        self.played = Played(transport.getHost().port)
        self._exchange: Exchange | None = None
        self._mark = 0
        self._tame = False

    async def play(self, dialogue: Dialogue) -> Played:
        peer, played = self._peer, self.played
        await self._answer(1.0)
        self._tame = dialogue.tame
        for step in dialogue.steps:
            if peer.ending:
                break
            await self._step(step)
        if dialogue.leaves and not peer.ending:
            self._transport.loseConnection()
            played.ending = "left"
        elif not peer.ending:
            self._end(TAME_END if dialogue.tame else END)
        limit = self._reactor.callLater(END_LIMIT, self._give_up)
        await peer.over
        if limit.active():
            limit.cancel()
        played.received = bytes(peer.received)
        played.ending = played.ending or peer.ending
        return played

    def _end(self, end: bytes) -> None:
        if not self._peer.ending:
            self._write(end)
            # From the second time on it may be in the middle of anything.
            self._reactor.callLater(AGAIN, self._end, END)

    def _give_up(self) -> None:
        self.played.ending = "hangs"
        self._transport.abortConnection()

    async def _step(self, step: Sent | Begin | Respond) -> None:
        if isinstance(step, Sent):
            start = 0
            for cut in (*step.cuts, len(step.data)):
                self._write(step.data[start:cut])
                start = cut
                if cut < len(step.data):
                    await pause(self._reactor, 0.001)
            if step.waits or self._patience:
                await self._answer(self._patience or ANSWER)
            else:
                await pause(self._reactor, 0)
            return
        if isinstance(step, Begin):
            # Else a challenge to what was sent before could be taken for one to this.
            while await self._peer.news(self._reactor, SETTLED):
                pass
            self._write(self._begun(step))
            await self._answer(self._patience)
            return
        if self._exchange is None:
            return
        while not self._challenges() and await self._peer.news(self._reactor, CHALLENGE):
            pass
        if self._tame and not self._challenges():
            # The exchange was refused or is over; strictly there is nothing to cancel.
            self._exchange = None
            return
        self._write(self._response())
        await self._answer(self._patience)

    def _write(self, data: bytes) -> None:
        if not self._peer.ending:
            self._mark = len(self._peer.received)
            self.played.sent += data
            self._transport.write(data)

    async def _answer(self, seconds: float) -> None:
        if await self._peer.news(self._reactor, seconds):
            while await self._peer.news(self._reactor, QUIET):
                pass

    def _begun(self, step: Begin) -> bytes:
        if step.mechanism == "APOP":
            found = re.search(rb"<[^>\r\n]*>", self._peer.received)
            stamp = found[0] if found else b"<none@none>"
            digest = md5(stamp + step.password.encode()).hexdigest()
            self._exchange = None
            return f"APOP {step.user} {digest}\r\n".encode()
        self._exchange = MECHANISMS[step.mechanism](step.user, step.password)
        next(self._exchange)
        return f"AUTH {step.mechanism}\r\n".encode()

    def _challenges(self) -> list[bytes]:
        """Return the challenges since the last write."""
        return _CHALLENGE.findall(self._peer.received, self._mark)

    def _response(self) -> bytes:
        challenges = self._challenges()
        if self._exchange is None or not challenges:
            self._exchange = None
            return b"*\r\n"
        try:
            return b64encode(self._exchange.send(b64decode(challenges[-1]))) + b"\r\n"
        except Exception:
            # The challenge was another mechanism's, or there is no further response.
            self._exchange = None
            return b"*\r\n"


_CHALLENGE = re.compile(rb"^\+ ?([A-Za-z0-9+/=]*)\r?\n", re.MULTILINE)


async def play(
    reactor: Any,
    dialogue: Dialogue,
    port: int,
    patience: float,
    begins: Callable[[int], None] = lambda port: None,
) -> Played:
    """Play a dialogue to a port of 127.0.0.1; ``begins`` hears from which port.

    With ``patience`` every write waits so long for an answer.
    """
    peer = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Peer())
    transport: Any = peer.transport
    begins(transport.getHost().port)
    return await _Playing(reactor, peer, patience).play(dialogue)


# --- the tap --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tapped:
    """What the proxy sent a server on behalf of a client, what came back, and the port it was sent from.

    ``reset``: the server closed although something was still to be read, which takes answers away too.
    """

    server_port: int = 0
    reset: bool = False
    sent: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    over: Deferred[None] = field(default_factory=Deferred)


class _Back(Protocol):
    """The tap's side to the server."""

    def __init__(self, front: "_Front") -> None:
        self._front = front

    def connectionMade(self) -> None:
        self._front.joined(self)

    def dataReceived(self, data: bytes) -> None:
        if self._front.tapped is not None:
            self._front.tapped.answered += data
        front: Any = self._front.transport
        front.write(data)

    def connectionLost(self, reason: Failure = LOST) -> None:
        front: Any = self._front.transport
        # Not even behind a reset: what came before it may still be on its way.
        front.loseConnection()
        self._front.ended(reset=not reason.check(ConnectionDone))


_HEADER = re.compile(rb"PROXY TCP4 \S+ \S+ (\d+) \d+\r\n")


class _Front(Protocol):
    """The tap's side to the proxy: the first line is a PROXY header, by which the client is known."""

    def __init__(self, tap: "Tap") -> None:
        self._tap = tap
        self._back: Any = None
        self._held = b""
        self.tapped: Tapped | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self.tapped is None:
            self._held += data
            found = _HEADER.match(self._held)
            if not found:
                return
            data, self._held = self._held[found.end() :], b""
            self.tapped = self._tap.known(int(found[1]))
            self._tap.dial(self)
        self.tapped.sent += data
        if self._back is None:
            self._held += data
        else:
            self._back.write(data)

    def joined(self, back: Protocol) -> None:
        """Go on with the server."""
        self._back = back.transport
        self._back.setTcpNoDelay(True)
        assert self.tapped is not None
        self.tapped.server_port = self._back.getHost().port
        self._tap.begins(self.tapped.server_port)
        self._back.write(self._held)

    def close(self) -> None:
        """End the proxy's connection: there is no server."""
        transport: Any = self.transport
        transport.loseConnection()

    def ended(self, reset: bool) -> None:
        """Note that the server's side has ended."""
        if self.tapped is not None and not self.tapped.over.called:
            self.tapped.reset = reset
            self.tapped.over.callback(None)

    def connectionLost(self, reason: Failure = LOST) -> None:
        if self._back is not None:
            self._back.loseConnection()


class Tap:
    """Relays what a proxy sends to the server, and keeps it by the client's port.

    ``begins`` hears from which port the server is reached.
    """

    def __init__(self, reactor: Any, server_port: int, begins: Callable[[int], None]) -> None:
        self.begins = begins
        self._reactor = reactor
        self._server_port = server_port
        self._by_port: dict[int, Tapped] = {}
        self.port = 0

    def known(self, client_port: int) -> Tapped:
        """Begin with a client."""
        return self._by_port.setdefault(client_port, Tapped())

    def dial(self, front: _Front) -> None:
        """Connect a client's session to the server."""
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._server_port)
        connecting: Any = connectProtocol(endpoint, _Back(front))
        connecting.addErrback(lambda _: front.close())

    async def collect(self, client_port: int) -> Tapped:
        """Return what was tapped of a client that has ended, once the server's side has too."""
        tapped = self._by_port.pop(client_port, None) or Tapped()
        if tapped.server_port:
            await within(self._reactor, END_LIMIT, tapped.over)
        return tapped


@asynccontextmanager
async def tapping(
    reactor: Any, server_port: int, begins: Callable[[int], None]
) -> AsyncIterator[Tap]:
    """Run a tap before a server."""
    tap = Tap(reactor, server_port, begins)
    factory: Any = Factory()
    factory.buildProtocol = lambda _: _Front(tap)
    listening: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    tap.port = listening.getHost().port
    try:
        yield tap
    finally:
        await listening.stopListening()
