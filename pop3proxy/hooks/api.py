"""What the author of a hook needs: the class to derive from, and the verdicts; not how hooks are asked."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from ..analyzer.events import (
    Connect,
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reply,
    Request,
    StartTLS,
    Unexpected,
)


class EndSession(Exception):
    """Raised by a hook that was configured to give up a session rather than let it go on unrecorded.

    It ends the session whatever the hook's ``on_error`` says; from a blocking hook it is a Drop.
    """


class Verdict:
    """What becomes of the bytes that gave rise to an event: one of ``PASS``, Delay, Deny and Drop."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Pass(Verdict):
    """Let the bytes go on. There is one of it, ``PASS``; a method that returns nothing means it too."""


@dataclass(frozen=True, slots=True)
class Delay(Verdict):
    """Hold the bytes, and all that follows them on the same way, for some seconds; then let them go on.

    Raises ValueError if ``seconds`` is negative or not a finite number.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"a delay is a number of seconds from 0 on, not {self.seconds}")


@dataclass(frozen=True, slots=True)
class Deny(Verdict):
    """Keep the bytes from the server, and answer the client in the server's place.

    ``reply`` is one line of printable text that begins with ``-ERR``, without its end. Denied is best
    worded as the server itself would refuse, so that who guesses passwords learns nothing. The default is
    for logins (RFC 3206 section 4). Raises ValueError for what a client could not read as a refusal.
    """

    reply: str = "-ERR [AUTH] Authentication failed."

    def __post_init__(self) -> None:
        # RFC 1939 section 3: a status line has 512 octets with its CR LF.
        octets = len(self.reply.encode("utf-8", "surrogateescape"))
        if self.reply.split(" ", 1)[0] != "-ERR" or not self.reply.isprintable():
            raise ValueError("the reply of a denial is one printable line that begins with -ERR")
        if octets > MAX_REPLY:
            raise ValueError(f"the reply of a denial has at most {MAX_REPLY} octets, not {octets}")

    @property
    def line(self) -> bytes:
        """The reply as the client gets it, with its CR LF."""
        return self.reply.encode("utf-8", "surrogateescape") + b"\r\n"


@dataclass(frozen=True, slots=True)
class Drop(Verdict):
    """End the session: both sides are closed, and the bytes go nowhere."""


PASS: Final = Pass()

MAX_REPLY: Final = 510
"""Octets of a denial's reply (RFC 1939 section 3, less CR LF)."""

VERDICTS: Mapping[type[Event], tuple[type[Verdict], ...]] = {
    Connect: (Pass, Delay, Deny, Drop),
    Request: (Pass, Delay, Deny, Drop),
    LoginAttempt: (Pass, Delay, Deny, Drop),
    LoginSuccess: (Pass, Delay, Deny, Drop),
    LoginFailure: (Pass, Delay, Drop),
    Reply: (Pass, Delay, Drop),
    Data: (Pass, Drop),
    StartTLS: (Pass, Drop),
    Unexpected: (Pass, Drop),
}
"""The verdicts that each event may get. ``pop3_session`` comes when there is nothing left to decide."""


def _nobody(_: object) -> None:
    """Take what nobody is there for."""


class Hook:
    """Hears the events of all sessions, and may decide what becomes of them.

    Derive from it and write a method for each event that you want to hear, named after the event::

        class Announce(Hook):
            def pop3_login_failure(self, event):
                print(event.c.orig_h, event.user)

    What no method asks for is never built, so a hook costs what it listens to. A method gets the event
    of that name from ``pop3proxy.analyzer.events``; whatever it raises, SystemExit included, is logged and
    counted, and costs the session nothing. Events carry secrets in clear: a hook that writes them down
    passes them through ``pop3proxy.hooks.masking`` first.

    A hook with ``blocking = True`` is asked, and the bytes wait for its answer: its methods return a
    verdict, or nothing, or an awaitable of one (a coroutine, a Deferred). Where the return annotation
    names verdicts, they are held against those that the event may get when the hook is loaded. Every
    other hook only listens; what its methods return is ignored (a verdict is logged once), but a coroutine
    is run.

    The options of the configuration are passed to the constructor as keyword arguments.
    """

    label: ClassVar[str] = ""
    """How log lines name the hook; the class's name if empty."""

    blocking: ClassVar[bool] = False
    """Whether the bytes wait for what the methods return."""

    time_limit: float = 5.0
    """Seconds that an awaitable may take before it is cancelled; a configuration can set it otherwise.

    It is read when the hook is loaded, and so is ``on_error``.
    """

    on_error: Literal["pass", "deny"] = "pass"
    """What a blocking hook that raises, or takes too long, stands for: ``PASS``, or a Deny with
    ``-ERR [SYS/TEMP]`` (a Drop where the event can get no Deny); a configuration can set it otherwise."""

    emit: Callable[[Event], None] = staticmethod(_nobody)
    """Tell all hooks of an event of one's own (``pop3_policy``); set by who delivers events."""

    end_sessions: Callable[[Collection[str]], None] = staticmethod(_nobody)
    """End the sessions of these uids, soon; set by who has sessions."""

    def start(self, reactor: Any) -> None:
        """Begin: called once, before the first session, with the reactor for those who need time.

        What it raises ends the program.
        """

    def stop(self) -> None:
        """End: called once, after the last session's last event."""

    def reopen(self) -> None:
        """Open anew what is written to, because an operator moved it away (SIGUSR1)."""
