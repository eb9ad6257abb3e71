"""The answer to a login is known as soon as the server gives it, whatever the client does to keep it open."""

import base64

import pytest

from pop3proxy.analyzer.events import LoginAnnounced, LoginAttempt, LoginFailure
from pop3proxy.hooks.api import Hook

from .pair import Pair


class Judge(Hook):
    """Lets all logins pass, and hears what becomes of them."""

    blocking = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def pop3_login_attempt(self, event: LoginAttempt) -> None:
        self.heard.append(f"attempt {event.attempt}")

    def pop3_login_announced(self, event: LoginAnnounced) -> None:
        self.heard.append(f"announced {event.attempt}")

    def pop3_login_failure(self, event: LoginFailure) -> None:
        self.heard.append(f"failure {event.attempt}")


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def pair(judge: Judge) -> Pair:
    """A guarded session whose server has greeted."""
    pair = Pair(hooks=[judge]).connect()
    pair.server_says(b"+OK ready\r\n")
    return pair


def base(text: bytes) -> bytes:
    return base64.b64encode(text)


def test_a_login_s_status_line_is_read_though_the_client_does_not_read(
    pair: Pair, judge: Judge
) -> None:
    pair.client_says(b"USER bob\r\n")
    pair.session.client.unsent = True
    pair.server_says(b"+OK\r\n")
    assert pair.server.producerState == "paused"
    pair.client_says(b"PASS wrong\r\n")
    assert pair.server.producerState == "producing"
    pair.server_says(b"-ERR [AUTH] no\r\n")
    assert judge.heard == ["attempt 1", "failure 1"]
    assert pair.server.producerState == "paused"


def test_there_is_room_for_one_line_until_the_client_reads_again(pair: Pair) -> None:
    pair.client_says(b"AUTH LOGIN\r\n")
    pair.session.client.unsent = True
    pair.server_says(b"+ " + base(b"Username:") + b"\r\n")
    pair.client_says(base(b"bob") + b"\r\n")
    # That completes no credentials.
    assert pair.server.producerState == "paused"
    pair.session.client.unsent = False
    pair.session.drained(pair.session.client._side)
    pair.server_says(b"+ " + base(b"Password:") + b"\r\n")
    pair.session.client.unsent = True
    pair.client_says(base(b"wrong") + b"\r\n")
    pair.server_says(b"+ " + base(b"Password:") + b"\r\n")
    assert pair.server.producerState == "paused"
    pair.client_says(base(b"again") + b"\r\n")
    assert pair.server.producerState == "paused"
    pair.session.client.unsent = False
    pair.session.drained(pair.session.client._side)
    assert pair.server.producerState == "producing"


@pytest.mark.parametrize(
    ("mechanism", "said", "challenge"),
    [
        (b"XOAUTH2", base(b"user=bob\1auth=Bearer token\1\1"), base(b'{"status":"401"}')),
        (
            b"OAUTHBEARER",
            base(b"n,a=bob,\1auth=Bearer token\1\1"),
            base(b'{"status":"invalid_token"}'),
        ),
    ],
)
def test_an_announced_failure_is_told_before_the_client_answers(
    pair: Pair, judge: Judge, mechanism: bytes, said: bytes, challenge: bytes
) -> None:
    pair.client_says(b"AUTH " + mechanism + b" " + said + b"\r\n")
    pair.server_says(b"+ " + challenge + b"\r\n")
    assert judge.heard == ["attempt 1", "announced 1"]
    assert pair.client.value().endswith(b"+ " + challenge + b"\r\n")
    pair.client_says(base(b"\1") + b"\r\n")
    pair.server_says(b"-ERR [AUTH] no\r\n")
    assert judge.heard == ["attempt 1", "announced 1", "failure 1"]


def test_scram_announces_a_failure_and_no_other_challenge_does(pair: Pair, judge: Judge) -> None:
    pair.client_says(b"AUTH SCRAM-SHA-1\r\n")
    pair.server_says(b"+ \r\n")
    pair.client_says(base(b"n,,n=bob,r=abc") + b"\r\n")
    pair.server_says(b"+ " + base(b"r=abcdef,s=c2FsdA==,i=4096") + b"\r\n")
    pair.client_says(base(b"c=biws,r=abcdef,p=cHJvb2Y=") + b"\r\n")
    assert judge.heard == ["attempt 1"]
    pair.server_says(b"+ " + base(b"e=invalid-proof") + b"\r\n")
    assert judge.heard == ["attempt 1", "announced 1"]
