"""The files of an open SQLite database: whether they are still the ones at its path.

A database that was deleted, moved away or replaced goes on working for whoever has it open, and what is committed
there is lost to everybody else. SQLite looks only at its end.
"""

from __future__ import annotations

import os
import time

from agola_core.errors import RecoveryError

_SETTLED_NANOSECONDS = 100_000_000
"""More than file systems' clocks are coarse: a directory that changed less long ago may change without showing it."""


class OpenFiles:
    """The database and its log, as they were when they were opened.

    Looking costs one call in most cases: a directory whose own time stands has the entries it had.

    Args:
        path: The database, in WAL mode, opened already.

    Raises:
        OSError: One of them cannot be found.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.dirname(path)  # noqa: PTH120
        self._known = [(name, os.stat(name)) for name in (path, f"{path}-wal")]  # noqa: PTH116
        self._seen = (0, 0, 0)

    def check(self) -> None:
        """Raise `RecoveryError` unless the files at the path are these."""
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
        """Do the same by looking at each file."""
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
