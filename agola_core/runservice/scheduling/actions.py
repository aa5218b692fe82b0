"""What people and schedulers do to active runs: start, cancel, stop, approve, annotate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from agola_core.errors import BadRequestError
from agola_core.runservice.model.types import Run, RunPhase, RunTask
from agola_core.runservice.state.store import RunStore


class RunActions:
    """Changes active runs.

    Args:
        store: Has them.
        now: The time.
    """

    def __init__(self, store: RunStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def change_phase(self, run_id: str, phase: RunPhase, token: str) -> Run:
        """Start or cancel a queued run (see `RunService.change_run_phase`)."""
        if phase not in {RunPhase.RUNNING, RunPhase.CANCELLED}:
            raise BadRequestError(f"a run's phase cannot be changed to {phase.value!r}")

        def change(run: Run) -> Run:
            if run.phase is not RunPhase.QUEUED:
                raise BadRequestError(f'run "{run_id}" is not queued but in "{run.phase}" phase')
            if phase is RunPhase.RUNNING:
                return replace(run, phase=phase, start_time=self._now())
            return replace(run, phase=phase, end_time=self._now())

        return self._store.change_run(run_id, change, token)

    def stop(self, run_id: str, token: str) -> Run:
        """Stop a running run (see `RunService.stop_run`)."""

        def change(run: Run) -> Run:
            if run.phase is not RunPhase.RUNNING:
                raise BadRequestError(f'run "{run_id}" is not running but in "{run.phase}" phase')
            return replace(run, stop=True)

        return self._store.change_run(run_id, change, token)

    def approve(self, run_id: str, task_id: str, token: str) -> Run:
        """Approve a task that waits for it (see `RunService.approve_task`)."""

        def change(task: RunTask) -> RunTask:
            if task.approved:
                raise BadRequestError(f'run "{run_id}", task "{task_id}" is already approved')
            if not task.waiting_approval:
                raise BadRequestError(f'run "{run_id}", task "{task_id}" is not in waiting approval state')
            return replace(task, waiting_approval=False, approved=True)

        return self._change_task(run_id, task_id, change, token)

    def set_annotations(self, run_id: str, task_id: str, annotations: dict[str, str], token: str) -> Run:
        """Replace a task's annotations (see `RunService.set_annotations`)."""
        return self._change_task(run_id, task_id, lambda task: replace(task, annotations=annotations), token)

    def _change_task(self, run_id: str, task_id: str, change: Callable[[RunTask], RunTask], token: str) -> Run:
        def change_run(run: Run) -> Run:
            task = run.tasks.get(task_id)
            if task is None:
                raise BadRequestError(f'run "{run_id}" doesn\'t have task "{task_id}"')
            return replace(run, tasks={**run.tasks, task_id: change(task)})

        return self._store.change_run(run_id, change_run, token)
