"""Opens files that a task's commands may have replaced: as regular files, without following links, or not at all.

A step may put a link, a pipe or a device in the place of its log or exit file; opening it by name would then read or
write elsewhere with the executor's rights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from agola_core import private

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def open_own(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file.

    Args:
        path: The file; not followed if it is a link.
        flags: As `os.open` takes them.
        mode: The mode of a new file.

    Raises:
        FileNotFoundError: It is missing, or is no regular file.
    """
    try:
        descriptor = os.open(path, flags | _SAFE, mode)
    except FileNotFoundError:
        raise
    except OSError as error:
        if stat.S_ISREG(_mode(path)):
            raise
        raise FileNotFoundError(f"{path} is no regular file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path} is no regular file")
    return descriptor


def read_own(path: Path, limit: int) -> bytes:
    """Return the first bytes of a regular file; none if there is no such file."""
    try:
        descriptor = open_own(path)
    except OSError:
        return b""
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def open_below(root: Path, path: str, *, create: bool) -> int:
    """Return a descriptor of a directory below another, opened without following links.

    Args:
        root: The directory that must not be left.
        path: An absolute path below it.
        create: Whether missing directories are created.

    Raises:
        OSError: It is missing, is no directory, or is not below the root.
    """
    relative = os.path.relpath(os.path.normpath(path), root)
    if not os.path.isabs(path) or relative.startswith(".."):  # noqa: PTH117
        raise PermissionError(errno.EACCES, f"it is not below the task's own directory {str(root)!r}", path)
    descriptor = os.open(root, _DIRECTORY | os.O_PATH)  # what is only passed through need not be readable
    parts = relative.split("/")
    try:
        for index, part in enumerate(parts):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=descriptor)
            flags = _DIRECTORY | os.O_NOFOLLOW | (os.O_PATH if index < len(parts) - 1 else 0)
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def kept_text(path: Path, make: Callable[[], str]) -> str:
    """Return the content of a private file, created with `make` if it is missing."""
    try:
        kept = path.read_text().strip()
    except FileNotFoundError:
        kept = ""
    if not kept:
        kept = make()
        temporary = path.with_suffix(".tmp")
        private.create_file(temporary)
        with os.fdopen(open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(kept)
        temporary.replace(path)
    return kept
