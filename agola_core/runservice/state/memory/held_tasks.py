"""Tasks on executors in memory, by task, run and executor."""

from __future__ import annotations

from collections import Counter

from agola_core.runservice.model.types import ExecutorTask


class HeldTasks:
    """Executor tasks. Not thread-safe.

    Attributes:
        by_id: All of them.
        by_run: Those of each run, by id.
        by_executor: The ids of those on each executor.
        load: How many unfinished ones each executor has.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, ExecutorTask] = {}
        self.by_run: dict[str, dict[str, ExecutorTask]] = {}
        self.by_executor: dict[str, set[str]] = {}
        self.load: Counter[str] = Counter()

    def put(self, task: ExecutorTask) -> None:
        """Add or replace a task."""
        self.remove(task.id)
        self.by_id[task.id] = task
        self.by_run.setdefault(task.run_id, {})[task.id] = task
        self.by_executor.setdefault(task.status.executor_id, set()).add(task.id)
        if not task.status.phase.is_finished:
            self.load[task.status.executor_id] += 1

    def remove(self, task_id: str) -> ExecutorTask | None:
        """Remove a task and return it as it was."""
        task = self.by_id.pop(task_id, None)
        if task is None:
            return None
        of_run = self.by_run[task.run_id]
        del of_run[task_id]
        if not of_run:
            del self.by_run[task.run_id]
        executor_id = task.status.executor_id
        of_executor = self.by_executor[executor_id]
        of_executor.discard(task_id)
        if not of_executor:
            del self.by_executor[executor_id]
        if not task.status.phase.is_finished:
            self.load[executor_id] -= 1
        return task
