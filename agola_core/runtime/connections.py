"""The connections to a SQLite file: a pool of idle ones to read with, and those that its owner keeps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

from agola_core.runtime import forks
from agola_core.runtime.forks import Origin, fork_safe


class Connections:
    """All connections of a process to a SQLite file; forked children close them (see `forks`). Thread-safe.

    Args:
        path: The file.
        connect: Opens a connection to read with.
        idle: Maximum number of idle connections to keep.

    Raises:
        UnavailableError: This process was forked while its parent was using the same file.
    """

    def __init__(self, path: str, connect: Callable[[], apsw.Connection], idle: int) -> None:
        self.path = path
        self._connect = connect
        self._most = idle
        self._origin = Origin("the connection")
        self._lock = fork_safe(threading.Lock())
        self._closed = False
        self._idle: deque[apsw.Connection] = deque()
        self._kept: list[apsw.Connection] = []
        forks.connects(self)

    def keep(self, connection: apsw.Connection) -> apsw.Connection:
        """Take charge of a connection of the owner's own, and return it."""
        self._kept.append(connection)
        return connection

    def connections(self) -> tuple[apsw.Connection, ...]:
        """Return the idle and the kept connections (see `forks.Connected`)."""
        return (*self._idle, *self._kept)

    @contextmanager
    def lend(self) -> Iterator[apsw.Connection]:
        """Lend a connection to read with; an error of the block closes it. The caller is `forks.inside`."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            if self._origin.is_here:
                connection.close()
            raise
        with self._lock:
            if not self._closed and len(self._idle) < self._most:
                self._idle.append(connection)
                return
        connection.close()

    def close(self, failed: Callable[[], object] | None = None) -> None:
        """Close all connections, the kept ones last; lent ones are closed when they come back.

        Args:
            failed: Called in the handler of an error of SQLite or the disk that closing one met; None raises it.
        """
        with self._lock, forks.inside(self):
            self._closed = True
            for connection in self.connections():
                try:
                    connection.close()
                except (apsw.Error, OSError):
                    if failed is None:
                        raise
                    failed()
            self._idle.clear()
            self._kept.clear()
