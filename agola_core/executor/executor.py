"""The executor: takes tasks from a run service and runs them, across restarts of either."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from agola_core.errors import NotFoundError, UnavailableError
from agola_core.executor.drivers.port import Driver
from agola_core.executor.reporter import Reporter
from agola_core.executor.taskdir import TaskDirectory, list_task_directories, task_directory
from agola_core.executor.taskrunner import TaskRunner
from agola_core.runservice.protocol import RunserviceClient
from agola_core.runservice.types import Executor as ExecutorStatus
from agola_core.runservice.types import ExecutorPhase, ExecutorTask
from agola_core.supervisor import Supervisor

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 2.0
_LIMITS_SECONDS = 0.25
_FOLLOW_SECONDS = 0.02
_CHUNK = 1 << 16


class ExecutorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an executor behaves.

    Attributes:
        labels: For people and placement.
        active_tasks_limit: How many tasks run at once; 0 for no limit. Further ones wait.
        max_log_bytes: The size at which a step's log fails its task.
        listen_url: Where the service reaches it over the network.
    """

    labels: dict[str, str] = {}
    active_tasks_limit: int = 0
    max_log_bytes: int = 1 << 30
    listen_url: str = ""


class Executor:
    """Runs tasks. Implements `protocol.ExecutorClient` for a service in the same process. A context manager.

    Args:
        directory: Where it keeps its id and its tasks; one executor at a time.
        service: The run service.
        driver: Runs the commands.
        options: How it behaves.

    Attributes:
        id: Kept in its directory.
    """

    def __init__(
        self, directory: Path, service: RunserviceClient, driver: Driver, options: ExecutorOptions | None = None
    ) -> None:
        directory = directory.absolute()
        self._tasks_root = directory / "tasks"
        self._tasks_root.mkdir(parents=True, exist_ok=True)
        self.id = _kept_id(directory / "id")
        self._service = service
        self._driver = driver
        self._options = options or ExecutorOptions()
        self._lock = threading.Lock()
        self._runners: dict[str, TaskRunner] = {}
        self._waiting: deque[TaskRunner] = deque()
        self._active = 0
        self._reporter = Reporter(lambda task: service.send_task_status(self.id, task))
        self._supervisor = Supervisor("executor")

    # Lifecycle

    def start(self) -> None:
        """Register, go on with the tasks that an earlier process left, and take new ones."""
        self._reporter.start()
        for directory in list_task_directories(self._tasks_root):
            task = directory.load()
            if task is None:
                directory.remove()
            elif task.status.phase.is_finished:
                self._reporter.report(task)
            else:
                self._add(task, directory)
        try:
            self._send_status()
        except UnavailableError as error:
            logger.warning("the run service cannot be reached yet: %s", error)
        self._supervisor.loop("heartbeat", self._heartbeat, interval=_HEARTBEAT_SECONDS)
        self._supervisor.loop("limits", self._check_limits, interval=_LIMITS_SECONDS)

    def close(self, *, stop_tasks: bool = True) -> None:
        """End the executor; closing twice is harmless.

        Args:
            stop_tasks: Kill what runs and report it as stopped; otherwise it goes on, for the next process.
        """
        self._supervisor.stop()
        with self._lock:
            runners = list(self._runners.values())
        if stop_tasks:
            for runner in runners:
                runner.stop()
            for runner in runners:
                runner.join(10.0)
        self._reporter.stop(5.0)

    def __enter__(self) -> Self:
        """Start and return the executor."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the executor."""
        self.close()

    # What the service asks (see `protocol.ExecutorClient`)

    def submit(self, task: ExecutorTask) -> None:
        """Take a task, or a stop of one."""
        with self._lock:
            runner = self._runners.get(task.id)
        if runner is not None:
            if task.stop:
                runner.stop()
            return
        if task.status.phase is not ExecutorPhase.NOT_STARTED:
            return
        directory = task_directory(self._tasks_root, task.id)
        if task.stop:
            status = msgspec.structs.replace(task.status, phase=ExecutorPhase.STOPPED)
            self._reporter.report(msgspec.structs.replace(task, status=status))
        elif directory.load() is None:
            self._add(task, directory)

    def open_log(self, task_id: str, step: int | None, *, follow: bool) -> Iterator[bytes]:
        """Yield a step's log."""
        directory = task_directory(self._tasks_root, task_id)
        path = directory.log(step)
        if not path.exists():
            with self._lock:
                runner = self._runners.get(task_id)
            if runner is None or not follow:
                raise NotFoundError(f"no log of task {task_id!r} step {step} on executor {self.id}")
        return self._read_log(path, task_id, step, follow=follow)

    def open_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield an archive that a step saved to the workspace."""
        path = task_directory(self._tasks_root, task_id).archive(step)
        if not path.exists():
            raise NotFoundError(f"no archive of task {task_id!r} step {step} on executor {self.id}")
        return _read_file(path)

    # Tasks

    def _add(self, task: ExecutorTask, directory: TaskDirectory) -> None:
        with self._lock:
            if task.id in self._runners:
                return
            directory.path.mkdir(parents=True, exist_ok=True)
            directory.save(task)
            runner = TaskRunner(
                task,
                directory,
                self._driver,
                self._service,
                self._reporter.report,
                self._task_finished,
                self._options.max_log_bytes,
            )
            self._runners[task.id] = runner
            limit = self._options.active_tasks_limit
            if limit and self._active >= limit:
                self._waiting.append(runner)
                return
            self._active += 1
        runner.start()

    def _task_finished(self, runner: TaskRunner) -> None:
        following = None
        with self._lock:
            self._runners.pop(runner.task.id, None)
            if self._waiting:
                following = self._waiting.popleft()
            else:
                self._active -= 1
        if following is not None:
            following.start()

    def _check_limits(self) -> None:
        with self._lock:
            runners = list(self._runners.values())
        for runner in runners:
            runner.check_limits()

    # Heartbeat

    def _heartbeat(self) -> None:
        try:
            self._send_status()
            self._reconcile()
        except UnavailableError as error:
            logger.warning("the run service cannot be reached: %s", error)

    def _send_status(self) -> None:
        with self._lock:
            active = len(self._runners)
        self._service.send_executor_status(
            ExecutorStatus(
                id=self.id,
                listen_url=self._options.listen_url,
                archs=self._driver.archs,
                labels=self._options.labels,
                active_tasks_limit=self._options.active_tasks_limit,
                active_tasks=active,
                executor_group=self.id,
                siblings_executors=[self.id],
            )
        )

    def _reconcile(self) -> None:
        """Set right what lost calls left: tasks to start or stop, and data that nobody needs any more."""
        held = {task.id: task for task in self._service.executor_tasks(self.id)}
        for task in held.values():
            local = task_directory(self._tasks_root, task.id).load()
            if task.stop or task.status.phase is ExecutorPhase.NOT_STARTED:
                self.submit(task)
            if local is None and task.status.phase is ExecutorPhase.RUNNING:
                status = msgspec.structs.replace(task.status, phase=ExecutorPhase.FAILED)
                lost = msgspec.structs.replace(task, status=status, fail_error="the executor has lost the task")
                self._reporter.report(lost)
            elif local is not None and local.status.phase.is_finished and not task.status.phase.is_finished:
                self._reporter.report(local)
        for directory in list_task_directories(self._tasks_root):
            task_id = directory.path.name
            if task_id in held or task_id in self._runners:
                continue
            try:
                self._service.executor_task(self.id, task_id)
            except NotFoundError:
                directory.remove()

    # Logs

    def _read_log(self, path: Path, task_id: str, step: int | None, *, follow: bool) -> Iterator[bytes]:
        offset = 0
        while True:
            with self._lock:
                runner = self._runners.get(task_id)
            ended = runner is None or not follow or _step_ended(runner.task, step)
            for piece in _read_file(path, offset):
                offset += len(piece)
                yield piece
            if ended or runner is None:
                return
            with runner.condition:
                if not _step_ended(runner.task, step):
                    runner.condition.wait(_FOLLOW_SECONDS)


def _step_ended(task: ExecutorTask, step: int | None) -> bool:
    if task.status.phase.is_finished:
        return True
    return (task.status.setup_step if step is None else task.status.steps[step]).phase.is_finished


def _read_file(path: Path, offset: int = 0) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while piece := file.read(_CHUNK):
                yield piece
    except FileNotFoundError:
        return


def _kept_id(path: Path) -> str:
    try:
        kept = path.read_text().strip()
    except FileNotFoundError:
        kept = ""
    if not kept:
        kept = str(uuid.uuid4())
        path.write_text(kept)
    return kept
