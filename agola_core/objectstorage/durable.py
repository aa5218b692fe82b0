"""Durable whole-file writes on a local file system: what fsspec's own local file system does not do.

A file appears by rename, after its bytes are on the disk; every directory on the way is synced too. An error
of any sync is raised: the outcome is then unknown, and nothing is retried.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterable

from agola_core.errors import ConflictError
from agola_core.private import Access

_RENAME_TRIES = 100
_MOST_SYNCED = 10_000

_synced: dict[str, int] = {}
"""The directories, and their inodes, of which this process knows that they last."""


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
        OSError: The operating system refused; unless it was the last sync, nothing changed.
    """
    root = os.path.dirname(temporary_directory)  # noqa: PTH120
    temporary = f"{temporary_directory}/{os.getpid()}-{uuid.uuid4().hex}.tmp"
    try:
        size = _write_temporary(temporary, pieces, access)
        if if_absent:
            _place(temporary, target, root, access, exclusive=True)
            os.unlink(temporary)  # noqa: PTH108 - plain calls, as the tests of power loss record them
        else:
            _place(temporary, target, root, access, exclusive=False)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    sync_directory(os.path.dirname(target))  # noqa: PTH120
    return size


def delete_file(target: str, root: str) -> None:
    """Delete a file durably, and the directories above it, up to `root`, that this leaves empty.

    Raises:
        FileNotFoundError: There is no such file.
    """
    os.unlink(target)  # noqa: PTH108
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
        with contextlib.suppress(FileExistsError):
            access.make_directory(path)
        inode = _inode(path)
    sync_directory(parent)
    if inode is not None:
        if len(_synced) >= _MOST_SYNCED:
            _synced.clear()
        _synced[path] = inode


def sync_directory(path: str) -> None:
    """Put a directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_temporary(path: str, pieces: Iterable[bytes], access: Access) -> int:
    size = 0
    descriptor = access.create_file(path, os.O_WRONLY)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.write(descriptor, view)
                size, view = size + written, view[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def _place(temporary: str, target: str, root: str, access: Access, *, exclusive: bool) -> None:
    directory = os.path.dirname(target)  # noqa: PTH120
    for attempt in range(_RENAME_TRIES):
        try:
            make_directories(directory, root, access)
            if exclusive:
                os.link(temporary, target)
            else:
                os.rename(temporary, target)  # noqa: PTH104
            return
        except FileExistsError as error:
            sync_directory(directory)  # who is told that it exists may rest on it, and its writer may be dead
            raise ConflictError(f"{os.path.basename(target)!r} exists already") from error  # noqa: PTH119
        except FileNotFoundError as error:  # a concurrent delete took the emptied directory away
            if not os.path.lexists(temporary):  # swept by a process whose clock is ahead
                raise OSError(errno.ESTALE, "the temporary file is gone") from error
            if attempt == _RENAME_TRIES - 1:
                raise


def _inode(path: str) -> int | None:
    """Return the inode of a directory; None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino if stat.S_ISDIR(status.st_mode) else None
