"""Commits WALs to an open store: stores large payloads, joins the group commit, and waits for durability."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.batches import write_payload
from agola_core.datamanager.format.versions import Condition, split_conditions
from agola_core.datamanager.log.group_commit import GroupCommit
from agola_core.datamanager.log.pending_wal import CoordinatorOps, EventsAppend, PendingWal, check_limits
from agola_core.datamanager.open_store import OpenStore
from agola_core.datamanager.types import Action, ChangeGroupsToken, Durability
from agola_core.datamanager.validate import check_groups, check_token, check_wal_id
from agola_core.errors import UnavailableError
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence

faultpoints.declare("commit.before-payload")

_PAYLOAD_TRIES = 5


class Writer:
    """Commits WALs.

    Args:
        store: The store.
    """

    def __init__(self, store: OpenStore) -> None:
        self.group_commit = GroupCommit(store.log, store.clock)
        self._store = store
        self._log = store.log
        self._make_room = store.tasks.checkpointer.make_room
        self._durable = store.options.durability is Durability.STORAGE
        self._wal_id_prefix = store.new_uuid()[:20]
        self._wal_ids = itertools.count()
        self._inline_limit = min(store.options.inline_limit, store.log.coordinator.max_txn_bytes // 2)

    def write(
        self,
        wal: tuple[Action, ...],
        size: int,
        token: ChangeGroupsToken | None = None,
        wal_id: str = "",
        timeout: float | None = None,
        *,
        coordinator_ops: CoordinatorOps | None = None,
        events: EventsAppend | None = None,
        conditional: bool = False,
    ) -> ChangeGroupsToken:
        """Commit a WAL whose actions are valid (see `DataManager.write_wal`).

        Args:
            wal: The actions.
            size: About how many bytes they have.
            token: What the writer saw of some change groups.
            wal_id: The writer's idempotency key; "" for none.
            timeout: Seconds to wait.
            coordinator_ops: Operations committed in the same transaction.
            events: The events among the actions, and their conditions.
            conditional: Whether any of the actions has a condition.
        """
        if token is not None:
            check_token(token)
        if wal_id:
            check_wal_id(wal_id)
        conditions: tuple[Condition, ...] = ()
        if conditional:
            wal, conditions = split_conditions(wal)
        self._make_room()
        encoded = records.encode_actions(wal)
        lineage = self._log.lineage
        for tries in range(_PAYLOAD_TRIES, 0, -1):
            payload, collected = None, self._log.collected
            if len(encoded) > self._inline_limit:
                faultpoints.reach("commit.before-payload")
                payload = write_payload(self._log.storage, self._store.new_uuid(), encoded)
            pending = PendingWal(
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
                conditions=conditions,
            )
            check_limits(pending, self._log.coordinator.max_txn_ops)
            try:
                result = self.group_commit.commit(pending, timeout)
                break
            except UnavailableError:
                if not pending.payload_lost or tries == 1:
                    raise
        self._store.tasks.after_commit(size)
        if self._durable:
            sequence = Sequence.parse(result.sequence)
            if sequence.epoch >= lineage.epoch:  # an outcome that a recovery inherited came from storage
                self._store.tasks.wait_synced(sequence, timeout)
        return result

    def token(self, groups: Iterable[str]) -> ChangeGroupsToken:
        """Return the current state of some change groups (see `DataManager.change_groups_token`)."""
        wanted = check_groups(groups)
        known, view = self._log.groups, self._log.view
        revisions: dict[str, int] = {}
        for name in wanted:
            revision = known.get(name)
            if revision is None:
                item = self._log.coordinator.get(keys.group(name))
                revision = item.mod_revision if item else 0
            if revision > view.revision:  # a refused writer may have looked it up beyond the view, too
                view = self._log.view
                if revision > view.revision:
                    self._log.catch_up()
                    view = self._log.view
            revisions[name] = revision
        return ChangeGroupsToken(
            max([view.revision, *revisions.values()]), revisions, view.lineage.lineage, str(view.sequence)
        )
