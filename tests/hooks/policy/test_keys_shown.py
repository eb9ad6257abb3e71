"""What is shown of a key whose user's name was sent with a password behind it: the name."""

from pop3proxy.hooks.masking import masked
from pop3proxy.hooks.policy.explanations import shown_ban

from .test_engine import NOW, World, rule

TYPED = "bob PASS hunter2"


def banned() -> World:
    world = World([rule("failures", "user", 2, "ban", ban="user")])
    world.guess(TYPED, "x")
    world.guess(TYPED, "y")
    assert world.actions() == ["ban"]
    return world


def test_a_record_of_a_decision_shows_the_name_only() -> None:
    (event,) = banned().events
    assert event.key == "user:bob pass hunter2"
    assert masked(event).key == "user:bob pass (masked)"


def test_the_list_of_bans_shows_the_name_only() -> None:
    (ban,) = banned().engine.store.bans(NOW)
    shown = shown_ban(ban, NOW)
    assert shown["key"] == "user:bob pass (masked)"
    assert "user:bob pass (masked)" in shown["evidence"][0]
    assert "hunter2" not in str(shown)
