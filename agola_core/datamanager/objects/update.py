"""Read, decide and write one object, again and again until nobody was first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from agola_core.datamanager.types import Action, Delete, Entry, Put
from agola_core.errors import BadRequestError, ConflictError, ContentionError

UPDATE_TRIES = 100
"""How often `DataManager.update` tries, unless it is told otherwise."""

_LONGEST_PAUSE = 0.05
_FIRST_PAUSE = 0.0005

Change = Callable[[bytes | None], bytes | None]


def update(
    data_type: str,
    object_id: str,
    change: Change,
    tries: int,
    read: Callable[[], Entry | None],
    write: Callable[[Action], object],
) -> bytes | None:
    """Change one object by what it is (see `DataManager.update`).

    Args:
        data_type: Its type.
        object_id: Its id.
        change: Returns what it becomes.
        tries: How often to try.
        read: Returns the object.
        write: Commits an action, or raises `ConflictError`.
    """
    if not isinstance(tries, int) or tries < 1:
        raise BadRequestError(f"tries is a number of at least 1, not {tries!r}")
    if not callable(change):
        raise BadRequestError(f"update takes a function of the object's bytes, not {type(change).__name__}")
    for tried in range(1, tries + 1):
        entry = read()
        old = None if entry is None else entry.data
        new = change(old)
        if new == old:
            return new
        try:
            write(_action(data_type, object_id, entry, new))
        except ConflictError as error:
            if tried == tries:
                message = f"{data_type} {object_id!r}: others changed it first, {tries} times; nothing was written"
                raise ContentionError(message) from error
            _pause(tried)
        else:
            break
    return new


def _action(data_type: str, object_id: str, entry: Entry | None, new: bytes | None) -> Action:
    if entry is None:
        return Put(data_type, object_id, new, if_absent=True)  # type: ignore[arg-type] # checked when it is written
    if new is None:
        return Delete(data_type, object_id, entry.version)
    return Put(data_type, object_id, new, entry.version)


def _pause(tried: int) -> None:
    """Let others go first: many writers of one object would only refuse each other."""
    time.sleep(random.uniform(0, min(_FIRST_PAUSE * 2**tried, _LONGEST_PAUSE)))  # noqa: S311 - no secret
