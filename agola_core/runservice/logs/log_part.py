"""Parts of a log, stored or growing: its last lines, those since a time, and each line with its time.

What is asked for always goes to the end of the log, so a part is a place where it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.logs.line_index import MAX_LINE_BYTES, split_lines
from agola_core.runservice.model.line_times import GrowingTimes, milliseconds, shown
from agola_core.runservice.model.requests import LogPart

OpenedFrom = Callable[[int], Iterator[bytes]]
"""Opens a log from a byte on, to its present end."""

_CHUNK = 1 << 20
_WINDOW = 1 << 18
_WIDER = 8


def stored_from(storage: ObjectStorage, path: str, offset: int) -> Iterator[bytes]:
    """Yield a stored log from a byte on."""
    with closing(storage.open_reader(path)) as reader:
        while piece := reader.read(offset, _CHUNK):
            offset += len(piece)
            yield piece


def pieces_of(text: bytes, offset: int) -> Iterator[bytes]:
    """Yield a log that is in memory from a byte on."""
    if len(text) > offset:
        yield text[offset:]


def beginning(opened: OpenedFrom, size: int, times: GrowingTimes, part: LogPart) -> int:
    """Return the byte at which a part of a log begins.

    Args:
        opened: Opens the log.
        size: About how many bytes it has.
        times: The times of its lines.
        part: The part.
    """
    begin = part.offset
    if part.since is not None:
        times.reach(size)
        begin = max(begin, _line_begin(opened, times.times.before(milliseconds(part.since))))
    if part.tail is not None:
        begin = _last_lines(opened, size, begin, part.tail)
    return begin


def stamped(pieces: Iterator[bytes], offset: int, times: GrowingTimes) -> Iterator[bytes]:
    """Yield a log with the time of each line before it.

    Args:
        pieces: The log from the beginning of a line on; empty pieces are passed on.
        offset: Where that line begins.
        times: The times of the lines.
    """
    held, is_begun = b"", False
    for piece in pieces:
        times.reach(offset + len(held) + len(piece))
        lines = list(split_lines(held + piece))
        held = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        ready = []
        for line in lines:
            offset += len(line)
            if not is_begun:
                ready.append(shown(times.at(offset)))
            ready.append(line)
            is_begun = not line.endswith(b"\n")
        if ready or not piece:
            yield b"".join(ready)
    if held:
        yield held if is_begun else shown(times.at(offset + len(held))) + held


def _line_begin(opened: OpenedFrom, place: int) -> int:
    """Return where the line begins that has a byte; in a line without end, the byte itself."""
    first = max(0, place - MAX_LINE_BYTES)
    before = _read(opened, first, place - first)
    newline = before.rfind(b"\n")
    return first + newline + 1 if newline >= 0 or not first else place


def _last_lines(opened: OpenedFrom, size: int, first: int, count: int) -> int:
    """Return where the last lines begin, reading only as much of the log's end as is needed.

    Args:
        opened: Opens the log.
        size: About how many bytes it has.
        first: A place where a line begins: none before it is wanted.
        count: How many lines.
    """
    window = _WINDOW
    while True:
        begin = max(first, size - window)
        lines, end = _count_lines(opened(begin))
        if lines > count or begin == first:
            break
        window *= _WIDER
    return begin + end if not count else begin + _after_lines(opened(begin), lines - count)


def _count_lines(pieces: Iterator[bytes]) -> tuple[int, int]:
    """Return how many lines end in a log, its last one included, and its bytes."""
    lines = size = 0
    last = b""
    for piece in pieces:
        lines += piece.count(b"\n")
        size += len(piece)
        last = piece[-1:] or last
    return lines + (last not in {b"", b"\n"}), size


def _after_lines(pieces: Iterator[bytes], count: int) -> int:
    """Return how many bytes the first lines of a log have."""
    size = 0
    for piece in pieces:
        if count <= 0:
            break
        found = piece.count(b"\n")
        if found < count:
            count -= found
            size += len(piece)
            continue
        place = -1
        for _ in range(count):
            place = piece.index(b"\n", place + 1)
        return size + place + 1
    return size


def _read(opened: OpenedFrom, offset: int, length: int) -> bytes:
    data = b""
    for piece in opened(offset) if length > 0 else ():
        data += piece
        if len(data) >= length:
            break
    return data[:length]
