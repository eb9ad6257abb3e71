"""The example configurations: each can be started as it is, but for its addresses, and says the truth."""

import re
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pop3proxy.config import (
    AnalyzerOptions,
    Certificate,
    Config,
    ConnectionLimits,
    DenyRule,
    Events,
    HookEntry,
    Listener,
    RefusalRow,
    Rules,
    Timeouts,
    TlsOptions,
    Upstream,
    Verdicts,
    load,
)
from pop3proxy.loading import load_hooks

from .proxy.live import CHECKOUT, PATIENCE, running

EXAMPLES = sorted((CHECKOUT / "conf").glob("*.toml"))
WITH_TLS = {"behind-haproxy", "front-dovecot"}
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


TABLES: dict[str, type[BaseModel]] = {
    "tls": TlsOptions,
    "events": Events,
    "limits": ConnectionLimits,
    "timeouts": Timeouts,
    "analyzer": AnalyzerOptions,
    "rules": Rules,
    "verdicts": Verdicts,
}


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (table, key)
        for table, model in TABLES.items()
        for key in model.model_fields
        if key not in ("deny", "certificates", "client_ca", "words", "refusals")  # out of force
    ],
)
def test_the_commented_example_shows_each_key_with_its_default(table: str, key: str) -> None:
    shown: dict[str, Any] = tomllib.loads((CHECKOUT / "conf" / "commented.toml").read_text())
    default = TABLES[table].model_fields[key].default
    if default is None:
        assert shown[table][key]
    else:
        assert shown[table][key] == default


def test_what_the_commented_example_has_out_of_force_can_be_put_in_force() -> None:
    text = (CHECKOUT / "conf" / "commented.toml").read_text()
    shown = tomllib.loads(re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE))
    config = Config.model_validate(shown)
    assert set(shown) == set(Config.model_fields)
    assert set(shown["tls"]) == set(TlsOptions.model_fields)
    assert set(shown["tls"]["certificates"][0]) == set(Certificate.model_fields)
    assert set(shown["analyzer"]["refusals"][0]) == set(RefusalRow.model_fields)
    assert set(shown["rules"]["deny"][0]) == set(DenyRule.model_fields)
    # What is for blocking hooks only is shown in the comment above it.
    assert set(shown["hooks"][0]) == set(HookEntry.model_fields) - {"on_error"}
    assert len(load_hooks(config)) == 4


@pytest.mark.parametrize("table", [Listener, Upstream])
def test_the_commented_example_explains_each_key_that_needs_a_table(table: type[BaseModel]) -> None:
    text = (CHECKOUT / "conf" / "commented.toml").read_text()
    for key in table.model_fields:
        assert key == "endpoint" or re.search(rf"^#   {key} ", text, re.MULTILINE)


def test_the_commented_example_has_command_rules_in_force() -> None:
    config = load(str(CHECKOUT / "conf" / "commented.toml"), {})
    assert [hook.label or type(hook).__name__ for hook in load_hooks(config) if hook.blocking] == [
        "CommandRules"
    ]
