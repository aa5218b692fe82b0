"""An fsspec file system over any object storage, for what speaks fsspec: data frames, caches, copying tools.

Example:
    >>> import tempfile
    >>> from agola_core.objectstorage import open_storage
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     files = StorageFileSystem(open_storage(directory))
    ...     with files.open("reports/today.txt", "w") as file:
    ...         _ = file.write("all is well")
    ...     files.find(""), files.cat("reports/today.txt")
    (['reports/today.txt'], b'all is well')
"""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from agola_core.errors import NotFoundError
from agola_core.objectstorage.port import ObjectInfo, ObjectStorage


class StorageFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A storage as fsspec sees it: writes are whole, atomic and durable; directories are the beginnings of keys.

    Args:
        storage: The storage; its owner closes it.
    """

    protocol = "agola"
    cachable = False

    def __init__(self, storage: ObjectStorage, **options: Any) -> None:
        super().__init__(**options)
        self.storage = storage

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what lies directly in a directory."""
        path = self._strip_protocol(path)
        prefix = f"{path}/" if path else ""
        found = [_described(info) for info in self.storage.list(prefix, recursive=False)]
        if not found and prefix:
            found = [self.info(path)]  # a file, or nothing: then that is the error
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what is known of an object, or of a directory."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        try:
            return _described(self.storage.stat(path))
        except NotFoundError as error:
            if next(self.storage.list(f"{path}/"), None) is not None:
                return {"name": path, "size": 0, "type": "directory"}
            raise FileNotFoundError(path) from error

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return an object's bytes from `start` up to before `end`; negative ones count from its end."""
        path = self._strip_protocol(path)
        try:
            if (start or 0) < 0 or (end or 0) < 0:
                size = self.storage.stat(path).size
                start, end, _step = slice(start, end).indices(size)
            offset = start or 0
            return self.storage.read(path, offset, None if end is None else max(0, end - offset))
        except NotFoundError as error:
            raise FileNotFoundError(path) from error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write an object; with mode "create" only where there is none."""
        self.storage.write(self._strip_protocol(path), value, if_absent=mode == "create")

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        try:
            self.storage.delete(self._strip_protocol(path))
        except NotFoundError as error:
            raise FileNotFoundError(path) from error

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete objects; a directory goes with its last one."""
        for found in self.expand_path(path, recursive=recursive, maxdepth=maxdepth):
            if self.isfile(found):
                self.rm_file(found)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy an object."""
        self.storage.write(self._strip_protocol(path2), self.storage.open_stream(self._strip_protocol(path1)))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> StorageFile:
        return StorageFile(self, path, mode, **options)

    def created(self, path: str) -> Any:
        """Return when an object was last written."""
        return self.info(path).get("modified")

    modified = created


class StorageFile(AbstractBufferedFile):  # type: ignore[misc]
    """An open object: reads fetch ranges; what is written appears as a whole when it is closed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data

    def _initiate_upload(self) -> None:
        self._pieces: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self._pieces.append(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Write what was gathered."""
        self.fs.storage.write(self.path, iter(self._pieces))

    def discard(self) -> None:
        """Forget what was gathered."""
        self._pieces = []


def _described(info: ObjectInfo) -> dict[str, Any]:
    if info.path.endswith("/") and info.modified is None:
        return {"name": info.path[:-1], "size": 0, "type": "directory"}
    return {"name": info.path, "size": info.size, "type": "file", "modified": info.modified}
