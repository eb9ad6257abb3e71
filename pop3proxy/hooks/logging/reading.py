"""Writes an event as a line that people read; what programs read is JSON Lines."""

from datetime import datetime
from typing import Final

from ...analyzer.events import (
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


def line_to_read(event: Event) -> str:
    """Write the time, the beginning of the session's uid, the side, the event and what it says.

    Secrets are written as they are: mask the event first.
    """
    time = datetime.fromtimestamp(event.ts).astimezone().strftime("%H:%M:%S.%f")[:-3]
    side = {True: "C:", False: "S:", None: "  "}[getattr(event, "is_orig", None)]
    said = _printable(_said(event))
    return f"{time} {event.c.uid[:_UID_WIDTH]} {side} {event.name:{_NAME_WIDTH}} {said}".rstrip()


def coloured(text: str, event: Event) -> str:
    """Give a line the colour of its event."""
    return f"\x1b[{_COLOURS[type(event)]}m{text}\x1b[0m"


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
