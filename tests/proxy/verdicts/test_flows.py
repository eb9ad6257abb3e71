"""What waits behind a verdict is bounded and arrives whole; what is dropped goes nowhere."""

from collections.abc import Iterator

import pytest

from ..live import meanwhile, send_until_full
from .court import APOP, Courtroom, sitting

FEW = 4 << 20
"""What a flood may add to the octets that are resident: 64 KiB are kept, and a read of 256 KiB."""


@pytest.fixture(scope="module")
def outcome_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courtroom]:
    """A proxy whose hook asks about logins that succeeded."""
    folder = tmp_path_factory.mktemp("outcomes")
    with sitting(folder, events=["pop3_login_success"]) as courtroom:
        yield courtroom


@pytest.fixture(scope="module")
def rare_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courtroom]:
    """A proxy whose hook asks about what can only pass or be dropped."""
    events = ["pop3_data", "pop3_starttls", "pop3_unexpected"]
    with sitting(tmp_path_factory.mktemp("rare"), events=events) as courtroom:
        yield courtroom


def test_what_a_client_sends_behind_a_held_login_is_bounded_and_arrives_whole(
    room: Courtroom,
) -> None:
    flood = (b"NOOP " + b"x" * 8_000 + b"\r\n") * 3_000
    with room.session() as case:
        case.client.says(APOP)
        question = case.question(user="bob")
        before = room.proxy.memory()
        sent = send_until_full(case.client.socket, flood)
        assert sent < len(flood)
        case.stands_still()
        assert room.proxy.memory() - before < FEW
        question.answer("pass")
        with meanwhile(lambda: case.client.says(flood[sent:])):
            case.server.hears(APOP)
            case.answers(b"+OK in\r\n")
            case.server.hears(flood)
        assert room.proxy.most_memory() - before < 2 * FEW


def test_what_a_server_sends_behind_a_held_reply_is_bounded_and_arrives_whole(
    outcome_room: Courtroom,
) -> None:
    flood = (b"+OK " + b"x" * 4_000 + b"\r\n") * 6_000
    with outcome_room.session() as case:
        case.client.says(APOP)
        case.server.hears(APOP)
        before = outcome_room.proxy.memory()
        case.server.says(b"+OK in\r\n")
        question = case.question("pop3_login_success", user="bob")
        sent = send_until_full(case.server.socket, flood)
        assert sent < len(flood)
        case.stands_still()
        assert outcome_room.proxy.memory() - before < FEW
        question.answer("pass")
        with meanwhile(lambda: case.server.says(flood[sent:])):
            case.client.hears(b"+OK in\r\n" + flood)
        assert outcome_room.proxy.most_memory() - before < 2 * FEW


# --- events that can only pass or be dropped ------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["pass", "drop"])
def test_each_line_of_a_message_waits_for_its_verdict(rare_room: Courtroom, verdict: str) -> None:
    with rare_room.session() as case:
        case.client.says(APOP + b"RETR 1\r\n")
        case.server.hears(APOP + b"RETR 1\r\n")
        case.server.says(b"+OK in\r\n+OK\r\nfirst\r\nsecond\r\n.\r\n")
        case.client.hears(b"+OK in\r\n+OK\r\n")
        question = case.question("pop3_data")
        case.stands_still()
        question.answer("pass")
        case.client.hears(b"first\r\n")
        question = case.question("pop3_data")
        case.stands_still()
        question.answer(verdict)
        if verdict == "pass":
            case.client.hears(b"second\r\n.\r\n")
        else:
            case.client.hears_the_end()
            case.server.hears_the_end()


@pytest.mark.parametrize("verdict", ["pass", "drop"])
def test_the_answer_to_stls_waits_for_its_verdict(rare_room: Courtroom, verdict: str) -> None:
    with rare_room.session() as case:
        case.client.says(b"STLS\r\n")
        case.server.hears(b"STLS\r\n")
        case.server.says(b"+OK begin\r\n")
        question = case.question("pop3_starttls")
        case.stands_still()
        question.answer(verdict)
        if verdict == "pass":
            case.client.hears(b"+OK begin\r\n")
            case.client.says(b"\x16\x03\x01 anything")
            case.server.hears(b"\x16\x03\x01 anything")
        else:
            case.client.hears_the_end()
            case.server.hears_the_end()


@pytest.mark.parametrize("verdict", ["pass", "drop"])
def test_an_unknown_command_waits_for_its_verdict_whole(rare_room: Courtroom, verdict: str) -> None:
    with rare_room.session() as case:
        case.client.says(b"XYZ")
        case.stands_still()
        case.client.says(b"ZY\r\nNOOP\r\n")
        question = case.question("pop3_unexpected", msg="unknown_command")
        case.stands_still()
        question.answer(verdict)
        if verdict == "pass":
            case.server.hears(b"XYZZY\r\nNOOP\r\n")
        else:
            case.client.hears_the_end()
            case.server.hears_the_end()
