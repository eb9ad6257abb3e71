"""The command line, and the process that it runs: options, log lines, signals, exit status; no mail."""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import click
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import (
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
    formatTime,
    globalLogBeginner,
)
from twisted.python.failure import Failure

from . import __version__
from .archiving import add_archive
from .ask import add_ask, ask_capture
from .bans import add_bans
from .config import AnalyzerOptions, Config, ConfigError, Events, load, load_apart
from .policycommands import add_policy
from .problems import traced

DONE = 0
FAILED = 1
WRONG_USAGE = 2


@click.group(no_args_is_help=False)
@click.version_option(__version__, prog_name="pop3proxy", message="%(prog)s %(version)s")
def commands() -> None:
    """Inspect POP3 on its way between mail clients and a mail server."""


@commands.command()
@click.option(
    "--listen",
    "listen",
    metavar="ENDPOINT",
    multiple=True,
    help="Where clients connect, such as tcp:1110; repeatable.",
)
@click.option(
    "--upstream", metavar="ENDPOINT", help="The mail server, such as tcp:mail.example.org:110."
)
@click.option(
    "--events", metavar="FILE", help="Append events to FILE as JSON Lines; - is standard output."
)
@click.option("--data", is_flag=True, help="Write pop3_data too, which is the mail itself.")
@click.option(
    "--config", "path", metavar="FILE.toml", help="A configuration; the other options win over it."
)
def serve(
    listen: tuple[str, ...], upstream: str | None, events: str | None, data: bool, path: str | None
) -> int:
    """Relay clients to a mail server, and write down what is said.

    An ENDPOINT is a Twisted endpoint string. SIGTERM and SIGINT drain the sessions and end; SIGUSR1
    opens the files anew, and SIGHUP reads the certificates anew besides.
    """
    from .loading import load_hooks
    from .proxy.service import ProxyService
    from .runtime.reactor import steady_reactor

    reactor = steady_reactor()
    config = load(path, _overrides(listen, upstream, events, data), reactor)
    if path is not None:
        # A hook of one's own may lie beside the configuration that names it; what is installed wins.
        sys.path.append(str(Path(path).resolve().parent))
    hooks = load_hooks(config)
    service = ProxyService(reactor, config, hooks)
    log_to(sys.stderr, "info")
    if not hooks:
        Logger().warn("nobody hears the events: name a file with --events, or a hook in --config")
    raise_descriptor_limit(config)
    return Process(reactor).run(service, service.started, service.reopen, service.reload)


def _overrides(
    listen: tuple[str, ...], upstream: str | None, events: str | None, data: bool
) -> dict[str, Any]:
    """Shape what was given on the command line like a configuration file."""
    written = ({"path": events} if events is not None else {}) | ({"data": True} if data else {})
    server = None if upstream is None else {"endpoint": upstream}
    given = {"listen": listen or None, "upstream": server, "events": written or None}
    return {key: value for key, value in given.items() if value is not None}


@commands.command()
@click.argument("capture")
@click.option(
    "--events", metavar="FILE", help="Append events to FILE as JSON Lines; - is standard output."
)
@click.option("--no-data", is_flag=True, help="Leave out pop3_data, which is the mail itself.")
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    multiple=True,
    help="Where servers speak POP3, besides 110; repeatable. On other ports their greeting shows it.",
)
@click.option("--show-secrets", is_flag=True, help="Write passwords in clear.")
@click.option(
    "--config", "path", metavar="FILE.toml", help="A configuration, for its hooks and rules."
)
@click.option("--ask", "question", metavar="QUESTION", help="Answer this about the capture.")
def replay(
    capture: str,
    events: str | None,
    no_data: bool,
    ports: tuple[int, ...],
    show_secrets: bool,
    path: str | None,
    question: str | None,
) -> int:
    """Print the events of a capture file, pcap or pcapng, gzipped or not; - is standard input.

    With --events they are written to a file instead, and with --config the hooks hear them. What blocking
    hooks would have decided is logged. QUESTION is one of `pop3proxy ask`.
    """
    if question is None:
        return _replay(capture, events, not no_data, ports, show_secrets, path)
    if events is not None:
        raise click.UsageError("--ask and --events exclude each other; ask the file: pop3proxy ask")
    return ask_capture(
        question, lambda file: _replay(capture, file, False, ports, show_secrets, path)
    )


