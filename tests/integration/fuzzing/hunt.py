"""Plays many dialogues on all ways, a few at a time, and reports what did not hold."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from .checks import Breach, Run, judge
from .dialogues import Dialogue, drawn
from .oracle import LANES, Judgement, Oracle
from .playing import Tap, pause, play, tapping
from .proxies import Proxied, Troubles, Way, proxying
from .servers import Fuzzed

TRIES = 3
"""Plays of a dialogue that must fail alike before an accident of timing is excluded."""

AFTERWARDS = 0.7
"""Seconds in which a server may still have judged what a client sent that has left."""

SHRINKING = 60
"""Tries at most to make a failing dialogue smaller."""

SHRINKING_TIME = 30.0
"""Seconds behind which no other is begun."""


@dataclass(frozen=True, slots=True)
class Found:
    """A dialogue that failed, as small as it could be made."""

    number: int
    dialogue: Dialogue
    breaches: list[Breach]
    runs: list[Run]


@dataclass(slots=True)
class Stage:
    """A server, its oracle, and the ways to it."""

    reactor: Any
    server: Fuzzed
    oracle: Oracle
    proxies: dict[Way, tuple[Proxied, Tap]]
    troubles: Troubles = field(default_factory=Troubles)

    async def runs(self, dialogue: Dialogue) -> list[Run]:
        """Play a dialogue on each way, one after the other."""
        runs = [await self._straight(dialogue)]
        for way, (proxied, tap) in self.proxies.items():
            played = await play(self.reactor, dialogue, proxied.port, self.server.patience)
            recorded = await proxied.recorder.collect(self.reactor, played.port)
            tapped = await tap.collect(played.port)
            judged = await self._judged(dialogue, tapped.server_port)
            runs.append(Run(way, played, judged, tapped, recorded))
        return runs

    async def _straight(self, dialogue: Dialogue) -> Run:
        played = await play(
            self.reactor, dialogue, self.server.port, self.server.patience, self.oracle.forget
        )
        return Run(Way.STRAIGHT, played, await self._judged(dialogue, played.port))

    async def _judged(self, dialogue: Dialogue, port: int) -> list[Judgement]:
        """Return what was judged of a connection that is over."""
        if dialogue.leaves:
            await pause(self.reactor, AFTERWARDS)
        return self.oracle.collect(port)

    def _is_steady(self, dialogue: Dialogue) -> bool:
        """Return whether the server answers the same each time."""
        return dialogue.tame or not self.server.patience

    async def breaches(self, dialogue: Dialogue) -> tuple[list[Breach], list[Run]]:
        """Play a dialogue, again if timing may have caused what failed, and return what fails each time."""
        runs = await self.runs(dialogue)
        found = judge(dialogue, runs, self._is_steady(dialogue))
        for _ in range(TRIES - 1):
            if not found or any(breach.certain for breach in found):
                break
            runs = await self.runs(dialogue)
            again = judge(dialogue, runs, self._is_steady(dialogue))
            kinds = {(breach.way, breach.kind) for breach in found}
            found = [
                breach for breach in again if breach.certain or (breach.way, breach.kind) in kinds
            ]
        found += [
            Breach(Way.UNGUARDED, "an error in the log", text) for text in self.troubles.collect()
        ]
        return found, runs

    async def examine(self, number: int, dialogue: Dialogue, shrink: bool) -> Found | None:
        """Play a dialogue; if it fails, make it smaller."""
        breaches, runs = await self.breaches(dialogue)
        if not breaches:
            return None
        found = Found(number, dialogue, breaches, runs)
        # A part of a tame dialogue need not be tame.
        return await self._shrunk(found) if shrink and not dialogue.tame else found

    async def _shrunk(self, found: Found) -> Found:
        kind = (found.breaches[0].way, found.breaches[0].kind)
        tries, at = 0, len(found.dialogue.steps) - 1
        until = self.reactor.seconds() + SHRINKING_TIME
        while at >= 0 and tries < SHRINKING and self.reactor.seconds() < until:
            steps = found.dialogue.steps
            smaller = replace(found.dialogue, steps=steps[:at] + steps[at + 1 :])
            tries += 1
            breaches, runs = await self.breaches(smaller)
            if any((breach.way, breach.kind) == kind for breach in breaches):
                found = Found(found.number, smaller, breaches, runs)
            at -= 1
        return found


@asynccontextmanager
async def staged(reactor: Any, server: Fuzzed, oracle: Oracle) -> AsyncIterator[Stage]:
    """Lay the ways to a server."""
    async with AsyncExitStack() as stack:
        proxies: dict[Way, tuple[Proxied, Tap]] = {}
        for way in Way:
            if way is not Way.STRAIGHT:
                # Each has its own: a client of one may have the port of another's at the same time.
                tap = await stack.enter_async_context(tapping(reactor, server.port, oracle.forget))
                proxied = await stack.enter_async_context(proxying(reactor, way, tap.port, oracle))
                proxies[way] = proxied, tap
        yield Stage(reactor, server, oracle, proxies)


async def hunt(
    stage: Stage,
    numbers: range,
    seed: int,
    report: Callable[[Found], None],
    most: int,
) -> int:
    """Play the dialogues of these numbers; return how many failed. It ends early behind ``most`` of them."""
    failed = 0

    server = stage.server
    at_a_time = server.at_a_time

    async def lanes_of(worker: int) -> None:
        nonlocal failed
        for number in numbers:
            # Never two dialogues of one lane at a time: they have the same users.
            if number % LANES % at_a_time != worker or failed >= most:
                continue
            dialogue = drawn(seed, number, server)
            found = await stage.examine(number, dialogue, shrink=True)
            if found is not None:
                failed += 1
                report(found)

    workers: list[Deferred[None]] = [ensureDeferred(lanes_of(n)) for n in range(at_a_time)]
    await gatherResults(workers, consumeErrors=True)
    return failed


def described(found: Found, replay: str) -> str:
    """Return a found failure as text: what failed, how to see it again, and both sides' bytes."""
    lines = [f"dialogue {found.number}: see it again by {replay} --only {found.number}"]
    lines += [f"  {breach}" for breach in found.breaches]
    lines += [f"  C: {step}" for step in found.dialogue.steps]
    if found.dialogue.leaves:
        lines.append("  C: leaves")
    for run in found.runs:
        lines.append(f"  {run.way.value} ({run.played.ending}):")
        lines.append(f"    client got {_shown(run.played.received)}")
        if run.tapped is not None:
            lines.append(f"    server got {_shown(bytes(run.tapped.sent))}")
        lines.append(f"    judged {'; '.join(map(str, run.judged)) or 'nothing'}")
        if run.recorded is not None:
            asked = [(event.user, event.password[:40]) for _, event in run.recorded.asked]
            lines.append(f"    asked {asked}")
    return "\n".join(lines)


def _shown(data: bytes, limit: int = 600) -> str:
    return (
        repr(data) if len(data) <= limit else f"{data[:limit]!r} and {len(data) - limit} bytes more"
    )
