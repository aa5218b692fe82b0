"""Chooses the executor that a task starts on, by Agola's rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agola_core.runservice.model.types import Executor, RunConfigTask


def fits(task: RunConfigTask, executor: Executor) -> bool:
    """Return whether an executor suits a task: its architecture, its labels and its privileges."""
    if task.runtime.arch and task.runtime.arch not in executor.archs:
        return False
    if not executor.allow_privileged_containers and any(item.privileged for item in task.runtime.containers):
        return False
    return all(executor.labels.get(name) == value for name, value in task.labels.items())


def has_free_slot(executor: Executor, load: Mapping[str, int]) -> bool:
    """Return whether an executor may take one more task."""
    return not executor.active_tasks_limit or load.get(executor.id, 0) < executor.active_tasks_limit


def choose_executor(task: RunConfigTask, executors: Iterable[Executor], load: Mapping[str, int]) -> Executor | None:
    """Return the executor for a task: the first suitable one with a free slot; None without one.

    Args:
        task: The task.
        executors: The live ones, ordered by id.
        load: How many unfinished tasks each has.
    """
    return next((item for item in executors if has_free_slot(item, load) and fits(task, item)), None)
