"""Starts ``pop3proxy serve`` for a test and stops it; what is relayed is the test's own affair."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
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
