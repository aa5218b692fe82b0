"""Converts a run's task to the task that an executor gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from agola_core.runservice.model import object_paths
from agola_core.runservice.model.graph import ancestors
from agola_core.runservice.model.types import (
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
    Run,
    RunConfig,
    RunConfigTask,
    TaskStatus,
    WorkspaceOperation,
)


def cache_prefix(config: RunConfig) -> str:
    """Return the prefix of a run's cache keys: by its cache group, else by its root group."""
    return object_paths.cache_owner(config.cache_group or config.group.split("/")[2])


def new_executor_task(
    run: Run, config: RunConfig, task: RunConfigTask, executor_id: str, secrets: Iterable[str] = ()
) -> ExecutorTask:
    """Return the task that an executor gets; the run's environment overrides its static one and the task's own."""
    operations = [
        WorkspaceOperation(task_id=above, step=step)
        for above in ancestors(config.tasks, task.id)
        for step in run.tasks[above].workspace_archives
        if run.tasks[above].status is TaskStatus.SUCCESS
    ]
    containers = task.runtime.containers
    return ExecutorTask(
        id=task.id,
        run_id=run.id,
        task_name=task.name,
        arch=task.runtime.arch,
        containers=containers,
        environment={**task.environment, **config.static_environment, **config.environment},
        working_dir=task.working_dir,
        shell=task.shell,
        user=task.user or (containers[0].user if containers else ""),
        privileged=any(container.privileged for container in containers),
        docker_registries_auth=task.docker_registries_auth,
        steps=task.steps,
        status=ExecutorTaskStatus(executor_id=executor_id, steps=[ExecutorTaskStepStatus() for _ in task.steps]),
        workspace_operations=operations,
        cache_prefix=cache_prefix(config),
        attempt=run.tasks[task.id].attempt + 1,
        timeout=task.timeout,
        secrets=list(secrets),
    )


def failed(task: ExecutorTask, reason: str, now: datetime) -> ExecutorTask:
    """Return an executor task as failed, unless it has ended."""
    if task.status.phase.is_finished:
        return task
    steps = [
        replace(step, phase=ExecutorPhase.FAILED, end_time=now) if step.phase is ExecutorPhase.RUNNING else step
        for step in task.status.steps
    ]
    status = replace(task.status, phase=ExecutorPhase.FAILED, steps=steps, end_time=now)
    return replace(task, status=status, fail_error=reason)
