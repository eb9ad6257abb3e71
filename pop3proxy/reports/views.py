"""The views that questions are written in: logins and sessions, with what is known of their addresses."""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class View:
    """A view over ``events``: its SQL, and the events that it is made of."""

    name: str
    sql: str
    events: tuple[str, ...]
    says: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns, as its SQL lists them."""
        listed = self.sql.partition("SELECT ")[2].partition("\nFROM ")[0]
        # A comma inside parentheses separates no columns.
        parts = re.split(r",\s*(?![^()]*\))", listed)
        return tuple(re.split(r"[ .]", part.strip())[-1].strip('"') for part in parts)


_ACCOUNT: Final = """lower(trim(e."user"))"""
"""Whitespace around a name and its case make no other account."""

_ADDRESS: Final = "coalesce(a.address, e.source) AS address, a.network, a.country, a.asn, a.as_name"

_FROM: Final = "FROM events e LEFT JOIN addresses a ON a.source = e.source"

VIEWS: Final = (
    View(
        "logins",
        f"""\
SELECT e.ts, to_timestamp(e.ts) AS time, e.uid, e."user", {_ACCOUNT} AS account, {_ADDRESS},
    e.mechanism, e.event = 'pop3_login_success' AS succeeded,
    CASE WHEN e.event = 'pop3_login_failure' THEN e.reason END AS reason, e.code,
    e.tls_version IS NOT NULL AS tls, e.tls_version, e.tls_cipher, e.listener, e.password_fp, e.attempt
{_FROM}
WHERE e.event IN ('pop3_login_success', 'pop3_login_failure')""",
        ("pop3_login_success", "pop3_login_failure"),
        "one row a login that was judged",
    ),
    View(
        "sessions",
        f"""\
SELECT e.ts, to_timestamp(e.ts) AS time, e.uid, e."user", {_ACCOUNT} AS account, {_ADDRESS},
    e.mechanism, e.outcome, e.commands, e.retr, e.top, e.dele, e.deleted, e.denied,
    e.orig_octets, e.resp_octets, e.duration, e.reason, e.unexpected, e.inspected,
    e.tls_version IS NOT NULL AS tls, e.tls_version, e.listener
{_FROM}
WHERE e.event = 'pop3_session'""",
        ("pop3_session",),
        "one row a session that has ended",
    ),
)


def used_in(statement: str) -> tuple[View, ...]:
    """Return the views that a statement names."""
    return tuple(view for view in VIEWS if re.search(rf"\b{view.name}\b", statement))


def uses_addresses(statement: str) -> bool:
    """Return whether a statement needs what is known of addresses."""
    return bool(used_in(statement)) or bool(re.search(r"\baddresses\b", statement))
