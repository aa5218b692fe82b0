"""Logs in storage, by their lines: written with an index, and read in ranges of lines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import msgspec

from agola_core.errors import AgolaError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.logs.line_index import NOT_COUNTED, STRIDE_BYTES, LineCounter, LineIndex
from agola_core.runservice.logs.log_view import LogView
from agola_core.runservice.model import object_paths
from agola_core.runtime.context import Context

logger = logging.getLogger(__name__)


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
        view = LogView(reader, index, context)
        try:
            yield view
        finally:  # what was counted in time is known from now on
            if view.errors != index.errors and any(errors != NOT_COUNTED for errors in view.errors):
                counted = msgspec.structs.replace(index, errors=view.errors)
                _write_index(storage, object_paths.log_index(task_id, step), counted)


class _Text:
    """A log that is in memory (see `ObjectReader`)."""

    remote = False

    def __init__(self, text: bytes) -> None:
        self._text = text

    def read(self, offset: int, length: int) -> bytes:
        return self._text[offset : offset + length]

    def close(self) -> None:
        return


def text_view(text: bytes, context: Context) -> LogView:
    """Return a view of a short log that a run holds itself."""
    return LogView(_Text(text), LineCounter().index(text), context)


def _index(storage: ObjectStorage, task_id: str, step: int | None) -> LineIndex:
    """Return the index of a log; a log without one, with another log's or an older version's, gets one now."""
    path = object_paths.log_index(task_id, step)
    size = storage.stat(object_paths.log(task_id, step)).size
    try:
        index = msgspec.msgpack.decode(storage.read(path), type=LineIndex)
        blocks = len(index.starts)
        if blocks and index.size == size and len(index.groups) == blocks and len(index.errors) in (0, blocks):
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
