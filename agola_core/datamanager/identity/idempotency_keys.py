"""Carries idempotency keys over a recovery, so that a retry after it still returns the first outcome (invariant 4).

The coordinator remembers the outcome of each WAL whose writer gave an id. When the coordinator is lost, the WALs in
storage still tell them. A recovery inherits the newest outcomes of the lineage that it continues: from the WALs that
storage still has, checkpointed or not, and from those that this lineage itself inherited. It writes them under the new
lineage, where the next recovery finds them, and to the coordinator, before the switch: no other lineage reads them.

An import inherits nothing: what was written before it is no longer in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items

import msgspec

from agola_core.coordinator.port import Compare, Coordinator, PutOp
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.batches import list_batches, read_batch
from agola_core.datamanager.format.checksummed import decode_checksummed, encode_checksummed
from agola_core.datamanager.format.lineages import StoredLineage
from agola_core.datamanager.format.records import WalIdRecord, WalRecord
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import ConflictError, CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.threads.parallel import parallel_map
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("recovery.before-ids", "recovery.before-ids-part")

_READ_AHEAD = 4
_SPARE_OPS = 4


class InheritedRecord(msgspec.Struct, frozen=True):
    """`walids.json` of a lineage: the inherited ids with their outcomes, oldest first."""

    ids: tuple[tuple[str, WalIdRecord], ...]


class InheritedKeys:
    """The idempotency keys that a new lineage inherits from the one that it continues.

    Args:
        storage: The store's object storage.
        source: The lineage that is recovered.
        heir: The new lineage's id.
        limit: How many keys to inherit at most; the newest ones.
    """

    def __init__(self, storage: ObjectStorage, source: StoredLineage, heir: str, limit: int) -> None:
        self._storage = storage
        self._source = source
        self._heirs = (source.lineage, heir)
        self._limit = limit
        self._found: dict[str, WalIdRecord] = {}

    def collect(self, wals: Iterator[WalRecord]) -> Iterator[WalRecord]:
        """Yield the source's newest WALs, in order, and collect their keys."""
        for record in wals:
            if record.given:
                self._found.pop(record.wal_id, None)
                self._found[record.wal_id] = self._outcome(record)
                if len(self._found) > self._limit:
                    del self._found[next(iter(self._found))]
            yield record

    def look_back(self, sequence: Sequence) -> None:
        """Collect the keys of the WALs up to a sequence, newest first, as far as storage has them."""
        older: dict[str, WalIdRecord] = {}
        for wal_id, outcome in self._before(sequence):
            if len(self._found) + len(older) >= self._limit:
                break
            if wal_id not in self._found:
                older.setdefault(wal_id, outcome)
        self._found = {**dict(reversed(older.items())), **self._found}

    def write(
        self, coordinator: Coordinator, root: str, conditions: Items[Compare], check: Callable[[], object]
    ) -> None:
        """Write the keys and outcomes for a lineage that is about to become the current one.

        Args:
            coordinator: The store's coordinator, where the conflict check reads them.
            root: The new lineage's prefix in storage.
            conditions: The conditions of the switch.
            check: Raises if the switch must not happen.

        Raises:
            ConflictError: A condition does not hold.
        """
        if not self._found:
            return
        check()
        faultpoints.reach("recovery.before-ids")
        self._storage.write(layout.wal_ids(root), encode_checksummed(InheritedRecord(tuple(self._found.items()))))
        for part in self._parts(coordinator.max_txn_ops - _SPARE_OPS, coordinator.max_txn_bytes // 2):
            faultpoints.reach("recovery.before-ids-part")
            if not coordinator.txn(conditions, part).succeeded:
                check()
                raise ConflictError("another process created, recovered or imported the store first")
        logger.info("recovery: %d idempotency keys were inherited", len(self._found))

    def _parts(self, ops: int, size: int) -> Iterator[list[PutOp]]:
        part: list[PutOp] = []
        left = size
        for wal_id, outcome in self._found.items():
            op = PutOp(keys.wal_id(wal_id), records.encode(outcome))
            needs = len(op.key.encode()) + len(op.value)
            if part and (len(part) >= ops or needs > left):
                yield part
                part, left = [], size
            part.append(op)
            left -= needs
        yield part

    def _before(self, sequence: Sequence) -> Iterator[tuple[str, WalIdRecord]]:
        """Yield ids and outcomes, newest first; skip what cannot be read, because recovery does not need it."""
        batches = [batch for batch in list_batches(self._storage, self._source.root) if batch[0] <= sequence]
        batches.sort(key=lambda batch: batch[1], reverse=True)
        for found in parallel_map(lambda batch: self._read(batch[2]), batches, workers=_READ_AHEAD):
            for record in reversed(found):
                if record.given and record.sequence <= sequence:
                    yield record.wal_id, self._outcome(record)
        for wal_id, outcome in reversed(self._from_ancestors()):
            yield wal_id, msgspec.structs.replace(outcome, heirs=self._heirs)

    def _read(self, path: str) -> list[WalRecord]:
        try:
            return read_batch(self._storage, path)
        except CorruptionError as error:
            logger.warning("recovery cannot read the idempotency keys of a damaged batch: %s", error)
            return []
        except NotFoundError:  # collected since it was listed
            return []

    def _from_ancestors(self) -> tuple[tuple[str, WalIdRecord], ...]:
        try:
            return read_inherited_keys(self._storage, self._source.root)
        except CorruptionError as error:
            logger.warning("recovery cannot read older idempotency keys: %s", error)
            return ()

    def _outcome(self, record: WalRecord) -> WalIdRecord:
        digest = record.payload.digest if record.payload is not None else records.digest_of(record.actions)
        return WalIdRecord(str(record.sequence), self._source.lineage, digest, record.groups, self._heirs)


def read_inherited_keys(storage: ObjectStorage, root: str) -> tuple[tuple[str, WalIdRecord], ...]:
    """Return the ids that a lineage has inherited, with their outcomes, oldest first.

    Args:
        storage: The store's object storage.
        root: The lineage's prefix.

    Raises:
        CorruptionError: The record is damaged.
    """
    path = layout.wal_ids(root)
    try:
        return msgspec.json.decode(decode_checksummed(storage.read(path), path), type=InheritedRecord).ids
    except NotFoundError:
        return ()
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not outcomes of WAL ids: {error}", path=path) from error
