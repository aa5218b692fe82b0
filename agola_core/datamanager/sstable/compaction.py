"""Flushes and compacts: merges the memtable's changes with sorted runs, and writes the result into data files.

Checkpoints, recovery and repair all write through here. A flush merges the changes with only those newer runs that
`tiers` names, so that the bytes written follow the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from agola_core.datamanager.format.batches import read_actions
from agola_core.datamanager.format.records import WalRecord
from agola_core.datamanager.sstable.file_lists import make_run, with_lists
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import write_files
from agola_core.datamanager.sstable.files.entries import Entry, entry_key, merge
from agola_core.datamanager.sstable.manifest import Manifest, Run
from agola_core.datamanager.sstable.memtable import Memtable
from agola_core.datamanager.sstable.table import scan_run
from agola_core.datamanager.sstable.tiers import runs_to_merge, shadowed_by_deletes
from agola_core.datamanager.types import Options
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.progress import Meter, Progress, ignore
from agola_core.sequence import Sequence

Runs = tuple[Run, ...]


class Flushed(NamedTuple):
    """The result of flushing WALs: what the next manifest is made of.

    Attributes:
        runs: The runs, newest first.
        reached: The newest WAL that they include.
        data_types: Every type that they may hold, sorted.
    """

    runs: Runs
    reached: Sequence
    data_types: tuple[str, ...]


class Compactor:
    """Merges changes with the runs of a manifest; holds little more than the changes in memory.

    Args:
        storage: The store's object storage.
        cache: The block cache.
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

    def flush(self, runs: Runs, memtable: Memtable, counter: int, check: Callable[[], None]) -> Runs:
        """Write a memtable's changes into data files; return the runs that hold them and everything before.

        Args:
            runs: The runs before, newest first.
            memtable: The changes.
            counter: The newest WAL to include.
            check: Called before each file; raises once the work has become useless.
        """
        sizes, deletes = [run.size for run in runs], [memtable.deletes(), *(run.tombstones for run in runs)]
        shadowed = shadowed_by_deletes(deletes, sizes, [run.entries - run.tombstones for run in runs])
        return self._merge(runs, runs_to_merge(sizes, memtable.size, shadowed), memtable, counter, check)

    def compact(
        self, runs: Runs, memtable: Memtable, counter: int, check: Callable[[], None], progress: Progress = ignore
    ) -> Runs:
        """Merge everything into one run, without deleted and replaced objects.

        Args:
            runs: The runs before, newest first.
            memtable: The changes.
            counter: The newest WAL to include.
            check: Called before each file; raises once the work has become useless.
            progress: Told of the written entries and bytes; raising an error aborts the work.
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
        place = self._options, self._new_uuid, check
        kept = tuple(with_lists(self._storage, run, *place) for run in kept)
        return (make_run(self._storage, files, *place), *kept) if files else kept

    def flush_wals(self, manifest: Manifest, wals: Iterator[WalRecord], check: Callable[[], None]) -> Flushed:
        """Flush WALs that were read back, holding a checkpoint's worth of them in memory at a time.

        Args:
            manifest: The manifest before them.
            wals: The WALs that follow it, in order.
            check: As for `flush`.
        """
        memtable, runs, reached, data_types = Memtable(), manifest.runs, manifest.sequence, {*manifest.data_types}
        for record in wals:
            memtable.apply(record.counter, read_actions(self._storage, record))
            reached = record.sequence
            if memtable.size >= self._options.checkpoint_bytes:
                data_types.update(memtable.data_types())
                runs, memtable = self.flush(runs, memtable, reached.counter, check), Memtable()
        if memtable.size:
            data_types.update(memtable.data_types())
            runs = self.flush(runs, memtable, reached.counter, check)
        return Flushed(runs, reached, tuple(sorted(data_types)))


def _metered(entries: Iterator[Entry], meter: Meter) -> Iterator[Entry]:
    for entry in entries:
        meter.add(1, len(entry[1] or b""))
        yield entry


def _changes(memtable: Memtable, counter: int) -> Iterator[Entry]:
    for data_type in memtable.data_types():
        for object_id, data in memtable.scan(data_type, "", counter):
            yield entry_key(data_type, object_id), data
