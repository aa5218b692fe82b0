"""Runs one task in one thread: the set-up, then the steps in order."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import threading
from collections.abc import Callable, Mapping

import msgspec

from agola_core.errors import AgolaError, ConfigError, UnavailableError
from agola_core.executor.drivers.port import Command, Driver, Pod, StepProcess
from agola_core.executor.masking import masked, patterns_of
from agola_core.executor.paths import working_directory
from agola_core.executor.tasks.directory import RunningProcess, TaskDirectory, first_line
from agola_core.executor.tasks.log_times import TaskTimes
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.executor.tasks.state import TaskState
from agola_core.runservice.model.protocol import RunserviceClient
from agola_core.runservice.model.types import (
    ExecutorPhase,
    ExecutorTask,
    RunStep,
    SaveToWorkspaceStep,
    Step,
)
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

_DEFAULT_SHELL = "/bin/sh -e"
_AGAIN_SECONDS = 1.0

faultpoints.declare(
    *("executor.before-start", "executor.before-process-noted", "executor.before-begin"),
    *("executor.after-begin", "executor.before-end"),
)


class TaskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a task.

    Attributes:
        max_log_bytes: The size at which a step's log fails the task.
        service_patience: Seconds that a step waits for a service that cannot be reached.
    """

    max_log_bytes: int = 1 << 30
    service_patience: float = 3600.0


