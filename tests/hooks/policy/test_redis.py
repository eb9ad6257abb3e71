"""What only the store in Redis does: it is shared, and goes on alone when Redis is not well."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from pop3proxy.hooks.policy.store import Answer, Attempt, Ban, Charge, Settlement, Window
from tests.integration.certificates import Certificates
from tests.integration.processes import free_port

from .redisserver import (
    KEY,
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


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test now: Redis lets things expire by its own clock, and this may be read long before."""
    monkeypatch.setitem(globals(), "NOW", time.time())


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """A server that no test harms."""
    with running_redis() as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of a test's own."""
    with running_redis() as server:
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
    return Charge(key, WINDOWS, enforced=True)


def attempt(store: RedisStore, *charges: Charge, now: float | None = None) -> Answer:
    at = NOW if now is None else now
    answer = at_once_or_later(store.attempt(Attempt(charges or (charge(),)), at))
    assert isinstance(answer, Answer)
    return answer


def ban(key: str = "address:192.0.2.1", seconds: float = 600) -> Ban:
    return Ban(key, "rule", NOW, NOW + seconds, 2, ("because", "again"))


# --- shared -----------------------------------------------------------------------------------------------


def test_two_proxies_count_together(shared: RedisServer, make: Make) -> None:
    one, two = make(shared.url, prefix="together:"), make(shared.url, prefix="together:")
    well(one, two)
    refused = [attempt(store).refused for store in (one, two) * 4]
    assert refused == [False] * 5 + [True] * 3


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
    attempt(two)
    assert one.unban(ban().key, ["k"], NOW + 500, NOW)
    until(lambda: two.ban_of([ban().key], NOW) is None, "the ban ends on the other")
    past = two.past(ban().key, NOW)
    assert past is not None
    assert (past.times, past.evidence[-1]) == (0, "removed at another proxy")
    assert two.in_grace(ban().key, NOW + 499)
    assert attempt(two).tallies[0].counts == (1,)
    two_alone = two.memory.attempt(Attempt((charge(),)), NOW)
    assert isinstance(two_alone, Answer)
    assert two_alone.tallies[0].counts == (2,)


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
    attempt(one)
    assert attempt(two).tallies[0].counts == (1,)
    until(lambda: not one._untold and not one._telling, "the ban is told")
    three = make(shared.url, prefix="b:")
    well(three)
    assert three.bans(NOW) == []


def test_everything_in_redis_ends_by_itself_and_names_nobody(
    server: RedisServer, make: Make
) -> None:
    store = make(server.url)
    well(store)
    member = Charge("~r|user:bob", WINDOWS, "password-hash", enforced=True)
    charges = (charge("r|user:bob"), member)
    attempt(store, *charges)
    attempt(store, *charges)
    settled = Settlement(NOW, kept=charges, marks=(("known|bob", 600.0),), home="home|bob")
    at_once_or_later(store.settle(settled, NOW))
    store.ban(ban(), NOW)
    until(lambda: not store._untold and not store._telling, "the ban is told")
    keys = [
        line for line in server.ask("KEYS", "*").split(b"\r\n") if line.startswith(b"pop3proxy:")
    ]
    assert len(keys) == 7  # two of a plain count, one of a distinct, a mark, three of bans
    for key in keys:
        assert int(server.ask("TTL", key.decode())[1:]) > 0, key
        assert b"bob" not in key
    assert b"password-hash" not in server.ask("KEYS", "*")


def test_counts_need_the_same_key(shared: RedisServer, make: Make) -> None:
    one = make(shared.url, prefix="keys:")
    two = make(shared.url, {"fingerprint_key": KEY + "!"}, prefix="keys:")
    well(one, two)
    attempt(one)
    assert attempt(two).tallies[0].counts == (1,)


def test_one_decision_is_one_round_trip(server: RedisServer, make: Make) -> None:
    store = make(server.url, probe_interval=60)
    well(store)
    attempt(store)  # this one brings the script
    before = _commands(server)
    attempt(store, charge("a"), charge("b"), Charge("c", WINDOWS, "m"))
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
    attempt(store)
    server.ask("SCRIPT", "FLUSH")
    assert attempt(store).tallies[0].counts == (2,)
    assert not store.counts["redis_failed"]


def test_what_others_write_under_the_prefix_is_counted_and_harms_nobody(
    server: RedisServer, make: Make
) -> None:
    rubbish = ["", "[", "[]", "{}", "[1]", '["x", "ban"]', '["x", "sing", "k"]', "9" * 5000, "\\"]
    rubbish += ['["x", "ban", "k", "r", 0, 1e300, 1, []]', '["x", "unban", "k", -1, []]']
    for number, text in enumerate(rubbish):
        server.ask("HSET", "pop3proxy:bans", str(number), text)
    store = make(server.url)
    well(store)
    for text in rubbish:
        server.ask("PUBLISH", "pop3proxy:bans", text)
    until(lambda: store.counts["redis_malformed"] >= 2 * len(rubbish) - 1, "all rubbish is counted")
    assert store.bans(NOW) == []
    assert attempt(store).charged


