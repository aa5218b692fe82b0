"""Makes forks safe: a child cannot use what its parent opened, gets an error if it tries, and never deadlocks.

A child has one thread and a copy of all memory, including locks that other threads held and SQLite's records of the
parent's file locks. So locks are reinitialised in a child. Before a fork all running uses of SQLite are waited for;
the child then closes the inherited connections, and with them SQLite's records, so what it opens itself has locks of
its own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

import apsw

from agola_core.errors import ClosedError, UnavailableError

logger = logging.getLogger(__name__)

_REST_SECONDS = 10.0
_LOOK_SECONDS = 0.0002

L = TypeVar("L")

_generation = 0
"""Number of forks between the first process and this one; cheaper to read than the pid."""


class Origin:
    """The process that opened a resource.

    Args:
        what: Name of the resource in errors.
    """

    __slots__ = ("_generation", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._generation = _generation

    @property
    def is_here(self) -> bool:
        """Whether this is the process that opened it."""
        return self._generation == _generation

    def check(self) -> None:
        """Raise `ClosedError` in a forked child."""
        if self._generation != _generation:
            raise ClosedError(f"{self._what} was opened before a fork: open it again in the child")


_locks: WeakSet[Any] = WeakSet()


def fork_safe(lock: L) -> L:
    """Register a lock, condition or event to be reinitialised in forked children, and return it."""
    _locks.add(lock)
    return lock


# SQLite


class Connected(Protocol):
    """An object with connections to a SQLite file."""

    @property
    def path(self) -> str:
        """The file."""

    def connections(self) -> Iterable[apsw.Connection]:
        """Return the idle connections: all of them, while nobody is inside."""


_connected: WeakSet[Connected] = WeakSet()
_inside: dict[object, tuple[int, Connected]] = {}
_forking: set[int] = set()
_unusable: set[str] = set()


def connects(database: Connected) -> None:
    """Register a database, to have its connections closed in forked children.

    Raises:
        UnavailableError: This process was forked while its parent was using the same file.
    """
    if database.path in _unusable:
        raise UnavailableError(
            f"{database.path} cannot be opened in this process: it was forked off in the middle of a transaction"
        )
    _connected.add(database)


def enter(database: Connected) -> object:
    """Start to use a database; return the token for `leave`, which forks wait for. Waits for a running fork."""
    thread, mark = threading.get_ident(), object()
    _inside[mark] = thread, database
    while _forking and _forking != {thread}:
        del _inside[mark]
        is_nested = _is_inside(thread)  # then the fork waits for us
        if not is_nested:
            time.sleep(_LOOK_SECONDS)
        _inside[mark] = thread, database
        if is_nested:
            break
    return mark


def leave(mark: object) -> None:
    """Stop using a database."""
    _inside.pop(mark, None)


@contextmanager
def inside(database: Connected) -> Iterator[None]:
    """Use a database while the block runs."""
    mark = enter(database)
    try:
        yield
    finally:
        leave(mark)


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
    global _generation
    _generation += 1
    _forking.clear()
    for lock in list(_locks):
        lock._at_fork_reinit()  # noqa: SLF001 - as the standard library's own modules do
    busy = {id(database) for _, database in _inside.values()}
    _inside.clear()
    for database in list(_connected):
        connections = [*database.connections()]
        if id(database) not in busy:
            for connection in connections:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close()
            continue
        _unusable.add(database.path)
        for connection in connections:  # never closed, not even when the process exits
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
