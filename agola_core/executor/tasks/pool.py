"""The tasks of an executor: those that run, of which there may be a limit, and those that wait for their turn."""

from __future__ import annotations

import threading
from collections import deque

from agola_core.executor.tasks.runner import TaskRunner


class TaskPool:
    """Task runners by the ids of their tasks. Thread-safe.

    Args:
        limit: How many tasks run at once; 0 for no limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._runners: dict[str, TaskRunner] = {}
        self._waiting: deque[TaskRunner] = deque()
        self._active = 0

    def __contains__(self, task_id: str) -> bool:
        """Return whether a task runs or waits."""
        return task_id in self._runners

    def get(self, task_id: str) -> TaskRunner | None:
        """Return the runner of a task; None when it neither runs nor waits."""
        return self._runners.get(task_id)

    def all(self) -> list[TaskRunner]:
        """Return all runners. Takes no lock: it serves a process that hangs, too."""
        return list(self._runners.values())

    def add(self, runner: TaskRunner) -> None:
        """Start a task, or queue it; a known task is ignored."""
        with self._lock:
            if runner.task.id in self._runners:
                return
            self._runners[runner.task.id] = runner
            if self._limit and self._active >= self._limit:
                self._waiting.append(runner)
                return
            self._active += 1
        runner.start()

    def remove(self, runner: TaskRunner) -> None:
        """Remove a task that has ended, and start the next one that waits."""
        following = None
        with self._lock:
            self._runners.pop(runner.task.id, None)
            if self._waiting:
                following = self._waiting.popleft()
            else:
                self._active -= 1
        if following is not None:
            following.start()
