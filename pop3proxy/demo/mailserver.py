"""The demo's mail server: twisted.mail's POP3 server over a few mails in memory; nothing of the proxy."""

from io import BytesIO
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.mail.pop3 import POP3, IMailbox
from zope.interface import implementer

USER = "bob"
PASSWORD = "correct-horse"

MAILS = (
    b"""From: Alice <alice@example.org>
To: Bob <bob@example.org>
Subject: Lunch on Friday?
Date: Mon, 5 Jan 2026 09:12:44 +0000
Message-ID: <1@example.org>

Hello Bob,

shall we have lunch on Friday? I have found a place behind the library:

.. it has no name, but two dots over its door.

Alice
""",
    b"""From: The post room <post@example.org>
To: Bob <bob@example.org>
Subject: A parcel for you
Date: Tue, 6 Jan 2026 16:30:02 +0000
Message-ID: <2@example.org>

A parcel waits for you at the front desk.
""",
    """From: Zoë <zoe@example.org>
To: Bob <bob@example.org>
Subject: Greetings from Malmö
Date: Wed, 7 Jan 2026 07:55:10 +0000
Message-ID: <3@example.org>
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Snö överallt. Vi ses på måndag!
""".encode(),
)


@implementer(IMailbox)
class Mailbox:
    """The same few mails for every login; deletions last as long as the session."""

    def __init__(self) -> None:
        self._mails: list[bytes] = list(MAILS)

    def listMessages(self, index: int | None = None) -> Any:
        """Give the size of one mail, or of all, in octets as sent; 0 for a deleted one.

        ``index`` counts from 0. Raises ValueError if there is no such mail.
        """
        sizes = [len(mail.replace(b"\n", b"\r\n")) for mail in self._mails]
        return sizes if index is None else sizes[self._checked(index)]

    def getMessage(self, index: int) -> BytesIO:
        """Give a mail, its lines ended by LF. Raises ValueError if there is no such mail."""
        return BytesIO(self._mails[self._checked(index)])

    def getUidl(self, index: int) -> bytes:
        """Give the name of a mail that it keeps. Raises ValueError if there is no such mail."""
        return b"demo-%d" % (self._checked(index) + 1)

    def deleteMessage(self, index: int) -> None:
        """Delete a mail for this session. Raises ValueError if there is no such mail."""
        self._mails[self._checked(index)] = b""

    def undeleteMessages(self) -> None:
        """Take all deletions back."""
        self._mails[:] = MAILS

    def sync(self) -> None:
        """Do nothing: what is deleted in a demo is there again in the next session."""

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self._mails):
            raise ValueError("no such message")
        return index


@implementer(IRealm)
class _Realm:
    """Gives every user a mailbox."""

    def requestAvatar(self, avatar: Any, mind: object, *interfaces: Any) -> tuple[Any, ...]:
        return IMailbox, Mailbox(), lambda: None


class _Session(POP3):
    """One session, without the challenge of APOP, so that clients send the plain USER and PASS."""

    def connectionMade(self) -> None:
        # Mails are sent in pieces, and the last must not wait for the first's acknowledgement.
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        super().connectionMade()

    def generateMagic(self) -> bytes:
        return b"the demo's mail server is ready"

    def listCapabilities(self) -> list[bytes]:
        return [b"TOP", b"USER", b"UIDL"]


class MailServer(Factory):
    """Makes sessions in which ``USER`` can log in with ``PASSWORD``."""

    noisy = False

    def __init__(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse(**{USER: PASSWORD.encode()})
        self._portal = Portal(_Realm(), [checker])

    def buildProtocol(self, address: IAddress | None) -> Any:
        """Make the session of one client."""
        session: Any = _Session()
        session.factory = self
        session.portal = self._portal
        return session
