"""Verifies a store: reads and checks everything that is stored, and reports each problem.

It changes nothing, and may run beside writers; it does not look at what they add meanwhile. It holds one batch, or a
few spans of a file, at a time in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from agola_core.coordinator.port import Coordinator, iterate
from agola_core.datamanager.check.data_files import Finding, verify_run
from agola_core.datamanager.format import keys, layout
from agola_core.datamanager.format.batches import list_batches, read_actions, read_batch
from agola_core.datamanager.format.control import Control, read_control
from agola_core.datamanager.format.lineages import StoredLineage, past_lineages, read_marker, read_store
from agola_core.datamanager.format.records import InstanceRecord, PayloadRef, WalIdRecord, WalRecord, decode, decode_wal
from agola_core.datamanager.identity.binding import check_binding, read_binding
from agola_core.datamanager.identity.idempotency_keys import read_inherited_keys
from agola_core.datamanager.identity.manifest_history import stored_manifests
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.errors import AgolaError, BadRequestError, CorruptionError, FormatError, NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence


def verify_store(coordinator: Coordinator, storage: ObjectStorage) -> Iterator[Finding]:
    """Yield every problem of a store.

    If the coordinator is lost or unreadable, that is one finding, and the storage is verified all the same.
    """
    control = None
    try:
        control = read_control(coordinator)
        if control is None:
            yield Finding(keys.CONTROL, 0, "the coordinator holds no store")
    except (RecoveryError, CorruptionError, FormatError, BadRequestError) as error:
        yield finding(error, keys.CONTROL)
    lineages = past_lineages(storage, control)
    yield from _verify_identity(storage, control, lineages)
    payloads: set[PayloadRef] = set()
    if control is not None:
        yield from _verify_binding(coordinator, storage, control)
        yield from _verify_log(coordinator, storage, control, payloads)
        yield from _verify_records(coordinator, control)
    verified: set[str] = set()
    for lineage in lineages:
        yield from _verify_lineage(storage, control, lineage, verified, payloads)
    if control is not None:
        yield from _verify_current(storage, control)


def finding(error: AgolaError, path: str) -> Finding:
    """Return an error as a finding, at a given path if the error names none."""
    if isinstance(error, CorruptionError):
        return Finding(error.path, error.offset, error.message)
    return Finding(path, 0, str(error))


def verify_manifest(storage: ObjectStorage, manifest: Manifest, path: str, verified: set[str]) -> Iterator[Finding]:
    """Yield what is wrong with a manifest's references and with its data files.

    Args:
        storage: The store's object storage.
        manifest: The manifest.
        path: The manifest's path.
        verified: The paths of data files that were verified already; this adds those that it reads.
    """
    if layout.parse_manifest(path) != manifest.number:
        yield Finding(path, 0, f"holds manifest {manifest.number}")
    if layout.lineage_root(manifest.epoch, manifest.lineage) != layout.root_of_path(path):
        yield Finding(path, 0, f"is a manifest of lineage {manifest.lineage}")
    for run in manifest.runs:
        yield from verify_run(storage, run, path, verified, oldest=run is manifest.runs[-1])


def _verify_lineage(
    storage: ObjectStorage,
    control: Control | None,
    lineage: StoredLineage,
    verified: set[str],
    payloads: set[PayloadRef],
) -> Iterator[Finding]:
    stored = stored_manifests(storage, [lineage])
    readable = [manifest for item in stored if (manifest := _readable(storage, item.path))]
    replaced = {manifest.replaces for manifest in readable}
    oldest = min((manifest.sequence for manifest in readable), default=None)
    del readable
    for item in stored:
        if item.path in replaced:
            continue  # damaged once, and repaired
        try:
            manifest = read_manifest(storage, item.path)
        except (CorruptionError, FormatError) as error:
            yield finding(error, item.path)
            continue
        yield from verify_manifest(storage, manifest, item.path, verified)
    yield from _verify_batches(storage, control, lineage, oldest, payloads)


def _readable(storage: ObjectStorage, path: str) -> Manifest | None:
    try:
        return read_manifest(storage, path)
    except (CorruptionError, FormatError):
        return None


def _verify_identity(
    storage: ObjectStorage, control: Control | None, lineages: list[StoredLineage]
) -> Iterator[Finding]:
    try:
        store = read_store(storage)
    except (CorruptionError, FormatError) as error:
        yield finding(error, layout.STORE)
        return
    if store is None:
        yield Finding(layout.STORE, 0, "missing")
    elif control is not None and store.store != control.lineage.store:
        yield Finding(layout.STORE, 0, f"names store {store.store}, the coordinator {control.lineage.store}")
    for lineage in lineages:
        try:
            read_marker(storage, lineage.root)
            read_binding(storage, lineage.root)
            read_inherited_keys(storage, lineage.root)
        except CorruptionError as error:
            yield finding(error, lineage.root)
    if control is None:
        return
    marker = layout.active_marker(control.lineage.root)
    if not any(lineage.active and lineage.root == control.lineage.root for lineage in lineages):
        yield Finding(marker, 0, "the current lineage has no marker")
    newest = max((lineage.epoch for lineage in past_lineages(storage, None)), default=0)
    if newest > control.lineage.epoch:
        yield Finding(marker, 0, f"storage has epoch {newest}, after the coordinator's {control.lineage.epoch}")


def _verify_binding(coordinator: Coordinator, storage: ObjectStorage, control: Control) -> Iterator[Finding]:
    root = control.lineage.root
    try:
        binding = read_binding(storage, root)
    except CorruptionError:
        return  # found with its lineage
    newer = read_control(coordinator)  # after the storage: marks rise
    if binding is None or newer is None or newer.lineage != control.lineage:
        return
    try:
        check_binding(coordinator, newer, binding)
    except RecoveryError as error:
        yield finding(error, layout.binding(root))


def _verify_log(
    coordinator: Coordinator, storage: ObjectStorage, control: Control, payloads: set[PayloadRef]
) -> Iterator[Finding]:
    """Check that each WAL in the coordinator is intact, and that no WAL is missing from the checkpoint to the head.

    Add the intact payloads to `payloads`: storage names them again.
    """
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
            if record.payload is not None:
                payloads.add(record.payload)
        except (CorruptionError, FormatError) as error:
            yield finding(error, item.key)
    checkpointed = Sequence.parse(control.checkpoint.sequence)
    if (last or checkpointed) != control.head and control.head != checkpointed:
        yield Finding(keys.HEAD, 0, f"the head is {control.head}, the newest WAL {last}")
    if control.synced > control.head or checkpointed > control.head:
        yield Finding(keys.HEAD, 0, f"the head {control.head} lies before what is synced or checkpointed")


def _verify_records(coordinator: Coordinator, control: Control) -> Iterator[Finding]:
    """Check that the coordinator's other records are readable."""
    for prefix, record in ((keys.WAL_IDS, WalIdRecord), (keys.INSTANCES, InstanceRecord)):
        for item in iterate(coordinator, prefix, revision=control.revision):
            try:
                decode(record, item.value, item.key)
            except CorruptionError as error:
                yield finding(error, item.key)


