"""The command `pop3proxy policy test`: plays old traffic or an old event log to the rules; changes nothing.

The records' time is the rules' time. What would have been refused had no effect on the old traffic, so
what follows it is counted as it went.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

import click

from .analyzer.events import (
    Connect,
    Connection,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Reason,
    SessionEnd,
    Tls,
)
from .analyzer.events import Policy as PolicyEvent
from .config import AnalyzerOptions, ConfigError, load_apart
from .hooks.logging.records import line
from .hooks.masking import MASK, masked
from .hooks.policy.config import Policy
from .hooks.policy.failedlogins import FailedLogins
from .hooks.policy.penalties import MISCONFIGURED
from .replay.captures import STANDARD_INPUT, CaptureError, CaptureFile, NoCapture

MAX_SESSIONS: Final = 100_000
"""Sessions of an event log that go on at a time; of more the oldest are taken as ended."""

MAX_LINE: Final = 1024 * 1024
"""Letters of a record; what is longer is none."""


@click.group()
def policy() -> None:
    """Explain, list and allow what the rules for failed logins refuse, and try rules."""


FORMATS: Final = "a log of events (JSON Lines) or a capture (pcap or pcapng, gzipped or not)"
"""What can be judged."""


@policy.command()
@click.argument("source", metavar="EVENTS.jsonl|CAPTURE")
@click.option(
    "--config",
    "path",
    metavar="FILE.toml",
    required=True,
    help="The configuration to try; it must have [policy].",
)
@click.option("--partial", is_flag=True, help="Go on without the rules that cannot be judged.")
def test(source: str, path: str, partial: bool) -> int:
    """Say what the rules would have done to old traffic, and why.

    The old traffic is a log of events (JSON Lines, as this program writes it) or a capture (pcap or
    pcapng, gzipped or not). Decisions are JSON Lines on standard output, the summary a table on
    standard error. Records of logins need password_fp, or passwords in clear, for rules that count
    passwords.
    """
    config = load_apart(path)
    rules = config.policy
    if rules is None:
        raise ConfigError([f"{path}: has no [policy] to try; add [policy] for the default rules"])
    hook = Trial(rules)
    summary = Summary(hook)
    # A Hook emits what it decides to whoever delivers events: here, to the summary.
    hook.emit = summary.take
    try:
        if _is_log(source):
            unjudged = _judge_events(source, hook, rules, partial)
        else:
            unjudged = _for_one_listener(rules)
            _judge_capture(source, hook, summary.take, config.analyzer)
    except OSError as problem:
        return _complain(f"{source}: cannot be read: {problem.strerror}; give {FORMATS}")
    except ValueError as problem:
        return _complain(f"{source}: {problem}")
    except _CannotJudge as problem:
        return _complain(str(problem))
    summary.show(unjudged)
    return 0


class _CannotJudge(Exception):
    """The records lack what rules need; one line."""


class Trial(FailedLogins):
    """Judges old traffic, and counts it."""

    def __init__(self, policy: Policy) -> None:
        """Take the rules; no file is read or written and no socket opened."""
        super().__init__(policy, live=False)
        self.attempts = 0
        self.failures = 0

    def pop3_login_attempt(self, event: LoginAttempt) -> Any:
        """Judge an attempt."""
        self.attempts += 1
        return super().pop3_login_attempt(event)

    def pop3_login_failure(self, event: LoginFailure) -> Any:
        """Judge a failure."""
        self.failures += 1
        return super().pop3_login_failure(event)


class Summary:
    """Writes decisions as they come, and counts them."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._counts: Counter[tuple[str, str]] = Counter()
        self._keys: dict[tuple[str, str], set[str]] = {}

    def take(self, event: Event) -> None:
        """Write one decision."""
        if not isinstance(event, PolicyEvent):
            return
        sys.stdout.buffer.write(line(masked(event)))
        what = event.rule, event.action
        self._counts[what] += 1
        # Counted as a column of the table; bounded, since a log may be long.
        keys = self._keys.setdefault(what, set())
        if len(keys) < MAX_SESSIONS:
            keys.add(event.key)

    def show(self, unjudged: tuple[str, ...]) -> None:
        """Write what was judged, and the table of what would have been done."""
        sys.stdout.buffer.flush()
        judged = f"{self._trial.attempts} login attempts, {self._trial.failures} of them failed"
        done = "would have been done" if self._counts else "nothing would have been done"
        click.echo(f"{judged}; {done}{':' if self._counts or unjudged else ''}", err=True)
        if not self._counts and not unjudged:
            return
        rows = [("rule", "action", "times", "keys")]
        rows += [
            (rule, action, str(count), str(len(self._keys[rule, action])))
            for (rule, action), count in sorted(self._counts.items())
        ]
        rows += [(name, "not judged: the log says too little", "", "") for name in unjudged]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip(), err=True)


def _is_log(source: str) -> bool:
    """Return whether a file is a log of events, by its name or its first byte. Raises OSError."""
    if source == STANDARD_INPUT:
        return False
    if source.endswith((".jsonl", ".json")):
        return True
    with open(source, "rb") as file:
        return file.read(1) == b"{"


