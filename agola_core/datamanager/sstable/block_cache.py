"""The block cache, which all tables share: open data files with their indexes, and the blocks read last."""

from __future__ import annotations

import resource
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator
from itertools import chain

from agola_core.datamanager.sstable.block import Block, LoneValue, decode_block
from agola_core.datamanager.sstable.datafile import FileRef, Footer, KeyFilter, read_footer
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectReader, ObjectStorage
from agola_core.runtime.forks import fork_safe
from agola_core.runtime.parallel import parallel_map

_OPEN_FILES = 256
_FEWEST_OPEN_FILES = 16
_SHARE_OF_DESCRIPTORS = 8
"""A store keeps at most this part of the files open that its process may: several stores fit into one."""

_INDEX_BYTES = 32 * 1024 * 1024
_FILE_BYTES = 1000
_BLOCK_BYTES = 60
"""Bytes of memory that a block's place in an index takes beside its key, about."""

_FIRST_SPAN, _LAST_SPAN = 32 * 1024, 1024 * 1024
"""Bytes that a scan reads at once, at its beginning and later: a short one shall not read much too far."""

_AHEAD = 768 * 1024
"""From a span of as many bytes on, those of a remote file are read ahead: the scan is a long one."""

_SPANS_AHEAD = 2

_WHOLE = 64 * 1024
"""A file of at most this many bytes is read at once when it is opened: one request instead of two."""

_GATES = 16
_LARGEST_SHARE = 8
"""A block larger than this part of the cache is not kept: it would push out too many others."""


class OpenFile:
    """A data file that is open.

    Args:
        ref: The file.
        reader: Reads its ranges.
        footer: Its index, as it is stored.
        held: Bytes of the file that the reader holds in memory.
        top: The file that the manifest names itself: this one, or the list above it.

    Attributes:
        last_keys: The last key of each block.
        filter: Which keys it has; None for a file of the oldest run.
        size: Bytes of memory that its index and what is held of it take, about.
        used: Whether it was used again since it was opened, or last looked at for dropping.
    """

    __slots__ = ("_codings", "_crcs", "_offsets", "filter", "last_keys", "reader", "ref", "size", "top", "used")

    def __init__(self, ref: FileRef, reader: ObjectReader, footer: Footer, held: int = 0, top: str = "") -> None:
        self.ref = ref
        self.top = top or ref.path
        self.reader = reader
        self.last_keys = footer.last_keys
        self._offsets = array("Q", [*footer.offsets, ref.footer])  # numbers in arrays take a fifth of those in lists
        self._crcs = array("I", footer.crcs)
        self._codings = footer.codings
        self.filter = KeyFilter(footer.filter) if footer.filter else None
        self.size = _FILE_BYTES + _BLOCK_BYTES * len(footer.crcs) + sum(map(len, footer.last_keys)) + len(footer.filter)
        self.size += held
        self.used = False

    def read(self, index: int) -> Block | LoneValue:
        """Return a block, read from the storage by one request.

        Raises:
            CorruptionError: The block is damaged.
        """
        start, end = self._offsets[index], self._offsets[index + 1]
        return self._decode(index, self._fetch(start, end - start))

    def read_ahead(self, first: int, stop: int, before: int = 0) -> Iterator[Block | LoneValue]:
        """Yield the blocks from `first` up to before `stop`, a growing number of them by one request.

        Large spans of a remote file are read while the blocks before them are used.

        Args:
            first: The first block.
            stop: The block after the last one.
            before: Bytes that the scan has read of other files.

        Raises:
            CorruptionError: A block is missing or damaged.
        """
        spans = self._spans(first, stop, min(max(before, _FIRST_SPAN), _LAST_SPAN))
        for begin, after, span in self._read_spans(spans):
            start = self._offsets[begin]
            for index in range(begin, after):
                yield self._decode(index, span[self._offsets[index] - start : self._offsets[index + 1] - start])

    def _spans(self, first: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
        """Yield the first block and the block after the last one of each request."""
        while first < stop:
            after = max(first + 1, min(stop, bisect_right(self._offsets, self._offsets[first] + wanted) - 1))
            yield first, after
            first, wanted = after, min(2 * wanted, _LAST_SPAN)

    def _read_spans(self, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int, bytes]]:
        if not self.reader.remote:
            yield from map(self._read_span, spans)
            return
        for span in spans:
            if self._offsets[span[1]] - self._offsets[span[0]] < _AHEAD:
                yield self._read_span(span)
            else:
                yield from parallel_map(self._read_span, chain([span], spans), workers=_SPANS_AHEAD)

    def _read_span(self, span: tuple[int, int]) -> tuple[int, int, bytes]:
        start = self._offsets[span[0]]
        return *span, self._fetch(start, self._offsets[span[1]] - start)

    def read_back(self, first: int, stop: int) -> Iterator[Block | LoneValue]:
        """Yield the blocks from before `stop` down to `first`, a growing number of them by one request.

        Raises:
            CorruptionError: A block is damaged.
        """
        wanted = _FIRST_SPAN
        while first < stop:
            end = self._offsets[stop]
            before = min(stop - 1, max(first, bisect_left(self._offsets, end - wanted)))
            start = self._offsets[before]
            span = self._fetch(start, end - start)
            for index in range(stop - 1, before - 1, -1):
                yield self._decode(index, span[self._offsets[index] - start : self._offsets[index + 1] - start])
            stop, wanted = before, min(2 * wanted, _LAST_SPAN)

    def _fetch(self, offset: int, length: int) -> bytes:
        try:
            return self.reader.read(offset, length)
        except NotFoundError as error:  # to whoever reads an object that would mean that there is none
            raise CorruptionError("the data file is missing", path=self.ref.path, offset=offset) from error

    def _decode(self, index: int, stored: bytes) -> Block | LoneValue:
        return decode_block(
            stored,
            self._codings[index],
            self._crcs[index],
            self.last_keys[index],
            self.ref.path,
            self._offsets[index],
            self.ref.largest_block,
        )


