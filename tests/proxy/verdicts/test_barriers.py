"""No login gets past its verdict behind bytes that make it hard to see that it is one."""

import base64

import pytest

from ..live import meanwhile, receive_all, send_until_full
from .court import DENIED, Courtroom

LOGIN = b"USER bob\r\nPASS secret\r\n"
PLAIN = base64.b64encode(b"\0bob\0secret")

REFUSED = [b"AUTH FOO\r\n", b"AUTH PLAIN\r\n", b"STLS\r\n", b"XTND XMIT\r\n", b"XTND XMIT x\r\n"]
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
        question = case.question(user="bob", password="secret", mechanism="USER/PASS")
        case.stands_still()
        question.answer("deny")
        case.server.says(b"+OK\r\n")
        case.client.hears(b"+OK\r\n" + DENIED)
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
            case.server.says(b"-ERR no\r\n")
            case.server.hears(b"USER bob\r\n")
            case.question(user="bob", password="secret").answer("drop")
            case.server.hears_the_end()


def test_several_barriers_in_one_segment_are_taken_one_by_one(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH FOO\r\nSTLS\r\nAUTH BAR\r\nXTND XMIT\r\n" + LOGIN)
        for barrier in (b"AUTH FOO\r\n", b"STLS\r\n", b"AUTH BAR\r\n", b"XTND XMIT\r\n"):
            case.server.hears(barrier)
            case.stands_still()
            case.server.says(b"-ERR no\r\n")
            case.client.hears(b"-ERR no\r\n")
        case.server.hears(b"USER bob\r\n")
        case.question(user="bob", password="secret").answer("drop")
        case.server.hears_the_end()


def test_a_refused_exchange_whose_response_was_sent_ahead_is_no_way_round(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"AUTH FOO\r\n" + PLAIN + b"\r\nAUTH PLAIN " + PLAIN + b"\r\n")
        case.server.hears(b"AUTH FOO\r\n")
        case.stands_still()
        case.server.says(b"-ERR no\r\n")
        case.client.hears(b"-ERR no\r\n")
        # The first is a command that nobody knows, the second is a login.
        case.server.hears(PLAIN + b"\r\n")
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
        case.question(user="bob", mechanism="USER/PASS").answer("drop")
        case.server.hears_the_end()
        case.client.hears_the_end()


def test_bytes_behind_an_accepted_stls_are_no_login(room: Courtroom) -> None:
    """They pass as the server takes them: inside TLS they are nothing to it."""
    with room.session() as case:
        case.client.says(b"STLS\r\n" + LOGIN)
        case.server.hears(b"STLS\r\n")
        case.stands_still()
        case.server.says(b"+OK begin\r\n")
        case.client.hears(b"+OK begin\r\n")
        case.server.hears(LOGIN)
        case.client.leaves()
        assert case.summary()["inspected"] == "until_tls"
        assert "client_injection" in [record.get("msg") for record in case.records()]


@pytest.mark.parametrize("size", [1, 300, 5_000])
def test_a_login_behind_many_pipelined_commands_waits_for_its_verdict(
    room: Courtroom, size: int
) -> None:
    ahead = b"NOOP\r\n" * size + b"USER bob\r\n"
    with room.session() as case:
        with meanwhile(lambda: case.client.says(ahead + b"PASS secret\r\nNOOP\r\n")):
            told = min(size + 1, 4_096)
            case.server.hears(ahead[: 6 * told] if told <= size else ahead)
            if told <= size:
                # The server owes so many replies that the client is not read on.
                case.stands_still()
                case.server.says(b"+OK\r\n" * told)
                case.client.hears(b"+OK\r\n" * told)
                case.server.hears(ahead[6 * told :])
                case.server.says(b"+OK\r\n" * (size - told))
                case.client.hears(b"+OK\r\n" * (size - told))
        question = case.question(user="bob", password="secret")
        case.stands_still()
        question.answer("drop")
        case.server.hears_the_end()
    assert case.server.got == ahead


@pytest.mark.parametrize(
    "line",
    [b"PASS " + b"x" * 61_440, b"APOP bob " + b"x" * 61_440, b"RPOP " + b"x" * 61_440],
    ids=["PASS", "APOP", "RPOP"],
)
def test_a_login_line_that_nobody_can_hold_ends_the_session(room: Courtroom, line: bytes) -> None:
    with room.session() as case:
        case.client.says(b"USER bob\r\n" + line + b"\r\n" + LOGIN)
        case.server.hears_the_end(b"USER bob\r\n")
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
    [b"XYZZY\r\n", b"AUTH\r\n", b"CAPA\r\n", b"USER " + b"x" * 300 + b"\r\n"],
)
def test_a_login_behind_odd_lines_waits_for_its_verdict(room: Courtroom, ahead: bytes) -> None:
    with room.session() as case:
        case.client.says(ahead + b"USER bob\r\npAsS secret\n")
        case.server.hears(ahead + b"USER bob\r\n")
        question = case.question(user="bob", password="secret")
        case.stands_still()
        question.answer("drop")
        case.server.hears_the_end()


