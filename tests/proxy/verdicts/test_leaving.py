"""Who leaves, or is told to, while a verdict is waited for: the wait ends, and nothing goes on unasked."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..live import PATIENCE, receive_all
from .court import APOP, DENIED, Case, Courtroom, Question, sitting


def held(case: Case, behind: bytes = b"") -> Question:
    """Bring a session to where the server knows the user, and the password is held."""
    case.is_named()
    case.client.says(b"PASS secret\r\n" + behind)
    return case.question(user="bob", password="secret")


# --- the client -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ends", "leaves", "resets"])
@pytest.mark.parametrize("behind", [b"", b"STAT\r\n" * 1_000], ids=["alone", "with more"])
def test_a_client_that_leaves_is_waited_for_no_more(
    room: Courtroom, how: str, behind: bytes
) -> None:
    with room.session() as case:
        question = held(case, behind)
        getattr(case.client, how)()
        question.is_cancelled()
        case.server.hears_the_end()
        question.answer("pass")
        assert case.summary()["reason"] == ("client_lost" if how == "resets" else "client_closed")
        assert case.logins() == []


@pytest.mark.parametrize("how", ["ends", "leaves", "resets"])
def test_a_client_that_leaves_inside_a_held_line_takes_it_with_it(
    room: Courtroom, how: str
) -> None:
    with room.session() as case:
        case.is_named()
        case.client.says(b"PASS sec")
        case.stands_still()
        getattr(case.client, how)()
        case.server.hears_the_end()


def test_a_client_that_leaves_during_a_delay_is_waited_for_no_more(room: Courtroom) -> None:
    with room.session() as case:
        held(case).answer("delay 60")
        case.stands_still()
        case.client.leaves()
        case.server.hears_the_end()
        assert case.summary()["reason"] == "client_closed"


@pytest.mark.parametrize("verdict", ["pass", "deny"])
def test_a_client_that_has_said_quit_and_its_last_gets_its_answers(
    room: Courtroom, verdict: str
) -> None:
    with room.session() as case:
        question = held(case, b"NOOP\r\nQUIT\r\n")
        case.client.ends()
        case.stands_still()
        question.answer(verdict)
        if verdict == "pass":
            case.server.hears(b"PASS secret\r\n")
            case.answers(b"-ERR no\r\n")
        else:
            case.client.hears(DENIED)
        case.server.hears(b"NOOP\r\n")
        case.answers(b"+OK\r\n")
        case.server.hears_the_end(b"QUIT\r\n")
        case.server.says(b"+OK\r\n")
        case.server.leaves()
        case.client.hears_the_end(b"+OK\r\n")


# --- the server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [b"", b"-ERR Autologout; idle for too long\r\n", b"-ERR shutt"])
@pytest.mark.parametrize("how", ["ends", "leaves"])
def test_a_verdict_behind_the_server_s_end_changes_nothing(
    room: Courtroom, how: str, last: bytes
) -> None:
    with room.session() as case:
        question = held(case, b"STAT\r\n")
        case.server.says(last)
        getattr(case.server, how)()
        case.client.hears_the_end(last)
        question.is_cancelled()
        question.answer("pass")
        if how == "ends":
            case.server.hears_the_end()
        assert case.summary()["reason"] == "server_closed"
        assert case.logins() == [], "the server has not judged what it did not get"


def test_a_verdict_behind_the_server_s_reset_changes_nothing(room: Courtroom) -> None:
    with room.session() as case:
        question = held(case)
        case.server.resets()
        case.client.hears_the_end()
        question.is_cancelled()
        question.answer("deny")
        assert case.summary()["reason"] == "server_lost"


def test_a_login_behind_a_reply_that_a_dead_server_owes_is_never_asked_about(
    room: Courtroom,
) -> None:
    with room.session() as case:
        case.client.says(b"LANG\r\n" + APOP)
        case.server.hears(b"LANG\r\n")
        case.answers(b"+OK\r\nen English\r\n")
        case.server.leaves()
        case.client.hears_the_end()
        room.court.unasked(case.port)
        assert case.summary()["reason"] == "server_closed"
        assert case.logins() == []


def test_what_a_server_said_before_it_left_waits_for_its_verdict(tmp_path: Path) -> None:
    with (
        sitting(tmp_path, events=["pop3_login_failure"]) as room,
        room.session() as case,
    ):
        case.client.says(APOP)
        case.server.hears(APOP)
        case.server.says(b"-ERR [AUTH] no\r\n")
        case.server.leaves()
        question = case.question("pop3_login_failure", user="bob")
        room.court.fence()
        case.client.has_heard_nothing()
        question.answer("pass")
        case.client.hears_the_end(b"-ERR [AUTH] no\r\n")
        assert case.summary()["reason"] == "server_closed"


# --- time limits and signals ----------------------------------------------------------------------------


def test_the_login_limit_runs_while_a_verdict_is_waited_for(tmp_path: Path) -> None:
    with sitting(tmp_path, "timeouts.login = 0.2") as room:
        with room.session() as case:
            question = held(case)
            question.is_cancelled()
            case.client.hears_the_end()
            case.server.hears_the_end()
            assert case.summary()["reason"] == "timeout:login"
        assert room.counted("timeout_login") == 1


def test_the_login_limit_runs_before_the_server_is_dialled(tmp_path: Path) -> None:
    with (
        sitting(tmp_path, "timeouts.login = 0.2", events=["pop3_connect"]) as room,
        room.proxy.connect() as client,
    ):
        question = room.court.next(client.getsockname()[1])
        question.is_cancelled()
        assert client.recv(512) == b""


def test_a_stopping_proxy_waits_for_a_verdict(tmp_path: Path) -> None:
    with sitting(tmp_path) as room, room.session() as case:
        question = held(case, b"QUIT\r\n")
        room.proxy.tell(signal.SIGTERM)
        room.proxy.log.expect("waiting for 1 sessions to end")
        case.stands_still()
        question.answer("pass")
        case.server.hears(b"PASS secret\r\n")
        case.answers(b"+OK\r\n")
        case.server.hears(b"QUIT\r\n")
        case.server.says(b"+OK bye\r\n")
        case.server.leaves()
        case.client.hears_the_end(b"+OK bye\r\n")
        case.client.leaves()
        assert room.proxy.process.wait(PATIENCE) == 0


def test_a_stopping_proxy_that_may_wait_no_more_lets_nothing_go_on(tmp_path: Path) -> None:
    with sitting(tmp_path, "timeouts.drain = 0.2") as room, room.session() as case:
        held(case, b"QUIT\r\n")
        room.proxy.tell(signal.SIGTERM)
        case.client.hears_the_end()
        case.server.hears_the_end()
        assert room.proxy.process.wait(PATIENCE) == 0
        assert case.summary()["reason"] == "shutdown"


def test_a_second_signal_lets_nothing_go_on(tmp_path: Path) -> None:
    with sitting(tmp_path) as room, room.session() as case:
        held(case)
        room.proxy.tell(signal.SIGTERM)
        room.proxy.log.expect("waiting for 1 sessions to end")
        room.proxy.tell(signal.SIGTERM)
        assert room.proxy.process.wait(PATIENCE) == 1
        case.client.hears_the_end()
        case.server.hears_the_end()


# --- the cap on delays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0, 2])
def test_a_delay_beyond_the_cap_is_a_drop(tmp_path: Path, cap: int) -> None:
    with sitting(tmp_path, f"verdicts.delayed = {cap}") as room:
        for _ in range(2):
            with ExitStack() as sessions:
                delayed = [sessions.enter_context(room.session()) for _ in range(cap)]
                for case in delayed:
                    held(case).answer("delay 60")
                one_more = sessions.enter_context(room.session())
                held(one_more).answer("delay 60")
                one_more.client.hears_the_end()
                one_more.server.hears_the_end()
                assert one_more.summary()["reason"] == "dropped"
                for case in delayed:
                    case.stands_still()
                    case.client.leaves()
                    case.server.hears_the_end()
        assert room.counted("delay_refused") == 2


# --- the end of inspection ------------------------------------------------------------------------------

FOREIGN = {
    "not_pop3": b"220 mail.example.org ESMTP\r\n",
    "tls_from_first_byte": bytes.fromhex("160301007a0200"),
    "unsolicited_reply": b"+OK ready\r\n+OK once more\r\n",
}
UNHEARD = b"USER bob\r\n"


@pytest.mark.parametrize("what", FOREIGN)
def test_a_session_that_cannot_be_inspected_is_dropped(room: Courtroom, what: str) -> None:
    for cut in (len(FOREIGN[what]), 1, 2, 3, 5):
        with room.session(greeting=b"") as case:
            case.client.says(UNHEARD)
            case.server.says(FOREIGN[what][:cut])
            room.court.fence()
            if cut < len(FOREIGN[what]):
                case.server.says(FOREIGN[what][cut:])
            assert b"PASS" not in receive_all(case.server.socket)
    assert case.summary()["reason"] == "blind"
    assert what in [record.get("msg") for record in case.records()]


@pytest.mark.parametrize("what", FOREIGN)
def test_a_session_that_cannot_be_inspected_passes_if_the_configuration_says_so(
    tmp_path: Path, what: str
) -> None:
    with sitting(tmp_path, 'verdicts.on_blind = "pass"') as room:
        with room.session(greeting=b"") as case:
            case.answers(FOREIGN[what])
            case.client.says(UNHEARD + b"PASS secret\r\n")
            case.server.hears(UNHEARD + b"PASS secret\r\n")
            case.answers(b"anything\n")
            case.stands_still()
        assert room.counted("blind_passed") == 1


CLIENTS = {
    "smtp": b"EHLO mail.example.org\r\nMAIL FROM:<>\r\n",
    "http": b"GET / HTTP/1.0\r\nHost: x\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\n",
}


@pytest.mark.parametrize("what", CLIENTS)
def test_nothing_of_a_client_that_speaks_no_pop3_passes_and_inspection_goes_on(
    room: Courtroom, what: str
) -> None:
    for cut in (len(CLIENTS[what]), 1, 2, 3, 5):
        with room.session() as case:
            case.client.says(CLIENTS[what][:cut])
            room.court.fence()
            case.client.says(CLIENTS[what][cut:])
            for _ in range(CLIENTS[what].count(b"\n")):
                case.client.hears(b"-ERR Unknown command.\r\n")
            case.goes_on()
    assert case.server.got == b"NOOP\r\n"


def test_a_server_that_is_no_pop3_server_ends_the_session(room: Courtroom) -> None:
    with room.session(greeting=b"") as case:
        case.server.says(b"220 mail.example.org ESMTP\r\n")
        case.client.hears_the_end()
        case.server.hears_the_end()
        assert case.summary()["reason"] == "blind"


def test_what_will_wait_for_an_answer_of_a_server_that_has_ended_keeps_no_session(
    room: Courtroom,
) -> None:
    """Neither side is read any more, so that nobody would see the client leave."""
    with room.session() as case:
        case.server.ends()
        case.client.hears_the_end()
        case.client.says(b"AUTH PLAIN\r\nUSER bob\r\n")
        case.server.hears_the_end(b"AUTH PLAIN\r\n")
        assert case.summary()["reason"] == "server_closed"
