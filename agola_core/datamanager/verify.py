"""Verification: everything that a store has is read and checked, and each thing that does not hold is reported.

It changes nothing, and may run beside writers: what they add after it began is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from agola_core.coordinator.port import Coordinator, iterate
from agola_core.datamanager import keys, layout
from agola_core.datamanager.batches import list_batches, read_actions, read_batch
from agola_core.datamanager.datafile_verify import Finding, verify_data_files
from agola_core.datamanager.lineage import read_store, root_of, stored_lineages
from agola_core.datamanager.log import Control, read_control
from agola_core.datamanager.manifest import Manifest, read_manifest
from agola_core.datamanager.records import WalRecord, decode_wal
from agola_core.errors import AgolaError, CorruptionError, FormatError, NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence


def verify_store(coordinator: Coordinator, storage: ObjectStorage) -> Iterator[Finding]:
    """Yield everything that does not hold in a store.

    Args:
        coordinator: The store's coordinator.
        storage: The store's object storage.
    """
    try:
        control = read_control(coordinator)
    except (RecoveryError, CorruptionError, FormatError) as error:
        yield _finding(error, keys.CONTROL)
        return
    if control is None:
        yield Finding(keys.CONTROL, 0, "the coordinator holds no store")
        return
    yield from _verify_identity(storage, control)
    yield from _verify_log(coordinator, storage, control)
    yield from _verify_batches(storage, control)
    yield from _verify_manifests(storage, control)


def _finding(error: AgolaError, path: str) -> Finding:
    if isinstance(error, CorruptionError):
        return Finding(error.path, error.offset, error.message)
    return Finding(path, 0, str(error))


def _verify_identity(storage: ObjectStorage, control: Control) -> Iterator[Finding]:
    try:
        store = read_store(storage)
    except (CorruptionError, FormatError) as error:
        yield _finding(error, layout.STORE)
        return
    if store is None:
        yield Finding(layout.STORE, 0, "missing")
    elif store.store != control.lineage.store:
        yield Finding(layout.STORE, 0, f"names store {store.store}, the coordinator {control.lineage.store}")
    marker = layout.active_marker(root_of(control.lineage))
    if not any(lineage.active and lineage.root == root_of(control.lineage) for lineage in stored_lineages(storage)):
        yield Finding(marker, 0, "the current lineage has no marker")
    newest = max((lineage.epoch for lineage in stored_lineages(storage) if lineage.active), default=0)
    if newest > control.lineage.epoch:
        yield Finding(marker, 0, f"storage has epoch {newest}, after the coordinator's {control.lineage.epoch}")


def _verify_log(coordinator: Coordinator, storage: ObjectStorage, control: Control) -> Iterator[Finding]:
    """Check the WALs in the coordinator: each intact, the chain whole from the checkpoint to the head."""
    last: Sequence | None = None
    for item in iterate(coordinator, keys.WALS, revision=control.revision):
        try:
            record = decode_wal(item.value, item.key)
            if record.epoch != control.lineage.epoch:
                continue  # of an older lineage, about to be cleaned
            if record.sequence != keys.wal_sequence(item.key):
                yield Finding(item.key, 0, f"holds WAL {record.sequence}")
            if last is not None and record.previous_sequence != last:
                yield Finding(item.key, 0, f"follows {record.previous_sequence}, not {last}")
            last = record.sequence
            read_actions(storage, record)
        except (CorruptionError, FormatError) as error:
            yield _finding(error, item.key)
    checkpointed = Sequence.parse(control.checkpoint.sequence)
    if (last or checkpointed) != control.head and control.head != checkpointed:
        yield Finding(keys.HEAD, 0, f"the head is {control.head}, the newest WAL {last}")
    if control.synced > control.head or checkpointed > control.head:
        yield Finding(keys.HEAD, 0, f"the head {control.head} lies before what is synced or checkpointed")


def _verify_batches(storage: ObjectStorage, control: Control) -> Iterator[Finding]:
    """Check the WALs in storage: each batch intact, and no gap between the checkpoint and what is synced."""
    reached = Sequence.parse(control.checkpoint.sequence)
    seen: dict[Sequence, str] = {}
    for first, last, path in list_batches(storage, root_of(control.lineage)):
        if first > reached.next() and last > reached:
            yield Finding(path, 0, f"no WAL follows {reached}: the next batch begins at {first}")
        reached = max(reached, last)
        try:
            records = read_batch(storage, path)
            yield from _verify_records(storage, records, seen, path)
        except (CorruptionError, FormatError, NotFoundError) as error:
            yield _finding(error, path)
    if reached < control.synced:
        yield Finding(keys.SYNC, 0, f"WALs are said to be in storage up to {control.synced}; they end at {reached}")


def _verify_records(
    storage: ObjectStorage, records: list[WalRecord], seen: dict[Sequence, str], path: str
) -> Iterator[Finding]:
    for record in records:
        if seen.setdefault(record.sequence, record.wal_id) != record.wal_id:
            yield Finding(path, 0, f"another batch has a different WAL {record.sequence}")
        read_actions(storage, record)


def _verify_manifests(storage: ObjectStorage, control: Control) -> Iterator[Finding]:
    """Check every manifest of the lineage, and each data file that the current one names."""
    found = False
    for info in storage.list(layout.manifests(root_of(control.lineage))):
        if layout.parse_manifest(info.path) is None:
            continue
        found = found or info.path == control.checkpoint.path
        try:
            manifest = read_manifest(storage, info.path)
        except (CorruptionError, FormatError) as error:
            yield _finding(error, info.path)
            continue
        if info.path == control.checkpoint.path:
            yield from _verify_current(storage, manifest, control)
    if not found:
        yield Finding(control.checkpoint.path, 0, "the current manifest is missing")


def _verify_current(storage: ObjectStorage, manifest: Manifest, control: Control) -> Iterator[Finding]:
    if manifest.position != control.checkpoint.sequence or manifest.number != control.checkpoint.number:
        yield Finding(control.checkpoint.path, 0, "is not the manifest that the coordinator names")
    yield from verify_data_files(storage, manifest)
