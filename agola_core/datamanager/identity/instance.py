"""Instances: the processes that have a store open, each with a lease, its locks, and the oldest manifest it reads.

Each open datamanager publishes an `InstanceRecord` under a lease. Garbage collection keeps the manifest that the record
names, and later ones. The locks of an instance live under the same lease, so they end with it, and a publish that
compares a lock's fence fails once the lease is lost.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from agola_core.coordinator.lock import LeaseKeeper, Lock
from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, PutOp, Target, iterate
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.records import InstanceRecord
from agola_core.errors import AgolaError, DeadlineError, NotFoundError, UnknownOutcomeError
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.processes.liveness import start_time

logger = logging.getLogger(__name__)

faultpoints.declare("instance.before-publish", "instance.before-lock", "instance.before-unlock")

_LOCK_POLL_SECONDS = 0.05
_COLLECTION_SECONDS = 60.0


class Instance:
    """This process, as other processes of the store see it.

    Args:
        coordinator: The store's coordinator.
        name: Unique among the store's instances.
        ttl: Seconds after which other processes consider a crashed process gone.
        manifest: The number of the manifest that it reads first.

    Attributes:
        coordinator: The store's coordinator.
        name: Its name.
    """

    def __init__(self, coordinator: Coordinator, name: str, ttl: float, manifest: int) -> None:
        self.name = name
        self.coordinator = coordinator
        self._ttl = ttl
        self._lock = fork_safe(threading.Lock())
        self._pins: Counter[int] = Counter()
        self._current = manifest
        self._published = -1
        self._held: set[str] = set()
        self._left: set[str] = set()
        self._keeper = LeaseKeeper(coordinator, ttl)
        pid = os.getpid()
        self._record = InstanceRecord(
            name, socket.gethostname(), pid, datetime.now(UTC).isoformat(), start=start_time(pid) or 0
        )
        try:
            self.publish()
        except BaseException:  # nobody would end the lease, and a record that was written after all would stay
            self._keeper.close()
            raise

    @contextmanager
    def pin(self, manifest: int) -> Iterator[None]:
        """Keep a manifest's files from garbage collection while the block runs."""
        with self._lock:
            self._pins[manifest] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pins[manifest] -= 1
                if not self._pins[manifest]:
                    del self._pins[manifest]

    def reads(self, manifest: int) -> None:
        """Set the manifest that new readers of this instance get."""
        self._current = manifest

    def publish(self) -> None:
        """Publish the oldest manifest in use if it has changed, or the whole record if the lease was lost."""
        self._release_left()
        with self._lock:
            oldest = min([self._current, *self._pins])
            if oldest == self._published and self._keeper.held:
                return
            record = msgspec.structs.replace(self._record, manifest=oldest)
            if not self._keeper.held:
                self._take_new_lease()
            while not self._put(record):  # it ended between the look at it and the transaction
                self._take_new_lease()
            self._published = oldest

    def _put(self, record: InstanceRecord) -> bool:
        """Write the record under the lease; return whether the lease still exists."""
        faultpoints.reach("instance.before-publish")
        try:
            self.coordinator.txn([], [PutOp(keys.instance(self.name), records.encode(record), self._keeper.lease)])
        except NotFoundError:
            return False
        return True

    def _take_new_lease(self) -> None:
        logger.warning("instance %s lost its lease; taking a new one", self.name)
        self._keeper.close()
        self._keeper = LeaseKeeper(self.coordinator, self._ttl)

    def try_lock(self, name: str) -> Lock | None:
        """Acquire a lock without waiting; return None if another instance, or this one, holds it."""
        self._release_left()
        if self.coordinator.get(name) is not None:
            return None
        keeper = self._keeper
        faultpoints.reach("instance.before-lock")
        try:
            result = self.coordinator.txn(
                [Compare(name, 0, Target.CREATE_REVISION)], [PutOp(name, self.name.encode(), keeper.lease)]
            )
        except NotFoundError:
            self.publish()  # the lease has ended; the next try has a new one
            return None
        except UnknownOutcomeError:
            self._left.add(name)
            raise
        if not result.succeeded:
            return None
        self._held.add(name)
        return Lock(keeper, name, result.revision, self._unlock)

    def lock(self, name: str, timeout: float) -> Lock:
        """Acquire a lock, waiting while another instance, or this one, holds it.

        Args:
            name: The lock's key.
            timeout: Seconds to wait.

        Raises:
            DeadlineError: It was not free in time.
        """
        deadline = time.monotonic() + timeout
        while (lock := self.try_lock(name)) is None:
            if time.monotonic() >= deadline:
                raise DeadlineError(f"{name} was held by another process for {timeout:.0f} s")
            threading.Event().wait(_LOCK_POLL_SECONDS)
        return lock

    def wait_for_collection(self) -> None:
        """Wait for the end of any collection that may have begun before this instance published what it reads.

        Raises:
            DeadlineError: It runs for too long.
        """
        self.lock(keys.COLLECT_LOCK, _COLLECTION_SECONDS).release()

    def _unlock(self, lock: Lock) -> None:
        faultpoints.reach("instance.before-unlock")
        self._held.discard(lock.name)
        try:
            self.coordinator.txn([lock.fence], [DeleteOp(lock.name)])
        except AgolaError:
            self._left.add(lock.name)  # its lease lives on with this instance, and so would the lock
            logger.warning(
                "lock %s was not released; it will be later, or ends with its lease", lock.name, exc_info=True
            )

    def _release_left(self) -> None:
        """Release locks of this instance that a failed transaction may have left behind."""
        for name in self._left - self._held:
            item = self.coordinator.get(name)
            if item is not None and item.lease == self._keeper.lease:
                self.coordinator.txn([Compare(name, item.create_revision, Target.CREATE_REVISION)], [DeleteOp(name)])
            self._left.discard(name)

    def close(self) -> None:
        """Withdraw from the store: end the record and all locks."""
        self._keeper.close()


def list_instances(coordinator: Coordinator) -> list[InstanceRecord]:
    """Return the instances that are open now, by name."""
    return [records.decode(InstanceRecord, item.value, item.key) for item in iterate(coordinator, keys.INSTANCES)]


def pin_everything(coordinator: Coordinator, name: str, ttl: float) -> Instance:
    """Return an instance that keeps every manifest from garbage collection, and that every collector knows of.

    Raises:
        DeadlineError: A collection runs for too long.
    """
    instance = Instance(coordinator, name, ttl, manifest=0)
    try:
        instance.wait_for_collection()
    except BaseException:
        instance.close()
        raise
    return instance
