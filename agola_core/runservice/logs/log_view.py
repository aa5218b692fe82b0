"""A log by its lines and groups, wherever it is: windows of any size of log, and the ways to the next text or error."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from agola_core.objectstorage.port import ObjectReader
from agola_core.runservice.logs.line_index import (
    NO_GROUP,
    NOT_COUNTED,
    LineIndex,
    has_cut_lines,
    part_end,
    split_lines,
)
from agola_core.runservice.logs.line_marks import group_marks, group_name, is_error, likely_errors, shown
from agola_core.runtime.byte_search import find
from agola_core.runtime.context import Context

SHORT_GROUP = 50
"""A group of at most so many lines is always sent whole."""
_MOST_BYTES, _ROW_BYTES = 1 << 20, 64
_KEPT_BLOCKS = 4
_COUNTED_BYTES = 16 << 20
"""About so much of a log is counted at once."""
_MOST_EXAMINED = 8_000
"""So many lines that may be errors are counted at once, and the rest of their block."""


class Group(NamedTuple):
    """Lines that fold together.

    Attributes:
        first: The line that begins it, from 0.
        end: The line after its last one.
        has_ended: Whether something ended it; the last group of a log goes on to the log's end without.
        name: What it is called.
    """

    first: int
    end: int
    has_ended: bool
    name: bytes


class Piece(NamedTuple):
    """Lines of a window that are in one group, or in none.

    Attributes:
        first: The number of the first one, from 0.
        begin: Where it begins, in bytes.
        lines: The lines, newlines included; none of a long group that stays folded.
        group: Their group.
        error: Of a group that stays folded, the first line that looks like an error.
    """

    first: int
    begin: int
    lines: list[bytes]
    group: Group | None
    error: int | None = None


class _Mark(NamedTuple):
    line: int
    begins: bool


class LogView:
    """Looks into a log; for one caller at a time.

    Args:
        reader: Reads the log.
        index: The index of its lines; what came later is not looked at.
        context: Ends what takes long.
    """

    def __init__(self, reader: ObjectReader, index: LineIndex, context: Context) -> None:
        self._reader = reader
        self.index = index
        self._context = context
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lowers: OrderedDict[int, bytes] = OrderedDict()
        self._parts: dict[int, list[tuple[int, int, int]]] = {}
        self._marks: dict[int, list[_Mark]] = {}
        self._begins: dict[int, int] = {}  # of lines that are likely to be asked for
        self._errors = list(index.errors) or [NOT_COUNTED] * len(index.starts)
        self._bare = -1, b""  # a block without what colours it
        self._examined = 0

    # Windows

    def window(self, first: int, count: int, size: int = _MOST_BYTES) -> list[Piece]:
        """Return what is seen from a line on; a long group that begins there is folded, one that began before is not.

        Args:
            first: The line, from 0.
            count: The most lines that are sent; a folded group counts as one.
            size: About the most bytes of a page that they take; a short group is sent whole, and one line always.
        """
        pieces: list[Piece] = []
        line = first
        while count > 0 and line < self.index.lines and size > 0:
            piece, line = self._from(line, count, size, is_first=line == first)
            count -= max(1, len(piece.lines))
            size -= _size(piece.lines)
            pieces.append(piece)
        return pieces

    def before(self, end: int, count: int, size: int = _MOST_BYTES) -> list[Piece]:
        """Return what is seen before a line (see `window`)."""
        pieces: list[Piece] = []
        end = min(end, self.index.lines)
        while count > 0 and end > 0 and size > 0:
            piece = self._until(end, count, size)
            end = piece.first
            count -= max(1, len(piece.lines))
            size -= _size(piece.lines)
            pieces.append(piece)
        return pieces[::-1]

    def around(self, line: int, count: int, size: int = _MOST_BYTES) -> list[Piece]:
        """Return what is seen around a line (see `window`); its group is not folded."""
        line = max(0, min(line, self.index.lines - 1))
        return joined(self.before(line, count // 2, size // 2), self.window(line, count - count // 2, size // 2))

    def _from(self, line: int, count: int, size: int, *, is_first: bool) -> tuple[Piece, int]:
        """Return the piece that begins with a line, and the line after what it stands for."""
        group = self.group_at(line)
        if group is None:
            piece = self._piece(line, min(line + count, self._next_begin(line)), None, size)
        elif group.has_ended and group.end - group.first > SHORT_GROUP and not (line > group.first and is_first):
            return self._folded(group), group.end
        else:
            is_short = group.has_ended and group.end - group.first <= SHORT_GROUP
            piece = self._piece(line, min(line + count, group.end), group, _MOST_BYTES if is_short else size)
        return piece, line + max(1, len(piece.lines))

    def _until(self, end: int, count: int, size: int) -> Piece:
        """Return the piece that ends before a line."""
        group = self.group_at(end - 1)
        if group is None:
            return self._last_of(max(end - count, self._previous_end(end - 1)), end, None, size)
        if group.end - group.first <= SHORT_GROUP:
            return self._last_of(group.first, end, group, _MOST_BYTES)
        if group.end > end or not group.has_ended:
            return self._last_of(max(end - count, group.first), end, group, size)
        return self._folded(group)

    def _piece(self, first: int, end: int, group: Group | None, size: int) -> Piece:
        begin, lines = self.lines(first, end - first)
        return Piece(first, begin, lines[: _fitting(lines, size)], group)

    def _last_of(self, first: int, end: int, group: Group | None, size: int) -> Piece:
        """Return the last lines of a piece."""
        begin, lines = self.lines(first, end - first)
        left = len(lines) - _fitting(lines[::-1], size)
        return Piece(first + left, begin + sum(map(len, lines[:left])), lines[left:], group)

    def _folded(self, group: Group) -> Piece:
        return Piece(group.first, self.lines(group.first, 1)[0], [], group, self._next_error(group.first, group.end))

    # Lines

    def lines(self, first: int, count: int) -> tuple[int, list[bytes]]:
        """Return where a line begins, and so many from it on; fewer at the log's end."""
        count = min(count, self.index.lines - first)
        if count <= 0:
            return self.index.size, []
        found: list[bytes] = []
        block = self.index.block(first)
        at = begin = self._begin_of(first)
        while len(found) < count:
            data, offset = self._block(block), self.index.starts[block][1]
            found += islice(split_lines(data[at - offset :]), count - len(found))
            block += 1
            at = self.index.starts[block][1] if block < len(self.index.starts) else 0
        self._begins[first + count] = begin + sum(map(len, found))
        return begin, found

    def _begin_of(self, line: int) -> int:
        """Return where a line begins, in bytes."""
        if (known := self._begins.get(line)) is not None:
            return known
        number, offset = self.index.before(line)
        data = self._block(self.index.block(line))
        for place, end, lines in self._parts_of(self.index.block(line)):
            if number + lines > line:
                return offset + place + sum(map(len, islice(split_lines(data[place:end]), line - number)))
            number += lines
        return offset + len(data)

    def _line_of(self, block: int, place: int) -> int:
        """Return the number of the line that a place in a block is in."""
        number, data = self.index.starts[block][0], self._block(block)
        for begin, end, lines in self._parts_of(block):
            if place < end:
                return number + data.count(b"\n", begin, place)
            number += lines
        return number

    def _block(self, block: int) -> bytes:
        data = self._blocks.get(block)
        if data is None:
            self._context.check()
            _, begin, _, end = self.index.span(block)
            data = self._blocks[block] = self._reader.read(begin, end - begin)
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return data

    def _parts_of(self, block: int) -> list[tuple[int, int, int]]:
        """Return where a block's parts begin and end (see `line_index.part_end`), and how many lines each has."""
        if (known := self._parts.get(block)) is not None:
            return known
        data, place = self._block(block), 0
        parts = self._parts[block] = []
        while place < len(data):
            end = part_end(data, place)
            parts.append((place, end, data.count(b"\n", place, end) + (data[end - 1 : end] != b"\n")))
            place = end
        return parts

    def _lower(self, block: int) -> bytes:
        data = self._lowers.get(block)
        if data is None:
            data = self._lowers[block] = self._block(block).lower()
            if len(self._lowers) > _KEPT_BLOCKS:
                self._lowers.popitem(last=False)
        return data

    # Groups

    def group_at(self, line: int) -> Group | None:
        """Return the group that a line is in."""
        block = self.index.block(line)
        marks = self._marks_of(block)
        place = bisect_right(marks, line, key=lambda mark: mark.line) - 1
        if place >= 0 and not marks[place].begins and marks[place].line == line:
            place -= 1  # the line that ends a group is its last one
        elif place >= 0 and not marks[place].begins:
            return None
        first = marks[place].line if place >= 0 else self.index.groups[block]
        if first == NO_GROUP:
            return None
        end, has_ended = self._group_end(block, first, place + 1)
        return Group(first, end, has_ended, group_name(self.lines(first, 1)[1][0]) or b"")

    def _group_end(self, block: int, first: int, next_mark: int) -> tuple[int, bool]:
        marks = self._marks_of(block)
        if next_mark >= len(marks):
            last = len(self.index.starts) - 1
            while block < last and self.index.groups[block + 1] == first:
                block += 1
            marks, next_mark = self._marks_of(block), 0
            if not marks or marks[0].line <= first:
                return self.index.lines, False
        mark = marks[next_mark]
        return (mark.line, True) if mark.begins else (mark.line + 1, True)

    def _next_begin(self, line: int) -> int:
        """Return the next line after a line without a group that begins one, or that is in the next block."""
        block = self.index.block(line)
        marks = self._marks_of(block)
        place = bisect_right(marks, line, key=lambda mark: mark.line)
        return marks[place].line if place < len(marks) else self.index.span(block)[2]

    def _previous_end(self, line: int) -> int:
        """Return the first line of those without a group that a line is among, as far as they are in its block."""
        block = self.index.block(line)
        marks = self._marks_of(block)
        place = bisect_left(marks, line, key=lambda mark: mark.line) - 1
        return marks[place].line + 1 if place >= 0 else self.index.starts[block][0]

    def _marks_of(self, block: int) -> list[_Mark]:
        """Return the lines of a block that begin groups, or end one that is open."""
        if (known := self._marks.get(block)) is not None:
            return known
        data, number = self._block(block), self.index.starts[block][0]
        is_open, is_cut = self.index.groups[block] != NO_GROUP, self._is_cut(block, data)
        found: list[_Mark] = []
        for begin, end, lines in self._parts_of(block):
            part, line, counted = data[begin:end], number, 0
            for mark in group_marks(part, is_cut=is_cut):
                line, counted = line + part.count(b"\n", counted, mark.place), mark.place
                if mark.begins:
                    self._begins[line] = self.index.starts[block][1] + begin + mark.place
                if mark.begins or is_open:
                    found.append(_Mark(line, mark.begins))
                is_open = mark.begins
            is_cut = not part.endswith(b"\n")
            number += lines
        self._marks[block] = found
        return found

    def _is_cut(self, block: int, data: bytes) -> bool:
        """Return whether a block that may begin with a mark begins within a line that was cut."""
        begin = self.index.starts[block][1]
        return begin > 0 and b"group::" in data[:60] and self._reader.read(begin - 1, 1) != b"\n"

    # Errors

    @property
    def errors(self) -> tuple[int, ...]:
        """How many lines of each block look like errors, as far as they were counted (see `LineIndex.errors`)."""
        return tuple(self._errors)

    def known_errors(self) -> tuple[int, bool]:
        """Return how many lines look like errors, and whether these are all, as far as they were counted."""
        return sum(errors for errors in self._errors if errors != NOT_COUNTED), NOT_COUNTED not in self._errors

    def count_errors(self) -> tuple[int, bool]:
        """Count on, in some MiB at most, and return what is known then (see `known_errors`)."""
        size = 0
        for block, errors in enumerate(self._errors):
            if errors == NOT_COUNTED and size < _COUNTED_BYTES and self._examined < _MOST_EXAMINED:
                self._errors[block] = sum(1 for _ in self._errors_from(block, 0))
                size += len(self._block(block))
        return self.known_errors()

    def _errors_from(self, block: int, line: int) -> Iterator[int]:
        """Yield the lines of a block, from one on, that look like errors."""
        first = self.index.starts[block][0]
        if self._errors[block] == 0:
            return
        if has_cut_lines(self._block(block)):
            lines = enumerate(split_lines(self._block(block)), first)
            yield from (number for number, data in lines if number >= line and is_error(data))
            return
        text, place = self._shown(block), 0
        if line > first:
            place = len(text) - len(text.split(b"\n", line - first)[-1])
            first = line
        for found in likely_errors(text, place):
            self._examined += 1
            if found.is_error:
                first, place = first + text.count(b"\n", place, found.place), found.place
                yield first

    def _shown(self, block: int) -> bytes:
        """Return a block as a terminal shows it, in lower case; of one without colours that is all that differs."""
        if b"\x1b" not in self._block(block):
            return self._lower(block)
        if block != self._bare[0]:
            self._bare = block, shown(self._block(block))
        return self._bare[1]

    # Ways to other lines

    def next_error(self, line: int) -> int | None:
        """Return the first line from a line on that looks like an error."""
        return self._next_error(line, self.index.lines)

    def previous_error(self, line: int) -> int | None:
        """Return the last line before a line that looks like an error."""
        for block in range(self.index.block(line - 1), -1, -1) if line > 0 else ():
            found = [number for number in self._errors_from(block, 0) if number < line]
            if found:
                return found[-1]
            self._found_none(block, 0, line)
        return None

    def _next_error(self, line: int, before: int) -> int | None:
        for block in range(self.index.block(line), len(self.index.starts)):
            if self.index.starts[block][0] >= before:
                break
            found = next(self._errors_from(block, line), None)
            if found is not None:
                return found if found < before else None
            self._found_none(block, line, self.index.lines)
        return None

    def _found_none(self, block: int, begin: int, end: int) -> None:
        """Remember that a block has no errors, if all of it was looked at."""
        first, _, after, _ = self.index.span(block)
        if begin <= first and end >= after:
            self._errors[block] = 0

    def _place_of(self, line: int, block: int) -> int:
        """Return where a line begins within a block; for one before or after it, the block's beginning or end."""
        first, begin, after, end = self.index.span(block)
        if line <= first:
            return 0
        return end - begin if line >= after else self._begin_of(line) - begin

    def next_text(self, text: bytes, line: int) -> int | None:
        """Return the first line from a line on that has a text, whatever the case of ASCII letters."""
        wanted = text.lower()
        for block in range(self.index.block(line), len(self.index.starts)) if line < self.index.lines else ():
            place = find(self._lower(block), wanted, self._place_of(line, block))
            if place >= 0:
                return self._line_of(block, place)
        return None

    def previous_text(self, text: bytes, line: int) -> int | None:
        """Return the last line before a line that has a text, whatever the case of ASCII letters."""
        wanted = text.lower()
        for block in range(self.index.block(line - 1), -1, -1) if line > 0 else ():
            place = self._lower(block).rfind(wanted, 0, self._place_of(line, block))
            if place >= 0:
                return self._line_of(block, place)
        return None

    def find(self, text: bytes, most: int) -> tuple[list[tuple[int, bytes]], bool]:
        """Return the lines that have a text, from the beginning, and whether these are all.

        Args:
            text: The text; not empty.
            most: The most lines.
        """
        found: list[tuple[int, bytes]] = []
        line = self.next_text(text, 0)
        while line is not None and len(found) <= most:
            found.append((line, self.lines(line, 1)[1][0]))
            line = self.next_text(text, line + 1)
        return found[:most], len(found) <= most


def _size(lines: list[bytes]) -> int:
    """Return about how many bytes of a page lines take."""
    return sum(map(len, lines)) + _ROW_BYTES * len(lines)


def _fitting(lines: list[bytes], size: int) -> int:
    """Return how many of the first lines take about so many bytes of a page; one at least."""
    for number, line in enumerate(lines):
        size -= len(line) + _ROW_BYTES
        if size < 0:
            return max(1, number)
    return len(lines)


def joined(before: list[Piece], after: list[Piece]) -> list[Piece]:
    """Return the pieces of two windows that follow each other; one that both have a part of is one."""
    if not before or not after or not before[-1].lines or before[-1].group != after[0].group:
        return [*before, *after]
    together = before[-1]._replace(lines=[*before[-1].lines, *after[0].lines])
    return [*before[:-1], together, *after[1:]]
