"""Names of keys: of one slot of a cluster, those of former versions, and data that is lost under them."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.hooks.policy.redis import former as former_module
from pop3proxy.hooks.policy.redis.former import FormerNames
from pop3proxy.hooks.policy.redis.names import tagged
from pop3proxy.hooks.policy.redis.store import RedisStore
from pop3proxy.hooks.policy.store import Attempt, Ban, Fate, Settlement
from tests.integration.processes import eventually, free_port

from .redisserver import SERVERS, RedisServer, at_once_or_later, running_redis, wait
from .test_redis import Make, charge, make, said, settled, trying, until, well

WAITS = True

__all__ = ["make", "said"]

NOW = time.time()


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test now: Redis lets things expire by its own clock."""
    monkeypatch.setitem(globals(), "NOW", time.time())


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running_redis(program=request.param) as server:
        yield server


def ban(key: str = "address:192.0.2.1") -> Ban:
    return Ban(key, "rule", NOW, NOW + 600, 2, ("because", "again"))


def record(ban: Ban) -> str:
    return json.dumps(
        ["ban", ban.key, ban.rule, ban.since, ban.until, ban.times, list(ban.evidence)]
    )


def flown(store: RedisStore, welcome: str = "") -> Attempt:
    """Let an attempt fly."""
    one = trying(charge(), charge("d")._replace(member="member", kind=0), welcome=welcome)
    one = one._replace(flight=one.flight._replace(at=NOW))
    answer = at_once_or_later(store.attempt(one, NOW))
    assert answer.fate is Fate.FLIES
    assert answer.welcome is bool(welcome)
    return one


def told(store: RedisStore) -> None:
    until(lambda: not store._untold and not store._telling, "all is told")


def names(server: RedisServer) -> list[str]:
    return re.findall(r"\r\n(\S*pop3proxy\S*)", server.ask("KEYS", "*").decode())


