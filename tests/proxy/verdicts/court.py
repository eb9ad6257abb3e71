"""A session before a hook that asks the test: both its ends, the questions, and the records."""

import json
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..live import GREETING, PATIENCE, MailServer, Proxy, receive_all, reset, running, until

DENIED = b"-ERR [AUTH] Authentication failed.\r\n"
"""The reply of a Deny that names none."""

UNAVAILABLE = b"-ERR [SYS/TEMP] "


class Peer:
    """One end of a session, with all the bytes that it has got."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.got = b""

    def says(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hears(self, expected: bytes) -> None:
        """Read so many bytes, and see that they are these."""
        data = bytearray()
        try:
            while len(data) < len(expected):
                chunk = self.socket.recv(min(len(expected) - len(data), 1 << 16))
                if not chunk:
                    break
                data += chunk
        except TimeoutError:
            pass
        finally:
            self.got += data
        self._compare(bytes(data), expected)

    def has_heard_nothing(self) -> None:
        """See that nothing has come; what could still be on its way a fence has waited for."""
        self.socket.setblocking(False)
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        finally:
            self.socket.settimeout(PATIENCE)
        raise AssertionError(f"came unasked: {data!r}, behind {self.got[-200:]!r}")

    def has_heard_of(self, expected: bytes) -> bytes:
        """See that what has come so far is the beginning of this; return the rest, which has not come."""
        self.socket.setblocking(False)
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            data = b""
        finally:
            self.socket.settimeout(PATIENCE)
        self.got += data
        self._compare(data, expected[: len(data)])
        return expected[len(data) :]

    def hears_the_end(self, expected: bytes = b"") -> None:
        """Read to the end, and see that nothing else comes before it."""
        data = receive_all(self.socket)
        self.got += data
        self._compare(data, expected)

    def _compare(self, data: bytes, expected: bytes) -> None:
        if data != expected:
            shown = f"{data[-200:]!r} came instead of {expected[-200:]!r}"
            raise AssertionError(f"{shown}; before it: {self.got[: -len(data) or None][-200:]!r}")

    def ends(self) -> None:
        """Say no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def leaves(self) -> None:
        self.socket.close()

    def resets(self) -> None:
        reset(self.socket)


@dataclass(frozen=True)
class Question:
    """An event about which the proxy's hook is asked, and waits."""

    court: "Court"
    number: int
    event: str
    port: int
    told: Mapping[str, Any]

    def answer(self, verdict: str) -> None:
        self.court.tell(self.number, verdict)

    def is_cancelled(self) -> None:
        """Wait until the proxy does not want to know any more."""
        told = self.court.next(self.port)
        assert (told.event, told.number) == ("cancelled", self.number), told


