"""What each input does in each mode of a session: the table at the head of ``session``, row by row."""

from collections.abc import Callable

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from pop3proxy.analyzer.events import Connect, Request, Side, Unexpected
from pop3proxy.analyzer.limits import Limits
from pop3proxy.proxy.session import Mode

from .pair import Pair, Transport

GREETING = b"+OK ready\r\n"
GONE = Failure(ConnectionDone())


def connecting() -> Pair:
    return Pair()


def relaying() -> Pair:
    pair = Pair().connect()
    pair.server_says(GREETING)
    return cleared(pair)


def tunnelling() -> Pair:
    pair = relaying()
    pair.client_says(b"STLS\r\n")
    pair.server_says(b"+OK begin\r\n")
    pair.client_says(b"\x16\x03\x01 hello")
    assert pair.session.mode is Mode.TUNNEL
    return cleared(pair)


def ending() -> Pair:
    pair = relaying()
    pair.session.shut_down()
    return cleared(pair)


def cleared(pair: Pair) -> Pair:
    pair.client.clear()
    pair.server.clear()
    pair.around.told.clear()
    return pair


def transport(pair: Pair, side: Side) -> Transport:
    return pair.client if side is Side.CLIENT else pair.server


def say(pair: Pair, side: Side, data: bytes) -> None:
    (pair.client_says if side is Side.CLIENT else pair.server_says)(data)


def other(side: Side) -> Side:
    return Side.SERVER if side is Side.CLIENT else Side.CLIENT


both_sides = pytest.mark.parametrize("side", Side)
both_ways = pytest.mark.parametrize("begin", [relaying, tunnelling])


def test_a_new_session_says_so_before_it_dials() -> None:
    (event,) = connecting().around.told
    assert isinstance(event, Connect)


def test_data_while_connecting_is_kept_and_not_inspected() -> None:
    pair = cleared(connecting())
    pair.client_says(b"USER ")
    pair.client_says(b"bob\r\n")
    assert pair.around.told == []
    assert pair.client.producerState == "paused"
    pair.connect()
    assert pair.server.value() == b"USER bob\r\n"


def test_the_end_of_a_client_while_connecting_is_passed_on_to_the_server() -> None:
    pair = connecting()
    pair.session.client.readConnectionLost()
    assert not pair.client.disconnecting
    pair.connect()
    assert pair.server.disconnecting


def test_the_end_of_a_client_while_connecting_follows_what_it_said() -> None:
    pair = connecting()
    pair.client_says(b"QUIT\r\n")
    pair.session.client.readConnectionLost()
    pair.connect()
    assert pair.server.value() == b"QUIT\r\n"
    assert pair.server.disconnecting


def test_a_client_lost_while_connecting_ends_the_session_and_the_attempt() -> None:
    pair = connecting()
    pair.session.client.connectionLost(GONE)
    assert pair.around.gave_up
    assert pair.both_gone().reason == "client_closed"


def test_a_server_that_comes_when_the_session_is_over_is_reset() -> None:
    pair = connecting()
    pair.session.client.connectionLost(GONE)
    pair.connect()
    assert pair.server.aborted
    assert pair.both_gone().reason == "client_closed"


@both_sides
def test_data_is_inspected_while_relaying(side: Side) -> None:
    pair = relaying()
    say(pair, side, b"+OK unsolicited\r\n")
    assert transport(pair, other(side)).value() == b"+OK unsolicited\r\n"
    assert {type(event) for event in pair.around.told} >= {Unexpected}


@both_sides
def test_data_in_a_tunnel_is_written_and_not_inspected(side: Side) -> None:
    pair = tunnelling()
    say(pair, side, b"NOOP\r\n")
    assert transport(pair, other(side)).value() == b"NOOP\r\n"
    assert pair.around.told == []


@both_sides
def test_data_while_ending_is_dropped(side: Side) -> None:
    pair = ending()
    say(pair, side, b"NOOP\r\n")
    assert pair.client.value() == pair.server.value() == b""
    assert pair.around.told == []


@both_ways
@both_sides
def test_a_side_is_not_read_while_the_other_does_not_take_what_it_said(
    begin: Callable[[], Pair], side: Side
) -> None:
    pair = begin()
    sink, source = transport(pair, other(side)), transport(pair, side)
    assert sink.producer is not None
    sink.producer.pauseProducing()
    say(pair, side, b"NOOP\r\n")
    assert source.producerState == "paused"
    assert sink.producerState == "producing"
    sink.producer.resumeProducing()
    assert source.producerState == "producing"


@both_sides
def test_a_side_is_not_read_on_while_ending(side: Side) -> None:
    pair = ending()
    transport(pair, other(side)).producerState = "paused"
    pair.session.drained(side)
    assert transport(pair, other(side)).producerState == "paused"


