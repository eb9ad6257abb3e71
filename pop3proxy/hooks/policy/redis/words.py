"""Words for why a Redis server cannot be asked: for the log, without secrets and Python's own words."""

import os
from collections.abc import Callable
from typing import Any, Final

import txredisapi
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as TookTooLong

MAX_QUOTED: Final = 200
"""Letters of a server's own words that are shown."""


class RedisTrouble(Exception):
    """The server cannot be asked; the text is one line for the operator, without secrets."""


_REPLIES: Final = {
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "it is loading its data",
    "MASTERDOWN": "it is a replica that has lost its primary; name the primary in policy.redis.url",
    "MISCONF": "it takes no writes since it cannot save its data; its own log says why",
    "NOAUTH": "it wants a password; set policy.redis.password_file",
    "NOREPLICAS": "it takes no writes since it has too few replicas",
    "OOM": "its memory is full; raise its maxmemory",
    "READONLY": "it is a read-only replica; name the primary in policy.redis.url",
    "WRONGPASS": "it refuses the user name or the password; mend policy.redis.username or its password_file",
    "WRONGTYPE": "other data is under the same names; choose another policy.redis.prefix",
}
"""What the first word of an error reply means."""


def _replied(problem: BaseException) -> str:
    text = _quoted(problem)
    code, _, rest = text.partition(" ")
    if code in _REPLIES:
        return _REPLIES[code]
    if code == "MOVED":
        return (
            f"another node of the cluster has the keys; name {rest.split()[-1]} in policy.redis.url"
        )
    if code == "NOPERM":
        return (
            f"its access list is too strict: {rest}; docs/policy.md has the rights that are needed"
        )
    if "DB index is out of range" in text:
        return "it has no database of that number; mend the end of policy.redis.url"
    if "without any password configured" in text:
        return "it has no password for this user; leave policy.redis.password_file out"
    return f"it replies with an error: {text}"


def _unconnected(problem: BaseException) -> str:
    number = getattr(problem, "osError", None)
    why = os.strerror(number) if isinstance(number, int) else _quoted(problem)
    return f"no connection can be made: {why}"


def _tls(problem: BaseException) -> str:
    """Name what OpenSSL says last; its errors are lists of library, function and reason."""
    found: Any = problem.args[0] if problem.args else None
    if isinstance(found, list) and found and isinstance(found[-1], tuple):
        return f"TLS fails: {found[-1][-1]}"
    return "TLS fails"


def _os(problem: BaseException) -> str:
    return (problem.strerror if isinstance(problem, OSError) else None) or "the system refuses"


def _own(problem: BaseException) -> str:
    return _quoted(problem)


_Words = str | Callable[[BaseException], str]

# The first that fits: what is derived from another stands before it.
_KINDS: Final[tuple[tuple[type[BaseException], _Words], ...]] = (
    (RedisTrouble, _own),
    (TookTooLong, "no answer in time"),
    (error.TimeoutError, "no connection in time"),
    (error.ConnectingCancelledError, "no connection in time"),
    (CancelledError, "no connection in time"),
    (error.DNSLookupError, "its name cannot be resolved; mend policy.redis.url or the resolver"),
    (error.ConnectionRefusedError, "it refuses connections; start it, or mend policy.redis.url"),
    (error.ConnectError, _unconnected),
    (error.ConnectionDone, "it closed the connection"),
    (error.ConnectionAborted, "the connection was given up"),
    (error.ConnectionLost, "the connection was cut off"),
    (error.ConnectionClosed, "the connection was lost"),
    (VerificationError, "its certificate is for another name than that in policy.redis.url"),
    (SSL.Error, _tls),
    (txredisapi.ResponseError, _replied),
    (txredisapi.ConnectionError, "the connection was lost"),
    (txredisapi.RedisError, "it answers otherwise than Redis does; mend policy.redis.url"),
    (OSError, _os),
)


def in_words(problem: BaseException | None) -> str:
    """Return why a server cannot be asked, in one line without a dot at its end."""
    for kind, words in _KINDS:
        if isinstance(problem, kind):
            return words if isinstance(words, str) else words(problem).rstrip(".")
    return "an error that the proxy does not know"


def _quoted(problem: BaseException) -> str:
    text = " ".join(str(problem).split())[:MAX_QUOTED].rstrip(".")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
