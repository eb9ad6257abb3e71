"""What a listener does about TLS: what answers STLS, who may log in, what CAPA shows; it acts nowhere."""

from dataclasses import dataclass
from typing import Final

from ..analyzer.events import LoginAttempt, Request, StartTLS
from ..analyzer.grammar import COMMANDS, Role
from ..analyzer.steps import NO_KINDS, Kinds, Step
from ..config import Listener, Upstream
from ..hooks.api import Deny
from ..hooks.policy.commands import TLS_REQUIRED
from .capabilities import Edits

BEGIN_TLS: Final = b"+OK Begin TLS negotiation now.\r\n"
"""The answer to STLS, behind which the handshake comes (RFC 2595 section 4)."""

NO_TLS: Final = Deny("-ERR TLS is not available here.")
ALREADY_ON: Final = Deny("-ERR TLS is on already.")
TOO_LATE: Final = Deny("-ERR TLS can only be turned on before the login.")

# By their names: AUTH without a mechanism, which asks for their list, is refused as well.
_LOGIN: Final = frozenset(
    row.name
    for row in COMMANDS.values()
    if row.role in (Role.USER, Role.PASS, Role.APOP, Role.RPOP, Role.AUTH)
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the proxy does about TLS in the sessions of one listener.

    ``offers``: it answers STLS itself, until TLS is on. ``passes``: STLS is between client and server; else
    no STLS ever reaches the server. ``requires``: nobody logs in before TLS is on. ``ends_tls``: there is, or
    can be, TLS that ends at the proxy or before it, so that nothing can hang on it being one from client to
    server.
    """

    offers: bool = False
    passes: bool = False
    requires: bool = False
    ends_tls: bool = False

    def gates(self, secure: bool) -> Kinds:
        """Return the event types for which client bytes are held; ``secure`` says whether TLS is on."""
        if self.passes:
            return NO_KINDS
        if self.requires and not secure:
            # As for rules: with less there are ways to hide a login that servers understand.
            return frozenset({StartTLS, Request, LoginAttempt})
        return frozenset({StartTLS})

    def takes_stls(self, secure: bool) -> bool:
        """Say whether STLS turns TLS on."""
        return self.offers and not secure

    def denial(self, step: Step, secure: bool) -> Deny | None:
        """Return the refusal of a client's command, or None."""
        if self.must_see(secure) and step.command is not None and step.command.name in _LOGIN:
            return TLS_REQUIRED
        if self.passes:
            return None
        if step.stls and not self.takes_stls(secure):
            return ALREADY_ON if secure else NO_TLS
        return None

    def must_see(self, secure: bool) -> bool:
        """Say whether a session that can't be inspected any more must end: a login could be hidden in it."""
        return self.requires and not secure

    def edits(self, secure: bool) -> Edits:
        """Return what is changed in a list of capabilities."""
        before = self.must_see(secure)
        return Edits(
            stls=None if self.passes else self.takes_stls(secure),
            user=before,
            sasl=before,
            bound=self.ends_tls,
            answers=self.offers,
        )


def terms_for(listener: Listener, upstream: Upstream) -> Terms | None:
    """Return the terms of a listener before a mail server; None if the proxy has no part in TLS."""
    mode, inner = listener.tls, upstream.tls != "plain"
    if mode == "pass":
        return Terms(passes=True, ends_tls=True) if inner else None
    if mode == "none":
        return Terms(ends_tls=inner or listener.trust_tls)
    return Terms(offers=mode in ("terminate", "require"), requires=mode == "require", ends_tls=True)
