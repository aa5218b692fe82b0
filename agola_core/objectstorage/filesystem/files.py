"""Open files of the fsspec file system, and the translation of our errors into Python's own."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fsspec.spec import AbstractBufferedFile

from agola_core.errors import (
    BadRequestError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
)
from agola_core.objectstorage.port import ObjectStorage

_STANDARD: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, errno.ENOENT),
    (ConflictError, errno.EEXIST),
    (ForbiddenError, errno.EACCES),
    (BadRequestError, errno.EINVAL),
    (OutOfSpaceError, errno.ENOSPC),
    (DeadlineError, errno.ETIMEDOUT),
    (UnavailableError, errno.EIO),
)
_OF_THE_TREE = {errno.EISDIR: errno.EISDIR, errno.ENOTDIR: errno.ENOTDIR, errno.EEXIST: errno.ENOTDIR}


@contextmanager
def standard_errors(path: str) -> Iterator[None]:
    """Raise what a storage raises in the block as the `OSError` that users of fsspec know.

    Args:
        path: What it is about.
    """
    try:
        yield
    except tuple(kind for kind, _ in _STANDARD) as error:
        number = next(number for kind, number in _STANDARD if isinstance(error, kind))
        if isinstance(error, BadRequestError) and isinstance(error.__cause__, OSError):
            number = _OF_THE_TREE.get(error.__cause__.errno or 0, number)
        raise OSError(number, str(error), path) from error


class StorageFile(AbstractBufferedFile):  # type: ignore[misc]
    """An open object: reads fetch ranges of it as it was; what is written appears as a whole when it is closed.

    Mode "ab" writes the object anew with what was added: of several at once that append, the last one stands. Mode
    "xb" is refused when the object exists, at opening and again when it is closed.
    """

    def __init__(self, fs: Any, path: str, mode: str = "rb", *arguments: Any, **options: Any) -> None:
        self._pieces: list[bytes] = []
        self._reader = None
        if mode == "rb":
            if fs.isdir(path):
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
            with standard_errors(path):
                self._reader = fs.storage.open_reader(path)
        elif mode == "xb" and fs.exists(path):
            raise FileExistsError(errno.EEXIST, "exists already", path)
        super().__init__(fs, path, mode, *arguments, **options)
        if mode == "ab" and fs.exists(path):
            self.loc = fs.info(path)["size"]

    def close(self) -> None:
        """Close it; what was written is stored."""
        try:
            super().close()
        finally:
            if self._reader is not None:
                self._reader.close()

    def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._reader is not None
        with standard_errors(self.path):
            data: bytes = self._reader.read(start, end - start)
        if len(data) < min(end, self.size) - start:
            raise OSError(errno.ESTALE, "was replaced by a shorter one while it was opened", self.path)
        return data

    def _initiate_upload(self) -> None:
        self._pieces = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self._pieces.append(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Store what was gathered."""
        storage: ObjectStorage = self.fs.storage
        with standard_errors(self.path):
            before = self._stored(storage) if self.mode == "ab" else ()
            storage.write(self.path, itertools.chain(before, self._pieces), if_absent=self.mode == "xb")

    def discard(self) -> None:
        """Forget what was gathered."""
        self._pieces = []

    def _stored(self, storage: ObjectStorage) -> Iterable[bytes]:
        try:
            return storage.open_stream(self.path)
        except NotFoundError:
            return ()


class Deletion:
    """An object that is deleted when a transaction ends well.

    Args:
        storage: Where it lies.
        path: Its key.
    """

    def __init__(self, storage: ObjectStorage, path: str) -> None:
        self._storage = storage
        self._path = path

    def commit(self) -> None:
        """Delete it."""
        with standard_errors(self._path):
            self._storage.delete(self._path)

    def discard(self) -> None:
        """Let it be."""
