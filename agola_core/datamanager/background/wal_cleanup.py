"""WAL cleanup: deletes what the coordinator no longer needs, so that it stays small.

It deletes checkpointed WALs, all but the newest ones, and the oldest idempotency keys and change groups. Deleting a
change group raises the floor below which tokens are refused, and moves the head, so that no conflict check relies on
a group that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from functools import partial

from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, DeleteRangeOp, KeyValue, PutOp, iterate
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.control import Control, read_control
from agola_core.datamanager.format.records import FloorRecord, WalIdRecord
from agola_core.datamanager.types import Options
from agola_core.errors import ConflictError
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence

faultpoints.declare("clean.before-wals", "clean.before-ids", "clean.before-groups", "clean.before-compaction")

_PART = 100
_RANGE = 1000
"""How many WALs one transaction deletes at most: writers wait for it."""

_HISTORY = 10_000


class WalCleanup:
    """Cleans up a store's coordinator; any instance may do so at any time.

    Args:
        coordinator: The coordinator.
        options: How much to keep.
    """

    def __init__(self, coordinator: Coordinator, options: Options) -> None:
        self._coordinator = coordinator
        self._options = options
        self._cleaned = ""

    def clean_up(self) -> int:
        """Delete what is no longer needed and return how many keys were deleted."""
        control = read_control(self._coordinator)
        if control is None:
            return 0
        removed = self._clean_wals(control) + self._clean_ids(control)
        control = read_control(self._coordinator)
        if control is not None:
            removed += self._clean_groups(control)
        return removed

    def compact(self) -> None:
        """Compact the coordinator's history, except for the newest part, which watches need."""
        revision = self._coordinator.list(keys.CONTROL).revision - _HISTORY
        if revision > 0:
            faultpoints.reach("clean.before-compaction")
            self._coordinator.compact(revision)

    def _clean_wals(self, control: Control) -> int:
        checkpointed = min(Sequence.parse(control.checkpoint.sequence), control.synced)
        newest_to_go = min(checkpointed.counter, control.head.counter - self._options.retain_wals)
        end = Sequence(control.lineage.epoch, max(newest_to_go, 0) + 1)
        removed = 0
        while page := self._coordinator.list(keys.WALS, start_after=self._cleaned, limit=1).items:
            first = keys.wal_sequence(page[0].key)
            if first >= end:
                break
            stop = min(first.next(_RANGE), end)
            faultpoints.reach("clean.before-wals")
            removed += self._delete([DeleteRangeOp(page[0].key, keys.wal(stop))], control)
            self._cleaned = keys.wal(stop.next(-1))  # listing deleted keys is slow while history has them
        return removed

    def _clean_ids(self, control: Control) -> int:
        found = list(iterate(self._coordinator, keys.WAL_IDS, revision=control.revision))
        if len(found) <= self._options.retain_wal_ids:
            return 0
        found.sort(key=partial(_importance, control.lineage.lineage))
        going = found[: len(found) - self._options.retain_wal_ids]
        for start in range(0, len(going), _PART):
            faultpoints.reach("clean.before-ids")
            self._delete([DeleteOp(item.key) for item in going[start : start + _PART]], control)
        return len(going)

    def _clean_groups(self, control: Control) -> int:
        found = list(iterate(self._coordinator, keys.GROUPS, revision=control.revision))
        if len(found) <= self._options.retain_groups + _PART:
            return 0
        found.sort(key=lambda item: item.mod_revision)
        going = found[: len(found) - self._options.retain_groups]
        removed = 0
        for start in range(0, len(going), _PART):
            part = going[start : start + _PART]
            head = self._coordinator.get(keys.HEAD)
            if head is None or head.mod_revision != control.head_revision:
                break  # a writer was here: the groups may have been touched
            faultpoints.reach("clean.before-groups")
            result = self._coordinator.txn(
                [Compare(keys.HEAD, head.mod_revision)],
                [
                    PutOp(keys.GROUPS_FLOOR, records.encode(FloorRecord(part[-1].mod_revision))),
                    PutOp(keys.HEAD, head.value),
                    *(DeleteOp(item.key) for item in part),
                ],
            )
            if not result.succeeded:
                break
            control = control._replace(head_revision=result.revision)
            removed += len(part)
        return removed

    def _delete(self, ops: Items[DeleteOp | DeleteRangeOp], control: Control) -> int:
        """Delete keys, unless the lineage has changed; return how many were deleted."""
        result = self._coordinator.txn([Compare(keys.LINEAGE, control.lineage_revision)], ops)
        if not result.succeeded:
            raise ConflictError("the store was imported or recovered meanwhile")
        return result.deleted


def _importance(lineage: str, item: KeyValue) -> tuple[bool, int, str]:
    """Return the order of deletion: keys of other lineages first, then by age (a recovery writes many at once)."""
    record = records.decode(WalIdRecord, item.value, item.key)
    return record.counts_in(lineage), item.mod_revision, record.sequence
