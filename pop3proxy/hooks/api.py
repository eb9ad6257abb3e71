"""What the author of a hook needs: the class to derive from; nothing of how events are delivered."""

from typing import Any, ClassVar


class EndSession(Exception):
    """Raised by a hook that was configured to give up a session rather than let it go on unrecorded."""


class Hook:
    """Hears the events of all sessions.

    Derive from it and write a method for each event that you want to hear, named after the event::

        class Announce(Hook):
            def pop3_login_failure(self, event):
                print(event.c.orig_h, event.user)

    What no method asks for is never built, so a hook costs what it listens to. A method gets the event
    of that name from ``pop3proxy.analyzer.events`` and returns nothing; an exception in it is logged
    and counted, and costs the session nothing. Events carry secrets in clear: a hook that writes them
    down passes them through ``pop3proxy.hooks.masking`` first.

    The options of the configuration are passed to the constructor as keyword arguments.
    """

    label: ClassVar[str] = ""
    """How log lines name the hook; the class's name if empty."""

    def start(self, reactor: Any) -> None:
        """Begin: called once, before the first session, with the reactor for those who need time."""

    def stop(self) -> None:
        """End: called once, after the last session's last event."""

    def reopen(self) -> None:
        """Open anew what is written to, because an operator moved it away (SIGUSR1)."""
