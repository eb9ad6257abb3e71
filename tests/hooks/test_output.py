"""Lines reach the file whole, in order and in time; what cannot be written is bounded, counted and said."""

import errno
import fcntl
import os
import pty
import resource
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from pop3proxy.hooks.logging import output as module
from pop3proxy.hooks.logging.output import (
    BATCH,
    FLUSH_AFTER,
    LIMIT,
    ROOM,
    SAY_EVERY,
    Output,
    OutputError,
)

KILOBYTE = b"x" * 1023 + b"\n"
LONG = b"x" * 65535 + b"\n"

Opener = Callable[[str | Path], Output]


class Disk:
    """Stands in for ``os.write``: remembers the writes, and has as much room as a test gives it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.room: int | None = None
        self.at_once: int | None = None
        self.error = errno.ENOSPC

    def write(self, descriptor: int, data: bytes | bytearray) -> int:
        self.writes.append(bytes(data))
        if self.room == 0:
            raise OSError(self.error, os.strerror(self.error))
        part = bytes(data)[: self.at_once][: self.room]
        if self.room is not None:
            self.room -= len(part)
        return os.write(descriptor, part)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(module, "write", disk.write)
    return disk


@pytest.fixture
def opened(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens outputs, and closes them after the test."""
    outputs: list[Output] = []

    def open_output(path: str | Path) -> Output:
        output = Output(str(path))
        output.open(clock)
        outputs.append(output)
        return output

    yield open_output
    monkeypatch.setattr(module, "LAST_WAIT", 0.0)
    for output in outputs:
        output.close()


@pytest.fixture
def never_blocking() -> Iterator[None]:
    """Fails a test that would wait for ever, as the proxy would."""

    def blocked(number: int, frame: FrameType | None) -> NoReturn:
        raise AssertionError("blocked")

    before = signal.signal(signal.SIGALRM, blocked)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def said(logs: Sequence[Any]) -> list[str]:
    return [str(formatEvent(log)) for log in logs]


