"""A store that several proxies share through Redis, and that each goes on with alone when Redis is not well.

Memory goes along: it holds all bans, so that the connect check asks nobody, and what this proxy has counted,
so that a decision that Redis does not make in time is made from there at once.
"""

import hashlib
import json
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Final, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from txredisapi import ResponseError

from ..banrecords import ban_of_row, ended, instant, row
from ..config import Policy, PolicyRedis
from ..memory import MemoryStore
from ..store import (
    BUCKETS,
    Answer,
    Attempt,
    Ban,
    Budget,
    Charge,
    Fate,
    Flight,
    Over,
    Settled,
    Settlement,
    Tally,
    places_of,
    trickle_mark,
)
from .clock import SharedClock
from .former import FormerNames
from .link import TROUBLES, Link
from .names import tagged, untagged
from .words import RedisTrouble, in_words

T = TypeVar("T")

PATIENCE: Final = 600
"""Seconds after which an attempt without an answer ends in Redis: its proxy was killed, or had hung up."""

MAX_ASKED: Final = 1024
"""Decisions that wait for Redis at once; those beyond are made from memory, so that no queue grows."""

MAX_TELLING: Final = 64
"""Bans on their way to Redis at once; the others wait in their dictionary."""

PAGE: Final = 500
"""Bans that are read at once."""

SAID_EVERY: Final = 60.0
"""Seconds between two lines about Redis going, if it comes and goes."""

ASK_AGAIN: Final = 0.25
"""Seconds after which a held attempt is asked about again, if no message has come before."""

MAX_NAMED: Final = 4096
"""Places that are known by their names in Redis: a message about another one is not understood."""

_FATES: Final = (Fate.FLIES, Fate.REFUSED, Fate.HELD)

_BEATS_UNHEARD: Final = 5
"""Own messages that may be under way at once."""

_SAME: Final = 0.001
"""Seconds that the same time may differ by."""

_MARK_SECONDS: Final = 365 * 86400


@dataclass(slots=True)
class _Told:
    """A ban or its end, as Redis is told it."""

    keys: list[bytes]
    args: list[bytes]


class _Question(Generic[T]):
    """A decision that waits for Redis: made by its answer, or from memory, or no longer wanted.

    ``late`` gets an answer that nobody waits for any more.
    """

    __slots__ = ("alone", "decided", "late", "read", "timer")

    def __init__(
        self,
        read: Callable[[list[int]], T],
        alone: Callable[[], T],
        late: Callable[[list[int]], None],
    ) -> None:
        self.read = read
        self.alone = alone
        self.late = late
        self.decided: Deferred[T] = Deferred(self._forget)
        self.timer: Any = None

    @property
    def open(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self.timer.active())

    def answer(self, reply: list[int]) -> None:
        """Take Redis's answer. Raises ValueError if it cannot be read; then it is as open as it was."""
        if not self.open:
            self.late(reply)
            return
        answer = self.read(reply)
        self.timer.cancel()
        self.decided.callback(answer)

    def decide_alone(self) -> None:
        """Decide from memory."""
        self.decided.callback(self.alone())

    def _forget(self, _: object) -> None:
        """The client has left."""
        if self.open:
            self.timer.cancel()


