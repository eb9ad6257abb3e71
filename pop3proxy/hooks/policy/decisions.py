"""Remembers what was decided last about each address, user and pair, to explain it; decides nothing."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ...analyzer.events import Policy as PolicyEvent

MAX_EACH: Final = 10
"""Decisions that are remembered of one key."""

MAX_KEYS: Final = 5_000
"""Keys of which decisions are remembered; of more those go that were not decided about for longest.

At the most they take 20 MB.
"""


@dataclass(frozen=True, slots=True, order=True)
class Decided:
    """A decision of a policy, and what led to it, as in ``pop3_policy``; ``at`` is its ``ts``."""

    at: float
    rule: str
    action: str
    key: str
    counted: str
    count: int
    limit: int
    window: float
    seconds: float
    dry_run: bool
    session: str
    by: str
    reason: str


class Decisions:
    """The last decisions by key, in memory; bounded in both directions."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, deque[Decided]] = OrderedDict()

    def remember(self, keys: Iterable[str], event: PolicyEvent) -> None:
        """Take a decision that is about these keys, such as ``user:bob``; empty ones are left out."""
        decided = Decided(
            *(event.ts, event.rule, event.action, event.key, event.counted, event.count),
            *(event.limit, event.window, event.seconds, event.dry_run, event.c.uid),
            *(event.by, event.reason),
        )
        for key in {*keys, event.key} - {""}:
            held = self._by_key.get(key)
            if held is None:
                held = self._by_key[key] = deque(maxlen=MAX_EACH)
                if len(self._by_key) > MAX_KEYS:
                    self._by_key.popitem(last=False)
            else:
                self._by_key.move_to_end(key)
            held.append(decided)

    def about(self, keys: Iterable[str]) -> list[Decided]:
        """Return the last decisions about any of these keys, the latest first."""
        found = {decided for key in keys for decided in self._by_key.get(key, ())}
        return sorted(found, reverse=True)[:MAX_EACH]
