"""What any store of counts, flights and bans does; further stores take part by a row in `STORES`."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import (
    BUCKETS,
    Answer,
    Attempt,
    Ban,
    Budget,
    Charge,
    Fate,
    Flight,
    Settled,
    Settlement,
    Store,
    Window,
)

from .redisserver import STORES as REDIS
from .redisserver import at_once_or_later, passes

WAITS = True

NOW = 1_764_000_000.0

STORES: dict[str, Callable[[], Store]] = {
    "memory": lambda: MemoryStore(1000, 100, 1000.0),
    **REDIS,
}

WINDOWS = (Window(60.0, 3), Window(3600.0, 5))

FLIES, REFUSED, HELD = Fate

IDS = count()


@pytest.fixture(scope="module", autouse=True)
def _redis_ends() -> Iterator[None]:
    yield
    for stores in REDIS.values():
        stores.end()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    return STORES[request.param]()


def plain(key: str = "k", enforced: bool = True, waived: bool = True) -> Charge:
    return Charge(key, WINDOWS, "", enforced, waived, f"at {key}", -1, 3)


def distinct(member: str, enforced: bool = True) -> Charge:
    return Charge("d", WINDOWS, member, enforced, True, "at d", 0, 3)


def trying(*charges: Charge, welcome: str = "") -> Attempt:
    places = tuple(dict.fromkeys(charge.place for charge in charges))
    member = next((charge.member for charge in charges if charge.member), "")
    return Attempt(Flight(f"F{next(IDS)}", NOW, (member,), places), charges, welcome)


def ask(store: Store, attempt: Attempt, now: float = NOW) -> Answer:
    """Ask about an attempt at a time."""
    attempt = attempt._replace(flight=attempt.flight._replace(at=now))
    answer = at_once_or_later(store.attempt(attempt, now))
    assert isinstance(answer, Answer)
    return answer


def settle(store: Store, settlement: Settlement, now: float = NOW) -> Settled:
    settled = at_once_or_later(store.settle(settlement, now))
    assert isinstance(settled, Settled)
    return settled


def fail(store: Store, charge: Charge, now: float = NOW) -> tuple[int, ...]:
    """Count a failure whose attempt was not seen; return how the count stands."""
    return settle(store, Settlement(charges=(charge,)), now).tallies[0].counts


def fate(store: Store, *charges: Charge, now: float = NOW, welcome: str = "") -> Fate:
    """Try something that stays in flight if it may."""
    return ask(store, trying(*charges, welcome=welcome), now).fate


# --- in flight --------------------------------------------------------------------------------------------


def test_attempts_up_to_the_limit_fly_and_further_ones_are_held(store: Store) -> None:
    assert [fate(store, plain()) for _ in range(5)] == [FLIES] * 3 + [HELD] * 2
    answer = ask(store, trying(plain("other"), plain()))
    assert (answer.fate, answer.held_by, answer.place) == (HELD, 1, "at k")
    assert answer.possible.counts == (4, 4)
    # In ten seconds those in flight are overdue; Redis may be asked before.
    assert NOW < answer.again <= NOW + 10
    # A held one is in flight nowhere.
    assert [fate(store, plain("other")) for _ in range(4)] == [FLIES] * 3 + [HELD]


def test_what_has_failed_refuses_and_what_may_yet_fail_holds(store: Store) -> None:
    for _ in range(2):
        fail(store, plain())
    flies = trying(plain())
    assert ask(store, flies).fate is FLIES
    assert fate(store, plain()) is HELD
    settle(store, Settlement(flies.flight, (plain(),)))
    answer = ask(store, trying(plain()))
    assert (answer.fate, answer.over[0].number) == (REFUSED, 0)
    assert answer.over[0].tally.counts == (4, 4)


def test_a_flight_that_ends_makes_room_and_those_who_wait_hear_of_it(store: Store) -> None:
    heard: list[str] = []
    store.on_settled = heard.extend
    flying = [trying(plain()) for _ in range(3)]
    for each in flying:
        ask(store, each)
    held = trying(plain())
    assert ask(store, held).fate is HELD
    settle(store, Settlement(flying[0].flight), NOW + 1)
    passes(lambda: "at k" in heard)
    assert ask(store, held, NOW + 1).fate is FLIES
    assert fate(store, plain(), now=NOW + 1) is HELD


def test_each_window_has_its_limit(store: Store) -> None:
    # Three, and two more when the minute has gone by: the hour holds no sixth.
    for now in (NOW, NOW, NOW, NOW + 120, NOW + 120):
        one = trying(plain())
        assert ask(store, one, now).fate is FLIES
        settle(store, Settlement(one.flight, (plain(),)), now)
    assert fate(store, plain(), now=NOW + 240) is REFUSED
    assert fate(store, plain(), now=NOW + 3600 * 1.1 + 240) is FLIES


def test_different_members_are_counted_once_each(store: Store) -> None:
    assert [fate(store, distinct(member)) for member in "abacad"] == [FLIES] * 5 + [HELD]
    assert fate(store, distinct("b")) is FLIES
    for member in "aab":
        fail(store, distinct(member))
    assert fail(store, distinct("c")) == (3, 3)
    assert fate(store, distinct("d")) is REFUSED
    assert fate(store, distinct("c")) is FLIES


def test_members_age(store: Store) -> None:
    for member in "abc":
        fail(store, distinct(member))
    assert fate(store, distinct("d"), now=NOW + 59) is REFUSED
    assert fate(store, distinct("d"), now=NOW + 61) is FLIES
    assert fail(store, distinct("e"), NOW + 61) == (1, 4)


def test_what_was_added_at_a_time_is_undone(store: Store) -> None:
    for now in (NOW, NOW + 30, NOW + 60):
        fail(store, plain(), now)
    undone = ((NOW, plain()), (NOW + 30, plain()))
    settled = settle(store, Settlement(charges=(plain(),), undone=undone), NOW + 60)
    assert settled.tallies[0].counts == (2, 2)


def test_nothing_is_undone_that_was_not_added(store: Store) -> None:
    fail(store, plain())
    undone = ((NOW + 1800, plain()), (NOW, plain("other")))
    settled = settle(store, Settlement(charges=(plain(),), undone=undone), NOW + 60)
    assert settled.tallies[0].counts == (2, 2)


def test_a_count_of_which_all_is_undone_is_none(store: Store) -> None:
    fail(store, plain())
    settle(store, Settlement(undone=((NOW, plain()), (NOW, plain()))))
    assert fail(store, plain()) == (1, 1)


def test_a_timed_count_says_when_each_member_was_last_seen(store: Store) -> None:
    def timed(member: str) -> Charge:
        return distinct(member)._replace(timed=True)

    for now, member in ((0, "a"), (30, "b"), (40, "a")):
        settle(store, Settlement(charges=(timed(member),)), NOW + now)
    settlement = Settlement(charges=(plain(), timed("c")), asked=(plain(), timed("c")))
    found = settle(store, settlement, NOW + 95).tallies
    assert [each.counts for each in found] == [(1, 1), (2, 3), (1, 1), (2, 3)]
    assert [sorted(each.ages) for each in found[::2]] == [[], []]
    assert [sorted(each.ages) for each in found[1::2]] == [pytest.approx([0, 55, 65])] * 2
    for number in range(20):
        settle(store, Settlement(charges=(timed(str(number)),)), NOW + 200 + number)
    (last,) = settle(store, Settlement(asked=(timed("c"),)), NOW + 300).tallies
    # No more of them than the highest limit asks for.
    assert sorted(last.ages) == pytest.approx([81, 82, 83, 84, 85, 86])


def test_no_more_members_are_kept_than_the_highest_limit_asks_for(store: Store) -> None:
    for number in range(50):
        counts = fail(store, distinct(str(number)))
    assert counts == (6, 6)


def test_an_attempt_flies_nowhere_where_one_limit_holds_it(store: Store) -> None:
    for _ in range(3):
        fate(store, plain("full"))
    for _ in range(5):
        assert fate(store, plain("empty"), plain("full")) is HELD
    assert [fate(store, plain("empty")) for _ in range(4)] == [FLIES] * 3 + [HELD]


def test_a_charge_that_is_not_enforced_only_says_that_it_is_over(store: Store) -> None:
    for _ in range(3):
        fail(store, plain())
    answer = ask(store, trying(plain(enforced=False)))
    assert (answer.fate, answer.over[0].number) == (FLIES, 0)


def test_welcome_clients_are_not_refused_or_held_by_what_is_waived(store: Store) -> None:
    settle(store, Settlement(marks=(("known", 100.0),)))
    for _ in range(3):
        fail(store, plain())
    assert fate(store, plain(), welcome="known") is FLIES
    assert fate(store, plain(waived=False), welcome="known") is REFUSED
    assert fate(store, plain(), now=NOW + 3, welcome="other") is REFUSED
    assert ask(store, trying(welcome="known"), NOW + 3).welcome
    assert not ask(store, trying(welcome="known"), NOW + 101).welcome
    for _ in range(3):
        fate(store, plain("held"))
    assert fate(store, plain("held"), welcome="known") is FLIES
    assert fate(store, plain("held")) is HELD


def slow(charge: Charge) -> Charge:
    """Let one attempt a hundred seconds through beyond the limit."""
    return charge._replace(trickle=100.0)


@pytest.mark.parametrize("different", [False, True], ids=["plain", "distinct"])
def test_beyond_the_limit_one_attempt_a_time_is_let_through(store: Store, different: bool) -> None:
    def charge(number: int) -> Charge:
        return slow(distinct(str(number)) if different else plain())

    for number in range(5):
        fail(store, charge(number))
    late = NOW + 30
    first = ask(store, trying(plain("other"), charge(5)), late)
    assert (first.fate, first.over, first.trickled) == (FLIES, (), (1,))
    # It is in flight, and has not failed; then it has, and the time runs since it took off.
    second = ask(store, trying(charge(6)), late)
    assert (second.fate, second.trickled, second.over[0].number) == (REFUSED, (), 0)
    fail(store, charge(5), late + 1)
    assert fate(store, charge(6), now=late + 99.9) is REFUSED
    assert ask(store, trying(charge(6)), late + 100).trickled == (0,)
    assert fate(store, charge(7), now=late + 101) is REFUSED


def test_a_clock_that_is_set_back_keeps_no_next_try_away(store: Store) -> None:
    for _ in range(5):
        fail(store, slow(plain()), NOW - 1000)
    assert ask(store, trying(slow(plain()))).trickled == (0,)
    assert ask(store, trying(slow(plain())), NOW - 10).trickled == (0,)
    assert fate(store, slow(plain()), now=NOW - 9) is REFUSED


def test_what_is_refused_or_held_elsewhere_leaves_the_next_try(store: Store) -> None:
    for _ in range(3):
        fail(store, slow(plain()))
        fail(store, plain("other"))
        fate(store, plain("full"))
    assert fate(store, slow(plain()), plain("other")) is REFUSED
    held = ask(store, trying(slow(plain()), plain("full")))
    assert (held.fate, held.held_by) == (HELD, 1)
    settle(store, Settlement(marks=(("known", 100.0),)))
    assert ask(store, trying(slow(plain()), welcome="known")).trickled == ()
    assert ask(store, trying(slow(plain()))).trickled == (0,)
    assert fate(store, slow(plain())) is REFUSED


def test_home_is_a_mark_too(store: Store) -> None:
    assert not settle(store, Settlement(home="h")).home
    assert settle(store, Settlement(marks=(("h", 10.0),), home="h")).home


def test_what_is_cleared_begins_anew(store: Store) -> None:
    fail(store, plain())
    assert settle(store, Settlement(cleared=("k",), charges=(plain(),))).tallies[0].counts == (1, 1)


# --- without an answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overdue_fail", "then"), [(True, REFUSED), (False, FLIES)])
@pytest.mark.parametrize("charge", [plain(), distinct("x")], ids=["plain", "distinct"])
def test_what_is_overdue_has_failed_or_counts_for_nothing(
    store: Store, charge: Charge, overdue_fail: bool, then: Fate
) -> None:
    flying = [trying(distinct(each) if charge.member else plain()) for each in "abc"]
    for each in flying:
        ask(store, each)
    another = trying(charge)._replace(overdue_fail=overdue_fail)
    assert ask(store, another, NOW + 9.9).fate is HELD
    assert ask(store, another, NOW + 10).fate is then
    if then is REFUSED:
        # Its answer takes the place of that.
        settle(store, Settlement(flying[0].flight), NOW + 11)
        assert ask(store, another, NOW + 11).fate is FLIES


def test_an_announced_failure_is_overdue_at_once_and_heard_of(store: Store) -> None:
    heard: list[str] = []
    store.on_settled = heard.extend
    flying = [trying(plain()) for _ in range(3)]
    for each in flying:
        ask(store, each)
    assert fate(store, plain(), now=NOW + 1) is HELD
    for each in flying:
        store.announced(each.flight, 10.0)
    passes(lambda: "at k" in heard)
    assert fate(store, plain(), now=NOW + 1) is REFUSED


def test_a_flight_that_has_ended_is_not_announced(store: Store) -> None:
    flying = trying(plain())
    ask(store, flying)
    settle(store, Settlement(flying.flight))
    store.announced(flying.flight, 10.0)
    assert [fate(store, plain()) for _ in range(4)] == [FLIES] * 3 + [HELD]


# --- the same password again ------------------------------------------------------------------------------


REPEAT = Charge("r", (Window(100.0, 1),))


def again(*charges: Charge) -> Attempt:
    one = trying(*charges)
    flight = one.flight._replace(places=(*one.flight.places, "try"))
    return one._replace(flight=flight, repeat=REPEAT, tries="try")


def test_one_password_is_in_flight_once(store: Store) -> None:
    first, second = again(plain()), again(plain())
    assert ask(store, first).fate is FLIES
    answer = ask(store, second)
    assert (answer.fate, answer.held_by, answer.place) == (HELD, -1, "try")
    settle(store, Settlement(first.flight))
    assert ask(store, second).fate is FLIES
    # One without an answer keeps none waiting for longer than that.
    assert ask(store, again(plain()), NOW + 9.9).fate is HELD
    assert ask(store, again(plain()), NOW + 10).fate is FLIES


def test_a_password_that_is_known_to_be_wrong_counts_nowhere_and_has_a_pace(store: Store) -> None:
    first, second = again(plain()), again(plain())
    assert ask(store, first).repeats == 0
    marks = (("try", 2.0),)
    settle(store, Settlement(first.flight, (plain(), REPEAT), marks=marks))
    answer = ask(store, second)
    assert (answer.fate, answer.repeats, answer.place) == (HELD, 1, "try")
    assert ask(store, second, NOW + 1.99).fate is HELD
    answer = ask(store, second, NOW + 2)
    assert (answer.fate, answer.repeats) == (FLIES, 1)
    assert ask(store, again(plain()), NOW + 2).fate is HELD
    # In flight it is for its like alone, and fails for nothing else.
    assert [fate(store, plain(), now=NOW + 2) for _ in range(3)] == [FLIES, FLIES, HELD]
    settle(store, Settlement(second.flight._replace(places=("try",)), (REPEAT,)), NOW + 2)
    assert fail(store, plain(), NOW + 2) == (2, 2)


# --- tries of welcome clients -----------------------------------------------------------------------------

NEAR = Budget("near", "tries nearby", 1, 50.0)
TRIES = Budget("known", "tries", 2, 10.0)


def welcome(*charges: Charge) -> Attempt:
    return trying(*charges)._replace(budgets=(TRIES, NEAR))


def test_welcome_clients_have_tries_in_place_of_all_charges(store: Store) -> None:
    for _ in range(3):
        fail(store, plain())
    assert ask(store, welcome(plain())).fate is REFUSED
    settle(store, Settlement(marks=(("known", 1000.0),)))
    first, second, third = (welcome(plain()) for _ in range(3))
    for each in (first, second):
        answer = ask(store, each)
        assert (answer.fate, answer.welcome, answer.budget) == (FLIES, True, 0)
    answer = ask(store, third)
    assert (answer.fate, answer.place, answer.possible.counts) == (HELD, "tries", (3,))
    # In flight they count for nothing else.
    assert [fate(store, plain("other")) for _ in range(4)] == [FLIES] * 3 + [HELD]
    settle(store, Settlement(first.flight._replace(places=("tries",)), spent=TRIES))
    assert ask(store, third).fate is HELD
    settle(store, Settlement(second.flight._replace(places=("tries",)), spent=TRIES))
    answer = ask(store, third)
    assert (answer.fate, answer.budget, answer.possible.counts) == (REFUSED, 0, (3,))
    assert ask(store, third, NOW + 9.9).fate is REFUSED
    assert ask(store, third, NOW + 10).fate is FLIES
    assert ask(store, welcome(plain()), NOW + 10).fate is HELD


def test_the_first_mark_that_is_set_says_which_tries_there_are(store: Store) -> None:
    settle(store, Settlement(marks=(("near", 1000.0),)))
    answer = ask(store, welcome(plain()))
    assert (answer.fate, answer.budget) == (FLIES, 1)
    assert ask(store, welcome(plain())).place == "tries nearby"
    settle(store, Settlement(marks=(("known", 1000.0),)))
    assert ask(store, welcome(plain())).budget == 0


def test_tries_that_are_spent_come_back_one_by_one_up_to_all(store: Store) -> None:
    settle(store, Settlement(marks=(("known", 1000.0),)))
    for _ in range(2):
        settle(store, Settlement(spent=TRIES))
    one = welcome()
    assert [ask(store, each, NOW + 15).fate for each in (one, welcome())] == [FLIES, HELD]
    settle(store, Settlement(one.flight._replace(places=("tries",))), NOW + 15)
    assert [ask(store, welcome(), NOW + 500).fate for _ in range(3)] == [FLIES, FLIES, HELD]


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
    fail(store, plain())
    assert store.unban(ban().key, ("k",), NOW + 50, NOW)
    assert store.ban_of((ban().key,), NOW) is None
    assert fail(store, plain()) == (1, 1)
    assert store.in_grace(ban().key, NOW + 49)
    assert not store.in_grace(ban().key, NOW + 50)
    assert not store.unban(ban().key, (), NOW + 50, NOW)


def test_what_watches_bans_hears_of_each_that_begins_changes_or_ends_early(store: Store) -> None:
    heard: list[str] = []
    store.watch_bans(heard.append)
    store.ban(ban(), NOW)
    store.ban(ban(until=NOW + 200), NOW)
    store.unban(ban().key, (), NOW + 50, NOW)
    store.unban(ban().key, (), NOW + 50, NOW)
    assert heard == [ban().key] * 3
    # There is room for a hundred: another drives the oldest out.
    for number in range(101):
        store.ban(ban(f"address:{number}"), NOW)
    assert heard[3:] == [*(f"address:{n}" for n in range(100)), "address:0", "address:100"]


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
        (found,) = fail(store, Charge("k", (window,)), now)
        least = sum(at > now - window.seconds for at in times)
        most = sum(at >= now - window.seconds * (1 + 1 / BUCKETS) for at in times)
        assert least <= found <= most


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
        seen[member] = now
        counts = fail(store, Charge("d", windows, member), now)
        exact = (sum(at > now - window.seconds for at in seen.values()) for window in windows)
        assert counts == tuple(min(found, 7) for found in exact)


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("try"), st.sampled_from("abcdef")),
        st.tuples(st.sampled_from(["fail", "succeed", "announce"]), st.integers(0, 5)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("different", [False, True], ids=["plain", "distinct"])
@settings(deadline=None)  # a real Redis may be slow on a busy machine
@given(moves=MOVES)
def test_no_order_of_answers_lets_more_fly_than_the_limit(
    kind: str, different: bool, moves: list[tuple[str, int | str]]
) -> None:
    """Against what has failed, what is announced and what may yet fail, as three plain lists."""
    store = STORES[kind]()
    failed: list[str] = []
    announced: list[Attempt] = []
    flying: list[Attempt] = []

    def counted(*some: Iterable[str]) -> int:
        every = [member for each in some for member in each]
        return len(set(every)) if different else len(every)

    def members(attempts: list[Attempt]) -> list[str]:
        return [attempt.flight.members[0] for attempt in attempts]

    for move, which in moves:
        if move == "try":
            one = trying(distinct(str(which)) if different else plain())
            if not different:
                one = one._replace(flight=one.flight._replace(members=(str(which),)))
            sure = counted(failed, members(announced), [str(which)])
            most = counted(failed, members(announced), members(flying), [str(which)])
            expected = REFUSED if sure > 3 else HELD if most > 3 else FLIES
            assert ask(store, one).fate is expected
            if expected is FLIES:
                flying.append(one)
        elif move == "announce" and flying:
            one = flying.pop(int(which) % len(flying))
            announced.append(one)
            store.announced(one.flight, one.wait)
        elif flying or announced:
            some = announced if announced and not (flying and int(which) % 2) else flying
            one = some.pop(int(which) % len(some))
            member = one.flight.members[0]
            charge = distinct(member) if different else plain()
            charges = (charge,) if move == "fail" else ()
            settle(store, Settlement(one.flight, charges))
            failed += [member] * len(charges)


def test_what_is_only_asked_for_is_answered_behind_the_rest_and_stays_as_it_is(
    store: Store,
) -> None:
    def asked() -> Settled:
        return settle(store, Settlement(asked=(distinct("a"), plain())))

    assert [tally.counts for tally in asked().tallies] == [(0, 0), (0, 0)]
    added = Settlement(charges=(plain(),), asked=(distinct("a"),))
    assert [tally.counts for tally in settle(store, added).tallies] == [(1, 1), (0, 0)]
    assert [tally.counts for tally in asked().tallies] == [(0, 0), (1, 1)]


def test_where_there_is_a_count_it_is_worth_asking(store: Store) -> None:
    if isinstance(store, MemoryStore):
        assert not store.may_hold("k")
    settle(store, Settlement(charges=(plain(),)))
    assert store.may_hold("k")