# --- when Redis is not well -------------------------------------------------------------------------------


def test_a_frozen_redis_delays_a_decision_by_the_time_limit_once(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url, **QUICK)
    well(store)
    for _ in range(3):
        attempt(store)
    server.freeze()
    answers = [store.attempt(Attempt((charge(),)), NOW) for _ in range(4)]
    decided = [at_once_or_later(answer) for answer in answers]
    # What this proxy had counted with Redis holds without it.
    assert [answer.refused for answer in decided] == [False, False, True, True]
    assert store.counts["redis_slow"] >= 1
    # From now on nobody waits.
    assert isinstance(store.attempt(Attempt((charge(),)), NOW), Answer)
    assert isinstance(store.settle(Settlement(NOW, kept=(charge(),)), NOW), Answer)
    assert store.counts["redis_alone"] == 2
    assert len(said) == 1
    assert "not asked any more: no answer in time" in said[0]
    server.thaw()
    well(store)
    assert store.counts["redis_outages"] == 1


def test_what_a_frozen_redis_charges_too_late_is_taken_back(
    server: RedisServer, make: Make
) -> None:
    store = make(server.url, probe_interval=0.01, time_limit=0.05)
    other = make(server.url)
    well(store, other)
    server.freeze()
    both = [store.attempt(Attempt((charge(key),)), NOW) for key in ("k", "b")]
    assert all(at_once_or_later(each).charged for each in both)
    server.thaw()
    well(store)
    until(lambda: store.counts["redis_taken_back"] == 2, "late charges are taken back")
    until(lambda: not store._asked, "and Redis has it")
    assert attempt(other).tallies[0].counts == (1,)
    assert attempt(other, charge("b")).tallies[0].counts == (1,)


def test_whoever_leaves_while_redis_is_asked_is_not_charged(
    shared: RedisServer, make: Make
) -> None:
    store = make(shared.url, prefix="leaves:")
    well(store)
    asked = store.attempt(Attempt((charge(),)), NOW)
    assert isinstance(asked, Deferred)
    failed: list[Any] = []
    asked.addErrback(failed.append)
    asked.cancel()
    assert len(failed) == 1
    until(lambda: store.counts["redis_taken_back"] == 1, "it is taken back")
    assert attempt(store).tallies[0].counts == (1,)


def test_a_killed_redis_is_not_asked_and_takes_part_when_it_is_back(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url)
    well(store)
    attempt(store)
    store.ban(ban("address:192.0.2.1"), NOW)
    until(lambda: not store._untold and not store._telling, "the ban is told")
    server.kill()
    wait(store.state(False))
    answer = store.attempt(Attempt((charge(),)), NOW)
    assert isinstance(answer, Answer)
    assert answer.tallies[0].counts == (2,)
    # Bans that were there stay, and new ones are told when it is back, though it has lost all.
    store.ban(ban("address:192.0.2.2"), NOW)
    assert len(store.bans(NOW)) == 2
    server.start()
    well(store)
    assert attempt(store).tallies[0].counts == (1,)
    other = make(server.url)
    well(other)
    until(lambda: len(other.bans(NOW)) == 2, "another proxy has both")
    assert len(said) == 1


def test_a_ban_that_another_ended_while_the_connection_was_lost_ends_here_too(
    server: RedisServer, make: Make
) -> None:
    one, two = make(server.url), make(server.url, probe_interval=0.2)
    well(one, two)
    one.ban(ban(), NOW)
    one.ban(ban("address:192.0.2.9"), NOW)
    until(lambda: len(two.bans(NOW)) == 2, "both are heard")
    assert two._link is not None
    two._link.abort()
    wait(two.state(False))
    one.unban(ban().key, [], NOW, NOW)
    # A record that was forgotten is no longer there at all.
    server.ask("HDEL", "pop3proxy:bans", "address:192.0.2.9")
    until(lambda: not one._untold and not one._telling, "the end is told")
    well(two)
    assert two.bans(NOW) == []


