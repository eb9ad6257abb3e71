"""What the servers of the fuzzer have in common."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


async def _settled(_: int) -> None:
    """Wait for nothing: when the connection is over, all is judged."""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A running server: its name, where it listens and how one can log in.

    ``settle`` waits until nothing that was said from a port is still to be judged.
    """

    title: str
    port: int
    mechanisms: tuple[str, ...]
    settle: Callable[[int], Awaitable[None]] = _settled
