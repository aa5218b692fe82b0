"""Which of several services advances a run first; the others follow a moment later, in case it has died.

Every change is committed with compares, so nothing is done twice, whoever does it. Ownership only spares the other
services work: when they look, a moment later, there is nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import blake2b
from threading import Lock

from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.work_queue import WorkQueue

_TICK_SECONDS = 0.25


def first_of(names: Collection[str], run_id: str) -> str:
    """Return which of the services advances a run first; "" if there are none."""

    def rank(name: str) -> bytes:  # not a CRC: of runs in a row, one name's would be highest for all or for none
        return blake2b(f"{name} {run_id}".encode(), digest_size=8).digest()

    return max(names, key=rank, default="")


class RunOwnership:
    """Queues changed runs: this service's own at once, those of others after one to two ticks.

    Args:
        queue: Runs to be advanced.
        name: This service's name.
        instances: The names of all running services.

    Attributes:
        wake: Called when a run of another service begins to wait: `tick` is to be called then, and as long as
            `pause` says.
    """

    def __init__(self, queue: WorkQueue, name: str, instances: Collection[str]) -> None:
        self._queue = queue
        self._name = name
        self._instances = instances
        self.wake: Callable[[], object] = lambda: None
        self._lock = fork_safe(Lock())
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def add(self, run_id: str) -> None:
        """Queue a run that every service was told of."""
        names = list(self._instances)
        if len(names) < 2 or self._name not in names or first_of(names, run_id) == self._name:
            self._queue.add(run_id)
        else:
            with self._lock:
                is_first = not self._newer and not self._older
                self._newer.add(run_id)
            if is_first:
                self.wake()

    def tick(self) -> None:
        """Queue the runs of others that have waited for a tick."""
        with self._lock:
            due, self._older, self._newer = self._older, self._newer, set()
        for run_id in due:
            self._queue.add(run_id)

    def pause(self) -> float | None:
        """Return the seconds until the next tick; None while nothing waits."""
        with self._lock:
            return _TICK_SECONDS if self._newer or self._older else None
