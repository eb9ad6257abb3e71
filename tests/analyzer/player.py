"""Drives an analyzer with both sides' bytes, however cut, and keeps the events that come out."""

import random
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import ALL, Connection, Event, LoginAttempt, Side
from pop3proxy.analyzer.steps import Step

from .transcript import Expected, Said, Transcript, Turn, show

Cut = Callable[[Turn], Iterable[bytes]]


def new_connection() -> Connection:
    return Connection("CuidOfATest", "192.0.2.1", 40000, "198.51.100.1", 110)


class Player:
    """One session: what one side says goes in, events come out, and the steps are counted.

    It pulls as the session does: to the end of what was fed, and the client's side again after each
    step of the server, because the client's bytes may have waited for it.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer
        self.clock = 0.0
        self._fed = dict.fromkeys(Side, 0)
        self._stepped = dict.fromkeys(Side, 0)

    @property
    def waiting(self) -> int:
        """How many of the client's bytes no step has covered yet."""
        return self._fed[Side.CLIENT] - self._stepped[Side.CLIENT]

    @property
    def held_up(self) -> bool:
        """Whether the server has not seen all of the client's lines, or their answers wait for its own."""
        return self.waiting > 0

    def say(self, side: Side, data: bytes) -> list[Event]:
        """Feed bytes and pull all that comes of them. The server's never have to wait."""
        self.clock += 1
        self._fed[side] += len(data)
        self.analyzer.feed(side, data, self.clock)
        events = list(self._pull(side))
        if self._goes_on(Side.SERVER):
            assert self._stepped[Side.SERVER] == self._fed[Side.SERVER], (
                "steps do not tile the input"
            )
        assert self.waiting >= 0, "more steps than input"
        return events

    def end(self, side: Side) -> list[Event]:
        self.clock += 1
        return list(self.analyzer.ended(side, self.clock))

    def _goes_on(self, side: Side) -> bool:
        return True

    def _pull(self, side: Side) -> Iterator[Event]:
        while (step := self.analyzer.next(side)) is not None:
            assert step.size > 0 or step.events, "a step of nothing"
            self._stepped[side] += step.size
            yield from step.events
            if side is Side.SERVER:
                yield from self._pull(Side.CLIENT)


class Verdict(Enum):
    """What is decided about a step of the client."""

    PASS = "the server gets it"
    DENY = "the proxy answers it"
    WAIT = "that is to be decided later"


Decide = Callable[[Step], Verdict]


def passing(step: Step) -> Verdict:
    """Let everything pass."""
    return Verdict.PASS


class GatedPlayer(Player):
    """A session that heeds the guard and refuses lines, as the relay does; nothing is said behind its end.

    ``decide`` is asked about each whole line of the client that passes the guard. One about which it wants
    to decide later is held until ``settle``.
    """

    def __init__(self, analyzer: Analyzer, decide: Decide = passing) -> None:
        super().__init__(analyzer)
        self._decide = decide
        self._held: Step | None = None
        self._answer: bytes | None = None  # to a refused line, while it has not found its place
        self.over = False

    @property
    def held_up(self) -> bool:
        return super().held_up or self._answer is not None

    def say(self, side: Side, data: bytes) -> list[Event]:
        """Feed bytes and pull all that comes of them, unless the session is over."""
        return [] if self.over else super().say(side, data)

    def settle(self) -> list[Event]:
        """Decide about the line that is held."""
        step, self._held = self._held, None
        if step is None or self.over:
            return []
        self._weigh(step)
        return [*self._answered(), *self._pull(Side.CLIENT)]

    def end(self, side: Side) -> list[Event]:
        """End a side's bytes; the answer to a refused line is overtaken by that."""
        self.over = True
        answer, self._answer = self._answer, None
        events = list(self.analyzer.answered(answer, self.clock).events) if answer else []
        return [*events, *super().end(side)]

    def _pull(self, side: Side) -> Iterator[Event]:
        yield from self._answered()
        while self._goes_on(side) and (step := self.analyzer.next(side)) is not None:
            assert step.size > 0 or step.events, "a step of nothing"
            self._stepped[side] += step.size
            yield from step.events
            self._heed(side, step)
            yield from self._answered()
            if side is Side.SERVER:
                yield from self._pull(Side.CLIENT)

    def _goes_on(self, side: Side) -> bool:
        waits = self._held is not None or self._answer is not None
        return not (self.over or (side is Side.CLIENT and waits))

    def _heed(self, side: Side, step: Step) -> None:
        if step.ends:
            self.over = True
        elif step.refusal is not None:
            self._refuse(step, step.refusal.reply)
        elif step.command is not None or (step.in_exchange and not step.open):
            self._weigh(step)

    def _weigh(self, step: Step) -> None:
        tries = any(isinstance(event, LoginAttempt) for event in step.events)
        verdict = self._decide(step) if tries or not step.in_exchange else Verdict.PASS
        if verdict is Verdict.PASS or self.analyzer.blind:
            self.analyzer.sent()
        elif verdict is Verdict.WAIT:
            self.analyzer.held(step)
            self._held = step
        else:
            self._refuse(step, b"-ERR no\r\n")

    def _refuse(self, step: Step, answer: bytes) -> None:
        self._answer = answer
        self.over = self.analyzer.in_doubt or self.analyzer.blind
        if not self.analyzer.blind:
            self.analyzer.refused(step)

    def _answered(self) -> Iterator[Event]:
        if self._answer is None or self.over:
            return
        if self.analyzer.in_doubt or self.analyzer.blind:
            self.over = True
        elif self.analyzer.quiet:
            answer, self._answer = self._answer, None
            yield from self.analyzer.answered(answer, self.clock).events


