"""The index of a log's lines: the way to any line without reading what stands before it.

A line ends at its newline, or after 16 KiB where none comes, so that no line is too long to be shown. The index holds
where about every 256 KiB a line begins: four thousand places for a log of 1 GiB.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from agola_core.objectstorage.port import ObjectReader

MAX_LINE_BYTES = 16 * 1024
STRIDE_BYTES = 256 * 1024
_NEWLINE = ord("\n")


class LineIndex(msgspec.Struct, frozen=True):
    """The index of one log.

    Attributes:
        size: The log's bytes.
        lines: Its lines; a last one without a newline counts.
        starts: Numbers of lines, from 0, each with the byte at which it begins; ascending, first the line 0.
    """

    size: int
    lines: int
    starts: tuple[tuple[int, int], ...]

    def before(self, line: int) -> tuple[int, int]:
        """Return the last indexed line that is not behind a line, and where it begins."""
        return self.starts[bisect_right(self.starts, line, key=lambda start: start[0]) - 1]


class LineCounter:
    """Makes the index of a log while its pieces pass by.

    Args:
        pieces: The log, cut anywhere.
        stride: The bytes between indexed lines.
    """

    def __init__(self, pieces: Iterable[bytes], stride: int = STRIDE_BYTES) -> None:
        self._pieces = pieces
        self._stride = stride
        self._starts = [(0, 0)]
        self._lines = self._offset = 0
        self._held = b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, once."""
        for piece in self._pieces:
            self._count(piece)
            yield piece

    def index(self) -> LineIndex:
        """Return the index of what has passed by."""
        rest = sum(1 for _ in split_lines(self._held))
        return LineIndex(self._offset + len(self._held), self._lines + rest, tuple(self._starts))

    def _count(self, piece: bytes) -> None:
        data, place = self._held + piece, 0
        while len(data) - place > MAX_LINE_BYTES:
            end = data.rfind(b"\n", place, place + MAX_LINE_BYTES) + 1
            if end:
                self._lines += data.count(b"\n", place, end)
            else:
                end = _line_end(data, place)
                self._lines += 1
            place = end
            if self._offset + place - self._starts[-1][1] >= self._stride:
                self._starts.append((self._lines, self._offset + place))
        self._offset += place
        self._held = data[place:]


def lines_from(reader: ObjectReader, offset: int) -> Iterator[bytes]:
    """Yield the lines of a log from one that begins at a byte, newlines included.

    Args:
        reader: Reads the log.
        offset: Where the first line begins.
    """
    held = b""
    while piece := reader.read(offset, STRIDE_BYTES):
        offset += len(piece)
        data, place = held + piece, 0
        while place < len(data):
            end = _line_end(data, place)
            if data[end - 1] != _NEWLINE and len(data) - place <= MAX_LINE_BYTES:
                break  # it may go on
            yield data[place:end]
            place = end
        held = data[place:]
    yield from split_lines(held)


def split_lines(data: bytes) -> Iterator[bytes]:
    """Yield the lines of bytes that begin with a line and end with one, newlines included."""
    place = 0
    while place < len(data):
        end = _line_end(data, place)
        yield data[place:end]
        place = end


def _line_end(data: bytes, place: int) -> int:
    """Return where the line ends that begins at a place; a line that is cut is cut between characters."""
    end = data.find(b"\n", place, place + MAX_LINE_BYTES) + 1
    if end:
        return end
    end = place + MAX_LINE_BYTES
    if end >= len(data):
        return len(data)
    for back in range(4):
        if data[end - back] & 0xC0 != 0x80:  # the first byte of a character, or of none
            return end - back
    return end
