"""Runs one task: its set-up, then its steps in order, in a thread of its own."""

from __future__ import annotations

import logging
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from agola_core.errors import AgolaError, BadRequestError, ConfigError
from agola_core.executor import steps
from agola_core.executor.drivers.port import Driver, Place, StepProcess
from agola_core.executor.taskdir import RunningProcess, TaskDirectory
from agola_core.runservice.protocol import RunserviceClient
from agola_core.runservice.types import (
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStepStatus,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    RunStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
    Step,
)

logger = logging.getLogger(__name__)

_DEFAULT_SHELL = "/bin/sh -e"
_DEFAULT_WORKING_DIR = "~/project"


class TaskRunner:
    """One task on its executor.

    Args:
        task: The task, as the service or an earlier executor left it.
        directory: Its directory.
        driver: Runs its commands.
        service: The run service.
        report: Called with the task after every change of its status.
        finished: Called at the task's end, whatever it was.
        max_log_bytes: The size at which a step's log fails the task.
        clock: Seconds since 1970.

    Attributes:
        task: The task with its newest status.
        condition: Notified when the status changes; followers of logs wait on it.
    """

    def __init__(
        self,
        task: ExecutorTask,
        directory: TaskDirectory,
        driver: Driver,
        service: RunserviceClient,
        report: Callable[[ExecutorTask], None],
        finished: Callable[[TaskRunner], None],
        max_log_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.task = task
        self.directory = directory
        self.condition = threading.Condition()
        self._driver = driver
        self._service = service
        self._report = report
        self._finished = finished
        self._max_log_bytes = max_log_bytes
        self._clock = clock
        self._process: StepProcess | None = None
        self._stopped = False
        self._failure = ""
        self._deadline = time.monotonic() + task.timeout if task.timeout else None
        self._thread = threading.Thread(target=self._run, name=f"task-{task.id}", daemon=True)

    def start(self) -> None:
        """Start the task, or go on with it after a restart."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the task: its commands are killed, the rest is not begun."""
        with self.condition:
            self._stopped = True
            process = self._process
        if process is not None:
            process.kill()

    def check_limits(self) -> None:
        """Fail the task when it runs longer, or writes more, than it may; called now and then."""
        step = next((n for n, s in enumerate(self.task.status.steps) if s.phase is ExecutorPhase.RUNNING), None)
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._fail_from_outside(f"the task ran longer than its timeout of {self.task.timeout:g} s")
        elif step is not None:
            try:
                size = self.directory.log(step).stat().st_size
            except FileNotFoundError:
                return
            if size > self._max_log_bytes:
                self._fail_from_outside(f"the log of step {step} is larger than {self._max_log_bytes} bytes")

    def join(self, timeout: float) -> None:
        """Wait for the task's thread."""
        self._thread.join(timeout)

    def _fail_from_outside(self, reason: str) -> None:
        with self.condition:
            self._failure = self._failure or reason
            process = self._process
        if process is not None:
            process.kill()

    # The task's thread

    def _run(self) -> None:
        try:
            self._run_task()
        except Exception as error:
            logger.exception("task %s failed", self.task.id)
            self._end(ExecutorPhase.FAILED, fail_error=f"internal error: {error}")
        finally:
            self._finished(self)

    def _run_task(self) -> None:
        try:
            place = self._set_up()
        except (AgolaError, OSError) as error:
            self._log(None, f"set-up failed: {error}")
            self._update(setup=ExecutorPhase.FAILED)
            self._end(ExecutorPhase.FAILED, setup_error=str(error))
            return
        try:
            for number, step in enumerate(self.task.steps):
                if self.task.status.steps[number].phase.is_finished:
                    continue
                if self._stopped or self._failure or not self._run_step(place, number, step):
                    break
        finally:
            place.close()
        self._end(self._verdict(), fail_error=self._failure)

    def _verdict(self) -> ExecutorPhase:
        states = [step.phase for step in self.task.status.steps]
        if self._failure or ExecutorPhase.FAILED in states:
            return ExecutorPhase.FAILED
        if self._stopped and not all(state is ExecutorPhase.SUCCESS for state in states):
            return ExecutorPhase.STOPPED
        return ExecutorPhase.SUCCESS

    def _set_up(self) -> Place:
        if self.task.status.setup_step.phase is ExecutorPhase.SUCCESS:
            return self._driver.open_place(self.task, self.directory.path)
        self.directory.create()
        self._log(None, f"executor starts task {self.task.task_name!r}")
        place = self._driver.open_place(self.task, self.directory.path)
        self._update(task=ExecutorPhase.RUNNING, setup=ExecutorPhase.SUCCESS, report=not self.task.steps)
        return place

    def _run_step(self, place: Place, number: int, step: Step | None) -> bool:
        """Run a step and return whether it succeeded."""
        found = None
        if self.task.status.steps[number].phase is ExecutorPhase.RUNNING:  # an earlier executor began it
            found = self._find_running(number)
            if found is None:
                self._failure = "the executor was restarted and the step's process is gone"
                self._step_ended(number, ExecutorPhase.FAILED, None)
                return False
        else:
            self._update(step=(number, ExecutorPhase.RUNNING, None))
        code: int | None = None
        try:
            if isinstance(step, RunStep) and not step.source:
                code = self._run_command(place, number, step, found)
                phase = ExecutorPhase.SUCCESS if code == 0 else ExecutorPhase.FAILED
            else:
                self._run_builtin(place, number, step)
                phase = ExecutorPhase.SUCCESS
        except (AgolaError, OSError) as error:
            self._log(number, f"error: {error}")
            self._failure = self._failure or f"step {number}: {error}"
            phase = ExecutorPhase.FAILED
        if self._stopped and phase is ExecutorPhase.FAILED and not self._failure:
            phase = ExecutorPhase.STOPPED
        if self._failure:
            phase = ExecutorPhase.FAILED
        self._step_ended(number, phase, code)
        return phase is ExecutorPhase.SUCCESS

    def _step_ended(self, number: int, phase: ExecutorPhase, code: int | None) -> None:
        self.directory.forget_process()
        last = number == len(self.task.steps) - 1 or phase is not ExecutorPhase.SUCCESS
        self._update(step=(number, phase, code), report=not last)  # the task's end is reported with it

    def _find_running(self, number: int) -> StepProcess | None:
        running = self.directory.load_process()
        if running is None or running.step != number:
            return None
        return self._driver.find_process(running.description, self.directory.exit_file(number))

    def _run_command(self, place: Place, number: int, step: RunStep, found: StepProcess | None) -> int:
        process = found or self._start_command(place, number, step)
        with self.condition:
            self._process = process
            doomed = self._stopped or bool(self._failure)
        if doomed:
            process.kill()
        code = process.wait()
        with self.condition:
            self._process = None
        return code

    def _start_command(self, place: Place, number: int, step: RunStep) -> StepProcess:
        task = self.task
        argv = shlex.split(step.shell or task.shell or _DEFAULT_SHELL)
        if not argv:
            raise ConfigError("the shell is empty")
        environment = {**task.environment, **step.environment}
        if step.command:
            script = self.directory.path / f"command-{number}"
            script.write_text(step.command if step.command.endswith("\n") else step.command + "\n")
            script.chmod(0o755)
            argv.append(str(script))
        process = place.start(
            argv,
            environment=environment,
            working_dir=self._working_dir(place, step.working_dir or task.working_dir, environment),
            user=step.user or task.user,
            output=self.directory.log(number),
            exit_file=self.directory.exit_file(number),
        )
        self.directory.save_process(RunningProcess(number, process.describe()))
        return process

    def _working_dir(self, place: Place, configured: str, environment: dict[str, str]) -> str:
        path = configured or _DEFAULT_WORKING_DIR
        if "$" in path or "`" in path:  # variables are the shell's business
            done = subprocess.run(
                ["/bin/sh", "-c", f'printf %s "{path}"'],
                env={**environment, "HOME": place.home},
                capture_output=True,
                check=False,
            )
            path = done.stdout.decode(errors="surrogateescape")
        if path == "~" or path.startswith("~/"):
            path = place.home + path[1:]
        return str(Path(place.home) / path)

    def _run_builtin(self, place: Place, number: int, step: Step | None) -> None:
        working_dir = place.local_path(self._working_dir(place, self.task.working_dir, self.task.environment))
        working_dir.mkdir(parents=True, exist_ok=True)
        context = steps.StepContext(
            self.task,
            self._service,
            working_dir,
            self.directory.archive(number),
            self._driver.archs[0],
            lambda text: self._log(number, text),
        )
        match step:
            case RunStep():
                steps.restore_source(context, step.source)
            case SaveToWorkspaceStep():
                steps.save_to_workspace(context, step)
            case RestoreWorkspaceStep():
                steps.restore_workspace(context, step)
            case SaveCacheStep():
                steps.save_cache(context, step)
            case RestoreCacheStep():
                steps.restore_cache(context, step)
            case None:
                raise BadRequestError(f"step {number} is of a type that this executor does not know")

    # Status

    def _end(self, phase: ExecutorPhase, *, setup_error: str = "", fail_error: str = "") -> None:
        with self.condition:
            self.task = replace(self.task, setup_error=setup_error, fail_error=fail_error)
        self._update(task=phase)

    def _update(
        self,
        *,
        task: ExecutorPhase | None = None,
        setup: ExecutorPhase | None = None,
        step: tuple[int, ExecutorPhase, int | None] | None = None,
        report: bool = True,
    ) -> None:
        """Change the status, write it down, and report it."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        status = self.task.status
        if task is not None:
            status = replace(
                status,
                phase=task,
                start_time=status.start_time or now,
                end_time=now if task.is_finished else None,
            )
        if setup is not None:
            status = replace(status, setup_step=ExecutorTaskStepStatus(phase=setup, start_time=now, end_time=now))
        if step is not None:
            number, phase, code = step
            changed = list(status.steps)
            changed[number] = ExecutorTaskStepStatus(
                phase=phase,
                start_time=changed[number].start_time or now,
                end_time=now if phase.is_finished else None,
                exit_code=code,
            )
            status = replace(status, steps=changed)
        with self.condition:
            self.task = replace(self.task, status=status)
            self.condition.notify_all()
        try:
            self.directory.save(self.task)
        except OSError as error:  # a full disk must not stop the service from hearing of it
            logger.error("task %s: its state cannot be written: %s", self.task.id, error)
        if report:
            self._report(self.task)

    def _log(self, number: int | None, text: str) -> None:
        try:
            with self.directory.log(number).open("a") as file:
                file.write(f"{text}\n")
        except OSError:
            logger.warning("task %s: cannot write to its log: %s", self.task.id, text)
