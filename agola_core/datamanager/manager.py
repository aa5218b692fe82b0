"""The datamanager: an application's handle on its store."""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Self

import msgspec

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.background.checkpoint import Compacted
from agola_core.datamanager.background.garbage_collector import Garbage
from agola_core.datamanager.background.maintenance_tasks import MaintenanceTasks
from agola_core.datamanager.check.data_files import Finding
from agola_core.datamanager.check.verify import verify_store
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.batches import write_payload
from agola_core.datamanager.format.control import read_control, require_control
from agola_core.datamanager.format.events import MARKS, RESERVED
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.identity.observer import ReadOnlyInstance
from agola_core.datamanager.identity.opening import StoreOpener
from agola_core.datamanager.log.feed import Feed
from agola_core.datamanager.log.group_commit import GroupCommit
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.log.pending_wal import CoordinatorOps, EventsAppend, PendingWal, check_limits
from agola_core.datamanager.read.past_store import Checkpoint, list_checkpoints
from agola_core.datamanager.read.reader import Reader
from agola_core.datamanager.read.status import Status, store_status, wal_status
from agola_core.datamanager.sstable.block_cache import BlockCache
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.transfer.export import Export, ExportParts
from agola_core.datamanager.transfer.export_format import ExportFormat
from agola_core.datamanager.transfer.importer import ImportParts, ImportResult
from agola_core.datamanager.transfer.store_import import StoreImport
from agola_core.datamanager.types import Action, ChangeGroupsToken, Durability, Options, Put, WalStatus
from agola_core.datamanager.validate import (
    as_wal,
    check_actions,
    check_data_types,
    check_groups,
    check_token,
    check_wal_id,
)
from agola_core.errors import BadRequestError, ClosedError, CorruptionError, NotFoundError, UnavailableError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.forks import renewed
from agola_core.runtime.progress import Progress, ignore
from agola_core.sequence import Sequence

faultpoints.declare("commit.before-payload")

_PAYLOAD_TRIES = 5


