"""Runs waiting to be advanced, with what has happened to each of them since it last was."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from agola_core.runservice.rules.advance import Fetched
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.work_queue import WorkQueue


class PendingRuns:
    """The scheduler's inbox. Thread-safe.

    Args:
        workers: Threads that advance runs.

    Attributes:
        queue: The ids of the runs to be advanced.
    """

    def __init__(self, workers: int) -> None:
        self.queue = WorkQueue("runservice-schedule", workers)
        self._lock = fork_safe(Lock())
        self._fetched: dict[str, list[Fetched]] = {}
        self._ended: dict[str, set[str]] = {}

    def add_fetched(self, run_id: str, fetched: Iterable[Fetched]) -> None:
        """Record logs and archives of a run that are in storage, or lost, and queue the run."""
        with self._lock:
            self._fetched.setdefault(run_id, []).extend(fetched)
        self.queue.add(run_id)

    def add_ended(self, run_id: str, tasks: Iterable[str]) -> None:
        """Record tasks of a run that have ended: their logs and archives are to be fetched."""
        with self._lock:
            self._ended.setdefault(run_id, set()).update(tasks)

    def take_fetched(self, run_id: str) -> list[Fetched]:
        """Remove and return what was fetched of a run."""
        with self._lock:
            return self._fetched.pop(run_id, [])

    def take_ended(self, run_id: str) -> set[str]:
        """Remove and return the tasks of a run that have ended."""
        with self._lock:
            return self._ended.pop(run_id, set())

    def put_back(self, run_id: str, fetched: list[Fetched]) -> None:
        """Return what `take_fetched` gave, because the transaction that recorded it was refused; queue the run."""
        with self._lock:
            self._fetched[run_id] = fetched + self._fetched.get(run_id, [])
        self.queue.add(run_id)
