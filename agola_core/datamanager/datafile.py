r"""Data files: sorted entries in checksummed blocks, found through a sparse index in the footer.

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
from itertools import chain

import msgspec

from agola_core import faultpoints
from agola_core.datamanager import layout
from agola_core.datamanager.block import encode_block
from agola_core.datamanager.entries import Entry, split_key
from agola_core.datamanager.types import Options
from agola_core.errors import CorruptionError
from agola_core.objectstorage.port import ObjectStorage

faultpoints.declare("checkpoint.before-data-file")

MAGIC = b"agola-data-1\n"
END = b"agoladat"
TRAILER = struct.Struct("<QII8s")
_ENTRY_BYTES = 9


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """The index of a data file, an item for each block.

    Attributes:
        last_keys: The last key of each block.
        offsets: Where each block begins.
        lengths: Its stored bytes.
        crcs: The crc32 of its stored bytes.
        codings: How it is stored, a byte each.
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
        path: Where it lies.
        size: Its bytes.
        digest: blake2b-32 of the whole file, in hexadecimal.
        entries: How many entries it has, tombstones among them.
        tombstones: How many of them are deletes.
        first: The data type and id of its first entry.
        last: Those of its last.
        footer: Where its footer begins.
    """

    path: str
    size: int
    digest: str
    entries: int
    tombstones: int
    first: tuple[str, str]
    last: tuple[str, str]
    footer: int


def key_hash(key: bytes) -> int:
    """Return the hash that a file's filter knows a key by."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


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
        return msgspec.msgpack.decode(data[:end], type=Footer)
    except msgspec.MsgspecError as error:
        raise CorruptionError(f"not a footer: {error}", path=ref.path, offset=ref.footer) from error


class KeyFilter:
    """Tells practically exactly whether a file has a key (a miss is wrong once in 2**64 keys or so)."""

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
) -> list[FileRef]:
    """Write sorted entries into as many data files as they need, holding a block at a time in memory.

    Args:
        storage: Where to write.
        entries: Sorted by key, without duplicates.
        options: The sizes of blocks and files.
        new_uuid: Names a file.
        with_filter: Whether readers may skip the files by their keys' hashes.
        check: Called before each file; raises when the work has become useless.
    """
    refs: list[FileRef] = []
    for first in entries:
        check()
        writer = _FileWriter(layout.data_file(new_uuid()), chain([first], entries), options, with_filter)
        faultpoints.reach("checkpoint.before-data-file")
        storage.write(writer.path, writer.pieces())
        refs.append(writer.ref())
    return refs


class _FileWriter:
    """Writes one file from the beginning of some entries; the rest are left to the next."""

    def __init__(self, path: str, entries: Iterator[Entry], options: Options, with_filter: bool) -> None:
        self.path = path
        self._entries = entries
        self._options = options
        self._with_filter = with_filter
        self._digest = hashlib.blake2b(digest_size=32)
        self._size = 0
        self._footer = Footer([], [], [], [], b"", b"")
        self._codings = bytearray()
        self._hashes: list[int] = []
        self._count = 0
        self._tombstones = 0
        self._first = b""
        self._footer_offset = 0

    def pieces(self) -> Iterator[bytes]:
        yield self._piece(MAGIC)
        keys: list[bytes] = []
        values: list[bytes | None] = []
        held, last = 0, b""
        for key, value in self._entries:
            if key <= last:
                raise CorruptionError(f"key {key!r} does not follow {last!r}", path=self.path)
            last = key
            keys.append(key)
            values.append(value)
            held += len(key) + _ENTRY_BYTES + (0 if value is None else len(value))
            if held >= self._options.block_size:
                yield self._block(keys, values)
                keys, values, held = [], [], 0
                if self._size >= self._options.file_size:
                    break
        if keys:
            yield self._block(keys, values)
        self._footer_offset = self._size
        hashes = array("Q", sorted(self._hashes))
        if sys.byteorder == "big":
            hashes.byteswap()
        index = self._footer
        footer = msgspec.msgpack.encode(
            Footer(
                index.last_keys,
                index.offsets,
                index.lengths,
                index.crcs,
                bytes(self._codings),
                hashes.tobytes(),
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
            split_key(self._footer.last_keys[-1]),
            self._footer_offset,
        )

    def _block(self, keys: list[bytes], values: list[bytes | None]) -> bytes:
        stored, coding = encode_block(keys, values)
        index = self._footer
        index.last_keys.append(keys[-1])
        index.offsets.append(self._size)
        index.lengths.append(len(stored))
        index.crcs.append(zlib.crc32(stored))
        self._codings.append(coding)
        self._first = self._first or keys[0]
        self._count += len(keys)
        self._tombstones += values.count(None)
        if self._with_filter:
            self._hashes.extend(map(key_hash, keys))
        return self._piece(stored)

    def _piece(self, data: bytes) -> bytes:
        self._size += len(data)
        self._digest.update(data)
        return data
