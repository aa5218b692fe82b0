"""Reads the data files of one manifest as one sorted table, which is immutable and shared by any number of readers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile

from agola_core.datamanager.sstable import file_lists
from agola_core.datamanager.sstable.events.cache import EventCache
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import key_hash
from agola_core.datamanager.sstable.files.entries import Entry, entry_key, merge, merge_back, type_bounds
from agola_core.datamanager.sstable.files.open_file import OpenFile
from agola_core.datamanager.sstable.manifest import Manifest, Run
from agola_core.objectstorage.port import ObjectStorage


class Table:
    """The content of a manifest's data files.

    Args:
        storage: The store's object storage.
        manifest: The manifest.
        cache: Shared with other tables.

    Attributes:
        events: The events that were read last.
    """

    def __init__(self, storage: ObjectStorage, manifest: Manifest, cache: BlockCache) -> None:
        self._storage = storage
        self._cache = cache
        self._last: dict[str, str] = {}
        self.events = EventCache()
        self._runs = [
            (
                run,
                [b"" if run.depth else entry_key(*file.first) for file in run.files],
                [entry_key(*file.last) for file in run.files],
            )
            for run in manifest.runs
            if run.files
        ]

    def get(self, data_type: str, object_id: str) -> bytes | None:
        """Return an object; None when it does not exist.

        This takes at most one range read, once the lists and footers are known: the key filters skip newer runs.

        Raises:
            CorruptionError: A file is missing or damaged.
        """
        key = entry_key(data_type, object_id)
        hashed = key_hash(key) if len(self._runs) > 1 else 0
        for run, first_keys, last_keys in self._runs:
            index = bisect_left(last_keys, key)
            if index == len(last_keys) or key < first_keys[index]:
                continue
            ref, top = run.files[index], ""
            if run.depth:
                ref, top = file_lists.find(self._storage, self._cache, run, index, key)
                if key < entry_key(*ref.first):
                    continue
            file = self._cache.open(self._storage, ref, top)
            if file.filter is not None and not file.filter.may_have(hashed or key_hash(key)):
                continue
            block = self._cache.block(file, file.last_keys.find(key))
            found, value = block.find(key)
            if found:
                return value
        return None

    def count(self, data_types: set[str]) -> int:
        """Return about how many objects of some types there are: those of each file that may have one of them."""
        return sum(
            file.entries - 2 * file.tombstones
            for run, _, _ in self._runs
            for file, _ in file_lists.walk(self._storage, self._cache, run)
            if any(file.first[0] <= name <= file.last[0] for name in data_types)
        )

    def last(self, data_type: str) -> str:
        """Return the last id of a type in byte order; "" when it has no objects."""
        found = self._last.get(data_type)
        if found is None:
            found = next((object_id for object_id, _ in self.scan_back(data_type)), "")
            self._last[data_type] = found
        return found

    def scan_range(self, data_type: str, start: str, end: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the id and the bytes of a type's objects from an id up to another, or to the end, both included."""
        before, after = type_bounds(data_type)
        stop = entry_key(data_type, end) + b"\0" if end else after
        for key, value in self.entries(entry_key(data_type, start), stop):
            if value is not None:
                yield key[len(before) :].decode(), value

    def scan_back(self, data_type: str, start: str = "", end: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the same from the end to the start; without them, all of a type."""
        before, after = type_bounds(data_type)
        first = entry_key(data_type, start) if start else before
        stop = entry_key(data_type, end) + b"\0" if end else after
        sources = [scan_run_back(self._storage, self._cache, run, first, stop) for run, _, _ in self._runs]
        skip = len(before)
        for key, value in merge_back(sources):
            yield key[skip:].decode(), value

    def scan(self, data_type: str, start_after: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the id and the bytes of a type's objects, in the byte order of their ids.

        Args:
            data_type: The type to scan.
            start_after: Only ids that sort after it.
        """
        before, end = type_bounds(data_type)
        start = entry_key(data_type, start_after) if start_after else before
        skip = len(before)
        for key, value in self.entries(start, end):
            if value is not None and key != start:
                yield key[skip:].decode(), value

    def entries(self, start: bytes = b"", end: bytes = b"") -> Iterator[Entry]:
        """Yield entries from `start` up to before `end` (b"" for all), tombstones of the newer runs left out."""
        sources = [scan_run(self._storage, self._cache, run, start, end) for run, _, _ in self._runs]
        return merge(sources, drop_tombstones=True) if sources else iter(())


def scan_run(
    storage: ObjectStorage, cache: BlockCache, run: Run, start: bytes = b"", end: bytes = b""
) -> Iterator[Entry]:
    """Yield a run's entries from `start` up to before `end`, with tombstones, without caching blocks.

    Args:
        storage: The store's object storage.
        cache: Caches the files' footers.
        run: The run.
        start: The first key, b"" for all.
        end: The key before which to stop, b"" for none.
    """
    before = 0
    for ref, top in file_lists.walk(storage, cache, run, start):
        if end and entry_key(*ref.first) >= end:
            return
        yield from _scan_file(cache.open(storage, ref, top), start, end, before)
        before += ref.size


def _scan_file(file: OpenFile, start: bytes, end: bytes, before: int) -> Iterator[Entry]:
    keys = file.last_keys
    first = keys.find(start)
    whole = keys.find(end) if end else len(keys)  # blocks before it end before `end`
    for index, block in enumerate(file.read_ahead(first, min(whole + 1, len(keys)), before), first):
        entries = block.entries(start if index == first else b"")
        yield from entries if index < whole else takewhile(lambda entry: entry[0] < end, entries)


def scan_run_back(storage: ObjectStorage, cache: BlockCache, run: Run, start: bytes, end: bytes) -> Iterator[Entry]:
    """Yield a run's entries from before `end` down to `start`, tombstones among them."""
    for ref, top in file_lists.walk_back(storage, cache, run, end):
        if entry_key(*ref.first) >= end:
            continue
        if entry_key(*ref.last) < start:
            return
        file = cache.open(storage, ref, top)
        first = file.last_keys.find(start)
        stop = min(file.last_keys.find(end) + 1, len(file.last_keys))
        for block in file.read_back(first, stop):
            for entry in reversed(list(block.entries(start))):
                if entry[0] < end:
                    yield entry


def missing_files(storage: ObjectStorage, runs: Iterable[Run]) -> list[str]:
    """Return the paths of those data files of some runs that are not in storage, by one listing.

    Raises:
        CorruptionError: A list of them is missing or damaged.
    """
    cache = BlockCache()
    paths = chain.from_iterable(file_lists.paths(storage, cache, run) for run in runs)
    first = next(paths, None)
    if first is None:
        return []
    stored = {info.path for info in storage.list(first.rpartition("/")[0] + "/")}
    return [path for path in chain([first], paths) if path not in stored]
