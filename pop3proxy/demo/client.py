"""The demo's mail client: what it does in its one session, and nothing of what is seen of it."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.mail.pop3 import AdvancedPOP3Client, ServerErrorResponse

from .mailserver import MAILS, PASSWORD, USER

WRONG_PASSWORD = "correct-house"


class ScriptFailed(Exception):
    """The session went otherwise than the script has it; the text says where."""


class Client(AdvancedPOP3Client):
    """A mail client whose ``greeted`` fires when the server is ready for it."""

    def __init__(self) -> None:
        super().__init__()
        self.greeted: Deferred[None] = Deferred()
        self.left: Deferred[None] = Deferred()

    def serverGreeting(self, greeting: bytes) -> None:
        """Say that the session can begin."""
        self.greeted.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        """Say that the session is over; whoever waits for an answer is told why."""
        super().connectionLost(reason)
        if not self.greeted.called:
            self.greeted.errback(reason)
        self.left.callback(None)


async def play(client: Client) -> None:
    """Log in wrongly, then rightly, look at the mailbox, read a mail and leave.

    Raises ScriptFailed, or whatever ended the connection.
    """
    await client.greeted
    await client.capabilities()
    await client.user(USER.encode())
    try:
        await client.password(WRONG_PASSWORD.encode())
    except ServerErrorResponse:
        pass
    else:
        raise ScriptFailed("the wrong password was accepted")
    await client.user(USER.encode())
    await client.password(PASSWORD.encode())
    await client.stat()
    await client.listSize()
    lines: list[bytes] = await client.retrieve(0)
    if lines != MAILS[0].splitlines():
        raise ScriptFailed("the mail arrived otherwise than it was sent")
    await client.quit()
    await client.left
