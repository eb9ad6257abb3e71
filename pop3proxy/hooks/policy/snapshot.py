"""Writes what a store in memory holds to a file, to be there after a restart; keeps nothing itself."""

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, TextIO

from .allowances import Allowances
from .banrecords import whole
from .memory import MemoryStore

VERSION: Final = 1
"""The ``v`` of the file: raised when its form changes."""

JOURNAL: Final = "journal"
"""The key of the number of the last record of the journal that a snapshot has; old ones have none."""

ALLOWED: Final = "allowed"
"""The key of what is allowed by command; old ones have none."""

_PORTION: Final = 32
"""Rows that are written before other threads get their turn: so many take less than a millisecond."""

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class SnapshotError(OSError):
    """A snapshot cannot be read or written: one line that says what to change."""


def write(store: MemoryStore, path: str, secrets: bool) -> None:
    """Write a snapshot; a kill at any moment leaves the old one or the new one. Raises SnapshotError.

    ``secrets`` writes what comes from passwords too, which is worth nothing if the key of their hashes
    is made anew at the next start.
    """
    writing(store.dump(secrets), path, Lock())()


def writing(held: dict[str, Iterable[Any]], path: str, lock: Lock) -> Callable[[], None]:
    """Return what writes a snapshot as ``write`` does, and may be called in another thread.

    Those that share a lock write one after the other.
    """
    target = Path(path)
    # One name, so that kills do not leave a file each. In the same folder, so that it can be renamed.
    temporary = target.with_name(f".{target.name}.new")

    def write_now() -> None:
        try:
            with lock:
                temporary.unlink(missing_ok=True)
                # Only the owner reads it: it names people.
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    _write(held, file)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(temporary, target)
                # The journal is emptied next: by then the new one has to be there.
                sync_folder(target)
        except OSError as problem:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise SnapshotError(
                f"policy.snapshot: cannot write {path}: {problem.strerror};"
                " make its folder writable, with room for it"
            ) from None

    return write_now


def _write(held: dict[str, Iterable[Any]], file: TextIO) -> None:
    """Write in portions, and in between let the reactor go on."""
    file.write(f'{{"v":{VERSION}')
    for name, rows in held.items():
        file.write(f',"{name}":[')
        for number, row in enumerate(rows):
            file.write(f",{_encode(row)}" if number else _encode(row))
            if number % _PORTION == 0:
                time.sleep(0)
        file.write("]")
    file.write("}")


def sync_folder(path: Path) -> None:
    """Have the name of a file on disk, too. Raises OSError."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(store: MemoryStore, path: str) -> bool:
    """Load a snapshot; return whether there was one. Raises SnapshotError, and then changes nothing."""
    return contents(store, Allowances(), path) is not None


def contents(store: MemoryStore, allowances: Allowances, path: str) -> dict[str, Any] | None:
    """Load a snapshot, and return all that it holds; None if there is none.

    Raises SnapshotError, and then changes nothing.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
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
        whole(found.get(JOURNAL, [0])[0])
        allowed = Allowances()
        allowed.load(found.get(ALLOWED, []))
        store.load(found)
        allowances.load(allowed.rows())
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        raise _broken(path) from None
    assert isinstance(found, dict)
    return found


def _broken(path: str) -> SnapshotError:
    return SnapshotError(
        f"policy.snapshot: {path} is damaged, or no snapshot of this version; move it away"
    )
