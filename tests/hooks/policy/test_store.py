"""What any store of counts and bans does; further stores take part by a row in `STORES`."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import (
    BUCKETS,
    Answer,
    Attempt,
    Ban,
    Charge,
    Settlement,
    Store,
    Window,
)

from .redisserver import STORES as REDIS
from .redisserver import at_once_or_later

WAITS = True

NOW = 1_764_000_000.0

STORES: dict[str, Callable[[], Store]] = {
    "memory": lambda: MemoryStore(1000, 100, 1000.0),
    "redis": REDIS,
}

WINDOWS = (Window(60.0, 3), Window(3600.0, 5))


@pytest.fixture(scope="module", autouse=True)
def _redis_ends() -> Iterator[None]:
    yield
    REDIS.end()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    return STORES[request.param]()


def got(answer: object) -> Answer:
    """Return an answer that is there at once, or comes."""
    found = at_once_or_later(answer)
    assert isinstance(found, Answer)
    return found


def plain(key: str = "k", enforced: bool = True, waived: bool = True) -> Charge:
    return Charge(key, WINDOWS, enforced=enforced, waived=waived)


def distinct(member: str, enforced: bool = True) -> Charge:
    return Charge("d", WINDOWS, member, enforced)


def attempt(store: Store, charge: Charge, now: float = NOW, welcome: str = "") -> Answer:
    return got(store.attempt(Attempt((charge,), welcome), now))


def test_attempts_up_to_the_limit_are_charged_and_no_more(store: Store) -> None:
    answers = [attempt(store, plain()) for _ in range(6)]
    assert [answer.refused for answer in answers] == [False] * 3 + [True] * 3
    assert [answer.charged for answer in answers] == [True] * 3 + [False] * 3
    assert answers[-1].tallies[0].counts == (4, 4)
    assert answers[-1].tallies[0].pending == 4


def test_each_window_has_its_limit(store: Store) -> None:
    # Three, and two more when the minute has gone by: the hour holds no sixth.
    for now in (NOW, NOW, NOW, NOW + 120, NOW + 120):
        assert not attempt(store, plain(), now).refused
    assert attempt(store, plain(), NOW + 240).refused
    assert not attempt(store, plain(), NOW + 3600 * 1.1 + 240).refused


def test_a_refund_makes_room(store: Store) -> None:
    for _ in range(3):
        attempt(store, plain())
    store.settle(Settlement(NOW, refunded=(plain(),)), NOW + 1)
    assert not attempt(store, plain(), NOW + 1).refused
    assert attempt(store, plain(), NOW + 1).refused


def test_what_is_kept_is_pending_no_longer(store: Store) -> None:
    attempt(store, plain())
    attempt(store, plain())
    answer = got(store.settle(Settlement(NOW, kept=(plain(),)), NOW + 1))
    assert (answer.tallies[0].counts, answer.tallies[0].pending) == ((2, 2), 1)


def test_different_members_are_counted_once_each(store: Store) -> None:
    for member in ("a", "b", "a", "c", "a"):
        assert not attempt(store, distinct(member)).refused
    assert attempt(store, distinct("d")).refused
    assert not attempt(store, distinct("b")).refused


def test_members_age(store: Store) -> None:
    for member in "abc":
        attempt(store, distinct(member))
    assert attempt(store, distinct("d"), NOW + 59).refused
    answer = attempt(store, distinct("d"), NOW + 61)
    assert not answer.refused
    assert answer.tallies[0].counts == (1, 4)


def test_a_member_that_failed_before_is_not_refunded(store: Store) -> None:
    attempt(store, distinct("a"))
    store.settle(Settlement(NOW, kept=(distinct("a"),)), NOW)
    attempt(store, distinct("a"))
    store.settle(Settlement(NOW, refunded=(distinct("a"),)), NOW)
    assert attempt(store, distinct("b")).tallies[0].counts == (2, 2)


def test_a_member_that_waits_is_refunded(store: Store) -> None:
    attempt(store, distinct("a"))
    store.settle(Settlement(NOW, refunded=(distinct("a"),)), NOW)
    assert attempt(store, distinct("b")).tallies[0].counts == (1, 1)


def test_no_more_members_are_kept_than_the_highest_limit_asks_for(store: Store) -> None:
    for number in range(50):
        answer = attempt(store, distinct(str(number), enforced=False))
    assert answer.tallies[0].counts[1] <= WINDOWS[1].limit + 2
    answer = got(store.settle(Settlement(NOW, kept=(distinct("49"),)), NOW))
    assert answer.tallies[0].counts == (6, 6)


def test_nothing_is_charged_where_one_limit_refuses(store: Store) -> None:
    for _ in range(3):
        attempt(store, plain("full"))
    answer = got(store.attempt(Attempt((plain("empty"), plain("full"))), NOW))
    assert answer.refused
    assert attempt(store, plain("empty")).tallies[0].counts == (1, 1)


def test_who_is_welcome_is_not_refused_by_what_is_waived(store: Store) -> None:
    store.settle(Settlement(NOW, marks=(("known", 100.0),)), NOW)
    for _ in range(3):
        attempt(store, plain())
    assert not attempt(store, plain(), welcome="known").refused
    assert attempt(store, plain(waived=False), welcome="known").refused
    assert attempt(store, plain(), NOW + 3, welcome="other").refused
    assert attempt(store, plain(), NOW + 3, welcome="known").welcome
    assert not attempt(store, plain(), NOW + 101, welcome="known").welcome


def test_home_is_a_mark_too(store: Store) -> None:
    assert not got(store.settle(Settlement(NOW, home="h"), NOW)).home
    assert got(store.settle(Settlement(NOW, marks=(("h", 10.0),), home="h"), NOW)).home


def test_a_repetition_charges_nothing(store: Store) -> None:
    repeat = Charge("r", (Window(100.0, 1),))
    first = got(store.attempt(Attempt((plain(),), repeat=repeat), NOW))
    assert (first.repeats, first.charged) == (0, True)
    store.settle(Settlement(NOW, kept=(plain(),), charges=(repeat,)), NOW)
    again = got(store.attempt(Attempt((plain(),), repeat=repeat), NOW))
    assert (again.repeats, again.charged, again.refused) == (1, False, False)
    assert attempt(store, plain()).tallies[0].counts == (2, 2)


def test_what_is_cleared_begins_anew(store: Store) -> None:
    attempt(store, plain())
    store.settle(Settlement(NOW, cleared=("k",)), NOW)
    assert attempt(store, plain()).tallies[0].counts == (1, 1)


# --- bans -------------------------------------------------------------------------------------------------


def ban(key: str = "address:192.0.2.1", until: float = NOW + 100) -> Ban:
    return Ban(key, "rule", NOW, until, 1, ("because",))


def test_a_ban_is_in_force_until_its_end_and_remembered_after(store: Store) -> None:
    store.ban(ban(), NOW)
    assert store.ban_of(("x", ban().key), NOW + 99) == ban()
    assert store.bans(NOW + 99) == [ban()]
    assert store.ban_of((ban().key,), NOW + 100) is None
    assert store.bans(NOW + 100) == []
    assert store.past(ban().key, NOW + 1000) == ban()
    assert store.past(ban().key, NOW + 1101) is None


def test_an_unban_clears_counts_and_gives_grace(store: Store) -> None:
    store.ban(ban(), NOW)
    attempt(store, plain())
    assert store.unban(ban().key, ("k",), NOW + 50, NOW)
    assert store.ban_of((ban().key,), NOW) is None
    assert attempt(store, plain()).tallies[0].counts == (1, 1)
    assert store.in_grace(ban().key, NOW + 49)
    assert not store.in_grace(ban().key, NOW + 50)
    assert not store.unban(ban().key, (), NOW + 50, NOW)


# --- against plain models ---------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.floats(0, 40), st.sampled_from("abcdefgh")), min_size=1, max_size=60)


@pytest.mark.parametrize("kind", STORES)
@settings(deadline=None)  # a real Redis may be slow on a busy machine
@given(steps=STEPS)
def test_plain_counts_miss_nothing_of_their_window_and_hold_little_more(
    kind: str, steps: list[tuple[float, str]]
) -> None:
    store, now, times = STORES[kind](), NOW, []
    window = Window(60.0, 1)
    for step, _ in steps:
        now += step
        times.append(now)
        charge = Charge("k", (window,))
        (count,) = got(store.attempt(Attempt((charge,)), now)).tallies[0].counts
        least = sum(at > now - window.seconds for at in times)
        most = sum(at >= now - window.seconds * (1 + 1 / BUCKETS) for at in times)
        assert least <= count <= most


@pytest.mark.parametrize("kind", STORES)
@settings(deadline=None)  # a real Redis may be slow on a busy machine
@given(steps=STEPS)
def test_distinct_counts_are_exact_up_to_one_more_than_the_highest_limit(
    kind: str, steps: list[tuple[float, str]]
) -> None:
    store, now = STORES[kind](), NOW
    seen: dict[str, float] = {}
    windows = (Window(60.0, 3), Window(200.0, 6))
    for step, member in steps:
        now += step
        charge = Charge("d", windows, member)
        store.attempt(Attempt((charge,)), now)
        seen[member] = now
        counts = got(store.settle(Settlement(now, kept=(charge,)), now)).tallies[0].counts
        exact = (sum(at > now - window.seconds for at in seen.values()) for window in windows)
        assert counts == tuple(min(count, 7) for count in exact)


@pytest.mark.parametrize("kind", STORES)
@settings(deadline=None)  # a real Redis may be slow on a busy machine
@given(moves=st.lists(st.sampled_from(["attempt", "keep", "refund"]), max_size=60))
def test_no_order_of_answers_lets_more_through_than_the_limit(kind: str, moves: list[str]) -> None:
    store, waiting, failed = STORES[kind](), 0, 0
    for move in moves:
        if move == "attempt":
            refused = attempt(store, plain()).refused
            assert refused == (waiting + failed >= 3)
            waiting += not refused
        elif waiting:
            waiting -= 1
            failed += move == "keep"
            what = {"kept" if move == "keep" else "refunded": (plain(),)}
            store.settle(Settlement(NOW, **what), NOW)  # type: ignore[arg-type]


def test_what_is_only_asked_for_is_answered_behind_the_rest_and_stays_as_it_is(
    store: Store,
) -> None:
    def asked() -> Answer:
        return got(store.settle(Settlement(NOW, asked=(distinct("a"), plain())), NOW))

    assert [tally.counts for tally in asked().tallies] == [(0, 0), (0, 0)]
    added = Settlement(NOW, charges=(plain(),), asked=(distinct("a"),))
    assert [tally.counts for tally in got(store.settle(added, NOW)).tallies] == [(1, 1), (0, 0)]
    assert [tally.counts for tally in asked().tallies] == [(0, 0), (1, 1)]


def test_where_there_is_a_count_it_is_worth_asking(store: Store) -> None:
    if isinstance(store, MemoryStore):
        assert not store.may_hold("k")
    got(store.settle(Settlement(NOW, charges=(plain(),)), NOW))
    assert store.may_hold("k")
