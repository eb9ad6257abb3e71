"""A denial is the answer to the line that was denied: in its place, on record, and nothing else of ours."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..live import meanwhile, until
from .court import APOP, DENIED, Case, Courtroom, sitting

PLAIN = base64.b64encode(b"\0bob\0secret")
BODY = b"+OK\r\nSubject: x\r\n\r\n..\r\nlast\r\n"


def log_in(case: Case) -> None:
    """Let a client in, where every command is asked about."""
    case.client.says(APOP)
    case.question("pop3_request", command="APOP").answer("pass")
    case.question(user="bob").answer("pass")
    case.server.hears(APOP)
    case.server.says(b"+OK\r\n")
    case.client.hears(b"+OK\r\n")


# --- its place ------------------------------------------------------------------------------------------


def test_a_denial_waits_for_every_reply_that_is_owed(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"LANG\r\nUSER bob\r\nPASS secret\r\n")
        case.server.hears(b"LANG\r\n")
        for piece in (b"+OK\r\n", b"en English\r\n", b"."):
            case.stands_still()
            case.answers(piece)
        case.stands_still()
        case.answers(b"\r\n")
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK")
        case.stands_still()
        case.answers(b"\r\n")
        case.question().answer("deny")
        case.client.hears(DENIED)
        case.goes_on()


def test_a_login_waits_for_the_greeting(room: Courtroom) -> None:
    with room.session(greeting=b"") as case:
        case.client.says(APOP)
        case.stands_still()
        case.server.says(b"+OK ready")
        room.court.fence()
        rest = case.client.has_heard_of(b"+OK ready")
        case.stands_still()
        case.server.says(b"\r\n")
        case.client.hears(rest + b"\r\n")
        case.question().answer("deny")
        case.client.hears(DENIED)
        case.goes_on()


def test_a_denial_waits_for_the_end_of_a_message_under_way(strict_room: Courtroom) -> None:
    with strict_room.session() as case:
        log_in(case)
        case.client.says(b"RETR 1\r\nDELE 1\r\nSTAT\r\n")
        case.question("pop3_request", command="RETR").answer("pass")
        case.server.hears(b"RETR 1\r\n")
        case.server.says(BODY[:20])
        case.client.hears(BODY[:20])
        case.question("pop3_request", command="DELE").answer("deny -ERR not today")
        case.stands_still()
        case.server.says(BODY[20:])
        case.client.hears(BODY[20:])
        case.stands_still()
        case.server.says(b".\r\n")
        case.client.hears(b".\r\n-ERR not today\r\n")
        case.question("pop3_request", command="STAT").answer("pass")
        case.server.hears(b"STAT\r\n")
        case.client.leaves()
        assert case.summary()["dele"] == 0
    assert case.server.got == APOP + b"RETR 1\r\nSTAT\r\n"


def test_a_drop_while_a_message_is_under_way_adds_nothing_to_it(strict_room: Courtroom) -> None:
    with strict_room.session() as case:
        log_in(case)
        case.client.says(b"RETR 1\r\nDELE 1\r\n")
        case.question("pop3_request", command="RETR").answer("pass")
        case.server.hears(b"RETR 1\r\n")
        case.server.says(BODY)
        case.client.hears(BODY)
        case.question("pop3_request", command="DELE").answer("drop")
        case.client.hears_the_end()
        case.server.hears_the_end()


def test_the_message_goes_on_while_a_command_behind_it_is_asked_about(
    strict_room: Courtroom,
) -> None:
    with strict_room.session() as case:
        log_in(case)
        case.client.says(b"RETR 1\r\nDELE 1\r\n")
        case.question("pop3_request", command="RETR").answer("pass")
        case.server.hears(b"RETR 1\r\n")
        question = case.question("pop3_request", command="DELE")
        message = BODY + b"x" * 70_000 + b"\r\n.\r\n"
        with meanwhile(lambda: case.server.says(message)):
            case.client.hears(message)
        case.stands_still()
        question.answer("pass")
        case.server.hears(b"DELE 1\r\n")


# --- SASL -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, len(b"-ERR [AUTH] so be it\r\n")))
def test_the_answer_to_our_cancellation_is_swallowed(room: Courtroom, cut: int) -> None:
    answer = b"-ERR [AUTH] so be it\r\n"
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        case.server.says(b"+ \r\n")
        case.client.hears(b"+ \r\n")
        case.client.says(PLAIN + b"\r\nNOOP\r\n")
        case.question(user="bob").answer("deny")
        case.server.hears(b"*\r\n")
        case.server.says(answer[:cut])
        case.stands_still()
        case.server.says(answer[cut:])
        case.client.hears(DENIED)
        case.server.hears(b"NOOP\r\n")


def test_a_server_that_accepts_a_cancelled_exchange_ends_the_session(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        case.server.says(b"+ \r\n")
        case.client.hears(b"+ \r\n")
        case.client.says(PLAIN + b"\r\nSTAT\r\n")
        case.question(user="bob").answer("deny")
        case.server.hears(b"*\r\n")
        case.server.says(b"+OK welcome\r\n")
        case.server.hears_the_end()
        case.client.hears_the_end()
        assert [kind for kind, *_ in case.logins()] == ["pop3_login_failure"]


def test_a_denied_initial_response_needs_no_cancellation(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN " + PLAIN + b"\r\nNOOP\r\n")
        case.question(user="bob").answer("deny")
        case.client.hears(DENIED)
        case.server.hears(b"NOOP\r\n")


# --- what is remembered ---------------------------------------------------------------------------------


NO_NAME = b"-ERR Send USER first.\r\n"


def test_the_user_of_a_denied_password_is_forgotten(room: Courtroom) -> None:
    with room.session() as case:
        case.is_named()
        case.client.says(b"PASS first\r\nPASS second\r\n")
        case.question(user="bob", password="first").answer("deny")
        case.client.hears(DENIED + NO_NAME)
        case.is_named()
        case.client.says(b"PASS second\r\n")
        case.question(user="bob", password="second").answer("pass")
        case.server.hears(b"PASS second\r\n")
        case.answers(b"+OK\r\n")
        assert case.logins() == [
            ("pop3_login_failure", "bob", "denied"),
            ("pop3_login_success", "bob"),
        ]


def test_a_denied_user_takes_the_one_before_away(strict_room: Courtroom) -> None:
    with strict_room.session() as case:
        case.client.says(b"USER bob\r\nUSER eve\r\nPASS x\r\n")
        case.question("pop3_request", arg="bob").answer("pass")
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        case.question("pop3_request", arg="eve").answer("deny -ERR no")
        case.client.hears(b"-ERR no\r\n" + NO_NAME)


@pytest.mark.parametrize("line", [b"STLS\r\n", b"AUTH PLAIN\r\n", b"AUTH\r\n"])
def test_what_follows_a_denied_barrier_is_a_command(strict_room: Courtroom, line: bytes) -> None:
    with strict_room.session() as case:
        case.client.says(line + APOP)
        case.question("pop3_request").answer("deny -ERR no")
        case.client.hears(b"-ERR no\r\n")
        case.question("pop3_request", command="APOP").answer("pass")
        case.question(user="bob").answer("drop")
        case.server.hears_the_end()


@pytest.mark.parametrize("gated", ["room", "strict_room"])
def test_only_one_line_of_a_session_is_under_way(
    gated: str, request: pytest.FixtureRequest
) -> None:
    room: Courtroom = request.getfixturevalue(gated)
    with room.session() as case:

        def asked(line: bytes, reply: bytes, **told: str) -> None:
            if gated == "strict_room":
                case.question("pop3_request").answer("pass")
            if told:
                case.question(**told).answer("pass")
            case.server.hears(line)
            case.stands_still()
            case.answers(reply)

        case.client.says(b"USER bob\r\nPASS a\r\nUSER eve\r\nPASS b\r\n" + APOP)
        asked(b"USER bob\r\n", b"+OK\r\n")
        asked(b"PASS a\r\n", b"-ERR [AUTH] no\r\n", user="bob")
        asked(b"USER eve\r\n", b"+OK\r\n")
        asked(b"PASS b\r\n", b"-ERR [AUTH] no\r\n", user="eve")
        asked(APOP, b"+OK\r\n", user="bob")


# --- the record -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "code"), [("", "AUTH"), ("-ERR no", ""), ("-ERR [IN-USE] busy", "IN-USE")]
)
def test_a_denied_login_is_on_record_before_the_client_sees_the_reply(
    room: Courtroom, reply: str, code: str
) -> None:
    with room.session() as case:
        case.client.says(APOP)
        case.question(user="bob").answer(f"deny {reply}".strip())
        case.client.hears(f"{reply}\r\n".encode() if reply else DENIED)
        failures = [r for r in case.records() if r["event"] == "pop3_login_failure"]
        assert [(r["user"], r["mechanism"], r["reason"], r["code"]) for r in failures] == [
            ("bob", "APOP", "denied", code)
        ]
        said = [(r["cmd"], r.get("denial")) for r in case.records() if r["event"] == "pop3_reply"]
        assert said == [("OK", None), ("ERR", True)]
        case.client.leaves()
        summary = case.summary()
        assert (summary["outcome"], summary["denied"]) == ("failure", 1)
        assert (summary["user"], summary["mechanism"]) == ("bob", "APOP")


def test_a_denied_login_is_on_record_even_if_its_client_leaves_before_the_reply(
    room: Courtroom,
) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        case.answers(b"+ \r\n")
        case.client.says(PLAIN + b"\r\n")
        case.question().answer("deny")
        case.server.hears(b"*\r\n")
        case.stands_still()
        case.client.leaves()
        case.server.hears_the_end()
        case.summary()
        assert case.logins() == [("pop3_login_failure", "bob", "denied")]


# --- clients that do not read ---------------------------------------------------------------------------


def test_denials_of_a_client_that_does_not_read_do_not_queue_up(tmp_path: Path) -> None:
    """25 MB of them, and next to none of that is resident while nobody reads; read at last, none is lost."""
    reply = b"-ERR [SYS/PERM] " + b"x" * 400 + b"\r\n"
    number = 60_000
    says = f"deny {reply.decode().strip()}"
    with sitting(tmp_path, hook="Standing", says=says, events=["pop3_request"]) as room:
        with room.session() as case:
            before = room.proxy.memory()
            with meanwhile(lambda: case.client.says(b"NOOP\r\n" * number)):
                for _ in range(20):
                    room.court.fence()
                assert room.proxy.memory() - before < 4 << 20
                for _ in range(number // 1_000):
                    case.client.hears(reply * 1_000)
            assert room.proxy.most_memory() - before < 4 << 20
            case.client.ends()
            case.server.hears_the_end()
            case.client.leaves()
        assert room.counted("denied") == number


# --- verdicts on what the server has said ---------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courtroom]:
    """A proxy whose hook asks how logins came out."""
    events = ["pop3_login_success", "pop3_login_failure"]
    with sitting(tmp_path_factory.mktemp("outcomes"), events=events) as courtroom:
        yield courtroom


def test_a_login_that_succeeded_is_told_only_behind_the_verdict(outcome_room: Courtroom) -> None:
    with outcome_room.session() as case:
        case.client.says(APOP)
        case.server.hears(APOP)
        case.server.says(b"+OK welcome\r\n")
        question = case.question("pop3_login_success", user="bob")
        case.stands_still()
        question.answer("pass")
        case.client.hears(b"+OK welcome\r\n")
        case.goes_on()


def test_a_login_that_succeeded_and_is_denied_closes_both_sides(outcome_room: Courtroom) -> None:
    with outcome_room.session() as case:
        case.client.says(APOP + b"STAT\r\n")
        # What follows the login would be done for bob, whatever the verdict.
        case.server.hears(APOP)
        case.stands_still()
        case.server.says(b"+OK welcome\r\n")
        case.question("pop3_login_success", user="bob").answer("deny")
        case.client.hears_the_end(DENIED)
        case.server.hears_the_end()
        assert case.summary()["reason"] == "denied"


def test_a_failure_is_told_only_behind_its_delay(outcome_room: Courtroom) -> None:
    with outcome_room.session() as case:
        case.client.says(APOP)
        case.server.hears(APOP)
        case.server.says(b"-ERR [AUTH] no\r\n")
        case.question("pop3_login_failure", user="bob").answer("delay 0.3")
        case.stands_still()
        case.client.hears(b"-ERR [AUTH] no\r\n")
        case.goes_on()


def test_no_login_overtakes_the_verdict_on_the_one_before_it(outcome_room: Courtroom) -> None:
    with outcome_room.session() as case:
        case.client.says(APOP)
        case.server.hears(APOP)
        case.server.says(b"-ERR [AUTH] no\r\n")
        question = case.question("pop3_login_failure", user="bob")
        case.client.says(APOP)
        case.stands_still()
        question.answer("pass")
        case.client.hears(b"-ERR [AUTH] no\r\n")
        case.server.hears(APOP)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("deny -ERR [SYS/PERM] not you", b"-ERR [SYS/PERM] not you\r\n"), ("drop", b"")],
)
def test_a_client_that_is_refused_at_once_costs_no_connection(
    tmp_path: Path, verdict: str, said: bytes
) -> None:
    with sitting(tmp_path, events=["pop3_connect"]) as room:
        with room.proxy.connect() as client:
            port = client.getsockname()[1]
            question = room.court.next(port)
            assert question.event == "pop3_connect"
            question.answer(verdict)
            got = bytearray()
            while chunk := client.recv(512):
                got += chunk
            assert bytes(got) == said
        with room.proxy.connect() as client:
            question = room.court.next(client.getsockname()[1])
            room.court.fence()
            question.answer("pass")
            with room.mail_server.accept() as server:
                server.sendall(b"+OK second\r\n")
                assert client.recv(512) == b"+OK second\r\n"
        until(lambda: "pop3_session" in str(room.records(port)), "the first is on record")
        assert room.records(port)[-1]["reason"] == ("dropped" if verdict == "drop" else "denied")