class BlockCache:
    """Opened files and decoded blocks, those unused for longest dropped first. Thread-safe.

    Args:
        limit: Bytes of decoded blocks to keep.
        open_files: The most files to keep open; None for a share of what the process may open.
        index_limit: Bytes of the opened files' indexes to keep.
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
                file = open_file(storage, ref, top)
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
            with self._lock:
                if key in self._blocks:
                    self._blocks.move_to_end(key)
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
            for key in [key for key in self._blocks if key[0] not in tops]:
                self._size -= self._blocks.pop(key).size

    def _keep_file(self, file: OpenFile) -> None:
        with self._lock:
            while self._files and (
                len(self._files) >= self._open_files or self._index_size + file.size > self._index_limit
            ):
                path, oldest = self._files.popitem(last=False)
                if oldest.used:  # a second chance: readers only set a mark, without the lock
                    oldest.used = False
                    self._files[path] = oldest
                else:  # its reader closes with its last user
                    self._index_size -= oldest.size
            self._files[file.ref.path] = file
            self._index_size += file.size


def _fair_share() -> int:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return _OPEN_FILES
    return min(_OPEN_FILES, max(_FEWEST_OPEN_FILES, allowed // _SHARE_OF_DESCRIPTORS))


class _WholeFile:
    """Reads the ranges of a small file, which it holds (an `ObjectReader`)."""

    remote = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing to release."""


def open_file(storage: ObjectStorage, ref: FileRef, top: str = "") -> OpenFile:
    """Return a data file, opened by one range read: of its footer, or of all of a small one (see `BlockCache.open`).

    Raises:
        CorruptionError: The file is missing or damaged.
    """
    try:
        reader = storage.open_reader(ref.path)
        if ref.size > _WHOLE:
            return OpenFile(ref, reader, read_footer(reader, ref), top=top)
        whole = _WholeFile(reader.read(0, ref.size + 1))  # a byte more: a file that is too long is noticed
    except NotFoundError as error:  # a remote storage says so at the first read
        raise CorruptionError("the data file is missing", path=ref.path) from error
    reader.close()
    return OpenFile(ref, whole, read_footer(whole, ref), held=ref.size, top=top)
