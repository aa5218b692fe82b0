"""The last keys of a data file's blocks, packed: many keys take less than a third of a list's memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import overload

_GROUP = 8
_OBJECT_BYTES = 48
"""Bytes of memory of a small object and its place in a list, about."""


class PackedKeys(Sequence[bytes]):
    """Sorted keys, packed: what all of them begin with stands once, and the rest of each in one piece of bytes.

    Args:
        keys: The keys, sorted.

    Attributes:
        size: Bytes of memory that they take, about.
    """

    __slots__ = ("_ends", "_marks", "_prefix", "_rests", "size")

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._prefix = _common(keys[0], keys[-1]) if keys else b""
        rests = [key[len(self._prefix) :] for key in keys]
        self._ends = array("I", accumulate(map(len, rests)))
        self._rests = b"".join(rests)
        self._marks = rests[_GROUP - 1 :: _GROUP]  # a search in them is one in C, and leaves few keys to unpack
        marks = sum(map(len, self._marks)) + _OBJECT_BYTES * len(self._marks)
        self.size = len(self._rests) + self._ends.itemsize * len(rests) + marks + len(self._prefix)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Return a key, or some."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        ends = self._ends
        end = ends[index]
        number = index + len(ends) if index < 0 else index
        return self._prefix + self._rests[ends[number - 1] if number else 0 : end]

    def find(self, key: bytes) -> int:
        """Return the index of the first key that is at least a given one; their number if there is none."""
        skip = len(self._prefix)
        if skip and key[:skip] != self._prefix:
            return 0 if key < self._prefix else len(self._ends)
        rest, rests, ends = key[skip:], self._rests, self._ends
        low = _GROUP * bisect_left(self._marks, rest)
        high = min(low + _GROUP - 1, len(ends))
        while low < high:
            middle = (low + high) // 2
            if rests[ends[middle - 1] if middle else 0 : ends[middle]] < rest:
                low = middle + 1
            else:
                high = middle
        return low


def _common(first: bytes, last: bytes) -> bytes:
    """Return what two keys, and so all between them, begin with."""
    for index, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:index]
    return min(first, last, key=len)
