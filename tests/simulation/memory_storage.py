"""An object storage in memory: the objects of a bucket, and handles on it as its clients have them."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from threading import RLock

from agola_core.coordinator.port import prefix_end
from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.objectstorage.port import MAX_KEY_BYTES, ObjectInfo, Payload, check_text


class Bucket:
    """The objects that every client of one storage shares.

    Args:
        clock: Seconds since 1970, for the objects' times.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.lock = RLock()
        self._clock = clock
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._sorted: list[str] = []

    def find(self, path: str) -> tuple[bytes, ObjectInfo]:
        found = self._objects.get(path)
        if found is None:
            raise NotFoundError(f"there is no object {path!r}")
        return found

    def put(self, path: str, data: bytes, *, if_absent: bool = False) -> None:
        with self.lock:
            if path not in self._objects:
                insort(self._sorted, path)
            elif if_absent:
                raise ConflictError(f"object {path!r} exists")
            self._objects[path] = (data, ObjectInfo(path, len(data), datetime.fromtimestamp(self._clock(), UTC)))

    def remove(self, path: str) -> None:
        with self.lock:
            if self._objects.pop(path, None) is None:
                raise NotFoundError(f"there is no object {path!r}")
            del self._sorted[bisect_left(self._sorted, path)]

    def after(self, prefix: str, start_after: str) -> list[ObjectInfo]:
        """Return the objects whose keys begin with a prefix and sort after a place."""
        with self.lock:
            first = max(bisect_left(self._sorted, prefix), bisect_right(self._sorted, start_after))
            end = prefix_end(prefix)
            stop = bisect_left(self._sorted, end) if end else None
            return [self._objects[path][1] for path in self._sorted[first:stop]]


class MemoryStorage:
    """A client of a bucket in memory (see `agola_core.objectstorage.port.ObjectStorage`). Any text is a key."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        data, _ = self.bucket.find(path)
        return data if offset == 0 and length is None else data[offset : None if length is None else offset + length]

    def open_reader(self, path: str) -> MemoryReader:
        return MemoryReader(self.bucket.find(path)[0])

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        data, _ = self.bucket.find(path)
        return (data[start : start + chunk_size] for start in range(0, len(data), chunk_size))

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        if not 0 < len(path.encode()) <= MAX_KEY_BYTES:
            raise BadRequestError(f"object key {path[:80]!r} is empty or too long")
        whole = bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else b"".join(data)
        self.bucket.put(path, whole, if_absent=if_absent)
        return len(whole)

    def stat(self, path: str) -> ObjectInfo:
        return self.bucket.find(path)[1]

    def delete(self, path: str) -> None:
        self.bucket.remove(path)

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        check_text(prefix, start_after)
        found = self.bucket.after(prefix, start_after)
        return iter(found) if recursive else _common(found, prefix, start_after)

    def close(self) -> None:
        pass


class MemoryReader:
    """Reads ranges of one object as it was."""

    remote = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        pass


def _common(found: list[ObjectInfo], prefix: str, last: str) -> Iterator[ObjectInfo]:
    for info in found:
        cut = info.path.find("/", len(prefix))
        if cut < 0:
            yield info
        elif (common := info.path[: cut + 1]) > last:
            last = common
            yield ObjectInfo(common, 0, None)