def _verify_batches(
    storage: ObjectStorage,
    control: Control | None,
    lineage: StoredLineage,
    oldest: Sequence | None,
    payloads: set[PayloadRef],
) -> Iterator[Finding]:
    """Check that each batch of a lineage is intact, and that no WAL is missing after the oldest manifest."""
    reached = oldest or Sequence(lineage.epoch, 0)
    seen: dict[Sequence, str] = {}
    for first, last, path in list_batches(storage, lineage.root):
        if oldest is not None and first > reached.next():
            yield Finding(path, 0, f"no WAL follows {reached}: the next batch begins at {first}")
        reached = max(reached, last)
        seen = {sequence: wal_id for sequence, wal_id in seen.items() if sequence >= first}
        try:
            records = read_batch(storage, path)
        except (CorruptionError, FormatError) as error:
            yield finding(error, path)
            continue
        except NotFoundError:
            if (
                oldest is None or last > oldest
            ):  # else every manifest has its WALs: it was collected since it was listed
                yield Finding(path, 0, "the batch is missing")
            continue
        yield from _verify_wals(storage, records, seen, path, oldest, payloads)
    if control is not None and lineage.root == control.lineage.root and reached < control.synced:
        yield Finding(keys.SYNC, 0, f"WALs are said to be in storage up to {control.synced}; they end at {reached}")


def _verify_wals(
    storage: ObjectStorage,
    records: list[WalRecord],
    seen: dict[Sequence, str],
    path: str,
    oldest: Sequence | None,
    payloads: set[PayloadRef],
) -> Iterator[Finding]:
    for record in records:
        if seen.setdefault(record.sequence, record.wal_id) != record.wal_id:
            yield Finding(path, 0, f"another batch has a different WAL {record.sequence}")
        if oldest is not None and record.sequence <= oldest:
            continue  # every manifest has it: its payload may be collected, and the batch will be
        if record.payload in payloads:
            continue
        try:
            read_actions(storage, record)
        except CorruptionError as error:
            yield finding(error, path)


def _verify_current(storage: ObjectStorage, control: Control) -> Iterator[Finding]:
    """Check that the manifest that the coordinator names exists, and is the right one."""
    path = control.checkpoint.path
    if not any(True for _ in storage.list(path)):
        yield Finding(path, 0, "the current manifest is missing")
        return
    try:
        manifest = read_manifest(storage, path)
    except (CorruptionError, FormatError):
        return  # found with the others
    if manifest.position != control.checkpoint.sequence or manifest.number != control.checkpoint.number:
        yield Finding(path, 0, "is not the manifest that the coordinator names")
