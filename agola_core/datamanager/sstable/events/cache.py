"""Events read last from the data files, decoded, and where short streams have theirs. Belongs to one table."""

from __future__ import annotations

import threading
from collections import OrderedDict

from agola_core.datamanager.format.events import Batch
from agola_core.runtime.processes.forks import fork_safe

_BATCHES = 4096
_LARGEST_BATCH = 64 * 1024
_BYTES = 16 * 1024 * 1024
_STREAMS = 1024
_LONGEST_STREAM = 512

Places = list[tuple[int, int]]
"""For each batch of a stream its last version and its last position."""


class EventCache:
    """Bounded; those unused for longest go first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = fork_safe(threading.Lock())
        self._batches: OrderedDict[int, tuple[Batch, int]] = OrderedDict()
        self._size = 0
        self._places: OrderedDict[str, Places] = OrderedDict()

    def batch(self, last: int) -> Batch | None:
        """Return the batch that ends at a position, if it is kept."""
        found = self._batches.get(last)
        return found[0] if found is not None else None

    def keep(self, last: int, batch: Batch) -> None:
        """Keep a batch."""
        size = sum(len(event.data) for event in batch.events)
        if size > _LARGEST_BATCH:
            return
        with self._lock:
            if last not in self._batches:
                self._batches[last] = batch, size
                self._size += size
            while len(self._batches) > _BATCHES or self._size > _BYTES:
                self._size -= self._batches.popitem(last=False)[1][1]

    def places(self, stream: str) -> Places | None:
        """Return where a stream has its batches, if that is kept."""
        return self._places.get(stream)

    def keep_places(self, stream: str, places: Places) -> None:
        """Keep where a stream has its batches, all of them."""
        if len(places) > _LONGEST_STREAM:
            return
        with self._lock:
            self._places[stream] = places
            while len(self._places) > _STREAMS:
                self._places.popitem(last=False)