class RedisStore:
    """Counts and bans of all proxies that name the same server, prefix and `fingerprint_key`.

    ``counts`` has what is worth knowing. ``on_ban`` is called with each ban that comes from elsewhere.
    """

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self, policy: Policy, config: PolicyRedis, clock: Callable[[], float] = time.time
    ) -> None:
        """Take the configuration, which must have a `fingerprint_key`, and what says the time."""
        assert policy.fingerprint_key is not None
        self.memory = MemoryStore(policy.max_keys, policy.max_bans, policy.ban_memory)
        self.counts: Counter[str] = Counter()
        self.on_ban: Callable[[Ban], None] = lambda ban: None
        self._config = config
        self._policy = policy
        self._clock = clock
        secret = policy.fingerprint_key.encode("utf-8", "surrogateescape")
        self._secret = hashlib.blake2b(secret, person=b"pop3proxy.redis").digest()
        self._prefix = tagged(config.prefix)
        self._shared = SharedClock()
        self._time_untold = False
        self._channel = untagged(config.prefix) + b"bans"
        self._settled_channel = untagged(config.prefix) + b"settled"
        self.on_settled: Callable[[Iterable[str]], None] = lambda places: None
        self.memory.on_settled = self._settled_in_memory
        self._named: OrderedDict[bytes, str] = OrderedDict()  # places where something is held
        self._name_here = secrets.token_hex(8)
        # On its own channel a proxy hears whether it still hears.
        self._own_channel = untagged(config.prefix) + b"beat:" + self._name_here.encode()
        self._patience = str(PATIENCE).encode()
        self._parts = str(BUCKETS).encode()
        self._reactor: Any = None
        self._link: Link | None = None
        self._well = False
        self._ill_since: float | None = None
        self._outage_said = False
        self._said = -SAID_EVERY
        self._alone = 0
        self._asked = 0
        self._beats = 0
        self._heard_beats = 0
        self._mark: bytes | None = None
        self._touched: set[str] | None = None
        self._untold: OrderedDict[str, _Told] = OrderedDict()
        self._telling = 0
        self._unheard: Counter[str] = Counter()
        self._running: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._stopped = False
        self._waiting: list[tuple[bool, Deferred[None]]] = []

    # --- start and stop ---------------------------------------------------------------------------------

    def start(self, reactor: Any) -> None:
        """Begin to connect, and go on until ``stop``. Nothing waits for it."""
        self._reactor = reactor
        self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Hang up; who waits for Redis is answered from memory."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    def state(self, well: bool) -> "Deferred[None]":
        """Return a Deferred that fires once Redis takes part, or once it does not."""
        fired: Deferred[None] = Deferred()
        if self._well is well:
            fired.callback(None)
        else:
            self._waiting.append((well, fired))
        return fired

    @property
    def well(self) -> bool:
        """Whether Redis is asked."""
        return self._well

    # --- decisions --------------------------------------------------------------------------------------

    def attempt(self, attempt: Attempt, now: float) -> "Answer | Deferred[Answer]":
        """Let an attempt fly in Redis and then in memory, hold it or refuse it."""
        if not self._may_ask():
            return self.memory.attempt(attempt, now)
        keys: list[bytes] = []
        args = [b"attempt", self._at(now), self._patience, self._parts]
        self._put_attempt(attempt, now, keys, args)

        def read(reply: list[int]) -> Answer:
            answer = _attempted(attempt, reply, now)
            self._learn_mark(attempt.welcome, reply[1], now)
            if answer.fate is Fate.FLIES:
                # Memory holds what Redis has decided.
                self.memory.take_off(attempt, answer)
            elif answer.fate is Fate.HELD:
                self._name_place(answer.place)
            return answer

        def take_back(reply: list[int]) -> None:
            if _attempted(attempt, reply, now).fate is Fate.FLIES:
                places = places_of(attempt, _attempted(attempt, reply, now))
                self._send_only(Settlement(attempt.flight._replace(places=places)), now)

        def alone() -> Answer:
            return self.memory.attempt(attempt, now)

        return self._ask(keys, args, _Question(read, alone, take_back))

    def flies_at_once(
        self, attempt: Attempt, keys: Iterable[str], rooms: Iterable[tuple[str, int]], now: float
    ) -> Answer | None:
        """Return None: only Redis knows what others have in flight."""
        return None

    def settle(self, settlement: Settlement, now: float) -> "Settled | Deferred[Settled]":
        """Take what became of an attempt, in Redis and in memory."""
        alone = self.memory.settle(settlement, now)
        if not self._may_ask():
            return alone
        keys, args = self._settling(settlement, now)

        def read(reply: list[int]) -> Settled:
            self._learn_mark(settlement.home, reply[0], now)
            asked = (*settlement.charges, *settlement.asked)
            return Settled(_tallies(asked, iter(reply[1:])), bool(reply[0]))

        return self._ask(keys, args, _Question(read, lambda: alone, lambda reply: None))

    def announced(self, flight: Flight, wait: float) -> None:
        """Take an attempt for overdue, in Redis and in memory."""
        self.memory.announced(flight, wait)
        if self._may_ask():
            keys: list[bytes] = []
            args = [b"announce", self._at(flight.at), self._patience, self._parts]
            args.append(self._at(flight.at - wait))
            self._put_flight(flight, keys, args)
            self._send(keys, args)

    def _settled_in_memory(self, places: Iterable[str]) -> None:
        """Pass on that a flight has ended here, unless Redis is the one to say so."""
        if not self._well:
            self.on_settled(places)

    def _may_ask(self) -> bool:
        if not self._well:
            self._alone += 1
            self.counts["redis_alone"] += 1
            return False
        if self._asked >= MAX_ASKED:
            self.counts["redis_full"] += 1
            return False
        return True

    def _ask(self, keys: list[bytes], args: list[bytes], question: _Question[T]) -> "Deferred[T]":
        """Ask Redis; the question has its answer in time, whatever Redis does."""
        link = self._link
        assert link is not None
        self.counts["redis_asked"] += 1
        self._asked += 1
        question.timer = self._reactor.callLater(self._config.time_limit, self._too_late, question)
        try:
            reply = link.counts(keys, args, self._settled_channel)
        except TROUBLES:
            self._failed(self._count_down(Failure()), question)
        else:
            reply.addBoth(self._count_down).addCallback(question.answer)
            reply.addErrback(self._failed, question)
        return question.decided

    def _count_down(self, reply: Any) -> Any:
        self._asked -= 1
        return reply

    def _too_late(self, question: _Question[Any]) -> None:
        self.counts["redis_slow"] += 1
        self._ill("no answer in time")
        question.decide_alone()

    def _failed(self, failure: Failure, question: _Question[Any]) -> None:
        self.counts["redis_failed"] += 1
        if isinstance(failure.value, TROUBLES):
            self._ill(in_words(failure.value))
        elif isinstance(failure.value, (LookupError, TypeError, ValueError)):
            self._ill("it answers what the proxy cannot read; mend policy.redis.url")
        else:
            self._ill("an error in the proxy; report it")
            self._log.failure("an answer of Redis could not be taken", failure)
        if question.open:
            question.timer.cancel()
            question.decide_alone()

    def _send_only(self, settlement: Settlement, now: float) -> None:
        """Settle in Redis only, what only Redis was charged with."""
        link = self._link
        if link is None or self._asked >= MAX_ASKED:
            return  # it ends there by itself
        self.counts["redis_taken_back"] += 1
        self._send(*self._settling(settlement, now))

    def _send(self, keys: list[bytes], args: list[bytes]) -> None:
        """Tell Redis what needs no answer, and ends there by itself if it gets lost."""
        link = self._link
        assert link is not None
        self._asked += 1

        def done(_: object) -> None:
            self._asked -= 1

        try:
            link.counts(keys, args, self._settled_channel).addBoth(done)
        except TROUBLES:
            done(None)

    # --- how a decision is written ----------------------------------------------------------------------

    def _put_attempt(
        self, attempt: Attempt, now: float, keys: list[bytes], args: list[bytes]
    ) -> None:
        places = attempt.flight.places
        args += (_number(attempt.wait), b"1" if attempt.overdue_fail else b"0")
        self._put_flight(attempt.flight, keys, args)
        tries = places.index(attempt.tries) + 1 if attempt.tries else 0
        args.append(_number(tries))
        self._put_mark(attempt.welcome, now, keys, args)
        args.append(_number(len(attempt.budgets)))
        for budget in attempt.budgets:
            keys += [self._name(kind, name) for kind, name in _named(budget)]
            args += (_number(self._left(budget.mark, now)), _number(budget.size))
            args.append(_number(budget.seconds))
        if attempt.repeat is None:
            args.append(b"0")
        else:
            args.append(b"1")
            self._put_charge(attempt.repeat, places, keys, args)
            if tries:
                keys.append(self._name(b"m:", attempt.tries))
        self._put_charges(attempt.charges, places, keys, args)

    def _put_flight(self, flight: Flight, keys: list[bytes], args: list[bytes]) -> None:
        members = [self._name(b"", member) if member else b"-" for member in flight.members]
        args += (b":".join((flight.id.encode(), *members, b"")), _number(len(flight.places)))
        keys += [self._name(b"f:", place) for place in flight.places]

    def _settling(self, settlement: Settlement, now: float) -> tuple[list[bytes], list[bytes]]:
        keys: list[bytes] = []
        args = [b"settle", self._at(now), self._patience, self._parts]
        self._put_flight(settlement.flight or _NO_FLIGHT, keys, args)
        args.append(_number(len(settlement.undone)))
        for at, charge in settlement.undone:
            args.append(self._at(at))
            self._put_charge(charge, (), keys, args)
        args.append(_number(len(settlement.cleared)))
        keys += [self._name(b"c:", cleared) for cleared in settlement.cleared]
        self._put_charges(settlement.charges, (), keys, args)
        args.append(_number(len(settlement.marks)))
        for mark, seconds in settlement.marks:
            keys.append(self._name(b"m:", mark))
            args.append(_number(seconds))
        if settlement.spent is None:
            args.append(b"0")
        else:
            keys.append(self._name(b"m:", settlement.spent.key))
            args += (b"1", _number(settlement.spent.seconds))
        self._put_mark(settlement.home, now, keys, args)
        self._put_charges(settlement.asked, (), keys, args)
        return keys, args

    def _at(self, here: float) -> bytes:
        """Write a time as all proxies have it."""
        return _number(self._shared.shared(here))

    def _name_place(self, place: str) -> None:
        """Know what messages about a place mean, as something is held there."""
        name = self._name(b"f:", place)
        self._named[name] = place
        self._named.move_to_end(name)
        if len(self._named) > MAX_NAMED:
            self._named.popitem(last=False)

    def _put_mark(self, mark: str, now: float, keys: list[bytes], args: list[bytes]) -> None:
        """Ask for a mark, and tell what is known of it here: Redis may have lost its data."""
        args.append(b"1" if mark else b"0")
        if mark:
            keys.append(self._name(b"m:", mark))
            args.append(_number(self._left(mark, now)))

    def _left(self, mark: str, now: float) -> float:
        return max(0.0, self.memory.marks.get(mark, 0.0) - now)

    def _learn_mark(self, mark: str, left: int, now: float) -> None:
        """Know here too what Redis knows, for when it is not asked."""
        if left > self._left(mark, now) + 1:
            self.memory.settle(Settlement(marks=((mark, float(left)),)), now)

    def _put_charges(
        self,
        charges: Sequence[Charge],
        places: Sequence[str],
        keys: list[bytes],
        args: list[bytes],
    ) -> None:
        args.append(_number(len(charges)))
        for charge in charges:
            self._put_charge(charge, places, keys, args)

    def _put_charge(
        self, charge: Charge, places: Sequence[str], keys: list[bytes], args: list[bytes]
    ) -> None:
        """Write a charge; its place is a number among those of the flight, 0 if that is not asked for."""
        keys.append(self._name(b"c:", charge.key))
        args += (
            self._name(b"", charge.member) if charge.member else b"-",
            b"1" if charge.enforced else b"0",
            b"1" if charge.waived else b"0",
            _number(places.index(charge.place) + 1 if charge.place in places else 0),
            _number(charge.kind),
            _number(charge.trickle),
            b"1" if charge.timed else b"0",
            _number(len(charge.windows)),
        )
        if charge.trickle:
            keys.append(self._name(b"m:", trickle_mark(charge.key)))
        for window in charge.windows:
            args += (_number(window.seconds), _number(window.limit))

    def _name(self, kind: bytes, text: str) -> bytes:
        """Hash what names people or comes from passwords: all names are short, and none can be read there."""
        digest = hashlib.blake2b(
            text.encode("utf-8", "surrogateescape"), digest_size=12, key=self._secret
        )
        name = digest.hexdigest().encode()
        return self._prefix + kind + name if kind else name

    def may_hold(self, key: str) -> bool:
        """Return whether there may be a count of a key: only Redis knows those of other proxies."""
        return self._well or self.memory.may_hold(key)

    # --- bans -------------------------------------------------------------------------------------------

    def ban_of(self, keys: Iterable[str], now: float) -> Ban | None:
        """Find the first of these keys that is banned."""
        return self.memory.ban_of(keys, now)

    def past(self, key: str, now: float) -> Ban | None:
        """Find the last ban of a key, also one that is over."""
        return self.memory.past(key, now)

    def ban(self, ban: Ban, now: float) -> None:
        """Put a ban in force here at once, and at the other proxies as soon as Redis can be told."""
        self.memory.ban(ban, now)
        self._tell_ban(ban, now)

    def unban(self, key: str, cleared: Sequence[str], grace_until: float, now: float) -> bool:
        """End a ban here at once, and at the other proxies as soon as Redis can be told."""
        was = self.memory.unban(key, cleared, grace_until, now)
        record: list[Any] = ["unban", key, self._shared.shared(grace_until), []]
        message = [*record[:3], list(cleared)]
        names = [self._name(b"c:", each) for each in cleared]
        self._tell(key, record, message, grace_until, now, names)
        return was

    def in_grace(self, key: str, now: float) -> bool:
        """Say whether a ban of this key was taken back a short time ago."""
        return self.memory.in_grace(key, now)

    def bans(self, now: float) -> list[Ban]:
        """List the bans in force."""
        return self.memory.bans(now)

    def watch_bans(self, changed: Callable[[str], None]) -> None:
        """Call this with the key of each ban that begins, is replaced, or ends before its time."""
        self.memory.watch_bans(changed)

    def _tell_ban(self, ban: Ban, now: float) -> None:
        since, until = self._shared.shared(ban.since), self._shared.shared(ban.until)
        record = ["ban", *row(replace(ban, since=since, until=until))]
        self._tell(ban.key, record, record, ban.until + self._policy.ban_memory, now, [])

    def _tell(
        self,
        key: str,
        record: list[Any],
        message: list[Any],
        forget: float,
        now: float,
        cleared: list[bytes],
    ) -> None:
        """Have Redis keep a record and push a message; of one key only the last is told."""
        args = [
            b"put",
            key.encode("utf-8", "surrogateescape"),
            json.dumps(record).encode(),
            self._at(forget),
            self._at(now),
            _number(self._policy.max_bans),
            self._channel,
            json.dumps([self._name_here, *message]).encode(),
            _number(max(1, int(forget - now) + 1)),
        ]
        self._untold.pop(key, None)
        self._untold[key] = _Told([*self._ban_keys, *cleared], args)
        if len(self._untold) > self._policy.max_bans:
            self._untold.popitem(last=False)
            self.counts["redis_untold"] += 1
        self._flush()

    @property
    def _ban_keys(self) -> tuple[bytes, bytes, bytes]:
        return self._prefix + b"bans", self._prefix + b"bans:ends", self._prefix + b"mark"

    def _flush(self) -> None:
        """Tell Redis what it was not told, a few at a time."""
        while self._well and self._untold and self._telling < MAX_TELLING:
            link = self._link
            assert link is not None
            key, told = self._untold.popitem(last=False)
            self._telling += 1
            self._unheard[key] += 1
            try:
                reply = link.bans(told.keys, told.args)
            except TROUBLES:
                self._not_told(Failure(), key, told)
            else:
                reply.addCallbacks(self._was_told, self._not_told, errbackArgs=(key, told))

    def _was_told(self, _: object) -> None:
        self._telling -= 1
        self._flush()

    def _not_told(self, failure: Failure, key: str, told: _Told) -> None:
        self._telling -= 1
        # What was said of the key since is newer.
        self._untold.setdefault(key, told)
        self._ill(in_words(failure.value))

    def _heard(self, channel: bytes, message: bytes) -> None:
        if channel == self._own_channel:
            self._heard_beats += 1
        elif channel == self._settled_channel:
            place = self._named.get(message)
            if place is not None:
                self.on_settled((place,))
        else:
            self._learn(message, pushed=True)

    def _learn(self, text: bytes, pushed: bool) -> str | None:
        """Take what was pushed or read, and return its key; of each key Redis's last word holds."""
        try:
            record = json.loads(text)
            sender = record.pop(0) if pushed else ""
            key = str(record[1])
            if self._newer(key, sender, pushed):
                return key
            self._take(key, record)
        except (AttributeError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
            # Somebody else writes under this prefix.
            self.counts["redis_malformed"] += 1
            return None
        return key

    def _newer(self, key: str, sender: str, pushed: bool) -> bool:
        """Say whether there is newer word of a key than what was pushed or read."""
        if self._touched is not None:
            if not pushed and key in self._touched:
                return True  # what was pushed while reading
            if pushed:
                self._touched.add(key)
        if sender == self._name_here and self._unheard[key] > 0:
            self._unheard[key] -= 1
        # What is said here holds at once, and will come back behind all that was said elsewhere before.
        if self._unheard[key] > 0:
            return True
        del self._unheard[key]
        return key in self._untold

    def _take(self, key: str, record: list[Any]) -> None:
        now = self._clock()
        if record[0] == "ban":
            shared = ban_of_row(record[1:])
            since, until = self._shared.here(shared.since), self._shared.here(shared.until)
            ban = replace(shared, since=since, until=until)
            if not _same(self.memory.all_bans.get(key), ban):
                self.memory.ban(ban, now)
                self.counts["redis_bans_heard"] += 1
                self.on_ban(ban)
        elif record[0] == "unban":
            until = self._shared.here(instant(record[2]))
            was = self.memory.past(key, now)
            self.memory.unban(key, [str(each) for each in record[3]], until, now)
            if was is not None:
                # So that it can be asked about; one that this proxy has ended says more.
                over = ended(was, now, "removed at another proxy") if was.times else was
                self.memory.ban(over, now)
            if until > now:
                self._grace(key, until)
        else:
            raise ValueError("neither a ban nor its end")

    def _grace(self, key: str, until: float) -> None:
        """Begin a grace here, also where there was no ban."""
        graces = self.memory.graces
        graces[key] = until
        graces.move_to_end(key)
        if len(graces) > self._policy.max_keys:
            graces.popitem(last=False)

    # --- taking part ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, take part, and begin again when it ends."""
        while not self._stopped:
            try:
                await self._take_part()
            except (*TROUBLES, TookTooLong) as problem:
                self._ill(in_words(problem))
            except Exception:
                # Whatever it is, Redis is to take part again when it is over.
                self._ill("an error in the proxy; report it")
                if not self._stopped:
                    self._log.failure("taking part in Redis failed; it begins again")
            finally:
                self._hang_up()
            if not self._stopped:
                await self._wait()

    def _hang_up(self) -> None:
        link, self._link = self._link, None
        self._unheard.clear()
        self._set_well(False)
        if link is not None:
            link.abort()

    async def _wait(self) -> None:
        """Wait for the next look, or until the connection is lost."""
        self._pause = deferLater(self._reactor, self._config.probe_interval)
        try:
            await self._pause
        except CancelledError:
            pass
        finally:
            self._pause = None

    def _wake(self, _: object) -> None:
        if self._pause is not None:
            self._pause.cancel()

    async def _take_part(self) -> None:
        opening = Link.open(self._config, self._reactor, self._heard)
        link = self._link = await self._timed(opening)
        link.lost().addCallback(self._wake)
        await self._timed(link.subscribe([self._channel, self._own_channel, self._settled_channel]))
        await self._catch_up(link)
        self._recovered()
        while not self._stopped:
            await self._wait()
            if not link.alive:
                raise RedisTrouble(link.why)
            await self._beat(link)

    # --- well or not ------------------------------------------------------------------------------------

    def _set_well(self, well: bool) -> None:
        self._well = well
        fired = [each for wanted, each in self._waiting if wanted is well]
        self._waiting = [pair for pair in self._waiting if pair[0] is not well]
        for each in fired:
            each.callback(None)

    def _ill(self, why: str) -> None:
        """Ask no more until a look shows that all is well."""
        if self._stopped:
            return
        self._set_well(False)
        now = self._reactor.seconds()
        if self._ill_since is None:
            self._ill_since, self._outage_said, self._alone = now, False, 0
            self.counts["redis_outages"] += 1
        if not self._outage_said and now - self._said >= SAID_EVERY:
            self._outage_said, self._said = True, now
            self._log.warn(
                "Redis at {url} is not asked any more: {why}; until it is well this proxy counts for itself",
                url=self._config.url,
                why=why,
            )

    def _recovered(self) -> None:
        since, self._ill_since = self._ill_since, None
        self._set_well(True)
        if since is None:
            self._log.info("Redis at {url} takes part", url=self._config.url)
        elif self._outage_said:
            self._log.info(
                "Redis at {url} takes part again after {seconds:.1f} s;"
                " {alone} decisions were made without it",
                url=self._config.url,
                seconds=self._reactor.seconds() - since,
                alone=self._alone,
            )
        self._flush()

    def _timed(self, answer: "Deferred[Any]") -> "Deferred[Any]":
        return answer.addTimeout(self._config.connect_limit, self._reactor)

    async def _beat(self, link: Link) -> None:
        """Look whether Redis answers in time, and pushes; take part again if so."""
        if self._beats - self._heard_beats > _BEATS_UNHEARD:
            raise RedisTrouble("it no longer pushes what is banned")
        began = self._reactor.seconds()
        self._beats += 1
        hearing = await self._timed(link.publish(self._own_channel, b""))
        if hearing < 1:
            raise RedisTrouble("it no longer pushes what is banned")
        if self._reactor.seconds() - began > self._config.time_limit:
            self._ill("no answer in time")
            return
        await self._look_at_clock(link)
        if await self._timed(link.ask(b"GET", self._ban_keys[2])) != self._mark:
            self._data_is_lost()
            await self._catch_up(link)
        if not self._well:
            self._recovered()

    def _data_is_lost(self) -> None:
        self.counts["redis_data_lost"] += 1
        self._log.warn(
            "Redis at {url} has lost its data; it is told again of {bans} bans, and counts begin again",
            url=self._config.url,
            bans=len(self.memory.bans(self._clock())),
        )

    async def _look_at_clock(self, link: Link) -> None:
        """Compare the clock here with Redis's."""
        asked = self._clock()
        try:
            there = await self._timed(Deferred.fromCoroutine(link.time()))
        except ResponseError as problem:
            if not self._time_untold:
                self._time_untold = True
                self._log.warn(
                    "the clock cannot be compared with Redis's: {why}", why=in_words(problem)
                )
            return
        said = self._shared.measured(there, asked, self._clock())
        if said is not None:
            self.counts["redis_clock"] += 1
            level = LogLevel.warn if self._shared.ahead else LogLevel.info
            self._log.emit(level, "{said}", said=said)

    async def _read_former_names(self, link: Link) -> None:
        """Read once what former versions wrote, before anything is under the names of this one."""
        if await self._timed(link.ask(b"EXISTS", self._ban_keys[2])):
            return
        former = FormerNames(untagged(self._config.prefix), self._prefix, self._timed)
        try:
            found = await former.read(link)
        except ResponseError as problem:
            self._log.info("names of former versions are not read: {why}", why=in_words(problem))
            return
        if found is not None:
            self._log.info(
                "read under the names of former versions: {bans} bans and {marks} welcomes;"
                " counts begin again",
                bans=found.bans,
                marks=found.marks,
            )

    async def _catch_up(self, link: Link) -> None:
        """Read all bans, and find out which of those here are no longer there."""
        self._touched = set()
        self._beats = self._heard_beats = 0
        try:
            await self._look_at_clock(link)
            await self._read_former_names(link)
            keys = list(self._ban_keys)
            fresh = secrets.token_hex(8).encode()
            mark = await self._timed(link.bans(keys, [b"mark", fresh, _number(_MARK_SECONDS)]))
            seen: set[str] = set()
            cursor = b"0"
            while True:
                page = await self._timed(link.bans(keys, [b"page", cursor, _number(PAGE)]))
                cursor, *records = page.split(b"\n")
                known = (self._learn(record, pushed=False) for record in records)
                seen.update(key for key in known if key is not None)
                if cursor == b"0":
                    break
            self._reconcile(seen | self._touched, mark)
            self._mark = mark
        finally:
            self._touched = None

    def _reconcile(self, seen: set[str], mark: bytes) -> None:
        """Drop bans that others have ended; if Redis has lost all it knew, tell it those of here."""
        for key, ban in list(self.memory.all_bans.items()):
            if key in seen or key in self._untold:
                continue
            if mark == self._mark:
                self.memory.drop_ban(key)
            else:
                self._tell_ban(ban, self._clock())


def _same(known: Ban | None, ban: Ban) -> bool:
    """Return whether two bans are one, though their times went through another clock."""
    if known is None or abs(known.since - ban.since) + abs(known.until - ban.until) > _SAME:
        return False
    return replace(known, since=ban.since, until=ban.until) == ban


def _number(value: float) -> bytes:
    return repr(value).encode()


def _named(budget: Budget) -> tuple[tuple[bytes, str], ...]:
    return (b"m:", budget.mark), (b"f:", budget.key), (b"m:", budget.key)


_NO_FLIGHT: Final = Flight("-", 0.0)


def _tally(charge: Charge, numbers: Iterator[int]) -> Tally:
    """Read a tally. Raises ValueError if there are too few numbers."""
    found = tuple(islice(numbers, len(charge.windows)))
    if len(found) < len(charge.windows):
        raise ValueError("too few numbers")
    if not charge.timed:
        return Tally(found)
    seen = next(numbers, -1)
    ages = tuple([milliseconds / 1000 for milliseconds in islice(numbers, max(0, seen))])
    if len(ages) != seen:
        raise ValueError("too few numbers")
    return Tally(found, ages)


def _tallies(charges: Sequence[Charge], numbers: Iterator[int]) -> tuple[Tally, ...]:
    return tuple([_tally(charge, numbers) for charge in charges])


def _attempted(attempt: Attempt, reply: list[int], now: float) -> Answer:
    """Read the answer about an attempt. Raises ValueError or IndexError if it makes no sense."""
    fate, welcome, repeats, held_by, place, again, budget, let_through, over, *numbers = reply
    trickled, rest = tuple(numbers[:let_through]), iter(numbers[let_through:])
    if len(trickled) < let_through:
        raise ValueError("too few numbers")
    found = []
    for _ in range(over):
        number = next(rest, -1)
        if number < 0:
            raise ValueError("too few numbers")
        found.append(Over(number, _tally(attempt.charges[number], rest)))
    known = welcome > 0 or budget >= 0
    answer = Answer(_FATES[fate], tuple(found), known, repeats, budget=budget, trickled=trickled)
    possible = Tally(tuple(rest)) if held_by < 0 else _tally(attempt.charges[held_by], rest)
    if answer.fate is not Fate.HELD:
        return answer._replace(possible=possible)
    return answer._replace(
        place=attempt.budgets[-place - 1].key if place < 0 else attempt.flight.places[place - 1],
        held_by=held_by,
        possible=possible,
        # A message may get lost, or Redis be gone by then.
        again=now + (min(ASK_AGAIN, again / 1000) or ASK_AGAIN),
    )
