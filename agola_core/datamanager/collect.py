"""Collection: objects in storage that nothing refers to any more are deleted, after a grace period.

Spared is what a retained manifest names, what the oldest manifest that an open instance reads names, WALs after
the oldest retained manifest with their payloads, and everything younger than the grace period, which may be
about to be referred to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from agola_core import faultpoints
from agola_core.coordinator.port import iterate
from agola_core.datamanager import keys, layout
from agola_core.datamanager.batches import list_batches, read_batch
from agola_core.datamanager.instance import Instance, list_instances
from agola_core.datamanager.lineage import root_of
from agola_core.datamanager.log import Control, read_control
from agola_core.datamanager.manifest import Manifest, read_manifest
from agola_core.datamanager.records import decode_wal
from agola_core.datamanager.types import Options
from agola_core.errors import NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectInfo, ObjectStorage
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("collect.before-delete")


class Garbage(msgspec.Struct, frozen=True):
    """An object that nothing refers to.

    Attributes:
        path: Where it lies.
        size: Its bytes.
        reason: Why it goes.
    """

    path: str
    size: int
    reason: str


class Collector:
    """Collects a store's garbage.

    Args:
        instance: Holds the lock: one collector at a time in all processes.
        storage: What is cleaned.
        options: How much is kept.
        now: The time, against which objects' ages are taken.
    """

    def __init__(
        self, instance: Instance, storage: ObjectStorage, options: Options, now: Callable[[], datetime]
    ) -> None:
        self._instance = instance
        self._storage = storage
        self._options = options
        self._now = now

    def collect(self, *, dry_run: bool = False) -> list[Garbage]:
        """Delete the garbage and return it.

        Args:
            dry_run: Only return it.
        """
        self._instance.publish()  # what this instance itself reads is to be known exactly
        lock = self._instance.try_lock(keys.COLLECT_LOCK)
        if lock is None:
            return []
        with lock:
            found = self._find()
            if not dry_run:
                for garbage in found:
                    lock.check()  # invariant 8: whoever lost the lock deletes nothing
                    faultpoints.reach("collect.before-delete")
                    try:
                        self._storage.delete(garbage.path)
                    except NotFoundError:
                        continue
            return found

    def _find(self) -> list[Garbage]:
        # Listed before the references are read: what is written later is not in the list.
        listed = [info for prefix in (layout.LINEAGES, layout.PAYLOADS, layout.DATA) for info in self._old(prefix)]
        control = read_control(self._instance.coordinator)
        if control is None:
            raise RecoveryError("the coordinator holds no store")
        manifests = self._retained(control)
        oldest = min(manifest.sequence for manifest in manifests.values())
        spared = {ref.path for manifest in manifests.values() for ref in manifest.files()}
        payloads = self._payloads(control, oldest)
        root = root_of(control.lineage)
        garbage = []
        for info in listed:
            reason = None
            if info.path.startswith(layout.DATA):
                if info.path not in spared:
                    reason = "no retained manifest names this data file"
            elif info.path.startswith(layout.PAYLOADS):
                if info.path not in payloads:
                    reason = "no retained WAL names this payload"
            else:
                reason = _lineage_reason(info.path, root, control, manifests, oldest)
            if reason is not None:
                garbage.append(Garbage(info.path, info.size, reason))
        return garbage

    def _old(self, prefix: str) -> Iterator[ObjectInfo]:
        now = self._now()
        for info in self._storage.list(prefix):
            age = (now - info.modified).total_seconds() if info.modified else 0.0
            if age >= self._options.grace_period:
                yield info

    def _retained(self, control: Control) -> dict[str, Manifest]:
        """Return the manifests that must stay readable, by path."""
        root = root_of(control.lineage)
        numbered = sorted(
            (number, info.path)
            for info in self._storage.list(layout.manifests(root))
            if (number := layout.parse_manifest(info.path)) is not None
        )
        reading = [record.manifest for record in list_instances(self._instance.coordinator)]
        oldest_read = min([control.checkpoint.number, *reading])
        published = [item for item in numbered if item[0] <= control.checkpoint.number]
        newest = {path for _, path in published[-self._options.retain_manifests :]}
        kept = {path for number, path in numbered if path in newest or number >= oldest_read}
        kept.add(control.checkpoint.path)
        return {path: read_manifest(self._storage, path) for path in sorted(kept)}

    def _payloads(self, control: Control, oldest: Sequence) -> set[str]:
        """Return the payloads that WALs after the oldest retained manifest, or in the coordinator, name."""
        found: set[str] = set()
        for item in iterate(self._instance.coordinator, keys.WALS):
            record = decode_wal(item.value, item.key)
            if record.payload is not None:
                found.add(record.payload.path)
        for _, last, path in list_batches(self._storage, root_of(control.lineage)):
            if last > oldest:
                found.update(wal.payload.path for wal in read_batch(self._storage, path) if wal.payload)
        return found


def _lineage_reason(
    path: str,
    root: str,
    control: Control,
    manifests: dict[str, Manifest],
    oldest: Sequence,
) -> str | None:
    if not path.startswith(root):
        named = layout.parse_lineage_root(path)
        if named is None or named[0] > control.lineage.epoch:
            return None
        return "it belongs to an older lineage"
    if layout.parse_manifest(path) is not None:
        return None if path in manifests else "this manifest is no longer retained"
    batch = layout.parse_wal_batch(path)
    if batch is not None and batch[1] <= oldest:
        return "its WALs are in every retained manifest"
    return None
