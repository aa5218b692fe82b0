"""Data files that are open for reading: each one's index in memory, and its blocks by range reads."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import chain

from agola_core.datamanager.sstable.files.block import LONE, Block, LoneValue, decode_block
from agola_core.datamanager.sstable.files.datafile import FileRef, Footer, KeyFilter, read_footer
from agola_core.datamanager.sstable.files.packed_keys import PackedKeys
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectReader, ObjectStorage
from agola_core.runtime.threads.parallel import parallel_map

_FILE_BYTES = 1000
"""Bytes of memory that a file takes beside its index, about."""

_FIRST_SPAN, _LAST_SPAN = 32 * 1024, 1024 * 1024
"""Bytes that a scan reads at once, at its beginning and later: a short one shall not read much too far."""

_AHEAD = 768 * 1024
"""From a span of as many bytes on, those of a remote file are read ahead: the scan is a long one."""

_SPANS_AHEAD = 2

_WHOLE = 64 * 1024
"""A file of at most this many bytes is read at once when it is opened: one request instead of two."""


class OpenFile:
    """A data file that is open.

    Args:
        storage: The store's object storage.
        ref: The file.
        reader: Reads its ranges.
        footer: Its index, as it is stored.
        opened: Called when it has got a reader again.
        top: The file that the manifest names itself: this one, or the list above it.

    Attributes:
        last_keys: The last key of each block.
        filter: Which keys it has; None for a file of the oldest run.
        reader: Reads its ranges; None while the file is closed and only its index is kept.
        size: Bytes of memory that its index and what is held of it take, about.
        used: Whether it was used again since it was opened, or last looked at for dropping.
        fetched: Whether its reader was used again since it was last looked at for closing.
    """

    __slots__ = (
        "_codings",
        "_crcs",
        "_offsets",
        "_opened",
        "_storage",
        "fetched",
        "filter",
        "last_keys",
        "reader",
        "ref",
        "size",
        "top",
        "used",
    )

    def __init__(
        self,
        storage: ObjectStorage,
        ref: FileRef,
        reader: ObjectReader,
        footer: Footer,
        opened: Callable[[OpenFile], None],
        top: str,
    ) -> None:
        self.ref = ref
        self.top = top
        self.reader: ObjectReader | None = reader
        self.last_keys = PackedKeys(footer.last_keys)
        self._storage = storage
        self._opened = opened
        self._offsets = array("I" if ref.size < 1 << 32 else "Q", [*footer.offsets, ref.footer])
        self._crcs = array("I", footer.crcs)
        self._codings = footer.codings
        self.filter = KeyFilter(footer.filter) if footer.filter else None
        self.size = _FILE_BYTES + self.last_keys.size + len(footer.filter)
        self.size += len(self._crcs) * (self._offsets.itemsize + self._crcs.itemsize + 1)
        if isinstance(reader, _WholeFile):
            self.size += ref.size
        self.used = self.fetched = False

    @property
    def has_descriptor(self) -> bool:
        """Whether its reader keeps a file of this machine open."""
        return self.reader is not None and not self.reader.remote and not isinstance(self.reader, _WholeFile)

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
        if not self._opened_reader().remote:
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

    def _opened_reader(self) -> ObjectReader:
        """Return the reader, opened again if the file was closed."""
        reader = self.reader
        if reader is None:
            try:
                self.reader = reader = self._storage.open_reader(self.ref.path)
            except NotFoundError as error:
                raise _missing(self.ref) from error
            self._opened(self)
        return reader

    def _fetch(self, offset: int, length: int) -> bytes:
        self.fetched = True
        reader = self._opened_reader()
        try:
            return reader.read(offset, length)
        except NotFoundError as error:  # a remote storage says so at the first read
            raise _missing(self.ref) from error

    def _decode(self, index: int, stored: bytes) -> Block | LoneValue:
        coding = self._codings[index]
        return decode_block(
            stored,
            coding,
            self._crcs[index],
            self.last_keys[index] if coding in LONE else b"",
            self.ref.path,
            self._offsets[index],
            self.ref.largest_block,
        )


class _WholeFile:
    """Reads the ranges of a small file, which it holds (an `ObjectReader`)."""

    remote = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing to release."""


def open_file(
    storage: ObjectStorage, ref: FileRef, top: str = "", opened: Callable[[OpenFile], None] = lambda _: None
) -> OpenFile:
    """Return a data file, opened by one range read: of its footer, or of all of a small one.

    Args:
        storage: The store's object storage.
        ref: The file.
        top: The list in the manifest that it is named below; "" for a file that the manifest names itself.
        opened: Called whenever it got a reader.

    Raises:
        CorruptionError: The file is missing or damaged.
    """
    try:
        reader = storage.open_reader(ref.path)
        if ref.size <= _WHOLE:
            whole = _WholeFile(reader.read(0, ref.size + 1))  # a byte more: a file that is too long is noticed
            reader.close()
            reader = whole
        file = OpenFile(storage, ref, reader, read_footer(reader, ref), opened, top or ref.path)
    except NotFoundError as error:  # a remote storage says so at the first read
        raise _missing(ref) from error
    opened(file)
    return file


def _missing(ref: FileRef) -> CorruptionError:
    """Return what a missing file is: to whoever reads an object, `NotFoundError` would mean that there is none."""
    return CorruptionError("the data file is missing", path=ref.path)
