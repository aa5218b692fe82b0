"""The block cache, which all tables share: open data files with their indexes, and the blocks read last."""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Collection
from weakref import WeakMethod

from agola_core.datamanager.sstable.files.block import Block, LoneValue
from agola_core.datamanager.sstable.files.datafile import FileRef
from agola_core.datamanager.sstable.files.open_file import OpenFile, open_file
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.processes.forks import fork_safe

_OPEN_FILES = 256
_FEWEST_OPEN_FILES = 16
_SHARE_OF_DESCRIPTORS = 8
"""A store keeps at most this part of the files open that its process may: several stores fit into one."""

_INDEX_BYTES = 32 * 1024 * 1024
_GATES = 16
_LARGEST_SHARE = 8
"""A block larger than this part of the cache is not kept: it would push out too many others."""


class BlockCache:
    """Opened files and decoded blocks, those unused for longest dropped first. Thread-safe.

    Args:
        limit: Bytes of decoded blocks to keep.
        open_files: The most files whose descriptors to keep open; None for a share of what the process may open.
        index_limit: Bytes of the files' indexes to keep, those of closed files among them.
    """

    def __init__(
        self, limit: int = 64 * 1024 * 1024, open_files: int | None = None, index_limit: int = _INDEX_BYTES
    ) -> None:
        self._limit = limit
        self._open_files = _fair_share() if open_files is None else open_files
        self._index_limit = index_limit
        self._size = 0
        self._index_size = 0
        self._lock = fork_safe(threading.Lock())
        self._gates = [fork_safe(threading.Lock()) for _ in range(_GATES)]
        self._blocks: OrderedDict[tuple[str, str, int], Block | LoneValue] = OrderedDict()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._descriptors: OrderedDict[OpenFile, None] = OrderedDict()  # a path may be opened more than once
        opened = WeakMethod(self._opened)  # a cycle would keep the files of a dropped cache open

        def noted(file: OpenFile) -> None:
            note = opened()
            if note is not None:
                note(file)

        self._noted = noted

    def open(self, storage: ObjectStorage, ref: FileRef, top: str = "") -> OpenFile:
        """Return an opened data file; opening reads its footer, once for all who wait for it.

        Args:
            storage: The store's object storage.
            ref: The file.
            top: The list in the manifest that it is named below; "" for a file that the manifest names itself.

        Raises:
            CorruptionError: The file is missing or damaged.
        """
        file = self._files.get(ref.path)
        if file is not None:
            file.used = True
            return file
        with self._gates[hash(ref.path) % _GATES]:
            file = self._files.get(ref.path)
            if file is None:
                file = open_file(storage, ref, top, self._noted)
                self._keep_file(file)
        return file

    def block(self, file: OpenFile, index: int) -> Block | LoneValue:
        """Return a block of a file; one range read unless it is kept.

        Raises:
            CorruptionError: The block is damaged.
        """
        key = (file.top, file.ref.path, index)
        block = self._blocks.get(key)
        if block is not None:
            try:  # noqa: SIM105 - `suppress` costs as much as the lock would
                self._blocks.move_to_end(key)
            except KeyError:  # another thread has dropped it just now
                pass
            return block
        block = file.read(index)
        if block.size > self._limit // _LARGEST_SHARE:
            return block
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._size += block.size
                while self._size > self._limit:
                    self._size -= self._blocks.popitem(last=False)[1].size
        return block

    def keep_only(self, tops: Collection[str]) -> None:
        """Let go of every file that is not among some, or below them, with its blocks.

        It is closed once nobody reads it.

        Args:
            tops: The files that the manifest names that is read from now on. Whoever still reads an older one opens
                its files again, and they stay until the next manifest.
        """
        with self._lock:
            for path in [path for path, file in self._files.items() if file.top not in tops]:
                self._index_size -= self._files.pop(path).size
            for file in [file for file in self._descriptors if file.top not in tops]:
                del self._descriptors[file]
            for key in [key for key in list(self._blocks) if key[0] not in tops]:  # readers move keys without the lock
                self._size -= self._blocks.pop(key).size

    def _keep_file(self, file: OpenFile) -> None:
        with self._lock:
            while self._files and self._index_size + file.size > self._index_limit:
                path, oldest = self._files.popitem(last=False)
                if oldest.used:  # a second chance: readers only set a mark, without the lock
                    oldest.used = False
                    self._files[path] = oldest
                else:  # its reader closes with its last user
                    self._index_size -= oldest.size
                    self._descriptors.pop(oldest, None)
            self._files[file.ref.path] = file
            self._index_size += file.size

    def _opened(self, file: OpenFile) -> None:
        """Close the file that nobody has read from for longest when there are too many; its index stays."""
        if not file.has_descriptor:
            return
        with self._lock:
            self._descriptors.pop(file, None)
            while len(self._descriptors) >= self._open_files:
                oldest, _ = self._descriptors.popitem(last=False)
                if oldest.fetched:
                    oldest.fetched = False
                    self._descriptors[oldest] = None
                else:
                    oldest.reader = None
            self._descriptors[file] = None


def _fair_share() -> int:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return _OPEN_FILES
    return min(_OPEN_FILES, max(_FEWEST_OPEN_FILES, allowed // _SHARE_OF_DESCRIPTORS))
