"""Lets nobody log in outside office hours."""

from datetime import datetime, time
from zoneinfo import ZoneInfo

from pop3proxy.hooks.api import Deny, Hook

CLOSED = Deny("-ERR [SYS/TEMP] Mail can be fetched during office hours only.")


class OfficeHours(Hook):
    """Denies logins before ``opens``, from ``closes`` on, and at weekends, in the time of ``zone``."""

    blocking = True

    def __init__(self, opens="08:00", closes="18:00", zone="UTC"):
        self.opens = time.fromisoformat(opens)
        self.closes = time.fromisoformat(closes)
        self.zone = ZoneInfo(zone)

    def pop3_login_attempt(self, event) -> Deny | None:
        """Say no when it is too late, by the time of the event."""
        now = datetime.fromtimestamp(event.ts, self.zone)
        if now.weekday() < 5 and self.opens <= now.time() < self.closes:
            return None
        return CLOSED
