"""The server gets nothing of a credential before the verdict on it, wherever the bytes are cut."""

import base64
from pathlib import Path

import pytest

from .court import APOP, DENIED, UNAVAILABLE, Courtroom, sitting

PLAIN = base64.b64encode(b"\0bob\0secret")

LOGINS = {
    "USER and PASS": (b"USER bob\r\n", b"PASS secret\r\n"),
    "ended by LF": (b"USER bob\r\n", b"pass secret\n"),
    "APOP": (b"", b"APOP bob c4c9334bac560ecc979e58001b3e22fb\r\n"),
    "AUTH in one step": (b"", b"AUTH PLAIN " + PLAIN + b"\r\n"),
}
"""What may go to the server at once, and what only behind the verdict."""


@pytest.mark.parametrize("verdict", ["pass", "deny"])
@pytest.mark.parametrize("name", LOGINS)
def test_a_login_that_is_cut_at_any_byte_waits_for_its_verdict(
    room: Courtroom, name: str, verdict: str
) -> None:
    free, secret = LOGINS[name]
    for cut in range(1, len(secret)):
        with room.session() as case:
            if free:
                case.exchange(free, b"+OK\r\n")
            case.client.says(secret[:cut])
            case.stands_still()
            case.client.says(secret[cut:])
            question = case.question(user="bob")
            case.stands_still()
            question.answer(verdict)
            if verdict == "pass":
                case.server.hears(secret)
                case.answers(b"+OK\r\n")
            else:
                case.client.hears(DENIED)
            case.goes_on()
            case.client.leaves()
            case.server.hears_the_end()


@pytest.mark.parametrize("verdict", ["pass", "deny"])
def test_a_sasl_response_that_is_cut_at_any_byte_waits_for_its_verdict(
    room: Courtroom, verdict: str
) -> None:
    response = PLAIN + b"\r\n"
    for cut in range(1, len(response)):
        with room.session() as case:
            case.client.says(b"AUTH PLAIN\r\n")
            case.server.hears(b"AUTH PLAIN\r\n")
            case.server.says(b"+ \r\n")
            case.client.hears(b"+ \r\n")
            case.client.says(response[:cut])
            case.stands_still()
            case.client.says(response[cut:])
            question = case.question(user="bob", password="secret", mechanism="PLAIN")
            case.stands_still()
            question.answer(verdict)
            if verdict == "pass":
                case.server.hears(response)
                case.server.says(b"+OK\r\n")
                case.client.hears(b"+OK\r\n")
            else:
                case.server.hears(b"*\r\n")
                case.stands_still()
                case.server.says(b"-ERR cancelled\r\n")
                case.client.hears(DENIED)
            case.goes_on()


def test_a_pipeline_goes_on_line_by_line_as_far_as_the_login(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"CAPA\r\nUSER bob\r\nPASS secret\r\nSTAT\r\nQUIT\r\n")
        case.server.hears(b"CAPA\r\n")
        case.stands_still()
        case.answers(b"+OK\r\nUSER\r\n.\r\n")
        case.server.hears(b"USER bob\r\n")
        case.stands_still()
        case.answers(b"+OK\r\n")
        question = case.question(user="bob", password="secret")
        case.stands_still()
        question.answer("pass")
        case.server.hears(b"PASS secret\r\n")
        case.stands_still()
        case.answers(b"+OK\r\n")
        case.server.hears(b"STAT\r\nQUIT\r\n")
        case.server.says(b"+OK 0 0\r\n+OK bye\r\n")
        case.server.leaves()
        case.client.hears_the_end(b"+OK 0 0\r\n+OK bye\r\n")
        assert case.summary()["user"] == "bob"


def test_what_is_pipelined_behind_a_denied_login_goes_on_without_it(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"CAPA\r\nUSER bob\r\nPASS secret\r\nNOOP\r\nQUIT\r\n")
        case.server.hears(b"CAPA\r\n")
        case.answers(b"+OK\r\nUSER\r\n.\r\n")
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        case.question(user="bob", password="secret").answer("deny")
        case.client.hears(DENIED)
        case.server.hears(b"NOOP\r\n")
        case.answers(b"+OK\r\n")
        case.server.hears(b"QUIT\r\n")
        case.server.says(b"+OK bye\r\n")
        case.server.leaves()
        case.client.hears_the_end(b"+OK bye\r\n")
    assert case.server.got == b"CAPA\r\nUSER bob\r\nNOOP\r\nQUIT\r\n"


