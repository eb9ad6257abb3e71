"""What holds before any mail server, whatever its habits and whatever the client says.

Guarded, no login is judged that a hook was not asked about; unguarded, no byte changes, and what became of a
login is what the server made of it. Hypothesis draws the server's habits and the dialogue.
"""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .dialogues import Dialogue
from .encounters import Encounter, encounters, known_encounters
from .faults import GUARDED, UNGUARDED, Plant
from .habits import Habits
from .holes import HOLES, Hole
from .stage import guarded, unguarded

EXAMPLES = 6000 if os.environ.get("CI") else 500

NOTICED = r"(?s)\A(?!inspection failed)"
"""A fault that only breaks the analyzer is noticed by other tests, too."""

Rule = Callable[[Habits, Dialogue], object]


def hunt(
    rule: Rule,
    made_up: st.SearchStrategy[Encounter],
    examples: int,
    phases: tuple[Phase, ...] = tuple(Phase),
) -> None:
    """Try a rule on so many servers and clients, always the same ones."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(made_up)
    def on(encounter: Encounter) -> None:
        rule(*encounter)

    on()


def test_no_login_is_judged_that_no_hook_was_asked_about() -> None:
    hunt(guarded, encounters(), EXAMPLES)


def test_without_a_deciding_hook_bytes_pass_and_outcomes_are_the_server_s() -> None:
    hunt(unguarded, encounters(), EXAMPLES)


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("hole", HOLES, ids=[hole.name for hole in HOLES])
def test_no_login_slips_past_where_servers_have_opened_a_way(hole: Hole, piece: int) -> None:
    guarded(hole.server, hole.dialogue(piece, piece))


@pytest.mark.parametrize(
    ("rule", "plant"),
    [
        *(pytest.param(guarded, plant, id=name) for name, plant in GUARDED.items()),
        *(pytest.param(unguarded, plant, id=name) for name, plant in UNGUARDED.items()),
    ],
)
def test_a_planted_fault_is_noticed(
    rule: Rule, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=NOTICED):
        hunt(rule, known_encounters(), 20_000, (Phase.generate,))
