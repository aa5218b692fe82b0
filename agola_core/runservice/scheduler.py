"""Brings one run a step on: what its executors reported, which tasks start, whether it has ended.

`advance` is called for a run whenever the coordinator changed something of it; it reads, decides (in the pure
`advance` module) and commits everything in one transaction, behind a compare of the run's revision. A task is
handed to its executor only after that, so no two services start it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from agola_core.coordinator.port import Compare, Op, Target
from agola_core.errors import AgolaError
from agola_core.runservice import advance, keys
from agola_core.runservice.executortasks import new_executor_task
from agola_core.runservice.mirror import Mirror
from agola_core.runservice.placement import choose_executor, is_alive
from agola_core.runservice.protocol import ExecutorDirectory
from agola_core.runservice.store import RunStore, Stored, put_task
from agola_core.runservice.types import (
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    Run,
    RunConfig,
    RunPhase,
)

logger = logging.getLogger(__name__)


class Scheduler:
    """Advances runs.

    Args:
        store: Active runs and their tasks.
        mirror: What the watch told last, for executors and their load.
        directory: Finds executors' clients.
        read_config: Returns a run's configuration.
        now: The time.
        fetch: Called with the id of a run that has logs or archives to fetch.
        archive: Called with a finished run whose logs and archives are all stored.
    """

    def __init__(
        self,
        store: RunStore,
        mirror: Mirror,
        directory: ExecutorDirectory,
        read_config: Callable[[str], RunConfig],
        now: Callable[[], datetime],
        fetch: Callable[[str], None],
        archive: Callable[[Run], None],
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._directory = directory
        self._read_config = read_config
        self._now = now
        self._fetch = fetch
        self._archive = archive

    def advance(self, run_id: str) -> None:
        """Bring a run as far as it gets now."""
        stored = self._store.find_run(run_id)
        if stored is None:
            self._forget_tasks(run_id)
            return
        config = self._read_config(run_id)
        tasks = self._store.tasks(run_id)
        run, started = self._decide(stored.run, config, tasks)
        stopped = [
            replace(task, stop=True)
            for task in tasks.values()
            if run.stop and not task.stop and not task.status.phase.is_finished
        ]
        if run != stored.run or started or stopped:
            if not self._commit(stored, run, started, stopped):
                return  # somebody else changed the run: its event brings us back
            self._hand_over([*started, *stopped])
        if any(advance.to_fetch(task) for task in run.tasks.values()):
            self._fetch(run_id)
        elif run.phase.is_finished:
            self._archive(run)
        if run.phase.is_finished:
            self._start_next(run)
        if run.phase is RunPhase.QUEUED:
            self._start_queued(run)

    def _decide(self, run: Run, config: RunConfig, tasks: dict[str, ExecutorTask]) -> tuple[Run, list[ExecutorTask]]:
        taken = {
            task_id: advance.take_status(task, tasks[task_id]) if task_id in tasks else task
            for task_id, task in run.tasks.items()
        }
        run = replace(run, tasks=taken)
        unfinished = sum(not task.status.phase.is_finished for task in tasks.values())
        run = advance.advance_run(run, config, unfinished, self._now())
        run, ready = advance.advance_tasks(run, config, tasks)
        started = []
        if ready:
            load = self._mirror.load_by_executor()
            executors = list(self._mirror.executors.values())
            for task in ready:
                executor = choose_executor(task, executors, load, self._now())
                if executor is None:
                    continue  # another task may fit; an executor's report or the sweep tries again
                load[executor.id] += 1
                started.append(new_executor_task(run, config, task, executor.id))
        if not started:
            run = advance.advance_run(run, config, unfinished, self._now())
        return run, started

    def _commit(self, stored: Stored, run: Run, started: list[ExecutorTask], stopped: list[ExecutorTask]) -> bool:
        compare = [Compare(keys.task(run.id, task.id), 0, Target.CREATE_REVISION) for task in started]
        compare += [Compare(keys.task(run.id, task.id), task.revision) for task in stopped]
        ops: list[Op] = [put_task(task) for task in (*started, *stopped)]
        return self._store.commit(stored, run, compare, ops, self._store.next_sequence)

    def _hand_over(self, tasks: list[ExecutorTask]) -> None:
        for task in tasks:
            executor = self._mirror.executors.get(task.status.executor_id)
            if executor is None:
                continue
            try:
                self._directory.client(executor).submit(task)
            except AgolaError:  # the executor's own poll finds the task
                logger.warning("executor %s could not be told of task %s", executor.id, task.id, exc_info=True)

    def _start_queued(self, run: Run) -> None:
        """Start a queued run unless another of its group runs or waits before it: Agola's scheduler's rule."""
        with self._mirror.condition:
            others = [other for other in self._mirror.runs.values() if other.group == run.group]
        before = [
            other
            for other in others
            if other.phase is RunPhase.RUNNING or (other.phase is RunPhase.QUEUED and other.id < run.id)
        ]
        if before:
            return

        def start(current: Run) -> Run:
            if current.phase is not RunPhase.QUEUED:
                return current
            return replace(current, phase=RunPhase.RUNNING, start_time=self._now())

        self._store.change_run(run.id, start, self._store.next_sequence)

    def _start_next(self, run: Run) -> None:
        with self._mirror.condition:
            waiting = sorted(
                other.id
                for other in self._mirror.runs.values()
                if other.group == run.group and other.phase is RunPhase.QUEUED
            )
        if waiting:
            self.advance(waiting[0])

    def fail_lost_tasks(self) -> None:
        """Fail the tasks of executors that are gone or silent for long; part of the slow sweep."""
        for task in list(self._store.all_tasks()):
            executor_id = task.status.executor_id
            executor = self._mirror.executors.get(executor_id)
            if task.status.phase.is_finished or (executor is not None and is_alive(executor, self._now())):
                continue
            reason = "executor deleted" if executor is None else "executor lost"
            logger.warning("task failed: task=%s executor=%s reason=%s", task.id, executor_id, reason)
            self._store.change_task(task.run_id, task.id, partial(failed, reason=reason, now=self._now()))

    def _forget_tasks(self, run_id: str) -> None:
        for task_id in self._store.tasks(run_id):
            self._store.delete_task(run_id, task_id)


def failed(task: ExecutorTask, reason: str, now: datetime) -> ExecutorTask:
    """Return an executor's task as failed, unless it has ended."""
    if task.status.phase.is_finished:
        return task
    steps = [
        replace(step, phase=ExecutorPhase.FAILED, end_time=now) if step.phase is ExecutorPhase.RUNNING else step
        for step in task.status.steps
    ]
    status: ExecutorTaskStatus = replace(task.status, phase=ExecutorPhase.FAILED, steps=steps, end_time=now)
    return replace(task, status=status, fail_error=reason)