def _judge_capture(
    source: str, hook: FailedLogins, take: Callable[[Event], None], options: AnalyzerOptions
) -> None:
    from .replay.run import Replay

    try:
        with closing(CaptureFile(source)) as capture:
            running = Replay(capture, (), None, (hook,), options.auth_resp_code, options.table())
            # Set anew: whoever delivers the replay's events has put itself there.
            hook.emit = take
            running.run(capture.frames())
    except NoCapture:
        raise _CannotJudge(f"{source}: cannot be judged; give {FORMATS}") from None
    except CaptureError as problem:
        raise _CannotJudge(str(problem)) from None


def _judge_events(source: str, hook: FailedLogins, rules: Policy, partial: bool) -> tuple[str, ...]:
    """Play a log to the hook; return the names of the rules that it says too little for."""
    needed = (*(rule.name for rule in rules.rules if rule.secret), MISCONFIGURED)
    lacking = _lacks_passwords(source)
    if lacking and not partial:
        raise _CannotJudge(
            f"{source}: no password_fp in its logins, so {', '.join(needed)} cannot be judged;"
            " set policy.fingerprint_key for logs to come, or try the others with --partial"
        )
    sessions: dict[str, Connection] = {}
    for event in _events(source, sessions):
        if len(sessions) > MAX_SESSIONS:
            oldest = sessions.pop(next(iter(sessions)))
            hook.pop3_session(_end(oldest, event.ts, "none"))
        # What would be held flies when others have settled, or has its answer in the log before that.
        getattr(hook, event.name)(event)
    unheard = _for_one_listener(rules)
    if unheard and not _lacks_listeners(source):
        unheard = ()
    return tuple(dict.fromkeys((*(needed if lacking else ()), *unheard)))


def _for_one_listener(rules: Policy) -> tuple[str, ...]:
    """Name the rules for one listener: no capture says on which one a client was, nor do old logs."""
    return tuple(rule.name for rule in rules.rules if rule.listener is not None)


def _records(source: str) -> Iterator[dict[str, Any]]:
    with open(source, encoding="utf-8") as file:
        for number, text in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                raise ValueError(f"line {number} is no JSON; give {FORMATS}") from None
            if not isinstance(record, dict):
                raise ValueError(f"line {number} is no record; give {FORMATS}")
            yield record


def _lacks_passwords(source: str) -> bool:
    """Say whether a failed login has a masked password and no fingerprint of it."""
    return any(
        record.get("event") == LoginFailure.name
        and record.get("password") == MASK
        and not record.get("password_fp")
        for record in _records(source)
    )


def _lacks_listeners(source: str) -> bool:
    """Return whether a login does not say which listener its client came to."""
    return any(
        record.get("event") == LoginAttempt.name and not record.get("listener")
        for record in _records(source)
    )


def _events(source: str, sessions: dict[str, Connection]) -> Iterator[Event]:
    for number, record in enumerate(_records(source), 1):
        try:
            event = _event(record, sessions)
        except (LookupError, TypeError, ValueError, OverflowError):
            raise ValueError(
                f"line {number} lacks what its event needs; give a log of pop3proxy"
            ) from None
        if event is not None:
            yield event


def _event(record: dict[str, Any], sessions: dict[str, Connection]) -> Event | None:
    """Make of a record what the policy hears; None for the rest."""
    name, ts = record["event"], float(record["ts"])
    if name not in _HEARD:
        return None
    if not math.isfinite(ts):
        raise ValueError
    uid = str(record["uid"])
    c = sessions.get(uid)
    if c is None:
        c = sessions[uid] = Connection(
            *(uid, str(record["id.orig_h"]), int(record["id.orig_p"])),
            *(str(record["id.resp_h"]), int(record["id.resp_p"])),
            str(record.get("listener", "")),
        )
        c.orig_unknown = record.get("orig_unknown") is True
    if "tls_version" in record:
        c.tls = Tls(str(record["tls_version"]), str(record["tls_cipher"]))
    if name == Connect.name:
        return Connect(c, ts)
    if name == SessionEnd.name:
        sessions.pop(uid, None)
        return _end(c, ts, str(record["reason"]))
    login = str(record["user"]), _password(record), str(record["mechanism"])
    number = int(record.get("attempt", 0))  # old logs have none
    if name == LoginAttempt.name:
        return LoginAttempt(c, ts, *login, number)
    if name == LoginSuccess.name:
        return LoginSuccess(c, ts, *login, number)
    return LoginFailure(c, ts, *login, Reason(record["reason"]), str(record["code"]), number)


def _end(c: Connection, ts: float, reason: str) -> SessionEnd:
    return SessionEnd(c, ts, "", "none", *(0, 0, 0, 0, 0, 0), 0.0, reason, 0, "whole")


_HEARD: Final = frozenset(
    kind.name for kind in (Connect, LoginAttempt, LoginSuccess, LoginFailure, SessionEnd)
)


def _password(record: dict[str, Any]) -> str:
    """Return what is the same for the same password: its fingerprint, or itself if it is in clear."""
    fingerprint = record.get("password_fp")
    if fingerprint:
        return str(fingerprint)
    password = str(record["password"])
    return "" if password == MASK else password


def _complain(text: str) -> int:
    sys.stdout.buffer.flush()
    click.echo(f"pop3proxy: {text}", err=True)
    return 1
