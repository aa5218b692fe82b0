"""Sends task statuses to the run service: only the newest of each task, retried until delivered.

The end of a task is sent at once. What happens before it is sent at once, too, and then together after a short while:
where many short tasks run, most of them have ended by then, and only that is sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agola_core.errors import AgolaError, BadRequestError, NotFoundError
from agola_core.runservice.model.types import ExecutorTask
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("executor.before-report")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_PROGRESS_SECONDS = 0.05
"""At most so often is sent what happens before a task's end."""


class Reporter:
    """Sends statuses from a thread of its own, so that no task waits for the network.

    Args:
        send: Sends one task's status.
        ticks: Seconds of a clock that is never set.
    """

    def __init__(self, send: Callable[[ExecutorTask], None], ticks: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._ticks = ticks
        self._condition = threading.Condition()
        self._due: dict[str, ExecutorTask] = {}
        self._later: dict[str, ExecutorTask] = {}
        self._quiet_until = 0.0
        self._sending: ExecutorTask | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="executor-report", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def report(self, task: ExecutorTask) -> None:
        """Send a task's status; it replaces one that is still waiting, and is not repeated while it is being sent."""
        with self._condition:
            if task == self._sending:
                return
            known = self._later.pop(task.id, None)
            if task.status.phase.is_finished or task.id in self._due:
                self._due[task.id] = task
                self._condition.notify()
                return
            self._later[task.id] = task
            if known is None and len(self._later) == 1:
                self._condition.notify()

    def stop(self, timeout: float) -> bool:
        """Send waiting statuses while the service accepts them, and end the thread; return whether all were sent."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)
        return not self._due and not self._later and not self._thread.is_alive()

    def _next(self) -> ExecutorTask | None:
        """Wait for a status that is to be sent, and take it; None when there is none and no other comes."""
        with self._condition:
            self._sending = None
            while not self._due:
                rest = self._quiet_until - self._ticks() if self._later and not self._stopping else 0.0
                if self._later and rest <= 0.0:
                    self._due, self._later = self._later, self._due
                    self._quiet_until = self._ticks() + _PROGRESS_SECONDS
                elif self._stopping:
                    return None
                else:
                    self._condition.wait(rest if self._later else None)
            self._sending = self._due.pop(next(iter(self._due)))
            return self._sending

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while (task := self._next()) is not None:
            faultpoints.reach("executor.before-report")
            try:
                self._send(task)
                pause = _FIRST_PAUSE
            except (BadRequestError, NotFoundError) as error:
                # A heartbeat may repeat an end that the service has taken meanwhile, and whose task it has forgotten.
                told_twice = isinstance(error, NotFoundError) and task.status.phase.is_finished
                level = logging.DEBUG if told_twice else logging.WARNING
                logger.log(level, "the service does not take the status of task %s: %s", task.id, error)
            except AgolaError as error:
                if pause == _FIRST_PAUSE:
                    logger.warning("the status of task %s is not delivered yet: %s", task.id, error)
                with self._condition:
                    if task.id not in self._later:
                        self._due.setdefault(task.id, task)
                    self._due, self._later = {**self._later, **self._due}, {}  # nothing waits for what is refused
                    if self._stopping:
                        return
                    self._condition.wait_for(lambda: self._stopping, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
