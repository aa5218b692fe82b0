"""Watches of the etcd coordinator: what one of them has received, and what it still needs.

All watches of a coordinator share one stream (see `watch_stream`). Events are buffered here until the consumer takes
them, up to a bound; then the watch leaves the stream, so that it keeps no other waiting, and etcd keeps the rest, or
compacts it. It comes back once its consumer has made room.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.keys import Keyspace
from agola_core.coordinator.port import KeyValue, WatchBatch, WatchEvent
from agola_core.errors import AgolaError, ClosedError
from agola_core.runtime.closing import Closing
from agola_core.runtime.processes.forks import Origin, fork_safe

_KEPT_BATCHES = 2048
_KEPT_BYTES = 16 * 1024 * 1024


class EtcdWatch(Closing):
    """A running watch (see `agola_core.coordinator.port.Watch`).

    Args:
        origin: The process that opened the coordinator.
        keys: The keyspace.
        prefix: Prefix of the reported keys.
        from_revision: First revision to report.
        resume: Called when a watch that has left the stream has room again.
        forget: Called when the watch is closed.

    Attributes:
        prefix: Prefix of the reported keys.
        position: The next revision to receive.
        witness: The newest key that was received: still the same after a reconnection, unless history was replaced.
        number: Its number on the stream; 0 while it is not on one.
    """

    def __init__(
        self,
        origin: Origin,
        keys: Keyspace,
        prefix: str,
        from_revision: int,
        *,
        resume: Callable[[EtcdWatch], None],
        forget: Callable[[EtcdWatch], None],
    ) -> None:
        self.prefix = prefix
        self.position = max(from_revision, 1)
        self.witness: KeyValue | None = None
        self.number = 0
        self._origin = origin
        self._keys = keys
        self._resume = resume
        self._forget = forget
        self._unfinished: list[WatchEvent] = []
        self._unfinished_revision = 0
        self._ready: deque[WatchBatch] = deque()
        self._ready_bytes = 0
        self._changed = fork_safe(threading.Condition())
        self._closed = False
        self._left = False
        self._failure: AgolaError | None = None

    # The consumer's side

    def next(self, timeout: float | None = None) -> WatchBatch | None:
        """Return the next batch (see the port)."""
        self._origin.check()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure or self._closed, timeout)
            if self._closed:
                raise ClosedError("the watch was closed")
            if not self._ready:
                if self._failure is not None:
                    raise self._failure
                return None
            batch = self._ready.popleft()
            self._ready_bytes -= _size(batch)
            comes_back = self._left and not self._is_full(2)
            if comes_back:
                self._left = False
        if comes_back:
            self._resume(self)
        return batch

    def close(self) -> None:
        """End the watch."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._forget(self)

    # The stream's side

    @property
    def left(self) -> bool:
        """Whether it has left the stream until its consumer makes room."""
        return self._left

    def create_request(self, number: int) -> Any:
        """Return the request that puts it on a stream, from its position on."""
        self.number = number
        self._unfinished = []
        start, end = self._keys.range(self.prefix)
        return rpc.WatchCreateRequest(
            key=start,
            range_end=end,
            start_revision=max(self.position - 1, 1),
            progress_notify=True,
            fragment=True,
            watch_id=number,
        )

    def take(self, answer: Any) -> bool:
        """Take events, or their absence, and return whether there is room for more; if not, it has left the stream."""
        for event in answer.events:
            self._add(event)
        if not answer.fragment:  # otherwise the last revision may continue in the next answer
            self._finish()
            if not answer.events:  # all up to here was sent
                self.position = max(self.position, answer.header.revision + 1)
        with self._changed:
            self._left = self._is_full(1)
            return not self._left

    def fail(self, error: AgolaError) -> None:
        """End the watch with an error, which its consumer gets after what is ready."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _add(self, event: Any) -> None:
        revision = event.kv.mod_revision
        if revision < self.position:
            return
        if revision != self._unfinished_revision:
            self._finish()
            self._unfinished_revision = revision
        if event.type == rpc.EVENT_DELETE:
            self._unfinished.append(WatchEvent(self._keys.decode(event.kv.key), None))
        else:
            item = self._keys.item(event.kv)
            self._unfinished.append(WatchEvent(item.key, item))

    def _finish(self) -> None:
        if not self._unfinished:
            return
        batch = WatchBatch(self._unfinished_revision, tuple(self._unfinished))
        self._unfinished = []
        self.position = batch.revision + 1
        self.witness = next((event.item for event in reversed(batch.events) if event.item), self.witness)
        with self._changed:
            self._ready.append(batch)
            self._ready_bytes += _size(batch)
            self._changed.notify_all()

    def _is_full(self, part: int) -> bool:
        return len(self._ready) >= _KEPT_BATCHES // part or self._ready_bytes >= _KEPT_BYTES // part


def _size(batch: WatchBatch) -> int:
    return sum(len(event.key) + (len(event.item.value) if event.item else 0) for event in batch.events)
