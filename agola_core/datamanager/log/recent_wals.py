"""The newest WALs of a log, kept in memory for feeds and uploads that follow closely."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence as Items
from itertools import islice

from agola_core.datamanager.format.records import Wal
from agola_core.runtime.processes.forks import fork_safe
from agola_core.sequence import Sequence

_RECENT_WALS = 16 * 1024
_RECENT_PAGE = 1024
_RECENT_BYTES = 8 * 1024 * 1024


class RecentWals:
    """The newest WALs of one lineage, bounded by count and bytes. Thread-safe.

    Args:
        lineage: The lineage's id.
    """

    def __init__(self, lineage: str) -> None:
        self.lineage = lineage
        self._lock = fork_safe(threading.Lock())
        self._wals: deque[Wal] = deque()
        self._bytes = 0

    def add(self, wals: Items[Wal]) -> None:
        """Add WALs that follow the newest, and drop the oldest beyond the bounds."""
        with self._lock:
            held, size = self._wals, self._bytes
            for wal in wals:
                held.append(wal)
                size += wal.size
            while len(held) > _RECENT_WALS or size > _RECENT_BYTES:
                size -= held.popleft().size
            self._bytes = size

    def after(self, sequence: Sequence) -> list[Wal] | None:
        """Return a page of the WALs after a sequence of their epoch; None if some of them are no longer held."""
        with self._lock:
            if not self._wals:
                return None
            first = self._wals[0].record
            if sequence < first.previous_sequence:
                return None
            skip = sequence.counter - first.previous
            return list(islice(self._wals, skip, skip + _RECENT_PAGE))

    def newest(self, after: Sequence) -> list[Wal]:
        """Return all WALs after a sequence; none if they are more than a page, or are not all held."""
        with self._lock:
            if not self._wals:
                return []
            last = self._wals[-1].record
            count = last.counter - after.counter
            if after.epoch != last.epoch or not 0 < count <= min(len(self._wals), _RECENT_PAGE):
                return []
            return list(islice(reversed(self._wals), count))[::-1]
