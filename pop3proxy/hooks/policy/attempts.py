"""The attempts of each session that are in flight, until they land; the store counts them."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ...analyzer.events import LoginFailure, LoginSuccess
from .rules import Who
from .store import Budget, Flight

ANSWER_TIME = 60.0
"""Seconds from a login to the end of its session, below which it is the client that did not wait.

Many servers accept at once and refuse after seconds, so that to leave early is to know the answer.
"""


@dataclass(frozen=True, slots=True)
class Flying:
    """An attempt in flight.

    ``number`` is the attempt's in its session: of a name with a blank there is one for each reading. ``user``
    is the name as it was sent. ``tries`` is the key of this password by this mechanism, empty if none is
    seen; ``repeated``: it is known to be wrong, and counts for nothing. ``budget`` is what a failure of a
    welcome client is taken from, in place of all counts.
    """

    flight: Flight
    who: Who
    number: int
    user: str
    tries: str
    repeated: bool
    budget: Budget | None


class Attempts:
    """What is in flight, by session."""

    def __init__(self) -> None:
        self._sessions: dict[str, deque[Flying]] = {}

    def __len__(self) -> int:
        """Return how many sessions have tried to log in, and have not ended."""
        return len(self._sessions)

    def opened(self, uid: str) -> None:
        """Expect attempts of a session."""
        if uid not in self._sessions:
            self._sessions[uid] = deque()

    def takes_off(self, uid: str, flying: Flying) -> bool:
        """Note an attempt that is in flight; return whether its session goes on."""
        of_session = self._sessions.get(uid)
        if of_session is None:
            return False
        of_session.append(flying)
        return True

    def lands(
        self, event: LoginSuccess | LoginFailure, who: Who | None
    ) -> tuple[Flying | None, Iterable[Flying]]:
        """Find the attempt that an answer is to, and those that end with it, unanswered.

        Those before it will get no answer; nor will the other readings of a name that is in, nor of one whose
        attempt was denied. ``who`` is who it is if the attempts of the session have no numbers.
        """
        of_session = self._sessions.get(event.c.uid)
        if not of_session:
            return None, ()
        index = _index(of_session, event, who)
        found, others = None, []
        if index is not None:
            others = [of_session.popleft() for _ in range(index)]
            found = of_session.popleft()
        if isinstance(event, LoginSuccess):
            while of_session and of_session[0].number <= event.attempt:
                others.append(of_session.popleft())
        return found, others

    def ended(self, uid: str) -> Iterable[Flying]:
        """Forget a session; return what it had in flight."""
        return self._sessions.pop(uid, ())

    def of(self, uid: str, number: int) -> list[Flying]:
        """Return what is in flight of an attempt of a session: one for each reading of its name."""
        return [flying for flying in self._sessions.get(uid, ()) if flying.number == number]


def _index(
    of_session: Iterable[Flying], event: LoginSuccess | LoginFailure, who: Who | None
) -> int | None:
    for index, flying in enumerate(of_session):
        if flying.number != event.attempt:
            continue
        if flying.user == event.user if event.attempt else flying.who == who:
            return index
    return None
