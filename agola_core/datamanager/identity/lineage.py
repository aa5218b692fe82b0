"""Switches a store to a new lineage: its creation, a recovery or an import, in one crash-safe step.

A lineage is one unbroken history. It begins with a manifest that holds all of its past, so storage written under
another lineage is never mixed in. Every switch takes these steps:

1. the manifest goes to storage, under the new lineage's own prefix; nobody reads it yet;
2. one coordinator transaction, behind a compare of the lineage key, makes it the current one;
3. a marker goes to storage: the lineage was switched to. No WAL of it goes to storage before.

A crash before 2 leaves the old state (and garbage), a crash after 2 the new one: whoever opens the store next
writes the marker. When the coordinator is lost, the marked lineage with the highest epoch is the newest one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as Items
from datetime import datetime

import msgspec

from agola_core.coordinator.port import Compare, Coordinator, Op, PutOp
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.lineages import mark_active
from agola_core.datamanager.format.records import (
    CheckpointRecord,
    HeadRecord,
    LineageRecord,
    SyncRecord,
)
from agola_core.datamanager.sstable.manifest import Imported, Manifest, Origin, Run, write_manifest
from agola_core.errors import ConflictError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("lineage.before-manifest", "lineage.before-txn")


class NewLineage(msgspec.Struct, frozen=True, kw_only=True):
    """A lineage that is about to begin, and the data that it begins with.

    Attributes:
        store: The store's id.
        epoch: Greater than any epoch in the coordinator or in storage.
        lineage: The lineage's id.
        origin: Why it begins.
        number: The number of its first manifest, greater than that of any manifest before.
        nonce: Makes the path of that manifest unique.
        created: The current time.
        data_types: The types that the data may have.
        runs: The data, newest first; its files are in storage already.
        imported: The store and the WAL that an import says it comes from.
    """

    store: str
    epoch: int
    lineage: str
    origin: Origin
    number: int
    nonce: str
    created: datetime
    data_types: tuple[str, ...]
    runs: tuple[Run, ...]
    imported: Imported | None = None

    @property
    def record(self) -> LineageRecord:
        """What the coordinator stores of it."""
        return LineageRecord(self.store, self.lineage, self.epoch)

    def manifest(self) -> Manifest:
        """Return its first manifest."""
        return Manifest(
            number=self.number,
            epoch=self.epoch,
            lineage=self.lineage,
            position=str(self.record.start),
            created=self.created,
            data_types=self.data_types,
            runs=self.runs,
            origin=self.origin,
            imported=self.imported,
        )


def switch(
    coordinator: Coordinator,
    storage: ObjectStorage,
    new: NewLineage,
    *,
    conditions: Items[Compare],
    operations: Items[Op] = (),
    check: Callable[[], object] = lambda: None,
) -> None:
    """Make a new lineage the current one.

    Args:
        coordinator: The store's coordinator, which decides.
        storage: The store's object storage.
        new: The lineage.
        conditions: The conditions of the switch: the lineage's revision that was seen, and the fences of locks.
        operations: Written to the coordinator together with the switch.
        check: Called directly before the switch; raises if it must not happen.

    Raises:
        ConflictError: Another process switched first; nothing changed.
    """
    record, start = new.record, str(new.record.start)
    path = layout.manifest(record.root, new.number, new.nonce)
    faultpoints.reach("lineage.before-manifest")
    write_manifest(storage, path, new.manifest())
    check()
    faultpoints.reach("lineage.before-txn")
    result = coordinator.txn(
        conditions,
        [
            PutOp(keys.LINEAGE, records.encode(record)),
            PutOp(keys.HEAD, records.encode(HeadRecord(start, record.lineage))),
            PutOp(keys.CHECKPOINT, records.encode(CheckpointRecord(new.number, path, start, record.lineage))),
            PutOp(keys.SYNC, records.encode(SyncRecord(start, record.lineage))),
            *operations,
        ],
    )
    if not result.succeeded:
        check()  # if the check is what no longer holds, its error says so best
        raise ConflictError("another process created, recovered or imported the store first")
    mark_active(storage, record, new.origin)
    logger.info("lineage switched: origin=%s epoch=%d lineage=%s", new.origin, record.epoch, record.lineage)
