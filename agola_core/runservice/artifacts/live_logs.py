"""Logs that grow on executors, looked into by their lines: those that were asked for last have an index that grows."""

from __future__ import annotations

import threading
from collections import OrderedDict

from agola_core.runservice.artifacts.line_index import LineCounter
from agola_core.runservice.artifacts.log_view import LogView
from agola_core.runservice.model.protocol import ExecutorClient
from agola_core.runtime.context import Context
from agola_core.runtime.forks import fork_safe

_KEPT = 32


class LiveLogs:
    """Makes views of growing logs; thread-safe."""

    def __init__(self) -> None:
        self._lock = fork_safe(threading.Lock())
        self._growing: OrderedDict[tuple[str, int, str, int | None], _Growing] = OrderedDict()

    def view(
        self, client: ExecutorClient, executor_id: str, attempt: int, task_id: str, step: int | None, context: Context
    ) -> LogView:
        """Return a view of what an executor has of a log now.

        Args:
            client: The executor's.
            executor_id: The executor.
            attempt: Which start of the task it is.
            task_id: The task.
            step: The step's number; None for the set-up.
            context: Ends what takes long.

        Raises:
            NotFoundError: The executor has no such log.
            UnavailableError: It cannot be reached.
            DeadlineError: The context has ended.
        """
        key = (executor_id, attempt, task_id, step)
        with self._lock:
            growing = self._growing.setdefault(key, _Growing())
            self._growing.move_to_end(key)
            if len(self._growing) > _KEPT:
                self._growing.popitem(last=False)
        with growing.lock:  # what one caller has read, the next need not
            for piece in client.open_log(task_id, step, follow=False, offset=growing.counter.size):
                growing.counter.take(piece)
                context.check()
            return LogView(_LiveReader(client, task_id, step), growing.counter.index(), context)


class _Growing:
    def __init__(self) -> None:
        self.lock = fork_safe(threading.Lock())
        self.counter = LineCounter()


class _LiveReader:
    """Reads ranges of a log from its executor."""

    remote = False

    def __init__(self, client: ExecutorClient, task_id: str, step: int | None) -> None:
        self._client = client
        self._task_id = task_id
        self._step = step

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray()
        pieces = self._client.open_log(self._task_id, self._step, follow=False, offset=offset)
        try:
            for piece in pieces:
                data += piece
                if len(data) >= length:
                    break
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        return bytes(data[:length])

    def close(self) -> None:
        """Nothing is open between two reads."""