def test_no_login_fails_or_waits_in_vain_while_redis_is_frozen_killed_and_started_again(
    server: RedisServer, make: Make, said: list[str]
) -> None:
    store = make(server.url, probe_interval=0.02, connect_limit=0.3, **QUICK)
    well(store)
    numbers = iter(range(10**9))
    done: list[Answer] = []
    going = True

    async def logins() -> None:
        """Log in again and again, each as a user of its own, as a client behind the proxy does."""
        while going:
            mine = (charge(f"user{next(numbers)}"),)
            for asked in (
                store.attempt(Attempt(mine), NOW),
                store.settle(Settlement(NOW, refunded=mine, home="h"), NOW),
            ):
                answer = await asked if isinstance(asked, Deferred) else asked
                assert not answer.refused
            done.append(answer)
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
    asked = [store.attempt(Attempt((charge(str(n)),)), NOW) for n in range(8)]
    assert [isinstance(each, Deferred) for each in asked] == [True] * 5 + [False] * 3
    assert store.counts["redis_full"] == 3
    server.thaw()
    assert all(at_once_or_later(each).charged for each in asked)


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
    assert answer.charged
    assert not store.well
    assert "maxmemory" in said[0]


def test_answers_that_make_no_sense_are_not_believed(
    shared: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "COUNTS", b"return {0, 0, 0, 1}")
    store = make(shared.url, prefix="senseless:", probe_interval=60)
    well(store)
    assert attempt(store).tallies[0].counts == (1,)
    assert not store.well
    assert store.counts["redis_failed"] == 1


def test_a_redis_that_is_not_there_delays_nobody(
    make: Make, tmp_path: Path, said: list[str]
) -> None:
    store = make(f"unix://{tmp_path}/nobody")
    assert isinstance(store.attempt(Attempt((charge(),)), NOW), Answer)
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
    assert attempt(store).charged


def test_who_is_welcome_by_another_proxy_stays_so_without_redis(
    server: RedisServer, make: Make
) -> None:
    one, two = make(server.url), make(server.url)
    well(one, two)
    at_once_or_later(one.settle(Settlement(NOW, marks=(("known", 600.0), ("home", 600.0))), NOW))
    at_once_or_later(two.attempt(Attempt((), "known"), NOW))
    at_once_or_later(two.settle(Settlement(NOW, home="home"), NOW))
    server.kill()
    wait(two.state(False))
    answer = two.attempt(Attempt((), "known"), NOW + 599)
    assert isinstance(answer, Answer)
    assert answer.welcome
    answer = two.settle(Settlement(NOW, home="home"), NOW + 599)
    assert isinstance(answer, Answer)
    assert answer.home


def test_who_is_welcome_stays_so_when_redis_has_lost_its_data(
    server: RedisServer, make: Make
) -> None:
    one, two = make(server.url), make(server.url)
    well(one, two)
    at_once_or_later(one.settle(Settlement(NOW, marks=(("known", 600.0), ("home", 600.0))), NOW))
    server.ask("FLUSHALL")
    assert at_once_or_later(one.attempt(Attempt((), "known"), NOW + 1)).welcome
    assert at_once_or_later(one.settle(Settlement(NOW, home="home"), NOW + 1)).home
    # And the others hear it from Redis again; it does not last longer for that.
    for store, later in ((two, 2), (one, 3), (two, 4), (one, 5), (two, 6)):
        assert at_once_or_later(store.attempt(Attempt((), "known"), NOW + later + 0.3)).welcome
    assert not at_once_or_later(one.attempt(Attempt((), "known"), NOW + 602)).welcome
    assert not at_once_or_later(two.attempt(Attempt((), "known"), NOW + 602)).welcome


def test_an_attempt_whose_proxy_was_killed_ends_by_itself(shared: RedisServer, make: Make) -> None:
    one, two = make(shared.url, prefix="orphan:"), make(shared.url, prefix="orphan:")
    well(one, two)
    for _ in range(5):
        attempt(one)
    one.stop()
    assert attempt(two).refused
    assert not attempt(two, now=NOW + store_module.PATIENCE * 1.2).refused


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
        attempt(one)
        # Another database; but what is pushed is heard in all.
        assert attempt(two).tallies[0].counts == (1,)
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
        assert "refuses the login" in said[0]
        assert "secret" not in said[0]
        # Mended, it is taken up without a restart.
        password.write_text("a secret\n")
        well(store)


def test_a_user_of_the_access_list(make: Make, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("a secret")
    with running_redis() as server:
        rights = ("~pop3proxy:*", "&pop3proxy:*", *DOCUMENTED_RIGHTS)
        server.ask("ACL", "SETUSER", "proxy", "on", ">a secret", *rights)
        store = make(server.url, username="proxy", password_file=str(password))
        well(store)
        attempt(store)
        store.ban(ban(), NOW)
        until(lambda: not store._untold and not store._telling, "the ban is told")
        assert not store.counts["redis_failed"]


DOCUMENTED_RIGHTS = ["+@read", "+@write", "+@pubsub", "+@scripting", "+@connection"]


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
        ({"url": "redis://host", "prefix": ""}, "at least 1"),
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
