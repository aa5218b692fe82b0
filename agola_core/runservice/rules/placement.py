"""On which executor a task starts: a pure choice, after Agola's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agola_core.runservice.model.types import Executor, RunConfigTask


def fits(task: RunConfigTask, executor: Executor) -> bool:
    """Return whether an executor is of the kind that a task needs, room or not."""
    if task.runtime.arch and task.runtime.arch not in executor.archs:
        return False
    if not executor.allow_privileged_containers and any(item.privileged for item in task.runtime.containers):
        return False
    return all(executor.labels.get(name) == value for name, value in task.labels.items())


def has_room(executor: Executor, load: Mapping[str, int]) -> bool:
    """Return whether an executor may get one more task."""
    return not executor.active_tasks_limit or load.get(executor.id, 0) < executor.active_tasks_limit


def choose_executor(task: RunConfigTask, executors: Iterable[Executor], load: Mapping[str, int]) -> Executor | None:
    """Return the executor for a task: the first that fits and has room; None when none does.

    Args:
        task: The task.
        executors: Those that are alive, in the order of their ids.
        load: How many unfinished tasks each holds.
    """
    return next((item for item in executors if has_room(item, load) and fits(task, item)), None)
