"""Files and directories that are their owner's alone, whatever the umask.

What is made takes the owner of the directory that it is made in: when root looks after the store of another user,
that user can go on with it. A storage whose directory its group may write to is shared: its group keeps access.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_FILE = 0o600
_DIRECTORY = 0o700
_GROUP_READS_AND_WRITES = 0o060
_GROUP_USES = 0o070
_OTHERS_READ_OR_WRITE = 0o066
_OTHERS_PASS = 0o011
_NO_OWNERS = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}

_told: set[str] = set()
"""The paths that this process has warned of."""


class Access(NamedTuple):
    """Who gets what is made in a directory.

    Attributes:
        owner: The user and group that are given it; None for those of this process.
        shared: Whether its group may use it, too.
    """

    owner: tuple[int, int] | None = None
    shared: bool = False

    @classmethod
    def below(cls, directory: str | os.PathLike[str], *, may_share: bool = False) -> Access:
        """Return what a directory asks for.

        Args:
            directory: When it is missing, the nearest one above it tells the owner.
            may_share: Whether it is shared when its group may write to it.
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
            FileExistsError: It is there already.
        """
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE)
        try:
            self._give(descriptor, _FILE | (_GROUP_READS_AND_WRITES if self.shared else 0))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def make_directory(self, path: str | os.PathLike[str], mode: int = _DIRECTORY) -> None:
        """Make a directory.

        Args:
            path: The directory.
            mode: Its mode, whatever the umask, where it is not shared.

        Raises:
            FileExistsError: It is there already.
        """
        os.mkdir(path, mode)  # noqa: PTH102 - plain calls, as the tests of power loss record them
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            setgid = stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_ISGID  # given by the directory above it
            self._give(descriptor, setgid | mode | (_GROUP_USES if self.shared else 0))
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
    """Make a directory and the missing ones above it; one that is there stays as it is.

    Args:
        path: The directory.
        mode: The mode of what is made, whatever the umask.
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
    if not current.is_dir() or not Path(path).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def create_file(path: str | os.PathLike[str]) -> None:
    """Create an empty file when there is none; one that is there stays as it is."""
    if Path(path).exists():
        return
    with suppress(FileExistsError):
        os.close(Access.below(Path(path).parent).create_file(path))


def warn_when_open(path: str | os.PathLike[str]) -> None:
    """Log a warning, once in a process, when other users may read or write what is in a directory, or a file.

    A directory that others may only pass through, such as one with an executor whose steps have users of their own,
    is no matter: what is in it is private. A file in a directory that nobody passes through is none, either.
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
