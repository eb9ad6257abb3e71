"""Tells which failed logins are one mistake: one wrong password, tried by one mechanism after another.

What fails for one client at one account within a short time is one *try*. A password that is seen counts once
in it, together with what has proved the same one without showing it. Of what stays unknown, three mechanisms
are one failure (``failures``): a guesser gains two guesses for each one that counts, and no more.

The passwords, and what they are tried on, are kept here alone: in memory, for seconds, within bounds.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ...analyzer.events import Exchanged
from .proofs import MOST_ROUNDS, Proof, read_proof, spellings

T = TypeVar("T")
R = TypeVar("R")

MECHANISMS: Final = 3
"""Mechanisms by which unknown passwords are one failure."""

MOST_FAILURES: Final = 32
"""Failures of one try; no client has more mechanisms. What comes behind them begins another."""

MOST_TRIES: Final = 10_000
"""Tries that are kept; beyond that those not used for longest go, and what follows counts as usual."""

MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of passwords and proofs that are kept; beyond that as above."""

AT_ONCE: Final = 4_096
"""Rounds of SCRAM that are computed at once: 4 ms of SHA-256. More are left to a thread."""

MOST_ASIDE: Final = 32
"""Failures that threads work for at a time; beyond that no password is tried."""

LONGEST: Final = 6
"""A try lasts so many times ``same_try`` at the most, however often it goes on."""

_OF_ONE: Final = 512
"""Bytes of a try, and of each failure in it, besides texts and proofs."""


class Failed(NamedTuple):
    """A failed login.

    ``fingerprint`` names the password, empty if it was not seen; ``password`` is its text, if that is known.
    ``counts``: it is not one that is known to be wrong, and counts for nothing. ``since`` is when it was
    tried.
    """

    mechanism: str
    fingerprint: str
    password: str
    exchanged: Exchanged
    counts: bool
    since: float


class Outcome(NamedTuple, Generic[T]):
    """What a failure is: one more, or (``more`` is False) a part of what is counted already.

    ``undone`` are the charges of failures counted before that turn out to be none of their own. ``again``:
    the same password has failed in this try by other mechanisms, and not by this one.
    """

    more: bool = True
    undone: tuple[T, ...] = ()
    again: bool = False


@dataclass(slots=True, eq=False)
class Part:
    """A failure of a try.

    ``fingerprint`` names its password, empty if that is not known; ``proof`` is what passwords can be tried
    on, and ``other`` says that those that were seen were, in vain.
    """

    mechanism: str
    fingerprint: str = ""
    proof: Proof | None = None
    other: bool = False


class _Trial(NamedTuple):
    """A password that is to be tried on the proof of a failure."""

    part: Part
    proof: Proof
    fingerprint: str
    spelled: tuple[bytes, ...]

    @property
    def rounds(self) -> int:
        return self.proof.rounds * len(self.spelled)


class _Try(Generic[T]):
    """What one client does at one account.

    ``until`` is when a further login must be tried, and until ``answer`` one may be under way. ``passwords``
    are those that were seen, by fingerprint; ``free`` of them count for nothing.
    """

    __slots__ = (
        *("_carried", "_charged", "answer", "begun"),
        *("free", "parts", "passwords", "size", "until"),
    )

    def __init__(self, now: float) -> None:
        self.begun = self.until = self.answer = now
        self.parts: list[Part] = []
        self.passwords: dict[str, str] = {}
        self.free: set[str] = set()
        self.size = _OF_ONE
        self._carried: set[tuple[str, str]] = set()
        self._charged: list[T] = []

    def trials(self, new: Part, password: str) -> list[_Trial]:
        """Return what can be tried since a failure is new: its password, or those seen on its proof."""
        if password:
            spelled = spellings(password)
            trials = [
                _Trial(part, part.proof, new.fingerprint, spelled)
                for part in self.parts
                if part.proof is not None
            ]
        elif new.proof is not None:
            trials = [
                _Trial(new, new.proof, fingerprint, spellings(seen))
                for fingerprint, seen in self.passwords.items()
                if seen
            ]
        else:
            trials = []
        return trials

    def add(self, new: Part, failed: Failed) -> bool:
        """Take a failure into the try; return whether its password was seen by other mechanisms alone."""
        fingerprint, carried = failed.fingerprint, (failed.fingerprint, failed.mechanism)
        again = fingerprint in self.passwords and carried not in self._carried
        if fingerprint and fingerprint not in self.passwords:
            self.passwords[fingerprint] = failed.password
            if not failed.counts:
                self.free.add(fingerprint)
        self._carried.add(carried)
        self.parts.append(new)
        proof = new.proof
        self.size += _OF_ONE + 4 * len(failed.password) + (0 if proof is None else proof.size)
        return again

    def charge(self, charges: T, counts: bool) -> tuple[bool, tuple[T, ...]]:
        """Have as many charges as failures: return whether there is one more, and those that are too many."""
        more = failures(self.parts, self.free) - len(self._charged)
        if more > 0:
            # One at a time: a failure behind which two turn out to be counts the other with the next.
            if counts:
                self._charged.append(charges)
            return counts, ()
        undone = tuple(self._charged[more:]) if more else ()
        del self._charged[len(self._charged) - len(undone) :]
        return False, undone


def failures(parts: Iterable[Part], free: Iterable[str] = ()) -> int:
    """Count the failures of a try.

    Each password that was seen is one, but for those that are free; with each go two mechanisms of which
    nothing becomes known. The others of these are one for each three; so are those that have proved none of
    the passwords seen, but these go with none. The same mechanism twice is two guesses.
    """
    known: set[str] = set()
    silent: Counter[str] = Counter()
    other: Counter[str] = Counter()
    for part in parts:
        if part.fingerprint:
            known.add(part.fingerprint)
        else:
            (other if part.other else silent)[part.mechanism] += 1
    count = len(known.difference(free))
    return count + _groups(silent, count) + _groups(other, 0)


