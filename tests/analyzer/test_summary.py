"""What ``pop3_session`` says about the login, what was denied and what was deleted."""

import sys

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import ALL, LoginFailure, Reply, Side
from pop3proxy.analyzer.limits import Limits
from pop3proxy.analyzer.summary import Summary, owed_to_dele

from .player import Player, new_connection

C, S = Side.CLIENT, Side.SERVER
LIMIT = Limits().deletions


def logged_in(limits: Limits | None = None) -> Player:
    player = Player(Analyzer(new_connection(), limits or Limits()))
    player.say(S, b"+OK ready\r\n")
    ask(player, b"USER bob", b"+OK")
    ask(player, b"PASS secret", b"+OK")
    return player


def ask(player: Player, command: bytes, answer: bytes) -> None:
    player.say(C, command + b"\r\n")
    player.say(S, answer + b"\r\n")


def deleted(*dialogue: tuple[bytes, bytes]) -> int:
    player = logged_in()
    for command, answer in dialogue:
        ask(player, command, answer)
    return player.analyzer.summary.deleted


DELE_1 = (b"DELE 1", b"+OK")
DELE_2 = (b"DELE 2", b"+OK")
QUIT = (b"QUIT", b"+OK bye")


@pytest.mark.parametrize(
    ("dialogue", "expected"),
    [
        ([QUIT], 0),
        ([DELE_1, QUIT], 1),
        ([DELE_1, DELE_2, (b"dele 70000", b"+OK"), (b"quit", b"+ok")], 3),
        ([DELE_1], 0),
        ([DELE_1, (b"QUIT", b"-ERR some messages not removed")], 0),
        ([DELE_1, (b"QUIT now", b"-ERR no arguments"), QUIT], 1),
        ([(b"DELE 1", b"-ERR no such message"), DELE_2, QUIT], 1),
        ([DELE_1, (b"DELE 1", b"-ERR deleted already"), QUIT], 1),
        ([DELE_1, (b"DELE 1", b"+OK again"), (b"DELE  01 ", b"+OK"), QUIT], 1),
        ([DELE_1, DELE_2, (b"RSET", b"+OK"), QUIT], 0),
        ([DELE_1, DELE_2, (b"RSET", b"+OK"), DELE_2, QUIT], 1),
        ([DELE_1, (b"RSET", b"-ERR"), QUIT], 1),
        ([(b"DELE 99999999999999999999999999", b"+OK"), (b"DELE 70000", b"+OK"), QUIT], 2),
        ([(b"DELE 70000", b"+OK"), (b"RSET", b"+OK"), QUIT], 0),
        ([(b"DELE x", b"+OK"), (b"DELE", b"+OK"), (b"DELE 0", b"+OK"), QUIT], 1),
    ],
)
def test_deleted_is_marked_by_dele_not_undone_by_rset_and_confirmed_by_quit(
    dialogue: list[tuple[bytes, bytes]], expected: int
) -> None:
    assert deleted(*dialogue) == expected


def test_pipelined_answers_pair_with_their_deletions() -> None:
    player = logged_in()
    player.say(C, b"DELE 1\r\nDELE 2\r\nRSET\r\nDELE 3\r\nDELE 4\r\nLIST\r\nDELE 5\r\nQUIT\r\n")
    player.say(S, b"+OK\r\n+OK\r\n+OK\r\n-ERR gone\r\n+OK\r\n+OK\r\n4 9\r\n.\r\n+OK\r\n")
    assert player.analyzer.summary.deleted == 0
    player.say(S, b"+OK bye\r\n")
    assert player.analyzer.summary.deleted == 2


def test_a_quit_whose_answer_is_uncertain_confirms_nothing() -> None:
    player = logged_in()
    ask(player, *DELE_1)
    ask(player, b"STAT", b"no status line")
    ask(player, *QUIT)
    player.end(S)
    assert player.analyzer.summary.deleted == 0


