"""Detects that the files of an open SQLite database were deleted, moved or replaced.

Such a database keeps working for the processes that have it open, but their commits are lost to everybody else.
SQLite itself checks only on close.
"""

from __future__ import annotations

import os
import time

from agola_core.errors import RecoveryError

_SETTLED_NANOSECONDS = 100_000_000
"""Longer than the resolution of file systems' clocks: a directory that changed more recently may change again
without a visible new modification time."""


class OpenFiles:
    """Identity of the database file and its log at the time they were opened.

    A check is usually a single `stat`: a directory with an unchanged modification time has unchanged entries.

    Args:
        path: The database, in WAL mode and already open.

    Raises:
        OSError: A file is missing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.dirname(path)  # noqa: PTH120
        self._known = [(name, os.stat(name)) for name in (path, f"{path}-wal")]  # noqa: PTH116
        self._seen = (0, 0, 0)

    def check(self) -> None:
        """Raise `RecoveryError` unless the files at the path are the ones that were opened."""
        try:
            found = os.stat(self._directory)  # noqa: PTH116 - at each commit
            seen = (found.st_dev, found.st_ino, found.st_mtime_ns)
            if seen != self._seen:
                self.check_each()
                if time.time_ns() - found.st_mtime_ns > _SETTLED_NANOSECONDS:
                    self._seen = seen
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error

    def check_each(self) -> None:
        """Like `check`, but check each file."""
        try:
            for name, known in self._known:
                if not os.path.samestat(os.stat(name), known):  # noqa: PTH116
                    raise self._gone(f"{name} is another file now")
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error

    def _gone(self, why: str) -> RecoveryError:
        return RecoveryError(
            f"{self._path} was deleted, moved or replaced while it was open ({why}): "
            "nothing is written to it any more; close the store and open it again"
        )