@pytest.mark.parametrize("verdict", ["pass", "deny"])
@pytest.mark.parametrize("mechanism", [b"ANONYMOUS", b"EXTERNAL"])
def test_an_empty_initial_response_waits_for_its_verdict(
    room: Courtroom, mechanism: bytes, verdict: str
) -> None:
    line = b"AUTH " + mechanism + b" =\r\n"
    with room.session() as case:
        case.client.says(line)
        question = case.question(mechanism=mechanism.decode())
        case.stands_still()
        question.answer(verdict)
        if verdict == "pass":
            case.server.hears(line)
            case.server.says(b"-ERR no\r\n")
            case.client.hears(b"-ERR no\r\n")
        else:
            case.client.hears(DENIED)
        case.goes_on()


def test_a_login_in_three_steps_waits_at_the_line_that_completes_it(room: Courtroom) -> None:
    name, password = base64.b64encode(b"bob") + b"\r\n", base64.b64encode(b"secret") + b"\r\n"
    with room.session() as case:
        for line in (b"AUTH LOGIN\r\n", name):
            case.client.says(line)
            case.server.hears(line)
            case.server.says(b"+ \r\n")
            case.client.hears(b"+ \r\n")
        case.client.says(password)
        question = case.question(user="bob", password="secret", mechanism="LOGIN")
        case.stands_still()
        question.answer("pass")
        case.server.hears(password)
        case.server.says(b"+OK\r\n")
        case.client.hears(b"+OK\r\n")
        assert case.logins() == [("pop3_login_success", "bob")]


def test_a_client_that_cancels_its_exchange_is_not_asked_about(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        case.server.says(b"+ \r\n")
        case.client.hears(b"+ \r\n")
        case.client.says(b"*\r\n")
        case.server.hears(b"*\r\n")
        case.stands_still()
        case.server.says(b"-ERR cancelled\r\n")
        case.client.hears(b"-ERR cancelled\r\n")
        case.goes_on()
        assert case.logins() == []


def test_a_delayed_login_goes_on_by_itself(room: Courtroom) -> None:
    with room.session() as case:
        case.is_named()
        case.client.says(b"PASS secret\r\nSTAT\r\n")
        case.question().answer("delay 0.3")
        case.stands_still()
        case.server.hears(b"PASS secret\r\n")


def test_a_dropped_login_closes_both_sides_without_a_word(room: Courtroom) -> None:
    with room.session() as case:
        case.is_named()
        case.client.says(b"PASS secret\r\nSTAT\r\n")
        case.question().answer("drop")
        case.server.hears_the_end()
        case.client.hears_the_end()
        assert case.summary()["reason"] == "dropped"


# --- hooks that do not do their part --------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["never", "raise", "in its call"])
@pytest.mark.parametrize("on_error", ["pass", "deny"])
def test_a_hook_that_fails_stands_for_what_its_on_error_says(
    tmp_path: Path, on_error: str, answer: str
) -> None:
    hook: dict[str, object] = {"hook": "Standing", "says": "raise"}
    if answer != "in its call":
        hook = {"time_limit": 0.2 if answer == "never" else 60.0}
    with sitting(tmp_path, on_error=on_error, **hook) as room:  # type: ignore[arg-type]
        with room.session() as case:
            case.is_named()
            case.client.says(b"PASS secret\r\n")
            if answer != "in its call":
                question = case.question(user="bob")
                if answer == "raise":
                    question.answer("raise")
                else:
                    question.is_cancelled()
            if on_error == "pass":
                case.server.hears(b"PASS secret\r\n")
            else:
                case.client.hears(UNAVAILABLE)
                case.client.hears(b"Temporarily unavailable, please try again later.\r\n")
                case.client.leaves()
                case.server.hears_the_end()
        log = room.proxy.stop()
    assert log.count("hook ") == 1
    assert "failed on pop3_login_attempt" in log
    assert "secret" not in log


def test_an_answer_behind_the_time_limit_changes_nothing(tmp_path: Path) -> None:
    with sitting(tmp_path, time_limit=0.2, on_error="deny") as room, room.session() as case:
        case.client.says(APOP)
        question = case.question(user="bob")
        question.is_cancelled()
        case.client.hears(UNAVAILABLE + b"Temporarily unavailable, please try again later.\r\n")
        question.answer("pass")
        case.stands_still()
        case.goes_on()
        assert case.logins() == [("pop3_login_failure", "bob", "denied")]


@pytest.mark.parametrize("first", ["pass", "deny"])
def test_a_second_answer_changes_nothing(room: Courtroom, first: str) -> None:
    with room.session() as case:
        case.client.says(APOP)
        question = case.question(user="bob")
        question.answer(first)
        question.answer("deny" if first == "pass" else "pass")
        if first == "pass":
            case.server.hears(APOP)
            case.server.says(b"+OK\r\n")
            case.client.hears(b"+OK\r\n")
        else:
            case.client.hears(DENIED)
        case.stands_still()
        case.goes_on()
