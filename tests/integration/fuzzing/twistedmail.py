"""Twisted's own POP3 server, in this process, whose checker is the fuzzer's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.cred.credentials import (
    CramMD5Credentials,
    IUsernameHashedPassword,
    IUsernamePassword,
)
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.mail.pop3 import POP3, APOPCredentials, IMailbox, Mailbox
from zope.interface import implementer

from .oracle import Oracle, is_known, right_password
from .servers import Fuzzed

MECHANISMS = ("CRAM-MD5", "APOP")


class _Empty(Mailbox):
    """A mailbox without mail."""

    def listMessages(self, i: Any = None) -> Any:
        """Return no sizes; there is no message of any number."""
        if i is None:
            return []
        raise ValueError(i)


@implementer(IRealm)
class _Realm:
    """Gives everyone an empty mailbox."""

    def requestAvatar(self, avatar: object, mind: object, *interfaces: object) -> Any:
        """Return a mailbox and what to do at the end."""
        return IMailbox, _Empty(), lambda: None


class _Checker:
    """Judges what is shown on one connection, and tells the oracle (ICredentialsChecker)."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self, oracle: Oracle, server: POP3) -> None:
        self._oracle = oracle
        self._server = server

    def requestAvatarId(self, credentials: Any) -> bytes:
        """Return who it is. Raises UnauthorizedLogin."""
        transport: Any = self._server.transport
        port = transport.getPeer().port
        user = credentials.username.decode("utf-8", "surrogateescape")
        if isinstance(credentials, (CramMD5Credentials, APOPCredentials)):
            right = right_password(user).encode("utf-8", "surrogateescape")
            proof: Any = credentials
            accepted = is_known(user) and proof.checkPassword(right)
            self._oracle.note(port, user, None, accepted)
        else:
            password = credentials.password.decode("utf-8", "surrogateescape")
            accepted = self._oracle.judge(port, user, password)
        if not accepted:
            raise UnauthorizedLogin
        name: bytes = credentials.username
        return name


@asynccontextmanager
async def running(reactor: Any, root: Path, oracle: Oracle) -> AsyncIterator[Fuzzed]:
    """Run the server."""
    factory: Any = Factory()
    factory.challengers = {b"CRAM-MD5": CramMD5Credentials}
    factory.noisy = False

    def build(_: object) -> POP3:
        server = POP3()
        server.factory = factory
        portal: Any = Portal(_Realm())
        portal.registerChecker(_Checker(oracle, server))
        server.portal = portal
        return server

    factory.buildProtocol = build
    port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        yield Fuzzed("Twisted", port.getHost().port, MECHANISMS)
    finally:
        await port.stopListening()
