"""The SQLite database under the coordinator: opening, schema migration, connections, error translation."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import apsw

from agola_core import private
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.errors import explain
from agola_core.coordinator.sqlite.files import OpenFiles
from agola_core.encoding.decoding import newer
from agola_core.errors import (
    AgolaError,
    ClosedError,
    FormatError,
    RecoveryError,
    UnavailableError,
    disk_error,
)
from agola_core.runtime.processes.connections import Connections, switch_to_wal
from agola_core.runtime.processes.forks import Origin, fork_safe

logger = logging.getLogger(__name__)

MINIMUM_SQLITE = (3, 51, 3)
"""Older versions can lose data when the write-ahead log is reset."""

_BUSY_MILLISECONDS = 10_000
IDLE_READERS = 16
_LEAST_ROOM = 64 * 1024

Row = tuple[Any, ...]


class Database:
    """A database in WAL mode, synced at every commit. One connection writes, any number read.

    Args:
        path: The file; it and its directory are created if missing. Not on a network file system.

    Raises:
        UnavailableError: The file cannot be opened or created.
        CorruptionError: It is not a database, or a damaged one.
        FormatError: It was written by a later release, or SQLite is too old.

    Attributes:
        path: Absolute path of the file.
        writer: The writing connection, guarded by `writing`.
        writing: Lock to hold while using `writer`.
        enter: Begins a use on the hot path; forks wait until `leave` ends it (see `Connections`).
        leave: Ends it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < MINIMUM_SQLITE:
            raise FormatError(f"SQLite {apsw.sqlite_lib_version()} is too old: 3.51.3 is the oldest safe one")
        self.path = str(Path(path).absolute())
        self.writing = fork_safe(threading.Lock())
        self.origin = Origin("the coordinator")
        self._closed = False
        self._lost = False
        self._connections = Connections(self.path, self._connect_again, IDLE_READERS)
        self.enter, self.leave = self._connections.enter, self._connections.leave
        with self.errors(), self._connections.inside():
            private.make_directories(Path(self.path).parent)
            private.create_file(self.path)  # SQLite gives its side files the owner and mode of this one
            private.warn_when_open(self.path)
            self.writer = self._connect(checkpoint=True)  # kept last: whoever is closed last checkpoints
            self._migrate()
            # Always: a killed process may have left the files, and SQLite syncs the directory only after creating one.
            private.sync_directory(Path(self.path).parent)
            self._version_reader = self._connections.keep(self._connect())
            self._connections.keep(self.writer)
            self._files = OpenFiles(self.path)
            if _has_moved(self.writer):
                raise UnavailableError(f"{self.path} was replaced while it was being opened")
        self._data_version = -1

    @contextmanager
    def reader(self) -> Iterator[apsw.Connection]:
        """Lend a reading connection; errors of the block are translated."""
        self.check_open()
        self.check_found()
        with self.using(), self.errors(), self._connections.lend() as connection:
            yield connection

    def using(self) -> AbstractContextManager[None]:
        """Use the database for the length of a block: forks wait for its end."""
        return self._connections.inside()

    def foreign_revision(self) -> int | None:
        """Return the newest revision if any other connection has committed since the last call, else None.

        Not thread-safe: called by the polling thread alone.
        """
        self.look()
        with self.errors(), self.using():
            (version,) = one(self._version_reader.execute("PRAGMA data_version"))
            if version == self._data_version:
                return None
            self._data_version = version
            return newest_revision(self._version_reader)

    def is_being_written(self) -> bool:
        """Return whether a transaction, of any process, writes just now; True where that cannot be told.

        It takes the write lock for an instant, unless this process is about to write. Called by the polling thread
        alone.
        """
        if not self.writing.acquire(blocking=False):
            return True
        try:
            with self.using():
                self._version_reader.set_busy_timeout(0)
                try:
                    self._version_reader.execute("BEGIN IMMEDIATE")
                    self._version_reader.execute("ROLLBACK")
                finally:
                    self._version_reader.set_busy_timeout(_BUSY_MILLISECONDS)
        except (apsw.Error, AgolaError):  # another process writes, or the next look meets the same error
            return True
        finally:
            self.writing.release()
        return False

    def look(self, *, closely: bool = False) -> None:
        """Check that the files at the path are the open ones, and remember the result for `check_found`.

        Args:
            closely: Check each file, not only the directory's modification time.

        Raises:
            RecoveryError: A file was deleted, moved or replaced.
        """
        try:
            if closely:
                self._files.check_each()
            else:
                self._files.check()
        except RecoveryError as error:
            if not self._lost:
                logger.error("%s", error)
            self._lost = True
            raise
        self._lost = False

    def check_found(self) -> None:
        """Raise `RecoveryError` if the last check failed and another one fails, too."""
        if self._lost:
            self.look(closely=True)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate errors of SQLite and of the disk in the block."""
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise self.translated(error) from error

    def translated(self, error: Exception, number: int = 0) -> AgolaError:
        """Translate an error of SQLite or of the disk.

        Args:
            error: The error.
            number: The errno of the connection's last failure; 0 if unknown.
        """
        if isinstance(error, apsw.Error):
            return explain(error, self.path, number, has_room=not self._has_no_room())
        assert isinstance(error, OSError)
        return disk_error(error, self.path)

    def check_open(self) -> None:
        """Raise `ClosedError` after `close`, and in a forked child."""
        self.origin.check()
        if self._closed:
            raise ClosedError("the coordinator was closed")

    def close(self) -> None:
        """Close all connections, after a running write has finished. Closing twice is harmless."""
        with self.writing:
            if self._closed:
                return
            self._closed = True
            try:
                self._files.check_each()
            except RecoveryError:
                self.writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            # of SQLite's final checkpoint: the next opening makes up for it
            self._connections.close(
                lambda: logger.warning("%s: closing it met an error of the disk", self.path, exc_info=True)
            )

    def _connect_again(self) -> apsw.Connection:
        """Open another connection, and check that it is to the same files."""
        self.look(closely=True)
        try:
            connection = self._connect()
        except apsw.Error:
            self.look(closely=True)
            raise
        try:
            self.look(closely=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, *, checkpoint: bool = False) -> apsw.Connection:
        connection = apsw.Connection(self.path, apsw.SQLITE_OPEN_READWRITE)
        # A checkpoint on close deletes the log at the path, which may belong to another database by then.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not checkpoint))
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        switch_to_wal(connection, _BUSY_MILLISECONDS / 1000)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _has_no_room(self) -> bool:
        """Return whether the disk is full, which SQLite reports in several ways."""
        try:
            status = os.statvfs(self.path if Path(self.path).exists() else Path(self.path).parent)
        except OSError:
            return False
        return status.f_bavail * status.f_frsize < _LEAST_ROOM or (status.f_files > 0 and status.f_favail == 0)

    def _migrate(self) -> None:
        cursor = self.writer.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            (version,) = one(cursor.execute("PRAGMA user_version"))
            if version > sql.VERSION:
                raise newer(self.path, version, sql.VERSION)
            if version == 0:
                cursor.execute(sql.SCHEMA)
            elif version == 1:
                cursor.execute(sql.FROM_VERSION_1)
            cursor.execute(sql.IDENTITY_TABLE)
            if cursor.execute(sql.IDENTITY).fetchone() is None:
                cursor.execute(sql.IDENTITY_NEW, (uuid.uuid4().hex,))
            if version < sql.VERSION:
                cursor.execute(f"PRAGMA user_version = {sql.VERSION}")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")


def _has_moved(connection: apsw.Connection) -> bool:
    """Return whether a connection's file is no longer the one at its path."""
    moved = ctypes.c_int()
    connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
    return bool(moved.value)


def newest_revision(connection: apsw.Connection) -> int:
    """Return the newest revision that a connection sees; 1 before the first write."""
    row: Row | None = connection.execute(sql.REVISION).fetchone()
    return row[0] if row else 1


def one(cursor: apsw.Cursor) -> Row:
    """Return the row of a statement that always yields one."""
    row: Row | None = cursor.fetchone()
    assert row is not None
    return row