def test_a_denied_dele_deletes_nothing_and_is_counted_as_denied() -> None:
    player = Player(Analyzer(new_connection(), gated=ALL))
    analyzer = player.analyzer
    player.say(S, b"+OK ready\r\n")
    ask(player, b"APOP bob c4c9334bac560ecc979e58001b3e22fb", b"+OK")
    analyzer.feed(C, b"DELE 1\r\n", 1.0)
    step = analyzer.next(C)
    assert step is not None
    assert analyzer.refused(step) == b""
    (reply,) = analyzer.answered(b"-ERR read only\r\n", 2.0).events
    assert isinstance(reply, Reply)
    assert (reply.cmd, reply.msg, reply.denial, reply.ts) == ("ERR", "read only", True, 2.0)
    ask(player, *QUIT)
    assert (analyzer.summary.denied, analyzer.summary.deleted) == (1, 0)


def test_the_failure_of_a_denied_login_comes_before_its_reply() -> None:
    analyzer = Analyzer(new_connection(), gated=ALL)
    player = Player(analyzer)
    player.say(S, b"+OK ready\r\n")
    ask(player, b"USER bob", b"+OK")
    analyzer.feed(C, b"PASS secret\r\n", 1.0)
    step = analyzer.next(C)
    assert step is not None
    analyzer.refused(step)
    assert [type(event) for event in analyzer.answered(b"-ERR no\r\n", 2.0).events] == [
        LoginFailure,
        Reply,
    ]


def test_the_answer_to_stls_is_no_denial() -> None:
    analyzer = Analyzer(new_connection(), gated=ALL)
    assert list(analyzer.answered(b"+OK Begin TLS negotiation now.\r\n", 1.0).events) == []
    assert analyzer.summary.denied == 0


def test_a_denial_is_counted_even_if_nobody_wants_replies() -> None:
    analyzer = Analyzer(new_connection(), wants=frozenset())
    assert list(analyzer.overruled(b"-ERR no\r\n", 1.0)) == []
    assert analyzer.summary.denied == 1


def login_of(player: Player) -> tuple[str, str]:
    return player.analyzer.summary.user, player.analyzer.summary.mechanism


def test_user_and_mechanism_are_those_of_the_last_attempt_until_one_succeeds() -> None:
    player = Player(Analyzer(new_connection()))
    player.say(S, b"+OK ready\r\n")
    assert login_of(player) == ("", "")
    ask(player, b"USER bob", b"+OK")
    assert login_of(player) == ("", "")
    ask(player, b"PASS wrong", b"-ERR")
    assert login_of(player) == ("bob", "USER/PASS")
    player.say(C, b"APOP carol c4c9334bac560ecc979e58001b3e22fb\r\n")
    assert login_of(player) == ("carol", "APOP")
    player.say(S, b"+OK\r\n")
    ask(player, b"USER dave", b"-ERR")
    ask(player, b"PASS late", b"-ERR")
    assert login_of(player) == ("carol", "APOP")


def test_the_login_that_succeeds_counts_though_another_was_pipelined_behind_it() -> None:
    player = Player(Analyzer(new_connection()))
    player.say(S, b"+OK ready\r\n")
    player.say(C, b"USER bob\r\nPASS right\r\nUSER eve\r\nPASS guess\r\n")
    player.say(S, b"+OK\r\n+OK\r\n-ERR\r\n-ERR\r\n")
    assert login_of(player) == ("bob", "USER/PASS")


def test_marks_are_one_bit_a_message_and_higher_numbers_are_only_counted() -> None:
    summary = Summary(LIMIT)
    for number in (LIMIT, LIMIT + 1, 10**18):
        summary.answered(owed_to_dele(str(number).encode()), True)
    assert summary.kept <= LIMIT // 8 + 1
    assert sys.getsizeof(summary._marked) < 2 * LIMIT // 8
    for number in range(1, LIMIT + 1):
        summary.answered(owed_to_dele(str(number).encode()), True)
    assert summary.kept == LIMIT // 8 + 1


def test_a_number_above_the_limit_counts_each_time() -> None:
    player = logged_in(Limits(deletions=7))
    for command in (b"DELE 7", b"DELE 7", b"DELE 8", b"DELE 8", b"QUIT"):
        ask(player, command, b"+OK")
    assert player.analyzer.summary.deleted == 3
