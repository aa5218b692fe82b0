"""Finds out whether a commit was applied when the coordinator's answer was lost (invariant 4)."""

from __future__ import annotations

import logging
import threading
import time

from agola_core.coordinator.port import PutOp, TxnResult
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.batches import list_batches, read_batch
from agola_core.datamanager.format.records import WalIdRecord, WalRecord
from agola_core.datamanager.log.commit.pending_wal import PendingWal
from agola_core.datamanager.log.log import Log
from agola_core.errors import ClosedError, UnavailableError, UnknownOutcomeError
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

faultpoints.declare("commit.before-barrier")

_RESOLVE_SECONDS = 30.0
_RESOLVE_PAUSE = 0.1


class OutcomeResolver:
    """Resolves unknown outcomes of a log's commits; the caller holds the log's lock."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._coordinator = log.coordinator

    def resolve(self, accepted: list[PendingWal], first: WalRecord, cause: UnknownOutcomeError) -> TxnResult | None:
        """Find out whether a transaction whose answer was lost has been applied.

        Args:
            accepted: The WALs that it commits.
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
        for pending in accepted:
            pending.error = _unknown(pending, cause)
        raise _unknown(accepted[0], cause) from cause

    def _outcome(self, pending: PendingWal, first: WalRecord) -> TxnResult | None:
        """Return the result of a transaction; None if it can no longer be found out.

        A rewrite of the head with the same compare decides: if it succeeds, the lost transaction can never be
        applied; if it fails, the lost one or another writer's was applied, and the WAL's key tells which.
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
                    return self._cleaned_outcome(pending, first)
                continue
            faultpoints.reach("commit.before-barrier")
            barrier = self._coordinator.txn(self._log.stands(), [PutOp(keys.HEAD, head.value)])
            if barrier.succeeded:
                return TxnResult(False, barrier.revision)

    def _cleaned_outcome(self, pending: PendingWal, first: WalRecord) -> TxnResult | None:
        """Return the result of a transaction whose WAL, or another one with its sequence, was cleaned up.

        The idempotency key tells it, or else the batches: storage has every WAL that was cleaned up. Storage
        does not know the revision; an earlier one is returned, so at worst the next write must read again.
        """
        if pending.remembered and (item := self._coordinator.get(keys.wal_id(pending.wal_id))) is not None:
            remembered = records.decode(WalIdRecord, item.value, item.key)
            if (remembered.sequence, remembered.lineage) == (str(first.sequence), self._log.lineage.lineage):
                return TxnResult(True, item.mod_revision)
        root = self._log.lineage.root
        for begins, _, path in list_batches(self._log.storage, root, first.previous_sequence):
            if begins <= first.sequence:
                found = read_batch(self._log.storage, path)[first.counter - begins.counter]
                return TxnResult(found.wal_id == first.wal_id, self._log.head_revision)
        return None


def _unknown(pending: PendingWal, cause: UnknownOutcomeError) -> UnknownOutcomeError:
    """Return the error for a writer whose commit could not be resolved."""
    message = f"the coordinator was lost while it committed WAL {pending.wal_id}: "
    if pending.remembered:
        message += f"retry with wal_id={pending.wal_id!r}"
    elif pending.events is not None and pending.events.ids:
        message += "retry: the ids of its events tell whether it was committed"
    else:
        message += "read what is there before it is written again; give a wal_id to be able to retry"
    error = UnknownOutcomeError(message)
    error.__cause__ = cause
    return error
