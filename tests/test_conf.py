"""The example configurations: each can be started as it is, but for its addresses, and says the truth."""

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pop3proxy.config import AnalyzerOptions, ConnectionLimits, Events, Timeouts

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "conf").glob("*.toml"))
PATIENCE = 20.0


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Run ``pop3proxy serve`` on a free port until the block ends; give the port and the process."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pop3proxy",
            "serve",
            "--listen",
            "tcp:0:interface=127.0.0.1",
            *arguments,
        ],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                yield int(match[1]), process
                break
        else:
            pytest.fail("it does not listen: " + "".join(said))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_started_and_relays_a_session(example: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        upstream = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        arguments = ("--config", str(example), "--upstream", upstream)
        with serving(*arguments, cwd=tmp_path) as (port, process):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                behind, _ = server.accept()
                with behind:
                    behind.sendall(b"+OK ready\r\n")
                    assert client.recv(100) == b"+OK ready\r\n"
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
    written = (tmp_path / "pop3-events.jsonl").read_text()
    assert '"event":"pop3_reply"' in written
    assert '"event":"pop3_session"' in written


TABLES: dict[str, type[BaseModel]] = {
    "events": Events,
    "limits": ConnectionLimits,
    "timeouts": Timeouts,
    "analyzer": AnalyzerOptions,
}


@pytest.mark.parametrize(
    ("table", "key"),
    [(table, key) for table, model in TABLES.items() for key in model.model_fields],
)
def test_the_commented_example_shows_each_key_with_its_default(table: str, key: str) -> None:
    shown: dict[str, Any] = tomllib.loads((ROOT / "conf" / "commented.toml").read_text())
    default = TABLES[table].model_fields[key].default
    if default is None:
        assert shown[table][key]
    else:
        assert shown[table][key] == default
