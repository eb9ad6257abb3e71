"""The command `pop3proxy bans`: asks a running proxy over its control socket; decides nothing."""

import json
import socket
from datetime import UTC, datetime
from typing import Any, Final

import click

from .config import ConfigError, load_apart

PATIENCE: Final = 5.0
"""Seconds in which the proxy has to answer."""

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Octets of an answer; a list of bans may be long."""


def add_bans(commands: click.Group) -> None:
    """Add the command to those of the program."""
    commands.add_command(bans)


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


_config = click.option(
    "--config", "path", metavar="FILE.toml", help="The configuration of the running proxy."
)
_control = click.option("--control", metavar="SOCKET", help="Its control socket, without --config.")
_json = click.option("--json", "as_json", is_flag=True, help="Write JSON Lines.")


@click.group()
def bans() -> None:
    """List, add, remove and explain the bans of a running proxy."""


@bans.command("list")
@_config
@_control
@_json
def list_bans(path: str | None, control: str | None, as_json: bool) -> int:
    """List the bans in force."""
    return _run(path, control, {"do": "list"}, as_json)


@bans.command()
@click.argument("who")
@click.option("--seconds", type=float, default=3600.0, show_default=True, help="How long.")
@click.option("--why", default="", help="Kept as its evidence.")
@_config
@_control
@_json
def add(
    who: str, seconds: float, why: str, path: str | None, control: str | None, as_json: bool
) -> int:
    """Ban an address, a network, or user:NAME."""
    request = {"do": "add", "what": who, "seconds": seconds, "why": why}
    return _run(path, control, request, as_json)


@bans.command()
@click.argument("who")
@_config
@_control
@_json
def remove(who: str, path: str | None, control: str | None, as_json: bool) -> int:
    """End a ban, and give its owner some grace."""
    return _run(path, control, {"do": "remove", "what": who}, as_json)


@bans.command()
@click.argument("who")
@_config
@_control
@_json
def why(who: str, path: str | None, control: str | None, as_json: bool) -> int:
    """Say why an address, network or user is banned, or was."""
    return _run(path, control, {"do": "why", "what": who}, as_json)


def _run(path: str | None, control: str | None, request: dict[str, Any], as_json: bool) -> int:
    where = control or _control_of(path)
    try:
        answer = ask(where, request)
    except FileNotFoundError:
        return _complain(f"{where} is not there; is the proxy running, with policy.control?")
    except OSError as problem:
        return _complain(f"{where}: {problem.strerror or problem}; is the proxy running?")
    except ValueError:
        return _complain(f"{where} gives no answer of pop3proxy; name its control socket")
    if "error" in answer:
        return _complain(str(answer["error"]))
    for ban in answer["bans"]:
        click.echo(json.dumps(ban) if as_json else _in_words(ban))
    if not answer["bans"] and not as_json:
        click.echo(answer.get("said", "no bans"))
    return 0


def _control_of(path: str | None) -> str:
    if path is None:
        raise click.UsageError("Missing option '--config' or '--control'")
    policy = load_apart(path).policy
    if policy is None or policy.control is None:
        raise ConfigError([f'{path}: lacks the socket; under [policy] set control = "FILE"'])
    return policy.control


def _in_words(ban: dict[str, Any]) -> str:
    state = "until" if ban["in_force"] else "was until"
    lines = [
        f"{ban['key']}  {ban['rule']}  since {_time(ban['since'])}"
        f"  {state} {_time(ban['until'])}  times {ban['times']}",
        *(f"    {line}" for line in ban["evidence"]),
    ]
    # Users' names come from peers, and could steer a terminal.
    return "\n".join(
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines
    )


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"


def _complain(text: str) -> int:
    click.echo(f"pop3proxy: {text}", err=True)
    return 1
