"""Lends the tests a mail server and a proxy before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .live import MailServer, Proxy, running


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
