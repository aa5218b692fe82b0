"""Group commit: the callers of `write_wal` that wait at the same time share one coordinator transaction.

Whoever leads (see `leaderqueue`) judges each by its change groups (see `judge`), and commits the accepted ones
behind one compare of the log's head. Since every change of a group moves the head too, comparing the head guards
all groups; a head that another process moved is caught up with and the batch judged again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from agola_core.coordinator.port import Compare, GetOp, Op, PutOp, TxnResult
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.records import HeadRecord, Wal, WalIdRecord, WalRecord
from agola_core.datamanager.log.conflict_check import Judge, refuse_guarded
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.log.outcome import OutcomeResolver
from agola_core.datamanager.log.pending_wal import Commit
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import UnavailableError, UnknownOutcomeError
from agola_core.runtime import faultpoints
from agola_core.runtime.leader_queue import LeaderQueue
from agola_core.sequence import texts

faultpoints.declare("commit.before-txn", "commit.after-txn")

_LOST_RACES = 1000


class Committer:
    """Commits WALs to a log, many at a time.

    Args:
        log: The log.
        clock: Seconds since 1970, for the WALs' times.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._coordinator = log.coordinator
        self._clock = clock
        self._judge = Judge(log)
        self._outcomes = OutcomeResolver(log)
        self._queue: LeaderQueue[Commit] = LeaderQueue(self._work, self._parts)

    def commit(self, commit: Commit, timeout: float | None = None) -> ChangeGroupsToken:
        """Commit a WAL and return the token at its revision.

        Args:
            commit: The WAL.
            timeout: Seconds to wait for a turn; once its transaction runs, its outcome is waited for.

        Raises:
            ConflictError: A change group moved, or the token is too old.
            DeadlineError: The turn did not come in time; nothing was written.
            FencedError: The store was imported or recovered since the writer began.
            UnknownOutcomeError: The coordinator was lost in mid-commit and did not come back.
        """
        self._queue.do(commit, timeout)
        assert commit.outcome is not None
        return commit.outcome

    def _parts(self, waiting: list[Commit]) -> Iterator[list[Commit]]:
        """Split those who wait into as few parts as transactions can hold, in order."""
        max_ops, max_bytes = self._coordinator.max_txn_ops, self._coordinator.max_txn_bytes
        ops, size = 1, 1024
        part: list[Commit] = []
        for commit in waiting:
            ops += commit.ops
            size += commit.size
            if part and (ops > max_ops or size > max_bytes):
                yield part
                part, ops, size = [], 1 + commit.ops, 1024 + commit.size
            part.append(commit)
        yield part

    def _work(self, batch: list[Commit]) -> None:
        with self._log.lock:
            self._commit(batch)

    def _commit(self, batch: list[Commit]) -> None:
        waiting = batch
        for _ in range(_LOST_RACES):
            accepted = self._judge.accept(waiting)
            if accepted:
                self._transact(accepted)
            waiting = [commit for commit in waiting if not commit.done]
            if not waiting:
                return
        raise UnavailableError(f"lost the race for the head of the log {_LOST_RACES} times")

    def _transact(self, accepted: list[Commit]) -> None:
        """Run the transaction of some commits and settle them; those that lost a race stay as they are."""
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
            self._settle(accepted, result.revision)
            if doubtful:  # others may have gone on from it long ago
                self._log.groups.clear()
                self._log.catch_up()
        else:
            if result is not None:
                refuse_guarded(accepted, dict(zip((op.key for op in seen), result.reads, strict=True)))
            self._log.catch_up()

    def _prepare(self, accepted: list[Commit]) -> tuple[list[Wal], bytes, list[Op], list[Compare]]:
        """Return the WALs of some commits, the head's value after them, and a transaction's operations and guards."""
        view = self._log.view
        lineage = view.lineage.lineage
        epoch, counter = view.sequence
        now = int(self._clock() * 1_000_000)
        wals: list[Wal] = []
        ops: list[Op] = []
        guards: list[Compare] = []
        for commit, text in zip(accepted, texts(epoch, counter + 1, len(accepted)), strict=True):
            counter += 1
            record = WalRecord(
                epoch,
                counter,
                counter - 1,
                commit.wal_id,
                now,
                commit.groups,
                commit.encoded,
                commit.payload,
                given=commit.remembered,
            )
            commit.sequence = text
            frame = records.encode_wal(record)
            wals.append(Wal(record, commit.actions, frame))
            ops.append(PutOp(f"{keys.WALS}{text}", frame))
            if commit.unconditional:
                continue
            ops.extend(PutOp(keys.group(name), b"") for name in commit.groups)
            if commit.remembered:
                remembered = WalIdRecord(text, lineage, commit.digest, commit.groups)
                ops.append(PutOp(keys.wal_id(commit.wal_id), records.encode(remembered)))
            ops.extend(commit.along.ops)
            guards.extend(commit.along.guards)
        head = records.encode(HeadRecord(text, lineage, commit.wal_id))
        ops.append(PutOp(keys.HEAD, head))
        return wals, head, ops, guards

    def _settle(self, accepted: list[Commit], revision: int) -> None:
        lineage = self._log.view.lineage.lineage
        for commit in accepted:
            groups = dict.fromkeys(commit.groups, revision)
            commit.outcome = ChangeGroupsToken(revision, groups, lineage, commit.sequence)
            commit.done = True
