"""What goes in on one side of a running proxy comes out on the other, and so do ends and resets."""

import random
import socket

import pytest

from .live import (
    GREETING,
    MailServer,
    Proxy,
    meanwhile,
    receive,
    receive_all,
    reset,
    session,
)

DRAW = random.Random(1939)
LINES = [
    b"NOOP",
    b"",
    b".",
    b"..",
    b"+OK",
    b"-ERR",
    b"\x00",
    b"\xff\xfe",
    b"USER b\xc3\xb6b",
    b"A" * 9000,
]
INPUTS = {
    "random": DRAW.randbytes(300_000),
    "NUL": b"\0" * 100_000 + b"\n" + b"\0\n" * 500,
    "8-bit": bytes(range(128, 256)) * 1000 + b"\r\n",
    "LF only": b"".join(DRAW.choice(LINES) + b"\n" for _ in range(500)),
    "CRLF": b"".join(DRAW.choice(LINES) + b"\r\n" for _ in range(500)),
    "CR only": b"NOOP\r" * 20_000,
    "one octet": b"\0",
}


def assert_arrives_both_ways(
    client: socket.socket, server: socket.socket, up: bytes, down: bytes
) -> None:
    with meanwhile(lambda: client.sendall(up)), meanwhile(lambda: server.sendall(down)):
        got: list[bytes] = []
        with meanwhile(lambda: got.append(receive(server, len(up)))):
            assert receive(client, len(down)) == down
        assert got == [up]


@pytest.mark.parametrize("up", INPUTS)
def test_any_bytes_arrive_as_they_were_sent_both_ways(
    proxy: Proxy, mail_server: MailServer, up: str
) -> None:
    for down in INPUTS.values():
        with session(proxy, mail_server) as (client, server):
            assert_arrives_both_ways(client, server, INPUTS[up], down)


def test_opaque_bytes_after_stls_arrive_as_they_were_sent(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with session(proxy, mail_server) as (client, server):
        client.sendall(b"STLS\r\n")
        assert receive(server, 6) == b"STLS\r\n"
        server.sendall(b"+OK begin\r\n")
        assert receive(client, 11) == b"+OK begin\r\n"
        assert_arrives_both_ways(
            client, server, DRAW.randbytes(4_000_000), DRAW.randbytes(4_000_000)
        )


def test_a_client_that_speaks_before_the_greeting_loses_nothing(
    proxy: Proxy, mail_server: MailServer
) -> None:
    said = b"USER bob\r\nPASS x\r\nSTAT\r\nQUIT\r\n"
    with proxy.connect() as client:
        client.sendall(said)
        with mail_server.accept() as server:
            assert receive(server, len(said)) == said
            server.sendall(GREETING)
            assert receive(client, len(GREETING)) == GREETING


def test_a_client_that_has_sent_all_may_still_read(proxy: Proxy, mail_server: MailServer) -> None:
    with session(proxy, mail_server) as (client, server):
        client.sendall(b"STAT\r\n")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"STAT\r\n"
        server.sendall(b"+OK 0 0\r\n")
        assert receive(client, 9) == b"+OK 0 0\r\n"
        server.sendall(b"+OK late\r\n")
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"+OK late\r\n"


def test_a_server_that_has_sent_all_may_still_read(proxy: Proxy, mail_server: MailServer) -> None:
    with session(proxy, mail_server) as (client, server):
        server.sendall(b"+OK bye\r\n")
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"+OK bye\r\n"
        client.sendall(b"NOOP\r\n")
        assert receive(server, 6) == b"NOOP\r\n"
        client.sendall(b"QUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"QUIT\r\n"


def test_a_client_that_half_closes_before_the_greeting_is_served(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with proxy.connect() as client:
        client.sendall(b"QUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        with mail_server.accept() as server:
            assert receive_all(server) == b"QUIT\r\n"
            server.sendall(GREETING + b"+OK bye\r\n")
        assert receive_all(client) == GREETING + b"+OK bye\r\n"


def test_the_reset_of_a_client_ends_the_servers_connection(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with session(proxy, mail_server) as (client, server):
        reset(client)
        assert receive_all(server) == b""


@pytest.mark.parametrize("dies", ["resets", "closes"])
def test_a_message_that_the_server_cuts_off_has_no_final_dot(
    proxy: Proxy, mail_server: MailServer, dies: str
) -> None:
    half = b"+OK\r\n" + b"half of a message\r\n" * 100
    with session(proxy, mail_server) as (client, server):
        client.sendall(b"RETR 1\r\n")
        assert receive(server, 8) == b"RETR 1\r\n"
        server.sendall(half)
        assert receive(client, len(half)) == half
        if dies == "resets":
            reset(server)
        else:
            server.close()
        assert receive_all(client) == b""


def test_what_a_server_said_before_it_closed_reaches_a_slow_reader_whole(
    proxy: Proxy, mail_server: MailServer
) -> None:
    message = DRAW.randbytes(8_000_000)

    def say(server: socket.socket) -> None:
        server.sendall(message)
        server.close()

    with session(proxy, mail_server) as (client, server), meanwhile(lambda: say(server)):
        assert receive(client, 1) == message[:1]
        assert receive_all(client) == message[1:]


def test_what_a_client_said_before_it_closed_reaches_a_slow_server_whole(
    proxy: Proxy, mail_server: MailServer
) -> None:
    message = b"x" * 8_000_000

    def say(client: socket.socket) -> None:
        client.sendall(message)
        client.close()

    with session(proxy, mail_server) as (client, server), meanwhile(lambda: say(client)):
        assert receive_all(server) == message


def test_an_upstream_that_is_down_is_answered_at_once(
    proxy: Proxy, mail_server: MailServer
) -> None:
    mail_server.close()
    with proxy.connect() as client:
        answer = receive_all(client)
    assert answer.startswith(b"-ERR [SYS/TEMP] ")
    assert answer.endswith(b"\r\n")
    assert answer.count(b"\n") == 1
    assert "upstream_unreachable 1" in proxy.stop()


def test_an_upstream_that_closes_before_its_greeting_is_answered(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with proxy.connect() as client:
        mail_server.accept().close()
        answer = receive_all(client)
    assert answer.startswith(b"-ERR [SYS/TEMP] ")
    assert answer.count(b"\n") == 1


def test_an_upstream_that_resets_before_its_greeting_is_answered(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with proxy.connect() as client:
        reset(mail_server.accept())
        answer = receive_all(client)
    assert answer.startswith(b"-ERR [SYS/TEMP] ")
    assert answer.count(b"\n") == 1


def test_nothing_of_ours_follows_a_greeting_that_was_cut(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with proxy.connect() as client:
        with mail_server.accept() as server:
            server.sendall(b"+OK rea")
        assert receive_all(client) == b"+OK rea"
