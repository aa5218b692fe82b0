"""The executor: takes tasks from a run service and runs them, across restarts of either."""

from __future__ import annotations

import contextlib
import logging
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from agola_core import private
from agola_core.address import check_directory
from agola_core.errors import AgolaError, APIError, UnavailableError, disk_error
from agola_core.executor.drivers.port import Driver
from agola_core.executor.files import kept_text
from agola_core.executor.reconciler import Reconciler
from agola_core.executor.reporter import Reporter
from agola_core.executor.tasks.directory import PASSED_THROUGH, TaskDirectories, TaskDirectory
from agola_core.executor.tasks.files import TaskFiles
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.executor.tasks.pool import TaskPool
from agola_core.executor.tasks.runner import TaskLimits, TaskRunner
from agola_core.executor.tasks.state import TaskState
from agola_core.runservice.model.protocol import RunserviceClient
from agola_core.runservice.model.types import Executor as ExecutorStatus
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask
from agola_core.runtime import faultpoints
from agola_core.runtime.threads.supervisor import Loop, Supervisor

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 2.0
_LIMITS_SECONDS = 0.25
_CLEAN_SECONDS = 60.0

faultpoints.declare("executor.before-heartbeat")


class ExecutorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of an executor.

    Attributes:
        labels: For users and placement.
        active_tasks_limit: How many tasks run at once; 0 for no limit. Others wait.
        limits: What each task may use.
        listen_url: The URL at which the service reaches it.
        listen_token: Its own token (see `Executor.token`); "" for one that is generated and kept.
        keep_failed: Keep the files of tasks that failed in this process; the next one removes them.
    """

    labels: dict[str, str] = {}
    active_tasks_limit: int = 0
    limits: TaskLimits = TaskLimits()
    listen_url: str = ""
    listen_token: str = ""
    keep_failed: bool = False


class Executor:
    """Runs tasks. Implements `protocol.ExecutorClient` for a service in the same process. A context manager.

    Args:
        directory: Holds its id and its tasks.
        service: The run service.
        driver: Runs the commands.
        options: The executor's options.

    Attributes:
        id: Kept in its directory.
        token: Proves the id: sent to the service with every heartbeat; the service presents it to this executor, and
            to nobody else.

    Raises:
        ConflictError: Another executor uses the directory.
        UnavailableError: The directory cannot be used.
    """

    def __init__(
        self, directory: Path, service: RunserviceClient, driver: Driver, options: ExecutorOptions | None = None
    ) -> None:
        directory = check_directory(directory, "directory").absolute()
        try:
            private.make_directories(directory, PASSED_THROUGH)
            self._directories = TaskDirectories(directory / "tasks")
            with contextlib.ExitStack() as opened:
                self._lock_file = opened.enter_context(private.lock_directory(directory, "directory"))
                self.id = kept_text(directory / "id", lambda: str(uuid.uuid4()))
                kept = kept_text(directory / "token", lambda: secrets.token_hex(32))
                opened.pop_all()
        except OSError as error:
            raise disk_error(error, f"the directory {str(directory)!r} cannot be used") from error
        self._service = service
        self._driver = driver
        self._options = options or ExecutorOptions()
        self.token = self._options.listen_token or kept
        self._pool = TaskPool(self._options.active_tasks_limit)
        self._watcher = LogWatcher()
        self._files = TaskFiles(self._directories, self._pool, self.id, self._options.limits.max_log_bytes)
        self._reporter = Reporter(lambda task: service.send_task_status(self.id, task))
        self._reconciler = Reconciler(self.id, service, self._directories, self._pool, self._reporter, self._add)
        self._supervisor = Supervisor("executor")
        self._limits_loop: Loop | None = None
        self._limits_rest = False
        self._failing: type[Exception] | None = None

    # Lifecycle

    def start(self) -> None:
        """Register, resume the tasks of an earlier process, and accept new ones.

        If the service cannot be reached, the heartbeat retries.

        Raises:
            APIError: The service refuses this executor.
        """
        self._reporter.start()
        for directory in self._directories:
            task = directory.load()
            if task is None:  # it was not begun, or not made here
                self._directories.remove(directory)
                continue
            if not task.status.phase.is_finished:  # one that has ended is reported at a heartbeat if that is not known
                self._add(task, directory)
        try:
            self._send_status()
        except UnavailableError as error:
            self._note_failure(error)
        self._supervisor.loop("heartbeat", self._heartbeat, interval=_HEARTBEAT_SECONDS)
        self._limits_loop = self._supervisor.loop("limits", self._check_limits, interval=self._limits_pause)
        self._supervisor.loop("clean", self._clean, interval=_CLEAN_SECONDS)

    def close(self, *, stop_tasks: bool = True) -> None:
        """Close the executor. Can be called twice.

        Args:
            stop_tasks: Kill running tasks and report them as stopped; otherwise they continue, for the next process.
        """
        self._supervisor.stop()
        runners = self._pool.all()
        if stop_tasks:
            for runner in runners:
                runner.stop()
            for runner in runners:
                runner.join(10.0)
        self._pool.close()
        self._watcher.close()
        if self._reporter.stop(5.0) and not self._lock_file.closed:
            self._reconciler.forget_stored()
        self._lock_file.close()

    def kill(self) -> None:
        """Kill running tasks at once, without taking a lock: for a process that is about to end in any case."""
        for runner in self._pool.all():
            with contextlib.suppress(AgolaError):
                runner.kill()

    def __enter__(self) -> Self:
        """Start and return the executor."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the executor."""
        self.close()

    # What the service asks (see `protocol.ExecutorClient`)

    def submit(self, task: ExecutorTask) -> None:
        """Accept a task, or stop one.

        Raises:
            BadRequestError: The task is malformed.
            UnavailableError: There is no thread for it; the next heartbeat tries again.
        """
        self._reconciler.take(task)

    def directory_of(self, task_id: str) -> TaskDirectory:
        """Return the directory of a task that ran here; it is there as long as the service knows the task.

        Raises:
            BadRequestError: The id is malformed.
        """
        return self._directories.of(task_id)

    # What the service reads (see `tasks.files`)

    def open_log(self, task_id: str, step: int | None, *, follow: bool, offset: int = 0) -> Iterator[bytes]:
        """Yield a step's log; with `follow` also an empty piece now and then, while there is nothing new."""
        return self._files.open_log(task_id, step, follow=follow, offset=offset)

    def open_times(self, task_id: str, step: int | None, *, offset: int = 0) -> Iterator[bytes]:
        """Yield when the lines of a step's log were written, as far as it has been recorded."""
        return self._files.open_times(task_id, step, offset=offset)

    def open_archive(self, task_id: str, step: int, *, offset: int = 0) -> Iterator[bytes]:
        """Yield an archive that a step saved to the workspace."""
        return self._files.open_archive(task_id, step, offset=offset)

    def log_size(self, task_id: str, step: int | None) -> int:
        """Return how many bytes a step's log has now.

        Raises:
            NotFoundError: There is no such log.
        """
        return self._files.log_size(task_id, step)

    def archive_size(self, task_id: str, step: int) -> int:
        """Return how many bytes an archive has that a step saved to the workspace.

        Raises:
            NotFoundError: There is no such archive.
        """
        return self._files.archive_size(task_id, step)

    def _add(self, task: ExecutorTask, directory: TaskDirectory) -> None:
        state = TaskState(task, directory, self._reporter.report)
        limits = self._options.limits
        self._pool.add(TaskRunner(state, directory, self._driver, self._service, self._ended, limits, self._watcher))
        if self._limits_loop is not None and self._limits_rest:
            self._limits_rest = False
            self._limits_loop.wake()

    def _ended(self, runner: TaskRunner) -> None:
        if self._options.keep_failed and runner.task.status.phase is ExecutorPhase.FAILED:
            self._reconciler.keep(runner.task.id)
        self._files.remember(runner.task)
        self._pool.remove(runner)

    def _check_limits(self) -> None:
        for runner in self._pool.all():
            runner.check_limits()

    def _limits_pause(self) -> float | None:
        if self._limits_rest and not self._pool.all():
            return None
        self._limits_rest = not self._pool.all()  # before the last look: a task that comes afterwards wakes the loop
        return _LIMITS_SECONDS

    # Heartbeat

    def _heartbeat(self) -> None:
        try:
            self._send_status()
            self._reconciler.reconcile()
        except (UnavailableError, APIError) as error:
            self._note_failure(error)
        else:
            if self._failing is not None:
                logger.warning("the run service answers again")
            self._failing = None

    def _note_failure(self, error: Exception) -> None:
        """Log what the run service fails with: once, until it answers or fails in another way."""
        if type(error) is not self._failing:
            logger.warning("%s; it is tried again until it answers", error)
        self._failing = type(error)

    def _send_status(self) -> None:
        faultpoints.reach("executor.before-heartbeat")
        self._service.send_executor_status(
            ExecutorStatus(
                id=self.id,
                listen_url=self._options.listen_url,
                listen_token=self.token,
                archs=self._driver.archs,
                labels=self._options.labels,
                allow_privileged_containers=self._driver.allow_privileged,
                active_tasks_limit=self._options.active_tasks_limit,
                active_tasks=len(self._pool.all()),
                executor_group=self.id,
                siblings_executors=[self.id],
            )
        )

    def _clean(self) -> None:
        try:
            self._driver.clean(self.id, self._pool.__contains__)
        except AgolaError as error:
            logger.warning("what earlier tasks left cannot be removed: %s", error)
