"""Sync: copies committed WALs from the coordinator to object storage, many in one batch.

Any instance may sync. It writes true copies of committed WALs, so a second copy does no harm. The sync record only
moves forward, because each change of it compares its revision and that of the lineage.

Several batches may be on their way at once, so that a WAL never waits for the end of a request that left without it.
Each batch begins where storage ends for certain and repeats what the batches before it hold: whichever arrives first,
there is never a gap.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agola_core.coordinator.port import Compare, PutOp, iterate
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.batches import MAX_BATCH_WALS, encode_batch
from agola_core.datamanager.format.control import Control, require_control
from agola_core.datamanager.format.lineages import mark_active
from agola_core.datamanager.format.records import SyncRecord, decode_wal
from agola_core.datamanager.log.log import Log
from agola_core.errors import CorruptionError, RecoveryError
from agola_core.runtime import faultpoints
from agola_core.runtime.forks import fork_safe
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("sync.before-batch", "sync.before-txn")

FLIGHTS = 4
"""How many batches may be on their way at once."""

_BATCH_BYTES = 8 * 1024 * 1024
_REPEATED_BYTES = 256 * 1024
"""The next batch waits for one of more bytes, instead of repeating it."""


class Syncer:
    """Copies a log to its storage.

    Args:
        log: The log.
        new_nonce: Returns 16 hexadecimal digits that no other batch has.
    """

    def __init__(self, log: Log, new_nonce: Callable[[], str]) -> None:
        self._log = log
        self._new_nonce = new_nonce
        self._lock = fork_safe(threading.Lock())
        self._flights = threading.BoundedSemaphore(FLIGHTS)
        self._marked = ""
        self._highest = Sequence(0, 0)
        self._on_the_way = Sequence(0, 0)
        self._bytes_on_the_way = 0

    def claim(self) -> bool:
        """Return whether the caller should sync: whether WALs wait that are in no batch on its way."""
        with self._lock:
            newest = self._log.view.sequence
            if newest <= max(self._log.synced, self._on_the_way) or self._bytes_on_the_way > _REPEATED_BYTES:
                return False
            self._on_the_way = newest
            return True

    def sync(self) -> Sequence:
        """Copy everything committed so far; return the newest WAL in storage.

        Raises:
            RecoveryError: The coordinator went back in time.
        """
        try:
            with self._flights:
                return self._sync()
        except BaseException:
            self._on_the_way, self._bytes_on_the_way = Sequence(0, 0), 0  # nobody may wait for it
            raise

    def _sync(self) -> Sequence:
        control = self._control()
        target = control.head  # what is committed from now on is the next sync's
        while control.synced < target:
            self._sync_batch(control)
            control = self._control()
            if control.head.epoch != target.epoch:  # imported or recovered meanwhile
                target = control.head
        self._log.take_synced(control.synced)
        return control.synced

    def _control(self) -> Control:
        view, highest = self._log.view, self._highest
        control = require_control(self._log.coordinator)
        if control.synced < highest or (control.lineage == view.lineage and control.head < view.sequence):
            raise RecoveryError(
                f"the coordinator went back in time: there were WALs up to {max(highest, view.sequence)}, "
                f"storage has those up to {highest}; it says {control.head} and {control.synced}: "
                "recover the store from its storage"
            )
        return control

    def _sync_batch(self, control: Control) -> None:
        if control.lineage.lineage != self._marked:
            mark_active(self._log.storage, control.lineage)  # no WAL of a lineage goes to storage before
            self._marked = control.lineage.lineage
        frames, last = self._from_memory(control) or self._from_coordinator(control)
        batch = encode_batch(frames)
        self._on_the_way, self._bytes_on_the_way = max(self._on_the_way, last), len(batch)
        path = layout.wal_batch(control.lineage.root, control.synced.next(), last, self._new_nonce())
        faultpoints.reach("sync.before-batch")
        self._log.storage.write(path, batch)
        self._bytes_on_the_way = 0
        self._move_record(control, last)

    def _move_record(self, control: Control, last: Sequence) -> None:
        """Record that storage has the log up to a WAL, unless the record is there or another lineage began."""
        seen = control
        while seen.lineage_revision == control.lineage_revision and seen.synced < last:
            faultpoints.reach("sync.before-txn")
            result = self._log.coordinator.txn(
                [Compare(keys.LINEAGE, seen.lineage_revision), Compare(keys.SYNC, seen.sync_revision)],
                [PutOp(keys.SYNC, records.encode(SyncRecord(str(last), seen.lineage.lineage)))],
            )
            if result.succeeded:
                self._highest = max(self._highest, last)
                self._log.take_synced(last)
                return
            seen = self._control()  # another batch arrived first

    def _from_memory(self, control: Control) -> tuple[list[bytes], Sequence] | None:
        """Return the frames of the next WALs that this process still has in memory, and the last one's sequence."""
        if self._log.lineage != control.lineage:
            return None
        frames: list[bytes] = []
        size, last = 0, control.synced
        while size < _BATCH_BYTES and len(frames) < MAX_BATCH_WALS:
            found = [wal for wal in self._log.recent_after(last) or () if wal.record.counter <= control.head.counter]
            if not found:
                break
            frames += [wal.frame for wal in found]
            size += sum([len(wal.frame) for wal in found])
            last = found[-1].record.sequence
        return (frames, last) if frames else None

    def _from_coordinator(self, control: Control) -> tuple[list[bytes], Sequence]:
        frames: list[bytes] = []
        size, last = 0, control.synced
        for item in iterate(
            self._log.coordinator, keys.WALS, start_after=keys.wal(control.synced), revision=control.revision
        ):
            record = decode_wal(item.value, item.key)
            if record.previous_sequence != last:
                raise CorruptionError(f"WAL {record.sequence} does not follow {last}", path=item.key)
            frames.append(item.value)
            size, last = size + len(item.value), record.sequence
            if size >= _BATCH_BYTES or len(frames) >= MAX_BATCH_WALS or last == control.head:
                break
        if not frames:
            raise CorruptionError(f"WALs after {control.synced} are missing", path=keys.WALS)
        return frames, last
