"""The log as one process knows it: its head, the view that readers get, and how it follows the others.

One lock guards changes; readers take the published `View` without it. Commits of this process are applied by
their leader right after the coordinator has them, those of others by `catch_up`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter

from agola_core.coordinator.port import Compare, Coordinator, Target, iterate
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.batches import read_actions
from agola_core.datamanager.format.control import Control, decode_item, read_control
from agola_core.datamanager.format.records import (
    CheckpointRecord,
    HeadRecord,
    LineageRecord,
    SyncRecord,
    Wal,
    decode_wal,
    encode,
)
from agola_core.datamanager.log.durability_gate import SyncGate
from agola_core.datamanager.log.recent_wals import RecentWals
from agola_core.datamanager.sstable.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.datamanager.sstable.memtable import Overlay
from agola_core.datamanager.sstable.table import Table
from agola_core.datamanager.sstable.view import View
from agola_core.errors import ClosedError, CompactedError, CorruptionError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.forks import Origin, renewed
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

_KNOWN_GROUPS = 100_000
_OVERTAKEN = 5


class Log:
    """The log of one store, in one process.

    Args:
        coordinator: Where the log is committed.
        storage: Where checkpoints and large payloads lie.
        cache: Shared by the tables of all manifests.

    Attributes:
        origin: The process that has it open.
        lock: Held by whoever changes what is below; never by readers.
        changed: Notified (it uses `lock`) when the view, `synced` or `closed` changes.
        view: The newest view. Replaced whole.
        head_revision: The revision of the head key that `view` stands on.
        head_id: The id of the newest WAL in `view`.
        lineage_revision: The revision of the lineage key.
        groups: The revisions of change groups, as far as known.
        floor: Tokens older than this revision are refused.
        collected: The revision of the last collection of payloads that came before `head_revision`.
        synced: The newest WAL that is in storage.
        lost: Why the coordinator cannot be followed any more, while it cannot: readers and feeds are told.
    """

    def __init__(self, coordinator: Coordinator, storage: ObjectStorage, cache: BlockCache) -> None:
        self.coordinator = coordinator
        self.storage = storage
        self.origin = Origin("the store")
        self.lock = renewed(threading.RLock())
        self.changed = renewed(threading.Condition(self.lock))
        self.groups: dict[str, int] = {}
        self.floor = 0
        self.collected = 0
        self.closed = False
        self.lost: RecoveryError | None = None
        self._cache = cache
        self._recent = RecentWals()
        self._waiting = 0
        self._gate = SyncGate()
        self._checkpoint_revision = 0
        self.view: View
        self.head_revision: int
        self.head_id = ""
        self._head_value = b""  # not known yet
        self.lineage_revision: int
        self.synced: Sequence
        with self.lock:
            self._open()

    @property
    def lineage(self) -> LineageRecord:
        """The lineage that the view belongs to."""
        return self.view.lineage

    @property
    def head_value(self) -> bytes:
        """The value of the head key that `view` stands on."""
        if not self._head_value:
            view = self.view
            self._head_value = encode(HeadRecord(str(view.sequence), view.lineage.lineage, self.head_id))
        return self._head_value

    def stands(self) -> list[Compare]:
        """Return the conditions that the log still ends where the view does; the caller holds the lock."""
        return [Compare(keys.HEAD, self.head_revision), Compare(keys.HEAD, self.head_value, Target.VALUE)]

    def catch_up(self) -> None:
        """Bring the view up to the coordinator's state: commits, checkpoints and lineages of other processes.

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
        """Take in how far storage has the log; return whether that went forward, if it moved at all."""
        item = self.coordinator.get(keys.SYNC)
        if item is None:
            return False
        synced = Sequence.parse(decode_item(SyncRecord, item).sequence)
        self.take_synced(synced)
        return synced == self.synced

    def _catch_up(self, attempt: int) -> None:
        control = read_control(self.coordinator)
        if control is None:
            raise RecoveryError("the coordinator was emptied: recover the store from its storage")
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
        if control.head < view.sequence or control.synced < self.synced:
            raise RecoveryError(
                f"the coordinator went back in time, from {max(view.sequence, self.synced)} to "
                f"{control.head}: recover the store from its storage"
            )
        if Sequence.parse(control.checkpoint.sequence) > view.sequence or attempt:
            self._reload(control)
            return
        self._check_same_history(control)
        self._apply_from_coordinator(control)
        if control.checkpoint.number > self.view.manifest.number:
            self._adopt(control.checkpoint, control.checkpoint_revision)
        self._take_control(control)

    def applied(self, wals: Items[Wal], revision: int, head_value: bytes = b"") -> None:
        """Add WALs that the coordinator has committed in one transaction; the caller holds the lock.

        Args:
            wals: At least one, in order; the first must follow the view's newest.
            revision: The transaction's.
            head_value: What it wrote to the head key, where that is known.
        """
        groups = self.groups
        # Readers take tokens before data, so the data must show before the group's new revision does.
        self.view = self.view.extended(wals, revision)
        self.head_revision = revision
        self.head_id, self._head_value = wals[-1].record.wal_id, head_value
        for wal in wals:
            for group in wal.record.groups:
                groups[group] = revision
        if len(groups) > _KNOWN_GROUPS:
            groups.clear()
        self._recent.add(wals)
        if self._waiting:
            self.changed.notify_all()

    def take_synced(self, sequence: Sequence) -> None:
        """Note that storage has the log up to a WAL."""
        with self.lock:
            if sequence > self.synced:
                self.synced = sequence
                self._gate.let_through(sequence)
                self.changed.notify_all()

    def adopt(self, checkpoint: CheckpointRecord, revision: int) -> None:
        """Read through a newer manifest from now on; views that were handed out stay as they are."""
        with self.lock:
            try:
                self._adopt(checkpoint, revision)
            except CompactedError:  # this process was paused: the next catching up takes the newer one
                logger.info("manifest %d was replaced before it was read", checkpoint.number)

    def wait(self, satisfied: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `satisfied()`; return whether it is. Called without the lock, which `satisfied` has.

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

    def wait_synced(self, sequence: Sequence, satisfied: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `satisfied()`, which is looked at again once storage has a WAL; return whether it is.

        Args:
            sequence: The WAL.
            satisfied: Called with the lock; what it raises is raised.
            timeout: Seconds to wait; None waits without limit.

        Raises:
            ClosedError: The log was closed meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.lock:
                if satisfied():
                    return True
                self._check_open()
                left = -1.0 if deadline is None else deadline - time.monotonic()
                if deadline is not None and left <= 0:
                    return False
                held = self._gate.enter(sequence)
            if not held.acquire(timeout=left):
                with self.lock:
                    self._gate.leave(held)

    def let_writers_look(self) -> None:
        """Wake everybody who waits in `wait_synced`, to look whether it is still worth it."""
        with self.lock:
            self._gate.let_all_look()

    def lose(self, error: RecoveryError) -> None:
        """Note why the coordinator cannot be followed, and tell everybody who waits."""
        with self.lock:
            self.lost = error
            self.changed.notify_all()
            self._gate.let_all_look()

    def check_followed(self) -> None:
        """Raise `RecoveryError` while the coordinator cannot be followed."""
        if self.lost is not None:
            raise RecoveryError(str(self.lost)) from self.lost

    def recent_after(self, sequence: Sequence) -> list[Wal] | None:
        """Return the WALs after a place when all of them are still in memory, else None."""
        with self.lock:
            if sequence >= self.view.sequence:
                return []
            if sequence.epoch != self.lineage.epoch:
                return None
            return self._recent.after(sequence)

    def close(self) -> None:
        """Wake everybody who waits; they get `ClosedError`."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()
            self._gate.let_all_look()

    def _check_open(self) -> None:
        self.origin.check()
        if self.closed:
            raise ClosedError("the datamanager was closed")

    def _open(self) -> None:
        for _ in range(_OVERTAKEN):
            control = read_control(self.coordinator)
            if control is None:
                raise RecoveryError("the coordinator holds no store")
            try:
                self._reload(control)
                return
            except CompactedError:  # as in `catch_up`
                continue
        raise RecoveryError("the log is compacted faster than it can be read")

    def _reload(self, control: Control) -> None:
        """Take the coordinator's state anew; readers keep the view that they have until all of it is read."""
        manifest, table = self._open_table(control.checkpoint, control.checkpoint_revision)
        start = Sequence.parse(control.checkpoint.sequence)
        view = View(control.lineage, manifest, table, Overlay(), start, control.head_revision)
        recent, groups = RecentWals(), dict[str, int]()
        for wals, revision in self._read_after(start, control):
            view = view.extended(wals, revision)
            recent.add(wals)
            groups.update((group, revision) for wal in wals for group in wal.record.groups)
            if len(groups) > _KNOWN_GROUPS:
                groups.clear()
        _check_end(view, control)
        self.groups.clear()
        self.view, self._recent = view, recent
        self._close_left_files()
        self.groups.update(groups)
        self._checkpoint_revision = control.checkpoint_revision
        self.synced = control.synced
        self._take_control(control)
        self._gate.let_all_look()

    def _apply_from_coordinator(self, control: Control) -> None:
        for wals, revision in self._read_after(self.view.sequence, control):
            self.applied(wals, revision)
        _check_end(self.view, control)

    def _read_after(self, after: Sequence, control: Control) -> Iterator[tuple[list[Wal], int]]:
        """Yield the WALs between a place and the head, those of one transaction together, with its revision."""
        if control.head == after:
            return
        items = iterate(self.coordinator, keys.WALS, start_after=keys.wal(after), revision=control.revision)
        for revision, together in groupby(items, key=attrgetter("mod_revision")):
            wals = []
            for item in together:
                record = decode_wal(item.value, item.key)
                with self._current(control.checkpoint_revision):
                    wals.append(Wal(record, read_actions(self.storage, record), item.value))
            yield wals, revision

    def _check_same_history(self, control: Control) -> None:
        """Raise `RecoveryError` when the coordinator's log is not the continuation of the view's."""
        if control.head == self.view.sequence:
            found = control.head_id
        else:
            item = self.coordinator.get(keys.wal(self.view.sequence))
            if item is None:  # checkpointed and cleaned away, or the lineage's start
                self.groups.clear()
                return
            found = decode_wal(item.value, item.key).wal_id
        if found != self.head_id:
            raise RecoveryError(
                f"WAL {self.view.sequence} is another one than this process has seen: the coordinator went back in "
                "time and on from there; open the store anew, with recover=True when it is behind its storage"
            )

    def _take_control(self, control: Control) -> None:
        self.view = self.view._replace(revision=control.head_revision)
        self.head_revision = control.head_revision
        self.head_id, self._head_value = control.head_id, b""
        self.lineage_revision = control.lineage_revision
        self.collected = control.collection_revision
        if control.floor != self.floor:
            self.floor = control.floor
            self.groups.clear()
        self.take_synced(control.synced)
        self.changed.notify_all()

    def _adopt(self, checkpoint: CheckpointRecord, revision: int) -> None:
        if checkpoint.lineage != self.lineage.lineage or checkpoint.number <= self.view.manifest.number:
            return  # this process has taken in something newer meanwhile
        manifest, table = self._open_table(checkpoint, revision)
        overlay = self.view.overlay.after(Sequence.parse(checkpoint.sequence).counter)
        self.view = self.view._replace(manifest=manifest, table=table, overlay=overlay)
        self._close_left_files()
        self._checkpoint_revision = revision
        self.changed.notify_all()

    @contextmanager
    def _current(self, checkpoint_revision: int) -> Iterator[None]:
        """Raise `CompactedError` for what a collection took because a newer checkpoint is there: it is no damage."""
        try:
            yield
        except CorruptionError as error:
            item = self.coordinator.get(keys.CHECKPOINT)
            if item is None or item.mod_revision == checkpoint_revision:
                raise
            raise CompactedError("a newer checkpoint has taken its place", oldest=item.mod_revision) from error

    def _close_left_files(self) -> None:
        self._cache.keep_only({ref.path for ref in self.view.manifest.files()})

    def _open_table(self, checkpoint: CheckpointRecord, revision: int) -> tuple[Manifest, Table]:
        with self._current(revision):
            manifest = read_manifest(self.storage, checkpoint.path)
        if manifest.lineage != checkpoint.lineage or str(manifest.sequence) != checkpoint.sequence:
            raise CorruptionError("the manifest is not the one the coordinator names", path=checkpoint.path)
        return manifest, Table(self.storage, manifest, self._cache)


def _check_end(view: View, control: Control) -> None:
    if view.sequence != control.head:
        raise CorruptionError(f"the log ends at {view.sequence}, its head is {control.head}", path=keys.HEAD)