def fill(output: Output, size: int) -> None:
    for _ in range(size // len(KILOBYTE)):
        output.add(KILOBYTE)


# Batches and time


def test_a_line_waits_for_its_batch(tmp_path: Path, opened: Opener, clock: Clock) -> None:
    output = opened(tmp_path / "events")
    output.add(b"a\n")
    clock.advance(FLUSH_AFTER / 2)
    assert (tmp_path / "events").read_bytes() == b""


def test_a_batch_is_written_after_a_moment(tmp_path: Path, opened: Opener, clock: Clock) -> None:
    output = opened(tmp_path / "events")
    output.add(b"a\n")
    output.add(b"b\n")
    clock.advance(FLUSH_AFTER)
    assert (tmp_path / "events").read_bytes() == b"a\nb\n"
    assert output.written == 2


def test_a_full_batch_is_written_at_once(tmp_path: Path, opened: Opener, disk: Disk) -> None:
    fill(opened(tmp_path / "events"), BATCH)
    assert disk.writes == [KILOBYTE * (BATCH // 1024)]


def test_no_timer_runs_while_nothing_is_queued(
    tmp_path: Path, opened: Opener, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    assert clock.getDelayedCalls() == []
    output.add(b"a\n")
    clock.advance(FLUSH_AFTER)
    assert clock.getDelayedCalls() == []


def test_one_timer_runs_for_all_that_is_queued(
    tmp_path: Path, opened: Opener, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    fill(output, BATCH + 4096)
    output.add_now(b"a\n")
    output.add(b"b\n")
    assert len(clock.getDelayedCalls()) == 1


def test_closing_leaves_no_timer_and_no_descriptor(tmp_path: Path, clock: Clock) -> None:
    before = os.listdir("/proc/self/fd")
    output = Output(str(tmp_path / "events"))
    output.open(clock)
    output.add(b"a\n")
    output.close()
    assert clock.getDelayedCalls() == []
    assert os.listdir("/proc/self/fd") == before


def test_closing_writes_what_is_queued(tmp_path: Path, clock: Clock) -> None:
    output = Output(str(tmp_path / "events"))
    output.open(clock)
    output.add(b"a\n")
    output.close()
    assert (tmp_path / "events").read_bytes() == b"a\n"


def test_a_line_that_must_not_wait_takes_all_before_it_along_in_one_write(
    tmp_path: Path, opened: Opener, disk: Disk
) -> None:
    output = opened(tmp_path / "events")
    output.add(b"a\n")
    output.add(b"b\n")
    assert output.add_now(b"login\n")
    assert disk.writes == [b"a\nb\nlogin\n"]
    assert (tmp_path / "events").read_bytes() == b"a\nb\nlogin\n"


# Files


def test_a_file_is_appended_to(tmp_path: Path, opened: Opener) -> None:
    (tmp_path / "events").write_bytes(b"old\n")
    opened(tmp_path / "events").add_now(b"new\n")
    assert (tmp_path / "events").read_bytes() == b"old\nnew\n"


def test_a_line_that_a_killed_process_left_torn_does_not_spoil_the_next(
    tmp_path: Path, opened: Opener
) -> None:
    (tmp_path / "events").write_bytes(b'old\n{"v":1,"ts"')
    opened(tmp_path / "events").add_now(b"new\n")
    assert (tmp_path / "events").read_bytes() == b'old\n{"v":1,"ts"\nnew\n'


def test_a_new_file_is_not_for_everybody(tmp_path: Path, opened: Opener) -> None:
    before = os.umask(0)
    try:
        opened(tmp_path / "events")
    finally:
        os.umask(before)
    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", ["missing/events", ".", "fifo", "nul\0"])
def test_what_cannot_be_opened_is_an_error_of_one_line_that_names_it(
    path: str, tmp_path: Path, clock: Clock
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputError) as caught:
        Output(f"{tmp_path}/{path}").open(clock)
    assert str(caught.value).startswith(f"cannot write to {tmp_path}/{path}: ")
    assert "\n" not in str(caught.value)


# Short writes and full disks


def test_a_short_write_is_finished(tmp_path: Path, opened: Opener, disk: Disk) -> None:
    disk.at_once = 3
    output = opened(tmp_path / "events")
    output.add(b"first\n")
    assert output.add_now(b"login\n")
    assert (tmp_path / "events").read_bytes() == b"first\nlogin\n"
    assert output.written == 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("room", range(18))
def test_what_a_full_disk_took_is_cut_back_to_the_last_whole_line(
    room: int, error: int, tmp_path: Path, opened: Opener, disk: Disk
) -> None:
    output = opened(tmp_path / "events")
    output.add_now(b"old\n")
    disk.room, disk.error = room, error
    output.add(b"first\n")
    output.add(b"second\n")
    assert not output.add_now(b"login\n")
    whole = b"old\n" + b"first\n" * (room >= 6) + b"second\n" * (room >= 13)
    assert (tmp_path / "events").read_bytes() == whole
    assert output.written == whole.count(b"\n")


@pytest.mark.parametrize("room", range(18))
def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(
    room: int, tmp_path: Path, opened: Opener, disk: Disk, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    disk.room = room
    output.add(b"first\n")
    output.add(b"second\n")
    output.add_now(b"login\n")
    disk.room = None
    clock.advance(FLUSH_AFTER)
    assert (tmp_path / "events").read_bytes() == b"first\nsecond\nlogin\n"
    assert (output.written, output.dropped, output.late) == (3, 0, 1)
    assert clock.getDelayedCalls() == []


@pytest.mark.usefixtures("never_blocking")
def test_a_write_that_takes_nothing_is_a_failure_and_no_endless_loop(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = opened(tmp_path / "events")
    with monkeypatch.context() as patch:
        patch.setattr(module, "write", lambda descriptor, data: 0)
        assert not output.add_now(b"login\n")
    assert output.late == 1


def test_what_another_process_appended_is_not_cut_off(
    tmp_path: Path, opened: Opener, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 3

    def write(descriptor: int, data: bytes | bytearray) -> int:
        try:
            return disk.write(descriptor, data)
        except OSError:
            with open(tmp_path / "events", "ab") as other:
                other.write(b"|theirs\n")
            raise

    monkeypatch.setattr(module, "write", write)
    output.add_now(b"login\n")
    assert (tmp_path / "events").read_bytes() == b"log|theirs\n"


def test_the_limit_of_a_files_size_is_met_with_whole_lines(
    tmp_path: Path, opened: Opener, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        fill(output, 2 * BATCH)
        reached = output.add_now(b"login\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not reached
    assert (tmp_path / "events").read_bytes() == KILOBYTE * (100_000 // 1024)
    clock.advance(FLUSH_AFTER)
    assert (tmp_path / "events").read_bytes() == KILOBYTE * (2 * BATCH // 1024) + b"login\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_device_that_is_full_is_said(opened: Opener) -> None:
    output = opened("/dev/full")
    with capturedLogs() as logs:
        assert not output.add_now(b"login\n")
    assert said(logs) == [
        "events cannot be written to /dev/full: No space left on device; 6 bytes wait, 1 login events"
        " were not written before their answer, 0 events were dropped so far"
    ]


def test_a_full_disk_is_said_once_a_minute(
    tmp_path: Path, opened: Opener, disk: Disk, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    with capturedLogs() as logs:
        output.add_now(b"login\n")
        clock.pump([FLUSH_AFTER] * int(SAY_EVERY / FLUSH_AFTER - 1))
        assert len(logs) == 1
        clock.advance(FLUSH_AFTER)
        assert len(logs) == 2
    assert "No space left on device" in said(logs)[1]


def test_the_end_of_a_trouble_is_said(
    tmp_path: Path, opened: Opener, disk: Disk, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    with capturedLogs() as logs:
        output.add_now(b"login\n")
        disk.room = None
        clock.advance(FLUSH_AFTER)
        output.add_now(b"login\n")
    assert said(logs)[1:] == [
        f"events are written to {tmp_path}/events again; 0 were dropped so far"
    ]


def test_a_trouble_that_comes_and_goes_is_said_once_a_minute(
    tmp_path: Path, opened: Opener, disk: Disk, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    with capturedLogs() as logs:
        for _ in range(10):
            disk.room = 0
            output.add_now(b"login\n")
            disk.room = None
            clock.advance(FLUSH_AFTER)
    assert len(logs) == 2


def test_a_full_disk_is_not_tried_for_every_line(
    tmp_path: Path, opened: Opener, disk: Disk
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    fill(output, ROOM)
    assert len(disk.writes) == ROOM // BATCH


# Bounds


def test_beyond_its_bound_the_queue_drops_the_newest_and_counts(
    tmp_path: Path, opened: Opener, disk: Disk, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    fill(output, ROOM)
    for _ in range(5):
        output.add(b"too much\n")
    disk.room = None
    clock.advance(FLUSH_AFTER)
    assert (tmp_path / "events").read_bytes() == KILOBYTE * (ROOM // 1024)
    assert (output.written, output.dropped) == (ROOM // 1024, 5)


def test_lines_that_must_not_wait_have_room_that_others_cannot_fill(
    tmp_path: Path, opened: Opener, disk: Disk, clock: Clock
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    fill(output, ROOM + BATCH)
    output.add_now(b"login\n")
    disk.room = None
    clock.advance(FLUSH_AFTER)
    assert (tmp_path / "events").read_bytes().endswith(b"login\n")


def test_even_they_are_bounded(tmp_path: Path, opened: Opener, disk: Disk) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    for _ in range(LIMIT // len(LONG) + 5):
        assert not output.add_now(LONG)
    assert output.dropped == 5
    assert output.late == LIMIT // len(LONG) + 5


def test_they_are_written_again_as_soon_as_there_is_room(
    tmp_path: Path, opened: Opener, disk: Disk
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 0
    for _ in range(LIMIT // len(LONG)):
        output.add_now(LONG)
    disk.room = None
    assert output.add_now(b"login\n")
    assert (tmp_path / "events").read_bytes() == LONG * (LIMIT // len(LONG)) + b"login\n"


def test_closing_says_what_was_lost(tmp_path: Path, disk: Disk, clock: Clock) -> None:
    output = Output(str(tmp_path / "events"))
    output.open(clock)
    disk.room = 0
    output.add(b"a\n")
    output.add(b"b\n")
    with capturedLogs() as logs:
        output.close()
    assert said(logs)[-1] == f"2 events were not written to {tmp_path}/events"


# Opening anew


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path, opened: Opener) -> None:
    output = opened(tmp_path / "events")
    output.add(b"old\n")
    (tmp_path / "events").rename(tmp_path / "events.1")
    output.reopen()
    output.add_now(b"new\n")
    assert (tmp_path / "events.1").read_bytes() == b"old\n"
    assert (tmp_path / "events").read_bytes() == b"new\n"


def test_opening_anew_leaves_no_descriptor_behind(tmp_path: Path, opened: Opener) -> None:
    output = opened(tmp_path / "events")
    before = os.listdir("/proc/self/fd")
    output.reopen()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_file_that_cannot_be_opened_anew_is_said_and_the_old_one_kept(
    tmp_path: Path, opened: Opener
) -> None:
    (tmp_path / "log").mkdir()
    output = opened(tmp_path / "log" / "events")
    (tmp_path / "log").rename(tmp_path / "log.1")
    with capturedLogs() as logs:
        output.reopen()
    output.add_now(b"new\n")
    assert said(logs) == [
        f"cannot write to {tmp_path}/log/events: No such file or directory; going on with the old file"
    ]
    assert (tmp_path / "log.1" / "events").read_bytes() == b"new\n"


def test_what_a_full_disk_did_not_take_goes_to_the_new_file(
    tmp_path: Path, opened: Opener, disk: Disk
) -> None:
    output = opened(tmp_path / "events")
    disk.room = 8
    output.add(b"first\n")
    output.add(b"second\n")
    (tmp_path / "events").rename(tmp_path / "events.1")
    output.reopen()
    disk.room = None
    output.flush()
    assert (tmp_path / "events.1").read_bytes() == b"first\n"
    assert (tmp_path / "events").read_bytes() == b"second\n"


# Standard output


class StandardOutput:
    """What stands for descriptor 1 during a test, and the reader's end of it."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer

    def read(self) -> bytes:
        """Take what there is to read now."""
        taken = b""
        while select.select([self.reader], [], [], 0)[0]:
            part = os.read(self.reader, 65536)
            if not part:
                break
            taken += part
        return taken

    @contextmanager
    def being_read(self) -> Iterator[None]:
        """Read all the while, in a thread."""
        done = threading.Event()

        def read_on() -> None:
            while not done.is_set():
                if select.select([self.reader], [], [], 0.01)[0]:
                    os.read(self.reader, 65536)

        thread = threading.Thread(target=read_on)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def hang_up(self) -> None:
        os.close(self.reader)
        self.reader = -1


def socketpair() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.fixture(params=[os.pipe, socketpair, pty.openpty])
def stdout(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandardOutput]:
    stdout = StandardOutput(*request.param())
    monkeypatch.setattr(module, "_STDOUT", stdout.writer)
    yield stdout
    os.close(stdout.writer)
    if stdout.reader >= 0:
        os.close(stdout.reader)


@pytest.mark.usefixtures("never_blocking")
def test_standard_output_gets_the_lines(stdout: StandardOutput, opened: Opener) -> None:
    output = opened("-")
    output.add(b"a\n")
    assert output.add_now(b"login\n")
    assert stdout.read().replace(b"\r", b"") == b"a\nlogin\n"


@pytest.mark.usefixtures("never_blocking")
def test_a_reader_that_reads_nothing_holds_nobody_up(
    stdout: StandardOutput, opened: Opener
) -> None:
    output = opened("-")
    fill(output, 2 * LIMIT)
    assert not output.add_now(b"login\n")
    assert output.dropped > 0
    assert output.late == 1


@pytest.mark.usefixtures("never_blocking")
@pytest.mark.parametrize("stdout", [os.pipe, socketpair], indirect=True)
def test_it_holds_nobody_up_even_where_writes_could_block(
    stdout: StandardOutput, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_standard_output", lambda: os.dup(stdout.writer))
    output = opened("-")
    fill(output, 2 * LIMIT)
    assert not output.add_now(b"login\n")
    assert not fcntl.fcntl(stdout.writer, fcntl.F_GETFL) & os.O_NONBLOCK


@pytest.mark.usefixtures("never_blocking")
def test_a_reader_that_comes_late_gets_whole_lines_in_order(
    stdout: StandardOutput, opened: Opener, clock: Clock
) -> None:
    output = opened("-")
    count = 0
    while not output.dropped:
        output.add(b"%09d\n" % count)
        count += 1
    taken = b""
    while clock.getDelayedCalls():
        taken += stdout.read()
        clock.advance(FLUSH_AFTER)
    taken = (taken + stdout.read()).replace(b"\r", b"")
    assert taken == b"".join(b"%09d\n" % number for number in range(count - 1))
    assert (output.written, output.dropped) == (count - 1, 1)


@pytest.mark.usefixtures("never_blocking")
def test_drops_are_said_once_a_minute(stdout: StandardOutput, opened: Opener) -> None:
    output = opened("-")
    with capturedLogs() as logs:
        fill(output, 2 * LIMIT)
    (text,) = said(logs)
    assert text.startswith("events cannot be written to -: its reader is too slow; ")


@pytest.mark.usefixtures("never_blocking")
def test_a_reader_that_is_gone_is_said_once_and_drops_are_counted(
    stdout: StandardOutput, opened: Opener, clock: Clock
) -> None:
    output = opened("-")
    stdout.hang_up()
    with capturedLogs() as logs:
        for _ in range(3):
            output.add(b"a\n")
            assert not output.add_now(b"login\n")
            clock.advance(SAY_EVERY + 1)
    (text,) = said(logs)
    assert text.startswith("events cannot be written to -: its reader is gone; ")
    assert (output.written, output.dropped, output.late) == (0, 6, 3)
    assert clock.getDelayedCalls() == []


@pytest.mark.usefixtures("never_blocking")
def test_the_shells_end_of_standard_output_stays_as_it_was(
    stdout: StandardOutput, opened: Opener
) -> None:
    opened("-").add_now(b"a\n")
    assert not fcntl.fcntl(stdout.writer, fcntl.F_GETFL) & os.O_NONBLOCK


@pytest.mark.usefixtures("never_blocking")
def test_standard_output_is_not_closed_with_the_output(
    stdout: StandardOutput, clock: Clock
) -> None:
    output = Output("-")
    output.open(clock)
    output.close()
    assert os.write(stdout.writer, b"still open\n")


@pytest.mark.usefixtures("never_blocking")
def test_opening_anew_lets_standard_output_be(stdout: StandardOutput, opened: Opener) -> None:
    output = opened("-")
    output.add(b"a\n")
    output.reopen()
    output.add_now(b"b\n")
    assert stdout.read().replace(b"\r", b"") == b"a\nb\n"


@pytest.mark.usefixtures("never_blocking")
def test_closing_gives_a_slow_reader_a_moment(
    stdout: StandardOutput, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WAIT", 15.0)
    output = Output("-")
    output.open(clock)
    fill(output, ROOM)
    assert output.written < ROOM // 1024
    with stdout.being_read():
        output.close()
    assert (output.written, output.dropped) == (ROOM // 1024, 0)


@pytest.mark.usefixtures("never_blocking")
def test_closing_gives_up_a_reader_that_reads_nothing(
    stdout: StandardOutput, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WAIT", 0.01)
    output = Output("-")
    output.open(clock)
    fill(output, ROOM)
    output.close()
    assert output.dropped == ROOM // 1024 - output.written > 0


def test_standard_output_may_be_a_file_that_is_not_appended_to(
    tmp_path: Path, opened: Opener, disk: Disk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "events", "wb") as file:
        monkeypatch.setattr(module, "_STDOUT", file.fileno())
        output = opened("-")
    disk.room = 8
    output.add(b"first\n")
    output.add_now(b"second\n")
    disk.room = None
    clock.advance(FLUSH_AFTER)
    assert (tmp_path / "events").read_bytes() == b"first\nsecond\n"


def test_standard_output_is_not_mistaken_for_a_file_of_that_name(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(b"torn")
    with open(tmp_path / "events", "wb") as file:
        monkeypatch.setattr(module, "_STDOUT", file.fileno())
        output = opened("-")
    output.add_now(b"login\n")
    assert (tmp_path / "events").read_bytes() == b"login\n"
    assert (tmp_path / "-").read_bytes() == b"torn"


def test_standard_output_that_is_closed_is_an_error_at_start(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STDOUT", -1)
    with pytest.raises(OutputError, match="cannot write to -: Bad file descriptor"):
        Output("-").open(clock)


@pytest.mark.usefixtures("never_blocking")
def test_a_named_pipe_whose_reader_comes_back_goes_on(tmp_path: Path, opened: Opener) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    output = opened(tmp_path / "fifo")
    os.close(reader)
    assert not output.add_now(b"lost\n")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with capturedLogs() as logs:
            assert output.add_now(b"login\n")
        assert os.read(reader, 100) == b"login\n"
    finally:
        os.close(reader)
    assert said(logs) == [f"events are written to {tmp_path}/fifo again; 1 were dropped so far"]
