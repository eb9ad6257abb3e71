"""What `[policy.export]` in a configuration may say; nothing is exported here."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from ....values import Seconds, Table, shown

CHANGES: Final = "{changes}"
"""The word of a command in whose place the changes stand, one argument each."""


def _table_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,31}", text):
        raise ValueError(
            f"{shown(text)} is no name of a table; write up to 32 letters, digits and _, a letter first"
        )
    return text


class PolicyExport(Table):
    """Bans of addresses and networks for programs outside, such as a firewall."""

    nft_file: str | None = None
    """A file of nftables sets that is replaced at each change; `nft -f` loads it."""
    nft_table: Annotated[str, AfterValidator(_table_name)] = "pop3proxy"
    """The table, of the family inet, in which the sets `banned4` and `banned6` are."""
    command: tuple[str, ...] = ()
    """A program and its arguments, run without a shell at each change, after the file is written; in place of
    the argument `{changes}` it gets the changes, an argument each."""
    interval: Seconds = 1
    """Seconds that changes are gathered before they are exported together."""
    time_limit: Annotated[float, Strict(), Field(gt=0, le=60)] = 10
    """Seconds after which a command that still runs is killed."""

    @model_validator(mode="after")
    def _exports_something(self) -> Self:
        if self.nft_file is None and not self.command:
            raise ValueError(
                'exports nothing; name nft_file = "/run/pop3proxy/bans.nft", or a command'
            )
        if self.command and not PurePosixPath(self.command[0]).is_absolute():
            raise ValueError(
                'command: must begin with the whole path of a program, such as "/usr/sbin/nft"'
            )
        if any("\0" in word for word in self.command):
            raise ValueError("command: no argument can hold a NUL; take it out")
        if CHANGES in self.command[:1]:
            raise ValueError(f"command: {CHANGES} is an argument; name the program before it")
        return self
