"""Writes what a store in memory holds to a file, to be there after a restart; keeps nothing itself."""

import json
import os
import tempfile
from pathlib import Path
from typing import Final

from .memory import MemoryStore

VERSION: Final = 1
"""The ``v`` of the file: raised when its form changes."""


class SnapshotError(OSError):
    """A snapshot cannot be read or written: one line that says what to change."""


def write(store: MemoryStore, path: str, secrets: bool) -> None:
    """Write a snapshot; a kill at any moment leaves the old one or the new one. Raises SnapshotError.

    ``secrets`` writes what comes from passwords too, which is worth nothing if the key of their hashes
    is made anew at the next start.
    """
    target = Path(path)
    text = json.dumps({"v": VERSION, **store.dump(secrets)}, separators=(",", ":"))
    temporary = ""
    try:
        # Only the owner reads it: it names people. In the same folder, so that it can be renamed.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as problem:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise SnapshotError(
            f"policy.snapshot: cannot write {path}: {problem.strerror}; make its folder writable"
        ) from None


def read(store: MemoryStore, path: str) -> bool:
    """Load a snapshot; say whether there was one. Raises SnapshotError, and then changes nothing."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    except UnicodeDecodeError:
        raise _broken(path) from None
    except OSError as problem:
        raise SnapshotError(
            f"policy.snapshot: cannot read {path}: {problem.strerror}; make it readable"
        ) from None
    try:
        found = json.loads(text)
        if found["v"] != VERSION:
            raise ValueError
        store.load(found)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise _broken(path) from None
    return True


def _broken(path: str) -> SnapshotError:
    return SnapshotError(f"policy.snapshot: {path} is no snapshot of this version; move it away")
