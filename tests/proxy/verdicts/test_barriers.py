"""No login gets past its verdict behind bytes that make it hard to see that it is one."""

import base64

import pytest

from ..live import meanwhile, send_until_full
from .court import APOP, DENIED, Courtroom

LOGIN = b"USER bob\r\nPASS secret\r\n"
PLAIN = base64.b64encode(b"\0bob\0secret")

UNKNOWN = b"-ERR Unknown command.\r\n"

REFUSED = [b"AUTH PLAIN\r\n", b"AUTH LOGIN Ym9i\r\n", b"STLS\r\n"]
"""What the client's next bytes depend on: if the server refuses it, they are commands."""


@pytest.mark.parametrize("barrier", REFUSED, ids=bytes.decode)
def test_a_login_behind_what_the_server_refuses_waits_for_its_verdict(
    room: Courtroom, barrier: bytes
) -> None:
    with room.session() as case:
        case.client.says(barrier + LOGIN + b"NOOP\r\n")
        case.server.hears(barrier)
        case.stands_still()
        case.server.says(b"-ERR no\r\n")
        case.client.hears(b"-ERR no\r\n")
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        question = case.question(user="bob", password="secret", mechanism="USER/PASS")
        case.stands_still()
        question.answer("deny")
        case.client.hears(DENIED)
        case.server.hears(b"NOOP\r\n")
        case.client.ends()
        case.server.hears_the_end()
    assert b"secret" not in case.server.got


@pytest.mark.parametrize("barrier", REFUSED, ids=bytes.decode)
def test_a_login_behind_a_refusal_that_is_cut_at_any_byte_waits_for_its_verdict(
    room: Courtroom, barrier: bytes
) -> None:
    whole = barrier + LOGIN
    for cut in range(1, len(whole)):
        with room.session() as case:
            case.client.says(whole[:cut])
            room.court.fence()
            case.client.says(whole[cut:])
            case.server.hears(barrier)
            case.stands_still()
            case.answers(b"-ERR no\r\n")
            case.server.hears(b"USER bob\r\n")
            case.answers(b"+OK\r\n")
            case.question(user="bob", password="secret").answer("drop")
            case.server.hears_the_end()


