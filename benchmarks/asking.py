"""A hook that is asked about every login, and lets it pass: what asking itself costs."""

from pop3proxy.analyzer.events import LoginAttempt
from pop3proxy.hooks.api import PASS, Hook, Pass


class Asking(Hook):
    """Answers at once, without an awaitable."""

    blocking = True

    def pop3_login_attempt(self, event: LoginAttempt) -> Pass:
        return PASS
