r"""Reads transcripts with verdicts, and plays them; in which cuts is the test's business.

A transcript opens with comments that say which rule it guards, and goes on with options and answers::

    # A denied PASS never reaches the server.
    @ greeted               the session begins behind the greeting
    @ logged_in             the session begins behind a login of bob by USER and PASS
    @ on_blind pass         the configuration says so
    @ events_vary           the events are those of whole lines; in pieces they can be others

    ? pop3_login_attempt: deny "-ERR no"    what a hook answers, if asked about that; ``deny`` has a default
    ? pop3_request DELE: drop               only for an event whose first values are these
    ? pop3_data #3: delay 2.5               only for the third such event

The first answer whose conditions hold is given; else the hook passes. It is asked only about events that an
answer names. Then comes the dialogue, in the notation of ``pop3proxy.testing``, with what comes of it::

    C: PASS secret
    -> PASS secret          the server gets this
    <- -ERR no              the client gets this
    > pop3_request PASS "secret"            this event is raised
    = reason denied         an attribute of the play

Lines of one side that follow each other are one run. What comes of a run stands behind it, and there is
nothing else: however the run is cut, and whether the hook answers at once or later. A server does not answer
what it has not got, so its answer to a line that waited for it is a run of its own.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from pop3proxy.analyzer.events import Event, Side
from pop3proxy.hooks.api import PASS, Delay, Deny, Drop, Hook, Verdict
from pop3proxy.testing import Play, TranscriptError, said, seconds, unescape
from tests.analyzer.transcript import Expected, expected, quote, show, values_of

FOLDER = Path(__file__).with_name("transcripts")

_PROLOGUES = {
    "greeted": "S: +OK ready",
    "logged_in": "S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret\nS: +OK",
}
_SIDES = {"C:": Side.CLIENT, "S:": Side.SERVER}
_ANSWER = re.compile(
    r"(?P<event>pop3_\w+)(?P<values>(?: [^#: ]+)*)(?: #(?P<number>\d+))?: (?P<what>\w+)(?: (?P<how>.+))?"
)

Cut = Callable[["Act"], Iterable[bytes]]


@dataclass(slots=True)
class Answer:
    """What the hook answers, and when."""

    event: str
    values: tuple[bytes, ...]
    number: int  # which of these events it is; 0 is all
    verdict: Verdict
    seen: int = 0

    def holds(self, event: Event) -> bool:
        if event.name != self.event or values_of(event)[: len(self.values)] != self.values:
            return False
        self.seen += 1
        return self.number in (0, self.seen)


@dataclass(slots=True)
class Act:
    """A run of one side's lines, the end of its bytes, or a while; and what comes of it."""

    side: Side | None
    seconds: float = 0
    ends: bool = False
    said: list[bytes] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    to_server: bytes = b""
    to_client: bytes = b""
    events: list[Expected] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return b"".join(self.said)

    @property
    def told(self) -> bool:
        """Whether what comes of it has begun to be told."""
        return bool(self.to_server or self.to_client or self.events or self.state)


@dataclass(slots=True)
class Script:
    """One file."""

    name: str
    rule: str = ""
    prologue: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    events_vary: bool = False
    answers: list[str] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)


