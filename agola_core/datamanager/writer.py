"""Commits WALs to an open store: stores large payloads, joins the group commit, and waits for durability."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from collections.abc import Sequence as Items

from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.batches import write_payload
from agola_core.datamanager.format.versions import Condition, split_conditions
from agola_core.datamanager.log.commit.group_commit import GroupCommit
from agola_core.datamanager.log.commit.pending_wal import CoordinatorOps, EventsAppend, PendingWal, check_limits
from agola_core.datamanager.open_store import OpenStore
from agola_core.datamanager.types import Action, ChangeGroupsToken, Durability, NewWal, Verdict
from agola_core.datamanager.validate import check_groups, check_timeout, check_token, check_wal_id
from agola_core.errors import AgolaError, DeadlineError, UnavailableError
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence

faultpoints.declare("commit.before-payload")

_PAYLOAD_TRIES = 5


class Writer:
    """Commits WALs."""

    def __init__(self, store: OpenStore) -> None:
        self.group_commit = GroupCommit(store.log, store.clock)
        self._store = store
        self._log = store.log
        self._newest = store.log.view.sequence, str(store.log.view.sequence)
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
        if timeout is not None:
            check_timeout(timeout)
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
            pending = self._pending(
                wal,
                encoded,
                token,
                wal_id,
                lineage.lineage,
                conditions,
                coordinator_ops=coordinator_ops,
                events=events,
            )
            try:
                result = self.group_commit.commit(pending, timeout)
                break
            except UnavailableError:
                if not pending.payload_lost or tries == 1:
                    raise
        self._store.tasks.after_commit(size)
        if self._durable:
            self._wait_durable(result, lineage.epoch, timeout)
        return result

    def write_all(self, wals: Items[NewWal | AgolaError], timeout: float | None = None) -> list[Verdict]:
        """Commit WALs whose actions are valid, in their order (see `DataManager.write_wals`).

        Args:
            wals: The WALs, and errors in the places of those that are not valid.
            timeout: Seconds to wait.
        """
        if timeout is not None:
            check_timeout(timeout)
        self._make_room()
        lineage = self._log.lineage
        prepared: list[PendingWal | AgolaError] = [
            wal if isinstance(wal, AgolaError) else self._prepared(wal, lineage.lineage) for wal in wals
        ]
        left = [place for place, one in enumerate(prepared) if isinstance(one, PendingWal)]
        for tries in range(_PAYLOAD_TRIES, 0, -1):
            self._commit_all([one for place in left if isinstance(one := prepared[place], PendingWal)], timeout, tries)
            left = [place for place in left if isinstance(one := prepared[place], PendingWal) and one.payload_lost]
            if not left or tries == 1:
                break
            for place in left:  # with new payloads, in their order
                wal = wals[place]
                assert isinstance(wal, NewWal)
                prepared[place] = self._prepared(wal, lineage.lineage)
        committed = [one for one in prepared if isinstance(one, PendingWal) and one.outcome is not None]
        self._store.tasks.after_commit(sum(one.size for one in committed))
        verdicts = [one if isinstance(one, AgolaError) else _verdict(one) for one in prepared]
        return self._all_durable(verdicts, lineage.epoch, timeout) if self._durable else verdicts

    def _commit_all(self, waiting: list[PendingWal], timeout: float | None, tries: int) -> None:
        """Commit WALs in their order; each is settled, or says that a payload was lost."""
        if not waiting:
            return
        try:
            self.group_commit.commit_all(waiting, timeout)
        except DeadlineError as error:
            if tries == _PAYLOAD_TRIES:
                raise
            for one in waiting:  # others are committed
                one.settle(None, error)
        for one in waiting:
            if not one.done:
                one.payload_lost = True
                reason = "collections took the payload of a WAL before this one each time: nothing was written"
                one.settle(None, UnavailableError(reason))

    def _prepared(self, wal: NewWal, lineage: str) -> PendingWal | AgolaError:
        try:
            if wal.token is not None:
                check_token(wal.token)
            if wal.wal_id:
                check_wal_id(wal.wal_id)
            actions, conditions = split_conditions(wal.actions)
            encoded = records.encode_actions(actions)
            return self._pending(actions, encoded, wal.token, wal.wal_id, lineage, conditions, in_order=True)
        except AgolaError as error:
            return error

    def _pending(
        self,
        wal: tuple[Action, ...],
        encoded: bytes,
        token: ChangeGroupsToken | None,
        wal_id: str,
        lineage: str,
        conditions: tuple[Condition, ...],
        *,
        coordinator_ops: CoordinatorOps | None = None,
        events: EventsAppend | None = None,
        in_order: bool = False,
    ) -> PendingWal:
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
            lineage=lineage,
            coordinator_ops=coordinator_ops,
            collected=collected,
            events=events,
            conditions=conditions,
            in_order=in_order,
        )
        check_limits(pending, self._log.coordinator.max_txn_ops)
        return pending

    def _all_durable(self, verdicts: list[Verdict], epoch: int, timeout: float | None) -> list[Verdict]:
        """Wait until committed WALs are in storage; those that are not get the error that says so."""
        committed = [one for one in verdicts if isinstance(one, ChangeGroupsToken)]
        if not committed:
            return verdicts
        try:
            self._wait_durable(max(committed, key=lambda one: one.sequence), epoch, timeout)
        except AgolaError as error:
            synced = self._log.synced
            return [
                error
                if isinstance(one, ChangeGroupsToken)
                and (sequence := Sequence.parse(one.sequence)).epoch >= epoch
                and (sequence > synced or sequence.epoch != synced.epoch)
                else one
                for one in verdicts
            ]
        return verdicts

    def _wait_durable(self, result: ChangeGroupsToken, epoch: int, timeout: float | None) -> None:
        sequence = Sequence.parse(result.sequence)
        if sequence.epoch >= epoch:  # an outcome that a recovery inherited came from storage
            self._store.tasks.wait_synced(sequence, timeout)

    def token(self, groups: Iterable[str]) -> ChangeGroupsToken:
        """Return the current state of some change groups (see `DataManager.change_groups_token`)."""
        if type(groups) is tuple and not groups:  # most reads: they pay for no text of a sequence that they have seen
            view = self._log.view
            newest, text = self._newest
            if newest is not view.sequence:
                newest, text = self._newest = view.sequence, str(view.sequence)
            return ChangeGroupsToken(view.revision, {}, view.lineage.lineage, text)
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


def _verdict(pending: PendingWal) -> Verdict:
    if pending.outcome is not None:
        return pending.outcome
    assert pending.error is not None
    if isinstance(pending.error, AgolaError):
        return pending.error
    raise pending.error
