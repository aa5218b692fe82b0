"""Maintenance tasks: the background loops that every process runs on a store that it has open.

Locks make sure that one process at a time makes a checkpoint or collects garbage; each process follows the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial

from agola_core.datamanager.background.checkpoint import Checkpointer
from agola_core.datamanager.background.flights import FLIGHTS, Flights
from agola_core.datamanager.background.follower import Follower
from agola_core.datamanager.background.garbage_collector import GarbageCollector
from agola_core.datamanager.background.sync import Syncer
from agola_core.datamanager.background.wal_cleanup import WalCleanup
from agola_core.datamanager.identity.binding import Binder
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.types import Durability, Options
from agola_core.errors import (
    AgolaError,
    DeadlineError,
    FencedError,
    OutOfSpaceError,
    RecoveryError,
    UnavailableError,
)
from agola_core.runtime.failures import log_failure
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.supervisor import Loop, Supervisor
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

_LEFT = "the last changes stay in the coordinator alone until the next start"

_CLEAN_UP_SECONDS = 30.0
_COLLECT_SECONDS = 600.0
PATIENCE_SECONDS = 10.0
"""How long a stop waits for loops that do not end, and then for a storage that brings nothing forward."""


class MaintenanceTasks:
    """Owns everything that maintains a store, and runs it in loops once started.

    Args:
        log: The log.
        instance: This process among the others.
        cache: The block cache of the tables.
        options: When each task is due.
        new_uuid: Names objects.
        now: Returns the current time, for the ages of objects.

    Attributes:
        syncer: Copies WALs to storage.
        checkpointer: Makes checkpoints.
        wal_cleanup: Deletes what the coordinator no longer needs.
        garbage_collector: Deletes what nothing in storage refers to.
    """

    def __init__(
        self,
        log: Log,
        instance: Instance,
        cache: BlockCache,
        options: Options,
        new_uuid: Callable[[], str],
        now: Callable[[], datetime],
    ) -> None:
        self._stopping = fork_safe(threading.Event())
        self.syncer = Syncer(log, lambda: new_uuid()[:16])
        self.checkpointer = Checkpointer(log, instance, self.syncer, cache, options, new_uuid, now, self._stopping)
        self.wal_cleanup = WalCleanup(log.coordinator, options)
        self.garbage_collector = GarbageCollector(instance, log.storage, options, now)
        self._log = log
        self._instance = instance
        self._options = options
        self._binder = Binder(log.coordinator, log.storage)
        self._committed = False
        self._unsynced_bytes = 0
        self._supervisor = Supervisor("datamanager")
        self._follower: Follower | None = None
        self._sync_loop: Loop | None = None
        self._flights: Flights | None = None
        self._sync_failure: RecoveryError | None = None
        self._checkpoint_loop: Loop | None = None

    def start(self) -> None:
        """Start the loops; harmless while they run."""
        if self._follower is not None:
            return
        self._stopping.clear()
        self._follower = Follower(self._log, self._instance, self._stopping)
        self._log.catch_up()
        loop = self._supervisor.loop
        loop("follow", self._follower.follow, interval=0.0)
        interval = self._options.sync_interval
        if self._options.durability is Durability.STORAGE:  # writers wait for it: several batches at once
            self._flights = Flights(self._log, self.syncer, self._stopping, interval)
            for number in range(1, FLIGHTS + 1):
                loop(f"sync-{number}", partial(self._fly, self._flights), interval=0.0)
        else:
            self._sync_loop = loop("sync", self._sync_if_needed, interval=interval)
        self._checkpoint_loop = loop("checkpoint", self._checkpoint_if_due, interval=self._options.checkpoint_interval)
        loop("clean", self._clean_up, interval=_CLEAN_UP_SECONDS)
        loop("collect", self._collect, interval=_COLLECT_SECONDS)

    def stop(self) -> None:
        """Stop the loops, sync what was committed, and record the coordinator's revision; `start` may follow.

        A storage that does not answer is not waited for without end: what it lacks stays in the coordinator.
        """
        self._stopping.set()
        looped, late = self._follower is not None, []
        if self._follower is not None:
            self._follower.close()
            if self._flights is not None:
                self._flights.stop()
            late = self._supervisor.stop(PATIENCE_SECONDS)
            self._follower = self._checkpoint_loop = self._sync_loop = self._flights = None
        if not (looped or self._committed or self.checkpointer.attempted):
            return
        self._committed = self.checkpointer.attempted = False
        if any(name.startswith("datamanager-sync") for name in late) or not self._sync_last(synced=looped):
            logger.warning("%s: the storage does not answer", _LEFT)

    def _sync_last(self, *, synced: bool) -> bool:
        """Sync what was committed and record the coordinator's revision; return False once that gets no further."""
        failures: list[Exception] = []

        def work() -> None:
            try:
                if synced:
                    self.syncer.sync()
                self._binder.mark()
            except AgolaError as error:
                log_failure(logger, error, _LEFT, level=logging.WARNING)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                failures.append(error)

        thread = threading.Thread(target=work, name="datamanager-last-sync", daemon=True)
        thread.start()
        before = None
        while thread.is_alive() and before != self._log.synced:
            before = self._log.synced
            thread.join(PATIENCE_SECONDS)
        for failure in failures:
            raise failure
        return not thread.is_alive()

    def loops(self) -> dict[str, bool]:
        """Return whether each loop runs."""
        return self._supervisor.status()

    def after_commit(self, size: int) -> None:
        """Wake the loops that have work after a commit.

        Args:
            size: Bytes of the committed actions.
        """
        self._committed = True
        if self._checkpoint_loop is None:
            return
        self._unsynced_bytes += size
        if self._sync_loop is not None and self._unsynced_bytes >= self._options.sync_bytes:
            self._unsynced_bytes = 0
            self._sync_loop.wake()
        if self.checkpointer.due():
            self._checkpoint_loop.wake()

    def wait_synced(self, sequence: Sequence, timeout: float | None) -> None:
        """Wait until a WAL is in storage.

        Raises:
            DeadlineError: The time was over first; the WAL is committed.
            UnavailableError: Without loops: the sync failed; the WAL is committed.
            FencedError: The store was imported or recovered meanwhile.
            RecoveryError: The coordinator went back in time meanwhile: the WAL may be lost.
        """
        flights = self._flights
        if flights is None:
            try:
                synced = self.syncer.sync()
            except UnavailableError as error:
                kind = OutOfSpaceError if isinstance(error, OutOfSpaceError) else UnavailableError
                raise kind(f"WAL {sequence} is committed, but is not in object storage yet: {error}") from error
            _check_epoch(sequence, synced.epoch)  # perhaps of a lineage that the log has not heard of
            return
        flights.send(sequence)

        def check() -> None:
            if self._sync_failure is not None:
                raise self._sync_failure
            self._log.check_followed()  # before all else: another writer's WAL may have arrived with this number
            _check_epoch(sequence, self._log.lineage.epoch)

        if not self._log.wait_synced(sequence, check, timeout):
            raise DeadlineError(f"WAL {sequence} is committed, but is not in object storage yet")

    def _sync_if_needed(self) -> None:
        if self._log.view.sequence > self._log.synced and not self._stopping.is_set():
            self._unsynced_bytes = 0
            self.syncer.sync()

    def _fly(self, flights: Flights) -> None:
        try:
            flights.fly()
            self._sync_failure = None
        except RecoveryError as error:  # writers that wait for a sync must hear of it
            self._sync_failure = error
            self._log.wake_writers()
            raise

    def _checkpoint_if_due(self) -> None:
        if self.checkpointer.due_or_old():
            self.checkpointer.checkpoint(force=True)
            self._binder.try_mark()
            self.wal_cleanup.clean_up()
        self._instance.publish()

    def _clean_up(self) -> None:
        self.wal_cleanup.clean_up()
        self.wal_cleanup.compact()
        self._binder.try_mark()

    def _collect(self) -> None:
        for garbage in self.garbage_collector.collect():
            logger.info("collected: path=%s size=%d reason=%s", garbage.path, garbage.size, garbage.reason)


def _check_epoch(sequence: Sequence, epoch: int) -> None:
    if epoch != sequence.epoch:
        raise FencedError(f"WAL {sequence} was committed, then the store was imported or recovered")
