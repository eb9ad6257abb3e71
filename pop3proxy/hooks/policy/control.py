"""A Unix socket by which an operator asks, bans, removes bans and allows; judges nothing.

One line of JSON each way, and the connection ends. ``do`` says what:

- ``list``: the bans in force; back comes ``bans``;
- ``denied``: all that is refused; back come ``bans``, ``denied`` and ``allowed``;
- ``why``: all that is known of ``what``; back comes ``why``;
- ``add``: ban ``what`` for ``seconds``; back comes ``bans``;
- ``remove``: take back what is held against ``what``; back come ``removed`` and ``said``;
- ``allow``: allow ``what`` for ``seconds``; back come ``allowed`` and ``said``;
- ``disallow``: end that; back comes ``said``.

The last four take a ``reason``. With any may come a ``note``. What is refused gets ``{"error": TEXT}``.
"""

import json
import math
import os
import socket
import stat
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from ..masking import shown_name
from .allowances import Allowance, AllowancesFull, allowance_key
from .banrecords import is_text, time_of
from .byhand import ByHand, Operator, Removed
from .engine import Engine
from .explanations import Explanations, Listed, shown_ban
from .snapshot import SnapshotError
from .subjects import keys_of, subject_of

MAX_LINE: Final = 4096
"""Octets of a request."""

MAX_CLIENTS: Final = 16
"""Connections at a time."""

PATIENCE: Final = 5.0
"""Seconds until a request must be complete, and its answer taken."""

MAX_REASON: Final = 200
"""Letters of a reason."""

MAX_NAMED: Final = 3
"""Keys that are named in a sentence; of the others there is the number."""

DISK_TIME: Final = 3.0
"""Seconds until an answer no longer waits for the disk."""

MAX_SECONDS: Final = 10 * 365 * 86400.0
"""The longest ban or allowance by command."""


class ControlError(OSError):
    """The socket cannot be opened: one line that says what to change."""


class Refused(ValueError):
    """A request is refused: one line that says what would be right."""


class Notes(NamedTuple):
    """What is to be known of counts that are told, and of bans and allowances that are made; or empty."""

    counts: str = ""
    bans: str = ""
    allowances: str = ""


NO_NOTES: Final = Notes()


def _noted(note: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "note": note} if note else answer


class Control:
    """Listens, and does what is asked."""

    def __init__(
        self,
        engine: Engine,
        explanations: Explanations,
        by_hand: ByHand,
        kept: Callable[[], "Deferred[None]"] = lambda: succeed(None),
        notes: Notes = NO_NOTES,
    ) -> None:
        """What ``kept`` returns fires once all is on disk."""
        self._engine = engine
        self._explanations = explanations
        self._by_hand = by_hand
        self._kept = kept
        self._notes = notes
        self._reactor: Any = None
        self._port: IListeningPort | None = None
        self._path = ""
        self.clients: set[Any] = set()
        self._done: dict[str, Callable[[dict[str, Any], str], Deferred[Any]]] = {
            "list": self._list,
            "denied": self._denied,
            "why": self._why,
            "add": self._add,
            "remove": self._remove,
            "allow": self._allow,
            "disallow": self._disallow,
        }

    def listen(self, reactor: Any, path: str) -> None:
        """Open the socket, for its owner alone. Raises ControlError."""
        self._path, self._reactor = path, reactor
        factory = Factory.forProtocol(_Protocol)
        factory.noisy = False
        factory.control = self  # type: ignore[attr-defined]
        try:
            _remove_stale(path)
            # No other user can connect in between, either: the file comes into being with these rights.
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

    def answer(self, line: bytes, by: str) -> "Deferred[str]":
        """Do what a line asks for ``by``; the answer, as JSON, comes once what was done is on disk."""
        return self._answered(line, by).addCallback(_as_json)

    def _answered(self, line: bytes, by: str) -> "Deferred[Any]":
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            return succeed({"error": "a request is one line of JSON"})
        try:
            if not isinstance(asked, dict):
                raise Refused("a request is an object")
            return self._do(asked, by)
        except Refused as problem:
            return succeed({"error": str(problem)})
        except Exception:
            return fail()

    def _do(self, asked: dict[str, Any], by: str) -> "Deferred[Any]":
        what = asked.get("do")
        do = self._done.get(what) if isinstance(what, str) else None
        if do is None:
            raise Refused(f"what can be done is {', '.join(self._done)}")
        return do(asked, by)

    # --- what is asked ----------------------------------------------------------------------------------

    def _list(self, asked: dict[str, Any], by: str) -> "Deferred[Any]":
        return Deferred.fromCoroutine(self._explanations.listed(self._by_hand.now()))

    def _denied(self, asked: dict[str, Any], by: str) -> "Deferred[dict[str, Any]]":
        found = Deferred.fromCoroutine(self._explanations.denied(self._by_hand.now()))
        return found.addCallback(partial(_noted, self._notes.counts))

    def _why(self, asked: dict[str, Any], by: str) -> "Deferred[dict[str, Any]]":
        try:
            subject = subject_of(self._engine, _name(asked))
        except ValueError as problem:
            raise Refused(str(problem)) from None
        why = Deferred.fromCoroutine(self._explanations.why(subject, self._by_hand.now()))
        return why.addCallback(lambda found: _noted(self._notes.counts, {"why": found}))

    def _add(self, asked: dict[str, Any], by: str) -> "Deferred[dict[str, Any]]":
        operator, seconds = _operator(asked, by), _seconds(asked, "a ban")
        key = self._keys(asked)[0]
        ban = self._by_hand.ban(key, seconds, operator)
        return self._when_kept({"bans": [shown_ban(ban, ban.since)]}, f"{key} is banned")

    def _remove(self, asked: dict[str, Any], by: str) -> "Deferred[dict[str, Any]]":
        return Deferred.fromCoroutine(self._removed(self._keys(asked), _operator(asked, by)))

    async def _removed(self, keys: list[str], operator: Operator) -> dict[str, Any]:
        removed = self._by_hand.remove(keys, operator)
        now = self._by_hand.now()
        left = await self._explanations.still_refused(subject_of(self._engine, keys[0]), now)
        still = f"still refused: {_some(left)}; see pop3proxy policy why" if left else ""
        if not removed:
            name = shown_name(keys[0])
            more = still or "see pop3proxy policy why"
            return {"error": f"nothing is held against {name} itself; {more}"}
        done = "; ".join(_in_words(each, now) for each in removed)
        shown = [
            {
                "key": shown_name(each.key),
                "ban": None if each.ban is None else shown_ban(each.ban, now),
                "counts": [standing.shown() for standing in each.counts],
                "grace": each.grace,
            }
            for each in removed
        ]
        said = f"{done}; {still}" if still else done
        return await self._when_kept({"removed": shown, "said": said}, done)

    def _allow(self, asked: dict[str, Any], by: str) -> "Deferred[dict[str, Any]]":
        operator, seconds = _operator(asked, by), _seconds(asked, "an allowance")
        key = self._allowance_key(asked)
        try:
            allowance = self._by_hand.allow(key, seconds, operator)
        except AllowancesFull as problem:
            raise Refused(str(problem)) from None
        return Deferred.fromCoroutine(self._allowed(allowance))

    async def _allowed(self, allowance: Allowance) -> dict[str, Any]:
        key = allowance.key
        said = f"{key} is allowed until {time_of(allowance.until)}"
        bans = await self._explanations.bans_at(key, allowance.since)
        if bans:
            said += f"; meanwhile no ban holds there of {_some(bans)}"
        return await self._when_kept({"allowed": [allowance._asdict()], "said": said}, said)

    def _disallow(self, asked: dict[str, Any], by: str) -> "Deferred[dict[str, Any]]":
        operator, key = _operator(asked, by), self._allowance_key(asked)
        if self._by_hand.disallow(key, operator) is None:
            raise Refused(f"{key} is not allowed by command; see pop3proxy policy list")
        said = f"{key} is no longer allowed"
        return self._when_kept({"said": said}, said)

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

        note = self._notes.allowances if "allowed" in answer else self._notes.bans
        return kept.addCallbacks(lambda _: _noted(note, answer), failed)

    def _keys(self, asked: dict[str, Any]) -> list[str]:
        """Return the keys that a name stands for: of an address that of its network, too."""
        try:
            return keys_of(self._engine, _name(asked))
        except ValueError as problem:
            raise Refused(str(problem)) from None

    def _allowance_key(self, asked: dict[str, Any]) -> str:
        try:
            return allowance_key(self._engine.addresses, _name(asked))
        except ValueError as problem:
            raise Refused(str(problem)) from None


