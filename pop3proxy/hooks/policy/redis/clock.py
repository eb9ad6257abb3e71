"""Compares the clock here with Redis's; where they differ too much, shared times are in Redis's."""

from typing import Final

LIMIT: Final = 5.0
"""Seconds that the clock may be off before Redis's time is used."""

AGREES: Final = 4.0
"""Seconds within which it agrees again: less than the limit, so that no clock near it comes and goes."""

STEP: Final = 1.0
"""Seconds that a further difference may have before it is taken."""

SLOW: Final = 1.0
"""Seconds of an answer that takes too long to tell a time by."""


class SharedClock:
    """Turns times of this machine into those that are shared by Redis, and back."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """How many seconds shared times are ahead of those of here."""

    def shared(self, here: float) -> float:
        """Return a time as Redis and the other proxies have it."""
        return here + self.ahead

    def here(self, shared: float) -> float:
        """Return a time as this machine has it."""
        return shared - self.ahead

    def measured(self, there: float, asked: float, answered: float) -> str | None:
        """Take Redis's time, which was asked for and answered at these times of here.

        Returns what the operator should know, if there is something new.
        """
        if not 0 <= answered - asked <= SLOW:
            return None
        ahead, was = there - (asked + answered) / 2, self.ahead
        if was and abs(ahead) <= AGREES:
            self.ahead = 0.0
            return "the clock of this machine agrees with Redis's again"
        if abs(ahead) <= LIMIT or abs(ahead - was) <= STEP:
            return None
        self.ahead = ahead
        said = "behind" if ahead > 0 else "ahead of"
        return (
            f"the clock of this machine is {abs(ahead):.0f} s {said} Redis's;"
            " Redis's time is used for what is shared; set the clocks"
        )
