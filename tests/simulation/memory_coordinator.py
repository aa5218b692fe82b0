"""A coordinator in memory: the state of a cluster, and handles on it as its clients have them."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from agola_core.coordinator.port import (
    MAX_LIST,
    Compare,
    DeleteOp,
    DeleteRangeOp,
    GetOp,
    KeyValue,
    Op,
    Page,
    PutOp,
    Target,
    TxnResult,
    WatchBatch,
    WatchEvent,
    check_ops,
    check_reads,
    prefix_end,
)
from agola_core.errors import BadRequestError, ClosedError, CompactedError, NotFoundError
from agola_core.runtime.clock import boot_clock


class Change(NamedTuple):
    """What a revision did to a key."""

    key: str
    item: KeyValue | None
    before: KeyValue | None


Changes = list[Change]


class _Lease:
    def __init__(self, ttl: float, deadline: float) -> None:
        self.ttl = ttl
        self.deadline = deadline
        self.keys: set[str] = set()


class Cluster:
    """The keys, their history and the leases: what every client of one coordinator shares.

    Args:
        identity: What tells it from others.
        clock: Seconds for leases.

    Attributes:
        revision: The newest one.
        keys: Every key that exists.
        committed: Called with each revision that changed something, and its changes.
    """

    def __init__(self, identity: str = "memory", clock: Callable[[], float] = boot_clock) -> None:
        self.identity = identity
        self.lock = threading.RLock()
        self.revision = 1
        self.keys: dict[str, KeyValue] = {}
        self.committed: Callable[[int, Changes], None] = lambda revision, changes: None
        self._clock = clock
        self._sorted: list[str] = []
        self._history: list[Changes] = []
        self._first = 2  # the revision of the oldest entry of the history
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 1
        self._watches: dict[MemoryWatch, None] = {}  # in order: who is woken first must not depend on addresses

    # Reads

    def list(self, prefix: str, start_after: str, limit: int, revision: int) -> Page:
        if limit < 1:
            raise BadRequestError(f"a list's limit must be at least 1, not {limit}")
        if revision > self.revision:
            raise BadRequestError(f"revision {revision} lies after {self.revision}, the newest")
        at = revision or self.revision
        self._check_kept(at)
        start = max(prefix, f"{start_after}\0" if start_after else "")
        end = prefix_end(prefix)
        keys = self._between(start, end)
        state: dict[str, KeyValue | None] = {}
        for changes in self._history[at + 1 - self._first :] if at < self.revision else ():
            for change in changes:
                if start <= change.key and (not end or change.key < end):
                    state.setdefault(change.key, change.before)
        if state:
            keys = sorted({*keys, *state})
        items: list[KeyValue] = []
        for key in keys:
            item = state[key] if key in state else self.keys[key]
            if item is None:
                continue
            if len(items) == min(limit, MAX_LIST):
                return Page(tuple(items), at, True)
            items.append(item)
        return Page(tuple(items), at, False)

    def changes_from(self, revision: int) -> Iterator[tuple[int, Changes]]:
        """Yield the revisions from one on, with what they changed."""
        self._check_kept(revision)
        first = max(revision, self._first)
        return enumerate(self._history[first - self._first :], first)

    def _between(self, start: str, end: str) -> list[str]:
        first = bisect_left(self._sorted, start)
        return self._sorted[first : bisect_left(self._sorted, end) if end else None]

    def _check_kept(self, revision: int) -> None:
        if self._first > 2 and revision < self._first:
            raise CompactedError(f"revision {revision} was compacted", oldest=self._first)

    # Writes

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp]) -> TxnResult:
        succeeded = all(self._holds(item) for item in compare)
        ops = then if succeeded else otherwise
        for op in ops:
            if type(op) is PutOp and op.lease and op.lease not in self._leases:
                raise NotFoundError(f"lease {op.lease} does not exist")
        changes: Changes = []
        reads: list[KeyValue | None] = []
        deleted = 0
        for op in ops:
            match op:
                case GetOp(key):
                    reads.append(self.keys.get(key))
                case PutOp(key, value, lease):
                    self._put(changes, key, value, lease)
                case DeleteOp(key):
                    deleted += self._delete(changes, key)
                case DeleteRangeOp(key, end):
                    deleted += sum(self._delete(changes, found) for found in self._between(key, end))
        self._commit(changes)
        return TxnResult(succeeded, self.revision, tuple(reads), deleted)

    def _holds(self, compare: Compare) -> bool:
        item = self.keys.get(compare.key)
        if compare.target is Target.VALUE:
            return item is not None and item.value == compare.expected
        return bool((getattr(item, compare.target.value) if item else 0) == compare.expected)

    def _put(self, changes: Changes, key: str, value: bytes, lease: int) -> None:
        before, revision = self.keys.get(key), self.revision + 1
        if before is None:
            item = KeyValue(key, value, revision, revision, 1, lease)
            insort(self._sorted, key)
        else:
            item = KeyValue(key, value, before.create_revision, revision, before.version + 1, lease)
            if before.lease:
                self._leases[before.lease].keys.discard(key)
        if lease:
            self._leases[lease].keys.add(key)
        self.keys[key] = item
        changes.append(Change(key, item, before))

    def _delete(self, changes: Changes, key: str) -> int:
        before = self.keys.pop(key, None)
        if before is None:
            return 0
        del self._sorted[bisect_left(self._sorted, key)]
        if before.lease:
            self._leases[before.lease].keys.discard(key)
        changes.append(Change(key, None, before))
        return 1

    def _commit(self, changes: Changes) -> None:
        if not changes:
            return
        self.revision += 1
        self._history.append(changes)
        self.committed(self.revision, changes)
        for watch in self._watches:
            watch.woken.set()

    def compact(self, revision: int) -> None:
        """Forget the history before a revision."""
        if revision > self.revision:
            raise BadRequestError(f"revision {revision} lies after {self.revision}, the newest")
        if revision > self._first:
            del self._history[: revision - self._first]
            self._first = revision

    # Leases

    def grant(self, ttl: float) -> int:
        if ttl <= 0:
            raise BadRequestError(f"a lease's time must be positive, not {ttl}")
        lease, self._next_lease = self._next_lease, self._next_lease + 1
        self._leases[lease] = _Lease(ttl, self._clock() + ttl)
        return lease

    def keep_alive(self, lease: int) -> float:
        found = self._leases.get(lease)
        if found is None:
            return 0.0
        found.deadline = self._clock() + found.ttl
        return found.ttl

    def revoke(self, lease: int) -> None:
        found = self._leases.pop(lease, None)
        if found is None:
            return
        changes: Changes = []
        for key in sorted(found.keys):
            before = self.keys.pop(key)
            del self._sorted[bisect_left(self._sorted, key)]
            changes.append(Change(key, None, before))
        self._commit(changes)

    def expire(self) -> None:
        """End the leases whose time is over."""
        if self._leases:
            now = self._clock()
            for lease in [lease for lease, found in self._leases.items() if found.deadline <= now]:
                self.revoke(lease)

    # Watches

    def add_watch(self, watch: MemoryWatch) -> None:
        self._watches[watch] = None

    def drop_watch(self, watch: MemoryWatch) -> None:
        self._watches.pop(watch, None)

    # Backups

    def backup(self) -> tuple[Any, ...]:
        """Return what `restore` goes back to."""
        leases = [(lease, found.ttl, found.deadline, set(found.keys)) for lease, found in self._leases.items()]
        return self.revision, dict(self.keys), [*self._sorted], [*self._history], self._first, self._next_lease, leases

    def restore(self, backup: tuple[Any, ...]) -> None:
        """Go back to an earlier state, which its clients are not told."""
        self.revision, keys, ordered, history, self._first, self._next_lease, leases = backup
        self.keys, self._sorted, self._history = dict(keys), [*ordered], [*history]
        self._leases = {}
        for lease, ttl, deadline, held in leases:
            self._leases[lease] = _Lease(ttl, deadline)
            self._leases[lease].keys = set(held)


class MemoryCoordinator:
    """A client of a cluster in memory (see `agola_core.coordinator.port.Coordinator`).

    Args:
        cluster: The state.
        new_event: Makes what a watch waits on.
    """

    max_txn_ops = 128
    max_txn_bytes = 1024 * 1024

    def __init__(self, cluster: Cluster, new_event: Callable[[], threading.Event] = threading.Event) -> None:
        self.cluster = cluster
        self._new_event = new_event
        self._closed = False
        self._watches: dict[MemoryWatch, None] = {}  # in order: who is woken first must not depend on addresses

    def identity(self) -> str:
        return self._open().identity

    def get(self, key: str) -> KeyValue | None:
        cluster = self._open()
        with cluster.lock:
            cluster.expire()
            return cluster.keys.get(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        cluster = self._open()
        with cluster.lock:
            cluster.expire()
            return cluster.list(prefix, start_after, limit, revision)

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        cluster = self._open()
        check_ops(then, self.max_txn_ops, self.max_txn_bytes)
        check_reads(otherwise, self.max_txn_ops)
        with cluster.lock:
            cluster.expire()
            return cluster.txn(compare, then, otherwise)

    def watch(self, prefix: str, from_revision: int) -> MemoryWatch:
        cluster = self._open()
        watch = MemoryWatch(self, prefix, from_revision, self._new_event())
        with cluster.lock:
            cluster.add_watch(watch)
            self._watches[watch] = None
        return watch

    def grant_lease(self, ttl: float) -> int:
        cluster = self._open()
        with cluster.lock:
            return cluster.grant(ttl)

    def keep_alive(self, lease: int) -> float:
        cluster = self._open()
        with cluster.lock:
            cluster.expire()
            return cluster.keep_alive(lease)

    def revoke_lease(self, lease: int) -> None:
        cluster = self._open()
        with cluster.lock:
            cluster.revoke(lease)

    def compact(self, revision: int) -> None:
        cluster = self._open()
        with cluster.lock:
            cluster.compact(revision)

    def close(self) -> None:
        self._closed = True
        for watch in [*self._watches]:
            watch.close()

    def forget(self, watch: MemoryWatch) -> None:
        """Drop a closed watch."""
        with self.cluster.lock:
            self.cluster.drop_watch(watch)
            self._watches.pop(watch, None)

    def _open(self) -> Cluster:
        if self._closed:
            raise ClosedError("the coordinator was closed")
        return self.cluster


class MemoryWatch:
    """A running watch (see `agola_core.coordinator.port.Watch`).

    Attributes:
        woken: Set when there may be something new.
    """

    def __init__(self, client: MemoryCoordinator, prefix: str, from_revision: int, woken: threading.Event) -> None:
        self.woken = woken
        self._client = client
        self._prefix = prefix
        self._position = max(from_revision, 1)
        self._closed = False

    def next(self, timeout: float | None = None) -> WatchBatch | None:
        while True:
            self.woken.clear()
            if self._closed:
                raise ClosedError("the watch was closed")
            with self._client.cluster.lock:
                self._client.cluster.expire()
                found = self._look()
            if found is not None:
                return found
            if not self.woken.wait(timeout) and not self.woken.is_set():
                return None

    def _look(self) -> WatchBatch | None:
        cluster = self._client.cluster
        if self._position > cluster.revision:
            return None
        for revision, changes in cluster.changes_from(self._position):
            self._position = revision + 1
            events = tuple(WatchEvent(key, item) for key, item, _ in changes if key.startswith(self._prefix))
            if events:
                return WatchBatch(revision, events)
        return None

    def close(self) -> None:
        self._closed = True
        self._client.forget(self)
        self.woken.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
