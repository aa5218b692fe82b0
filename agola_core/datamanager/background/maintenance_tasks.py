"""Upkeep: what a store needs done beside its commits, by loops of every process that has it open.

Sync, checkpoint, cleaning and collection are shared out by locks; following the others is each process's own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from agola_core.coordinator.port import Watch, WatchBatch
from agola_core.datamanager.background.checkpoint import Checkpointer
from agola_core.datamanager.background.gc import Collector
from agola_core.datamanager.background.sync import FLIGHTS, Syncer
from agola_core.datamanager.background.wal_cleanup import Cleaner
from agola_core.datamanager.format import keys
from agola_core.datamanager.identity.binding import Binder
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.block_cache import BlockCache
from agola_core.datamanager.types import Durability, Options
from agola_core.errors import (
    AgolaError,
    ClosedError,
    CompactedError,
    DeadlineError,
    FencedError,
    OutOfSpaceError,
    RecoveryError,
    UnavailableError,
)
from agola_core.runtime.forks import renewed
from agola_core.runtime.progress import Progress
from agola_core.runtime.supervisor import Loop, Supervisor
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 1.0
_GATHER_SECONDS = 0.004
_GATHER_OWN_SECONDS = 0.025
_CLEAN_SECONDS = 30.0
_COLLECT_SECONDS = 600.0
_OVERFULL = 4
_CHECKPOINT_TRIES = 600


class Upkeep:
    """Syncs, checkpoints, cleans and collects; in loops once it is started, when asked otherwise.

    Args:
        log: The log.
        instance: This process among the others.
        cache: The tables' cache.
        options: When each thing is due.
        new_uuid: Names objects.
        now: The time, for people and for ages.

    Attributes:
        cleaner: Cleans the coordinator.
        collector: Collects garbage in storage.
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
        self.cleaner = Cleaner(log.coordinator, options)
        self.collector = Collector(instance, log.storage, options, now)
        self._log = log
        self._instance = instance
        self._options = options
        self._now = now
        self._syncer = Syncer(log, lambda: new_uuid()[:16])
        self._checkpointer = Checkpointer(log, instance, cache, options, new_uuid, now)
        self._binder = Binder(log.coordinator, log.storage)
        self._changed = False
        self._unsynced_bytes = 0
        self._stopping = renewed(threading.Event())
        self._supervisor = Supervisor("datamanager")
        self._behind = False
        self._watch: Watch | None = None
        self._sync_loops: list[Loop] = []
        self._set_back: RecoveryError | None = None
        self._checkpoint_loop: Loop | None = None

    def start(self) -> None:
        """Start the loops; harmless while they run."""
        if self._watch is not None:
            return
        self._stopping.clear()
        self._watch = self._watch_from_now()
        self._log.catch_up()
        self._supervisor.loop("follow", self._follow, interval=0.0)
        self._sync_loops = [self._supervisor.loop("sync", self._sync_if_needed, interval=self._options.sync_interval)]
        if self._options.durability is Durability.STORAGE:  # whoever commits waits for it: several at once
            self._sync_loops += [
                self._supervisor.loop(f"sync-{number}", self._sync_if_needed) for number in range(2, FLIGHTS + 1)
            ]
        self._checkpoint_loop = self._supervisor.loop(
            "checkpoint", self._checkpoint_if_due, interval=self._options.checkpoint_interval
        )
        self._supervisor.loop("clean", self._clean, interval=_CLEAN_SECONDS)
        self._supervisor.loop("collect", self._collect, interval=_COLLECT_SECONDS)

    def stop(self) -> None:
        """End the loops, sync what was committed, and write down how far the coordinator came; `start` begins anew."""
        self._stopping.set()
        looped = self._watch is not None
        if self._watch is not None:
            self._watch.close()
            self._supervisor.stop()
            self._watch = self._checkpoint_loop = None
            self._sync_loops = []
        try:
            if looped:
                self._syncer.sync()
            if looped or self._changed:
                self._changed = False
                self._binder.mark()
        except AgolaError:
            logger.warning("the last changes stay in the coordinator alone until the next start", exc_info=True)

    def loops(self) -> dict[str, bool]:
        """Return for each loop whether it runs."""
        return self._supervisor.status()

    def sync(self) -> Sequence:
        """Copy what was committed to storage; return the newest WAL that storage has."""
        self._unsynced_bytes = 0
        return self._syncer.sync()

    def checkpoint(self, *, force: bool) -> bool:
        """Make a checkpoint when one is due, or when it is forced (see `DataManager.checkpoint`)."""
        if not force and not self._checkpointer.due():
            return False
        return self._checkpoint(wait=force)

    def compact(self, progress: Progress) -> None:
        """Write everything into one run (see `DataManager.compact`)."""
        self._checkpoint(wait=True, compact=progress)

    def _checkpoint(self, *, wait: bool, compact: Progress | None = None) -> bool:
        self._changed = True
        self.sync()
        for _ in range(_CHECKPOINT_TRIES):
            if self._checkpointer.checkpoint(compact):
                return True
            if not wait or self._stopping.wait(0.1):
                return False
        raise DeadlineError("another process's checkpoint did not end")

    def make_room(self) -> None:
        """Keep memory bounded: a writer that is far ahead of checkpoints waits for one."""
        if self._log.view.memtable.size > _OVERFULL * self._options.checkpoint_bytes:
            self.checkpoint(force=True)

    def after_commit(self, size: int) -> None:
        """Wake the loops that a commit of some bytes gives work."""
        self._changed = True
        if not self._sync_loops or self._checkpoint_loop is None:
            return
        self._unsynced_bytes += size
        if self._unsynced_bytes >= self._options.sync_bytes:
            self._unsynced_bytes = 0
            self._sync_loops[0].wake()
        if self._checkpointer.due():
            self._checkpoint_loop.wake()

    def wait_synced(self, sequence: Sequence, timeout: float | None) -> None:
        """Wait until a WAL is in storage.

        Raises:
            DeadlineError: The time was over first; the WAL is committed.
            UnavailableError: Without loops: the sync failed; the WAL is committed.
            FencedError: The store was imported or recovered meanwhile.
            RecoveryError: The coordinator went back in time meanwhile: the WAL may be lost.
        """
        if not self._sync_loops:
            try:
                self._syncer.sync()
            except UnavailableError as error:
                kind = OutOfSpaceError if isinstance(error, OutOfSpaceError) else UnavailableError
                raise kind(f"WAL {sequence} is committed, but is not in object storage yet: {error}") from error
            return
        for loop in self._sync_loops:
            loop.wake()

        def reached() -> bool:
            if self._set_back is not None:
                raise self._set_back
            if self._log.lineage.epoch != sequence.epoch:
                raise FencedError(f"WAL {sequence} was committed, then the store was imported or recovered")
            return self._log.synced >= sequence

        if not self._log.wait_synced(sequence, reached, timeout):
            raise DeadlineError(f"WAL {sequence} is committed, but is not in object storage yet")

    def _watch_from_now(self) -> Watch:
        """Return a watch that misses nothing after a `catch_up` that follows.

        The head's own revision may be older than what the coordinator keeps: others write there, too.
        """
        revision = self._log.coordinator.list(keys.CONTROL, limit=1).revision
        return self._log.coordinator.watch(keys.CONTROL, revision + 1)

    def _follow(self) -> None:
        """Take in what other processes commit, checkpoint or import."""
        try:
            self._follow_on()
        except RecoveryError as error:
            self._behind = True
            self._log.lose(error)
            raise

    def _follow_on(self) -> None:
        if self._behind:  # the round before failed at it
            self._catch_up()
        gather, caught_up, seen = _GATHER_SECONDS, 0.0, 0
        while not self._stopping.is_set():
            try:
                if self._watch is None or (first := self._watch.next(_FOLLOW_SECONDS)) is None:
                    continue
                if first.revision <= seen:  # the last catching up took it in already
                    continue
                # This process's own commits come back here too: taking many at once leaves it free to make them.
                # The first of others after a pause is taken in at once: somebody may wait for it.
                if self._is_known(first) or time.monotonic() - caught_up < _GATHER_SECONDS:
                    self._stopping.wait(gather)
                batches = [first, *iter(partial(self._watch.next, 0.0), None)]
            except ClosedError:
                if self._stopping.is_set():
                    return
                raise
            except CompactedError:  # too far behind: read the newest state, then watch from there
                if self._watch is not None:
                    self._watch.close()
                self._watch = self._watch_from_now()
                batches = []
            gather = _GATHER_SECONDS
            if batches and all(self._is_known(batch) for batch in batches):
                gather = _GATHER_OWN_SECONDS  # whose commits are many meets those of others when it makes them
                continue
            self._catch_up()
            caught_up, seen = time.monotonic(), self._log.head_revision

    def _catch_up(self) -> None:
        self._behind = True
        self._log.catch_up()
        self._instance.reads(self._log.view.manifest.number)
        self._behind = False

    def _is_known(self, batch: WatchBatch) -> bool:
        """Return whether a change is a commit that the log has applied already."""
        return batch.revision <= self._log.head_revision and all(event.key == keys.HEAD for event in batch.events)

    def _sync_if_needed(self) -> None:
        try:
            while not self._stopping.is_set() and self._syncer.claim():
                self.sync()
                self._set_back = None
                if self._options.durability is not Durability.STORAGE:
                    return  # nobody waits: what was committed meanwhile goes with the next, larger batch
        except RecoveryError as error:  # whoever waits for a sync waits in vain
            self._set_back = error
            self._log.wake_writers()
            raise

    def _checkpoint_if_due(self) -> None:
        view = self._log.view
        age = (self._now() - view.manifest.created).total_seconds()
        waiting = view.sequence > view.manifest.sequence
        if self._checkpointer.due() or (waiting and age >= self._options.checkpoint_interval):
            self.checkpoint(force=True)
            self._binder.try_mark()
            self.cleaner.clean()
        self._instance.publish()

    def _clean(self) -> None:
        self.cleaner.clean()
        self.cleaner.compact()
        self._binder.try_mark()

    def _collect(self) -> None:
        for garbage in self.collector.collect():
            logger.info("collected: path=%s size=%d reason=%s", garbage.path, garbage.size, garbage.reason)