@both_ways
@both_sides
def test_the_end_of_a_side_is_passed_on_and_the_other_may_go_on(
    begin: Callable[[], Pair], side: Side
) -> None:
    pair = begin()
    wire = pair.session.client if side is Side.CLIENT else pair.server_wire
    wire.readConnectionLost()
    assert transport(pair, other(side)).disconnecting
    assert not transport(pair, side).disconnecting
    say(pair, other(side), b"+OK late\r\n")
    assert transport(pair, side).value() == b"+OK late\r\n"


@both_ways
def test_the_end_of_both_sides_ends_the_session(begin: Callable[[], Pair]) -> None:
    pair = begin()
    pair.session.client.readConnectionLost()
    pair.server_wire.readConnectionLost()
    assert pair.session.mode is Mode.ENDING
    assert pair.both_gone().reason == "client_closed"


@both_sides
def test_the_end_of_a_side_while_ending_changes_nothing(side: Side) -> None:
    pair = ending()
    pair.session.ended(side)
    assert pair.session.mode is Mode.ENDING
    assert pair.both_gone().reason == "shutdown"


@both_ways
@both_sides
def test_a_lost_side_closes_the_other(begin: Callable[[], Pair], side: Side) -> None:
    pair = begin()
    pair.session.lost(side, clean=True)
    assert transport(pair, other(side)).disconnecting
    assert pair.around.left == []


def test_bytes_of_a_client_wait_at_the_analyzers_limit_though_the_server_takes_all() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(GREETING)
    pair.client_says(b"NOOP\r\nSTAT\r\n")
    assert pair.server.value() == b"NOOP\r\n"
    pair.server_wire.pauseProducing()
    pair.server_wire.resumeProducing()
    assert pair.client.producerState == "paused"
    pair.server_says(b"+OK\r\n")
    assert pair.server.value() == b"NOOP\r\nSTAT\r\n"


def test_bytes_that_arrive_behind_held_ones_keep_their_order() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(GREETING)
    pair.client_says(b"NOOP\r\nSTAT\r\n")
    pair.client_says(b"LAST\r\n")
    pair.server_says(b"+OK\r\n")
    pair.server_says(b"+OK 0 0\r\n")
    assert pair.server.value() == b"NOOP\r\nSTAT\r\nLAST\r\n"
    assert [event.command for event in pair.around.told if isinstance(event, Request)] == [
        "NOOP",
        "STAT",
        "LAST",
    ]


def test_a_client_whose_bytes_were_held_is_not_read_on_before_the_server_takes_them() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(GREETING)
    pair.client_says(b"NOOP\r\nSTAT\r\n")
    pair.server_wire.pauseProducing()
    pair.server_says(b"+OK\r\n")
    assert pair.client.producerState == "paused"
    pair.server_wire.resumeProducing()
    assert pair.client.producerState == "producing"


def test_bytes_held_behind_stls_are_passed_on_in_order_when_it_is_accepted() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(GREETING)
    pair.client_says(b"NOOP\r\nSTLS\r\n")
    pair.client_says(b"\x16\x03\x01 early")
    pair.server_says(b"+OK\r\n")
    pair.server_says(b"+OK begin\r\n")
    pair.client_says(b" and late")
    assert pair.server.value() == b"NOOP\r\nSTLS\r\n\x16\x03\x01 early and late"
    assert pair.client.producerState == "producing"


def test_held_bytes_are_passed_on_when_inspection_is_lost() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(GREETING)
    pair.client_says(b"NOOP\r\nSTAT\r\n")
    for _ in range(3):
        pair.server_says(b"no status line\r\n")
    pair.client_says(b"QUIT\r\n")
    for _ in range(3):
        pair.server_says(b"+OK\r\n")
    assert pair.server.value() == b"NOOP\r\nSTAT\r\nQUIT\r\n"
    assert pair.client.producerState == "producing"


def test_commands_beyond_the_limit_wait_and_lose_nothing() -> None:
    pair = Pair(Limits(pending=3)).connect()
    pair.server_says(b"+OK ready\r\n")
    commands = b"".join(b"DELE %d\r\n" % number for number in range(8))
    pair.client_says(commands)
    assert pair.client.producerState == "paused"
    assert pair.server.value().count(b"\n") == 3
    for _ in range(8):
        pair.server_says(b"+OK\r\n")
    assert pair.server.value() == commands
    assert pair.client.producerState == "producing"


def test_the_end_of_a_client_whose_bytes_wait_is_passed_on_behind_them() -> None:
    pair = Pair(Limits(pending=1)).connect()
    pair.server_says(b"+OK ready\r\n")
    pair.client_says(b"NOOP\r\nQUIT\r\n")
    pair.session.client.readConnectionLost()
    assert not pair.server.disconnecting
    pair.server_says(b"+OK\r\n")
    assert pair.server.value() == b"NOOP\r\nQUIT\r\n"
    assert pair.server.disconnecting
