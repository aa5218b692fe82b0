"""Lineages: how a store begins, is recovered, or is imported, in one crash-safe switch.

A lineage is one unbroken history. Every lineage begins with a manifest that holds all of its past, so storage
written under another lineage is never read with it. The switch to a new one, whatever the reason:

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


def switch(
    coordinator: Coordinator,
    storage: ObjectStorage,
    *,
    store: str,
    epoch: int,
    lineage: str,
    origin: Origin,
    data_types: Items[str],
    runs: Items[Run],
    number: int,
    now: datetime,
    nonce: str,
    seen: int,
    imported: Imported | None = None,
    fences: Items[Compare] = (),
    operations: Items[Op] = (),
    check: Callable[[], object] = lambda: None,
) -> LineageRecord:
    """Make a new lineage, with the given data, the current one.

    Args:
        coordinator: Where the switch is decided.
        storage: Where its data files already are.
        store: The store's id.
        epoch: Greater than any epoch in the coordinator or in storage.
        lineage: The new lineage's id.
        origin: Why.
        data_types: The types that the data has.
        runs: The data, newest first.
        number: The first manifest's number, greater than any before.
        now: For people.
        nonce: Makes the manifest's path its own.
        seen: The lineage key's revision that this was decided on; 0 when there was none.
        imported: Where the data is from, when it was imported.
        operations: Written to the coordinator together with the switch.
        fences: Further conditions of the switch, such as a lock's.
        check: Called directly before the switch; raises when it must not happen.

    Raises:
        ConflictError: Another process switched first; nothing changed.
    """
    record = LineageRecord(store, lineage, epoch)
    root = record.root
    manifest = Manifest(
        number=number,
        epoch=epoch,
        lineage=lineage,
        position=str(record.start),
        created=now,
        data_types=tuple(data_types),
        runs=tuple(runs),
        origin=origin,
        imported=imported,
    )
    path = layout.manifest(root, number, nonce)
    faultpoints.reach("lineage.before-manifest")
    write_manifest(storage, path, manifest)
    start = str(record.start)
    check()
    faultpoints.reach("lineage.before-txn")
    result = coordinator.txn(
        [Compare(keys.LINEAGE, seen), *fences],
        [
            PutOp(keys.LINEAGE, records.encode(record)),
            PutOp(keys.HEAD, records.encode(HeadRecord(start, lineage))),
            PutOp(keys.CHECKPOINT, records.encode(CheckpointRecord(number, path, start, lineage))),
            PutOp(keys.SYNC, records.encode(SyncRecord(start, lineage))),
            *operations,
        ],
    )
    if not result.succeeded:
        check()  # when it is what no longer holds, it says so best
        raise ConflictError("another process created, recovered or imported the store first")
    mark_active(storage, record, origin)
    logger.info("lineage switched: origin=%s epoch=%d lineage=%s", origin, epoch, lineage)
    return record
