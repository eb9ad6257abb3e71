"""Lends the tests of one module a proxy that asks them about each login."""

from collections.abc import Iterator

import pytest

from .court import Courtroom, sitting


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courtroom]:
    """A proxy whose hook asks about ``pop3_login_attempt``, and takes a minute if need be."""
    with sitting(tmp_path_factory.mktemp("logins")) as courtroom:
        yield courtroom


@pytest.fixture(scope="module")
def strict_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courtroom]:
    """A proxy whose hook asks about ``pop3_request`` and ``pop3_login_attempt``."""
    events = ["pop3_request", "pop3_login_attempt"]
    with sitting(tmp_path_factory.mktemp("commands"), events=events) as courtroom:
        yield courtroom
