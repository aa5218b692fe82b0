"""On which executor a task starts: a pure choice, after Agola's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from agola_core.runservice.types import Executor, RunConfigTask

ALIVE = timedelta(seconds=60)
"""How long an executor counts as alive after its last heartbeat."""


def is_alive(executor: Executor, now: datetime) -> bool:
    """Return whether an executor has reported itself lately."""
    return now - executor.last_status_update_time <= ALIVE


def choose_executor(
    task: RunConfigTask, executors: Iterable[Executor], load: Mapping[str, int], now: datetime
) -> Executor | None:
    """Return the executor for a task: the first by id that is alive, fits, and has room; None when none does.

    Args:
        task: The task.
        executors: All that have reported themselves.
        load: How many unfinished tasks each holds.
        now: The time, by the clock that noted the heartbeats.
    """
    privileged = any(container.privileged for container in task.runtime.containers)
    for executor in sorted(executors, key=lambda item: item.id):
        if not is_alive(executor, now):
            continue
        if privileged and not executor.allow_privileged_containers:
            continue
        if task.runtime.arch and task.runtime.arch not in executor.archs:
            continue
        if executor.active_tasks_limit and load.get(executor.id, 0) >= executor.active_tasks_limit:
            continue
        return executor
    return None
