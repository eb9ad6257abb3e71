"""How long a login takes while 10,000 addresses are banned in 10 seconds, and each ban is kept on disk.

``python -m benchmarks.kept``, from the top of the checkout.
"""

import argparse
import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

from .flood import BANS, SECONDS
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


async def measure(name: str, mail_port: int, folder: Path, snapshot: str) -> None:
    """Measure logins before the flood, and while it goes on."""
    text = HOOK.format(folder=folder, after=float(WARMING + SECONDS), snapshot=snapshot)
    with proxy(mail_port, text, folder) as port:
        load = Load(port)
        with load.running():
            await load.warm_up()
            await asyncio.sleep(SECONDS)
            load.say(f"{name}: no bans")
            await asyncio.sleep(SECONDS)
            load.say(f"{name}: {BANS:,} bans")
        await asyncio.sleep(0.1)  # the clients' ends, so that the proxy does not wait for them


async def rounds(many: int, folder: Path) -> None:
    """Measure with and without a disk, in turn."""
    server = await asyncio.get_running_loop().create_server(MailServer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print("| phase | logins | failed | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|---|")
    for number in range(many):
        await measure("in memory", port, folder, "")
        await measure("on disk", port, folder, str(folder / f"state{number}"))
    server.close()


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
