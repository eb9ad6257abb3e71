"""How keys and channels in Redis are called; what is in them is said in the scripts."""

from typing import Final

FORMER_MARKS: Final = b"m:"
"""What the names of marks began with behind the prefix, and do still."""


def tagged(prefix: str) -> bytes:
    """Return what all keys begin with: the prefix as a hash tag, so that a cluster keeps them on one node.

    A prefix that holds a hash tag stays as it is (Redis Cluster specification, "Hash tags").
    """
    name = prefix if "{" in prefix else f"{{{prefix}}}"
    return name.encode("utf-8", "surrogateescape")


def untagged(prefix: str) -> bytes:
    """Return what channels begin with, and what keys of former versions began with."""
    return prefix.encode("utf-8", "surrogateescape")
