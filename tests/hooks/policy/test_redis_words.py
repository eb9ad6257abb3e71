"""What the log says of a Redis that cannot be asked: words, and nothing that only Python's readers know."""

import errno
import re

import pytest
import txredisapi
from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.exceptions import DNSMismatch
from service_identity.hazmat import DNS_ID
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as TookTooLong

from pop3proxy.hooks.policy.redis.link import TROUBLES
from pop3proxy.hooks.policy.redis.words import MAX_QUOTED, RedisTrouble, in_words


def replied(text: str) -> txredisapi.ResponseError:
    return txredisapi.ResponseError(text)


MISMATCH = VerificationError(errors=[DNSMismatch(mismatched_id=DNS_ID("redis.example.org"))])

SAID: list[tuple[BaseException, str]] = [
    (TookTooLong(5, "Deferred"), "no answer in time"),
    (CancelledError(), "no connection in time"),
    (error.TimeoutError(), "no connection in time"),
    (error.ConnectingCancelledError(("192.0.2.1", 6379)), "no connection in time"),
    (error.DNSLookupError("no results"), "its name cannot be resolved"),
    (error.ConnectionRefusedError(111, "Connection refused"), "it refuses connections; start it"),
    (error.ConnectError(errno.EACCES, "x"), "no connection can be made: Permission denied"),
    (error.ConnectError(string="no route"), "no connection can be made: "),
    (error.ConnectionDone(), "it closed the connection"),
    (error.ConnectionLost(), "the connection was cut off"),
    (error.ConnectionAborted(), "the connection was given up"),
    (
        SSL.Error([("SSL routines", "", "certificate verify failed")]),
        "TLS fails: certificate verify failed",
    ),
    (SSL.Error(), "TLS fails"),
    (MISMATCH, "its certificate is for another name than that in policy.redis.url"),
    (replied("MOVED 3999 192.0.2.9:6381"), "name 192.0.2.9:6381 in policy.redis.url"),
    (replied("CLUSTERDOWN Hash slot not served"), "the cluster is down"),
    (replied("LOADING Redis is loading the dataset in memory"), "it is loading its data"),
    (replied("OOM command not allowed when used memory > 'maxmemory'."), "raise its maxmemory"),
    (replied("READONLY You can't write against a read only replica."), "read-only replica"),
    (replied("MASTERDOWN Link with MASTER is down"), "has lost its primary"),
    (replied("MISCONF Errors writing to the AOF file"), "its own log says why"),
    (replied("NOREPLICAS Not enough good replicas to write."), "too few replicas"),
    (replied("NOAUTH Authentication required."), "set policy.redis.password_file"),
    (replied("WRONGPASS invalid username-password pair"), "mend policy.redis.username"),
    (replied("WRONGTYPE Operation against a key"), "choose another policy.redis.prefix"),
    (
        replied("NOPERM this user has no permissions to run the 'eval' command"),
        "its access list is too strict: this user has no permissions to run the 'eval' command;",
    ),
    (replied(" DB index is out of range"), "it has no database of that number"),
    (
        replied(" AUTH <password> called without any password configured for the default user"),
        "leave policy.redis.password_file out",
    ),
    (replied(" unknown\x1b[1m command"), "it replies with an error: unknown?[1m command"),
    (txredisapi.ConnectionError("Lost connection"), "the connection was lost"),
    (txredisapi.InvalidResponse("Cannot convert data 'x'"), "it answers otherwise than Redis"),
    (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    (OSError("odd"), "the system refuses"),
    (RedisTrouble("ca: no certificates can be read"), "ca: no certificates can be read"),
    (RuntimeError("odd"), "an error that the proxy does not know"),
]


@pytest.mark.parametrize(("problem", "said"), SAID, ids=lambda each: repr(each)[:40])
def test_each_failure_is_said_in_words(problem: BaseException, said: str) -> None:
    words = in_words(problem)
    assert said in words
    assert not re.search(
        r"\w+Error|\[\(|errors=|b'|Failure|<|Traceback|Errno|[\x00-\x1f]|\.$", words
    )


def test_every_kind_of_trouble_has_words() -> None:
    shown = {kind: in_words(kind("x")) for kind in TROUBLES if kind is not RedisTrouble}
    assert "an error that the proxy does not know" not in shown.values()


def test_no_more_is_quoted_than_the_bound() -> None:
    words = in_words(replied("x" * 5000))
    assert words.count("x") == MAX_QUOTED
