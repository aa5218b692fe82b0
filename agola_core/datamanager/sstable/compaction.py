"""Folding changes into runs: the one place where checkpoints and recovery write data files.

The changes are merged with the newer runs that `tiers` names, so writes follow the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from agola_core.datamanager.format.batches import read_actions
from agola_core.datamanager.format.records import WalRecord
from agola_core.datamanager.sstable.block_cache import BlockCache
from agola_core.datamanager.sstable.datafile import write_files
from agola_core.datamanager.sstable.entries import Entry, entry_key, merge
from agola_core.datamanager.sstable.manifest import Manifest, Run
from agola_core.datamanager.sstable.memtable import Memtable
from agola_core.datamanager.sstable.table import scan_run
from agola_core.datamanager.sstable.tiers import runs_to_merge, shadowed_by_deletes
from agola_core.datamanager.types import Options
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.progress import Meter, Progress, ignore
from agola_core.sequence import Sequence

Runs = tuple[Run, ...]


class Folded(NamedTuple):
    """What a manifest is made of.

    Attributes:
        runs: The runs, newest first.
        reached: The newest WAL that they hold.
        data_types: Every type that they may hold, sorted.
    """

    runs: Runs
    reached: Sequence
    data_types: tuple[str, ...]


class Folder:
    """Folds changes into the runs of a manifest, holding little more than the changes in memory.

    Args:
        storage: Where data files lie.
        cache: Keeps the indexes of those that are read.
        options: The sizes of blocks and files.
        new_uuid: Names data files.
    """

    def __init__(
        self, storage: ObjectStorage, cache: BlockCache, options: Options, new_uuid: Callable[[], str]
    ) -> None:
        self._storage = storage
        self._cache = cache
        self._options = options
        self._new_uuid = new_uuid

    def fold(self, runs: Runs, memtable: Memtable, counter: int, check: Callable[[], None]) -> Runs:
        """Write a memtable's changes into data files; return the runs that hold them and everything before.

        Args:
            runs: What was before, newest first.
            memtable: The changes.
            counter: The newest WAL to fold.
            check: Called before each file; raises when the work has become useless.
        """
        sizes, deletes = [run.size for run in runs], [memtable.deletes(), *(run.tombstones for run in runs)]
        shadowed = shadowed_by_deletes(deletes, sizes, [run.entries - run.tombstones for run in runs])
        return self._merge(runs, runs_to_merge(sizes, memtable.size, shadowed), memtable, counter, check)

    def compact(
        self, runs: Runs, memtable: Memtable, counter: int, check: Callable[[], None], progress: Progress = ignore
    ) -> Runs:
        """Write everything anew into one run, without what is deleted or replaced (see `fold` for the parameters).

        Args:
            runs: What was before, newest first.
            memtable: The changes.
            counter: The newest WAL to fold.
            check: Called before each file; raises when the work has become useless.
            progress: Told of the entries and bytes that were written; what it raises gives the work up.
        """
        meter = Meter("compact", progress, sum(run.entries for run in runs))
        merged = self._merge(runs, len(runs), memtable, counter, check, meter)
        meter.end()
        return merged

    def _merge(
        self,
        runs: Runs,
        count: int,
        memtable: Memtable,
        counter: int,
        check: Callable[[], None],
        meter: Meter | None = None,
    ) -> Runs:
        merged, kept = runs[:count], runs[count:]
        entries = merge(
            [_changes(memtable, counter), *(scan_run(self._storage, self._cache, run) for run in merged)],
            drop_tombstones=not kept,
        )
        files = write_files(
            self._storage,
            entries if meter is None else _metered(entries, meter),
            self._options,
            self._new_uuid,
            with_filter=bool(kept),
            check=check,
        )
        return (Run(tuple(files)), *kept) if files else kept

    def fold_wals(self, manifest: Manifest, wals: Iterator[WalRecord], check: Callable[[], None]) -> Folded:
        """Fold WALs that are read back, a checkpoint's worth of them at a time in memory.

        Args:
            manifest: What was before.
            wals: Those that follow, in order.
            check: As for `fold`.
        """
        memtable, runs, reached, data_types = Memtable(), manifest.runs, manifest.sequence, {*manifest.data_types}
        for record in wals:
            memtable.apply(record.counter, read_actions(self._storage, record))
            reached = record.sequence
            if memtable.size >= self._options.checkpoint_bytes:
                data_types.update(memtable.data_types())
                runs, memtable = self.fold(runs, memtable, reached.counter, check), Memtable()
        if memtable.size:
            data_types.update(memtable.data_types())
            runs = self.fold(runs, memtable, reached.counter, check)
        return Folded(runs, reached, tuple(sorted(data_types)))


def _metered(entries: Iterator[Entry], meter: Meter) -> Iterator[Entry]:
    for entry in entries:
        meter.add(1, len(entry[1] or b""))
        yield entry


def _changes(memtable: Memtable, counter: int) -> Iterator[Entry]:
    for data_type in memtable.data_types():
        for object_id, data in memtable.scan(data_type, "", counter):
            yield entry_key(data_type, object_id), data
