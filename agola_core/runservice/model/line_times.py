"""When each line of a log was written: a small file beside the log, made on the executor, that goes wherever it goes.

The file of an executor is a head (`agolalt1`, and the milliseconds since 1970 of the first write) and records of eight
bytes: how many bytes came, and how many milliseconds after the record before. Numbers are little-endian. Records are
appended as the log grows, so that a killed executor leaves at most a part of one, which is ignored. They get rarer as
their number grows, so that no log has more than a few megabytes of them.

A line's time is that of its last byte, or of its first 16 KiB where it is longer.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from sys import byteorder
from typing import Final

import msgspec

MAX_BYTES = 16 * 1024 * 1024
"""No file of times is larger."""

TIME_WIDTH = 24
"""The characters of a line's time, known or not, before the space that ends it."""

_DENSE_RECORDS = 1 << 14
_MAX_NUMBER = 2**32 - 1
_MAGIC, _STORED_MAGIC = b"agolalt1", b"agolalts"
_HEAD = struct.Struct("<8sQ")
_RECORD = struct.Struct("<II")
_STORED = struct.Struct("<8s16sQ")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_300_799_999  # the last millisecond of the year 9999
_UNKNOWN = b"-".ljust(TIME_WIDTH + 1)


class LineTimes(msgspec.Struct, frozen=True):
    """The times of a log's bytes.

    Attributes:
        ends: How many bytes there were, ascending.
        stamps: When, in milliseconds since 1970; never descending.
    """

    ends: array[int]
    stamps: array[int]

    @property
    def size(self) -> int:
        """How many bytes have a time."""
        return self.ends[-1] if self.ends else 0

    def at(self, end: int) -> int | None:
        """Return when the byte before a place was written, in milliseconds since 1970; None when that is not known."""
        place = bisect_left(self.ends, end)
        return self.stamps[place] if place < len(self.stamps) else None

    def before(self, stamp: int) -> int:
        """Return how many bytes were written before a time, in milliseconds since 1970."""
        place = bisect_left(self.stamps, stamp)
        return self.ends[place - 1] if place else 0

    def clipped(self, size: int) -> LineTimes:
        """Return the times of the first bytes of a log alone."""
        if self.size <= size:
            return self
        place = bisect_left(self.ends, size)
        return LineTimes(self.ends[:place] + array("Q", [size]), self.stamps[: place + 1])


NO_TIMES: Final = LineTimes(array("Q"), array("Q"))


class LineClock:
    """Makes the records of one growing log.

    Args:
        known: The records that its file has already; without any, a file is begun.
    """

    def __init__(self, known: LineTimes | None = None) -> None:
        self._records = len(known.ends) if known else 0
        self._last = known.stamps[-1] if known and known.stamps else 0
        self.size = known.size if known else 0

    @property
    def recorded(self) -> int:
        """How many bytes the file has."""
        return _HEAD.size + _RECORD.size * self._records if self._records else 0

    def wait(self, now: int) -> int:
        """Return the milliseconds until the next record: at least one, doubled with every 16,384 records."""
        pause = 1 << min(self._records // _DENSE_RECORDS, 20)
        return max(0, min(self._last + pause - now, pause)) if self._records else 0

    def take(self, size: int, now: int) -> bytes:
        """Return what is to be appended.

        Args:
            size: How many bytes the log has: more than before.
            now: Milliseconds since 1970; a clock that was set back stands still until that time has come again.
        """
        now = min(max(now, self._last), _LATEST)
        data, last = (b"", self._last) if self._records else (_HEAD.pack(_MAGIC, now), now)
        count, passed = size - self.size, now - last
        while passed > _MAX_NUMBER:
            data += self._record(0, _MAX_NUMBER)
            passed -= _MAX_NUMBER
        while count > _MAX_NUMBER:
            data += self._record(_MAX_NUMBER, passed)
            count, passed = count - _MAX_NUMBER, 0
        data += self._record(count, passed)
        self.size, self._last = size, now
        return data

    def _record(self, count: int, passed: int) -> bytes:
        self._records += 1
        return _RECORD.pack(count, passed)


def parse(data: bytes) -> LineTimes | None:
    """Return the times in an executor's file; None when it is damaged. A record that is cut off is left out."""
    if len(data) < _HEAD.size or len(data) > MAX_BYTES:
        return None
    magic, first = _HEAD.unpack_from(data)
    if magic != _MAGIC or first > _LATEST:
        return None
    numbers = array("I", data[_HEAD.size : len(data) - (len(data) - _HEAD.size) % _RECORD.size])
    if byteorder == "big":
        numbers.byteswap()
    ends = array("Q", accumulate(numbers[::2]))
    stamps = array("Q", accumulate(numbers[1::2], initial=first))[1:]
    return LineTimes(ends, stamps) if not stamps or stamps[-1] <= _LATEST else None


class GrowingTimes:
    """The times of a log that is read while it grows.

    Args:
        read: Returns what is recorded from a byte of the executor's file on; b"" when nothing is.
        clock: Milliseconds since 1970: the time of what has been written too recently to be recorded; None for none.
    """

    def __init__(self, read: Callable[[int], bytes], clock: Callable[[], int] | None = None) -> None:
        self._read = read
        self._clock = clock
        self._data = b""
        self.times = NO_TIMES

    def reach(self, end: int) -> None:
        """Read what has been recorded meanwhile, if the times do not reach as far as a place of the log."""
        if end > self.times.size:
            self._data += self._read(len(self._data))
            self.times = parse(self._data) or NO_TIMES

    def at(self, end: int) -> int | None:
        """Return the time of the byte before a place (see `LineTimes.at`)."""
        stamp = self.times.at(end)
        if stamp is None and self._clock is not None and self.times.stamps:
            return max(self._clock(), self.times.stamps[-1])
        return stamp


def encode(times: LineTimes, size: int) -> bytes:
    """Return the times of a whole log as they are stored: compressed, with a digest and the log's size."""
    clock = LineClock()
    data = b"".join(clock.take(end, stamp) for end, stamp in zip(times.ends, times.stamps, strict=True))
    packed = zlib.compress(data)
    return _STORED.pack(_STORED_MAGIC, _digest(size, packed), size) + packed


def decode(data: bytes, size: int) -> bytes:
    """Return the executor's file of stored times; b"" when they are damaged, or those of another log.

    Args:
        data: What is stored.
        size: The bytes of the log.
    """
    if len(data) < _STORED.size:
        return b""
    magic, digest, told = _STORED.unpack_from(data)
    packed = data[_STORED.size :]
    if magic != _STORED_MAGIC or told != size or digest != _digest(size, packed):
        return b""
    try:
        return zlib.decompressobj().decompress(packed, MAX_BYTES)
    except zlib.error:
        return b""


@lru_cache(maxsize=1024)
def shown(stamp: int | None) -> bytes:
    """Return a line's time as it stands before the line: RFC 3339 in UTC with milliseconds; "-" when it is not known.

    Args:
        stamp: Milliseconds since 1970.

    Example:
        >>> shown(1_577_836_800_042), shown(None)
        (b'2020-01-01T00:00:00.042Z ', b'-                        ')
    """
    if stamp is None:
        return _UNKNOWN
    time = (_EPOCH + timedelta(milliseconds=stamp)).replace(tzinfo=None)
    return f"{time.isoformat(timespec='milliseconds')}Z ".encode()


def milliseconds(time: datetime) -> int:
    """Return a time in milliseconds since 1970; times before that are its beginning."""
    return max(0, (time - _EPOCH) // timedelta(milliseconds=1))


def _digest(size: int, packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=16, salt=size.to_bytes(16, "little")).digest()
