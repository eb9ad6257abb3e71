"""The demo's parts: how events are printed, and what its mail server keeps."""

import io

import pytest

from pop3proxy.analyzer.events import (
    Connection,
    Data,
    Event,
    LoginFailure,
    Reason,
    Reply,
    Request,
    Secret,
)
from pop3proxy.demo.mailserver import Mailbox
from pop3proxy.demo.printing import Printer

C = Connection("Cabcdefghijklmnop", "192.0.2.1", 40000, "192.0.2.2", 110)


def printed(event: Event, colour: bool = False) -> str:
    out = io.StringIO()
    printer = Printer(out, colour)
    getattr(printer, type(event).name)(event)
    return out.getvalue()


def test_a_line_tells_the_session_the_speaker_and_the_event() -> None:
    (line,) = printed(Request(C, 0.0, "USER", "bob")).splitlines()
    assert line.split()[1:] == ["Cabcde", "C:", "pop3_request", "USER", "bob"]


def test_secrets_are_masked() -> None:
    assert "hunter2" not in printed(Request(C, 0.0, "PASS", "hunter2", Secret.ARGUMENT))
    assert "hunter2" not in printed(
        LoginFailure(C, 0.0, "bob", "hunter2", "USER/PASS", Reason.CREDENTIALS)
    )


def test_a_peer_cannot_steer_the_terminal() -> None:
    assert r"\x1b[2J\r\udcff" in printed(Data(C, 0.0, "\x1b[2J\r\udcff"))


def test_colours_frame_the_line() -> None:
    text = printed(Reply(C, 0.0, "OK", "ready"), colour=True)
    assert text.startswith("\x1b[")
    assert text.endswith("\x1b[0m\n")


def test_deletions_last_as_long_as_the_session() -> None:
    mailbox = Mailbox()
    mailbox.deleteMessage(0)
    assert mailbox.listMessages(0) == 0
    mailbox.sync()
    assert Mailbox().listMessages(0) != 0


def test_deletions_can_be_taken_back() -> None:
    mailbox = Mailbox()
    mailbox.deleteMessage(0)
    mailbox.undeleteMessages()
    assert mailbox.listMessages() == Mailbox().listMessages()


def test_there_is_no_message_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="no such message"):
        Mailbox().getMessage(3)
