"""An object storage that fails like disks and networks do: a wrapper around a real one.

::

    storage = FaultyStorage(agola_core.open_storage(directory))
    storage.fail(Fault.AFTER, at=3)          # the third call from now succeeds, but reports an error
    storage.fail(Fault.TRUNCATED, lasting=True)
    storage.heal()
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator

from agola_core.errors import ConflictError, DeadlineError, ForbiddenError, OutOfSpaceError, UnavailableError
from agola_core.objectstorage import ObjectInfo, ObjectReader, ObjectStorage
from agola_core.objectstorage.port import Payload


class Fault(enum.Enum):
    """Ways in which a call can fail."""

    BEFORE = "EIO, 500, 503, 429 or a reset before the work: nothing was done"
    AFTER = "a reset or a failed fsync after the work: it was done, and the caller hears an error"
    FULL = "ENOSPC in the middle of a write"
    SHORT_WRITE = "the source of a write is read to its half, then the write fails"
    DENIED = "403"
    PRECONDITION = "412"
    TIMEOUT = "no answer in time"
    TRUNCATED = "a read gives the first half alone"
    STALE_LIST = "a list does not have the newest object yet"


_RAISED: dict[Fault, Callable[[str], Exception]] = {
    Fault.BEFORE: lambda name: UnavailableError(f"injected: {name} failed"),
    Fault.AFTER: lambda name: UnavailableError(f"injected: {name} has no answer"),
    Fault.FULL: lambda name: OutOfSpaceError(f"injected: {name}: the storage is full"),
    Fault.SHORT_WRITE: lambda name: UnavailableError(f"injected: {name} was cut short"),
    Fault.DENIED: lambda name: ForbiddenError(f"injected: {name} is denied"),
    Fault.PRECONDITION: lambda name: ConflictError(f"injected: {name} has a failed precondition"),
    Fault.TIMEOUT: lambda name: DeadlineError(f"injected: {name} is not answered in time"),
}
_OF_WRITES = {Fault.FULL, Fault.SHORT_WRITE, Fault.PRECONDITION}


class FaultyStorage:
    """Wraps an object storage (see `agola_core.objectstorage.port.ObjectStorage`).

    Args:
        storage: The real storage.

    Attributes:
        calls: Names and paths of the calls since the last `fail` or `heal`.
    """

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._fault: Fault | None = None
        self._at = 0
        self._lasting = False
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []

    def fail(self, fault: Fault, *, at: int = 1, lasting: bool = False) -> None:
        """Make a call fail.

        Args:
            fault: How it fails.
            at: Number of the call, counted from now.
            lasting: Whether all later calls fail, too, until `heal`.
        """
        with self._lock:
            self._fault, self._at, self._lasting, self.calls = fault, at, lasting, []

    def heal(self) -> None:
        """Stop all failures."""
        with self._lock:
            self._fault, self.calls = None, []

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes."""
        fault = self._enter("read", path)
        data = self._storage.read(path, offset, length)
        self._leave(fault, "read")
        return data[: len(data) // 2] if fault is Fault.TRUNCATED else data

    def open_reader(self, path: str) -> ObjectReader:
        """Return a reader whose reads may fail as well."""
        fault = self._enter("open_reader", path)
        reader = self._storage.open_reader(path)
        self._leave(fault, "open_reader")
        return _FaultyReader(self, reader, path)

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces."""
        fault = self._enter("open_stream", path)
        data = b"".join(self._storage.open_stream(path, chunk_size))
        self._leave(fault, "open_stream")
        return iter((data[: len(data) // 2] if fault is Fault.TRUNCATED else data,))

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Write a whole object."""
        fault = self._enter("write", path)
        if fault in _OF_WRITES:
            pieces = iter((bytes(data),) if isinstance(data, bytes | bytearray | memoryview) else data)
            first = next(pieces, b"")

            def cut() -> Iterator[bytes]:
                yield first[: len(first) // 2]
                raise _RAISED[fault]("write")

            return self._storage.write(path, cut(), if_absent=if_absent)
        size = self._storage.write(path, data, if_absent=if_absent)
        self._leave(fault, "write")
        return size

    def stat(self, path: str) -> ObjectInfo:
        """Return an object's metadata."""
        fault = self._enter("stat", path)
        info = self._storage.stat(path)
        self._leave(fault, "stat")
        return info

    def delete(self, path: str) -> None:
        """Delete an object."""
        fault = self._enter("delete", path)
        self._storage.delete(path)
        self._leave(fault, "delete")

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix."""
        fault = self._enter("list", prefix)
        found = list(self._storage.list(prefix, start_after, recursive))
        self._leave(fault, "list")
        if fault is Fault.STALE_LIST and found:
            newest = max(found, key=lambda info: (info.modified is not None and info.modified.timestamp(), info.path))
            found.remove(newest)
        return iter(found)

    def close(self) -> None:
        """Close the real storage."""
        self._storage.close()

    def _enter(self, name: str, path: str) -> Fault | None:
        """Count a call; raise its fault, or return one that is due later in the call."""
        with self._lock:
            self.calls.append((name, path))
            count = len(self.calls)
            due = self._fault is not None and (count == self._at or (self._lasting and count > self._at))
            fault = self._fault if due else None
        if fault in {Fault.BEFORE, Fault.DENIED, Fault.TIMEOUT}:
            raise _RAISED[fault](name)
        return fault

    def _leave(self, fault: Fault | None, name: str) -> None:
        if fault is Fault.AFTER:
            raise _RAISED[fault](name)


class _FaultyReader:
    def __init__(self, storage: FaultyStorage, reader: ObjectReader, path: str) -> None:
        self._storage = storage
        self._reader = reader
        self._path = path
        self.remote = reader.remote

    def read(self, offset: int, length: int) -> bytes:
        fault = self._storage._enter("reader", self._path)  # noqa: SLF001 - one class in two
        data = self._reader.read(offset, length)
        self._storage._leave(fault, "reader")  # noqa: SLF001
        return data[: len(data) // 2] if fault is Fault.TRUNCATED else data

    def close(self) -> None:
        self._reader.close()
