"""Connects executors and a run service of the same process by plain calls, without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from agola_core.errors import MaintenanceError, UnavailableError
from agola_core.maintenance import Gate
from agola_core.runservice.model.protocol import ExecutorClient, ExecutorDirectory
from agola_core.runservice.model.types import Executor, ExecutorTask
from agola_core.runservice.service import RunService


class InProcessDirectory:
    """Finds the executors of this process.

    Args:
        remote: Finds all others.
    """

    def __init__(self, remote: ExecutorDirectory | None = None) -> None:
        self._remote = remote
        self._clients: dict[str, ExecutorClient] = {}

    def add(self, executor_id: str, client: ExecutorClient) -> None:
        """Register an executor."""
        self._clients[executor_id] = client

    def client(self, executor: Executor) -> ExecutorClient:
        """Return an executor's client.

        Raises:
            UnavailableError: The executor is not of this process.
        """
        if executor.id in self._clients:
            return self._clients[executor.id]
        if self._remote is None:
            raise UnavailableError(f"executor {executor.id!r} is not in this process")
        return self._remote.client(executor)


class InProcessClient:
    """A run service in the executor's process (see `protocol.RunserviceClient`).

    In maintenance mode reports raise `UnavailableError`, to be repeated later, while calls of a running step wait.

    Args:
        gate: Has the service while it is not in maintenance mode.
    """

    def __init__(self, gate: Gate[RunService]) -> None:
        self._gate = gate

    def send_executor_status(self, executor: Executor) -> None:
        """Report the executor."""
        with self._now() as service:
            service.executor_side.take_executor_status(executor)

    def executor_tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return every task that is held for an executor."""
        with self._now() as service:
            return service.executor_side.tasks(executor_id)

    def executor_task(self, executor_id: str, task_id: str) -> ExecutorTask:  # noqa: ARG002 - the protocol's
        """Return one task."""
        with self._now() as service:
            return service.executor_side.task(task_id)

    def send_task_status(self, executor_id: str, task: ExecutorTask) -> None:
        """Report a task's status."""
        with self._now() as service:
            service.executor_side.take_task_status(executor_id, task)

    def open_workspace_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield a workspace archive."""
        with self._awaited() as service:
            return service.artifacts.open_archive(task_id, step)

    def cache_exists(self, key: str) -> bool:
        """Return whether a cache is stored under exactly this key."""
        with self._awaited() as service:
            return service.artifacts.cache_exists(key)

    def open_cache(self, key: str, *, prefix: bool) -> Iterator[bytes]:
        """Yield a cache."""
        with self._awaited() as service:
            return service.artifacts.open_cache(key, prefix=prefix)

    def put_cache(self, key: str, data: Iterable[bytes], size: int | None = None) -> bool:
        """Store a cache unless the key exists."""
        with self._awaited() as service:
            return service.artifacts.put_cache(key, data, size)

    def open_source(self, source_id: str) -> Iterator[bytes]:
        """Yield a source archive."""
        with self._awaited() as service:
            return service.artifacts.open_source(source_id)

    @contextmanager
    def _now(self) -> Iterator[RunService]:
        try:
            with self._gate.enter() as service:
                yield service
        except MaintenanceError as error:
            raise UnavailableError(str(error)) from error

    @contextmanager
    def _awaited(self) -> Iterator[RunService]:
        with ExitStack() as stack:
            while True:
                self._gate.wait_open()
                try:
                    service = stack.enter_context(self._gate.enter())
                    break
                except MaintenanceError:  # closed again in between
                    continue
            yield service
