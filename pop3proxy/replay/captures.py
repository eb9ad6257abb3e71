"""Reads capture files, pcap and pcapng, into frames with their times; what is in a frame is not decoded.

pcap is described in draft-ietf-opsawg-pcap, pcapng in draft-ietf-opsawg-pcapng. Memory is bounded by the
largest record that is believed (``MAX_FRAME``), whatever the file says of itself.
"""

import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final

CHUNK: Final = 1024 * 1024
"""Octets read at a time."""

MAX_FRAME: Final = 16 * 1024 * 1024
"""Octets of the largest record; who captures writes 256 KiB at the most, so that more is damage."""

STANDARD_INPUT: Final = "-"

_STDIN: Final = 0
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC

Frame = tuple[float, int, bytes]
"""When it was captured (seconds since the epoch), its link type, and its octets."""


class CaptureError(Exception):
    """The file is no capture, or is damaged so that it cannot be read on: one line that says how."""


class Stamp(float):
    """A time that a float cannot hold as it was captured; formatted, it shows all of its digits.

    A float of today's times is exact to a quarter of a microsecond, and captures have nanoseconds.
    """

    __slots__ = ("_digits", "_units")

    _digits: int
    _units: int

    def __new__(cls, units: int, digits: int) -> "Stamp":
        """Make it of a number of units, of which a second has ten to the power of ``digits``."""
        stamp = super().__new__(cls, units / 10**digits)
        stamp._units = units
        stamp._digits = digits
        return stamp

    def __format__(self, _: str) -> str:
        """Write the time as it was captured, whatever precision is asked for."""
        seconds, fraction = divmod(self._units, 10**self._digits)
        return f"{seconds}.{fraction:0{self._digits}d}"


class NoCapture(CaptureError):
    """The file is of another kind."""