def _replay(
    capture: str,
    events: str | None,
    data: bool,
    ports: tuple[int, ...],
    show_secrets: bool,
    path: str | None,
) -> int:
    """Replay a capture to a file of events, to hooks, or without either to standard output as text."""
    from .hooks.api import Hook
    from .hooks.dispatcher import HookNotStarted
    from .loading import load_hooks
    from .replay.captures import CaptureError, CaptureFile
    from .replay.run import Replay, watched
    from .replay.showing import Printed
    from .replay.writing import EventFile, EventWriter, WriteError

    hooks: Sequence[Hook] = ()
    options = AnalyzerOptions()
    if path is not None:
        # The live proxy's file of events is not ours to write to.
        config = load_apart(path).model_copy(update={"events": Events()})
        sys.path.append(str(Path(path).resolve().parent))
        hooks = load_hooks(config, live=False)
        options = config.analyzer
    log_to(sys.stderr, "info")
    file: EventWriter | None = None
    try:
        source = CaptureFile(capture)
        if events is not None:
            file = EventFile(events, data, show_secrets)
        elif not hooks:
            file = Printed(sys.stdout, data, show_secrets)
        running = Replay(source, ports, file, hooks, options.auth_resp_code, options.table())
        frames = source.frames()
        try:
            running.run(watched(source, frames) if sys.stderr.isatty() else frames)
        finally:
            running.summarize()
    except (CaptureError, WriteError, HookNotStarted, OSError) as problem:
        _complain(str(problem))
        return FAILED
    return DONE


@commands.command()
@click.option("--once", is_flag=True, help="End after the script.")
def demo(once: bool) -> int:
    """Show a mail server, the proxy and a client at work."""
    from .demo.show import Show
    from .runtime.reactor import steady_reactor

    reactor = steady_reactor()
    log_to(sys.stderr, "warn")
    process = Process(reactor)
    show = Show(reactor, sys.stdout, once, process.end)
    return process.run(show, show.started)


def _host_and_port(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    """Take HOST:PORT apart; an IPv6 address stands in brackets."""
    found = re.fullmatch(r"(?:\[(.+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if found is None:
        raise click.BadParameter(f"{text}: write it like 127.0.0.1:1110 or [::1]:1110")
    if not 0 < int(found[3]) <= 65535:
        raise click.BadParameter(f"{text}: the port is not between 1 and 65535")
    return found[1] or found[2], int(found[3])


@commands.command()
@click.argument("listener", metavar="HOST:PORT", callback=_host_and_port)
@click.option("--tls", is_flag=True, help="Talk TLS from the first byte; any certificate will do.")
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600, min_open=True),
    default=5,
    show_default=True,
    help="How long all of it may take.",
)
def health(listener: tuple[str, int], tls: bool, seconds: float) -> int:
    """Ask whether a client who connects to HOST:PORT is greeted with +OK.

    Then the exit status is 0, else 1. The greeting is the mail server's, so that is asked too.
    """
    from .health import Unhealthy, check

    try:
        check(*listener, tls=tls, seconds=seconds)
    except Unhealthy as problem:
        _complain(str(problem))
        return FAILED
    return DONE


@commands.command()
def schema() -> int:
    """Print the JSON Schema of the records that are written."""
    from .hooks.logging.schema import schema as records

    click.echo(json.dumps(records(), indent=2))
    return DONE


