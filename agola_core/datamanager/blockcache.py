"""What tables share in memory: opened data files with their indexes, and the blocks read last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from agola_core.datamanager.block import Block
from agola_core.datamanager.datafile import FileRef, Footer, KeyFilter, decode_footer
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectReader, ObjectStorage

_OPEN_FILES = 256


class OpenFile(NamedTuple):
    """A data file that is open."""

    ref: FileRef
    reader: ObjectReader
    footer: Footer
    filter: KeyFilter | None


class BlockCache:
    """Opened files and decoded blocks, the least recently used dropped first. Thread-safe.

    Args:
        limit: Bytes of decoded blocks to keep.
    """

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._size = 0
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()

    def open(self, storage: ObjectStorage, ref: FileRef) -> OpenFile:
        """Return an opened data file; opening reads its footer.

        Raises:
            CorruptionError: The file is missing or damaged.
        """
        file = self._files.get(ref.path)
        if file is not None:
            return file
        try:
            reader = storage.open_reader(ref.path)
        except NotFoundError as error:
            raise CorruptionError("the data file is missing", path=ref.path) from error
        footer = decode_footer(reader.read(ref.footer, ref.size - ref.footer + 1), ref)
        file = OpenFile(ref, reader, footer, KeyFilter(footer.filter) if footer.filter else None)
        with self._lock:
            self._files[ref.path] = file
            if len(self._files) > _OPEN_FILES:  # its reader closes with its last user
                self._files.popitem(last=False)
        return file

    def block(self, file: OpenFile, index: int) -> Block:
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
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._size += block.size
                while self._size > self._limit and len(self._blocks) > 1:
                    self._size -= self._blocks.popitem(last=False)[1].size
        return block


def read_block(file: OpenFile, index: int) -> Block:
    """Return a block of a file, read from the storage."""
    footer = file.footer
    offset = footer.offsets[index]
    stored = file.reader.read(offset, footer.lengths[index])
    return Block(stored, footer.codings[index], footer.crcs[index], file.ref.path, offset)
