"""What a replay costs, beside tshark on the same captures, in one run.

    python -m benchmarks.replay            # some minutes, 2 GB of temporary files
    python -m benchmarks.replay --quick    # a tenth of it, for a first look

It needs tshark (Debian: ``apt install tshark``); without it only ours is measured. The table goes to standard
output. Exit status 0, or 1 if a capture was not read as it should be.
"""

import argparse
import base64
import json
import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOGINS = 20_000
AT_A_TIME = 32
MEGABYTE = 1_000_000
RETR_MB = 500
MESSAGE = 10 * MEGABYTE
MESSAGES_A_SESSION = 10
SEGMENT = 1448
"""Octets of data in a full packet of Ethernet, with TCP's time stamps."""

_FIN, _SYN, _PSH, _ACK = 0x01, 0x02, 0x08, 0x10
_CLIENT, _SERVER = True, False

Talk = Sequence[tuple[bool, bytes]]

GREETED: Talk = [(_SERVER, b"+OK POP3 server ready\r\n")]
LOGGED_IN: Talk = [
    *GREETED,
    (_CLIENT, b"USER bob\r\n"),
    (_SERVER, b"+OK\r\n"),
    (_CLIENT, b"PASS secret\r\n"),
    (_SERVER, b"+OK logged in\r\n"),
]
QUIT: Talk = [(_CLIENT, b"QUIT\r\n"), (_SERVER, b"+OK bye\r\n")]
LOGIN: Talk = [*LOGGED_IN, (_CLIENT, b"STAT\r\n"), (_SERVER, b"+OK 0 0\r\n"), *QUIT]


class _Talker:
    """Makes the frames of one TCP connection."""

    def __init__(self, number: int) -> None:
        client = (0x0A000000 + number).to_bytes(4, "big")
        server = socket.inet_aton("192.0.2.1")
        self._addresses = {_CLIENT: client + server, _SERVER: server + client}
        port = 20_000 + number % 40_000
        self._ports = {_CLIENT: (port, 110), _SERVER: (110, port)}
        self._due = {_CLIENT: number * 7919, _SERVER: number * 104_729}

    def frame(self, side: bool, flags: int, data: bytes = b"") -> bytes:
        tcp = struct.pack(
            "!HHIIBBHHH",
            *self._ports[side],
            self._due[side] & 0xFFFFFFFF,
            self._due[not side] & 0xFFFFFFFF if flags & _ACK else 0,
            0x80,
            flags,
            65535,
            0,
            0,
        )
        tcp += b"\x01\x01\x08\x0a" + bytes(8)
        self._due[side] += len(data) + bool(flags & (_SYN | _FIN))
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(data), 0, 0x4000, 64, 6, 0)
        return bytes(12) + b"\x08\x00" + head + self._addresses[side] + tcp + data

    def say(self, side: bool, data: bytes) -> Iterator[bytes]:
        """Say something; every second packet is acknowledged, and the last."""
        for number, at in enumerate(range(0, len(data), SEGMENT)):
            yield self.frame(side, _ACK | _PSH, data[at : at + SEGMENT])
            if number % 2 or at + SEGMENT >= len(data):
                yield self.frame(not side, _ACK)

    def session(self, talk: Talk) -> Iterator[bytes]:
        yield self.frame(_CLIENT, _SYN)
        yield self.frame(_SERVER, _SYN | _ACK)
        yield self.frame(_CLIENT, _ACK)
        for side, data in talk:
            yield from self.say(side, data)
        yield self.frame(_SERVER, _FIN | _ACK)
        yield self.frame(_CLIENT, _FIN | _ACK)
        yield self.frame(_SERVER, _ACK)


def logins(count: int) -> Iterator[bytes]:
    """Give the frames of short logins, so many of them at a time."""
    waiting = (_Talker(number).session(LOGIN) for number in range(count))
    running: list[Iterator[bytes]] = []
    while True:
        while len(running) < AT_A_TIME and (session := next(waiting, None)) is not None:
            running.append(session)
        if not running:
            return
        for session in list(running):
            frame = next(session, None)
            if frame is None:
                running.remove(session)
            else:
                yield frame


