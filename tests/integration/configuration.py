"""Writes values of a configuration file."""

import json
from collections.abc import Mapping
from pathlib import Path


def as_toml(value: object) -> str:
    """Write a value on one line of a configuration."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {as_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
