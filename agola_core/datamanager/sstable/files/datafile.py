r"""Data files (SSTables): sorted entries in checksummed blocks, with a sparse index in the footer.

::

    file    = magic block* footer trailer
    magic   = b"agola-data-1\\n"
    footer  = MessagePack of `Footer`
    trailer = footer offset (u64) footer length (u32) crc32 of the footer (u32) b"agoladat", little-endian

A manifest knows where the footer begins, so opening a file is one range read, and every point read after it
is one more at most. Files are never changed once written.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate, chain

import msgspec

from agola_core.datamanager.format import layout
from agola_core.datamanager.sstable.files.block import LARGEST_BLOCK, encode_block, encode_lone
from agola_core.datamanager.sstable.files.entries import Entry, entry_key, split_key
from agola_core.datamanager.types import Options
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import CorruptionError
from agola_core.objectstorage.port import ObjectReader, ObjectStorage
from agola_core.runtime import faultpoints

faultpoints.declare("checkpoint.before-data-file")

MAGIC = b"agola-data-1\n"
END = b"agoladat"
TRAILER = struct.Struct("<QII8s")
_ENTRY_BYTES = 9
_RAW_FACTOR = 4
"""A file is closed, too, at this many times its size before compression: its index and filter stay small."""
_MAX_ENTRIES = 1 << 20


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """The index of a data file, an item for each block.

    Attributes:
        last_keys: The last key of each block.
        offsets: The offset of each block.
        lengths: The stored bytes of each block.
        crcs: The crc32 of each block's stored bytes.
        codings: How each block is stored, one byte each.
        filter: Sorted 64-bit hashes of all keys, little-endian; empty in files of the oldest run.
    """

    last_keys: list[bytes]
    offsets: list[int]
    lengths: list[int]
    crcs: list[int]
    codings: bytes
    filter: bytes


class FileRef(msgspec.Struct, frozen=True):
    """A data file as a manifest names it.

    Attributes:
        path: Its path.
        size: Its bytes.
        digest: blake2b-32 of the whole file, in hexadecimal.
        entries: How many entries it has, tombstones among them.
        tombstones: How many of them are deletes.
        first: The data type and id of its first entry.
        last: Those of its last.
        footer: The offset of its footer.
        raw: Bytes of its entries before compression; 0 if not known.
    """

    path: str
    size: int
    digest: str
    entries: int
    tombstones: int
    first: tuple[str, str]
    last: tuple[str, str]
    footer: int
    raw: int = 0

    @property
    def largest_block(self) -> int:
        """The most bytes that one of its blocks has, decompressed."""
        return self.raw + 4 if self.raw else LARGEST_BLOCK


def key_hash(key: bytes) -> int:
    """Return the hash of a key in a file's filter."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def key_hashes(keys: list[bytes]) -> array[int]:
    """Return the hashes of many keys."""
    hashes = array("Q", b"".join([hashlib.blake2b(key, digest_size=8).digest() for key in keys]))
    if sys.byteorder == "big":
        hashes.byteswap()
    return hashes


def encode_filter(hashes: array[int]) -> bytes:
    """Return the filter of a file from the hashes of its keys."""
    ordered = array("Q", sorted(hashes))
    if sys.byteorder == "big":
        ordered.byteswap()
    return ordered.tobytes()


def decode_footer(data: bytes, ref: FileRef) -> Footer:
    """Return the footer of a file.

    Args:
        data: The file's bytes from `ref.footer` on.
        ref: The file.

    Raises:
        CorruptionError: The bytes are not what was written.
    """
    end = len(data) - TRAILER.size
    if ref.footer + len(data) != ref.size or end < 0:
        raise CorruptionError("the file is cut short", path=ref.path, offset=ref.footer + len(data))
    offset, length, crc, magic = TRAILER.unpack_from(data, end)
    if magic != END or offset != ref.footer or length != end:
        raise CorruptionError("the trailer does not match", path=ref.path, offset=ref.footer + end)
    if zlib.crc32(data[:end]) != crc:
        raise CorruptionError("the checksum of the footer does not match", path=ref.path, offset=ref.footer)
    try:
        footer = msgspec.msgpack.decode(data[:end], type=Footer)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a footer: {error}", path=ref.path, offset=ref.footer) from error
    blocks = len(footer.last_keys)
    if not (
        blocks == len(footer.crcs) == len(footer.codings)
        and list(accumulate(footer.lengths, initial=len(MAGIC))) == [*footer.offsets, ref.footer]
        and len(footer.filter) in {0, 8 * ref.entries}
        and footer.last_keys[-1:] == [entry_key(*ref.last)]
    ):
        raise CorruptionError("the footer does not fit the file", path=ref.path, offset=ref.footer)
    return footer


def read_footer(reader: ObjectReader, ref: FileRef) -> Footer:
    """Return the footer of a file that was opened, by one range read.

    Raises:
        CorruptionError: The bytes are not what was written, or not as many.
    """
    return decode_footer(read_tail(reader, ref), ref)


def read_tail(reader: ObjectReader, ref: FileRef) -> bytes:
    """Return what a file has from its footer on, and a byte more if it is longer than it should be.

    Raises:
        CorruptionError: There cannot be a footer.
    """
    length = ref.size - ref.footer
    if ref.footer < len(MAGIC) or length < TRAILER.size:
        raise CorruptionError(f"a footer cannot lie at {ref.footer} of {ref.size} bytes", path=ref.path)
    return reader.read(ref.footer, length + 1)


