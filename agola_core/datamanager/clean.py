"""Cleaning: what the coordinator no longer needs leaves it, so it stays small.

Checkpointed WALs go, all but the newest ones; so do the outcomes of old WAL ids and change groups that nobody
touched for long. Forgetting a group raises the floor below which tokens are refused, and moves the head, so no
commit judges by a group that is gone.
"""

from __future__ import annotations

from functools import partial

from agola_core import faultpoints
from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, KeyValue, PutOp, iterate
from agola_core.datamanager import keys, records
from agola_core.datamanager.control import Control, read_control
from agola_core.datamanager.records import FloorRecord, WalIdRecord
from agola_core.datamanager.types import Options
from agola_core.errors import ConflictError
from agola_core.sequence import Sequence

faultpoints.declare("clean.before-wals", "clean.before-ids", "clean.before-groups", "clean.before-compaction")

_PART = 100
_HISTORY = 10_000


class Cleaner:
    """Cleans a store's coordinator; any instance may, at any time.

    Args:
        coordinator: What is cleaned.
        options: How much is kept.
    """

    def __init__(self, coordinator: Coordinator, options: Options) -> None:
        self._coordinator = coordinator
        self._options = options

    def clean(self) -> int:
        """Remove what is no longer needed and return how many keys went."""
        control = read_control(self._coordinator)
        if control is None:
            return 0
        removed = self._clean_wals(control) + self._clean_ids(control)
        control = read_control(self._coordinator)
        if control is not None:
            removed += self._clean_groups(control)
        return removed

    def compact(self) -> None:
        """Let the coordinator forget its oldest history, which only watches far behind would miss."""
        revision = self._coordinator.list(keys.CONTROL).revision - _HISTORY
        if revision > 0:
            faultpoints.reach("clean.before-compaction")
            self._coordinator.compact(revision)

    def _clean_wals(self, control: Control) -> int:
        checkpointed = min(Sequence.parse(control.checkpoint.sequence), control.synced)
        newest_to_go = min(checkpointed.counter, control.head.counter - self._options.retain_wals)
        going = []
        for item in iterate(self._coordinator, keys.WALS, revision=control.revision):
            sequence = keys.wal_sequence(item.key)
            if sequence.epoch == control.lineage.epoch and sequence.counter > newest_to_go:
                break
            going.append(item.key)
        return self._delete(going, control, "clean.before-wals")

    def _clean_ids(self, control: Control) -> int:
        found = list(iterate(self._coordinator, keys.WAL_IDS, revision=control.revision))
        if len(found) <= self._options.retain_wal_ids:
            return 0
        found.sort(key=partial(_importance, control.lineage.lineage))
        going = [item.key for item in found[: len(found) - self._options.retain_wal_ids]]
        return self._delete(going, control, "clean.before-ids")

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

    def _delete(self, going: list[str], control: Control, faultpoint: str) -> int:
        for start in range(0, len(going), _PART):
            part = going[start : start + _PART]
            faultpoints.reach(faultpoint)
            result = self._coordinator.txn(
                [Compare(keys.LINEAGE, control.lineage_revision)], [DeleteOp(key) for key in part]
            )
            if not result.succeeded:
                raise ConflictError("the store was imported or recovered meanwhile")
        return len(going)


def _importance(lineage: str, item: KeyValue) -> tuple[bool, int, str]:
    """Return what orders remembered ids: of other lineages first, then by age (a recovery writes many at once)."""
    record = records.decode(WalIdRecord, item.value, item.key)
    return record.counts_in(lineage), item.mod_revision, record.sequence
