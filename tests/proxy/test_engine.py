"""The engine: one descriptor of the reactor, and many watchers behind it."""

import select
import socket
from collections.abc import Callable

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from pop3proxy.proxy.engine import READ, WRITE, Engine, usable

from .loop import Loop, tcp_pair


class Watching:
    """A watcher that does what the test says, and notes it."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act = act
        self.told: list[int] = []
        self.failures = 0

    def ready(self, events: int) -> None:
        self.told.append(events)
        self.act()

    def failed(self) -> None:
        self.failures += 1


def fail() -> None:
    raise RuntimeError


def leave() -> None:
    raise SystemExit


def test_watchers_are_told_what_they_watch_for(loop: Loop) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        watcher = Watching()
        loop.engine.add(ours.fileno(), watcher, READ)
        assert not loop.turn()
        theirs.sendall(b"x")
        loop.until(lambda: watcher.told)
        loop.engine.change(ours.fileno(), watcher, WRITE)
        loop.turn()
        assert watcher.told == [READ, WRITE]
        loop.engine.remove(ours.fileno())
        assert not loop.turn()


def test_another_watcher_can_take_over(loop: Loop) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        first, second = Watching(), Watching()
        loop.engine.add(ours.fileno(), first, READ)
        loop.engine.change(ours.fileno(), second, WRITE)
        loop.turn()
        assert (first.told, second.told) == ([], [WRITE])
        loop.engine.remove(ours.fileno())


def test_an_event_is_not_told_to_who_got_the_number_within_the_batch(loop: Loop) -> None:
    """Both ends are ready; whoever is told first closes the other's, and its number is used anew."""
    one, other = tcp_pair()
    newcomer = Watching()
    made: list[socket.socket] = []

    def replace(closing: socket.socket) -> None:
        if not made:
            number = closing.fileno()
            loop.engine.remove(number)
            closing.close()
            made.append(socket.socket())
            assert made[0].fileno() == number
            loop.engine.add(number, newcomer, READ)

    with one, other:
        loop.engine.add(one.fileno(), Watching(lambda: replace(other)), WRITE)
        loop.engine.add(other.fileno(), Watching(lambda: replace(one)), WRITE)
        loop.turn()
        assert made
        assert newcomer.told == []
        made[0].close()


@pytest.mark.parametrize("act", [fail, leave])
def test_an_error_of_one_watcher_is_logged_and_the_others_are_told(
    loop: Loop, act: Callable[[], None]
) -> None:
    pairs = [tcp_pair() for _ in range(3)]
    watchers = [Watching(act) for _ in pairs]
    for (ours, _), watcher in zip(pairs, watchers, strict=True):
        loop.engine.add(ours.fileno(), watcher, WRITE)
    with capturedLogs() as log:
        loop.turn()
    assert [len(watcher.told) for watcher in watchers] == [1, 1, 1]
    assert [watcher.failures for watcher in watchers] == [1, 1, 1]
    assert len(log) == 3
    for pair in pairs:
        for end in pair:
            end.close()


def test_removing_what_is_not_watched_does_nothing(loop: Loop) -> None:
    loop.engine.remove(0)


def test_a_second_stop_does_nothing(loop: Loop) -> None:
    loop.engine.stop()
    loop.engine.stop()
    assert loop.engine not in loop.reactor.getReaders()


def test_an_engine_that_loses_its_reactor_lets_its_watchers_go(loop: Loop) -> None:
    ours, theirs = tcp_pair()
    watcher = Watching()
    with ours, theirs:
        loop.engine.add(ours.fileno(), watcher, READ)
        loop.engine.connectionLost(Failure(ConnectionDone()))
    assert watcher.failures == 1
    assert loop.engine.fileno() == -1


@pytest.mark.parametrize("kind", [EPollReactor, PollReactor, SelectReactor])
def test_every_reactor_wakes_the_engine_and_lets_it_stop_itself(
    kind: Callable[[], SelectReactor],
) -> None:
    reactor = kind()
    engine = Engine(reactor)
    engine.start()
    ours, theirs = tcp_pair()
    watcher = Watching(engine.stop)
    with ours, theirs, capturedLogs() as log:
        engine.add(ours.fileno(), watcher, READ)
        theirs.sendall(b"x")
        while not watcher.told:
            reactor.iterate(1)
    assert log == []
    assert engine not in reactor.getReaders()
    reactor.fireSystemEvent("shutdown")
    reactor.removeAll()


def test_an_engine_is_of_use_only_with_epoll_and_a_reactor_of_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert usable(MemoryReactorClock())
    assert not usable(Clock())
    monkeypatch.delattr(select, "epoll")
    assert not usable(MemoryReactorClock())
