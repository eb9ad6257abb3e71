"""Holds the record of a session against what was said in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pop3proxy.analyzer.limits import Limits

from .proxy import Visit
from .records import RecordedSession, as_recorded

LONGEST_LINE = Limits().data_line
# What ends a session that the proxy lets go on.
BY_A_PEER = {
    f"{peer}_{how}" for peer in ("client", "server") for how in ("closed", "lost", "truncated")
}
# Their arguments are masked, wholly or in part.
SECRET_BEARING = {"PASS", "APOP", "AUTH"}


@dataclass(frozen=True, slots=True)
class Login:
    """A login that the server judged."""

    user: str
    mechanism: str
    success: bool = True

    @property
    def event(self) -> str:
        return "pop3_login_success" if self.success else "pop3_login_failure"

    @property
    def recorded_user(self) -> str:
        return as_recorded(self.user.encode("utf-8", "surrogateescape"))


def assert_every_event_recorded(
    visit: Visit, *logins: Login, data: bool = False, unexpected: Sequence[str] = ()
) -> None:
    """Every request, reply, login and end of an inspected session is there, and nothing else."""
    assert_dialogue_recorded(visit)
    assert_logins_recorded(visit.recorded, *logins)
    assert_asked(visit, *logins)
    assert_end_recorded(visit, "whole")
    assert visit.recorded.of("pop3_starttls") == []
    assert [oddity["msg"] for oddity in visit.recorded.of("pop3_unexpected")] == list(unexpected)
    body_lines = [line[:LONGEST_LINE] for line in visit.transcript.body_lines] if data else []
    assert [line for (line,) in visit.recorded.said("pop3_data", "data")] == [
        as_recorded(line) for line in body_lines
    ]


def assert_let_in(visit: Visit, *logins: Login, unexpected: Sequence[str] = ()) -> None:
    """The logins are recorded and were asked about, and the proxy ended nothing.

    For clients whose lines are not those of the RFC, so that no transcript can be read.
    """
    assert_logins_recorded(visit.recorded, *logins)
    assert_logins_asked(visit, *logins)
    oddities = [oddity["msg"] for oddity in visit.recorded.of("pop3_unexpected")]
    assert oddities == list(unexpected)
    end = visit.recorded.end
    assert end["reason"] in BY_A_PEER
    assert end["inspected"] == "whole"


def assert_dialogue_recorded(visit: Visit) -> None:
    """Requests and replies are those of the transcript, from the right addresses."""
    recorded, transcript = visit.recorded, visit.transcript
    assert _without_secrets(recorded.said("pop3_request", "command", "arg")) == _without_secrets(
        transcript.requests
    )
    assert recorded.said("pop3_reply", "cmd", "msg") == transcript.replies
    assert {(record["id.orig_h"], record["id.orig_p"]) for record in recorded.records} == {
        ("127.0.0.1", visit.said.port)
    }
    assert {(record["id.resp_h"], record["id.resp_p"]) for record in recorded.records} == {
        ("127.0.0.1", visit.upstream_port)
    }


def _without_secrets(
    requests: list[tuple[Any, ...]] | list[tuple[str, str]],
) -> list[tuple[str, str]]:
    return [(command, "" if command in SECRET_BEARING else arg) for command, arg in requests]


def assert_logins_recorded(recorded: RecordedSession, *logins: Login) -> None:
    """One attempt and one verdict for each login that was judged, the verdict just before its reply."""
    told = [(login.recorded_user, login.mechanism) for login in logins]
    assert recorded.said("pop3_login_attempt", "user", "mechanism") == told
    verdicts = recorded.of("pop3_login_success", "pop3_login_failure")
    assert [(one["event"], one["user"], one["mechanism"]) for one in verdicts] == [
        (login.event, login.recorded_user, login.mechanism) for login in logins
    ]
    behind = [recorded.records[recorded.records.index(verdict) + 1] for verdict in verdicts]
    assert {record["event"] for record in behind} <= {"pop3_reply"}


def assert_asked(visit: Visit, *logins: Login) -> None:
    """A blocking hook, if there is one, was asked about every request and login that is recorded."""
    assert_logins_asked(visit, *logins)
    if visit.asked is not None:
        asked = [command for name, command, *_ in visit.asked if name == "pop3_request"]
        assert asked == [command for (command,) in visit.recorded.said("pop3_request", "command")]


def assert_logins_asked(visit: Visit, *logins: Login) -> None:
    """A blocking hook, if there is one, was asked about these logins."""
    if visit.asked is not None:
        assert_attempts_asked(visit.asked, *logins)


def assert_attempts_asked(notes: Sequence[tuple[str, ...]], *logins: Login) -> None:
    """A hook was asked about each login and about its outcome, once and by its user.

    About an attempt with a blank in the user's name it was asked by each name that servers read in it.
    """
    asked = [note for note in notes if note[0] != "pop3_request"]
    expected = []
    for login in logins:
        readings = dict.fromkeys((login.user, login.user.partition(" ")[0]))
        expected += [("pop3_login_attempt", user, login.mechanism) for user in readings]
        expected.append((login.event, login.user, login.mechanism))
    assert asked == expected


def assert_end_recorded(visit: Visit, inspected: str) -> None:
    """The session begins and ends once, and its last record counts right."""
    recorded, transcript = visit.recorded, visit.transcript
    assert recorded.names[0] == "pop3_connect"
    assert recorded.names[-1] == "pop3_session"
    assert recorded.names.count("pop3_connect") == 1
    end = recorded.end
    assert {name: end[name] for name in ("commands", "retr", "top", "dele", "inspected")} == {
        "commands": len(transcript.requests),
        "retr": transcript.count("RETR"),
        "top": transcript.count("TOP"),
        "dele": transcript.count("DELE"),
        "inspected": inspected,
    }
    assert end["reason"] in BY_A_PEER
    assert (end["orig_octets"], end["resp_octets"]) == (
        len(visit.said.client),
        len(visit.said.server),
    )
