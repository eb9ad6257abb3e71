r"""Reads transcript files: what a client and a server say, and the events expected in between.

A transcript is a text file. It opens with comments that say which rule it guards::

    # LIST with an argument is answered by one line (pitfall 1).

then come options, one a line::

    @ greeted           the session begins after a greeting, whose event is not listed
    @ logged_in         the session begins after a login of bob by USER and PASS
    @ auth_resp_code    the analyzer is told that the server announces AUTH-RESP-CODE

and then the dialogue::

    C: USER bob         the client sends this and CRLF
    S: +OK<lf>          the server sends this and LF
    S: +OK half a<open>     the server sends this and no line end
    S: <end>            the server ends its stream

    > pop3_request USER "bob"           an event, with all its parameters in their order but the
    > pop3_data T "text"                ``is_orig`` of events that have only one
    > pop3_reply ERR "no" denial        a flag stands behind them where it is true
    > pop3_unexpected T line_too_long   the detail may be left out
    > pop3_request NOOP "xxx"...        a value that begins so
    = owed 1            an attribute of the analyzer, at the end of a run of one side's lines

The events stand behind the line that raises them. Lines of one side that follow each other are one
run: however it is cut, its events are the same.

Lines, and values, quoted or not, have the escapes of ``pop3proxy.testing``, which reads them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pop3proxy.analyzer.events import ALL, Event, Side
from pop3proxy.testing import TranscriptError, said, unescape

FOLDER = Path(__file__).with_name("transcripts")

_GREETED = """
S: +OK ready
> pop3_reply OK "ready"
"""
_PROLOGUES = {
    "greeted": _GREETED,
    "logged_in": _GREETED
    + """
