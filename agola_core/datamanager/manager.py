"""The datamanager: what an application holds of its store."""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from types import TracebackType
from typing import Self

import msgspec

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.background.maintenance_tasks import Upkeep
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.batches import write_payload
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.identity.observer import Bystander
from agola_core.datamanager.identity.opening import StoreOpener
from agola_core.datamanager.log.feed import Feed
from agola_core.datamanager.log.group_commit import GroupCommit
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.log.pending_wal import CoordinatorOps, PendingWal, check_limits
from agola_core.datamanager.operated import OperatedStore
from agola_core.datamanager.sstable.block_cache import BlockCache
from agola_core.datamanager.types import Action, ChangeGroupsToken, Durability, Options
from agola_core.datamanager.validate import (
    as_wal,
    check_actions,
    check_data_types,
    check_groups,
    check_token,
    check_wal_id,
)
from agola_core.errors import BadRequestError, CorruptionError, NotFoundError, UnavailableError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.forks import renewed
from agola_core.sequence import Sequence

faultpoints.declare("commit.before-payload")

_PAYLOAD_TRIES = 5


class DataManager(OperatedStore):
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
        self._known_types = frozenset(self.data_types)
        if not self._known_types.intersection(self.stored_types):
            self._log.close()
            raise BadRequestError(
                f"the store holds objects of the types {', '.join(self.stored_types)}, none of which is among "
                f"{', '.join(given)}: it belongs to another application; to add types, name those that it has, too"
            )
        if read_only:
            self._instance = Bystander(coordinator, name)
        else:
            self._instance = Instance(coordinator, name, self.options.lock_ttl, self._log.view.manifest.number)
        self._group_commit = GroupCommit(self._log, clock)
        self._upkeep = Upkeep(self._log, self._instance, cache, self.options, new_uuid, self._now)
        try:
            # What was read before this instance was published, a collection may not have spared.
            self._log.catch_up()
            self._instance.reads(self._log.view.manifest.number)
            if self.options.background and not read_only:
                self._upkeep.start()
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
        if token is not None:
            check_token(token)
        if wal_id:
            check_wal_id(wal_id)
        self._upkeep.make_room()
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
            )
            check_limits(commit, self.coordinator.max_txn_ops)
            try:
                result = self._group_commit.commit(commit, timeout)
                break
            except UnavailableError:
                if not commit.payload_lost or tries == 1:
                    raise
        self._upkeep.after_commit(size)
        if self.options.durability is Durability.STORAGE:
            sequence = Sequence.parse(result.sequence)
            if sequence.epoch >= lineage.epoch:  # what a recovery took over came from storage
                self._upkeep.wait_synced(sequence, timeout)
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

    # Lifecycle

    def close(self) -> None:
        """Stop the loops, sync what was committed, and withdraw from the store. Closing twice is harmless.

        The coordinator and the storage stay open: they belong to whoever opened them (`agola_core.open` does
        both and closes both).
        """
        if self._closed.is_set() or not self._log.origin.is_here:  # what a forked child has is the parent's
            return
        self._closed.set()
        self._upkeep.stop()
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
