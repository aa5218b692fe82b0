"""Garbage collection: deletes objects in storage that nothing refers to, after a grace period.

It keeps what a retained manifest of any lineage names (see `manifest_history`), the WALs after each lineage's oldest
retained manifest with their payloads, and everything younger than the grace period, because a reference may follow.
Work that takes longer than that holds a lock, or is fenced by the log's head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import msgspec

from agola_core.coordinator.lock import Lock
from agola_core.coordinator.port import Compare, PutOp, iterate
from agola_core.datamanager.format import keys, layout
from agola_core.datamanager.format.batches import list_batches, read_batch
from agola_core.datamanager.format.control import Control, require_control
from agola_core.datamanager.format.lineages import past_lineages
from agola_core.datamanager.format.records import WalRecord, decode_wal
from agola_core.datamanager.identity.instance import Instance, list_instances
from agola_core.datamanager.identity.manifest_history import StoredManifest, retained, stored_manifests
from agola_core.datamanager.sstable import file_lists
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.datamanager.types import Options
from agola_core.errors import CorruptionError, NotFoundError, UnavailableError
from agola_core.objectstorage.port import ObjectInfo, ObjectStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.threads.parallel import parallel_map
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("collect.before-barrier", "collect.before-delete")

_BARRIER_TRIES = 10


class Garbage(msgspec.Struct, frozen=True):
    """An object in storage that nothing refers to.

    Attributes:
        path: Its path.
        size: Its bytes.
        reason: Why it is garbage.
    """

    path: str
    size: int
    reason: str


class GarbageCollector:
    """Collects a store's garbage.

    Args:
        instance: Holds the lock: one collector at a time in all processes.
        storage: The store's object storage.
        options: How much to keep.
        now: Returns the current time, for the ages of objects.
    """

    def __init__(
        self, instance: Instance, storage: ObjectStorage, options: Options, now: Callable[[], datetime]
    ) -> None:
        self._instance = instance
        self._coordinator = instance.coordinator
        self._storage = storage
        self._options = options
        self._now = now

    def collect(self, *, dry_run: bool = False) -> list[Garbage]:
        """Delete the garbage and return it; do nothing while another collector is at work.

        Args:
            dry_run: Only return it.

        Raises:
            FencedError: The lock was lost meanwhile; nothing was deleted after that.
        """
        self._instance.publish()  # this instance's own reads must be known exactly
        lock = self._instance.try_lock(keys.COLLECT_LOCK)
        if lock is None:
            return []
        with lock:
            try:
                found = self._find(dry_run=dry_run)
            except (NotFoundError, CorruptionError) as error:
                lock.check()  # paused past its lease: another collector deleted what was listed
                if isinstance(error, CorruptionError):
                    raise
                raise UnavailableError("something that was listed is gone; nothing was collected") from error
            if not dry_run:
                self._delete(lock, found)
            return found

    def _delete(self, lock: Lock, found: list[Garbage]) -> None:
        for garbage in found:
            faultpoints.reach("collect.before-delete")
            lock.check()  # invariant 8: whoever lost the lock deletes nothing
            try:
                self._storage.delete(garbage.path)
            except NotFoundError:
                continue

    def _find(self, *, dry_run: bool) -> list[Garbage]:
        """Return the garbage; manifests before the files that they name, so that none is left without its files."""
        # List before reading the references: the lists then lack everything that is written later.
        lineages = list(self._old(layout.LINEAGES))
        data = list(self._old(layout.DATA))
        payloads = list(self._old(layout.PAYLOADS))
        if any(self._coordinator.get(name) for name in (keys.CHECKPOINT_LOCK, keys.INITIALISE_LOCK)):
            data = []  # a checkpoint, import or recovery is at work; it may have begun long ago
        control = require_control(self._coordinator)
        kept = self._kept(control)
        if control.checkpoint.path not in {stored.path for stored in kept}:
            raise UnavailableError("the list of manifests lacks the current one: it is stale; nothing was collected")
        manifests = self._read(control, kept)
        named = self._named(control, manifests)
        horizons = _horizons(kept, manifests)
        garbage = [
            Garbage(info.path, info.size, reason)
            for info in lineages
            if (reason := _lineage_reason(info.path, control, {manifest.path for manifest in kept}, horizons))
        ]
        replaced = {manifest.replaces for manifest in manifests.values()}
        if {stored.path for stored in kept} <= manifests.keys() | replaced:  # what a damaged one names is not known
            garbage += [
                Garbage(info.path, info.size, "no retained manifest names this data file")
                for info in data
                if info.path not in named
            ]
            garbage += self._unnamed_payloads(control, payloads, horizons, dry_run=dry_run)
        return garbage

    def _old(self, prefix: str) -> Iterator[ObjectInfo]:
        now = self._now()
        for info in self._storage.list(prefix):
            age = (now - info.modified).total_seconds() if info.modified else 0.0
            if age >= self._options.grace_period:
                yield info

    def _kept(self, control: Control) -> list[StoredManifest]:
        reading = [record.manifest for record in list_instances(self._coordinator)]
        age = max(self._options.grace_period, self._options.retain_seconds)
        return retained(
            stored_manifests(self._storage, past_lineages(self._storage, control)),
            control.checkpoint.number,
            keep=self._options.retain_manifests,
            since=self._now() - timedelta(seconds=age),
            oldest_read=min(reading, default=control.checkpoint.number),
        )

    def _read(self, control: Control, kept: list[StoredManifest]) -> dict[str, Manifest]:
        """Return the kept manifests by path, without those that are damaged."""

        def read(stored: StoredManifest) -> Manifest | None:
            try:
                return read_manifest(self._storage, stored.path)
            except CorruptionError:
                if stored.path == control.checkpoint.path:
                    raise
                logger.warning("a retained manifest is damaged", exc_info=True)
                return None

        found = zip(kept, parallel_map(read, kept), strict=True)
        return {stored.path: manifest for stored, manifest in found if manifest is not None}

    def _named(self, control: Control, manifests: dict[str, Manifest]) -> set[str]:
        """Return the paths of the files that manifests have; take those out whose lists are damaged."""
        cache = BlockCache()
        known: dict[tuple[str, ...], set[str]] = {}  # a run is in many manifests
        for path, manifest in list(manifests.items()):
            for run in manifest.runs:
                tops = tuple(ref.path for ref in run.files)
                try:
                    if tops not in known:
                        known[tops] = set(file_lists.paths(self._storage, cache, run))
                except CorruptionError:
                    if path == control.checkpoint.path:
                        raise
                    logger.warning("a list of a retained manifest is damaged", exc_info=True)
                    del manifests[path]
                    break
        return set().union(*known.values())

    def _unnamed_payloads(
        self, control: Control, old: list[ObjectInfo], horizons: dict[str, Sequence], *, dry_run: bool
    ) -> list[Garbage]:
        if not old:
            return []
        named = _payloads(decode_wal(item.value, item.key) for item in iterate(self._coordinator, keys.WALS))
        needed = [
            path for root, horizon in horizons.items() for _, _, path in list_batches(self._storage, root, horizon)
        ]
        for records in parallel_map(lambda path: read_batch(self._storage, path), needed, workers=4):
            named |= _payloads(records)
        going = [info for info in old if info.path not in named]
        if going and not dry_run:
            later = self._committed_before_barrier(control)
            going = [] if later is None else [info for info in going if info.path not in later]
        return [Garbage(info.path, info.size, "no retained WAL names this payload") for info in going]

    def _committed_before_barrier(self, control: Control) -> set[str] | None:
        """Move the log's head, so that no writer can commit an older payload unnoticed.

        Returns:
            The payloads of the WALs committed meanwhile; None if writers were faster each time.
        """
        for _ in range(_BARRIER_TRIES):
            head = self._coordinator.get(keys.HEAD)
            if head is None:
                return None
            faultpoints.reach("collect.before-barrier")
            barrier = self._coordinator.txn(
                [Compare(keys.HEAD, head.mod_revision), Compare(keys.LINEAGE, control.lineage_revision)],
                [PutOp(keys.HEAD, head.value), PutOp(keys.COLLECTION, b"")],
            )
            if barrier.succeeded:
                after = keys.wal(control.head)
                return _payloads(
                    decode_wal(item.value, item.key)
                    for item in iterate(self._coordinator, keys.WALS, start_after=after)
                )
        return None


def _payloads(records: Iterator[WalRecord] | list[WalRecord]) -> set[str]:
    return {record.payload.path for record in records if record.payload is not None}


def _horizons(kept: list[StoredManifest], manifests: dict[str, Manifest]) -> dict[str, Sequence]:
    """Return the sequence of each lineage's oldest kept manifest: WALs after it are needed."""
    horizons: dict[str, Sequence] = {}
    for stored in kept:
        manifest = manifests.get(stored.path)
        reached = manifest.sequence if manifest else Sequence(stored.epoch, 0)
        horizons[stored.root] = min(reached, horizons.get(stored.root, reached))
    return horizons


def _lineage_reason(path: str, control: Control, kept: set[str], horizons: dict[str, Sequence]) -> str | None:
    named = layout.parse_lineage_root(path)
    if named is None or named[0] > control.lineage.epoch:
        return None
    root = layout.lineage_root(*named)
    if root not in horizons and root != control.lineage.root:
        return "it belongs to a lineage of which nothing is retained"
    if layout.parse_manifest(path) is not None:
        return None if path in kept else "this manifest is no longer retained"
    batch = layout.parse_wal_batch(path)
    if batch is not None and batch[1] <= horizons[root]:
        return "its WALs are in every retained manifest"
    return None
