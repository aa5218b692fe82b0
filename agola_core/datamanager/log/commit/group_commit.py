"""Group commit: callers of `write_wal` that wait at the same time share one coordinator transaction.

The leader (see `leader_queue`) checks each WAL for conflicts (see `conflict_check`) and commits the accepted
ones in one transaction that compares the log's head. Every change of a change group moves the head too, so that one
compare guards all groups. If another process has moved the head, the leader catches up and checks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from agola_core.coordinator.port import Compare, GetOp, Op, PutOp, TxnResult
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.events import place
from agola_core.datamanager.format.records import (
    EVENTS_FORMAT,
    EventsWalRecord,
    HeadRecord,
    Wal,
    WalIdRecord,
    WalRecord,
)
from agola_core.datamanager.log.commit.conflict_check import ConflictCheck, refuse_guarded
from agola_core.datamanager.log.commit.event_rules import EventRules
from agola_core.datamanager.log.commit.outcome_resolver import OutcomeResolver
from agola_core.datamanager.log.commit.pending_wal import PendingWal
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import UnavailableError, UnknownOutcomeError
from agola_core.runtime import faultpoints
from agola_core.runtime.threads.leader_queue import LeaderQueue
from agola_core.sequence import texts

faultpoints.declare("commit.before-txn", "commit.after-txn")

_LOST_RACES = 1000


class GroupCommit:
    """Commits WALs to a log, many at a time.

    Args:
        log: The log.
        clock: Seconds since 1970, for the WALs' times.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._coordinator = log.coordinator
        self._clock = clock
        self._events = EventRules(log)
        self._conflict_check = ConflictCheck(log, self._events)
        self._outcomes = OutcomeResolver(log)
        self._queue: LeaderQueue[PendingWal] = LeaderQueue(self._work, self._parts)

    def commit(self, pending: PendingWal, timeout: float | None = None) -> ChangeGroupsToken:
        """Commit a WAL and return the token at its revision.

        Args:
            pending: The WAL.
            timeout: Seconds to wait for its turn. Once its transaction runs, the call waits for the outcome.

        Raises:
            ConflictError: A change group moved, or the token is too old.
            DeadlineError: The turn did not come in time; nothing was written.
            FencedError: The store was imported or recovered since the writer began.
            UnknownOutcomeError: The coordinator was lost in mid-commit and did not come back.
        """
        self._queue.do(pending, timeout)
        assert pending.outcome is not None
        return pending.outcome

    def commit_all(self, pending: list[PendingWal], timeout: float | None = None) -> None:
        """Commit the WALs of one writer in their order, together as far as they fit; each gets its own outcome.

        Once one has lost its payload the rest is not begun: `done` tells.

        Args:
            pending: The WALs.
            timeout: Seconds to wait for their turn.

        Raises:
            DeadlineError: The turn did not come in time; nothing was written.
        """
        self._queue.do_all(pending, timeout)

    def _parts(self, waiting: list[PendingWal]) -> Iterator[list[PendingWal]]:
        """Split the waiting WALs, in order, into as few parts as the coordinator's transactions can hold."""
        max_ops, max_bytes = self._coordinator.max_txn_ops, self._coordinator.max_txn_bytes
        ops, size = 1, 1024
        part: list[PendingWal] = []
        for pending in waiting:
            ops += pending.ops
            size += pending.size
            if part and (ops > max_ops or size > max_bytes):
                yield part
                if pending.in_order and any(one.payload_lost for one in part):
                    return
                part, ops, size = [], 1 + pending.ops, 1024 + pending.size
            part.append(pending)
        yield part

    def _work(self, batch: list[PendingWal]) -> None:
        with self._log.lock:
            self._commit(batch)

    def _commit(self, batch: list[PendingWal]) -> None:
        waiting, lost = batch, 0
        while lost < _LOST_RACES:
            accepted = self._conflict_check.accept(waiting)
            if accepted:
                self._transact(accepted)
            left = [pending for pending in waiting if not pending.done]
            if not left:
                return
            if len(left) == len(waiting):
                lost += 1
            waiting = left
        raise UnavailableError(f"lost the race for the head of the log {_LOST_RACES} times")

    def _transact(self, accepted: list[PendingWal]) -> None:
        """Commit some WALs in one transaction and settle them; those that lose a race stay pending."""
        wals, head, ops, guards = self._prepare(accepted)
        compare = self._log.stands() + guards
        seen = [GetOp(key) for key in dict.fromkeys([guard.key for guard in guards])] if guards else []
        faultpoints.reach("commit.before-txn")
        doubtful = False
        try:
            result: TxnResult | None = self._coordinator.txn(compare, ops, seen)
        except UnknownOutcomeError as error:
            doubtful, result = True, self._outcomes.resolve(accepted, wals[0].record, error)
        faultpoints.reach("commit.after-txn")
        if result is not None and result.succeeded:
            self._log.applied(wals, result.revision, head)
            self._events.committed()
            self._settle(accepted, result.revision)
            if doubtful:  # others may have committed more since
                self._log.groups.forget()
                self._log.catch_up()
        else:
            if result is not None:
                refuse_guarded(accepted, dict(zip((op.key for op in seen), result.reads, strict=True)))
            self._log.catch_up()

    def _prepare(self, accepted: list[PendingWal]) -> tuple[list[Wal], bytes, list[Op], list[Compare]]:
        """Return the WALs, the head's value after them, and the operations and guards of their transaction."""
        view = self._log.view
        lineage = view.lineage.lineage
        epoch, counter = view.sequence
        now = int(self._clock() * 1_000_000)
        self._events.begin_placing()
        wals: list[Wal] = []
        ops: list[Op] = []
        guards: list[Compare] = []
        for pending, text in zip(accepted, texts(epoch, counter + 1, len(accepted)), strict=True):
            counter += 1
            actions = pending.actions
            fields = epoch, counter, counter - 1, pending.wal_id, now, pending.groups, pending.encoded, pending.payload
            if pending.events is None:
                record = WalRecord(*fields, given=pending.remembered)
            else:
                places = self._events.place(pending.events)
                actions = place(actions, places, now)
                record = EventsWalRecord(*fields, EVENTS_FORMAT, given=pending.remembered, places=places)
            pending.sequence = text
            frame = records.encode_wal(record)
            wals.append(Wal(record, actions, frame))
            ops.append(PutOp(f"{keys.WALS}{text}", frame))
            if pending.unconditional:
                continue
            ops.extend([PutOp(keys.group(name), b"") for name in pending.groups])
            if pending.remembered:
                remembered = WalIdRecord(text, lineage, pending.digest, pending.groups)
                ops.append(PutOp(keys.wal_id(pending.wal_id), records.encode(remembered)))
            ops.extend(pending.coordinator_ops.ops)
            guards.extend(pending.coordinator_ops.guards)
        head = records.encode(HeadRecord(text, lineage, pending.wal_id))
        ops.append(PutOp(keys.HEAD, head))
        return wals, head, ops, guards

    def _settle(self, accepted: list[PendingWal], revision: int) -> None:
        lineage = self._log.view.lineage.lineage
        for pending in accepted:
            groups = dict.fromkeys(pending.groups, revision)
            pending.outcome = ChangeGroupsToken(revision, groups, lineage, pending.sequence)
            pending.done = True
