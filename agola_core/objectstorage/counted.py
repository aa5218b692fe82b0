"""A view of an object storage that counts what is read through it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from agola_core.objectstorage.port import ObjectReader, ObjectStorage


class CountedStorage:
    """Passes everything on to a storage, and counts reads.

    Args:
        storage: The storage.

    Attributes:
        size: How many bytes were read.
    """

    def __init__(self, storage: ObjectStorage) -> None:
        self.write = storage.write
        self.delete = storage.delete
        self.stat = storage.stat
        self.list = storage.list
        self.close = storage.close
        self.size = 0
        self._storage = storage
        self._read: set[str] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Return the storage that is read."""
        return f"CountedStorage({self._storage!r})"

    @property
    def objects(self) -> int:
        """How many objects were read, each counted once."""
        return len(self._read)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes."""
        return self.note(path, self._storage.read(path, offset, length))

    def open_reader(self, path: str) -> ObjectReader:
        """Return a reader of ranges of one object."""
        return _CountedReader(self, path, self._storage.open_reader(path))

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces."""
        pieces = self._storage.open_stream(path, chunk_size)
        return (self.note(path, piece) for piece in pieces)

    def note(self, path: str, data: bytes) -> bytes:
        """Count bytes of an object, and return them."""
        with self._lock:
            self._read.add(path)
            self.size += len(data)
        return data


class _CountedReader:
    """A reader that counts."""

    def __init__(self, storage: CountedStorage, path: str, reader: ObjectReader) -> None:
        self._storage = storage
        self._path = path
        self._reader = reader
        self.close = reader.close
        self.remote = reader.remote

    def read(self, offset: int, length: int) -> bytes:
        return self._storage.note(self._path, self._reader.read(offset, length))
