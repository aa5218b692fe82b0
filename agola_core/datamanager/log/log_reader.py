"""Reads the log that the coordinator holds: the WALs after a sequence, and the checkpoint before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter

from agola_core.coordinator.port import Coordinator, iterate
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.batches import read_actions
from agola_core.datamanager.format.control import Control
from agola_core.datamanager.format.records import CheckpointRecord, Wal, decode_wal
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.datamanager.sstable.table import Table
from agola_core.errors import CompactedError, CorruptionError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence


class LogReader:
    """Reads a log's WALs and checkpoints from its backends.

    Args:
        coordinator: Holds the WALs.
        storage: Holds checkpoints and large payloads.
        cache: Shared by the tables of all manifests.
    """

    def __init__(self, coordinator: Coordinator, storage: ObjectStorage, cache: BlockCache) -> None:
        self.coordinator = coordinator
        self.storage = storage
        self._cache = cache

    def wals_after(self, after: Sequence, control: Control) -> Iterator[tuple[list[Wal], int]]:
        """Yield the WALs between a sequence and the head, those of one transaction together, with its revision.

        Raises:
            CompactedError: A newer checkpoint replaced the one that `control` names, and a payload was collected.
            CorruptionError: A WAL is damaged.
        """
        if control.head == after:
            return
        items = iterate(self.coordinator, keys.WALS, start_after=keys.wal(after), revision=control.revision)
        for revision, together in groupby(items, key=attrgetter("mod_revision")):
            wals = []
            for item in together:
                record = decode_wal(item.value, item.key)
                with self._current(control.checkpoint_revision):
                    wals.append(Wal(record, read_actions(self.storage, record), item.value))
            yield wals, revision

    def open_checkpoint(self, checkpoint: CheckpointRecord, revision: int) -> tuple[Manifest, Table]:
        """Return a checkpoint's manifest and the table of its data files.

        Raises:
            CompactedError: A newer checkpoint replaced it, and its manifest was collected.
            CorruptionError: The manifest is missing, damaged, or another checkpoint's.
        """
        with self._current(revision):
            manifest = read_manifest(self.storage, checkpoint.path)
        if manifest.lineage != checkpoint.lineage or str(manifest.sequence) != checkpoint.sequence:
            raise CorruptionError("the manifest is not the one the coordinator names", path=checkpoint.path)
        return manifest, Table(self.storage, manifest, self._cache)

    def close_files_outside(self, manifest: Manifest) -> None:
        """Close the data files that a manifest does not have."""
        self._cache.keep_only(set(manifest.tops()))

    def holds(self, sequence: Sequence, wal_id: str, control: Control) -> bool:
        """Return whether the coordinator still holds a WAL that this process has seen.

        Raises:
            RecoveryError: It holds another one with that sequence: its history is not the one that was followed.
        """
        if control.head == sequence:
            found = control.head_id
        else:
            item = self.coordinator.get(keys.wal(sequence))
            if item is None:  # checkpointed and cleaned up, or the lineage's start
                return False
            found = decode_wal(item.value, item.key).wal_id
        if found != wal_id:
            raise RecoveryError(
                f"WAL {sequence} is another one than this process has seen: the coordinator went back in "
                "time and on from there; open the store anew, with recover=True when it is behind its storage"
            )
        return True

    @contextmanager
    def _current(self, checkpoint_revision: int) -> Iterator[None]:
        """Raise `CompactedError` for what was collected because a newer checkpoint exists: nothing is damaged."""
        try:
            yield
        except CorruptionError as error:
            item = self.coordinator.get(keys.CHECKPOINT)
            if item is None or item.mod_revision == checkpoint_revision:
                raise
            raise CompactedError("a newer checkpoint has taken its place", oldest=item.mod_revision) from error
