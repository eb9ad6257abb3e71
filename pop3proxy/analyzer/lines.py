"""Cuts a byte stream into bounded lines and reads or skips multi-line bodies; knows no command.

A line ends at LF; one CR before it is taken off and no more. Nothing here scans a byte twice, however
small the pieces in which a line arrives, and nothing keeps more of a line than it was told to.
"""

import re

LF = 0x0A
CR = 0x0D
_DOT = 0x2E


class LineCutter:
    """Takes the bytes of one side, a chunk at a time, and hands out complete lines.

    After ``cut`` returned a line, ``crlf`` says whether CR LF ended it and ``truncated`` whether it was
    longer than the limit, as a line that has no end yet can be, too; after every ``cut``, ``taken`` is the
    number of bytes of the chunk that it used.
    """

    __slots__ = ("_chunk", "_last", "_length", "_pos", "begun", "crlf", "taken", "truncated")

    def __init__(self) -> None:
        """Begin with nothing in hand."""
        self._chunk = b""
        self._pos = 0
        self.begun: bytearray | None = None  # the beginning of an unfinished line
        self._length = 0  # its length so far, with what was not kept
        self._last = 0  # its last byte so far
        self.crlf = True
        self.truncated = False
        self.taken = 0

    def feed(self, data: bytes) -> None:
        """Add bytes behind those not cut yet."""
        self._chunk = self._chunk[self._pos :] + data if self._pos < len(self._chunk) else data
        self._pos = 0

    @property
    def waiting(self) -> int:
        """The number of bytes of the chunk that were not cut yet."""
        return len(self._chunk) - self._pos

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun and not ended: ``begun`` is what is kept of it."""
        return self.begun is not None

    @property
    def kept(self) -> int:
        """The number of bytes of the unfinished line that are kept."""
        return len(self.begun) if self.begun is not None else 0

    def head(self, size: int) -> bytes:
        """Return up to ``size`` bytes from the beginning of the unfinished line."""
        return bytes(self.begun[:size]) if self.begun is not None else b""

    def holds(self, byte: bytes) -> bool:
        """Say whether a byte is in the unfinished line, as far as that is kept."""
        return self.begun is not None and byte in self.begun

    @property
    def length(self) -> int:
        """The length of the unfinished line so far."""
        return self._length if self.begun is not None else 0

    def peek(self, size: int) -> bytes:
        """Return up to ``size`` of the bytes that were not cut yet."""
        return self._chunk[self._pos : self._pos + size]

    def take(self, size: int) -> bytes:
        """Cut off up to ``size`` bytes of the chunk, whatever they are."""
        data = self._chunk[self._pos : self._pos + size]
        self._move(self._pos + len(data))
        self.taken = len(data)
        return data

    def skip(self, size: int) -> None:
        """Cut off so many bytes of the chunk, which has them."""
        self._move(self._pos + size)

    def _move(self, position: int) -> None:
        """Go on at a position, and let go of a chunk that is used up."""
        if position == len(self._chunk):
            self._chunk, position = b"", 0
        self._pos = position

    def rejoin(self) -> int:
        """Put the beginning of a line back before its end, if both are there; return the octets put back."""
        head = self.begun
        if head is None or len(head) != self._length or self._chunk.find(b"\n", self._pos) < 0:
            return 0
        self._chunk = bytes(head) + self._chunk[self._pos :]
        self._pos = 0
        self.begun = None
        return len(head)

    def drop(self) -> None:
        """Forget the unfinished line."""
        self.begun = None

    def chunk(self) -> tuple[bytes, int]:
        """Return the chunk and the position in it of the first byte not cut yet, for a search in place."""
        return self._chunk, self._pos

    def cut(self, limit: int) -> bytes | None:
        """Return the next line without its end, at most ``limit`` bytes of it, or None if it has none yet."""
        chunk, start = self._chunk, self._pos
        end = chunk.find(b"\n", start)
        if end < 0:
            self._move(len(chunk))
            self.taken = len(chunk) - start
            if self.taken:
                self._keep(chunk[start:], limit)
                # A last CR may be part of the line's end.
                self.truncated = self._length - (self._last == CR) > limit
            return None
        # As _move does, without a call for each line.
        self.taken = end + 1 - start
        if end + 1 == len(chunk):
            self._chunk, self._pos = b"", 0
        else:
            self._pos = end + 1
        if self.begun is not None:
            return self._join(chunk[start:end], limit)
        self.crlf = end > start and chunk[end - 1] == CR
        line = chunk[start : end - 1] if self.crlf else chunk[start:end]
        self.truncated = len(line) > limit
        return line[:limit] if self.truncated else line

    def _keep(self, piece: bytes, limit: int) -> None:
        """Remember the beginning of an unfinished line."""
        if self.begun is None:
            self.begun = bytearray()
            self._length = 0
        # One byte over the limit is kept: if it is the CR of the line's end, the line was not too long.
        room = limit + 1 - len(self.begun)
        if room > 0:
            self.begun += piece[:room]
        self._length += len(piece)
        self._last = piece[-1]

    def _join(self, rest: bytes, limit: int) -> bytes:
        """Finish the line whose beginning is kept."""
        if rest:
            self._keep(rest, limit)
        self.crlf = self._last == CR
        length = self._length - self.crlf
        self.truncated = length > limit
        assert self.begun is not None
        line = bytes(self.begun[: min(length, limit)])
        self.begun = None
        return line


class Body:
    """The lines of a multi-line body (RFC 1939 section 3), one at a time.

    ``crlf`` is how the status line before the body ended, which the body is expected to keep to.
    After the closing line ``mixed`` says whether it, or the line before it, ended otherwise.
    """

    __slots__ = ("_before", "_crlf", "mixed")

    def __init__(self, crlf: bool) -> None:
        """Begin behind the status line."""
        self._crlf = crlf
        self._before = crlf
        self.mixed = False

    @property
    def end(self) -> bytes:
        """How the status line ended."""
        return b"\r\n" if self._crlf else b"\n"

    def run(self, chunk: bytes, start: int, limit: int) -> tuple[bytes, list[bytes]] | None:
        """Return the plain lines that begin at ``start`` as they stand there, and without their ends.

        Plain are lines that end as the status line did and do not begin with a dot, so that there is nothing
        to do to any of them. They are at most ``limit`` octets in all. None if there are none.
        """
        stop = chunk.rfind(b"\n", start, start + limit) + 1
        if stop - start <= 1 or chunk[start] == _DOT:
            return None
        # Mail has few dots, and to look for one octet takes a tenth of the time.
        if chunk.find(b".", start, stop) >= 0 and (dot := chunk.find(b"\n.", start, stop)) >= 0:
            stop = dot + 1
        data, end = chunk[start:stop], self.end
        if not data.endswith(end) or (not self._crlf and b"\r\n" in data):
            return None
        lines = data[: -len(end)].split(end)
        if data.count(b"\n") != len(lines):
            return None
        self._before = self._crlf
        return data, lines

    def line(self, text: bytes, crlf: bool) -> bytes | None:
        """Return the line as it was before stuffing, or None for the closing line.

        A stuffed dot is taken off only where the line before ended as the status line did: a server that
        stuffs does so behind the line ends that it sends itself.
        """
        regular, self._before = self._before == self._crlf, crlf
        if text == b".":
            self.mixed = not regular or crlf != self._crlf
            return None
        if regular and text[:1] == b".":
            return text[1:]
        return text


class BodyEnd:
    """Finds the closing dot of a body that nobody wants to see line by line.

    ``crlf`` is how the status line before the body ended, which the body is expected to keep to.
    After a find, ``mixed`` says whether the closing line, or the one before it, ended otherwise.
    """

    __slots__ = ("_crlf", "_tail", "mixed")

    _DOT_LINE = re.compile(rb"\n\.\r?\n")
    _TAIL = 4  # as far back as a closing line that is split over two chunks can reach, with a CR before it
    _HOPS = 8  # dots looked at one by one, before it pays to search for the whole pattern

    def __init__(self, crlf: bool) -> None:
        """Begin behind the status line: an empty body is ``.`` right at the start."""
        self._crlf = crlf
        self._tail = b"\r\n" if crlf else b"\n"
        self.mixed = False

    @property
    def unfinished(self) -> bool:
        """Whether the bytes so far end inside a line."""
        return self._tail[-1] != LF

    def find(self, data: bytes, start: int) -> int:
        """Return the position behind the closing line, or -1 if it is not complete in ``data``."""
        tail = self._tail
        seam = tail + data[start : start + self._TAIL]
        match = self._DOT_LINE.search(seam)
        if match is not None:
            self._judge(seam, match.start(), match.end())
            return start + match.end() - len(tail)
        match = self._search(data, start)
        if match is None:
            self._tail = (seam if len(data) - start < self._TAIL else data)[-self._TAIL :]
            return -1
        self._judge(data, match.start(), match.end())
        return match.end()

    def _search(self, data: bytes, start: int) -> re.Match[bytes] | None:
        """Find the pattern: base64 has hardly a dot, so hopping from dot to dot is thirty times as fast."""
        position = start
        for _ in range(self._HOPS):
            dot = data.find(b".", position)
            if dot < 0:
                return None
            if dot > start and data[dot - 1] == LF:
                match = self._DOT_LINE.match(data, dot - 1)
                if match is not None:
                    return match
            position = dot + 1
        return self._DOT_LINE.search(data, position - 1)

    def _judge(self, data: bytes, start: int, end: int) -> None:
        """Compare the ends of the closing line and of the line before it with the status line's."""
        before = start > 0 and data[start - 1] == CR
        closing = data[end - 2] == CR
        self.mixed = not (before == closing == self._crlf)
