"""The run service's protocol inside one process: plain calls, no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agola_core.errors import UnavailableError
from agola_core.runservice.protocol import ExecutorClient
from agola_core.runservice.service import RunService
from agola_core.runservice.types import Executor, ExecutorTask


class InProcessDirectory:
    """Finds the executors of this process."""

    def __init__(self) -> None:
        self._clients: dict[str, ExecutorClient] = {}

    def add(self, executor_id: str, client: ExecutorClient) -> None:
        """Make an executor known."""
        self._clients[executor_id] = client

    def client(self, executor: Executor) -> ExecutorClient:
        """Return an executor's client.

        Raises:
            UnavailableError: The executor is not of this process.
        """
        try:
            return self._clients[executor.id]
        except KeyError:
            raise UnavailableError(f"executor {executor.id!r} is not in this process") from None


class InProcessClient:
    """The run service as an executor of this process sees it (see `protocol.RunserviceClient`)."""

    def __init__(self, service: RunService) -> None:
        self._service = service

    def send_executor_status(self, executor: Executor) -> None:
        """Report the executor."""
        self._service.executor_side.take_executor_status(executor)

    def executor_tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return every task that is held for an executor."""
        return self._service.executor_side.tasks(executor_id)

    def executor_task(self, executor_id: str, task_id: str) -> ExecutorTask:  # noqa: ARG002 - the protocol's
        """Return one task."""
        return self._service.executor_side.task(task_id)

    def send_task_status(self, executor_id: str, task: ExecutorTask) -> None:
        """Report a task's status."""
        self._service.executor_side.take_task_status(executor_id, task)

    def open_workspace_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield a workspace archive."""
        return self._service.artifacts.open_archive(task_id, step)

    def cache_exists(self, key: str) -> bool:
        """Return whether a cache is stored under exactly this key."""
        return self._service.artifacts.cache_exists(key)

    def open_cache(self, key: str, *, prefix: bool) -> Iterator[bytes]:
        """Yield a cache."""
        return self._service.artifacts.open_cache(key, prefix=prefix)

    def put_cache(self, key: str, data: Iterable[bytes], size: int | None = None) -> bool:
        """Store a cache unless the key exists."""
        return self._service.artifacts.put_cache(key, data, size)

    def open_source(self, source_id: str) -> Iterator[bytes]:
        """Yield a source archive."""
        return self._service.artifacts.open_source(source_id)
