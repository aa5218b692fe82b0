"""Durable, atomic whole-file writes on a local file system.

A file appears by rename, after its bytes are on the disk; every directory on the way is synced too. No sync is
repeated: a second one may succeed although the first one's bytes are lost. What a step that fails has done:

| step that fails | the write or deletion was | source |
| --- | --- | --- |
| the temporary file is made, written, synced or closed | not applied | fsync(2): the name leads to the old file |
| directories above it are made or synced | not applied | mkdir(2): the name is not there yet |
| rename or link gives the file its name | looked at | rename(2), link(2), BUGS: on NFS it may have been done |
| unlink takes the name away | looked at | unlink(2); on NFS as rename |
| the directory is synced after that | unknown | fsync(2): it is seen by all, and may not survive a loss of power |
| directories that became empty are removed | applied | rmdir(2): nothing depends on it |
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterable, Iterator

from agola_core.errors import ConflictError
from agola_core.private import Access, sync_directory

_RENAME_TRIES = 100
_MOST_SYNCED = 10_000

_synced: dict[str, int] = {}
"""The directories, and their inodes, of which this process knows that they last."""


class UnsyncedError(OSError):
    """A name was given or taken away, and whether that survives a loss of power is not known."""


def write_file(
    target: str, pieces: Iterable[bytes], temporary_directory: str, access: Access, *, if_absent: bool
) -> int:
    """Write a whole file atomically and durably, and return its size in bytes.

    Args:
        target: The file's path; missing directories above it are created, durably.
        pieces: The bytes; when it raises, nothing changes.
        temporary_directory: An existing directory on the same file system, beside or above the target's.
        access: Who gets the file, and directories that are made for it.
        if_absent: Refuse to replace a file.

    Raises:
        ConflictError: `if_absent` was given and the file exists.
        UnsyncedError: The file has its name, which may not last.
        OSError: The operating system refused: nothing changed.
    """
    root = os.path.dirname(temporary_directory)  # noqa: PTH120
    temporary = f"{temporary_directory}/{os.getpid()}-{uuid.uuid4().hex}.tmp"
    try:
        written = _write_temporary(temporary, pieces, access)
        if if_absent:
            _place(temporary, written, target, root, access, exclusive=True)
            with contextlib.suppress(OSError):  # it is swept later
                os.unlink(temporary)  # noqa: PTH108 - plain calls, as the tests of power loss record them
        else:
            _place(temporary, written, target, root, access, exclusive=False)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    with _unsynced(), contextlib.suppress(FileNotFoundError):  # somebody has deleted it since
        sync_directory(os.path.dirname(target))  # noqa: PTH120
    return written.st_size


def delete_file(target: str, root: str) -> None:
    """Delete a file durably, and the directories above it, up to `root`, that this leaves empty.

    Raises:
        FileNotFoundError: There is no such file.
        UnsyncedError: It is gone, and may be back after a loss of power.
        OSError: The operating system refused: nothing changed.
    """
    try:
        os.unlink(target)  # noqa: PTH108
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or os.path.lexists(target):
            raise
    directory = os.path.dirname(target)  # noqa: PTH120
    while len(directory) > len(root):
        try:
            os.rmdir(directory)  # noqa: PTH106
        except OSError:  # not empty, or gone: a concurrent writer or deleter
            break
        _synced.pop(directory, None)
        directory = os.path.dirname(directory)  # noqa: PTH120
    while True:
        try:
            with _unsynced():
                sync_directory(directory)
            return
        except FileNotFoundError:  # a concurrent deleter took it: its parent's entry is what must last
            directory = os.path.dirname(directory)  # noqa: PTH120


def make_directories(path: str, trusted: str, access: Access) -> None:
    """Create a directory and all missing ones above it, durably.

    One that is there may be the work of a process that was killed before it was synced, so each process syncs
    every directory once.

    Args:
        path: The directory.
        trusted: A directory above it. It and those above it, where they are there, are not synced.
        access: Who gets it.
    """
    inode = _inode(path)
    if inode is not None and (len(path) <= len(trusted) or _synced.get(path) == inode):
        return
    parent = os.path.dirname(path)  # noqa: PTH120
    make_directories(parent, trusted, access)
    if inode is None:
        try:
            inode = access.make_directory(path).st_ino
        except FileExistsError:
            inode = _inode(path)
    sync_directory(parent)
    if inode is not None:
        if len(_synced) >= _MOST_SYNCED:
            _synced.clear()
        _synced[path] = inode


@contextlib.contextmanager
def _unsynced() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsyncedError(error.errno, error.strerror) from error


def _write_temporary(path: str, pieces: Iterable[bytes], access: Access) -> os.stat_result:
    descriptor = access.create_file(path, os.O_WRONLY)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _place(temporary: str, written: os.stat_result, target: str, root: str, access: Access, *, exclusive: bool) -> None:
    directory = os.path.dirname(target)  # noqa: PTH120
    for attempt in range(_RENAME_TRIES):
        try:
            make_directories(directory, root, access)
            if exclusive:
                os.link(temporary, target)
            else:
                os.rename(temporary, target)  # noqa: PTH104
            return
        except OSError as error:
            if _is_at(target, written):
                return
            if isinstance(error, FileExistsError):
                sync_directory(directory)  # who is told that it exists may rest on it, and its writer may be dead
                raise ConflictError(f"{os.path.basename(target)!r} exists already") from error  # noqa: PTH119
            if not isinstance(error, FileNotFoundError):
                raise
            if not os.path.lexists(temporary):  # swept by a process whose clock is ahead
                raise OSError(errno.ESTALE, "the temporary file is gone") from error
            if attempt == _RENAME_TRIES - 1:  # else a concurrent delete took the emptied directory away
                raise


def _is_at(path: str, file: os.stat_result) -> bool:
    """Return whether a path leads to a file."""
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116
    except OSError:
        return False
    return (found.st_dev, found.st_ino, found.st_mtime_ns) == (file.st_dev, file.st_ino, file.st_mtime_ns)


def _inode(path: str) -> int | None:
    """Return the inode of a directory; None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino if stat.S_ISDIR(status.st_mode) else None
