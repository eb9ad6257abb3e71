"""Twisted's own port forwarder, as a peer: run with the port to listen on and the upstream's.

A third argument, a file with a certificate and its key, has it end TLS.
"""

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import react
from twisted.protocols.portforward import (
    ProxyClient,
    ProxyClientFactory,
    ProxyFactory,
    ProxyServer,
)
from twisted.python.failure import Failure


class _Client(ProxyClient):
    """Lets the TLS connection end: while it has a producer, Twisted never sends close_notify."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.peer is not None:
            consumer: Any = self.peer.transport
            consumer.unregisterProducer()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class _ClientFactory(ProxyClientFactory):
    protocol = _Client


class _Server(ProxyServer):
    clientProtocolFactory = _ClientFactory


class _Factory(ProxyFactory):
    protocol = _Server


async def forward(reactor: IReactorTCP, port: str, upstream: str, certificate: str = "") -> None:
    """Forward connections to ``port`` of 127.0.0.1 to ``upstream`` until told to stop."""
    factory = (_Factory if certificate else ProxyFactory)("127.0.0.1", int(upstream))
    factory.noisy = False
    endpoint: Any
    if certificate:
        options = _options(Path(certificate))
        endpoint = SSL4ServerEndpoint(reactor, int(port), options, interface="127.0.0.1")
    else:
        endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    await endpoint.listen(factory)
    await Deferred()


def _options(file: Path) -> CertificateOptions:
    """Return Twisted's usual TLS, but with tickets, which the others give too."""
    ours = PrivateCertificate.loadPEM(file.read_bytes())
    return CertificateOptions(
        privateKey=ours.privateKey.original,
        certificate=ours.original,
        enableSessions=True,
        enableSessionTickets=True,
    )


if __name__ == "__main__":
    react(forward, sys.argv[1:])
