"""Secrets in every form that a client can send them in: the program writes no piece of one."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from twisted.logger import Logger, capturedLogs, eventAsText
from twisted.python import log as older_log
from twisted.python.failure import Failure

from pop3proxy.analyzer.remembered import MAIL_PIECE, PIECE
from pop3proxy.cli import _log_line

from .proxy.live import CHECKOUT, PATIENCE, MailServer, meanwhile, receive_all, running
from .replay.making import C, S, Said, frames, pcap, segments
from .test_secret_pieces import ECHOES, SECRET, WAYS, hidden, pieces, plain

# A hook that only listens, and does with what it hears what careless hooks do.
CARELESS = """
from twisted.internet.defer import Deferred
from pop3proxy.hooks.api import Deny, Hook


class Careless(Hook):
    def pop3_request(self, event):
        raise ValueError(event.command, event.arg)

    async def pop3_login_attempt(self, event):
        raise KeyError(event.password)

    def pop3_login_failure(self, event):
        # Nobody waits for it, so that it is logged as not handled.
        Deferred().errback(ValueError(event.password, event.code))

    def pop3_reply(self, event):
        self.reactor.callLater(0, self.later, event.msg)

    def later(self, text):
        raise RuntimeError(text)

    def start(self, reactor):
        self.reactor = reactor


class Answers(Hook):
    blocking = True

    def pop3_request(self, event):
        return Deny(f"-ERR no {event.arg}") if event.arg.isprintable() else None
"""

# What servers answer a line with, one after the other; what is no reply would end inspection.
ANSWERS = [
    ECHOES[name] for name in ECHOES if name not in ("as a challenge", "as no reply", "as a body")
]


def lines(connection: socket.socket) -> Iterator[bytes]:
    """Yield lines as a server that ends them at a CR, an LF and the client's end."""
    rest = b""
    while chunk := connection.recv(65536):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from filter(None, whole)
    if rest:
        yield rest


def answer(connection: socket.socket) -> None:
    """Refuse everything, and repeat it in many ways, as careless servers do."""
    with connection:
        connection.sendall(b"+OK ready\r\n")
        challenges = 0
        for text in lines(connection):
            challenges -= challenges > 0
            if text in (b"AUTH PLAIN", b"AUTH CRAM-MD5", b"AUTH LOGIN"):
                challenges = 2 if text == b"AUTH LOGIN" else 1
            if challenges:
                connection.sendall(b"+ \r\n")
            elif text == b"USER bob":
                connection.sendall(b"+OK\r\n")
            else:
                connection.sendall(b"".join(echo(text) + b"\r\n" for echo in ANSWERS))


