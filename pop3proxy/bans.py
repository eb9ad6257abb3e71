"""The command `pop3proxy bans`: lists, adds, removes and explains the bans of a running proxy."""

import json
from typing import Any

import click

from .controlclient import NotDone, answered, complain, with_socket
from .inwords import ban_in_words, written
from .policycommands import explain


def add_bans(commands: click.Group) -> None:
    """Add the command to those of the program."""
    commands.add_command(bans)


def _renamed(_: click.Context, __: click.Parameter, given: str | None) -> None:
    if given is not None:
        raise click.UsageError("--why is called --reason now")


@click.group()
def bans() -> None:
    """List, add, remove and explain the bans of a running proxy."""


@bans.command("list")
@with_socket
def list_bans(path: str | None, control: str | None, as_json: bool) -> int:
    """List the bans in force; `pop3proxy policy list` has all that is refused."""
    try:
        found = answered(path, control, {"do": "list"})["bans"]
    except NotDone as problem:
        return complain(problem)
    _write(found, as_json)
    if not found and not as_json:
        click.echo("no bans")
    return 0


@bans.command()
@click.argument("who")
@click.option("--seconds", type=float, default=3600.0, show_default=True, help="How long.")
@click.option("--reason", default="", help="Kept as its evidence, and in pop3_policy.")
@click.option("--why", hidden=True, expose_value=False, callback=_renamed)
@with_socket
def add(
    who: str, seconds: float, reason: str, path: str | None, control: str | None, as_json: bool
) -> int:
    """Ban an address, a network, or user:NAME."""
    request = {"do": "add", "what": who, "seconds": seconds, "reason": reason}
    try:
        found = answered(path, control, request)["bans"]
    except NotDone as problem:
        return complain(problem)
    _write(found, as_json)
    return 0


@bans.command()
@click.argument("who")
@click.option("--reason", default="", help="Kept with the ban that is over, and in pop3_policy.")
@with_socket
def remove(who: str, reason: str, path: str | None, control: str | None, as_json: bool) -> int:
    """End a ban, clear what is counted, and begin a time of grace."""
    try:
        found = answered(path, control, {"do": "remove", "what": who, "reason": reason})
    except NotDone as problem:
        return complain(problem)
    if as_json:
        for removed in found["removed"]:
            click.echo(json.dumps(removed))
    else:
        click.echo(written(iter((found["said"],))))
    return 0


@bans.command()
@click.argument("who")
@with_socket
def why(who: str, path: str | None, control: str | None, as_json: bool) -> int:
    """Say what is held against an address, a network, a user or a pair: `pop3proxy policy why`."""
    return explain(who, path, control, as_json)


def _write(found: list[dict[str, Any]], as_json: bool) -> None:
    for ban in found:
        click.echo(json.dumps(ban) if as_json else written(ban_in_words(ban)))
