"""Notifies executors of new and stopped tasks.

Each executor is called from one thread at a time, so one that hangs does not stall the others. Notification only saves
time: an executor that is not notified finds its tasks by polling.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from agola_core.errors import AgolaError
from agola_core.runservice.model.protocol import ExecutorDirectory
from agola_core.runservice.model.types import ExecutorTask
from agola_core.runservice.state.memory.mirror import Mirror
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.work_queue import WorkQueue

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0
_THREADS = 8


class Dispatcher:
    """Notifies executors.

    Attributes:
        queue: The ids of the executors to be notified.
    """

    def __init__(self, mirror: Mirror, directory: ExecutorDirectory) -> None:
        self._mirror = mirror
        self._directory = directory
        self._lock = fork_safe(threading.Lock())
        self._waiting: dict[str, deque[ExecutorTask]] = {}
        self._silent_until: dict[str, float] = {}
        self.queue = WorkQueue("runservice-dispatch", _THREADS)

    def tell(self, task: ExecutorTask) -> None:
        """Notify an executor soon of a task that is new or was stopped."""
        executor_id = task.status.executor_id
        with self._lock:
            self._waiting.setdefault(executor_id, deque()).append(task)
        self.queue.add(executor_id)

    def tell_all(self, executor_id: str) -> None:
        """Notify an executor of all tasks that wait for it."""
        executor = self._mirror.executors.get(executor_id)
        while True:
            with self._lock:
                waiting = self._waiting.get(executor_id)
                if not waiting or executor is None or self._silent_until.get(executor_id, 0.0) > time.monotonic():
                    self._waiting.pop(executor_id, None)
                    return
                task = waiting.popleft()
            try:
                self._directory.client(executor).submit(task)
            except AgolaError as error:  # further calls would hang as well: its polling finds the tasks
                logger.warning("executor %s could not be told of task %s: %s", executor_id, task.id, error)
                self._silent_until[executor_id] = time.monotonic() + _PAUSE_SECONDS
