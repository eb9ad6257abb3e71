"""A container engine with compose: one that runs, or one that a tool beside the checkout starts."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .proxy import CHECKOUT

BASES = ("python:3.13-slim-bookworm", "debian:bookworm-slim")
"""What the images are built from."""

PATIENCE = 900.0
"""Seconds for one command: the tool may have to fetch an engine and to make the base images first."""

TOOL = "POP3PROXY_BUILD_IMAGE"


@dataclass(frozen=True, slots=True)
class Engine:
    """How ``docker`` is called."""

    environment: Mapping[str, str] = field(repr=False)

    def attempt(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run ``docker``, whatever becomes of it; its errors are in the output too."""
        return _run("docker", *arguments, environment={**self.environment, **variables})

    def docker(self, *arguments: str, **variables: str) -> str:
        """Run ``docker``, and return what it prints."""
        done = self.attempt(*arguments, **variables)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}"
        return done.stdout

    @property
    def runs(self) -> bool:
        return (
            shutil.which("docker", path=self.environment.get("PATH")) is not None
            and self.attempt("info").returncode == 0
            and self.attempt("compose", "version").returncode == 0
        )

    @property
    def has_bases(self) -> bool:
        """Whether the images can be built: what they are built from is there, or can be had."""
        return all(
            self.attempt("image", "inspect", base).returncode == 0
            or self.attempt("pull", "--quiet", base).returncode == 0
            for base in BASES
        )


def _run(*command: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Lend an engine; stop it in the end if it was started here. Where none can be had, skip.

    That is no failure even where all programs are required: no package brings an engine that runs.
    """
    engine = Engine(os.environ)
    if engine.runs and engine.has_bases:
        yield engine
        return
    tool = _tool()
    engine = Engine(_environment(tool))
    if engine.runs:
        # Somebody else's, who may need it still.
        _use(tool, "--engine-up")
        yield engine
        return
    started = _run(tool, "--engine-up", environment=os.environ)
    if started.returncode != 0:
        why = started.stdout.strip().rpartition("\n")[2]
        pytest.skip(f"no container engine: {Path(tool).name} can start none: {why}")
    try:
        yield Engine(_environment(tool))
    finally:
        _use(tool, "--engine-down")


def _tool() -> str:
    beside = CHECKOUT.parent / "shared" / "tools" / "build-image.sh"
    tool = Path(os.environ.get(TOOL, beside))
    if not os.access(tool, os.X_OK):
        pytest.skip(
            "no container engine: docker does not run with compose and the images"
            f" {' and '.join(BASES)}, and {TOOL} names no tool that starts one"
        )
    if os.geteuid() != 0:
        pytest.skip(f"no container engine: {tool.name} needs root to start one")
    return str(tool)


def _use(tool: str, *arguments: str) -> str:
    done = _run(tool, *arguments, environment=os.environ)
    assert done.returncode == 0, done.stdout
    return done.stdout


def _environment(tool: str) -> dict[str, str]:
    """Return the variables by which its engine is found."""
    script = 'exports=$("$0" --env) && eval "$exports" && env -0'
    printed = subprocess.run(
        ["bash", "-c", script, tool],
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
        text=True,
    ).stdout
    return dict(pair.split("=", 1) for pair in printed.split("\0") if pair)
