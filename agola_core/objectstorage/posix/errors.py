"""Translates operating system errors into errors of the port."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from agola_core.errors import (
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
    disk_error,
)
from agola_core.objectstorage.posix.durable import UnsyncedError

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def root_errors(root: str) -> Iterator[None]:
    """Name the directory of the storage, not an object in it."""
    try:
        yield
    except (NotADirectoryError, FileExistsError) as error:
        raise BadRequestError(f"storage {root!r} is no directory, or lies below a file") from error
    except OSError as error:
        if error.errno in _DENIED:
            raise ForbiddenError(f"storage {root!r}: {error.strerror}") from error
        raise disk_error(error, f"storage {root!r}") from error


@contextmanager
def object_errors(path: str) -> Iterator[None]:
    """Raise what the operating system raises in the block as errors of the port, about one object."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"object {path!r} does not exist") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(f"object {path!r} does not exist") from error
    except UnsyncedError as error:
        text = f"object {path!r}: done, but whether that survives a loss of power is not known: {error.strerror}"
        raise UnavailableError(text) from error
    except OSError as error:
        if error.errno in _DENIED:
            raise ForbiddenError(f"object {path!r}: {error}") from error
        if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
            raise BadRequestError(f"object key {path[:80]!r}: {error.strerror}") from error
        raise disk_error(error, f"object {path!r}") from error


def raise_unless_gone(error: OSError) -> None:
    """Raise what keeps a directory from being read: a list that leaves out what it cannot see would not tell."""
    with suppress(NotFoundError), object_errors(os.fspath(error.filename or "")):
        raise error


class Source:
    """The pieces of a write. What their maker raises is told as it is: it is no error of this disk.

    Attributes:
        failure: What their maker raised, where it looks like an error of a disk.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.failure: OSError | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        try:
            yield from self._pieces
        except OSError as error:
            self.failure = error
            raise
