"""The hooks that these tests load into a running proxy: one asks the test, one always says the same."""

import json
import socket
from collections.abc import Sequence
from typing import Any, Literal

from twisted.internet.defer import AlreadyCalledError, Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from pop3proxy.analyzer.events import Event
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop, Hook, Verdict

OnError = Literal["pass", "deny"]


def verdict(text: str) -> Verdict:
    """Read a verdict as the test writes it: ``pass``, ``delay SECONDS``, ``deny REPLY`` or ``drop``."""
    kind, _, rest = text.partition(" ")
    if kind == "delay":
        return Delay(float(rest))
    if kind == "deny":
        return Deny(rest) if rest else Deny()
    return {"pass": PASS, "drop": Drop()}[kind]


class _Line(LineOnlyReceiver):
    """The way to the test: a line of JSON for each question, and ``NUMBER ANSWER`` back."""

    delimiter = b"\n"

    def __init__(self, judge: "Judge") -> None:
        self._judge = judge

    def lineReceived(self, line: bytes) -> None:
        number, _, answer = line.decode().partition(" ")
        if answer == "fence":
            self.tell(number=int(number), event="fence")
        elif answer == "release":
            self._judge.release()
        else:
            self._judge.answer(int(number), answer)

    def tell(self, **what: object) -> None:
        self.sendLine(json.dumps(what).encode())


class Judge(Hook):
    """Asks the test, at the other end of a socket, about each event of some types."""

    blocking = True

    def __init__(
        self,
        court: int,
        events: Sequence[str] = ("pop3_login_attempt",),
        time_limit: float = 60.0,
        on_error: OnError = "pass",
        coroutine: bool = False,
    ) -> None:
        self.time_limit = time_limit
        self.on_error = on_error
        self._court = court
        self._asked: dict[int, Deferred[Verdict]] = {}
        self._count = 0
        self._line = _Line(self)
        for name in events:
            setattr(self, name, self._ask_patiently if coroutine else self._ask)

    def start(self, reactor: Any) -> None:
        with socket.create_connection(("127.0.0.1", self._court)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            factory = Factory.forProtocol(lambda: self._line)
            reactor.adoptStreamConnection(connection.fileno(), socket.AF_INET, factory)

    def _ask(self, event: Event) -> Deferred[Verdict]:
        self._count += 1
        number = self._count

        def cancelled(_: object) -> None:
            self._line.tell(number=number, event="cancelled", port=event.c.orig_p)

        asked = self._asked[number] = Deferred(cancelled)
        told = {
            key: getattr(event, key)
            for key in ("user", "password", "mechanism", "command", "arg", "cmd", "msg")
            if hasattr(event, key)
        }
        self._line.tell(number=number, event=event.name, port=event.c.orig_p, **told)
        return asked

    async def _ask_patiently(self, event: Event) -> Verdict:
        return await self._ask(event)

    def answer(self, number: int, answer: str) -> None:
        """Say what the test has said; ``raise`` is no verdict, and a second one comes too late."""
        asked = self._asked[number]
        try:
            if answer == "raise":
                asked.errback(ValueError("told to"))
            else:
                asked.callback(verdict(answer))
        except AlreadyCalledError:
            self._line.tell(number=number, event="already", port=0)

    def release(self) -> None:
        """Let all go on at once."""
        for asked in self._asked.values():
            if not asked.called:
                asked.callback(PASS)


class Standing(Judge):
    """Says the same at once to each event of some types; ``raise`` raises."""

    def __init__(
        self,
        court: int,
        says: str,
        events: Sequence[str] = ("pop3_login_attempt",),
        on_error: OnError = "pass",
    ) -> None:
        super().__init__(court, (), on_error=on_error)
        self._says = None if says == "raise" else verdict(says)
        for name in events:
            setattr(self, name, self._say)

    def _say(self, event: Event) -> Verdict:
        if self._says is None:
            raise ValueError("told to")
        return self._says
