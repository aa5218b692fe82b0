"""Advances a run and its tasks from one state to the next, by Agola's rules. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from agola_core.runservice.model.types import (
    Depend,
    DependCondition,
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStepStatus,
    FetchPhase,
    Run,
    RunConfig,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunTask,
    RunTaskStep,
    SaveToWorkspaceStep,
    TaskStatus,
)

_FROM = {
    TaskStatus.NOT_STARTED: {TaskStatus.NOT_STARTED},
    TaskStatus.CANCELLED: {TaskStatus.CANCELLED, TaskStatus.NOT_STARTED},
    TaskStatus.RUNNING: {TaskStatus.RUNNING, TaskStatus.NOT_STARTED},
    TaskStatus.STOPPED: {TaskStatus.STOPPED, TaskStatus.RUNNING, TaskStatus.NOT_STARTED},
    TaskStatus.SUCCESS: {TaskStatus.SUCCESS, TaskStatus.RUNNING, TaskStatus.NOT_STARTED},
    TaskStatus.FAILED: {TaskStatus.FAILED, TaskStatus.RUNNING, TaskStatus.NOT_STARTED},
}
"""The statuses that each status may follow. Success and stopped may follow not started directly, since the update to
running may have been missed (Agola then left the run stuck)."""

_CONDITIONS = {
    DependCondition.ON_SUCCESS: TaskStatus.SUCCESS,
    DependCondition.ON_FAILURE: TaskStatus.FAILED,
    DependCondition.ON_SKIPPED: TaskStatus.SKIPPED,
}


class Fetched(msgspec.Struct, frozen=True):
    """A log or an archive that is in storage, or permanently lost.

    Attributes:
        task_id: Its task.
        kind: "log" or "archive".
        step: The step's number; None for the set-up's log.
        lost: It exists nowhere.
        reports: The archive has reports of tests or coverage.
    """

    task_id: str
    kind: str
    step: int | None
    lost: bool = False
    reports: bool = False


def new_run_task(task: RunConfigTask) -> RunTask:
    """Return the state of a task that has not started."""
    saves = [number for number, step in enumerate(task.steps) if isinstance(step, SaveToWorkspaceStep)]
    return RunTask(
        id=task.id,
        skip=task.skip,
        status=TaskStatus.SKIPPED if task.skip else TaskStatus.NOT_STARTED,
        setup_step=RunTaskStep(phase=ExecutorPhase.NOT_STARTED, log_phase=FetchPhase.NOT_STARTED),
        steps=[RunTaskStep(phase=ExecutorPhase.NOT_STARTED, log_phase=FetchPhase.NOT_STARTED) for _ in task.steps],
        workspace_archives=saves,
        workspace_archives_phase=[FetchPhase.NOT_STARTED for _ in saves],
    )


def take_status(task: RunTask, reported: ExecutorTask) -> RunTask:
    """Return a run's task with its executor's report; a report that would set it back changes nothing.

    Args:
        task: The task in its run.
        reported: The task as the executor reported it.
    """
    wanted = TaskStatus(reported.status.phase.value)
    if (wanted, task.status) == (TaskStatus.CANCELLED, TaskStatus.RUNNING):
        wanted = TaskStatus.STOPPED  # it had begun; if this were ignored, as Agola does, it would run forever
    if task.status not in _FROM.get(wanted, set()):
        return task
    steps = [
        _take_step(step, state, state.exit_code if state.phase.is_finished else None, ended=wanted.is_finished)
        for step, state in zip(task.steps, reported.status.steps, strict=False)
    ]
    setup = _take_step(task.setup_step, reported.status.setup_step, None, ended=wanted.is_finished)
    reason = reported.setup_error or reported.fail_error
    return replace(
        task,
        status=wanted,
        setup_step=setup,
        steps=[*steps, *task.steps[len(steps) :]],
        start_time=reported.status.start_time,
        end_time=reported.status.end_time,
        reason=reason or task.reason,
        attempt=reported.attempt,
    )


def _take_step(step: RunTaskStep, state: ExecutorTaskStepStatus, code: int | None, *, ended: bool) -> RunTaskStep:
    has_text = ended and state.log_text is not None and step.log_phase is FetchPhase.NOT_STARTED
    return replace(
        step,
        phase=state.phase,
        start_time=state.start_time,
        end_time=state.end_time,
        exit_code=code,
        log_phase=FetchPhase.FINISHED if has_text else step.log_phase,
        log_text=state.log_text if has_text else step.log_text,
    )


def advance_tasks(
    run: Run, config: RunConfig, scheduled: Mapping[str, ExecutorTask]
) -> tuple[Run, list[RunConfigTask]]:
    """Return the run with its waiting tasks advanced, and the tasks that can start now.

    Args:
        run: A running run, with its executors' reports applied.
        config: Its configuration.
        scheduled: Its tasks on executors.
    """
    if run.phase is not RunPhase.RUNNING:
        return run, []
    tasks = dict(run.tasks)
    ready = []
    waiting = [
        config.tasks[task_id]
        for task_id, task in tasks.items()
        if task.status is TaskStatus.NOT_STARTED and task_id not in scheduled
    ]
    decided = run.result.is_set
    for configured in sorted(waiting, key=attrgetter("level")):
        task_id = configured.id
        if configured.depends:
            above = [tasks[parent] for parent in configured.depends]
            if not all(parent.status.is_finished and archives_fetched(parent) for parent in above):
                continue
            if not _is_satisfied(configured.depends, tasks):
                tasks[task_id] = replace(tasks[task_id], status=TaskStatus.SKIPPED)
                continue
        if run.stop or (decided and not configured.depends):
            tasks[task_id] = replace(tasks[task_id], status=TaskStatus.CANCELLED, waiting_approval=False)
        elif configured.needs_approval and not tasks[task_id].approved:
            tasks[task_id] = replace(tasks[task_id], waiting_approval=True)
        else:
            ready.append(configured)
    return replace(run, tasks=tasks), ready


def _is_satisfied(depends: Mapping[str, Depend], tasks: Mapping[str, RunTask]) -> bool:
    """Return whether the dependencies, all of them finished, ended as required."""
    return all(
        any(
            tasks[parent].status is _CONDITIONS[condition]
            for condition in depend.conditions or [DependCondition.ON_SUCCESS]
        )
        for parent, depend in depends.items()
    )


def advance_run(run: Run, config: RunConfig, unfinished: int, now: datetime) -> Run:
    """Return the run with its result and phase advanced.

    Args:
        run: The run, its tasks advanced.
        config: Its configuration.
        unfinished: How many of its executor tasks have not ended.
        now: The time.
    """
    had_finished = run.phase is RunPhase.FINISHED  # it was settled then, and its tasks have ended for good
    if run.phase is RunPhase.RUNNING:
        tasks = run.tasks.values()
        done = all(task.status.is_finished for task in tasks)
        if run.result is RunResult.UNKNOWN:
            failed = any(
                task.status is TaskStatus.FAILED and not config.tasks[task.id].ignore_failure for task in tasks
            )
            if failed:
                run = replace(run, result=RunResult.FAILED)
            elif done:
                stopped = any(task.status is TaskStatus.STOPPED for task in tasks)
                run = replace(run, result=RunResult.STOPPED if stopped else RunResult.SUCCESS)
            elif run.stop:
                run = replace(run, result=RunResult.STOPPED)
        if run.result.is_set and done and not unfinished:
            run = replace(run, phase=RunPhase.FINISHED, end_time=now)
    if run.phase.is_finished and not had_finished:
        run = replace(run, tasks={task_id: _settle_fetches(task) for task_id, task in run.tasks.items()})
    return run


def archives_fetched(task: RunTask) -> bool:
    """Return whether all archives that a finished task saved are in storage."""
    return all(
        phase is FetchPhase.FINISHED or not _ran(task.steps[step])
        for step, phase in zip(task.workspace_archives, task.workspace_archives_phase, strict=True)
    )


def to_fetch(task: RunTask) -> list[tuple[str, int | None]]:
    """Return what of a finished task must be copied from its executor: ("log" or "archive", step or None)."""
    if not task.status.is_finished:
        return []
    wanted: list[tuple[str, int | None]] = [
        ("archive", step)
        for step, phase in zip(task.workspace_archives, task.workspace_archives_phase, strict=True)
        if phase is FetchPhase.NOT_STARTED and _ran(task.steps[step])
    ]
    if task.setup_step.log_phase is FetchPhase.NOT_STARTED and _ran(task.setup_step):
        wanted.append(("log", None))
    wanted.extend(
        ("log", number)
        for number, step in enumerate(task.steps)
        if step.log_phase is FetchPhase.NOT_STARTED and _ran(step)
    )
    return wanted


def mark_fetched(task: RunTask, kind: str, number: int | None, *, lost: bool = False, reports: bool = False) -> RunTask:
    """Return a task with one of its logs or archives recorded as stored, or as permanently lost."""
    if kind == "archive":
        phases = [
            FetchPhase.FINISHED if step == number else phase
            for step, phase in zip(task.workspace_archives, task.workspace_archives_phase, strict=True)
        ]
        archives_lost = [*task.archives_lost, number] if lost and number is not None else task.archives_lost
        told = sorted({*task.reports, number}) if reports and number is not None else task.reports
        return replace(task, workspace_archives_phase=phases, archives_lost=archives_lost, reports=told)
    if number is None:
        return replace(task, setup_step=replace(task.setup_step, log_phase=FetchPhase.FINISHED, log_lost=lost))
    steps = [
        replace(step, log_phase=FetchPhase.FINISHED, log_lost=lost) if index == number else step
        for index, step in enumerate(task.steps)
    ]
    return replace(task, steps=steps)


def tried_again(task: RunTask, configured: RunConfigTask, attempt: int, reason: str) -> RunTask:
    """Return a task whose executor was lost, reset so that it starts again.

    Args:
        task: The task in its run.
        configured: Its configuration.
        attempt: The start that was lost.
        reason: Why it was.
    """
    fresh = new_run_task(configured)
    return replace(
        fresh,
        annotations=task.annotations,
        approved=task.approved,
        attempt=attempt,
        reason=f"attempt {attempt}: {reason}",
    )


def _ran(step: RunTaskStep) -> bool:
    return step.phase is not None and step.phase is not ExecutorPhase.NOT_STARTED


def _settle_fetches(task: RunTask) -> RunTask:
    """Mark the logs and archives of steps that never ran as fetched: there are none to wait for."""
    for number, step in enumerate(task.steps):
        if _ran(step):
            continue
        if step.log_phase is FetchPhase.NOT_STARTED:
            task = mark_fetched(task, "log", number)
        if number in task.workspace_archives:
            task = mark_fetched(task, "archive", number)
    if task.setup_step.log_phase is FetchPhase.NOT_STARTED and not _ran(task.setup_step):
        task = mark_fetched(task, "log", None)
    return task