def whole(turn: Turn) -> Iterable[bytes]:
    return [turn.data]


def line_by_line(turn: Turn) -> Iterable[bytes]:
    return [line.data for line in turn.said]


def byte_by_byte(turn: Turn) -> Iterable[bytes]:
    data = turn.data
    return (data[at : at + 1] for at in range(len(data)))


def at_random(source: random.Random) -> Cut:
    """Cut a run at as many places as chance will have it, most often at few."""

    def cut(turn: Turn) -> Iterable[bytes]:
        data = turn.data
        most = min(source.choice((1, 3, 10, 40)), len(data) - 1)
        cuts = sorted(source.sample(range(1, len(data)), most)) if most > 0 else []
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    return cut


class Script:
    """A transcript as it should have been and as it was, line by line; ``raised`` are its events whole."""

    def __init__(
        self,
        transcript: Transcript,
        *,
        gated: frozenset[type[Event]] = frozenset(),
        wants: frozenset[type[Event]] = ALL,
    ) -> None:
        self.should: list[str] = []
        self.was: list[str] = []
        self.raised: list[str] = []
        self._gated = gated
        self._wants = wants
        announced = "auth_resp_code" in transcript.flags
        self._player = Player(
            Analyzer(new_connection(), wants=wants, gated=gated, auth_resp_code=announced)
        )

    def play(self, turn: Turn, cut: Cut) -> None:
        """Play a turn in pieces; its events are compared when it is over."""
        events = [event for piece in cut(turn) for event in self._say(turn, piece)]
        if turn.ends:
            events = self._player.end(turn.side)
        self._compare(turn.said, events)
        self._compare_state(turn)

    def play_line_by_line(self, turn: Turn) -> None:
        """Play a turn's lines one by one; the events of each are compared behind it."""
        for line in turn.said:
            events = self._player.end(turn.side) if turn.ends else self._say(turn, line.data)
            self._compare([line], events)
        self._compare_state(turn)

    def _say(self, turn: Turn, data: bytes) -> list[Event]:
        events = self._player.say(turn.side, data) if data else []
        assert self._gated or self._player.waiting == 0, "steps do not tile the input"
        return events

    def _compare(self, lines: list[Said], events: list[Event]) -> None:
        """Write down lines with the events that should follow them, and with those that did."""
        expected = [event for line in lines for event in line.expected if event.kind in self._wants]
        for line in lines:
            self.should.append(line.source)
            self.was.append(line.source)
        self.raised.extend(show(event) for event in events)
        self.should.extend(str(event) for event in expected)
        self.was.extend(_as_expected(event, expected) for event in events)

    def _compare_state(self, turn: Turn) -> None:
        for name, value in turn.state.items():
            self.should.append(f"  = {name} {value}")
            self.was.append(f"  = {name} {getattr(self._player.analyzer, name)}")


def _as_expected(event: Event, expected: list[Expected]) -> str:
    """Write an event in the words of the transcript, if the transcript has it."""
    return next((str(other) for other in expected if other.matches(event)), show(event))
