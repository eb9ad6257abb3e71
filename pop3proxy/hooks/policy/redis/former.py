"""Reads once what former versions wrote, under names that a cluster could not keep on one node."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from txredisapi import ResponseError

from .link import Link
from .names import FORMER_MARKS

PAGE: Final = 1000
"""Keys that are looked at in one step."""


_OF_CLUSTERS: Final = ("ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED", "TRYAGAIN")
"""What error replies begin with that only a cluster gives; no former version could use one."""

Timed = Callable[[Any], Any]
"""Gives an answer its time limit."""


@dataclass(frozen=True, slots=True)
class Found:
    """How much was read under former names."""

    bans: int
    marks: int


class FormerNames:
    """The keys of former versions, and how they are called now.

    They are copied, and not moved: proxies of a former version may still use them. Their counts are left
    alone, and end by themselves within their windows.
    """

    def __init__(self, former: bytes, prefix: bytes, timed: Timed) -> None:
        """Take what names began with, what they begin with, and what limits the time of each step."""
        self._former = former
        self._prefix = prefix
        self._timed = timed

    async def read(self, link: Link) -> Found | None:
        """Copy what is there; None if there is nothing. Raises one of TROUBLES."""
        if self._former == self._prefix:
            return None
        try:
            return await self._copied(link)
        except ResponseError as problem:
            if str(problem).startswith(_OF_CLUSTERS):
                return None
            raise

    async def _copied(self, link: Link) -> Found | None:
        bans = int(await self._timed(link.ask(b"HLEN", self._former + b"bans")))
        if bans:
            await self._timed(link.copy(list(self._pairs([b"bans", b"bans:ends"]))))
        marks = await self._copied_marks(link)
        return Found(bans, marks) if bans or marks else None

    async def _copied_marks(self, link: Link) -> int:
        pattern = _literally(self._former + FORMER_MARKS) + b"*"
        cursor, copied = b"0", 0
        page = (b"MATCH", pattern, b"COUNT", str(PAGE).encode())
        while True:
            cursor, names = await self._timed(link.ask(b"SCAN", cursor, *page))
            if names:
                found = [name.removeprefix(self._former) for name in names]
                copied += await self._timed(link.copy(list(self._pairs(found))))
            if cursor == b"0":
                return copied

    def _pairs(self, names: list[bytes]) -> Iterator[bytes]:
        for name in names:
            yield self._former + name
            yield self._prefix + name


def _literally(text: bytes) -> bytes:
    r"""Write a text as a pattern of Redis: what has a meaning in one gets a backslash."""
    for special in (b"\\", b"*", b"?", b"[", b"]"):
        text = text.replace(special, b"\\" + special)
    return text
