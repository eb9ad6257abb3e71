"""A proxy under guard: its hook and its policy are asked about everything, and pass it."""

import json
from dataclasses import dataclass
from pathlib import Path

from pop3proxy.hooks.policy.config import DEFAULT_RULES, PolicyRule

from .configuration import as_toml

GENEROSITY = 10_000
"""How many times more than by default may fail: the tests' wrong passwords all come from one address."""


def _generous(rule: PolicyRule) -> dict[str, object]:
    limits = [
        {"count": limit.count * GENEROSITY, "seconds": limit.seconds} for limit in rule.limits
    ]
    settings: dict[str, object] = rule.model_dump(include={"name", "counts", "by", "action"})
    return {**settings, "limits": limits}


@dataclass(frozen=True, slots=True)
class Guard:
    """Turns the guard of a proxy on by a hook that notes what it was asked."""

    path: Path
    notes: Path

    @property
    def options(self) -> tuple[str, ...]:
        """Those of the command line."""
        return ("--config", str(self.path))

    @classmethod
    def made_in(cls, folder: Path, name: str) -> "Guard":
        """Write its configuration into a folder."""
        guard = cls(folder / f"{name}.toml", folder / f"{name}.notes")
        hook = {"name": "tests.integration.asking:Asking", "options": {"notes": guard.notes}}
        policy = {
            "rules": [_generous(rule) for rule in DEFAULT_RULES],
            # A verdict of the policy ends the asking, so that the hook behind it would not be asked.
            "misconfigured_delay": 0,
        }
        guard.path.write_text(f"hooks = [{as_toml(hook)}]\npolicy = {as_toml(policy)}\n")
        return guard

    def asked(self, uid: str) -> list[tuple[str, ...]]:
        """Return what the hook was asked about a session, in order, and the facts that it was given."""
        notes = [json.loads(line) for line in self.notes.read_text(encoding="utf-8").splitlines()]
        return [
            tuple(value for key, value in note.items() if key != "uid")
            for note in notes
            if note["uid"] == uid
        ]
