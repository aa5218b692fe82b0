"""The protocol between a run service and its executors, in both directions, over any transport.

In one process they call each other; over the network an adapter forwards the calls. Both sides raise the same errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from agola_core.runservice.model.types import Executor, ExecutorTask


class ExecutorClient(Protocol):
    """Calls of the run service to one executor.

    Every method raises `UnavailableError` when the executor cannot be reached.
    """

    def submit(self, task: ExecutorTask) -> None:
        """Submit a new task, or one whose `stop` was set; a known task is not started twice."""

    def open_log(self, task_id: str, step: int | None, *, follow: bool, offset: int = 0) -> Iterator[bytes]:
        """Yield the log of a step, or of the set-up for `step` None; a broken connection raises `UnavailableError`.

        Args:
            task_id: The task.
            step: The step's number, from 0.
            follow: Continue until the step has ended.
            offset: Skip this many bytes: to resume a broken fetch.

        Raises:
            NotFoundError: The executor has no such log.
        """

    def open_times(self, task_id: str, step: int | None, *, offset: int = 0) -> Iterator[bytes]:
        """Yield when the lines of a log were written (see `line_times`), as far as it is known now.

        Args:
            task_id: The task.
            step: The step's number, from 0; None for the set-up.
            offset: Skip this many bytes, which the caller has.

        Raises:
            NotFoundError: The executor does not know it.
        """

    def open_archive(self, task_id: str, step: int, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the tar archive that a step saved to the workspace, from `offset` on (see `open_log`).

        Raises:
            NotFoundError: The executor has no such archive.
        """


class ExecutorDirectory(Protocol):
    """Finds the client of an executor."""

    def client(self, executor: Executor) -> ExecutorClient:
        """Return the client of a registered executor."""


class RunserviceClient(Protocol):
    """Calls of an executor to its run service.

    Every method raises `UnavailableError` when the service cannot be reached.
    """

    def send_executor_status(self, executor: Executor) -> None:
        """Report the executor: its registration and its heartbeat."""

    def executor_tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return all tasks that the service holds for an executor, including finished ones."""

    def executor_task(self, executor_id: str, task_id: str) -> ExecutorTask:
        """Return one task.

        Raises:
            NotFoundError: The task is no longer known: its data may be removed.
        """

    def send_task_status(self, executor_id: str, task: ExecutorTask) -> None:
        """Report a task's status.

        Raises:
            BadRequestError: The service does not accept the update.
        """

    def open_workspace_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield a workspace archive that another task saved.

        Raises:
            NotFoundError: It is not stored.
        """

    def cache_exists(self, key: str) -> bool:
        """Return whether a cache is stored under exactly this key."""

    def open_cache(self, key: str, *, prefix: bool) -> Iterator[bytes]:
        """Yield the newest cache whose key is, or with `prefix` begins with, `key`.

        Raises:
            NotFoundError: There is none.
        """

    def put_cache(self, key: str, data: Iterable[bytes], size: int | None = None) -> bool:
        """Store a cache unless the key exists; return whether it was stored.

        Args:
            key: At most 200 bytes.
            data: The tar archive; if it raises, nothing is stored.
            size: Its length in bytes, if known; data of another length is not stored.
        """

    def open_source(self, source_id: str) -> Iterator[bytes]:
        """Yield a source archive (a tar of a tree) that was uploaded for a run.

        Raises:
            NotFoundError: It is not stored.
        """
