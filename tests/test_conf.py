"""The example configurations: each can be started as it is, but for its addresses, and says the truth."""

import copy
import re
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pop3proxy.config import Config, Listener, Upstream, load
from pop3proxy.loading import load_hooks

from .proxy.live import CHECKOUT, PATIENCE, running

EXAMPLES = sorted((CHECKOUT / "conf").glob("*.toml"))
WITH_TLS = {"behind-haproxy", "front-dovecot", "policy"}
"""These need certificates and more; tests/integration/test_examples_with_tls.py starts them."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_no_mistake_and_denies_xclient(example: Path) -> None:
    config = load(str(example), {})
    assert config.rules is not None
    assert config.rules.xclient == "deny"


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example.stem not in WITH_TLS],
    ids=lambda path: path.stem,
)
def test_an_example_is_started_and_relays_a_session(example: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        port = server.getsockname()[1]
        with running(port, "--config", str(example), folder=tmp_path) as proxy:
            with proxy.connect() as client:
                behind, _ = server.accept()
                with behind:
                    behind.sendall(b"+OK ready\r\n")
                    assert client.recv(100) == b"+OK ready\r\n"
            proxy.stop()
    written = (tmp_path / "pop3-events.jsonl").read_text()
    assert '"event":"pop3_reply"' in written
    assert '"event":"pop3_session"' in written


COMMENTED = (CHECKOUT / "conf" / "commented.toml").read_text(encoding="utf-8")

ALL: dict[str, Any] = tomllib.loads(re.sub(r"^#(?=\S)", "", COMMENTED, flags=re.MULTILINE))
"""All settings, those out of force too."""


def tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the tables that a key may hold: of its own, optional, or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from tables_in(part)


def keys_of(table: type[BaseModel], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every key of a configuration, those of nested and optional tables too."""
    for name, field in table.model_fields.items():
        yield (*place, name)
        for inner in tables_in(field.annotation):
            yield from keys_of(inner, (*place, name))


def shown(tree: dict[str, Any], key: tuple[str, ...]) -> Any:
    """Return the value of a key, of the first table where there is a list of them. Raises KeyError."""
    found: Any = tree
    for part in key:
        found = found[part]
        if isinstance(found, list) and found and isinstance(found[0], dict) and part != key[-1]:
            found = found[0]
    return found


KEYS = sorted(keys_of(Config))
IN_ONE_LINE = {"listen": Listener, "upstream": Upstream}
"""These tables stand in one line; the comment above it has their keys."""
EXAMPLE_VALUES = {
    *(("policy", name) for name in ("allow", "rules")),
    *(("policy", "users", name) for name in ("default_domain", "separators", "strip_prefix")),
    ("policy", "users", "master_separator"),
    *(("tls", "certificates"), ("analyzer", "refusals"), ("rules", "deny"), ("hooks",)),
    *(("verdicts", "words"), ("analyzer", "refusals", "charset"), ("hooks", "options")),
    *(("policy", "rules", "name"), ("policy", "export", "command")),
}
"""Keys whose default is nothing: an example stands there."""


def model_of(key: tuple[str, ...]) -> type[BaseModel]:
    """Return the table in which a key is."""
    table: type[BaseModel] = Config
    for part in key[:-1]:
        (table,) = tables_in(table.model_fields[part].annotation)
    return table


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_the_commented_example_shows_each_key_with_its_default(key: tuple[str, ...]) -> None:
    if len(key) == 2 and key[0] in IN_ONE_LINE:
        assert key[1] == "endpoint" or re.search(rf"^#   {key[1]} ", COMMENTED, re.MULTILINE)
        return
    value = shown(ALL, key)
    field = model_of(key).model_fields[key[-1]]
    optional = field.is_required() or field.default is None or key in EXAMPLE_VALUES
    if not optional and not any(tables_in(field.annotation)):
        assert (list(value) if isinstance(value, list) else value) == (
            list(field.default) if isinstance(field.default, tuple) else field.default
        )


def test_the_keys_that_are_looked_for_are_all() -> None:
    assert ("policy", "redis", "url") in KEYS
    assert ("policy", "rules", "limits", "seconds") in KEYS
    assert ("policy", "users", "server") in KEYS
    assert ("hooks", "on_error") in KEYS
    assert len(KEYS) > 100


def test_what_the_commented_example_has_out_of_force_can_be_put_in_force() -> None:
    tables = copy.deepcopy(ALL)
    # Two that exclude each other, and one that is for hooks that block.
    redis = tables["policy"].pop("redis")
    del tables["hooks"][0]["on_error"]
    config = Config.model_validate(tables)
    assert len(load_hooks(config)) == 4
    del tables["policy"]["snapshot"]
    tables["policy"]["redis"] = redis
    Config.model_validate(tables)


def test_the_commented_example_has_command_rules_in_force() -> None:
    config = load(str(CHECKOUT / "conf" / "commented.toml"), {})
    assert [hook.label or type(hook).__name__ for hook in load_hooks(config) if hook.blocking] == [
        "CommandRules"
    ]
