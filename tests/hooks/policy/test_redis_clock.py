"""A clock here that differs from Redis's: what is said, and that shared times are Redis's."""

import time
from collections.abc import Callable, Iterator

import pytest

from pop3proxy.hooks.policy.config import Policy, PolicyRedis
from pop3proxy.hooks.policy.redis.clock import LIMIT, SLOW, SharedClock
from pop3proxy.hooks.policy.redis.store import RedisStore
from pop3proxy.hooks.policy.store import Answer, Ban, Fate, Settlement

from .redisserver import KEY, SERVERS, RedisServer, at_once_or_later, reactor, running_redis, wait
from .test_redis import charge, said, settled, trying, until, welcomed

WAITS = True

__all__ = ["said"]


# --- alone ------------------------------------------------------------------------------------------------


def test_a_clock_within_the_limit_is_left_as_it_is() -> None:
    clock = SharedClock()
    for off in (0.0, LIMIT - 0.1, 0.1 - LIMIT):
        assert clock.measured(1000.0 + off, 999.9, 1000.1) is None
        assert clock.shared(5.0) == 5.0


@pytest.mark.parametrize(
    ("ahead", "said"), [(12.0, "12 s behind Redis's"), (-3600.0, "3600 s ahead of Redis's")]
)
def test_a_clock_beyond_the_limit_is_said_and_redis_time_used(ahead: float, said: str) -> None:
    clock = SharedClock()
    line = clock.measured(1000.0 + ahead, 999.9, 1000.1)
    assert line is not None
    assert said in line
    assert "set the clocks" in line
    assert clock.shared(5.0) == pytest.approx(5.0 + ahead)
    assert clock.here(clock.shared(5.0)) == pytest.approx(5.0)
    # It is not said again at each look.
    assert clock.measured(2000.5 + ahead, 1999.9, 2000.1) is None


def test_a_clock_that_is_set_is_said_once_and_left_alone_again() -> None:
    clock = SharedClock()
    clock.measured(1012.0, 1000.0, 1000.0)
    assert clock.measured(1004.5, 1000.0, 1000.0) is None
    assert clock.measured(1003.0, 1000.0, 1000.0) == (
        "the clock of this machine agrees with Redis's again"
    )
    assert clock.ahead == 0.0
    assert clock.measured(1004.5, 1000.0, 1000.0) is None


def test_a_difference_that_grows_is_followed() -> None:
    clock = SharedClock()
    clock.measured(1012.0, 1000.0, 1000.0)
    assert clock.measured(1020.0, 1000.0, 1000.0) is not None
    assert clock.ahead == 20.0


def test_an_answer_that_took_long_tells_no_time() -> None:
    clock = SharedClock()
    assert clock.measured(1100.0, 1000.0, 1000.1 + SLOW) is None
    # Nor one between whose ends the clock was set back.
    assert clock.measured(1100.0, 1000.0, 900.0) is None
    assert clock.ahead == 0.0


# --- with a server ----------------------------------------------------------------------------------------


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running_redis(program=request.param) as server:
        yield server


class Machine:
    """A machine whose clock is off, and its store."""

    def __init__(self, server: RedisServer, off: float) -> None:
        self.off = off
        config = PolicyRedis.model_validate(
            {"url": server.url, "time_limit": 10, "probe_interval": 0.02}
        )
        policy = Policy.model_validate({"fingerprint_key": KEY, "redis": config})
        self.store = RedisStore(policy, config, self.now)
        self.store.start(reactor)

    def now(self) -> float:
        return time.time() + self.off

    def attempt(self) -> Answer:
        """Try a login where five may fail in an hour, with those of the other machines."""
        one = trying()
        flight = one.flight._replace(at=self.now())
        answer = at_once_or_later(self.store.attempt(one._replace(flight=flight), self.now()))
        assert isinstance(answer, Answer)
        return answer

    def fail(self) -> int:
        """Count a failure; return how many there are."""
        return settled(self.store, Settlement(charges=(charge(),)), self.now()).tallies[0].counts[0]

    def welcomes(self, later: float) -> bool:
        """Return whether a client is known so many seconds later."""
        answer = at_once_or_later(self.store.attempt(welcomed("known"), self.now() + later))
        return bool(answer.welcome)


Machines = Callable[[float], Machine]


@pytest.fixture
def machine(server: RedisServer) -> Iterator[Machines]:
    made: list[Machine] = []

    def machine(off: float) -> Machine:
        made.append(Machine(server, off))
        wait(made[-1].store.state(True))
        return made[-1]

    yield machine
    for each in made:
        each.store.stop()


def test_machines_whose_clocks_differ_count_together(machine: Machines, said: list[str]) -> None:
    # By their own clocks each would see nothing of the other's in a window of an hour.
    one, two = machine(0.0), machine(-7200.0)
    assert [each.fail() for each in (one, two) * 2] == [1, 2, 3, 4]
    fates = [each.attempt().fate for each in (two, one, two)]
    assert fates == [Fate.FLIES, Fate.HELD, Fate.HELD]
    assert one.fail() == 5
    assert two.attempt().fate is Fate.REFUSED
    (line,) = said
    assert line.startswith("the clock of this machine is 7200 s behind Redis's;")
    assert two.store.counts["redis_clock"] == 1
    assert one.store.counts["redis_clock"] == 0


def test_a_ban_ends_everywhere_at_the_same_moment(machine: Machines) -> None:
    one, two = machine(0.0), machine(7200.0)
    now = one.now()
    one.store.ban(Ban("address:192.0.2.1", "rule", now, now + 600, 1, ("why",)), now)
    until(lambda: bool(two.store.bans(two.now())), "the ban is heard")
    (heard,) = two.store.bans(two.now())
    assert heard.until - two.now() == pytest.approx(600, abs=5)
    three = machine(-7200.0)
    (read,) = three.store.bans(three.now())
    assert read.until - three.now() == pytest.approx(600, abs=5)
    # And its end, with the grace.
    three.store.unban(heard.key, [], three.now() + 300, three.now())
    until(lambda: not two.store.bans(two.now()), "its end is heard")
    assert two.store.in_grace(heard.key, two.now() + 290)
    assert not two.store.in_grace(heard.key, two.now() + 310)


def test_an_own_ban_that_is_read_back_is_no_news(machine: Machines, server: RedisServer) -> None:
    one = machine(1234.567)
    now = one.now()
    one.store.ban(Ban("address:192.0.2.1", "rule", now, now + 600, 1, ("why",)), now)
    until(lambda: not one.store._untold and not one.store._telling, "the ban is told")
    assert one.store._link is not None
    one.store._link.abort()
    wait(one.store.state(False))
    wait(one.store.state(True))
    assert one.store.counts["redis_bans_heard"] == 0


def test_who_is_welcome_is_so_on_machines_whose_clocks_differ(machine: Machines) -> None:
    one, two = machine(0.0), machine(-7200.0)
    settled(one.store, Settlement(marks=(("known", 600.0),)), one.now())
    assert two.welcomes(590)
    assert not two.welcomes(610)


def test_a_server_that_does_not_tell_the_time_is_used_by_the_clock_here(
    server: RedisServer, said: list[str]
) -> None:
    server.ask("ACL", "SETUSER", "default", "-time")
    machine = Machine(server, 100.0)
    wait(machine.store.state(True))
    until(lambda: machine.store._beats > 2, "it is looked at again")
    machine.store.stop()
    (line,) = said
    assert line.startswith(
        "the clock cannot be compared with Redis's: its access list is too strict"
    )
