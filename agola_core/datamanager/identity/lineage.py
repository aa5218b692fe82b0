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

import msgspec

from agola_core.coordinator.port import Compare, Coordinator, Op, PutOp
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.checksummed import seal, unseal
from agola_core.datamanager.format.records import (
    FORMAT,
    CheckpointRecord,
    HeadRecord,
    LineageRecord,
    SyncRecord,
)
from agola_core.datamanager.sstable.manifest import Imported, Manifest, Origin, Run, write_manifest
from agola_core.decoding import DECODE_ERRORS, check_json_format
from agola_core.errors import ConflictError, CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("lineage.before-manifest", "lineage.before-txn", "lineage.before-store", "lineage.before-marker")


class StoreRecord(msgspec.Struct, frozen=True):
    """`store.json`: whose storage this is."""

    store: str
    format: int = FORMAT


class MarkerRecord(msgspec.Struct, frozen=True):
    """`active.json` of a lineage: it was switched to, and why."""

    store: str
    lineage: str
    epoch: int
    origin: str


class StoredLineage(msgspec.Struct, frozen=True):
    """A lineage found in storage."""

    epoch: int
    lineage: str
    root: str
    active: bool


def root_of(lineage: LineageRecord) -> str:
    """Return the storage prefix of a lineage."""
    return layout.lineage_root(lineage.epoch, lineage.lineage)


def read_store(storage: ObjectStorage) -> StoreRecord | None:
    """Return whose storage this is; None when it is nobody's yet.

    Raises:
        CorruptionError: The record is damaged.
        FormatError: A later release wrote it.
    """
    try:
        data = storage.read(layout.STORE)
    except NotFoundError:
        return None
    try:
        body = unseal(data, layout.STORE)
        check_json_format(body, f"the storage ({layout.STORE})", FORMAT)
        return msgspec.json.decode(body, type=StoreRecord)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a store record: {error}", path=layout.STORE) from error


def read_marker(storage: ObjectStorage, root: str) -> MarkerRecord | None:
    """Return the marker of a lineage that was switched to; None when it has none.

    Raises:
        CorruptionError: The marker is damaged, or another lineage's; that it is there still counts.
    """
    path = layout.active_marker(root)
    try:
        data = storage.read(path)
    except NotFoundError:
        return None
    try:
        marker = msgspec.json.decode(unseal(data, path), type=MarkerRecord)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a marker: {error}", path=path) from error
    if layout.lineage_root(marker.epoch, marker.lineage) != root:
        raise CorruptionError(f"the marker of lineage {marker.lineage}", path=path)
    return marker


def write_marker(storage: ObjectStorage, record: LineageRecord, origin: str) -> None:
    """Mark a lineage as one that was switched to."""
    faultpoints.reach("lineage.before-marker")
    marker = MarkerRecord(record.store, record.lineage, record.epoch, origin)
    storage.write(layout.active_marker(root_of(record)), seal(marker))


def stored_lineages(storage: ObjectStorage) -> list[StoredLineage]:
    """Return the lineages in storage, oldest epoch first."""
    found = []
    for info in storage.list(layout.LINEAGES, recursive=False):
        named = layout.parse_lineage_root(info.path)
        if named is not None:
            active = any(True for _ in storage.list(layout.active_marker(info.path)))
            found.append(StoredLineage(named[0], named[1], info.path, active))
    return sorted(found, key=lambda lineage: lineage.epoch)


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
    root = root_of(record)
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


def write_store(storage: ObjectStorage, record: LineageRecord) -> None:
    """Write down whose storage this is."""
    faultpoints.reach("lineage.before-store")
    storage.write(layout.STORE, seal(StoreRecord(record.store)))


def mark_active(storage: ObjectStorage, record: LineageRecord, origin: Origin | None = None) -> None:
    """Write what a switch leaves to be written after its transaction, unless it stands there already.

    Raises:
        ConflictError: The storage belongs to another store.
    """
    store = read_store(storage)
    if store is None:
        write_store(storage, record)
    elif store.store != record.store:
        raise ConflictError(f"the storage belongs to store {store.store}, the coordinator to {record.store}")
    path = layout.active_marker(root_of(record))
    try:
        storage.stat(path)
    except NotFoundError:
        write_marker(storage, record, origin or "resumed")
