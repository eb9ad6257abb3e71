"""Makes whoever guesses passwords wait, each time twice as long."""

from pop3proxy.hooks.api import Delay, Hook


class SlowFailures(Hook):
    """Delays the refusal of a login by ``first`` seconds, and the next of that address by twice as many.

    No delay is longer than ``longest``. An address is forgotten ``forget`` seconds after its last failure,
    or when there are more than ``addresses`` and it is the one that has been quiet for longest.
    """

    blocking = True

    def __init__(self, first=1.0, longest=30.0, forget=600.0, addresses=10_000):
        self.first = first
        self.longest = longest
        self.forget = forget
        self.addresses = addresses
        self.last = {}  # by address: the last delay, and when that was; the quietest first

    def pop3_login_failure(self, event) -> Delay:
        """Say how long the refusal is held back."""
        address = event.c.orig_h
        seconds, when = self.last.pop(address, (0, 0))
        guessing = seconds and event.ts - when <= self.forget
        seconds = min(2 * seconds, self.longest) if guessing else self.first
        self.last[address] = seconds, event.ts
        if len(self.last) > self.addresses:
            del self.last[next(iter(self.last))]
        return Delay(seconds)