# These are of rooms of their own.
add_archive(commands)
add_ask(commands)
add_bans(commands)
add_policy(commands)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or configuration.

    What went wrong is one line each on standard error.
    """
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return commands.main(arguments, prog_name="pop3proxy", standalone_mode=False) or DONE
    except click.UsageError as problem:
        command = problem.ctx.command_path if problem.ctx else "pop3proxy"
        _complain(f"{problem.format_message().rstrip('.')}; see {command} --help")
        return WRONG_USAGE
    except ConfigError as problem:
        for mistake in problem.mistakes:
            _complain(mistake)
        return WRONG_USAGE
    except click.Abort:
        return FAILED


def _complain(text: str) -> None:
    click.echo(f"pop3proxy: {text}", err=True)


def log_to(stream: TextIO, level: str) -> None:
    """Begin to log: one line an event, from ``level`` on; of Twisted itself only what is wrong."""
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    levels.setLogLevelForNamespace("pop3proxy", LogLevel.levelWithName(level))

    def observe(event: LogEvent) -> None:
        if levels(event) is not PredicateResult.no:
            stream.write(_log_line(event))

    observers: Any = [observe]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


def _log_line(event: LogEvent) -> str:
    """Write time, level and text; the traceback follows only where a failure was not expected.

    The text of the exception is left out there: it may be of a hook's timer, and hold a password.
    """
    failure = event.get("log_failure")
    if failure is not None:
        # A format may ask for the failure itself.
        text = formatEvent({**event, "log_failure": type(failure.value).__name__})
    elif (failure := event.get("failure")) is not None:
        # By Twisted's older way to log, whose text has the traceback in it.
        text = str(event.get("why") or "unhandled error")
    else:
        text = formatEvent(event)
    # Text may come from a peer: it must not be able to begin a line of its own.
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    line = f"{formatTime(event['log_time'])} {event['log_level'].name} {text}\n"
    if failure is None:
        return line
    return f"{line}{traced(failure.value, failure.getTracebackObject())}"


_DESCRIPTORS_PER_SESSION = 2
_DESCRIPTORS_BESIDES = 64
"""For listeners, files and the reactor itself."""


def raise_descriptor_limit(config: Config) -> None:
    """Raise the soft limit on open files to the hard one; warn if the sessions allowed need more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = config.limits.connections * _DESCRIPTORS_PER_SESSION + _DESCRIPTORS_BESIDES
    if hard != resource.RLIM_INFINITY and hard < needed:
        Logger().warn(
            "limits.connections is {connections}, which needs {needed} open files, but the system"
            " allows {hard}: raise that (ulimit -Hn, LimitNOFILE=) or set limits.connections to {fit}",
            connections=config.limits.connections,
            needed=needed,
            hard=hard,
            fit=max(1, (hard - _DESCRIPTORS_BESIDES) // _DESCRIPTORS_PER_SESSION),
        )


class Process:
    """Runs one service until a signal, or the service itself, ends it."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._status = DONE
        self._ending = False

    def run(
        self,
        service: Service,
        started: Deferred[Any],
        reopen: Callable[[], None] | None = None,
        reload: Callable[[], None] | None = None,
    ) -> int:
        """Run ``service`` until the end, and return the exit status.

        ``started`` fires when it has come up, or fails with what is wrong. ``reopen`` is called for
        each SIGUSR1, ``reload`` for each SIGHUP.
        """
        if reopen is not None:
            self._on(signal.SIGUSR1, reopen)
        if reload is not None:
            self._on(signal.SIGHUP, reload)
        # The reactor sets handlers of its own when it starts; ours come after them.
        self._reactor.callWhenRunning(self._start, service, started)
        self._reactor.run()
        return self._status

    def end(self, status: int) -> None:
        """Stop the service, which may take the time it needs, and exit with ``status``."""
        self._status = self._status or status
        if not self._ending:
            self._ending = True
            self._reactor.stop()

    def _on(self, number: signal.Signals, act: Callable[[], None]) -> None:
        def handle(_number: int, _frame: FrameType | None) -> None:
            self._reactor.callFromThread(act)

        signal.signal(number, handle)

    def _start(self, service: Service, started: Deferred[Any]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._on(number, self._told_to_end)
        self._reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        try:
            service.privilegedStartService()
            service.startService()
        except Exception:
            self._failed(Failure())
        else:
            started.addErrback(self._failed)

    def _told_to_end(self) -> None:
        """Drain at the first signal, and leave at the second."""
        if self._ending:
            self._log.warn("told twice to end: the sessions that still run are cut off")
            self._status = FAILED
            self._reactor.crash()
        else:
            self._log.info("ending; a second signal cuts off the sessions that still run")
            self.end(DONE)

    def _failed(self, failure: Failure) -> None:
        from .hooks.dispatcher import HookNotStarted

        if failure.check(OSError, CannotListenError, ConfigError, HookNotStarted):
            self._log.error("{problem}", problem=failure.getErrorMessage())
        else:
            self._log.failure("the service does not start", failure)
        self.end(FAILED)
