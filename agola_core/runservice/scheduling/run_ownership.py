"""How several services share the work: each run has one that works on it first, the others a moment later.

Whoever works on a run commits behind compares, so nothing is done twice, whoever it is. Sharing only spares the
others the work: when they look, a moment later, there is nothing left to do, unless the first one died or hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import Lock
from zlib import crc32

from agola_core.runtime.forks import renewed

TICK_SECONDS = 0.25


def first_of(names: Collection[str], run_id: str) -> str:
    """Return which of the services works on a run first; "" when there are none."""
    return max(names, key=lambda name: crc32(f"{name} {run_id}".encode()), default="")


class Sharing:
    """Passes on which runs changed: at once, or after one to two ticks.

    Args:
        add: Asks for a run to be advanced.

    Attributes:
        name: This service's.
        instances: The names of those that run now.
    """

    def __init__(self, add: Callable[[str], None]) -> None:
        self.name = ""
        self.instances: Collection[str] = ()
        self._add = add
        self._lock = renewed(Lock())
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def changed(self, run_id: str) -> None:
        """Take in that a run is to be looked at."""
        names = list(self.instances)
        if len(names) < 2 or self.name not in names or first_of(names, run_id) == self.name:
            self._add(run_id)
        else:
            with self._lock:
                self._newer.add(run_id)

    def tick(self) -> None:
        """Pass on what has waited for a tick."""
        with self._lock:
            due, self._older, self._newer = self._older, self._newer, set()
        for run_id in due:
            self._add(run_id)
