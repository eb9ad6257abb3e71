"""Twisted's own port forwarder, as a peer: run with the port to listen on and the upstream's."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.task import react
from twisted.protocols.portforward import ProxyFactory


async def forward(reactor: IReactorTCP, port: str, upstream: str) -> None:
    """Forward connections to ``port`` of 127.0.0.1 to ``upstream`` until told to stop."""
    factory = ProxyFactory("127.0.0.1", int(upstream))
    factory.noisy = False
    await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(factory)
    await Deferred()


if __name__ == "__main__":
    react(forward, sys.argv[1:])
