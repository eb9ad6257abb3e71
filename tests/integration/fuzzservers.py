"""Plays random dialogues to a real server, straight and through the proxy, guarded and not, and compares.

From the top of the checkout::

    python -m tests.integration.fuzzservers --server dovecot --dialogues 10000 --seed 7

What the server's authentication back end was asked is the truth. A dialogue that fails is made smaller and
printed, with how to see it again. Exit status 0, 1 if one failed, or 3 if the server is not installed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from .fuzzing import courier, cyrus, dovecot, pam, twistedmail
from .fuzzing.hunt import Found, described, hunt, staged
from .fuzzing.oracle import Oracle
from .fuzzing.unpacked import enter_private_mounts

SERVERS = {
    "dovecot": dovecot.running,
    "courier": courier.running,
    "cyrus": cyrus.running,
    "twisted": twistedmail.running,
    "mailutils": pam.runs(pam.MAILUTILS),
    "popa3d": pam.runs(pam.POPA3D),
    "solid": pam.runs(pam.SOLID),
}

COVERING = frozenset({"courier", "mailutils", "popa3d", "solid"})
"""Servers whose back end is found at a place of the whole machine; ours is laid over it."""

MOST = 20
"""Failures behind which a hunt ends; ``--most`` sets another number."""


NOT_INSTALLED = 3
"""The exit status where a server is not installed."""


async def _hunted(reactor: Any, options: argparse.Namespace, root: Path) -> int:
    try:
        return await _hunt(reactor, options, root)
    except pytest.skip.Exception as reason:
        print(reason)
        return NOT_INSTALLED
    except pytest.fail.Exception as reason:
        print(reason)
        return 1


async def _hunt(reactor: Any, options: argparse.Namespace, root: Path) -> int:
    oracle = Oracle()
    replay = (
        f"python -m tests.integration.fuzzservers --server {options.server} --seed {options.seed}"
    )
    numbers = (
        range(options.dialogues) if options.only is None else range(options.only, options.only + 1)
    )

    def report(found: Found) -> None:
        print(described(found, replay), flush=True)

    async with (
        SERVERS[options.server](reactor, root, oracle) as server,
        staged(reactor, server, oracle) as stage,
    ):
        began = time.monotonic()
        failed = await hunt(stage, numbers, options.seed, report, options.most)
        took = time.monotonic() - began
    rate = len(numbers) / took
    print(
        f"{server.title}: its back end accepted {oracle.accepted} and refused {oracle.refused} attempts"
    )
    if options.only is None and not (oracle.accepted and oracle.refused):
        print(f"{server.title}: its back end is not asked, so that nothing was compared")
        failed += 1
    print(f"{server.title}: {len(numbers)} dialogues, {failed} failed, {rate:.0f} a second")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Hunt, and exit."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.fuzzservers", description=__doc__
    )
    parser.add_argument("--server", choices=sorted(SERVERS), required=True)
    parser.add_argument("--dialogues", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one dialogue to play")
    parser.add_argument("--most", type=int, default=MOST, help="failures behind which it ends")
    options = parser.parse_args(arguments)
    if options.server in COVERING:
        enter_private_mounts()
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:

        def begin(reactor: Any) -> Deferred[int]:
            return ensureDeferred(_hunted(reactor, options, Path(folder))).addCallback(sys.exit)

        react(begin)


if __name__ == "__main__":
    main()