class CaptureFile:
    """An open capture. ``position`` and ``size`` are in octets of the file, ``size`` 0 if it is not known.

    ``cut`` says, once all was read, what was wrong with the end of the file, or is empty.
    """

    def __init__(self, path: str) -> None:
        """Open ``path``, or standard input if it is ``-``. Raises CaptureError."""
        self.path = path
        self.cut = ""
        try:
            descriptor = os.dup(_STDIN) if path == STANDARD_INPUT else os.open(path, _FLAGS)
            self._raw = io.BufferedReader(io.FileIO(descriptor))
            self.size = os.fstat(descriptor).st_size
            head = self._raw.peek(2)[:2]
        except OSError as problem:
            raise CaptureError(f"{path}: cannot be read: {problem.strerror}") from None
        packed = head == b"\x1f\x8b"
        self._file: io.BufferedIOBase = gzip.GzipFile(fileobj=self._raw) if packed else self._raw
        self._buffer = b""
        self._at = 0
        self._read = 0  # octets, unpacked, before the buffer

    @property
    def position(self) -> int:
        """How much of the file was read."""
        try:
            return self._raw.tell()
        except OSError:
            return 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames. Raises NoCapture, and CaptureError where the file cannot be read on."""
        magic = self._take(4)
        if magic in _PCAP:
            yield from self._pcap(*_PCAP[magic])
        elif magic == _SECTION:
            yield from self._pcapng()
        elif not magic:
            raise CaptureError(f"{self.path}: {self.cut or 'is empty'}")
        else:
            raise NoCapture(
                f"{self.path}: is no capture; pcap and pcapng can be read, gzipped or not"
            )

    # --- octets -----------------------------------------------------------------------------------------

    def _more(self, size: int) -> bool:
        """Have ``size`` octets in the buffer from ``_at`` on; return whether there are so many."""
        while len(self._buffer) - self._at < size:
            try:
                chunk = self._file.read1(CHUNK)
            except (OSError, EOFError, zlib.error) as problem:
                if isinstance(problem, OSError) and problem.errno is not None:
                    raise CaptureError(f"{self.path}: cannot be read: {problem.strerror}") from None
                self.cut = "its compressed data is cut off or damaged"
                chunk = b""
            if not chunk:
                return False
            self._read += self._at
            self._buffer = self._buffer[self._at :] + chunk
            self._at = 0
        return True

    def _take(self, size: int) -> bytes:
        """Return the next ``size`` octets, or none if there are not so many."""
        if not self._more(size):
            if self._at < len(self._buffer):
                self.cut = self.cut or "its last record is cut off"
                self._at = len(self._buffer)
            return b""
        start = self._at
        self._at = start + size
        return self._buffer[start : self._at]

    def _damaged(self, what: str) -> CaptureError:
        return CaptureError(
            f"{self.path}: is damaged at octet {self._read + self._at}: {what};"
            " what comes before that was read"
        )

    # --- pcap -------------------------------------------------------------------------------------------

    def _pcap(self, order: str, digits: int) -> Iterator[Frame]:
        head = self._take(20)
        if not head:
            self.cut = "its header is cut off"
            return
        # The upper bits say how long a checksum is at the end of each frame, where IP's length leaves it out.
        link = struct.unpack(f"{order}16xI", head)[0] & 0xFFFF
        unpack = struct.Struct(f"{order}IIII").unpack_from
        micro = digits == _MICRO
        second = 10**digits
        size = 0
        while self._more(16 + size):
            buffer, at = self._buffer, self._at
            size = 0
            whole = len(buffer)
            while at + 16 <= whole:
                seconds, fraction, size, _ = unpack(buffer, at)
                end = at + 16 + size
                if end > whole:
                    break
                ts = (
                    seconds + fraction / 1e6
                    if micro
                    else Stamp(seconds * second + fraction, digits)
                )
                yield ts, link, buffer[at + 16 : end]
                at = end
                size = 0
            self._at = at
            if size > MAX_FRAME:
                raise self._damaged(f"a record of {size} octets")
        if self._at < len(self._buffer):
            self.cut = self.cut or "its last record is cut off"

    # --- pcapng -----------------------------------------------------------------------------------------

    def _pcapng(self) -> Iterator[Frame]:
        """Read blocks; the first one's type was taken already."""
        section = _Section(self, self._section_order())
        while block := section.block():
            kind, body = block
            if kind == _SECTION_TYPE:
                section = _Section(self, section.order)
            elif kind == _INTERFACE:
                section.add_interface(body)
            elif kind in _PACKETS:
                frame = _PACKETS[kind](section, body)
                if frame is not None:
                    yield frame

    def _section_order(self) -> str:
        """Read what follows a section header's type; return the byte order of its section."""
        head = self._take(8)
        if not head:
            self.cut = "its header is cut off"
            return "<"
        order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[4:])
        if order is None:
            raise self._damaged("a section header without its byte order")
        (length,) = struct.unpack(f"{order}I", head[:4])
        if not 28 <= length <= MAX_FRAME:
            raise self._damaged(f"a section header of {length} octets")
        self._take(length - 12)
        return order

    def _block(self, order: str) -> tuple[int, bytes] | None:
        """Return a block's type and body; None at the end. A section header's body is read already."""
        kind_octets = self._take(4)
        if not kind_octets:
            return None
        if kind_octets == _SECTION:
            return _SECTION_TYPE, self._section_order().encode("ascii")
        length_octets = self._take(4)
        if not length_octets:
            self.cut = self.cut or "its last record is cut off"
            return None
        kind, length = struct.unpack(f"{order}II", kind_octets + length_octets)
        if not 12 <= length <= MAX_FRAME or length % 4:
            raise self._damaged(f"a block of {length} octets")
        body = self._take(length - 8)
        if not body:
            self.cut = self.cut or "its last record is cut off"
            return None
        return kind, body[:-4]


