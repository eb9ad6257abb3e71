"""Connects to a Redis server, for commands and for what is pushed; what is said there is in store.py."""

from collections.abc import Callable, Generator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import txredisapi
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionClosed,
    ConnectionDone,
    DNSLookupError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from ..config import PolicyRedis
from .words import RedisTrouble, in_words

MAX_PASSWORD: Final = 4096
"""Bytes of a password file at the most."""

COPY: Final = files(__package__).joinpath("copy.lua").read_bytes()
COUNTS: Final = files(__package__).joinpath("counts.lua").read_bytes()
BANS: Final = files(__package__).joinpath("bans.lua").read_bytes()


TROUBLES: Final = (
    RedisTrouble,
    txredisapi.RedisError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    CancelledError,
    SSL.Error,
    OSError,
)
"""What a server that is gone, hung, misconfigured or an impostor may lead to."""


class _Connection:
    """Remembers why it was lost, which txredisapi does not."""

    why = ""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)  # type: ignore[call-arg]

    def connectionLost(self, reason: Failure) -> None:
        """Take the reason, and fail all commands."""
        if not reason.check(ConnectionDone, ConnectionAborted):
            self.why = in_words(reason.value)
        super().connectionLost(reason)  # type: ignore[misc]


class Commands(_Connection, txredisapi.RedisProtocol):  # type: ignore[misc]
    """The connection on which decisions are asked; replies are bytes and numbers."""


class Pushed(_Connection, txredisapi.SubscriberProtocol):  # type: ignore[misc]
    """The connection on which messages are pushed."""

    heard: Callable[[bytes, bytes], None]

    def messageReceived(self, pattern: object, channel: bytes, message: bytes) -> None:
        """Hand a message on."""
        self.heard(channel, message)


class Link:
    """Two connections to one server, which live and die together."""

    def __init__(self, commands: Commands, pushed: Pushed) -> None:
        """Take connections that are logged in."""
        self.commands = commands
        self.pushed = pushed

    @classmethod
    def open(
        cls, config: PolicyRedis, reactor: Any, heard: Callable[[bytes, bytes], None]
    ) -> "Deferred[Link]":
        """Connect and log in. Fails with one of TROUBLES; then nothing stays open."""
        return Deferred.fromCoroutine(_opened(cls, config, reactor, heard))

    @property
    def alive(self) -> bool:
        """Whether both are connected."""
        return bool(self.commands.connected and self.pushed.connected)

    @property
    def why(self) -> str:
        """Why it was lost."""
        return self.commands.why or self.pushed.why or "the connection was lost"

    def lost(self) -> "Deferred[None]":
        """Return a Deferred that fires when one of them is lost."""
        gone: Deferred[None] = Deferred()

        def fire(_: object) -> None:
            if not gone.called:
                gone.callback(None)

        for protocol in (self.commands, self.pushed):
            protocol.whenDisconnected().addCallback(fire)
        return gone

    def counts(
        self, keys: Sequence[bytes], words: Sequence[bytes], channel: bytes
    ) -> "Deferred[list[int]]":
        """Run counts.lua; ``channel`` hears what is settled. Raises RedisError if the connection is gone."""
        args = [b" ".join(words), channel]
        return cast("Deferred[list[int]]", self.commands.eval(COUNTS, keys, args))

    def bans(self, keys: Sequence[bytes], args: Sequence[bytes]) -> "Deferred[Any]":
        """Run bans.lua. Raises RedisError if the connection is gone."""
        return cast("Deferred[Any]", self.commands.eval(BANS, keys, args))

    def copy(self, keys: Sequence[bytes]) -> "Deferred[int]":
        """Copy each key to that behind it, if that is not there; fires with how many were copied."""
        return cast("Deferred[int]", self.commands.eval(COPY, keys, []))

    def ask(self, *words: bytes) -> "Deferred[Any]":
        """Send one command. Raises RedisError if the connection is gone."""
        return cast("Deferred[Any]", self.commands.execute_command(*words))

    async def time(self) -> float:
        """Return Redis's time, in seconds since the epoch. Raises RedisTrouble for what is none."""
        answer = await self.ask(b"TIME")
        try:
            seconds, microseconds = map(int, answer)
        except (TypeError, ValueError):
            raise RedisTrouble("it does not say its time") from None
        return seconds + microseconds / 1e6

    def subscribe(self, channels: Sequence[bytes]) -> "Deferred[Any]":
        """Hear channels; fires when the server has said so."""
        return cast("Deferred[Any]", self.pushed.subscribe(channels))

    def publish(self, channel: bytes, message: bytes) -> "Deferred[int]":
        """Push a message; fires with how many hear it."""
        return cast("Deferred[int]", self.commands.publish(channel, message))

    def abort(self) -> None:
        """Let go of both at once: whoever waits for an answer is told."""
        for protocol in (self.commands, self.pushed):
            _abort(protocol)


