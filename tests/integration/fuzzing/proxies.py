"""The proxy in this process: unguarded, with a hook that passes all, and with one that denies all."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogBeginner
from zope.interface import implementer

from pop3proxy.analyzer.events import (
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    SessionEnd,
    Unexpected,
)
from pop3proxy.config import load
from pop3proxy.hooks.api import Deny, Hook, Verdict
from pop3proxy.proxy.service import ProxyService

from .oracle import Oracle
from .playing import END_LIMIT, within

LOGIN = 5.0
"""Seconds for a login: guarded, a server that waits for the rest of a line is waited for until then."""


class Way(Enum):
    """How a dialogue goes to the server."""

    STRAIGHT = "straight"
    UNGUARDED = "unguarded"
    GUARDED = "guarded, all passed"
    DENIED = "guarded, all denied"


@dataclass(slots=True)
class Recorded:
    """What hooks heard of one session: login events with their serials, and its end."""

    events: list[tuple[int, Event]] = field(default_factory=list)
    asked: list[tuple[int, LoginAttempt]] = field(default_factory=list)
    end: SessionEnd | None = None
    over: Deferred[None] = field(default_factory=Deferred)


class Recorder(Hook):
    """Hears what became of logins."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._by_port: dict[int, Recorded] = {}

    def of(self, event: Event) -> Recorded:
        """Return the record of an event's session."""
        return self._by_port.setdefault(event.c.orig_p, Recorded())

    def _note(self, event: Event) -> None:
        self.of(event).events.append((self._oracle.serial(), event))

    def pop3_login_attempt(self, event: LoginAttempt) -> None:
        self._note(event)

    def pop3_login_success(self, event: LoginSuccess) -> None:
        self._note(event)

    def pop3_login_failure(self, event: LoginFailure) -> None:
        self._note(event)

    def pop3_unexpected(self, event: Unexpected) -> None:
        self._note(event)

    def pop3_session(self, event: SessionEnd) -> None:
        recorded = self.of(event)
        recorded.end = event
        recorded.over.callback(None)

    async def collect(self, reactor: Any, client_port: int) -> Recorded:
        """Return what was heard of a client, once its session is over; ``end`` is None if it does not end."""
        recorded = self._by_port.setdefault(client_port, Recorded())
        await within(reactor, END_LIMIT, recorded.over)
        return self._by_port.pop(client_port)


class Gate(Hook):
    """Is asked about each attempt; passes or denies all."""

    blocking = True

    def __init__(self, recorder: Recorder, oracle: Oracle, verdict: Verdict | None) -> None:
        self._recorder = recorder
        self._oracle = oracle
        self._verdict = verdict

    def pop3_login_attempt(self, event: LoginAttempt) -> Verdict | None:
        self._recorder.of(event).asked.append((self._oracle.serial(), event))
        return self._verdict


@dataclass(slots=True)
class Proxied:
    """A running proxy, and what its hooks hear."""

    port: int
    recorder: Recorder


_HOOKS: dict[Way, Verdict | None] = {Way.GUARDED: None, Way.DENIED: Deny("-ERR [AUTH] denied.")}


@asynccontextmanager
async def proxying(
    reactor: Any, way: Way, upstream_port: int, oracle: Oracle
) -> AsyncIterator[Proxied]:
    """Run a proxy in this process."""
    settings = {
        "listen": ["tcp:0:interface=127.0.0.1"],
        "upstream": {"endpoint": f"tcp:127.0.0.1:{upstream_port}", "proxy_protocol": "v1"},
        "timeouts": {"drain": 1.0, "login": LOGIN},
    }
    recorder = Recorder(oracle)
    hooks: list[Hook] = [recorder]
    if way in _HOOKS:
        hooks.append(Gate(recorder, oracle, _HOOKS[way]))
    service = ProxyService(reactor, load(None, settings, reactor), hooks)
    service.startService()
    await service.started
    host: Any = service.ports[0].getHost()
    try:
        yield Proxied(host.port, recorder)
    finally:
        await service.stopService()


@implementer(ILogObserver)
class Troubles:
    """Keeps what this process logs as an error: one of the proxy's is a failure whatever else happens."""

    def __init__(self) -> None:
        self.found: list[str] = []
        globalLogBeginner.beginLoggingTo([self], discardBuffer=True, redirectStandardIO=False)

    def __call__(self, event: Any) -> None:
        """Look at one log event (ILogObserver)."""
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            text = formatEvent(event) + (failure.getTraceback() if failure else "")
            # Twisted's POP3 server, in this process too, logs each command that it refuses.
            if "twisted/mail/pop3.py" not in text or "/pop3proxy/" in text:
                self.found.append(text)

    def collect(self) -> Sequence[str]:
        """Return what was found since the last time."""
        found, self.found = self.found, []
        return found
