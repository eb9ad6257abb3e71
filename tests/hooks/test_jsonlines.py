"""The hook as the dispatcher and the operator see it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from pop3proxy.analyzer.events import ALL, Connect, Data, LoginFailure, LoginSuccess, Reason, Reply
from pop3proxy.hooks.api import EndSession
from pop3proxy.hooks.dispatcher import Dispatcher
from pop3proxy.hooks.logging import output
from pop3proxy.hooks.logging.jsonlines import JsonLines
from pop3proxy.hooks.logging.output import OutputError

from .examples import TS, connection, every_event

C = connection("hunter2")
SUCCESS = LoginSuccess(C, TS, "bob", "hunter2", "USER/PASS")
FAILURE = LoginFailure(C, TS, "bob", "hunter2", "USER/PASS", Reason.CREDENTIALS, "AUTH")
DENIAL = Reply(C, TS, "ERR", "no", denial=True)

Starter = Callable[..., JsonLines]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def started(path: Path, clock: Clock) -> Iterator[Starter]:
    """Starts hooks that write to ``path``, and stops them after the test."""
    hooks: list[JsonLines] = []

    def start(**options: Any) -> JsonLines:
        hook = JsonLines(str(path), **options)
        hook.start(clock)
        hooks.append(hook)
        return hook

    yield start
    for hook in hooks:
        hook.stop()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def write(descriptor: int, data: bytes | bytearray) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(output, "write", write)
        yield


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_event_but_the_mail_itself_is_heard(path: Path) -> None:
    assert Dispatcher([JsonLines(str(path))]).wants == ALL - {Data}


def test_with_data_every_event_is_heard(path: Path) -> None:
    assert Dispatcher([JsonLines(str(path), data=True)]).wants == ALL


def test_every_event_is_written_in_order(path: Path, started: Starter) -> None:
    hook = started(data=True)
    Dispatcher([hook]).dispatch(every_event(C))
    hook.output.flush()
    assert [record["event"] for record in records(path)] == [event.name for event in every_event(C)]


def test_records_are_counted(started: Starter) -> None:
    hook = started()
    Dispatcher([hook]).dispatch([Connect(C, TS), SUCCESS])
    assert (hook.written, hook.dropped, hook.late) == (2, 0, 0)


def test_secrets_are_masked(path: Path, started: Starter) -> None:
    hook = started(data=True)
    Dispatcher([hook]).dispatch(every_event(C))
    hook.output.flush()
    assert b"hunter2" not in path.read_bytes()


def test_secrets_are_written_only_if_the_operator_says_so(path: Path, started: Starter) -> None:
    hook = started(show_secrets=True)
    Dispatcher([hook]).dispatch([SUCCESS])
    assert records(path)[0]["password"] == "hunter2"


@pytest.mark.parametrize("login", [SUCCESS, FAILURE, DENIAL], ids=["success", "failure", "denial"])
def test_a_login_is_in_the_file_with_all_before_it_when_the_hook_returns(
    login: LoginSuccess | LoginFailure | Reply, path: Path, started: Starter
) -> None:
    dispatcher = Dispatcher([started()])
    dispatcher.dispatch([Connect(C, TS), Reply(C, TS, "OK", "ready")])
    assert records(path) == []
    dispatcher.dispatch([login])
    assert [record["event"] for record in records(path)] == [
        "pop3_connect",
        "pop3_reply",
        login.name,
    ]


def test_a_login_costs_one_write(
    path: Path, started: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []

    def write(descriptor: int, data: bytes | bytearray) -> int:
        writes.append(bytes(data))
        return os.write(descriptor, data)

    monkeypatch.setattr(output, "write", write)
    Dispatcher([started()]).dispatch([Connect(C, TS), SUCCESS])
    assert writes == [path.read_bytes()]


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("login", [SUCCESS, FAILURE], ids=["success", "failure"])
def test_a_login_that_cannot_be_written_ends_the_session_if_so_configured(
    login: LoginSuccess | LoginFailure, started: Starter
) -> None:
    dispatcher = Dispatcher([started(on_error="deny")])
    with pytest.raises(EndSession):
        dispatcher.dispatch([login])


@pytest.mark.usefixtures("full_disk")
def test_otherwise_the_session_goes_on_and_the_login_is_counted(started: Starter) -> None:
    hook = started()
    dispatcher = Dispatcher([hook])
    dispatcher.dispatch([SUCCESS])
    assert hook.late == 1
    assert dispatcher.failures == {}


@pytest.mark.usefixtures("full_disk")
def test_other_events_that_cannot_be_written_end_no_session(started: Starter, clock: Clock) -> None:
    Dispatcher([started(on_error="deny")]).dispatch([Connect(C, TS)])
    clock.advance(60)


def test_what_to_do_on_error_is_one_of_two(path: Path) -> None:
    with pytest.raises(ValueError, match="on_error is 'drop'; it can be 'pass' or 'deny'"):
        JsonLines(str(path), on_error="drop")  # type: ignore[arg-type]


def test_a_path_that_cannot_be_opened_fails_the_start(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        JsonLines(str(tmp_path / "missing" / "events")).start(clock)


def test_the_file_is_opened_anew(path: Path, started: Starter) -> None:
    hook = started()
    dispatcher = Dispatcher([hook])
    dispatcher.dispatch([Connect(C, TS)])
    path.rename(f"{path}.1")
    hook.reopen()
    dispatcher.dispatch([SUCCESS])
    assert [record["event"] for record in records(path)] == ["pop3_login_success"]
    assert [record["event"] for record in records(Path(f"{path}.1"))] == ["pop3_connect"]


def test_stopping_writes_what_is_queued(path: Path, clock: Clock) -> None:
    hook = JsonLines(str(path))
    hook.start(clock)
    Dispatcher([hook]).dispatch([Connect(C, TS)])
    hook.stop()
    assert [record["event"] for record in records(path)] == ["pop3_connect"]
