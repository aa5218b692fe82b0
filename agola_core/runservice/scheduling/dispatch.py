"""Tells executors of their tasks, each executor from one thread at a time, so that one that hangs stalls no other.

Telling is a courtesy: an executor that is not told finds its tasks by its own poll.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from agola_core.errors import AgolaError
from agola_core.runservice.model.protocol import ExecutorDirectory
from agola_core.runservice.model.types import ExecutorTask
from agola_core.runservice.state.mirror import Mirror
from agola_core.runtime.forks import renewed
from agola_core.runtime.work_queue import WorkQueue

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0
_THREADS = 8


class Dispatcher:
    """Hands tasks over.

    Args:
        mirror: Knows the executors.
        directory: Finds their clients, whose calls have deadlines of their own.
    """

    def __init__(self, mirror: Mirror, directory: ExecutorDirectory) -> None:
        self._mirror = mirror
        self._directory = directory
        self._lock = renewed(threading.Lock())
        self._waiting: dict[str, deque[ExecutorTask]] = {}
        self._silent_until: dict[str, float] = {}
        self._queue = WorkQueue("runservice-dispatch", self._tell, _THREADS)

    def start(self) -> None:
        """Start the threads."""
        self._queue.start()

    def run_one(self) -> bool:
        """Do one thing in the calling thread (see `WorkQueue.run_one`)."""
        return self._queue.run_one()

    def stop(self) -> None:
        """End the threads."""
        self._queue.stop()

    def tell(self, task: ExecutorTask) -> None:
        """Tell an executor of a task that is new or was stopped, soon."""
        executor_id = task.status.executor_id
        with self._lock:
            self._waiting.setdefault(executor_id, deque()).append(task)
        self._queue.add(executor_id)

    def _tell(self, executor_id: str) -> None:
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
            except AgolaError as error:  # the others would hang likewise: let its poll find them
                logger.warning("executor %s could not be told of task %s: %s", executor_id, task.id, error)
                self._silent_until[executor_id] = time.monotonic() + _PAUSE_SECONDS
