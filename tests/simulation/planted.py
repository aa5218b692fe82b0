"""Bugs planted in the store, to see that the simulation finds them.

`python -m tests.simulation.planted NAME` ends with 0 when the bug was found, and 1 when it was not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any
from unittest.mock import patch

import msgspec

from agola_core.coordinator.port import Compare, KeyValue, Op, TxnResult
from agola_core.datamanager.background import checkpoint, garbage_collector, maintenance_tasks, sync, wal_cleanup
from agola_core.datamanager.format.control import Control
from agola_core.datamanager.identity import instance, opening
from agola_core.datamanager.identity.lineage import NewLineage
from agola_core.datamanager.log.commit import conflict_check, outcome_resolver
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.sstable import compaction
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import UnknownOutcomeError
from tests.simulation.backends import WorldCoordinator
from tests.simulation.campaign import trial
from tests.soak.trial import Violation

SEEDS = 600
FIRST = {"commit_collected_payloads": 304, "give_tokens_that_are_too_new": 18, "collect_under_readers": 25}
"""The seed to begin with, for bugs that take some."""


def publish_without_compares() -> None:
    """A checkpoint is published whatever happened to its lock and to the one before."""
    publish = checkpoint.Checkpointer._publish

    def careless(self: checkpoint.Checkpointer, *arguments: Any) -> None:
        coordinator = self._log.coordinator
        with patch.object(coordinator, "txn", lambda compare, *ops: type(coordinator).txn(coordinator, [], *ops)):
            publish(self, *arguments)

    checkpoint.Checkpointer._publish = careless  # type: ignore[method-assign]
    instance.Lock.check = lambda self: None  # type: ignore[method-assign]


def note_a_sync_before_it_is_made() -> None:
    """The record says that storage has WALs that are on their way there."""
    make = sync.Syncer._sync_batch

    def early(self: sync.Syncer, control: Control) -> None:
        frames, last = self._from_memory(control) or self._from_coordinator(control)
        self._move_record(control, last, frames[-1])
        make(self, control)

    sync.Syncer._sync_batch = early  # type: ignore[method-assign]


def drop_deletes() -> None:
    """A checkpoint leaves deletes out although older data files have what they delete."""
    merge = compaction.merge
    compaction.merge = lambda sources, *, drop_tombstones: merge(sources, drop_tombstones=True)


def leave_unknown_outcomes() -> None:
    """A commit whose answer was lost is taken for one that was not made."""
    outcome_resolver.OutcomeResolver.resolve = lambda self, *arguments: TxnResult(False, 0)  # type: ignore[method-assign]


def retry_transactions_blindly() -> None:
    """A client sends a transaction again whose answer was lost."""
    send = WorldCoordinator.txn

    def stubborn(
        self: WorldCoordinator, compare: Items[Compare], then: Items[Op], otherwise: Items[Op] = ()
    ) -> TxnResult:
        try:
            return send(self, compare, then, otherwise)
        except UnknownOutcomeError:
            return send(self, compare, then, otherwise)

    WorldCoordinator.txn = stubborn  # type: ignore[method-assign]


def number_epochs_by_the_clock() -> None:
    """The newest lineage is the one with the latest time, as in Agola 0.2."""
    switch = opening.switch

    def by_clock(coordinator: Any, storage: Any, new: NewLineage, **options: Any) -> None:
        epoch = int(new.created.timestamp()) + 10**9
        switch(coordinator, storage, msgspec.structs.replace(new, epoch=epoch), **options)

    opening.switch = by_clock  # type: ignore[assignment]


def collect_under_readers() -> None:
    """A collection does not ask what others read."""
    garbage_collector.list_instances = lambda coordinator: []


def collect_what_lists_name() -> None:
    """A collection keeps the files that a manifest names itself, and not those below its lists."""
    garbage_collector.file_lists.paths = lambda storage, cache, run: (file.path for file in run.files)


def commit_collected_payloads() -> None:
    """A payload is committed although a collection came after it was written."""
    conflict_check._with_payloads = lambda waiting, collected: waiting


def never_refuse() -> None:
    """Whoever writes late overwrites what it has not seen."""
    conflict_check.ConflictCheck._refusal = lambda self, commit: None  # type: ignore[method-assign]


def forget_given_ids() -> None:
    """A retry is taken for another write."""
    conflict_check.ConflictCheck._earlier_outcome = lambda self, commit, item: None  # type: ignore[method-assign]


def recover_checkpoints_alone() -> None:
    """A recovery leaves out the WALs after the newest checkpoint."""
    opening.read_chain = lambda storage, root, after: iter(())


def acknowledge_before_the_sync() -> None:
    """Durability in storage is promised before storage has the WAL."""
    maintenance_tasks.MaintenanceTasks.wait_synced = lambda self, sequence, timeout: None  # type: ignore[method-assign]


def clean_what_is_not_checkpointed() -> None:
    """WALs leave the coordinator once they are synced."""

    def hasty(coordinator: Any) -> Control | None:
        control = read(coordinator)
        if control is None:
            return None
        return control._replace(checkpoint=wal_cleanup.records.CheckpointRecord(0, "", str(control.synced), ""))

    read = wal_cleanup.read_control
    wal_cleanup.read_control = hasty


def give_tokens_that_are_too_new() -> None:
    """A token names a change that the data read with it do not have."""

    def hasty(self: DataManager, groups: Items[str]) -> ChangeGroupsToken:
        found: dict[str, KeyValue | None] = {name: self.coordinator.get(f"dm/changegroups/{name}") for name in groups}
        revisions = {name: item.mod_revision if item else 0 for name, item in found.items()}
        view = self._log.view
        newest = max([view.revision, *revisions.values()])
        return ChangeGroupsToken(newest, revisions, view.lineage.lineage, str(view.sequence))

    DataManager.change_groups_token = hasty  # type: ignore[method-assign,assignment]


def keep_the_lease_of_a_failed_opening() -> None:
    """An instance that could not be published is left as it is."""
    instance.LeaseKeeper.close = lambda self: None  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        publish_without_compares,
        note_a_sync_before_it_is_made,
        drop_deletes,
        leave_unknown_outcomes,
        retry_transactions_blindly,
        number_epochs_by_the_clock,
        collect_under_readers,
        collect_what_lists_name,
        commit_collected_payloads,
        never_refuse,
        forget_given_ids,
        recover_checkpoints_alone,
        acknowledge_before_the_sync,
        clean_what_is_not_checkpointed,
        give_tokens_that_are_too_new,
        keep_the_lease_of_a_failed_opening,
    )
}


def main(name: str) -> int:
    """Look for a bug."""
    BUGS[name]()
    started, cycles = time.monotonic(), 0
    first = FIRST.get(name, 0)
    for seed in range(first, first + SEEDS):
        try:
            cycles += trial(seed)["cycles"]
        except Violation as violation:
            print(f"{name}: found after {cycles} cycles, in {time.monotonic() - started:.1f} s, by {violation}")
            return 0
    print(f"{name}: not found in {cycles} cycles")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
