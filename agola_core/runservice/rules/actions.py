"""Actions of users and external schedulers on active runs: start, cancel, stop, approve, annotate. Pure.

Each function is, or returns, a change of a run that raises `BadRequestError` when the run does not allow it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from agola_core.errors import BadRequestError
from agola_core.runservice.model.types import Run, RunPhase, RunTask

Change = Callable[[Run], Run]


def change_phase(phase: RunPhase, now: datetime) -> Change:
    """Start or cancel a queued run.

    Raises:
        BadRequestError: The phase is neither running nor cancelled.
    """
    if phase not in {RunPhase.RUNNING, RunPhase.CANCELLED}:
        raise BadRequestError(f"a run's phase cannot be changed to {phase.value!r}")

    def change(run: Run) -> Run:
        if run.phase is not RunPhase.QUEUED:
            raise BadRequestError(f'run "{run.id}" is not queued but in "{run.phase}" phase')
        if phase is RunPhase.RUNNING:
            return replace(run, phase=phase, start_time=now)
        return replace(run, phase=phase, end_time=now)

    return change


def stop(run: Run) -> Run:
    """Stop a running run."""
    if run.phase is not RunPhase.RUNNING:
        raise BadRequestError(f'run "{run.id}" is not running but in "{run.phase}" phase')
    return replace(run, stop=True)


def approve(task_id: str) -> Change:
    """Approve a task that waits for approval."""

    def change(run: Run) -> Run:
        task = _task(run, task_id)
        if task.approved:
            raise BadRequestError(f'run "{run.id}", task "{task_id}" is already approved')
        if not task.waiting_approval:
            raise BadRequestError(f'run "{run.id}", task "{task_id}" is not in waiting approval state')
        return _with_task(run, replace(task, waiting_approval=False, approved=True))

    return change


def annotate(task_id: str, annotations: dict[str, str]) -> Change:
    """Replace a task's annotations."""
    return lambda run: _with_task(run, replace(_task(run, task_id), annotations=annotations))


def _task(run: Run, task_id: str) -> RunTask:
    task = run.tasks.get(task_id)
    if task is None:
        raise BadRequestError(f'run "{run.id}" doesn\'t have task "{task_id}"')
    return task


def _with_task(run: Run, task: RunTask) -> Run:
    return replace(run, tasks={**run.tasks, task.id: task})