def _groups(mechanisms: Counter[str], known: int) -> int:
    """Count groups of three different mechanisms, when two go with each known password."""
    if not mechanisms:
        return 0
    alone = mechanisms.total() - (MECHANISMS - 1) * known
    return max(0, -(-alone // MECHANISMS), max(mechanisms.values()) - known)


def _affordable(trials: list[_Trial]) -> list[_Trial]:
    """Return the trials that take ``MOST_ROUNDS`` in all at the most, those that take least first."""
    found, rounds = [], 0
    for trial in sorted(trials, key=lambda trial: trial.rounds):
        rounds += trial.rounds
        if rounds > MOST_ROUNDS:
            break
        found.append(trial)
    return found


def _compute(trials: list[_Trial]) -> list[bool]:
    """Try each password; return which were right."""
    return [any(map(trial.proof.is_of, trial.spelled)) for trial in trials]


def _learn(trials: list[_Trial], right: list[bool]) -> None:
    """Note of which failures the password is known now, and of which it is another."""
    for trial, is_right in zip(trials, right, strict=True):
        part = trial.part
        if is_right:
            part.fingerprint, part.proof, part.other = trial.fingerprint, None, False
        elif not part.fingerprint:
            part.other = True


Aside = Callable[[Callable[[list[_Trial]], list[bool]], list[_Trial]], Deferred[list[bool]]]
"""Has a function called in a thread."""


class Tries(Generic[T]):
    """The tries of the last seconds, by client and account.

    All times are in seconds, and given.
    """

    def __init__(self, same_try: float, aside: Aside) -> None:
        """Take how long the next mechanism may take to come, and what has a function called in a thread."""
        self.size = 0
        self._same_try = same_try
        self._aside = aside
        self._working = 0
        self._tries: OrderedDict[str, _Try[T]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many tries are kept."""
        return len(self._tries)

    def goes_on(self, key: str, now: float, wait: float) -> None:
        """Keep a try: a login is tried, to which an answer comes within ``wait`` seconds."""
        found = self._found(key, now, now)
        if found is not None:
            self._keep(key, found, now)
            found.answer = now + wait

    def held(self, key: str, until: float) -> None:
        """Keep a try: the client has no answer before a time."""
        found = self._tries.get(key)
        if found is not None:
            self._keep(key, found, until)

    def failed(
        self, key: str, failed: Failed, charges: T, now: float
    ) -> Outcome[T] | Deferred[Outcome[T]]:
        """Take a failed login, and what it is to be charged with if it is one more failure.

        Passwords are tried on proofs here, once for each failure.
        """
        if not (key and self._same_try):
            return Outcome()
        found = self._found(key, failed.since, now)
        if found is None or len(found.parts) >= MOST_FAILURES:
            self.forget(key)
            found = _Try(now)
        # Kept from now on, so that what fails while a thread works is a part of it.
        self._keep(key, found, now)
        proof = None if failed.fingerprint else read_proof(failed.mechanism, failed.exchanged)
        new = Part(failed.mechanism, failed.fingerprint, proof)
        trials = _affordable(found.trials(new, failed.password))

        def tried(right: list[bool]) -> Outcome[T]:
            _learn(trials, right)
            return self._joined(key, found, new, failed, charges, now)

        def untried(failure: Failure | None = None) -> Outcome[T]:
            # A client that leaves has this cancelled: its failure counts all the same.
            if failure is not None:
                failure.trap(CancelledError)
            return self._joined(key, found, new, failed, charges, now)

        if sum(trial.rounds for trial in trials) <= AT_ONCE:
            return tried(_compute(trials))
        if self._working >= MOST_ASIDE:
            return untried()
        self._working += 1
        return self._aside(_compute, trials).addBoth(self._worked).addCallbacks(tried, untried)

    def forget(self, key: str) -> None:
        """Forget a try: its client is in."""
        found = self._tries.pop(key, None)
        if found is not None:
            self.size -= found.size

    def expire(self, now: float) -> None:
        """Forget what goes on no longer."""
        for key, found in list(self._tries.items()):
            if not found.begun <= now <= found.answer:
                self._found(key, now, now)

    # --- the parts --------------------------------------------------------------------------------------

    def _joined(
        self, key: str, found: _Try[T], new: Part, failed: Failed, charges: T, now: float
    ) -> Outcome[T]:
        kept = self._tries.get(key) is found
        if kept:
            self.size -= found.size
        again = found.add(new, failed)
        if kept:
            self.size += found.size
            self._make_room()
        return Outcome(*found.charge(charges, failed.counts), again)

    def _worked(self, result: R) -> R:
        self._working -= 1
        return result

    def _found(self, key: str, since: float, now: float) -> _Try[T] | None:
        """Find a try that goes on with what was tried at ``since``, and forget one that does not."""
        found = self._tries.get(key)
        # One that begins later was begun before the clock was set back.
        if found is not None and (since > found.until or found.begun > now):
            self.forget(key)
            return None
        return found

    def _keep(self, key: str, found: _Try[T], now: float) -> None:
        """Keep a try for a further time, but not for ever."""
        until = max(found.until, now + self._same_try)
        found.until = min(until, found.begun + LONGEST * self._same_try)
        if key not in self._tries:
            self.size += found.size
        self._tries[key] = found
        self._tries.move_to_end(key)
        self._make_room()

    def _make_room(self) -> None:
        while len(self._tries) > MOST_TRIES or self.size > MOST_BYTES:
            self.forget(next(iter(self._tries)))
