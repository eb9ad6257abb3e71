"""Hands bans out: writes the file, and runs the command; when that happens is said in exporter.py."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from .nftset import Network, replace_file, shown_network
from .options import CHANGES, PolicyExport
from .program import Program, check_program
from .targets import Targets

MAX_ARGUMENTS: Final = 1000
"""Changes of one run of a command: some 60 KB of arguments, of which Linux takes 128 KB at the least."""


@dataclass(frozen=True, slots=True)
class Export:
    """What one export hands out, at the time ``now``: the changes, and all bans as they are then.

    Both are keys and the times at which their bans end; a change to 0 is the end of a ban. ``whole`` says
    that the changes are all bans, and that what was handed out before no longer counts. ``allowed`` are
    networks that are not banned now, besides those of the configuration.
    """

    changes: Mapping[str, float]
    held: Mapping[str, float]
    whole: bool
    now: float
    allowed: tuple[Network, ...] = ()


class Outlet:
    """The file and the command of a configuration; used in a thread, by one export at a time."""

    def __init__(self, config: PolicyExport, targets: Targets) -> None:
        """Take the configuration, and what says which networks are banned."""
        self._config = config
        self._targets = targets
        self._program = Program(config.time_limit)
        self._takes_changes = CHANGES in config.command

    def check(self, export: Export) -> None:
        """Write the file, and see that the command could be run. Raises ExportTrouble."""
        self._targets.allow_for_now(export.allowed)
        if self._config.command:
            check_program(self._config.command[0])
        self._write(export)

    def hand_out(self, export: Export) -> None:
        """Write the file, then run the command, as often as the changes need. Raises ExportTrouble."""
        self._targets.allow_for_now(export.allowed)
        self._write(export)
        if not self._config.command:
            return
        words = list(self._words(export)) if self._takes_changes else []
        for begin in range(0, max(1, len(words)), MAX_ARGUMENTS):
            some = words[begin : begin + MAX_ARGUMENTS]
            told = {
                "POP3PROXY_EXPORT": "all" if export.whole and not begin else "changes",
                "POP3PROXY_BANS": str(len(export.held)),
            }
            self._program.run(list(_filled(self._config.command, some)), told)

    def end(self) -> None:
        """End a command that runs, and run none again."""
        self._program.end()

    def _write(self, export: Export) -> None:
        if self._config.nft_file is not None:
            replace_file(self._config.nft_file, self._config.nft_table, self._banned(export))

    def _banned(self, export: Export) -> Iterator[tuple[Network, float]]:
        for key, until in export.held.items():
            for network in self._targets.networks(key):
                yield network, until - export.now

    def _words(self, export: Export) -> Iterator[str]:
        """Yield the changes as arguments."""
        for key, until in export.changes.items():
            for network in self._targets.networks(key):
                yield _word(network, until - export.now)


def _word(network: Network, seconds: float) -> str:
    if seconds <= 0:
        return f"unban={shown_network(network)}"
    return f"ban={shown_network(network)},{max(1, ceil(seconds))}"


def _filled(command: Iterable[str], changes: list[str]) -> Iterator[str]:
    for word in command:
        if word == CHANGES:
            yield from changes
        else:
            yield word
