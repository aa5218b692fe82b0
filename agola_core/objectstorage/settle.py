"""Finds out whether a write whose outcome is unknown was applied. Never retries a creation blindly."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable
from typing import NamedTuple

from agola_core.errors import AgolaError, ConflictError, NotFoundError, UnavailableError
from agola_core.objectstorage.outcome import Outcome, Row

_LOOK = 8 * 1024 * 1024


class Found(enum.Enum):
    """What is stored after a write with an unknown outcome."""

    OURS = "exactly the bytes that were written"
    OTHER = "an object with other bytes"
    NOTHING = "no object"


class Written(NamedTuple):
    """The object that a write intends to store."""

    key: str
    what: str
    size: int
    crc: int


def look(written: Written, head: Callable[[], tuple[int, str]], read: Callable[[int, int, str], bytes]) -> Found | None:
    """Compare the stored object with the written bytes; None if that cannot be determined.

    Args:
        written: What was written.
        head: Returns the object's size and its version.
        read: Returns a range of it: first byte, most bytes, version; raises `ConflictError` for another version.
    """
    crc = 0
    try:
        size, version = head()
        if size != written.size:
            return Found.OTHER
        for offset in range(0, size, _LOOK):
            crc = zlib.crc32(read(offset, _LOOK, version), crc)
    except NotFoundError:
        return Found.NOTHING
    except ConflictError:  # replaced while it was looked at
        return Found.OTHER
    except AgolaError:
        return None
    return Found.OURS if crc == written.crc else Found.OTHER


def settle(
    written: Written,
    attempt: Callable[[], object],
    found: Callable[[], Found | None],
    row_of: Callable[[BaseException], Row],
    pause: Callable[[int], object],
    *,
    attempts: int,
    if_absent: bool,
) -> None:
    """Attempt a write; check what is stored before each retry and before reporting a failure.

    A refusal is checked too: a proxy may have sent the request twice, in which case the refusal answers the second one
    and the first was applied.

    Args:
        written: What is written.
        attempt: Writes it.
        found: Returns what is stored (see `look`).
        row_of: Returns the row of an error in the backend's table of outcomes.
        pause: Waits before another attempt, after a number of them.
        attempts: How often it is tried.
        if_absent: Whether it is a creation.

    Raises:
        ConflictError: It is a creation, and there is an object.
        UnavailableError: It was not written, or that cannot be told.
    """
    for number in range(1, attempts + 1):
        try:
            attempt()
            return
        except (UnavailableError, ConflictError) as error:
            there = found()
            if there is Found.OURS:
                return
            if isinstance(error, ConflictError) or (there is Found.OTHER and if_absent):
                raise ConflictError(f"{written.what} exists already") from error
            row = row_of(error.__cause__ or error)
            if number == attempts or not row.again:
                raise told(error, there, row) from error.__cause__
        pause(number)


def told(error: UnavailableError, found: Found | None, row: Row) -> UnavailableError:
    """Return the error to report for a failed write, given what is stored."""
    if found is None and row.outcome is Outcome.UNKNOWN:
        return type(error)(f"{error}; whether it was written cannot be told")
    return error
