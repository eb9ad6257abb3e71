"""What a server's authentication back end was asked, and how it answered: the only truth of the fuzzer."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

LANES = 80
"""Dialogues that are played at a time; each lane has users of its own, since some servers lock a mailbox."""

NAMES = ("alice", "bob", "carol")


@dataclass(frozen=True, slots=True)
class Judgement:
    """An attempt that the back end judged.

    ``password`` is None where a proof of it was shown. ``serial`` orders judgements and questions in time.
    """

    user: str
    password: str | None
    accepted: bool
    serial: int = field(compare=False, default=0)

    def __str__(self) -> str:
        shown = "a proof" if self.password is None else f"{self.password!r:.60}"
        return f"{self.user!r} with {shown}: {'accepted' if self.accepted else 'refused'}"


def user(name: str, lane: int) -> str:
    """Return the user of a name in a lane."""
    return f"{name}{lane}"


def users() -> Iterator[str]:
    """Yield the users of all lanes."""
    for name, lane in itertools.product(NAMES, range(LANES)):
        yield user(name, lane)


def right_password(account: str) -> str:
    """Return the password of a user."""
    return f"right-{account}"


_USERS = frozenset(users())


def is_known(account: str) -> bool:
    """Return whether there is such a user."""
    return account in _USERS


def proves(account: str, password: str) -> bool:
    """Return whether a password is right."""
    return account in _USERS and password == right_password(account)


class Oracle:
    """The judgements so far, by the port from which the server was reached."""

    def __init__(self) -> None:
        self._judged: dict[int, list[Judgement]] = {}
        self._serials = itertools.count(1)
        self.refused = 0
        self.accepted = 0

    def serial(self) -> int:
        """Return the next number in time."""
        return next(self._serials)

    def judge(self, port: int, account: str, password: str) -> bool:
        """Judge a password in the server's stead, and note it."""
        accepted = proves(account, password)
        self.note(port, account, password, accepted)
        return accepted

    def note(self, port: int, account: str, password: str | None, accepted: bool) -> None:
        """Note what was judged."""
        if accepted:
            self.accepted += 1
        else:
            self.refused += 1
        judgement = Judgement(account, password, accepted, self.serial())
        self._judged.setdefault(port, []).append(judgement)

    def forget(self, port: int) -> None:
        """Drop what was judged late of a connection that had this port before."""
        self._judged.pop(port, None)

    def collect(self, port: int) -> list[Judgement]:
        """Return the judgements of a connection that is over, and forget them."""
        return self._judged.pop(port, [])
