"""Makes forks safe: a child cannot use what its parent opened, gets an error if it tries, and never deadlocks.

A child has one thread and a copy of all memory, including locks that other threads held: so locks are reinitialised in
a child. `connections` does what SQLite needs besides.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar
from weakref import WeakSet

from agola_core.errors import ClosedError

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


def _after_in_child() -> None:
    global _generation
    _generation += 1
    for lock in list(_locks):
        lock._at_fork_reinit()  # noqa: SLF001 - as the standard library's own modules do


os.register_at_fork(after_in_child=_after_in_child)