def play(port: int, runs: list[bytes]) -> None:
    """Say what a client says, each run when the one before is answered; then close."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert client.recv(65536)
        for run in runs:
            client.sendall(run)
            if run.strip() and run.endswith((b"\r", b"\n")):
                assert client.recv(65536)
        client.shutdown(socket.SHUT_WR)
        receive_all(client)


def everything_written(
    folder: Path, *arguments: str, ways: dict[str, list[bytes]]
) -> tuple[str, str]:
    """Play sessions through the proxy; return what of its events depends on the peers, and its log."""
    server = MailServer()
    events = folder / "events"
    (folder / "careless.py").write_text(CARELESS)

    def serve() -> None:
        for _ in ways:
            answer(server.accept())

    options = ("--events", str(events), *arguments)
    with (
        closing(server),
        meanwhile(serve),
        running(server.port, *options, folder=folder) as proxy,
    ):
        for runs in ways.values():
            play(proxy.port, runs)
        log = proxy.stop()
    return "\n".join(said(events.read_text())), log


def said(text: str) -> Iterator[str]:
    """Yield what of records depends on the peers: a uid may look like a piece of anything."""
    for line in text.splitlines():
        record = json.loads(line)
        yield record["event"]
        for name, value in record.items():
            if name not in ("event", "uid") and isinstance(value, str):
                yield value


def leaks(text: str, size: int = PIECE) -> list[str]:
    text = re.sub(r"\bC[0-9A-Za-z]{16,17}\b", "", text).casefold()
    return [piece for each in hidden(SECRET) for piece in pieces(each, size) if piece in text]


ALL_WAYS = {name: way(SECRET) for name, way in WAYS.items()}
FEW_WAYS = {name: ALL_WAYS[name] for name in ("PASS", "initial response", "APOP", "alone")}


def test_no_secret_is_written(tmp_path: Path) -> None:
    (tmp_path / "careless.toml").write_text('[[hooks]]\nname = "careless:Careless"\n')
    options = ("--config", str(tmp_path / "careless.toml"), "--data")
    written, log = everything_written(tmp_path, *options, ways=ALL_WAYS)
    # All was said and heard.
    assert written.count("pop3_session") == len(WAYS)
    assert written.count("pop3_login_failure") >= 10
    for what in (
        "hook Careless failed on pop3_request",
        "hook Careless failed on pop3_login_attempt",
    ):
        assert what in log
    assert "Unhandled error in Deferred" in log
    assert "RuntimeError" in log
    assert leaks(written) == []
    assert leaks(log) == []


def test_secrets_are_written_only_if_asked_for_in_so_many_words(tmp_path: Path) -> None:
    (tmp_path / "shown.toml").write_text("[events]\nshow_secrets = true\n")
    options = ("--config", str(tmp_path / "shown.toml"))
    written, _ = everything_written(tmp_path, *options, ways=FEW_WAYS)
    for each in hidden(SECRET)[:3]:
        assert each.decode() in written


def test_a_mask_that_is_left_out_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: without masking the same lines do show their secrets."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pop3proxy.hooks.masking as masking\n"
        "masking.RULES = dict.fromkeys(masking.RULES, masking.in_clear)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    written, _ = everything_written(tmp_path, ways=FEW_WAYS)
    assert leaks(written) != []


def test_a_replay_writes_no_secret(tmp_path: Path) -> None:
    """Neither in events, mail among them, nor in what it says of a hook's verdict."""
    (tmp_path / "careless.py").write_text(CARELESS)
    (tmp_path / "careless.toml").write_text(
        'listen = ["tcp:110"]\nupstream = "tcp:localhost:110"\n'
        '[[hooks]]\nname = "careless:Answers"\n'
    )
    text = SECRET.decode()
    dialogue = [
        (S, b"+OK ready\r\n"),
        (C, b"USER bob\r\n"),
        (S, b"+OK\r\n"),
        (C, b"PASS " + SECRET + b"\r\n"),
        (S, b"+OK Logged in.\r\n"),
        (C, b"RETR 1\r\n"),
        (S, f"+OK 1\r\nSubject: it\r\n\r\nis {text.upper()}, you know\r\nBye\r\n.\r\n".encode()),
        (C, b"AUTH PLAIN " + plain(SECRET) + b"\r\n"),
        (S, b"-ERR no " + plain(SECRET)[4:16] + b"\r\n"),
    ]
    (tmp_path / "capture").write_bytes(pcap(frames(segments([Said(*each) for each in dialogue]))))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pop3proxy", "replay", "capture"),
            *("--events", "-", "--config", "careless.toml"),
        ],
        capture_output=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"},
        text=True,
    )
    written = "\n".join(said(done.stdout))
    for shown in ("Subject: it", "Bye", "Logged in."):
        assert shown in written
    assert "pop3_request would have been answered with Deny(reply='-ERR (masked)')" in done.stderr
    assert leaks(written, MAIL_PIECE) == []
    assert leaks(done.stderr) == []


def _failure(text: str) -> Failure:
    try:
        try:
            raise KeyError(text)
        except KeyError as problem:
            raise ValueError(f"not {text}") from problem
    except ValueError:
        return Failure()


@pytest.mark.parametrize(
    "logged",
    [
        lambda failure: Logger("x").failure("it failed", failure),
        lambda failure: Logger("x").failure("it failed: {log_failure}", failure),
        lambda failure: older_log.err(failure, "it failed"),
        older_log.err,
    ],
)
def test_of_a_failure_the_log_has_its_type_and_its_calls(
    logged: Callable[[Failure], None],
) -> None:
    with capturedLogs() as events:
        logged(_failure("hunter2"))
    (event,) = events
    # The text is there, if somebody writes it.
    assert "hunter2" in eventAsText(event)
    text = _log_line(event)
    assert "ValueError" in text
    assert "in _failure" in text
    assert "hunter2" not in text