def messages(count: int) -> Iterator[bytes]:
    """Give the frames of sessions that fetch messages of base64."""
    source = random.Random(1)
    line = 78
    lines = [base64.b64encode(source.randbytes(57)) + b"\r\n" for _ in range(MESSAGE // line)]
    body = b"+OK\r\nFrom: a\r\n\r\n" + b"".join(lines) + b".\r\n"
    for number in range(0, count, MESSAGES_A_SESSION):
        fetched = min(MESSAGES_A_SESSION, count - number)
        talk = [*LOGGED_IN, *[(_CLIENT, b"RETR 1\r\n"), (_SERVER, body)] * fetched, *QUIT]
        yield from _Talker(number).session(talk)


def write(path: Path, frames: Iterator[bytes]) -> None:
    """Write a pcap file, a frame each 10 microseconds."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for number, frame in enumerate(frames):
            seconds, fraction = divmod(number * 10, MEGABYTE)
            size = len(frame)
            file.write(struct.pack("<IIII", 1_700_000_000 + seconds, fraction, size, size) + frame)


@dataclass(slots=True)
class Column:
    """A program and how it is called; ``cpu`` is what each round took by capture, in seconds."""

    title: str
    command: Sequence[str]
    cpu: dict[str, list[float]] = field(default_factory=dict)


FIELDS = (
    "frame.time_epoch ip.src tcp.srcport ip.dst tcp.dstport"
    " pop.request.command pop.request.parameter pop.response.indicator pop.response.description"
)
TSHARK = [
    *("tshark", "-n", "-r", "{capture}", "-Y", "pop", "-T", "fields"),
    *(word for name in FIELDS.split() for word in ("-e", name)),
    # Otherwise it puts each message together anew with every packet, and takes twenty times as long.
    *("-o", "pop.desegment_data:FALSE"),
]
OURS = [sys.executable, "-m", "pop3proxy", "replay", "{capture}", "--events", "-"]


def _measure(column: Column, capture: Path, out: Path) -> float:
    """Run a program with its output in a file, and return its CPU time in seconds."""
    command = [word.format(capture=capture) for word in column.command]
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"benchmarks: {command[0]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def _check(out: Path, sessions: int, octets: int) -> None:
    """See that ours told of all sessions and all octets."""
    seen = read = 0
    with out.open("rb") as lines:
        for line in lines:
            if b'"event":"pop3_session"' in line:
                record = json.loads(line)
                seen += record["outcome"] == "success" and record["inspected"] == "whole"
                read += record["resp_octets"]
    if seen != sessions or read < octets:
        raise SystemExit(
            f"benchmarks: {seen} sessions and {read} octets instead of {sessions}, {octets}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of all")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args(arguments)
    part = 10 if options.quick else 1
    count, size = LOGINS // part, RETR_MB // part
    columns = [Column("ours", OURS), Column("ours, no data", [*OURS, "--no-data"])]
    if shutil.which("tshark"):
        columns.append(Column("tshark", TSHARK))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        captures = {"logins": folder / "logins.pcap", "retr": folder / "retr.pcap"}
        write(captures["logins"], logins(count))
        fetched = size * MEGABYTE // MESSAGE
        write(captures["retr"], messages(fetched))
        due = {
            "logins": (count, 0),
            "retr": (-(-fetched // MESSAGES_A_SESSION), fetched * (MESSAGE - 100)),
        }
        for turn in range(options.rounds):
            for kind, capture in captures.items():
                for column in columns if turn % 2 == 0 else columns[::-1]:
                    out = folder / "out"
                    cpu = _measure(column, capture, out)
                    if "ours" in column.title:
                        _check(out, *due[kind])
                    column.cpu.setdefault(kind, []).append(cpu)
                    print(f"{kind}, {column.title}: {cpu:.2f} s", file=sys.stderr)
    units = {"logins": count, "retr": fetched * MESSAGE / MEGABYTE}
    titles = {"logins": "short logins a CPU second", "retr": "MB of RETR a CPU second"}
    print(f"| | {' | '.join(column.title for column in columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for kind, title in titles.items():
        rates = [units[kind] / statistics.median(column.cpu[kind]) for column in columns]
        print(f"| {title} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