# --- a cluster --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "begins"),
    [
        ("pop3proxy:", b"{pop3proxy:}"),
        ("a{b}c:", b"a{b}c:"),
        ("{x}", b"{x}"),
        ("\udcff", b"{\xff}"),
    ],
)
def test_a_prefix_becomes_a_hash_tag_unless_it_has_one(prefix: str, begins: bytes) -> None:
    assert tagged(prefix) == begins


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A cluster of one node: it refuses calls whose keys are of several slots."""
    # Without its own the port of the cluster's bus would be 10,000 higher, and there may be none.
    ports = ("--port", str(free_port()), "--cluster-port", str(free_port()))
    options = ("--cluster-enabled", "yes", *ports)
    with running_redis(*options, program=request.param) as server:
        assert server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"
        eventually(lambda: b"cluster_state:ok" in server.ask("CLUSTER", "INFO"), "it is up")
        yield server


def test_all_that_is_done_goes_on_in_a_cluster(
    cluster: RedisServer, make: Make, said: list[str]
) -> None:
    one, two = make(cluster.url), make(cluster.url)
    well(one, two)
    flights = [flown(each) for each in (one, two, one)]
    what = Settlement(
        flights[0].flight,
        charges=flights[0].charges,
        marks=(("known", 600.0), ("home", 600.0)),
        cleared=("x",),
        home="home",
    )
    assert settled(one, what, NOW).home
    two.announced(flights[1].flight, 10.0)
    flown(two, "known")
    one.ban(ban(), NOW)
    until(lambda: bool(two.bans(NOW)), "the ban is heard")
    two.unban(ban().key, ["k"], NOW + 60, NOW)
    until(lambda: not one.bans(NOW), "its end is heard")
    told(two)
    again = settled(one, Settlement(charges=(charge(),)), NOW)
    assert again.tallies[0].counts == (1,)
    three = make(cluster.url)
    well(three)
    assert three.in_grace(ban().key, NOW + 59)
    slots = {cluster.ask("CLUSTER", "KEYSLOT", name) for name in names(cluster)}
    assert len(slots) == 1
    assert said == []
    assert not any(each.counts["redis_failed"] for each in (one, two))


# --- names of former versions -----------------------------------------------------------------------------


@pytest.fixture
def former(server: RedisServer, make: Make) -> Callable[[], None]:
    """Have the server hold what a former version would: two bans, a welcome, and a count."""

    def fill() -> None:
        store = make(server.url)
        well(store)
        store.ban(ban(), NOW)
        store.ban(ban("user:bob"), NOW)
        told(store)
        settled(store, Settlement(marks=(("known", 600.0),)), NOW)
        flown(store)
        store.stop()
        for name in names(server):
            server.ask("RENAME", name, name.replace("{", "").replace("}", ""))

    return fill


def test_bans_and_welcomes_of_former_versions_are_read_once_and_said(
    server: RedisServer, make: Make, former: Callable[[], None]
) -> None:
    former()
    before = [name for name in names(server) if name.startswith("pop3proxy:")]
    with capturedLogs() as logged:
        store = make(server.url)
        well(store)
    lines = [formatEvent(event) for event in logged]
    assert (
        "read under the names of former versions: 2 bans and 1 welcomes; counts begin again"
    ) in lines
    assert {each.key for each in store.bans(NOW)} == {ban().key, "user:bob"}
    flown(store, "known")
    # They end when they did, and proxies of the former version still have theirs.
    assert 0 < int(server.ask("TTL", "{pop3proxy:}bans")[1:]) <= 31 * 86400
    assert set(before) <= set(names(server))
    # Another proxy reads what is there now, and not the former names again.
    store.unban(ban().key, [], NOW, NOW)
    told(store)
    with capturedLogs() as logged:
        two = make(server.url)
        well(two)
    assert not [each for each in map(formatEvent, logged) if "former" in str(each)]
    assert [each.key for each in two.bans(NOW)] == ["user:bob"]


def test_welcomes_of_former_versions_are_read_page_by_page(
    server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(former_module, "PAGE", 10)
    for number in range(95):
        server.ask("SET", f"odd[?*:m:{number}", str(NOW + 600), "EX", "600")
    server.ask("SET", "oddx?:m:stranger", "1")
    with capturedLogs() as logged:
        well(make(server.url, prefix="odd[?*:"))
    assert any("0 bans and 95 welcomes" in str(formatEvent(event)) for event in logged)
    assert server.ask("EXISTS", "{odd[?*:}m:94", "{oddx?:}m:stranger") == b":1\r\n"
    assert int(server.ask("TTL", "{odd[?*:}m:94")[1:]) > 0


def test_a_prefix_that_was_a_hash_tag_has_no_former_names(server: RedisServer, make: Make) -> None:
    server.ask("HSET", "{x}bans", ban().key, record(ban()))
    store = make(server.url, prefix="{x}")
    well(store)
    assert store.bans(NOW) == [ban()]


def test_a_user_without_rights_to_former_names_goes_on_without_them(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    server.ask("SET", "pop3proxy:bans", "x")
    server.ask("ACL", "SETUSER", "default", "resetkeys", "~{pop3proxy:}*")
    store = make(server.url)
    with capturedLogs() as logged:
        well(store)
    flown(store)
    assert any("former versions are not read: its" in str(formatEvent(each)) for each in logged)
    assert said == []


def test_former_names_are_not_looked_for_where_there_can_be_none() -> None:
    class Nothing:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    names = FormerNames(b"{x}", b"{x}", lambda answer: answer)
    with pytest.raises(StopIteration) as ended:
        names.read(Nothing()).send(None)  # type: ignore[arg-type]  # no link is needed
    assert ended.value.value is None


# --- data that is lost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_data_that_is_lost_is_noticed_and_bans_are_told_again(
    server: RedisServer, make: Make, said: list[str], command: str
) -> None:
    one, two = make(server.url), make(server.url)
    well(one, two)
    one.ban(ban(), NOW)
    two.ban(ban("user:bob"), NOW)
    until(lambda: len(one.bans(NOW)) == len(two.bans(NOW)) == 2, "both are heard")
    told(one)
    told(two)
    server.ask(command)
    until(lambda: one.counts["redis_data_lost"] == two.counts["redis_data_lost"] == 1, "noticed")
    until(lambda: server.ask("HLEN", "{pop3proxy:}bans") == b":2\r\n", "the bans are told")
    told(one)
    told(two)
    # All went on, and it is said once by each.
    assert one.counts["redis_outages"] == two.counts["redis_outages"] == 0
    assert len(one.bans(NOW)) == len(two.bans(NOW)) == 2
    assert len(said) == 2
    assert "has lost its data; it is told again of 2 bans, and counts begin again" in said[0]
    three = make(server.url)
    well(three)
    assert {each.key for each in three.bans(NOW)} == {ban().key, "user:bob"}


def test_data_that_is_there_is_not_told_again(server: RedisServer, make: Make) -> None:
    store = make(server.url)
    well(store)
    store.ban(ban(), NOW)
    told(store)
    seen = store._beats
    until(lambda: store._beats > seen + 3, "it is looked at")
    assert store.counts["redis_data_lost"] == 0
    wait(store.state(True))
