"""Verification: everything that a store has is read and checked, and each thing that does not hold is reported.

It changes nothing, and may run beside writers: what they add after it began is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from agola_core.coordinator.port import Coordinator, iterate
from agola_core.datamanager import keys, layout
from agola_core.datamanager.batches import list_batches, read_actions, read_batch
from agola_core.datamanager.block import decode_block
from agola_core.datamanager.datafile import MAGIC, FileRef, KeyFilter, decode_footer, key_hash
from agola_core.datamanager.entries import split_key
from agola_core.datamanager.lineage import read_store, root_of, stored_lineages
from agola_core.datamanager.log import Control, read_control
from agola_core.datamanager.manifest import Manifest, read_manifest
from agola_core.datamanager.records import WalRecord, decode_wal
from agola_core.errors import AgolaError, CorruptionError, FormatError, NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence


class Finding(msgspec.Struct, frozen=True):
    """Something that does not hold.

    Attributes:
        path: The object in storage, or the key in the coordinator.
        offset: The first byte of what is damaged; 0 where it is all of it.
        problem: What does not hold.
    """

    path: str
    offset: int
    problem: str


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
    for run in manifest.runs:
        for one, two in zip(run.files, run.files[1:], strict=False):
            if one.last >= two.first:
                yield Finding(two.path, 0, f"does not follow {one.path}")
        for ref in run.files:
            try:
                verify_file(storage, ref)
            except CorruptionError as error:
                yield _finding(error, ref.path)


def verify_file(storage: ObjectStorage, ref: FileRef) -> None:
    """Check every byte of a data file against its manifest's record.

    Raises:
        CorruptionError: The first thing that does not hold, with its offset.
    """
    digest, size = hashlib.blake2b(digest_size=32), 0
    try:
        for piece in storage.open_stream(ref.path):
            digest.update(piece)
            size += len(piece)
        footer = decode_footer(storage.read(ref.path, ref.footer), ref)
        start = storage.read(ref.path, 0, len(MAGIC))
    except NotFoundError as error:
        raise CorruptionError("the data file is missing", path=ref.path) from error
    if start != MAGIC:
        raise CorruptionError("not a data file", path=ref.path)
    known = KeyFilter(footer.filter) if footer.filter else None
    entries = tombstones = 0
    last: bytes | None = None
    for index, offset in enumerate(footer.offsets):
        stored = storage.read(ref.path, offset, footer.lengths[index])
        block = decode_block(
            stored, footer.codings[index], footer.crcs[index], footer.last_keys[index], ref.path, offset
        )
        for key, value in block.entries():
            if last is not None and key <= last:
                raise CorruptionError(
                    f"{split_key(key)} does not sort after the entry before", path=ref.path, offset=offset
                )
            if known is not None and not known.may_have(key_hash(key)):
                raise CorruptionError(f"the filter misses {split_key(key)}", path=ref.path, offset=ref.footer)
            last = key
            entries += 1
            tombstones += value is None
        if last != footer.last_keys[index]:
            raise CorruptionError("the index does not match a block's last key", path=ref.path, offset=offset)
    if (entries, tombstones) != (ref.entries, ref.tombstones):
        raise CorruptionError(f"{entries} entries, {tombstones} deletes; the manifest says otherwise", path=ref.path)
    if size != ref.size or digest.hexdigest() != ref.digest:
        raise CorruptionError("the digest of the file does not match", path=ref.path)
