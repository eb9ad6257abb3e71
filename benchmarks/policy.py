"""What the policy's memory costs: octets a key, and the time of a connect check among many bans.

    python -m benchmarks.policy            # a million keys and a million bans: some GB of memory, a minute
    python -m benchmarks.policy --quick    # a twentieth, for a first look

The table goes to standard output. What the policy costs a session is a column of benchmarks.run: ours-policy.
"""

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pop3proxy.analyzer.events import (
    Connect,
    Connection,
    LoginAttempt,
    LoginFailure,
    Reason,
    SessionEnd,
)
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.engine import Engine
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.store import Ban, Charge, Settlement, Window

MANY = 1_000_000
FEW = MANY // 20
CHECKS = 200_000
OPEN = 1000
"""Sessions that are open at a time."""

START = 1_767_600_000.0

HOUR, DAY = Window(3600, 20), Window(86400, 60)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each row in a process of its own, so that none finds the other's memory; print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the keys and bans")
    parser.add_argument("--only", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    many = FEW if options.quick else MANY
    if options.only:
        print(ROWS[options.only](many))
        return 0
    print("| | |\n|---|---:|")
    for name in ROWS:
        command = [sys.executable, "-m", "benchmarks.policy", "--only", name]
        command += ["--quick"] if options.quick else []
        told = subprocess.check_output(command, text=True)
        print(f"| {name.format(many=f'{many:,}')} | {told.strip()} |", flush=True)
    return 0


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _each(many: int, make: Callable[[int], object]) -> str:
    before = _resident()
    for number in range(many):
        make(number)
    return f"{(_resident() - before) / many:,.0f} octets"


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _plain_keys(many: int) -> str:
    """Failures of as many pairs, one each."""
    store = MemoryStore(many, many, DAY.seconds)

    def fail(number: int) -> None:
        key = f"guessing.0123ab|pair:{_address(number)}|user{number}@example.org"
        charge = Charge(key, (HOUR, DAY), enforced=True)
        store.settle(Settlement(charges=(charge,)), START)

    told = _each(many, fail)
    assert len(store.counters) == many
    return told


def _distinct_keys(many: int) -> str:
    """Passwords of as many addresses, one each."""
    store = MemoryStore(many, many, DAY.seconds)

    def fail(number: int) -> None:
        key = f"~brute-force.0123ab|address:{_address(number)}"
        charge = Charge(key, (HOUR, DAY), member=f"{number:016x}", enforced=True)
        store.settle(Settlement(charges=(charge,)), START)

    told = _each(many, fail)
    assert len(store.counters) == many
    return told


def _banned(many: int) -> MemoryStore:
    store = MemoryStore(many, many, DAY.seconds)
    for number in range(many):
        _ban(store, number)
    return store


def _ban(store: MemoryStore, number: int) -> None:
    why = f"2026-01-05T08:00:00Z passwords 20 of 20 in 3600 s; the last in session C{number}"
    address = f"address:{_address(number)}"
    store.ban(Ban(address, "brute-force", START, START + DAY.seconds, 1, (why,)), START)


def _bans(many: int) -> str:
    store = MemoryStore(many, many, DAY.seconds)
    return _each(many, lambda number: _ban(store, number))


def _connection(number: int) -> Connection:
    return Connection(f"C{number}", _address(number), 40000, "192.0.2.1", 110)


def _end(c: Connection) -> SessionEnd:
    return SessionEnd(c, START + 1, "", "none", 0, 0, 0, 0, 0, 0, 0.0, "server_closed", 0, "whole")


def _check(many: int, first: int, step: int) -> str:
    """CPU of the best of five rounds; every address is another, as in an attack, so that no cache helps."""
    engine = Engine(Policy(), _banned(many), bytes(32))
    events = [
        Connect(_connection((first + number * step) % (1 << 24)), START + 1)
        for number in range(CHECKS)
    ]
    gc.collect()
    gc.freeze()
    rounds = []
    for _ in range(5):
        taken = 0
        for first in range(0, CHECKS, OPEN):
            some = events[first : first + OPEN]
            begin = time.thread_time_ns()
            for event in some:
                engine.connect(event)
            taken += time.thread_time_ns() - begin
            for event in some:
                engine.ended(_end(event.c))
        rounds.append(taken / CHECKS / 1e3)
    return f"{min(rounds):.2f} µs"


def _check_free(many: int) -> str:
    return _check(many, many, 1)


def _check_free_without(_: int) -> str:
    return _check(0, MANY, 1)


def _check_banned(many: int) -> str:
    return _check(many, 0, max(1, many // CHECKS))


def _decision(_: int) -> str:
    """An attempt and its failure under the default rules, each of another pair."""
    engine = Engine(Policy(), MemoryStore(MANY, MANY, DAY.seconds), bytes(32))
    count = CHECKS // 10
    begin = time.thread_time_ns()
    for number in range(count):
        c = _connection(number * 256)
        login = (f"user{number}", f"password {number}", "USER/PASS")
        engine.attempt(LoginAttempt(c, START, *login))
        engine.failure(LoginFailure(c, START, *login, Reason.CREDENTIALS, "AUTH"))
    return f"{(time.thread_time_ns() - begin) / count / 1e3:.0f} µs"


ROWS: dict[str, Callable[[int], str]] = {
    "Memory of a plain count, of {many}": _plain_keys,
    "Memory of a distinct count with one member, of {many}": _distinct_keys,
    "Memory of a ban, of {many}": _bans,
    "Connect check, no ban": _check_free_without,
    "Connect check of who is free, {many} bans": _check_free,
    "Connect check of who is banned, {many} bans": _check_banned,
    "A failed login under the default rules, attempt and failure": _decision,
}


if __name__ == "__main__":
    sys.exit(main())
