"""Takes a session's bytes through the analyzer and the hooks, and passes on what may go; no sockets, no ends.

Each direction is a flow. Its bytes are covered by the analyzer's steps, one after the other; a step is
*clear* when nobody wants to hold it, or whoever was asked lets it go. What is clear goes on in one write,
unchanged. A flow waits while somebody is asked about its last step, while that is delayed, or while a
denial has not found its place; meanwhile nothing behind it is looked at. While the server's flow waits, the
client's is not pulled either, so that no login overtakes the verdict on the one before it.

Without blocking hooks no flow ever waits, and a chunk goes on as it came.

Where the proxy has a part in TLS (``terms``), a client's line is withheld and answered here, too: STLS, and a
login before TLS where that is required. A list of capabilities that must be edited is held until it is whole;
where clients are to find STLS in it, a server that has none is answered for.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from twisted.logger import Logger

from ..analyzer.dialogue import Analyzer
from ..analyzer.events import (
    AUTHORIZATION,
    CLIENT,
    SERVER,
    Data,
    Event,
    Reply,
    Request,
    Side,
    Tls,
    Unexpected,
)
from ..analyzer.grammar import Role
from ..analyzer.guard import LocalReply
from ..analyzer.steps import DATA_MAY, Kinds, Step
from ..hooks.api import PASS, Delay, Deny, Drop, EndSession, Pass, Verdict
from ..hooks.asking import Question
from ..problems import described
from .capabilities import Edits, edited, edited_mechanisms, listed
from .terms import BEGIN_TLS, TOO_LATE, Terms

HELD = 64 * 1024
"""Octets of a flow that waits, from which on its side is not read any more. Until then it is, since only
who is read from can be seen to leave."""

BEHIND_LOGIN: Kinds = frozenset({Data, Reply, Request, Unexpected})
"""The events by which hooks decide about what comes behind a login."""

CAPA_HELD = 8 * 1024
"""Octets of a list of capabilities that are held to edit it: it has a few hundred (RFC 2449 section 5)."""


class Gating(Protocol):
    """What the relays of all sessions share."""

    blocking: frozenset[type[Event]]
    """The events that somebody is asked about."""
    on_blind: Literal["", "drop", "pass"]
    """What becomes of a session that can't be inspected any more; empty where nobody is asked anything."""

    def now(self) -> float:
        """Return seconds since the epoch, for what is stamped; the system's clock may step."""

    def dispatch(self, events: Sequence[Event]) -> None:
        """Bring events to the hooks that only listen. Raises EndSession."""

    def ask(self, events: Sequence[Event]) -> Question | None:
        """Ask the blocking hooks about events; None if there is nobody to ask."""

    def inform(self, events: Sequence[Event]) -> None:
        """Bring events to the blocking hooks when nobody can decide about them any more."""

    def delay(self, seconds: float, then: Callable[[], None]) -> Callable[[], None] | None:
        """Call ``then`` after so many seconds; return what gives that up. None if too many wait already."""

    def count(self, what: str) -> int:
        """Count something worth knowing; return the count."""


class Owner(Protocol):
    """The session, as its relay knows it."""

    @property
    def client_unsent(self) -> bool:
        """Whether the client has not taken what was written to it."""

    def pass_on(self, side: Side, data: bytes) -> None:
        """Write bytes of one side to the other."""

    def say(self, line: bytes) -> None:
        """Write a line of our own to the client."""

    def moved(self, side: Side) -> None:
        """Read a side on, or pass on its end, now that less of it is held."""

    def turn(self, line: bytes) -> None:
        """Write a line of our own to the client, and turn TLS on behind it."""

    def end(self, reason: str) -> None:
        """End the session, and close the relay."""


