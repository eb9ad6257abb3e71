"""Makes the reactor of a process, whose clock never steps; runs nothing."""

import contextlib
import select
import time
from typing import Any

from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.internet.main import installReactor


def steady_reactor() -> Any:
    """Install the system's usual reactor with a monotonic clock, and return it.

    A second call returns the same; one that was installed before stays.

    Twisted's reactors take the wall clock for their timers: when an administrator or NTP sets it an hour on,
    all of them run out at once, and when it is set back, none runs out for an hour.
    """
    # By a test, or by a program that runs the command line inside itself.
    with contextlib.suppress(ReactorAlreadyInstalledError):
        installReactor(_made())
    from twisted.internet import reactor

    return reactor


def _made() -> Any:
    """Make what ``twisted.internet.default`` would install."""
    usual: Any
    if hasattr(select, "epoll"):
        from twisted.internet.epollreactor import EPollReactor as usual
    elif hasattr(select, "poll"):
        from twisted.internet.pollreactor import PollReactor as usual
    else:
        from twisted.internet.selectreactor import SelectReactor as usual

    class SteadyReactor(usual):  # type: ignore[misc]
        """Gives the time that has passed since some moment (IReactorTime)."""

        seconds = staticmethod(time.monotonic)

    return SteadyReactor()