class KeyFilter:
    """Tells whether a file may have a key; it is wrong about once in 2**64 keys."""

    def __init__(self, data: bytes) -> None:
        self._hashes = array("Q", data)
        if sys.byteorder == "big":
            self._hashes.byteswap()

    def may_have(self, hashed: int) -> bool:
        """Return whether a key with this hash is in the file."""
        index = bisect_left(self._hashes, hashed)
        return index < len(self._hashes) and self._hashes[index] == hashed


def write_files(
    storage: ObjectStorage,
    entries: Iterator[Entry],
    options: Options,
    new_uuid: Callable[[], str],
    *,
    with_filter: bool,
    check: Callable[[], None] = lambda: None,
    fewest: int = 1,
    point: str = "checkpoint.before-data-file",
) -> list[FileRef]:
    """Write sorted entries into as many data files as they need, holding a block at a time in memory.

    Args:
        storage: The store's object storage.
        entries: Sorted by key, without duplicates.
        options: The sizes of blocks and files.
        new_uuid: Names a file.
        with_filter: Whether readers may skip the files by their keys' hashes.
        check: Called before each file; raises once the work has become useless.
        fewest: How many entries a file has, the last one excepted, however large they are.
        point: The fault point before each file.
    """
    refs: list[FileRef] = []
    last = b""
    for first in entries:
        writer = _FileWriter(layout.data_file(new_uuid()), chain([first], entries), last, options, with_filter, fewest)
        faultpoints.reach(point)
        check()
        storage.write(writer.path, writer.pieces())
        refs.append(writer.ref())
        last = writer.last
    return refs


class _FileWriter:
    """Writes one file from the beginning of some entries; the rest are left to the next."""

    def __init__(
        self, path: str, entries: Iterator[Entry], last: bytes, options: Options, with_filter: bool, fewest: int
    ) -> None:
        self.path = path
        self.last = last
        self._entries = entries
        self._options = options
        self._with_filter = with_filter
        self._fewest = fewest
        self._digest = hashlib.blake2b(digest_size=32)
        self._size = 0
        self._footer = Footer([], [], [], [], b"", b"")
        self._codings = bytearray()
        self._hashes = array("Q")
        self._count = 0
        self._tombstones = 0
        self._raw = 0
        self._first = b""
        self._footer_offset = 0

    def pieces(self) -> Iterator[bytes]:
        yield self._piece(MAGIC)
        yield from self._blocks()
        self._footer_offset = self._size
        index = self._footer
        footer = msgspec.msgpack.encode(
            Footer(
                index.last_keys,
                index.offsets,
                index.lengths,
                index.crcs,
                bytes(self._codings),
                encode_filter(self._hashes),
            )
        )
        yield self._piece(footer)
        yield self._piece(TRAILER.pack(self._footer_offset, len(footer), zlib.crc32(footer), END))

    def ref(self) -> FileRef:
        return FileRef(
            self.path,
            self._size,
            self._digest.hexdigest(),
            self._count,
            self._tombstones,
            split_key(self._first),
            split_key(self.last),
            self._footer_offset,
            self._raw,
        )

    def _blocks(self) -> Iterator[bytes]:
        block_size = self._options.block_size
        keys: list[bytes] = []
        values: list[bytes | None] = []
        held, last = 0, self.last
        for key, value in self._entries:
            if key <= last:
                raise CorruptionError(f"key {key!r} does not follow {last!r}", path=self.path)
            last = key
            size = 0 if value is None else len(value)
            if value is not None and size >= block_size:
                if keys:
                    yield self._block(keys, values, held)
                    keys, values, held = [], [], 0
                yield self._indexed(*encode_lone(value), [key], size + len(key))
            else:
                keys.append(key)
                values.append(value)
                held += len(key) + _ENTRY_BYTES + size
                if held < block_size:
                    continue
                yield self._block(keys, values, held)
                keys, values, held = [], [], 0
            if self._full():
                return
        if keys:
            yield self._block(keys, values, held)

    def _block(self, keys: list[bytes], values: list[bytes | None], held: int) -> bytes:
        self._tombstones += values.count(None)
        return self._indexed(*encode_block(keys, values), keys, held)

    def _indexed(self, stored: bytes, coding: int, keys: list[bytes], raw: int) -> bytes:
        index = self._footer
        index.last_keys.append(keys[-1])
        index.offsets.append(self._size)
        index.lengths.append(len(stored))
        index.crcs.append(zlib.crc32(stored))
        self._codings.append(coding)
        self._first = self._first or keys[0]
        self.last = keys[-1]
        self._count += len(keys)
        self._raw += raw
        if self._with_filter:
            self._hashes.extend(key_hashes(keys))
        return self._piece(stored)

    def _full(self) -> bool:
        limit = self._options.file_size
        if self._count < self._fewest:
            return False
        return self._size >= limit or self._raw >= _RAW_FACTOR * limit or self._count >= _MAX_ENTRIES

    def _piece(self, data: bytes) -> bytes:
        self._size += len(data)
        self._digest.update(data)
        return data
