"""Asks a running proxy over its control socket, for the commands that do; decides nothing."""

import json
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from .config import ConfigError, load_apart

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE: Final = 10.0
"""Seconds in which the proxy has to answer; it waits for its disk for less."""

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer; a list of bans may be long."""


def with_socket(command: F) -> F:
    """Add the options by which the proxy is found, and ``--json``."""
    options = (
        click.option(
            "--config",
            "path",
            metavar="FILE.toml",
            help="The configuration of the running proxy.",
        ),
        click.option("--control", metavar="SOCKET", help="Its control socket, without --config."),
        click.option("--json", "as_json", is_flag=True, help="Write JSON Lines."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def ask(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the proxy that listens on a socket. Raises OSError, or ValueError for what is no answer."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER:
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise ValueError("the answer is none of pop3proxy")
    return found


def answered(path: str | None, control: str | None, request: dict[str, Any]) -> dict[str, Any]:
    """Ask, and say on standard error what is to be noted. Raises NotDone with one line."""
    where = control or _control_of(path)
    try:
        answer = ask(where, request)
    except FileNotFoundError:
        raise NotDone(f"{where} is not there; is the proxy running, with policy.control?") from None
    except OSError as problem:
        raise NotDone(f"{where}: {problem.strerror or problem}; is the proxy running?") from None
    except ValueError:
        raise NotDone(f"{where} gives no answer of pop3proxy; name its control socket") from None
    if "error" in answer:
        raise NotDone(str(answer["error"]))
    if "note" in answer:
        click.echo(f"pop3proxy: {answer['note']}", err=True)
    return answer


class NotDone(Exception):
    """The proxy was not asked, or did not do it: one line."""


def complain(problem: NotDone) -> int:
    """Say it on standard error; return the exit status."""
    click.echo(f"pop3proxy: {problem}", err=True)
    return 1


def _control_of(path: str | None) -> str:
    if path is None:
        raise click.UsageError("Missing option '--config' or '--control'")
    policy = load_apart(path).policy
    if policy is None or policy.control is None:
        raise ConfigError([f'{path}: lacks the socket; under [policy] set control = "FILE"'])
    return policy.control