def _as_json(answer: dict[str, Any] | Listed) -> str:
    return answer.text if isinstance(answer, Listed) else json.dumps(answer)


def _name(asked: dict[str, Any]) -> str:
    name = asked.get("what")
    if not isinstance(name, str) or not name:
        raise Refused("it lacks what it is about")
    if not is_text(name):
        raise Refused("a name cannot have half a character (a lone surrogate); write it in UTF-8")
    return name


def _seconds(asked: dict[str, Any], what: str) -> float:
    seconds = asked.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        raise Refused(
            f"the time of {what} is a number of seconds above 0, and of ten years at most"
        )
    return float(seconds)


def _operator(asked: dict[str, Any], by: str) -> Operator:
    if "why" in asked:
        raise Refused('"why" is called "reason" now')
    reason = asked.get("reason", "")
    if not isinstance(reason, str) or not reason.isprintable() or len(reason) > MAX_REASON:
        raise Refused(f"a reason is one line of {MAX_REASON} letters at most")
    return Operator(by, reason)


def _in_words(removed: Removed, now: float) -> str:
    """Say what was taken back of one key."""
    key = shown_name(removed.key)
    done = [f"ended the ban of {key}"] if removed.ban is not None else []
    done += [
        f"cleared {standing.counts[-1]} {standing.counted} of {key} ({standing.rule})"
        for standing in removed.counts
    ]
    if removed.grace > now:
        done.append(f"no rule bans or refuses {key} until {time_of(removed.grace)}")
    return ", ".join(done)


def _some(keys: list[str]) -> str:
    """Name some of many."""
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    return f"{', '.join(keys[:MAX_NAMED])}{more}"


def _remove_stale(path: str) -> None:
    """Remove the socket of a proxy that was killed; never another file, nor one that a process listens on."""
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


def peer_of(transport: Any) -> str:
    """Return who is at the other end of a UNIX socket, as the kernel knows it: ``uid:0``."""
    credentials = struct.Struct("3i")  # of Linux, unix(7): pid, uid, gid
    found = transport.getHandle().getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size
    )
    return f"uid:{credentials.unpack(found)[1]}"


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
        self._control.answer(line, peer_of(self.transport)).addBoth(self._answer)

    def _answer(self, answer: "str | Failure") -> None:
        if isinstance(answer, Failure):
            Logger(namespace="pop3proxy.hooks.policy").failure("the control socket fails", answer)
            answer = json.dumps({"error": "an error in the proxy, which its log has; report it"})
        # To a client that has left, this does nothing.
        self.transport.write(answer.encode() + b"\n")
        self.transport.loseConnection()

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self._control.clients.discard(self)
