"""Errors of a given file system, as errors of the port."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
)
from agola_core.objectstorage.outcome import Outcome, Row

MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_FULL = {errno.ENOSPC, errno.EDQUOT}


def row_of(error: BaseException) -> Row:
    """Return the table row of an error of a write."""
    return next(row for row in TABLE if row.matches(error))


TABLE = (
    Row(
        "a file in the place of a directory, or the other way round",
        lambda error: isinstance(error, (BadRequestError, *MISSING)),
        Outcome.NOT_APPLIED,
        False,
        "the file system looks at the path before it writes",
    ),
    Row("anything else", lambda _: True, Outcome.UNKNOWN, False, "nothing is known of the file system"),
)
"""Every error of a write; the first matching row applies."""


@contextmanager
def translated(what: str, *, writing: bool = False) -> Iterator[None]:
    """Raise what a file system raises as an error of the port.

    Args:
        what: The subject, for messages.
        writing: Whether a path that cannot be is the caller's mistake, and not an object that is missing.
    """
    try:
        yield
    except AgolaError:
        raise
    except MISSING as error:
        if writing:
            raise BadRequestError(f"{what} cannot be written: {_reason(error)}") from error
        raise NotFoundError(f"{what} does not exist") from error
    except PermissionError as error:
        raise ForbiddenError(f"{what}: the file system denies access: {_reason(error)}") from error
    except Exception as error:  # the file system's own exceptions are not known here
        full = isinstance(error, OSError) and error.errno in _FULL
        raise (OutOfSpaceError if full else UnavailableError)(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error) or type(error).__name__
