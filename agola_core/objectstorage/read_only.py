"""A read-only view of an object storage."""

from __future__ import annotations

from agola_core.errors import ForbiddenError
from agola_core.objectstorage.port import ObjectStorage, Payload


class ReadOnlyStorage:
    """Passes reads on to a storage; writes and deletions raise `ForbiddenError`.

    Args:
        storage: The storage to read.
    """

    def __init__(self, storage: ObjectStorage) -> None:
        self.read = storage.read
        self.open_reader = storage.open_reader
        self.open_stream = storage.open_stream
        self.stat = storage.stat
        self.list = storage.list
        self.close = storage.close
        self._storage = storage

    def __repr__(self) -> str:
        """Return the storage that is read."""
        return f"ReadOnlyStorage({self._storage!r})"

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Refuse it."""
        del data, if_absent
        raise ForbiddenError(f"object {path!r} is not written: the store was opened to be read only")

    def delete(self, path: str) -> None:
        """Refuse it."""
        raise ForbiddenError(f"object {path!r} is not deleted: the store was opened to be read only")