class DataManager(Reader):
    """A store: a log of events, checkpointed to object storage. Thread-safe; a context manager.

    Use `agola_core.open` to make one.

    Args:
        coordinator: Where the log is committed.
        storage: Where it is kept.
        data_types: The types of objects that the application stores; None for those that the store has.
        options: How the datamanager behaves.
        recover: Take the state of the storage even though the coordinator has another.
        read_only: Only read, and publish nothing: the backends need not take writes.
        clock: Seconds since 1970; for people, it orders nothing.
        new_uuid: Makes unique ids of 32 hexadecimal digits.

    Raises:
        BadRequestError: The store has objects of other types alone.
        RecoveryError: The coordinator is behind the storage, or belongs to another store.
        CorruptionError: Stored data that must be read is damaged.
        UnavailableError: A backend cannot be reached.

    Attributes:
        coordinator: The coordinator, for what is built on top.
        storage: The object storage, for what is built on top.
        data_types: The types it was opened with, or those that the store has.
        options: Its options.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: ObjectStorage,
        data_types: Items[str] | None,
        options: Options | None = None,
        *,
        recover: bool = False,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
        new_uuid: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        options = options or Options()
        name = options.instance or f"{os.getpid()}-{new_uuid()[:12]}"
        self.options = msgspec.structs.replace(options, instance=name)
        given = check_data_types(data_types) if data_types is not None else ()
        self.coordinator = coordinator
        self.storage = storage
        self._clock = clock
        self._new_uuid = new_uuid
        self._wal_id_prefix = new_uuid()[:20]
        self._wal_ids = itertools.count()
        self._inline_limit = min(self.options.inline_limit, coordinator.max_txn_bytes // 2)
        self._closed = renewed(threading.Event())
        opener = StoreOpener(coordinator, storage, self.options, given, new_uuid, self._now)
        if read_only:
            opener.look()
        else:
            opener.prepare(recover=recover)
        cache = BlockCache()
        self._log = Log(coordinator, storage, cache)
        self.data_types = given or self.stored_types
        self._known_types = frozenset(self.data_types) - RESERVED
        if not set(self.data_types).intersection(self.stored_types):
            self._log.close()
            raise BadRequestError(
                f"the store holds objects of the types {', '.join(self.stored_types)}, none of which is among "
                f"{', '.join(given)}: it belongs to another application; to add types, name those that it has, too"
            )
        self._instance: Instance
        if read_only:
            self._instance = ReadOnlyInstance(coordinator, name)
        else:
            self._instance = Instance(coordinator, name, self.options.lock_ttl, self._log.view.manifest.number)
        self._group_commit = GroupCommit(self._log, clock)
        self._tasks = MaintenanceTasks(self._log, self._instance, cache, self.options, new_uuid, self._now)
        self._import = StoreImport(
            self._log, self._instance, frozenset(self.data_types), self.options, new_uuid, self._now
        )
        try:
            # What was read before this instance was published, a collection may not have spared.
            self._log.catch_up()
            self._instance.reads(self._log.view.manifest.number)
            if self.options.background and not read_only:
                self._tasks.start()
        except BaseException:  # nobody else would end the lease and the loops that run already
            self.close()
            raise

    # Writing

    def write_wal(
        self,
        actions: Iterable[Action],
        token: ChangeGroupsToken | None = None,
        *,
        wal_id: str = "",
        timeout: float | None = None,
        coordinator_ops: CoordinatorOps | None = None,
    ) -> ChangeGroupsToken:
        """Commit actions as one WAL: all of them or none.

        Args:
            actions: Puts and deletes; the last one on an id wins.
            token: What the writer saw of some change groups: when one has changed since, nothing is written.
            wal_id: A key of the writer's own: a retry with the same id and actions returns the first outcome
                instead of writing twice, as long as the id is remembered (`Options.retain_wal_ids`). After a
                recovery that is a token of the history before: data must be read again to write with one.
            timeout: Seconds to wait for the WAL's turn, and with storage durability for its sync.
            coordinator_ops: Operations on the caller's own coordinator keys, committed in the same transaction.

        Returns:
            The token at the WAL's revision, for the same change groups.

        Raises:
            BadRequestError: The actions, the token or the id are malformed; nothing was written.
            ConflictError: A change group has changed, the token is too old, or a guard of `coordinator_ops` does not
                hold; nothing was written.
            DeadlineError: The time was over before the WAL's turn, and nothing was written; or it was
                committed and its sync is still under way, which the message then says.
            UnknownOutcomeError: The coordinator was lost in mid-commit and did not come back in time.
        """
        self._check_open()
        wal = as_wal(actions)
        size = check_actions(wal, self._known_types, self.options)
        return self._write(wal, size, token, wal_id, timeout, coordinator_ops=coordinator_ops)

    def append_events(
        self,
        append: EventsAppend,
        batches: Items[Put],
        actions: Iterable[Action] = (),
        token: ChangeGroupsToken | None = None,
        *,
        timeout: float | None = None,
    ) -> ChangeGroupsToken:
        """Commit events, and actions besides, as one WAL; what `EventStore.append` stands on.

        Args:
            append: The events and their conditions; `append.last` then tells their place.
            batches: The same events, encoded (see `format.events.unplaced`).
            actions: Other puts and deletes.
            token: What the writer saw of some change groups.
            timeout: Seconds to wait for the WAL's turn, and with storage durability for its sync.

        Raises:
            ConflictError: A condition does not hold, or a change group moved; nothing was written.
            BadRequestError: Event ids were used before for other events; nothing was written.
        """
        self._check_open()
        others = as_wal(actions)
        size = sum(len(batch.data) for batch in batches)
        if size > self.options.max_wal_bytes:
            raise BadRequestError(f"{size} bytes of events; a WAL holds at most {self.options.max_wal_bytes}")
        if others:
            size += check_actions(others, self._known_types | {MARKS}, self.options)
        return self._write((*others, *batches), size, token, "", timeout, events=append)

    def append_mark(self, mark: Put) -> ChangeGroupsToken:
        """Note how far a reader of events has come, as a WAL of its own."""
        self._check_open()
        return self._write((mark,), check_actions((mark,), frozenset({MARKS}), self.options), None, "", None)

    def _write(
        self,
        wal: tuple[Action, ...],
        size: int,
        token: ChangeGroupsToken | None,
        wal_id: str,
        timeout: float | None,
        *,
        coordinator_ops: CoordinatorOps | None = None,
        events: EventsAppend | None = None,
    ) -> ChangeGroupsToken:
        if token is not None:
            check_token(token)
        if wal_id:
            check_wal_id(wal_id)
        self._tasks.checkpointer.make_room()
        encoded = records.encode_actions(wal)
        lineage = self._log.lineage
        for tries in range(_PAYLOAD_TRIES, 0, -1):
            payload, collected = None, self._log.collected
            if len(encoded) > self._inline_limit:
                faultpoints.reach("commit.before-payload")
                payload = write_payload(self.storage, self._new_uuid(), encoded)
            commit = PendingWal(
                wal,
                b"" if payload else encoded,
                payload,
                token,
                wal_id=wal_id or f"{self._wal_id_prefix}{next(self._wal_ids):012x}",
                remembered=bool(wal_id),
                digest=records.digest_of(encoded) if wal_id else "",
                lineage=lineage.lineage,
                coordinator_ops=coordinator_ops,
                collected=collected,
                events=events,
            )
            check_limits(commit, self.coordinator.max_txn_ops)
            try:
                result = self._group_commit.commit(commit, timeout)
                break
            except UnavailableError:
                if not commit.payload_lost or tries == 1:
                    raise
        self._tasks.after_commit(size)
        if self.options.durability is Durability.STORAGE:
            sequence = Sequence.parse(result.sequence)
            if sequence.epoch >= lineage.epoch:  # what a recovery took over came from storage
                self._tasks.wait_synced(sequence, timeout)
        return result

    def change_groups_token(self, groups: Iterable[str]) -> ChangeGroupsToken:
        """Return what is now the state of some change groups; data read afterwards is at least as new.

        Args:
            groups: Names of at most 256 characters, without "/".
        """
        self._check_open()
        wanted = check_groups(groups)
        known, view = self._log.groups, self._log.view
        revisions: dict[str, int] = {}
        for name in wanted:
            revision = known.get(name)
            if revision is None:
                item = self.coordinator.get(keys.group(name))
                revision = item.mod_revision if item else 0
            if revision > view.revision:  # a writer that was refused may have looked it up, too, beyond the view
                view = self._log.view
                if revision > view.revision:
                    self._log.catch_up()
                    view = self._log.view
            revisions[name] = revision
        return ChangeGroupsToken(
            max([view.revision, *revisions.values()]), revisions, view.lineage.lineage, str(view.sequence)
        )

    # Reading

    def read_object(
        self, data_type: str, object_id: str, change_groups: Iterable[str] = ()
    ) -> tuple[bytes, ChangeGroupsToken]:
        """Return an object and the token of some change groups, which is never newer than the object.

        Args:
            data_type: One of the store's types.
            object_id: The object's id.
            change_groups: The groups of the token.

        Raises:
            NotFoundError: There is no such object.
        """
        token = self.change_groups_token(change_groups)
        view = self._log.view
        try:
            data = view.get(self._known(data_type), object_id)
        except CorruptionError:
            if self._log.view.manifest.number == view.manifest.number:
                raise
            with self._pinned_view() as newer:  # a file may be collected once a newer checkpoint took its place
                data = newer.get(data_type, object_id)
        if data is None:
            raise NotFoundError(f"{data_type} {object_id!r} does not exist")
        return data, token

    def refresh(self) -> Sequence:
        """Take in what other processes have committed up to now, and return the newest WAL's sequence."""
        self._log.catch_up()
        return self._log.view.sequence

    def watch(self, after: Sequence | str | None = None) -> Feed:
        """Return the feed of the WALs after a place.

        Args:
            after: A sequence that a token, an event or a snapshot gave; None for those from now on.

        Raises:
            CompactedError: The WALs after it are no longer kept: read a snapshot, go on from its sequence.
            FencedError: The store was imported or recovered since: likewise.
        """
        self._check_open()
        if after is None:
            return Feed(self._log, self._log.view.sequence)
        return Feed(self._log, Sequence.parse(after) if isinstance(after, str) else after)

    def wait_for_change(self, after: Sequence, stopped: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for a WAL after a place; return whether there is one, or `stopped()` is true.

        Args:
            after: The place.
            stopped: Looked at whenever `let_waiting_look` was called.
            timeout: Seconds to wait; None waits until one comes.

        Raises:
            ClosedError: The datamanager was closed.
        """
        return self._log.wait(lambda: stopped() or self._log.view.sequence > after, timeout)

    def let_waiting_look(self) -> None:
        """Wake everybody who waits for a change, to look whether it is still worth it."""
        with self._log.lock:
            self._log.changed.notify_all()

    @property
    def sequence(self) -> Sequence:
        """The newest WAL that this process knows."""
        return self._log.view.sequence

    @property
    def stored_types(self) -> tuple[str, ...]:
        """The types of objects that the store was made for or has objects of, sorted."""
        return tuple(self._log.view.data_types())

    @property
    def lineage(self) -> str:
        """The id of the store's current history; an import or a recovery changes it."""
        return self._log.lineage.lineage

    # Operations

    def start_background_tasks(self) -> None:
        """Start the loops that sync, checkpoint, clean up and collect garbage; harmless while they run."""
        self._check_open()
        self._tasks.start()

    def stop_background_tasks(self) -> None:
        """Sync what was committed and stop the loops, until `start_background_tasks`; the store stays open."""
        self._check_open()
        self._tasks.stop()

    def sync(self) -> Sequence:
        """Copy everything committed to storage now, and return the newest WAL in storage."""
        self._check_open()
        return self._tasks.syncer.sync()

    def checkpoint(self, force: bool = False) -> bool:
        """Make a checkpoint if one is due; return whether one was made or nothing was left to do.

        Args:
            force: Make one even if few changes wait, and wait for another process's to end first.
        """
        self._check_open()
        return self._tasks.checkpointer.checkpoint(force=force)

    def compact(self, progress: Progress = ignore) -> Compacted:
        """Make a checkpoint that rewrites the whole store, without deleted and replaced objects.

        Ordinary checkpoints do this bit by bit, when enough has changed; this one writes as much as the store holds.
        The old files stay as long as a retained checkpoint, a reader or the grace period needs them
        (`collect_garbage`).

        Args:
            progress: Told of the written entries and bytes; raising an error aborts the work.

        Raises:
            DeadlineError: Another process's checkpoint did not end.
            FencedError: The store was imported or recovered meanwhile; nothing was changed.
        """
        self._check_open()
        return self._tasks.checkpointer.compact(progress)

    def clean_up(self) -> int:
        """Delete from the coordinator what checkpoints made superfluous; return how many keys were deleted."""
        self._check_open()
        return self._tasks.wal_cleanup.clean_up()

    def collect_garbage(self, dry_run: bool = False) -> list[Garbage]:
        """Delete objects in storage that nothing refers to; return them, each with the reason.

        Args:
            dry_run: Only return them.
        """
        self._check_open()
        return self._tasks.garbage_collector.collect(dry_run=dry_run)

    def verify(self) -> list[Finding]:
        """Read and check everything in the store; return what is wrong. Changes nothing.

        `agola_core.verify` checks a store that does not open.
        """
        self._check_open()
        with self._instance.pin(0):  # no collection deletes what is about to be read
            self._instance.publish()
            self._instance.wait_for_collection()
            return list(verify_store(self.coordinator, self.storage))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the retained checkpoints, oldest first: `agola_core.open(at=...)` reads them.

        It reads the states between two of them, too.
        """
        self._check_open()
        return list_checkpoints(self.storage, read_control(self.coordinator))

    def wal_status(self, sequence: Sequence | str) -> WalStatus:
        """Return where a WAL is: in the coordinator alone, in storage too, or in a checkpoint.

        Args:
            sequence: A sequence, or its text, as tokens have it.

        Raises:
            NotFoundError: There is no such WAL yet.
            FencedError: It belongs to a history that a recovery or an import has ended.
        """
        self._check_open()
        return wal_status(self._log, Sequence.parse(sequence) if isinstance(sequence, str) else sequence)

    def status(self) -> Status:
        """Return the state of the store."""
        self._check_open()
        return store_status(self._log, self._tasks.loops())

    def import_(
        self,
        file: IO[bytes],
        *,
        dry_run: bool = False,
        parts: ImportParts | None = None,
        progress: Progress = ignore,
    ) -> ImportResult:
        """Replace the whole content of the store by an export, native or Agola 0.2's, or change nothing.

        Afterwards the store is another lineage: older tokens, feeds and writers are refused.

        Args:
            file: A binary file, plain, gzip or zstd.
            dry_run: Only check it.
            parts: The caller's part in the import and its conditions. Without it, nobody else may have the store open.
            progress: Told of the entries and bytes; raising an error aborts the import, and changes nothing.

        Raises:
            BadRequestError: Something in the stream is wrong; nothing was changed.
            ConflictError: Another process has the store open, or imported at the same time.
            UnavailableError: A backend failed: nothing was changed, unless it was the last write, of the mark that the
                store was switched; then what is read is what was imported.
        """
        self._check_open()
        if dry_run:
            return self._import.check(file, parts, progress)
        return self._import.run(file, parts, progress)

    # Lifecycle

    def close(self) -> None:
        """Stop the loops, sync what was committed, and withdraw from the store. Closing twice is harmless.

        The coordinator and the storage stay open: they belong to whoever opened them (`agola_core.open` does
        both and closes both).
        """
        if self._closed.is_set() or not self._log.origin.is_here:  # what a forked child has is the parent's
            return
        self._closed.set()
        self._tasks.stop()
        self._log.close()
        self._instance.close()

    def __enter__(self) -> Self:
        """Return the datamanager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the datamanager."""
        self.close()

    @contextmanager
    def _pinned_view(self) -> Iterator[View]:
        self._check_open()
        while True:
            view = self._log.view
            with self._instance.pin(view.manifest.number):
                # Still the newest one: whoever publishes from now on that this instance went on sees the pin.
                if self._log.view.manifest.number == view.manifest.number:
                    yield view
                    return

    @contextmanager
    def _exported(self, form: ExportFormat, parts: ExportParts | None, progress: Progress) -> Iterator[Export]:
        """Yield an export of the newest state that the coordinator has, at one of its revisions."""
        while True:
            self._check_open()
            control = require_control(self.coordinator)
            self._log.catch_up()
            with self._pinned_view() as view:
                if view.lineage == control.lineage and view.manifest.sequence <= control.head <= view.sequence:
                    state = view._replace(sequence=control.head, revision=control.head_revision)
                    yield Export(state, control.revision, self.data_types, form, parts=parts, progress=progress)
                    return
            # A checkpoint or an import came in between.

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _check_open(self) -> None:
        self._log.origin.check()
        if self._closed.is_set():
            raise ClosedError("the datamanager was closed")
        self._log.check_current()
