"""The status of one task on its executor: changed, saved in the task's directory, and reported to the service."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from msgspec.structs import replace

from agola_core.executor.tasks.directory import TaskDirectory
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask, ExecutorTaskStepStatus
from agola_core.runtime import faultpoints
from agola_core.runtime.clock import boot_clock

logger = logging.getLogger(__name__)

faultpoints.declare("executor.before-save")


class TaskState:
    """A task with its status; changed by the task's thread alone.

    Args:
        task: The task, as the service or an earlier executor left it.
        directory: Its directory.
        report: Called with the task after every change that the service must hear of.
        clock: Seconds since 1970, for the times that are reported.
        ticks: Seconds of a clock that is never set, for timeouts.

    Attributes:
        task: The task with its newest status.
        condition: Notified when the status changes; followers of logs wait on it.
        growths: How often one of its logs may have grown, as far as somebody tells of it.
        began: When each step began, by `ticks`.
    """

    def __init__(
        self,
        task: ExecutorTask,
        directory: TaskDirectory,
        report: Callable[[ExecutorTask], None],
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = boot_clock,
    ) -> None:
        self.task = task
        self.condition = threading.Condition()
        self.growths = 0
        self._waiting = 0
        self._directory = directory
        self._report = report
        self._clock = clock
        self.ticks = ticks
        now, ticked = clock(), ticks()
        self._since = now - ticked
        # Of steps that an earlier executor began, only the time by its clock is known.
        self.began = {
            number: ticked - max(0.0, now - step.start_time.timestamp())
            for number, step in enumerate(task.status.steps)
            if step.start_time is not None
        }

    def log_grown(self) -> None:
        """Wake the followers that wait for a log to grow; those that look often anyway are left alone."""
        with self.condition:
            self.growths += 1
            if self._waiting:
                self.condition.notify_all()

    def wait_growth(self, growths: int, seconds: float) -> None:
        """Wait until a log grows or the status changes; the caller holds the condition.

        Args:
            growths: What `growths` was before the log was read.
            seconds: The longest wait.
        """
        if self.growths == growths:
            self._waiting += 1
            try:
                self.condition.wait(seconds)
            finally:
                self._waiting -= 1

    def milliseconds(self) -> int:
        """Return the time in milliseconds since 1970, by the clock as it was set when this process took the task."""
        return int(1000 * (self._since + self.ticks()))

    @property
    def running_step(self) -> int | None:
        """The number of the running step; None without one."""
        return next((n for n, step in enumerate(self.task.status.steps) if step.phase is ExecutorPhase.RUNNING), None)

    @property
    def is_decided(self) -> bool:
        """Whether the saved steps decide how the task ends."""
        phases = {step.phase for step in self.task.status.steps}
        return self.is_set_up and (
            phases == {ExecutorPhase.SUCCESS}
            or any(phase.is_finished and phase is not ExecutorPhase.SUCCESS for phase in phases)
        )

    @property
    def is_set_up(self) -> bool:
        """Whether the set-up has succeeded."""
        return self.task.status.setup_step.phase is ExecutorPhase.SUCCESS

    def result(self, failure: str = "") -> ExecutorPhase:
        """Return how the task ends, by its steps and a failure besides them."""
        phases = [step.phase for step in self.task.status.steps]
        if failure or ExecutorPhase.FAILED in phases:
            return ExecutorPhase.FAILED
        if all(phase is ExecutorPhase.SUCCESS for phase in phases):
            return ExecutorPhase.SUCCESS
        return ExecutorPhase.STOPPED

    def set_up(self, phase: ExecutorPhase) -> None:
        """Change the status of the set-up."""
        status = self.task.status
        self._put(replace(self.task, status=replace(status, setup_step=self._changed(status.setup_step, phase))))

    def begin(self) -> None:
        """Change the task to running, its set-up to successful."""
        status = self.task.status
        setup = self._changed(status.setup_step, ExecutorPhase.SUCCESS)
        start = status.start_time or self._now()
        running = replace(status, setup_step=setup, phase=ExecutorPhase.RUNNING, start_time=start, end_time=None)
        self._put(replace(self.task, status=running))

    def change_step(self, number: int, phase: ExecutorPhase, code: int | None = None) -> None:
        """Change the status of a step, its exit code to `code`."""
        self.began.setdefault(number, self.ticks())
        steps = list(self.task.status.steps)
        steps[number] = self._changed(steps[number], phase, code)
        self._put(replace(self.task, status=replace(self.task.status, steps=steps)))

    def fail_running_steps(self) -> None:
        """Change running steps to failed."""
        for number, status in enumerate(self.task.status.steps):
            if status.phase is ExecutorPhase.RUNNING:
                self.change_step(number, ExecutorPhase.FAILED)

    def end(
        self,
        phase: ExecutorPhase,
        *,
        setup_error: str = "",
        fail_error: str = "",
        texts: Mapping[int | None, str] = MappingProxyType({}),
    ) -> None:
        """End the task, save and report it.

        Args:
            phase: How it ends.
            setup_error: Why its set-up failed.
            fail_error: Why it failed, where its steps do not tell.
            texts: Logs that need not be fetched, by step; None for the set-up.
        """
        now, known = self._now(), self.task.status
        status = replace(
            known,
            phase=phase,
            start_time=known.start_time or now,
            end_time=now,
            setup_step=replace(known.setup_step, log_text=texts.get(None)),
            steps=[replace(step, log_text=texts.get(number)) for number, step in enumerate(known.steps)],
        )
        self._put(replace(self.task, status=status, setup_error=setup_error, fail_error=fail_error))
        self._save_if_possible("state")
        self.report()

    def save_results(self, failure: str) -> None:
        """Save the last step's result before the files of its commands go: what needs them cannot be repeated then."""
        self._put(replace(self.task, fail_error=failure))
        self._save_if_possible("results")

    def save(self) -> None:
        """Save the task in its directory.

        Raises:
            OSError: It cannot be written.
        """
        faultpoints.reach("executor.before-save")
        self._directory.save(self.task)

    def report(self) -> None:
        """Report the task to the service."""
        self._report(self.task)

    def _save_if_possible(self, what: str) -> None:
        try:
            self.save()
        except OSError as error:  # a full disk must not keep the result from the service
            logger.error("task %s: its %s cannot be written: %s", self.task.id, what, error)

    def _changed(
        self, step: ExecutorTaskStepStatus, phase: ExecutorPhase, code: int | None = None
    ) -> ExecutorTaskStepStatus:
        now = self._now()
        return ExecutorTaskStepStatus(
            phase=phase,
            start_time=step.start_time or now,
            end_time=now if phase.is_finished else None,
            exit_code=code,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _put(self, task: ExecutorTask) -> None:
        with self.condition:
            self.task = task
            self.condition.notify_all()