class _Section:
    """A section of a pcapng file: its byte order and its interfaces."""

    def __init__(self, file: CaptureFile, order: str) -> None:
        self.order = order
        self._file = file
        self._interfaces: list[tuple[int, int, int, int]] = []
        self._last: float = 0.0
        self._head = struct.Struct(f"{order}IIIII").unpack_from

    def block(self) -> tuple[int, bytes] | None:
        block = self._file._block(self.order)
        if block is not None and block[0] == _SECTION_TYPE:
            self.order = block[1].decode("ascii")
        return block

    def add_interface(self, body: bytes) -> None:
        """Remember an interface's link type, how long its frames may be, and how its times are counted."""
        if len(body) < 8:
            raise self._file._damaged("an interface without a link type")
        if len(self._interfaces) >= _MAX_INTERFACES:
            raise self._file._damaged(f"more than {_MAX_INTERFACES} interfaces")
        link, snap = struct.unpack_from(f"{self.order}HxxI", body)
        resolution, offset = _MICRO, 0
        for code, value in self._options(body, 8):
            if code == _IF_TSRESOL and value:
                resolution = value[0]
            elif code == _IF_TSOFFSET and len(value) == 8:
                (offset,) = struct.unpack(f"{self.order}q", value)
        self._interfaces.append((link, snap, resolution, offset))

    def _options(self, body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
        while at + 4 <= len(body):
            code, length = struct.unpack_from(f"{self.order}HH", body, at)
            if code == 0:
                return
            yield code, body[at + 4 : at + 4 + length]
            at += 4 + (length + 3) // 4 * 4

    def enhanced_packet(self, body: bytes) -> Frame | None:
        if len(body) < 20:
            raise self._file._damaged("a packet without its header")
        number, high, low, size, _ = self._head(body)
        return self._frame(number, high, low, size, body)

    def old_packet(self, body: bytes) -> Frame | None:
        """Read the packet block that the enhanced one replaced."""
        if len(body) < 20:
            raise self._file._damaged("a packet without its header")
        number, high, low, size = struct.unpack_from(f"{self.order}HxxIII", body)
        return self._frame(number, high, low, size, body)

    def _frame(self, number: int, high: int, low: int, size: int, body: bytes) -> Frame | None:
        if number >= len(self._interfaces):
            raise self._file._damaged(f"a packet of interface {number}, which was not described")
        link, _, resolution, offset = self._interfaces[number]
        self._last = ts = _time(high << 32 | low, resolution, offset)
        return ts, link, body[20 : 20 + size]

    def simple_packet(self, body: bytes) -> Frame | None:
        """Read a packet that has no time of its own: it gets that of the one before."""
        if not self._interfaces or len(body) < 4:
            raise self._file._damaged("a packet of an interface that was not described")
        link, snap, _, _ = self._interfaces[0]
        (size,) = struct.unpack_from(f"{self.order}I", body)
        return self._last, link, body[4 : 4 + (min(size, snap) if snap else size)]


def _time(units: int, resolution: int, offset: int) -> float:
    """Give a time in seconds; ``resolution`` is a negative power of ten, or of two if its high bit is set."""
    if resolution == _MICRO:
        return units / 1e6 + offset if units < 1 << 53 else units // 10**6 + offset
    power = resolution & 0x7F
    if resolution & 0x80:
        return units / (1 << power) + offset
    if power < _MICRO or power > _MOST_DIGITS:
        return float(units / 10**power) + offset
    return Stamp(units + offset * 10**power, power)


_MICRO: Final = 6
_NANO: Final = 9
_MOST_DIGITS: Final = 18
_MAX_INTERFACES: Final = 65_536

_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", _MICRO),
    b"\xa1\xb2\xc3\xd4": (">", _MICRO),
    b"\x4d\x3c\xb2\xa1": ("<", _NANO),
    b"\xa1\xb2\x3c\x4d": (">", _NANO),
}
_SECTION: Final = b"\x0a\x0d\x0d\x0a"
_SECTION_TYPE: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_IF_TSRESOL: Final = 9
_IF_TSOFFSET: Final = 14
_PACKETS: Final = {
    2: _Section.old_packet,
    3: _Section.simple_packet,
    6: _Section.enhanced_packet,
}
