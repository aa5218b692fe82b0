"""The connections of a process to a SQLite file, idle ones and kept ones, and what a fork does to them.

A forked child inherits SQLite's records of the parent's file locks. So a fork waits until nobody is inside SQLite, and
the child closes the inherited connections, and with them those records: what it opens itself has locks of its own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

import apsw

from agola_core.errors import UnavailableError
from agola_core.runtime.processes.forks import Origin, fork_safe

logger = logging.getLogger(__name__)

_REST_SECONDS = 10.0
_LOOK_SECONDS = 0.0002


class Connections:
    """All connections of a process to a SQLite file: a pool of idle ones to read with, and kept ones. Thread-safe.

    Args:
        path: The file.
        connect: Opens a connection to read with.
        idle: Maximum number of idle connections.

    Raises:
        UnavailableError: This process was forked while its parent was using the same file.
    """

    def __init__(self, path: str, connect: Callable[[], apsw.Connection], idle: int) -> None:
        if path in _unusable:
            raise UnavailableError(
                f"{path} cannot be opened in this process: it was forked off in the middle of a transaction"
            )
        self.path = path
        self._connect = connect
        self._most = idle
        self._origin = Origin("the connection")
        self._lock = fork_safe(threading.Lock())
        self._closed = False
        self._idle: deque[apsw.Connection] = deque()
        self._kept: list[apsw.Connection] = []
        _all.add(self)

    def keep(self, connection: apsw.Connection) -> apsw.Connection:
        """Take charge of a connection of the owner's own, and return it."""
        self._kept.append(connection)
        return connection

    def connections(self) -> tuple[apsw.Connection, ...]:
        """Return the idle and the kept connections: all of them, while nobody is inside."""
        return (*self._idle, *self._kept)

    def enter(self) -> object:
        """Begin to use the connections: forks wait for `leave`, and this waits for a running fork.

        Returns:
            What `leave` takes.
        """
        thread, mark = threading.get_ident(), object()
        _inside[mark] = thread, self
        while _forking and _forking != {thread}:
            del _inside[mark]
            is_nested = _is_inside(thread)  # then the fork waits for us
            if not is_nested:
                time.sleep(_LOOK_SECONDS)
            _inside[mark] = thread, self
            if is_nested:
                break
        return mark

    def leave(self, mark: object) -> None:
        """End what `enter` began."""
        _inside.pop(mark, None)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Use the connections for the length of the block; off the hot paths."""
        mark = self.enter()
        try:
            yield
        finally:
            self.leave(mark)

    @contextmanager
    def lend(self) -> Iterator[apsw.Connection]:
        """Lend a connection to read with; an error of the block closes it. The caller is `inside`."""
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
        with self._lock, self.inside():
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


def switch_to_wal(connection: apsw.Connection, seconds: float) -> None:
    """Put a database into WAL mode, and wait while another connection does the same, or uses it in its former mode.

    SQLite reads the mode before it changes it. A reader that wants to write never waits for another writer, because
    two of them would wait for each other: it is told at once that the database is locked, whatever its busy timeout.
    So this waits with nothing held, and then looks again.

    Args:
        connection: The connection; its busy timeout bounds each wait.
        seconds: How long to go on waiting.

    Raises:
        apsw.BusyError: Another connection kept the database locked.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except apsw.BusyError:
            if time.monotonic() >= end:
                raise
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


_all: WeakSet[Connections] = WeakSet()
_inside: dict[object, tuple[int, Connections]] = {}
_forking: set[int] = set()
_unusable: set[str] = set()


def _is_inside(thread: int) -> bool:
    return any(found == thread for found, _ in list(_inside.values()))


def _before() -> None:
    thread = threading.get_ident()
    _forking.add(thread)
    deadline = time.monotonic() + _REST_SECONDS
    while any(found != thread for found, _ in list(_inside.values())):
        if time.monotonic() > deadline:
            logger.warning("a fork did not wait any longer for statements that run")
            return
        time.sleep(_LOOK_SECONDS)


def _after_in_parent() -> None:
    _forking.discard(threading.get_ident())


def _after_in_child() -> None:
    _forking.clear()
    busy = {id(one) for _, one in _inside.values()}
    _inside.clear()
    for one in list(_all):
        if id(one) not in busy:
            for connection in one.connections():
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close()
            continue
        _unusable.add(one.path)
        for connection in one.connections():  # never closed, not even when the process exits
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
