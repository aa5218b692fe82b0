"""The stream that all watches of an etcd coordinator share: it survives lost connections, changes of leader, silence.

One thread reads it. Whenever it ends, the next one begins on the next endpoint, each watch at the revision after its
last complete one. A watch requests one earlier revision and drops it: exactly at its compacted revision etcd may have
lost deletions, but one before that it reports the compaction. The thread and the stream end with the last watch.

Every `beat` (heartbeat) requests progress from the stream; one that stays silent for long is considered dead. The
revisions in progress answers are not trusted: releases before 3.4.25 sent them ahead of earlier events.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.client import Backoff, EtcdClient, unavailable
from agola_core.coordinator.etcd.keys import Keyspace
from agola_core.coordinator.etcd.watch import EtcdWatch
from agola_core.errors import (
    AccessDeniedError,
    AgolaError,
    AuthenticationError,
    ClosedError,
    CompactedError,
    UnavailableError,
)
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.start import start_thread

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
"""Interval of calls to `WatchStream.beat`, in seconds."""

_SILENT_SECONDS = 2.0
"""With a heartbeat a second, a silent stream is noticed within three seconds."""

_MOST_SILENT_SECONDS = 40.0
_LONGEST_PAUSE = 2.0
_JOIN_SECONDS = 1.0
_NO_WATCH = -1
"""What etcd says instead of a watch's number: in an answer for all watches, and in the refusal of a new one."""


class _Stream:
    """A running stream.

    Attributes:
        call: The call; None until it has started.
        watches: The watches on it, by number.
        pending: The numbers of those that etcd has not confirmed yet, in the order of their requests.
        heard: When it was last read from.
        silent: Whether it was ended because nothing came.
        answered: Whether anything has come.
    """

    def __init__(self) -> None:
        self.call: Any = None
        self.watches: dict[int, EtcdWatch] = {}
        self.pending: list[int] = []
        self.heard = time.monotonic()
        self.reading = True
        self.silent = False
        self.answered = False
        self._going_up: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def requests(self) -> Iterator[Any]:
        """Yield the requests to send, until the stream ends."""
        while (request := self._going_up.get()) is not None:
            yield request

    def send(self, **request: Any) -> None:
        self._going_up.put(rpc.WatchRequest(**request))

    def end(self) -> None:
        self._going_up.put(None)
        if self.call is not None:
            self.call.cancel()


