"""One side of a session, whatever carries it; knows bytes and transports, and nothing of POP3.

Beside ``listeners`` and ``upstream`` this is the only module that touches a transport. Where the transport is
a plain socket, bytes are written through: sent at once, and given to the transport only as far as the
kernel does not take them. That saves a wake-up and two system calls for each chunk.

What has no need of a transport, plain TCP, has a make of its own in ``plainwire``.
"""

import socket
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IPullProducer,
    IPushProducer,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..analyzer.events import Side, Tls
from .addresses import host_and_port
from .tls import ClientTls, ServerTls, explained, facts

SMALL_READ = 64 * 1024
"""Octets of a read at first: enough for a dialogue, and cheap to allocate."""

LARGE_READ = 256 * 1024
"""Octets of a read once a small one came back full: a fifth to a quarter less CPU time in bulk."""

_DONE = Failure(ConnectionDone())


class WireUser(Protocol):
    """What a session hears of its two wires."""

    def begun(self, side: Side) -> None:
        """The wire is up."""

    def data(self, side: Side, data: bytes) -> None:
        """Bytes arrived."""

    def drained(self, side: Side) -> None:
        """What was unsent is sent now."""

    def ended(self, side: Side) -> None:
        """No more bytes will arrive; the peer may still read."""

    def lost(self, side: Side, clean: bool) -> None:
        """The wire is gone. ``clean``: it was closed and not reset."""

    def secured(self, side: Side) -> None:
        """TLS is on, after ``start_tls``; what is written and read from now on is inside it."""

    def insecure(self, side: Side, why: str) -> None:
        """The TLS handshake has failed, and the wire is gone; ``lost`` does not follow.

        ``why`` is one line for a log, about the peer: "it does not speak TLS". ``begun`` may not have been
        said, if TLS was to be there from the first byte.
        """


