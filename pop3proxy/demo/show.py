"""The demo from beginning to end: starts its parts, plays the script, says how to go on."""

import os
from collections.abc import Callable
from typing import Any, Final, TextIO

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..analyzer.events import SessionEnd
from ..config import Config, Timeouts
from ..hooks.api import Hook
from ..proxy.service import ProxyService
from .client import Client, play
from .mailserver import PASSWORD, USER, MailServer
from .printing import Printer

TIME_LIMIT: Final = 30.0
"""Seconds for the whole script, which takes less than one unless something is broken."""

_HOST: Final = "127.0.0.1"

_BEFORE = """\
A mail server listens on {mail_server}, and pop3proxy before it on {proxy}.
A client logs in wrongly, then rightly, lists the mails, reads one and quits. The proxy's events:

"""

_AFTER = f"""
Now you: log in as {USER} with the password {PASSWORD}, and the events appear here.

    curl --user {USER}:{PASSWORD} pop3://{{host}}:{{port}}/1
    python3 -c "import poplib; c = poplib.POP3('{{host}}', {{port}}); c.user('{USER}');\
 c.pass_('{PASSWORD}'); print(c.stat())"

Ctrl-C ends.
"""

_AFTER_ONCE = "\nThat was all; without --once the demo stays, for a client of your own.\n"


class _SessionOver(Hook):
    """Fires ``session`` at the last event of the script's session."""

    def __init__(self) -> None:
        self.session: Deferred[None] = Deferred()

    def pop3_session(self, event: SessionEnd) -> None:
        if not self.session.called:
            self.session.callback(None)


class Show(MultiService):
    """The demo as a service.

    ``started`` fires when the proxy listens, or fails with what is wrong.
    """

    _log = Logger()

    def __init__(self, reactor: Any, out: TextIO, once: bool, ended: Callable[[int], None]) -> None:
        """Show on ``out``; ``ended`` is told the exit status when there is nothing more to show.

        With ``once`` that is after the script, otherwise only if the script fails.
        """
        super().__init__()
        self.started: Deferred[None] = Deferred()
        self._reactor = reactor
        self._out = out
        self._once = once
        self._ended = ended
        self._mail_server: Any = None
        self._showing: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Start the parts, then play the script."""
        super().startService()
        self._showing = Deferred.fromCoroutine(self._show())
        self._showing.addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """End the script if it still plays, and close everything."""
        self._showing.cancel()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await super().stopService()
        if self._mail_server is not None:
            await self._mail_server.stopListening()

    async def _show(self) -> None:
        over = _SessionOver()
        try:
            mail_server, proxy = await self._bring_up([self._printer(), over])
        except Exception:
            self.started.errback(Failure())
            return
        self.started.callback(None)
        host, _, port = proxy.rpartition(":")
        self._say(_BEFORE.format(mail_server=mail_server, proxy=proxy))
        script = Deferred.fromCoroutine(self._play(host, int(port), over))
        await script.addTimeout(TIME_LIMIT, self._reactor)
        self._say(_AFTER_ONCE if self._once else _AFTER.format(host=host, port=port))
        if self._once:
            self._ended(0)

    async def _bring_up(self, hooks: list[Hook]) -> tuple[str, str]:
        """Start the mail server and the proxy, and give their addresses."""
        behind = TCP4ServerEndpoint(self._reactor, 0, interface=_HOST)
        self._mail_server = await behind.listen(MailServer())
        mail_server = f"{_HOST}:{self._mail_server.getHost().port}"
        config = Config(
            listen=(f"tcp:0:interface={_HOST}",),
            upstream=f"tcp:{mail_server}",
            # Whoever ends the demo does not want to wait for a client that was left open.
            timeouts=Timeouts(drain=1),
        )
        proxy = ProxyService(self._reactor, config, hooks)
        proxy.setServiceParent(self)
        await proxy.started
        return mail_server, proxy.addresses[0]

    async def _play(self, host: str, port: int, over: _SessionOver) -> None:
        client = Client()
        await connectProtocol(TCP4ClientEndpoint(self._reactor, host, port), client)
        try:
            await play(client)
        finally:
            client.transport.loseConnection()  # type: ignore[union-attr]
        await over.session

    def _printer(self) -> Printer:
        """Make the printer; colours are for terminals, and for those who did not opt out (NO_COLOR)."""
        return Printer(self._out, self._out.isatty() and not os.environ.get("NO_COLOR"))

    def _say(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.error(
                "the script failed: {why}", why=failure.getErrorMessage() or failure.type
            )
            self._ended(1)
