"""Group commit: the callers of `write_wal` that wait at the same time share one coordinator transaction.

Whoever leads (see `leaderqueue`) judges each by its change groups, and commits the accepted ones behind one
compare of the log's head. Since every change of a group moves the head too, comparing the head guards
all groups; a head that another process moved is caught up with and the batch judged again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items

import msgspec

from agola_core import faultpoints
from agola_core.clock import boot_clock
from agola_core.coordinator.port import Compare, GetOp, KeyValue, Op, PutOp, TxnResult
from agola_core.datamanager import keys, records
from agola_core.datamanager.batches import list_batches, read_batch
from agola_core.datamanager.lineage import root_of
from agola_core.datamanager.log import Applied, Log
from agola_core.datamanager.records import PayloadRef, WalIdRecord, WalRecord
from agola_core.datamanager.types import Action, ChangeGroupsToken
from agola_core.errors import (
    BadRequestError,
    ClosedError,
    ConflictError,
    FencedError,
    TokenExpiredError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.leaderqueue import LeaderQueue, Waiting
from agola_core.sequence import Sequence, texts

logger = logging.getLogger(__name__)

faultpoints.declare("commit.before-txn", "commit.after-txn", "commit.before-barrier")

_RESOLVE_SECONDS = 30.0
_RESOLVE_PAUSE = 0.1
_LOST_RACES = 1000
_NO_TOKEN = ChangeGroupsToken()


class Along(msgspec.Struct, frozen=True):
    """What a layer above commits in the transaction of its WAL, on keys of its own.

    Attributes:
        ops: Applied together with the WAL, or not at all.
        guards: Comparisons of revisions; when one fails, so does the WAL, with `ConflictError`.
    """

    ops: tuple[Op, ...] = ()
    guards: tuple[Compare, ...] = ()

    def keys(self) -> set[str]:
        """Return the keys that are written or compared."""
        return {op.key for op in self.ops} | {guard.key for guard in self.guards}


_NOTHING = Along()


class Commit(Waiting):
    """One WAL on its way: what is to be committed, and then what came of it.

    Args:
        actions: What the WAL does.
        encoded: The actions as they are stored; b"" when `payload` has them.
        payload: Where the actions of a large WAL lie.
        token: What its writer saw.
        wal_id: The id given by the writer, or made up.
        remembered: Whether the id was given, so that its outcome is kept for retries.
        digest: Of the encoded actions, for a given id.
        lineage: The lineage its writer saw.
        along: What a layer above commits with it.
        expires: When, by the boot clock, its payload may be collected if nothing has committed it.

    Attributes:
        unconditional: Whether nothing but the log's head decides on it.
        ops: How many operations of a transaction it takes.
        size: About how many bytes of a transaction it takes.
    """

    __slots__ = (
        "actions",
        "along",
        "digest",
        "encoded",
        "expires",
        "frame",
        "groups",
        "lineage",
        "ops",
        "outcome",
        "payload",
        "remembered",
        "sequence",
        "size",
        "token",
        "unconditional",
        "wal_id",
    )

    def __init__(
        self,
        actions: Items[Action],
        encoded: bytes,
        payload: PayloadRef | None,
        token: ChangeGroupsToken | None,
        *,
        wal_id: str,
        remembered: bool,
        digest: str,
        lineage: str,
        along: Along | None = None,
        expires: float = math.inf,
    ) -> None:
        super().__init__()
        self.expires = expires
        self.actions = actions
        self.encoded = encoded
        self.payload = payload
        self.token = token if token is not None else _NO_TOKEN
        self.groups = tuple(self.token.groups)
        self.frame = b""
        self.sequence = ""
        self.wal_id = wal_id
        self.remembered = remembered
        self.digest = digest
        self.lineage = lineage
        self.along = along if along is not None else _NOTHING
        self.unconditional = token is None and not remembered and along is None
        self.outcome: ChangeGroupsToken | None = None
        self.ops = 1
        self.size = len(encoded) + len(wal_id) + 256
        if not self.unconditional:
            self.ops += len(self.groups) + remembered + max(len(self.along.ops), len(self.along.guards))
            self.size += 256 * self.ops + 2 * sum(map(len, self.groups))
            self.size += sum(len(op.value) for op in self.along.ops if isinstance(op, PutOp))

    def settle(self, outcome: ChangeGroupsToken | None, error: Exception | None = None) -> None:
        """Note what came of it."""
        self.outcome, self.error, self.done = outcome, error, True


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
        for _ in range(_LOST_RACES):
            waiting = [commit for commit in batch if not commit.done]
            if not waiting:
                return
            accepted = self._judge(_unexpired(waiting))
            if not accepted:
                continue
            wals, ops = self._prepare(accepted)
            guards = [guard for commit in accepted for guard in commit.along.guards]
            compare = [*self._log.stands(), *guards]
            seen = [GetOp(key) for key in dict.fromkeys([guard.key for guard in guards])]
            faultpoints.reach("commit.before-txn")
            doubtful = False
            try:
                result: TxnResult | None = self._coordinator.txn(compare, ops, seen)
            except UnknownOutcomeError as error:
                doubtful, result = True, self._resolve(accepted, wals[0], error)
            faultpoints.reach("commit.after-txn")
            if result is not None and result.succeeded:
                self._settle(accepted, wals, result.revision)
                if doubtful:  # others may have gone on from it long ago
                    self._log.groups.clear()
                    self._log.catch_up()
            else:
                if result is not None:
                    _refuse_guarded(accepted, dict(zip((op.key for op in seen), result.reads, strict=True)))
                self._log.catch_up()
        raise UnavailableError(f"lost the race for the head of the log {_LOST_RACES} times")

    def _judge(self, waiting: list[Commit]) -> list[Commit]:
        """Settle what is refused or was committed before, and return the rest, in order."""
        lineage = self._log.lineage.lineage
        for commit in waiting:
            if not commit.unconditional or commit.lineage != lineage:
                break
        else:
            return waiting
        found = self._look_up(waiting)
        accepted: list[Commit] = []
        moved: set[str] = set()
        ids: set[str] = set()
        written: set[str] = set()
        behind = False
        for commit in waiting:
            if written and not written.isdisjoint(commit.along.keys()):
                continue  # a transaction writes a key once: judged again once the other is committed
            if commit.remembered:
                if commit.wal_id in ids:
                    continue  # twice in one batch: judged again once the first is committed
                ids.add(commit.wal_id)
                earlier = found[keys.wal_id(commit.wal_id)]
                if earlier is not None and (outcome := self._earlier_outcome(commit, earlier)):
                    commit.settle(*outcome)
                    behind |= outcome[0] is not None and Sequence.parse(outcome[0].sequence) > self._log.view.sequence
                    continue
            error = self._refusal(commit, moved)
            if error is not None:
                commit.settle(None, error)
                continue
            moved.update(commit.groups)
            written.update(op.key for op in commit.along.ops)
            accepted.append(commit)
        if behind:  # a writer reads what it has written; the others are judged by the newer state
            self._log.catch_up()
            return []
        return accepted

    def _look_up(self, waiting: list[Commit]) -> dict[str, KeyValue | None]:
        """Read the groups that are not known and the given ids, as the head stands or newer."""
        groups = self._log.groups
        wanted = {keys.group(name) for commit in waiting for name in commit.groups if name not in groups}
        wanted.update(keys.wal_id(commit.wal_id) for commit in waiting if commit.remembered)
        if len(wanted) <= 2:
            found = {key: self._coordinator.get(key) for key in wanted}
        else:
            found = {}
            ordered, step = sorted(wanted), self._coordinator.max_txn_ops
            for start in range(0, len(ordered), step):
                part = ordered[start : start + step]
                found.update(zip(part, self._coordinator.txn([], [GetOp(key) for key in part]).reads, strict=True))
        for commit in waiting:
            for name in commit.groups:
                if name not in groups:
                    item = found[keys.group(name)]
                    groups[name] = item.mod_revision if item else 0
        return found

    def _refusal(self, commit: Commit, moved: set[str]) -> Exception | None:
        log, token = self._log, commit.token
        if commit.lineage != log.lineage.lineage:
            return FencedError("the store was imported or recovered since this write began")
        if token.lineage and token.lineage != log.lineage.lineage:
            return TokenExpiredError(
                "the token is from before an import or a recovery of this store, or of another store: read again"
            )
        if token.groups and token.revision < log.floor:
            return TokenExpiredError(
                f"the token's revision {token.revision} is older than {log.floor}, the oldest retained: read again"
            )
        for name, seen in token.groups.items():
            if name in moved or log.groups[name] != seen:
                return ConflictError(f"change group {name!r} was changed by another writer: read again")
        return None

    def _earlier_outcome(
        self, commit: Commit, item: KeyValue
    ) -> tuple[ChangeGroupsToken | None, Exception | None] | None:
        earlier = records.decode(WalIdRecord, item.value, item.key)
        if not earlier.counts_in(self._log.lineage.lineage):
            return None
        if earlier.digest != commit.digest:
            return None, BadRequestError(f"WAL id {commit.wal_id!r} was used before with other actions")
        groups = dict.fromkeys(earlier.groups, item.mod_revision)
        return ChangeGroupsToken(item.mod_revision, groups, earlier.lineage, earlier.sequence), None

    def _prepare(self, accepted: list[Commit]) -> tuple[list[WalRecord], list[Op]]:
        lineage = self._log.lineage.lineage
        epoch, counter = self._log.view.sequence
        now = int(self._clock() * 1_000_000)
        wals: list[WalRecord] = []
        ops: list[Op] = []
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
            wals.append(record)
            commit.sequence = text
            commit.frame = frame = records.encode_wal(record)
            ops.append(PutOp(f"{keys.WALS}{text}", frame))
            if commit.unconditional:
                continue
            ops.extend(PutOp(keys.group(name), b"") for name in commit.groups)
            if commit.remembered:
                remembered = WalIdRecord(text, lineage, commit.digest, commit.groups)
                ops.append(PutOp(keys.wal_id(commit.wal_id), records.encode(remembered)))
            ops.extend(commit.along.ops)
        ops.append(PutOp(keys.HEAD, records.encode(records.HeadRecord(commit.sequence, lineage, commit.wal_id))))
        return wals, ops

    def _settle(self, accepted: list[Commit], wals: list[WalRecord], revision: int) -> None:
        lineage = self._log.lineage.lineage
        self._log.applied(
            [
                Applied(record, commit.actions, revision, commit.frame)
                for commit, record in zip(accepted, wals, strict=True)
            ],
            revision,
        )
        for commit in accepted:
            groups = dict.fromkeys(commit.groups, revision)
            commit.outcome = ChangeGroupsToken(revision, groups, lineage, commit.sequence)
            commit.done = True

    def _resolve(self, accepted: list[Commit], first: WalRecord, cause: UnknownOutcomeError) -> TxnResult | None:
        """Find out whether a transaction whose answer was lost has been applied.

        Args:
            accepted: Whose WALs it commits.
            first: The transaction's first WAL.
            cause: What lost the answer.

        Returns:
            The result, or None when the lost transaction was not applied, and never will be.

        Raises:
            UnknownOutcomeError: It could not be found out, or not in time; each commit has its own.
        """
        deadline = time.monotonic() + _RESOLVE_SECONDS
        while time.monotonic() < deadline and not self._log.closed:
            try:
                outcome = self._outcome(accepted[0], first)
            except UnknownOutcomeError:
                continue
            except UnavailableError:
                logger.warning("waiting for a backend to learn a commit's outcome", exc_info=True)
                threading.Event().wait(_RESOLVE_PAUSE)
            except ClosedError:
                break
            else:
                if outcome is not None:
                    return outcome if outcome.succeeded else None
                break
        for commit in accepted:
            commit.error = _unknown(commit, cause)
        raise _unknown(accepted[0], cause) from cause

    def _outcome(self, commit: Commit, first: WalRecord) -> TxnResult | None:
        """Return what became of a transaction; None when nothing tells any more.

        A rewrite of the head behind the same compare decides it: when that succeeds, the lost transaction can
        never be applied; when it fails, the lost one or another writer's was, and the WAL's key tells which.
        """
        key = keys.wal(first.sequence)
        while True:
            item = self._coordinator.get(key)
            if item is not None:
                return TxnResult(records.decode_wal(item.value, key).wal_id == first.wal_id, item.mod_revision)
            head = self._coordinator.get(keys.HEAD)
            if head is None:
                return None
            if head.mod_revision != self._log.head_revision or head.value != self._log.head_value:
                stands = Sequence.parse(records.decode(records.HeadRecord, head.value, keys.HEAD).sequence)
                if stands < first.sequence:  # rewritten by another writer's barrier
                    return TxnResult(False, head.mod_revision)
                if self._coordinator.get(key) is None:  # committed by somebody, checkpointed and cleaned since
                    return self._cleaned_outcome(commit, first)
                continue
            faultpoints.reach("commit.before-barrier")
            barrier = self._coordinator.txn(self._log.stands(), [PutOp(keys.HEAD, head.value)])
            if barrier.succeeded:
                return TxnResult(False, barrier.revision)

    def _cleaned_outcome(self, commit: Commit, first: WalRecord) -> TxnResult | None:
        """Return what became of a transaction whose WAL, or another in its place, has left the coordinator.

        The remembered id tells it, or else the batches: nothing is cleaned that storage does not have. Storage
        does not know the revision; the one before it stands for it, by which a later write at worst has to read
        again.
        """
        if commit.remembered and (item := self._coordinator.get(keys.wal_id(commit.wal_id))) is not None:
            remembered = records.decode(WalIdRecord, item.value, item.key)
            if (remembered.sequence, remembered.lineage) == (str(first.sequence), self._log.lineage.lineage):
                return TxnResult(True, item.mod_revision)
        root = root_of(self._log.lineage)
        for begins, _, path in list_batches(self._log.storage, root, first.previous_sequence):
            if begins <= first.sequence:
                found = read_batch(self._log.storage, path)[first.counter - begins.counter]
                return TxnResult(found.wal_id == first.wal_id, self._log.head_revision)
        return None


def _unknown(commit: Commit, cause: UnknownOutcomeError) -> UnknownOutcomeError:
    """Return what a writer hears whose commit could not be resolved."""
    message = f"the coordinator was lost while it committed WAL {commit.wal_id}: "
    if commit.remembered:
        message += f"retry with wal_id={commit.wal_id!r}"
    else:
        message += "read what is there before it is written again; give a wal_id to be able to retry"
    error = UnknownOutcomeError(message)
    error.__cause__ = cause
    return error


def _refuse_guarded(accepted: list[Commit], found: dict[str, KeyValue | None]) -> None:
    """Settle the commits whose guards do not hold; the others lost a race for the head, and try again."""
    for commit in accepted:
        for guard in commit.along.guards:
            item = found[guard.key]
            if (getattr(item, guard.target.value) if item else 0) != guard.expected:
                commit.settle(None, ConflictError(f"{guard.key} was changed by another writer: read again"))
                break


def _unexpired(waiting: list[Commit]) -> list[Commit]:
    """Settle those whose payloads may be gone, and return the rest.

    A collection moves the head before it deletes a payload, so a commit that was looked at here before fails its
    compare and is looked at again.
    """
    if all(commit.payload is None for commit in waiting):
        return waiting
    now = boot_clock()
    for commit in waiting:
        if commit.expires < now:
            message = "this process was paused for so long that the WAL's payload may be gone: nothing was written"
            commit.settle(None, UnavailableError(message))
    return [commit for commit in waiting if not commit.done]


def check_limits(commit: Commit, max_ops: int) -> None:
    """Raise `BadRequestError` for a WAL that no transaction of this coordinator can hold."""
    if not commit.unconditional and commit.ops + 1 > max_ops:
        raise BadRequestError(
            f"{commit.ops} operations, a commit's change groups among them, are more than it can hold"
        )
