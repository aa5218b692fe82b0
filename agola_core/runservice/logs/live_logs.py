"""Logs that grow on executors, looked into by their lines: those that were asked for last have an index that grows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

import msgspec

from agola_core.errors import ConflictError
from agola_core.runservice.logs.line_index import NOT_COUNTED, LineCounter, LineIndex
from agola_core.runservice.logs.log_view import LogView
from agola_core.runservice.model.protocol import ExecutorClient
from agola_core.runtime.context import Context
from agola_core.runtime.processes.forks import fork_safe

_KEPT = 32
_COMPARED_BYTES = 64
_UNSETTLED_BYTES = 256
"""An executor hides at most so many bytes at a log's end."""


class LiveLogs:
    """Makes views of growing logs; thread-safe."""

    def __init__(self) -> None:
        self._lock = fork_safe(threading.Lock())
        self._growing: OrderedDict[tuple[str, int, str, int | None], _Growing] = OrderedDict()

    @contextmanager
    def view(
        self, client: ExecutorClient, executor_id: str, attempt: int, task_id: str, step: int | None, context: Context
    ) -> Iterator[LogView]:
        """Open what an executor has of a log now.

        Args:
            client: The executor's.
            executor_id: The executor.
            attempt: Which start of the task it is.
            task_id: The task.
            step: The step's number; None for the set-up.
            context: Ends what takes long.

        Raises:
            NotFoundError: The executor has no such log.
            ConflictError: While the log is looked into, its step has emptied it.
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
            index = growing.read_on(client, task_id, step, context)
            if index is None:
                growing.begin_again()
                index = growing.read_on(client, task_id, step, context)
            errors, blocks = growing.errors, growing.blocks
        if index is None:
            raise _emptied()
        if errors:
            known = tuple(errors.get(block, NOT_COUNTED) for block in range(len(index.starts)))
            index = msgspec.structs.replace(index, errors=known)
        with closing(_LiveReader(client, task_id, step)) as reader:
            view = LogView(reader, index, context)
            try:
                yield view
            finally:
                with growing.lock:
                    found = enumerate(view.errors[:blocks])
                    errors.update((block, count) for block, count in found if count != NOT_COUNTED)


class _Growing:
    """What has been read of a growing log; not its last bytes: those that may begin a secret are stars for now."""

    def __init__(self) -> None:
        self.lock = fork_safe(threading.Lock())
        self.begin_again()

    def begin_again(self) -> None:
        self._counter = LineCounter()
        self._last = b""
        self.errors: dict[int, int] = {}  # of whole blocks

    @property
    def blocks(self) -> int:
        """How many blocks have been read whole: nothing changes them."""
        return self._counter.blocks

    def read_on(self, client: ExecutorClient, task_id: str, step: int | None, context: Context) -> LineIndex | None:
        """Read what came since the last look; return None if the log is not what it was: its step has emptied it."""
        last, rest = self._last, b""
        for piece in client.open_log(task_id, step, follow=False, offset=self._counter.size - len(last)):
            known = min(len(last), len(piece))
            if piece[:known] != last[:known]:
                return None
            last, rest = last[known:], rest + piece[known:]
            settled, rest = rest[:-_UNSETTLED_BYTES], rest[-_UNSETTLED_BYTES:]
            self._counter.take(settled)
            self._last = (self._last + settled[-_COMPARED_BYTES:])[-_COMPARED_BYTES:]
            context.check()
        return None if last else self._counter.index(rest)


def _emptied() -> ConflictError:
    return ConflictError("the step has emptied its log, read it again")


class _LiveReader:
    """Reads ranges of a log from its executor; ranges that follow each other come in one answer."""

    remote = False

    def __init__(self, client: ExecutorClient, task_id: str, step: int | None) -> None:
        self._client = client
        self._task_id = task_id
        self._step = step
        self._pieces: Iterator[bytes] = iter(())
        self._offset, self._held = -1, b""

    def read(self, offset: int, length: int) -> bytes:
        if offset != self._offset:
            self.close()
            self._pieces = self._client.open_log(self._task_id, self._step, follow=False, offset=offset)
        data = bytearray(self._held)
        for piece in self._pieces if len(data) < length else ():
            data += piece
            if len(data) >= length:
                break
        if len(data) < length:
            raise _emptied()
        self._offset, self._held = offset + length, bytes(data[length:])
        return bytes(data[:length])

    def close(self) -> None:
        """Leave the answer that is read."""
        if isinstance(self._pieces, Generator):
            self._pieces.close()
        self._offset, self._held = -1, b""
