"""Checkpoints: what the uncheckpointed WALs changed goes into sorted data files under a new manifest.

A delta of the changes is merged with the newer runs that `tiers` names, so writes follow the changes. The
manifest becomes the current one by one coordinator transaction that compares the lock's fence, the lineage and
the manifest that this one was made from: a checkpointer that was paused past its lease cannot publish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from agola_core import faultpoints
from agola_core.coordinator.port import Compare, PutOp
from agola_core.datamanager import keys, layout, records
from agola_core.datamanager.blockcache import BlockCache
from agola_core.datamanager.datafile import write_files
from agola_core.datamanager.entries import Entry, entry_key, merge
from agola_core.datamanager.instance import Instance, InstanceLock
from agola_core.datamanager.lineage import root_of
from agola_core.datamanager.log import Control, Log, read_control
from agola_core.datamanager.manifest import Manifest, Origin, Run, write_manifest
from agola_core.datamanager.records import CheckpointRecord
from agola_core.datamanager.table import scan_run
from agola_core.datamanager.tiers import runs_to_merge
from agola_core.datamanager.types import Options
from agola_core.datamanager.view import View
from agola_core.errors import FencedError, RecoveryError

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
        self._cache = cache
        self._options = options
        self._new_uuid = new_uuid
        self._now = now

    def due(self) -> bool:
        """Return whether the uncheckpointed changes are many enough."""
        view = self._log.view
        wals = view.sequence.counter - view.manifest.sequence.counter
        return wals >= self._options.checkpoint_wals or view.overlay.size >= self._options.checkpoint_bytes

    def checkpoint(self) -> bool:
        """Make a checkpoint of everything committed so far.

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
            if view.sequence > view.manifest.sequence:
                self._publish(lock, control, view, self._write(lock, view))
        return True

    def _write(self, lock: InstanceLock, view: View) -> Manifest:
        """Write the data files of the next manifest and return it; nothing refers to them yet."""
        old = view.manifest
        count = runs_to_merge([run.size for run in old.runs], view.overlay.size)
        merged, kept = old.runs[:count], old.runs[count:]
        with self._instance.pin(old.number):
            sources = [_changes(view), *(scan_run(self._log.storage, self._cache, run) for run in merged)]
            files = write_files(
                self._log.storage,
                merge(sources, drop_tombstones=not kept),
                self._options,
                self._new_uuid,
                with_filter=bool(kept),
                check=lock.check,
            )
        runs = (Run(tuple(files)), *kept) if files else kept
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
        path = layout.manifest(root_of(view.lineage), manifest.number, self._new_uuid()[:16])
        faultpoints.reach("checkpoint.before-manifest")
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


def _changes(view: View) -> Iterator[Entry]:
    for data_type in view.overlay.data_types():
        for object_id, data in view.overlay.scan(data_type, "", view.sequence.counter):
            yield entry_key(data_type, object_id), data