@implementer(IProtocol, IHandshakeListener, IHalfCloseableProtocol, IPushProducer, IPullProducer)
class Wire:
    """A byte stream to one peer.

    ``unsent`` says whether bytes that were written still wait for the peer to take them; ``drained`` is
    reported when they have gone. ``tls`` is what is known of the TLS that carries them, or None.
    ``truncated`` says that TLS ended without the peer's word (close_notify), so that somebody else may have
    cut its bytes off; its end is reported as any other.
    """

    __slots__ = (
        "_aborted",
        "_beginning",
        "_end_due",
        "_paused",
        "_registering",
        "_send",
        "_shaking",
        "_side",
        "_socket",
        "_tls",
        "_user",
        "tls",
        "transport",
        "truncated",
        "unsent",
    )

    def __init__(self, user: WireUser, side: Side) -> None:
        """Report to ``user`` as its wire of that side."""
        self._user: WireUser | None = user
        self._side = side
        self._socket: socket.socket | None = None
        self._send: Any = None
        self._registering = False
        self._end_due = False
        self._aborted = False
        self._beginning = False
        self._paused = False
        self._tls: ServerTls | ClientTls | None = None  # that a handshake is made with
        self._shaking: SSL.Connection | None = None  # the connection of a handshake under way
        self.unsent = False
        self.tls: Tls | None = None
        self.truncated = False
        self.transport: Any = None

    @property
    def secure(self) -> bool:
        """Whether TLS carries the bytes."""
        return self.tls is not None

    @property
    def here(self) -> tuple[str, int]:
        """Host and port of our end."""
        return host_and_port(self.transport.getHost())

    def hand_over(self, user: WireUser) -> None:
        """Report to another user from now on."""
        self._user = user

    # --- what a session does with it --------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, in the order of the calls; whoever writes on while ``unsent`` makes a queue grow."""
        if self._send is None or self.unsent:
            self._queue(data)
            return
        try:
            count = self._send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            # The peer is gone. The transport finds that out only if it reads, and it may be paused.
            self.abort()
            return
        if count < len(data):
            self._leave(data, count)

    def _queue(self, data: bytes) -> None:
        """Send behind what the transport still has; one that lends no socket gets all of it."""
        self.transport.write(data)

    def _leave(self, data: bytes, sent: int) -> None:
        """Leave it to the transport to send what the kernel did not take."""
        self.transport.write(data[sent:])
        self._registering = True
        self.transport.registerProducer(self, False)
        self._registering = False
        self.unsent = True

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        if self._shaking is None:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self.transport.resumeProducing()

    def end(self) -> None:
        """Send what is unsent and then the end of our bytes; go on reading.

        TLS has no half-close in Twisted: over its transports close_notify is sent, and the peer's own then
        brings the loss without an ``ended``.
        """
        if self._socket is None:
            self.close()
        elif self.unsent:
            self._end_due = True
        else:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            assert self._socket is not None
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def close(self) -> None:
        """Send what is unsent, then close."""
        if self._aborted:
            return
        if self._shaking is not None:
            self.abort()
        elif self._socket is None:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        elif self.unsent or self._beginning:
            # While it connects, the reactor goes on with the transport when we return.
            self.transport.loseConnection()
        else:
            # Nothing to wait for, so tell the transport at once, as the reactor would.
            self.transport.connectionLost(_DONE)

    def abort(self) -> None:
        """Reset: drop what is unsent."""
        self._aborted = True
        self.transport.abortConnection()

    def start_tls(self, tls: ServerTls | ClientTls) -> None:
        """Send what is unsent, then turn TLS on; the user hears ``secured`` or ``insecure``, and not yet.

        Whether we are the server or the client in it is whether we have accepted or made the connection. What
        is written meanwhile waits; what was read before and is still held is the caller's to drop.
        """
        assert self._shaking is None
        assert self.tls is None
        transport = self.transport
        if self.unsent:
            transport.unregisterProducer()
        self._tls = tls
        self._socket = self._send = None
        # TLS is put on top of what the transport has not sent yet.
        transport.startTLS(tls)
        self._shaking = transport.getHandle()
        transport.registerProducer(self, True)
        if self._paused:
            transport.resumeProducing()

    # --- what the transport says ------------------------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Take the transport (IProtocol)."""
        self.transport = transport
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        if isinstance(handle, socket.socket):
            self._socket = handle
            self._send = handle.send
            transport.bufferSize = SMALL_READ
        else:
            transport.registerProducer(self, True)
            if isinstance(transport, TLSMemoryBIOProtocol):
                # An endpoint's own TLS, whose handshake begins now.
                self._shaking = handle
                return
            if INegotiated.providedBy(transport):
                self.tls = Tls("", "")
        self._beginning = True
        self.connectionMade()
        self._beginning = False

    def handshakeCompleted(self) -> None:
        """Go on inside TLS (IHandshakeListener)."""
        connection, tls = self._shaking, self._tls
        self._shaking = self._tls = None
        if connection is None:
            return
        why = "" if tls is None else tls.problem(connection)
        if why:
            self._aborted = True
            self.transport.abortConnection()
            self._insecure(why)
            return
        self.tls = facts(connection, self._side is Side.CLIENT)
        if self._paused:
            self.transport.pauseProducing()
        if tls is None:
            self.connectionMade()
        elif self._user is not None:
            waited, self.unsent = self.unsent, False
            self._user.secured(self._side)
            if waited and not self.unsent:
                self._drained()

    def connectionMade(self) -> None:
        """Say that the wire is up (IProtocol)."""
        if self._user is not None:
            self._user.begun(self._side)

    def dataReceived(self, data: bytes) -> None:
        """Hand bytes on (IProtocol)."""
        if len(data) == SMALL_READ and self._socket is not None:
            self.transport.bufferSize = LARGE_READ
        if self._user is not None:
            self._user.data(self._side, data)

    def readConnectionLost(self) -> None:
        """Report the end of the peer's bytes (IHalfCloseableProtocol)."""
        if self._user is not None:
            self._user.ended(self._side)

    def writeConnectionLost(self) -> None:
        """Ignore that we ended our bytes ourselves (IHalfCloseableProtocol)."""

    def connectionLost(self, reason: Failure) -> None:
        """Report that the wire is gone (IProtocol)."""
        connection, self._shaking = self._shaking, None
        self._socket = self._send = None
        if connection is not None and not self._aborted:
            assert reason.value is not None
            self._insecure(explained(reason.value, connection))
            return
        clean = reason.check(ConnectionDone) is not None
        self.truncated = self.tls is not None and not clean and not self._aborted
        self._gone(clean)

    def _insecure(self, why: str) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.insecure(self._side, why)

    def _gone(self, clean: bool) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.lost(self._side, clean)

    def pauseProducing(self) -> None:
        """Note that the transport's buffer is full (IPushProducer)."""
        self.unsent = True

    def resumeProducing(self) -> None:
        """Note that the transport has sent all it had (IPushProducer, IPullProducer)."""
        if self._registering:
            return
        self.unsent = False
        if self._socket is not None:
            self.transport.unregisterProducer()
        self._drained()

    def _drained(self) -> None:
        """Send the end that waited for what was unsent, and say that there is room again."""
        if self._end_due:
            self._end_due = False
            self._shut_down()
        if self._user is not None:
            self._user.drained(self._side)

    def stopProducing(self) -> None:
        """Ignore that the transport is done with us: ``connectionLost`` follows (IProducer)."""