class _Reader:
    def __init__(self, script: Script) -> None:
        self.script = script

    def read(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                self._line(line)
            except TranscriptError as problem:
                raise TranscriptError(f"{self.script.name}:{number}: {problem}") from None

    def _line(self, line: str) -> None:
        rest = line[2:].strip()
        match line[:2]:
            case "":
                pass
            case "# ":
                self.script.rule += rest + " "
            case "@ ":
                self._option(rest)
            case "? ":
                answer(rest)
                self.script.answers.append(rest)
            case "C:" | "S:" | "T:":
                self._act(line)
            case _:
                self._outcome(line)

    def _option(self, option: str) -> None:
        name, _, value = option.partition(" ")
        if name == "on_blind":
            self.script.config["verdicts"] = {"on_blind": value}
        elif name == "events_vary":
            self.script.events_vary = True
        elif name in _PROLOGUES:
            self.script.prologue = _PROLOGUES[name]
        else:
            raise TranscriptError(f"no option is called {name}")

    def _act(self, line: str) -> None:
        if line.startswith("T:"):
            self.script.acts.append(Act(None, seconds(line), sources=[line]))
            return
        side, data = _SIDES[line[:2]], said(line)
        last = self.script.acts[-1] if self.script.acts else None
        if last is None or last.side is not side or last.ends or last.told or data is None:
            last = Act(side, ends=data is None)
            self.script.acts.append(last)
        last.sources.append(line)
        last.said.append(data or b"")

    def _outcome(self, line: str) -> None:
        if not self.script.acts:
            self.script.acts.append(Act(None))
        act = self.script.acts[-1]
        match line[:2]:
            case "->":
                act.to_server += said(line) or b""
            case "<-":
                act.to_client += said(line) or b""
            case "> ":
                act.events.append(expected(line[2:]))
            case "= ":
                name, _, value = line[2:].partition(" ")
                act.state[name] = value
            case _:
                raise TranscriptError(f"not understood: {line}")


def answer(text: str) -> Answer:
    """Read what the hook answers. Raises TranscriptError."""
    found = _ANSWER.fullmatch(text)
    if found is None:
        raise TranscriptError(f"no answer: {text}")
    how = found["how"]
    match found["what"]:
        case "deny":
            verdict: Verdict = Deny() if how is None else Deny(how.strip('"'))
        case "delay":
            verdict = Delay(float(how or 0))
        case "drop":
            verdict = Drop()
        case _:
            raise TranscriptError(f"no verdict: {text}")
    values = tuple(unescape(value) for value in found["values"].split())
    return Answer(found["event"], values, int(found["number"] or 0), verdict)


def read_all() -> list[Script]:
    scripts = []
    for path in sorted(FOLDER.glob("*.txt")):
        script = Script(path.stem)
        _Reader(script).read(path.read_text(encoding="utf-8"))
        scripts.append(script)
    return scripts


class _Scripted(Hook):
    """Answers what the transcript has, once that has begun; at once, or as soon as it was asked."""

    blocking = True

    def __init__(self, answers: list[Answer], begun: bool, later: bool) -> None:
        self.begun = begun
        self._answers = answers
        self._later = later
        self._reactor: Any = None

    def start(self, reactor: Any) -> None:
        self._reactor = reactor

    def decide(self, event: Event) -> Any:
        verdict = self._decided(event) if self.begun else PASS
        return deferLater(self._reactor, 0, lambda: verdict) if self._later else verdict

    def _decided(self, event: Event) -> Verdict:
        # Each answer counts its events, also those that an answer before it takes.
        holding = [answer.verdict for answer in self._answers if answer.holds(event)]
        return holding[0] if holding else PASS


def _hook(script: Script, later: bool) -> _Scripted:
    """Make a hook that is asked about what the transcript has answers for, and about nothing else."""
    answers = [answer(text) for text in script.answers]
    methods = {answer.event: _Scripted.decide for answer in answers}
    made: _Scripted = type("Scripted", (_Scripted,), methods)(answers, not script.prologue, later)
    return made


def play(script: Script, cut: Cut, later: bool = False) -> tuple[list[str], list[str]]:
    """Play a transcript; return it as it should have been, and as it was."""
    should: list[str] = []
    was: list[str] = []
    hook = _hook(script, later)
    with Play(hook, config=script.config) as stage:
        stage.say(script.prologue)
        hook.begun = True
        seen = [len(stage.to_server), len(stage.to_client), len(stage.events)]
        if not script.prologue:
            seen[2] = 0
        for act in script.acts:
            _perform(stage, act, cut)
            to_server, to_client = stage.to_server[seen[0] :], stage.to_client[seen[1] :]
            events = stage.events[seen[2] :]
            seen = [len(stage.to_server), len(stage.to_client), len(stage.events)]
            should += act.sources
            should += _lines("->", act.to_server) + _lines("<-", act.to_client)
            should += [str(event).strip() for event in act.events]
            should += [f"= {name} {value}" for name, value in act.state.items()]
            was += act.sources
            was += _lines("->", to_server) + _lines("<-", to_client)
            was += [_as_expected(event, act.events) for event in events]
            was += [f"= {name} {getattr(stage, name)}" for name in act.state]
        assert stage.failed == []
    return should, was


def _perform(stage: Play, act: Act, cut: Cut) -> None:
    if act.side is None:
        stage.advance(act.seconds)
    elif act.ends:
        stage.say(act.sources[0])
    else:
        say = stage.client if act.side is Side.CLIENT else stage.server
        for piece in cut(act):
            say(piece)


def _lines(mark: str, data: bytes) -> list[str]:
    """Write what a side got as the transcript does; a long line is shortened in its middle."""
    shown = []
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        end = "" if line.endswith(b"\r\n") else "<lf>" if line.endswith(b"\n") else "<open>"
        text = quote(line.removesuffix(b"\n").removesuffix(b"\r"))[1:-1].replace('\\"', '"')
        shown.append(f"{mark} {text}{end}")
    return shown


def _as_expected(event: Event, others: list[Expected]) -> str:
    """Write an event in the words of the transcript, if the transcript has it."""
    return next((str(other) for other in others if other.matches(event)), show(event)).strip()