class _Flow:
    """What came from one side and has not gone on.

    Of ``held``, ``stepped`` octets are covered by steps, and ``clear`` octets may go. ``waits`` is what
    gives up the wait of this flow, or None. ``denial`` is the answer to the client's last line that has not
    found its place. ``capa`` is where in ``held`` a list of capabilities begins that is to be edited, or -1;
    ``capa_passes``: it is too long for that. ``kinds`` are the events for which unfinished lines are held
    that may become them.
    """

    __slots__ = (
        "capa",
        "capa_passes",
        "clear",
        "denial",
        "held",
        "kinds",
        "side",
        "stepped",
        "waits",
    )

    def __init__(self, side: Side, kinds: Kinds) -> None:
        self.side = side
        self.kinds = kinds
        self.held = b""
        self.stepped = 0
        self.clear = 0
        self.waits: Callable[[], None] | None = None
        self.denial: bytes | None = None
        self.capa = -1
        self.capa_passes = False

    @property
    def full(self) -> bool:
        """Whether no more is to be read: unless a verdict is waited for, one chunk is enough."""
        return self.stepped < len(self.held) and (self.waits is None or len(self.held) >= HELD)

    def forget(self) -> None:
        """Give up what is waited for, and let go of what is held."""
        give_up, self.waits = self.waits, None
        if give_up is not None:
            give_up()
        self.held = b""
        self.stepped = self.clear = 0
        self.capa = -1


def _nothing() -> None:
    """Give up the wait of a denial: there is nothing to stop."""


def ends_with_quit(data: bytes) -> bool:
    """Say whether the last line of a client's bytes is QUIT (RFC 1939 section 6)."""
    return (b"\n" + data).rstrip(b"\r\n ").upper().endswith(b"\nQUIT")


