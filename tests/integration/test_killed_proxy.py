"""A killed proxy has lost no login that a client saw (promise 3 of the design)."""

import itertools
import json
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from .popclient import Attempt, PopClient
from .processes import stopped_at_the_end
from .proxy import Proxy, start_proxy
from .records import Record, RecordSchema
from .servers import serving
from .stub import PASSWORD, STAMP, StubServer

pytestmark = pytest.mark.integration

KILLS = 200
CLIENTS = 8
LONGEST_LIFE = 0.12
FEWEST_LOGINS = 20 * KILLS

SESSION = [
    ("USER/PASS", "wrong"),
    ("PLAIN", "wrong"),
    ("APOP", "wrong"),
    ("PLAIN", "also wrong"),
    ("USER/PASS", PASSWORD),
]

Seen = tuple[str, bool]
"""Who, and whether the answer was +OK."""


def log_in_until_the_proxy_is_gone(port: int, numbers: Iterator[int]) -> list[Seen]:
    """Each time as somebody new."""
    seen: list[Seen] = []
    with suppress(OSError):
        while True:
            with PopClient(port) as client:
                for mechanism, password in SESSION:
                    attempt = Attempt(
                        f"user-{next(numbers)}", password, mechanism, initial_response=True
                    )
                    seen.append((attempt.user, client.log_in(attempt)))
                    client.ask("NOOP")
    return seen


def kill_under_load(proxy: Proxy, life: float, numbers: Iterator[int]) -> list[Seen]:
    """The answers that arrived whole before a proxy was killed."""
    use = partial(log_in_until_the_proxy_is_gone, proxy.port, numbers)
    killer = threading.Timer(life, proxy.process.kill)
    with ThreadPoolExecutor(CLIENTS) as pool:
        killer.start()
        clients = [pool.submit(use) for _ in range(CLIENTS)]
    killer.join()
    proxy.process.wait()
    return [seen for client in clients for seen in client.result()]


def lives(upstream_port: int, files: tuple[Path, Path]) -> Iterator[Proxy]:
    """One proxy after another, each begun while the one before it lives, and on the other file."""
    with ExitStack() as alive:
        coming: Proxy | None = None
        for path in itertools.islice(itertools.cycle(files), KILLS + 1):
            now, coming = coming, start_proxy(upstream_port, path, path.with_suffix(".log"))
            alive.enter_context(stopped_at_the_end(coming.process))
            if now is not None:
                yield now


def valid_records(files: Iterable[Path], schema: RecordSchema) -> list[Record]:
    """All records; what is none, a kill has torn off while it was written."""
    records: list[Record] = []
    torn = 0
    for line in itertools.chain.from_iterable(path.read_bytes().splitlines() for path in files):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            torn += 1
        else:
            schema.validate(records[-1])
    assert torn <= KILLS
    return records


def test_every_login_that_a_client_saw_is_on_disk_though_the_proxy_was_killed(
    tmp_path: Path, record_schema: RecordSchema
) -> None:
    files = tmp_path / "even.jsonl", tmp_path / "odd.jsonl"
    numbers = itertools.count()
    draw = random.Random(3)
    seen: list[Seen] = []
    with serving(StubServer(stamp=STAMP)) as server:
        for proxy in lives(server.port, files):
            seen += kill_under_load(proxy, draw.uniform(0, LONGEST_LIFE), numbers)
    recorded = {
        (record["user"], record["event"] == "pop3_login_success")
        for record in valid_records(files, record_schema)
        if record["event"] in ("pop3_login_success", "pop3_login_failure")
    }
    assert len(seen) >= FEWEST_LOGINS
    assert set(seen) - recorded == set()
