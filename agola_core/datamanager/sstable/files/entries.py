"""Entries of data files: a key, and a value or None for a tombstone.

A key is the data type, a NUL, and the id, all in UTF-8; data types hold no NUL, so keys sort by type, then id.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from collections.abc import Sequence as Items

from agola_core.errors import BadRequestError

Entry = tuple[bytes, bytes | None]


def entry_key(data_type: str, object_id: str) -> bytes:
    """Return the key of an object.

    Raises:
        BadRequestError: The id is not valid Unicode.
    """
    try:
        return f"{data_type}\0{object_id}".encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(f"the id {object_id[:80]!r} is not valid Unicode") from error


def split_key(key: bytes) -> tuple[str, str]:
    """Return the data type and the id of a key."""
    data_type, _, object_id = key.decode().partition("\0")
    return data_type, object_id


def type_bounds(data_type: str) -> tuple[bytes, bytes]:
    """Return the key before all of a type's, and the first key after them."""
    return f"{data_type}\0".encode(), f"{data_type}\x01".encode()


def merge(sources: Items[Iterator[Entry]], *, drop_tombstones: bool) -> Iterator[Entry]:
    """Yield the entries of sorted sources in order; of equal keys the one of the first source.

    Args:
        sources: Newest first, each sorted and without duplicates.
        drop_tombstones: Leave deletes out: nothing older is below them.
    """
    if len(sources) == 1:
        merged: Iterator[Entry] = sources[0]
    else:
        merged = _newest(sources)
    if drop_tombstones:
        return (entry for entry in merged if entry[1] is not None)
    return merged


def _newest(sources: Items[Iterator[Entry]]) -> Iterator[Entry]:
    ranked = [_ranked(source, rank) for rank, source in enumerate(sources)]
    last = None
    for key, _, value in heapq.merge(*ranked):
        if key != last:
            last = key
            yield key, value


def merge_back(sources: Items[Iterator[Entry]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of sources that are sorted backwards, without deletes; of equal keys the first source's.

    Args:
        sources: Newest first, each without duplicates.
    """
    ranked = [_ranked(source, -rank) for rank, source in enumerate(sources)]
    last = None
    for key, _, value in heapq.merge(*ranked, reverse=True):
        if key != last:
            last = key
            if value is not None:
                yield key, value


def _ranked(source: Iterator[Entry], rank: int) -> Iterator[tuple[bytes, int, bytes | None]]:
    return ((key, rank, value) for key, value in source)
