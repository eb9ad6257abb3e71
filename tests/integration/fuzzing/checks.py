"""What must hold of a dialogue that was played on each way; each breach is a short kind and a text."""

import binascii
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pop3proxy.analyzer.events import (
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Oddity,
    Reason,
    Unexpected,
)

from .dialogues import Dialogue
from .oracle import Judgement
from .playing import Played, Tapped
from .proxies import Recorded, Way

SECOND_LOGIN = b"-ERR You have logged in already.\r\n"

ACCEPTED = "accepted and not told"
REFUSED = "refused and not told"
TOLD = "told and not accepted"


@dataclass(frozen=True, slots=True)
class Run:
    """One play of a dialogue on one way."""

    way: Way
    played: Played
    judged: list[Judgement]
    tapped: Tapped | None = None
    recorded: Recorded | None = None

    @property
    def cut(self) -> bool:
        """Whether the end may have kept something from one side."""
        return self.played.ending != "closed" or (self.tapped is not None and self.tapped.reset)


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that did not hold. ``certain``: no accident of timing can have caused it."""

    way: Way
    kind: str
    text: str
    certain: bool = False

    def __str__(self) -> str:
        return f"{self.way.value}: {self.kind}: {self.text}"


def judge(dialogue: Dialogue, runs: Sequence[Run], steady: bool) -> list[Breach]:
    """Hold all rules against the runs of one dialogue; the straight one comes first.

    ``steady``: the server answers the same each time, so that runs can be compared with each other.
    """
    straight, *others = runs
    found: list[Breach] = []
    for run in others:
        if run.way is Way.UNGUARDED:
            found += _unguarded(run)
        elif run.way is Way.GUARDED:
            found += _guarded(run)
        else:
            found += _denied(run)
        compared = run.way is Way.UNGUARDED and not is_murky(run)
        compared |= run.way is Way.GUARDED and dialogue.tame
        # A second login does not pass the guard; the server answers it otherwise.
        compared &= SECOND_LOGIN not in run.played.received
        if compared and steady and not dialogue.leaves:
            found += _alike(straight, run)
        if run.recorded is None or run.recorded.end is None:
            found.append(Breach(run.way, "no end", "the session does not end behind its client's"))
    return found


def _unguarded(run: Run) -> Iterator[Breach]:
    if run.tapped is not None and not _same_or_cut(
        bytes(run.tapped.sent), bytes(run.played.sent), True
    ):
        yield Breach(run.way, "changed bytes", "the server was not sent what the client sent")
    # A reset, by a server that leaves while it is spoken to, takes what was not read yet away.
    if run.tapped is not None and not run.tapped.answered.startswith(run.played.received):
        yield Breach(run.way, "changed answers", "the client did not get what the server said")
    # Twisted's server judges clients that have logged in, which is against RFC 5034 section 4.
    first = next((n for n, one in enumerate(run.judged) if one.accepted), len(run.judged))
    until = replace(run, judged=run.judged[: first + 1])
    yield from (breach for breach in _outcomes(until) if not _left_open(run, breach))


def _left_open(run: Run, breach: Breach) -> bool:
    """Return whether an outcome that is not told as it was is no breach, because doubt was told instead.

    Servers read lines with control bytes, without CR LF or over 255 bytes in many ways, and their answers
    do not always show in which; nor do they for blanks before or behind a word. Then a ``pop3_unexpected``
    must say so.
    """
    if breach.kind == TOLD and _SWALLOWED.search(bytes(run.played.sent)):
        # Such a line is not answered, so that the next answer is taken for its: Courier ends it at the NUL,
        # Twisted's server reads on to the next CR LF, and mailutils sends a long line back instead.
        return True
    if breach.kind not in (REFUSED, ACCEPTED):
        return False
    if is_murky(run):
        return any(isinstance(event, Unexpected) for event in _events(run))
    return _sends_disputed_names(bytes(run.played.sent)) and _differs_in_names_only(run)


def _sends_disputed_names(sent: bytes) -> bool:
    """Return whether a SASL response has a name that servers read otherwise than events have it.

    Courier 1.0.16 decodes base64 as far as the first blank, and takes what follows a third NUL of PLAIN, were
    it nothing, for the name.
    """
    for line in sent.split(b"\n"):
        text = _AUTH.sub(b"", line.rstrip(b"\r"))
        if _BLANK_INSIDE.match(text):
            return True
        whole = text.rstrip(b"=")
        with suppress(binascii.Error):
            if binascii.a2b_base64(whole + b"=" * (-len(whole) % 4)).count(b"\0") > 2:
                return True
    return False


_AUTH = re.compile(rb"AUTH +[!-~]+ +", re.I)
_BLANK_INSIDE = re.compile(rb"[A-Za-z0-9+/]+ +[A-Za-z0-9+/]+={0,2}\Z")


def _differs_in_names_only(run: Run) -> bool:
    """Return whether as many successes are told as there were, and no fewer failures."""
    outcomes = [outcome for outcome in map(_outcome, _events(run)) if outcome is not None]
    told = Counter(one.result for one in outcomes)
    judged = Counter("accepted" if one.accepted else "refused" for one in run.judged)
    return told["accepted"] == judged["accepted"] and told["refused"] >= judged["refused"]


def is_murky(run: Run) -> bool:
    """Return whether a client has sent lines that servers read in many ways.

    Dovecot reads some of them otherwise when they come in other pieces, so that two plays of one dialogue
    have different answers.
    """
    return _MURKY.search(bytes(run.played.sent)) is not None


_SWALLOWED = re.compile(rb"\0|(?<!\r)\n|[^\n]{500}")
_MURKY = re.compile(
    rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|[^\n]{254}|^ |^[A-Za-z]+  ", re.M
)


def _guarded(run: Run) -> Iterator[Breach]:
    yield from _asked(run)
    yield from _outcomes(run)


def _denied(run: Run) -> Iterator[Breach]:
    if run.judged:
        yield Breach(run.way, "judged although denied", _listed(run.judged), certain=True)
    successes = [event for event in _events(run) if isinstance(event, LoginSuccess)]
    if successes:
        yield Breach(run.way, "success although denied", str(successes[0].user))


# --- answers --------------------------------------------------------------------------------------------


def _alike(straight: Run, run: Run) -> Iterator[Breach]:
    one, other = normalised(straight.played.received), normalised(run.played.received)
    if run.played.ending == "hangs" and straight.played.ending != "hangs":
        yield Breach(run.way, "hangs", "it ended when it was played straight")
    elif not _same_or_cut(one, other, straight.cut or run.cut):
        yield Breach(run.way, "other answers", f"straight {one!r}; here {other!r}")
    judged = _listed(straight.judged), _listed(run.judged)
    if not (straight.cut or run.cut) and _DIGEST.sub("digest", judged[0]) != _DIGEST.sub(
        "digest", judged[1]
    ):
        text = f"straight {judged[0]}; here {judged[1]}"
        yield Breach(run.way, "other judgements", text)


def _same_or_cut(one: bytes, other: bytes, cut: bool) -> bool:
    return one == other or (cut and (one.startswith(other) or other.startswith(one)))


# --- outcomes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Outcome:
    user: str
    result: str
    text: str


def _events(run: Run) -> list[Event]:
    return [] if run.recorded is None else [event for _, event in run.recorded.events]


_ENDS = (LoginSuccess, LoginFailure, Unexpected)
_ABORTED = "aborted"
"""The server left instead of answering, whatever it had judged."""
_OPEN = ("login_cancelled", "cut_login")


def _outcome(event: Event) -> _Outcome | None:
    if isinstance(event, LoginSuccess):
        return _Outcome(event.user, "accepted", f"success of {event.user!r}")
    if isinstance(event, LoginFailure):
        result = _ABORTED if event.reason is Reason.ABORTED else "refused"
        return _Outcome(event.user, result, f"failure of {event.user!r} ({event.reason.value})")
    if isinstance(event, Unexpected) and event.msg.value in _OPEN:
        return _Outcome("", "unanswered", event.msg.value)
    return None


def _outcomes(run: Run) -> Iterator[Breach]:
    """Each judgement has its outcome, in order, and no success is without a judgement."""
    outcomes = [outcome for outcome in map(_outcome, _events(run)) if outcome is not None]
    told = f"told {', '.join(outcome.text for outcome in outcomes) or 'nothing'}"
    left = list(outcomes)
    for number, judgement in enumerate(run.judged):
        at = next((n for n, one in enumerate(left) if _tells(one, judgement)), None)
        if at is None:
            # What was judged when the client had left, or behind a reset, has no answer.
            last = run.cut and number == len(run.judged) - 1
            # Nor has what the server judged and then left without a word.
            last |= any(one.text == Oddity.CUT_LOGIN for one in left)
            if not last and run.played.ending != "left":
                kind = ACCEPTED if judgement.accepted else REFUSED
                yield Breach(run.way, kind, f"{judgement}; judged {_listed(run.judged)}; {told}")
            return
        skipped = [one for one in left[:at] if one.result == "accepted"]
        if skipped:
            yield Breach(run.way, TOLD, f"{told}; judged {_listed(run.judged)}")
            return
        if left[at].result == _ABORTED:
            # What was judged besides has no answer either.
            return
        left = left[at + 1 :]
    if any(one.result == "accepted" for one in left):
        yield Breach(run.way, TOLD, f"{told}; judged {_listed(run.judged)}")
    yield from _numbered(run)


def _tells(outcome: _Outcome, judgement: Judgement) -> bool:
    if outcome.result not in (_ABORTED, "accepted" if judgement.accepted else "refused"):
        return False
    # Courier judges a PLAIN response with an empty name; nothing can be read in it.
    unread = outcome.user == "" and not judgement.accepted
    return unread or _is_read_as(outcome.user, judgement.user)


def _is_read_as(sent: str, judged: str) -> bool:
    """Return whether a server may take what was sent, which is what events have, for the judged name.

    Cyrus leaves blanks around it out, solid-pop3d makes it lower case, and many end at the first NUL; nothing
    that they answer shows it.
    """
    whole, part = sent.strip(" "), sent.partition("\0")[0].strip(" ")
    return judged == sent or judged.strip(" ") in (whole, part, whole.lower(), part.lower())


LONGEST_PASSWORD = 120
"""Bytes of which every server judges all: popa3d cuts a password behind 122, PAM behind 512."""


def _is_password(sent: str, judged: str) -> bool:
    """Return whether a server may take what was sent for the judged password: mailutils trims its end."""
    if len(judged.encode("utf-8", "surrogateescape")) >= LONGEST_PASSWORD:
        return sent.startswith(judged)
    return judged in (sent, sent.rstrip(" "))


def _numbered(run: Run) -> Iterator[Breach]:
    """Each attempt that was told has exactly one outcome, by its number."""
    attempts = [event.attempt for event in _events(run) if isinstance(event, LoginAttempt)]
    # An exchange that ends before its credentials are complete has an outcome, and no attempt.
    ends = [event.attempt for event in _events(run) if isinstance(event, _ENDS) and _outcome(event)]
    if len(set(ends)) < len(ends) or not {*attempts} <= {*ends}:
        yield Breach(
            run.way, "attempts without one outcome", f"attempts {attempts}, outcomes of {ends}"
        )


# --- questions ------------------------------------------------------------------------------------------


def _asked(run: Run) -> Iterator[Breach]:
    """Each judgement was asked about before, under the judged name and password, in order."""
    asked = [] if run.recorded is None else list(run.recorded.asked)
    told = (
        ", ".join(f"{event.user!r} with {event.password!r:.40}" for _, event in asked) or "nothing"
    )
    start = 0
    for judgement in run.judged:
        at = next(
            (n for n in range(start, len(asked)) if _is_about(*asked[n], judgement)),
            None,
        )
        if at is None:
            text = f"{judgement}; judged {_listed(run.judged)}; asked about {told}"
            yield Breach(run.way, "judged and not asked about", text, certain=True)
            return
        start = at + 1


def _is_about(serial: int, event: LoginAttempt, judgement: Judgement) -> bool:
    return (
        serial < judgement.serial
        and _is_read_as(event.user, judgement.user)
        and (judgement.password is None or _is_password(event.password, judgement.password))
    )


def _listed(judged: Sequence[Judgement]) -> str:
    return "; ".join(map(str, judged)) or "nothing"


# --- what differs between two visits --------------------------------------------------------------------

_DIGEST = re.compile(r"[0-9a-f]{32}")
_STAMP = re.compile(rb"<[^>\r\n]+>")
_CHALLENGE = re.compile(rb"^\+ [A-Za-z0-9+/=]{16,}", re.M)


def normalised(data: bytes) -> bytes:
    """Take out what a server says otherwise each time: time stamps, numbers of sessions, challenges."""
    return _CHALLENGE.sub(b"+ challenge", _STAMP.sub(b"<stamp>", data))