C: USER bob
> pop3_request USER "bob"
C: PASS secret
> pop3_request PASS "secret"
> pop3_login_attempt "bob" "secret" USER/PASS
S: +OK
> pop3_reply OK ""
S: +OK
> pop3_login_success "bob" "secret" USER/PASS
> pop3_reply OK ""
""",
}
_FLAGS = frozenset({"auth_resp_code"})
_SIDES = {"C:": Side.CLIENT, "S:": Side.SERVER}
_KINDS = {kind.name: kind for kind in ALL}
_VALUE = re.compile(r'\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"(?P<more>\.\.\.)?|(?P<bare>[^\s"]+))')
_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Value:
    """One parameter that is expected: its bytes, or only how they begin."""

    data: bytes
    prefix: bool = False

    def matches(self, actual: bytes) -> bool:
        return actual.startswith(self.data) if self.prefix else actual == self.data


@dataclass(frozen=True, slots=True)
class Expected:
    """One event that is expected."""

    kind: type[Event]
    values: tuple[Value, ...]

    def matches(self, event: Event) -> bool:
        actual = values_of(event)
        if self.kind.name == "pop3_unexpected":
            actual = actual[: len(self.values)]
        return (
            type(event) is self.kind
            and len(actual) == len(self.values)
            and all(value.matches(data) for value, data in zip(self.values, actual, strict=True))
        )

    def __str__(self) -> str:
        shown = [quote(value.data) + "..." * value.prefix for value in self.values]
        count = len(_parameters(self.kind))
        flags = [value.data.decode() for value in self.values[count:]]
        return " ".join(("  >", self.kind.name, *shown[:count], *flags))


@dataclass(slots=True)
class Said:
    """One line of the transcript, and the events that it raises."""

    data: bytes
    source: str
    expected: list[Expected] = field(default_factory=list)


@dataclass(slots=True)
class Turn:
    """A maximal run of one side's lines, or the end of its stream."""

    side: Side
    ends: bool
    said: list[Said] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return b"".join(line.data for line in self.said)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One file."""

    name: str
    rule: str
    flags: frozenset[str]
    turns: tuple[Turn, ...]

    @property
    def expected(self) -> Iterator[Expected]:
        return (event for turn in self.turns for line in turn.said for event in line.expected)


def quote(data: bytes) -> str:
    """Write bytes as a quoted value; a long one is shortened in its middle."""
    shown = "".join(
        f"\\{char}" if char in '"\\{' else char if " " <= char <= "~" else f"\\x{ord(char):02x}"
        for char in data.decode("latin-1")
    )
    if len(shown) > _SHOWN:
        shown = f"{shown[:60]} [{len(data)} octets] {shown[-20:]}"
    return f'"{shown}"'


def _encode(parameter: Any) -> bytes:
    if isinstance(parameter, bool):
        return b"T" if parameter else b"F"
    return str(parameter).encode("utf-8", "surrogateescape")


def _parameters(kind: type[Event]) -> Sequence[str]:
    """Name the parameters of an event, but for an ``is_orig`` that can have only one value, and numbers."""
    fixed = isinstance(getattr(kind, "is_orig", None), bool)
    left_out = {"attempt", "is_orig"} if fixed else {"attempt"}
    return [name for name in kind.parameters if name not in left_out]


def values_of(event: Event) -> tuple[bytes, ...]:
    """Return the values of the parameters, then the names of the flags that are true."""
    values = [_encode(getattr(event, name)) for name in _parameters(type(event))]
    return (*values, *(name.encode() for name in event.flags if getattr(event, name)))


def show(event: Event) -> str:
    """Write an event as a transcript does."""
    flags = [name for name in event.flags if getattr(event, name)]
    values = values_of(event)
    shown = [quote(value) for value in values[: len(values) - len(flags)]]
    return " ".join(("  >", event.name, *shown, *flags))


def expected(text: str) -> Expected:
    name, _, rest = text.partition(" ")
    if name not in _KINDS:
        raise TranscriptError(f"no event is called {name}")
    values = []
    at = 0
    while rest[at:].strip():
        found = _VALUE.match(rest, at)
        if found is None:
            raise TranscriptError(f"no value: {rest[at:]}")
        text = found["bare"] if found["quoted"] is None else found["quoted"]
        values.append(Value(unescape(text), prefix=found["more"] is not None))
        at = found.end()
    kind = _KINDS[name]
    count = len(_parameters(kind))
    flags = {value.data.decode() for value in values[count:]}
    least = count - 1 if name == "pop3_unexpected" else count
    if len(values) < least or not flags.issubset(kind.flags):
        raise TranscriptError(f"{name} has {count} values: {', '.join(_parameters(kind))}")
    return Expected(kind, tuple(values))


class _Reader:
    """Gathers turns from the lines of a transcript."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.flags: set[str] = set()
        self.turns: list[Turn] = []

    def read(self, text: str) -> None:
        for line in text.splitlines():
            match line[:2]:
                case "":
                    pass
                case "# ":
                    self.comments.append(line[2:])
                case "@ ":
                    self._option(line[2:])
                case "C:" | "S:":
                    self._line(line)
                case "> ":
                    self.turns[-1].said[-1].expected.append(expected(line[2:]))
                case "= ":
                    name, _, value = line[2:].partition(" ")
                    self.turns[-1].state[name] = value
                case _:
                    raise TranscriptError(f"not understood: {line}")

    def _option(self, option: str) -> None:
        if option in _PROLOGUES:
            self.read(_PROLOGUES[option])
        elif option in _FLAGS:
            self.flags.add(option)
        else:
            raise TranscriptError(f"no option is called {option}")

    def _line(self, line: str) -> None:
        side = _SIDES[line[:2]]
        if line[2:] == " <end>":
            self.turns.append(Turn(side, ends=True, said=[Said(b"", line)]))
            return
        last = self.turns[-1] if self.turns else None
        if last is None or last.side is not side or last.ends:
            last = Turn(side, ends=False)
            self.turns.append(last)
        elif last.state:
            raise TranscriptError(f"only the end of a run has a certain state: {line}")
        sent = said(line)
        assert sent is not None
        last.said.append(Said(sent, line))


def read(path: Path) -> Transcript:
    """Read one transcript file. Raises TranscriptError."""
    reader = _Reader()
    try:
        reader.read(path.read_text(encoding="utf-8"))
    except TranscriptError as problem:
        raise TranscriptError(f"{path.name}: {problem}") from None
    rule = " ".join(reader.comments)
    return Transcript(path.stem, rule, frozenset(reader.flags), tuple(reader.turns))


def read_all() -> list[Transcript]:
    return [read(path) for path in sorted(FOLDER.glob("*.txt"))]
