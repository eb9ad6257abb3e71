"""The proxy as a process whose wall clock a test can set; all else is as ``pop3proxy`` does it.

    python -m tests.proxy.stepped CLOCK serve --config FILE ...

The file CLOCK holds by how many seconds the clock is wrong.
"""

import mmap
import struct
import sys
import time
from pathlib import Path

_FORM = struct.Struct("d")


class WrongClock:
    """By how much the clock is wrong, in a file that two processes share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_FORM.pack(0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORM.size)

    @property
    def seconds(self) -> float:
        found: float = _FORM.unpack_from(self._memory)[0]
        return found

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        _FORM.pack_into(self._memory, 0, seconds)

    def close(self) -> None:
        self._memory.close()


def main() -> None:
    clock, right = WrongClock(Path(sys.argv.pop(1))), time.time
    # Before anything is imported that keeps the function.
    assert "twisted" not in sys.modules
    time.time = lambda: right() + clock.seconds
    from pop3proxy import cli

    cli.main()


if __name__ == "__main__":
    main()
