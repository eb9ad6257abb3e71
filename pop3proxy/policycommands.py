"""The commands `pop3proxy policy why`, `list`, `allow` and `disallow`, which ask a running proxy."""

import json
import re
from typing import Final

import click

from .controlclient import NotDone, answered, complain, with_socket
from .inwords import denied_in_words, why_in_words, written
from .policytest import policy

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add_policy(commands: click.Group) -> None:
    """Add the command to those of the program."""
    commands.add_command(policy)


def explain(who: str, path: str | None, control: str | None, as_json: bool) -> int:
    """Ask why, and write the answer."""
    try:
        found = answered(path, control, {"do": "why", "what": who})["why"]
    except NotDone as problem:
        return complain(problem)
    click.echo(json.dumps(found) if as_json else written(why_in_words(found)))
    return 0


@policy.command()
@click.argument("who", metavar="ADDRESS|USER|PAIR")
@with_socket
def why(who: str, path: str | None, control: str | None, as_json: bool) -> int:
    """Say what is counted and refused of an address, a network, a user or a pair, and what lets it in.

    A pair is an address and a user, such as '192.0.2.1|bob'. A user whose name may be something else is
    user:NAME.
    """
    return explain(who, path, control, as_json)


@policy.command("list")
@with_socket
def list_denied(path: str | None, control: str | None, as_json: bool) -> int:
    """List all that is refused now, by a ban or by a count, and what is allowed by command."""
    try:
        found = answered(path, control, {"do": "denied"})
    except NotDone as problem:
        return complain(problem)
    if as_json:
        for kind in ("bans", "denied", "allowed"):
            for row in found[kind]:
                click.echo(json.dumps({"kind": kind, **row}))
    else:
        click.echo(written(denied_in_words(found)) or "nothing is refused")
    return 0


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if found is None:
        raise click.BadParameter(f"{text}: write it like 30m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2]]


@policy.command()
@click.argument("who", metavar="ADDRESS|NETWORK")
@click.option(
    "--for", "seconds", metavar="TIME", required=True, callback=_seconds, help="Such as 12h or 7d."
)
@click.option("--reason", default="", help="Kept with it, and in pop3_policy.")
@with_socket
def allow(
    who: str, seconds: float, reason: str, path: str | None, control: str | None, as_json: bool
) -> int:
    """Count, refuse and ban nothing of an address or network for a time; bans that exist do not hold."""
    request = {"do": "allow", "what": who, "seconds": seconds, "reason": reason}
    try:
        found = answered(path, control, request)
    except NotDone as problem:
        return complain(problem)
    click.echo(json.dumps(found["allowed"][0]) if as_json else found["said"])
    return 0


@policy.command()
@click.argument("who", metavar="ADDRESS|NETWORK")
@click.option("--reason", default="", help="In pop3_policy.")
@with_socket
def disallow(who: str, reason: str, path: str | None, control: str | None, as_json: bool) -> int:
    """End what `pop3proxy policy allow` began."""
    try:
        found = answered(path, control, {"do": "disallow", "what": who, "reason": reason})
    except NotDone as problem:
        return complain(problem)
    click.echo(json.dumps(found) if as_json else found["said"])
    return 0