class Court:
    """Where the hook connects to, and asks."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE)
        self.port: int = self._listening.getsockname()[1]
        self._line: socket.socket | None = None
        self._unread = b""
        self._questions: dict[int, deque[Question]] = defaultdict(deque)
        self._fences = 0

    def close(self) -> None:
        self._listening.close()
        if self._line is not None:
            self._line.close()

    def _connected(self) -> socket.socket:
        if self._line is None:
            self._line, _ = self._listening.accept()
            self._line.settimeout(PATIENCE)
            self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._line

    def tell(self, number: int, what: str) -> None:
        self._connected().sendall(f"{number} {what}\n".encode())

    def release(self) -> None:
        """Let all that is held go on, by one word."""
        self.tell(0, "release")

    def _read(self) -> Question:
        """Wait for one line of the hook."""
        line = self._connected()
        while b"\n" not in self._unread:
            try:
                chunk = line.recv(1 << 16)
            except TimeoutError:
                raise AssertionError("the hook is not asked") from None
            assert chunk, "the hook has gone"
            self._unread += chunk
        text, _, self._unread = self._unread.partition(b"\n")
        told = json.loads(text)
        return Question(self, told.pop("number"), told.pop("event"), told.pop("port", 0), told)

    def next(self, port: int) -> Question:
        """Wait for the next question about the client with that port."""
        while not self._questions[port]:
            question = self._read()
            self._questions[question.port].append(question)
        return self._questions[port].popleft()

    def unasked(self, port: int) -> None:
        """See that nothing was asked about that client, as far as a fence has waited."""
        assert not self._questions[port], self._questions[port]

    def forget(self, port: int) -> None:
        self._questions.pop(port, None)

    def fence(self) -> None:
        """Wait until the proxy has worked off all that it had been sent before.

        In the turn of its reactor that answers the first of two words everything before it is ready to be
        read at least; in the one that answers the second it has been read.
        """
        for _ in range(2):
            self._fences += 1
            self.tell(self._fences, "fence")
            while True:
                told = self._read()
                if told.event == "fence":
                    assert told.number == self._fences
                    break
                self._questions[told.port].append(told)


class Case:
    """One session: the client, the server, and what is asked about them."""

    def __init__(self, room: "Courtroom", client: Peer, server: Peer, begun: float) -> None:
        self._room = room
        self._begun = begun
        self.client = client
        self.server = server
        self.port: int = client.socket.getsockname()[1]

    def question(self, event: str = "pop3_login_attempt", **told: str) -> Question:
        """Wait for the question about an event, with these parameters."""
        question = self._room.court.next(self.port)
        assert question.event == event, question
        assert {**question.told, **told} == question.told, question
        return question

    def stands_still(self) -> None:
        """See that neither side gets anything, and nobody is asked, unless something else happens."""
        self._room.court.fence()
        self.server.has_heard_nothing()
        self.client.has_heard_nothing()
        self._room.court.unasked(self.port)

    def goes_on(self) -> None:
        """See that the session lives: a command goes up, and its reply comes down."""
        self.client.says(b"NOOP\r\n")
        self.server.hears(b"NOOP\r\n")
        self.server.says(b"+OK alive\r\n")
        self.client.hears(b"+OK alive\r\n")

    def records(self) -> list[dict[str, Any]]:
        """All its records so far."""
        return self._room.records(self.port, self._begun)

    def summary(self) -> dict[str, Any]:
        """End what has not ended, and return its last record."""
        self.client.leaves()
        self.server.leaves()

        def over() -> bool:
            return any(record["event"] == "pop3_session" for record in self.records())

        until(over, "the session is over")
        return self.records()[-1]

    def logins(self) -> list[tuple[str, ...]]:
        """Return event, user and reason of its logins so far."""
        return [
            (record["event"], record["user"], *([record["reason"]] if "reason" in record else []))
            for record in self.records()
            if record["event"] in ("pop3_login_success", "pop3_login_failure")
        ]


class Courtroom:
    """A running proxy with hooks that decide."""

    def __init__(self, proxy: Proxy, mail_server: MailServer, court: Court, events: Path) -> None:
        self.proxy = proxy
        self.mail_server = mail_server
        self.court = court
        self._events = events

    @contextmanager
    def session(self, greeting: bytes = GREETING) -> Iterator[Case]:
        """Begin a session, its greeting sent and read; an empty one stays unsaid."""
        begun = time.time()
        with self.proxy.connect() as client, self.mail_server.accept() as server:
            case = Case(self, Peer(client), Peer(server), begun)
            self.court.forget(case.port)
            if greeting:
                case.server.says(greeting)
                case.client.hears(greeting)
            yield case

    def records(self, port: int, since: float = 0.0) -> list[dict[str, Any]]:
        """Return all records of the last client that had that port, from a time on.

        Records are written in batches: without a time they may be those of another client.
        """
        found: list[dict[str, Any]] = []
        for line in self._events.read_text().splitlines():
            record = json.loads(line)
            if record["id.orig_p"] == port and record["ts"] >= since:
                if record["event"] == "pop3_connect":
                    found.clear()
                found.append(record)
        return found

    def counted(self, what: str) -> int:
        """Stop the proxy; return one of its counts."""
        last = self.proxy.stop().splitlines()[-1].partition("counted: ")[2]
        counts = dict(each.rsplit(" ", 1) for each in last.split(", "))
        return int(counts.get(what, 0))


@contextmanager
def sitting(
    folder: Path, settings: str = "", hook: str = "Judge", **options: object
) -> Iterator[Courtroom]:
    """Run a proxy whose sessions the test decides about, until the end of the block."""
    mail_server, court = MailServer(), Court()
    options["court"] = court.port
    written = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    path = folder / "proxy.toml"
    path.write_text(
        f'{settings}\n[[hooks]]\nname = "{__package__}.judge:{hook}"\n[hooks.options]\n{written}'
    )
    events = folder / "events.jsonl"
    try:
        with running(mail_server.port, "--config", str(path), "--events", str(events)) as proxy:
            yield Courtroom(proxy, mail_server, court, events)
    finally:
        court.close()
        mail_server.close()
