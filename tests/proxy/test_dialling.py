"""Connecting to a mail server at an IP address: what comes of it, and what is left when nothing does."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import Connection
from pop3proxy.proxy.addresses import Target, target
from pop3proxy.proxy.dialling import Dialler
from pop3proxy.proxy.session import Mode, Session

from .live import MailServer, receive, receive_all, reset
from .loop import Loop
from .pair import Around, Transport


def waiting_session() -> Session:
    """Make a session whose client is there."""
    connection = Connection("Cuid", "192.0.2.1", 4000, "", 0)
    session = Session(connection, Analyzer(connection), Around())
    session.client.makeConnection(Transport())
    return session


@pytest.fixture
def session() -> Session:
    return waiting_session()


@pytest.fixture
def whys(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why the session's server could not be reached, each time that it was told."""
    told: list[str] = []
    monkeypatch.setattr(Session, "unreachable", lambda _, why: told.append(why))
    return told


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server that answers no attempt to connect: its queue is full."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def dialler(loop: Loop, endpoint: str) -> Dialler:
    where = target(endpoint)
    assert where is not None
    return Dialler(loop.engine, where)


def test_a_session_begins_when_it_is_connected_and_hears_who_it_reached(
    loop: Loop, session: Session, mail_server: MailServer
) -> None:
    dialler(loop, f"tcp:127.0.0.1:{mail_server.port}").open(session)
    assert session.mode is Mode.CONNECTING
    loop.until(lambda: session.mode is Mode.RELAY)
    assert (session.connection.resp_h, session.connection.resp_p) == ("127.0.0.1", mail_server.port)
    with mail_server.accept() as server:
        server.sendall(b"+OK ready\r\n")
        loop.until(lambda: session.analyzer.owed == 0)
        session.client.dataReceived(b"QUIT\r\n")
        assert receive(server, 6) == b"QUIT\r\n"
        session.shut_down()
        assert receive_all(server) == b""


def test_a_server_is_reached_though_it_waits_for_us_to_speak(
    loop: Loop, session: Session, mail_server: MailServer
) -> None:
    """As one does that begins with TLS."""
    session.client.dataReceived(b"\x16\x03\x01")
    dialler(loop, f"tcp:127.0.0.1:{mail_server.port}").open(session)
    loop.until(lambda: session.mode is not Mode.CONNECTING)
    with mail_server.accept() as server:
        assert receive(server, 3) == b"\x16\x03\x01"
        session.shut_down()


def test_short_commands_are_sent_at_once(
    loop: Loop, session: Session, mail_server: MailServer
) -> None:
    dialler(loop, f"tcp:127.0.0.1:{mail_server.port}").open(session)
    loop.until(lambda: session.server)
    wire = session.server
    assert wire is not None
    assert wire._socket is not None
    assert wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    session.shut_down()


