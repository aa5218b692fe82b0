"""The log as one process knows it: its head, the view that readers get, and how it follows other processes.

One lock guards changes; readers take the published `View` without it. The leader of a group commit applies this
process's commits as soon as the coordinator has them; `catch_up` applies those of other processes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Items

from agola_core.coordinator.port import Compare, Coordinator, Target
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.control import Control, decode_item, require_control
from agola_core.datamanager.format.records import (
    CheckpointRecord,
    HeadRecord,
    LineageRecord,
    SyncRecord,
    Wal,
    encode,
)
from agola_core.datamanager.log.durability_gate import DurabilityGate
from agola_core.datamanager.log.group_revisions import GroupRevisions
from agola_core.datamanager.log.log_reader import LogReader
from agola_core.datamanager.log.recent_wals import RecentWals
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.memtable import Memtable
from agola_core.datamanager.sstable.view import View
from agola_core.errors import ClosedError, CompactedError, CorruptionError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.processes.forks import Origin, fork_safe
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

_OVERTAKEN = 5


class Log:
    """The log of one store, in one process.

    Args:
        coordinator: Commits the log.
        storage: Holds checkpoints and large payloads.
        cache: Shared by the tables of all manifests.

    Attributes:
        origin: The process that has it open.
        lock: Held to change anything below; readers never take it.
        changed: Notified (it uses `lock`) when the view or `closed` changes.
        view: The newest view; replaced as a whole.
        head_revision: The revision of the head key that `view` reflects.
        head_id: The id of the newest WAL in `view`.
        groups: The known revisions of change groups.
        floor: Tokens older than this revision are refused.
        collected: The revision of the last collection of payloads that came before `head_revision`.
        may_be_behind: Whether an import's outcome is not known yet: readers must catch up first.
        lost: The reason why the coordinator cannot be followed, while it cannot; readers and feeds raise it.
    """

    def __init__(self, coordinator: Coordinator, storage: ObjectStorage, cache: BlockCache) -> None:
        self.coordinator = coordinator
        self.storage = storage
        self.origin = Origin("the store")
        self.lock = fork_safe(threading.RLock())
        self.changed = fork_safe(threading.Condition(self.lock))
        self.groups = GroupRevisions()
        self.floor = 0
        self.collected = 0
        self.closed = False
        self.lost: RecoveryError | None = None
        self.may_be_behind = False
        self._reader = LogReader(coordinator, storage, cache)
        self._recent = RecentWals("")
        self._waiting = 0
        self._gate = DurabilityGate(Sequence(0, 0))
        self._checkpoint_revision = 0
        self.view: View
        self.head_revision: int
        self.head_id = ""
        self._head_value = b""  # not known yet
        with self.lock:
            self._open()

    @property
    def lineage(self) -> LineageRecord:
        """The lineage that the view belongs to."""
        return self.view.lineage

    @property
    def synced(self) -> Sequence:
        """The newest WAL that is in storage."""
        return self._gate.synced

    @property
    def head_value(self) -> bytes:
        """The value of the head key that `view` reflects."""
        if not self._head_value:
            view = self.view
            self._head_value = encode(HeadRecord(str(view.sequence), view.lineage.lineage, self.head_id))
        return self._head_value

    def stands(self) -> list[Compare]:
        """Return the conditions that the view still ends at the log's head; the caller holds the lock."""
        return [Compare(keys.HEAD, self.head_revision), Compare(keys.HEAD, self.head_value, Target.VALUE)]

    def catch_up(self) -> None:
        """Apply the commits, checkpoints and lineage switches of other processes to the view.

        Raises:
            RecoveryError: The coordinator went back in time (a restored backup).
        """
        with self.lock:
            self._check_open()
            self.lost = None
            head = self.coordinator.get(keys.HEAD)
            checkpoint = self.coordinator.get(keys.CHECKPOINT)
            if (
                head is not None
                and checkpoint is not None
                and head.mod_revision == self.head_revision
                and head.value == self.head_value
                and checkpoint.mod_revision == self._checkpoint_revision
                and self._synced_on()
            ):
                return
            for attempt in range(_OVERTAKEN):
                try:
                    self._catch_up(attempt)
                    return
                except CompactedError:  # a list at a fixed revision was overtaken: read a newer one
                    continue
            raise RecoveryError("the log is compacted faster than it can be read")

    def _synced_on(self) -> bool:
        """Read up to which WAL storage has the log; return whether it moved forward or stayed."""
        item = self.coordinator.get(keys.SYNC)
        if item is None:
            return False
        synced = Sequence.parse(decode_item(SyncRecord, item).sequence)
        self.take_synced(synced)
        return synced == self.synced

    def _catch_up(self, attempt: int) -> None:
        synced = self.synced  # before the control keys: batches arrive without the lock
        control = require_control(self.coordinator)
        view = self.view
        if control.lineage != view.lineage:
            if control.lineage.store != view.lineage.store or control.lineage.epoch < view.lineage.epoch:
                raise RecoveryError(
                    f"the coordinator went back from epoch {view.lineage.epoch} to {control.lineage.epoch}, "
                    "or is another store's: recover the store from its storage"
                )
            logger.info("lineage changed: epoch=%d lineage=%s", control.lineage.epoch, control.lineage.lineage)
            self._reload(control)
            return
        if control.head < view.sequence or control.synced < synced:
            raise RecoveryError(
                f"the coordinator went back in time, from {max(view.sequence, synced)} to "
                f"{control.head}: recover the store from its storage"
            )
        if Sequence.parse(control.checkpoint.sequence) > view.sequence or attempt:
            self._reload(control)
            return
        if not self._reader.holds(view.sequence, self.head_id, control):
            self.groups.forget()
        self._apply_from_coordinator(control)
        if control.checkpoint.number > self.view.manifest.number:
            self._adopt(control.checkpoint, control.checkpoint_revision)
        self._take_control(control)

    def applied(self, wals: Items[Wal], revision: int, head_value: bytes = b"") -> None:
        """Add WALs that the coordinator has committed in one transaction; the caller holds the lock.

        Args:
            wals: At least one, in order; the first must follow the view's newest.
            revision: The transaction's.
            head_value: The value it wrote to the head key, if known.
        """
        # Readers take tokens before data, so the data must show before the group's new revision does.
        self.view = self.view.extended(wals, revision)
        self.head_revision = revision
        self.head_id, self._head_value = wals[-1].record.wal_id, head_value
        for wal in wals:
            if wal.record.groups:
                self.groups.moved(wal.record.groups, revision)
        self._recent.add(wals)
        if self._waiting:
            self.changed.notify_all()

    def take_synced(self, sequence: Sequence) -> None:
        """Note that storage has the log up to a WAL, and let the writers through who waited for it.

        A WAL of a later lineage lets nobody through before the log has switched to it: its writers wait for others.
        """
        if sequence.epoch == self.lineage.epoch:
            self._gate.let_through(sequence)

    def adopt(self, checkpoint: CheckpointRecord, revision: int) -> None:
        """Switch the view to a newer manifest; views already handed out stay as they are."""
        with self.lock:
            try:
                self._adopt(checkpoint, revision)
            except CompactedError:  # this process was paused: the next catching up takes the newer one
                logger.info("manifest %d was replaced before it was read", checkpoint.number)

    def wait(self, satisfied: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `satisfied()` and return whether it is. Called without the lock; `satisfied` runs under it.

        Raises:
            ClosedError: The log was closed meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            self._waiting += 1
            try:
                while not satisfied():
                    self._check_open()
                    self.check_followed()
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self.changed.wait(left)
                return True
            finally:
                self._waiting -= 1

    def wait_synced(self, sequence: Sequence, check: Callable[[], None], timeout: float | None) -> bool:
        """Wait until storage has a WAL; return whether it has.

        Args:
            sequence: The WAL's sequence.
            check: Raises an error when there is nothing to wait for; called whenever writers are woken.
            timeout: Seconds to wait; None waits without limit.

        Raises:
            ClosedError: The log was closed meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            held = self._gate.enter(sequence)  # before the checks: what changes after them wakes it
            try:
                check()  # first: a later lineage's WALs are greater than one that it left behind
                if held is None:
                    return True
                self._check_open()
                left = -1.0 if deadline is None else deadline - time.monotonic()
                if deadline is not None and left <= 0:
                    return False
                if held.acquire(timeout=left):
                    held = None
            finally:
                if held is not None:
                    self._gate.leave(held)

    def wake_writers(self) -> None:
        """Wake everybody in `wait_synced`, to check whether waiting still makes sense."""
        self._gate.wake_all()

    def lose(self, error: RecoveryError) -> None:
        """Record why the coordinator cannot be followed, and wake everybody who waits."""
        with self.lock:
            self.lost = error
            self.changed.notify_all()
            self._gate.wake_all()

    def check_current(self) -> None:
        """Raise `RecoveryError` while the coordinator cannot be followed, and find out how an import ended."""
        self.check_followed()
        if self.may_be_behind:
            self.catch_up()
            self.may_be_behind = False

    def check_followed(self) -> None:
        """Raise `RecoveryError` while the coordinator cannot be followed."""
        if self.lost is not None:
            raise RecoveryError(str(self.lost)) from self.lost

    def recent_after(self, sequence: Sequence) -> list[Wal] | None:
        """Return the WALs after a sequence if memory still has all of them, else None."""
        with self.lock:
            if sequence >= self.view.sequence:
                return []
            if sequence.epoch != self.lineage.epoch:
                return None
            return self._recent.after(sequence)

    def unsynced_frames(self, lineage: LineageRecord, after: Sequence) -> tuple[list[bytes], Sequence]:
        """Return the frames of all WALs after a sequence, and the last one's sequence; without waiting for a commit.

        There are none if memory does not have all of them, or if the log has left the lineage.
        """
        recent = self._recent
        wals = recent.newest(after) if recent.lineage == lineage.lineage else []
        return [wal.frame for wal in wals], wals[-1].record.sequence if wals else after

    def close(self) -> None:
        """Wake everybody who waits; they raise `ClosedError`."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()
            self._gate.wake_all()

    def _check_open(self) -> None:
        self.origin.check()
        if self.closed:
            raise ClosedError("the datamanager was closed")

    def _open(self) -> None:
        for _ in range(_OVERTAKEN):
            control = require_control(self.coordinator)
            try:
                self._reload(control)
                return
            except CompactedError:  # as in `catch_up`
                continue
        raise RecoveryError("the log is compacted faster than it can be read")

    def _reload(self, control: Control) -> None:
        """Read the coordinator's state from the checkpoint on; readers keep the old view until all of it is read."""
        manifest, table = self._reader.open_checkpoint(control.checkpoint, control.checkpoint_revision)
        start = Sequence.parse(control.checkpoint.sequence)
        view = View(control.lineage, manifest, table, Memtable(), start, control.head_revision)
        recent, groups = RecentWals(control.lineage.lineage), GroupRevisions()
        for wals, revision in self._reader.wals_after(start, control):
            view = view.extended(wals, revision)
            recent.add(wals)
            for wal in wals:
                groups.moved(wal.record.groups, revision)
        _check_end(view, control)
        self.groups.forget()  # before the view: a revision from before it must not come with newer data
        self.view, self._recent, self.groups = view, recent, groups
        self._reader.close_files_outside(manifest)
        self._checkpoint_revision = control.checkpoint_revision
        self._gate.reset(control.synced)
        self._take_control(control)

    def _apply_from_coordinator(self, control: Control) -> None:
        for wals, revision in self._reader.wals_after(self.view.sequence, control):
            self.applied(wals, revision)
        _check_end(self.view, control)

    def _take_control(self, control: Control) -> None:
        self.view = self.view._replace(revision=control.head_revision)
        self.head_revision = control.head_revision
        self.head_id, self._head_value = control.head_id, b""
        self.collected = control.collection_revision
        if control.floor != self.floor:
            self.floor = control.floor
            self.groups.forget()
        self.take_synced(control.synced)
        self.changed.notify_all()

    def _adopt(self, checkpoint: CheckpointRecord, revision: int) -> None:
        if checkpoint.lineage != self.lineage.lineage or checkpoint.number <= self.view.manifest.number:
            return  # this process knows a newer one meanwhile
        manifest, table = self._reader.open_checkpoint(checkpoint, revision)
        memtable = self.view.memtable.after(Sequence.parse(checkpoint.sequence).counter)
        self.view = self.view._replace(manifest=manifest, table=table, memtable=memtable)
        self._reader.close_files_outside(manifest)
        self._checkpoint_revision = revision
        self.changed.notify_all()


def _check_end(view: View, control: Control) -> None:
    if view.sequence != control.head:
        raise CorruptionError(f"the log ends at {view.sequence}, its head is {control.head}", path=keys.HEAD)
