"""Which runs a checkpoint merges with its delta: a pure decision, from sizes alone.

Runs are kept as the digits of a binary counter are: each is larger than all newer ones together. The delta takes
along everything down to the deepest run that would no longer be. So there are at most about log2(store / delta)
runs; a merge at least doubles the run that a byte is in, so a byte is rewritten about as often as the store
doubles; and a large store is rewritten only once changes as large as itself have come.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

FLOOR = 64 * 1024
"""Bytes below which runs count as equally large: many tiny checkpoints make few runs."""


def runs_to_merge(sizes: Items[int], delta: int) -> int:
    """Return how many of the newest runs a checkpoint merges with its delta.

    Args:
        sizes: The bytes of each run, newest first; before compression, as those of the delta.
        delta: The bytes of the delta, about.

    Example:
        >>> runs_to_merge([100_000, 150_000, 10_000_000], 120_000)
        2
        >>> runs_to_merge([2_000_000], 100_000)
        0
    """
    count, newer = 0, max(delta, FLOOR)
    for index, size in enumerate(sizes):
        if max(size, FLOOR) <= newer:
            count = index + 1
        newer += size
    return count
