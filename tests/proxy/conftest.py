"""Lends the tests a mail server and a proxy before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .live import MailServer, Proxy, running
from .loop import Loop, open_sockets


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.close()


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Where the proxy writes its events."""
    return tmp_path / "events.jsonl"


@pytest.fixture
def proxy(mail_server: MailServer, events: Path) -> Iterator[Proxy]:
    """A proxy on default settings."""
    with running(mail_server.port, "--events", str(events)) as running_proxy:
        yield running_proxy


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An engine; whatever the test opens, no socket is left when it has stopped."""
    before = open_sockets()
    loop = Loop()
    yield loop
    loop.close()
    assert loop.engine.fileno() == -1
    assert open_sockets() <= before
