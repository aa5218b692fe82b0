"""Which runs a checkpoint merges with its delta: a pure decision, from sizes alone.

Runs are kept as the digits of a binary counter are: the delta takes along the newer runs that are no larger
than what was taken so far. Every run is then larger than all newer ones together, so there are about
log2(store / delta) runs, an entry is rewritten about that often, and a large store is rewritten only once
changes as large as itself have come.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

FLOOR = 64 * 1024
"""Bytes below which runs count as equally large: many tiny checkpoints make few runs."""


def runs_to_merge(sizes: Items[int], delta: int) -> int:
    """Return how many of the newest runs a checkpoint merges with its delta.

    Args:
        sizes: The bytes of each run, newest first.
        delta: The bytes of the delta, about.

    Example:
        >>> runs_to_merge([100_000, 150_000, 10_000_000], 120_000)
        2
        >>> runs_to_merge([2_000_000], 100_000)
        0
    """
    taken = max(delta, FLOOR)
    for count, size in enumerate(sizes):
        if max(size, FLOOR) > taken:
            return count
        taken += size
    return len(sizes)