@pytest.mark.parametrize("ahead", [b"\r\n", b"\n", b" \r\n", b"\0\n", b"NOOP\n"])
def test_what_some_servers_do_not_answer_is_answered_before_anything_else(
    room: Courtroom, ahead: bytes
) -> None:
    """With a reply too few, each of those behind it would be taken for another command's."""
    with room.session() as case:
        case.client.says(ahead + LOGIN)
        case.server.hears(ahead)
        case.stands_still()
        case.server.says(b"-ERR what\r\n")
        case.client.hears(b"-ERR what\r\n")
        case.server.hears(b"USER bob\r\n")
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
def test_what_only_a_lenient_server_takes_for_a_login_ends_the_session(
    room: Courtroom, line: bytes
) -> None:
    for cut in range(len(line)):
        with room.session() as case:
            case.goes_on()
            case.client.says(b"USER bob\r\n" + line[:cut])
            case.server.hears(b"USER bob\r\n")
            case.stands_still()
            case.client.says(line[cut:])
            case.server.hears_the_end()
    assert case.summary()["reason"] == "blind"


@pytest.mark.parametrize("size", [256, 512, 1024, 4096])
def test_a_login_behind_what_fills_a_server_s_buffer_ends_the_session(
    room: Courtroom, size: int
) -> None:
    """A server that reads so many octets at most takes the rest of the line for one more."""
    line = b"NOOP " + (size - 5) * b"x" + b"PASS secret" + 300 * b"x" + b"\r\n"
    for cut in (0, 10, size, size + 4, size + 5, len(line) - 2):
        assert b"PASS" not in _passed(room, line, cut)


@pytest.mark.parametrize(
    "line", [b"NOOP\rPASS secret\r\n", b"USER bob\rPASS secret\r\n", b"USER bob\r \tPASS\r\n"]
)
def test_a_login_behind_a_bare_cr_ends_the_session(room: Courtroom, line: bytes) -> None:
    for cut in range(len(line)):
        assert b"PASS" not in _passed(room, line, cut)


def _passed(room: Courtroom, line: bytes, cut: int) -> bytes:
    """Send a line in two pieces; return what the server gets before the session ends."""
    with room.session() as case:
        case.goes_on()
        case.client.says(line[:cut])
        room.court.fence()
        case.client.says(line[cut:])
        return receive_all(case.server.socket)


@pytest.mark.parametrize(
    "response", [b"*\rPASS secret\r\n", PLAIN + b"=x\r\n", b"!" + PLAIN + b"\r\n"]
)
def test_a_response_that_servers_read_in_different_ways_ends_the_session(
    room: Courtroom, response: bytes
) -> None:
    with room.session() as case:
        case.client.says(b"AUTH PLAIN\r\n")
        case.server.hears(b"AUTH PLAIN\r\n")
        case.server.says(b"+ \r\n")
        case.client.hears(b"+ \r\n")
        case.client.says(response)
        case.server.hears_the_end()


def test_a_challenge_that_nobody_waits_for_ends_the_session(room: Courtroom) -> None:
    """The client's next line would be a response to it."""
    with room.session() as case:
        case.client.says(b"XYZZY\r\nAUTH PLAIN\r\n")
        case.server.hears(b"XYZZY\r\nAUTH PLAIN\r\n")
        case.server.says(b"-ERR\r\n-ERR\r\n+ \r\n")
        case.client.hears_the_end(b"-ERR\r\n-ERR\r\n")
        case.server.hears_the_end()


