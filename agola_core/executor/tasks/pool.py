"""The tasks of an executor: those that run, of which there may be a limit, and those that wait for their turn.

A thread that has run a task runs the next one, and waits a little for it: beginning a thread for each task would be a
good part of a short task's cost.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from agola_core.errors import UnavailableError
from agola_core.executor.tasks.runner import TaskRunner
from agola_core.runtime.threads.start import start_thread

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0


class TaskPool:
    """Task runners by the ids of their tasks. Thread-safe.

    Args:
        limit: How many tasks run at once; 0 for no limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._condition = threading.Condition()
        self._runners: dict[str, TaskRunner] = {}
        self._waiting: deque[TaskRunner] = deque()
        self._handed: deque[TaskRunner] = deque()  # to threads that were idle
        self._active = 0
        self._idle = 0
        self._closed = False

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
        """Start a task, or queue it; a known task is ignored.

        Raises:
            UnavailableError: The system gives no thread for it; the task is not taken.
        """
        with self._condition:
            if runner.task.id in self._runners:
                return
            self._runners[runner.task.id] = runner
            if self._limit and self._active >= self._limit:
                self._waiting.append(runner)
                return
            self._active += 1
            runner.begin()
            if self._idle:
                self._idle -= 1
                self._handed.append(runner)
                self._condition.notify()
                return
        try:
            start_thread(f"task {runner.task.id!r}", self._work, runner)
        except UnavailableError:
            with self._condition:
                del self._runners[runner.task.id]
                self._active -= 1
            raise

    def remove(self, runner: TaskRunner) -> None:
        """Remove a task that has ended."""
        with self._condition:
            self._runners.pop(runner.task.id, None)

    def close(self) -> None:
        """End the threads that have no task."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _work(self, runner: TaskRunner | None) -> None:
        while runner is not None:
            threading.current_thread().name = f"task-{runner.task.id}"
            try:
                runner.run()
            except Exception:  # its place is the next one's all the same
                logger.exception("the end of task %s failed", runner.task.id)
            runner = self._next()

    def _next(self) -> TaskRunner | None:
        """Return the next task for a thread whose task has ended; None when none comes."""
        with self._condition:
            if self._waiting:
                runner = self._waiting.popleft()
                runner.begin()
                return runner
            self._active -= 1
            self._idle += 1
            threading.current_thread().name = "task"
            if self._condition.wait_for(lambda: self._handed or self._closed, _IDLE_SECONDS) and self._handed:
                return self._handed.popleft()
            self._idle -= 1
            return None
