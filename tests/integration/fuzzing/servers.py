"""What the servers of the fuzzer have in common."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..processes import program
from .oracle import LANES


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A running server: its name, where it listens and how one can log in.

    ``patience``: seconds that a client waits behind each write, where a server loses what is sent too early.
    ``authzid``: who logs in for another is refused by the back end, not by the server behind its back.
    ``at_a_time`` dialogues are played to it at most.
    """

    title: str
    port: int
    mechanisms: tuple[str, ...]
    patience: float = 0.0
    authzid: bool = True
    at_a_time: int = LANES


def started(
    command: Sequence[str], root: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a server, which writes its log into a file ``output`` and does not outlive this process."""
    with (root / "output").open("wb") as output:
        return subprocess.Popen(
            [program("setpriv"), "--pdeathsig", "TERM", *command],
            env=dict(os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
