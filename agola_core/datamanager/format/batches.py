r"""Batches: storage objects that each hold many WALs. Writes and reads them, and the payloads of large WALs.

::

    batch   = magic frame* end
    magic   = b"agola-wals-1\\n"
    frame   = length (u32, little-endian, never 0) and that many bytes: a WAL's frame (`records.encode_wal`)
    end     = u32 0, the count of frames (u32), blake2b-16 of all bytes before this digest
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items

from agola_core.datamanager.format import keys, layout
from agola_core.datamanager.format.events import place
from agola_core.datamanager.format.records import PayloadRef, WalRecord, decode_actions, decode_wal
from agola_core.datamanager.types import Action
from agola_core.encoding.decoding import check_magic
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.threads.parallel import parallel_map
from agola_core.sequence import Sequence

MAGIC = b"agola-wals-1\n"
_LENGTH = struct.Struct("<I")
_END = struct.Struct("<II")
_DIGEST_SIZE = 16
_READ_AHEAD = 4

MAX_BATCH_WALS = 10_000
"""The most WALs of one batch."""


def encode_batch(frames: Iterable[bytes]) -> bytes:
    """Return the batch of some WALs' frames, in their order."""
    pieces = [MAGIC]
    count = 0
    for frame in frames:
        pieces += (_LENGTH.pack(len(frame)), frame)
        count += 1
    pieces.append(_END.pack(0, count))
    body = b"".join(pieces)
    return body + _digest(body)


def decode_batch(data: bytes, path: str) -> list[WalRecord]:
    """Return the WALs of a batch, after checking that they are intact, in order and without gaps.

    Raises:
        CorruptionError: Something is wrong; names the path and the offset.
        FormatError: A later release wrote it.
    """
    check_magic(data, MAGIC, path)
    end = len(data) - _DIGEST_SIZE
    if not data.startswith(MAGIC) or end < len(MAGIC) + _END.size:
        raise CorruptionError("not a batch of WALs", path=path)
    records: list[WalRecord] = []
    view, offset = memoryview(data), len(MAGIC)
    while True:
        if offset + _LENGTH.size > end:
            raise CorruptionError("a batch of WALs is cut short", path=path, offset=offset)
        (length,) = _LENGTH.unpack_from(data, offset)
        if length == 0:
            break
        start = offset + _LENGTH.size
        if start + length > end:
            raise CorruptionError("a WAL is cut short", path=path, offset=offset)
        record = decode_wal(view[start : start + length], path, start)
        if records and record.previous_sequence != records[-1].sequence:
            raise CorruptionError(
                f"WAL {record.sequence} does not follow {records[-1].sequence}", path=path, offset=start
            )
        records.append(record)
        offset = start + length
    if offset + _END.size != end or _END.unpack_from(data, offset)[1] != len(records):
        raise CorruptionError("the end of a batch of WALs does not match", path=path, offset=offset)
    if data[end:] != _digest(data[:end]):
        raise CorruptionError("the digest of a batch of WALs does not match", path=path, offset=end)
    return records


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_SIZE).digest()


def read_batch(storage: ObjectStorage, path: str) -> list[WalRecord]:
    """Return the WALs of the batch at a path (see `decode_batch`)."""
    records = decode_batch(storage.read(path), path)
    named = layout.parse_wal_batch(path)
    if not records or named != (records[0].sequence, records[-1].sequence):
        raise CorruptionError("the name of a batch does not match its WALs", path=path)
    return records


def list_batches(
    storage: ObjectStorage, root: str, after: Sequence | None = None
) -> list[tuple[Sequence, Sequence, str]]:
    """Return the first sequence, last sequence and path of each batch of a lineage, in the order of the first.

    Args:
        storage: The store's object storage.
        root: The lineage's prefix.
        after: Only batches that have WALs after this one.
    """
    start = ""
    if after is not None:  # a batch with a later WAL begins not much before it
        first = Sequence(after.epoch, max(after.counter - MAX_BATCH_WALS, 0))
        start = f"{layout.wals(root)}{first}"
    found = []
    for info in storage.list(layout.wals(root), start_after=start):
        named = layout.parse_wal_batch(info.path)
        if named is not None and (after is None or named[1] > after):
            found.append((*named, info.path))
    return sorted(found)


def read_chain(storage: ObjectStorage, root: str, after: Sequence) -> Iterator[WalRecord]:
    """Yield the WALs of a lineage that storage holds after a sequence, in order, each once.

    Batches may overlap: an instance that lost a race to sync leaves a second copy of what another wrote. This reads
    some batches ahead, at the same time.

    Raises:
        CorruptionError: A gap in the chain, or two different WALs with one sequence.
    """
    expected = after
    seen: dict[Sequence, str] = {}
    batches = list_batches(storage, root, after)
    contents = parallel_map(lambda batch: read_batch(storage, batch[2]), batches, workers=_READ_AHEAD)
    for (first, _, path), records in zip(batches, contents, strict=True):
        if first > expected.next():
            raise CorruptionError(f"no WAL follows {expected}: the next batch begins at {first}", path=path)
        seen = {sequence: wal_id for sequence, wal_id in seen.items() if sequence >= first}  # later ones begin later
        for record in records:
            if record.sequence <= after:
                continue
            if record.sequence <= expected:
                if seen.get(record.sequence) != record.wal_id:
                    raise CorruptionError(f"two different WALs have the sequence {record.sequence}", path=path)
                continue
            expected = record.sequence
            seen[expected] = record.wal_id
            yield record


def write_payload(storage: ObjectStorage, uuid: str, actions: bytes) -> PayloadRef:
    """Store the encoded actions of a large WAL and return a reference to them."""
    path = layout.payload(uuid)
    storage.write(path, actions)
    return PayloadRef(path, len(actions), hashlib.blake2b(actions, digest_size=_DIGEST_SIZE).hexdigest())


def read_actions(storage: ObjectStorage, record: WalRecord) -> Items[Action]:
    """Return a WAL's actions, from the record or from its payload object, its events in their places.

    Raises:
        CorruptionError: The payload is missing, or not what was written.
    """
    actions = _read_actions(storage, record)
    if not record.placed:
        return actions
    try:
        return place(actions, record.placed, record.time)
    except (ValueError, IndexError, struct.error) as error:
        path = keys.wal(record.sequence)
        raise CorruptionError(f"the events of WAL {record.sequence} do not fit", path=path) from error


def _read_actions(storage: ObjectStorage, record: WalRecord) -> list[Action]:
    if record.payload is None:
        return decode_actions(record.actions, f"WAL {record.sequence}")
    ref = record.payload
    try:
        data = storage.read(ref.path)
    except NotFoundError as error:
        raise CorruptionError(f"the payload of WAL {record.sequence} is missing", path=ref.path) from error
    if len(data) != ref.size or hashlib.blake2b(data, digest_size=_DIGEST_SIZE).hexdigest() != ref.digest:
        raise CorruptionError(f"the payload of WAL {record.sequence} is not what was written", path=ref.path)
    return decode_actions(data, ref.path)
