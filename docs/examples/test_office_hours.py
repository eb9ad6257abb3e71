"""Tests the hook of office hours, as its author would."""

from datetime import UTC, datetime

from office_hours import CLOSED, OfficeHours

from pop3proxy.testing import Play

LOGIN = """
    S: +OK ready
    C: USER bob
    S: +OK
    C: PASS secret
"""


def test_nobody_logs_in_at_night():
    """The server never sees the password, and the client is told why."""
    with Play(OfficeHours(), at=datetime(2026, 1, 5, 23, 0, tzinfo=UTC)) as play:
        play.say(LOGIN)
        assert play.verdicts == [("pop3_login_attempt", CLOSED)]
        assert b"PASS" not in play.to_server
        assert play.to_client.endswith(b"during office hours only.\r\n")


def test_bob_logs_in_by_day():
    """The login passes, and is the server's to judge."""
    with Play(OfficeHours(), at=datetime(2026, 1, 5, 12, 0, tzinfo=UTC)) as play:
        play.say(LOGIN)
        assert play.to_server.endswith(b"PASS secret\r\n")
        play.say("S: +OK welcome")
        assert play.raised("pop3_login_success")[0].user == "bob"
