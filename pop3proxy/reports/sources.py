"""Finds the files of events that were named: what each is, and which are the same; reads no records."""

import glob
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from .problems import ReportError

STANDARD_INPUT: Final = "-"


class Kind(Enum):
    """What a file of events is. The value of a text's kind is its compression, as the engine calls it."""

    PLAIN = "uncompressed"
    GZIP = "gzip"
    ZSTD = "zstd"
    PARQUET = "parquet"


_BEGINNINGS: Final = {
    b"PAR1": Kind.PARQUET,
    b"\x1f\x8b": Kind.GZIP,
    b"\x28\xb5\x2f\xfd": Kind.ZSTD,
}
"""The first bytes tell more than a name does: rotated files have names like ``events.jsonl.2.gz``."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of events."""

    path: str
    kind: Kind


def find(names: Iterable[str]) -> list[Source]:
    """Return the files that paths, globs and folders name, each once. Raises ReportError.

    Of a folder these are the files whose names have ``.json`` or ``.jsonl`` in them or end in ``.parquet``.
    """
    found: dict[tuple[int, int], Source] = {}
    for name in names:
        for path in _paths(name):
            status = _status(path)
            # A file that two names lead to must not be counted twice.
            found.setdefault((status.st_dev, status.st_ino), Source(path, _kind(path)))
    return list(found.values())


def beside(path: str) -> list[str]:
    """Return globs for a file of events and for its rotated predecessors."""
    plain = glob.escape(path)
    return [found for found in (path, f"{plain}.*", f"{plain}-*") if glob.glob(found)] or [path]


def spooled(folder: str) -> Source:
    """Copy standard input to a file, since the engine reads a file more than once."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".jsonl", delete=False) as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return Source(file.name, _kind(file.name))


def is_events_name(name: str) -> bool:
    """Return whether a file in a folder is taken for one of events."""
    return name.endswith(".parquet") or (
        (".jsonl" in name or ".json" in name) and not name.endswith(".unreadable")
    )


def ends_within_a_record(path: str) -> bool:
    """Return whether a file of lines ends with half a record: one that is being written does now and then."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - _TAIL))
        last = file.read(_TAIL).rpartition(b"\n")[2]
    try:
        return bool(last.strip()) and not isinstance(json.loads(last), dict)
    except (ValueError, RecursionError):
        return True


_TAIL: Final = 64 * 1024
"""Bytes at the end of a file that are looked at; few records are as long."""


def _paths(name: str) -> Iterator[str]:
    if os.path.isdir(name):
        found = sorted(str(path) for path in Path(name).iterdir() if is_events_name(path.name))
        if not found:
            raise ReportError(f"{name}: has no files of events; name files, such as {name}/*.log")
        yield from found
    elif os.path.exists(name) or not glob.has_magic(name):
        yield name
    else:
        matching = sorted(glob.glob(name, recursive=True))
        if not matching:
            raise ReportError(f"{name}: no file matches; name the files that the proxy writes")
        yield from (path for path in matching if not os.path.isdir(path))


def _status(path: str) -> os.stat_result:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as problem:
        raise _unreadable(path, problem) from None
    if not stat.S_ISREG(status.st_mode):
        raise ReportError(f"{path}: is no file; pipe what it gives to -, which is standard input")
    return status


def _kind(path: str) -> Kind:
    try:
        with open(path, "rb") as file:
            first = file.read(4)
    except OSError as problem:
        raise _unreadable(path, problem) from None
    for beginning, kind in _BEGINNINGS.items():
        if first.startswith(beginning):
            return kind
    return Kind.PLAIN


def _unreadable(path: str, problem: Exception) -> ReportError:
    why = problem.strerror if isinstance(problem, OSError) else str(problem)
    return ReportError(f"{path}: cannot be read: {why}; name a file of events")
