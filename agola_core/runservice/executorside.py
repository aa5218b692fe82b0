"""What executors ask of the run service, and what they report to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from agola_core.errors import BadRequestError, NotFoundError
from agola_core.runservice.mirror import Mirror
from agola_core.runservice.store import RunStore
from agola_core.runservice.types import Executor, ExecutorTask


class ExecutorSide:
    """Takes executors' reports.

    Args:
        store: Executors and their tasks.
        mirror: What the watch told last.
        schedule: Called with the id of a run that is to be looked at.
        now: The time.
    """

    def __init__(
        self, store: RunStore, mirror: Mirror, schedule: Callable[[str], None], now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._schedule = schedule
        self._now = now

    def executors(self) -> list[Executor]:
        """Return the executors that have reported themselves."""
        return self._store.executors()

    def take_executor_status(self, executor: Executor) -> None:
        """Note an executor's report, with the service's time."""
        self._store.put_executor(replace(executor, last_status_update_time=self._now()))
        if executor.id not in self._mirror.executors:
            for run_id in list(self._mirror.runs):
                self._schedule(run_id)

    def tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return every task that is held for an executor, finished ones included."""
        return [task for task in self._store.all_tasks() if task.status.executor_id == executor_id]

    def task(self, task_id: str) -> ExecutorTask:
        """Return one task.

        Raises:
            NotFoundError: No executor holds it any more.
        """
        for task in self._store.all_tasks():
            if task.id == task_id:
                return task
        raise NotFoundError(f"task {task_id!r} does not exist")

    def take_task_status(self, executor_id: str, reported: ExecutorTask) -> None:
        """Take a task's status from its executor; one of another executor or attempt changes nothing.

        Raises:
            BadRequestError: There is no such task.
        """

        def change(task: ExecutorTask) -> ExecutorTask:
            if task.status.executor_id != executor_id or reported.attempt not in {0, task.attempt}:
                return task  # attempt 0: an executor of Agola's, which does not know attempts
            if task.status.phase.is_finished:
                return task
            return replace(
                task,
                status=replace(reported.status, executor_id=executor_id),
                setup_error=reported.setup_error,
                fail_error=reported.fail_error,
            )

        if self._store.change_task(reported.run_id, reported.id, change) is None:
            raise BadRequestError(f"task {reported.id!r} does not exist")
