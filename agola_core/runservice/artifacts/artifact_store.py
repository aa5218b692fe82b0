"""Reads and writes caches, workspace archives and source archives in object storage."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime

from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.model import object_paths
from agola_core.runtime import faultpoints

faultpoints.declare("cache.before-write", "cache.before-delete", "source.before-write")

_SPOOL_BYTES = 8 * 1024 * 1024
_CHUNK = 1 << 20


class ArtifactStore:
    """Caches, archives and sources."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage

    def open_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield an archive that a step saved to the workspace."""
        return self._storage.open_stream(object_paths.archive(task_id, step))

    def cache_exists(self, key: str) -> bool:
        """Return whether a cache is stored under exactly this key."""
        try:
            self._storage.stat(object_paths.cache(key))
        except NotFoundError:
            return False
        return True

    def open_cache(self, key: str, *, prefix: bool) -> Iterator[bytes]:
        """Yield a cache; with `prefix` the newest of those whose keys begin with `key`.

        Raises:
            NotFoundError: There is none.
        """
        path = object_paths.cache(key)
        if prefix:
            found = list(self._storage.list(path.removesuffix(".tar"), recursive=False))
            written = [info for info in found if info.modified is not None and info.path.endswith(".tar")]
            if not written:
                raise NotFoundError(f"no cache begins with {key!r}")
            path = max(written, key=lambda info: (info.modified, info.path)).path
        return self._storage.open_stream(path)

    def put_cache(self, key: str, data: Iterable[bytes], size: int | None = None) -> bool:
        """Store a cache unless the key exists; return whether it was stored.

        Raises:
            BadRequestError: The key is malformed, or the data has another length than `size`.
        """
        path = object_paths.cache(key)
        if self.cache_exists(key):
            return False
        faultpoints.reach("cache.before-write")
        try:
            self._storage.write(path, _of_length(data, size), if_absent=True)
        except ConflictError:
            return False
        return True

    def expire_caches(self, before: datetime) -> int:
        """Delete the caches written before a time; return how many."""
        gone = 0
        for info in list(self._storage.list(object_paths.CACHES)):
            if info.modified is not None and info.modified < before:
                faultpoints.reach("cache.before-delete")
                try:
                    self._storage.delete(info.path)
                except NotFoundError:
                    continue
                gone += 1
        return gone

    def put_source(self, data: Iterable[bytes]) -> str:
        """Store a source archive and return its id, the sha256 of its bytes; equal archives are stored once."""
        digest = hashlib.sha256()
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            for piece in data:
                digest.update(piece)
                spool.write(piece)
            source_id = digest.hexdigest()
            path = object_paths.source(source_id)
            try:
                self._storage.stat(path)
            except NotFoundError:
                spool.seek(0)
                faultpoints.reach("source.before-write")
                self._storage.write(path, iter(lambda: spool.read(_CHUNK), b""))
        return source_id

    def open_source(self, source_id: str) -> Iterator[bytes]:
        """Yield a source archive.

        Raises:
            NotFoundError: It is not stored.
        """
        return self._storage.open_stream(object_paths.source(source_id))


def _of_length(data: Iterable[bytes], size: int | None) -> Iterator[bytes]:
    count = 0
    for piece in data:
        count += len(piece)
        if size is not None and count > size:
            break
        yield piece
    if size is not None and count != size:
        raise BadRequestError(f"the cache has not the {size} bytes that were announced")
