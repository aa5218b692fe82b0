"""Object storage on any fsspec file system (see `agola_core.objectstorage.port.ObjectStorage`).

Keys must be portable (`check_portable`). What the file system does not do by itself is done here: an object is replaced
by moving a whole one over it where a file shows before it is closed; listings are never taken from a cache; directories
that are empty are no part of a list.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any

from fsspec import AbstractFileSystem

from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.objectstorage.given.errors import MISSING, row_of, translated
from agola_core.objectstorage.port import MAX_KEY_BYTES, ObjectInfo, Payload, check_portable, check_text
from agola_core.objectstorage.remote import RangeReader, chunks, named
from agola_core.objectstorage.settle import Found, Written, look, settle
from agola_core.runtime.processes.forks import fork_safe

_RANGE = 8 * 1024 * 1024
_TIMES = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")


class FileSystemStorage:
    """Objects in a directory of a file system.

    Args:
        files: The file system; its owner closes it.
        root: The directory, or the bucket and a prefix.

    Attributes:
        moves: Whether objects are written under another name and moved: a file shows before it is closed.

    Raises:
        BadRequestError: The directory is not named.
    """

    def __init__(self, files: AbstractFileSystem, root: str) -> None:
        self._files = files
        self._root = str(files._strip_protocol(root)).rstrip("/")  # noqa: SLF001 - fsspec's own way to compare paths
        if not self._root:
            raise BadRequestError("name a directory of the file system, or a bucket, as the root of a storage")
        self._creating = fork_safe(threading.Lock())
        self.moves = True

    def __repr__(self) -> str:
        """Show the location."""
        return f"FileSystemStorage({type(self._files).__name__}, {self._root!r})"

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes (see the port)."""
        if offset or length is not None:
            return self._range(path, self._entry(path), offset, length)
        place = self.place(path)
        with translated(named(path)):
            return bytes(self._files.cat_file(place))

    def read_range(self, path: str, offset: int, length: int | None, etag: str = "") -> tuple[bytes, str]:
        """Return bytes of an object and what tells its version (see `RangeSource`)."""
        entry = self._entry(path)
        body = self._range(path, entry, offset, length)
        version = _version(entry)
        if _version(self._entry(path)) != version or (etag and etag != version):
            raise NotFoundError(f"{named(path)} was replaced while it was read")
        return body, version

    def open_reader(self, path: str) -> RangeReader:
        """Return a reader of ranges of one object (see the port)."""
        self.place(path)
        return RangeReader(self, path)

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces (see the port)."""
        size = self.stat(path).size
        if size <= _RANGE:
            return chunks(self.read(path), chunk_size)
        return self._stream(path, size, chunk_size)

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Write a whole object (see the port).

        Of several processes that create one object at the same time, more than one may succeed.
        """
        place, what = self.place(path), named(path)
        with tempfile.SpooledTemporaryFile(_RANGE) as spool:  # a source that fails must have written nothing
            size = crc = 0
            for piece in (data,) if isinstance(data, bytes | bytearray | memoryview) else data:
                spool.write(piece)
                size, crc = size + len(piece), zlib.crc32(piece, crc)
            written = Written(path, what, size, crc)
            if not if_absent:
                self._settle(written, place, spool, if_absent=False)
                return size
            with self._creating:
                if self._exists(path):
                    raise ConflictError(f"{what} exists already")
                self._settle(written, place, spool, if_absent=True)
        return size

    def stat(self, path: str) -> ObjectInfo:
        """Return an object's metadata (see the port)."""
        entry = self._entry(path)
        return ObjectInfo(path, int(entry.get("size") or 0), _modified(entry))

    def delete(self, path: str) -> None:
        """Delete an object (see the port); it is looked for first, since some file systems do not tell."""
        self._entry(path)
        with translated(named(path)):
            self._files.rm_file(self.place(path))

    def place(self, path: str) -> str:
        """Return where an object is in the file system."""
        check_portable(path)
        if len(f"{self._root}/{path}".encode()) > MAX_KEY_BYTES:
            raise BadRequestError(f"object key {path[:80]!r} is longer than {MAX_KEY_BYTES} bytes with its prefix")
        return f"{self._root}/{path}"

    def _entry(self, path: str) -> dict[str, Any]:
        place = self.place(path)
        with translated(named(path)):
            self._files.invalidate_cache()
            entry: dict[str, Any] = self._files.info(place)
        if entry.get("type") == "directory":
            raise NotFoundError(f"{named(path)} does not exist")
        return entry

    def _exists(self, path: str) -> bool:
        try:
            self._entry(path)
        except NotFoundError:
            return False
        return True

    def _range(self, path: str, entry: dict[str, Any], offset: int, length: int | None) -> bytes:
        size = int(entry.get("size") or 0)
        end = size if length is None else min(offset + length, size)
        if offset >= end:
            return b""
        with translated(named(path)):
            return bytes(self._files.cat_file(self.place(path), start=offset, end=end))

    def _stream(self, path: str, size: int, chunk_size: int) -> Iterator[bytes]:
        reader = RangeReader(self, path)
        for offset in range(0, size, _RANGE):
            yield from chunks(reader.read(offset, _RANGE), chunk_size)

    def _settle(self, written: Written, place: str, spool: IO[bytes], *, if_absent: bool) -> None:
        def found() -> Found | None:
            def head() -> tuple[int, str]:
                entry = self._entry(written.key)
                return int(entry.get("size") or 0), _version(entry)

            return look(written, head, lambda offset, size, etag: self.read_range(written.key, offset, size, etag)[0])

        settle(
            written,
            lambda: self._write(place, written.what, spool),
            found,
            row_of,
            lambda _: None,
            attempts=1,
            if_absent=if_absent,
        )

    def _write(self, place: str, what: str, spool: IO[bytes]) -> None:
        with translated(what, writing=True):
            if not self.moves:
                self._send(place, spool)
                return
            aside = f"{self._root}.uploads/{uuid.uuid4().hex}"
            try:
                self._send(aside, spool)
                self._in_directory(place, lambda: self._move(aside, place))
            except BaseException:
                self._remove(aside)
                raise

    def _send(self, place: str, spool: IO[bytes]) -> None:
        if spool.tell() <= _RANGE:
            spool.seek(0)
            body = spool.read()
            self._in_directory(place, lambda: self._files.pipe_file(place, body))
            return
        spool.flush()
        with tempfile.NamedTemporaryFile() as copy:
            spool.seek(0)
            while piece := spool.read(_RANGE):
                copy.write(piece)
            copy.flush()
            self._in_directory(place, lambda: self._files.put_file(copy.name, place))

    def _move(self, aside: str, place: str) -> None:
        if type(self._files).mv is not AbstractFileSystem.mv:
            self._files.mv(aside, place)
        else:  # fsspec's own expands patterns in paths
            self._files.cp_file(aside, place)
            self._remove(aside)

    def _remove(self, aside: str) -> None:
        with suppress(Exception):  # it is beside the storage, and the write's own outcome is what matters
            self._files.rm_file(aside)

    def _in_directory(self, place: str, write: Callable[[], object]) -> None:
        """Write to a place, making its directory if that is missing."""
        try:
            write()
        except FileNotFoundError:
            self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            write()

    def _all(self, directory: str) -> Iterator[ObjectInfo]:
        for name, entry in self._files.find(directory, detail=True).items():
            if entry.get("type") != "directory" and name.startswith(f"{self._root}/"):
                yield self._info(name, entry)

    def _level(self, directory: str) -> Iterator[ObjectInfo]:
        for entry in self._files.ls(directory, detail=True):
            name = entry["name"].rstrip("/")
            if name == directory or not name.startswith(f"{self._root}/"):
                continue
            if entry.get("type") != "directory":
                yield self._info(name, entry)
            elif any(files for _, _, files in self._files.walk(name)):
                yield ObjectInfo(f"{name.removeprefix(self._root)[1:]}/", 0, None)

    def _info(self, name: str, entry: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(name.removeprefix(self._root)[1:], int(entry.get("size") or 0), _modified(entry))

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (see the port); whole directories are listed, and sorted in memory."""
        check_text(prefix, start_after)
        directory = f"{self._root}/{prefix}".rpartition("/")[0]
        found = []
        with translated(f"the list of {prefix!r}"), suppress(*MISSING):
            self._files.invalidate_cache()
            found = list(self._all(directory) if recursive else self._level(directory))
        for info in sorted(found, key=lambda info: info.path.encode()):
            if info.path.startswith(prefix) and info.path.encode() > start_after.encode():
                yield info

    def close(self) -> None:
        """Do nothing: the file system belongs to who gave it."""


def _version(entry: dict[str, Any]) -> str:
    """Return what tells a version of an object from others: all that the file system says of it."""
    return repr(sorted((name, str(value)) for name, value in entry.items()))


def _modified(entry: dict[str, Any]) -> datetime | None:
    value = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
