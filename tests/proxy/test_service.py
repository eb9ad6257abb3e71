"""The service by itself: what it does for all sessions, with sessions that are none."""

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.config import load
from pop3proxy.proxy.service import ProxyService


class Timed:
    """Something whose time has run out; None is an error."""

    def __init__(self, limit: str | None) -> None:
        self.limit = limit
        self.expired_by: list[str] = []

    def overdue(self, now: float) -> str:
        if self.limit is None:
            raise RuntimeError("PASS secret")
        return self.limit

    def expired(self, limit: str) -> None:
        self.expired_by.append(limit)


def test_an_error_over_one_time_limit_keeps_nobody_else_from_its_end() -> None:
    reactor = MemoryReactorClock()
    found = {"listen": ["tcp:1110"], "upstream": {"endpoint": "tcp:127.0.0.1:110"}}
    service: Any = ProxyService(reactor, load(None, found, reactor), [])
    timed = [Timed("idle"), Timed(None), Timed(""), Timed("login")]
    service.arrivals = {timed[1]}
    service.sessions = set(timed) - {timed[1]}
    with capturedLogs() as log:
        service.sweep()
    assert [each.expired_by for each in timed] == [["idle"], [], [], ["login"]]
    (entry,) = log
    said = formatEvent(entry)
    assert said.startswith("a time limit is not kept, by an error of ours: RuntimeError")
    assert "secret" not in said