def _abort(protocol: Any) -> None:
    if protocol.connected:
        protocol.transport.abortConnection()


async def _opened(
    cls: type[Link], config: PolicyRedis, reactor: Any, heard: Callable[[bytes, bytes], None]
) -> Link:
    endpoint = endpoint_of(config, reactor)
    password = password_of(config)
    opened: list[Any] = []
    try:
        for make in (Commands, Pushed):
            protocol: Any = await _connected(endpoint, make)
            opened.append(protocol)
            await _log_in(protocol, config, password)
    except txredisapi.ConnectionError as problem:
        # Of a handshake that fails only the connection knows the reason.
        for protocol in opened:
            _abort(protocol)
        raise RedisTrouble(opened[-1].why or in_words(problem)) from None
    except BaseException:
        for protocol in opened:
            _abort(protocol)
        raise
    commands, pushed = opened
    pushed.heard = heard
    return cls(commands, pushed)


def _connected(endpoint: IStreamClientEndpoint, protocol: Callable[[], Any]) -> "Deferred[Any]":
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    return cast("Deferred[Any]", endpoint.connect(factory))


async def _log_in(protocol: Any, config: PolicyRedis, password: str | None) -> None:
    """Log in, and have an answer: so a handshake that fails is noticed here."""
    try:
        if password is not None:
            await protocol.auth(password, config.username)
        await protocol.select(database_of(config))
    except txredisapi.ResponseError as problem:
        raise RedisTrouble(in_words(problem)) from None


def password_of(config: PolicyRedis) -> str | None:
    """Read the password's file. Raises RedisTrouble."""
    if config.password_file is None:
        return None
    try:
        with Path(config.password_file).open("rb") as file:
            read = file.read(MAX_PASSWORD + 1)
    except OSError as problem:
        raise RedisTrouble(
            f"password_file cannot be read: {problem.strerror}; mend {config.password_file}"
        ) from None
    password = read.rstrip(b"\r\n")
    if not password or len(read) > MAX_PASSWORD:
        raise RedisTrouble(
            f"password_file must hold one line of 1 to {MAX_PASSWORD - 1} bytes;"
            f" write the password into {config.password_file}"
        )
    try:
        return password.decode()
    except UnicodeDecodeError:
        raise RedisTrouble(
            f"password_file is not UTF-8; write the password into {config.password_file} again"
        ) from None


def database_of(config: PolicyRedis) -> int:
    """Return the number of the database."""
    parts = urlsplit(config.url)
    return 0 if parts.scheme == "unix" else int(parts.path.strip("/") or 0)


def endpoint_of(config: PolicyRedis, reactor: Any) -> IStreamClientEndpoint:
    """Make what connects. Raises RedisTrouble if the certificates of `ca` cannot be read."""
    parts = urlsplit(config.url)
    timeout = config.connect_limit
    if parts.scheme == "unix":
        unix = UNIXClientEndpoint(reactor, unquote(parts.path), timeout=timeout)
        return cast(IStreamClientEndpoint, unix)
    host = parts.hostname or ""
    endpoint = HostnameEndpoint(reactor, host, parts.port or 6379, timeout=timeout)
    if parts.scheme != "rediss":
        return cast(IStreamClientEndpoint, endpoint)
    options = optionsForClientTLS(host, trustRoot=_trusted(config))
    return wrapClientTLS(options, endpoint)


def _trusted(config: PolicyRedis) -> Any:
    if config.ca is None:
        return None
    try:
        certificates = [Certificate.loadPEM(pem) for pem in _pems(Path(config.ca).read_bytes())]
    except (OSError, SSL.Error, ValueError):
        certificates = []
    if not certificates:
        raise RedisTrouble(f"ca: no certificates can be read; write them as PEM into {config.ca}")
    return trustRootFromCertificates(certificates)


def _pems(text: bytes) -> Generator[bytes, None, None]:
    end = b"-----END CERTIFICATE-----"
    for part in text.split(end)[:-1]:
        yield part + end + b"\n"
