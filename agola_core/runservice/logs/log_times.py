"""The times of the lines of stored logs: an object beside each log (see `line_times`).

A log without times is whole: an older version stored it, or they were lost. Times without a log tell nothing.
"""

from __future__ import annotations

import logging
from datetime import datetime

from agola_core.errors import NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.line_times import LineClock, decode, encode, milliseconds, parse
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("fetch.before-times")

_MAX_LINE = 4096


def write_times(storage: ObjectStorage, task_id: str, step: int | None, data: bytes, size: int) -> None:
    """Store the times of a stored log; damaged ones are left out.

    Args:
        storage: Where the log is.
        task_id: The task.
        step: The step's number; None for the set-up.
        data: What the executor has recorded; not trusted.
        size: The log's bytes.
    """
    times = parse(data)
    if times is None:
        logger.warning("the times of a log are damaged, and not stored: task=%s step=%s", task_id, step)
        return
    faultpoints.reach("fetch.before-times")
    storage.write(object_paths.log_times(task_id, step), encode(times.clipped(size), size))


def read_times(
    storage: ObjectStorage, task_id: str, step: int | None, size: int, begun: datetime | None = None
) -> bytes:
    """Return the times of a stored log as its executor recorded them; b"" when it has none that are whole and its own.

    Args:
        storage: Where the log is.
        task_id: The task.
        step: The step's number; None for the set-up.
        size: The log's bytes.
        begun: When the step began. The only line of a set-up is written then, and its time is not stored.
    """
    try:
        return decode(storage.read(object_paths.log_times(task_id, step)), size)
    except NotFoundError:
        pass
    if step is not None or begun is None or not 0 < size <= _MAX_LINE:
        return b""
    return line_times(storage.read(object_paths.log(task_id, step)), begun)


def line_times(log: bytes, begun: datetime | None) -> bytes:
    """Return the times of a log of one line that was written when its step began; b"" for any other log."""
    size = len(log)
    if not size or begun is None or log.find(b"\n") not in {-1, size - 1}:
        return b""
    return LineClock().take(size, milliseconds(begun))
