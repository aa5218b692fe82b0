"""The embedded coordinator opened read-only: creates no files and takes no write locks.

In WAL mode SQLite needs its side files even to read. If they exist, a process has the database open or was killed
while it had: they are read as well. If they do not, nobody writes and the database file is complete; every read
first checks that this is still so.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import apsw

from agola_core.coordinator.read_only import ReadOnly
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.database import IDLE_READERS, Database, one
from agola_core.coordinator.sqlite.files import OpenFiles
from agola_core.coordinator.sqlite.reads import SQLiteReads
from agola_core.encoding.decoding import newer
from agola_core.errors import FormatError, NotFoundError, RecoveryError, UnavailableError
from agola_core.runtime.processes.connections import Connections
from agola_core.runtime.processes.forks import Origin

_TRIES = 3
"""How often it is opened: the side files may come or go while it is, with the first or the last of its writers."""


class _Alone(OpenFiles):
    """A database without side files; checks that it is unchanged."""

    def __init__(self, path: str) -> None:  # of the log there is nothing to know
        self._path = path
        self._was = self._state()
        self.check()

    def check(self) -> None:
        """Raise `UnavailableError` if somebody has started to write."""
        if self._was is None or self._was[0] or self._state() != self._was:
            raise UnavailableError(f"{self._path} was written to while it was read without its writers: open it again")

    def check_each(self) -> None:
        """Same as `check`."""
        self.check()

    def _state(self) -> tuple[bool, int, int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116
        except OSError:
            return None
        return _has_log(self._path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class _ReadOnlyDatabase(Database):
    """A database opened read-only."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(Path(path).absolute())
        self.origin = Origin("the coordinator")
        self._closed = False
        self._lost = True  # until the first look has succeeded: one that fails is no news, it is opened anew
        self._data_version = -1
        if not Path(self.path).is_file():
            raise NotFoundError(f"there is no coordinator {self.path!r}")
        self._connections = Connections(self.path, self._connect, IDLE_READERS)
        with self.errors(), self.using():
            is_alone = not _has_log(self.path)
            self._suffix = "&immutable=1" if is_alone else ""
            self._files = (_Alone if is_alone else OpenFiles)(self.path)
            self._version_reader = self._connections.keep(self._connect())
            try:
                self._check_version()
            except BaseException:
                self._connections.close()
                raise

    def check_found(self) -> None:
        """Check on every read: there are no commits of this process that would."""
        self.look(closely=True)

    def is_being_written(self) -> bool:
        """Return True: without the right to write nothing tells."""
        return True

    def close(self) -> None:
        """Close all connections; closing twice is harmless."""
        self._closed = True
        self._connections.close()

    def _connect(self, *, checkpoint: bool = False) -> apsw.Connection:
        del checkpoint
        address = f"file:{quote(self.path)}?mode=ro{self._suffix}"
        connection = apsw.Connection(address, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(1000)
        return connection

    def _check_version(self) -> None:
        try:
            (version,) = one(self._version_reader.execute("PRAGMA user_version"))
        except apsw.CantOpenError as error:
            raise UnavailableError(
                f"{self.path} cannot be read here: what its last process left in its log needs a file beside it; "
                "copy the directory to where it can be written to, or read what is in storage with at="
            ) from error
        if version > sql.VERSION:
            raise newer(self.path, version, sql.VERSION)
        if version < sql.VERSION:
            raise FormatError(f"{self.path} is of an older release: open it once where it can be written to")


class ReadOnlySQLiteCoordinator(ReadOnly, SQLiteReads):
    """The reading half of an embedded coordinator.

    Args:
        path: The database.

    Raises:
        NotFoundError: The file does not exist.
        UnavailableError: It cannot be opened.
        CorruptionError: It is not a database, or a damaged one.
        FormatError: It was written by another release.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        for left in reversed(range(_TRIES)):
            try:
                self._open()
                return
            except (RecoveryError, UnavailableError):
                if not left:
                    raise

    def _open(self) -> None:
        database = _ReadOnlyDatabase(self.path)
        try:
            SQLiteReads.__init__(self, database)
        except BaseException:
            database.close()
            raise

    def __repr__(self) -> str:
        """Return the class and the file."""
        return f"ReadOnlySQLiteCoordinator({self.path!r})"


def _has_log(path: str) -> bool:
    try:
        return os.stat(f"{path}-wal").st_size > 0 or os.path.exists(f"{path}-shm")  # noqa: PTH110, PTH116
    except OSError:
        return False