class WatchStream:
    """The watches of a client, and their stream.

    Args:
        client: The client.
        keys: The keyspace.
    """

    def __init__(self, client: EtcdClient, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys
        self._lock = fork_safe(threading.Lock())
        self._watches: set[EtcdWatch] = set()
        self._stream: _Stream | None = None
        self._thread: threading.Thread | None = None
        self._closing = fork_safe(threading.Event())
        self._last = 0
        self._turn = 0
        self._patience = _SILENT_SECONDS
        self._backoff = Backoff(free=len(client.settings.endpoints), longest=_LONGEST_PAUSE)

    def open(self, prefix: str, from_revision: int) -> EtcdWatch:
        """Start a watch."""
        watch = EtcdWatch(
            self._client.origin, self._keys, prefix, from_revision, resume=self._resume, forget=self._forget
        )
        with self._lock:
            if self._closing.is_set():
                raise ClosedError("the coordinator was closed")
            if self._thread is None:
                self._thread = start_thread("etcd-watch", self._run)
            self._watches.add(watch)
            if self._stream is not None:
                self._request(self._stream, watch)
        return watch

    def beat(self) -> None:
        """Send a heartbeat, and abandon a stream that has been silent for too long."""
        stream = self._stream
        if stream is None:
            return
        if not stream.watches:  # all have left it until their consumers make room: etcd may say nothing
            stream.heard = time.monotonic()
        elif stream.reading and time.monotonic() - stream.heard > self._patience_with(stream):
            stream.silent = True
            stream.end()
        else:
            stream.send(progress_request=rpc.WatchProgressRequest())

    def close(self) -> None:
        """End all watches and the stream."""
        with self._lock:
            self._closing.set()
            watches, thread, stream = list(self._watches), self._thread, self._stream
        if stream is not None:
            stream.end()
        for watch in watches:
            watch.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)  # it may still be waiting for a request to etcd, and ends with it

    # What watches ask for

    def _request(self, stream: _Stream, watch: EtcdWatch) -> None:
        """Put a watch on a stream; the caller holds the lock."""
        self._last += 1
        stream.watches[self._last] = watch
        stream.pending.append(self._last)
        stream.send(create_request=watch.create_request(self._last))

    def _remove(self, watch: EtcdWatch) -> None:
        """Take a watch off the stream; the caller holds the lock."""
        stream = self._stream
        if stream is not None and stream.watches.pop(watch.number, None) is not None:
            stream.send(cancel_request=rpc.WatchCancelRequest(watch_id=watch.number))

    def _resume(self, watch: EtcdWatch) -> None:
        with self._lock:
            stream = self._stream
            if stream is None or watch not in self._watches:
                return
            if watch.number not in stream.watches:  # otherwise it is back already, perhaps in the midst of a revision
                self._request(stream, watch)

    def _forget(self, watch: EtcdWatch) -> None:
        with self._lock:
            if watch not in self._watches:
                return
            self._watches.remove(watch)
            self._remove(watch)
            if not self._watches and self._stream is not None:
                self._stream.end()
                self._stream = None  # a watch that comes now waits for the next one

    # The thread

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closing.is_set() or not self._watches:
                    self._thread = None
                    return
            try:
                self._follow()
            except AgolaError as error:
                if isinstance(error, UnavailableError) and not isinstance(error, AccessDeniedError):
                    level = logging.DEBUG if self._backoff.failures else logging.WARNING  # once per outage
                    logger.log(level, "the watches lost their stream, and go on where they were: %s", error)
                else:
                    for watch in list(self._watches):
                        self._fail(watch, error)
                    continue
                self._turn += 1
                self._closing.wait(self._backoff.next())
            except Exception as error:  # a defect: nobody may wait for a thread that is gone
                logger.exception("the stream of the watches failed")
                for watch in list(self._watches):
                    self._fail(watch, UnavailableError(f"the stream of etcd's watches failed: {error}"))

    def _follow(self) -> None:
        """Read one stream until it ends; raise the reason."""
        stream = _Stream()
        where = self._client.settings.where
        with self._lock:
            if not self._watches:
                return
            for watch in self._watches:
                if not watch.left:
                    self._request(stream, watch)
            self._stream = stream
        try:
            try:
                stream.call, where = self._client.watch(stream.requests(), self._turn)
            except RuntimeError as error:  # gRPC has no thread for it
                raise UnavailableError(f"no stream to etcd at {where} can be started: {error}") from error
            if self._is_over(stream):  # a `close` before the line above did not see the call
                return
            for answer in stream.call:
                stream.reading, stream.answered = False, True  # what follows does not count as the server's silence
                if self._is_over(stream):
                    return
                self._take(stream, answer)
                stream.heard, stream.reading = time.monotonic(), True
            raise UnavailableError(f"etcd at {where} ended a watch")
        except grpc.RpcError as error:
            if self._is_over(stream):
                return
            self._client.doubt(where)
            if stream.silent:
                said = f"etcd at {where} was silent for {self._patience_with(stream):g} s"
                if stream.answered:
                    self._patience = min(2 * self._patience, _MOST_SILENT_SECONDS)
                raise UnavailableError(said) from error
            self._client.check_usable()
            failure = unavailable(error, where)
            if isinstance(failure, AuthenticationError):
                for watch in list(self._watches):
                    self._ask_whether_it_may(watch)
            raise failure from error
        finally:
            with self._lock:
                self._stream = None
            stream.end()

    def _is_over(self, stream: _Stream) -> bool:
        """Return whether nobody needs the stream any more."""
        return self._closing.is_set() or self._stream is not stream

    def _patience_with(self, stream: _Stream) -> float:
        """Return the seconds after which a silent stream is abandoned.

        One that has much to read gets more each time; one that has not answered at all is gone, and gets no more.
        """
        return self._patience if stream.answered else _SILENT_SECONDS

    def _take(self, stream: _Stream, answer: Any) -> None:
        self._client.check_cluster(answer.header.cluster_id)
        number = answer.watch_id
        with self._lock:
            if answer.created and stream.pending:
                first = stream.pending.pop(0)
                number = first if number == _NO_WATCH else number
            watch = stream.watches.get(number)
        if watch is None:  # it has left meanwhile, or the answer is for all
            if not answer.canceled and not answer.created:
                self._succeeded()
        elif answer.canceled:
            self._cancelled(watch, answer)
        elif answer.created:
            self._check_history(watch, answer.header.revision)
        else:
            self._succeeded()
            if not watch.take(answer):
                with self._lock:
                    if watch.left:  # its consumer may have been faster
                        self._remove(watch)

    def _succeeded(self) -> None:
        self._patience = _SILENT_SECONDS
        self._backoff.reset()

    def _fail(self, watch: EtcdWatch, error: AgolaError) -> None:
        watch.fail(error)
        self._forget(watch)

    def _cancelled(self, watch: EtcdWatch, answer: Any) -> None:
        if answer.compact_revision:
            oldest = answer.compact_revision + 1
            text = f"revision {watch.position} was compacted; the oldest kept is {oldest}"
            self._fail(watch, CompactedError(text, oldest=oldest))
            return
        reason = answer.cancel_reason or "no reason given"
        if self._ask_whether_it_may(watch):
            raise UnavailableError(f"etcd cancelled a watch: {reason}")

    def _ask_whether_it_may(self, watch: EtcdWatch) -> bool:
        """Read a key of a watch: etcd does not reliably tell a watch of an expired token or a missing permission.

        An expired token is replaced. A watch without permission ends.
        """
        start, end = self._keys.range(watch.prefix)
        try:
            self._client.ask(rpc.RANGE, rpc.RangeRequest(key=start, range_end=end, limit=1, keys_only=True))
        except AccessDeniedError as error:
            self._fail(watch, error)
            return False
        return True

    def _check_history(self, watch: EtcdWatch, revision: int) -> None:
        """Check that the stream continues the same history (see `EtcdClient.give_up`)."""
        last = watch.position - 1
        if revision < last and self._client.revision() < last:
            self._client.give_up(f"it has revision {revision}, a watch has seen {last}")
        seen = watch.witness
        if seen is None:
            return
        try:
            request = rpc.RangeRequest(key=self._keys.encode(seen.key), revision=seen.mod_revision)
            found = self._client.ask(rpc.RANGE, request).kvs
        except AccessDeniedError as error:  # the right was taken meanwhile: from this watch, perhaps from no other
            self._fail(watch, error)
            return
        except AgolaError as error:
            if isinstance(error, UnavailableError):
                raise
            return  # compacted, or a name that is none of ours: cannot be checked
        if [(item.mod_revision, item.value) for item in found] != [(seen.mod_revision, seen.value)]:
            self._client.give_up(f"revision {seen.mod_revision} of key {seen.key!r} is not what it was")
