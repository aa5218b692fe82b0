"""Creates files and directories that only their owner can access, regardless of the umask.

New entries inherit the owner of their parent directory: after root has worked on another user's store, that user
can still use it. A storage directory that is writable by its group is shared: its group keeps access to new entries.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from agola_core.errors import ConflictError

logger = logging.getLogger(__name__)

_FILE = 0o600
_LOCK_FILE = "lock"
_DIRECTORY = 0o700
_GROUP_READS_AND_WRITES = 0o060
_GROUP_USES = 0o070
_OTHERS_READ_OR_WRITE = 0o066
_OTHERS_PASS = 0o011
_NO_OWNERS = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}

_told: set[str] = set()
"""Paths that this process has already warned about."""


class Access(NamedTuple):
    """Ownership and sharing of new entries in a directory.

    Attributes:
        owner: User and group that own them; None for those of this process.
        shared: Whether the group has access, too.
    """

    owner: tuple[int, int] | None = None
    shared: bool = False

    @classmethod
    def below(cls, directory: str | os.PathLike[str], *, may_share: bool = False) -> Access:
        """Return the access that new entries of a directory get.

        Args:
            directory: If it does not exist, its nearest existing ancestor determines the owner.
            may_share: Whether entries are shared if the directory is writable by its group.
        """
        path = Path(directory).absolute()
        found, is_there = _status(path), True
        while found is None and path != path.parent:
            path, is_there = path.parent, False
            found = _status(path)
        if found is None:
            return cls()
        shared = may_share and is_there and bool(found.st_mode & stat.S_IWGRP)
        if os.geteuid() == 0 and found.st_uid != 0:
            return cls((found.st_uid, found.st_gid), shared)
        return cls((-1, found.st_gid) if shared else None, shared)

    def create_file(self, path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
        """Create a file and return its descriptor.

        Raises:
            FileExistsError: The file exists already.
        """
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE)
        try:
            self._give(descriptor, _FILE | (_GROUP_READS_AND_WRITES if self.shared else 0))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def make_directory(self, path: str | os.PathLike[str], mode: int = _DIRECTORY) -> os.stat_result:
        """Create a directory, and return its status.

        Args:
            path: The directory.
            mode: Its mode, regardless of the umask, unless it is shared.

        Raises:
            FileExistsError: The directory exists already.
        """
        os.mkdir(path, mode)  # noqa: PTH102 - plain calls, as the tests of power loss record them
        if self.owner is None and not self.shared:
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116
            if stat.S_IMODE(status.st_mode) & ~stat.S_ISGID == mode:
                return status
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            setgid = stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_ISGID  # given by the directory above it
            self._give(descriptor, setgid | mode | (_GROUP_USES if self.shared else 0))
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _give(self, descriptor: int, mode: int) -> None:
        if self.owner is not None:
            try:
                os.fchown(descriptor, *self.owner)
            except OSError as error:  # a file system without owners, or one on which root is nobody
                if error.errno not in _NO_OWNERS:
                    raise
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            os.fchmod(descriptor, mode)


def make_directories(path: str | os.PathLike[str], mode: int = _DIRECTORY) -> None:
    """Create a directory and its missing parents, durably; existing ones stay as they are.

    Args:
        path: The directory.
        mode: Mode of the new directories, regardless of the umask.
    """
    missing = []
    current = Path(path).absolute()
    while not current.is_dir():
        missing.append(current)
        current = current.parent
    access = Access.below(path)
    for one in reversed(missing):
        with suppress(FileExistsError):
            access.make_directory(one, mode)
        sync_directory(one.parent)
    if not current.is_dir() or not Path(path).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_file(path: str | os.PathLike[str]) -> None:
    """Create an empty file unless it exists."""
    if Path(path).exists():
        return
    with suppress(FileExistsError):
        os.close(Access.below(Path(path).parent).create_file(path))


def lock_directory(directory: str | os.PathLike[str], name: str) -> IO[bytes]:
    """Lock a directory by a private file in it and return that file; the lock ends with the process, however it ends.

    Args:
        directory: The directory; it exists.
        name: What the message calls it.

    Raises:
        ConflictError: Another process holds it.
        OSError: It cannot be used.
    """
    path = Path(directory) / _LOCK_FILE
    create_file(path)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
    except BlockingIOError as error:
        owner = file.read(32).decode(errors="replace").strip() or "unknown"
        file.close()
        raise ConflictError(f"the {name} {str(directory)!r} is in use by process {owner}") from error
    except BaseException:
        file.close()
        raise
    return file


def warn_when_open(path: str | os.PathLike[str]) -> None:
    """Log a warning, once per process, if other users can read or write a file or the contents of a directory.

    A directory that others can only traverse, such as one of an executor whose steps run as users of their own, is
    fine: its entries are private. So is a file in a directory that others cannot traverse.
    """
    place = Path(path).absolute()
    found = _status(place)
    if found is None or not found.st_mode & _OTHERS_READ_OR_WRITE:
        return
    above = _status(place.parent)
    if above is not None and not above.st_mode & _OTHERS_PASS:
        return
    if {str(place), str(place.parent)} & _told:
        return
    _told.add(str(place))
    kind, wanted = ("directory", "700") if stat.S_ISDIR(found.st_mode) else ("file", "600")
    mode = stat.S_IMODE(found.st_mode)
    text = "other users may read the %s %s (mode %04o), which may hold secrets: chmod %s %s"
    logger.warning(text, kind, place, mode, wanted, place)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