class TaskRunner:
    """One task on its executor.

    Args:
        state: The task with its status.
        directory: Its directory.
        driver: Runs its commands.
        service: The run service.
        finished: Called at the task's end, however it ended.
        limits: Its limits.
        watcher: Tells when its commands write.

    Attributes:
        times: When each line of its logs was written.
    """

    def __init__(
        self,
        state: TaskState,
        directory: TaskDirectory,
        driver: Driver,
        service: RunserviceClient,
        finished: Callable[[TaskRunner], None],
        limits: TaskLimits,
        watcher: LogWatcher,
    ) -> None:
        self.state = state
        self.times = TaskTimes(directory, watcher, state.milliseconds, state.log_grown)
        self.directory = directory
        self._driver = driver
        self._service = service
        self._finished = finished
        self._limits = limits
        self._process: StepProcess | None = None
        self._stopped = False
        self._ended = threading.Event()
        self._failure = ""
        self._begun = False
        self._done = threading.Event()

    @property
    def task(self) -> ExecutorTask:
        """The task with its newest status."""
        return self.state.task

    def begin(self) -> None:
        """Record that a thread is about to run the task: from now on `join` waits."""
        self._begun = True

    def run(self) -> None:
        """Run the task, or resume it after a restart; returns at its end."""
        try:
            self._run_task()
        except Exception as error:
            logger.exception("task %s failed", self.task.id)
            self.state.end(ExecutorPhase.FAILED, fail_error=f"internal error: {error}")
        finally:
            self.directory.release()
            self._finished(self)
            self._done.set()

    def stop(self) -> None:
        """Stop the task: its command is killed, no further step begins."""
        with self.state.condition:
            self._stopped = True
        self._end_process()

    def kill(self) -> None:
        """Stop the task at once; takes no lock, so that it works in a process that hangs."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill_now()

    def check_limits(self) -> None:
        """Fail the task if it exceeds a timeout or the limit of its log; called periodically."""
        if not self.state.began:
            return
        step = self.state.running_step
        definition = self.task.steps[step] if step is not None else None
        allowed = definition.timeout if isinstance(definition, RunStep) else 0.0
        now, began = self.state.ticks(), dict(self.state.began)
        if self.task.timeout and began and now - min(began.values()) > self.task.timeout:
            self._fail_from_outside(f"the task ran longer than its timeout of {self.task.timeout:g} s")
        elif allowed and step in began and now - began[step] > allowed:
            self._fail_from_outside(f"step {step} ran longer than its timeout of {allowed:g} s")
        elif step is not None and self.directory.log_size(step) > self._limits.max_log_bytes:
            self._fail_from_outside(f"the log of step {step} is larger than {self._limits.max_log_bytes} bytes")

    def join(self, timeout: float) -> None:
        """Wait for the task's end; one that waits for its turn has no thread that could end it."""
        if self._begun:
            self._done.wait(timeout)

    def _fail_from_outside(self, reason: str) -> None:
        with self.state.condition:
            self._failure = self._failure or reason
        self._end_process()

    def _end_process(self) -> None:
        """Kill the running command in a thread of its own, since its grace period would delay the caller."""
        with self.state.condition:
            first, process = not self._ended.is_set(), self._process
            self._ended.set()
        if first and process is not None:
            threading.Thread(target=self._kill, args=(process,), name=f"end-{self.task.id}", daemon=True).start()

    def _kill(self, process: StepProcess) -> None:
        while self._process is process:
            try:
                process.kill()
            except AgolaError as error:  # the engine may come back, and the command with it
                logger.warning("task %s: its command cannot be ended yet: %s", self.task.id, error)
                with self.state.condition:
                    self.state.condition.wait(_AGAIN_SECONDS)
            else:
                return

    # The task's thread

    def _run_task(self) -> None:
        if self.state.is_decided:  # an earlier executor was killed while it ended the task: its pod may be gone
            with contextlib.suppress(AgolaError, OSError):
                self._close(self._set_up())
            self.state.end(self.state.result(), fail_error=self.task.fail_error)
            return
        try:
            pod = self._set_up()
        except (AgolaError, OSError) as error:
            self._log(None, f"set-up failed: {error}")
            begun = self.state.is_set_up  # by an earlier executor
            if not begun:
                self.state.set_up(ExecutorPhase.FAILED)
            self.times.end()
            self.state.fail_running_steps()
            setup_error, fail_error = ("", str(error)) if begun else (str(error), "")
            self.state.end(ExecutorPhase.FAILED, setup_error=setup_error, fail_error=fail_error)
            return
        texts: dict[int | None, str] = {}
        try:
            has_failed = False
            for number, step in enumerate(self.task.steps):
                if self._ended.is_set():
                    break
                if has_failed:
                    if isinstance(step, SaveToWorkspaceStep) and step.always:
                        self._save_after_failure(pod, number, step)
                elif self.task.status.steps[number].phase is not ExecutorPhase.SUCCESS:
                    has_failed = not self._run_step(pod, number, step)
        finally:
            self.state.save_results(self._failure)
            if self._close(pod):
                texts = self._texts()
        faultpoints.reach("executor.before-end")
        self.state.end(self.state.result(self._failure), fail_error=self._failure, texts=texts)

    def _close(self, pod: Pod) -> bool:
        """Close the pod; return whether nothing of it is left, which could write into a log."""
        is_closed = True
        try:
            pod.close()
        except (AgolaError, OSError) as error:  # leftovers are removed later, and do not concern the result
            is_closed = False
            logger.warning("task %s: its pod cannot be removed yet: %s", self.task.id, error)
        self.times.end()
        self.directory.free_space()
        return is_closed

    def _texts(self) -> dict[int | None, str]:
        """Return the logs that the report of the end brings along: empty ones, and a set-up's only line."""
        found: dict[int | None, str] = {
            number: ""
            for number, step in enumerate(self.task.status.steps)
            if step.phase is not ExecutorPhase.NOT_STARTED and self.times.is_empty(number)
        }
        if not os.path.lexists(self.directory.log(None)):
            line = b"".join(masked([first_line(self.task)], patterns_of(self.task.secrets)))
            found[None] = line.decode(errors="replace")
        return found

    def _set_up(self) -> Pod:
        if self.state.is_set_up:
            for number, step in enumerate(self.task.status.steps):
                if step.phase is not ExecutorPhase.NOT_STARTED:  # what an earlier executor did not come to record
                    self.times.record(number)
            return self._driver.open_pod(self.task, self.directory.path, lambda text: self._log(None, text))
        self.directory.create()
        self.directory.save(self.task)  # what cannot be saved is not begun: it could be begun twice
        self.state.set_up(ExecutorPhase.RUNNING)
        self.times.record_first(len(first_line(self.task)))
        pod = self._driver.open_pod(self.task, self.directory.path, lambda text: self._log(None, text))
        self.state.begin()
        return pod

    def _run_step(self, pod: Pod, number: int, step: Step | None) -> bool:
        """Run a step and return whether it succeeded."""
        command = isinstance(step, RunStep) and not step.source
        found = None
        if self.task.status.steps[number].phase is ExecutorPhase.RUNNING:  # an earlier executor was about to begin it
            if command:  # other steps are repeated, which is harmless
                found = self._find_running(number)
        else:
            self.state.change_step(number, ExecutorPhase.RUNNING)
            try:
                self.state.save()
            except OSError as error:  # what cannot be saved is not begun: it could be begun twice
                self._failure = f"step {number} was not started: its state cannot be written: {error}"
                self.state.change_step(number, ExecutorPhase.FAILED)
                return False
            self.state.report()
        code: int | None = None
        try:
            if isinstance(step, RunStep) and command:
                code = self._run_command(pod, number, step, found)
                phase = ExecutorPhase.SUCCESS if code == 0 else ExecutorPhase.FAILED
                if code != 0 and self.directory.disk_is_full():
                    self._failure = self._failure or f"step {number} failed while the executor's disk was full"
                if code is None and not self._stopped:
                    self._failure = self._failure or f"step {number} was killed: it left no exit code"
            else:
                self._run_builtin(pod, number, step)
                phase = ExecutorPhase.SUCCESS
        except (AgolaError, OSError) as error:
            self._log(number, f"error: {error}")
            if not self._stopped:
                self._failure = self._failure or f"step {number}: {error}"
            phase = ExecutorPhase.FAILED
        self.times.record(number)
        self._check_log(number)
        if self._failure:
            phase = ExecutorPhase.FAILED
        elif self._stopped and phase is ExecutorPhase.FAILED:
            phase = ExecutorPhase.STOPPED
        # Reported with the next step's start or the task's end; a later executor finds the step's result.
        self.state.change_step(number, phase, code)
        return phase is ExecutorPhase.SUCCESS

    def _save_after_failure(self, pod: Pod, number: int, step: SaveToWorkspaceStep) -> None:
        """Run a step that saves in any case; why the task failed, an earlier one has said."""
        self.state.change_step(number, ExecutorPhase.RUNNING)
        self.state.report()
        try:
            self._run_builtin(pod, number, step)
            phase = ExecutorPhase.SUCCESS
        except (AgolaError, OSError) as error:
            self._log(number, f"error: {error}")
            phase = ExecutorPhase.FAILED
        self.state.change_step(number, phase)

    def _find_running(self, number: int) -> StepProcess | None:
        running = self.directory.load_process()
        if running is None or running.step != number:
            return None  # nothing begins before it is saved
        return self._driver.find_process(running.description, self.directory.exit_file(number))

    def _run_command(self, pod: Pod, number: int, step: RunStep, found: StepProcess | None) -> int | None:
        self.times.watch(number)
        process = found or self._start_command(pod, number, step)
        with self.state.condition:
            self._process = process
            doomed = self._ended.is_set()
        self.directory.release()
        if doomed:
            self._kill(process)
        code = process.wait()
        with self.state.condition:
            self._process = None
        return code

    def _start_command(self, pod: Pod, number: int, step: RunStep) -> StepProcess:
        task = self.task
        try:
            argv = shlex.split(step.shell or task.shell or _DEFAULT_SHELL)
        except ValueError as error:
            raise ConfigError(f"the shell {step.shell or task.shell!r} cannot be read: {error}") from error
        if not argv:
            raise ConfigError("the shell is empty")
        environment = {**task.environment, **step.environment}
        user = step.user or task.user

        def note(description: Mapping[str, str | int]) -> None:
            if self._ended.is_set():
                raise UnavailableError("the task was ended before the command began")
            faultpoints.reach("executor.before-process-noted")
            self.directory.save_process(RunningProcess(number, dict(description)))
            faultpoints.reach("executor.before-begin")

        faultpoints.reach("executor.before-start")
        command = Command(
            argv=argv,
            script=step.command,
            environment=environment,
            working_dir=working_directory(step.working_dir or task.working_dir, pod.variables(user), environment),
            user=user,
            output=self.directory.log(number),
            exit_file=self.directory.exit_file(number),
        )
        process = pod.start(command, note)
        faultpoints.reach("executor.after-begin")
        return process

    def _run_builtin(self, pod: Pod, number: int, step: Step | None) -> None:
        from agola_core.executor.tasks.steps import StepContext, run_builtin  # noqa: PLC0415 - few use it

        task = self.task
        self.directory.release()
        run_builtin(
            StepContext(
                task=task,
                service=self._service,
                pod=pod,
                working_dir=working_directory(task.working_dir, pod.variables(task.user), task.environment),
                user=task.user,
                environment=task.environment,
                archive=self.directory.archive(number),
                arch=self._driver.archs[0],
                log=lambda text: self._log(number, text),
                ended=self._ended,
                patience=self._limits.service_patience,
            ),
            step,
        )

    def _check_log(self, number: int) -> None:
        limit = self._limits.max_log_bytes
        if self.directory.log_size(number) > limit:
            self._failure = self._failure or f"the log of step {number} is larger than {limit} bytes"

    def _log(self, number: int | None, text: str) -> None:
        try:
            self.directory.append_log(number, text, first_line(self.task) if number is None else b"")
            self.times.record(number)
        except OSError:
            logger.warning("task %s: cannot write to its log: %s", self.task.id, text)