class Relay:
    """Both directions of one session."""

    __slots__ = (
        "_analyzer",
        "_asks",
        "_blind",
        "_client",
        "_failed",
        "_over",
        "_owner",
        "_server",
        "_surroundings",
        "_terms",
    )

    _log = Logger(namespace="pop3proxy.session")

    def __init__(
        self, owner: Owner, analyzer: Analyzer, surroundings: Gating, terms: Terms | None = None
    ) -> None:
        """Begin with nothing in hand."""
        self._owner = owner
        self._analyzer = analyzer
        self._surroundings = surroundings
        self._terms = terms
        self._asks = bool(surroundings.on_blind) or terms is not None
        self._client = _Flow(CLIENT, surroundings.blocking)
        self._server = _Flow(SERVER, surroundings.blocking)
        self._blind = False  # the end of inspection has had its consequences
        self._failed = False  # the analyzer is out of order
        self._over = False  # the session ends

    # --- what the session does with it ------------------------------------------------------------------

    def begin(self) -> None:
        """Hold what the terms ask for, as the client is there, with TLS or without."""
        if self._terms is not None:
            # What the terms hold lines for is the client's to say.
            self._client.kinds = self._surroundings.blocking | self._terms.gates(self._secure)
            self._analyzer.gate(self._client.kinds)

    def secured(self, tls: Tls) -> None:
        """Go on inside the client's TLS, and hold what the terms ask for there."""
        assert self._terms is not None
        self._client.kinds = self._surroundings.blocking | self._terms.gates(True)
        self._analyzer.secured(tls, self._client.kinds)

    @property
    def _secure(self) -> bool:
        return self._analyzer.connection.tls is not None

    def take(self, side: Side, data: bytes, now: float) -> bool:
        """Take bytes of one side; return whether they are to go on as they are, by the caller.

        Nothing here may cost the session: an error in the analyzer only ends inspection.
        """
        client, server = self._client, self._server
        flow = client if side is CLIENT else server
        if not (client.held or server.held or client.waits or server.waits or self._failed):
            return self._take_at_rest(flow, data, now)
        flow.held += data
        if not self._failed:
            try:
                self._analyzer.feed(side, data, now)
            except Exception as problem:
                self.inspection_failed(problem)
        self._run(flow)
        return False

    def _take_at_rest(self, flow: _Flow, data: bytes, now: float) -> bool:
        """Take bytes while nothing is held or waits, which is most of the time, with little ado."""
        analyzer, dispatch = self._analyzer, self._surroundings.dispatch
        side, size, stepped = flow.side, len(data), 0
        asked: Step | None = None
        try:
            analyzer.feed(side, data, now)
            while stepped < size and (step := analyzer.next(side)) is not None:
                stepped += step.size
                if step.events:
                    dispatch(step.events)
                if self._asks and not self._passes_unasked(flow, step):
                    asked = step
                    break
        except EndSession:
            self._end_by_hook()
            return False
        except Exception as problem:
            flow.held = data
            self.inspection_failed(problem)
            self._flush(flow)
            return False
        if asked is None and stepped == size:
            return True
        flow.held, flow.stepped, flow.clear = data, stepped, stepped
        if asked is not None:
            flow.clear -= asked.size
            try:
                self._weigh(flow, asked)
            except Exception as problem:
                self.inspection_failed(problem)
        self._run(flow)
        return False

    def _passes_unasked(self, flow: _Flow, step: Step) -> bool:
        """Return whether a step is certain to pass, since nothing of it is decided about."""
        blocking = self._surroundings.blocking
        for event in step.events:
            if type(event) in blocking:
                return False
        if step.may and not step.may.isdisjoint(flow.kinds):
            return False
        terms = self._terms
        if terms is not None and (step.stls or terms.denial(step, self._secure) is not None):
            return False
        if step.announced is not None:
            return False
        return not (
            step.refusal or step.ends or step.listing or step.withheld or self._analyzer.blind
        )

    def go_on(self) -> None:
        """Answer a denied client that has taken what was written to it before."""
        if self._client.denial is not None:
            self._run(self._client)
            self._owner.moved(CLIENT)

    def close(self) -> Sequence[Event]:
        """Give up all that is waited for; return the events of a denial that the end has overtaken."""
        self._over = True
        self._client.forget()
        self._server.forget()
        reply, self._client.denial = self._client.denial, None
        if reply is None:
            return ()
        return self._analyzer.answered(reply, self._surroundings.now()).events

    def may_read(self, side: Side) -> bool:
        """Say whether more of a side can be taken."""
        return not self._flow(side).full

    def holds(self, side: Side) -> bool:
        """Say whether something of a side has not gone on."""
        flow = self._flow(side)
        return bool(flow.held) or flow.waits is not None

    @property
    def waits(self) -> bool:
        """Whether a verdict, or what came of one, is waited for."""
        return self._client.waits is not None or self._server.waits is not None

    @property
    def login_pending(self) -> bool:
        """Whether the server has got a login, which counts for hooks that decide, and has not answered it."""
        return bool(self._surroundings.on_blind) and self._analyzer.login_pending

    @property
    def client_waits(self) -> bool:
        """Whether the client's last line is known to the analyzer, and has not gone to the server."""
        return self._client.waits is not None

    @property
    def client_has_quit(self) -> bool:
        """Whether the client's last word is QUIT: it has ended its bytes, and stays for the answers."""
        flow = self._client
        if flow.stepped < len(flow.held):
            return ends_with_quit(flow.held[flow.stepped :])
        return self._analyzer.quitting

    def cut(self, side: Side) -> None:
        """Take the end of a side's bytes inside a line that is held: it is complete now.

        The server may take the beginning of a command for one, so it does not get it unasked.
        """
        flow = self._flow(side)
        if flow.waits is None and flow.stepped == len(flow.held):
            if flow is self._server:
                flow.clear = flow.stepped
                self._flush(flow)
            flow.forget()

    @property
    def done(self) -> bool:
        """Whether nobody needs to look at the bytes any more: they can be tunnelled."""
        return self._analyzer.done and not (self._client.held or self._server.held or self.waits)

    def _flow(self, side: Side) -> _Flow:
        return self._client if side is CLIENT else self._server

    # --- steps ------------------------------------------------------------------------------------------

    def _run(self, flow: _Flow) -> None:
        """Pull all that can be pulled, beginning with one flow, and pass on what is clear."""
        client, server = self._client, self._server
        while not self._over:
            try:
                self._pull(flow)
                if flow is server and client.held:
                    self._pull(client)
            except Exception as problem:
                self.inspection_failed(problem)
            self._flush(server)
            self._flush(client)
            if client.denial is None or not self._answer_denied():
                return
            flow = client

    def _pull(self, flow: _Flow) -> None:
        analyzer, server = self._analyzer, self._server
        while flow.waits is None and (flow is server or server.waits is None):
            if flow.stepped == len(flow.held):
                return
            if self._failed:
                flow.stepped = flow.clear = len(flow.held)
                return
            step = analyzer.next(flow.side)
            if step is None:
                return
            flow.stepped += step.size
            if step.events and not self._tell(step.events):
                return
            self._weigh(flow, step)
            if self._over:
                return
            if flow is server and self._client.held:
                self._pull(self._client)

    def _weigh(self, flow: _Flow, step: Step) -> None:
        """Ask about a step who wants to be asked, and let it pass, or not."""
        surroundings, terms = self._surroundings, self._terms
        if not self._asks:
            flow.clear = flow.stepped
            return
        if self._analyzer.blind and not self._blind and self._lost():
            return
        if step.too_long and not step.may.isdisjoint(flow.kinds):
            # Nobody can hold such a line whole, so nobody can be asked about it before it has passed.
            if step.may is not DATA_MAY:
                surroundings.count("line_too_long")
                self._end("line_too_long")
                return
            # A line of mail is no reason to end a session.
            flow.clear = flow.stepped
        if step.ends and flow is self._client:
            surroundings.count(step.ends)
            self._end(step.ends)
            return
        if step.refusal is not None:
            self._not_passed(step, step.refusal)
            return
        if terms is not None and (denial := terms.denial(step, self._secure)) is not None:
            # Nobody is asked about what is refused in any case.
            self._deny(flow, step, denial)
            return
        question = self._question(step)
        if question is None:
            self._let_pass(flow, step)
        elif question.verdict is not None:
            self._settle(flow, step, question.verdict)
        else:
            flow.waits = question.cancel
            question.settled = lambda verdict: self._settled(flow, step, verdict)
            self._hold(flow, step)

    def _not_passed(self, step: Step, refusal: LocalReply) -> None:
        """Answer a line that the guard does not pass."""
        surroundings = self._surroundings
        surroundings.count("not_passed")
        if refusal.needs_login:
            count = surroundings.count("mailbox_before_login")
            if count & (count - 1) == 0:
                self._log.warn(
                    "{uid}: a mailbox command before a login is not passed ({count} so far); if the mail"
                    ' server logs clients in by their address, set verdicts.on_blind = "pass"',
                    uid=self._analyzer.connection.uid,
                    count=count,
                )
        self._withhold(step, refusal.reply)

    def _question(self, step: Step) -> Question | None:
        """Ask about a step; of a login also under each other name that some servers read."""
        if step.announced is not None:
            # The client may know already, so there is nothing to decide.
            self._surroundings.inform((step.announced,))
        if not step.events:
            return None
        return self._surroundings.ask([*step.events, *step.readings])

    def _hold(self, flow: _Flow, step: Step) -> None:
        if flow is self._client:
            self._analyzer.held(step)

    def _let_pass(self, flow: _Flow, step: Step) -> None:
        terms = self._terms
        if terms is not None and step.stls and terms.takes_stls(self._secure):
            self._withhold(step, BEGIN_TLS)
            return
        if flow is self._client and not self._analyzer.sent():
            self._discard_line()
        elif step.withheld:
            self._flush(flow)
            flow.held = flow.held[step.size :]
            flow.stepped -= step.size
        elif step.listing and not self._failed:
            self._gather(flow, step)
        elif not step.open or step.too_long or step.may.isdisjoint(flow.kinds):
            flow.clear = flow.stepped
        if step.ends:
            self._surroundings.count(step.ends)
            self._end(step.ends)

    def _gather(self, flow: _Flow, step: Step) -> None:
        """Hold a list of capabilities or mechanisms until it is whole, edit it, and let it pass."""
        if self._terms is None and not self._analyzer.hides_unreadable:
            flow.clear = flow.stepped
            return
        if flow.capa < 0 and not flow.capa_passes:
            flow.capa = flow.stepped - step.size
        if flow.capa_passes or flow.stepped - flow.capa > CAPA_HELD:
            if not flow.capa_passes:
                self._capa_too_long()
            flow.capa = -1
            flow.capa_passes = not step.listing_ends
            flow.clear = flow.stepped
        elif step.listing_ends:
            begin, end = flow.capa, flow.stepped
            shown = self._shown(step, flow.held[begin:end])
            flow.held = flow.held[:begin] + shown + flow.held[end:]
            flow.clear = flow.stepped = begin + len(shown)
            flow.capa = -1
        else:
            flow.clear = min(flow.clear, flow.capa)

    def _shown(self, step: Step, reply: bytes) -> bytes:
        """Return what the client gets of a list, or of the refusal of one."""
        edits = Edits() if self._terms is None else self._terms.edits(self._secure)
        edits = replace(edits, unreadable=self._analyzer.hides_unreadable)
        if step.capa_refused:
            shown = listed(reply, edits)
            if shown is not reply:
                self._surroundings.count("capa_answered")
            return shown
        return (
            edited(reply, edits) if step.listing is Role.CAPA else edited_mechanisms(reply, edits)
        )

    def _capa_too_long(self) -> None:
        count = self._surroundings.count("capa_too_long")
        self._log.warn(
            "{uid}: the mail server's list of capabilities has more than {limit} octets and goes on"
            " unedited; {count} such lists by now",
            uid=self._analyzer.connection.uid,
            limit=CAPA_HELD,
            count=count,
        )

    def _flush(self, flow: _Flow) -> None:
        """Pass on what is clear, in one write."""
        clear = flow.clear
        if not clear:
            return
        data, flow.held = flow.held, b""
        if clear < len(data):
            data, flow.held = data[:clear], data[clear:]
        flow.stepped -= clear
        flow.clear = 0
        if flow.capa >= 0:
            flow.capa = max(flow.capa - clear, -1)
        self._owner.pass_on(flow.side, data)

    def _tell(self, events: Sequence[Event]) -> bool:
        """Bring events to the hooks that listen; return whether the session goes on."""
        try:
            self._surroundings.dispatch(events)
        except EndSession:
            self._end_by_hook()
            return False
        return True

    def _end_by_hook(self) -> None:
        self._surroundings.count("ended_by_hook")
        self._end("hook")

    def _end(self, reason: str) -> None:
        """End the session behind all that is clear."""
        self._flush(self._server)
        self._flush(self._client)
        self._owner.end(reason)

    # --- the end of inspection --------------------------------------------------------------------------

    def _lost(self) -> bool:
        """Let the end of inspection have its consequences; return whether the session has ended."""
        self._blind = True
        inspected = self._analyzer.inspected
        if inspected == "until_tls":
            return False
        must_see = self._terms is not None and self._terms.must_see(self._secure)
        if not (must_see or (self._surroundings.on_blind and self._decides_still)):
            return False
        drop = must_see or self._surroundings.on_blind == "drop"
        count = self._surroundings.count("blind_dropped" if drop else "blind_passed")
        self._log.warn(
            "{uid}: can no longer be inspected ({inspected}) and {fate}; {count} such sessions by now",
            uid=self._analyzer.connection.uid,
            inspected=inspected,
            fate="is dropped" if drop else "goes on, unasked",
            count=count,
        )
        if drop:
            self._end("blind")
        return drop

    @property
    def _decides_still(self) -> bool:
        """Whether something may come in this session that is decided about."""
        if self._analyzer.state is AUTHORIZATION:
            return True
        return not self._surroundings.blocking.isdisjoint(BEHIND_LOGIN)

    def inspection_failed(self, problem: Exception) -> None:
        """End inspection, because of an error in it; that alone does not end the session."""
        count = self._surroundings.count("inspection_failed")
        self._log.error(
            "{uid}: inspection ended by an error of ours ({problem}); {count} such sessions by now",
            uid=self._analyzer.connection.uid,
            problem=described(problem),
            count=count,
        )
        self._failed = True
        if not self._tell(self._analyzer.give_up("error")):
            return
        if self._asks and self._lost():
            return
        self._server.capa = -1
        for flow in (self._server, self._client):
            if flow.waits is None:
                flow.stepped = flow.clear = len(flow.held)

    # --- verdicts ---------------------------------------------------------------------------------------

    def _settled(self, flow: _Flow, step: Step, verdict: Verdict) -> None:
        """Take a verdict that was waited for, and go on behind its step."""
        flow.waits = None
        try:
            self._settle(flow, step, verdict)
        except Exception as problem:
            self.inspection_failed(problem)
        self._run(flow)
        for side in Side:
            self._owner.moved(side)

    def _settle(self, flow: _Flow, step: Step, verdict: Verdict) -> None:
        if isinstance(verdict, Pass):
            self._let_pass(flow, step)
        elif isinstance(verdict, Delay):
            self._hold(flow, step)
            self._delay(flow, verdict, lambda: self._settled(flow, step, PASS))
        elif isinstance(verdict, Deny):
            self._deny(flow, step, verdict)
        else:
            self._drop()

    def _delay(self, flow: _Flow, verdict: Delay, then: Callable[[], None]) -> None:
        flow.waits = self._surroundings.delay(verdict.seconds, then)
        if flow.waits is None:
            # So many sessions wait already that to hold one more could be what somebody is after.
            self._drop()

    def _drop(self) -> None:
        self._surroundings.count("dropped")
        self._end("dropped")

    def _deny(self, flow: _Flow, step: Step, verdict: Deny) -> None:
        self._surroundings.count("denied")
        if flow is self._server:
            self._flush(flow)
            if self._tell(self._analyzer.overruled(verdict.line, self._surroundings.now())):
                self._owner.say(verdict.line)
                self._end("denied")
        else:
            self._withhold(step, verdict.line)

    def _withhold(self, step: Step, answer: bytes) -> None:
        """Keep the client's last line from the server; the client gets our answer when its place has come."""
        flow = self._client
        self._discard_line()
        flow.denial = answer
        if self._analyzer.blind:
            self._end("denied")
            return
        instead = self._analyzer.refused(step)
        if self._analyzer.in_doubt:
            self._end("denied")
            return
        flow.waits = _nothing
        if instead:
            self._owner.pass_on(CLIENT, instead)

    def _discard_line(self) -> None:
        """Forget the client's last line, of which the server gets nothing."""
        flow = self._client
        self._flush(flow)
        # What is held now is that line, from its first octet on.
        flow.held = flow.held[flow.stepped :]
        flow.stepped = 0

    def _answer_denied(self) -> bool:
        """Give the client its denial, if this is the place; return whether its flow goes on now.

        No line of ours goes before a reply that is owed, or between a status line and its closing dot. Nor
        does it go to a client that does not read: denials would queue up.
        """
        client = self._client
        assert client.denial is not None
        if self._analyzer.in_doubt or self._analyzer.blind:
            # Its place cannot be found any more.
            self._end("denied")
            return False
        if not self._analyzer.quiet or self._server.held or self._owner.client_unsent:
            return False
        line, client.denial = client.denial, None
        if line is BEGIN_TLS:
            return self._turn()
        answered = self._analyzer.answered(line, self._surroundings.now())
        if answered.events and not self._tell(answered.events):
            return False
        question = self._question(answered)
        if question is not None and question.verdict is None:
            client.waits = question.cancel
            question.settled = lambda verdict: self._denied(line, verdict)
            return False
        return self._say_denied(line, PASS if question is None else question.verdict)

    def _say_denied(self, line: bytes, verdict: Verdict | None) -> bool:
        """Say a denial as the verdict on its failed login has it; return whether the flow goes on now."""
        client = self._client
        if isinstance(verdict, Delay):
            self._delay(client, verdict, lambda: self._denied(line, PASS))
            return False
        if isinstance(verdict, Drop):
            self._drop()
            return False
        client.waits = None
        self._owner.say(line)
        return True

    def _denied(self, line: bytes, verdict: Verdict) -> None:
        """Take the verdict on a denied login that was waited for, and go on."""
        if self._say_denied(line, verdict):
            self._run(self._client)
            self._owner.moved(CLIENT)

    # --- TLS with the client ----------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Answer an STLS whose place has come; return whether the flow goes on now."""
        client = self._client
        if self._analyzer.state is not AUTHORIZATION:
            self._surroundings.count("denied")
            client.denial = TOO_LATE.line
            return self._answer_denied()
        events = self._analyzer.turned(self._surroundings.now())
        if client.held:
            self._injected(events)
            return False
        if not self._tell(events):
            return False
        question = self._surroundings.ask(events) if events else None
        if question is not None and question.verdict is None:
            client.waits = question.cancel
            question.settled = self._turn_settled
        else:
            self._turn_settled(PASS if question is None else question.verdict)
        return False

    def _turn_settled(self, verdict: Verdict | None) -> None:
        """Begin TLS as the verdict has it, unless something came behind STLS while that was waited for."""
        client = self._client
        client.waits = None
        if isinstance(verdict, Drop):
            self._drop()
        elif client.held:
            self._injected(self._analyzer.turned(self._surroundings.now()))
        else:
            self._owner.turn(BEGIN_TLS)

    def _injected(self, events: Sequence[Event]) -> None:
        """End a session whose client spoke behind its STLS: what it said would count as said inside TLS."""
        self._surroundings.count("client_injection")
        if self._tell(events):
            self._surroundings.inform(events)
            self._end("client_injection")
