"""Blocks of data files: some entries, laid out so that a lookup decodes only what it compares.

::

    block   = count (u32) key-ends (u32 * count) value-ends (u32 * count) tombstones (u8 * count) keys values

Numbers are little-endian. A key or value ends where its end says and begins where the one before it ends;
a tombstone's value is empty. A stored block is that, or its zstd compression where that is smaller.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from itertools import accumulate

from agola_core.compression import ZstdError, compress, decompress
from agola_core.datamanager.entries import Entry
from agola_core.errors import CorruptionError

PLAIN, ZSTD = 0, 1
_COUNT = struct.Struct("<I")
_LEVEL = 1
_MINIMUM_GAIN = 0.95


def encode_block(keys: list[bytes], values: list[bytes | None]) -> tuple[bytes, int]:
    """Return a stored block and its coding, `PLAIN` or `ZSTD`."""
    filled = [b"" if value is None else value for value in values]
    raw = b"".join(
        (
            _COUNT.pack(len(keys)),
            _numbers(accumulate(map(len, keys))),
            _numbers(accumulate(map(len, filled))),
            bytes(value is None for value in values),
            *keys,
            *filled,
        )
    )
    packed = compress(raw, _LEVEL)
    return (packed, ZSTD) if len(packed) < _MINIMUM_GAIN * len(raw) else (raw, PLAIN)


def _numbers(values: Iterator[int]) -> bytes:
    numbers = array("I", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


class Block:
    """A block that was read.

    Args:
        stored: The stored bytes.
        coding: `PLAIN` or `ZSTD`.
        crc: The crc32 of the stored bytes.
        path: The file, for errors.
        offset: Where in it the block begins.

    Attributes:
        size: Bytes of memory that it takes.

    Raises:
        CorruptionError: The bytes are not what was written.
    """

    __slots__ = (
        "_count",
        "_key_ends",
        "_keys_start",
        "_raw",
        "_tombstones",
        "_value_ends",
        "_values_start",
        "size",
    )

    def __init__(self, stored: bytes, coding: int, crc: int, path: str, offset: int) -> None:
        if zlib.crc32(stored) != crc:
            raise CorruptionError("the checksum of a block does not match", path=path, offset=offset)
        try:
            self._raw = raw = decompress(stored) if coding == ZSTD else stored
        except ZstdError as error:
            raise CorruptionError(f"a block cannot be decompressed: {error}", path=path, offset=offset) from error
        (self._count,) = _COUNT.unpack_from(raw)
        ends, tombstones = 4 + 4 * self._count, 4 + 8 * self._count
        self._key_ends = _unpacked(raw[4:ends])
        self._value_ends = _unpacked(raw[ends:tombstones])
        self._tombstones = tombstones
        self._keys_start = tombstones + self._count
        self._values_start = self._keys_start + self._key_ends[-1]
        self.size = len(raw) + 8 * self._count

    def find(self, key: bytes) -> tuple[bool, bytes | None]:
        """Return whether the block has a key, and its value (None for a tombstone)."""
        raw, ends, start = self._raw, self._key_ends, self._keys_start
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if raw[start + (ends[middle - 1] if middle else 0) : start + ends[middle]] < key:
                low = middle + 1
            else:
                high = middle
        if low == self._count or raw[start + (ends[low - 1] if low else 0) : start + ends[low]] != key:
            return False, None
        return True, self._value(low)

    def entries(self, start: bytes = b"") -> Iterator[Entry]:
        """Yield the entries whose keys are at least `start`."""
        raw, tombstones = self._raw, self._tombstones
        key_at, value_at = self._keys_start, self._values_start
        keys_start, values_start = key_at, value_at
        for index, (key_end, value_end) in enumerate(zip(self._key_ends, self._value_ends, strict=True)):
            key = raw[key_at : keys_start + key_end]
            if key >= start:
                yield key, None if raw[tombstones + index] else raw[value_at : values_start + value_end]
            key_at, value_at = keys_start + key_end, values_start + value_end

    def _value(self, index: int) -> bytes | None:
        if self._raw[self._tombstones + index]:
            return None
        ends = self._value_ends
        start = ends[index - 1] if index else 0
        return self._raw[self._values_start + start : self._values_start + ends[index]]


def _unpacked(data: bytes) -> array[int]:
    numbers = array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
