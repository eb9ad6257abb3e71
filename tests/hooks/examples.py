"""One session's events, one of each kind at least, for tests that need any event and not a certain one."""

from pop3proxy.analyzer.events import (
    Connect,
    Connection,
    Data,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Policy,
    Reason,
    Reply,
    Request,
    Secret,
    SessionEnd,
    StartTLS,
    Unexpected,
)
from pop3proxy.analyzer.remembered import Remembered

TS = 1764000000.123456


def connection(*secrets: str) -> Connection:
    """A client at 192.0.2.17 that proved itself by these secrets."""
    c = Connection("CHhAvVGS1DHFjwGM9", "192.0.2.17", 51234, "198.51.100.4", 110)
    if secrets:
        c.secrets = Remembered(len(secrets), 16384)
    for secret in secrets:
        c.secrets.add(secret.encode("utf-8", "surrogateescape"))
    return c


def every_event(c: Connection) -> list[Event]:
    """Build an event of every kind."""
    return [
        Connect(c, TS),
        Request(c, TS, "PASS", "hunter2", Secret.ARGUMENT),
        Reply(c, TS, "OK", "Logged in."),
        Data(c, TS, "Subject: hello"),
        LoginAttempt(c, TS, "bob", "hunter2", "USER/PASS"),
        LoginSuccess(c, TS, "bob", "hunter2", "USER/PASS"),
        LoginFailure(c, TS, "bob", "hunter2", "USER/PASS", Reason.CREDENTIALS, "AUTH"),
        StartTLS(c, TS),
        Unexpected(c, TS, True, Oddity.UNKNOWN_COMMAND, "PASSS hunter2"),
        SessionEnd(c, TS, "bob", "success", 4, 1, 0, 0, 60, 4000, 2.25, "quit", 1, "whole"),
        Policy(
            *(c, TS, "spraying", "ban", "address:192.0.2.17", "users"),
            *(15, 15, 3600.0, 600.5, False),
        ),
    ]
