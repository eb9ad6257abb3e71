"""What docs/policy.md says of attacks is what happens when they are played."""

from collections.abc import Iterator

import pytest

from . import attacks
from .dovecot import running_dovecot

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, tuple[attacks.Outcome, attacks.Outcome]]]:
    """Of each scenario: without policy, and with it."""
    with running_dovecot(attacks.SETTING) as server:
        found = attacks.outcomes(server, attacks.SCENARIOS)
        names = (scenario.name for scenario in attacks.SCENARIOS)
        yield dict(zip(names, found, strict=True))


Outcomes = dict[str, tuple[attacks.Outcome, attacks.Outcome]]


def test_table_of_the_documentation_is_what_happens(outcomes: Outcomes) -> None:
    rows = [attacks.row(each, *outcomes[each.name]) for each in attacks.SCENARIOS]
    assert attacks.table(rows).splitlines() == attacks.documented().splitlines()


def test_without_policy_the_server_sees_every_guess_and_nobody_is_refused(
    outcomes: Outcomes,
) -> None:
    for without, _ in outcomes.values():
        assert without.seen == without.tried
        assert not without.refused


@pytest.mark.parametrize("name", ["pipelined", "parallel"])
def test_of_guesses_sent_at_once_the_server_sees_as_many_as_the_limit(
    outcomes: Outcomes, name: str
) -> None:
    assert outcomes[name][1].seen == 5


def test_nobody_is_refused_where_somebody_logged_in_before(outcomes: Outcomes) -> None:
    # But where the attacker sits behind the same address.
    for name in {*outcomes} - {"lock_out_inside"}:
        refused = outcomes[name][1].refused
        assert not {"the owner", "others"} & {*refused}, name


def test_what_is_slow_and_regular_is_said_of_guessers_and_of_no_stale_phone(
    outcomes: Outcomes,
) -> None:
    slow = {"slow-address", "slow-account"}
    assert outcomes["slower"][1].said == slow
    harmless = [each.name for each in attacks.SCENARIOS if each.title.startswith("No attack")]
    for name in (*harmless, "stale_phone", "stale_cram_phone"):
        assert not outcomes[name][1].said & slow, name
