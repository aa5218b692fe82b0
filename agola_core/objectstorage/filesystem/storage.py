"""An fsspec file system on any object storage, for data frames, caches and copying tools.

Directories are prefixes of keys: they appear with their first object and vanish with the last one; creating one does
nothing. Errors are Python's own (`FileNotFoundError`, `FileExistsError`, `PermissionError`, other `OSError`).

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

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from agola_core.errors import NotFoundError
from agola_core.objectstorage.filesystem.files import Deletion, StorageFile, standard_errors
from agola_core.objectstorage.port import ObjectInfo, ObjectStorage


class StorageFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A storage as fsspec sees it: writes are whole, atomic and durable.

    In a transaction, writes, copies and deletions wait for its end, and do not happen when it is rolled back.

    Args:
        storage: The storage; its owner closes it.
    """

    protocol = "agola"
    cachable = False

    def __init__(self, storage: ObjectStorage, **options: Any) -> None:
        super().__init__(**options)
        self.storage = storage

    # Looking

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what lies directly in a directory."""
        path = self._strip_protocol(path)
        prefix = f"{path}/" if path else ""
        with standard_errors(path):
            found = [_described(info) for info in self.storage.list(prefix, recursive=False)]
        if not found and prefix:
            found = [self.info(path)]  # a file, or nothing: then that is the error
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what is known of an object, or of a directory."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        with standard_errors(path):
            try:
                return _described(self.storage.stat(path))
            except NotFoundError:
                if next(self.storage.list(f"{path}/"), None) is None:
                    raise
                return {"name": path, "size": 0, "type": "directory"}

    def exists(self, path: str, **_: Any) -> bool:
        """Return whether there is such an object or directory; what cannot be told is an error, and no "no"."""
        return self._type(path) is not None

    def isdir(self, path: str) -> bool:
        """Return whether there is such a directory (see `exists`)."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Return whether there is such an object (see `exists`)."""
        return self._type(path) == "file"

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], Any] = "omit",
        **options: Any,
    ) -> Iterator[Any]:
        """Yield each directory with what is in it; only what is missing is omitted: other errors are raised."""
        chosen = _raise_unless_missing if on_error == "omit" else on_error
        yield from super().walk(path, maxdepth, topdown, chosen, **options)

    def created(self, path: str) -> Any:
        """Return when an object was last written."""
        return self.info(path).get("modified")

    modified = created

    # Reading and writing

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return an object's bytes from `start` up to before `end`; negative ones count from its end."""
        path = self._strip_protocol(path)
        with standard_errors(path):
            if (start or 0) < 0 or (end or 0) < 0:
                size = self.storage.stat(path).size
                start, end, _step = slice(start, end).indices(size)
            offset = start or 0
            return self.storage.read(path, offset, None if end is None else max(0, end - offset))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write an object; with mode "create" only where there is none."""
        path = self._strip_protocol(path)
        if self._intrans:
            with self.open(path, "xb" if mode == "create" else "wb") as file:
                file.write(value)
            return
        with standard_errors(path):
            self.storage.write(path, value, if_absent=mode == "create")

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        """Copy a local file; with mode "create" only where there is no object."""
        given = {} if callback is None else {"callback": callback}
        if mode != "create" or Path(lpath).is_dir():
            super().put_file(lpath, rpath, mode=mode, **given, **options)
            return
        with Path(lpath).open("rb") as source, self.open(rpath, "xb") as target:
            shutil.copyfileobj(source, target)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy an object; a directory is nothing by itself."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            with standard_errors(source):
                pieces = self.storage.open_stream(source)
        except FileNotFoundError:
            if self.isdir(source):
                return
            raise
        if not self._intrans:
            with standard_errors(target):
                self.storage.write(target, pieces)
            return
        with self.open(target, "wb") as file:
            for piece in pieces:
                file.write(piece)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> None:
        """Move objects: what was copied is deleted, and nothing else."""
        if isinstance(path1, str) and isinstance(path2, str):
            source, target = self._strip_protocol(path1), self._strip_protocol(path2)
            if source == target and path1.endswith("/") == path2.endswith("/"):
                return
            if recursive and f"{target}/".startswith(f"{source}/" if source else "") and self.isdir(source):
                raise OSError(errno.EINVAL, "a directory cannot be moved into itself", path1)
        self.copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
        self.rm(path1, recursive=recursive, maxdepth=maxdepth)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> StorageFile:
        return StorageFile(self, path, mode, **options)

    # Directories and deletion

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:  # noqa: ARG002 - fsspec's
        """Do nothing: a directory comes with its first object. One that is there, or an object, is an error."""
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing (see `mkdir`)."""
        if not exist_ok:
            self.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Refuse: an empty directory is none, and one that is not empty goes with its last object."""
        number = {None: errno.ENOENT, "file": errno.ENOTDIR, "directory": errno.ENOTEMPTY}[self._type(path)]
        raise OSError(number, os.strerror(number), path)

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        path = self._strip_protocol(path)
        deletion = Deletion(self.storage, path)
        if not self._intrans:
            deletion.commit()
            return
        if not self.isfile(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self.transaction.files.append(deletion)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete objects, and with `recursive` all objects in directories."""
        expanded = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        kinds = {found: self._type(found) for found in expanded}
        if not recursive:
            for found in expanded:
                if kinds[found] != "file":
                    self._refuse(found, kinds[found])
        for found in expanded:
            if kinds[found] == "file":
                with suppress(*(FileNotFoundError,) * recursive):  # what vanishes under a list is gone already
                    self.rm_file(found)

    def _refuse(self, path: str, kind: str | None) -> None:
        """Raise why something cannot be deleted as an object."""
        number = errno.ENOENT if kind is None else errno.EISDIR
        raise OSError(number, os.strerror(number), path)

    def _type(self, path: str) -> str | None:
        try:
            found: str = self.info(path)["type"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # no object can have that key
                return None
            raise
        return found


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _described(info: ObjectInfo) -> dict[str, Any]:
    if info.path.endswith("/") and info.modified is None:
        return {"name": info.path[:-1], "size": 0, "type": "directory"}
    return {"name": info.path, "size": info.size, "type": "file", "modified": info.modified}
