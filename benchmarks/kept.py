"""How long a login takes while 10,000 addresses are banned in 10 seconds, and each ban is kept on disk.

``python -m benchmarks.kept``, from the top of the checkout. A second with 1,000 bans and one with none take
turns, so that what else the machine does is in both.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from .flood import BANS, SECONDS, floods
from .shared import Load, MailServer, proxy

WARMING: Final = 2.0

HOOK: Final = """
[events]
path = "{folder}/events.jsonl"
[[hooks]]
name = "benchmarks.flood:Flood"
[hooks.options]
after = {after}
snapshot = "{snapshot}"
"""

Times = dict[bool, list[float]]


class Apart(Load):
    """Clients that note apart how long PASS took while bans were made, and while none were."""

    def __init__(self, port: int, times: Times) -> None:
        super().__init__(port)
        self._apart = times
        self.measures = False

    def note(self, took: float) -> None:
        """Note a login."""
        if self.measures:
            self._apart[floods(time.time() - took)].append(took)


async def measure(mail_port: int, folder: Path, snapshot: str, times: Times) -> None:
    """Measure logins for twice as long as the bans take."""
    text = HOOK.format(folder=folder, after=WARMING, snapshot=snapshot)
    with proxy(mail_port, text, folder) as port:
        load = Apart(port, times)
        with load.running():
            await load.warm_up()
            load.measures = True
            await asyncio.sleep(2 * SECONDS)
        await asyncio.sleep(0.1)  # the clients' ends, so that the proxy does not wait for them


async def rounds(many: int, folder: Path) -> None:
    """Measure with and without a disk, in turn, and print the table."""
    server = await asyncio.get_running_loop().create_server(MailServer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    memory: Times = {False: [], True: []}
    disk: Times = {False: [], True: []}
    for number in range(many):
        await measure(port, folder, "", memory)
        await measure(port, folder, str(folder / f"state{number}"), disk)
    server.close()
    print("| phase | logins | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|")
    for name, times in (("in memory", memory), ("on disk", disk)):
        for bans in (False, True):
            row(
                f"{name}, {f'{BANS // SECONDS:,} bans a second' if bans else 'no bans'}",
                times[bans],
            )


def row(phase: str, times: list[float]) -> None:
    times.sort()
    p50, p99 = (times[int(len(times) * part)] * 1000 for part in (0.5, 0.99))
    print(f"| {phase} | {len(times):,} | {p50:.2f} | {p99:.2f} | {times[-1] * 1000:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kept-"))
    try:
        asyncio.run(rounds(options.rounds, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
