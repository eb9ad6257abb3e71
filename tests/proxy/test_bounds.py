"""The memory and the descriptors of a running proxy, whatever its peers send or do not read."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from .live import (
    FULL_AFTER,
    GREETING,
    TROUBLE,
    MailServer,
    Proxy,
    meanwhile,
    receive,
    receive_all,
    send_until_full,
    session,
    until,
)

MB = 1 << 20
FEW = 16 * MB
"""What one session may take at the most, and it takes far less: two chunks, and what the analyzer keeps."""

A_THOUSAND = 20 * MB
LINE = b"TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24sIGJ1dCBieSB0aGlz\r\n"
MESSAGE = b"+OK\r\n" + LINE * (100 * MB // len(LINE)) + b".\r\n"


@pytest.mark.parametrize("opaque", [False, True], ids=["inspected", "after STLS"])
def test_a_slow_reader_of_a_long_message_costs_no_memory(
    proxy: Proxy, mail_server: MailServer, opaque: bool
) -> None:
    with session(proxy, mail_server) as (client, server):
        if opaque:
            client.sendall(b"STLS\r\n")
            assert receive(server, 6) == b"STLS\r\n"
            server.sendall(b"+OK\r\n")
            assert receive(client, 5) == b"+OK\r\n"
        client.sendall(b"RETR 1\r\n")
        assert receive(server, 8) == b"RETR 1\r\n"
        before = proxy.memory()
        sent = send_until_full(server, MESSAGE)
        assert sent < len(MESSAGE)
        with meanwhile(lambda: server.sendall(memoryview(MESSAGE)[sent:])):
            digest = hashlib.sha256()
            left = len(MESSAGE)
            while left and (chunk := client.recv(MB)):
                digest.update(chunk)
                left -= len(chunk)
        assert digest.digest() == hashlib.sha256(MESSAGE).digest()
        assert proxy.most_memory() - before < FEW


@pytest.mark.parametrize(
    "said",
    [b"NOOP\r\n" * 8_000_000, b"x" * 60 * MB, b"STLS\r\n" + b"x" * 60 * MB],
    ids=["commands", "one line", "behind STLS"],
)
def test_a_server_that_never_reads_costs_no_memory(
    proxy: Proxy, mail_server: MailServer, said: bytes
) -> None:
    with session(proxy, mail_server) as (client, _):
        before = proxy.memory()
        assert send_until_full(client, said) < len(said)
        assert proxy.most_memory() - before < FEW


def test_many_pipelined_commands_are_all_answered_and_cost_no_memory(
    proxy: Proxy, mail_server: MailServer
) -> None:
    commands = b"NOOP\r\n" * 10_000
    answers = b"+OK\r\n" * 10_000

    def answer(server: socket.socket) -> None:
        unread = len(commands)
        while unread and (chunk := server.recv(4096)):
            unread -= len(chunk)
            server.sendall(b"+OK\r\n" * chunk.count(b"\n"))

    with session(proxy, mail_server) as (client, server):
        before = proxy.memory()
        with meanwhile(lambda: answer(server)), meanwhile(lambda: client.sendall(commands)):
            assert receive(client, len(answers)) == answers
        assert proxy.most_memory() - before < FEW


def test_commands_that_nobody_answers_wait_and_cost_no_memory(
    proxy: Proxy, mail_server: MailServer
) -> None:
    commands = b"NOOP\r\n" * 10_000
    answers = b"+OK\r\n" * 10_000
    with session(proxy, mail_server) as (client, server):
        before = proxy.memory()
        client.sendall(commands)
        passed = receive(server, 4096 * 6)
        server.settimeout(FULL_AFTER)
        with pytest.raises(TimeoutError):
            server.recv(1)
        server.settimeout(10)
        assert proxy.most_memory() - before < FEW
        with meanwhile(lambda: server.sendall(answers)):
            assert receive(client, len(answers)) == answers
        assert passed + receive(server, len(commands) - len(passed)) == commands


def test_a_thousand_sessions_of_one_address_are_served_and_are_small(
    proxy: Proxy, mail_server: MailServer
) -> None:
    with session(proxy, mail_server):
        before = proxy.memory()
    with ExitStack() as sessions:
        pairs = [sessions.enter_context(session(proxy, mail_server)) for _ in range(1000)]
        assert proxy.most_memory() - before < A_THOUSAND
        for client, server in pairs:
            client.sendall(b"STAT\r\n")
            assert receive(server, 6) == b"STAT\r\n"
            server.sendall(b"+OK 0 0\r\n")
            assert receive(client, 9) == b"+OK 0 0\r\n"
        assert proxy.most_memory() - before < A_THOUSAND
    (trouble,) = TROUBLE.finditer(proxy.stop())
    assert "127.0.0.1 has 200 connections at once, and no limit" in trouble[0]


@contextmanager
def answering(mail_server: MailServer, times: int) -> Iterator[None]:
    """Have the mail server greet, and say goodbye to whoever quits, so many times."""

    def answer() -> None:
        for _ in range(times):
            with mail_server.accept() as server:
                server.sendall(GREETING)
                receive(server, 6)
                server.sendall(b"+OK bye\r\n")

    with meanwhile(answer):
        yield


def test_five_thousand_sessions_leave_nothing_behind(proxy: Proxy, mail_server: MailServer) -> None:
    def visit() -> None:
        with proxy.connect() as client:
            client.sendall(b"QUIT\r\n")
            assert receive_all(client) == GREETING + b"+OK bye\r\n"

    with answering(mail_server, 200):
        for _ in range(200):
            visit()
    descriptors = proxy.descriptors()
    memory = proxy.memory()
    with answering(mail_server, 4800):
        for _ in range(4800):
            visit()
    until(lambda: proxy.descriptors() <= descriptors, "no descriptor is left open")
    assert proxy.memory() - memory < MB
    log = proxy.stop()
    assert "inspected_whole 5000" in log
    assert not TROUBLE.search(log), log
