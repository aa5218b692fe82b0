"""Sends task statuses to the run service: only the newest of each task, retried until delivered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agola_core.errors import AgolaError, BadRequestError, NotFoundError
from agola_core.runservice.model.types import ExecutorTask
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("executor.before-report")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Reporter:
    """Sends statuses from a thread of its own, so that no task waits for the network.

    Args:
        send: Sends one task's status.
    """

    def __init__(self, send: Callable[[ExecutorTask], None]) -> None:
        self._send = send
        self._condition = threading.Condition()
        self._waiting: dict[str, ExecutorTask] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="executor-report", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def report(self, task: ExecutorTask) -> None:
        """Send a task's status; it replaces one that is still waiting."""
        with self._condition:
            self._waiting[task.id] = task
            self._condition.notify()

    def stop(self, timeout: float) -> bool:
        """Send waiting statuses while the service accepts them, and end the thread; return whether all were sent."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)
        return not self._waiting and not self._thread.is_alive()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._condition:
                while not self._waiting and not self._stopping:
                    self._condition.wait()
                if not self._waiting:
                    return
                task_id = next(iter(self._waiting))
                task = self._waiting.pop(task_id)
            faultpoints.reach("executor.before-report")
            try:
                self._send(task)
                pause = _FIRST_PAUSE
            except (BadRequestError, NotFoundError) as error:
                logger.warning("the service does not take the status of task %s: %s", task_id, error)
            except AgolaError as error:
                if pause == _FIRST_PAUSE:
                    logger.warning("the status of task %s is not delivered yet: %s", task_id, error)
                with self._condition:
                    self._waiting.setdefault(task_id, task)
                    if self._stopping:
                        return
                    self._condition.wait_for(lambda: self._stopping, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
