"""Prints events for people to read as they come; what a program is to read is JSON Lines."""

from datetime import datetime
from typing import Final, TextIO

from ..analyzer.events import (
    ALL,
    Connect,
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Policy,
    Reply,
    Request,
    SessionEnd,
    StartTLS,
    Unexpected,
)
from ..hooks.api import Hook
from ..hooks.masking import masked

_COLOURS: Final[dict[type[Event], str]] = {
    Connect: "1",
    Request: "36",
    Reply: "0",
    Data: "2",
    LoginAttempt: "33",
    LoginSuccess: "1;32",
    LoginFailure: "1;31",
    StartTLS: "35",
    Unexpected: "35",
    SessionEnd: "1",
    Policy: "1;33",
}
"""How each event looks on a terminal: parameters of ECMA-48's SGR."""

_NAME_WIDTH: Final = max(len(kind.name) for kind in ALL)
_UID_WIDTH: Final = 6


class Printer(Hook):
    """Prints one line for every event, its secrets masked."""

    def __init__(self, out: TextIO, colour: bool) -> None:
        """Print to ``out``; ``colour`` says that it is a terminal whose user likes colours."""
        self._out = out
        self._colour = colour
        # Listeners are what the dispatcher finds by name.
        for kind in ALL:
            setattr(self, kind.name, self._print)

    def _print(self, event: Event) -> None:
        text = _line(event)
        if self._colour:
            text = f"\x1b[{_COLOURS[type(event)]}m{text}\x1b[0m"
        self._out.write(text + "\n")
        self._out.flush()


def _line(event: Event) -> str:
    """Write the time, the beginning of the session's uid, who spoke, the event and what it says."""
    time = datetime.fromtimestamp(event.ts).astimezone().strftime("%H:%M:%S.%f")[:-3]
    who = {True: "C:", False: "S:", None: "  "}[getattr(event, "is_orig", None)]
    said = _printable(_said(masked(event)))
    return f"{time} {event.c.uid[:_UID_WIDTH]} {who} {event.name:{_NAME_WIDTH}} {said}".rstrip()


def _said(event: Event) -> str:
    """Write lines as they were sent, and other parameters by their names."""
    match event:
        case Request():
            return f"{event.command} {event.arg}"
        case Reply():
            return f"{event.cmd} {event.msg}"
        case Data():
            return event.data
        case Connect():
            return f"{event.c.orig_h}:{event.c.orig_p} to {event.c.resp_h}:{event.c.resp_p}"
        case _:
            names = (name for name in event.parameters if name != "is_orig")
            return " ".join(f"{name}={getattr(event, name)}" for name in names)


def _printable(text: str) -> str:
    """Escape what could steer a terminal, since it comes from a peer."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
