"""Logs in storage, by their lines: written with an index, and read in ranges of lines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import accumulate, islice

import msgspec

from agola_core.errors import AgolaError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.artifacts.line_index import STRIDE_BYTES, LineCounter, LineIndex, lines_from
from agola_core.runservice.artifacts.log_view import LogView
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.line_times import GrowingTimes
from agola_core.runtime.context import Context

logger = logging.getLogger(__name__)

_MAX_RANGE_BYTES = 1 << 20


class LogLines(msgspec.Struct, frozen=True):
    """Some lines of a log.

    Attributes:
        first: The number of the first one, from 0.
        lines: The lines, newlines included; fewer than asked for where they are long.
        total: How many the log has.
        size: The log's bytes.
        times: When each of the lines was written, in milliseconds since 1970, or None; [] where it was not asked for.
    """

    first: int
    lines: list[bytes]
    total: int
    size: int
    times: list[int | None] = []


def write_log(storage: ObjectStorage, task_id: str, step: int | None, pieces: Iterable[bytes]) -> LineIndex:
    """Store a log, and the index of its lines where it is long; return the index.

    Raises:
        AgolaError: The log could not be stored; an index that could not is made when it is needed.
    """
    counter = LineCounter(pieces)
    storage.write(object_paths.log(task_id, step), counter)
    index = counter.index()
    _write_index(storage, object_paths.log_index(task_id, step), index)
    return index


def read_lines(
    storage: ObjectStorage,
    task_id: str,
    step: int | None,
    first: int,
    count: int,
    times: GrowingTimes | None = None,
) -> LogLines:
    """Return lines of a stored log; the last ones are reached as quickly as the first.

    Args:
        storage: Where the log is.
        task_id: The task.
        step: The step's number; None for the set-up.
        first: The first line, from 0; a negative one counts from the end, as far as there are so many.
        count: The most lines.
        times: Tells those of the lines, if they are asked for.

    Raises:
        NotFoundError: There is no such log.
    """
    index = _index(storage, task_id, step)
    first = max(0, first + index.lines) if first < 0 else min(first, index.lines)
    line, offset = index.before(first)
    found: list[bytes] = []
    size = 0
    with closing(storage.open_reader(object_paths.log(task_id, step))) as reader:
        lines = lines_from(reader, offset)
        begin = offset + sum(len(text) for text in islice(lines, first - line))
        for text in islice(lines, count):
            found.append(text)
            size += len(text)
            if size >= _MAX_RANGE_BYTES:
                break
    if times is None:
        return LogLines(first, found, index.lines, index.size)
    ends = list(accumulate((len(text) for text in found), initial=begin))
    times.reach(ends[-1])
    return LogLines(first, found, index.lines, index.size, [times.at(end) for end in ends[1:]])


@contextmanager
def open_view(storage: ObjectStorage, task_id: str, step: int | None, context: Context) -> Iterator[LogView]:
    """Open a stored log to look into it.

    Args:
        storage: Where the log is.
        task_id: The task.
        step: The step's number; None for the set-up.
        context: Ends what takes long.

    Raises:
        NotFoundError: There is no such log.
    """
    index = _index(storage, task_id, step)
    with closing(storage.open_reader(object_paths.log(task_id, step))) as reader:
        yield LogView(reader, index, context)


def _index(storage: ObjectStorage, task_id: str, step: int | None) -> LineIndex:
    """Return the index of a log; a log without one, with another log's or an older version's, gets one now."""
    path = object_paths.log_index(task_id, step)
    size = storage.stat(object_paths.log(task_id, step)).size
    try:
        index = msgspec.msgpack.decode(storage.read(path), type=LineIndex)
        if index.size == size and index.starts and len(index.marks) == len(index.starts):
            return index
    except (NotFoundError, msgspec.MsgspecError):
        pass
    counter = LineCounter(storage.open_stream(object_paths.log(task_id, step)))
    for _ in counter:
        pass
    _write_index(storage, path, counter.index())
    return counter.index()


def _write_index(storage: ObjectStorage, path: str, index: LineIndex) -> None:
    if index.size <= STRIDE_BYTES:
        return  # such a log is counted more quickly than an object is fetched
    try:
        storage.write(path, msgspec.msgpack.encode(index))
    except AgolaError as error:
        logger.warning("the index of a log is not stored: path=%s: %s", path, error)
