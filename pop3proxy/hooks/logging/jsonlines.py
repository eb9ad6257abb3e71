"""The hook that writes events as JSON Lines; how a record looks and how it gets to disk is said beside it."""

from collections.abc import Callable
from typing import Any, Literal

from ...analyzer.events import ALL, Data, Event, LoginAttempt, LoginFailure, LoginSuccess, Reply
from ..api import EndSession, Hook
from ..masking import RULES, in_clear
from .output import Output
from .records import RENDERERS, with_fingerprint

_TOLD_AT_ONCE = frozenset({LoginSuccess, LoginFailure})
_LOGINS = _TOLD_AT_ONCE | {LoginAttempt}

Fingerprint = Callable[[str], str]
"""Makes of a password what is the same for the same password, and tells nothing else; empty for none."""


class JsonLines(Hook):
    """Writes one JSON object a line for every event.

    A login's result, and the reply of a denial, are written before their method returns, with all that was
    queued before them, so that the client cannot know them sooner than the file; other events are written in
    batches.
    """

    def __init__(
        self,
        path: str,
        data: bool = False,
        show_secrets: bool = False,
        on_error: Literal["pass", "deny"] = "pass",
    ) -> None:
        """Write to ``path``, or to standard output if it is ``-``.

        ``data`` adds ``pop3_data``, the lines of the mail itself. ``show_secrets`` writes passwords in
        clear. ``on_error`` says what becomes of a session whose login or denial cannot be written: ``pass``
        lets it go on, ``deny`` ends it. Raises ValueError for any other.
        """
        if on_error not in ("pass", "deny"):
            raise ValueError(f"on_error is {on_error!r}; it can be 'pass' or 'deny'")
        self.output = Output(path)
        self.fingerprint: Fingerprint | None = None
        self._ends_sessions = on_error == "deny"
        # Listeners are what the dispatcher finds by name, and what nobody listens to is never built.
        for kind in ALL:
            if kind is not Data or data:
                setattr(
                    self, kind.name, self._listener(kind, in_clear if show_secrets else RULES[kind])
                )

    @property
    def written(self) -> int:
        """Records that reached the file."""
        return self.output.written

    @property
    def dropped(self) -> int:
        """Records that were given up."""
        return self.output.dropped

    @property
    def late(self) -> int:
        """Records of logins and denials that could not be written before the client got its answer."""
        return self.output.late

    def start(self, reactor: Any) -> None:
        """Open the file. Raises OutputError, an OSError whose text is one line for the operator."""
        self.output.open(reactor)

    def stop(self) -> None:
        """Write what is queued, say what was lost, and close."""
        self.output.close()

    def reopen(self) -> None:
        """Open the file anew by its name; the old one gets what was queued before."""
        self.output.reopen()

    def _listener(self, kind: type[Event], shown: Callable[[Any], Any]) -> Callable[[Any], None]:
        """Return what writes the events of one kind: its steps are looked up here and not for each event."""
        render, add = RENDERERS[kind], self.output.add
        write = self._add_now if kind in _TOLD_AT_ONCE else add

        def queue(event: Event) -> None:
            add(render(shown(event)))

        def reply(event: Reply) -> None:
            record = render(shown(event))
            if event.denial:
                self._add_now(record)
            else:
                add(record)

        def login(event: LoginAttempt | LoginSuccess | LoginFailure) -> None:
            record = render(shown(event))
            if self.fingerprint is not None:
                record = with_fingerprint(record, self.fingerprint(event.password))
            write(record)

        if kind in _LOGINS:
            return login
        return reply if kind is Reply else queue

    def _add_now(self, record: bytes) -> None:
        """Write what the client is about to learn. Raises EndSession if that fails and ends the session."""
        if not self.output.add_now(record) and self._ends_sessions:
            raise EndSession("a login or a denial could not be written down")
