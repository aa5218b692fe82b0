"""Object storage in a directory of a local file system: posix and posixflat.

Objects lie below `ROOT/data/`, files that are being written below `ROOT/tmp/`. Both are fsspec's local file
system with durable writes (`durable`) in the place of its own, which never sync.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    NotFoundError,
    RecoveryError,
    UnavailableError,
)
from agola_core.objectstorage.port import MAX_COMPONENT_BYTES, ObjectInfo, Payload, check_text, is_text
from agola_core.objectstorage.posix.durable import delete_file, make_directories, write_file
from agola_core.objectstorage.posix.errors import Source, object_errors, raise_unless_gone, root_errors
from agola_core.objectstorage.posix.flat_names import decode_flat, encode_flat
from agola_core.private import Access, warn_when_open

_STALE_SECONDS = 3600.0


class FileReader:
    """Reads ranges of one object that stays open: what it opened, even when the object is replaced meanwhile."""

    remote = False

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the object; fewer at its end."""
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise UnavailableError(f"object {self._path!r}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        """Close a reader that its users dropped."""
        self.close()


class PosixStorage:
    """Objects as files whose paths are their keys (see `agola_core.objectstorage.port.ObjectStorage`).

    Args:
        root: The directory.
        create: Whether it is created when missing, and left-over temporary files are removed.

    Raises:
        NotFoundError: It is missing, and is not to be created.
        UnavailableError: It cannot be created.
        OutOfSpaceError: The disk is full.

    Once the directory was deleted, moved or replaced, everything but reading what is open or still there raises
    `RecoveryError`: what cannot be looked at is never said to be absent.
    """

    def __init__(self, root: str | os.PathLike[str], *, create: bool = True) -> None:
        self.root = os.path.abspath(os.fspath(root))  # noqa: PTH100 - follows no links, unlike resolve()
        self._data = f"{self.root}/data"
        self._temporary = os.path.join(self.root, "tmp")  # noqa: PTH118
        self._access = Access.below(self.root, may_share=True)
        if not create:
            try:
                self._hold()
            except OSError as error:
                raise NotFoundError(f"there is no storage in {self.root!r}: {error.strerror}") from error
            return
        with root_errors(self.root):
            parent = os.path.dirname(self.root)  # noqa: PTH120
            trusted = parent if os.access(parent, os.R_OK) else self.root
            warn_when_open(self.root)
            make_directories(self._data, trusted, self._access)
            make_directories(self._temporary, trusted, self._access)
            self._hold()
            self._sweep()

    def __repr__(self) -> str:
        """Return the class and the directory."""
        return f"{type(self).__name__}({self.root!r})"

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes (see the port)."""
        with object_errors(path):
            descriptor = self._open(path)
            try:
                if length is not None:
                    return os.pread(descriptor, length, offset)
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    file.seek(offset)
                    return file.read()
            finally:
                os.close(descriptor)

    def open_reader(self, path: str) -> FileReader:
        """Return a reader of ranges of one object (see the port)."""
        with object_errors(path):
            return FileReader(path, self._open(path))

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces (see the port)."""
        return _pieces(self.open_reader(path), chunk_size)

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Write a whole object (see the port)."""
        self._check_root()
        target = self._file(path)
        source = Source((bytes(data),) if isinstance(data, bytes | bytearray | memoryview) else data)
        try:
            with object_errors(path):
                return self._write(path, target, source, if_absent)
        except AgolaError:
            if source.failure is not None:
                raise source.failure from None
            raise

    def stat(self, path: str) -> ObjectInfo:
        """Return what is known of an object (see the port)."""
        with object_errors(path):
            try:
                found = self._info(path, f"{self._data}/{self._relative(path)}")  # mostly nothing is there
            except FileNotFoundError:
                self._check_root()
                raise
            self._file(path)
            return found

    def delete(self, path: str) -> None:
        """Delete an object (see the port)."""
        self._check_root()
        with object_errors(path):
            target = self._file(path)
            if os.path.isdir(target):  # noqa: PTH112
                raise NotFoundError(f"object {path!r} does not exist")
            delete_file(target, self._data)

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (see the port)."""
        check_text(prefix, start_after)
        self._check_root()
        directory = prefix.rpartition("/")[0]
        start = f"{directory}/" if directory else ""
        if directory and any(part in {"", ".", ".."} for part in directory.split("/")):
            return
        if _leads_away(f"{self._data}/{start}x", self._data):
            return
        yield from self._walk(start, prefix, start_after, recursive)

    def close(self) -> None:
        """Let the directory go; every call opens and closes its own file."""
        self._held()

    def _write(self, path: str, target: str, pieces: Iterable[bytes], if_absent: bool) -> int:
        if os.path.isdir(target):  # noqa: PTH112
            reason = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
            raise BadRequestError(f"object key {path!r} is a directory of other objects") from reason
        try:
            return write_file(target, pieces, self._temporary, self._access, if_absent=if_absent)
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise BadRequestError(f"object key {path!r} lies below or above another object") from error

    def _walk(self, start: str, prefix: str, start_after: str, recursive: bool) -> Iterator[ObjectInfo]:
        names: list[str] = []
        try:
            with object_errors(start), os.scandir(f"{self._data}/{start}") as entries:
                for entry in entries:
                    if not is_text(entry.name):
                        continue  # a stray file is none of ours
                    if entry.is_dir(follow_symlinks=False):
                        names.append(f"{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        names.append(entry.name)
        except NotFoundError:
            self._check_root()
            return
        for name in sorted(names, key=os.fsencode):
            key = start + name
            if not key.endswith("/"):
                if key.startswith(prefix) and key > start_after:
                    info = self._info_if_there(key, f"{self._data}/{key}")
                    if info is not None:
                        yield info
            elif (not key.startswith(prefix) and not prefix.startswith(key)) or _passed(key, start_after):
                continue
            elif recursive or len(key) <= len(prefix):
                yield from self._walk(key, prefix, start_after, recursive)
            elif key > start_after and any(True for _ in self._walk(key, "", "", recursive=True)):
                yield ObjectInfo(key, 0, None)

    def _relative(self, path: str) -> str:
        """Return where a file lies below the directory of all objects."""
        check_text(path)
        _check_tree_key(path)
        return path

    def _file(self, path: str) -> str:
        """Return where a file lies; a symbolic link on the way would leave the root."""
        target = f"{self._data}/{self._relative(path)}"
        if _leads_away(target, self._data):
            raise BadRequestError(f"object key {path[:80]!r} leads through a symbolic link")
        return target

    def _hold(self) -> None:
        """Note which directory is there, and keep it open: else a file system gives its number to the next one."""
        descriptor = os.open(self._data, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._held = weakref.finalize(self, os.close, descriptor)
        self._opened = os.fstat(descriptor)

    def _check_root(self) -> None:
        """Raise `RecoveryError` unless the directory is the one that was opened: another's is not written to.

        A disk that cannot tell raises what it raises elsewhere: the directory may still be there.
        """
        try:
            found = os.stat(self._data)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._gone(error.strerror or str(error)) from error
        except OSError:
            with root_errors(self.root):
                raise
        if not os.path.samestat(found, self._opened):
            raise self._gone("another one is there now")

    def _gone(self, why: str) -> RecoveryError:
        return RecoveryError(
            f"storage {self.root!r} was deleted, moved or replaced while it was open ({why}): open it again"
        )

    def _open(self, path: str) -> int:
        try:
            descriptor = os.open(self._file(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._check_root()
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFoundError(f"object {path!r} does not exist")
        return descriptor

    def _info(self, path: str, target: str) -> ObjectInfo:
        status = os.stat(target, follow_symlinks=False)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            raise NotFoundError(f"object {path!r} does not exist")
        return ObjectInfo(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _info_if_there(self, path: str, target: str) -> ObjectInfo | None:
        """Return what is known of an object that was listed; None when it has gone since."""
        try:
            with object_errors(path):
                return self._info(path, target)
        except NotFoundError:
            return None

    def _sweep(self) -> None:
        oldest = time.time() - _STALE_SECONDS
        with os.scandir(self._temporary) as entries:
            for entry in entries:
                if not entry.name.endswith(".tmp"):
                    continue
                with suppress(FileNotFoundError):  # its writer was faster, or another sweep
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)  # noqa: PTH108


class PosixFlatStorage(PosixStorage):
    """Objects as files whose paths are an escaped form of their keys, so any key may begin another.

    The escaping is Agola 0.2's (see `flat_names`). For the library; a service's configuration may not choose it.
    """

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (see the port)."""
        check_text(prefix, start_after)
        self._check_root()
        seen, found = "", sorted(self._keys(), key=lambda item: item[0].encode())
        self._check_root()  # a directory that goes while it is looked through seems to be empty
        for key, target in found:
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if not recursive and "/" in rest:
                common = prefix + rest[: rest.index("/") + 1]
                if common != seen and common > start_after:
                    yield ObjectInfo(common, 0, None)
                seen = common
            elif key > start_after:
                info = self._info_if_there(key, target)
                if info is not None:
                    yield info

    def _keys(self) -> Iterator[tuple[str, str]]:
        for directory, _, files in os.walk(self._data, onerror=raise_unless_gone):
            for name in files:
                target = f"{directory}/{name}"
                key = decode_flat(target[len(self._data) + 1 :])
                if key is not None and is_text(key):  # a stray file is none of ours
                    yield key, target

    def _relative(self, path: str) -> str:
        if not path:
            raise BadRequestError("object key '' is empty")
        check_text(path)
        return encode_flat(path)


def _leads_away(target: str, root: str) -> bool:
    """Return whether a directory between a root and a file below it is a symbolic link."""
    directory = os.path.dirname(target)  # noqa: PTH120
    while len(directory) > len(root):
        if os.path.islink(directory):  # noqa: PTH114
            return True
        directory = os.path.dirname(directory)  # noqa: PTH120
    return False


def _passed(directory: str, start_after: str) -> bool:
    """Return whether all keys below a directory sort before or at `start_after`."""
    return start_after > directory and not start_after.startswith(directory)


def _check_tree_key(path: str) -> None:
    """Raise `BadRequestError` for a key that no directory tree can hold as it is."""
    for component in path.split("/"):
        if component in {"", ".", ".."}:
            raise BadRequestError(f"object key {path[:80]!r} has a component {component!r}: no directory tree holds it")
        if len(component) > MAX_COMPONENT_BYTES // 4 and len(os.fsencode(component)) > MAX_COMPONENT_BYTES:
            raise BadRequestError(f"object key {path[:80]!r} has a component longer than {MAX_COMPONENT_BYTES} bytes")
    if "\0" in path:
        raise BadRequestError(f"object key {path[:80]!r} has a NUL character")


def _pieces(reader: FileReader, chunk_size: int) -> Iterator[bytes]:
    offset = 0
    try:
        while piece := reader.read(offset, chunk_size):
            offset += len(piece)
            yield piece
    finally:
        reader.close()