def test_a_mailbox_that_opens_without_a_login_ends_the_session(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"STAT\r\n")
        case.server.hears(b"STAT\r\n")
        case.server.says(b"+OK 0 0\r\n")
        case.client.hears_the_end()
        assert case.summary()["reason"] == "blind"


def test_a_user_that_only_a_lenient_server_sees_ends_the_session(room: Courtroom) -> None:
    with room.session() as case:
        case.client.says(b"USER bob\r\nUSER\teve\r\nPASS secret\r\n")
        case.server.hears_the_end(b"USER bob\r\n")


@pytest.mark.parametrize("end", [b".\r\r\n", b". \r\n", b"x\r.\rDELE 1\r\n"])
def test_mail_that_ends_for_some_servers_only_hides_no_command(
    strict_room: Courtroom, end: bytes
) -> None:
    with strict_room.session() as case:
        for said, events in (
            (b"APOP bob x\r\n", ["pop3_request", "pop3_login_attempt"]),
            (b"XTND XMIT\r\n", ["pop3_request"]),
        ):
            case.client.says(said)
            for event in events:
                case.question(event).answer("pass")
            case.server.hears(said)
            case.server.says(b"+OK\r\n")
            case.client.hears(b"+OK\r\n")
        case.client.says(b"Subject: x\r\n\r\n" + end + b"DELE 1\r\n")
        case.server.hears_the_end(b"Subject: x\r\n\r\n")


# --- the server's part ----------------------------------------------------------------------------------


DOUBTFUL = b"this is no status line\r\n"


@pytest.mark.parametrize("verdict", ["pass", "deny", "drop"])
def test_a_login_behind_bytes_that_make_the_analyzer_doubt_waits_for_its_verdict(
    room: Courtroom, verdict: str
) -> None:
    with room.session() as case:
        case.client.says(b"LIST\r\n")
        case.server.hears(b"LIST\r\n")
        case.server.says(DOUBTFUL)
        case.client.hears(DOUBTFUL)
        case.client.says(LOGIN)
        case.server.hears(b"USER bob\r\n")
        question = case.question(user="bob", password="secret")
        case.stands_still()
        question.answer(verdict)
        if verdict == "pass":
            case.server.hears(b"PASS secret\r\n")
        else:
            # The place of a denial cannot be found any more.
            case.client.hears_the_end()
            case.server.hears_the_end()


@pytest.mark.parametrize("barrier", [b"AUTH FOO\r\n", b"STLS\r\n", b"XTND XMIT\r\n"])
def test_a_barrier_in_doubt_ends_the_session_and_lets_nothing_past(
    room: Courtroom, barrier: bytes
) -> None:
    with room.session() as case:
        case.client.says(b"LIST\r\n")
        case.server.hears(b"LIST\r\n")
        case.server.says(DOUBTFUL)
        case.client.hears(DOUBTFUL)
        case.client.says(barrier + LOGIN)
        case.server.hears_the_end(barrier)
        case.client.hears_the_end()
        assert case.summary()["reason"] == "blind"


def test_a_server_that_takes_a_message_before_a_login_ends_the_session(room: Courtroom) -> None:
    """No server does that, so what is said to be a message may be commands."""
    with room.session() as case:
        case.client.says(b"XTND XMIT\r\n" + LOGIN + b".\r\n" + LOGIN)
        case.server.hears(b"XTND XMIT\r\n")
        case.stands_still()
        case.server.says(b"+OK send\r\n")
        case.server.hears_the_end()
        assert case.summary()["reason"] == "blind"


def test_what_waits_behind_a_barrier_is_bounded(room: Courtroom) -> None:
    """The client is not read on before the server has answered."""
    flood = (b"x" * 70 + b"\r\n") * 500_000
    with room.session() as case:
        case.client.says(b"AUTH FOO\r\n")
        case.server.hears(b"AUTH FOO\r\n")
        before = room.proxy.memory()
        assert send_until_full(case.client.socket, flood) < len(flood)
        case.stands_still()
        assert room.proxy.memory() - before < 4 << 20
        case.server.leaves()
        case.client.hears_the_end()
        assert len(case.server.got) == len(b"AUTH FOO\r\n")
