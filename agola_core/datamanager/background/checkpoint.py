"""Checkpoints: what the uncheckpointed WALs changed goes into sorted data files under a new manifest.

The changes are folded into the runs of the last manifest (see `fold`), so writes follow the changes. The new
manifest becomes the current one by one coordinator transaction that compares the lock's fence, the lineage and
the manifest that this one was made from: a checkpointer that was paused past its lease cannot publish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

import msgspec

from agola_core.coordinator.port import Compare, PutOp
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.control import Control, read_control
from agola_core.datamanager.format.records import CheckpointRecord
from agola_core.datamanager.identity.instance import Instance, InstanceLock
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.block_cache import BlockCache
from agola_core.datamanager.sstable.compaction import Folder
from agola_core.datamanager.sstable.manifest import Manifest, Origin, write_manifest
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import Options
from agola_core.errors import FencedError, RecoveryError
from agola_core.runtime import faultpoints
from agola_core.runtime.progress import Progress

logger = logging.getLogger(__name__)

faultpoints.declare("checkpoint.before-manifest", "checkpoint.before-txn")


class Checkpointer:
    """Makes checkpoints of a log.

    Args:
        log: The log.
        instance: Holds the lock: one checkpointer at a time in all processes.
        cache: The tables' cache.
        options: The sizes of blocks and files.
        new_uuid: Names data files.
        now: The time, for people.
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
        self._log = log
        self._instance = instance
        self._folder = Folder(log.storage, cache, options, new_uuid)
        self._options = options
        self._new_uuid = new_uuid
        self._now = now

    def due(self) -> bool:
        """Return whether the uncheckpointed changes are many enough."""
        memtable = self._log.view.memtable
        return memtable.wals >= self._options.checkpoint_wals or memtable.size >= self._options.checkpoint_bytes

    def checkpoint(self, compact: Progress | None = None) -> bool:
        """Make a checkpoint of everything committed so far.

        Args:
            compact: Write everything anew, unless it stands in one run without a delete already, and tell this of it.

        Returns:
            Whether the newest manifest now holds it; False when another checkpointer is at work.

        Raises:
            FencedError: The lock or the lineage was lost on the way; nothing was published.
        """
        lock = self._instance.try_lock(keys.CHECKPOINT_LOCK)
        if lock is None:
            return False
        with lock:
            self._log.catch_up()
            control = read_control(self._log.coordinator)
            if control is None:
                raise RecoveryError("the coordinator was emptied: recover the store from its storage")
            view = self._log.view
            scattered = len(view.manifest.runs) > 1 or any(run.tombstones for run in view.manifest.runs)
            if view.sequence > view.manifest.sequence or (compact is not None and scattered):
                self._publish(lock, control, view, self._write(lock, view, compact))
        return True

    def _write(self, lock: InstanceLock, view: View, compact: Progress | None) -> Manifest:
        """Write the data files of the next manifest and return it; nothing refers to them yet."""
        old = view.manifest
        with self._instance.pin(old.number):
            changes = view.memtable, view.sequence.counter, lock.check
            if compact is None:
                runs = self._folder.fold(old.runs, *changes)
            else:
                runs = self._folder.compact(old.runs, *changes, compact)
        return msgspec.structs.replace(
            old,
            number=old.number + 1,
            position=str(view.sequence),
            created=self._now(),
            data_types=tuple(view.data_types()),
            runs=runs,
            origin=Origin.CHECKPOINT,
        )

    def _publish(self, lock: InstanceLock, control: Control, view: View, manifest: Manifest) -> None:
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
            len(manifest.files()),
        )
