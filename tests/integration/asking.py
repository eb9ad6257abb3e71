"""A blocking hook that is asked about requests and logins, passes everything, and notes what it was asked.

The proxy loads it by its name; it imports nothing of the tests.
"""

import json
from pathlib import Path

from pop3proxy.analyzer.events import LoginAttempt, LoginFailure, LoginSuccess, Request
from pop3proxy.hooks.api import PASS, Hook, Pass


class Asking(Hook):
    """Decides about every request and login before the login, so that the guard is on."""

    blocking = True

    def __init__(self, notes: str) -> None:
        self._notes = Path(notes)

    def pop3_request(self, event: Request) -> Pass:
        return self._noted(event, command=event.command)

    def pop3_login_attempt(self, event: LoginAttempt) -> Pass:
        return self._noted(event, user=event.user, mechanism=event.mechanism)

    def pop3_login_success(self, event: LoginSuccess) -> Pass:
        return self._noted(event, user=event.user, mechanism=event.mechanism)

    def pop3_login_failure(self, event: LoginFailure) -> Pass:
        return self._noted(event, user=event.user, mechanism=event.mechanism)

    def _noted(
        self, event: Request | LoginAttempt | LoginSuccess | LoginFailure, **facts: str
    ) -> Pass:
        note = {"uid": event.c.uid, "event": event.name, **facts}
        with self._notes.open("a", encoding="utf-8") as notes:
            notes.write(json.dumps(note) + "\n")
        return PASS
