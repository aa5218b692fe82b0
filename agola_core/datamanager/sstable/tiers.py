"""Decides which runs a checkpoint merges with its changes, from sizes alone.

Each run is kept larger than all newer ones together, like the digits of a binary counter. The delta, which is the new
changes, is merged with everything down to the deepest run that would no longer be. So there are at most about
log2(store / delta) runs; a merge at least doubles the run that a byte is in, so a byte is rewritten about as often as
the store doubles; and a large store is rewritten only once changes as large as itself have come.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

FLOOR = 64 * 1024
"""Bytes below which runs count as equally large: many tiny checkpoints make few runs."""


def runs_to_merge(sizes: Items[int], delta: int, shadowed: Items[int] = ()) -> int:
    """Return how many of the newest runs a checkpoint merges with its delta.

    A delete counts about as much as the data that it deletes; otherwise that data would keep its space until enough
    puts have come.

    Args:
        sizes: The bytes of each run, newest first; before compression, as those of the delta.
        delta: The bytes of the delta, about.
        shadowed: The bytes that the deletes of the delta, then of each run, take from what is older; none by default.

    Example:
        >>> runs_to_merge([100_000, 150_000, 10_000_000], 120_000)
        2
        >>> runs_to_merge([2_000_000], 100_000)
        0
        >>> runs_to_merge([2_000_000], 100_000, [1_900_000, 0])
        1
    """
    below = tuple(shadowed) or (0,) * (len(sizes) + 1)
    count, newer = 0, max(delta, FLOOR) + below[0]
    for index, size in enumerate(sizes):
        if max(size, FLOOR) <= newer:
            count = index + 1
        newer += size + below[index + 1]
    return count


def shadowed_by_deletes(deletes: Items[int], sizes: Items[int], puts: Items[int]) -> list[int]:
    """Return the bytes that deletes take from what is older, by the mean size of what was put there.

    Args:
        deletes: How many the delta has, then each run, newest first.
        sizes: The bytes of each run.
        puts: How many entries of each run are no deletes.

    Example:
        >>> shadowed_by_deletes([10, 0, 1], [5_000, 100_000], [50, 100])
        [7000, 0, 0]
    """
    found = []
    for index, count in enumerate(deletes):
        older = sum(puts[index:])
        found.append(count * sum(sizes[index:]) // older if older else 0)
    return found
