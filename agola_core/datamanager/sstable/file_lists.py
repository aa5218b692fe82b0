"""File lists: a run of many data files is named by lists, so that a manifest stays small however large the store is.

A list is a data file whose entries are the files below it: the last key of each one, and its `FileRef` in JSON. The
run's `depth` says how many lists stand above each data file; the manifest names the topmost ones. A list is written
with its run and never changes, so the next manifests name it again. It is read a block at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items

import msgspec

from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import FileRef, write_files
from agola_core.datamanager.sstable.files.entries import Entry, entry_key
from agola_core.datamanager.sstable.manifest import Run
from agola_core.datamanager.types import Options
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import AgolaError, CorruptionError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints

faultpoints.declare("checkpoint.before-file-list")

_FEWEST = 2
"""So many files are never listed, and no list but the last of a run has fewer, however small the blocks are."""

_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(FileRef)


def make_run(
    storage: ObjectStorage,
    files: Items[FileRef],
    options: Options,
    new_uuid: Callable[[], str],
    check: Callable[[], None] = lambda: None,
) -> Run:
    """Return a run of data files; write the lists that it needs so that the manifest names a block's worth at most.

    Args:
        storage: The store's object storage.
        files: The files, in the order of their keys.
        options: The sizes of blocks and files.
        new_uuid: Names a list.
        check: Called before each list; raises once the work has become useless.
    """
    named, depth = tuple(files), 0
    while not _fits(named, options):
        entries = ((entry_key(*ref.last), _ENCODER.encode(ref)) for ref in named)
        lists = write_files(
            storage,
            entries,
            options,
            new_uuid,
            with_filter=False,
            check=check,
            fewest=_FEWEST,
            point="checkpoint.before-file-list",
        )
        named, depth = tuple(lists), depth + 1
    return Run(named, depth, Run(tuple(files)).totals) if depth else Run(named)


def with_lists(
    storage: ObjectStorage, run: Run, options: Options, new_uuid: Callable[[], str], check: Callable[[], None]
) -> Run:
    """Return a run with the lists that it lacks: an earlier release wrote it, or one with larger blocks."""
    return run if run.depth else make_run(storage, run.files, options, new_uuid, check)


def _fits(files: tuple[FileRef, ...], options: Options) -> bool:
    return len(files) <= _FEWEST or len(_ENCODER.encode(files)) <= options.block_size


def find(storage: ObjectStorage, cache: BlockCache, run: Run, index: int, key: bytes) -> tuple[FileRef, str]:
    """Return the first data file below one of a run's topmost whose last key is at least a given one, and the topmost.

    Args:
        storage: The store's object storage.
        cache: Caches the lists.
        run: The run.
        index: The topmost file's index; its last key is at least `key`.
        key: The key.

    Raises:
        CorruptionError: A list is missing or damaged.
    """
    ref = run.files[index]
    top = ref.path
    for _ in range(run.depth):
        file = cache.open(storage, ref, top)
        found = cache.block(file, file.last_keys.find(key)).first(key)
        if found is None:
            raise CorruptionError("a block ends before the last key that the footer names", path=ref.path)
        ref = decode_entry(found, ref.path)
    return ref, top


def walk(storage: ObjectStorage, cache: BlockCache, run: Run, start: bytes = b"") -> Iterator[tuple[FileRef, str]]:
    """Yield a run's data files in order, each with the topmost file above it.

    Args:
        storage: The store's object storage.
        cache: Caches the lists.
        run: The run.
        start: Only files whose last key is at least this.

    Raises:
        CorruptionError: A list is missing or damaged.
    """
    for ref in run.files:
        if entry_key(*ref.last) >= start:
            for file in _below(storage, cache, ref, run.depth, start, ref.path):
                yield file, ref.path


def _below(
    storage: ObjectStorage, cache: BlockCache, ref: FileRef, depth: int, start: bytes, top: str
) -> Iterator[FileRef]:
    if not depth:
        yield ref
        return
    for child in children(storage, cache, ref, top, start):
        yield from _below(storage, cache, child, depth - 1, start, top)


def children(
    storage: ObjectStorage, cache: BlockCache, ref: FileRef, top: str, start: bytes = b""
) -> Iterator[FileRef]:
    """Yield the files that one list names, in order (see `walk`)."""
    file = cache.open(storage, ref, top)
    first = file.last_keys.find(start)
    if first < len(file.last_keys):
        for entry in cache.block(file, first).entries(start):
            yield decode_entry(entry, ref.path)
    for block in file.read_ahead(first + 1, len(file.last_keys)):
        for entry in block.entries():
            yield decode_entry(entry, ref.path)


def walk_back(storage: ObjectStorage, cache: BlockCache, run: Run, end: bytes) -> Iterator[tuple[FileRef, str]]:
    """Yield a run's data files from the first one whose last key is at least `end` down to its beginning.

    A few more may come before that one. The topmost file above it stands beside each.

    Raises:
        CorruptionError: A list is missing or damaged.
    """
    last_keys = [entry_key(*ref.last) for ref in run.files]
    for ref in reversed(run.files[: bisect_left(last_keys, end) + 1]):
        for file in _below_back(storage, cache, ref, run.depth, end, ref.path):
            yield file, ref.path


def _below_back(
    storage: ObjectStorage, cache: BlockCache, ref: FileRef, depth: int, end: bytes, top: str
) -> Iterator[FileRef]:
    if not depth:
        yield ref
        return
    file = cache.open(storage, ref, top)
    for index in reversed(range(min(file.last_keys.find(end) + 1, len(file.last_keys)))):
        for entry in reversed(list(cache.block(file, index).entries())):
            yield from _below_back(storage, cache, decode_entry(entry, ref.path), depth - 1, end, top)


def paths(storage: ObjectStorage, cache: BlockCache, run: Run) -> Iterator[str]:
    """Yield the paths of everything that a run needs: its lists and its data files.

    Raises:
        CorruptionError: A list is missing or damaged.
    """
    for ref in run.files:
        yield from _paths_below(storage, cache, ref, run.depth, ref.path)


def _paths_below(storage: ObjectStorage, cache: BlockCache, ref: FileRef, depth: int, top: str) -> Iterator[str]:
    yield ref.path
    if depth:
        for child in children(storage, cache, ref, top):
            yield from _paths_below(storage, cache, child, depth - 1, top)


def decode_entry(entry: Entry, path: str) -> FileRef:
    """Return the file that an entry of a list names.

    Args:
        entry: The entry.
        path: The list's path, for errors.

    Raises:
        CorruptionError: It names none, or one that stands elsewhere.
    """
    key, value = entry
    try:
        ref = _DECODER.decode(value or b"")
        if entry_key(*ref.last) != key:
            raise CorruptionError(f"it stands under {key!r}", path=ref.path)
    except (*DECODE_ERRORS, AgolaError) as error:
        raise CorruptionError(f"a list names no file: {error}", path=path) from error
    return ref
