"""One transition of a run: decided from the run and its tasks on executors, committed in one transaction."""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec
from msgspec.structs import replace

from agola_core.coordinator.port import Compare, Op, PutOp
from agola_core.runservice.model.types import ExecutorTask, Run, RunConfigTask
from agola_core.runservice.rules import advance
from agola_core.runservice.rules.advance import Fetched
from agola_core.runservice.rules.executor_tasks import failed, new_executor_task
from agola_core.runservice.scheduling.slots import SlotAssignment
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.secrets import RunSecrets
from agola_core.runservice.state.store import StoredRun, forget_ops, put_task, start_ops

logger = logging.getLogger(__name__)


class RunSnapshot(msgspec.Struct, frozen=True):
    """What a transition is decided from.

    Attributes:
        stored: The run.
        held: Its tasks on executors, by id, at the same revision.
        gone: Those of their executors that are deleted or lost, with the reason.
        revision: The revision.
    """

    stored: StoredRun
    held: dict[str, ExecutorTask]
    gone: dict[str, str]
    revision: int


class Limits(msgspec.Struct, frozen=True):
    """The size of one transaction, without the run itself.

    Attributes:
        ops: At most this many operations, and as many compares.
        size: At most this many bytes of values.
    """

    ops: int
    size: int


class Transition:
    """Collects what is to be committed for one run.

    Args:
        seen: The run and its tasks.
        definition: The run's configuration, with its secrets.
        limits: What does not fit is left to the next transition.
        now: The time.

    Attributes:
        run: The changed run.
        compare: The conditions besides the run's own.
        ops: The operations besides those that store the run.
        changed_tasks: The executor tasks that are new or changed, for their executors.
        unplaced: Tasks that may start once an executor has a free slot; only some of them when all are full.
    """

    def __init__(self, seen: RunSnapshot, definition: RunSecrets, limits: Limits, now: datetime) -> None:
        self.run = seen.stored.run
        self.compare: list[Compare] = []
        self.ops: list[Op] = []
        self.changed_tasks: list[ExecutorTask] = []
        self.unplaced: list[RunConfigTask] = []
        self._seen = seen
        self._secrets = definition.values
        self._config = definition.config
        self._limits = limits
        self._now = now
        self._size = 0
        self._held = dict(seen.held)
        self._again: set[str] = set()

    def decide(self, fetched: list[Fetched], assignment: SlotAssignment) -> None:
        """Decide everything.

        Args:
            fetched: Logs and archives that are in storage, or lost, since the last transition.
            assignment: Assigns the tasks that start to executors.
        """
        self._take_reports()
        self._take_fetched(fetched)
        unfinished = sum(not task.status.phase.is_finished for task in self._held.values())
        run = advance.advance_run(self.run, self._config, unfinished, self._now)
        run, ready = advance.advance_tasks(run, self._config, self._held)
        started = self._start(run, ready, assignment)
        if not started and not self._again:
            run = advance.advance_run(run, self._config, unfinished, self._now)
        self.run = run
        if run.stop:
            self._stop()

    def _take_reports(self) -> None:
        """Record what executors reported, and fail or retry the tasks of lost ones."""
        run = self.run
        tasks = dict(run.tasks)
        for task_id, task in self._seen.held.items():
            known = tasks.get(task_id)
            ended = task.status.phase.is_finished
            if known is None or (known.status.is_finished and ended):
                continue
            reason = "" if ended else self._seen.gone.get(task.status.executor_id, "")
            if reason and not self._fits(2):
                continue
            if reason:
                logger.warning("task lost: task=%s executor=%s reason=%s", task_id, task.status.executor_id, reason)
                configured = self._config.tasks[task_id]
                if task.attempt < configured.max_attempts and not run.stop and not run.result.is_set:
                    tasks[task_id] = advance.tried_again(known, configured, task.attempt, reason)
                    self._forget(task)
                    self._again.add(task_id)
                    continue
                self._change(failed(task, reason, self._now))
            if known.status.is_finished:
                continue
            taken = tasks[task_id] = advance.take_status(known, self._held[task_id])
            # Its report has brought all that it left. Else it goes when that is fetched, or with the run.
            if ended and taken.status.is_finished and not advance.to_fetch(taken) and self._fits(2):
                self._forget(task)
        self.run = replace(run, tasks=tasks)

    def _take_fetched(self, fetched: list[Fetched]) -> None:
        """Record what was fetched; an executor task is deleted once everything of it is."""
        if not fetched:
            return
        tasks = dict(self.run.tasks)
        for item in fetched:
            if item.task_id in tasks:
                tasks[item.task_id] = advance.mark_fetched(
                    tasks[item.task_id], item.kind, item.step, lost=item.lost, reports=item.reports
                )
        self.run = replace(self.run, tasks=tasks)
        for task_id in dict.fromkeys(item.task_id for item in fetched):
            task = self._held.get(task_id)
            if task is None or not task.status.phase.is_finished or advance.to_fetch(tasks[task_id]):
                continue
            if self._fits(2):  # else it is deleted with the run
                self._forget(task)

    def _start(self, run: Run, ready: list[RunConfigTask], assignment: SlotAssignment) -> bool:
        started = False
        for task in ready:
            if task.id in self._again:
                continue  # its key is deleted by this transition, and created again by the next one
            if not self._fits(4):
                break
            executor = assignment.choose(task)
            if executor is None:
                self.unplaced.append(task)
                if assignment.full:
                    break
                continue  # another task may fit
            new = new_executor_task(run, self._config, task, executor.id, self._secrets)
            condition, ops = start_ops(new)
            self._add(condition, ops)
            self.changed_tasks.append(new)
            started = True
        compare, ops = assignment.guards()
        self.compare += compare
        self.ops += ops
        return started

    def _stop(self) -> None:
        for task in self._held.values():
            if task.stop or task.status.phase.is_finished or task.status.executor_id in self._seen.gone:
                continue
            if not self._fits(1):
                return
            self._change(replace(task, stop=True))

    def _change(self, task: ExecutorTask) -> None:
        self._held[task.id] = task
        self._add(Compare(run_keys.TASKS.key(task.id), task.revision), [put_task(task)])
        self.changed_tasks.append(task)

    def _forget(self, task: ExecutorTask) -> None:
        self._held.pop(task.id)
        self._add(Compare(run_keys.TASKS.key(task.id), task.revision), forget_ops(task))

    def _add(self, condition: Compare, ops: list[Op]) -> None:
        self.compare.append(condition)
        self.ops += ops
        self._size += sum(len(op.value) for op in ops if isinstance(op, PutOp))

    def _fits(self, ops: int) -> bool:
        """Return whether the transaction has space for more operations."""
        return len(self.ops) + ops <= self._limits.ops and self._size <= self._limits.size
