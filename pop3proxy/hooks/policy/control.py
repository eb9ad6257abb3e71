"""A Unix socket by which an operator lists, adds, removes and explains bans; judges nothing.

One line of JSON each way: ``{"do": "list"}``, ``{"do": "add", "what": KEY, "seconds": 600, "why": TEXT}``,
``{"do": "remove", "what": KEY}``, ``{"do": "why", "what": KEY}``. Back comes ``{"bans": […]}``, perhaps
with ``"said": TEXT``, or ``{"error": TEXT}``, and the connection ends.
"""

import json
import math
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from ..masking import shown_name
from .engine import Engine
from .snapshot import SnapshotError
from .store import Ban

MAX_LINE: Final = 4096
"""Octets of a request."""

MAX_CLIENTS: Final = 16
"""Connections at a time."""

PATIENCE: Final = 5.0
"""Seconds until a request must be complete, and its answer taken."""

DISK_TIME: Final = 3.0
"""Seconds until an answer no longer waits for the disk."""

MAX_SECONDS: Final = 10 * 365 * 86400.0
"""The longest ban by hand."""


class ControlError(OSError):
    """The socket cannot be opened: one line that says what to change."""


class Refused(ValueError):
    """A request is refused: one line that says what would be right."""


class Control:
    """Listens, and does what is asked."""

    def __init__(
        self,
        engine: Engine,
        end: Callable[[set[str]], None],
        now: Callable[[], float] = time.time,
        kept: Callable[[], "Deferred[None]"] = lambda: succeed(None),
    ) -> None:
        """``end`` ends the sessions of these uids; what ``kept`` returns fires once all is on disk."""
        self._engine = engine
        self._kept = kept
        self._end = end
        self._now = now
        self._reactor: Any = None
        self._port: IListeningPort | None = None
        self._path = ""
        self.clients: set[Any] = set()

    def listen(self, reactor: Any, path: str) -> None:
        """Open the socket, for its owner alone. Raises ControlError."""
        self._path, self._reactor = path, reactor
        factory = Factory.forProtocol(_Protocol)
        factory.noisy = False
        factory.control = self  # type: ignore[attr-defined]
        try:
            _remove_stale(path)
            # Nobody else can connect in between, either: the file comes into being with these rights.
            before = os.umask(0o177)
            try:
                self._port = reactor.listenUNIX(path, factory, mode=0o600)
            finally:
                os.umask(before)
        except ControlError:
            raise
        except Exception as problem:
            why = getattr(problem, "socketError", problem)
            raise ControlError(
                f"policy.control: cannot listen on {path}: {why}; name a file in a folder of your own"
            ) from None

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        if self._port is not None:
            self._port.stopListening()
            self._port = None
            Path(self._path).unlink(missing_ok=True)
        for client in list(self.clients):
            client.transport.abortConnection()

    def answer(self, line: bytes) -> "Deferred[dict[str, Any]]":
        """Do what a line asks; the answer comes once what was done is on disk."""
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise Refused("a request is an object")
            return self._do(asked)
        except Refused as problem:
            return succeed({"error": str(problem)})
        except (ValueError, RecursionError):
            return succeed({"error": "a request is one line of JSON"})

    def _do(self, asked: dict[str, Any]) -> "Deferred[dict[str, Any]]":
        store, now = self._engine.store, self._now()
        what = asked.get("do")
        if what == "list":
            return succeed({"bans": [_shown(ban, now) for ban in store.bans(now)]})
        if what not in ("add", "remove", "why"):
            raise Refused("what can be done is list, add, remove and why")
        keys = self._keys(asked.get("what"))
        if what == "add":
            return self._when_kept(self._add(keys[0], asked, now), f"{keys[0]} is banned")
        if what == "remove":
            gone = [key for key in keys if self._engine.unban(key, now)]
            if not gone:
                raise Refused(f"{keys[0]} is not banned; see the list")
            said = f"removed the ban of {', '.join(gone)}"
            return self._when_kept({"bans": [], "said": said}, said)
        found = [ban for key in keys if (ban := store.past(key, now)) is not None]
        return succeed({"bans": [_shown(ban, now) for ban in found]})

    def _when_kept(self, answer: dict[str, Any], done: str) -> "Deferred[dict[str, Any]]":
        """Give the answer once all that was decided is on disk, or else say that it may be lost."""
        kept = self._kept()
        if self._reactor is not None:
            kept.addTimeout(DISK_TIME, self._reactor)

        def failed(failure: Failure) -> dict[str, Any]:
            if failure.check(TookTooLong):
                why = f"the disk took longer than {DISK_TIME:g} s"
            else:
                why = str(failure.trap(SnapshotError) and failure.value)
            return {"error": f"{done}, but a kill may undo it: {why}"}

        return kept.addCallbacks(lambda _: answer, failed)

    def _keys(self, text: object) -> list[str]:
        """Return the keys that a name may stand for: an address is also in its network."""
        if not isinstance(text, str) or not text:
            raise Refused("it lacks what it is about")
        try:
            key = self._engine.addresses.ban_key(text)
        except ValueError as problem:
            raise Refused(str(problem)) from None
        kind, _, value = key.partition(":")
        if kind == "user":
            return [f"user:{self._engine.users.key(value)}"]
        if kind == "pair":
            host, _, user = value.partition("|")
            return [f"pair:{host}|{self._engine.users.key(user)}"]
        if kind == "address":
            host = value.partition("/")[0]
            return [key, f"network:{self._engine.addresses.network(host)}"]
        return [key]

    def _add(self, key: str, asked: dict[str, Any], now: float) -> dict[str, Any]:
        seconds, why = asked.get("seconds"), asked.get("why", "")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            seconds = math.nan
        if not 0 < seconds <= MAX_SECONDS:
            raise Refused(
                "the time of a ban is a number of seconds above 0, and of ten years at most"
            )
        if not isinstance(why, str) or not why.isprintable() or len(why) > 200:
            raise Refused("the reason of a ban is one line of 200 letters at most")
        self._end(self._engine.ban(key, float(seconds), why or "by hand", now))
        return {
            "bans": [_shown(ban, now) for ban in self._engine.store.bans(now) if ban.key == key]
        }


def _shown(ban: Ban, now: float) -> dict[str, Any]:
    return {
        "key": shown_name(ban.key),
        "rule": ban.rule,
        "since": ban.since,
        "until": ban.until,
        "in_force": ban.until > now,
        "times": ban.times,
        "evidence": list(ban.evidence),
    }


def _remove_stale(path: str) -> None:
    """Remove the socket of a proxy that was killed; never another file, nor one that somebody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ControlError(f"policy.control: {path} is no socket; name another file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise ControlError(f"policy.control: another proxy listens on {path}; name another file")


class _Protocol(LineOnlyReceiver, TimeoutMixin):
    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    _asked = False

    def connectionMade(self) -> None:
        control = self._control
        if len(control.clients) >= MAX_CLIENTS:
            self.transport.abortConnection()
            return
        control.clients.add(self)
        self.setTimeout(PATIENCE)  # type: ignore[no-untyped-call]

    @property
    def _control(self) -> Control:
        control: Control = self.factory.control
        return control

    def lineReceived(self, line: bytes) -> None:
        if self._asked:
            return
        self._asked = True
        self._control.answer(line).addCallback(self._answer)

    def _answer(self, answer: dict[str, Any]) -> None:
        # Of a client that has left, this does nothing.
        self.transport.write(json.dumps(answer).encode() + b"\n")
        self.transport.loseConnection()

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self._control.clients.discard(self)
