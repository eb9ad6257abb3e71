"""Makes up which client meets which server: any, or such as have made trouble before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from .dialogues import Dialogue, dialogues, habits, parts
from .habits import DEVIATIONS, Habits
from .holes import HOLES, Hole

Encounter = tuple[Habits, Dialogue]

_SOME_PARTS = st.lists(parts(), max_size=2)
_FEW_DEVIATIONS = st.one_of(st.just([]), st.lists(st.sampled_from(DEVIATIONS), max_size=2))
_PIECES = st.sampled_from([0, 0, 0, 1, 5])


@st.composite
def _like_before(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Encounter:
    """A known way past a guard, with something before it, in it or behind it, at a server like that one."""
    hole: Hole = draw(st.sampled_from(HOLES))
    server = replace(hole.server, **dict(draw(_FEW_DEVIATIONS)))
    groups = list(hole.dialogue().groups)
    if draw(st.integers(0, 3)) > 1:
        at = draw(st.integers(0, len(groups)))
        groups[at:at] = [(line,) for part in draw(_SOME_PARTS) for line in part]
    if draw(st.integers(0, 3)) == 3:
        groups = [tuple(line for group in groups for line in group)]
    client = Dialogue(
        tuple(groups),
        draw(_PIECES),
        refuses=hole.refuses,
        later=draw(st.booleans()),
        decides_requests=draw(st.booleans()),
        reply_piece=draw(_PIECES),
    )
    return server, client


def known_encounters() -> st.SearchStrategy[Encounter]:
    """Clients and servers made from what was found before."""
    return _like_before()


def encounters() -> st.SearchStrategy[Encounter]:
    """Clients and servers, half of them made from what was found before."""
    return st.one_of(st.tuples(habits(), dialogues()), known_encounters())
