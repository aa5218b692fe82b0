"""The control keys: head, lineage, checkpoint and sync record of a store, read at one revision of the coordinator."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from agola_core.coordinator.port import Coordinator, KeyValue
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.records import (
    FORMAT,
    CheckpointRecord,
    ControlRecord,
    FloorRecord,
    HeadRecord,
    LineageRecord,
    SyncRecord,
    decode,
)
from agola_core.encoding.decoding import check_json_format
from agola_core.errors import RecoveryError
from agola_core.sequence import Sequence

T = TypeVar("T", bound=ControlRecord)

RECOVERY_ADVICE = "recover the store from its storage: open it with recover=True, or run agola-core recover"


class Control(NamedTuple):
    """The control keys of a store, read at one revision.

    Attributes:
        lineage: The current lineage.
        head: The newest WAL.
        head_id: Its id.
        head_revision: The revision of the head's last change, what a commit compares.
        lineage_revision: The revision of the lineage's last change, what every publish compares.
        checkpoint: The current manifest.
        checkpoint_revision: The revision of its last change.
        synced: The newest WAL in storage.
        sync_revision: The revision of its last change.
        floor: Tokens older than this revision are refused.
        collection_revision: The revision of the last collection of payloads; 0 for none.
        revision: The revision of the read.
    """

    lineage: LineageRecord
    head: Sequence
    head_id: str
    head_revision: int
    lineage_revision: int
    checkpoint: CheckpointRecord
    checkpoint_revision: int
    synced: Sequence
    sync_revision: int
    floor: int
    collection_revision: int
    revision: int


def read_control(coordinator: Coordinator) -> Control | None:
    """Return a store's control keys; None when the coordinator holds no store.

    Raises:
        RecoveryError: Some of the keys are missing.
        FormatError: A later release wrote the store.
    """
    page = coordinator.list(keys.CONTROL)
    found = {item.key: item for item in page.items}
    if not found:
        return None
    missing = {keys.LINEAGE, keys.HEAD, keys.CHECKPOINT, keys.SYNC} - found.keys()
    if missing:
        raise RecoveryError(
            f"the coordinator has lost the keys {', '.join(sorted(missing))}: recover the store from its storage"
        )
    check_json_format(found[keys.LINEAGE].value, f"the store ({keys.LINEAGE})", FORMAT)
    lineage = decode_item(LineageRecord, found[keys.LINEAGE])
    head = decode_item(HeadRecord, found[keys.HEAD])
    floor = found.get(keys.GROUPS_FLOOR)
    collection = found.get(keys.COLLECTION)
    return Control(
        lineage=lineage,
        head=Sequence.parse(head.sequence),
        head_id=head.wal_id,
        head_revision=found[keys.HEAD].mod_revision,
        lineage_revision=found[keys.LINEAGE].mod_revision,
        checkpoint=decode_item(CheckpointRecord, found[keys.CHECKPOINT]),
        checkpoint_revision=found[keys.CHECKPOINT].mod_revision,
        synced=Sequence.parse(decode_item(SyncRecord, found[keys.SYNC]).sequence),
        sync_revision=found[keys.SYNC].mod_revision,
        floor=decode_item(FloorRecord, floor).revision if floor else 0,
        collection_revision=collection.mod_revision if collection else 0,
        revision=page.revision,
    )


def require_control(coordinator: Coordinator) -> Control:
    """Return the control keys of a store that is open.

    Raises:
        RecoveryError: The coordinator holds no store any more, or not all of one.
    """
    control = read_control(coordinator)
    if control is None:
        raise RecoveryError(f"the coordinator was emptied: {RECOVERY_ADVICE}")
    return control


def decode_item(record: type[T], item: KeyValue) -> T:
    """Return the control record that a key holds (see `records.decode`)."""
    return decode(record, item.value, item.key)
