"""Sync: copies committed WALs from the coordinator to object storage, many in one batch.

Any instance may sync. It writes true copies of committed WALs, so a second copy does no harm. The sync record only
moves forward, because each change of it compares its revision and that of the lineage. It also compares the newest WAL
that storage has got: a coordinator that was restored meanwhile may not have it, or another one in its place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from agola_core.coordinator.port import Compare, PutOp, Target, iterate
from agola_core.datamanager.format import keys, layout, records
from agola_core.datamanager.format.batches import MAX_BATCH_WALS, encode_batch
from agola_core.datamanager.format.control import RECOVERY_ADVICE, Control, require_control
from agola_core.datamanager.format.lineages import mark_active
from agola_core.datamanager.format.records import SyncRecord, decode_wal
from agola_core.datamanager.log.log import Log
from agola_core.errors import CorruptionError, RecoveryError
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.forks import fork_safe
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("sync.before-batch", "sync.before-txn")

_BATCH_BYTES = 8 * 1024 * 1024


class Batch(NamedTuple):
    """WALs for one object in storage.

    Attributes:
        control: The control keys as they were last seen.
        after: Storage has the log up to here.
        frames: The frames of all WALs from there to `last`.
        last: The newest of them.
    """

    control: Control
    after: Sequence
    frames: list[bytes]
    last: Sequence


class _Arrived(NamedTuple):
    """The newest WAL that has arrived in storage.

    Attributes:
        revision: That of its lineage, as it was last seen.
        last: The WAL.
        frame: What the coordinator holds of it.
    """

    revision: int
    last: Sequence
    frame: bytes


class Syncer:
    """Copies a log to its storage.

    Args:
        log: The log.
        new_nonce: Returns 16 hexadecimal digits that no other batch has.
    """

    def __init__(self, log: Log, new_nonce: Callable[[], str]) -> None:
        self._log = log
        self._new_nonce = new_nonce
        self._recording = fork_safe(threading.Lock())
        self._arrived = _Arrived(0, Sequence(0, 0), b"")
        self._marked = ""
        self._highest = Sequence(0, 0)
        self._seen: Control | None = None

    def sync(self) -> Sequence:
        """Copy everything committed so far; return the newest WAL in storage.

        Raises:
            RecoveryError: The coordinator went back in time.
        """
        control = self._control()
        target = control.head  # what is committed from now on is the next sync's
        while control.synced < target:
            self._sync_batch(control)
            control = self._control()
            if control.head.epoch != target.epoch:  # imported or recovered meanwhile
                target = control.head
        self._log.take_synced(control.synced)
        return control.synced

    def newest_batch(self) -> Batch | None:
        """Return what this process has committed and storage lacks; None if only `sync` knows."""
        control, synced = self._seen, self._log.synced
        if control is None or control.lineage.lineage != self._marked or synced.epoch != control.lineage.epoch:
            return None
        frames, last = self._log.unsynced_frames(control.lineage, synced)
        return Batch(control, synced, frames, last) if frames else None

    def send(self, batch: Batch) -> None:
        """Write a batch to storage and record that it is there.

        Nothing is read before: the transaction that moves the sync record compares the lineage.

        Raises:
            RecoveryError: The coordinator went back in time.
        """
        path = layout.wal_batch(batch.control.lineage.root, batch.after.next(), batch.last, self._new_nonce())
        faultpoints.reach("sync.before-batch")
        self._log.storage.write(path, encode_batch(batch.frames))
        self._move_record(batch.control, batch.last, batch.frames[-1])

    def _control(self) -> Control:
        view, highest = self._log.view, self._highest
        control = require_control(self._log.coordinator)
        if control.synced < highest or (control.lineage == view.lineage and control.head < view.sequence):
            raise RecoveryError(
                f"the coordinator went back in time: there were WALs up to {max(highest, view.sequence)}, "
                f"storage has those up to {highest}; it says {control.head} and {control.synced}: "
                "recover the store from its storage"
            )
        self._seen = control
        return control

    def _sync_batch(self, control: Control) -> None:
        if control.lineage.lineage != self._marked:
            mark_active(self._log.storage, control.lineage)  # no WAL of a lineage goes to storage before
            self._marked = control.lineage.lineage
        frames, last = self._from_memory(control) or self._from_coordinator(control)
        self.send(Batch(control, control.synced, frames, last))

    def _move_record(self, control: Control, last: Sequence, frame: bytes) -> None:
        """Record that storage has the log up to a WAL, unless the record is there or another lineage began.

        One thread at a time does it, for all batches that have arrived. What storage lacks is in the coordinator, so
        the newest of these WALs must be there.

        Raises:
            RecoveryError: The coordinator went back in time.
        """
        own = _Arrived(control.lineage_revision, last, frame)
        self._arrived = max(self._arrived, own)  # one that is lost here is recorded by its own thread
        with self._recording:
            seen = self._seen if self._seen is not None else control
            if seen.lineage_revision < control.lineage_revision or seen.sync_revision < control.sync_revision:
                seen = control
            while seen.lineage_revision == control.lineage_revision and seen.synced < last:
                faultpoints.reach("sync.before-txn")
                arrived = self._arrived
                newest = max(own, arrived) if arrived.revision == own.revision else own
                result = self._log.coordinator.txn(
                    [
                        Compare(keys.LINEAGE, seen.lineage_revision),
                        Compare(keys.SYNC, seen.sync_revision),
                        Compare(keys.wal(newest.last), newest.frame, Target.VALUE),
                    ],
                    [PutOp(keys.SYNC, records.encode(SyncRecord(str(newest.last), seen.lineage.lineage)))],
                )
                if result.succeeded:
                    self._highest = max(self._highest, newest.last)
                    self._seen = seen._replace(synced=newest.last, sync_revision=result.revision)
                    self._log.take_synced(newest.last)
                    return
                before, seen = seen, self._control()  # another process was faster
                if (seen.lineage_revision, seen.sync_revision) == (before.lineage_revision, before.sync_revision):
                    raise RecoveryError(
                        f"the coordinator went back in time: it has lost WAL {newest.last}, which storage has: "
                        f"{RECOVERY_ADVICE}"
                    )
            if seen.lineage_revision == control.lineage_revision:
                self._log.take_synced(seen.synced)

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