def test_several_barriers_in_one_segment_are_taken_one_by_one(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\nSTLS\r\nAUTH LOGIN\r\n" + LOGIN)
        for barrier in (b"AUTH PLAIN\r\n", b"STLS\r\n", b"AUTH LOGIN\r\n"):
            case.server.hears(barrier)
            case.stands_still()
            case.answers(b"-ERR no\r\n")
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        case.question(user="bob", password="secret").answer("drop")
        case.server.hears_the_end()


def test_a_refused_exchange_whose_response_was_sent_ahead_is_no_way_round(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n" + PLAIN + b"\r\nAUTH PLAIN " + PLAIN + b"\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        case.stands_still()
        case.answers(b"-ERR no\r\n")
        # The first is a command that nobody knows, the second is a login.
        case.client.hears(UNKNOWN)
        case.question(user="bob", password="secret").answer("drop")
        case.server.hears_the_end()


def test_a_response_that_was_sent_ahead_waits_for_its_verdict(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n" + PLAIN + b"\r\n" + LOGIN)
        case.server.hears(b"AUTH PLAIN\r\n")
        case.stands_still()
        case.server.says(b"+ \r\n")
        case.client.hears(b"+ \r\n")
        case.question(user="bob", mechanism="PLAIN").answer("deny")
        case.server.hears(b"*\r\n")
        case.stands_still()
        case.server.says(b"-ERR cancelled\r\n")
        case.client.hears(DENIED)
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        case.question(user="bob", mechanism="USER/PASS").answer("drop")
        case.server.hears_the_end()
        case.client.hears_the_end()


def test_bytes_behind_an_accepted_stls_end_the_session(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"STLS\r\n" + LOGIN)
        case.server.hears(b"STLS\r\n")
        case.stands_still()
        case.server.says(b"+OK begin\r\n")
        case.client.hears_the_end(b"+OK begin\r\n")
        case.server.hears_the_end()
        summary = case.summary()
        assert (summary["reason"], summary["inspected"]) == ("client_injection", "until_tls")
        assert "client_injection" in [record.get("msg") for record in case.records()]


@pytest.mark.parametrize("size", [1, 300, 5_000])
def test_a_login_behind_many_pipelined_commands_waits_for_its_verdict(
    room: Courtroom, size: int
) -> None:
    with room.session() as case:
        with meanwhile(lambda: case.client.says(b"NOOP\r\n" * size + LOGIN + b"NOOP\r\n")):
            for _ in range(size):
                case.server.hears(b"NOOP\r\n")
                case.answers(b"+OK\r\n")
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        question = case.question(user="bob", password="secret")
        case.stands_still()
        question.answer("drop")
        case.server.hears_the_end()
    assert b"secret" not in case.server.got


@pytest.mark.parametrize(
    "line",
    [b"PASS " + b"x" * 61_440, b"APOP bob " + b"x" * 61_440, b"RPOP " + b"x" * 61_440],
    ids=["PASS", "APOP", "RPOP"],
)
def test_a_login_line_that_nobody_can_hold_ends_the_session(room: Courtroom, line: bytes) -> None:
    with room.session() as case:
        case.is_named()
        case.client.says(line + b"\r\n" + LOGIN)
        case.server.hears_the_end()
        case.client.resets()
        assert case.summary()["reason"] == "line_too_long"


def test_a_token_of_60_kib_waits_for_its_verdict(room: Courtroom) -> None:
    line = b"AUTH XOAUTH2 " + base64.b64encode(
        b"user=bob\x01auth=Bearer " + b"x" * 47_000 + b"\x01\x01"
    )
    assert len(line) > 60 * 1024
    with room.session() as case:
        case.client.says(line + b"\r\n")
        question = case.question(user="bob", mechanism="XOAUTH2")
        case.stands_still()
        question.answer("pass")
        case.server.hears(line + b"\r\n")


@pytest.mark.parametrize("line", [b"XXXX " + b"x" * 61_440, b"USER " + b"x" * 61_440])
def test_a_line_that_a_server_may_read_as_several_and_nobody_can_hold_ends_the_session(
    room: Courtroom, line: bytes
) -> None:
    with room.session() as case:
        case.goes_on()
        case.client.says(line + b"\r\nPASS secret\r\n")
        case.server.hears_the_end()
        case.client.resets()
        assert case.summary()["reason"] == "line_too_long"


@pytest.mark.parametrize(
    "ahead",
    [
        b"XYZZY\r\n",
        b"EHLO me\r\n",
        b"USER " + b"x" * 300 + b"\r\n",
        b"\r\n",
        b"\n",
        b" \r\n",
        b"\0\n",
    ],
)
def test_a_login_behind_odd_lines_waits_for_its_verdict(room: Courtroom, ahead: bytes) -> None:
    """Some servers do not answer the odd line at all, so that each later reply is another command's."""
    with room.session() as case:
        case.client.says(ahead + b"USER bob\r\npAsS secret\n")
        case.refuses()
        case.server.hears(b"USER bob\r\n")
        case.answers(b"+OK\r\n")
        question = case.question(user="bob", password="secret")
        case.stands_still()
        question.answer("drop")
        case.server.hears_the_end()


@pytest.mark.parametrize(
    "line",
    [
        b" PASS secret\r\n",
        b"\tPASS secret\r\n",
        b"PASS\tsecret\r\n",
        b"PASS\r \r\n",
        b"\r\x0b apop\tbob x\r\n",
        b"AUTH\tPLAIN " + PLAIN + b"\r\n",
        b"     RPOP bob\r\n",
        b"\0PASS secret\r\n",
        b"AUTH LOGIN\rYm9i\rc2VjcmV0\r\n",
        b"AUTH PLAIN " + PLAIN + b"!\r\n",
        b"APOP bob c4c9334bac560ecc979e58001b3e22fb eve x\r\n",
    ],
)
def test_what_only_a_lenient_server_takes_for_a_login_is_not_passed(
    room: Courtroom, line: bytes
) -> None:
    for cut in range(len(line)):
        with room.session() as case:
            case.is_named()
            case.client.says(line[:cut])
            case.stands_still()
            case.client.says(line[cut:])
            case.refuses()
            case.goes_on()
    assert case.server.got == b"USER bob\r\nNOOP\r\n"
    assert "not_passed" in [record.get("msg") for record in case.records()]


@pytest.mark.parametrize("size", [256, 512, 1024, 4096])
def test_a_login_behind_what_fills_a_server_s_buffer_is_not_passed(
    room: Courtroom, size: int
) -> None:
    """A server that reads so many octets at most takes the rest of the line for one more."""
    line = b"NOOP " + (size - 5) * b"x" + b"PASS secret" + 300 * b"x" + b"\r\n"
    for cut in (0, 10, size, size + 4, size + 5, len(line) - 2):
        assert _passed(room, line, cut) == b"NOOP\r\n"


@pytest.mark.parametrize(
    "line", [b"NOOP\rPASS secret\r\n", b"USER bob\rPASS secret\r\n", b"USER bob\r \tPASS\r\n"]
)
def test_a_login_behind_a_bare_cr_is_not_passed(room: Courtroom, line: bytes) -> None:
    for cut in range(len(line)):
        assert _passed(room, line, cut) == b"NOOP\r\n"


def _passed(room: Courtroom, line: bytes, cut: int) -> bytes:
    """Send a line in two pieces that is not passed; return what the server gets until the session goes on."""
    with room.session() as case:
        case.client.says(line[:cut])
        room.court.fence()
        case.client.says(line[cut:])
        case.refuses()
        case.goes_on()
        return case.server.got


@pytest.mark.parametrize(
    "response", [b"*\rPASS secret\r\n", PLAIN + b"=x\r\n", b"!" + PLAIN + b"\r\n"]
)
def test_a_response_that_servers_read_in_different_ways_cancels_the_exchange(
    room: Courtroom, response: bytes
) -> None:
    with room.session() as case:
        case.exchange(b"AUTH PLAIN\r\n", b"+ \r\n")
        case.client.says(response)
        case.server.hears(b"*\r\n")
        case.stands_still()
        case.server.says(b"-ERR cancelled\r\n")
        case.client.hears(b"-ERR Malformed authentication response.\r\n")
        case.goes_on()
        assert case.logins() == [("pop3_login_failure", "", "malformed")]


def test_a_challenge_that_nobody_waits_for_ends_the_session(room: Courtroom) -> None:
    """The client's next line would be a response to it."""
    with room.session() as case:
        case.exchange(b"AUTH PLAIN\r\n", b"-ERR\r\n")
        case.server.says(b"+ \r\n")
        case.server.hears_the_end()
        assert case.summary()["reason"] == "blind"


@pytest.mark.parametrize("line", [b"STAT\r\n", b"LIST\r\n", b"XTND XMIT\r\n"])
def test_no_mailbox_command_passes_before_a_login(room: Courtroom, line: bytes) -> None:
    with room.session() as case:
        case.client.says(line)
        case.client.hears(b"-ERR Log in first.\r\n")
        case.goes_on()
    assert case.server.got == b"NOOP\r\n"


def test_a_user_that_only_a_lenient_server_sees_is_not_passed(room: Courtroom) -> None:
    with room.session() as case:
        case.is_named()
        case.client.says(b"USER\teve\r\nPASS secret\r\n")
        case.refuses()
        case.question(user="bob", password="secret").answer("drop")
        case.server.hears_the_end()


@pytest.mark.parametrize("end", [b".\r\r\n", b". \r\n", b"x\r.\rDELE 1\r\n"])
def test_mail_that_ends_for_some_servers_only_hides_no_command(
    strict_room: Courtroom, end: bytes
) -> None:
    with strict_room.session() as case:
        for said, events in (
            (APOP, ["pop3_request", "pop3_login_attempt"]),
            (b"XTND XMIT\r\n", ["pop3_request"]),
        ):
            case.client.says(said)
            for event in events:
                case.question(event).answer("pass")
            case.server.hears(said)
            case.answers(b"+OK\r\n")
        case.client.says(b"Subject: x\r\n\r\n" + end + b"DELE 1\r\n")
        case.server.hears_the_end(b"Subject: x\r\n\r\n")


# --- the server's part ----------------------------------------------------------------------------------


DOUBTFUL = [b"this is no status line\r\n", b"+OK once more\r\n", b".\r\n", b"+ \r\n"]


@pytest.mark.parametrize("line", DOUBTFUL)
def test_a_line_that_is_no_reply_ends_the_session(room: Courtroom, line: bytes) -> None:
    """Behind it any reply may answer any command."""
    with room.session() as case:
        case.is_named()
        case.server.says(line)
        case.server.hears_the_end()
        assert case.summary()["reason"] == "blind"


def test_a_reply_that_comes_with_one_too_many_ends_the_session_before_the_next_line(
    room: Courtroom,
) -> None:
    with room.session() as case:
        case.client.says(LOGIN)
        case.server.hears(b"USER bob\r\n")
        case.server.says(b"+OK\r\n+OK\r\n")
        case.server.hears_the_end()
        room.court.unasked(case.port)
        assert case.summary()["reason"] == "blind"
    assert b"PASS" not in case.server.got


def test_what_waits_behind_a_barrier_is_bounded(room: Courtroom) -> None:
    """The client is not read on before the server has answered."""
    flood = (b"x" * 70 + b"\r\n") * 500_000
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        before = room.proxy.memory()
        assert send_until_full(case.client.socket, flood) < len(flood)
        case.stands_still()
        assert room.proxy.memory() - before < 4 << 20
        case.server.leaves()
        case.client.hears_the_end()
        assert len(case.server.got) == len(b"AUTH PLAIN\r\n")
