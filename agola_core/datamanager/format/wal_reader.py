"""Reads WALs back, from storage and then from the coordinator, as one chain."""

from __future__ import annotations

from collections.abc import Iterator

from agola_core.coordinator.port import Coordinator, iterate
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.batches import read_chain
from agola_core.datamanager.format.control import Control
from agola_core.datamanager.format.records import WalRecord, decode_wal
from agola_core.errors import CorruptionError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence


def wals_after(
    coordinator: Coordinator | None, storage: ObjectStorage, control: Control | None, root: str, after: Sequence
) -> Iterator[WalRecord]:
    """Yield the WALs of a lineage after a sequence, in order, each once.

    Args:
        coordinator: Has the newest WALs of its current lineage; None if it is lost.
        storage: Has the WALs before.
        control: The coordinator's control keys.
        root: The lineage's prefix in storage.
        after: The sequence.

    Raises:
        CorruptionError: A gap in the chain, or a damaged WAL.
    """
    reached = after
    for record in read_chain(storage, root, after):
        reached = record.sequence
        yield record
    if coordinator is None or control is None or control.lineage.epoch != after.epoch:
        return
    for item in iterate(coordinator, keys.WALS, start_after=keys.wal(reached), revision=control.revision):
        record = decode_wal(item.value, item.key)
        if record.epoch != reached.epoch:
            continue
        if record.previous_sequence != reached:
            raise CorruptionError(f"WAL {record.sequence} does not follow {reached}", path=item.key)
        reached = record.sequence
        yield record
