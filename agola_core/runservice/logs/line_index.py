"""The index of a log's lines: the way to any line without reading what stands before it.

A line ends at its newline, or after 16 KiB where none comes, so that no line is too long to be shown. The index holds
where about every 256 KiB a line begins: four thousand places for a log of 1 GiB. What is between two of them is a
block; of each the index knows the group that is open at its beginning. How many of its lines look like errors is
counted when somebody asks (see `log_view`): that takes longer than all else, and few logs are asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from copy import copy

import msgspec

from agola_core.runservice.logs.line_marks import group_marks, may_begin_groups

MAX_LINE_BYTES = 16 * 1024
STRIDE_BYTES = 256 * 1024
NO_GROUP = NOT_COUNTED = -1
_NEWLINE = ord("\n")


class LineIndex(msgspec.Struct, frozen=True):
    """The index of one log.

    Attributes:
        size: The log's bytes.
        lines: Its lines; a last one without a newline counts.
        starts: Numbers of lines, from 0, each with the byte at which it begins; ascending, first the line 0.
        groups: For each block the line that began the group that is open at its beginning, or `NO_GROUP`; () in an
            index that an older version made.
        errors: For each block how many lines look like errors, or `NOT_COUNTED`; () where none was counted.
    """

    size: int
    lines: int
    starts: tuple[tuple[int, int], ...]
    groups: tuple[int, ...] = ()
    errors: tuple[int, ...] = ()

    def before(self, line: int) -> tuple[int, int]:
        """Return the last indexed line that is not behind a line, and where it begins."""
        return self.starts[self.block(line)]

    def block(self, line: int) -> int:
        """Return the number of the block that a line is in."""
        return bisect_right(self.starts, line, key=lambda start: start[0]) - 1

    def span(self, block: int) -> tuple[int, int, int, int]:
        """Return a block's first line and where it begins, and the line after its last one and where that begins."""
        after = self.starts[block + 1] if block + 1 < len(self.starts) else (self.lines, self.size)
        return *self.starts[block], *after


class LineCounter:
    """Makes the index of a log while its pieces pass by.

    Args:
        pieces: The log, cut anywhere.
        stride: The bytes between indexed lines.
    """

    def __init__(self, pieces: Iterable[bytes] = (), stride: int = STRIDE_BYTES) -> None:
        self._pieces = pieces
        self._stride = stride
        self._starts, self._groups = [(0, 0)], [NO_GROUP]
        self._lines = self._offset = 0
        self._group, self._is_cut = NO_GROUP, False
        self._held, self._begins_groups = b"", False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, once."""
        for piece in self._pieces:
            self.take(piece)
            yield piece

    @property
    def size(self) -> int:
        """The bytes that have passed by."""
        return self._offset + len(self._held)

    @property
    def blocks(self) -> int:
        """How many blocks have passed by whole."""
        return len(self._starts) - 1

    def index(self, ahead: bytes = b"") -> LineIndex:
        """Return the index of what has passed by, and of what follows now but may yet change."""
        if ahead:
            counter = copy(self)
            counter._starts, counter._groups = [*self._starts], [*self._groups]  # noqa: SLF001 - its own
            counter.take(ahead)
            return counter.index()
        rest = sum(1 for _ in split_lines(self._held))
        return LineIndex(self.size, self._lines + rest, tuple(self._starts), tuple(self._groups))

    def take(self, piece: bytes) -> None:
        """Count a piece."""
        data, place = self._held + piece, 0
        begins_groups = self._begins_groups or may_begin_groups(data, len(self._held))
        while len(data) - place > MAX_LINE_BYTES:
            end = part_end(data, place)
            if begins_groups or self._group != NO_GROUP:  # seldom
                self._take_groups(data[place:end])
            self._take_part(data, place, end)
            place = end
        self._held = data[place:]
        self._begins_groups = begins_groups and may_begin_groups(self._held)

    def _take_part(self, data: bytes, begin: int, end: int) -> None:
        """Count lines that are whole, or a line that was cut."""
        self._is_cut = data[end - 1] != _NEWLINE
        self._lines += 1 if self._is_cut else data.count(b"\n", begin, end)
        self._offset += end - begin
        if self._offset - self._starts[-1][1] >= self._stride:
            self._starts.append((self._lines, self._offset))
            self._groups.append(self._group)

    def _take_groups(self, part: bytes) -> None:
        line = counted = 0
        for mark in group_marks(part, is_cut=self._is_cut):
            line, counted = line + part.count(b"\n", counted, mark.place), mark.place
            self._group = self._lines + line if mark.begins else NO_GROUP


def split_lines(data: bytes) -> Iterator[bytes]:
    """Yield the lines of bytes that begin with a line and end with one, newlines included."""
    place = 0
    while place < len(data):
        end = _line_end(data, place)
        yield data[place:end]
        place = end


def part_end(data: bytes, place: int) -> int:
    """Return where a part of lines ends that begins at a place: whole lines of at most 16 KiB, or one that is cut."""
    if len(data) - place <= MAX_LINE_BYTES:
        return len(data)
    return data.rfind(b"\n", place, place + MAX_LINE_BYTES) + 1 or _line_end(data, place)


def has_cut_lines(data: bytes) -> bool:
    """Return whether bytes that begin with a line have one that is cut before their end."""
    place = 0
    while len(data) - place > MAX_LINE_BYTES:
        end = data.rfind(b"\n", place, place + MAX_LINE_BYTES) + 1
        if not end:
            return True
        place = end
    return False


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
