"""The store's identity and its lineages in object storage: `store.json` and the marker of each lineage."""

from __future__ import annotations

import msgspec

from agola_core.datamanager.format import layout
from agola_core.datamanager.format.checksummed import decode_checksummed, encode_checksummed
from agola_core.datamanager.format.control import Control
from agola_core.datamanager.format.records import FORMAT, LineageRecord
from agola_core.encoding.decoding import DECODE_ERRORS, check_json_format
from agola_core.errors import ConflictError, CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints

faultpoints.declare("lineage.before-store", "lineage.before-marker")


class StoreRecord(msgspec.Struct, frozen=True):
    """`store.json`: the store that the storage belongs to."""

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


def read_store(storage: ObjectStorage) -> StoreRecord | None:
    """Return which store this storage belongs to; None if it belongs to none yet.

    Raises:
        CorruptionError: The record is damaged.
        FormatError: A later release wrote it.
    """
    try:
        data = storage.read(layout.STORE)
    except NotFoundError:
        return None
    try:
        body = decode_checksummed(data, layout.STORE)
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
        marker = msgspec.json.decode(decode_checksummed(data, path), type=MarkerRecord)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a marker: {error}", path=path) from error
    if layout.lineage_root(marker.epoch, marker.lineage) != root:
        raise CorruptionError(f"the marker of lineage {marker.lineage}", path=path)
    return marker


def write_marker(storage: ObjectStorage, record: LineageRecord, origin: str) -> None:
    """Mark a lineage as one that was switched to."""
    faultpoints.reach("lineage.before-marker")
    marker = MarkerRecord(record.store, record.lineage, record.epoch, origin)
    storage.write(layout.active_marker(record.root), encode_checksummed(marker))


def stored_lineages(storage: ObjectStorage) -> list[StoredLineage]:
    """Return the lineages in storage, oldest epoch first."""
    found = []
    for info in storage.list(layout.LINEAGES, recursive=False):
        named = layout.parse_lineage_root(info.path)
        if named is not None:
            active = any(True for _ in storage.list(layout.active_marker(info.path)))
            found.append(StoredLineage(named[0], named[1], info.path, active))
    return sorted(found, key=lambda lineage: lineage.epoch)


def past_lineages(storage: ObjectStorage, control: Control | None) -> list[StoredLineage]:
    """Return the current lineage and all former ones, oldest first.

    Args:
        storage: The store's object storage.
        control: The coordinator's control keys; None if it is lost, then the markers alone decide.
    """
    found = stored_lineages(storage)
    if control is None:
        return [lineage for lineage in found if lineage.active]
    current = control.lineage.root
    return [
        lineage
        for lineage in found
        if lineage.root == current or (lineage.active and lineage.epoch < control.lineage.epoch)
    ]


def write_store(storage: ObjectStorage, record: LineageRecord) -> None:
    """Record which store the storage belongs to."""
    faultpoints.reach("lineage.before-store")
    storage.write(layout.STORE, encode_checksummed(StoreRecord(record.store)))


def mark_active(storage: ObjectStorage, record: LineageRecord, origin: str = "resumed") -> None:
    """Write what remains to be written after a switch's transaction, unless it is there already.

    Raises:
        ConflictError: The storage belongs to another store.
    """
    store = read_store(storage)
    if store is None:
        write_store(storage, record)
    elif store.store != record.store:
        raise ConflictError(f"the storage belongs to store {store.store}, the coordinator to {record.store}")
    path = layout.active_marker(record.root)
    try:
        storage.stat(path)
    except NotFoundError:
        write_marker(storage, record, origin)
