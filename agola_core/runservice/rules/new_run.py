"""Builds runs: a new one from a request, or the restart of a finished one. Pure except for new ids."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from agola_core.errors import BadRequestError
from agola_core.objectstorage.port import is_portable
from agola_core.runservice.model.graph import graph_errors, parents, with_levels
from agola_core.runservice.model.requests import RunBundle, RunCreateRequest
from agola_core.runservice.model.types import (
    Run,
    RunConfig,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunTask,
    TaskStatus,
)
from agola_core.runservice.rules.advance import new_run_task, to_fetch

MAX_TASK_ID_BYTES = 200
"""The longest task id: it names objects and files."""


def check_request(request: RunCreateRequest) -> None:
    """Raise `BadRequestError` for a run that cannot be created, with Agola's messages in Agola's order."""
    if not request.group:
        raise BadRequestError("run group is empty")
    if not request.group.startswith("/"):
        raise BadRequestError(f'run group "{request.group}" must be an absolute path')
    if request.run_config_tasks is None and not request.setup_errors:
        raise BadRequestError("empty run config tasks and setup errors")
    if len(request.group.split("/")) < 3 or not request.group.split("/")[2]:
        raise BadRequestError(f'run group "{request.group}" needs a type and an id, like /project/ID')
    for task_id, task in (request.run_config_tasks or {}).items():
        _check_task_id(task_id, task)


def _check_task_id(task_id: str, task: RunConfigTask) -> None:
    if task.id not in {"", task_id}:
        raise BadRequestError(f'run config task "{task_id[:80]}" has another id, "{task.id[:80]}"')
    if "/" in task_id or len(task_id.encode(errors="replace")) > MAX_TASK_ID_BYTES or not is_portable(task_id):
        raise BadRequestError(f'run config task "{task_id[:80]}": an id has 1 to {MAX_TASK_ID_BYTES} bytes, no "/"')


def counter_group(group: str) -> str:
    """Return the root group, whose counter gives a run its number: the second component of its group."""
    return group.split("/")[2]


def new_run(request: RunCreateRequest, run_id: str, counter: int, now: datetime) -> RunBundle:
    """Return a new run; errors in its task graph become setup errors.

    Args:
        request: A checked request.
        run_id: The run's id, its configuration's too.
        counter: The run's number in its root group.
        now: The time.
    """
    tasks = {
        task_id: task if task.id else replace(task, id=task_id)
        for task_id, task in (request.run_config_tasks or {}).items()
    }
    setup_errors = list(request.setup_errors or [])
    setup_errors += graph_errors(tasks)
    if not setup_errors:
        tasks = with_levels(tasks)
    config = RunConfig(
        id=run_id,
        name=request.name,
        group=request.group,
        setup_errors=setup_errors,
        annotations=request.annotations or {},
        static_environment=request.static_environment or {},
        environment=request.environment or {},
        tasks=tasks,
        cache_group=request.cache_group,
    )
    return RunBundle(_run(config, counter, now), config)


def _run(config: RunConfig, counter: int, now: datetime) -> Run:
    broken = bool(config.setup_errors)
    return Run(
        id=config.id,
        name=config.name,
        counter=counter,
        group=config.group,
        annotations=config.annotations,
        phase=RunPhase.SETUP_ERROR if broken else RunPhase.QUEUED,
        result=RunResult.UNKNOWN,
        tasks={} if broken else {task_id: new_run_task(task) for task_id, task in config.tasks.items()},
        enqueue_time=now,
    )


def restart_refusal(run: Run, config: RunConfig, *, from_start: bool) -> str | None:
    """Return why a run cannot be restarted; None if it can."""
    if config.setup_errors:
        return "run has setup errors"
    if not run.phase.is_finished:
        return f'run is not finished, phase: "{run.phase}"'
    if from_start:
        return None
    if run.result is RunResult.SUCCESS:
        return f'run "{run.id}" has success result, cannot restart from failed tasks'
    for task in run.tasks.values():
        if task.status is TaskStatus.SUCCESS and to_fetch(task):
            return f'run "{run.id}" task "{task.id}" not fully archived'
    return None


def restarted(
    old: RunBundle,
    run_id: str,
    counter: int,
    now: datetime,
    new_id: Callable[[], str],
    *,
    from_start: bool,
    environment: dict[str, str],
) -> RunBundle:
    """Return the restart of a run.

    Tasks that run again get new ids: all of them, or those that did not succeed and their descendants. The others keep
    id, state, logs and archives, which both runs then share.

    Args:
        old: The run and its configuration.
        run_id: The new run's id.
        counter: Its number.
        now: The time.
        new_id: Makes task ids.
        from_start: Whether every task runs again.
        environment: Replaces the old run's.
    """
    tasks = old.run_config.tasks
    again: dict[str, str] = {}
    for task_id in sorted(tasks, key=lambda item: tasks[item].level):
        succeeded = old.run.tasks[task_id].status is TaskStatus.SUCCESS
        below = any(parent in again for parent in parents(tasks, task_id))
        if from_start or not succeeded or below:
            again[task_id] = new_id()
    renamed = {again.get(task_id, task_id): _renamed(task, again) for task_id, task in tasks.items()}
    config = replace(old.run_config, id=run_id, tasks=renamed, environment=environment)
    run = _run(config, counter, now)
    kept: dict[str, RunTask] = {task_id: old.run.tasks[task_id] for task_id in tasks if task_id not in again}
    return RunBundle(replace(run, tasks={**run.tasks, **kept}, restarted_from=old.run.id), config)


def _renamed(task: RunConfigTask, again: dict[str, str]) -> RunConfigTask:
    depends = {
        again.get(parent, parent): replace(depend, task_id=again.get(parent, parent))
        for parent, depend in (task.depends or {}).items()
    }
    return replace(task, id=again.get(task.id, task.id), depends=depends)
