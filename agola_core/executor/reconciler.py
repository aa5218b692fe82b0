"""Keeps an executor's tasks as the service has them: takes new ones, stops unknown ones, removes stored ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from agola_core.errors import AgolaError, BadRequestError, NotFoundError
from agola_core.executor.reporter import Reporter
from agola_core.executor.tasks.directory import TaskDirectories, TaskDirectory
from agola_core.executor.tasks.pool import TaskPool
from agola_core.runservice.model.protocol import RunserviceClient
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("executor.before-remove")


class Reconciler:
    """Takes and removes the tasks of an executor. Thread-safe.

    Args:
        executor_id: The executor.
        service: The run service.
        directories: The directories of its tasks.
        pool: The tasks that run or wait.
        reporter: Reports states of tasks.
        add: Begins a task in its directory.
    """

    def __init__(
        self,
        executor_id: str,
        service: RunserviceClient,
        directories: TaskDirectories,
        pool: TaskPool,
        reporter: Reporter,
        add: Callable[[ExecutorTask, TaskDirectory], None],
    ) -> None:
        self._id = executor_id
        self._service = service
        self._directories = directories
        self._pool = pool
        self._reporter = reporter
        self._add = add
        self._kept: set[str] = set()
        self._taking = threading.Lock()

    def take(self, task: ExecutorTask) -> None:
        """Accept a task, or stop one (see `Executor.submit`)."""
        if len(task.status.steps) != len(task.steps):
            raise BadRequestError(f"task {task.id!r} has {len(task.steps)} steps, its status {len(task.status.steps)}")
        with self._taking:  # the service tells of it, and a heartbeat may find it at the same time
            self._take(task)

    def keep(self, task_id: str) -> None:
        """Leave the files of a task that has ended, until the process ends."""
        self._kept.add(task_id)

    def reconcile(self) -> None:
        """Repair the effects of lost calls: start or stop tasks, and remove data that is no longer needed."""
        here = self._here()
        held = {task.id: task for task in self._service.executor_tasks(self._id)}
        for task in held.values():
            if task.stop or not task.status.phase.is_finished:
                self._compare(task)
        self._forget_unknown(here, held)

    def forget_stored(self) -> None:
        """Remove what the service has stored since the last heartbeat: until the next start nobody would."""
        here = self._here()
        if not here:
            return
        try:
            self._forget_unknown(here, [task.id for task in self._service.executor_tasks(self._id)])
        except (AgolaError, OSError) as error:
            logger.warning("what ended tasks left is removed at the next start: %s", error)

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

    def _compare(self, task: ExecutorTask) -> None:
        """Start, stop or report a task if the service's state of it is outdated."""
        runner = self._pool.get(task.id)
        local = runner.task if runner is not None else self._directories.of(task.id).load()
        if local is not None and not _is_known(task, local):
            local = None
        if task.stop or task.status.phase is ExecutorPhase.NOT_STARTED:
            self.take(task)
        if local is None and task.status.phase is ExecutorPhase.RUNNING:
            self._report_failed(task, "the executor has lost the task")
        elif local is not None and self._lacks(task, local):
            self._reporter.report(local)

    def _lacks(self, task: ExecutorTask, local: ExecutorTask) -> bool:
        """Return whether the service lacks a status; it may have heard of the end since it was asked."""
        if task.status.phase.is_finished or local.status == task.status:
            return False
        try:
            return not self._service.executor_task(self._id, task.id).status.phase.is_finished
        except NotFoundError:
            return False

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
            self._service.executor_task(self._id, task_id)  # it may have come again since
        except NotFoundError:
            runner = self._pool.get(task_id)
            if runner is not None:
                logger.warning("task %s is stopped: the service does not know it any more", task_id)
                runner.stop()

    def _report_failed(self, task: ExecutorTask, reason: str) -> None:
        status = replace(task.status, phase=ExecutorPhase.FAILED)
        self._reporter.report(replace(task, status=status, fail_error=reason))


def _is_known(task: ExecutorTask, local: ExecutorTask) -> bool:
    """Return whether the executor has this attempt of the task, or a later one."""
    return task.run_id == local.run_id and task.attempt <= local.attempt
