"""What only the store in Redis does: it is shared, and goes on alone when Redis is not well."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import provider

from pop3proxy.hooks.policy.config import Policy, PolicyRedis
from pop3proxy.hooks.policy.failedlogins import FailedLogins, PolicyUnusable
from pop3proxy.hooks.policy.redis import link as link_module
from pop3proxy.hooks.policy.redis import store as store_module
from pop3proxy.hooks.policy.redis.store import RedisStore
from pop3proxy.hooks.policy.store import (
    Answer,
    Attempt,
    Ban,
    Charge,
    Fate,
    Flight,
    Settled,
    Settlement,
    Window,
)
from tests.integration.certificates import Certificates
from tests.integration.processes import free_port

from .redisserver import (
    KEY,
    SERVERS,
    RedisServer,
    at_once_or_later,
    reactor,
    running_redis,
    store_at,
    wait,
)

WAITS = True

NOW = time.time()
WINDOWS = (Window(3600.0, 5),)
QUICK = {"time_limit": 0.1}

IDS = count()


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test now: Redis lets things expire by its own clock, and this may be read long before."""
    monkeypatch.setitem(globals(), "NOW", time.time())


@pytest.fixture(scope="module", params=SERVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that no test harms."""
    with running_redis(program=request.param) as server:
        yield server


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of a test's own."""
    with running_redis(program=request.param) as server:
        yield server


Make = Callable[..., RedisStore]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make stores, and stop them at the end."""
    made: list[RedisStore] = []

    def make(url: str, policy: dict[str, Any] | None = None, **redis: Any) -> RedisStore:
        made.append(store_at(url, policy, **redis))
        return made[-1]

    yield make
    for store in made:
        store.stop()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Lines that the store logs for the operator."""
    lines: list[str] = []

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        ours = event["log_namespace"].startswith("pop3proxy.hooks.policy.redis")
        if ours and event["log_level"] >= LogLevel.warn:
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(note)
    yield lines
    globalLogPublisher.removeObserver(note)


def well(*stores: RedisStore) -> None:
    for store in stores:
        wait(store.state(True))


def until(condition: Callable[[], bool], what: str) -> None:
    """Let the reactor run until something is so."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        wait(deferLater(reactor, 0.001))


def charge(key: str = "k") -> Charge:
    return Charge(key, WINDOWS, "", True, True, f"at {key}", -1, 5)


def trying(*charges: Charge, welcome: str = "") -> Attempt:
    """An attempt that is charged so if it fails; by itself by the one charge ``k``."""
    charges = charges or (charge(),)
    places = tuple(each.place for each in charges if each.place)
    return Attempt(Flight(f"F{next(IDS)}", NOW, ("member",), places), charges, welcome)


def welcomed(by: str) -> Attempt:
    """An attempt that no rule counts."""
    return Attempt(Flight(f"F{next(IDS)}", NOW), (), by)


def attempt(store: RedisStore, *charges: Charge, now: float | None = None) -> Answer:
    one = trying(*charges)
    at = NOW if now is None else now
    answer = at_once_or_later(store.attempt(one._replace(flight=one.flight._replace(at=at)), at))
    assert isinstance(answer, Answer)
    return answer


def settled(store: RedisStore, settlement: Settlement, now: float | None = None) -> Settled:
    found = at_once_or_later(store.settle(settlement, NOW if now is None else now))
    assert isinstance(found, Settled)
    return found


def fail(store: RedisStore, key: str = "k") -> int:
    """Count a failure; return how many there are."""
    return settled(store, Settlement(charges=(charge(key),))).tallies[0].counts[0]


def flying(store: RedisStore, key: str = "k") -> int:
    """Count what is in flight, by what must fly beside it to be held."""
    found = at_once_or_later(
        store.attempt(trying(charge(key)._replace(windows=(Window(3600.0, 0),), least=0)), NOW)
    )
    return found.possible.counts[0] - 1 if found.fate is Fate.HELD else 0


def ban(key: str = "address:192.0.2.1", seconds: float = 600) -> Ban:
    return Ban(key, "rule", NOW, NOW + seconds, 2, ("because", "again"))


# --- shared -----------------------------------------------------------------------------------------------


def test_two_proxies_count_together(shared: RedisServer, make: Make) -> None:
    one, two = make(shared.url, prefix="together:"), make(shared.url, prefix="together:")
    well(one, two)
    fates = [attempt(store).fate for store in (one, two) * 4]
    assert fates == [Fate.FLIES] * 5 + [Fate.HELD] * 3


def test_a_flight_that_ends_wakes_whoever_waits_at_another_proxy(
    shared: RedisServer, make: Make
) -> None:
    one, two = make(shared.url, prefix="wakes:"), make(shared.url, prefix="wakes:")
    well(one, two)
    heard: list[str] = []
    two.on_settled = heard.extend
    mine = [trying() for _ in range(5)]
    for each in mine:
        at_once_or_later(one.attempt(each, NOW))
    held = attempt(two)
    assert held.fate is Fate.HELD
    # Should the message get lost, it is asked about again.
    assert NOW < held.again <= NOW + store_module.ASK_AGAIN
    settled(one, Settlement(mine[0].flight))
    until(lambda: heard == ["at k"], "the other hears it")
    assert attempt(two).fate is Fate.FLIES


def test_nobody_is_told_of_a_place_where_nobody_waits(shared: RedisServer, make: Make) -> None:
    store = make(shared.url, prefix="quiet:")
    well(store)
    heard: list[str] = []
    store.on_settled = heard.extend
    first, other = trying(), [trying() for _ in range(4)]
    for each in (first, *other):
        at_once_or_later(store.attempt(each, NOW))
    settled(store, Settlement(first.flight))
    assert attempt(store).fate is Fate.FLIES
    assert attempt(store).fate is Fate.HELD
    settled(store, Settlement(other[0].flight))
    until(lambda: len(heard) == 1, "one is heard")


def test_no_more_places_are_known_by_name_than_the_bound(
    shared: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_NAMED", 5)
    store = make(shared.url, prefix="named:")
    well(store)
    for number in range(8):
        one = trying(charge(str(number))._replace(windows=(Window(60.0, 1),), least=1))
        for _ in range(2):
            at_once_or_later(
                store.attempt(one._replace(flight=one.flight._replace(id=f"F{next(IDS)}")), NOW)
            )
    assert len(store._named) == 5


def test_a_ban_by_one_is_in_force_on_the_other(
    shared: RedisServer, make: Make, record_property: Callable[[str, object], None]
) -> None:
    one, two = make(shared.url, prefix="push:"), make(shared.url, prefix="push:")
    well(one, two)
    heard: Deferred[Ban] = Deferred()
    two.on_ban = heard.callback
    began = time.perf_counter()
    one.ban(ban(), NOW)
    assert wait(heard) == ban()
    record_property("ban_pushed_ms", round((time.perf_counter() - began) * 1000, 2))
    assert two.ban_of([ban().key], NOW) == ban()
    # And the end of it, with the grace and what was counted.
    fail(two)
    assert one.unban(ban().key, ["k"], NOW + 500, NOW)
    until(lambda: two.ban_of([ban().key], NOW) is None, "the ban ends on the other")
    past = two.past(ban().key, NOW)
    assert past is not None
    assert (past.times, past.evidence[-1]) == (0, "removed at another proxy")
    assert two.in_grace(ban().key, NOW + 499)
    assert fail(two) == 1
    assert two.memory.settle(Settlement(charges=(charge(),)), NOW).tallies[0].counts == (2,)


def record(ban: Ban) -> list[Any]:
    return ["ban", ban.key, ban.rule, ban.since, ban.until, ban.times, list(ban.evidence)]


def pushed(store: RedisStore, *message: Any) -> None:
    """Let a store hear another proxy, at this very moment."""
    store._heard(store._channel, json.dumps(["another", *message]).encode())


def test_what_is_said_here_is_not_undone_by_what_redis_heard_before(
    shared: RedisServer, make: Make
) -> None:
    store = make(shared.url, prefix="order:")
    well(store)
    store.unban(ban().key, [], NOW, NOW)
    pushed(store, *record(ban()))
    assert store.bans(NOW) == []
    until(lambda: not store._unheard, "the own word is heard")
    pushed(store, *record(ban()))
    assert store.bans(NOW) == [ban()]


def test_what_is_pushed_while_reading_is_newer_than_what_is_read(
    shared: RedisServer, make: Make
) -> None:
    store = make(shared.url, prefix="reading:")
    well(store)
    store._touched = set()
    pushed(store, "unban", ban().key, NOW, [])
    store._learn(json.dumps(record(ban())).encode(), pushed=False)
    store._learn(json.dumps(record(ban("user:bob"))).encode(), pushed=False)
    assert store.bans(NOW) == [ban("user:bob")]


def test_who_comes_later_reads_all_bans(shared: RedisServer, make: Make) -> None:
    # More than a page, with names that are no UTF-8.
    one = make(shared.url, prefix="later:")
    well(one)
    bans = {f"user:{n}\udcff\n": ban(f"user:{n}\udcff\n") for n in range(1300)}
    for each in bans.values():
        one.ban(each, NOW)
    one.unban("user:7\udcff\n", [], NOW + 86_400, NOW)
    del bans["user:7\udcff\n"]
    until(lambda: not one._untold and not one._telling, "all is told")
    two = make(shared.url, prefix="later:")
    well(two)
    assert {each.key: each for each in two.bans(NOW)} == bans
    assert two.in_grace("user:7\udcff\n", NOW + 86_399)


def test_prefixes_keep_strangers_apart(shared: RedisServer, make: Make) -> None:
    one, two = make(shared.url, prefix="a:"), make(shared.url, prefix="b:")
    well(one, two)
    one.ban(ban(), NOW)
    fail(one)
    assert fail(two) == 1
    until(lambda: not one._untold and not one._telling, "the ban is told")
    three = make(shared.url, prefix="b:")
    well(three)
    assert three.bans(NOW) == []


def test_everything_in_redis_ends_by_itself_and_names_nobody(
    server: RedisServer, make: Make
) -> None:
    store = make(server.url)
    well(store)
    member = Charge("~r|user:bob", WINDOWS, "password-hash", True, True, "at bob", 0, 5)
    charges = (charge("r|user:bob"), member)
    for _ in range(6):
        attempt(store, *charges)
    marks = (("known|bob", 600.0),)
    settled(store, Settlement(charges=charges, marks=marks, home="home|bob"))
    store.ban(ban(), NOW)
    until(lambda: not store._untold and not store._telling, "the ban is told")
    keys = [
        line for line in server.ask("KEYS", "*").split(b"\r\n") if line.startswith(b"{pop3proxy:}")
    ]
    # Two counts, flights at two places, one at which another waits, a mark, and three of bans.
    assert len(keys) == 9
    for key in keys:
        assert int(server.ask("TTL", key.decode())[1:]) > 0, key
        assert b"bob" not in key
    assert b"password-hash" not in server.ask("KEYS", "*")


def test_counts_need_the_same_key(shared: RedisServer, make: Make) -> None:
    one = make(shared.url, prefix="keys:")
    two = make(shared.url, {"fingerprint_key": KEY + "!"}, prefix="keys:")
    well(one, two)
    fail(one)
    assert fail(two) == 1


def test_one_decision_is_one_round_trip(server: RedisServer, make: Make) -> None:
    store = make(server.url, probe_interval=60)
    well(store)
    attempt(store)  # this one brings the script
    before = _commands(server)
    attempt(store, charge("a"), charge("b"), charge("c"))
    assert _commands(server) - before == {"evalsha": 1}


def _commands(server: RedisServer) -> Any:
    """Count the commands that came from clients, not those within a script."""
    found: Counter[str] = Counter()
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith(("cmdstat_evalsha", "cmdstat_eval:")):
            name, _, rest = line.partition(":")
            found[name.removeprefix("cmdstat_")] = int(rest.split(",")[0].removeprefix("calls="))
    return found


def test_scripts_that_redis_has_forgotten_are_sent_again(server: RedisServer, make: Make) -> None:
    store = make(server.url)
    well(store)
    fail(store)
    server.ask("SCRIPT", "FLUSH")
    assert fail(store) == 2
    assert not store.counts["redis_failed"]


def test_what_others_write_under_the_prefix_is_counted_and_harms_nobody(
    server: RedisServer, make: Make
) -> None:
    rubbish = ["", "[", "[]", "{}", "[1]", '["x", "ban"]', '["x", "sing", "k"]', "9" * 5000, "\\"]
    rubbish += ['["x", "ban", "k", "r", 0, 1e300, 1, []]', '["x", "unban", "k", -1, []]']
    for number, text in enumerate(rubbish):
        server.ask("HSET", "{pop3proxy:}bans", str(number), text)
    store = make(server.url)
    well(store)
    for text in rubbish:
        server.ask("PUBLISH", "pop3proxy:bans", text)
    until(lambda: store.counts["redis_malformed"] >= 2 * len(rubbish) - 1, "all rubbish is counted")
    assert store.bans(NOW) == []
    assert attempt(store).fate is Fate.FLIES


# --- when Redis is not well -------------------------------------------------------------------------------


def test_a_frozen_redis_delays_a_decision_by_the_time_limit_once(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url, **QUICK)
    well(store)
    for _ in range(3):
        attempt(store)
    server.freeze()
    answers = [store.attempt(trying(), NOW) for _ in range(4)]
    decided = [at_once_or_later(answer).fate for answer in answers]
    # What this proxy has in flight with Redis holds without it.
    assert decided == [Fate.FLIES, Fate.FLIES, Fate.HELD, Fate.HELD]
    assert store.counts["redis_slow"] >= 1
    # From now on nobody waits.
    assert isinstance(store.attempt(trying(), NOW), Answer)
    assert isinstance(store.settle(Settlement(charges=(charge(),)), NOW), Settled)
    assert store.counts["redis_alone"] == 2
    assert len(said) == 1
    assert "not asked any more: no answer in time" in said[0]
    server.thaw()
    well(store)
    assert store.counts["redis_outages"] == 1


def test_what_a_frozen_redis_lets_fly_too_late_is_taken_back(
    server: RedisServer, make: Make
) -> None:
    store = make(server.url, probe_interval=0.01, time_limit=0.05)
    other = make(server.url)
    well(store, other)
    server.freeze()
    both = [store.attempt(trying(charge(key)), NOW) for key in ("k", "b")]
    assert all(at_once_or_later(each).fate is Fate.FLIES for each in both)
    server.thaw()
    well(store)
    until(lambda: store.counts["redis_taken_back"] == 2, "late flights are taken back")
    until(lambda: not store._asked, "and Redis has it")
    assert (flying(other), flying(other, "b")) == (0, 0)


def test_whoever_leaves_while_redis_is_asked_is_not_in_flight(
    shared: RedisServer, make: Make
) -> None:
    store = make(shared.url, prefix="leaves:")
    well(store)
    asked = store.attempt(trying(), NOW)
    assert isinstance(asked, Deferred)
    failed: list[Any] = []
    asked.addErrback(failed.append)
    asked.cancel()
    assert len(failed) == 1
    until(lambda: store.counts["redis_taken_back"] == 1, "it is taken back")
    assert flying(store) == 0


def test_a_killed_redis_is_not_asked_and_takes_part_when_it_is_back(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url)
    well(store)
    fail(store)
    store.ban(ban("address:192.0.2.1"), NOW)
    until(lambda: not store._untold and not store._telling, "the ban is told")
    server.kill()
    wait(store.state(False))
    answer = store.settle(Settlement(charges=(charge(),)), NOW)
    assert isinstance(answer, Settled)
    assert answer.tallies[0].counts == (2,)
    # Bans that were there stay, and new ones are told when it is back, though it has lost all.
    store.ban(ban("address:192.0.2.2"), NOW)
    assert len(store.bans(NOW)) == 2
    server.start()
    well(store)
    assert fail(store) == 1
    other = make(server.url)
    well(other)
    until(lambda: len(other.bans(NOW)) == 2, "another proxy has both")
    assert len(said) == 1


def test_a_ban_that_another_ended_while_the_connection_was_lost_ends_here_too(
    server: RedisServer, make: Make
) -> None:
    one, two = make(server.url), make(server.url, probe_interval=0.2)
    heard: list[str] = []
    two.watch_bans(heard.append)
    well(one, two)
    one.ban(ban(), NOW)
    one.ban(ban("address:192.0.2.9"), NOW)
    until(lambda: len(two.bans(NOW)) == 2, "both are heard")
    assert two._link is not None
    two._link.abort()
    wait(two.state(False))
    one.unban(ban().key, [], NOW, NOW)
    # A record that was forgotten is no longer there at all.
    server.ask("HDEL", "{pop3proxy:}bans", "address:192.0.2.9")
    until(lambda: not one._untold and not one._telling, "the end is told")
    well(two)
    assert two.bans(NOW) == []
    # What exports bans knows of each beginning and end.
    assert heard[:2] == [ban().key, "address:192.0.2.9"]
    assert set(heard[2:]) == set(heard[:2])


def test_no_login_fails_or_waits_in_vain_while_redis_is_frozen_killed_and_started_again(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url, probe_interval=0.02, connect_limit=0.3, **QUICK)
    well(store)
    numbers = iter(range(10**9))
    done: list[Settled] = []
    going = True

    async def logins() -> None:
        """Log in again and again, each as a user of its own, as a client behind the proxy does."""
        while going:
            mine = trying(charge(f"user{next(numbers)}"))
            asked = store.attempt(mine, NOW)
            answer = await asked if isinstance(asked, Deferred) else asked
            assert answer.fate is Fate.FLIES
            lands = store.settle(Settlement(mine.flight, home="h"), NOW)
            done.append(await lands if isinstance(lands, Deferred) else lands)
            await deferLater(reactor, 0.001)

    clients = [Deferred.fromCoroutine(logins()) for _ in range(20)]

    def some_more(what: str) -> None:
        enough = len(done) + 100
        until(lambda: len(done) >= enough, f"logins go on: {what}")

    some_more("all is well")
    server.freeze()
    some_more("frozen")
    assert store.counts["redis_slow"] > 0
    server.thaw()
    well(store)
    some_more("thawed")
    server.kill()
    some_more("killed")
    server.start()
    well(store)
    some_more("started again")
    server.freeze()
    wait(store.state(False))
    server.kill()
    some_more("killed while frozen")
    server.start()
    well(store)
    asked = store.counts["redis_asked"]
    some_more("and asked again")
    assert store.counts["redis_asked"] > asked
    going = False
    for client in clients:
        wait(client)
    assert store.counts["redis_alone"] > 0
    assert store.counts["redis_outages"] >= 3
    assert len(said) == 1, "one line a minute"


def test_no_more_decisions_wait_than_the_bound(
    server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_ASKED", 5)
    store = make(server.url, time_limit=10)
    well(store)
    server.freeze()
    asked = [store.attempt(trying(charge(str(n))), NOW) for n in range(8)]
    assert [isinstance(each, Deferred) for each in asked] == [True] * 5 + [False] * 3
    assert store.counts["redis_full"] == 3
    server.thaw()
    assert all(at_once_or_later(each).fate is Fate.FLIES for each in asked)


def test_of_bans_that_cannot_be_told_the_oldest_go(make: Make, tmp_path: Path) -> None:
    store = make(f"unix://{tmp_path}/nobody", {"max_bans": 100})
    for number in range(130):
        store.ban(ban(f"address:{number}"), NOW)
    assert len(store._untold) == 100
    assert next(iter(store._untold)) == "address:30"
    assert store.counts["redis_untold"] == 30


def test_a_redis_that_refuses_is_left_alone(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url, probe_interval=60)
    well(store)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    answer = attempt(store)
    assert answer.fate is Fate.FLIES
    assert not store.well
    assert "maxmemory" in said[0]


def test_answers_that_make_no_sense_are_not_believed(
    shared: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "COUNTS", b"return {0, 0, 0, 1}")
    store = make(shared.url, prefix="senseless:", probe_interval=60)
    well(store)
    assert attempt(store).fate is Fate.FLIES
    assert not store.well
    assert store.counts["redis_failed"] == 1


def test_a_redis_that_is_not_there_delays_nobody(
    make: Make, tmp_path: Path, said: list[str]
) -> None:
    store = make(f"unix://{tmp_path}/nobody")
    assert isinstance(store.attempt(trying(), NOW), Answer)
    until(lambda: bool(said), "it is said")
    assert f"unix://{tmp_path}/nobody" in said[0]


def test_no_error_keeps_redis_out_for_good(
    server: RedisServer, make: Make, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("an error of the proxy's own")

    with monkeypatch.context() as patched:
        patched.setattr(RedisStore, "_reconcile", broken)
        store = make(server.url)
        until(lambda: len(said) >= 2, "it is said")
    assert "report it" in said[0]
    well(store)
    assert attempt(store).fate is Fate.FLIES


def test_who_is_welcome_by_another_proxy_stays_so_without_redis(
    server: RedisServer, make: Make
) -> None:
    one, two = make(server.url), make(server.url)
    well(one, two)
    settled(one, Settlement(marks=(("known", 600.0), ("home", 600.0))))
    at_once_or_later(two.attempt(welcomed("known"), NOW))
    settled(two, Settlement(home="home"))
    server.kill()
    wait(two.state(False))
    answer = two.attempt(welcomed("known"), NOW + 599)
    assert isinstance(answer, Answer)
    assert answer.welcome
    found = two.settle(Settlement(home="home"), NOW + 599)
    assert isinstance(found, Settled)
    assert found.home


def test_who_is_welcome_stays_so_when_redis_has_lost_its_data(
    server: RedisServer, make: Make
) -> None:
    one, two = make(server.url), make(server.url)
    well(one, two)
    settled(one, Settlement(marks=(("known", 600.0), ("home", 600.0))))
    server.ask("FLUSHALL")
    assert at_once_or_later(one.attempt(welcomed("known"), NOW + 1)).welcome
    assert settled(one, Settlement(home="home"), NOW + 1).home
    # And the others hear it from Redis again; it does not last longer for that.
    for store, later in ((two, 2), (one, 3), (two, 4), (one, 5), (two, 6)):
        assert at_once_or_later(store.attempt(welcomed("known"), NOW + later + 0.3)).welcome
    assert not at_once_or_later(one.attempt(welcomed("known"), NOW + 602)).welcome
    assert not at_once_or_later(two.attempt(welcomed("known"), NOW + 602)).welcome


def test_an_attempt_whose_proxy_was_killed_ends_by_itself(shared: RedisServer, make: Make) -> None:
    one, two = make(shared.url, prefix="orphan:"), make(shared.url, prefix="orphan:")
    well(one, two)
    for _ in range(5):
        attempt(one)
    one.stop()
    assert attempt(two).fate is Fate.HELD
    assert attempt(two, now=NOW + store_module.PATIENCE + 1).fate is Fate.FLIES


# --- TLS and passwords ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@contextmanager
def with_tls(certificates: Certificates, *options: str) -> Iterator[tuple[RedisServer, str]]:
    port = free_port()
    tls = {
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-auth-clients": "no",
        "tls-cert-file": str(certificates.server),
        "tls-key-file": str(certificates.server_key),
        "tls-ca-cert-file": str(certificates.authority),
    }
    words = [word for name, value in tls.items() for word in (f"--{name}", value)]
    with running_redis(*words, *options) as server:
        yield server, f"rediss://127.0.0.1:{port}/3"


def test_tls_and_a_password(certificates: Certificates, make: Make, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("a secret\n")
    with with_tls(certificates, "--requirepass", "a secret") as (server, url):
        more = {"ca": str(certificates.authority), "password_file": str(password)}
        one, two = make(url, **more), make(server.url, password_file=str(password))
        well(one, two)
        fail(one)
        # Another database; but what is pushed is heard in all.
        assert fail(two) == 1
        one.ban(ban(), NOW)
        until(lambda: len(two.bans(NOW)) == 1, "the ban is heard")


def test_a_server_that_cannot_prove_its_name_is_not_asked(
    certificates: Certificates, make: Make, said: list[str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Certificates.made_in(other)
    with with_tls(certificates) as (_, url):
        for ca, host in ((stranger, "127.0.0.1"), (certificates, "localhost")):
            said.clear()
            store = make(url.replace("127.0.0.1", host), ca=str(ca.authority))
            until(lambda: bool(said), "it is said")
            assert "certificate" in said[0].lower() or "verif" in said[0].lower()
            assert not store.well
            store.stop()


def test_a_wrong_password_is_said_without_it(make: Make, tmp_path: Path, said: list[str]) -> None:
    password = tmp_path / "password"
    password.write_text("a wrong secret\n")
    with running_redis("--requirepass", "a secret") as server:
        store = make(server.url, password_file=str(password))
        until(lambda: bool(said), "it is said")
        assert "refuses the user name or the password" in said[0]
        assert "secret" not in said[0]
        # Mended, it is taken up without a restart.
        password.write_text("a secret\n")
        well(store)


def test_a_user_of_the_access_list(
    make: Make, tmp_path: Path, server: RedisServer, said: list[str]
) -> None:
    password = tmp_path / "password"
    password.write_text("a secret")
    server.ask("ACL", "SETUSER", "proxy", "on", ">a secret", *documented_rights())
    store = make(server.url, username="proxy", password_file=str(password))
    well(store)
    attempt(store)
    store.ban(ban(), NOW)
    until(lambda: not store._untold and not store._telling, "the ban is told")
    assert not store.counts["redis_failed"]
    assert said == []


def documented_rights() -> list[str]:
    """What the chapter says that a user of the proxies' own needs."""
    text = (Path(__file__).parents[3] / "docs" / "policy.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"`ACL SETUSER proxy on >PASSWORD ([^`]+)`", text)
    return str(rights).split()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"\n", "one line"), (b"x" * 5000, "one line"), (b"\xff", "UTF-8")],
)
def test_a_password_file_that_is_none_is_said(
    make: Make, tmp_path: Path, said: list[str], content: bytes | None, complaint: str
) -> None:
    password = tmp_path / "password"
    if content is not None:
        password.write_bytes(content)
    make(f"unix://{tmp_path}/nobody", password_file=str(password))
    until(lambda: bool(said), "it is said")
    assert complaint in said[0]
    assert "xxx" not in said[0]


# --- the configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"url": "redis://bob:secret@host"}, "password_file"),
        ({"url": "http://host"}, "must begin with redis://"),
        ({"url": "redis://"}, "must begin with redis://"),
        ({"url": "redis://host:port"}, "is no URL"),
        ({"url": "redis://host/zero"}, "database's number"),
        ({"url": "redis://host?db=1"}, "leave out"),
        ({"url": "unix://relative"}, "must name a socket"),
        ({"url": "redis://host", "ca": "x"}, "rediss://"),
        ({"url": "redis://host", "username": "x"}, "needs a password_file"),
        ({"url": "redis://host", "time_limit": 0}, "greater than"),
        ({"url": "redis://host", "prefix": ""}, "1 to 64 letters"),
        ({"url": "redis://host", "prefix": "p" * 65}, "1 to 64 letters"),
        ({"url": "redis://host", "prefix": "a}b:"}, 'no hash tag; write it like "pop3proxy:"'),
        ({"url": "redis://host", "prefix": "a{}:"}, "no hash tag"),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        PolicyRedis.model_validate(table)


def test_sharing_needs_a_key_and_no_snapshot() -> None:
    redis = {"url": "redis://host"}
    with pytest.raises(ValidationError, match="needs a fingerprint_key"):
        Policy.model_validate({"redis": redis})
    with pytest.raises(ValidationError, match="snapshot"):
        Policy.model_validate({"redis": redis, "fingerprint_key": KEY, "snapshot": "x"})


def test_without_txredisapi_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "txredisapi", None)
    for module in (link_module, store_module):
        monkeypatch.delitem(sys.modules, module.__name__)
    redis = {"url": "redis://host"}
    policy = Policy.model_validate({"redis": redis, "fingerprint_key": KEY})
    with pytest.raises(PolicyUnusable, match=r"pop3proxy\[redis\]"):
        FailedLogins(policy)
    # A replay asks no Redis, and needs none of it.
    FailedLogins(policy, live=False)
