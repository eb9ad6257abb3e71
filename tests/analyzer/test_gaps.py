"""What is certain behind bytes that are missing, as they are in captures."""

import base64

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import (
    Event,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Request,
    Side,
    Unexpected,
)

from .player import Player, new_connection

C, S = Side.CLIENT, Side.SERVER
PLAIN = base64.b64encode(b"\0bob\0secret")


class Capture:
    """A session of which bytes are missing where the test says so."""

    def __init__(self) -> None:
        self.analyzer = Analyzer(new_connection())
        self.events: list[Event] = []
        self._player = Player(self.analyzer)

    def says(self, side: Side, *lines: bytes) -> "Capture":
        for line in lines:
            self.events += self._player.say(side, line + b"\r\n")
        return self

    def lacks(self, side: Side) -> "Capture":
        self.events += self.analyzer.gap(side, 1.0)
        return self

    @property
    def oddities(self) -> list[str]:
        return [event.msg for event in self.events if isinstance(event, Unexpected)]

    @property
    def logins(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, LoginSuccess | LoginFailure)]


def begun() -> Capture:
    return Capture().says(S, b"+OK ready")


def settled(capture: Capture) -> Capture:
    """One command and its reply stand alone, and the client goes on."""
    return capture.says(C, b"NOOP").says(S, b"+OK").says(C, b"CAPA").says(S, b"+OK", b".")


@pytest.mark.parametrize("side", Side)
def test_a_gap_is_said(side: Side) -> None:
    (event,) = begun().lacks(side).events[1:]
    assert isinstance(event, Unexpected)
    assert (event.msg, event.is_orig) == (Oddity.GAP, side is C)


def test_no_login_is_invented_where_its_answer_is_missing() -> None:
    capture = begun().says(C, b"USER bob").says(S, b"+OK").says(C, b"PASS x").lacks(S)
    capture.says(S, b"-ERR no such message").says(C, b"QUIT").says(S, b"+OK")
    assert capture.logins == []


def test_no_login_is_invented_where_its_command_is_missing() -> None:
    capture = begun().says(C, b"USER bob").says(S, b"+OK").lacks(C)
    capture.says(S, b"+OK logged in").says(C, b"STAT").says(S, b"+OK 0 0").says(C, b"QUIT")
    assert capture.logins == []
    assert capture.oddities == ["gap", "no_login_seen"]


@pytest.mark.parametrize("side", Side)
def test_logins_are_told_again_once_replies_are_certain(side: Side) -> None:
    capture = settled(begun().lacks(side))
    capture.says(C, b"USER bob").says(S, b"+OK").says(C, b"PASS x").says(S, b"-ERR no")
    (failure,) = capture.logins
    assert isinstance(failure, LoginFailure)
    assert failure.user == "bob"


def test_a_session_whose_start_is_missing_goes_on_with_what_is_certain() -> None:
    capture = settled(Capture().lacks(C).lacks(S))
    capture.says(C, b"APOP al c4c9334bac560ecc979e58001b3e22fb").says(S, b"+OK")
    assert [type(event) for event in capture.logins] == [LoginSuccess]
    assert "cut_greeting" not in capture.oddities


@pytest.mark.parametrize("side", Side)
def test_a_user_from_before_a_gap_is_not_taken_for_the_one_whose_login_is_seen(side: Side) -> None:
    capture = begun().says(C, b"USER eve").says(S, b"+OK")
    if side is S:
        capture.says(C, b"USER bob")
    settled(capture.lacks(side)).says(C, b"PASS x").says(S, b"+OK")
    assert [event.user for event in capture.logins] == [""]  # type: ignore[attr-defined]


def test_a_refusal_of_who_may_be_logged_in_already_is_no_failure() -> None:
    capture = settled(Capture().lacks(C).lacks(S))
    capture.says(C, b"APOP al c4c9334bac560ecc979e58001b3e22fb").says(S, b"-ERR already in")
    assert capture.logins == []


@pytest.mark.parametrize("sign", [(b"USER al", b"+OK"), (b"AUTH LOGIN", b"+ ")])
def test_who_may_name_a_user_is_not_logged_in(sign: tuple[bytes, bytes]) -> None:
    command, answer = sign
    capture = settled(Capture().lacks(C).lacks(S)).says(C, command).says(S, answer)
    if command.startswith(b"AUTH"):
        capture.says(C, b"*").says(S, b"-ERR")
    capture.says(C, b"APOP al c4c9334bac560ecc979e58001b3e22fb").says(S, b"-ERR no")
    assert [type(event) for event in capture.logins] == [LoginFailure]


def test_the_end_of_a_torn_line_is_not_taken_for_a_command() -> None:
    capture = begun()
    capture.events += Player(capture.analyzer).say(C, b"PASS sec")
    capture.lacks(C).says(C, b"ret", b"NOOP")
    requests = [event.command for event in capture.events if isinstance(event, Request)]
    assert requests == ["NOOP"]


def test_a_whole_command_behind_a_gap_is_one() -> None:
    capture = begun().lacks(C).says(C, b"NOOP")
    assert [event.command for event in capture.events if isinstance(event, Request)] == ["NOOP"]


def test_a_sasl_response_whose_command_is_missing_is_a_secret_as_a_whole() -> None:
    capture = begun().lacks(C).says(C, b"NOOP", PLAIN)
    (secret,) = [
        event.secret
        for event in capture.events
        if isinstance(event, Request) and event.command != "NOOP"
    ]
    assert secret.value == "the whole line"


def test_a_sasl_exchange_whose_challenge_is_missing_is_no_login() -> None:
    capture = begun().says(C, b"AUTH PLAIN").lacks(S).says(C, PLAIN).says(S, b"+OK")
    capture.says(C, b"STAT").says(S, b"+OK 0 0")
    assert capture.logins == []


def test_tls_is_noticed_where_the_answer_to_stls_is_missing() -> None:
    capture = begun().says(C, b"STLS").lacks(S)
    capture.says(C, b"\x16\x03\x01\x02\x00\x01\x00")
    assert capture.analyzer.inspected == "whole"
    capture.says(S, b"\x16\x03\x03\x00\x7a\x02\x00")
    assert capture.analyzer.inspected == "lost:tls"


def test_a_body_that_a_gap_tears_raises_no_logins() -> None:
    capture = begun().says(C, b"USER bob", b"PASS x").says(S, b"+OK", b"+OK")
    capture.says(C, b"RETR 1").says(S, b"+OK", b"From: eve").lacks(S)
    capture.says(S, b"-ERR [AUTH] is what the server said", b"bye", b".")
    assert len(capture.logins) == 1
    settled(capture)
    assert capture.oddities == ["gap"]


def test_nothing_is_missing_once_inspection_has_ended() -> None:
    capture = begun().says(C, b"STLS").says(S, b"+OK")
    count = len(capture.events)
    assert len(capture.lacks(S).events) == count


def test_gaps_are_raised_twenty_times_and_counted_beyond() -> None:
    capture = begun()
    for _ in range(25):
        capture.lacks(S)
    assert len(capture.oddities) == 20
    assert capture.analyzer.unexpected == 25
