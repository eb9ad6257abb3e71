"""A disk under the modules that write snapshots and journals: it can be full, or die with its machine."""

import os
from typing import Any


class Killed(BaseException):
    """The machine or the process is no more; nothing may catch it."""


class Disk:
    """Stands in for ``os``: counts what is written, and dies at one of these steps.

    What was written to a file since its last ``fsync`` is lost if the power is, but for ``part`` of it.
    """

    def __init__(self, dies_at: int = 0, part: float = 1.0, power: bool = False) -> None:
        self.steps = 0
        self.syncs = 0
        self.full = False
        self.dead = False
        self._dies_at = dies_at
        self._part = part
        self._power = power
        self._files: dict[int, str] = {}
        self._synced: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = os.open(path, flags, mode)
        if os.path.isfile(path):
            self._files[descriptor] = str(path)
            self._synced.setdefault(str(path), os.path.getsize(path))
            if flags & os.O_EXCL:
                self._synced[str(path)] = 0
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        if self.full:
            os.write(descriptor, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        if self._dies():
            os.write(descriptor, data[: int(len(data) * self._part)])
            self._die()
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        if self._dies():
            self._die()
        self.syncs += 1
        if (path := self._files.get(descriptor)) is not None:
            self._synced[path] = os.fstat(descriptor).st_size

    def replace(self, source: Any, target: Any) -> None:
        if self._dies():
            self._die()
        os.replace(source, target)
        self._synced[str(target)] = self._synced.pop(str(source), os.path.getsize(target))

    def _dies(self) -> bool:
        if self.dead:
            raise Killed
        self.steps += 1
        return self.steps == self._dies_at

    def _die(self) -> None:
        self.dead = True
        if self._power:
            for path, synced in self._synced.items():
                if os.path.exists(path) and (more := os.path.getsize(path) - synced) > 0:
                    os.truncate(path, synced + int(more * self._part))
        raise Killed
