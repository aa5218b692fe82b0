"""What tables share in memory: opened data files with their indexes, and the blocks read last."""

from __future__ import annotations

import threading
from collections import OrderedDict

from agola_core.datamanager.block import Block, LoneValue, decode_block
from agola_core.datamanager.datafile import FileRef, Footer, KeyFilter, read_footer
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectReader, ObjectStorage

_OPEN_FILES = 256
_INDEX_BYTES = 256 * 1024 * 1024
_GATES = 16
_LARGEST_SHARE = 8
"""A block larger than this part of the cache is not kept: it would push out too many others."""


class OpenFile:
    """A data file that is open.

    Args:
        ref: The file.
        reader: Reads its ranges.
        footer: Its index.

    Attributes:
        filter: Which keys it has; None for a file of the oldest run.
        size: Bytes of memory that its index takes, about.
        used: Whether it was used again since it was opened, or last looked at for dropping.
    """

    __slots__ = ("filter", "footer", "reader", "ref", "size", "used")

    def __init__(self, ref: FileRef, reader: ObjectReader, footer: Footer) -> None:
        self.ref = ref
        self.reader = reader
        self.footer = footer
        self.filter = KeyFilter(footer.filter) if footer.filter else None
        self.size = 3 * (ref.size - ref.footer)
        self.used = False


class BlockCache:
    """Opened files and decoded blocks, those unused for longest dropped first. Thread-safe.

    Args:
        limit: Bytes of decoded blocks to keep.
        open_files: The most files to keep open.
        index_limit: Bytes of the opened files' indexes to keep.
    """

    def __init__(
        self, limit: int = 64 * 1024 * 1024, open_files: int = _OPEN_FILES, index_limit: int = _INDEX_BYTES
    ) -> None:
        self._limit = limit
        self._open_files = open_files
        self._index_limit = index_limit
        self._size = 0
        self._index_size = 0
        self._lock = threading.Lock()
        self._gates = [threading.Lock() for _ in range(_GATES)]
        self._blocks: OrderedDict[tuple[str, int], Block | LoneValue] = OrderedDict()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()

    def open(self, storage: ObjectStorage, ref: FileRef) -> OpenFile:
        """Return an opened data file; opening reads its footer, once for all who wait for it.

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
                file = open_file(storage, ref)
                self._keep_file(file)
        return file

    def block(self, file: OpenFile, index: int) -> Block | LoneValue:
        """Return a block of a file; one range read unless it is kept.

        Raises:
            CorruptionError: The block is damaged.
        """
        key = (file.ref.path, index)
        block = self._blocks.get(key)
        if block is not None:
            with self._lock:
                if key in self._blocks:
                    self._blocks.move_to_end(key)
            return block
        block = read_block(file, index)
        if block.size > self._limit // _LARGEST_SHARE:
            return block
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._size += block.size
                while self._size > self._limit:
                    self._size -= self._blocks.popitem(last=False)[1].size
        return block

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


def open_file(storage: ObjectStorage, ref: FileRef) -> OpenFile:
    """Return a data file, opened: its footer is one range read.

    Raises:
        CorruptionError: The file is missing or damaged.
    """
    try:
        reader = storage.open_reader(ref.path)
    except NotFoundError as error:
        raise CorruptionError("the data file is missing", path=ref.path) from error
    return OpenFile(ref, reader, read_footer(reader, ref))


def read_block(file: OpenFile, index: int) -> Block | LoneValue:
    """Return a block of a file, read from the storage.

    Raises:
        CorruptionError: The block is damaged.
    """
    footer = file.footer
    offset = footer.offsets[index]
    stored = file.reader.read(offset, footer.lengths[index])
    return decode_block(
        stored, footer.codings[index], footer.crcs[index], footer.last_keys[index], file.ref.path, offset
    )
