"""The executor: takes tasks from a run service and runs them, across restarts of either."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from agola_core import private
from agola_core.address import check_directory
from agola_core.errors import AgolaError, APIError, BadRequestError, NotFoundError, UnavailableError, disk_error
from agola_core.executor.drivers.port import Driver
from agola_core.executor.files import kept_text
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

faultpoints.declare("executor.before-heartbeat", "executor.before-remove")


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
        self._kept: set[str] = set()
        self._taking = threading.Lock()
        self._files = TaskFiles(self._directories, self._pool, self.id)
        self._reporter = Reporter(lambda task: service.send_task_status(self.id, task))
        self._supervisor = Supervisor("executor")
        self._limits_loop: Loop | None = None
        self._limits_rest = False

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
            logger.warning("the run service cannot be reached, it is tried again: %s", error)
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
            self._forget_stored()
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
        if len(task.status.steps) != len(task.steps):
            raise BadRequestError(f"task {task.id!r} has {len(task.steps)} steps, its status {len(task.status.steps)}")
        with self._taking:  # the service tells of it, and a heartbeat may find it at the same time
            self._take(task)

    def directory_of(self, task_id: str) -> TaskDirectory:
        """Return the directory of a task that ran here; it is there as long as the service knows the task.

        Raises:
            BadRequestError: The id is malformed.
        """
        return self._directories.of(task_id)

    # What the service reads (see `task_files`)

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

    def _take(self, task: ExecutorTask) -> None:
        runner = self._pool.get(task.id)
        if runner is not None:
            if task.stop or not _is_known(task, runner.task):  # a new start waits for the old one's end
                runner.stop()
            return
        if task.status.phase is not ExecutorPhase.NOT_STARTED:
            return
        directory = self._directories.of(task.id)
        local = directory.load()
        if local is not None and _is_known(task, local):
            return  # it has run here
        if task.stop:
            status = replace(task.status, phase=ExecutorPhase.STOPPED)
            self._reporter.report(replace(task, status=status))
            return
        try:
            self._directories.remove(directory)
        except OSError as error:
            logger.error("task %s cannot be taken: %s", task.id, error)
            self._report_failed(task, f"the executor cannot take the task: {error.strerror}")
            return
        self._add(task, self._directories.of(task.id))

    def _add(self, task: ExecutorTask, directory: TaskDirectory) -> None:
        state = TaskState(task, directory, self._reporter.report)
        limits = self._options.limits
        self._pool.add(TaskRunner(state, directory, self._driver, self._service, self._ended, limits, self._watcher))
        if self._limits_loop is not None and self._limits_rest:
            self._limits_rest = False
            self._limits_loop.wake()

    def _ended(self, runner: TaskRunner) -> None:
        if self._options.keep_failed and runner.task.status.phase is ExecutorPhase.FAILED:
            self._kept.add(runner.task.id)
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
            self._reconcile()
        except (UnavailableError, APIError) as error:
            logger.warning("the run service does not answer as it should: %s", error)

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

    def _reconcile(self) -> None:
        """Repair the effects of lost calls: start or stop tasks, and remove data that is no longer needed."""
        here = self._here()
        held = {task.id: task for task in self._service.executor_tasks(self.id)}
        for task in held.values():
            if task.stop or not task.status.phase.is_finished:
                self._compare(task)
        self._forget_unknown(here, held)

    def _here(self) -> dict[str, int]:
        """Return the tasks that are here, each with the inode of its directory; 0 for one that has none yet."""
        return dict.fromkeys((runner.task.id for runner in self._pool.all()), 0) | self._directories.inodes()

    def _forget_unknown(self, here: Mapping[str, int], held: Collection[str]) -> None:
        """Remove all tasks but those that the service holds: it has stored what the others left.

        Args:
            here: The tasks that were here before the service was asked, so that it knew them all.
            held: Those that it holds.
        """
        for task_id in here.keys() - held:
            self._forget(task_id, here[task_id])
        self._directories.sweep()

    def _forget_stored(self) -> None:
        """Remove what the service has stored since the last heartbeat: until the next start nobody would."""
        here = self._here()
        if not here:
            return
        try:
            self._forget_unknown(here, [task.id for task in self._service.executor_tasks(self.id)])
        except (AgolaError, OSError) as error:
            logger.warning("what ended tasks left is removed at the next start: %s", error)

    def _compare(self, task: ExecutorTask) -> None:
        """Start, stop or report a task if the service's state of it is outdated."""
        runner = self._pool.get(task.id)
        local = runner.task if runner is not None else self._directories.of(task.id).load()
        if local is not None and not _is_known(task, local):
            local = None
        if task.stop or task.status.phase is ExecutorPhase.NOT_STARTED:
            self.submit(task)
        if local is None and task.status.phase is ExecutorPhase.RUNNING:
            self._report_failed(task, "the executor has lost the task")
        elif local is not None and not task.status.phase.is_finished and local.status != task.status:
            self._reporter.report(local)

    def _forget(self, task_id: str, inode: int) -> None:
        """Remove a task that the service no longer knows; a running one is stopped first.

        Args:
            task_id: The task.
            inode: Its directory's, when it was seen: the same task may have come again since, with another directory.
        """
        if self._pool.get(task_id) is not None:
            self._stop_unknown(task_id)
            return  # its directory goes in a later round
        if task_id in self._kept:
            return
        directory = self._directories.of(task_id)
        faultpoints.reach("executor.before-remove")
        with self._taking:
            if directory.inode() == inode:
                self._directories.remove(directory)

    def _stop_unknown(self, task_id: str) -> None:
        try:
            self._service.executor_task(self.id, task_id)  # it may have come again since
        except NotFoundError:
            runner = self._pool.get(task_id)
            if runner is not None:
                logger.warning("task %s is stopped: the service does not know it any more", task_id)
                runner.stop()

    def _report_failed(self, task: ExecutorTask, reason: str) -> None:
        status = replace(task.status, phase=ExecutorPhase.FAILED)
        self._reporter.report(replace(task, status=status, fail_error=reason))

    def _clean(self) -> None:
        try:
            self._driver.clean(self.id, self._pool.__contains__)
        except AgolaError as error:
            logger.warning("what earlier tasks left cannot be removed: %s", error)


def _is_known(task: ExecutorTask, local: ExecutorTask) -> bool:
    """Return whether the executor has this attempt of the task, or a later one."""
    return task.run_id == local.run_id and task.attempt <= local.attempt
