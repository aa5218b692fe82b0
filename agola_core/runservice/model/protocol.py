"""The protocol between a run service and its executors, in both directions, over any transport.

In one process they call each other; over the network an adapter carries the calls. Both sides raise the same
errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from agola_core.runservice.model.types import Executor, ExecutorTask


class ExecutorClient(Protocol):
    """What the run service asks of one executor.

    Every method raises `UnavailableError` when the executor cannot be reached.
    """

    def submit(self, task: ExecutorTask) -> None:
        """Hand over a new task, or one whose `stop` was set; a task that is known is not started twice."""

    def open_log(self, task_id: str, step: int | None, *, follow: bool, offset: int = 0) -> Iterator[bytes]:
        """Yield a step's log; `step` None is the set-up's. One that breaks off raises `UnavailableError`.

        Args:
            task_id: The task.
            step: The step's number, from 0.
            follow: Go on until the step has ended.
            offset: Leave out as many bytes at the beginning: how a broken fetch goes on.

        Raises:
            NotFoundError: The executor has no such log.
        """

    def open_archive(self, task_id: str, step: int, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the tar archive that a step saved to the workspace, from `offset` on (see `open_log`).

        Raises:
            NotFoundError: The executor has no such archive.
        """


class ExecutorDirectory(Protocol):
    """Finds the client of an executor."""

    def client(self, executor: Executor) -> ExecutorClient:
        """Return the client of an executor that has reported itself."""


class RunserviceClient(Protocol):
    """What an executor asks of its run service.

    Every method raises `UnavailableError` when the service cannot be reached.
    """

    def send_executor_status(self, executor: Executor) -> None:
        """Report the executor: its registration and its heartbeat."""

    def executor_tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return every task that the service holds for an executor, finished ones included."""

    def executor_task(self, executor_id: str, task_id: str) -> ExecutorTask:
        """Return one task.

        Raises:
            NotFoundError: The service does not know the task any more: its data may be removed.
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
            data: The tar archive; a source that raises stores nothing.
            size: Its length in bytes where it is known; another length stores nothing.
        """

    def open_source(self, source_id: str) -> Iterator[bytes]:
        """Yield a source archive (a tar of a tree) that was uploaded for a run.

        Raises:
            NotFoundError: It is not stored.
        """
