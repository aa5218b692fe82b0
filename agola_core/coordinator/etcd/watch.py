"""Watches of the etcd coordinator, which survive lost connections, changes of leader and unresponsive servers.

A watch has its own stream, read by its own thread. Whenever the stream ends, the next one starts at the revision after
the last complete one, on the next endpoint. It requests one earlier revision and drops it: exactly at its compacted
revision etcd may have lost deletions, but one before that it reports the compaction. Events are buffered until the
consumer takes them, up to a bound; then reading pauses, and etcd keeps the rest, or compacts it.

Every `beat` (heartbeat) requests progress from the stream; one that stays silent for long is considered dead. The
revisions in progress answers are not trusted: releases before 3.4.25 sent them ahead of earlier events.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.client import Backoff, EtcdClient, unavailable
from agola_core.coordinator.etcd.keys import Keyspace
from agola_core.coordinator.port import KeyValue, WatchBatch, WatchEvent
from agola_core.errors import (
    AccessDeniedError,
    AgolaError,
    AuthenticationError,
    ClosedError,
    CompactedError,
    UnavailableError,
)
from agola_core.runtime.closing import Closing
from agola_core.runtime.forks import fork_safe

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
"""Interval of calls to `EtcdWatch.beat`, in seconds."""

_SILENT_SECONDS = 2.5
_MOST_SILENT_SECONDS = 40.0
_LONGEST_PAUSE = 2.0
_KEPT_BATCHES = 2048
_KEPT_BYTES = 16 * 1024 * 1024
_BROADCAST = -1
_JOIN_SECONDS = 1.0


class _Stream:
    """A running stream of a watch."""

    def __init__(self) -> None:
        self.call: Any = None
        self.heard = time.monotonic()
        self.reading = True
        self.silent = False
        self.answered = False
        self._going_up: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def requests(self) -> Iterator[Any]:
        """Yield the requests to send, until the stream ends."""
        while (request := self._going_up.get()) is not None:
            yield request

    def send(self, request: Any) -> None:
        self._going_up.put(request)

    def end(self) -> None:
        self._going_up.put(None)
        if self.call is not None:
            self.call.cancel()


class EtcdWatch(Closing):
    """A running watch (see `agola_core.coordinator.port.Watch`).

    Args:
        client: The client.
        keys: The keyspace.
        prefix: Prefix of the reported keys.
        from_revision: First revision to report.
        forget: Called when the watch is closed.
    """

    def __init__(
        self, client: EtcdClient, keys: Keyspace, prefix: str, from_revision: int, forget: Callable[[EtcdWatch], None]
    ) -> None:
        self._client = client
        self._keys = keys
        self._prefix = prefix
        self._forget = forget
        self._position = max(from_revision, 1)
        self._witness: KeyValue | None = None
        self._unfinished: list[WatchEvent] = []
        self._unfinished_revision = 0
        self._ready: deque[WatchBatch] = deque()
        self._ready_bytes = 0
        self._changed = fork_safe(threading.Condition())
        self._closing = fork_safe(threading.Event())
        self._failure: AgolaError | None = None
        self._turn = 0
        self._patience = _SILENT_SECONDS
        self._backoff = Backoff(free=len(client.settings.endpoints), longest=_LONGEST_PAUSE)
        self._stream: _Stream | None = None
        self._thread = threading.Thread(target=self._run, name="etcd-watch", daemon=True)
        self._thread.start()

    def next(self, timeout: float | None = None) -> WatchBatch | None:
        """Return the next batch (see the port)."""
        self._client.origin.check()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure or self._closing.is_set(), timeout)
            if self._closing.is_set():
                raise ClosedError("the watch was closed")
            if self._ready:
                batch = self._ready.popleft()
                self._ready_bytes -= _size(batch)
                self._changed.notify_all()
                return batch
            if self._failure is not None:
                raise self._failure
            return None

    def beat(self) -> None:
        """Send a heartbeat, and abandon a stream that has been silent for too long."""
        stream = self._stream
        if stream is None:
            return
        if stream.reading and time.monotonic() - stream.heard > self._patience_with(stream):
            stream.silent = True
            stream.end()
        else:
            stream.send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def close(self) -> None:
        """End the watch."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        stream = self._stream
        if stream is not None:
            stream.end()
        self._forget(self)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)  # it may still be waiting for a request to etcd, and ends with it

    # The thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except AgolaError as error:
                if isinstance(error, UnavailableError) and not isinstance(error, AccessDeniedError):
                    level = logging.DEBUG if self._backoff.failures else logging.WARNING  # once per outage
                    logger.log(level, "a watch lost its stream, to go on at revision %d: %s", self._position, error)
                else:
                    self._fail(error)
                    return
            self._turn += 1
            self._closing.wait(self._backoff.next())

    def _follow(self) -> None:
        """Read one stream until it ends; raise the reason."""
        self._unfinished.clear()
        stream = _Stream()
        where = self._client.settings.where
        try:
            stream.send(rpc.WatchRequest(create_request=self._create_request()))
            stream.call, where = self._client.watch(stream.requests(), self._turn)
            self._stream = stream
            if self._closing.is_set():  # a `close` before the line above did not see the stream
                return
            for answer in stream.call:
                if self._closing.is_set():
                    return
                stream.reading, stream.answered = (
                    False,
                    True,
                )  # the time until the next read does not count as the server's silence
                self._take(answer)
                self._wait_for_room()
                stream.heard, stream.reading = time.monotonic(), True
            raise UnavailableError(f"etcd at {where} ended a watch")
        except grpc.RpcError as error:
            if self._closing.is_set():
                return
            if stream.silent:
                said = f"etcd at {where} was silent for {self._patience_with(stream):g} s"
                if stream.answered:
                    self._patience = min(2 * self._patience, _MOST_SILENT_SECONDS)
                raise UnavailableError(said) from error
            self._client.check_usable()
            failure = unavailable(error, where)
            if isinstance(failure, AuthenticationError):
                self._ask_whether_it_may()
            raise failure from error
        finally:
            self._stream = None
            stream.end()

    def _patience_with(self, stream: _Stream) -> float:
        """Return the seconds after which a silent stream is abandoned.

        One that has much to read gets more each time; one that has not answered at all is gone, and gets no more.
        """
        return self._patience if stream.answered else _SILENT_SECONDS

    def _create_request(self) -> Any:
        start, end = self._keys.range(self._prefix)
        return rpc.WatchCreateRequest(
            key=start, range_end=end, start_revision=max(self._position - 1, 1), progress_notify=True, fragment=True
        )

    def _take(self, answer: Any) -> None:
        self._client.check_cluster(answer.header.cluster_id)
        if answer.canceled:
            self._cancelled(answer)
        if answer.created:
            self._check_history(answer.header.revision)
            return
        self._patience = _SILENT_SECONDS
        self._backoff.reset()
        for event in answer.events:
            self._add(event)
        if answer.fragment:  # the last revision may continue in the next answer
            return
        self._finish()
        if not answer.events and answer.watch_id != _BROADCAST:  # all up to here was sent
            self._position = max(self._position, answer.header.revision + 1)

    def _cancelled(self, answer: Any) -> None:
        if answer.compact_revision:
            oldest = answer.compact_revision + 1
            raise CompactedError(f"revision {self._position} was compacted; the oldest kept is {oldest}", oldest=oldest)
        reason = answer.cancel_reason or "no reason given"
        self._ask_whether_it_may()
        raise UnavailableError(f"etcd cancelled a watch: {reason}")

    def _ask_whether_it_may(self) -> None:
        """Read a key of the watch: etcd does not reliably tell a watch of an expired token or a missing permission.

        Raises:
            AccessDeniedError: The permission is missing; an expired token is replaced.
        """
        start, end = self._keys.range(self._prefix)
        self._client.ask(rpc.RANGE, rpc.RangeRequest(key=start, range_end=end, limit=1, keys_only=True))

    def _check_history(self, revision: int) -> None:
        """Check that the stream continues the same history (see `EtcdClient.give_up`)."""
        if revision < self._position - 1 and self._client.revision() < self._position - 1:
            self._client.give_up(f"it has revision {revision}, a watch has seen {self._position - 1}")
        if self._witness is not None:
            seen = self._witness
            request = rpc.RangeRequest(key=self._keys.encode(seen.key), revision=seen.mod_revision)
            try:
                found = self._client.ask(rpc.RANGE, request).kvs
            except AgolaError as error:
                if isinstance(error, UnavailableError):
                    raise
                return  # compacted: cannot be checked
            if [(item.mod_revision, item.value) for item in found] != [(seen.mod_revision, seen.value)]:
                self._client.give_up(f"revision {seen.mod_revision} of key {seen.key!r} is not what it was")

    # Received events

    def _add(self, event: Any) -> None:
        revision = event.kv.mod_revision
        if revision < self._position:
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
        self._position = batch.revision + 1
        self._witness = next((event.item for event in reversed(batch.events) if event.item), self._witness)
        with self._changed:
            self._ready.append(batch)
            self._ready_bytes += _size(batch)
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing.is_set() or (len(self._ready) < _KEPT_BATCHES and self._ready_bytes < _KEPT_BYTES)
            )

    def _fail(self, error: AgolaError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()


def _size(batch: WatchBatch) -> int:
    return sum(len(event.key) + (len(event.item.value) if event.item else 0) for event in batch.events)