def test_a_refusal_is_told_in_clear_text(loop: Loop, session: Session, whys: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    dialler(loop, f"tcp:127.0.0.1:{port}").open(session)
    loop.until(lambda: whys)
    assert whys == ["Connection refused"]
    assert loop.reactor.getDelayedCalls() == []


def test_an_address_without_a_route_is_told_at_once(
    loop: Loop, session: Session, whys: list[str]
) -> None:
    dialler(loop, "tcp:255.255.255.255:110").open(session)
    assert len(whys) == 1
    assert whys[0] in {os.strerror(number) for number in (13, 101)}
    assert loop.reactor.getDelayedCalls() == []


def test_an_own_address_that_is_not_ours_is_told_at_once(
    loop: Loop, session: Session, whys: list[str]
) -> None:
    dialler(loop, "tcp:127.0.0.1:110:bindAddress=192.0.2.1").open(session)
    assert whys == ["Cannot assign requested address"]


def test_the_own_address_is_the_one_that_was_asked_for(
    loop: Loop, session: Session, mail_server: MailServer
) -> None:
    dialler(loop, f"tcp:127.0.0.1:{mail_server.port}:bindAddress=127.0.0.2").open(session)
    loop.until(lambda: session.server)
    with mail_server.accept() as server:
        assert server.getpeername()[0] == "127.0.0.2"
        session.shut_down()


def test_an_answer_that_does_not_come_in_time_is_told(
    loop: Loop, session: Session, whys: list[str], full: int
) -> None:
    dialler(loop, f"tcp:127.0.0.1:{full}:timeout=7").open(session)
    loop.reactor.advance(6.9)
    assert whys == []
    loop.reactor.advance(0.2)
    assert whys == ["no answer within 7 seconds"]
    assert not loop.turn()


def test_an_attempt_that_is_given_up_says_nothing(
    loop: Loop, session: Session, whys: list[str], full: int
) -> None:
    give_up = dialler(loop, f"tcp:127.0.0.1:{full}").open(session)
    give_up()
    give_up()
    loop.reactor.advance(31)
    assert not loop.turn()
    assert whys == []


def test_giving_up_comes_too_late_once_there_is_a_connection(
    loop: Loop, session: Session, mail_server: MailServer
) -> None:
    give_up = dialler(loop, f"tcp:127.0.0.1:{mail_server.port}").open(session)
    loop.until(lambda: session.mode is Mode.RELAY)
    give_up()
    with mail_server.accept() as server:
        server.sendall(b"+OK ready\r\n")
        loop.until(lambda: session.analyzer.owed == 0)
        session.shut_down()


def test_a_server_that_resets_at_once_ends_the_session(
    loop: Loop, session: Session, mail_server: MailServer
) -> None:
    dialler(loop, f"tcp:127.0.0.1:{mail_server.port}").open(session)
    reset(mail_server.accept())
    loop.until(lambda: session.mode is Mode.ENDING)


def test_no_descriptor_is_no_error_of_ours(
    loop: Loop, session: Session, whys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(socket, "socket", fail)
    dialler(loop, "tcp:127.0.0.1:110").open(session)
    assert whys == ["Too many open files"]


def test_an_error_of_ours_while_it_begins_ends_the_session(
    loop: Loop, session: Session, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    dialler(loop, f"tcp:127.0.0.1:{mail_server.port}").open(session)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "begun", fail)
        loop.until(lambda: session.mode is not Mode.CONNECTING)
    with mail_server.accept() as server, pytest.raises(ConnectionResetError):
        server.recv(1)


V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp:192.0.2.1:110", Target(V4, ("192.0.2.1", 110), 30)),
        ("TCP:host=192.0.2.1:port=110", Target(V4, ("192.0.2.1", 110), 30)),
        ("tcp:host=192.0.2.1:110", Target(V4, ("192.0.2.1", 110), 30)),
        ("tcp:192.0.2.1:port=110:timeout=5", Target(V4, ("192.0.2.1", 110), 5)),
        (r"tcp:2001\:db8\:\:1:110", Target(V6, ("2001:db8::1", 110, 0, 0), 30)),
        (
            "tcp:192.0.2.1:110:bindAddress=192.0.2.9",
            Target(V4, ("192.0.2.1", 110), 30, ("192.0.2.9", 0)),
        ),
        (r"tcp:192.0.2.1:110:bindAddress=\:\:1", None),
        ("tcp:192.0.2.1:110:bindAddress=mail.example.org", None),
        ("tcp:mail.example.org:110", None),
        ("tcp:localhost:110", None),
        ("tls:192.0.2.1:995", None),
        ("ssl:192.0.2.1:995", None),
        ("unix:/run/pop3", None),
        ("tcp:192.0.2.1:110:somethingNew=1", None),
        ("tcp:192.0.2.1:65646", None),
    ],
)
def test_only_an_address_over_plain_tcp_is_dialled_without_an_endpoint(
    endpoint: str, expected: Target | None
) -> None:
    assert target(endpoint) == expected
