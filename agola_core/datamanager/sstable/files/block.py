"""Encodes and decodes the blocks of data files, so that a lookup decodes only what it compares.

::

    block   = count (u32) key-ends (u32 * count) value-ends (u32 * count) tombstones (u8 * count) keys values

Numbers are little-endian. A key or value ends where its end says and begins where the one before it ends;
a tombstone's value is empty. A stored block is that, or its zstd compression where that is smaller.

A large value is a block of its own: its bytes alone, or their zstd compression; its key is in the file's footer.
So it is never copied together with others, and reading its neighbours does not read it.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from itertools import accumulate

from agola_core.datamanager.sstable.files.entries import Entry
from agola_core.encoding.compression import ZstdError, compress, decompress
from agola_core.errors import CorruptionError

PLAIN, ZSTD, LONE_PLAIN, LONE_ZSTD = range(4)
"""How a block is stored: entries as they are or compressed, one value as it is or compressed."""

LONE = frozenset({LONE_PLAIN, LONE_ZSTD})
"""The codings of one value."""

LARGEST_BLOCK = 1 << 30
"""The most bytes of a block, decompressed, where its manifest does not tell fewer."""

_COUNT = struct.Struct("<I")
_LEVEL = 1
_MINIMUM_GAIN = 0.95
_SAMPLED = 1 << 20
_SAMPLE = 1 << 16
_OVERHEAD = 200


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


def encode_lone(value: bytes) -> tuple[bytes, int]:
    """Return the stored block of one large value and its coding; the value itself where zstd gains nothing."""
    if len(value) > _SAMPLED:  # what does not compress is not to be in memory twice just to find that out
        middle = len(value) // 2
        sample = value[:_SAMPLE] + value[middle : middle + _SAMPLE] + value[-_SAMPLE:]
        if len(compress(sample, _LEVEL)) >= _MINIMUM_GAIN * len(sample):
            return value, LONE_PLAIN
    packed = compress(value, _LEVEL)
    return (packed, LONE_ZSTD) if len(packed) < _MINIMUM_GAIN * len(value) else (value, LONE_PLAIN)


def _numbers(values: Iterator[int]) -> bytes:
    numbers = array("I", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def decode_block(
    stored: bytes, coding: int, crc: int, key: bytes, path: str, offset: int, limit: int = LARGEST_BLOCK
) -> Block | LoneValue:
    """Return a block that was read.

    Args:
        stored: The stored bytes.
        coding: How they are stored.
        crc: Their crc32.
        key: The key of a lone value.
        path: The file, for errors.
        offset: Where in it the block begins.
        limit: The most bytes that it may have, decompressed: right checksums do not make a small bomb harmless.

    Raises:
        CorruptionError: The bytes are not what was written.
    """
    if zlib.crc32(stored) != crc:
        raise CorruptionError("the checksum of a block does not match", path=path, offset=offset)
    try:
        raw = decompress(stored, limit) if coding in _PACKED else stored
        return LoneValue(key, raw) if coding in LONE else Block(raw)
    except (ZstdError, MemoryError, struct.error, ValueError, IndexError) as error:
        raise CorruptionError(f"a block cannot be decoded: {error}", path=path, offset=offset) from error


_PACKED = frozenset({ZSTD, LONE_ZSTD})


class LoneValue:
    """A block of one large value.

    Attributes:
        size: Bytes of memory that it takes.
    """

    __slots__ = ("_key", "_value", "size")

    def __init__(self, key: bytes, value: bytes) -> None:
        self._key = key
        self._value = value
        self.size = len(value) + len(key) + _OVERHEAD

    def find(self, key: bytes) -> tuple[bool, bytes | None]:
        """Return whether the block has a key, and its value."""
        return (True, self._value) if key == self._key else (False, None)

    def first(self, key: bytes) -> Entry | None:
        """Return the first entry whose key is at least a given one; None if there is none."""
        return (self._key, self._value) if self._key >= key else None

    def entries(self, start: bytes = b"") -> Iterator[Entry]:
        """Yield the entry, if its key is at least `start`."""
        if self._key >= start:
            yield self._key, self._value


class Block:
    """A block of several entries.

    Args:
        raw: Its bytes, decompressed.

    Attributes:
        size: Bytes of memory that it takes.

    Raises:
        ValueError: The bytes are not a block's; so say `IndexError` and `struct.error`.
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

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        (self._count,) = _COUNT.unpack_from(raw)
        ends, tombstones = 4 + 4 * self._count, 4 + 8 * self._count
        self._key_ends = _unpacked(raw[4:ends])
        self._value_ends = _unpacked(raw[ends:tombstones])
        self._tombstones = tombstones
        self._keys_start = tombstones + self._count
        self._values_start = self._keys_start + self._key_ends[-1]
        if self._values_start + self._value_ends[-1] != len(raw):
            raise ValueError(f"its parts do not make its {len(raw)} bytes")
        self.size = len(raw) + 8 * self._count + _OVERHEAD

    def find(self, key: bytes) -> tuple[bool, bytes | None]:
        """Return whether the block has a key, and its value (None for a tombstone)."""
        index = self._place(key)
        return (True, self._value(index)) if index < self._count and self._key(index) == key else (False, None)

    def first(self, key: bytes) -> Entry | None:
        """Return the first entry whose key is at least a given one; None if there is none."""
        index = self._place(key)
        return (self._key(index), self._value(index)) if index < self._count else None

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

    def _place(self, key: bytes) -> int:
        """Return the index of the first entry whose key is at least a given one."""
        raw, ends, start = self._raw, self._key_ends, self._keys_start
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if raw[start + (ends[middle - 1] if middle else 0) : start + ends[middle]] < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _key(self, index: int) -> bytes:
        ends, start = self._key_ends, self._keys_start
        return self._raw[start + (ends[index - 1] if index else 0) : start + ends[index]]

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
