"""Asks a listener for its greeting, as monitoring does; knows nothing of how the proxy is made."""

import re
import socket
import ssl
import time
from contextlib import suppress

LONGEST_LINE = 512
"""Octets of a greeting, the line's end included (RFC 2449 section 4)."""

_SHOWN = 120
"""Octets of a wrong greeting that are told."""

_OK = re.compile(rb"\+OK(?: [^\n]*)?\r?\n")


class Unhealthy(Exception):
    """No positive greeting came; the text is one line that says what came instead."""


def check(host: str, port: int, *, tls: bool = False, seconds: float = 5) -> str:
    """Connect as a client does, and return the greeting's line if it is positive (RFC 1939 section 4).

    ``tls`` talks TLS from the first byte and takes any certificate: whoever asks is the listener's own
    operator, and the certificate is seldom for the address that is asked. ``seconds`` is for all of it but
    the look-up of a name. The session is ended by QUIT, so that it is not recorded as a broken one.

    Raises Unhealthy.
    """
    deadline = time.monotonic() + seconds
    try:
        with _connected(host, port, tls, deadline) as connection:
            greeting = _line(connection, deadline)
            if not _OK.fullmatch(greeting):
                raise Unhealthy(
                    f"the greeting is {_printable(greeting)}"
                    if greeting
                    else "no greeting: the connection was closed"
                )
            _leave(connection, deadline)
    except TimeoutError:
        raise Unhealthy(f"no greeting within {seconds:g} seconds") from None
    except OSError as problem:
        raise Unhealthy(f"no greeting: {_reason(problem)}") from None
    except UnicodeError:
        raise Unhealthy(f"no greeting: {host[:_SHOWN]!a} can be no host's name") from None
    return _printable(greeting)


def _connected(host: str, port: int, tls: bool, deadline: float) -> socket.socket:
    """Connect, to the first of the host's addresses that answers; they share the time."""
    connection: socket.socket | None = None
    problem: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
            return _secured(connection, deadline) if tls else connection
        except OSError as found:
            connection.close()
            problem = found
    raise problem


def _secured(connection: socket.socket, deadline: float) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection.settimeout(_left(deadline))
    return context.wrap_socket(connection)


def _line(connection: socket.socket, deadline: float) -> bytes:
    """Read one line, or what there is of it when it is too long or the peer ends."""
    line = b""
    while b"\n" not in line and len(line) < LONGEST_LINE:
        connection.settimeout(_left(deadline))
        received = connection.recv(LONGEST_LINE - len(line))
        if not received:
            break
        line += received
    head, end, _ = line.partition(b"\n")
    return head + end


def _leave(connection: socket.socket, deadline: float) -> None:
    """Say QUIT, and wait for the answer; by now nothing that fails makes the listener unhealthy."""
    with suppress(OSError):
        connection.sendall(b"QUIT\r\n")
        _line(connection, deadline)


def _left(deadline: float) -> float:
    """Return the seconds left. Raises TimeoutError if there are none: a socket's 0 would not block."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _printable(line: bytes) -> str:
    # The listener may be anybody's, and a log takes the answer.
    text = line[:_SHOWN].decode("ascii", "backslashreplace").rstrip("\r\n")
    return "".join(character if character.isprintable() else "." for character in text)


def _reason(problem: OSError) -> str:
    """Name what the system or the TLS library says."""
    if isinstance(problem, ssl.SSLError):
        return f"TLS fails: {problem.reason or problem.strerror}"
    return problem.strerror or str(problem)
