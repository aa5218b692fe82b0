"""Checkpoints: flush the memtable into sorted data files under a new manifest, and publish the manifest.

A checkpoint merges the changes with some runs of the last manifest (see `sstable.compaction`), so the bytes written
follow the changes. One coordinator transaction publishes the new manifest; it compares the lock's fencing token, the
lineage and the last manifest, so a checkpointer that was paused past its lease cannot publish.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime

import msgspec

from agola_core.coordinator.lock import Lock
from agola_core.coordinator.port import Compare, PutOp
from agola_core.datamanager.background.sync import Syncer
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.control import Control, require_control
from agola_core.datamanager.format.records import CheckpointRecord
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.compaction import Compactor
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, Origin, write_manifest
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import Options
from agola_core.errors import DeadlineError, FencedError
from agola_core.runtime import faultpoints
from agola_core.runtime.progress import Progress

logger = logging.getLogger(__name__)

faultpoints.declare("checkpoint.before-manifest", "checkpoint.before-txn")

_OVERFULL = 4
_TRIES = 600
_PAUSE_SECONDS = 0.1


class Compacted(msgspec.Struct, frozen=True):
    """What a compaction did to the newest checkpoint's data files.

    Attributes:
        files_before: Their number before.
        bytes_before: Their bytes before.
        files: Their number now.
        bytes: Their bytes now.
    """

    files_before: int
    bytes_before: int
    files: int
    bytes: int


class Checkpointer:
    """Makes checkpoints of a log.

    Args:
        log: The log.
        instance: Holds the lock: one checkpointer at a time in all processes.
        syncer: Copies the log to storage before each checkpoint.
        cache: The block cache of the tables.
        options: When a checkpoint is due, and the sizes of blocks and files.
        new_uuid: Names data files.
        now: Returns the current time.
        stopping: Set when nobody is to wait for another process's checkpoint any longer.

    Attributes:
        attempted: Whether `checkpoint` or `compact` was called.
    """

    def __init__(
        self,
        log: Log,
        instance: Instance,
        syncer: Syncer,
        cache: BlockCache,
        options: Options,
        new_uuid: Callable[[], str],
        now: Callable[[], datetime],
        stopping: threading.Event,
    ) -> None:
        self.attempted = False
        self._log = log
        self._instance = instance
        self._syncer = syncer
        self._stopping = stopping
        self._compactor = Compactor(log.storage, cache, options, new_uuid)
        self._options = options
        self._new_uuid = new_uuid
        self._now = now

    def due(self) -> bool:
        """Return whether there are enough uncheckpointed changes."""
        memtable = self._log.view.memtable
        return memtable.wals >= self._options.checkpoint_wals or memtable.size >= self._options.checkpoint_bytes

    def due_or_old(self) -> bool:
        """Return whether there are enough uncheckpointed changes, or old ones."""
        view = self._log.view
        age = (self._now() - view.manifest.created).total_seconds()
        waiting = view.sequence > view.manifest.sequence
        return self.due() or (waiting and age >= self._options.checkpoint_interval)

    def checkpoint(self, *, force: bool) -> bool:
        """Make a checkpoint if one is due, or in any case (see `DataManager.checkpoint`)."""
        return (force or self.due()) and self._checkpoint(wait=force)

    def compact(self, progress: Progress) -> Compacted:
        """Merge everything into one run (see `DataManager.compact`)."""
        before = self._log.view.manifest
        self._checkpoint(wait=True, compact=progress)
        after = self._log.view.manifest
        return Compacted(before.data_files, before.size, after.data_files, after.size)

    def make_room(self) -> None:
        """Bound the memtable: make a writer that is far ahead of checkpoints wait for one."""
        if self._log.view.memtable.size > _OVERFULL * self._options.checkpoint_bytes:
            self._checkpoint(wait=True)

    def _checkpoint(self, *, wait: bool, compact: Progress | None = None) -> bool:
        self.attempted = True
        self._syncer.sync()
        for _ in range(_TRIES):
            if self.try_once(compact):
                return True
            if not wait or self._stopping.wait(_PAUSE_SECONDS):
                return False
        raise DeadlineError("another process's checkpoint did not end")

    def try_once(self, compact: Progress | None = None) -> bool:
        """Make a checkpoint of everything committed so far, unless another checkpointer is at work.

        Args:
            compact: Merge everything, unless it is one run without deletes already, and report progress here.

        Returns:
            Whether the newest manifest now holds it; False if another checkpointer is at work.

        Raises:
            FencedError: The lock or the lineage was lost meanwhile; nothing was published.
        """
        lock = self._instance.try_lock(keys.CHECKPOINT_LOCK)
        if lock is None:
            return False
        with lock:
            self._log.catch_up()
            control = require_control(self._log.coordinator)
            view = self._log.view
            scattered = len(view.manifest.runs) > 1 or any(run.tombstones for run in view.manifest.runs)
            if view.sequence > view.manifest.sequence or (compact is not None and scattered):
                self._publish(lock, control, view, self._write(lock, view, compact))
        return True

    def _write(self, lock: Lock, view: View, compact: Progress | None) -> Manifest:
        """Write the data files of the next manifest and return it; nothing refers to them yet."""
        old = view.manifest
        with self._instance.pin(old.number):
            changes = view.memtable, view.sequence.counter, lock.check
            if compact is None:
                runs = self._compactor.flush(old.runs, *changes)
            else:
                runs = self._compactor.compact(old.runs, *changes, compact)
        return msgspec.structs.replace(
            old,
            number=old.number + 1,
            position=str(view.sequence),
            created=self._now(),
            data_types=tuple(view.data_types()),
            runs=runs,
            origin=Origin.CHECKPOINT,
        )

    def _publish(self, lock: Lock, control: Control, view: View, manifest: Manifest) -> None:
        path = layout.manifest(view.lineage.root, manifest.number, self._new_uuid()[:16])
        faultpoints.reach("checkpoint.before-manifest")
        lock.check()
        write_manifest(self._log.storage, path, manifest)
        lock.check()
        record = CheckpointRecord(manifest.number, path, manifest.position, manifest.lineage)
        faultpoints.reach("checkpoint.before-txn")
        result = self._log.coordinator.txn(  # invariant 8: fenced by the lock, the lineage and the last manifest
            [
                lock.fence,
                Compare(keys.LINEAGE, control.lineage_revision),
                Compare(keys.CHECKPOINT, control.checkpoint_revision),
            ],
            [PutOp(keys.CHECKPOINT, records.encode(record))],
        )
        if not result.succeeded:
            raise FencedError("the checkpoint lost its lock or its lineage; nothing was published")
        self._log.adopt(record, result.revision)
        self._instance.reads(manifest.number)
        logger.info(
            "checkpoint: manifest=%d sequence=%s runs=%d files=%d",
            manifest.number,
            manifest.position,
            len(manifest.runs),
            manifest.data_files,
        )
