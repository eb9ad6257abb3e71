"""The proxy as one Twisted service: listens, keeps sessions and their time, stops; relays nothing."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal

from twisted.application.service import Service
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import config as settings
from ..analyzer.dialogue import Analyzer
from ..analyzer.events import Connection
from ..config import Config, ConfigError
from ..hooks.api import Hook
from ..hooks.dispatcher import Dispatcher
from ..hooks.policy.failedlogins import FailedLogins
from ..hooks.policy.users import unknown_place
from ..problems import described
from .accepting import Acceptor
from .addresses import host_and_port, kind_of
from .arrival import Arrival, Entry
from .engine import Engine, usable
from .listeners import Admission, Listener, queue_all_it_can, send_at_once
from .proxyheader import is_address
from .session import Session
from .terms import terms_for
from .tls import ServerTls, TlsError
from .uids import new_uid
from .upstream import Upstream

SWEEP = 1.0
"""Seconds between two looks at the sessions' time limits: one timer for all costs less than one each."""


class ListenError(OSError):
    """A listener cannot listen; the text is one line for the operator."""


class ProxyService(Service):
    """Relays the clients of all listeners to the mail server.

    ``started`` fires when all listen, or fails with ListenError or HookNotStarted. ``counts`` has
    what is worth knowing of what went by. ``now`` gives the time of events, in seconds since the epoch.
    """

    _log = Logger(namespace="pop3proxy.service")

    def __init__(
        self,
        reactor: Any,
        config: Config,
        hooks: Sequence[Hook],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is opened yet, but the files of TLS are read.

        Raises UnusableHook, and ConfigError for what is wrong with TLS.
        """
        self.timeouts = config.timeouts
        self.counts: Counter[str] = Counter()
        self.ports: list[IListeningPort] = []
        self.sessions: set[Session] = set()
        self.arrivals: set[Arrival] = set()
        self.started: Deferred[None] = Deferred()
        self.now = now
        self.elapsed: Callable[[], float] = reactor.seconds
        self._reactor = reactor
        self._config = config
        self._guard = config.guard()
        self._refusals = config.analyzer.table()
        self._dispatcher = Dispatcher(hooks, self.end_sessions)
        self._admission = Admission(config.limits, self.count)
        self._engine = Engine(reactor) if usable(reactor) else None
        self._acceptors: list[Acceptor] = []
        self._upstream, self._server_tls = _outfit(reactor, config, self._engine)
        self._sweep = LoopingCall(self.sweep)
        self._sweep.clock = reactor
        self._empty: Deferred[None] | None = None
        # What sessions ask for most, without a layer in between.
        self.dispatch = self._dispatcher.dispatch
        self.ask = self._dispatcher.ask
        self.inform = self._dispatcher.inform
        self.blocking = self._dispatcher.blocking
        self.on_blind: Literal["", "drop", "pass"] = (
            config.verdicts.on_blind if self._dispatcher.has_blocking else ""
        )
        self._policies = tuple(hook for hook in hooks if isinstance(hook, FailedLogins))
        self._delayed = 0

    @property
    def addresses(self) -> list[str]:
        """Where clients can connect, as ``host:port``."""
        return [":".join(map(str, host_and_port(port.getHost()))) for port in self.ports]

    # --- start and stop ---------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start the hooks and listen."""
        super().startService()  # type: ignore[no-untyped-call]
        try:
            self._dispatcher.start(self._reactor)
            if self._engine is not None:
                self._engine.start()
        except Exception:
            self.started.errback(Failure())
            return
        self._warn_of_what_is_not_seen()
        self._warn_of_claimed_addresses()
        self._sweep.start(SWEEP, now=False)
        listening = [self._listen(listener) for listener in self._config.listen]
        gatherResults(listening, consumeErrors=True).addCallbacks(
            self._listening, self._not_listening
        )

    def _warn_of_what_is_not_seen(self) -> None:
        """Name the listeners on which a client hides its logins from the policy by STLS."""
        if self._config.policy is None:
            return
        for listener in self._config.listen:
            if listener.tls == "pass":
                self._log.warn(
                    "policy cannot see logins after STLS on {endpoint}; set its tls to none, terminate or"
                    " require",
                    endpoint=listener.endpoint,
                )

    def _warn_of_unknown_clients(self, listener: Listener, options: settings.Listener) -> None:
        """Say whether a listener may have clients without an address, and what the policy does then."""
        if self._config.policy is None:
            return
        if options.proxies:
            self._log.warn(
                "policy: {endpoint} takes PROXY headers: clients that these do not name (UNKNOWN, LOCAL) are"
                " counted together, as {place}; rules by user, pair and password hold for them, none by"
                " address or network; let the proxy name its clients",
                endpoint=listener.name,
                place=unknown_place(listener.name),
            )
        elif not is_address(listener.address[0]):
            self._log.warn(
                "policy: clients of {endpoint} have no address: they are counted together, as {place};"
                " rules by user, pair and password hold for them, none by address or network",
                endpoint=listener.name,
                place=unknown_place(listener.name),
            )

    def _warn_of_claimed_addresses(self) -> None:
        """Say that clients can use the trust that the mail server has in us."""
        if self._config.upstream.xclient and self._config.rules is None:
            self._log.warn(
                "upstream.xclient: the mail server believes XCLIENT from here, and clients can send it too,"
                " to claim another address; add the table [rules], which refuses that"
            )

    def _listen(self, options: settings.Listener) -> Deferred[None]:
        terms = terms_for(options, self._config.upstream)
        endpoint = options.endpoint
        factory = Listener(options, self._admission, self, terms, self._server_tls)
        waiting: Deferred[IListeningPort] = serverFromString(self._reactor, endpoint).listen(
            factory
        )
        done, failed = self._listens, self._cannot_listen
        return waiting.addCallbacks(done, failed, (factory, options), {}, (endpoint,))

    def _listens(self, port: IListeningPort, factory: Listener, options: settings.Listener) -> None:
        self.ports.append(port)
        factory.address = host_and_port(port.getHost())
        queue_all_it_can(port, options.endpoint)
        send_at_once(port)
        if self._engine is not None and (acceptor := factory.take_over(port, self._engine)):
            self._acceptors.append(acceptor)
        address = ":".join(map(str, factory.address))
        self._log.info(
            "listening on {address}, relaying to {upstream}; {terms}",
            address=address,
            upstream=self._upstream.name,
            terms=_described(options),
        )
        self._warn_of_unknown_clients(factory, options)
        if options.tls == "none":
            whose = (
                "; those without TLS at the load balancer" if options.trust_tls else ", who then"
            )
            self._log.warn(
                "{address}: STLS is hidden from clients{whose} send their passwords in clear",
                address=address,
                whose=whose,
            )

    def _cannot_listen(self, failure: Failure, endpoint: str) -> None:
        raise ListenError(
            f"cannot listen on {endpoint}: {failure.getErrorMessage()}; choose another --listen"
        )

    def _listening(self, _: object) -> None:
        self.started.callback(None)

    def _not_listening(self, failure: Failure) -> None:
        first = failure.value
        self.started.errback(first.subFailure if isinstance(first, FirstError) else failure)

    def stopService(self) -> Deferred[None]:
        """Stop listening, let sessions end until ``drain`` has run out, stop the hooks."""
        super().stopService()  # type: ignore[no-untyped-call]
        for acceptor in self._acceptors:
            acceptor.stop()
        closing = [port.stopListening() for port in self.ports]
        for arrival in list(self.arrivals):
            arrival.shut_down()
        if self.sessions:
            self._log.info("waiting for {count} sessions to end", count=len(self.sessions))
            self._empty = Deferred()
            closing.append(self._empty)
            limit = self._reactor.callLater(self.timeouts.drain, self._drain_over)
            self._empty.addBoth(self._stop_waiting, limit)
        return gatherResults([d for d in closing if d is not None]).addBoth(self._stopped)

    def _stop_waiting(self, result: object, limit: Any) -> object:
        if limit.active():
            limit.cancel()
        return result

    def _drain_over(self) -> None:
        """Close what still runs, and give it no more time."""
        self.count("drain_over")
        # The first call closes, and the second resets what could not be closed at once.
        for _ in range(2):
            for session in list(self.sessions):
                session.shut_down()

    def _stopped(self, _: object) -> None:
        if self._sweep.running:
            self._sweep.stop()
        if self._engine is not None:
            self._engine.stop()
        self._dispatcher.stop()
        for what, found in (
            ("hook_failures", self._dispatcher.failures.total()),
            ("hook_holds", self._dispatcher.holds.total()),
        ):
            if found:
                self.counts[what] = found
        counts = ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
        self._log.info("stopped; counted: {counts}", counts=counts or "nothing")

    def reopen(self) -> None:
        """Have the hooks open anew what they write to."""
        self._dispatcher.reopen()

    def reload(self) -> None:
        """Read the files of TLS anew, for connections to come, and reopen what hooks write to.

        Where something is wrong with them, what was read before stays in use.
        """
        for whose, part in (("clients", self._server_tls), ("the mail server", self._upstream.tls)):
            if part is None:
                continue
            try:
                part.reload()
            except TlsError as problem:
                self._log.error(
                    "TLS with {whose}: not read anew, what was in use stays: {problem}",
                    whose=whose,
                    problem=str(problem),
                )
            else:
                self._log.info(
                    "TLS with {whose}: certificates are read anew; sessions that run keep theirs",
                    whose=whose,
                )
        self.reopen()

    # --- sessions ---------------------------------------------------------------------------------------

    def session(
        self, host: str, port: int, listener: Listener, orig_unknown: bool = False
    ) -> Session:
        """Make the session of a client that has connected (SessionMaker)."""
        connection = self._connection(host, port, listener, orig_unknown)
        analyzer = Analyzer(
            connection,
            wants=self._dispatcher.wants,
            gated=self.blocking,
            auth_resp_code=self._config.analyzer.auth_resp_code,
            guard=self._guard,
            refusals=self._refusals,
        )
        session = Session(connection, analyzer, self, listener.terms, listener.server_tls)
        self.sessions.add(session)
        self.counts["sessions"] += 1
        return session

    def _connection(self, host: str, port: int, entry: Entry, orig_unknown: bool) -> Connection:
        upstream = self._upstream
        connection = Connection(
            *(new_uid(), host, port, upstream.host, upstream.port, entry.name, *entry.address)
        )
        connection.orig_unknown = orig_unknown or not is_address(host)
        return connection

    def handshake_failed(self, entry: Entry, arrival: Arrival) -> None:
        """Let the policy count a client that has no TLS and so gets no session (Hall)."""
        for policy in self._policies:
            c = self._connection(arrival.host, arrival.port, entry, arrival.orig_unknown)
            policy.handshake_failed(c, self.now())

    def dial(self, session: Session) -> Callable[[], None]:
        """Connect a session to the mail server."""
        return self._upstream.open(session)

    def delay(self, seconds: float, then: Callable[[], None]) -> Callable[[], None] | None:
        """Call ``then`` after so many seconds; return what gives that up. None if too many wait already."""
        if self._delayed >= self._config.verdicts.delayed:
            self.count("delay_refused")
            return None
        self._delayed += 1
        self.count("delayed")
        call = self._reactor.callLater(seconds, self._delay_over, then)

        def give_up() -> None:
            self._delayed -= 1
            call.cancel()

        return give_up

    def _delay_over(self, then: Callable[[], None]) -> None:
        self._delayed -= 1
        then()

    def count(self, what: str) -> int:
        """Count something worth knowing; return the count."""
        self.counts[what] += 1
        return self.counts[what]

    def over(self, session: Session) -> None:
        """Forget a session that has ended."""
        self.sessions.discard(session)
        connection = session.connection
        self._admission.leave("" if connection.orig_unknown else connection.orig_h)
        self.counts[f"inspected_{session.analyzer.inspected.partition(':')[0]}"] += 1
        if self._empty is not None and not self.sessions:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def end_sessions(self, uids: Collection[str]) -> None:
        """End the sessions of these uids, but not while a hook is asked about another of their events."""
        self._reactor.callLater(0, self._end_sessions, frozenset(uids))

    def _end_sessions(self, uids: frozenset[str]) -> None:
        for session in list(self.sessions):
            if session.connection.uid in uids:
                self.count("dropped")
                session.end("dropped")

    def sweep(self) -> None:
        """End the sessions whose time has run out, and the arrivals."""
        now = self.elapsed()
        timed: list[Arrival | Session] = [*self.arrivals, *self.sessions]
        for waiting in timed:
            try:
                limit = waiting.overdue(now)
                if limit:
                    waiting.expired(limit)
            except Exception as problem:
                # One of them must not keep the others from their end.
                self._log.error(
                    "a time limit is not kept, by an error of ours: {problem}",
                    problem=described(problem),
                )


_OFFERS: Final = {
    "pass": "sessions are inspected until STLS",
    "none": "STLS is hidden and refused, and sessions are inspected whole",
    "implicit": "TLS from the first byte, and sessions are inspected whole",
    "terminate": "STLS is answered here, and sessions are inspected whole",
    "require": "STLS is answered here and required to log in, and sessions are inspected whole",
}


def _described(options: settings.Listener) -> str:
    """Say what a listener offers and inspects."""
    text = _OFFERS[options.tls]
    if options.proxies:
        where = "inside TLS " if options.proxy_header == "inside_tls" else ""
        networks = ", ".join(map(str, options.proxies))
        text += f"; a PROXY header is demanded {where}from {networks}"
    if options.trust_tls:
        text += ", and what it says of the client's TLS counts"
    return text


def _outfit(
    reactor: Any, config: Config, engine: Engine | None
) -> tuple[Upstream, ServerTls | None]:
    """Make what is spoken to the mail server, and the TLS for clients if a listener needs it.

    Raises ConfigError with what is wrong with either.
    """
    try:
        for index, listener in enumerate(config.listen):
            _refuse_tls_of_its_own(f"listen[{index}]", listener)
        needed = {listener.tls for listener in config.listen} - {"pass", "none"}
        server_tls = ServerTls(config.tls) if needed else None
        return Upstream(reactor, config.upstream, engine), server_tls
    except TlsError as problem:
        raise ConfigError([str(problem)]) from None


def _refuse_tls_of_its_own(place: str, listener: settings.Listener) -> None:
    """Refuse an endpoint that puts something before what must come first. Raises ConfigError."""
    kind = kind_of(listener.endpoint)
    if kind not in ("ssl", "tls", "haproxy"):
        return
    if listener.proxies:
        raise ConfigError(
            [
                f"{place}: {kind}: reads by itself what comes first, and proxies too; write tcp: instead"
            ]
        )
    if listener.tls not in ("pass", "none"):
        raise ConfigError(
            [
                f'{place}: {kind}: with tls = "{listener.tls}" cannot be;'
                " write tcp: instead, and the certificate's files under [[tls.certificates]]"
            ]
        )
