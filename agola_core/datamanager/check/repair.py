"""Repairs everything in a damaged store that can be repaired without data loss, and nothing else.

Everything that it rewrites has a second source with the same content: WALs that the coordinator still has, or an older
intact checkpoint and the WALs after it. It leaves a damaged object in place unless its content is elsewhere, and leaves
everything else to a person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import suppress
from datetime import datetime
from itertools import takewhile

import msgspec

from agola_core.coordinator.lock import Lock, try_lock
from agola_core.coordinator.port import Compare, Coordinator, PutOp, iterate
from agola_core.datamanager.check.verify import verify_manifest
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.batches import MAX_BATCH_WALS, encode_batch, list_batches, read_batch
from agola_core.datamanager.format.control import Control, read_control
from agola_core.datamanager.format.lineages import (
    mark_active,
    past_lineages,
    read_marker,
    read_store,
    write_marker,
    write_store,
)
from agola_core.datamanager.format.records import CheckpointRecord, decode_wal
from agola_core.datamanager.format.wal_reader import wals_after
from agola_core.datamanager.identity.binding import read_binding, write_binding
from agola_core.datamanager.identity.manifest_history import StoredManifest, stored_manifests
from agola_core.datamanager.sstable.compaction import Compactor
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, Origin, read_manifest, write_manifest
from agola_core.datamanager.types import Options
from agola_core.errors import ConflictError, CorruptionError, FencedError, FormatError, NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("repair.before-batch", "repair.before-delete", "repair.before-manifest", "repair.before-txn")


class Repair(msgspec.Struct, frozen=True):
    """One result of a repair.

    Attributes:
        path: The path of the object.
        done: Whether it was repaired.
        message: What was done, or why nothing was done.
    """

    path: str
    done: bool
    message: str


class Repairer:
    """Repairs a store; no process makes a checkpoint meanwhile.

    Args:
        coordinator: The store's coordinator.
        storage: The store's object storage.
        options: The sizes of data files, and how long locks last.
        new_uuid: Makes ids of 32 hexadecimal digits.
        now: Returns the current time.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: ObjectStorage,
        options: Options,
        new_uuid: Callable[[], str],
        now: Callable[[], datetime],
    ) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._options = options
        self._new_uuid = new_uuid
        self._now = now

    def repair(self) -> list[Repair]:
        """Repair what can be repaired safely; return what was done, and what was not.

        Raises:
            FormatError: A later release made the newest checkpoint.
            RecoveryError: The coordinator holds no store, or not all of one: it must be recovered instead.
            ConflictError: Another process makes a checkpoint, imports or repairs.
        """
        control = read_control(self._coordinator)
        if control is None:
            raise RecoveryError("the coordinator holds no store: open it to recover it from its storage")
        lock = try_lock(
            self._coordinator, keys.CHECKPOINT_LOCK, owner=self._options.instance, ttl=self._options.lock_ttl
        )
        if lock is None:
            raise ConflictError("another process makes a checkpoint, imports or repairs: try again when it is done")
        with lock:
            done = [*self._identity(control), *self._batches(control, lock), *self._checkpoint(control, lock)]
        for repair in done:
            logger.info("repair: path=%s done=%s %s", repair.path, repair.done, repair.message)
        return done

    def _identity(self, control: Control) -> Iterator[Repair]:
        """Rewrite the store's identity in storage: the coordinator knows it, and its manifest is here."""
        if not self._has(control.checkpoint.path):
            return
        try:
            store = read_store(self._storage)
        except CorruptionError:
            write_store(self._storage, control.lineage)
            yield Repair(layout.STORE, done=True, message="written again, from the coordinator")
            store = read_store(self._storage)
        marker = layout.active_marker(control.lineage.root)
        try:
            marked = read_marker(self._storage, control.lineage.root) is not None
        except CorruptionError:
            marked = True
            write_marker(self._storage, control.lineage, "repaired")
            yield Repair(marker, done=True, message="written again, from the coordinator")
        try:
            read_binding(self._storage, control.lineage.root)
        except CorruptionError as error:
            write_binding(self._coordinator, self._storage, control)
            yield Repair(error.path, done=True, message="written again, for the coordinator that is named")
        try:
            mark_active(self._storage, control.lineage)
        except ConflictError as error:
            yield Repair(layout.STORE, done=False, message=str(error))
            return
        if store is None:
            yield Repair(layout.STORE, done=True, message="written again, from the coordinator")
        if not marked:
            yield Repair(marker, done=True, message="written again: the coordinator says that the lineage is current")

    def _batches(self, control: Control, lock: Lock) -> Iterator[Repair]:
        """Rewrite WALs that are damaged or missing in storage from the coordinator."""
        root = control.lineage.root
        damaged = [item for item in list_batches(self._storage, root) if not self._whole(item[2])]
        paths = {path for _, _, path in damaged}
        if damaged or self._gap(control, paths):
            yield from self._write_held(root, self._held(control), lock)
            gap = self._gap(control, paths)
            if gap and not damaged:
                yield Repair(layout.wals(root), done=False, message=f"the coordinator no longer has WAL {gap}")
        intact = [item for item in list_batches(self._storage, root) if item not in damaged and self._whole(item[2])]
        for first, last, path in damaged:
            if _covered(first, last, intact):
                faultpoints.reach("repair.before-delete")
                lock.check()
                self._storage.delete(path)
                yield Repair(path, done=True, message="deleted: its WALs stand in other batches")
            else:
                yield Repair(path, done=False, message="the coordinator no longer has all of its WALs")

    def _write_held(self, root: str, held: list[tuple[Sequence, bytes]], lock: Lock) -> Iterator[Repair]:
        for start in range(0, len(held), MAX_BATCH_WALS):
            part = held[start : start + MAX_BATCH_WALS]
            path = layout.wal_batch(root, part[0][0], part[-1][0], self._new_uuid()[:16])
            faultpoints.reach("repair.before-batch")
            lock.check()
            self._storage.write(path, encode_batch(frame for _, frame in part))
            yield Repair(path, done=True, message="written, from the WALs that the coordinator has")

    def _held(self, control: Control) -> list[tuple[Sequence, bytes]]:
        """Return the newest synced WALs that the coordinator still has, as far back as they are intact."""
        whole: list[tuple[Sequence, bytes]] = []
        for item in iterate(self._coordinator, keys.WALS, revision=control.revision):
            try:
                record = decode_wal(item.value, item.key)
            except (CorruptionError, FormatError):
                whole.clear()
                continue
            if record.epoch != control.lineage.epoch or record.sequence > control.synced:
                continue
            if whole and record.previous_sequence != whole[-1][0]:
                whole.clear()
            whole.append((record.sequence, item.value))
        return whole

    def _gap(self, control: Control, damaged: set[str]) -> Sequence | None:
        """Return the first WAL after the oldest checkpoint that is missing in storage."""
        manifests = (self._manifest(stored.path) for stored in self._stored_manifests(control))
        reached = min((found.sequence for found in manifests if found), default=control.lineage.start)
        for first, last, path in list_batches(self._storage, control.lineage.root, reached):
            if path in damaged:
                continue
            if first > reached.next():
                return reached.next()
            reached = max(reached, last)
        return reached.next() if reached < control.synced else None

    def _stored_manifests(self, control: Control) -> list[StoredManifest]:
        current = control.lineage.root
        lineages = [lineage for lineage in past_lineages(self._storage, control) if lineage.root == current]
        return stored_manifests(self._storage, lineages)

    def _checkpoint(self, control: Control, lock: Lock) -> Iterator[Repair]:
        """If the current checkpoint is damaged, rebuild it from an older one and the WALs after it."""
        path = control.checkpoint.path
        with suppress(CorruptionError):
            read_manifest(self._storage, path)  # what a later release wrote is refused: it is not damaged
        if self._readable(path, control.checkpoint.number) is not None:
            return
        target = Sequence.parse(control.checkpoint.sequence)
        for stored in reversed(self._stored_manifests(control)):
            base = self._readable(stored.path, stored.number) if stored.path != path else None
            if base is None or base.sequence > target:
                continue
            try:
                yield self._rebuild(control, lock, base, target)
            except CorruptionError as error:
                yield Repair(path, done=False, message=f"the WALs after manifest {base.number} are damaged: {error}")
            return
        yield Repair(path, done=False, message="no older checkpoint is whole: recover the store from a backup")

    def _rebuild(self, control: Control, lock: Lock, base: Manifest, target: Sequence) -> Repair:
        compactor = Compactor(self._storage, BlockCache(), self._options, self._new_uuid)
        wals = takewhile(
            lambda record: record.sequence <= target,
            wals_after(self._coordinator, self._storage, control, control.lineage.root, base.sequence),
        )
        flushed = compactor.flush_wals(base, wals, lock.check)
        if flushed.reached != target:
            raise CorruptionError(f"they end at {flushed.reached}, before {target}", path=control.checkpoint.path)
        number = control.checkpoint.number + 1
        manifest = msgspec.structs.replace(
            base,
            number=number,
            position=str(target),
            created=self._now(),
            data_types=flushed.data_types,
            runs=flushed.runs,
            origin=Origin.REPAIR,
            replaces=control.checkpoint.path,
        )
        path = layout.manifest(control.lineage.root, number, self._new_uuid()[:16])
        faultpoints.reach("repair.before-manifest")
        write_manifest(self._storage, path, manifest)
        faultpoints.reach("repair.before-txn")
        lock.check()
        result = self._coordinator.txn(
            [
                lock.fence,
                Compare(keys.LINEAGE, control.lineage_revision),
                Compare(keys.CHECKPOINT, control.checkpoint_revision),
            ],
            [
                PutOp(
                    keys.CHECKPOINT,
                    records.encode(CheckpointRecord(number, path, manifest.position, manifest.lineage)),
                )
            ],
        )
        if not result.succeeded:
            raise FencedError("the repair lost its lock or its lineage; nothing was published")
        message = f"rebuilt as {path}, from manifest {base.number} and the WALs after it"
        return Repair(control.checkpoint.path, done=True, message=message)

    def _readable(self, path: str, number: int) -> Manifest | None:
        """Return a manifest if it and all of its data files are intact."""
        manifest = self._manifest(path)
        if manifest is None or manifest.number != number:
            return None
        return None if any(True for _ in verify_manifest(self._storage, manifest, path, set())) else manifest

    def _manifest(self, path: str) -> Manifest | None:
        try:
            return read_manifest(self._storage, path)
        except (CorruptionError, FormatError):
            return None

    def _whole(self, path: str) -> bool:
        try:
            read_batch(self._storage, path)
        except (CorruptionError, FormatError):
            return False
        return True

    def _has(self, path: str) -> bool:
        try:
            self._storage.stat(path)
        except NotFoundError:
            return False
        return True


def _covered(first: Sequence, last: Sequence, intact: Items[tuple[Sequence, Sequence, str]]) -> bool:
    """Return whether batches, ordered by their first WALs, have every WAL from `first` to `last`."""
    needed = first
    for begins, ends, _ in intact:
        if begins <= needed <= ends:
            needed = ends.next()
    return needed > last
